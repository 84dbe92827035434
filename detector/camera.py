"""A camera in front of a still picture: how an authentic still becomes a clip without anybody being animated.

The whole picture moves as one, as it would before a hand-held or a mounted camera; no face is moved within it. This is
for portraits of people who must never be animated, and for the un-animated twin of every render.

T frame  H,W pixel  C colour
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from jaxtyping import Float64, Int16, UInt8

from detector.face import FaceBox

_NOISE_SLACK_PX = 160


@dataclass(frozen=True)
class CameraStyle:
    """How a camera is held, and how noisy its sensor is.

    Attributes:
        sway: typical shift of the picture, as a share of the view's side.
        breath: typical change of zoom, as a share.
        roll_deg: typical roll.
        noise: standard deviation of fresh sensor noise per frame, in 8-bit steps.
    """

    sway: float
    breath: float
    roll_deg: float
    noise: float

    @classmethod
    def draw(cls, rng: np.random.Generator) -> CameraStyle:
        """Half of the cameras stand on a tripod, and half of them have no visible noise."""
        noise = float(rng.choice([0.0, 0.0, 1.0, 2.0]))
        if rng.random() < 0.5:
            return cls(0.0, 0.0, 0.0, noise)
        return cls(float(rng.uniform(0.002, 0.015)), float(rng.uniform(0.0, 0.02)), float(rng.uniform(0.0, 1.5)), noise)


def film_still(
    still_HWC: UInt8[np.ndarray, "h w 3"],
    face: FaceBox,
    style: CameraStyle,
    rng: np.random.Generator,
    *,
    num_frames: int,
    side_px: int = 512,
) -> UInt8[np.ndarray, "t s s 3"]:
    """Film a picture: a square view around the face that does not leave the picture, swaying as the camera does.

    Args:
        still_HWC: sRGB, 0..255.
        face: where its face is.
        style: how the camera is held.
        rng: the only source of chance.
        num_frames: length of the clip.
        side_px: side of the frames.
    """
    height, width = still_HWC.shape[:2]
    view = min(float(min(height, width)), face.side_px * float(rng.uniform(1.5, 2.1)))
    left = _within(face.centre_x + rng.normal(0, 0.03) * view - view / 2, width - view)
    top = _within(face.centre_y + rng.normal(0, 0.03) * view - view / 2, height - view)
    scale = side_px / view
    if scale < 0.75:  # an affine map does not average: shrink first
        still_HWC = cv2.resize(still_HWC, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        left, top, scale = left * scale, top * scale, 1.0
    matrix = np.array([[scale, 0.0, -left * scale], [0.0, scale, -top * scale]])
    view_HWC = cv2.warpAffine(
        still_HWC, matrix, (side_px, side_px), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101
    )
    return sway(np.broadcast_to(view_HWC, (num_frames, *view_HWC.shape)), style, rng)


def sway(
    frames_THWC: UInt8[np.ndarray, "t h w 3"], style: CameraStyle, rng: np.random.Generator, *, rate_hz: float = 25.0
) -> UInt8[np.ndarray, "t h w 3"]:
    """Move whole frames as a hand-held camera would, and add fresh sensor noise.

    Args:
        frames_THWC: sRGB, 0..255; left unmodified.
        style: how the camera is held.
        rng: the only source of chance.
        rate_hz: frames per second; sway is a motion in seconds, not in frames.
    """
    num_frames, height, width = frames_THWC.shape[:3]
    x_T, y_T, zoom_T, roll_T = (_wander(num_frames, rate_hz, rng) for _ in range(4))
    # Zoomed in just enough that the edge of the picture stays out of sight most of the time.
    base_zoom = 1 + 2.5 * style.sway + 1.5 * style.breath + 0.02 * style.roll_deg
    moved = []
    for frame_HWC, x, y, zoom, roll in zip(frames_THWC, x_T, y_T, zoom_T, roll_T, strict=True):
        still = style.sway == style.breath == style.roll_deg == 0
        if not still:
            matrix = cv2.getRotationMatrix2D(
                (width / 2, height / 2), style.roll_deg * roll, base_zoom * (1 + style.breath * zoom)
            )
            matrix = matrix + np.array([[0.0, 0.0, x * style.sway * width], [0.0, 0.0, y * style.sway * height]])
            frame_HWC = cv2.warpAffine(
                frame_HWC, matrix, (width, height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101
            )
        moved.append(add_noise(frame_HWC, style.noise, rng))
    return np.stack(moved)


def add_noise(frame_HWC: UInt8[np.ndarray, "h w 3"], noise: float, rng: np.random.Generator) -> np.ndarray:
    """Fresh Gaussian sensor noise, `noise` 8-bit steps strong, mostly in luma as after demosaicing and denoising."""
    if noise <= 0:
        return frame_HWC
    height, width = frame_HWC.shape[:2]
    sheet_HWC = _noise_sheet(noise, max(height, width) + _NOISE_SLACK_PX)
    top, left = (int(start) for start in rng.integers(0, _NOISE_SLACK_PX, 2))
    drawn_HWC = sheet_HWC[top : top + height, left : left + width]
    if rng.random() < 0.5:
        drawn_HWC = drawn_HWC[::-1]
    if rng.random() < 0.5:
        drawn_HWC = drawn_HWC[:, ::-1]
    return np.asarray(cv2.add(frame_HWC, np.ascontiguousarray(drawn_HWC), dtype=cv2.CV_8U))


@lru_cache(maxsize=4)
def _noise_sheet(noise: float, side_px: int) -> Int16[np.ndarray, "s s 3"]:
    """Noise in stock, of which each frame gets a piece from another place: drawing it anew takes longer than coding."""
    rng = np.random.default_rng(side_px)
    luma_SS1 = rng.standard_normal((side_px, side_px, 1), np.float32)
    colour_SSC = rng.standard_normal((side_px, side_px, 3), np.float32)
    return np.rint(noise * (0.9 * luma_SS1 + 0.45 * colour_SSC)).astype(np.int16)


def _within(value: float, limit: float) -> float:
    return float(np.clip(value, 0.0, max(limit, 0.0)))


def _wander(num_frames: int, rate_hz: float, rng: np.random.Generator) -> Float64[np.ndarray, " t"]:
    """A smooth path around zero with about unit size: three slow sines of random frequency and phase."""
    times_T = np.arange(num_frames) / rate_hz
    frequencies_hz = rng.uniform(0.15, 2.5, 3)
    phases = rng.uniform(0, 2 * np.pi, 3)
    sizes = rng.uniform(0.2, 1.0, 3) / (1 + frequencies_hz)
    path_T = (sizes[:, None] * np.sin(2 * np.pi * frequencies_hz[:, None] * times_T + phases[:, None])).sum(axis=0)
    return np.asarray(path_T / np.sqrt((sizes**2).sum()))
