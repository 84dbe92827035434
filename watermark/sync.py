"""Finding where the mark's torus lies in an attacked picture: scale, turn, mirror image and shift, without hints.

What is searched is the *sway map*: how strongly, and in which phase, each place of the picture sways at the mark's
frequency. Nearly nothing of the picture itself is left in it. The pilot field is known, so for every scale and turn one
correlation on the torus tries all shifts at once; the best are then refined as full affine maps.

C channel (Cb, Cr)  h,w sample of the sway map  n torus samples along one side
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import fft
from scipy.optimize import minimize

from watermark.carriers import Carriers

TORUS_SAMPLES = 64
_COARSE_TORUS_SAMPLES = 32
_COARSE_SIDE = 64
_SCALES = np.exp(np.arange(np.log(0.5), np.log(2.4), 0.05))
_TURNS_DEG = np.arange(-15.0, 15.1, 3.0)


@dataclass(frozen=True)
class SwayMap:
    """The mark's frequency, read out at every place.

    Attributes:
        values_Chw: complex amplitude.
        weights_hw: how far each place is to be believed: one over the power of the picture's own movement there.
    """

    values_Chw: NDArray[np.complex64]
    weights_hw: NDArray[np.float32]

    def mirrored(self) -> SwayMap:
        return SwayMap(self.values_Chw[..., ::-1], self.weights_hw[:, ::-1])


@dataclass(frozen=True)
class Geometry:
    """Where the torus lies.

    Attributes:
        to_torus: 2×3; (column, row) of a sway-map sample, after mirroring, to torus sides. Only fractions matter.
        is_mirrored: the picture was flipped left to right.
        phase_rad: of the sway, where the clip starts.
        strength: correlation with the pilot, in standard deviations of chance. Up to 10 for unmarked clips.
    """

    to_torus: NDArray[np.float64]
    is_mirrored: bool
    phase_rad: float
    strength: float

    @property
    def rotation_deg(self) -> float:
        """How far the picture was turned, anticlockwise."""
        return float(np.degrees(np.arctan2(self.to_torus[1, 0] - self.to_torus[0, 1], np.trace(self.to_torus[:, :2]))))

    def scale(self, min_side: int) -> float:
        """The marked frame's shorter side in units of this picture's shorter side (which has `min_side` samples)."""
        return float(1.0 / (np.sqrt(abs(np.linalg.det(self.to_torus[:, :2]))) * min_side))


def fold(planes_hwK: NDArray[np.float32], to_torus: NDArray[np.float64], n: int) -> NDArray[np.float32]:
    """Lay a picture onto the torus, adding up what falls on the same place: (n, n, K), K ≤ 4."""
    height, width = planes_hwK.shape[:2]
    to_samples = to_torus * n
    corners = to_samples @ np.array([[0, width, width, 0], [0, 0, height, height], [1, 1, 1, 1]], np.float64)
    low = np.floor(corners.min(1) / n).astype(int)
    high = np.ceil(corners.max(1) / n).astype(int)
    num_columns, num_rows = np.maximum(high - low, 1)
    shifted = to_samples.copy()
    # Sample (i, j) of picture and torus alike has its centre at (i + ½, j + ½).
    shifted[:, 2] += to_samples[:, :2].sum(1) / 2 - 0.5 - low * n
    unfolded = cv2.warpAffine(planes_hwK, shifted, (int(num_columns * n), int(num_rows * n)), flags=cv2.INTER_LINEAR)
    return np.asarray(unfolded.reshape(num_rows, n, num_columns, n, -1).sum((0, 2)))


def _packed(sway: SwayMap, side: int) -> NDArray[np.float32]:
    """Weighted values as four real planes (h, w, 4), shrunk to `side` along the longer side."""
    weighted = sway.values_Chw * sway.weights_hw
    planes = np.stack([weighted[0].real, weighted[0].imag, weighted[1].real, weighted[1].imag], -1).astype(np.float32)
    height, width = planes.shape[:2]
    scale = min(1.0, side / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(cv2.resize(planes, size, interpolation=cv2.INTER_AREA))


def _similarity(scale: float, turn_deg: float, width: int, height: int) -> NDArray[np.float64]:
    """Map samples to torus sides for a torus side of `scale` × the shorter side, turned, centred on the picture."""
    per_sample = 1.0 / (scale * min(width, height))
    angle = np.radians(turn_deg)
    linear = per_sample * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return np.column_stack([linear, -linear @ [width / 2, height / 2]])


@dataclass(frozen=True)
class _Rough:
    """One scale and turn of the search grid, with the shift that fits best."""

    strength: float
    is_mirrored: bool
    scale_index: int
    turn_index: int
    to_torus: NDArray[np.float64]

    def is_beside(self, other: _Rough) -> bool:
        """Whether refining both would end at the same place."""
        return (
            self.is_mirrored == other.is_mirrored
            and abs(self.scale_index - other.scale_index) <= 2
            and abs(self.turn_index - other.turn_index) <= 2
        )


class PilotSearch:
    """Looks for one key's pilot.

    Args:
        carriers: the key's fields.
    """

    def __init__(self, carriers: Carriers) -> None:
        pilot = np.zeros(len(carriers.coefficients_KD))
        pilot[0] = 1.0
        self._pilot_Cnn = carriers.field(pilot, TORUS_SAMPLES)
        self._conjugate_Cnn = np.conj(fft.fft2(carriers.field(pilot, _COARSE_TORUS_SAMPLES))).astype(np.complex64)

    def candidates(self, sway: SwayMap, count: int) -> Iterator[Geometry]:
        """Up to `count` geometries that differ, the likeliest first; each is refined when it is asked for."""
        rough: list[_Rough] = []
        for is_mirrored in (False, True):
            planes_hw4 = _packed(sway.mirrored() if is_mirrored else sway, _COARSE_SIDE)
            height, width = planes_hw4.shape[:2]
            to_coarse = np.diag([width / sway.weights_hw.shape[1], height / sway.weights_hw.shape[0], 1.0])
            for scale_index, scale in enumerate(_SCALES):
                for turn_index, turn_deg in enumerate(_TURNS_DEG):
                    to_torus = _similarity(scale, turn_deg, width, height)
                    strength, shift = self._best_shift(planes_hw4, to_torus)
                    to_torus[:, 2] -= shift
                    rough.append(_Rough(strength, is_mirrored, scale_index, turn_index, to_torus @ to_coarse))
        rough.sort(key=lambda entry: -entry.strength)
        tried: list[_Rough] = []
        for entry in rough:
            if len(tried) < count and not any(entry.is_beside(other) for other in tried):
                tried.append(entry)
                yield self._refined(sway, entry.strength, entry.is_mirrored, entry.to_torus)

    def _best_shift(
        self, planes_hw4: NDArray[np.float32], to_torus: NDArray[np.float64]
    ) -> tuple[float, NDArray[np.float64]]:
        """The correlation peak over all shifts, in standard deviations, and where it is, in torus sides (x, y)."""
        n = _COARSE_TORUS_SAMPLES
        folded = fold(planes_hw4, to_torus, n)
        values_Cnn = np.stack([folded[..., 0] + 1j * folded[..., 1], folded[..., 2] + 1j * folded[..., 3]])
        correlation = np.abs(fft.ifft2((fft.fft2(values_Cnn) * self._conjugate_Cnn).sum(0)))
        row, column = divmod(int(correlation.argmax()), n)
        spread = float(np.sqrt((correlation**2).mean())) + 1e-30
        return float(correlation[row, column]) / spread, np.array([column, row]) / n

    def _refined(self, sway: SwayMap, strength: float, is_mirrored: bool, to_torus: NDArray[np.float64]) -> Geometry:
        """Let all six numbers of the affine map follow the pilot uphill."""
        view = sway.mirrored() if is_mirrored else sway
        height, width = view.weights_hw.shape
        n = TORUS_SAMPLES
        margin = 2
        padded = np.pad(self._pilot_Cnn, ((0, 0), (margin, margin), (margin, margin)), mode="wrap")
        columns, rows = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
        points = np.stack([columns.ravel(), rows.ravel(), np.ones(width * height)])
        weighted_Chw = view.values_Chw * view.weights_hw

        def product(candidate: NDArray[np.float64]) -> tuple[complex, float]:
            at = ((candidate @ points) % 1.0 * n - 0.5 + margin).astype(np.float32).reshape(2, height, width)
            pilot_Chw = np.stack([cv2.remap(plane, at[0], at[1], cv2.INTER_LINEAR) for plane in padded])
            energy = float((view.weights_hw * pilot_Chw**2).sum())
            return complex((weighted_Chw * pilot_Chw).sum()), energy

        # Offsets are counted in what moves the far corner by about the same way, so the simplex starts round.
        unit = 0.01 * np.array([[1 / width, 1 / height, 0.5], [1 / width, 1 / height, 0.5]])
        centre = np.array([[1, 0, -width / 2], [0, 1, -height / 2], [0, 0, 1]])

        def moved(offset: NDArray[np.float64]) -> NDArray[np.float64]:
            return to_torus + (offset.reshape(2, 3) * unit) @ centre

        def loss(offset: NDArray[np.float64]) -> float:
            value, energy = product(moved(offset))
            return -abs(value) / np.sqrt(energy + 1e-30)

        start = np.vstack([np.zeros(6), np.eye(6)])
        found = minimize(
            loss, np.zeros(6), method="Nelder-Mead", options={"initial_simplex": start, "maxfev": 220, "xatol": 0.02}
        )
        best = moved(found.x)
        value, _ = product(best)
        return Geometry(best, is_mirrored, float(np.angle(value)), strength)
