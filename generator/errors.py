"""What can go wrong between an uploaded portrait or voice and a rendered frame: every exception of the generator.

The tree, with the stable `code` of each leaf::

    GeneratorError                          generator
    ├── PortraitError                       portrait
    │   ├── NotAnImageError                 portrait.not_an_image       415
    │   ├── ImageTooLargeError              portrait.too_large          413
    │   ├── UnreadableImageError            portrait.unreadable         422
    │   ├── AnimatedImageError              portrait.animated           422
    │   ├── NoFaceError                     portrait.no_face            422
    │   ├── SeveralFacesError               portrait.several_faces      422
    │   ├── NoSuchFaceError                 portrait.no_such_face       422
    │   ├── FaceTooSmallError               portrait.face_too_small     422
    │   ├── MouthHiddenError                portrait.mouth_hidden       422
    │   └── FaceTurnedAwayError             portrait.face_turned_away   422
    ├── DrivingError                        driving                     422
    │   ├── DriverFaceError                 driving.face                422
    │   ├── SeveralDriversError             driving.several_faces       422
    │   ├── DrivingTooShortError            driving.too_short           422
    │   ├── DrivingSilentError              driving.no_sound            422
    │   └── MovementError                   driving.movement            422
    ├── VoiceError                          voice                       422
    │   ├── NoVoiceEngineError              voice.no_engine             503
    │   ├── NoSuchVoiceError                voice.unknown               422
    │   ├── UnspeakableTextError            voice.text                  422
    │   └── VoiceFailedError                voice.failed                503
    ├── ControlError                        control                     422
    ├── WeightsError                        weights                     500
    ├── TemplateError                       template                    500
    ├── PersonaError                        persona                     (in generator.personas)
    ├── GrantMismatchError                  grant.mismatch              403
    └── EvidenceMismatchError               evidence.mismatch           403

Codes are part of the HTTP interface: add new ones, never rename one. Sentences say what to do about it.
"""

from __future__ import annotations

from typing import ClassVar


class GeneratorError(Exception):
    """Base of every error this package raises on purpose; `code` is stable, `str(error)` is a sentence for people."""

    code: ClassVar[str] = "generator"
    http_status: ClassVar[int] = 422


class PortraitError(GeneratorError):
    """The portrait cannot be animated as it stands."""

    code = "portrait"


class NotAnImageError(PortraitError):
    """The bytes are empty or in no image format that we read."""

    code = "portrait.not_an_image"
    http_status = 415


class ImageTooLargeError(PortraitError):
    """More bytes or pixels than we decode; refused from the header, before any pixel is decoded."""

    code = "portrait.too_large"
    http_status = 413


class UnreadableImageError(PortraitError):
    """An image by its header, but truncated or damaged."""

    code = "portrait.unreadable"


class AnimatedImageError(PortraitError):
    """More than one frame: which one is meant is not ours to guess."""

    code = "portrait.animated"


class NoFaceError(PortraitError):
    """No face was found."""

    code = "portrait.no_face"


class SeveralFacesError(PortraitError):
    """More than one face was found, and nobody said which one is meant.

    Attributes:
        num_faces: how many were found.
    """

    code = "portrait.several_faces"

    def __init__(self, num_faces: int) -> None:
        super().__init__(
            f"The picture shows {num_faces} faces; say which one is meant with the control face, 0 to {num_faces - 1} "
            'counted from the left or "largest", or crop the picture so that it shows exactly one.'
        )
        self.num_faces = num_faces


class NoSuchFaceError(PortraitError):
    """The picture has fewer faces than the one that was asked for.

    Attributes:
        face: what was asked for, counted from the left, from 0.
        num_faces: how many were found.
    """

    code = "portrait.no_such_face"

    def __init__(self, face: int, num_faces: int) -> None:
        last = f"0 to {num_faces - 1}" if num_faces > 1 else "0"
        super().__init__(
            f"There is no face {face}: the picture shows {num_faces}, so face must be {last}, counted from the left, "
            'or "largest".'
        )
        self.face = face
        self.num_faces = num_faces


class FaceTooSmallError(PortraitError):
    """The face has too few pixels to be animated.

    Attributes:
        face_px: the longer side of the face found, in pixels.
        least_px: the least that is accepted.
    """

    code = "portrait.face_too_small"

    def __init__(self, face_px: int, least_px: int) -> None:
        super().__init__(
            f"The face is {face_px} pixels tall; at least {least_px} are needed. "
            "Please send a larger or closer picture."
        )
        self.face_px = face_px
        self.least_px = least_px


class FaceTurnedAwayError(PortraitError):
    """The head is turned so far that half of the face cannot be seen.

    Attributes:
        yaw_deg, pitch_deg: the pose found.
    """

    code = "portrait.face_turned_away"

    def __init__(self, yaw_deg: float, pitch_deg: float, limit_deg: float) -> None:
        super().__init__(
            f"The head is turned {yaw_deg:+.0f}° sideways and {pitch_deg:+.0f}° up or down; "
            f"please send a portrait within {limit_deg:.0f}° of facing the camera."
        )
        self.yaw_deg = yaw_deg
        self.pitch_deg = pitch_deg


class MouthHiddenError(PortraitError):
    """Something covers the mouth: a hand, a mask, a microphone."""

    code = "portrait.mouth_hidden"

    def __init__(self) -> None:
        super().__init__("The mouth cannot be seen; please send a portrait with nothing in front of the lips.")


class DrivingError(GeneratorError):
    """The driving clip cannot be used as it stands."""

    code = "driving"


class DriverFaceError(DrivingError):
    """No face is seen well enough all through the clip."""

    code = "driving.face"


class SeveralDriversError(DrivingError):
    """More than one person is in the clip, and whose movement is meant cannot be said.

    Attributes:
        num_faces: how many were found.
    """

    code = "driving.several_faces"

    def __init__(self, num_faces: int) -> None:
        super().__init__(f"The driving clip shows {num_faces} faces; please crop it so that it shows only the driver.")
        self.num_faces = num_faces


class DrivingTooShortError(DrivingError):
    """There is nothing to follow."""

    code = "driving.too_short"


class DrivingSilentError(DrivingError):
    """The clip is to be its own speech, and has no sound."""

    code = "driving.no_sound"


class MovementError(DrivingError):
    """Bytes that are no movement."""

    code = "driving.movement"


class VoiceError(GeneratorError):
    """Speech could not be made from text."""

    code = "voice"


class NoVoiceEngineError(VoiceError):
    """No text-to-speech engine is installed."""

    code = "voice.no_engine"
    http_status = 503


class NoSuchVoiceError(VoiceError):
    """The engine has no such language or voice."""

    code = "voice.unknown"


class UnspeakableTextError(VoiceError):
    """The text is empty, too long, or holds what is no text."""

    code = "voice.text"


class VoiceFailedError(VoiceError):
    """The engine broke or took too long."""

    code = "voice.failed"
    http_status = 503


class ControlError(GeneratorError):
    """A control of the motion is unknown or outside of its range.

    Attributes:
        field: the name of the control, as it came.
    """

    code = "control"

    def __init__(self, field: str, sentence: str) -> None:
        super().__init__(sentence)
        self.field = field


class WeightsError(GeneratorError):
    """A weights file is missing, damaged or made for another version; reinstall, or rebuild it with `placet train`."""

    code = "weights"
    http_status = 500


class TemplateError(GeneratorError):
    """A stored face template is damaged or was made by another model; enrol the portrait again."""

    code = "template"
    http_status = 500


class GrantMismatchError(GeneratorError):
    """A renderer was handed a grant that was issued for another portrait."""

    code = "grant.mismatch"
    http_status = 403


class EvidenceMismatchError(GeneratorError):
    """The log evidence or the consent handed to the worker is not the one that its permit was issued on."""

    code = "evidence.mismatch"
    http_status = 403
