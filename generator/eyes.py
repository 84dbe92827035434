"""Eyes: blinks, squints and gaze, painted in the photo's own pixels before the sheet carries them along.

Each eye is edited in a small window of the stage, in a frame whose x axis runs through the eye's corners. The upper lid
slides down as lids do: the lash line keeps its shape and sharpness, the skin above it unrolls from the fold, the fold
stays.
The eyeball behind is completed where lids hide it (the iris by its own symmetry, the white smoothly), so that gaze may
uncover it. With no blink and no gaze the window is left exactly as the photo shows it.
"""

# h,w pixel of the window

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import cv2
import numba
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
        opening_px: between the lids, where it is widest.
        white_rgb: the white of the eye.
    """

    x0: int
    y0: int
    photo_hw3: Float32[ndarray, "h w 3"]
    eyeball_hw3: Float32[ndarray, "h w 3"]
    lid_hw3: Float32[ndarray, "h w 3"]
    fold_px: float
    opening_px: float
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
        width = self.width_px
        radius = _EYEBALL_RADIUS_WIDTHS * width
        shift_x = radius * math.sin(math.radians(motion.yaw_deg))
        shift_y = -radius * math.sin(math.radians(motion.pitch_deg))
        # where the lids are now
        follow = _LID_FOLLOWS_GAZE * shift_y / max(self.opening_px, 1.0)
        close = motion.closed + min(max(follow, -0.25), 0.35) * (1 - motion.closed)
        close = min(max(close, -0.25), 1.0)
        out = np.empty(self.photo_hw3.shape, np.uint8)
        _edit(
            self.photo_hw3,
            self.eyeball_hw3,
            self.lid_hw3,
            self.local_hw2,
            self.upper_hw,
            self.lower_hw,
            self.axes_22,
            np.array(
                [
                    width,
                    self.opening_px,
                    self.fold_px,
                    self.iris_local[0] + shift_x,
                    self.iris_local[1] + shift_y,
                    self.iris_radius_px,
                    shift_x,
                    shift_y,
                    close,
                    _SQUINT_LIFT * motion.squint * (1 - motion.closed),
                    _WIDE_LIFT * motion.wide * (1 - motion.closed),
                ],
                np.float32,
            ),
            out,
        )
        return out


@numba.njit(cache=True, nogil=True, fastmath=True)
def _unit(value: Any) -> Any:
    return min(max(value, np.float32(0)), np.float32(1))


@numba.njit(cache=True, nogil=True, fastmath=True)
def _cubic(image: ndarray, x: Any, y: Any, out: ndarray) -> None:
    """Sample three channels at a place, by cubic convolution (a = −0.75), edges repeated."""
    height, width = image.shape[:2]
    x = min(max(x, np.float32(0)), np.float32(width - 1))
    y = min(max(y, np.float32(0)), np.float32(height - 1))
    left, top = int(x), int(y)
    weights = np.empty((2, 4), np.float32)
    for axis, t in ((0, x - left), (1, y - top)):
        a = np.float32(-0.75)
        s, r = t + 1, 1 - t
        weights[axis, 0] = ((a * s - 5 * a) * s + 8 * a) * s - 4 * a
        weights[axis, 1] = ((a + 2) * t - (a + 3)) * t * t + 1
        weights[axis, 2] = ((a + 2) * r - (a + 3)) * r * r + 1
        weights[axis, 3] = 1 - weights[axis, 0] - weights[axis, 1] - weights[axis, 2]
    for k in range(3):
        out[k] = 0
    for i in range(4):
        row = min(max(top - 1 + i, 0), height - 1)
        for j in range(4):
            column = min(max(left - 1 + j, 0), width - 1)
            w = weights[1, i] * weights[0, j]
            for k in range(3):
                out[k] += w * image[row, column, k]


@numba.njit(cache=True, nogil=True, fastmath=True)
def _edit(
    photo: ndarray,
    eyeball: ndarray,
    lid_skin: ndarray,
    local: ndarray,
    upper: ndarray,
    lower: ndarray,
    axes: ndarray,
    motion: ndarray,
    out: ndarray,
) -> None:
    """Pixel by pixel: eyeball, upper lid, lower lid; see `EyePatch.edited`."""
    width, most_open, fold, iris_x, iris_y, iris_r, shift_x, shift_y, close, lift, raised = motion
    one = np.float32(1)
    shut = _unit(close) ** 2
    lashes = min(np.float32(_LASHES) * width, np.float32(0.45) * fold)
    reach = np.float32(_LOWER_REACH) * width
    rim = np.float32(_WET_RIM) * width * shut  # which a closing eye presses out of sight
    drop = close * (one - np.float32(_LOWER_LID_SHARE) * shut) - raised
    rise = max(lift, np.float32(_LOWER_LID_SHARE) * shut)
    lids_move = abs(close - raised) >= _STILL or lift >= _STILL
    gaze_moves = math.hypot(shift_x, shift_y) > 0.05
    dx, dy = axes[0, 0] * shift_x + axes[0, 1] * shift_y, axes[1, 0] * shift_x + axes[1, 1] * shift_y
    half = np.float32(0.56) * width
    ball, lid, cheek = np.empty(3, np.float32), np.empty(3, np.float32), np.empty(3, np.float32)
    for i in range(photo.shape[0]):
        for j in range(photo.shape[1]):
            x, y, up, low = local[i, j, 0], local[i, j, 1], upper[i, j], lower[i, j]
            if abs(x) >= half or y < up - np.float32(1.3) * fold or y > low + reach:
                for k in range(3):
                    out[i, j, k] = np.uint8(photo[i, j, k])
                continue
            # (1) eyeball: the iris moves as a whole, the white around it gives way
            for k in range(3):
                ball[k] = photo[i, j, k]
            if gaze_moves:
                inside = _unit(
                    (min(y - up, low - y) + np.float32(0.3)) / max(np.float32(0.05) * width, np.float32(1.5))
                )
                if inside > 0:
                    carried = _unit(
                        (np.float32(2.6) * iris_r - math.hypot(x - iris_x, y - iris_y)) / (np.float32(1.45) * iris_r)
                    )
                    carried = carried * carried * (3 - 2 * carried)
                    _cubic(eyeball, j - dx * carried, i - dy * carried, ball)
                    for k in range(3):
                        ball[k] = photo[i, j, k] + (ball[k] - photo[i, j, k]) * inside
            if not lids_move:
                for k in range(3):
                    out[i, j, k] = np.uint8(min(max(ball[k] + np.float32(0.5), np.float32(0)), np.float32(255)))
                continue
            # (2) where the lids are now, on this vertical line of the eye's frame
            opening = max(low - up, np.float32(0))
            bow = _unit(opening / max(most_open, np.float32(1e-3)))
            overlap = np.float32(_OVERLAP) * width * bow * _unit(close * 2 - 1)  # a closed lid covers the wet rim
            new_low = low - rise * opening
            new_up = min(up + drop * opening + overlap, new_low + overlap + np.float32(0.3))
            # (3) upper lid: below the fold the skin is stretched, the strip with the lashes is not
            on_lid = _unit(new_up - y + np.float32(0.5))
            if on_lid > 0:
                top, edge = up - fold, new_up - lashes
                stretch = _unit((y - top) / max(edge - top, np.float32(1e-3)))
                source = y - (new_up - up) if y > edge else top + stretch * (fold - lashes)
                down = np.float32(0) if y < top else source - y
                _cubic(photo, j + down * axes[0, 1], i + down * axes[1, 1], lid)
                # what unrolls from the fold is lid skin, not the shadow of the fold
                ramp = _unit((y - top + np.float32(0.25) * fold) / (np.float32(0.85) * fold))
                fresh = _unit((new_up - up) / (np.float32(0.9) * fold)) * ramp * ramp * (3 - 2 * ramp)
                fresh *= _unit((edge - y) / max(np.float32(1.2) * lashes, np.float32(1.5)) + np.float32(0.9)) * _unit(
                    bow * np.float32(3.5)
                )
                # a lid that is shut bulges over the eyeball: lit in its middle, in shade at its crease and the lashes
                bulge = np.float32(0.93) + np.float32(0.10) * math.sin(np.float32(np.pi) * stretch ** np.float32(1.2))
                crease = (y - top - np.float32(0.42) * fold) / (np.float32(0.16) * fold)
                bulge -= np.float32(_CREASE_DEPTH) * math.exp(-crease * crease) * _unit(bow * 2)
                # lashes: a fine dark line where the lids meet
                line = (y - new_up + np.float32(0.012) * width) / (np.float32(0.020) * width)
                dark = one - np.float32(_LASH_LINE) * math.exp(-line * line) * _unit(bow * 4) * shut
                for k in range(3):
                    lid[k] = (lid[k] + (lid_skin[i, j, k] * bulge - lid[k]) * np.float32(0.92) * fresh) * dark
            # (4) lower lid, lifted by a squint
            on_cheek = _unit(y - new_low + np.float32(0.5))
            if on_cheek > 0:
                bottom = low + reach
                source = y
                if y > new_low - np.float32(1.5):
                    source = bottom - (bottom - y) * (reach - rim) / max(bottom - new_low, np.float32(1e-3))
                down = source - y
                _cubic(photo, j + down * axes[0, 1], i + down * axes[1, 1], cheek)
            # (5) the eyeball between them, a little shaded by the lashes; soft edges
            shadow = one - np.float32(0.35) * math.exp(
                -max(y - new_up, np.float32(0)) / (np.float32(0.05) * width)
            ) * _unit(close * 3)
            corner = _unit((half - abs(x)) / (np.float32(0.10) * width))
            for k in range(3):
                mixed = ball[k] * shadow
                if on_cheek > 0:
                    mixed += (cheek[k] - mixed) * on_cheek
                if on_lid > 0:
                    mixed += (lid[k] - mixed) * on_lid
                mixed = photo[i, j, k] + (mixed - photo[i, j, k]) * corner
                out[i, j, k] = np.uint8(min(max(mixed + np.float32(0.5), np.float32(0)), np.float32(255)))


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
        opening_px=float((lower - upper).max()),
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
