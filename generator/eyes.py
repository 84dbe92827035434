"""Eyes: blinks, squints and gaze, painted in the photo's own pixels before the sheet carries them along.

Each eye is edited in a small window of the stage, in a frame whose x axis runs through the eye's corners. The upper lid
slides down as lids do: the lash line keeps its shape and sharpness, the skin above it unrolls from the fold, the fold
stays.
The eyeball behind is completed where lids hide it (the iris by its own symmetry, the white smoothly), so that gaze may
uncover it. With no blink and no gaze the window is left exactly as the photo shows it.
"""

# h,w pixel of the window

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from jaxtyping import Float32, UInt8
from numpy import ndarray

from generator.matte import fill_smoothly
from generator.perception import Eye

_EYEBALL_RADIUS_WIDTHS: Final = 0.43  # of the eyeball, in widths of the eye opening
_LID_FOLD: Final = 0.24  # height of the fold above the lash line, in widths
_LASHES: Final = 0.075
_LOWER_REACH: Final = 0.30
_SQUINT_LIFT: Final = 0.38
_WIDE_LIFT: Final = 0.22
_LID_FOLLOWS_GAZE: Final = 0.75
_OVERLAP: Final = 0.02
_WET_RIM: Final = 0.055
_LOWER_LID_SHARE: Final = 0.2  # of the way when the eye closes
_MAKE_UP: Final = 0.25
_CREASE_DEPTH: Final = 0.16
_LASH_LINE: Final = 0.45
_STILL: Final = 1e-3


@dataclass(frozen=True)
class EyeMotion:
    """What one eye does, relative to the photo.

    Attributes:
        closed: 0 as in the photo .. 1 closed.
        squint, wide: 0..1.
        yaw_deg, pitch_deg: gaze, towards the picture's right and up.
    """

    closed: float = 0.0
    squint: float = 0.0
    wide: float = 0.0
    yaw_deg: float = 0.0
    pitch_deg: float = 0.0

    @property
    def is_still(self) -> bool:
        return (
            max(abs(self.closed), abs(self.squint), abs(self.wide)) < _STILL
            and max(abs(self.yaw_deg), abs(self.pitch_deg)) < 0.05
        )


@dataclass(frozen=True, eq=False)
class EyePatch:
    """One eye, ready to be edited.

    Attributes:
        x0, y0: the window's place in the crop.
        photo_hw3: its pixels.
        eyeball_hw3: the same with lids removed: white and iris completed.
        lid_hw3: skin for the lid that unrolls.
        fold_px: height of the lid's fold above the lash line.
        white_rgb: the white of the eye.
    """

    x0: int
    y0: int
    photo_hw3: Float32[ndarray, "h w 3"]
    eyeball_hw3: Float32[ndarray, "h w 3"]
    lid_hw3: Float32[ndarray, "h w 3"]
    fold_px: float
    opening_hw: Float32[ndarray, "h w"]
    white_rgb: Float32[ndarray, " 3"]
    width_px: float
    axes_22: Float32[ndarray, "2 2"]
    local_hw2: Float32[ndarray, "h w 2"]
    upper_hw: Float32[ndarray, "h w"]
    lower_hw: Float32[ndarray, "h w"]
    iris_local: Float32[ndarray, " 2"]
    iris_radius_px: float

    def edited(self, motion: EyeMotion) -> UInt8[ndarray, "h w 3"]:
        """The window with the eye moved."""
        x, y = self.local_hw2[..., 0], self.local_hw2[..., 1]
        width = self.width_px
        upper, lower = self.upper_hw, self.lower_hw
        opening = np.maximum(lower - upper, 0)

        # (1) eyeball: the iris moves as a whole, the white around it gives way
        radius = _EYEBALL_RADIUS_WIDTHS * width
        shift = np.array(
            [radius * np.sin(np.radians(motion.yaw_deg)), -radius * np.sin(np.radians(motion.pitch_deg))], np.float32
        )
        moved = np.hypot(shift[0], shift[1]) > 0.05
        if moved:
            distance = np.hypot(x - self.iris_local[0] - shift[0], y - self.iris_local[1] - shift[1])
            r = self.iris_radius_px
            carried = np.clip((2.6 * r - distance) / (1.45 * r), 0, 1)
            carried = carried * carried * (3 - 2 * carried)
            dx, dy = self.axes_22 @ shift
            columns, rows = _pixel_grid(x.shape)
            eyeball = cv2.remap(
                self.eyeball_hw3, columns - dx * carried, rows - dy * carried, cv2.INTER_CUBIC,
                borderMode=cv2.BORDER_REPLICATE,
            )  # fmt: skip
            inside = np.clip((np.minimum(y - upper, lower - y) + 0.3) / max(0.05 * width, 1.5), 0, 1)
            eyeball = self.photo_hw3 + (eyeball - self.photo_hw3) * inside[..., None]
        else:
            eyeball = self.photo_hw3

        # (2) where the lids are now, on every vertical line of the eye's frame
        follow = _LID_FOLLOWS_GAZE * shift[1] / max(float(opening.max()), 1.0)
        close = float(np.clip(motion.closed + np.clip(follow, -0.25, 0.35) * (1 - motion.closed), -0.25, 1))
        lift = _SQUINT_LIFT * float(motion.squint) * (1 - motion.closed)
        shut = float(np.clip(close, 0, 1)) ** 2
        new_lower = lower - np.maximum(lift, _LOWER_LID_SHARE * shut) * opening
        raised = _WIDE_LIFT * motion.wide * (1 - motion.closed)
        bow = np.clip(opening / max(float(opening.max()), 1e-3), 0, 1)
        overlap = _OVERLAP * width * bow * np.clip(close * 2 - 1, 0, 1)  # a closed lid covers the wet rim
        new_upper = upper + (close * (1 - _LOWER_LID_SHARE * shut) - raised) * opening + overlap
        new_upper = np.minimum(new_upper, new_lower + overlap + 0.3)
        if abs(close - raised) < _STILL and lift < _STILL:
            return np.clip(eyeball + 0.5, 0, 255).astype(np.uint8)

        # (3) upper lid: below the fold the skin is stretched, the strip with the lashes is not
        fold, lashes = self.fold_px, min(_LASHES * width, 0.45 * self.fold_px)
        top, edge = upper - fold, new_upper - lashes
        stretch = np.clip((y - top) / np.maximum(edge - top, 1e-3), 0, 1)
        upper_y = np.where(y > edge, y - (new_upper - upper), top + stretch * (fold - lashes))
        lid = self._fetched(np.where(y < top, y, upper_y) - y)
        # what unrolls from the fold is lid skin, not the shadow of the fold
        ramp = np.clip((y - top + 0.25 * fold) / (0.85 * fold), 0, 1)
        fresh = np.clip((new_upper - upper) / (0.9 * fold), 0, 1) * ramp * ramp * (3 - 2 * ramp)
        fresh *= np.clip((edge - y) / max(1.2 * lashes, 1.5) + 0.9, 0, 1) * np.clip(bow * 3.5, 0, 1)
        # a lid that is shut bulges over the eyeball: lit in its middle, in shade at its crease and towards the lashes
        bulge = 0.93 + 0.10 * np.sin(np.pi * np.clip(stretch, 0, 1) ** 1.2)
        bulge -= _CREASE_DEPTH * np.exp(-(((y - top - 0.42 * fold) / (0.16 * fold)) ** 2)) * np.clip(bow * 2, 0, 1)
        lid += (self.lid_hw3 * bulge[..., None] - lid) * (0.92 * fresh)[..., None]

        # lashes: a fine dark line where the lids meet, thicker towards the outer end as seen from in front
        line = np.exp(-(((y - new_upper + 0.012 * width) / (0.020 * width)) ** 2)) * np.clip(bow * 4, 0, 1) * shut
        lid *= (1 - _LASH_LINE * line)[..., None]

        # (4) lower lid, lifted by a squint
        reach = _LOWER_REACH * width
        bottom = lower + reach
        rim = _WET_RIM * width * shut  # which a closing eye presses out of sight
        lower_y = bottom - (bottom - y) * (reach - rim) / np.maximum(bottom - new_lower, 1e-3)
        cheek = self._fetched(np.where((y > new_lower - 1.5) & (y < bottom), lower_y, y) - y)

        # (5) the eyeball between them, a little shaded by the lashes; soft edges
        shadow = 1 - 0.35 * np.exp(-np.maximum(y - new_upper, 0) / (0.05 * width)) * np.clip(close * 3, 0, 1)
        mixed = eyeball * shadow[..., None]
        mixed += (cheek - mixed) * np.clip(y - new_lower + 0.5, 0, 1)[..., None]
        mixed += (lid - mixed) * np.clip(new_upper - y + 0.5, 0, 1)[..., None]
        corner = np.clip((0.5 * width * 1.12 - np.abs(x)) / (0.10 * width), 0, 1)[..., None]
        out = self.photo_hw3 + (mixed - self.photo_hw3) * corner
        return np.clip(out + 0.5, 0, 255).astype(np.uint8)

    def _fetched(self, down_hw: ndarray) -> ndarray:
        """The photo, looked up further down along the eye's vertical axis."""
        columns, rows = _pixel_grid(down_hw.shape)
        down = down_hw.astype(np.float32)
        return cv2.remap(
            self.photo_hw3, columns + down * self.axes_22[0, 1], rows + down * self.axes_22[1, 1], cv2.INTER_CUBIC,
            borderMode=cv2.BORDER_REPLICATE,
        )  # fmt: skip


def _pixel_grid(shape: tuple[int, ...]) -> tuple[ndarray, ndarray]:
    columns, rows = np.meshgrid(np.arange(shape[1], dtype=np.float32), np.arange(shape[0], dtype=np.float32))
    return columns, rows


def build_eye(crop_SS3: UInt8[ndarray, "s s 3"], eye: Eye, brow_xy: ndarray) -> EyePatch:
    """Prepare one eye.

    Args:
        eye: contours and iris in pixels of the picture.
        brow_xy: lower edge of the brow above the eye's middle.
    """
    size = crop_SS3.shape[0]
    left, right = eye.upper_92[0], eye.upper_92[-1]
    centre = (left + right) / 2
    width = float(np.linalg.norm(right - left))
    axis_x = (right - left) / width
    axes = np.stack([axis_x, [-axis_x[1], axis_x[0]]], 1)  # local to picture
    reach = 0.95 * width
    x0, y0 = (int(np.clip(np.floor(c - reach), 0, size - 4)) for c in centre)
    x1, y1 = (int(np.clip(np.ceil(c + reach), 4, size)) for c in centre)
    photo = crop_SS3[y0:y1, x0:x1].astype(np.float32)
    columns, rows = _pixel_grid(photo.shape)
    local = (np.stack([columns + x0 + 0.5, rows + y0 + 0.5], -1) - centre) @ axes
    x, y = local[..., 0], local[..., 1]
    upper = _contour((eye.upper_92 - centre) @ axes, x, width)
    lower = _contour((eye.lower_92 - centre) @ axes, x, width)
    lower = np.maximum(lower, upper)
    iris = (eye.iris_xy - centre) @ axes
    opening = np.clip(np.minimum(y - upper, lower - y) + 0.5, 0, 1)
    eyeball, white = _completed_eyeball(photo, local, upper, lower, iris, eye.iris_radius_px)
    brow_y = float(((brow_xy - centre) @ axes)[1])
    fold = float(np.clip(0.6 * (float(upper.min()) - brow_y), 0.07 * width, _LID_FOLD * width))
    lid = _lid_colour(photo, x, y, upper, lower, width, fold)
    f32 = np.float32
    return EyePatch(
        x0=x0,
        y0=y0,
        photo_hw3=photo,
        eyeball_hw3=eyeball.astype(f32),
        lid_hw3=lid.astype(f32),
        fold_px=fold,
        opening_hw=opening.astype(f32),
        white_rgb=white.astype(f32),
        width_px=width,
        axes_22=axes.astype(f32),
        local_hw2=local.astype(f32),
        upper_hw=upper.astype(f32),
        lower_hw=lower.astype(f32),
        iris_local=iris.astype(f32),
        iris_radius_px=eye.iris_radius_px,
    )


def _contour(points_92: ndarray, x_hw: ndarray, width: float) -> ndarray:
    """y of a lid contour for every x: a low polynomial that goes to zero at the corners, and is zero outside."""
    t = np.clip(points_92[:, 0] / (0.5 * width), -1, 1)
    bow = 1 - t**2
    basis = np.stack([bow, bow * t, bow * t**2, bow * t**3], 1)
    ridge = np.diag([1e-3, 1e-3, 1e-2, 3e-2]) * 1.0
    coefficients = np.linalg.solve(basis.T @ basis + ridge, basis.T @ points_92[:, 1])
    s = np.clip(x_hw / (0.5 * width), -1, 1)
    b = 1 - s**2
    return coefficients[0] * b + coefficients[1] * b * s + coefficients[2] * b * s**2 + coefficients[3] * b * s**3


def _completed_eyeball(
    photo: ndarray, local: ndarray, upper: ndarray, lower: ndarray, iris: ndarray, radius: float
) -> tuple[ndarray, ndarray]:
    """The eyeball without lids, and the colour of its white."""
    x, y = local[..., 0], local[..., 1]
    inset = max(1.0, 0.12 * float((lower - upper).max()))
    seen = np.minimum(y - upper, lower - y) > inset
    distance = np.hypot(x - iris[0], y - iris[1])
    white_seen = seen & (distance > 1.15 * radius)
    if white_seen.sum() < 6:
        white_seen = (np.minimum(y - upper, lower - y) > 0) & (distance > radius)
    luma = photo.mean(-1)
    if white_seen.sum() >= 3:
        bright = luma >= np.quantile(luma[white_seen], 0.6)
        white = photo[white_seen & bright].mean(0)
    else:
        white = np.quantile(photo.reshape(-1, 3), 0.9, axis=0)
    eyeball = fill_smoothly(photo, white_seen.astype(np.float32))
    # iris: what lids hide is taken from its mirror image, and failing that from its mean at the same radius
    in_iris = distance <= 1.12 * radius
    iris_seen = seen & in_iris
    if iris_seen.sum() >= 6:
        bins = np.clip((distance / (1.12 * radius) * 8).astype(int), 0, 8)
        profile = np.stack(
            [photo[iris_seen & (np.abs(bins - b) <= 1)].mean(0) if (iris_seen & (np.abs(bins - b) <= 1)).any()
             else photo[iris_seen].mean(0) for b in range(9)]
        )  # fmt: skip
        disc = np.where(iris_seen[..., None], photo, profile[bins])
        disc = np.where(iris_seen[..., None], photo, cv2.GaussianBlur(disc.astype(np.float32), (0, 0), 0.8))
        edge = np.clip((1.12 * radius - distance) / max(0.14 * radius, 1.0), 0, 1)[..., None]
        eyeball = eyeball * (1 - edge) + disc * edge
    soft = cv2.GaussianBlur(seen.astype(np.float32), (0, 0), 0.7)[..., None]
    return eyeball * (1 - soft) + photo * soft, white


def _lid_colour(
    photo: ndarray, x: ndarray, y: ndarray, upper: ndarray, lower: ndarray, width: float, fold: float
) -> ndarray:
    """Skin for the lid that unrolls: what surrounds the eye, smoothly continued across it, with the grain of the cheek.

    A closed lid bulges into the light that an open one's fold does not get, so the fold's own shadow is a poor guide;
    a part of its colour is kept, for make-up.
    """
    luma = photo.mean(-1)
    half = 0.5 * width
    known = np.zeros(luma.shape, bool)
    for band, quantile in (  # neither brows nor lashes
        ((y < upper - 0.95 * fold) & (y > upper - 2.1 * fold), 0.6),
        ((y > lower + 0.12 * width) & (y < lower + 0.45 * width), 0.35),
    ):
        band &= np.abs(x) < 1.25 * half
        if band.sum() >= 8:
            known |= band & (luma >= np.quantile(luma[band], quantile))
    if known.sum() < 8:
        return photo.copy()
    skin = fill_smoothly(photo, known.astype(np.float32))
    skin = cv2.GaussianBlur(skin, (0, 0), 0.10 * width)
    strip = (y < upper - 0.04 * width) & (y > upper - fold) & (np.abs(x) < 1.1 * half)
    if strip.sum() >= 8:
        light = strip & (luma >= np.quantile(luma[strip], 0.4))
        made_up = cv2.GaussianBlur(fill_smoothly(photo, light.astype(np.float32)), (0, 0), 0.12 * width)
        skin = skin + (made_up - skin) * _MAKE_UP
    grain = np.clip(photo - cv2.GaussianBlur(photo, (0, 0), 0.04 * width), -9, 9)
    columns, rows = _pixel_grid(photo.shape)
    grain = cv2.remap(grain, columns, rows + np.float32(0.5 * width), cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    return skin * (0.97 - 0.08 * (x / half) ** 2)[..., None].clip(0.8, 1.0) + grain
