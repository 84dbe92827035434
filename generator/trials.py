"""Trials: one silent clip in which every control is asked for in turn, and what is to be seen of it in the end.

`trial_controls` is what is sent; `control_errors` compares what was asked for with what `sighting.watch` saw, and
`disentanglement` how much of the face moved that nobody asked for. The head's own movement and blinks are off, so that
whatever moves was asked for.
"""

# T frame

from __future__ import annotations

import io
import wave
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from generator.sighting import Sighting
from generator.speech import SPEECH_RATE_HZ

Kind = Literal["rest", "pose", "gaze", "distance", "emotion"]
HOLD_S: Final = 0.48
EASE_S: Final = 0.24
_SETTLED_S: Final = 0.08  # into a hold until it is measured


@dataclass(frozen=True)
class Hold:
    """Something asked for, for half a second.

    Attributes:
        kind: which control.
        value: pose (yaw, pitch, roll) or gaze (yaw, pitch) in degrees, or a distance, or an emotion's name.
        start_s, end_s: when it is held.
    """

    kind: Kind
    value: tuple[float, ...] | float | str
    start_s: float
    end_s: float

    def frames(self, rate_hz: float) -> slice:
        """Those in which it has settled."""
        return slice(round((self.start_s + _SETTLED_S) * rate_hz), round(self.end_s * rate_hz))


_ASKED: Final[tuple[tuple[Kind, tuple[float, ...] | float | str], ...]] = (
    ("rest", 0.0),
    ("pose", (15.0, 0.0, 0.0)),
    ("pose", (8.0, 0.0, 0.0)),
    ("pose", (-8.0, 0.0, 0.0)),
    ("pose", (-15.0, 0.0, 0.0)),
    ("pose", (0.0, 10.0, 0.0)),
    ("pose", (0.0, -10.0, 0.0)),
    ("pose", (0.0, 0.0, 10.0)),
    ("pose", (0.0, 0.0, -10.0)),
    ("gaze", (15.0, 0.0)),
    ("gaze", (-15.0, 0.0)),
    ("gaze", (0.0, 10.0)),
    ("gaze", (0.0, -10.0)),
    ("distance", 0.8),
    ("distance", 1.25),
    ("emotion", "joy"),
    ("emotion", "surprise"),
    ("emotion", "anger"),
    ("emotion", "sadness"),
)
_REST: Final[Mapping[Kind, Any]] = {"pose": [0, 0, 0], "gaze": [0, 0], "distance": 1.0, "emotion": "neutral"}
_CONTROL_OF: Final[Mapping[Kind, str]] = {
    "pose": "head_pose",
    "gaze": "gaze",
    "distance": "head_distance",
    "emotion": "emotion",
}


def holds() -> tuple[Hold, ...]:
    """Everything that is asked for, in order; the first is the face at rest."""
    step_s = HOLD_S + EASE_S
    return tuple(Hold(kind, value, k * step_s, k * step_s + HOLD_S) for k, (kind, value) in enumerate(_ASKED))


def trial_controls(seed: int = 0) -> dict[str, Any]:
    """The controls of the trial clip, as a client sends them."""
    controls: dict[str, Any] = {"seed": seed, "head_motion": 0, "blink_rate": 0}
    for kind, name in _CONTROL_OF.items():
        frames: list[tuple[float, Any]] = []
        for hold in holds():
            value = hold.value if hold.kind == kind else _REST[kind]
            value = list(value) if isinstance(value, tuple) else value
            frames += [(hold.start_s, value), (hold.end_s, value)]
        keyframes = {"keyframes": [{"at_s": round(at_s, 3), "value": value} for at_s, value in frames]}
        controls[name] = {"mode": "track", **keyframes} if kind == "pose" else keyframes
    return controls


def trial_speech() -> bytes:
    """As much silence as the trial lasts, barely above nothing: 16 kHz WAV."""
    num = round((holds()[-1].end_s + 0.2) * SPEECH_RATE_HZ)
    # one part in a thousand: a recording of nothing at all is refused
    samples_N = np.random.default_rng(0).integers(-40, 41, num).astype("<i2")
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SPEECH_RATE_HZ)
        file.writeframes(samples_N.tobytes())
    return out.getvalue()


def rest_frames(rate_hz: float) -> slice:
    """Frames of the trial in which the face is at rest."""
    return holds()[0].frames(rate_hz)


# ---- what came of it -------------------------------------------------------------------------------------------------


def control_errors(seen: Sighting, asked_gaze_T2: Float[ndarray, "t 2"] | None = None) -> dict[str, list[float]]:
    """Differences between what was asked for and what is seen, one per hold.

    Args:
        seen: the trial clip, relative to its frames of rest.
        asked_gaze_T2: where the eyes were told to look in each frame, relative to the head; without it, what the
            control says, which is the mean around which the eyes wander.
    Returns: `yaw_deg`, `pitch_deg`, `roll_deg`, `gaze_yaw_deg`, `gaze_pitch_deg` and `distance` (a share), signed.
    """
    errors: dict[str, list[float]] = {
        name: [] for name in ("yaw_deg", "pitch_deg", "roll_deg", "gaze_yaw_deg", "gaze_pitch_deg", "distance")
    }
    at_rest = rest_frames(seen.rate_hz)
    for hold in holds():
        frames = hold.frames(seen.rate_hz)
        if hold.kind == "pose":
            asked_3 = np.array(hold.value)
            axis = int(np.abs(asked_3).argmax())
            found_3 = np.median(seen.pose_T3[frames], 0)
            errors[("yaw_deg", "pitch_deg", "roll_deg")[axis]].append(float(found_3[axis] - asked_3[axis]))
        elif hold.kind == "gaze":
            asked_2 = np.array(hold.value)
            axis = int(np.abs(asked_2).argmax())
            if asked_gaze_T2 is not None:
                asked_2 = np.median(asked_gaze_T2[frames], 0) - asked_gaze_T2[at_rest].mean(0)
            found_2 = np.median(seen.gaze_T2[frames], 0)
            errors[("gaze_yaw_deg", "gaze_pitch_deg")[axis]].append(float(found_2[axis] - asked_2[axis]))
        elif hold.kind == "distance":
            assert isinstance(hold.value, float)
            errors["distance"].append(float(np.median(seen.distance_T[frames]) / hold.value - 1.0))
    return errors


@dataclass(frozen=True)
class Disentanglement:
    """How much moved that was not asked for, as shares of its range.

    Attributes:
        expression_by_pose: lips, corners, brows and lids under pose alone, over what the emotions move them.
        pose_by_expression: the head under emotions alone, over ±15° of yaw, ±10° of pitch and roll.
        expression_parts: the first, by part.
    """

    expression_by_pose: float
    pose_by_expression: float
    expression_parts: Mapping[str, float]


_POSE_RANGE_DEG: Final = np.array([30.0, 20.0, 20.0])


def disentanglement(seen: Sighting, ranges: Mapping[str, float]) -> Disentanglement:
    """Measure on the trial clip what pose does to the expression, and expression to the pose.

    Args:
        seen: the trial clip, relative to its frames of rest.
        ranges: how far each part moves in all (see `expression_ranges`).
    """
    at_rest = rest_frames(seen.rate_hz)
    parts = expression_parts(seen)
    leaks: dict[str, list[float]] = {name: [] for name in parts}
    turns: list[float] = []
    for hold in holds():
        frames = hold.frames(seen.rate_hz)
        if hold.kind == "pose":
            for name, values_T in parts.items():
                change = np.median(values_T[frames]) - np.median(values_T[at_rest])
                leaks[name].append(abs(float(change)) / ranges[name])
        elif hold.kind == "emotion":
            turns.append(float((np.abs(np.median(seen.pose_T3[frames], 0)) / _POSE_RANGE_DEG).max()))
    by_part = {name: float(np.mean(values)) for name, values in leaks.items()}
    return Disentanglement(float(np.mean(list(by_part.values()))), float(np.mean(turns)), by_part)


def expression_parts(seen: Sighting) -> dict[str, ndarray]:
    """Curves of an expression, in units that turns of the head change least."""
    return {
        "lips": seen.aperture_T,
        "corners": seen.mouth_width_T,
        "brows": seen.brow_height_T,
        "lids": seen.opening_T,
    }


def expression_ranges(clips: Sequence[Sighting]) -> dict[str, float]:
    """How far each part moves over clips of speech and emotions: from the 1st to the 99th percentile, the widest."""
    ranges: dict[str, float] = {}
    for seen in clips:
        for name, values_T in expression_parts(seen).items():
            low, high = np.percentile(values_T, [1, 99])
            ranges[name] = max(ranges.get(name, 1e-6), float(high - low))
    return ranges
