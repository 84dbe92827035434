"""Reading a mark from any clip, without the original and without hints.

Steps: (1) colour and luma planes, small; (2) the sway map: a least-squares fit of the mark's sine and cosine at the
time stamps of the frames, beside a slow drift; (3) the geometry (`sync`); (4) all symbols at once, each place weighted
by how quiet the picture itself is there, the overlap of the fields in a cropped view undone, and colour and luma joined
by how well each hears its pilot; (5) the nearest code words; (6) the registry. Then, if that gave nothing, or for a
single picture: the tile (`still`), and (5) and (6) again.

Only the registry gives an id meaning: the nearest code word to noise is some id, too. With N registered ids and A
words looked up, an unmarked clip is called marked with probability A · N / 2⁶⁴, which every reading states. At most
`MAX_ATTEMPTS` words are looked up, so with a million ids that is never above 10⁻¹⁰.

T frame  S picture  C channel (Cb, Cr, luma)  G group (colour, luma)  h,w sample of the sway map  K field
n torus samples along one side
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from watermark.carriers import WAVE_HZ, Carriers, TileCarriers
from watermark.colour import ColourTrack, colour_track
from watermark.media import Clip
from watermark.payload import NUM_ID_BITS, Decoded, MarkId, decode_list
from watermark.still import TileReader, fine_structure
from watermark.sync import GROUPS, TORUS_SAMPLES, Geometry, PilotSearch, SwayMap, fold, rotation_deg, turned_hue

ReadingState = Literal["detected", "not_detected", "inconclusive"]

Carrier = Literal["sway", "tile"]

WINDOW_S = 10.0
MIN_DURATION_S = 0.8
MAX_ATTEMPTS = 1800
_NUM_CANDIDATES = 3
_NUM_TILE_CANDIDATES = 3
_LIST_LENGTH = 32
_HOPEFUL_CORRELATION = 0.57
"""Below this, only the nearest word is looked up: half of all noise is nearer to some word."""
_NOISE_G = (0.3, 1.5)
"""Share of noise that the joint estimate expects, in colour and in the weaker luma."""
_LEAST_POWER = 2e-3
"""What rounding to 8 bits leaves of noise at least, so that a channel without any movement is not trusted blindly."""
_SURE_CORRELATION = 0.72
"""Code words this near are not noise (docs/watermark.md has the distribution): a mark of this key, whoever knows it."""


@dataclass(frozen=True)
class MarkReading:
    """What a clip says about its mark.

    Attributes:
        state: "detected": a registered id; "inconclusive": an id of this key that the registry does not know;
            "not_detected", which proves nothing.
        mark_id: the id, when detected.
        null_fpr: the probability of "detected" for an unmarked clip.
        num_attempts: words looked up.
        correlation: of the best word with what was received, 0..1.
        scale, rotation_deg, is_mirrored: how the marked frame lies in this one, when detected.
        start_s: where the window begins in which the id was found.
        reason: a sentence for people.
        carrier: what it was read from, when detected: what sways, or the tile that stands still.
    """

    state: ReadingState
    mark_id: MarkId | None
    null_fpr: float
    num_attempts: int
    correlation: float
    scale: float | None
    rotation_deg: float | None
    is_mirrored: bool | None
    start_s: float | None
    reason: str
    carrier: Carrier | None = None


def read_mark(
    clip: Clip | ColourTrack,
    key: bytes,
    is_registered: Callable[[MarkId], bool],
    *,
    num_registered: int,
    max_windows: int = 6,
) -> MarkReading:
    """Look for a mark of `key`.

    Args:
        clip: decoded frames with their times, any size and rate, or a single picture; or only the clip in small.
        key: the watermark key, 32 bytes.
        is_registered: says whether an id was ever given out.
        num_registered: how many were, for the false-positive rate.
        max_windows: windows of 10 s to try in a long clip, evenly spread.
    Raises: InvalidMarkKeyError.
    """
    track = colour_track(clip) if isinstance(clip, Clip) else clip
    num_attempts, best = 0, 0.0
    for word in receive(track, key, max_windows=max_windows):
        for decoded in word.nearest:
            if num_attempts >= MAX_ATTEMPTS:
                break
            num_attempts += 1
            best = max(best, decoded.correlation)
            if is_registered(decoded.mark_id):
                return MarkReading(
                    state="detected",
                    mark_id=decoded.mark_id,
                    null_fpr=num_attempts * num_registered / 2.0**NUM_ID_BITS,
                    num_attempts=num_attempts,
                    correlation=decoded.correlation,
                    scale=word.scale,
                    rotation_deg=word.rotation_deg,
                    is_mirrored=word.is_mirrored,
                    start_s=word.start_s,
                    reason="The frames carry a registered mark. A mark can be copied: compare the content, too.",
                    carrier=word.carrier,
                )
    null_fpr = num_attempts * num_registered / 2.0**NUM_ID_BITS
    if best >= _SURE_CORRELATION:
        state: ReadingState = "inconclusive"
        reason = "The frames carry a mark of this key whose id is not in the registry."
    else:
        state, reason = "not_detected", "No registered mark was found. That proves nothing about the clip's origin."
        if not _can_sway(track):
            reason += " A still, a very short or a very slow clip carries only the weaker part of the mark."
    return MarkReading(state, None, null_fpr, num_attempts, best, None, None, None, None, reason)


@dataclass(frozen=True)
class Received:
    """What one place in one window says: the nearest ids, and where it lies (see `MarkReading`)."""

    nearest: list[Decoded]
    carrier: Carrier
    scale: float
    rotation_deg: float
    is_mirrored: bool
    start_s: float


def _nearest(symbols: NDArray[np.float64]) -> list[Decoded]:
    nearest = decode_list(symbols, _LIST_LENGTH)
    return nearest if nearest[0].correlation >= _HOPEFUL_CORRELATION else nearest[:1]


def receive(clip: Clip | ColourTrack, key: bytes, *, max_windows: int = 6) -> Iterator[Received]:
    """All that `read_mark` looks up, in its order: what sways, window by window; then what stands still."""
    track = colour_track(clip) if isinstance(clip, Clip) else clip
    if _can_sway(track):
        sway_reader = _SwayReader(Carriers.of_key(key))
        for start_s, planes_T3hw, times_T in _windows(track, max_windows):
            for symbols, geometry in sway_reader.symbols(planes_T3hw, times_T):
                yield Received(
                    _nearest(symbols),
                    "sway",
                    geometry.scale(min(planes_T3hw.shape[2:])),
                    geometry.rotation_deg,
                    geometry.is_mirrored,
                    start_s,
                )
    tile_reader = TileReader(TileCarriers.of_key(key))
    for start_s, end_s in _spans(track, max_windows):
        inside = (track.detail_times_S >= start_s) & (track.detail_times_S <= end_s)
        if inside.any():
            fine_hw = fine_structure(track.detail_SHW[inside])
            for fit in tile_reader.fits(fine_hw, _NUM_TILE_CANDIDATES):
                side = 1.0 / np.sqrt(abs(np.linalg.det(fit.to_tile[:, :2])))
                yield Received(
                    _nearest(tile_reader.symbols(fine_hw, fit)),
                    "tile",
                    4 * side / min(fine_hw.shape),
                    rotation_deg(fit.to_tile),
                    fit.is_mirrored,
                    start_s,
                )


def _can_sway(track: ColourTrack) -> bool:
    """Whether the clip is long and fast enough for what sways to be read."""
    duration_s = float(track.times_T[-1]) if len(track.times_T) else 0.0
    return duration_s >= MIN_DURATION_S and (len(track.times_T) - 1) / duration_s >= 2.4 * WAVE_HZ


def _spans(track: ColourTrack, max_windows: int) -> list[tuple[float, float]]:
    """Begin and end of the windows."""
    duration_s = float(track.times_T[-1])
    if duration_s <= 1.2 * WINDOW_S:
        return [(0.0, duration_s)]
    count = min(max_windows, math.ceil(duration_s / WINDOW_S))
    return [(float(start_s), float(start_s) + WINDOW_S) for start_s in np.linspace(0.0, duration_s - WINDOW_S, count)]


def _windows(track: ColourTrack, max_windows: int) -> Iterator[tuple[float, NDArray[np.float32], NDArray[np.float64]]]:
    for start_s, end_s in _spans(track, max_windows):
        inside = (track.times_T >= start_s) & (track.times_T <= end_s)
        if inside.sum() > 2.4 * WAVE_HZ * MIN_DURATION_S:
            planes_T3hw = np.concatenate([track.planes_T2HW[inside], track.luma_THW[inside, None]], axis=1)
            yield start_s, planes_T3hw, track.times_T[inside]


def sway_map(planes_T3hw: NDArray[np.float32], times_T: NDArray[np.float64]) -> SwayMap:
    """Read the mark's frequency out of every place of the picture.

    Least squares with the true time stamps, so frames may be lost or unevenly spaced; a constant and a slow drift are
    fitted beside the sway, so the picture itself drops out. What moves at neighbouring frequencies tells how far a
    place can be trusted.
    """
    span_s = max(float(times_T[-1] - times_T[0]), 1e-3)
    slow = 2 * (times_T - times_T[0]) / span_s - 1
    drift = [np.ones_like(slow), slow, slow**2]

    def fitted(frequency_hz: float, planes: NDArray[np.float32]) -> NDArray[np.complex64]:
        angle = 2 * np.pi * frequency_hz * times_T
        design = np.stack([np.sin(angle), np.cos(angle), *drift], -1)
        solved = np.linalg.pinv(design)[:2].astype(np.float32) @ planes.reshape(len(planes), -1)
        return (solved[0] + 1j * solved[1]).reshape(planes.shape[1:]).astype(np.complex64)

    # Sudden changes (a mouth that opens, a blink) are large and rare; the mark is small and everywhere.
    sample_T3hw = planes_T3hw[:: max(1, len(planes_T3hw) // 24)]  # medians are slow
    middle_3hw = np.median(sample_T3hw, axis=0)
    limit_3hw = 3.0 * 1.48 * np.median(np.abs(sample_T3hw - middle_3hw), axis=0) + 2.0
    clipped = np.clip(planes_T3hw - middle_3hw, -limit_3hw, limit_3hw).astype(np.float32)
    offset_hz = max(1.5 / span_s, 0.3)
    powers_Chw = np.mean([np.abs(fitted(WAVE_HZ + step * offset_hz, clipped)) ** 2 for step in (-2, -1, 1, 2)], axis=0)
    weights = []
    for channels in GROUPS:
        power_hw = cv2.GaussianBlur(powers_Chw[list(channels)].mean(0).astype(np.float32), (0, 0), 3.0)
        weights.append(1.0 / (power_hw + 1.5 * np.median(power_hw) + _LEAST_POWER))
    return SwayMap(fitted(WAVE_HZ, clipped), np.stack(weights).astype(np.float32))


class _SwayReader:
    """One key, ready to read what sways."""

    def __init__(self, carriers: Carriers) -> None:
        num_fields = len(carriers.coefficients_KD)
        self._fields_GKD = (
            carriers.fields(TORUS_SAMPLES).reshape(num_fields, -1),
            carriers.luma_fields(TORUS_SAMPLES).reshape(num_fields, -1),
        )
        self._search = PilotSearch(carriers)

    def symbols(
        self, planes_T3hw: NDArray[np.float32], times_T: NDArray[np.float64]
    ) -> Iterator[tuple[NDArray[np.float64], Geometry]]:
        """Soft symbols, the likeliest geometry first."""
        sway = sway_map(planes_T3hw, times_T)
        for geometry in self._search.candidates(sway, _NUM_CANDIDATES):
            yield self._symbols(sway, geometry), geometry

    def _symbols(self, sway: SwayMap, geometry: Geometry) -> NDArray[np.float64]:
        """Linear minimum-mean-square-error estimates over their error variance, colour and luma joined."""
        values_Chw = turned_hue(sway.values_Chw) if geometry.hue_turned else sway.values_Chw
        joined_K = np.zeros(len(self._fields_GKD[0]))
        for group, channels in enumerate(GROUPS):
            weights_hw = sway.weights_Ghw[group]
            in_phase = (values_Chw[list(channels)] * np.exp(-1j * geometry.phase_rad_G[group])).real * weights_hw
            planes_hwK = np.concatenate([in_phase, weights_hw[None]]).transpose(1, 2, 0).astype(np.float32)
            folded = fold(np.ascontiguousarray(planes_hwK), geometry.to_torus, TORUS_SAMPLES)
            weights_D = np.concatenate([folded[..., -1].ravel()] * len(channels))
            received_D = np.concatenate([folded[..., channel].ravel() for channel in range(len(channels))])
            # Cropping and weighting make the fields overlap: G is how much of field j is heard when listening for i.
            fields_KD = self._fields_GKD[group]
            gram_KK = (fields_KD * weights_D) @ fields_KD.T
            heard_K = fields_KD @ received_D
            noise = _NOISE_G[group] * float(np.trace(gram_KK)) / len(gram_KK) + 1e-12
            inverse_KK = np.linalg.inv(gram_KK + noise * np.eye(len(gram_KK)))
            estimate_K = inverse_KK @ heard_K
            pilot = max(float(estimate_K[0]), 0.0)
            joined_K += pilot * estimate_K / (np.diag(inverse_KK) * noise + 1e-12)
        return joined_K[1:].astype(np.float64)
