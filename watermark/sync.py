"""Finding where the mark's torus lies in an attacked picture: scale, turn, mirror image and shift, without hints.

What is searched is the *sway map*: how strongly, and in which phase, each place of the picture sways at the mark's
frequency. Nearly nothing of the picture itself is left in it. The pilot field is known, so for every scale and turn one
correlation on the torus tries all shifts at once; the best are then refined as full affine maps.

C channel (Cb, Cr, luma)  G group of channels (colour, luma)  h,w sample of the sway map  n torus samples along one side
V view (8 turns and mirrorings)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import cv2
import numba
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
GROUPS = ((0, 1), (2,))
"""The channels that sway in one phase: colour; luma."""
VIEWS = np.array(
    [
        [[1, 0], [0, 1]],
        [[-1, 0], [0, 1]],
        [[0, 1], [-1, 0]],
        [[0, -1], [1, 0]],
        [[-1, 0], [0, -1]],
        [[1, 0], [0, -1]],
        [[0, 1], [1, 0]],
        [[0, -1], [-1, 0]],
    ],
    np.float64,
)
"""Quarter turns and mirror images: as it is, left to right, a quarter turn either way, and so on."""
_HUE_TURN = np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
_NUM_HUE_VIEWS = 2
"""Views that are also tried with the colour circle turned by a quarter."""


@dataclass(frozen=True)
class SwayMap:
    """The mark's frequency, read out at every place.

    Attributes:
        values_Chw: complex amplitude.
        weights_Ghw: how far each place is to be believed: one over the power of the picture's own movement there.
    """

    values_Chw: NDArray[np.complex64]
    weights_Ghw: NDArray[np.float32]


@dataclass(frozen=True)
class Geometry:
    """Where the torus lies.

    Attributes:
        to_torus: 2×3; (column, row) of a sway-map sample to torus sides. Only fractions matter. A picture that was
            mirrored has a negative determinant.
        hue_turned: the colour circle was turned by about a quarter.
        phase_rad_G: of the sway, where the clip starts, in colour and in luma.
        strength: correlation with the pilot, in standard deviations of chance. Up to 10 for unmarked clips.
    """

    to_torus: NDArray[np.float64]
    hue_turned: bool
    phase_rad_G: NDArray[np.float64]
    strength: float

    @property
    def is_mirrored(self) -> bool:
        return bool(np.linalg.det(self.to_torus[:, :2]) < 0)

    @property
    def rotation_deg(self) -> float:
        """How far the picture was turned, anticlockwise, after it was mirrored left to right, if it was."""
        return rotation_deg(self.to_torus)

    def scale(self, min_side: int) -> float:
        """The marked frame's shorter side in units of this picture's shorter side (which has `min_side` samples)."""
        return float(1.0 / (np.sqrt(abs(np.linalg.det(self.to_torus[:, :2]))) * min_side))


def rotation_deg(to_torus: NDArray[np.float64]) -> float:
    """The turn in an affine map, in degrees anticlockwise, after it was mirrored left to right, if it was."""
    is_mirrored = np.linalg.det(to_torus[:, :2]) < 0
    linear = to_torus[:, :2] @ np.diag([-1.0 if is_mirrored else 1.0, 1.0])
    return float(np.degrees(np.arctan2(linear[1, 0] - linear[0, 1], np.trace(linear))))


def seen(field_nn: NDArray[np.float32], view: NDArray[np.float64]) -> NDArray[np.float32]:
    """`field(view · u)` for every place u of a torus."""
    turned = field_nn.T if view[0, 0] == 0 else field_nn
    across, down = view[:, 0].sum(), view[:, 1].sum()
    return np.ascontiguousarray(turned[:: int(down), :: int(across)])


def turned_hue(values_Chw: NDArray[np.complexfloating]) -> NDArray[np.complex64]:
    """The channels with the colour circle turned a quarter."""
    return np.tensordot(_HUE_TURN, values_Chw, 1).astype(np.complex64)


def fold(planes_hwK: NDArray[np.float32], to_torus: NDArray[np.float64], n: int) -> NDArray[np.float32]:
    """Lay a picture onto the torus, adding up what falls on the same place: (n, n, K), K ≤ 4; (n, n) from (h, w)."""
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
    return np.asarray(unfolded.reshape(num_rows, n, num_columns, n, *planes_hwK.shape[2:]).sum((0, 2)))


def _packed(sway: SwayMap, side: int) -> list[NDArray[Any]]:
    """Weighted values of colour (h, w, 4) and of luma (h, w, 2), real beside imaginary, shrunk to `side` along the
    longer side."""
    height, width = sway.values_Chw.shape[1:]
    scale = min(1.0, side / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    packed = []
    for channels, weights_hw in zip(GROUPS, sway.weights_Ghw, strict=True):
        weighted = sway.values_Chw[list(channels)] * weights_hw
        planes = np.concatenate([weighted.real, weighted.imag]).transpose(1, 2, 0).astype(np.float32)
        packed.append(np.asarray(cv2.resize(planes, size, interpolation=cv2.INTER_AREA)))
    return packed


def _similarity(scale: float, turn_deg: float, width: int, height: int) -> NDArray[np.float64]:
    """Map samples to torus sides for a torus side of `scale` × the shorter side, turned, centred on the picture."""
    per_sample = 1.0 / (scale * min(width, height))
    angle = np.radians(turn_deg)
    linear = per_sample * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return np.column_stack([linear, -linear @ [width / 2, height / 2]])


@numba.njit(cache=True, nogil=True, fastmath=True)
def _pilot_products(weighted, weights, pilot, to_samples):  # type: ignore[no-untyped-def]
    """Correlate a sway map with the pilot laid over it.

    Args:
        weighted: (h, w, 3) complex; weights: (h, w, 2); pilot: (n, n, 3); to_samples: 2×3, map sample to pilot sample.
    Returns: six sums: real and imaginary part for colour, the same for luma, the pilot's energy in either.
    """
    n = pilot.shape[0]
    sums = np.zeros(6)
    for row in range(weighted.shape[0]):
        for column in range(weighted.shape[1]):
            x = to_samples[0, 0] * (column + 0.5) + to_samples[0, 1] * (row + 0.5) + to_samples[0, 2] - 0.5
            y = to_samples[1, 0] * (column + 0.5) + to_samples[1, 1] * (row + 0.5) + to_samples[1, 2] - 0.5
            left, top = int(np.floor(x)), int(np.floor(y))
            right_share, low_share = np.float32(x - left), np.float32(y - top)
            left, top = left % n, top % n
            right, low = (left + 1) % n, (top + 1) % n
            for channel in range(3):
                upper = pilot[top, left, channel] * (1 - right_share) + pilot[top, right, channel] * right_share
                lower = pilot[low, left, channel] * (1 - right_share) + pilot[low, right, channel] * right_share
                value = upper * (1 - low_share) + lower * low_share
                group = channel // 2
                sums[2 * group] += weighted[row, column, channel].real * value
                sums[2 * group + 1] += weighted[row, column, channel].imag * value
                sums[4 + group] += weights[row, column, group] * value * value
    return sums


@dataclass(frozen=True)
class _Rough:
    """One scale and turn of the search grid, with the view and the shift that fit best."""

    strength: float
    view: int
    scale_index: int
    turn_index: int
    to_torus: NDArray[np.float64]

    def is_beside(self, other: _Rough) -> bool:
        """Whether refining both would end at the same place."""
        return (
            self.view == other.view
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

        def drawn(n: int) -> NDArray[np.float32]:
            return np.concatenate([carriers.field(pilot, n), carriers.luma_field(pilot, n)[None]])

        self._pilot_nnC = np.ascontiguousarray(drawn(TORUS_SAMPLES).transpose(1, 2, 0))
        coarse_Cnn = drawn(_COARSE_TORUS_SAMPLES)
        views = [np.stack([seen(field, view) for field in coarse_Cnn]) for view in VIEWS]
        hue_views = [np.tensordot(_HUE_TURN.T, pilot_Cnn, 1) for pilot_Cnn in views[:_NUM_HUE_VIEWS]]
        spectra = np.conj(fft.fft2(np.stack(views + hue_views))).astype(np.complex64)
        self._conjugate_colour_V2nn = spectra[:, :2]
        self._conjugate_luma_Vnn = spectra[: len(VIEWS), 2]

    def candidates(self, sway: SwayMap, count: int) -> Iterator[Geometry]:
        """The whole frame, about and exactly as it was marked; then up to `count` other geometries that differ, the
        likeliest first. Each is refined when it is asked for.
        """
        whole = self._whole_frame(sway)
        yield self._refined(sway, _Rough(whole.strength, 0, 0, 0, whole.to_torus))
        yield whole
        rough: list[_Rough] = []
        packed = _packed(sway, _COARSE_SIDE)
        energies = 2 * sway.weights_Ghw.mean((1, 2)) * [2.0, 1.0]
        height, width = packed[0].shape[:2]
        to_coarse = np.diag([width / sway.weights_Ghw.shape[2], height / sway.weights_Ghw.shape[1], 1.0])
        for scale_index, scale in enumerate(_SCALES):
            for turn_index, turn_deg in enumerate(_TURNS_DEG):
                to_torus = _similarity(scale, turn_deg, width, height)
                strength, view, shift = self._best_shift(packed, energies, to_torus)
                to_torus[:, 2] -= shift
                turned = VIEWS[view % len(VIEWS)] @ to_torus @ to_coarse
                rough.append(_Rough(strength, view, scale_index, turn_index, turned))
        rough.sort(key=lambda entry: -entry.strength)
        tried: list[_Rough] = []
        for entry in rough:
            if len(tried) < count and not any(entry.is_beside(other) for other in tried):
                tried.append(entry)
                yield self._refined(sway, entry)

    def _best_shift(
        self, packed: list[NDArray[Any]], energies: NDArray[np.float64], to_torus: NDArray[np.float64]
    ) -> tuple[float, int, NDArray[np.float64]]:
        """The correlation peak over all shifts and views, in standard deviations; the view; the shift in torus sides
        (x, y)."""
        n = _COARSE_TORUS_SAMPLES
        colour, luma = (fold(planes, to_torus, n) for planes in packed)
        values_Cnn = np.stack(
            [
                colour[..., 0] + 1j * colour[..., 2],
                colour[..., 1] + 1j * colour[..., 3],
                luma[..., 0] + 1j * luma[..., 1],
            ]
        ).astype(np.complex64)
        spectrum_Cnn = fft.fft2(values_Cnn)
        maps_Vnn = fft.ifft2((spectrum_Cnn[:2] * self._conjugate_colour_V2nn).sum(1))
        power_Vnn = (maps_Vnn.real**2 + maps_Vnn.imag**2) / energies[0]
        luma_Vnn = fft.ifft2(spectrum_Cnn[2] * self._conjugate_luma_Vnn)
        luma_power_Vnn = (luma_Vnn.real**2 + luma_Vnn.imag**2) / energies[1]
        power_Vnn[: len(VIEWS)] += luma_power_Vnn
        power_Vnn[len(VIEWS) :] += luma_power_Vnn[:_NUM_HUE_VIEWS]
        view, row, column = np.unravel_index(int(power_Vnn.argmax()), power_Vnn.shape)
        strength = float(np.sqrt(power_Vnn[view, row, column] / (power_Vnn[view].mean() + 1e-30)))
        return strength, int(view), np.array([column, row]) / n

    def _whole_frame(self, sway: SwayMap) -> Geometry:
        height, width = sway.values_Chw.shape[1:]
        to_torus = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]) / min(height, width)
        values_G, energies_G = self._products(sway, False)(to_torus)
        strength = float(np.sqrt((np.abs(values_G) ** 2 / energies_G).sum()))
        return Geometry(to_torus, False, np.angle(values_G), strength)

    def _products(
        self, sway: SwayMap, hue_turned: bool
    ) -> Callable[[NDArray[np.float64]], tuple[NDArray[np.complexfloating], NDArray[np.floating]]]:
        """What gives the pilot's correlation and energy, for colour and for luma, of an affine map to the torus."""
        values_Chw = turned_hue(sway.values_Chw) if hue_turned else sway.values_Chw
        weighted_hwC = np.ascontiguousarray((values_Chw * sway.weights_Ghw[[0, 0, 1]]).transpose(1, 2, 0))
        weights_hwG = np.ascontiguousarray(sway.weights_Ghw.transpose(1, 2, 0))

        def products(to_torus: NDArray[np.float64]) -> tuple[NDArray[np.complexfloating], NDArray[np.floating]]:
            sums = _pilot_products(weighted_hwC, weights_hwG, self._pilot_nnC, to_torus * TORUS_SAMPLES)
            return np.array([sums[0] + 1j * sums[1], sums[2] + 1j * sums[3]]), sums[4:] + 1e-30

        return products

    def _refined(self, sway: SwayMap, rough: _Rough) -> Geometry:
        """Let all six numbers of the affine map follow the pilot uphill."""
        height, width = sway.values_Chw.shape[1:]
        hue_turned = rough.view >= len(VIEWS)
        products = self._products(sway, hue_turned)

        # Offsets are counted in what moves the far corner by about the same way, so the simplex starts round.
        unit = 0.01 * np.array([[1 / width, 1 / height, 0.5], [1 / width, 1 / height, 0.5]])
        centre = np.array([[1, 0, -width / 2], [0, 1, -height / 2], [0, 0, 1]])

        def moved(offset: NDArray[np.float64]) -> NDArray[np.float64]:
            return rough.to_torus + (offset.reshape(2, 3) * unit) @ centre

        def loss(offset: NDArray[np.float64]) -> float:
            values_G, energies_G = products(moved(offset))
            return -float(np.sqrt((np.abs(values_G) ** 2 / energies_G).sum()))

        start = np.vstack([np.zeros(6), np.eye(6)])
        found = minimize(
            loss, np.zeros(6), method="Nelder-Mead", options={"initial_simplex": start, "maxfev": 220, "xatol": 0.02}
        )
        best = moved(found.x)
        values_G, _ = products(best)
        return Geometry(best, hue_turned, np.angle(values_G), rough.strength)
