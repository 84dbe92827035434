"""Reading the tile: from one picture, or from the frames of a clip added up; without the original and without hints.

Steps: (1) fine structure in units of its neighbourhood's spread, which is nearly free of light and contrast; (2) for
every size of the tile, lay it onto one tile and correlate with the pilot, all shifts, quarter turns and mirror images
at once; (3) let the affine map of the best follow the pilot uphill; (4) all symbols, each frequency weighted by how
quiet the picture is there.

S picture  h,w sample of the picture in small  K field  n tile samples along one side  V view (8 turns and mirrorings)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft
from scipy.optimize import minimize

from watermark.carriers import TileCarriers, tile_band
from watermark.sync import VIEWS, fold, rotation_deg, seen
from watermark.tile import normalised

DETAIL_SIDE = 256
"""Length of the shorter side of the picture in small."""
_TILE_SAMPLES = 64
_SHARES = 1.0 / np.array([4.0, 3.0, 2.0, 1.0])
"""Tile sides of whole frames, in units of their shorter side: tried first."""
_SIZES = np.exp(np.arange(np.log(44.0), np.log(200.0), 0.006))
_RINGS = 8


@dataclass(frozen=True)
class TileFit:
    """Where the tile lies.

    Attributes:
        to_tile: 2×3; (column, row) of a sample of the picture in small to tile sides. Only fractions matter.
        strength: correlation with the pilot, in standard deviations of chance.
    """

    to_tile: NDArray[np.float64]
    strength: float

    @property
    def is_mirrored(self) -> bool:
        return bool(np.linalg.det(self.to_tile[:, :2]) < 0)

    @property
    def rotation_deg(self) -> float:
        """How far the picture was turned, anticlockwise, after it was mirrored left to right, if it was."""
        return rotation_deg(self.to_tile)


def fine_structure(detail_Shw: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The mean fine structure of pictures that show the same tile: (h, w)."""
    total = np.zeros(detail_Shw.shape[1:], np.float32)
    for luma_hw in detail_Shw:
        total += normalised(luma_hw.astype(np.float32))[0]
    return total / np.float32(max(len(detail_Shw), 1))


class TileReader:
    """One key, ready to read tiles.

    Args:
        carriers: the key's fields.
    """

    def __init__(self, carriers: TileCarriers) -> None:
        self._carriers = carriers
        pilot_K = np.zeros(len(carriers.coefficients_KD), np.float32)
        pilot_K[0] = 1.0
        pilot_nn = carriers.field(pilot_K, _TILE_SAMPLES)
        self._pilot_nn = pilot_nn
        views = np.stack([seen(pilot_nn, view) for view in VIEWS])
        self._conjugate_Vnn = np.conj(fft.rfft2(views)).astype(np.complex64)

    def fits(self, fine_hw: NDArray[np.float32], count: int) -> Iterator[TileFit]:
        """Whole frames as they were marked, then up to `count` other places, the likeliest first."""
        height, width = fine_hw.shape
        for share in _SHARES:
            per_sample = 1.0 / (share * min(height, width))
            yield TileFit(np.array([[per_sample, 0, 0], [0, per_sample, 0]]), 0.0)
        rough = [self._best_shift(fine_hw, size) for size in _SIZES if size < 1.6 * max(height, width)]
        rough.sort(key=lambda fit: -fit.strength)
        tried: list[TileFit] = []
        for fit in rough:
            if len(tried) < count and not any(_is_beside(fit, other) for other in tried):
                tried.append(fit)
                yield self._refined(fine_hw, fit)

    def symbols(self, fine_hw: NDArray[np.float32], fit: TileFit) -> NDArray[np.float64]:
        """Soft symbols of the code word: matched filters, every ring of frequencies in units of its own noise."""
        n = _TILE_SAMPLES if np.linalg.det(fit.to_tile[:, :2]) ** 2 > 96.0**-4 else 2 * _TILE_SAMPLES
        freedoms_D = TileCarriers.freedoms(fold(fine_hw, fit.to_tile, n))
        radii = np.hypot(*tile_band().T)
        ring_D = np.tile((_RINGS * (radii - radii.min()) / (np.ptp(radii) + 1e-9)).astype(int), 2)
        power_R = np.bincount(ring_D, freedoms_D**2) / np.bincount(ring_D)
        whitened_D = freedoms_D / np.sqrt(power_R + 1e-12)[ring_D]
        return (self._carriers.coefficients_KD @ whitened_D)[1:].astype(np.float64)

    def _best_shift(self, fine_hw: NDArray[np.float32], size: float) -> TileFit:
        n = _TILE_SAMPLES
        to_tile = np.array([[1.0 / size, 0, 0], [0, 1.0 / size, 0]])
        spectrum = fft.rfft2(fold(fine_hw, to_tile, n))
        correlation = fft.irfft2(spectrum * self._conjugate_Vnn, s=(n, n))
        view, row, column = np.unravel_index(int(correlation.argmax()), correlation.shape)
        spread = float(np.sqrt((correlation[view] ** 2).mean())) + 1e-30
        strength = float(correlation[view, row, column]) / spread
        to_tile[:, 2] -= np.array([column, row]) / n
        return TileFit(VIEWS[view] @ to_tile, strength)

    def _refined(self, fine_hw: NDArray[np.float32], fit: TileFit) -> TileFit:
        height, width = fine_hw.shape
        n = _TILE_SAMPLES
        unit = 0.02 * np.array([[1 / width, 1 / height, 0.5], [1 / width, 1 / height, 0.5]])
        centre = np.array([[1, 0, -width / 2], [0, 1, -height / 2], [0, 0, 1]])

        def moved(offset: NDArray[np.float64]) -> NDArray[np.float64]:
            return fit.to_tile + (offset.reshape(2, 3) * unit) @ centre

        def loss(offset: NDArray[np.float64]) -> float:
            return -float((fold(fine_hw, moved(offset), n) * self._pilot_nn).sum())

        start = np.vstack([np.zeros(6), np.eye(6)])
        found = minimize(
            loss, np.zeros(6), method="Nelder-Mead", options={"initial_simplex": start, "maxfev": 60, "xatol": 0.02}
        )
        return TileFit(moved(found.x), fit.strength)


def _is_beside(fit: TileFit, other: TileFit) -> bool:
    """Whether refining both would end at the same place."""
    return float(np.abs(fit.to_tile[:, :2] - other.to_tile[:, :2]).max()) < 0.012 * np.abs(fit.to_tile[:, :2]).max()
