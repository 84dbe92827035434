"""Likeness: whether two pictures show the same face. Protects enrolled people; identifies nobody by name.

Comes in: an sRGB picture and the face found in it. Goes out: a `FaceTemplate`, 128 numbers that lie close together for
pictures of one person (dlib's ResNet, trained with a metric loss; Euclidean distance). The weights are those of the
wheel `face-recognition-models`: the ResNet and the 5-point predictor, both CC0. Its 68-point predictor was trained on
data for non-commercial use and is never opened.

Thresholds and what they cost are measured, see `placet evaluate likeness` and NOTES. What they cannot do: tell twins
apart, see through a mask, or hold against somebody who alters a picture until it is not recognised any more.

The template is computed in the intake child process: whoever takes over a decoder gets no templates of others, only
this picture's own.
"""

# H,W pixel  D descriptor

from __future__ import annotations

import hashlib
import importlib.util
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from jaxtyping import Float32, UInt8
from numpy import ndarray

from generator.errors import TemplateError, WeightsError

if TYPE_CHECKING:
    from generator.perception import FaceBox

MODEL_PACKAGE: Final = "face_recognition_models"
_SHA256_BY_FILE: Final = {
    "dlib_face_recognition_resnet_model_v1.dat": "55533b28a95800a551ba546ba62fe69625c7e95a7061c338adffead08719da30",
    "shape_predictor_5_face_landmarks.dat": "c4b1e9804792707d3a405c2c16a80a20269e6675021f64a41d30fffafbc41888",
}
_RESNET, _FIVE_POINTS = _SHA256_BY_FILE

TEMPLATE_DIMENSIONS: Final = 128
TEMPLATE_VERSION: Final = b"dlib-resnet-1\n"
"""Written before the numbers: templates of another model are never compared."""

SAME_FACE_DISTANCE: Final = 0.5
"""Two pictures at most this far apart show the same person, as far as the enrolled person's own pictures go."""
PROTECTED_FACE_DISTANCE: Final = 0.45
"""The same for the faces of others, of which there are many: with each that is compared an accident gets likelier."""

_CROP_PX: Final = 300
_CHIP_PX: Final = 150
_CROP_PER_FACE: Final = 2.2
_PREDICTOR_PER_FACE: Final = 0.93
"""Size of the box that the predictor was trained on beside a BlazeFace box, measured on 12 portraits."""


@dataclass(frozen=True, eq=False)
class FaceTemplate:
    """What a face is recognised by. Personal data: at rest only sealed under its subject's key."""

    values_D: Float32[ndarray, 128]

    def to_bytes(self) -> bytes:
        """Version and little-endian float32."""
        return TEMPLATE_VERSION + self.values_D.astype("<f4").tobytes()

    @classmethod
    def from_bytes(cls, data: bytes) -> FaceTemplate:
        """Read `to_bytes`'s form. Raises: TemplateError."""
        if not data.startswith(TEMPLATE_VERSION) or len(data) != len(TEMPLATE_VERSION) + 4 * TEMPLATE_DIMENSIONS:
            raise TemplateError("This face template is of another version; enrol the portrait again.")
        values_D = np.frombuffer(data, "<f4", offset=len(TEMPLATE_VERSION)).astype(np.float32)
        if not np.isfinite(values_D).all():
            raise TemplateError("This face template is damaged; enrol the portrait again.")
        return cls(values_D)

    def distance_to(self, other: FaceTemplate) -> float:
        """Euclidean distance; 0 for the same picture, about 0.4 within a person, about 0.8 between people."""
        return float(np.linalg.norm(self.values_D - other.values_D))


def face_template(image_HW3: UInt8[ndarray, "h w 3"], face: FaceBox) -> FaceTemplate:
    """The template of one face in a picture.

    Args:
        image_HW3: sRGB.
        face: from `perception.detect_faces`.
    Raises: WeightsError: the model files are missing or others than expected.
    """
    import dlib

    crop_HW3 = _upright_crop(image_HW3, face)
    half_px = round(_CROP_PX / _CROP_PER_FACE * _PREDICTOR_PER_FACE / 2)
    middle = _CROP_PX // 2
    box = dlib.rectangle(middle - half_px, middle - half_px, middle + half_px, middle + half_px)
    shape = _predictor()(crop_HW3, box)
    chip_HW3 = dlib.get_face_chip(crop_HW3, shape, size=_CHIP_PX)
    return FaceTemplate(np.asarray(_resnet().compute_face_descriptor(chip_HW3), dtype=np.float32))


def load_models() -> None:
    """Read the weights now, so that forks of this process share them. Raises: WeightsError."""
    _predictor()
    _resnet()


def _upright_crop(image_HW3: ndarray, face: FaceBox) -> ndarray:
    """The face in the middle of a square, its eyes level, at one size for all pictures."""
    import cv2

    right, left = face.eyes_22
    angle_deg = float(np.degrees(np.arctan2(left[1] - right[1], left[0] - right[0])))
    centre = ((face.x0 + face.x1) / 2, (face.y0 + face.y1) / 2)
    scale = _CROP_PX / (_CROP_PER_FACE * face.size_px)
    matrix_23: ndarray = cv2.getRotationMatrix2D(centre, angle_deg, scale)
    matrix_23[:, 2] += _CROP_PX / 2 - np.asarray(centre)
    shrinking = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    if scale < 0.5:  # warpAffine samples single pixels: shrink first, where it would skip some
        image_HW3 = cv2.resize(image_HW3, None, fx=scale, fy=scale, interpolation=shrinking)
        matrix_23[:, :2] /= scale
    return np.ascontiguousarray(
        cv2.warpAffine(
            image_HW3, matrix_23, (_CROP_PX, _CROP_PX), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
    )


@cache
def _predictor() -> Any:
    import dlib

    return dlib.shape_predictor(str(_model_file(_FIVE_POINTS)))


@cache
def _resnet() -> Any:
    import dlib

    return dlib.face_recognition_model_v1(str(_model_file(_RESNET)))


def _model_file(name: str) -> Path:
    """The file of a wheel whose Python code is never imported."""
    spec = importlib.util.find_spec(MODEL_PACKAGE)
    path = Path(spec.origin or "").parent / "models" / name if spec is not None else Path(name)
    if not path.is_file():
        raise WeightsError(f"{name} is missing; install the package face-recognition-models.")
    with path.open("rb") as opened:
        if hashlib.file_digest(opened, "sha256").hexdigest() != _SHA256_BY_FILE[name]:
            raise WeightsError(f"{name} is not the file that this version was measured with; reinstall the package.")
    return path
