"""The lips room: a small causal network that hears speech and says what lips, jaw and tongue do.

In come log-mel frames (`speech.log_mel`), out go articulator curves (`coarticulation.ARTICULATORS`) every 20 ms. The
network has heard at most `LOOKAHEAD_S` beyond the instant it speaks about, so it can run on a live stream; a plain
gate holds the lips still where there is no speech, whatever the network believes.

    B batch   F acoustic frame (10 ms)   T articulation instant (20 ms)   M mel band   C articulator   K video frame
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from generator.coarticulation import ARTICULATOR_INDEX, ARTICULATORS
from generator.speech import (
    HOP_SAMPLES,
    NUM_MEL_BANDS,
    SILENCE_LOUDNESS,
    SPEECH_RATE_HZ,
    follow_level,
    levelled,
    log_mel,
    loudness,
)

ARTICULATION_RATE_HZ: Final = 50.0
# Two acoustic frames make one input step of 20 ms; the step of the instant itself and five more: 20 · 6 = 120 ms.
LOOKAHEAD_STEPS: Final = 5
LOOKAHEAD_S: Final = 0.120
_STEP_SAMPLES: Final = 2 * HOP_SAMPLES
# Natural log of power: 30 and 24 dB under the speaker's own level.
_AUDIBLE_BELOW_LEVEL: Final = (-7.0, -5.5)
# Around an instant, in acoustic frames: 80 ms before to 120 ms after it.
AUDIBLE_BEFORE: Final = 8
AUDIBLE_AFTER: Final = 11
_CONTACT_THRESHOLDS: Final = {"closure": (0.08, 0.4), "tuck": (0.1, 0.7)}
# These keep their peak, or a 50 ms closure between two video frames would never be seen.
CONTACTS: Final = [ARTICULATOR_INDEX[name] for name in ("closure", "tuck", "press")]


@dataclass(frozen=True)
class LipNetworkConfig:
    """Size of the network; kept in the weights file, so old files still load.

    Attributes:
        num_channels: width of every layer.
        dilations: one causal gated layer each, kernel 3; their sum · 40 ms is how far back the network remembers.
    """

    num_channels: int = 160
    dilations: tuple[int, ...] = (1, 2, 4, 8, 1, 2, 4, 8, 1, 2)


class LipNetwork(nn.Module):
    """Causal gated convolutions (WaveNet's residual block) from levelled log-mel frames to articulator logits."""

    mean_M: Tensor
    scale_M: Tensor

    def __init__(self, config: LipNetworkConfig) -> None:
        super().__init__()
        self.config = config
        width = config.num_channels
        self.register_buffer("mean_M", torch.zeros(NUM_MEL_BANDS))
        self.register_buffer("scale_M", torch.ones(NUM_MEL_BANDS))
        self.entry = nn.Conv1d(2 * NUM_MEL_BANDS, width, 3)
        self.layers = nn.ModuleList([nn.Conv1d(width, 2 * width, 3, dilation=step) for step in config.dilations])
        self.exit = nn.Sequential(nn.Conv1d(width, width, 1), nn.GELU(), nn.Conv1d(width, len(ARTICULATORS), 1))

    def forward(self, levelled_BFM: Tensor) -> Tensor:
        """Return logits, shape (B, F // 2 − LOOKAHEAD_STEPS, 12): nothing is said about the last 100 ms heard."""
        batch, num_frames, num_bands = levelled_BFM.shape
        normal_BFM = (levelled_BFM - self.mean_M) * self.scale_M
        steps_B_2M_T = normal_BFM[:, : num_frames // 2 * 2].reshape(batch, -1, 2 * num_bands).transpose(1, 2)
        hidden = self.entry(nn.functional.pad(steps_B_2M_T, (2, 0)))
        for layer, dilation in zip(self.layers, self.config.dilations, strict=True):
            signal, gate = layer(nn.functional.pad(hidden, (2 * dilation, 0))).chunk(2, dim=1)
            hidden = hidden + torch.tanh(signal) * torch.sigmoid(gate)
        return self.exit(hidden).transpose(1, 2)[:, LOOKAHEAD_STEPS:]


def _smoothstep(x: NDArray[np.float32], low: float, high: float) -> NDArray[np.float32]:
    ramp = np.clip((x - low) / (high - low), 0.0, 1.0)
    return (ramp * ramp * (3.0 - 2.0 * ramp)).astype(np.float32)


def relative_loudness(loudness_F: NDArray[np.float32], level_F: NDArray[np.float32]) -> NDArray[np.float32]:
    """How loud each acoustic frame is on the speaker's own level; minus infinity below the noise floor."""
    return np.where(loudness_F > SILENCE_LOUDNESS, loudness_F - level_F, -np.inf).astype(np.float32)


def audible_share(loudest_T: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return 1 where a voice may be heard around an instant, 0 where none can be.

    Nothing is audible far below the speaker's own level: within 200 ms even a stop or a soft fricative has a neighbour
    louder than that, and a pause in a room has none.

    Args:
        loudest_T: largest `relative_loudness` from `AUDIBLE_BEFORE` to `AUDIBLE_AFTER` acoustic frames around it.
    """
    return _smoothstep(loudest_T, *_AUDIBLE_BELOW_LEVEL)


def _audible(loudness_F: NDArray[np.float32], num_instants: int) -> NDArray[np.float32]:
    relative_F = relative_loudness(loudness_F, follow_level(loudness_F[None])[0])
    loudest_T = np.full(num_instants, -np.inf, np.float32)
    for offset in range(-AUDIBLE_BEFORE, AUDIBLE_AFTER + 1):
        frames_T = np.clip(np.arange(num_instants) * 2 + offset, 0, len(relative_F) - 1)
        loudest_T = np.maximum(loudest_T, relative_F[frames_T])
    return audible_share(loudest_T)


def hear_articulation(network: LipNetwork, samples_N: NDArray[np.float32]) -> NDArray[np.float32]:
    """Listen to speech and say what the mouth does, at 50 Hz from time 0 to the end of the sound.

    Args:
        samples_N: 16 kHz mono, −1..1.
    Returns: shape (T, 12) with T = ceil(N / 320), 0..1, in the order of `ARTICULATORS`; at rest (0) in silence.
    """
    num_instants = -(-len(samples_N) // _STEP_SAMPLES)
    if num_instants == 0:
        return np.zeros((0, len(ARTICULATORS)), np.float32)
    total = (num_instants + LOOKAHEAD_STEPS) * _STEP_SAMPLES
    heard_FM = log_mel(np.concatenate([samples_N, np.zeros(total - len(samples_N), np.float32)]))
    with torch.inference_mode():
        logits_BTC = network(torch.from_numpy(levelled(heard_FM[None])))
        curves_TC = torch.sigmoid(logits_BTC[0]).float().numpy()
    return decide_contacts(still_in_silence(curves_TC, loudness(heard_FM)))


def still_in_silence(curves_TC: NDArray[np.float32], loudness_F: NDArray[np.float32]) -> NDArray[np.float32]:
    """Bring every articulator to rest where the network hears no speech or there is nothing to hear."""
    speech = ARTICULATOR_INDEX["speech"]
    gate_T = speech_gate(curves_TC[:, speech], _audible(loudness_F, len(curves_TC)))
    # The gate opens and shuts over 60 ms, using past values alone.
    gate_T = np.convolve(np.concatenate([np.zeros(2, np.float32), gate_T]), np.full(3, 1 / 3, np.float32), "valid")
    return gated(curves_TC, gate_T)


def speech_gate(speech_T: NDArray[np.float32], audible_T: NDArray[np.float32]) -> NDArray[np.float32]:
    """1 where the network hears speech and there is something to hear, 0 where not."""
    return _smoothstep(speech_T, 0.3, 0.7) * audible_T


def gated(curves_TC: NDArray[np.float32], gate_T: NDArray[np.float32]) -> NDArray[np.float32]:
    """The curves, at rest where the gate is shut; the gate takes the place of the network's own belief in speech."""
    speech = ARTICULATOR_INDEX["speech"]
    gated_TC = curves_TC * gate_T[:, None]
    gated_TC[:, speech] = gate_T
    # What a sigmoid cannot bring to zero: the last few hundredths.
    return np.clip((gated_TC - 0.02) / 0.98, 0.0, 1.0).astype(np.float32)


def decide_contacts(curves_TC: NDArray[np.float32]) -> NDArray[np.float32]:
    """Make contacts complete: a network that is unsure when the lips meet says 0.6 for a while and never 1.

    The thresholds weigh missed against invented closures (NOTES.md).
    """
    decided_TC = curves_TC.copy()
    for name, (open_at, shut_at) in _CONTACT_THRESHOLDS.items():
        column = ARTICULATOR_INDEX[name]
        decided_TC[:, column] = _smoothstep(curves_TC[:, column], open_at, shut_at)
    return decided_TC


def at_video_frames(curves_TC: NDArray[np.float32], num_frames: int, rate_hz: float = 25.0) -> NDArray[np.float32]:
    """Take the curves at the times of video frames: frame k is what is seen at k / rate_hz.

    Most articulators are averaged with the instant before; contacts keep their peak. Nothing later than the frame is
    used.

    Returns: shape (K, 12).
    """
    if not len(curves_TC):
        return np.zeros((num_frames, curves_TC.shape[1]), np.float32)
    instants_K = np.arange(num_frames) * (ARTICULATION_RATE_HZ / rate_hz)
    now_KC, before_KC = (
        np.stack([np.interp(instants_K - back, np.arange(len(curves_TC)), curve) for curve in curves_TC.T], axis=1)
        for back in (0.0, 1.0)
    )
    frames_KC = 0.7 * now_KC + 0.3 * before_KC
    frames_KC[:, CONTACTS] = np.maximum(now_KC, 0.85 * before_KC)[:, CONTACTS]
    return frames_KC.astype(np.float32)


def num_video_frames(num_samples: int, rate_hz: float = 25.0) -> int:
    """Return how many frames cover that much sound, at least one."""
    return max(1, int(np.ceil(num_samples / SPEECH_RATE_HZ * rate_hz - 1e-9)))
