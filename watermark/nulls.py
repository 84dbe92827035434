"""What the reader finds where nothing is: many unmarked or wrongly keyed windows, read in full.

The rate of false positives, A · N / 2⁶⁴, rests on one assumption: that a word read from a picture without a mark of the
key is a random one, whatever the picture. No experiment sees 10⁻¹⁰ happen; what can be tested is the assumption. Beside
the hits in a registry of a million ids (there must be none), the bits of the words are tested for fairness and
independence (χ²), and how near the words are to what was received is compared with pure noise (Kolmogorov–Smirnov).

T frame  H,W pixel  C colour channel (R,G,B)
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import stats

from watermark.embed import Embedder
from watermark.extract import MAX_ATTEMPTS, receive
from watermark.media import Clip, decode_clip
from watermark.payload import NUM_ID_BITS, NUM_SYMBOLS, MarkId, decode

NUM_REGISTERED = 1_000_000
_WINDOWS_PER_KEY = 250
_MOVING_SHARE = 0.1
_WRONG_KEY_SHARE = 0.2
_RATE_HZ = 12.5
_NUM_MOVING_FRAMES = 13
_NUM_NOISE_WORDS = 2000
_OTHER_KEY = hashlib.sha256(b"another instance").digest()
_PICTURE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp"})


def pictures_below(directory: Path) -> list[Path]:
    """The pictures in a folder and below, in a fixed order."""
    return sorted(path for path in directory.rglob("*") if path.suffix.lower() in _PICTURE_SUFFIXES)


def null_report(sources: Sequence[Path], num_windows: int, *, seed: int = 0) -> dict[str, Any]:
    """Read `num_windows` windows that carry no mark of the key they are read with.

    Args:
        sources: clips and pictures; synthetic noise, colour bars and gradients are always added.
        num_windows: a tenth of them are 1 s long, the others single pictures; a fifth carry a mark of another key.
        seed: of everything drawn by chance.
    Returns: counts, and p values of the three tests; each p is uniform if the assumption holds.
    """
    rng = np.random.default_rng([seed, 4])
    registry = frozenset(rng.integers(0, 1 << NUM_ID_BITS, NUM_REGISTERED, np.uint64, endpoint=False).tolist())
    hits = num_words = 0
    most_attempts = 0
    one_per_window: list[int] = []
    correlations: list[float] = []
    kinds: Counter[str] = Counter()
    for number, (kind, clip) in enumerate(_windows(sources, num_windows, rng)):
        key = hashlib.sha256(b"null %d %d" % (seed, number // _WINDOWS_PER_KEY)).digest()
        kinds[kind] += 1
        received = list(receive(clip, key))
        words = [decoded.mark_id.value for each in received for decoded in each.nearest]
        num_words += len(words)
        most_attempts = max(most_attempts, len(words))
        hits += sum(word in registry for word in words)
        chosen = received[int(rng.integers(len(received)))].nearest[0]
        one_per_window.append(chosen.mark_id.value)
        correlations.append(chosen.correlation)
    noise = [decode(rng.standard_normal(NUM_SYMBOLS)).correlation for _ in range(_NUM_NOISE_WORDS)]
    return {
        "windows": dict(sorted(kinds.items())),
        "num_windows": num_windows,
        "num_words": num_words,
        "most_words_in_one_window": most_attempts,
        "num_registered": NUM_REGISTERED,
        "hits": hits,
        "bound_per_clip": MAX_ATTEMPTS * NUM_REGISTERED / 2.0**NUM_ID_BITS,
        "largest_correlation": round(max(correlations), 3),
        "fair_bits_p": _fair_bits_p(one_per_window),
        "fair_pairs_p": _fair_pairs_p(one_per_window),
        "like_noise_p": round(float(stats.ks_2samp(correlations, noise).pvalue), 4),
        "mean_correlation": round(float(np.mean(correlations)), 4),
        "mean_correlation_of_noise": round(float(np.mean(noise)), 4),
    }


def _bits(words: Sequence[int]) -> NDArray[np.int64]:
    return np.array([[word >> bit & 1 for bit in range(NUM_ID_BITS)] for word in words])


def _fair_bits_p(words: Sequence[int]) -> float:
    """χ² over the 64 bits: is each as often 1 as 0?"""
    ones = _bits(words).sum(0)
    statistic = float(((ones - len(words) / 2) ** 2 / (len(words) / 4)).sum())
    return round(float(stats.chi2.sf(statistic, NUM_ID_BITS)), 4)


def _fair_pairs_p(words: Sequence[int]) -> float:
    """χ² over the 63 pairs of neighbouring bits: do they agree as often as not?"""
    bits = _bits(words)
    agreeing = (bits[:, 1:] == bits[:, :-1]).sum(0)
    statistic = float(((agreeing - len(words) / 2) ** 2 / (len(words) / 4)).sum())
    return round(float(stats.chi2.sf(statistic, NUM_ID_BITS - 1)), 4)


def _windows(sources: Sequence[Path], num_windows: int, rng: np.random.Generator) -> Iterator[tuple[str, Clip]]:
    """Windows of every kind: what they show, and the clip or the picture."""
    shows = [*sources, None]
    per_source = 40
    remaining = num_windows
    while remaining > 0:
        source = shows[int(rng.integers(len(shows)))]
        material = None if source is None else _material(source)
        for _ in range(min(per_source, remaining)):
            moving = bool(rng.random() < _MOVING_SHARE)
            frames_THWC = _made_up(rng, moving) if material is None else _cut_out(material, rng, moving)
            kind = "made up" if source is None else "pictures" if _is_picture(source) else "clips"
            if rng.random() < _WRONG_KEY_SHARE:
                height, width = frames_THWC.shape[1:3]
                embedder = Embedder(_OTHER_KEY, MarkId.random(rng.bytes), width, height, 25)
                frames_THWC = embedder.apply(frames_THWC)
                kind = "marked with another key"
            yield (f"{kind}, 1 s" if moving else kind), Clip(frames_THWC, _RATE_HZ)
            remaining -= 1


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in _PICTURE_SUFFIXES


def _material(path: Path) -> NDArray[np.uint8]:
    if not _is_picture(path):
        return decode_clip(path, stop_after_s=3.0, fit_within_px=360).frames_THWC
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    assert image is not None, path
    scale = 360 / max(image.shape[:2])
    small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return np.ascontiguousarray(small[None, ..., ::-1])


def _cut_out(material_THWC: NDArray[np.uint8], rng: np.random.Generator, moving: bool) -> NDArray[np.uint8]:
    """A random part, sometimes mirrored, lighter or darker."""
    num_frames, height, width = material_THWC.shape[:3]
    side = int(rng.integers(112, min(height, width, 176)))
    top, left = int(rng.integers(height - side + 1)), int(rng.integers(width - side + 1))
    first = int(rng.integers(num_frames))
    count = _NUM_MOVING_FRAMES if moving else 1
    indices = np.minimum(first + 2 * np.arange(count), num_frames - 1) if num_frames > 2 * count else [first] * count
    part_THWC = material_THWC[indices, top : top + side, left : left + side].astype(np.float32)
    if rng.random() < 0.5:
        part_THWC = part_THWC[:, :, ::-1]
    changed = part_THWC * rng.uniform(0.7, 1.3) + rng.uniform(-10, 10) + rng.normal(0, 0.7, part_THWC.shape)
    return np.clip(np.rint(changed), 0, 255).astype(np.uint8)


def _made_up(rng: np.random.Generator, moving: bool) -> NDArray[np.uint8]:
    """Noise of any coarseness, colour bars or a gradient; moving ones drift."""
    side = int(rng.integers(112, 176))
    what = rng.random()
    if what < 0.6:
        cells = int(rng.integers(4, side))
        grain_HWC = rng.uniform(0, 255, (cells, cells, 3)).astype(np.float32)
        base_HWC: NDArray[Any] = cv2.resize(grain_HWC, (side, side), interpolation=cv2.INTER_CUBIC)
    elif what < 0.8:
        bars = rng.uniform(0, 255, (1, int(rng.integers(4, 12)), 3)).astype(np.float32)
        base_HWC = cv2.resize(bars, (side, side), interpolation=cv2.INTER_NEAREST)
    else:
        ramp = np.linspace(0, rng.uniform(50, 255), side, dtype=np.float32)
        base_HWC = np.stack([ramp[None] + ramp[:, None] * rng.uniform(-1, 1) for _ in range(3)], -1)
    count = _NUM_MOVING_FRAMES if moving else 1
    drift = rng.uniform(-2, 2, 2)
    frames = [np.roll(base_HWC, np.rint(drift * i).astype(int), (0, 1)) for i in range(count)]
    noisy = np.stack(frames) + rng.normal(0, 0.7, (count, side, side, 3))
    return np.clip(np.rint(noisy), 0, 255).astype(np.uint8)
