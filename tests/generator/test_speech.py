"""Intake of voices and what the network hears of them."""

from __future__ import annotations

import io
import wave

import numpy as np
import pytest

from generator.speech import (
    HOP_SAMPLES,
    LOG_POWER_FLOOR,
    NUM_MEL_BANDS,
    SPEECH_RATE_HZ,
    follow_level,
    levelled,
    log_mel,
    loudness,
    normalise_speech,
)
from watermark.errors import MediaError


def tone(hertz: float, seconds: float, amplitude: float = 0.3, rate_hz: int = SPEECH_RATE_HZ) -> np.ndarray:
    return (amplitude * np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate_hz)) / rate_hz)).astype(np.float32)


def wav(samples: np.ndarray, rate_hz: int, num_channels: int = 1) -> bytes:
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setparams((num_channels, 2, rate_hz, 0, "NONE", ""))
        file.writeframes((np.repeat(samples[:, None], num_channels, 1) * 32767).astype("<i2").tobytes())
    return buffer.getvalue()


@pytest.mark.parametrize(("rate_hz", "num_channels"), [(8_000, 1), (16_000, 2), (44_100, 2), (48_000, 6)])
def test_any_rate_and_channel_count_becomes_16_khz_mono(rate_hz: int, num_channels: int) -> None:
    normal = normalise_speech(wav(tone(440.0, 1.0, rate_hz=rate_hz), rate_hz, num_channels))
    with wave.open(io.BytesIO(normal)) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, SPEECH_RATE_HZ)
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2") / 32768
    assert len(samples) == pytest.approx(SPEECH_RATE_HZ, abs=200)
    spectrum = np.abs(np.fft.rfft(samples[2000:12_000]))
    assert np.argmax(spectrum) * SPEECH_RATE_HZ / 10_000 == pytest.approx(440.0, abs=2.0)


def test_normalising_is_repeatable_and_idempotent() -> None:
    upload = wav(tone(220.0, 0.7, rate_hz=22_050), 22_050)
    assert normalise_speech(upload) == normalise_speech(upload)
    assert normalise_speech(normalise_speech(upload)) == normalise_speech(upload)


@pytest.mark.parametrize("data", [b"", b"not a sound", wav(np.zeros(16_000, np.float32), 16_000)])
def test_what_is_no_speech_is_refused_by_name(data: bytes) -> None:
    with pytest.raises(MediaError):
        normalise_speech(data)


def test_features_have_one_frame_per_10_ms_and_a_floor() -> None:
    frames_FM = log_mel(np.zeros(SPEECH_RATE_HZ, np.float32))
    assert frames_FM.shape == (100, NUM_MEL_BANDS)
    assert frames_FM == pytest.approx(LOG_POWER_FLOOR)
    assert log_mel(np.zeros(HOP_SAMPLES - 1, np.float32)).shape == (0, NUM_MEL_BANDS)


def test_a_prefix_of_the_sound_gives_a_prefix_of_the_features() -> None:
    sound = np.random.default_rng(0).standard_normal(20_000).astype(np.float32) * 0.1
    whole, part = log_mel(sound), log_mel(sound[:7_300])
    assert part == pytest.approx(whole[: len(part)], abs=1e-4)
    assert np.allclose(levelled(part[None])[0], levelled(whole[None])[0][: len(part)], atol=1e-3)


def test_bands_are_where_they_should_be() -> None:
    peaks = [int(log_mel(tone(hertz, 0.5))[20:].mean(0).argmax()) for hertz in (150.0, 500.0, 1500.0, 5000.0)]
    assert peaks == sorted(peaks)
    assert len(set(peaks)) == 4


def test_loudness_follows_the_power_in_nats() -> None:
    quiet, loud = (
        loudness(log_mel(np.random.default_rng(1).standard_normal(16_000).astype(np.float32) * a)) for a in (0.01, 0.1)
    )
    assert np.mean(loud[5:] - quiet[5:]) == pytest.approx(np.log(100.0), abs=0.05)


@pytest.mark.parametrize("gain_db", [-20.0, -10.0, 6.0])
def test_features_do_not_depend_on_the_recording_level(gain_db: float) -> None:
    rng = np.random.default_rng(2)
    syllables = np.repeat(rng.uniform(0.2, 1.0, 40), 1600)[: 4 * SPEECH_RATE_HZ]
    voice = (rng.standard_normal(len(syllables)) * syllables * 0.15).astype(np.float32)
    plain = levelled(log_mel(voice)[None])[0]
    louder = levelled(log_mel(voice * 10 ** (gain_db / 20))[None])[0]
    assert np.abs(plain[60:] - louder[60:]).mean() < 0.25


def test_the_level_never_falls_to_the_noise_floor() -> None:
    hiss = np.random.default_rng(3).standard_normal(3 * SPEECH_RATE_HZ).astype(np.float32) * 10 ** (-70 / 20)
    below_FM = levelled(log_mel(hiss)[None])[0]
    assert loudness(below_FM).max() < -4.0
    assert (np.diff(follow_level(np.full((1, 50), -30.0, np.float32))) == 0.0).all()
