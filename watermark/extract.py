"""Reading a mark from any clip, without the original and without hints.

Steps: (1) colour planes, small; (2) the sway map: a least-squares fit of the mark's sine and cosine at the time stamps
of the frames, beside a slow drift; (3) the geometry (`sync`); (4) all symbols at once, each place weighted by how quiet
the picture itself is there, and the overlap of the fields in a cropped view undone; (5) Viterbi; (6) the registry.

Only the registry gives an id meaning: the nearest code word to noise is some id, too. With N registered ids and A
attempts, an unmarked clip is called marked with probability A · N / 2⁶⁴, which every reading states.

T frame  C channel (Cb, Cr)  h,w sample of the sway map  K field  n torus samples along one side
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from watermark.carriers import WAVE_HZ, Carriers
from watermark.media import Clip, ColourTrack, colour_track
from watermark.payload import NUM_ID_BITS, Decoded, MarkId, decode
from watermark.sync import TORUS_SAMPLES, Geometry, PilotSearch, SwayMap, fold

ReadingState = Literal["detected", "not_detected", "inconclusive"]

WINDOW_S = 10.0
MIN_DURATION_S = 0.8
_NUM_CANDIDATES = 3
_SURE_CORRELATION = 0.72
"""Code words this near are not noise (0.61 is the largest of 300 noise words): a mark of this key, whoever knows it."""


@dataclass(frozen=True)
class MarkReading:
    """What a clip says about its mark.

    Attributes:
        state: "detected": a registered id; "inconclusive": the clip is too short or too slow to tell, or it carries
            an id of this key that the registry does not know; "not_detected", which proves nothing.
        mark_id: the id, when detected.
        null_fpr: the probability of "detected" for an unmarked clip.
        num_attempts: words looked up.
        correlation: of the best word with what was received, 0..1.
        scale, rotation_deg, is_mirrored: how the marked frame lies in this one, when detected.
        start_s: where the window begins in which the id was found.
        reason: a sentence for people.
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
        clip: decoded frames with their times, any size and rate; or only their small colour planes.
        key: the watermark key, 32 bytes.
        is_registered: says whether an id was ever given out.
        num_registered: how many were, for the false-positive rate.
        max_windows: windows of 10 s to try in a long clip, evenly spread.
    Raises: InvalidMarkKeyError.
    """
    track = colour_track(clip) if isinstance(clip, Clip) else clip
    search = _Reader(Carriers.of_key(key))
    duration_s = float(track.times_T[-1]) if len(track.times_T) else 0.0
    mean_rate_hz = (len(track.times_T) - 1) / duration_s if duration_s > 0 else 0.0
    if duration_s < MIN_DURATION_S or mean_rate_hz < 2.4 * WAVE_HZ:
        reason = "The clip is a still, too short or too slow for the mark, which sways 2.5 times a second."
        return MarkReading("inconclusive", None, 0.0, 0, 0.0, None, None, None, None, reason)
    num_attempts, best = 0, 0.0
    for start_s, planes_T2hw, times_T in _windows(track, max_windows):
        for decoded, geometry in search.words(planes_T2hw, times_T):
            num_attempts += 1
            best = max(best, decoded.correlation)
            if is_registered(decoded.mark_id):
                return MarkReading(
                    state="detected",
                    mark_id=decoded.mark_id,
                    null_fpr=num_attempts * num_registered / 2.0**NUM_ID_BITS,
                    num_attempts=num_attempts,
                    correlation=decoded.correlation,
                    scale=geometry.scale(min(planes_T2hw.shape[2:])),
                    rotation_deg=geometry.rotation_deg,
                    is_mirrored=geometry.is_mirrored,
                    start_s=start_s,
                    reason="The frames carry a registered mark. A mark can be copied: compare the content, too.",
                )
    null_fpr = num_attempts * num_registered / 2.0**NUM_ID_BITS
    if best >= _SURE_CORRELATION:
        state: ReadingState = "inconclusive"
        reason = "The frames carry a mark of this key whose id is not in the registry."
    else:
        state, reason = "not_detected", "No registered mark was found. That proves nothing about the clip's origin."
    return MarkReading(state, None, null_fpr, num_attempts, best, None, None, None, None, reason)


def _windows(track: ColourTrack, max_windows: int) -> Iterator[tuple[float, NDArray[np.float32], NDArray[np.float64]]]:
    duration_s = float(track.times_T[-1])
    if duration_s <= 1.2 * WINDOW_S:
        yield 0.0, track.planes_T2HW, track.times_T
        return
    count = min(max_windows, math.ceil(duration_s / WINDOW_S))
    for start_s in np.linspace(0.0, duration_s - WINDOW_S, count):
        inside = (track.times_T >= start_s) & (track.times_T < start_s + WINDOW_S)
        if inside.sum() > 2.4 * WAVE_HZ * MIN_DURATION_S:
            yield float(start_s), track.planes_T2HW[inside], track.times_T[inside]


def sway_map(planes_T2hw: NDArray[np.float32], times_T: NDArray[np.float64]) -> SwayMap:
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
    centred = planes_T2hw - np.median(planes_T2hw, axis=0)
    limit = 3.0 * 1.48 * np.median(np.abs(centred), axis=0) + 2.0
    clipped = np.clip(centred, -limit, limit).astype(np.float32)
    offset_hz = max(1.5 / span_s, 0.3)
    neighbours = [fitted(WAVE_HZ + step * offset_hz, clipped) for step in (-2, -1, 1, 2)]
    power_hw = np.mean([np.abs(values) ** 2 for values in neighbours], axis=(0, 1))
    power_hw = cv2.GaussianBlur(power_hw.astype(np.float32), (0, 0), 3.0)
    floor = 1.5 * float(np.median(power_hw)) + 1e-4
    return SwayMap(fitted(WAVE_HZ, clipped), (1.0 / (power_hw + floor)).astype(np.float32))


class _Reader:
    """One key, ready to read."""

    def __init__(self, carriers: Carriers) -> None:
        self._fields_KD = carriers.fields(TORUS_SAMPLES).reshape(len(carriers.coefficients_KD), -1)
        self._search = PilotSearch(carriers)

    def words(
        self, planes_T2hw: NDArray[np.float32], times_T: NDArray[np.float64]
    ) -> Iterator[tuple[Decoded, Geometry]]:
        """Code words, the likeliest geometry first."""
        sway = sway_map(planes_T2hw, times_T)
        for geometry in self._search.candidates(sway, _NUM_CANDIDATES):
            yield decode(self.symbols(sway, geometry)), geometry

    def symbols(self, sway: SwayMap, geometry: Geometry) -> NDArray[np.float64]:
        """Soft symbols of one geometry: linear minimum-mean-square-error estimates over their error variance."""
        view = sway.mirrored() if geometry.is_mirrored else sway
        in_phase = (view.values_Chw * np.exp(-1j * geometry.phase_rad)).real * view.weights_hw
        folded = fold(
            np.stack([in_phase[0], in_phase[1], view.weights_hw], -1).astype(np.float32),
            geometry.to_torus,
            TORUS_SAMPLES,
        )
        weights = np.concatenate([folded[..., 2].ravel()] * 2)
        received_D = np.concatenate([folded[..., 0].ravel(), folded[..., 1].ravel()])
        # Cropping and weighting make the fields overlap: G is how much of field j is heard when listening for field i.
        gram_KK = (self._fields_KD * weights) @ self._fields_KD.T
        heard_K = self._fields_KD @ received_D
        noise = 0.3 * float(np.trace(gram_KK)) / len(gram_KK)
        inverse_KK = np.linalg.inv(gram_KK + noise * np.eye(len(gram_KK)))
        estimate_K = inverse_KK @ heard_K
        return (estimate_K / (np.diag(inverse_KK) * noise + 1e-12))[1:].astype(np.float64)
