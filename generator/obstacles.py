"""Obstacles: what stands between the camera and the face: spectacles, dark glasses, something over the mouth.

Comes in: a portrait and its landmarks. Goes out: `Obstacles`, measured on the face turned upright and brought to one
size, so that thresholds mean the same in every picture. Spectacles are found by their rims (a thin dark stroke under
both eyes and one across the nose), dark glasses by the darkness of what should be skin and white, a hidden mouth by the
absence of lips: across lips that can be seen, brightness and redness change.

How often each errs stands in NOTES.md, measured on portraits and on portraits with painted obstacles.
"""

# H,W pixel of the portrait  K pixel of the upright face  L landmark

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from jaxtyping import Float, Float32, UInt8
from numpy import ndarray

from generator.perception import (
    EYE_LEFT_LOWER,
    EYE_LEFT_UPPER,
    EYE_RIGHT_LOWER,
    EYE_RIGHT_UPPER,
    LIPS_INNER_LOWER,
    LIPS_INNER_UPPER,
)

_SIDE: Final = 192
_BETWEEN_EYES: Final = 64.0  # pixels between the eyes' centres in the upright face
_EYES_AT: Final = np.array([96.0, 70.0])
_EYES: Final = (((33, 133), EYE_RIGHT_UPPER, EYE_RIGHT_LOWER), ((362, 263), EYE_LEFT_UPPER, EYE_LEFT_LOWER))
_SKIN: Final = (205, 425, 50, 280, 151, 9, 4)
_STROKE: Final = 7  # a rim is thinner than this
_RIM_FROM, _RIM_SURE = 0.10, 0.14
_DARK_LENS: Final = 0.38
_NO_LIPS: Final = 0.10
_FAINT_LIPS: Final = 0.15
_PALE_LIPS: Final = 0.018
_COLOURED: Final = 0.03
# Where spectacles lie around the line through the eyes, in distances between the eyes; and landmarks at the temples.
_ABOVE, _BELOW, _SOFT = 0.36, 0.62, 0.09
_TEMPLES: Final = (127, 356)

EYES_HIDDEN: Final = "eyes_hidden"
MOUTH_UNCLEAR: Final = "mouth_unclear"
SPECTACLES: Final = "spectacles"
WARNINGS: Final = {
    EYES_HIDDEN: "The eyes seem to be behind dark glasses: they will not blink or look around.",
    MOUTH_UNCLEAR: "The lips can hardly be seen; if something covers them, please send another portrait.",
    SPECTACLES: "The face wears spectacles: the skin behind them keeps still so that the frame does not bend.",
}


@dataclass(frozen=True)
class Obstacles:
    """What was found on a face.

    Attributes:
        rim: strength of the rims of spectacles, as a fraction of the skin's brightness.
        lens: brightness of eyes and skin below them, as a fraction of the face's.
        lips: change of brightness across the lips, as a fraction.
        redness: change of the share of red across the lips; None where the picture has no colour.
    """

    rim: float
    lens: float
    lips: float
    redness: float | None

    @property
    def spectacles(self) -> float:
        """0..1, how certainly the face wears spectacles or dark glasses whose rims must not bend."""
        if self.eyes_are_hidden:
            return 1.0
        return float(np.clip((self.rim - _RIM_FROM) / (_RIM_SURE - _RIM_FROM), 0, 1))

    @property
    def eyes_are_hidden(self) -> bool:
        return self.lens < _DARK_LENS

    @property
    def mouth_is_hidden(self) -> bool:
        return self.lips < _NO_LIPS

    @property
    def warnings(self) -> tuple[str, ...]:
        """Keys of `WARNINGS`."""
        faint = self.lips < _FAINT_LIPS or (self.redness is not None and self.redness < _PALE_LIPS)
        found = (
            (EYES_HIDDEN, self.eyes_are_hidden),
            (MOUTH_UNCLEAR, faint),
            (SPECTACLES, self.spectacles > 0.5 and not self.eyes_are_hidden),
        )
        return tuple(key for key, is_so in found if is_so)


def find_obstacles(image_HW3: UInt8[ndarray, "h w 3"], points_L2: Float[ndarray, "468 2"]) -> Obstacles:
    """Look for what covers eyes or mouth.

    Args:
        image_HW3: sRGB.
        points_L2: landmarks in pixels.
    """
    face_KK3, points = _upright(image_HW3, points_L2)
    luma = face_KK3.mean(-1)
    lips, redness = _across_lips(face_KK3, points)
    return Obstacles(rim=_rim(luma, points), lens=_lens(luma, points), lips=lips, redness=redness)


def spectacles_mask(points_L2: Float[ndarray, "468 2"], side_px: int) -> Float32[ndarray, "s s"]:
    """0..1, where a face's spectacles lie, softly ending above the brows and on the cheeks.

    Args:
        points_L2: landmarks in pixels of the mask.
        side_px: of the mask.
    """
    mask: ndarray = np.zeros((side_px, side_px), np.float32)
    eyes = [points_L2[list(corners)] for corners, _, _ in _EYES]
    across = eyes[1].mean(0) - eyes[0].mean(0)
    between = float(np.linalg.norm(across))
    right = across / max(between, 1e-6)
    down = np.array([-right[1], right[0]])
    temples = points_L2[[_TEMPLES[0], _TEMPLES[1]]]
    left_end, right_end = (float((end - eyes[0].mean(0)) @ right) for end in temples)
    corners = [
        eyes[0].mean(0) + right * x + down * (y * between)
        for x, y in ((left_end, -_ABOVE), (right_end, -_ABOVE), (right_end, _BELOW), (left_end, _BELOW))
    ]
    cv2.fillConvexPoly(mask, np.round(np.stack(corners)).astype(np.int32), 1.0)
    return cv2.GaussianBlur(mask, (0, 0), _SOFT * between)


def _upright(image_HW3: ndarray, points_L2: ndarray) -> tuple[ndarray, ndarray]:
    """The face at one size with its eyes on a level, and the landmarks in it."""
    left, right = points_L2[[33, 133]].mean(0), points_L2[[263, 362]].mean(0)
    across = right - left
    scale, angle = _BETWEEN_EYES / max(float(np.linalg.norm(across)), 1e-6), np.arctan2(across[1], across[0])
    turn = scale * np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    matrix = np.concatenate([turn, (_EYES_AT - turn @ ((left + right) / 2))[:, None]], 1)
    source, to_source = image_HW3, matrix
    if scale < 0.5:  # avoid aliasing: shrink first
        factor = 2 * scale
        source = cv2.resize(image_HW3, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
        to_source = matrix @ np.diag([image_HW3.shape[1] / source.shape[1], image_HW3.shape[0] / source.shape[0], 1.0])
    face = cv2.warpAffine(source, to_source, (_SIDE, _SIDE), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return face.astype(np.float32), points_L2 @ matrix[:, :2].T + matrix[:, 2]


def _rim(luma_KK: ndarray, points: ndarray) -> float:
    """The weakest of the three strokes that spectacles draw: below each eye, and across the nose."""
    soft: ndarray = cv2.GaussianBlur(luma_KK, (0, 0), 0.8)
    stroke = cv2.morphologyEx(soft, cv2.MORPH_CLOSE, np.ones((_STROKE, 1), np.uint8)) - soft
    stroke /= np.maximum(cv2.blur(soft, (21, 21)), 20)
    found = []
    for corners, _, lower in _EYES:
        x0, x1 = sorted(points[list(corners), 0])
        width, middle = x1 - x0, (x0 + x1) / 2
        lid = points[list(lower), 1].max()
        found.append((middle - 0.36 * width, middle + 0.36 * width, lid + 0.30 * width, lid + 1.05 * width))
    inner = points[[133, 362]]
    half, (middle, level) = 0.22 * abs(inner[1, 0] - inner[0, 0]), inner.mean(0)
    found.append((middle - half, middle + half, level - 0.25 * _BETWEEN_EYES, level + 0.19 * _BETWEEN_EYES))
    return min(_best_stroke(stroke, *area) for area in found)


def _best_stroke(stroke_KK: ndarray, x0: float, x1: float, y0: float, y1: float) -> float:
    """Mean strength along the strongest continuous line from the left to the right of an area."""
    left, right, top, bottom = (int(np.clip(v, 0, _SIDE - 1)) for v in (x0, x1, y0, y1))
    area = stroke_KK[top : bottom + 1, left : right + 1]
    if min(area.shape) < 3:
        return 0.0
    best = area[:, 0]
    for column in area.T[1:]:
        padded = np.pad(best, 1, constant_values=-1.0)
        best = column + np.maximum(best, np.maximum(padded[:-2], padded[2:]))
    return float(best.max() / area.shape[1])


def _lens(luma_KK: ndarray, points: ndarray) -> float:
    """Brightness of the eyes and of the skin right below them against the face's, of the brighter eye."""
    x, y = np.clip(points[list(_SKIN)].astype(int), 0, _SIDE - 1).T
    skin = max(float(np.median(luma_KK[y, x])), 5.0)
    found = []
    for _, upper, lower in _EYES:
        contour = points[[*upper, *lower]]
        (cx, cy), width = contour.mean(0), float(np.ptp(contour[:, 0]))
        top, bottom = (int(np.clip(cy + f * width, 0, _SIDE - 2)) for f in (-0.20, 0.45))
        left, right = (int(np.clip(cx + f * width, 0, _SIDE - 2)) for f in (-0.45, 0.45))
        found.append(float(np.quantile(luma_KK[top : bottom + 1, left : right + 1], 0.75)) / skin)
    return max(found)


def _across_lips(face_KK3: ndarray, points: ndarray) -> tuple[float, float | None]:
    """How much brightness and redness change from above the mouth to below it, averaged along the line of the lips."""
    soft: ndarray = cv2.GaussianBlur(face_KK3, (0, 0), 0.8)
    line = (points[list(LIPS_INNER_UPPER)] + points[list(LIPS_INNER_LOWER)]) / 2
    places = np.linspace(0.1, 0.9, 25)
    along = np.stack([np.interp(places, np.linspace(0, 1, len(line)), line[:, k]) for k in (0, 1)], 1)
    offsets = np.arange(-14, 15)
    x = np.repeat(along[None, :, 0], len(offsets), 0).astype(np.float32)
    y = (along[None, :, 1] + offsets[:, None]).astype(np.float32)
    seen = cv2.remap(soft, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    luma = seen.mean(-1).mean(1)
    red = (seen[..., 0] / np.maximum(seen.sum(-1), 1)).mean(1)
    skin_x, skin_y = np.clip(points[list(_SKIN)].astype(int), 0, _SIDE - 1).T
    skin = soft[skin_y, skin_x]
    coloured = float(np.median(np.ptp(skin, axis=1) / np.maximum(skin.max(1), 1))) > _COLOURED
    return float(np.ptp(luma) / max(float(luma.mean()), 10.0)), float(np.ptp(red)) if coloured else None
