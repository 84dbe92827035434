"""The make-up table: several unwrapped faces mixed into one skin, and the maps that the shaders and the barber need.

Works in logarithms of linear light, where shading and skin tone add. A atlas rows, W columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from generator.personas.studio.groom import Cut
from generator.personas.studio.surface import Cylinder, Floats

# Edges of the frequency bands, as Gaussian widths in texels of a 1024 atlas: pores | fine | features | tone.
BAND_EDGES_PX = (1.6, 5.0, 18.0)

# fmt: off
OVAL = (10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377, 152,
        148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109)
EYES = ((33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246),
        (263, 249, 390, 373, 374, 380, 381, 382, 362, 398, 384, 385, 386, 387, 388, 466))
BROWS = ((70, 63, 105, 66, 107, 55, 65, 52, 53, 46), (300, 293, 334, 296, 336, 285, 295, 282, 283, 276))
LIPS = (61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 409, 270, 269, 267, 0, 37, 39, 40, 185)
NOSE = (168, 6, 197, 195, 5, 4, 1, 2, 98, 327, 49, 279, 48, 278, 129, 358)
FOREHEAD = (9, 151, 108, 337, 10)
JAW = (132, 58, 172, 136, 150, 149, 176, 148, 152, 377, 400, 378, 379, 365, 397, 288, 361, 206, 426, 2)
MOUSTACHE = (205, 425, 216, 436, 2, 98, 327, 61, 291, 164)
# fmt: on


@dataclass(frozen=True)
class Sheet:
    """One photograph unwrapped: linear RGB, and how far each texel can be trusted, 0..1."""

    rgb_AW3: Floats
    trust_AW: Floats


@dataclass(frozen=True)
class Maps:
    """What the skin shader and the barber read, all in the atlas; the albedo in sRGB, the others 0..1."""

    albedo_AW3: Floats
    relief_AW: Floats
    roughness_AW: Floats
    brow_AW: Floats
    beard_AW: Floats


def to_linear(srgb: Floats) -> Floats:
    return np.where(srgb <= 0.04045, srgb / 12.92, ((np.clip(srgb, 0, None) + 0.055) / 1.055) ** 2.4)


def to_srgb(linear: Floats) -> Floats:
    linear = np.clip(linear, 0, 1)
    return np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)


def _blur(picture: Floats, width_px: float) -> Floats:
    return np.asarray(cv2.GaussianBlur(picture, (0, 0), width_px), np.float64)


class Face:
    """Soft masks of the face's parts in an atlas of `size_px`, from the landmarks on the sitter's skin."""

    def __init__(self, landmarks_L3: Floats, cylinder: Cylinder, size_px: int) -> None:
        self.size_px = size_px
        self._scale = size_px / 1024
        self._texels_L2 = cylinder.texels(landmarks_L3, size_px)

    def mask(self, indices: Sequence[int], grow_px: float = 0, feather_px: float = 8) -> Floats:
        """Hull of some landmarks, grown (or shrunk) and feathered; pixels of a 1024 atlas."""
        points = self._texels_L2[list(indices)]
        points = points[~np.isnan(points).any(1)]
        mask = np.zeros((self.size_px, self.size_px), np.uint8)
        cv2.fillPoly(mask, [cv2.convexHull(points.astype(np.int32))], 255)
        reach = round(abs(grow_px) * self._scale)
        if reach:
            brush = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
            mask = np.asarray(cv2.dilate(mask, brush) if grow_px > 0 else cv2.erode(mask, brush), np.uint8)
        return _blur(mask / 255.0, feather_px * self._scale)

    def front(self) -> Floats:
        """What a photograph from the front shows well: not the temples, where hair begins, nor the ears."""
        rows, columns = np.mgrid[: self.size_px, : self.size_px] / self._scale
        limit = np.interp(rows, (330, 420, 520), (205, 245, 255))
        return np.clip((limit - np.abs(columns - 512)) / 40 + 0.5, 0, 1)

    def eyes(self) -> Floats:
        """Brows and lids together."""
        return np.clip(sum(self.mask(e + b, 14, 9) for e, b in zip(EYES, BROWS, strict=True)), 0, 1)

    def brows(self) -> Floats:
        return np.clip(sum(self.mask(brow, 5, 4) for brow in BROWS), 0, 1)

    def lids(self) -> Floats:
        return np.clip(sum(self.mask(eye, 12, 7) for eye in EYES), 0, 1)


def _fill(picture: Floats, weight_AW: Floats) -> Floats:
    """Carry trusted texels outwards into untrusted ones (pull-push)."""
    if min(weight_AW.shape) <= 2:
        mean = (picture * weight_AW[..., None]).sum((0, 1)) / (weight_AW.sum() + 1e-9)
        return np.broadcast_to(mean, picture.shape).copy()
    half = ((weight_AW.shape[1] + 1) // 2, (weight_AW.shape[0] + 1) // 2)
    small_weight = cv2.resize(weight_AW, half, interpolation=cv2.INTER_AREA)
    small = cv2.resize(picture * weight_AW[..., None], half, interpolation=cv2.INTER_AREA)
    coarse = _fill(small / (small_weight[..., None] + 1e-6), np.clip(small_weight * 4, 0, 1))
    around = _blur(np.asarray(cv2.resize(coarse, weight_AW.shape[::-1], interpolation=cv2.INTER_LINEAR)), 1.2)
    return picture * weight_AW[..., None] + around * (1 - weight_AW[..., None])


def mix(sheets: dict[str, Sheet], plan: dict[str, Any], face: Face) -> Floats:
    """Linear albedo_AW3 of nobody: tone averaged over all sheets and mirrored, features and pores lent by region.

    Args:
        plan: `tone_rgb`, the skin's mean albedo, and `sources`: for each, the weight it has in the bands `tone`,
            `features`, `fine` and `pores`, each as {"face": w, and where it differs "eyes", "nose", "mouth": w}.
    Raises: KeyError: a source has no sheet.
    """
    regions = {"eyes": face.eyes(), "nose": face.mask(NOSE, 8, 10), "mouth": face.mask(LIPS, 10, 8)}
    oval = face.mask(OVAL, -20, 12) * face.front()
    bare = (oval > 0.9) & (regions["eyes"] < 0.05) & (regions["mouth"] < 0.05)
    scale = face.size_px / 1024
    edges = [edge * scale for edge in BAND_EDGES_PX]
    total = [np.zeros((face.size_px, face.size_px, 3)) for _ in range(4)]
    weights = [np.zeros((face.size_px, face.size_px)) for _ in range(4)]
    for source in plan["sources"]:
        sheet = sheets[source["file"]]
        log = np.log(np.clip(sheet.rgb_AW3, 1e-4, 1))
        log += np.log(np.array(plan["tone_rgb"])) - np.median(log[bare & (sheet.trust_AW > 0.5)], 0)
        log = _fill(log, np.clip(oval * sheet.trust_AW, 0, 1))
        layers = [_blur(log, edge) for edge in edges]
        bands = [log - layers[0], layers[0] - layers[1], layers[1] - layers[2], layers[2]]
        for k, name in enumerate(("pores", "fine", "features", "tone")):
            share = source.get(name, {})
            weight = np.full(oval.shape, float(share.get("face", 0.0)))
            for region, mask in regions.items():
                weight = weight * (1 - mask) + float(share.get(region, share.get("face", 0.0))) * mask
            total[k] += bands[k] * weight[..., None]
            weights[k] += weight
    pores, fine, features, tone = (t / (w[..., None] + 1e-9) for t, w in zip(total, weights, strict=True))
    tone = 0.5 * tone + 0.5 * tone[:, ::-1]
    plain = np.log(np.array(plan["tone_rgb"])) + np.array([0.0, -0.10, -0.06])  # ears and neck: a little redder
    far = np.clip((np.abs(np.arange(face.size_px) / scale - 512) - 225) / 70, 0, 1)[None, :, None]
    tone = tone * (1 - 0.8 * far) + plain * 0.8 * far
    log = tone + features + 1.05 * fine + 1.15 * pores
    return np.exp(_calm_colour(log, face, np.log(np.array(plan["tone_rgb"]))))


def _calm_colour(log_AW3: Floats, face: Face, tone_3: Floats) -> Floats:
    """Keep the lightness; round the eyes and in the beard pull the colour towards the skin's, in the lips halfway."""
    light = log_AW3.mean(-1, keepdims=True)
    hue = log_AW3 - light
    goal = tone_3 - tone_3.mean()
    beard = np.clip(face.mask(JAW, 10, 14) + face.mask(MOUSTACHE, 0, 6), 0, 1) * (1 - face.mask(LIPS, 3, 3))
    pull = np.clip(0.75 * face.eyes() + 0.45 * beard + 0.30 * face.mask(LIPS, 2, 3), 0, 0.85)[..., None]
    hue = hue + (goal * np.where(beard[..., None] > 0.5, 0.8, 1.0) - hue) * pull
    limit = 0.16
    return light + goal + limit * np.tanh((hue - goal) / limit) - 0.24 * beard[..., None]


def derive_maps(albedo_AW3: Floats, face: Face, cut: Cut, cylinder: Cylinder) -> Maps:
    """From the linear albedo alone: relief and roughness, where brows and beard grow, and the scalp under the hair."""
    size = face.size_px
    scale = size / 1024
    log = np.log(np.clip(albedo_AW3, 1e-4, 1).mean(-1))
    lips, brows = face.mask(LIPS, 3, 3), face.brows()
    brow = np.clip((np.log(0.33) - _blur(log, 1.5 * scale)) / 0.5, 0, 1) * brows
    beard = np.clip(face.mask(JAW, 10, 14) + face.mask(MOUSTACHE, 0, 6), 0, 1) * (1 - lips)
    under_jaw = np.clip(face.mask(JAW, 45, 26) - beard, 0, 1) * face.front()
    beard = np.clip(beard + 0.35 * under_jaw, 0, 1)
    relief = 0.5 + 0.9 * (log - _blur(log, 6 * scale)) * (1 - 0.7 * brows) * (1 - 0.5 * beard)
    oily = np.clip(face.mask(NOSE, 8, 10) + 0.8 * face.mask(FOREHEAD, 10, 20), 0, 1)
    roughness = 0.50 - 0.11 * oily - 0.16 * lips + 0.05 * beard
    rows, columns = np.mgrid[:size, :size] / scale
    line = np.array(cut.hairline)
    depth = np.interp(np.abs(columns - 512), line[:, 0], line[:, 1]) - rows
    scalp = _blur(np.clip((depth + 2) / 24, 0, 1), 7 * scale)[..., None]
    tinted = albedo_AW3 * (1 - scalp) + scalp * np.array([0.085, 0.062, 0.05])
    return Maps(to_srgb(tinted), np.clip(relief, 0, 1), np.clip(roughness, 0, 1), brow, np.clip(beard, 0, 1))
