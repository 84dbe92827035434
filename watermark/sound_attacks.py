"""What happens to a sound on its way through the world, as functions from sound to sound. Seeded.

`SOUND_ISSUED` holds what the mark must always survive from five seconds of speech; `SOUND_SUITE` adds more.

N sample
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from functools import reduce

import numpy as np
from numpy.typing import NDArray
from scipy.signal import butter, resample_poly, sosfilt

from watermark.media import MediaLimits, Sound, decode_sound
from watermark.sound_coding import SoundCodec, encode_sound, stretched

SoundAttack = Callable[[Sound], Sound]
_LIMITS = MediaLimits(max_duration_s=3600.0)


def _each(change: Callable[[NDArray[np.float32]], NDArray[np.floating]]) -> SoundAttack:
    return lambda sound: Sound(np.clip(change(sound.samples_N), -1.0, 1.0).astype(np.float32), sound.rate_hz)


def none() -> SoundAttack:
    """The sound as it is."""
    return lambda sound: sound


def chain(*attacks: SoundAttack) -> SoundAttack:
    """One attack after another."""
    return lambda sound: reduce(lambda attacked, attack: attack(attacked), attacks, sound)


def recode(codec: SoundCodec, bit_rate: int) -> SoundAttack:
    """Through a real encoder and decoder."""
    return lambda sound: decode_sound(encode_sound(sound, codec, bit_rate), _LIMITS, rate_hz=sound.rate_hz)


def speed(factor: float) -> SoundAttack:
    """Played `factor` times faster: shorter and higher, as a turntable does it."""
    ratio = Fraction(1 / factor).limit_denominator(400)
    return _each(lambda samples_N: resample_poly(samples_N, ratio.numerator, ratio.denominator))


def stretch(tempo: float) -> SoundAttack:
    """Played `tempo` times faster at the same pitch."""
    return lambda sound: stretched(sound, tempo)


def shift_pitch(factor: float) -> SoundAttack:
    """`factor` times higher, as long as before."""
    return chain(stretch(1 / factor), speed(factor))


def noise(snr_db: float, seed: int = 0) -> SoundAttack:
    """White noise, `snr_db` below the mean power of the whole sound."""

    def change(samples_N: NDArray[np.float32]) -> NDArray[np.floating]:
        sigma = np.sqrt(np.mean(samples_N.astype(np.float64) ** 2) * 10 ** (-snr_db / 10))
        return samples_N + sigma * np.random.default_rng(seed).standard_normal(len(samples_N))

    return _each(change)


def through_rate(rate_hz: int) -> SoundAttack:
    """Sampled at `rate_hz` on the way: all above half of it is lost."""
    return lambda sound: sound.resampled(rate_hz).resampled(sound.rate_hz)


def gain(decibels: float) -> SoundAttack:
    """Louder or softer; what then exceeds full scale is clipped."""
    return _each(lambda samples_N: samples_N * 10 ** (decibels / 20))


def band_pass(low_hz: float, high_hz: float) -> SoundAttack:
    """A telephone line, or a small loudspeaker."""

    def attack(sound: Sound) -> Sound:
        sections = butter(4, (low_hz, high_hz), "bandpass", fs=sound.rate_hz, output="sos")
        return _each(lambda samples_N: sosfilt(sections, samples_N))(sound)

    return attack


def echo(delay_s: float, level: float) -> SoundAttack:
    """One reflection."""

    def attack(sound: Sound) -> Sound:
        late_N = np.pad(sound.samples_N, (round(delay_s * sound.rate_hz), 0))[: len(sound.samples_N)]
        return _each(lambda samples_N: samples_N + level * late_N)(sound)

    return attack


def late_start(seconds: float) -> SoundAttack:
    """The beginning cut off."""
    return lambda sound: Sound(sound.samples_N[round(seconds * sound.rate_hz) :], sound.rate_hz)


def pauses(every_s: float, length_s: float) -> SoundAttack:
    """Digital silence of `length_s` put in after each `every_s`."""

    def attack(sound: Sound) -> Sound:
        size, silence_N = round(every_s * sound.rate_hz), np.zeros(round(length_s * sound.rate_hz), np.float32)
        parts = [sound.samples_N[start : start + size] for start in range(0, len(sound.samples_N), size)]
        return Sound(np.concatenate([piece for part in parts for piece in (part, silence_N)]), sound.rate_hz)

    return attack


def muted(every_s: float, length_s: float) -> SoundAttack:
    """`length_s` out of each `every_s` silenced."""

    def change(samples_N: NDArray[np.float32], rate_hz: int) -> NDArray[np.floating]:
        times_s = np.arange(len(samples_N)) / rate_hz
        return samples_N * (times_s % every_s >= length_s)

    return lambda sound: _each(lambda samples_N: change(samples_N, sound.rate_hz))(sound)


SOUND_ISSUED: dict[str, SoundAttack] = {
    "none": none(),
    "MP3 64 kb/s": recode("mp3", 64_000),
    "AAC 48 kb/s": recode("aac", 48_000),
    "speed +10 %": speed(1.10),
    "speed -10 %": speed(0.90),
    "noise 20 dB": noise(20.0),
}

SOUND_SUITE: dict[str, SoundAttack] = SOUND_ISSUED | {
    "MP3 32 kb/s": recode("mp3", 32_000),
    "AAC 32 kb/s": recode("aac", 32_000),
    "Opus 32 kb/s": recode("opus", 32_000),
    "Opus 16 kb/s": recode("opus", 16_000),
    "AAC 128, then MP3 64": chain(recode("aac", 128_000), recode("mp3", 64_000)),
    "speed +3.7 %": speed(1.037),
    "speed -7 % + AAC 48": chain(speed(0.93), recode("aac", 48_000)),
    "tempo +10 %": stretch(1.10),
    "tempo -10 %": stretch(0.90),
    "pitch +5 %": shift_pitch(1.05),
    "noise 15 dB": noise(15.0),
    "noise 20 dB + MP3 64": chain(noise(20.0), recode("mp3", 64_000)),
    "16 kHz": through_rate(16_000),
    "8 kHz": through_rate(8_000),
    "telephone 300-3400 Hz": band_pass(300.0, 3400.0),
    "gain -20 dB": gain(-20.0),
    "gain +12 dB, clipped": gain(12.0),
    "echo 80 ms": echo(0.08, 0.4),
    "late start 0.377 s": late_start(0.377),
    "0.2 s of each 1 s silenced": muted(1.0, 0.2),
}
