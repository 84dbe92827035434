"""The cutting table: one portrait of nobody out of several synthetic portraits, in the plane of the picture.

One portrait is the canvas and lends hair, neck, clothes and light. The shape is a mixture of several faces, pushed away
from the average and changed by hand; the canvas is warped onto it. Eyes, nose, mouth and skin come from others, each
warped onto the same shape, relit like the canvas, and mixed by frequency band and region in logarithms of linear light.

L landmark (468 of the product's own perception)  H,W pixel  B band, fine to coarse
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import RBFInterpolator

from generator.personas.studio.skin import BROWS, EYES, LIPS, NOSE, OVAL, to_linear, to_srgb
from generator.personas.studio.surface import Floats

BANDS: Final = ("pores", "fine", "features", "tone")
REGIONS: Final = ("eyes", "nose", "mouth")
CANVAS: Final = "canvas"
# Upper edges of the bands and softness of the seams in each, as shares of the face's width.
_BAND_EDGES: Final = (0.004, 0.0125, 0.045)
_FEATHERS: Final = (0.03, 0.03, 0.035, 0.07)
_REGION_FEATHERS: Final = (0.012, 0.02, 0.035, 0.07)
# Points that expressions hardly move: faces are laid over each other by them.
_RIGID: Final = (
    10, 151, 9, 8, 168, 6, 197, 195, 5, 4, 33, 133, 362, 263, 70, 300, 127, 356, 234, 454, 152, 132, 361,
)  # fmt: skip
_JAW: Final = (132, 58, 172, 136, 150, 149, 176, 148, 152, 377, 400, 378, 379, 365, 397, 288, 361)
CHANGEABLE: Final[Mapping[str, tuple[int, ...]]] = {
    "oval": OVAL,
    "jaw": _JAW,
    "nose": NOSE,
    "lips": LIPS,
    "eye_right": EYES[0],
    "eye_left": EYES[1],
    "brow_right": BROWS[0],
    "brow_left": BROWS[1],
}
_DARKEST: Final = 2e-3
_GRID_PX: Final = 8
_CANVAS_SMOOTHING, _LENT_SMOOTHING = 0.15, 0.003


@dataclass(frozen=True)
class Print:
    """A portrait on the table: sRGB 0..1 and its landmarks in pixels."""

    rgb_HW3: Floats
    points_L3: Floats


@dataclass(frozen=True)
class Change:
    """What is done by hand to one part of the shape: scaled about its middle, moved by shares of the face's width."""

    scale_x: float = 1.0
    scale_y: float = 1.0
    move_x: float = 0.0
    move_y: float = 0.0


@dataclass(frozen=True)
class Collage:
    """One persona's plan.

    Attributes:
        canvas: file that lends everything outside the face.
        shape: weight of each file in the shape.
        lend: for each file (or `canvas`), band and region ("face" for all others) its weight.
        changes: by part, see `CHANGEABLE`.
        exaggerate: how far the shape is pushed away from the average face: 0 not at all, 1 twice as far.
        chroma: how much of the lenders' own colour detail is kept.
        lips_calm, lips_light: how far the lips' colour is pulled to the skin's; what is added to their log lightness.
        hair_rgb, cloth_rgb: dyes, multiplied with linear light, or None.
    """

    canvas: str
    shape: dict[str, float]
    lend: dict[str, dict[str, dict[str, float]]]
    changes: dict[str, Change] = field(default_factory=dict)
    exaggerate: float = 0.0
    chroma: float = 0.5
    lips_calm: float = 0.0
    lips_light: float = 0.0

    @property
    def sources(self) -> tuple[str, ...]:
        """Every file that lends anything, the canvas first."""
        return tuple(dict.fromkeys([self.canvas, *self.shape, *(name for name in self.lend if name != CANVAS)]))


def read_collage(plan: dict[str, Any]) -> Collage:
    """The plan as `persona.json` keeps it under `recipe`."""
    fields = dict(plan)
    changes = {part: Change(*(float(v) for v in values)) for part, values in fields.pop("changes", {}).items()}
    return Collage(changes=changes, **fields)


def lay_over(points_L3: Floats, onto_L3: Floats) -> Floats:
    """Points turned, moved and scaled so that the rigid ones lie on those of `onto_L3` (Umeyama, least squares)."""
    rigid = list(_RIGID)
    source, target = points_L3[rigid], onto_L3[rigid]
    a, b = source - source.mean(0), target - target.mean(0)
    u, strength, vt = np.linalg.svd(a.T @ b)
    mirror = np.diag([1.0, 1.0, np.sign(np.linalg.det(u @ vt))])
    scale = (strength * np.diag(mirror)).sum() / (a**2).sum()
    return (points_L3 - source.mean(0)) @ (u @ mirror @ vt) * scale + target.mean(0)


def mix_shape(collage: Collage, prints: Mapping[str, Print], average_L3: Floats, canvas_L3: Floats) -> Floats:
    """The landmarks_L3 of nobody, lying where the canvas' face lies."""
    total = sum(collage.shape.values())
    shape = sum(w / total * lay_over(prints[n].points_L3, canvas_L3) for n, w in collage.shape.items())
    shape = np.asarray(shape) + collage.exaggerate * (shape - lay_over(average_L3, np.asarray(shape)))
    width = float(np.ptp(shape[list(OVAL), 0]))
    for part, change in collage.changes.items():
        at = list(CHANGEABLE[part])
        middle = shape[at, :2].mean(0)
        if part in ("oval", "jaw"):
            moved, share = np.array(at), np.ones(len(at))
        else:
            reach = (shape[:, :2] - middle) / (np.ptp(shape[at, :2], axis=0) * 0.75 + 1e-6)
            moved, share = np.arange(len(shape)), np.exp(-1.5 * np.maximum((reach**2).sum(1) - 0.3, 0))
        wish = (shape[moved, :2] - middle) * (change.scale_x - 1, change.scale_y - 1)
        wish += np.array([change.move_x, change.move_y]) * width
        shape[moved, :2] += share[:, None] * wish
    return shape


def warp_map(at_L2: Floats, to_L2: Floats, size_px: int, *, smoothing: float, pinned: bool) -> Floats:
    """For every pixel where to read: `at_L2` reads at `to_L2`, smoothly in between (thin plates).

    Args:
        pinned: the picture's border stays where it is.
    """
    unit = float(np.ptp(at_L2[list(OVAL), 0]))
    if pinned:
        edge = np.linspace(0, size_px - 1, 9)
        ring = np.array([(x, y) for x in edge for y in edge if x in (0, size_px - 1) or y in (0, size_px - 1)])
        at_L2, to_L2 = np.vstack([at_L2, ring]), np.vstack([to_L2, ring])
    plate = RBFInterpolator(at_L2 / unit, to_L2 - at_L2, kernel="thin_plate_spline", smoothing=smoothing)
    count = size_px // _GRID_PX + 1
    x, y = np.meshgrid(*[np.linspace(0, size_px - 1, count)] * 2)
    coarse = plate(np.stack([x.ravel(), y.ravel()], 1) / unit).reshape(count, count, 2).astype(np.float32)
    rows, columns = np.mgrid[:size_px, :size_px].astype(np.float32)
    step = (count - 1) / (size_px - 1)
    fine = [
        cv2.remap(coarse[..., k], columns * step, rows * step, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
        for k in (0, 1)
    ]
    return np.stack(fine, -1) + np.stack([columns, rows], -1)


def _read_at(rgb_HW3: Floats, where_HW2: Floats, shrink: float) -> Floats:
    """The picture at `where_HW2`; `shrink` source pixels make one, so what is finer than that goes first."""
    if shrink > 1.3:
        rgb_HW3 = np.asarray(cv2.GaussianBlur(rgb_HW3, (0, 0), 0.45 * shrink), np.float64)
    way = cv2.INTER_LINEAR if shrink > 1.3 else cv2.INTER_LANCZOS4
    x, y = (np.ascontiguousarray(where_HW2[..., k], np.float32) for k in (0, 1))
    read = cv2.remap(rgb_HW3.astype(np.float32), x, y, way, borderMode=cv2.BORDER_REFLECT)
    return np.asarray(read, np.float64)


class _Table:
    """Masks and smooth functions on the finished shape."""

    def __init__(self, shape_L2: Floats, size_px: int) -> None:
        self.shape_L2, self.size_px = shape_L2, size_px
        self.width_px = float(np.ptp(shape_L2[list(OVAL), 0]))
        rows, columns = np.mgrid[:size_px, :size_px]
        u, v = ((axis - middle) / self.width_px for axis, middle in zip((columns, rows), shape_L2.mean(0), strict=True))
        self.basis_HWK = np.stack([np.ones_like(u), u, v, u * u, u * v, v * v], -1)
        regions = self.regions(0.02)
        off = (regions["eyes"] < 0.05) & (regions["mouth"] < 0.05) & (regions["nose"] < 0.3)
        self.bare_HW = (self.mask(OVAL, -0.035, 0.03) > 0.95) & off
        self.inner_HW = (self.mask(OVAL, -0.16, 0.03) > 0.9) & off

    def blur(self, picture: Floats, share: float) -> Floats:
        return np.asarray(cv2.GaussianBlur(picture, (0, 0), share * self.width_px), np.float64)

    def mask(self, indices: tuple[int, ...], grow: float, feather: float) -> Floats:
        mask = np.zeros((self.size_px, self.size_px), np.uint8)
        cv2.fillPoly(mask, [cv2.convexHull(self.shape_L2[list(indices)].astype(np.int32))], 255)
        reach = round(abs(grow) * self.width_px)
        if reach:
            brush = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
            mask = np.asarray(cv2.dilate(mask, brush) if grow > 0 else cv2.erode(mask, brush), np.uint8)
        return np.clip(self.blur(mask / 255.0, feather), 0, 1)

    def regions(self, feather: float) -> dict[str, Floats]:
        """Soft masks of the regions, the eyes over the nose over the mouth."""
        right, left = (self.mask(eye + brow, 0.03, feather) for eye, brow in zip(EYES, BROWS, strict=True))
        eyes = np.clip(right + left, 0, 1)
        nose = self.mask(NOSE, 0.02, feather) * (1 - eyes)
        return {"eyes": eyes, "nose": nose, "mouth": self.mask(LIPS, 0.035, feather) * (1 - nose) * (1 - eyes)}

    def smooth_fit(
        self, values_HW: Floats, where_HW: NDArray[np.bool_], stiffness: float
    ) -> Callable[[Floats], Floats]:
        """A quadratic in the plane through most of the values (robust); it can be drawn within their range only."""
        chosen = np.flatnonzero(where_HW.ravel())
        chosen = chosen[:: max(1, len(chosen) // 4000)]
        design, values = self.basis_HWK.reshape(-1, 6)[chosen], values_HW.ravel()[chosen]
        ridge = stiffness * len(chosen) * np.diag([0.0, 1, 1, 1, 1, 1])
        weight = np.ones(len(chosen))
        for _ in range(6):
            solution = np.linalg.solve(design.T @ (design * weight[:, None]) + ridge, design.T @ (weight * values))
            weight = 1 / (1 + ((values - design @ solution) / 0.15) ** 2)
        low, high = (design @ solution).min(), (design @ solution).max()
        return lambda basis: np.clip(basis @ solution, low, high)

    def skin_like(self, log_HW3: Floats, tolerance: float = 0.55) -> Floats:
        """Where the canvas shows skin and not hair that falls into the face; the middle of the face always counts."""
        soft = self.blur(log_HW3, 0.006)
        error = np.zeros(soft.shape[:2])
        for channel in range(3):
            plain = self.smooth_fit(soft[..., channel], self.inner_HW, 1e-2)
            error = np.maximum(error, np.abs(soft[..., channel] - plain(self.basis_HWK)))
        like = np.exp(-((np.maximum(error - tolerance, 0) / 0.25) ** 2))
        like = self.blur(np.asarray(cv2.erode(like, np.ones((3, 3))), np.float64), 0.008)
        return np.clip(np.maximum(like, self.mask(OVAL, -0.13, 0.03)), 0, 1)

    def bands(self, log_HW3: Floats) -> list[Floats]:
        layers = [self.blur(log_HW3, edge) for edge in _BAND_EDGES]
        return [log_HW3 - layers[0], layers[0] - layers[1], layers[1] - layers[2], layers[2]]


def _log_light(rgb_HW3: Floats) -> Floats:
    return np.asarray(np.log(np.clip(to_linear(rgb_HW3), _DARKEST, 1)), np.float64)


def compose(collage: Collage, prints: Mapping[str, Print], average_L3: Floats, size_px: int) -> tuple[Floats, Floats]:
    """Cut and paste.

    Args:
        prints: every one of `collage.sources`; the canvas is square.
        average_L3: landmarks of the average face, in any pose and size.
    Returns: sRGB_HW3, 0..1, and the shape_L2 in its pixels.
    """
    canvas = prints[collage.canvas]
    scale = size_px / len(canvas.rgb_HW3)
    shape_L2 = mix_shape(collage, prints, average_L3, canvas.points_L3 * scale)[:, :2]
    table = _Table(shape_L2, size_px)
    read = warp_map(shape_L2, canvas.points_L3[:, :2] * scale, size_px, smoothing=_CANVAS_SMOOTHING, pinned=True)
    base = _log_light(np.clip(_read_at(canvas.rgb_HW3, read / scale, 1 / scale), 0, 1))
    base_bands = table.bands(base)
    like = table.skin_like(base)
    ovals = [table.mask(OVAL, -0.035, feather) * like for feather in _FEATHERS]
    regions = [table.regions(feather) for feather in _REGION_FEATHERS]
    total = [np.zeros_like(base) for _ in BANDS]
    weights = [np.zeros(base.shape[:2]) for _ in BANDS]
    for name, shares in collage.lend.items():
        bands = base_bands if name == CANVAS else _lent_bands(prints[name], table, base_bands, collage.chroma)
        for k, band in enumerate(BANDS):
            share = shares.get(band, {})
            weight = np.full(base.shape[:2], share.get("face", 0.0))
            for region in REGIONS:
                mask = regions[k][region]
                weight = weight * (1 - mask) + share.get(region, share.get("face", 0.0)) * mask
            total[k] += bands[k] * (weight * ovals[k])[..., None]
            weights[k] += weight * ovals[k]
    out = np.zeros_like(base)
    for k in range(len(BANDS)):
        lent = (ovals[k] * np.clip(weights[k] * 1e3, 0, 1))[..., None]
        out += base_bands[k] * (1 - lent) + total[k] / (weights[k][..., None] + 1e-6) * lent
    out = _calm_lips(out, table, base_bands[-1], collage)
    return np.clip(to_srgb(np.exp(out)), 0, 1), shape_L2


def _lent_bands(lender: Print, table: _Table, base_bands: list[Floats], chroma: float) -> list[Floats]:
    """A lender on the shape, in the canvas' light."""
    shrink = float(np.ptp(lender.points_L3[list(OVAL), 0])) / table.width_px
    read = warp_map(table.shape_L2, lender.points_L3[:, :2], table.size_px, smoothing=_LENT_SMOOTHING, pinned=False)
    bands = table.bands(_log_light(np.clip(_read_at(lender.rgb_HW3, read, shrink), 0, 1)))
    for k in range(len(BANDS) - 1):
        light = bands[k].mean(-1, keepdims=True)
        bands[k] = light + (bands[k] - light) * chroma
    for channel in range(3):
        gap = base_bands[-1][..., channel] - bands[-1][..., channel]
        bands[-1][..., channel] += table.smooth_fit(gap, table.bare_HW, 1e-3)(table.basis_HWK)
    return bands


def _calm_lips(log_HW3: Floats, table: _Table, tone_HW3: Floats, collage: Collage) -> Floats:
    hue = (tone_HW3 - tone_HW3.mean(-1, keepdims=True))[table.bare_HW]
    lips = table.mask(LIPS, 0.01, 0.015)[..., None]
    own = log_HW3 - log_HW3.mean(-1, keepdims=True)
    return log_HW3 + lips * (collage.lips_calm * (np.median(hue, 0) - own) + collage.lips_light)
