"""How a clip looks beside the portrait that it shows: the same face, as sharp, without seams, flicker or drift.

Pure functions of delivered pictures; pictures are sRGB and of one size.
"""

# T frame  H,W pixel  L landmark

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8
from numpy import ndarray

from generator.errors import NoFaceError
from generator.likeness import face_template
from generator.perception import FACE_OVAL, detect_faces
from generator.sighting import Sighting

MARK_PERIOD_S: Final = 0.4
"""The invisible mark sways 2.5 times a second; a period apart it is the same in both frames."""
_CORNER: Final = 0.05  # of the frame's side: neither head nor shoulders come there
_SQUARE_PX: Final = 8
_SEAM_PX: Final = 3


def face_area(points_L2: Float[ndarray, "468 2"], height: int, width: int) -> Bool[ndarray, "h w"]:
    """The face's oval."""
    area: ndarray = np.zeros((height, width), np.uint8)
    cv2.fillPoly(area, [np.round(points_L2[list(FACE_OVAL)]).astype(np.int32)], 1)
    return area.astype(bool)


def likeness_distances(
    portrait_HW3: UInt8[ndarray, "h w 3"], frames: Sequence[UInt8[ndarray, "h w 3"]]
) -> Float[ndarray, " t"]:
    """How far each frame's face is from the portrait's, in the measure of `generator.likeness`.

    Raises: NoFaceError: the portrait or a frame shows none.
    """

    def template(picture: ndarray) -> object:
        faces = detect_faces(picture)
        if not faces:
            raise NoFaceError("A frame shows no face, so that it cannot be compared with the portrait.")
        return face_template(picture, max(faces, key=lambda face: face.size_px))

    own = template(portrait_HW3)
    return np.array([own.distance_to(template(frame)) for frame in frames])  # type: ignore[attr-defined]


def gradient_energy(image_HW3: UInt8[ndarray, "h w 3"], area_HW: Bool[ndarray, "h w"]) -> float:
    """Mean squared gradient of the luma there."""
    grey = cv2.cvtColor(image_HW3, cv2.COLOR_RGB2GRAY).astype(np.float32)
    across, down = cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1)
    return float((across**2 + down**2)[area_HW].mean())


def sharpness(
    portrait_HW3: UInt8[ndarray, "h w 3"],
    points_L2: Float[ndarray, "468 2"],
    frames: Sequence[UInt8[ndarray, "h w 3"]],
    frame_points: Sequence[Float[ndarray, "468 2"]],
) -> float:
    """Gradient energy in the face of the median frame, over that of the portrait at the same size."""
    height, width = portrait_HW3.shape[:2]
    own = gradient_energy(portrait_HW3, face_area(points_L2, height, width))
    shown = [
        gradient_energy(frame, face_area(points, height, width))
        for frame, points in zip(frames, frame_points, strict=True)
    ]
    return float(np.median(shown)) / max(own, 1e-9)


@dataclass(frozen=True)
class Flicker:
    """What moves where nothing should: mean absolute difference of the means of small squares, in 8-bit steps, in the
    frame's upper corners. Single pixels would show the rounding of the codec, which is one step and invisible.

    Attributes:
        adjacent: from frame to frame; it holds the sway of the invisible mark.
        per_mark_period: between frames 0.4 s apart, between which the mark cancels out.
    """

    adjacent: float
    per_mark_period: float


def flicker(frames_THWC: UInt8[ndarray, "t h w 3"], rate_hz: float) -> Flicker:
    """Measure the still regions of a clip; a clip shorter than the mark's period has no flicker."""
    num = max(1, round(_CORNER * min(frames_THWC.shape[1:3]) / _SQUARE_PX))
    side = num * _SQUARE_PX
    corners = np.stack([frames_THWC[:, :side, :side], frames_THWC[:, :side, -side:]], 1).astype(np.float32)
    corners = corners.reshape(len(corners), 2, num, _SQUARE_PX, num, _SQUARE_PX, 3).mean((3, 5))
    apart = max(1, round(MARK_PERIOD_S * rate_hz))

    def difference(step: int) -> float:
        return float(np.abs(corners[step:] - corners[:-step]).mean()) if len(corners) > step else 0.0

    return Flicker(difference(1), difference(apart))


def seam_energy(image_HW3: UInt8[ndarray, "h w 3"], area_HW: Bool[ndarray, "h w"]) -> float:
    """How much thin, strong structure there is: cracks, slivers, holes of up to three pixels across.

    Returns: the 99.9th percentile of the larger of the white and the black top-hat there, in 8-bit steps.
    """
    grey = cv2.cvtColor(image_HW3, cv2.COLOR_RGB2GRAY)
    brush = np.ones((_SEAM_PX, _SEAM_PX), np.uint8)
    thin = np.maximum(
        cv2.morphologyEx(grey, cv2.MORPH_TOPHAT, brush), cv2.morphologyEx(grey, cv2.MORPH_BLACKHAT, brush)
    )
    return float(np.percentile(thin[area_HW], 99.9))


@dataclass(frozen=True)
class Drift:
    """What changed from the beginning of a long clip to its end, by the line that fits the means of its ten tenths.

    Attributes:
        yaw_deg, pitch_deg, roll_deg: of the head's mean pose.
        scale: of its size, as a share.
        colour: of the mean colour of face and background, in 8-bit steps.
        usual_deg, usual_scale, usual_colour: standard error of these changes, the measure of chance.
    """

    yaw_deg: float
    pitch_deg: float
    roll_deg: float
    scale: float
    colour: float
    usual_deg: float
    usual_scale: float
    usual_colour: float

    @property
    def is_measurable(self) -> bool:
        """Whether any of it is more than three standard errors, and more than half a degree, 0.5 % or one step."""
        return (
            max(abs(self.yaw_deg), abs(self.pitch_deg), abs(self.roll_deg)) > max(3.0 * self.usual_deg, 0.5)
            or abs(self.scale) > max(3.0 * self.usual_scale, 0.005)
            or self.colour > max(3.0 * self.usual_colour, 1.0)
        )


def drift(frames_THWC: UInt8[ndarray, "t h w 3"], seen: Sighting) -> Drift:
    """Compare the beginning and the end of a long clip, of which every so many frames are given (20 at least).

    Colour is that of the cheeks, which move, and of the upper corners, which do not.
    """
    num = len(frames_THWC)
    if num < 20:
        raise ValueError("drift needs at least 20 frames")
    tenths = np.array_split(np.arange(num), 10)
    side = max(8, round(_CORNER * min(frames_THWC.shape[1:3])))
    cheeks = np.clip(seen.points_TL3[:, [50, 280], :2].astype(int), 2, min(frames_THWC.shape[1:3]) - 3)
    skin_T3 = np.array(
        [
            np.mean([frame[y - 2 : y + 3, x - 2 : x + 3].mean((0, 1)) for x, y in places], 0)
            for frame, places in zip(frames_THWC, cheeks, strict=True)
        ]
    )
    corner_T3 = frames_THWC[:, :side, :side].mean((1, 2))
    angles = np.array([seen.pose_T3[part].mean(0) for part in tenths])
    sizes = np.array([seen.distance_T[part].mean() for part in tenths])
    colours = np.array([np.concatenate([skin_T3[part].mean(0), corner_T3[part].mean(0)]) for part in tenths])
    yaw, pitch, roll = _along(angles)
    return Drift(
        yaw_deg=yaw,
        pitch_deg=pitch,
        roll_deg=roll,
        scale=float(_along(sizes[:, None])[0]),
        colour=float(np.abs(_along(colours)).max()),
        usual_deg=_around(angles),
        usual_scale=_around(sizes[:, None]),
        usual_colour=_around(colours),
    )


def _along(tenths_10N: ndarray) -> tuple[float, ...]:
    """Change from the first to the last tenth along the line that fits all ten."""
    return tuple(float(v) for v in 9.0 * np.polyfit(np.arange(10), tenths_10N, 1)[0])


def _around(tenths_10N: ndarray) -> float:
    """How much chance alone moves that change: its standard error, from what the line leaves, for the worst column."""
    line = np.polyfit(np.arange(10), tenths_10N, 1)
    left = tenths_10N - np.outer(np.arange(10), line[0]) - line[1]
    spread = np.sqrt((left**2).sum(0) / 8.0)
    return float(9.0 * spread.max() / np.sqrt(((np.arange(10) - 4.5) ** 2).sum()))


def psnr_outside(
    frames_THWC: UInt8[ndarray, "t h w 3"], photo_HW3: UInt8[ndarray, "h w 3"], box: tuple[int, int, int, int]
) -> float:
    """Agreement of frames with the photo outside a box (x0, y0, x1, y1), in dB; infinite if they are equal there."""
    outside = np.ones(photo_HW3.shape[:2], bool)
    outside[box[1] : box[3], box[0] : box[2]] = False
    if not outside.any():
        return float("inf")
    error = np.mean([np.mean((frame[outside].astype(np.float32) - photo_HW3[outside]) ** 2) for frame in frames_THWC])
    return float(10 * np.log10(255.0**2 / error)) if error > 0 else float("inf")
