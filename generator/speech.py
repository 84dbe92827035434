"""The speech room: an uploaded voice becomes one agreed form of sound, and sound becomes what a network can listen to.

In come bytes of any audio container; out go 16 kHz mono PCM16 WAV bytes (`normalise_speech`) and, for the motion
network, log-mel frames every 10 ms that never look into the future (`log_mel`) on a level of their own
(`follow_level`), so that a whisper and a shout move the lips alike.

    N sample   F acoustic frame (10 ms)   M mel band   B batch
"""

from __future__ import annotations

from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from watermark.encoding import encode_sound_wav
from watermark.media import decode_sound

SPEECH_RATE_HZ: Final = 16_000
HOP_SAMPLES: Final = 160
WINDOW_SAMPLES: Final = 400
NUM_MEL_BANDS: Final = 64
FRAME_RATE_HZ: Final = SPEECH_RATE_HZ / HOP_SAMPLES

# Natural log of the mean power per mel band. The floor is the noise of a 16-bit converter.
LOG_POWER_FLOOR: Final = -20.0
# The level follower never believes that the speaker is quieter than this (about -45 dBFS), so room noise stays noise.
QUIETEST_LEVEL: Final = -10.0
# Below this loudness (about -62 dBFS) nothing is speech, whatever it looks like.
SILENCE_LOUDNESS: Final = -14.0
_ATTACK_PER_FRAME: Final = 0.2
_DECAY_NATS_PER_FRAME: Final = 0.006
_BATCH_FRAMES: Final = 20_000


@cache
def _mel_bank() -> NDArray[np.float32]:
    """Triangular mel filters over the power spectrum, 60 Hz to 7.6 kHz, each with unit area; shape (201, 64)."""
    bin_hz = np.linspace(0.0, SPEECH_RATE_HZ / 2, WINDOW_SAMPLES // 2 + 1)
    low_mel, high_mel = (2595.0 * np.log10(1.0 + hz / 700.0) for hz in (60.0, 7600.0))
    edge_hz = 700.0 * (10.0 ** (np.linspace(low_mel, high_mel, NUM_MEL_BANDS + 2) / 2595.0) - 1.0)
    left, centre, right = edge_hz[:-2, None], edge_hz[1:-1, None], edge_hz[2:, None]
    bank = np.maximum(0.0, np.minimum((bin_hz - left) / (centre - left), (right - bin_hz) / (right - centre)))
    # The lowest triangles are narrower than one bin: give those the bin nearest to their centre.
    empty = np.flatnonzero(bank.sum(1) == 0.0)
    bank[empty, np.abs(bin_hz - centre[empty]).argmin(1)] = 1.0
    return np.ascontiguousarray((bank / bank.sum(1, keepdims=True)).T.astype(np.float32))


def log_mel(samples_N: NDArray[np.float32]) -> NDArray[np.float32]:
    """Listen to 16 kHz sound: natural-log power in 64 mel bands, one frame each 10 ms.

    Frame `f` has heard the samples up to `(f + 1) · 160` and none later: the features are causal, and a prefix of the
    sound gives a prefix of the frames.

    Args:
        samples_N: mono, −1..1, at `SPEECH_RATE_HZ`.
    Returns: shape (N // 160, 64), at least `LOG_POWER_FLOOR`.
    """
    return log_mel_frames(np.concatenate([np.zeros(WINDOW_SAMPLES - HOP_SAMPLES, np.float32), samples_N]))


def log_mel_frames(samples_N: NDArray[np.float32]) -> NDArray[np.float32]:
    """Log-mel frames of a stretch of sound whose first 240 samples are only the past of its first frame.

    Returns: shape ((N − 240) // 160, 64).
    """
    num_frames = max(0, len(samples_N) - WINDOW_SAMPLES + HOP_SAMPLES) // HOP_SAMPLES
    window = np.hanning(WINDOW_SAMPLES).astype(np.float32)
    scale = np.float32(2.0 / (window**2).sum() / WINDOW_SAMPLES)
    padded = samples_N.astype(np.float32)
    frames_FM = np.empty((num_frames, NUM_MEL_BANDS), np.float32)
    for first in range(0, num_frames, _BATCH_FRAMES):
        last = min(first + _BATCH_FRAMES, num_frames)
        stretch = padded[first * HOP_SAMPLES : (last - 1) * HOP_SAMPLES + WINDOW_SAMPLES]
        windows = np.lib.stride_tricks.sliding_window_view(stretch, WINDOW_SAMPLES)[::HOP_SAMPLES] * window
        power = np.abs(np.fft.rfft(windows, axis=1)).astype(np.float32) ** 2 * scale
        frames_FM[first:last] = np.log(power @ _mel_bank() * (WINDOW_SAMPLES / 2) + np.exp(np.float32(LOG_POWER_FLOOR)))
    return frames_FM


def loudness(log_mel_FM: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return how loud each frame is: natural log of the mean power over the mel bands; shape of the input less M."""
    peak = log_mel_FM.max(-1)
    return (peak + np.log(np.exp(log_mel_FM - peak[..., None]).mean(-1))).astype(np.float32)


def follow_level(loudness_BF: NDArray[np.float32]) -> NDArray[np.float32]:
    """Track the level of whoever speaks, without looking ahead: quick to rise, slow to forget (2.6 dB per second).

    Args:
        loudness_BF: of `loudness`.
    Returns: the level to subtract from `log_mel`, same shape, never below `QUIETEST_LEVEL`.
    """
    level_B = np.full(loudness_BF.shape[0], QUIETEST_LEVEL, np.float32)
    levels_BF = np.empty_like(loudness_BF)
    for frame in range(loudness_BF.shape[1]):
        level_B = levels_BF[:, frame] = _next_level(level_B, loudness_BF[:, frame])
    return levels_BF


def _next_level(level_B: NDArray[np.float32], heard_B: NDArray[np.float32]) -> NDArray[np.float32]:
    risen_B = level_B + _ATTACK_PER_FRAME * (heard_B - level_B)
    return np.where(heard_B > level_B, risen_B, np.maximum(level_B - _DECAY_NATS_PER_FRAME, QUIETEST_LEVEL))


class LevelFollower:
    """`follow_level` for one live stream."""

    def __init__(self) -> None:
        self._level_1 = np.full(1, QUIETEST_LEVEL, np.float32)

    def follow(self, loudness_F: NDArray[np.float32]) -> NDArray[np.float32]:
        """Take the next frames' loudness; answer their levels."""
        levels_F = np.empty_like(loudness_F)
        for frame in range(len(loudness_F)):
            self._level_1 = _next_level(self._level_1, loudness_F[frame : frame + 1])
            levels_F[frame] = self._level_1[0]
        return levels_F


def levelled(log_mel_BFM: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return log-mel frames relative to the speaker's own level: what the motion network hears."""
    return log_mel_BFM - follow_level(loudness(log_mel_BFM))[..., None]


def normalise_speech(data: bytes) -> bytes:
    """Turn an uploaded recording into the form that is hashed, permitted and rendered: 16 kHz mono PCM16 WAV.

    Args:
        data: any container, codec, rate and channel count that the media room decodes.
    Returns: WAV bytes; the same upload always gives the same bytes.
    Raises: the media room's errors (`watermark.errors.MediaError`): not sound, no sound track, empty, silent, damaged,
        longer than ten minutes.
    """
    return encode_sound_wav(decode_sound(data))
