"""Sounds that are no clean speech: refused with a name, or taken with lips that stay plausible. Never a crash."""

from __future__ import annotations

import io
import wave

import numpy as np
import pytest
from numpy import ndarray

from generator.actions import FACIAL_ACTIONS
from generator.controls import MotionControls
from generator.motion import MotionModel
from generator.personas import sample_paths
from generator.speech import normalise_speech
from watermark.errors import UnreadableMediaError
from watermark.media import decode_sound

RATE_HZ = 16_000
LIPS = [name.startswith(("jaw", "mouth")) for name in FACIAL_ACTIONS]
TIMES = np.arange(3 * RATE_HZ) / RATE_HZ


@pytest.fixture(scope="module")
def model() -> MotionModel:
    return MotionModel.load()


@pytest.fixture(scope="module")
def voice() -> ndarray:
    return decode_sound(normalise_speech(next(iter(sample_paths())).read_bytes())).samples_N[: 3 * RATE_HZ]


def music() -> ndarray:
    """Four chords of decaying strings, one each 0.75 s."""
    out = np.zeros(len(TIMES))
    for nth, root_hz in enumerate((220.0, 174.6, 261.6, 196.0)):
        since = TIMES - 0.75 * nth
        for interval in (1.0, 1.25, 1.5):
            for harmonic in range(1, 7):
                tone = np.sin(2 * np.pi * root_hz * interval * harmonic * since) / harmonic**1.5
                out += np.where(since >= 0, np.exp(-2.5 * np.clip(since, 0, None)) * tone, 0.0)
    return 0.15 * out


SOUNDS = {
    "white noise": lambda voice: 0.2 * np.random.default_rng(5).standard_normal(len(TIMES)),
    "loud noise": lambda voice: np.clip(np.random.default_rng(6).standard_normal(len(TIMES)), -1, 1),
    "music": lambda voice: music(),
    "a square wave": lambda voice: np.sign(np.sin(2 * np.pi * 110 * TIMES)),
    "a constant": lambda voice: np.full(len(TIMES), 0.7),
    "single clicks": lambda voice: (np.arange(len(TIMES)) % 8000 == 4000).astype(float),
    "a clipped voice": lambda voice: np.clip(voice * 30, -1, 1),
    "a whisper": lambda voice: voice * 0.004,
}


@pytest.mark.parametrize("name", SOUNDS)
def test_lips_stay_plausible(name: str, model: MotionModel, voice: ndarray) -> None:
    """Within bounds, not faster than lips move, and repeatable."""
    samples_N = np.asarray(SOUNDS[name](voice), np.float32)
    track = model.plan(samples_N, MotionControls.from_json({"seed": 1}))
    lips = track.actions_T52[:, LIPS]
    assert np.isfinite(track.actions_T52).all() and lips.min() >= 0 and lips.max() <= 1
    assert np.isfinite(track.head_pose_T6).all() and np.abs(track.head_pose_T6[:, :3]).max() <= 20
    step = np.abs(np.diff(lips, axis=0))
    spoken = np.abs(np.diff(model.plan(voice, MotionControls()).actions_T52[:, LIPS], axis=0))
    assert step.mean() <= 1.5 * spoken.mean(), "no more restless than speech"
    assert step.max() <= 0.75
    assert np.array_equal(track.actions_T52, model.plan(samples_N, MotionControls.from_json({"seed": 1})).actions_T52)


def test_a_clipped_voice_says_what_the_voice_says(model: MotionModel, voice: ndarray) -> None:
    jaw = FACIAL_ACTIONS.index("jawOpen")
    clean, clipped = (model.plan(np.clip(gain * voice, -1, 1).astype(np.float32), MotionControls()) for gain in (1, 8))
    assert np.corrcoef(clean.actions_T52[:, jaw], clipped.actions_T52[:, jaw])[0, 1] > 0.7


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_samples_that_are_no_numbers_are_refused(value: float) -> None:
    samples = (0.3 * np.sin(TIMES * 900)).astype("<f4")
    samples[9000] = value
    with pytest.raises(UnreadableMediaError, match="not numbers"):
        normalise_speech(float_wav(samples))
    assert normalise_speech(float_wav(np.nan_to_num(samples, nan=0.0, posinf=0.0, neginf=0.0)))


def float_wav(samples: ndarray) -> bytes:
    """32-bit float WAV: the PCM header of `wave`, with the format tag and width of IEEE floats."""
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(4)
        file.setframerate(RATE_HZ)
        file.writeframes(samples.tobytes())
    data = bytearray(out.getvalue())
    data[20:22] = (3).to_bytes(2, "little")
    return bytes(data)
