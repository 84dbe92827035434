"""Colour as the mark sees it: the arithmetic between sRGB frames, the planes that encoders take, and a clip in small.

H,W pixel  T frame  S detail  C colour channel (R,G,B)  2 colour difference (Cb,Cr)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from watermark.media import Clip


@dataclass(frozen=True)
class ColourTrack:
    """A clip in small: all that the reader of the invisible mark looks at.

    Attributes:
        planes_T2HW: Cb and Cr (BT.709, full range, zero = grey), float32.
        times_T: seconds from the first frame.
        width, height: of the frames the planes were made from, in pixels.
        luma_THW: luma of the same size, full range 0..255, float32.
        detail_SHW: luma of evenly spread frames, larger (`DETAIL_SIDE_PX` along the shorter side at most), uint8.
        detail_times_S: when those frames show.
    """

    planes_T2HW: NDArray[np.float32]
    times_T: NDArray[np.float64]
    width: int
    height: int
    luma_THW: NDArray[np.float32]
    detail_SHW: NDArray[np.uint8]
    detail_times_S: NDArray[np.float64]


# Rec. ITU-R BT.709-6, item 3: E'R E'G E'B -> E'Y E'CB E'CR
_LUMA_709 = np.array([0.2126, 0.7152, 0.0722])
_COLOUR_709 = np.array([[-0.2126 / 1.8556, -0.7152 / 1.8556, 0.5], [0.5, -0.7152 / 1.5748, -0.0722 / 1.5748]])
LIMITED_COLOUR_SCALE = 224 / 255
"""Size of one full-range colour-difference step in the limited range that video codecs carry."""
LIMITED_LUMA_SCALE = 219 / 255
"""The same for luma."""


def _weighted(
    channels: Sequence[NDArray[Any]], weights: NDArray[np.float64], offset: float, depth: int
) -> NDArray[Any]:
    """One linear combination of three colour channels (three times as fast as cv2.transform)."""
    red, green, blue = channels
    partial = cv2.addWeighted(red, weights[0], green, weights[1], offset, dtype=cv2.CV_32F)
    if depth == cv2.CV_8U:
        return np.asarray(cv2.addWeighted(blue.astype(np.float32), weights[2], partial, 1.0, 0.0, dtype=depth))
    return np.asarray(cv2.scaleAdd(blue.astype(np.float32), weights[2], partial))


def _differences(image_HWC: NDArray[Any], scale: float, centre: float) -> NDArray[np.float32]:
    channels = cv2.split(image_HWC)
    return np.stack([_weighted(channels, weights * scale, centre, cv2.CV_32F) for weights in _COLOUR_709])


def colour_planes(frame_HWC: NDArray[np.uint8], width: int, height: int) -> NDArray[np.float32]:
    """Cb and Cr of one sRGB frame, averaged down to `height` × `width`, full range around zero: float32 (2, H, W)."""
    small = cv2.resize(frame_HWC.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA)
    return _differences(small, 1.0, 0.0)


def fitted_size(width: int, height: int, max_side_px: int) -> tuple[int, int]:
    """The (width, height) that keeps the aspect, with no side over `max_side_px`, and never enlarges."""
    scale = min(1.0, max_side_px / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


DETAIL_SIDE_PX = 256
"""Length of the shorter side of the larger luma pictures in a `ColourTrack`."""
_MAX_DETAILS = 256


@dataclass(frozen=True)
class FrameViewer:
    """Somebody who wants to see some frames of a clip while it is decoded for another purpose.

    Attributes:
        wanted: their numbers, in the order in which they show.
        fit_within_px: they are shrunk so that no side is longer than this.
        see: takes a number and the upright frame, sRGB.
    """

    wanted: frozenset[int]
    fit_within_px: int
    see: Callable[[int, NDArray[np.uint8]], None]


class DetailKeeper:
    """Keeps evenly spread frames of a stream whose length is not known, never more than `_MAX_DETAILS`."""

    def __init__(self) -> None:
        self._kept: list[tuple[float, NDArray[np.uint8]]] = []
        self._stride, self._num_seen = 1, 0

    def wants_next(self) -> bool:
        """Whether the frame that comes now is to be handed in. Counts it."""
        self._num_seen += 1
        return (self._num_seen - 1) % self._stride == 0

    def add(self, time_s: float, luma_HW: NDArray[np.uint8]) -> None:
        self._kept.append((time_s, luma_HW))
        if len(self._kept) > _MAX_DETAILS:
            self._kept = self._kept[::2]
            self._stride *= 2

    def stacked(self) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
        """Pictures and times, in order."""
        kept = sorted(self._kept, key=lambda each: each[0])
        return np.stack([luma_HW for _, luma_HW in kept]), np.array([time_s for time_s, _ in kept])


def detail_size(width: int, height: int) -> tuple[int, int]:
    scale = min(1.0, DETAIL_SIDE_PX / min(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def colour_track(clip: Clip, max_side_px: int = 128) -> ColourTrack:
    """A decoded clip in small."""
    height, width = clip.frames_THWC.shape[1:3]
    size, larger = fitted_size(width, height, max_side_px), detail_size(width, height)
    planes, lumas, details = [], [], DetailKeeper()
    for time_s, frame_HWC in zip(clip.times_T, clip.frames_THWC, strict=True):
        small_HWC = cv2.resize(frame_HWC.astype(np.float32), size, interpolation=cv2.INTER_AREA)
        planes.append(_differences(small_HWC, 1.0, 0.0))
        lumas.append(_weighted(cv2.split(small_HWC), _LUMA_709, 0.0, cv2.CV_32F))
        if details.wants_next():
            detail_HWC = cv2.resize(frame_HWC, larger, interpolation=cv2.INTER_AREA)
            details.add(float(time_s), _weighted(cv2.split(detail_HWC), _LUMA_709, 0.0, cv2.CV_8U))
    detail_SHW, detail_times_S = details.stacked()
    return ColourTrack(np.stack(planes), clip.times_T, width, height, np.stack(lumas), detail_SHW, detail_times_S)


@dataclass
class EncoderPlanes:
    """One frame as the encoder takes it, BT.709 limited range: uint8 luma, and colour differences not yet rounded.

    Attributes:
        luma_HW: uint8, even sides.
        colour_2HW: float32 Cb and Cr at half resolution, centred on 128; may be changed in place before encoding.
    """

    luma_HW: NDArray[np.uint8]
    colour_2HW: NDArray[np.float32]


def encoder_planes(frame_HWC: NDArray[np.uint8]) -> EncoderPlanes:
    """Split an sRGB frame for a 4:2:0 encoder. An odd last row or column is left out."""
    height, width = (side & ~1 for side in frame_HWC.shape[:2])
    frame_HWC = np.ascontiguousarray(frame_HWC[:height, :width])
    luma_HW = _weighted(cv2.split(frame_HWC), _LUMA_709 * 219 / 255, 16.0, cv2.CV_8U)
    half = cv2.resize(frame_HWC, (width // 2, height // 2), interpolation=cv2.INTER_AREA)
    return EncoderPlanes(luma_HW, _differences(half, LIMITED_COLOUR_SCALE, 128.0))
