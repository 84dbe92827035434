"""How a face moves from one frame to another, and what its texture does meanwhile: fixed measurements, nothing learns.

A still that is filmed moves as a whole: one similarity explains its flow. Whoever talks, or is made to, moves against
it, and each part of the face in its own way. What a renderer warps keeps its texture to the last grain while it moves;
before a camera, skin wrinkles, light shifts and the sensor's noise is new in every frame. So dense optical flow
(Kroeger et al., "Fast Optical Flow using Dense Inverse Search", ECCV 2016, as OpenCV has it) is taken between two
frames, and measured by region of the face: what of the flow no similarity explains, and what it leaves of the picture.

G side of the working picture in pixels  R region  M measurement
"""

from __future__ import annotations

from typing import Final, NamedTuple

import cv2
import numpy as np
from jaxtyping import Float32, UInt8

from detector.face import CROP_PER_BOX, FaceBox, crop_face

WORKING_PX: Final = 160
CONTEXT: Final = 1.35
"""Side of the picture looked at, as a multiple of the ordinary crop: what is behind the head is in it."""

# Centre and half-axes of the regions in sides of the face box, from the middle of the box; y points down.
_ELLIPSES: Final[dict[str, tuple[float, float, float, float]]] = {
    "mouth": (0.0, 0.27, 0.22, 0.14),
    "jaw": (0.0, 0.45, 0.26, 0.10),
    "right_eye": (-0.19, -0.14, 0.13, 0.09),
    "left_eye": (0.19, -0.14, 0.13, 0.09),
    "brows": (0.0, -0.30, 0.34, 0.09),
    "nose": (0.0, 0.05, 0.11, 0.14),
    "right_cheek": (-0.28, 0.16, 0.12, 0.18),
    "left_cheek": (0.28, 0.16, 0.12, 0.18),
}
_HEAD: Final = (0.0, 0.05, 0.48, 0.60)
REGIONS: Final = (*_ELLIPSES, "head", "surroundings")
_PER_REGION: Final = (
    "against_camera",
    "against_head",
    "changed",
    "left_over",
    "left_over_grain",
    "unlike_grain",
    "grain",
)
_OVERALL: Final = ("camera_shift", "camera_zoom", "camera_roll", "head_shift", "head_zoom", "head_roll")
NUM_MEASURES: Final = len(REGIONS) * len(_PER_REGION) + len(_OVERALL)

_FLOW_FLOOR: Final = 0.02
_CHANGE_FLOOR: Final = 0.3
_NUM_REFITS: Final = 3


def _weights() -> Float32[np.ndarray, "r g g"]:
    """Each region's share of the working picture, rows sum to 1; `surroundings` is what is well outside the head."""
    side_in_boxes = CROP_PER_BOX * CONTEXT
    axis = (np.arange(WORKING_PX) + 0.5) / WORKING_PX * side_in_boxes - side_in_boxes / 2
    x, y = np.meshgrid(axis, axis)

    def inside(centre_x: float, centre_y: float, half_x: float, half_y: float) -> np.ndarray:
        return ((x - centre_x) / half_x) ** 2 + ((y - centre_y) / half_y) ** 2 <= 1

    masks = [inside(*ellipse) for ellipse in (*_ELLIPSES.values(), _HEAD)]
    centre_x, centre_y, half_x, half_y = _HEAD
    masks.append(~inside(centre_x, centre_y - 0.08, half_x * 1.55, half_y * 1.45) & (y < 0.55))
    weights = np.stack(masks).astype(np.float32)
    return np.asarray(weights / weights.sum(axis=(1, 2), keepdims=True), np.float32)


_WEIGHTS_RGG: Final = _weights()
_LEAST_SEEN: Final = 0.1
_HEAD_GG: Final = _WEIGHTS_RGG[REGIONS.index("head")] > 0


class Look(NamedTuple):
    """One frame, prepared for measuring.

    Attributes:
        grey_GG: the face and what surrounds it.
        grain_GG: the same without everything coarse.
        weights_RN: each region's share of the picture; what lies beyond the edge of the frame has none.
    """

    grey_GG: UInt8[np.ndarray, "g g"]
    grain_GG: Float32[np.ndarray, "g g"]
    weights_RN: Float32[np.ndarray, "r n"]


class Kinematics:
    """Measures pairs of frames. Not safe to share between threads."""

    def __init__(self) -> None:
        self._flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)

    def look(self, frame_HWC: UInt8[np.ndarray, "h w 3"], box: FaceBox) -> Look:
        """Cut a frame by a face box; frames to be compared must be cut by the same one."""
        wide = FaceBox(box.centre_x, box.centre_y, box.side_px * CONTEXT, box.confidence, box.keypoints_62)
        grey_GG = cv2.cvtColor(crop_face(frame_HWC, wide, WORKING_PX), cv2.COLOR_RGB2GRAY)
        return Look(grey_GG, _grain(grey_GG.astype(np.float32)), _weights_within(wide, *frame_HWC.shape[:2]))

    def measure(self, before: Look, after: Look) -> Float32[np.ndarray, " m"]:
        """What moved and what changed between two looks, `NUM_MEASURES` numbers; lengths in sides of the face box."""
        flow_GG2 = self._flow.calc(before.grey_GG, after.grey_GG, np.zeros((WORKING_PX, WORKING_PX, 2), np.float32))
        # (1) the camera: one similarity for everything; the head: another one for the head alone
        camera_4, against_camera_GG = _without_similarity(flow_GG2, np.ones_like(_HEAD_GG))
        head_4, against_head_GG = _without_similarity(flow_GG2, _HEAD_GG)
        # (2) what the flow leaves over of the picture, and of its grain
        arrived_GG = _fetched(after.grey_GG.astype(np.float32), flow_GG2)
        arrived_grain_GG = _fetched(after.grain_GG, flow_GG2)
        before_GG = before.grey_GG.astype(np.float32)
        changed_GG = np.abs(after.grey_GG.astype(np.float32) - before_GG)
        left_GG = np.abs(arrived_GG - before_GG)
        left_grain_GG = np.abs(arrived_grain_GG - before.grain_GG)
        maps_KN = np.stack(
            [
                against_camera_GG,
                against_head_GG,
                changed_GG,
                left_GG,
                left_grain_GG,
                before.grain_GG * arrived_grain_GG,
                before.grain_GG**2,
                arrived_grain_GG**2,
            ]
        ).reshape(8, -1)
        by_region_KR = maps_KN @ before.weights_RN.T
        product_R, power_R, power_arrived_R = by_region_KR[5:]
        alike_R = (product_R + 0.05) / np.sqrt((power_R + 0.05) * (power_arrived_R + 0.05))
        per_region = [
            np.log(by_region_KR[0] + _FLOW_FLOOR),
            np.log(by_region_KR[1] + _FLOW_FLOOR),
            np.log(by_region_KR[2] + _CHANGE_FLOOR),
            np.log(by_region_KR[3] + _CHANGE_FLOOR),
            np.log(by_region_KR[4] + _CHANGE_FLOOR),
            np.log(1.05 - np.clip(alike_R, -1, 1)),
            0.5 * np.log(power_R + 0.05),
        ]
        overall = [*_size_of(camera_4), *_size_of(head_4 - camera_4)]
        return np.concatenate([*per_region, overall]).astype(np.float32)


def _weights_within(box: FaceBox, height: int, width: int) -> Float32[np.ndarray, "r n"]:
    """Shares of the regions without what lies beyond the frame; a region hardly seen counts as the head."""
    side = box.side_px * CROP_PER_BOX
    axis = (np.arange(WORKING_PX) + 0.5) / WORKING_PX * side - side / 2
    columns, rows = box.centre_x + axis, box.centre_y + axis
    inside_GG = ((rows >= 0) & (rows < height))[:, None] & ((columns >= 0) & (columns < width))[None, :]
    if inside_GG.all():
        return _WEIGHTS_RGG.reshape(len(REGIONS), -1)
    weights_RN = (_WEIGHTS_RGG * inside_GG).reshape(len(REGIONS), -1)
    seen_R = weights_RN.sum(axis=1)
    weights_RN[seen_R < _LEAST_SEEN] = _WEIGHTS_RGG[REGIONS.index("head")].ravel()
    return np.asarray(weights_RN / weights_RN.sum(axis=1, keepdims=True), np.float32)


def _grain(grey_GG: np.ndarray) -> Float32[np.ndarray, "g g"]:
    return np.asarray(grey_GG - cv2.GaussianBlur(grey_GG, (0, 0), 1.5), np.float32)


_AXIS: Final = np.arange(WORKING_PX, dtype=np.float32)
_X_GG, _Y_GG = np.meshgrid(_AXIS, _AXIS)
_HALF: Final = np.float32((WORKING_PX - 1) / 2)


def _fetched(picture_GG: np.ndarray, flow_GG2: np.ndarray) -> np.ndarray:
    """The second picture, carried back to the first along the flow."""
    return cv2.remap(
        picture_GG, _X_GG + flow_GG2[..., 0], _Y_GG + flow_GG2[..., 1], cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
    )


def _without_similarity(flow_GG2: np.ndarray, where_GG: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The similarity that best explains the flow of a part (shift x, y, zoom, roll), and how far the flow is from it.

    Refitted with weights that fall with the distance, so that what moves by itself does not pull at it.
    """
    step = 4
    x_N = ((_X_GG - _HALF) / _HALF)[::step, ::step].ravel()
    y_N = ((_Y_GG - _HALF) / _HALF)[::step, ::step].ravel()
    flow_N2 = flow_GG2[::step, ::step].reshape(-1, 2)
    weight_N = where_GG[::step, ::step].ravel().astype(np.float32)
    one_N, none_N = np.ones_like(x_N), np.zeros_like(x_N)
    rows_2N4 = np.stack([np.stack([one_N, none_N, x_N, -y_N], 1), np.stack([none_N, one_N, y_N, x_N], 1)])
    fit_4 = np.zeros(4, np.float32)
    for _ in range(_NUM_REFITS):
        moments_44 = sum(rows_N4.T @ (rows_N4 * weight_N[:, None]) for rows_N4 in rows_2N4)
        target_4 = sum(rows_2N4[axis].T @ (flow_N2[:, axis] * weight_N) for axis in range(2))
        fit_4 = np.linalg.solve(moments_44 + 1e-6 * np.eye(4), target_4).astype(np.float32)
        away_N = np.hypot(*(flow_N2[:, axis] - rows_2N4[axis] @ fit_4 for axis in range(2)))
        weight_N = where_GG[::step, ::step].ravel() / (0.1 + away_N)
    shift_x, shift_y, zoom, roll = fit_4
    x_GG, y_GG = (_X_GG - _HALF) / _HALF, (_Y_GG - _HALF) / _HALF
    explained_x_GG = shift_x + zoom * x_GG - roll * y_GG
    explained_y_GG = shift_y + zoom * y_GG + roll * x_GG
    away_GG = np.hypot(flow_GG2[..., 0] - explained_x_GG, flow_GG2[..., 1] - explained_y_GG)
    return fit_4, away_GG


def _size_of(similarity_4: np.ndarray) -> list[float]:
    """How large a similarity is, logarithms: its shift, its zoom, its roll."""
    shift_x, shift_y, zoom, roll = (float(value) for value in similarity_4)
    return [float(np.log(size + _FLOW_FLOOR)) for size in (np.hypot(shift_x, shift_y), abs(zoom), abs(roll))]
