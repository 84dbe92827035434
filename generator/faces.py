"""Which faces a picture shows, and which of them is meant.

Comes in: a picture, and what was said about the face ("largest", a number counted from the left, or nothing). Goes out:
the one face that will move, and every other that is large enough to be recognised, so that whoever else is shown can
be looked up among those who are protected.

    H,W pixel
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from jaxtyping import UInt8
from numpy import ndarray

from generator.errors import FaceTooSmallError, NoFaceError, NoSuchFaceError, SeveralFacesError
from generator.perception import FaceBox, detect_faces, face_landmarks, is_face

FaceChoice = int | Literal["largest"] | None
LARGEST: Final = "largest"
MIN_FACE_PX: Final = 96
MIN_KNOWN_FACE_PX: Final = 48
"""Smaller faces are not compared with anybody: too little of them is left to recognise."""
MAX_FACES: Final = 16
"""More than these in one picture are not all looked at."""

# A second face counts when it is at least this large compared with the first: passers-by in the distance do not.
_SECOND_FACE: Final = 0.35


@dataclass(frozen=True)
class FacesFound:
    """The faces of one picture.

    Attributes:
        counted: those that can be meant, from left to right; `face` is an index into them.
        passers_by: much smaller ones, the largest first.
        num_more: faces beyond `MAX_FACES`, which nobody has looked at.
    """

    counted: tuple[FaceBox, ...]
    passers_by: tuple[FaceBox, ...] = ()
    num_more: int = 0

    def chosen(self, choice: FaceChoice = None) -> FaceBox:
        """The face that is meant.

        Raises: NoFaceError, SeveralFacesError, NoSuchFaceError, FaceTooSmallError.
        """
        if not self.counted:
            raise NoFaceError(
                "No face was found; please send a portrait with the face well lit and towards the camera."
            )
        if choice is None and len(self.counted) > 1:
            raise SeveralFacesError(len(self.counted))
        if isinstance(choice, int):
            if not 0 <= choice < len(self.counted):
                raise NoSuchFaceError(choice, len(self.counted))
            face = self.counted[choice]
        else:
            face = max(self.counted, key=lambda each: each.size_px)
        if face.size_px < MIN_FACE_PX:
            raise FaceTooSmallError(round(face.size_px), MIN_FACE_PX)
        return face

    def beside(self, chosen: FaceBox) -> tuple[FaceBox, ...]:
        """Every other face that is large enough to be recognised."""
        return tuple(
            face
            for face in (*self.counted, *self.passers_by)
            if face is not chosen and face.size_px >= MIN_KNOWN_FACE_PX
        )


def faces_in(image_HW3: UInt8[ndarray, "h w 3"]) -> FacesFound:
    """Every face of a picture, detected and confirmed by the landmark model.

    Args:
        image_HW3: sRGB.
    """
    detected = detect_faces(image_HW3)
    faces = [face for face in detected[:MAX_FACES] if is_face(face_landmarks(image_HW3, face))]
    num_more = sum(face.size_px >= MIN_KNOWN_FACE_PX for face in detected[MAX_FACES:])
    if not faces:
        return FacesFound((), (), num_more)
    least_px = _SECOND_FACE * faces[0].size_px
    counted = sorted((face for face in faces if face.size_px >= least_px), key=lambda face: face.x0 + face.x1)
    return FacesFound(tuple(counted), tuple(face for face in faces if face.size_px < least_px), num_more)
