"""The corpus room: timed recordings become pairs of what is heard and what the mouth does, plain and roughened.

In comes a folder with an `index.jsonl` (one recording a line: file, text, voice, lang, phones) and its sound files; out
go arrays on disk, made once and kept in a scratch folder, and random training batches drawn from them.

    F acoustic frame (10 ms)   T articulation instant (20 ms)   M mel band   C articulator   B batch   N sample
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.signal import fftconvolve, resample_poly

from generator.coarticulation import Phone, articulate, phones_from_json
from generator.lips import LOOKAHEAD_STEPS
from generator.speech import FRAME_RATE_HZ, LOG_POWER_FLOOR, NUM_MEL_BANDS, SPEECH_RATE_HZ, levelled, log_mel, loudness
from watermark.media import decode_sound

# Voices and the language that the network never hears: what it does on them is what we report. The voices of the
# samples that ship with the project are among them.
UNHEARD_VOICES: Final = frozenset({"af_heart", "am_michael", "bf_isabella", "bm_george", "pm_alex"})
UNHEARD_LANGUAGES: Final = frozenset({"it"})

# The corpus states when the synthesiser emitted a phoneme's token. Bursts and closures are heard about 45 ms before
# that (measured, NOTES.md). Half of it is taken back: lips 20 ms after the sound are as good as in time to an
# observer, and stay within one video frame of the stated times.
TRANSCRIPT_LAG_S: Final = 0.025
_TOKEN_LAG_S: Final = 0.045
# What lies 28 dB under the loud parts of a clean recording is not heard as speech.
_AUDIBLE_NATS: Final = 6.5

_ALL_TEMPOS: Final = tuple((16, d) for d in (14, 15, 17, 18))


@dataclass(frozen=True)
class Recording:
    """One line of the index."""

    file: str
    voice: str
    lang: str
    text: str
    phones: tuple[Phone, ...]

    @property
    def is_unheard(self) -> bool:
        return self.voice in UNHEARD_VOICES or self.lang in UNHEARD_LANGUAGES


def read_index(folder: Path) -> list[Recording]:
    """Read the index of a corpus folder.

    Raises: FileNotFoundError: no index there. ValueError: a line that is not as described.
    """
    recordings = []
    for number, line in enumerate((folder / "index.jsonl").read_text(encoding="utf-8").splitlines(), start=1):
        row: dict[str, Any] = json.loads(line)
        try:
            phones = phones_from_json(row["phones"])
            recordings.append(Recording(row["file"], row["voice"], row["lang"], row["text"], phones))
        except (KeyError, ValueError) as exc:
            raise ValueError(f"line {number} of {folder / 'index.jsonl'}: {exc}") from exc
    return recordings


def read_samples(folder: Path, recording: Recording) -> NDArray[np.float32]:
    """Decode one recording to 16 kHz mono samples."""
    return decode_sound((folder / recording.file).read_bytes()).samples_N


def heard_phones(phones: Sequence[Phone], loudness_F: NDArray[np.float32]) -> tuple[Phone, ...]:
    """Take the silence out of long phonemes: the corpus gives a pause to the phoneme before it.

    A phoneme longer than 150 ms ends where it was last heard, and a gap follows.
    """
    audible_F = loudness_F > np.percentile(loudness_F, 95) - _AUDIBLE_NATS
    trimmed: list[Phone] = []
    for phone in phones:
        first, last = (round((t - _TOKEN_LAG_S) * FRAME_RATE_HZ) for t in (phone.start_s, phone.end_s))
        heard = np.flatnonzero(audible_F[max(first, 0) : max(last, 0)])
        if phone.end_s - phone.start_s <= 0.15 or phone.symbol in "^$ " or not len(heard):
            trimmed.append(phone)
            continue
        end_s = min(phone.end_s, max(phone.start_s + 0.06, phone.start_s + (heard[-1] + 2) / FRAME_RATE_HZ))
        trimmed += [Phone(phone.symbol, phone.start_s, end_s), Phone(" ", end_s, phone.end_s)]
    return tuple(trimmed)


def _moved(phones: Sequence[Phone], by_s: float, stretch: float) -> tuple[Phone, ...]:
    return tuple(Phone(p.symbol, (p.start_s + by_s) * stretch, (p.end_s + by_s) * stretch) for p in phones)


def _roomy(samples_N: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Put the voice into a room (decaying noise as impulse response) and often behind a telephone's band."""
    decay_s = rng.uniform(0.1, 0.45) / 6.9
    tail_N = rng.standard_normal(int(decay_s * 6.9 * SPEECH_RATE_HZ)).astype(np.float32)
    tail_N *= np.exp(-np.arange(len(tail_N)) / (decay_s * SPEECH_RATE_HZ)).astype(np.float32)
    tail_N *= 10.0 ** (-rng.uniform(2.0, 12.0) / 20.0) / np.sqrt((tail_N**2).sum())
    roomy_N = samples_N + fftconvolve(samples_N, tail_N)[: len(samples_N)]
    if rng.random() < 0.3:
        roomy_N = resample_poly(resample_poly(roomy_N, 1, 2), 2, 1)[: len(samples_N)]
    return roomy_N.astype(np.float32)


@dataclass(frozen=True)
class Corpus:
    """Every training recording in three forms (plain, other tempo and pitch, in a room), end to end.

    Attributes:
        heard_FM: log-mel frames, fp16; clip `i` owns the frames `starts[i]` to `starts[i + 1]`.
        articulation_TC: what the mouth does, fp16, half as many rows; clip `i` owns half of those indices.
        starts: even frame numbers, one more than there are clips.
    """

    heard_FM: NDArray[np.float16]
    articulation_TC: NDArray[np.float16]
    starts: NDArray[np.int64]

    @property
    def num_clips(self) -> int:
        return len(self.starts) - 1

    @classmethod
    def build(
        cls,
        folder: Path,
        recordings: list[Recording],
        rng: np.random.Generator,
        progress: Callable[[int, int], None] | None = None,
    ) -> Corpus:
        """Decode and listen to every recording; takes a few minutes for three hours of speech."""
        heard, articulation, starts = [], [], [0]
        for number, recording in enumerate(recordings):
            samples_N = read_samples(folder, recording)
            up, down = _ALL_TEMPOS[rng.integers(len(_ALL_TEMPOS))]
            variants = [
                (samples_N, 1.0),
                (resample_poly(samples_N, up, down).astype(np.float32), up / down),
                (_roomy(samples_N, rng), 1.0),
            ]
            phones_heard = heard_phones(recording.phones, loudness(log_mel(samples_N)))
            for variant_N, stretch in variants:
                frames_FM = log_mel(variant_N)
                num_instants = len(frames_FM) // 2
                phones = _moved(phones_heard, -TRANSCRIPT_LAG_S, stretch)
                heard.append(frames_FM[: num_instants * 2].astype(np.float16))
                articulation.append(articulate(phones, np.arange(num_instants) / 50.0).astype(np.float16))
                starts.append(starts[-1] + num_instants * 2)
            if progress is not None:
                progress(number + 1, len(recordings))
        return cls(np.concatenate(heard), np.concatenate(articulation), np.array(starts, np.int64))

    def save(self, path: Path) -> None:
        unfinished = path.with_suffix(".unfinished.npz")
        np.savez(unfinished, heard_FM=self.heard_FM, articulation_TC=self.articulation_TC, starts=self.starts)
        unfinished.replace(path)

    @classmethod
    def load(cls, path: Path) -> Corpus:
        with np.load(path) as arrays:
            return cls(arrays["heard_FM"], arrays["articulation_TC"], arrays["starts"])

    def band_statistics(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return mean and standard deviation of the levelled frames per mel band, from the first clips."""
        clips = range(0, min(self.num_clips, 300), 3)
        frames_FM = np.concatenate(
            [levelled(self.heard_FM[self.starts[i] : self.starts[i + 1]].astype(np.float32)[None])[0] for i in clips]
        )
        return frames_FM.mean(0), frames_FM.std(0)


def _roughen(heard_BFM: NDArray[np.float32], babble_BFM: NDArray[np.float32], rng: np.random.Generator) -> None:
    """Vary gain, tilt and vocal-tract length and add noise, in place; half of the clips are left nearly as they are."""
    for heard_FM, babble_FM in zip(heard_BFM, babble_BFM, strict=True):
        if rng.random() < 0.5:
            shift = int(rng.integers(-2, 3))
            heard_FM[:] = heard_FM[:, np.clip(np.arange(NUM_MEL_BANDS) - shift, 0, NUM_MEL_BANDS - 1)]
        heard_FM += rng.uniform(-3.5, 2.0)
        heard_FM += np.linspace(-1.0, 1.0, NUM_MEL_BANDS, dtype=np.float32) * rng.uniform(-1.2, 1.2)
        voice_level = np.percentile(loudness(heard_FM), 90)
        kind = rng.random()
        if kind < 0.45:
            # Stationary noise of a random smooth colour, 3 to 45 dB under the voice.
            colour_M = np.interp(np.linspace(0, 5, NUM_MEL_BANDS), np.arange(6), rng.normal(0.0, 1.5, 6))
            flicker_FM = np.log(rng.chisquare(6, heard_FM.shape) / 6.0)
            noise_FM = voice_level - rng.uniform(3.0, 45.0) / 4.343 + colour_M + flicker_FM
            heard_FM[:] = np.logaddexp(heard_FM, noise_FM.astype(np.float32))
        elif kind < 0.6:
            babble_level = np.percentile(loudness(babble_FM), 90)
            heard_FM[:] = np.logaddexp(
                heard_FM, babble_FM - babble_level + voice_level - np.float32(rng.uniform(10.0, 25.0) / 4.343)
            )
        np.maximum(heard_FM, LOG_POWER_FLOOR, out=heard_FM)


def batches(
    corpus: Corpus, rng: np.random.Generator, *, batch_size: int, crop_frames: int, roughen: bool = True
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Draw training batches without end.

    Yields: levelled frames, shape (B, crop_frames, 64), and articulation, (B, crop_frames / 2 − LOOKAHEAD_STEPS, 12).
    """
    crop_instants = crop_frames // 2
    lengths = np.diff(corpus.starts)
    while True:
        clips = rng.choice(corpus.num_clips, batch_size, p=lengths / lengths.sum())
        heard_BFM = np.full((batch_size, crop_frames, NUM_MEL_BANDS), LOG_POWER_FLOOR, np.float32)
        articulation_BTC = np.zeros((batch_size, crop_instants, corpus.articulation_TC.shape[1]), np.float32)
        for row, clip in enumerate(clips):
            first, last = int(corpus.starts[clip]) // 2, int(corpus.starts[clip + 1]) // 2
            # A crop may begin before the clip or end after it: that is silence, which has to be learnt too.
            begin = int(rng.integers(first - crop_instants // 4, max(last - 3 * crop_instants // 4, first) + 1))
            here, end = max(begin, first), min(begin + crop_instants, last)
            heard_BFM[row, 2 * (here - begin) : 2 * (end - begin)] = corpus.heard_FM[2 * here : 2 * end]
            articulation_BTC[row, here - begin : end - begin] = corpus.articulation_TC[here:end]
            if rng.random() < 0.04:
                # Nobody speaks: only noise will be added to this one.
                heard_BFM[row] = LOG_POWER_FLOOR + rng.uniform(0.0, 10.0)
                articulation_BTC[row] = 0.0
        if roughen:
            _roughen(heard_BFM, np.roll(heard_BFM, 1, axis=0), rng)
        yield levelled(heard_BFM), articulation_BTC[:, : crop_instants - LOOKAHEAD_STEPS]
