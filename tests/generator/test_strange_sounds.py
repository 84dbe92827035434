"""What comes in instead of clean speech: the lips stay plausible, and nothing crashes."""

from __future__ import annotations

import io
import json
import wave
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from scipy.signal import resample_poly

import generator
from generator.actions import ACTION_INDEX
from generator.coarticulation import Phone, lip_aperture, phones_from_json
from generator.controls import MotionControls
from generator.evaluate import LipMeasures, measure_lips
from generator.motion import MotionModel, MotionTrack
from generator.speech import SPEECH_RATE_HZ, normalise_speech
from watermark.errors import MediaError
from watermark.media import decode_sound

SAMPLES = Path(generator.__file__).parent / "personas" / "samples"
TIMES_N = np.arange(2 * SPEECH_RATE_HZ) / SPEECH_RATE_HZ


@cache
def model() -> MotionModel:
    return MotionModel.load()


@cache
def voice() -> tuple[np.ndarray, tuple[Phone, ...]]:
    described = json.loads((SAMPLES / "publish.json").read_text(encoding="utf-8"))
    return decode_sound((SAMPLES / "publish.wav").read_bytes()).samples_N, phones_from_json(described["phones"])


def lips(samples_N: np.ndarray, slower: float = 1.0) -> LipMeasures:
    phones = tuple(Phone(p.symbol, p.start_s * slower, p.end_s * slower) for p in voice()[1])
    return measure_lips(lip_aperture(model().articulation(samples_N.astype(np.float32))), 25.0, phones)


def plan(samples_N: np.ndarray) -> MotionTrack:
    return model().plan(samples_N.astype(np.float32), MotionControls(seed=3))


def test_a_badly_clipped_voice_still_closes_the_lips() -> None:
    clipped = lips(np.clip(12.0 * voice()[0], -0.9, 0.9))
    clean = lips(voice()[0])
    assert clipped.closure_recall >= clean.closure_recall - 0.2
    assert clipped.correlation >= 0.45


def test_a_voice_sung_slower_and_lower_is_still_followed() -> None:
    """Three quarters of pitch and tempo, with a vibrato: as near to singing as a spoken sample gets."""
    slow_N = resample_poly(voice()[0], 4, 3)
    times_N = np.arange(len(slow_N)) / SPEECH_RATE_HZ
    sung_N = np.interp(times_N + 0.0015 * np.sin(2 * np.pi * 5.5 * times_N), times_N, slow_N)
    found = lips(sung_N, slower=4 / 3)
    assert found.closure_recall >= 0.6
    assert found.correlation >= 0.4


def _chords() -> np.ndarray:
    return sum(0.1 * np.sin(2 * np.pi * f * TIMES_N) * np.exp(-4.0 * (TIMES_N % 0.5)) for f in (220, 277, 330, 440))


def _drums() -> np.ndarray:
    return np.random.default_rng(1).standard_normal(len(TIMES_N)) * 0.4 * np.exp(-40.0 * (TIMES_N % 0.4))


def _noise() -> np.ndarray:
    return np.random.default_rng(2).standard_normal(len(TIMES_N)) * 0.1


def _square() -> np.ndarray:
    return np.sign(np.sin(2 * np.pi * 90 * TIMES_N))


@pytest.mark.parametrize("sound", [_chords, _drums, _noise, _square])
def test_music_and_noise_move_the_mouth_no_faster_than_speech(sound: Callable[[], np.ndarray]) -> None:
    def fastest(track: MotionTrack) -> float:
        return float(np.abs(np.diff(track.actions_T52[:, ACTION_INDEX["jawOpen"]])).max())

    track = plan(sound())
    assert np.isfinite(track.actions_T52).all() and np.isfinite(track.head_pose_T6).all()
    assert fastest(track) <= 1.25 * fastest(plan(voice()[0]))
    assert track.actions_T52[:, ACTION_INDEX["jawOpen"]].max() <= 0.85


def test_sound_that_is_not_a_number_is_refused_by_name() -> None:
    samples_N = np.full(SPEECH_RATE_HZ, np.nan, "<f4").tobytes()
    header = b"RIFF" + (36 + len(samples_N)).to_bytes(4, "little") + b"WAVEfmt " + (16).to_bytes(4, "little")
    header += (3).to_bytes(2, "little") + (1).to_bytes(2, "little") + SPEECH_RATE_HZ.to_bytes(4, "little")
    header += (4 * SPEECH_RATE_HZ).to_bytes(4, "little") + (4).to_bytes(2, "little") + (32).to_bytes(2, "little")
    with pytest.raises(MediaError) as caught:
        normalise_speech(header + b"data" + len(samples_N).to_bytes(4, "little") + samples_N)
    assert caught.value.code


def test_full_scale_silence_and_clicks_do_not_crash() -> None:
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SPEECH_RATE_HZ)
        clicks = np.zeros(SPEECH_RATE_HZ, "<i2")
        clicks[::4000] = 32767
        file.writeframes(clicks.tobytes())
    track = plan(decode_sound(normalise_speech(out.getvalue())).samples_N)
    assert np.isfinite(track.actions_T52).all()
