"""The motion room: speech and a few controls become a plan of movement, one row per video frame.

samples (16 kHz) ──► lips (network)  ──► articulators ──► facial actions ┐
                 └─► level, accents ──► behaviour (seeded) ──► blinks,   ├─► MotionTrack
                                                 gaze, head pose, brows ┘

K video frame   N sample   C articulator   A facial action (52)
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import load

from generator.actions import ACTION_INDEX, FACIAL_ACTIONS
from generator.behaviour import Behaviour, HeardFrame, Wish
from generator.coarticulation import ARTICULATOR_INDEX
from generator.controls import MotionControls
from generator.emotion import EMOTIONS, emotional_actions
from generator.errors import WeightsError
from generator.lips import LipNetwork, LipNetworkConfig
from generator.listening import VIDEO_RATE_HZ, Heard, Listener
from generator.manner import USUAL, Manner
from generator.sealed import WEIGHTS_FOLDER, read_weights
from generator.speech import SPEECH_RATE_HZ

WEIGHTS_NAME: Final = "motion.safetensors"
WEIGHTS_FORMAT: Final = "placet-lips-1"
_REMEDY: Final = "placet train motion"
_MOUTH: Final = [ARTICULATOR_INDEX[name] for name in ("speech", "closure", "pucker")]
_JOY: Final = EMOTIONS.index("joy")
_BLINKS: Final = [ACTION_INDEX["eyeBlinkLeft"], ACTION_INDEX["eyeBlinkRight"]]
_OUTER_BROWS: Final = [ACTION_INDEX["browOuterUpLeft"], ACTION_INDEX["browOuterUpRight"]]


@dataclass(frozen=True, eq=False)
class MotionRow:
    """What one video frame shows; the fields are rows of a `MotionTrack`."""

    actions_52: NDArray[np.float32]
    head_pose_6: NDArray[np.float32]
    gaze_2: NDArray[np.float32]
    distance: float


@dataclass(frozen=True, eq=False)
class MotionTrack:
    """A plan of movement; row t is what is seen at t / rate_hz seconds of the speech.

    Attributes:
        actions_T52: facial actions, float32 0..1, columns in the order of `FACIAL_ACTIONS`. `eyeLook*` stay 0.
        head_pose_T6: yaw, pitch, roll in degrees relative to the portrait's own pose (positive: to the picture's right,
            chin up, clockwise in the picture), then x, y, z offsets in head-heights (to the picture's right, down, away
            from the camera).
        gaze_T2: yaw, pitch of the eyes in degrees relative to the portrait's own gaze and head, same signs; it already
            turns against the head, so that eye contact holds while the head moves.
        distance_T: distance of the head from the camera, as a factor of the portrait's.
        rate_hz: rows per second.
    """

    actions_T52: NDArray[np.float32]
    head_pose_T6: NDArray[np.float32]
    gaze_T2: NDArray[np.float32]
    distance_T: NDArray[np.float32]
    rate_hz: float = VIDEO_RATE_HZ

    @classmethod
    def of(cls, rows: Sequence[MotionRow]) -> MotionTrack:
        """The track of these rows, at least one."""
        return cls(
            np.stack([row.actions_52 for row in rows]),
            np.stack([row.head_pose_6 for row in rows]),
            np.stack([row.gaze_2 for row in rows]),
            np.array([row.distance for row in rows], np.float32),
        )

    @property
    def num_frames(self) -> int:
        return len(self.actions_T52)

    @property
    def duration_s(self) -> float:
        return self.num_frames / self.rate_hz


def facial_actions(
    curves_TC: NDArray[np.float32], intensity: float | NDArray[np.floating] = 1.0
) -> NDArray[np.float32]:
    """Map articulators to facial actions.

    On the baked head, `mouthClose` undoes to the lips exactly what `jawOpen` does, so lips meet when both are equal and
    nothing else parts them; that is how a closure is made while the jaw stays where the vowels around it want it.

    Args:
        curves_TC: 0..1, columns in the order of `ARTICULATORS`.
        intensity: scale of everything but closures, which stay complete; one number, or one for each row.
    Returns: shape (T, 52), 0..1.
    """
    part = {name: curves_TC[:, index] for name, index in ARTICULATOR_INDEX.items()}
    closure, tuck = part["closure"], part["tuck"]
    apart = (1.0 - closure) * intensity
    jaw = 0.80 * part["jaw"] * (1.0 - 0.55 * closure) * (1.0 - 0.2 * part["teeth"]) * intensity
    jaw = jaw * (1.0 - 0.6 * tuck)

    actions_T52 = np.zeros((len(curves_TC), len(FACIAL_ACTIONS)), np.float32)

    def put(name: str, value_T: NDArray[np.float32]) -> None:
        for side in ("",) if name in ACTION_INDEX else ("Left", "Right"):
            actions_T52[:, ACTION_INDEX[name + side]] = np.clip(value_T, 0.0, 1.0)

    jaw = np.clip(jaw, 0.0, 1.0)
    put("jawOpen", jaw)
    put("mouthClose", jaw * closure)
    put("mouthPress", 0.45 * part["press"] * closure)
    tuck = tuck * (1.0 - closure)
    put("mouthRollLower", 0.12 * closure + 0.45 * tuck)
    put("mouthRollUpper", 0.12 * closure)
    put("mouthShrugLower", 0.1 * tuck)
    put("mouthPucker", 0.85 * part["pucker"] * intensity)
    put("mouthFunnel", 0.45 * part["funnel"] * apart * (1.0 - tuck))
    put("mouthStretch", 0.5 * part["spread"] * apart)
    put("mouthDimple", 0.15 * part["spread"] * intensity)
    # The upper teeth show above the tucked lip.
    put("mouthUpperUp", (0.14 * part["jaw"] + 0.45 * part["upper"]) * apart + 0.3 * tuck)
    put("mouthLowerDown", (0.25 * part["jaw"] + 0.5 * part["lower"] + 0.1 * part["teeth"]) * apart * (1.0 - tuck))
    put("tongueOut", 0.5 * np.clip(part["tongue"] - 0.6, 0.0, None) * apart)
    return actions_T52


class MotionModel:
    """Plans movement from speech: a trained network for the lips, a stochastic model for everything else."""

    def __init__(self, network: LipNetwork, manner: Manner = USUAL) -> None:
        self.network = network.eval()
        self.manner = manner

    @classmethod
    def load(cls, folder: Path = WEIGHTS_FOLDER, manner: Manner = USUAL) -> MotionModel:
        """Load the weights that ship with the project.

        Args:
            manner: how the face moves besides speaking; see `generator.manner`.
        Raises: WeightsError: missing, damaged, or of a format that this version does not read.
        """
        data = read_weights(WEIGHTS_NAME, _REMEDY, folder)
        try:
            with safe_open(folder / WEIGHTS_NAME, "pt") as header:
                described = header.metadata() or {}
            if described.get("format") != WEIGHTS_FORMAT:
                raise WeightsError(
                    f"{folder / WEIGHTS_NAME} has the format {described.get('format')!r}, not {WEIGHTS_FORMAT!r}; "
                    f"make it anew with `{_REMEDY}`."
                )
            config = json.loads(described["config"])
            network = LipNetwork(LipNetworkConfig(int(config["num_channels"]), tuple(config["dilations"])))
            network.load_state_dict({name: tensor.float() for name, tensor in load(data).items()})
        except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as exc:
            raise WeightsError(
                f"{folder / WEIGHTS_NAME} does not hold a lip network ({exc}); make it anew with `{_REMEDY}`."
            ) from exc
        return cls(network, manner)

    def articulation(self, samples_N: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return what the mouth does at each video frame: shape (T, 12), columns as in `ARTICULATORS`."""
        listener = Listener(self.network)
        return np.stack([heard.curves_C for heard in listener.hear(samples_N) + listener.finish()])

    def stream(self, controls: MotionControls) -> MotionStream:
        """Plan the movement of a voice while it is spoken."""
        return MotionStream(self.network, controls, self.manner)

    def plan(self, samples_N: NDArray[np.float32], controls: MotionControls) -> MotionTrack:
        """Plan the movement for a whole recording; exactly what a stream of it gives, however it is cut.

        The row for an instant depends on the speech up to 120 ms after it and on nothing later.

        Args:
            samples_N: 16 kHz mono float32, −1..1.
            controls: what the client asks for.
        Returns: ceil(N / 640) rows at 25 Hz, at least one.
        """
        return MotionTrack.of(list(self.rows(samples_N, controls)))

    def rows(self, samples_N: NDArray[np.float32], controls: MotionControls) -> Iterator[MotionRow]:
        """The rows of `plan`, each planned when it is asked for (up to a second ahead)."""
        stream = self.stream(controls)
        second = round(SPEECH_RATE_HZ)
        for start in range(0, len(samples_N), second):
            yield from stream.hear(samples_N[start : start + second])
        yield from stream.finish()


class MotionStream:
    """Plans the movement of one voice as it is spoken; see `MotionModel.stream`."""

    def __init__(self, network: LipNetwork, controls: MotionControls, manner: Manner = USUAL) -> None:
        self._listener = Listener(network)
        self._behaviour = Behaviour(controls.seed, VIDEO_RATE_HZ, manner)
        self._controls = controls
        self._num_frames = 0

    def change(self, controls: MotionControls) -> None:
        """From the next frame on these controls hold; the seed stays that of the beginning, the clock goes on."""
        self._controls = controls

    def hear(self, samples_N: NDArray[np.float32]) -> list[MotionRow]:
        """Take the next stretch of sound (16 kHz mono, −1..1, any length); answer the rows that are decided by now."""
        return [self._row(heard) for heard in self._listener.hear(samples_N)]

    def finish(self) -> list[MotionRow]:
        """The sound is over: answer the rows that remain."""
        return [self._row(heard) for heard in self._listener.finish()]

    def _row(self, heard: Heard) -> MotionRow:
        controls, time_1 = self._controls, np.array([self._num_frames / VIDEO_RATE_HZ])
        self._num_frames += 1
        (intensity,) = controls.intensity.at(time_1)[0]
        mood_E = controls.emotion.at(time_1)[0]
        speech, closure, rounding = heard.curves_C[_MOUTH]
        lived = self._behaviour.step(
            HeardFrame(float(speech), heard.strength),
            Wish(
                head_motion=float(controls.head_motion.at(time_1)[0, 0]),
                expressiveness=float(intensity),
                blink_rate_per_min=float(controls.blink_rate.at(time_1)[0, 0]),
                gaze_2=tuple(controls.gaze.at(time_1)[0]),
                pose_3=tuple(controls.head_pose.at(time_1)[0]),
                follows_track=controls.head_pose_mode == "track",
                mood_E=tuple(mood_E),
            ),
        )
        actions_A = facial_actions(heard.curves_C[None], float(intensity))[0]
        mood_E[_JOY] += lived.smile
        actions_A += emotional_actions(mood_E[None], *(np.array([v]) for v in (closure, rounding, speech)))[0]
        actions_A[_BLINKS] += lived.blink
        actions_A[ACTION_INDEX["browInnerUp"]] += lived.brow_inner
        actions_A[_OUTER_BROWS] += lived.brow_outer
        return MotionRow(
            np.clip(actions_A, 0.0, 1.0),
            lived.pose_6.astype(np.float32),
            lived.gaze_2.astype(np.float32),
            float(controls.head_distance.at(time_1)[0, 0]),
        )
