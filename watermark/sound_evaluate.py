"""How well the mark in the sound survives, how little it is heard, and how seldom it is seen where there is none.

Audibility is stated in four figures: the signal-to-mark ratio over all and as the mean over segments of 16 ms; the
noise-to-mask ratio, the mark's power against what the speech masks (excitation after spreading, minus the offsets of
ITU-R BS.1387-2 §2.1.6; below 0 dB the mark lies under the mask on the average); and PESQ (ITU-T P.862.2, wideband,
4.64 = no difference), where the optional package `pesq` is installed.

N sample  M frame  B band
"""

from __future__ import annotations

import hashlib
import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import chi2

from watermark.audio_mark import LEAST_DB, MEAN_DB, MOST_DB, AudioEmbedder, read_audio_mark
from watermark.media import SPEECH_RATE_HZ, Sound, decode_sound
from watermark.payload import NUM_ID_BITS, MarkId
from watermark.sound_attacks import SOUND_ISSUED, SOUND_SUITE, SoundAttack

Progress = Callable[[int, int, str], None]
"""Is told steps done, steps in all, and what comes next."""

SOUND_SUFFIXES = (".wav", ".flac", ".opus", ".ogg", ".mp3", ".m4a")


def sounds_below(directory: Path) -> list[Path]:
    """The sound files in a folder and below, in a fixed order."""
    return sorted(path for path in directory.rglob("*") if path.suffix.lower() in SOUND_SUFFIXES)


def evaluate_sound(
    files: Sequence[Path],
    *,
    attacks: Mapping[str, SoundAttack] | None = None,
    durations_s: Sequence[float] = (5.0, 10.0),
    num_null_keys: int = 4,
    seed: int = 0,
    keep_in: Path | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Mark, attack and read speech.

    Args:
        files: recordings; each is used for the durations that it reaches (after the attack).
        attacks: by name; the whole suite by default.
        durations_s: how much of the attacked sound is read, from a place drawn by chance.
        num_null_keys: keys under which each unmarked recording is read.
        seed: determines key, ids and places.
        keep_in: a folder for what each recording gave; what is found there is not done again.
        progress: see `Progress`.
    Returns: a report that JSON can hold: `attacks`, `audibility`, `false_positives`, `speed`.
    """
    attacks = SOUND_SUITE if attacks is None else attacks
    records = []
    for number, path in enumerate(files):
        piece = None
        if keep_in is not None:
            settings = repr((_VERSION, MEAN_DB, LEAST_DB, MOST_DB, sorted(attacks), durations_s, num_null_keys, seed))
            digest = hashlib.sha256(path.read_bytes() + settings.encode()).hexdigest()[:12]
            piece = keep_in / f"{path.stem}-{digest}.json"
        if piece is not None and piece.is_file():
            records.append(json.loads(piece.read_text()))
            continue

        def tell(what: str, number: int = number, path: Path = path) -> None:
            if progress is not None:
                progress(number, len(files), f"{path.name}: {what}")

        records.append(_evaluate_recording(path, attacks, durations_s, num_null_keys, seed, tell))
        if piece is not None:
            piece.parent.mkdir(parents=True, exist_ok=True)
            unfinished = piece.with_suffix(".partial")
            unfinished.write_text(json.dumps(records[-1], ensure_ascii=False))
            unfinished.replace(piece)
    return _report(records, list(attacks), durations_s)


_VERSION = 2
"""Of what is kept between runs; a change makes old pieces count no more."""


def _evaluate_recording(
    path: Path,
    attacks: Mapping[str, SoundAttack],
    durations_s: Sequence[float],
    num_null_keys: int,
    seed: int,
    tell: Callable[[str], None],
) -> dict[str, Any]:
    """What one recording gives, as JSON can hold it."""
    key = hashlib.sha256(b"placet sound evaluation %d" % seed).digest()
    rng = np.random.default_rng([seed, *path.name.encode()])
    mark_id = MarkId.random(rng.bytes)
    original = decode_sound(path.read_bytes())
    started_at_s = time.process_time()
    marked = Sound(AudioEmbedder(key, mark_id, original.rate_hz).apply(original.samples_N), original.rate_hz)
    record: dict[str, Any] = {
        "sound": path.name,
        "embed_s_per_s": (time.process_time() - started_at_s) / original.duration_s,
        "audibility": _audibility(original, marked),
        "attacks": {},
    }
    read_s_per_s: list[float] = []
    for name, attack in attacks.items():
        tell(name)
        attacked = attack(marked)
        found = record["attacks"][name] = {}
        for duration_s in durations_s:
            if attacked.duration_s >= duration_s - 0.01:
                part = _part(attacked, duration_s, rng)
                started_at_s = time.process_time()
                reading = read_audio_mark(part, key, mark_id.__eq__, num_registered=1)
                read_s_per_s.append((time.process_time() - started_at_s) / duration_s)
                found[f"{duration_s:g}_s"] = reading.mark_id == mark_id
    record["read_s_per_s"] = read_s_per_s
    tell("false positives")
    nulls = [_null_words(original, b"%d %d" % (seed, null), mark_id) for null in range(num_null_keys)]
    record["nulls"] = [{"words": words, "windows": windows, "detected": found} for words, windows, found in nulls]
    return record


def _report(records: Sequence[Mapping[str, Any]], names: Sequence[str], durations_s: Sequence[float]) -> dict[str, Any]:
    attacks: dict[str, dict[str, dict[str, int]]] = {}
    for name in names:
        columns = attacks[name] = {}
        for column in (f"{duration_s:g}_s" for duration_s in durations_s):
            found = [each["attacks"][name][column] for each in records if column in each["attacks"][name]]
            columns[column] = {"recovered": sum(found), "tried": len(found)}
    nulls = [null for each in records for null in each["nulls"]]
    num_words, num_windows = sum(len(null["words"]) for null in nulls), sum(null["windows"] for null in nulls)
    read_s_per_s = [value for each in records for value in each["read_s_per_s"]]
    return {
        "num_sounds": len(records),
        "attacks": attacks,
        "issued_all_recovered": all(
            cell["recovered"] == cell["tried"]
            for name, columns in attacks.items()
            if name in SOUND_ISSUED
            for cell in columns.values()
        ),
        "audibility": _summary([each["audibility"] for each in records]),
        "false_positives": {
            "windows": num_windows,
            "words_tried": num_words,
            "detected": sum(null["detected"] for null in nulls),
            "uniformity_p": _uniformity_p([null["words"][0] for null in nulls if null["words"]]),
            "bound_per_window_with_10e6_ids": num_words / max(1, num_windows) * 1e6 / 2.0**NUM_ID_BITS,
        },
        "speed": {
            "embed_ms_per_s": round(1e3 * statistics.median(each["embed_s_per_s"] for each in records), 2),
            "read_ms_per_s": round(1e3 * statistics.median(read_s_per_s), 1) if read_s_per_s else None,
            "what": "processor time on one thread, per second of sound",
        },
    }


def _part(sound: Sound, duration_s: float, rng: np.random.Generator) -> Sound:
    size = round(duration_s * sound.rate_hz)
    start = int(rng.integers(0, max(1, len(sound.samples_N) - size)))
    return Sound(sound.samples_N[start : start + size], sound.rate_hz)


def _null_words(sound: Sound, label: bytes, registered: MarkId) -> tuple[list[int], int, bool]:
    """The words that are looked up in an unmarked sound, in order, their windows, and whether one was registered."""
    tried: dict[int, None] = {}

    def look_up(mark_id: MarkId) -> bool:
        tried[mark_id.value] = None
        return False

    reading_key = hashlib.sha256(b"placet null " + label).digest()
    read_audio_mark(sound, reading_key, look_up, num_registered=1)
    num_windows = 1 if sound.duration_s <= 7.2 else min(6, int(np.ceil(sound.duration_s / 6.0)))
    return list(tried), num_windows, registered.value in tried


def _uniformity_p(words: Sequence[int]) -> float | None:
    """Chi-squared test over the 64 bits: the probability of counts as uneven as these from uniform words.

    The words must be independent: one of each reading, for those of one list are neighbours of each other.
    """
    if not words:
        return None
    half = len(words) / 2
    ones = [sum(word >> bit & 1 for word in words) for bit in range(NUM_ID_BITS)]
    statistic = sum((count - half) ** 2 / (half / 2) for count in ones)
    return float(chi2.sf(statistic, NUM_ID_BITS))


# ---- audibility ------------------------------------------------------------------------------------------------------


def _audibility(original: Sound, marked: Sound) -> dict[str, float | None]:
    mark_N = marked.samples_N - original.samples_N
    ratio = float(
        np.sum(original.samples_N.astype(np.float64) ** 2) / max(np.sum(mark_N.astype(np.float64) ** 2), 1e-12)
    )
    return {
        "snr_db": float(10 * np.log10(ratio)),
        "segmental_snr_db": _segmental_snr_db(original.samples_N, mark_N),
        "noise_to_mask_db": noise_to_mask_db(original, marked),
        "pesq_wb": _pesq(original, marked),
    }


def _segmental_snr_db(samples_N: NDArray[np.float32], mark_N: NDArray[np.float32], size: int = 256) -> float:
    """Mean over segments in which something is said, each held to −10..35 dB."""
    num = len(samples_N) // size
    power = (samples_N[: num * size].reshape(num, size).astype(np.float64) ** 2).mean(axis=1)
    noise = (mark_N[: num * size].reshape(num, size).astype(np.float64) ** 2).mean(axis=1)
    active = power > 1e-4 * power.max()
    ratios_db = 10 * np.log10(power[active] / np.maximum(noise[active], 1e-15))
    return float(np.clip(ratios_db, -10, 35).mean())


def noise_to_mask_db(original: Sound, marked: Sound) -> float:
    """The mark's power over the masking threshold of the speech, mean over frames and bands, in dB."""
    original, marked = original.resampled(SPEECH_RATE_HZ), marked.resampled(SPEECH_RATE_HZ)
    size, hop = 512, 256
    window = np.hanning(size)
    frequency_hz = np.arange(size // 2 + 1) * SPEECH_RATE_HZ / size
    bark = 7 * np.arcsinh(frequency_hz / 650)
    bands = (bark / 0.5).astype(int)
    num_bands = int(bands.max()) + 1
    centre = (np.arange(num_bands) + 0.5) * 0.5

    def powers(samples_N: NDArray[np.float32]) -> NDArray[np.float64]:
        frames_MN = np.lib.stride_tricks.sliding_window_view(samples_N, size)[::hop] * window
        spectrum = np.abs(np.fft.rfft(frames_MN, axis=1)) ** 2
        return np.stack([np.bincount(bands, row, num_bands) for row in spectrum])

    distance = centre[:, None] - centre[None, :]  # from masker (column) to masked band (row)
    spreading = 10.0 ** (np.where(distance > 0, -12 * distance, 27 * distance) / 10)
    offset_db = np.where(centre <= 12, 3.0, 0.25 * centre)
    speech_MB = powers(original.samples_N)
    mask_MB = (speech_MB @ spreading.T) * 10 ** (-offset_db / 10)
    active_M = speech_MB.sum(axis=1) > 1e-4 * speech_MB.sum(axis=1).max()
    noise_MB = powers(marked.samples_N - original.samples_N)
    return float(10 * np.log10(np.mean((noise_MB / np.maximum(mask_MB, 1e-12))[active_M])))


def _pesq(original: Sound, marked: Sound) -> float | None:
    try:
        from pesq import pesq
    except ImportError:
        return None
    at_rate = [sound.resampled(SPEECH_RATE_HZ).samples_N for sound in (original, marked)]
    return float(pesq(SPEECH_RATE_HZ, at_rate[0], at_rate[1], "wb"))


def _summary(rows: Sequence[Mapping[str, float | None]]) -> dict[str, Any]:
    """Median and worst of each figure; the worst noise-to-mask ratio is the largest."""
    summary: dict[str, Any] = {}
    for name in rows[0] if rows else ():
        values = [value for row in rows if (value := row[name]) is not None]
        worst = max if name == "noise_to_mask_db" else min
        summary[name] = (
            {"median": round(statistics.median(values), 2), "worst": round(worst(values), 2)} if values else None
        )
    return summary


def table(report: Mapping[str, Any]) -> str:
    """The attacks as a Markdown table."""
    attacks: Mapping[str, Any] = report["attacks"]
    durations = list(next(iter(attacks.values())))
    heads = [name.replace("_s", " s") for name in durations]
    lines = [f"| attack | from {' | from '.join(heads)} |", "|---|" + "---|" * len(durations)]
    for name, by_duration in attacks.items():
        cells = [f"{by_duration[d]['recovered']} of {by_duration[d]['tried']}" for d in durations]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)
