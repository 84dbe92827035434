"""The listening room: sound comes in as it is spoken, and what the mouth does comes out, frame by video frame.

One `Listener` hears one recording or live stream. It works through the sound in blocks of one video frame, always in
the same shapes, so what it says does not depend on how the sound was cut into chunks: a stream equals the whole
recording to the last bit. What it says of a frame rests on the sound up to 120 ms after it.

    N sample   F acoustic frame (10 ms)   C articulator   K video frame   W width of the network
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import erf

from generator.coarticulation import ARTICULATOR_INDEX
from generator.lips import (
    AUDIBLE_AFTER,
    AUDIBLE_BEFORE,
    CONTACTS,
    LOOKAHEAD_STEPS,
    LipNetwork,
    audible_share,
    decide_contacts,
    gated,
    relative_loudness,
    speech_gate,
)
from generator.speech import HOP_SAMPLES, SPEECH_RATE_HZ, WINDOW_SAMPLES, LevelFollower, log_mel_frames, loudness

VIDEO_RATE_HZ: Final = 25.0
BLOCK_SAMPLES: Final = int(SPEECH_RATE_HZ / VIDEO_RATE_HZ)
_FRAMES: Final = BLOCK_SAMPLES // HOP_SAMPLES  # acoustic frames in a block
_STEPS: Final = _FRAMES // 2  # network steps in a block
_HISTORY: Final = WINDOW_SAMPLES - HOP_SAMPLES
# Blocks from a sound to the video frame that it is the last to decide: 120 ms.
LATENCY_BLOCKS: Final = 3
_SPEECH: Final = ARTICULATOR_INDEX["speech"]
_FULL: Final = np.ones(1, np.float32)


@dataclass(frozen=True)
class Heard:
    """What is heard at one video frame.

    Attributes:
        curves_C: 0..1, what each articulator does, in the order of `ARTICULATORS`.
        strength: 0..1, how loud around the frame: 0 at 13 dB under the speaker's own level and less, 1 at the level.
    """

    curves_C: NDArray[np.float32]
    strength: float


class _Convolutions:
    """The network's layers, one block of steps at a time, each with the memory that its dilation needs."""

    def __init__(self, network: LipNetwork) -> None:
        def arrays(layer: object) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
            weight = layer.weight.detach().numpy()  # type: ignore[attr-defined]
            taps = weight.transpose(2, 1, 0).reshape(-1, len(weight))
            return np.ascontiguousarray(taps), layer.bias.detach().numpy()  # type: ignore[attr-defined]

        self._mean, self._scale = network.mean_M.numpy(), network.scale_M.numpy()
        self._entry = arrays(network.entry)
        self._layers = [arrays(layer) for layer in network.layers]
        self._exit = arrays(network.exit[0]), arrays(network.exit[2])
        self._reaches = [1, *network.config.dilations]
        widths = [2 * len(self._mean)] + [network.config.num_channels] * len(self._layers)
        self._memories = [
            np.zeros((2 * reach + _STEPS, width), np.float32)
            for reach, width in zip(self._reaches, widths, strict=True)
        ]

    def _taps(self, index: int, input_SW: NDArray[np.float32]) -> NDArray[np.float32]:
        """The three dilated taps of a layer side by side, after remembering the new steps."""
        memory, reach = self._memories[index], self._reaches[index]
        memory[:-_STEPS] = memory[_STEPS:].copy()
        memory[-_STEPS:] = input_SW
        return np.concatenate([memory[:_STEPS], memory[reach : reach + _STEPS], memory[2 * reach :]], axis=1)

    def step(self, levelled_FM: NDArray[np.float32]) -> NDArray[np.float32]:
        """Logits after each step of the block: shape (steps, 12)."""
        steps_SM = ((levelled_FM - self._mean) * self._scale).reshape(_STEPS, -1)
        weight, bias = self._entry
        hidden_SW = self._taps(0, steps_SM) @ weight + bias
        width = hidden_SW.shape[1]
        for index, (weight, bias) in enumerate(self._layers, 1):
            both_S2W = self._taps(index, hidden_SW) @ weight + bias
            hidden_SW = hidden_SW + np.tanh(both_S2W[:, :width]) * _sigmoid(both_S2W[:, width:])
        (weight, bias), (last_weight, last_bias) = self._exit
        before_SW = hidden_SW @ weight + bias
        gelu_SW = before_SW * 0.5 * (1.0 + erf(before_SW * np.float32(0.5**0.5)))
        return (gelu_SW @ last_weight + last_bias).astype(np.float32)


def _sigmoid(x: NDArray[np.float32]) -> NDArray[np.float32]:
    return 0.5 * (1.0 + np.tanh(0.5 * x))


class Listener:
    """Hears one recording or live stream and says what the mouth does in each of its video frames.

    Args:
        network: a trained lip network.
    """

    def __init__(self, network: LipNetwork) -> None:
        self._convolutions = _Convolutions(network)
        self._level = LevelFollower()
        self._waiting: NDArray[np.float32] = np.zeros(0, np.float32)
        self._history = np.zeros(_HISTORY, np.float32)
        # the last acoustic frames, enough for what may be audible around an instant
        self._relative: deque[float] = deque(maxlen=AUDIBLE_BEFORE + AUDIBLE_AFTER + _FRAMES + 1)
        self._strength: deque[float] = deque([0.0] * 16, maxlen=16)
        self._gates: deque[float] = deque([0.0, 0.0], maxlen=2)
        self._before: NDArray[np.float32] | None = None
        self._num_samples = 0
        self._num_blocks = 0
        self._num_frames = 0

    def hear(self, samples_N: NDArray[np.float32]) -> list[Heard]:
        """Take the next stretch of sound; answer the video frames that are decided by now.

        Args:
            samples_N: 16 kHz mono, −1..1, any length.
        """
        self._num_samples += len(samples_N)
        return self._work_through(np.asarray(samples_N, np.float32))

    def finish(self) -> list[Heard]:
        """The sound is over: answer the frames that remain; N samples have ceil(N / 640) in all, at least one."""
        num_frames = max(1, -(-self._num_samples // BLOCK_SAMPLES))
        missing = -len(self._waiting) % BLOCK_SAMPLES + LATENCY_BLOCKS * BLOCK_SAMPLES
        before = self._num_frames
        return self._work_through(np.zeros(missing, np.float32))[: num_frames - before]

    def _work_through(self, samples_N: NDArray[np.float32]) -> list[Heard]:
        self._waiting = np.concatenate([self._waiting, samples_N])
        num_blocks = len(self._waiting) // BLOCK_SAMPLES
        blocks = self._waiting[: num_blocks * BLOCK_SAMPLES].reshape(num_blocks, BLOCK_SAMPLES)
        self._waiting = self._waiting[num_blocks * BLOCK_SAMPLES :]
        found = (self._block(block) for block in blocks)
        return [heard for heard in found if heard is not None]

    def _block(self, samples_N: NDArray[np.float32]) -> Heard | None:
        # (1) what is heard: log-mel frames on the speaker's own level
        mel_FM = log_mel_frames(np.concatenate([self._history, samples_N]))
        self._history = samples_N[-_HISTORY:]
        loud_F = loudness(mel_FM)
        level_F = self._level.follow(loud_F)
        self._relative.extend(relative_loudness(loud_F, level_F).tolist())
        self._strength.extend(np.clip(1.0 + (loud_F - level_F) / 3.0, 0.0, 1.0).tolist())
        # (2) what the network says of the instants 100 ms ago
        logits_SC = self._convolutions.step(mel_FM - level_F[:, None])
        block = self._num_blocks
        self._num_blocks += 1
        curves_SC = _sigmoid(logits_SC)
        instants = [_STEPS * block + step - LOOKAHEAD_STEPS for step in range(_STEPS)]
        curves = [self._instant(i, c, block) for i, c in zip(instants, curves_SC, strict=True) if i >= 0]
        # (3) of which one is the instant of a video frame
        heard = None
        for instant, now_C in zip([i for i in instants if i >= 0], curves, strict=True):
            if instant % _STEPS == 0:
                before_C = now_C if self._before is None else self._before
                frame_C = 0.7 * now_C + 0.3 * before_C
                frame_C[CONTACTS] = np.maximum(now_C, 0.85 * before_C)[CONTACTS]
                heard = Heard(frame_C.astype(np.float32), self._strength_at(_FRAMES * instant // _STEPS, block))
                self._num_frames += 1
            self._before = now_C
        return heard

    def _instant(self, instant: int, curves_C: NDArray[np.float32], block: int) -> NDArray[np.float32]:
        """One instant's curves, at rest where nothing is said, contacts made complete."""
        newest = _FRAMES * (block + 1) - 1
        first = newest - len(self._relative) + 1
        low, high = 2 * instant - AUDIBLE_BEFORE, 2 * instant + AUDIBLE_AFTER
        loudest = max(list(self._relative)[max(low - first, 0) : high - first + 1])
        gate = float(speech_gate(curves_C[_SPEECH : _SPEECH + 1], audible_share(_FULL * loudest))[0])
        smooth = (gate + sum(self._gates)) / 3.0
        self._gates.append(gate)
        return decide_contacts(gated(curves_C[None], _FULL * smooth))[0]

    def _strength_at(self, frame: int, block: int) -> float:
        """Mean strength of the five acoustic frames around this one."""
        first = _FRAMES * (block + 1) - len(self._strength)
        return float(sum(self._strength[frame + k - first] for k in range(-2, 3)) / 5.0)
