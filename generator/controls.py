"""The controls room: what a client may ask of the movement, constant or changing over time.

A control is a value, or `{"keyframes": [{"at_s": 0.0, "value": …}, …]}`: between keyframes the value eases from one to
the next, before the first and after the last it stays. Controls are part of the permit; a wrong one is refused with its
name and range before anything is decided.

    T video frame
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from generator.emotion import EMOTIONS, NEUTRAL, mix_of_point, mix_of_preset
from generator.errors import ControlError
from generator.faces import LARGEST, MAX_FACES, FaceChoice

LARGEST_SEED: Final = 2**31 - 1
MAX_KEYFRAMES: Final = 1000
MAX_TIME_S: Final = 600.0

Framing = Literal["square", "full"]
PoseMode = Literal["offset", "track"]
Lips = Literal["clip", "speech"]
LIPS_OF_CLIP: Final[Lips] = "clip"
LIPS_OF_SPEECH: Final[Lips] = "speech"


@dataclass(frozen=True)
class Curve:
    """A vector that changes over time.

    Attributes:
        times_s: rising; one or more.
        values: one vector per time, all of the same length.
    """

    times_s: tuple[float, ...]
    values: tuple[tuple[float, ...], ...]

    def at(self, times_T: NDArray[np.floating]) -> NDArray[np.float64]:
        """The vectors at these times: shape (T, D). Eased between keyframes, at rest on each of them."""
        values_KD = np.array(self.values, np.float64)
        if len(self.times_s) == 1:
            return np.repeat(values_KD, len(times_T), axis=0)
        times_K = np.array(self.times_s)
        left_T = np.clip(np.searchsorted(times_K, times_T, "right") - 1, 0, len(times_K) - 2)
        share_T = np.clip((times_T - times_K[left_T]) / (times_K[left_T + 1] - times_K[left_T]), 0.0, 1.0)
        eased_T = (share_T * share_T * (3.0 - 2.0 * share_T))[:, None]
        return values_KD[left_T] * (1.0 - eased_T) + values_KD[left_T + 1] * eased_T


_AS_PLANNED: Final = Curve((0.0,), ((1.0,),))
_USUAL_BLINKS: Final = Curve((0.0,), ((32.0,),))
_AT_THE_CAMERA: Final = Curve((0.0,), ((0.0, 0.0),))
_AS_IN_THE_PORTRAIT: Final = Curve((0.0,), ((0.0, 0.0, 0.0),))
_IN_NO_MOOD: Final = Curve((0.0,), ((0.0,) * len(EMOTIONS),))


@dataclass(frozen=True)
class SyntheticVoice:
    """A voice that nobody spoke with.

    Attributes:
        engine: name and version of the program that made it.
        language: BCP 47 tag.
        voice: the engine's name for it.
        text_sha256: of the text that was spoken.
    """

    engine: str
    language: str
    voice: str
    text_sha256: str

    def stated(self) -> dict[str, str]:
        """What a manifest says of it: not the text, nor its hash, which for a short text would give it away."""
        return {"engine": self.engine, "language": self.language, "voice": self.voice}


@dataclass(frozen=True)
class MotionControls:
    """What a client asks of the movement, parsed. `MotionControls.from_json` reads what is sent.

    Attributes:
        seed: 0 .. 2³¹ − 1; the same seed, speech and controls give the same movement.
        intensity: how strongly lips and brows move, 0 .. 1.5.
        head_motion: how much the head moves by itself, 0 (still) .. 1.5.
        blink_rate: blinks per minute, 0 (never) .. 60.
        gaze: yaw −20 .. 20 and pitch −15 .. 15 in degrees, positive to the picture's right and up; 0, 0 is the camera.
        head_pose: yaw −15 .. 15, pitch −10 .. 10, roll −10 .. 10 in degrees, relative to the portrait's own pose;
            positive to the picture's right, chin up, clockwise in the picture.
        head_pose_mode: "offset" adds the pose to the head's own movement; "track" replaces that movement.
        head_distance: distance of the head from the camera as a factor of the portrait's, 0.8 (nearer) .. 1.25.
        emotion: amounts 0..1 of the basic emotions, in the order of `generator.emotion.EMOTIONS`.
        framing: "square" for 512×512 around the face, "full" for the whole portrait.
        face: which face of a portrait that shows several: "largest", or counted from the left; None if it must show
            just one.
        driving: with a driving clip: whether the lips follow that clip or the speech. None without one.
        voice: of speech that was made from text: engine, language, voice. Set by whoever made it, None for a recording.
    """

    seed: int = 0
    intensity: Curve = _AS_PLANNED
    head_motion: Curve = _AS_PLANNED
    blink_rate: Curve = _USUAL_BLINKS
    gaze: Curve = _AT_THE_CAMERA
    head_pose: Curve = _AS_IN_THE_PORTRAIT
    head_pose_mode: PoseMode = "offset"
    head_distance: Curve = _AS_PLANNED
    emotion: Curve = _IN_NO_MOOD
    framing: Framing = "square"
    face: FaceChoice = None
    driving: Lips | None = None
    voice: SyntheticVoice | None = None

    @classmethod
    def from_json(cls, controls: Mapping[str, Any]) -> MotionControls:
        """Read controls as a client sends them; what is left out takes its default.

        Raises: ControlError: an unknown name or a value outside of its range; the sentence names both.
        """
        if not isinstance(controls, Mapping):
            raise ControlError("controls", "controls must be an object of named values.")
        known = [each.name for each in fields(cls) if each.name != "head_pose_mode"]
        values: dict[str, Any] = {}
        for name, wish in controls.items():
            if name not in known:
                raise ControlError(str(name), f"{name!r} is no control; there are {', '.join(known)}.")
            if name == "head_pose" and isinstance(wish, Mapping) and "mode" in wish:
                values["head_pose_mode"] = _choice("head_pose", wish["mode"], ("offset", "track"))
                wish = {key: value for key, value in wish.items() if key != "mode"}
            values[name] = _READERS[name](name, wish)
        return cls(**values)


# ---- reading ---------------------------------------------------------------------------------------------------------


def _number(field: str, value: object, least: float, most: float, unit: str = "") -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or not least <= value <= most:  # type: ignore[arg-type, operator]
        raise ControlError(field, f"{field} must be a number from {least:g} to {most:g}{unit}.")
    return float(value)  # type: ignore[arg-type]


def _whole(field: str, value: object, least: int, most: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise ControlError(field, f"{field} must be a whole number from {least} to {most}.")
    return value


def _choice(field: str, value: object, choices: tuple[str, ...]) -> Any:
    if not isinstance(value, str) or value not in choices:
        raise ControlError(field, f"{field} must be one of {', '.join(choices)}.")
    return value


def _scalar(least: float, most: float, unit: str = "") -> Callable[[str, object], tuple[float, ...]]:
    return lambda field, value: (_number(field, value, least, most, unit),)


def _angles(**limits_deg: float) -> Callable[[str, object], tuple[float, ...]]:
    """Reads `{"yaw_deg": …, …}`, or a list of the angles in this order."""
    names = [f"{axis}_deg" for axis in limits_deg]

    def read(field: str, value: object) -> tuple[float, ...]:
        if isinstance(value, Sequence) and not isinstance(value, str) and len(value) == len(names):
            value = dict(zip(names, value, strict=True))
        if not isinstance(value, Mapping) or not value or set(value) - set(names):
            raise ControlError(field, f"{field} must be an object of {', '.join(names)}, or a list of these angles.")
        limits = zip(names, limits_deg.values(), strict=True)
        return tuple(_number(f"{field}.{name}", value.get(name, 0.0), -most, most, " degrees") for name, most in limits)

    return read


def _emotion(field: str, value: object) -> tuple[float, ...]:
    """Reads "joy", `{"preset": "joy", "amount": 0.5}` or `{"valence": 0.4, "arousal": -0.2}`."""
    presets = (NEUTRAL, *EMOTIONS)
    if isinstance(value, str):
        return tuple(mix_of_preset(_choice(field, value, presets), 1.0))
    if isinstance(value, Mapping) and "preset" in value and not set(value) - {"preset", "amount"}:
        name = _choice(f"{field}.preset", value["preset"], presets)
        return tuple(mix_of_preset(name, _number(f"{field}.amount", value.get("amount", 1.0), 0.0, 1.0)))
    if isinstance(value, Mapping) and set(value) == {"valence", "arousal"}:
        point = [_number(f"{field}.{name}", value[name], -1.0, 1.0) for name in ("valence", "arousal")]
        return tuple(mix_of_point(*point))
    raise ControlError(
        field,
        f"{field} must be one of {', '.join(presets)}; or an object of preset and amount (0 to 1), "
        "or of valence and arousal (each from -1 to 1).",
    )


def _curve(read: Callable[[str, object], tuple[float, ...]]) -> Callable[[str, object], Curve]:
    """A value that holds throughout, or keyframes."""

    def read_curve(field: str, wish: object) -> Curve:
        if not (isinstance(wish, Mapping) and "keyframes" in wish):
            return Curve((0.0,), (read(field, wish),))
        frames = wish["keyframes"]
        if set(wish) != {"keyframes"} or not isinstance(frames, list) or not 1 <= len(frames) <= MAX_KEYFRAMES:
            raise ControlError(field, f"{field}.keyframes must be a list of 1 to {MAX_KEYFRAMES} keyframes.")
        times_s, values = [], []
        for frame in frames:
            if not isinstance(frame, Mapping) or set(frame) != {"at_s", "value"}:
                raise ControlError(field, f"A keyframe of {field} must be an object of at_s and value.")
            times_s.append(_number(f"{field}.at_s", frame["at_s"], 0.0, MAX_TIME_S, " seconds"))
            values.append(read(field, frame["value"]))
        if any(later <= sooner for sooner, later in pairwise(times_s)):
            raise ControlError(field, f"The keyframes of {field} must come in the order of time, each at its own at_s.")
        return Curve(tuple(times_s), tuple(values))

    return read_curve


def _face(field: str, value: object) -> FaceChoice:
    if value == LARGEST:
        return LARGEST
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < MAX_FACES:
        raise ControlError(
            field, f'{field} must be "{LARGEST}" or a whole number from 0 to {MAX_FACES - 1}, counted from the left.'
        )
    return value


def _driving(field: str, value: object) -> Lips:
    if not isinstance(value, Mapping) or set(value) != {"lips"}:
        raise ControlError(field, f'{field} must be {{"lips": "clip"}} or {{"lips": "speech"}}.')
    lips: Lips = _choice(f"{field}.lips", value["lips"], (LIPS_OF_CLIP, LIPS_OF_SPEECH))
    return lips


def _voice(field: str, value: object) -> SyntheticVoice:
    names = [each.name for each in fields(SyntheticVoice)]
    if not isinstance(value, Mapping) or set(value) != set(names):
        raise ControlError(field, f"{field} is set where speech is made from text, with {', '.join(names)}.")
    for name in names:
        if not isinstance(value[name], str) or not 0 < len(value[name]) <= 64 or not value[name].isprintable():
            raise ControlError(field, f"{field}.{name} must be a text of 1 to 64 characters.")
    return SyntheticVoice(**value)


_READERS: Final[dict[str, Callable[[str, Any], Any]]] = {
    "seed": lambda field, value: _whole(field, value, 0, LARGEST_SEED),
    "intensity": _curve(_scalar(0.0, 1.5)),
    "head_motion": _curve(_scalar(0.0, 1.5)),
    "blink_rate": _curve(_scalar(0.0, 60.0, " per minute")),
    "gaze": _curve(_angles(yaw=20.0, pitch=15.0)),
    "head_pose": _curve(_angles(yaw=15.0, pitch=10.0, roll=10.0)),
    "head_distance": _curve(_scalar(0.8, 1.25)),
    "emotion": _curve(_emotion),
    "framing": lambda field, value: _choice(field, value, ("square", "full")),
    "face": _face,
    "driving": _driving,
    "voice": _voice,
}
