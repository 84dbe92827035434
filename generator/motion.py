"""The motion room: speech and a few controls become a plan of movement, one row per video frame.

samples (16 kHz) ──► lips (network)  ──► articulators ──► facial actions ┐
                 └─► level, accents ──► behaviour (seeded) ──► blinks,   ├─► MotionTrack
                                                 gaze, head pose, brows ┘

K video frame   N sample   C articulator   A facial action (52)
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import load

from generator.actions import ACTION_INDEX, FACIAL_ACTIONS
from generator.behaviour import Behaviour, HeardFrame, Wish
from generator.coarticulation import ARTICULATOR_INDEX
from generator.controls import MotionControls
from generator.emotion import EMOTIONS, emotional_actions
from generator.errors import WeightsError
from generator.lips import LipNetwork, LipNetworkConfig, at_video_frames, hear_articulation, num_video_frames
from generator.sealed import WEIGHTS_FOLDER, read_weights
from generator.speech import HOP_SAMPLES, SPEECH_RATE_HZ, follow_level, log_mel, loudness

VIDEO_RATE_HZ: Final = 25.0
WEIGHTS_NAME: Final = "motion.safetensors"
WEIGHTS_FORMAT: Final = "placet-lips-1"
_REMEDY: Final = "placet train motion"


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
    jaw = 0.58 * part["jaw"] * (1.0 - 0.55 * closure) * (1.0 - 0.2 * part["teeth"]) * intensity
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
    put("mouthPucker", 0.7 * part["pucker"] * intensity)
    put("mouthFunnel", 0.45 * part["funnel"] * apart * (1.0 - tuck))
    put("mouthStretch", 0.35 * part["spread"] * apart)
    put("mouthDimple", 0.15 * part["spread"] * intensity)
    # The upper teeth show above the tucked lip.
    put("mouthUpperUp", (0.14 * part["jaw"] + 0.45 * part["upper"]) * apart + 0.3 * tuck)
    put("mouthLowerDown", (0.25 * part["jaw"] + 0.5 * part["lower"] + 0.1 * part["teeth"]) * apart * (1.0 - tuck))
    put("tongueOut", 0.5 * np.clip(part["tongue"] - 0.6, 0.0, None) * apart)
    return actions_T52


def heard_frames(samples_N: NDArray[np.float32], curves_TC: NDArray[np.float32]) -> list[HeardFrame]:
    """Return what the behaviour model hears at each video frame: speech, and its strength from 50 ms around it."""
    num_frames = len(curves_TC)
    if len(samples_N) < HOP_SAMPLES:
        return [HeardFrame(0.0, 0.0)] * num_frames
    loud_F = loudness(log_mel(samples_N))
    below_F = loud_F - follow_level(loud_F[None])[0]
    # 0 at 13 dB under the speaker's level and less, 1 at the level.
    strength_F = np.clip(1.0 + below_F / 3.0, 0.0, 1.0)
    smooth_F = np.convolve(strength_F, np.full(5, 0.2), "same")
    times_T = np.arange(num_frames) / VIDEO_RATE_HZ * (SPEECH_RATE_HZ / HOP_SAMPLES)
    strength_T = np.interp(times_T, np.arange(len(smooth_F)), smooth_F)
    speech_T = curves_TC[:, ARTICULATOR_INDEX["speech"]]
    return [HeardFrame(float(s), float(p)) for s, p in zip(speech_T, strength_T, strict=True)]


def wishes(controls: MotionControls, times_T: NDArray[np.floating]) -> list[Wish]:
    """What the controls ask of the face at these times."""
    head_T1, expressive_T1, blink_T1, gaze_T2, pose_T3, mood_TE = (
        curve.at(times_T).tolist()
        for curve in (
            controls.head_motion,
            controls.intensity,
            controls.blink_rate,
            controls.gaze,
            controls.head_pose,
            controls.emotion,
        )
    )
    follows_track = controls.head_pose_mode == "track"
    return [
        Wish(head[0], expressive[0], blink[0], tuple(gaze), tuple(pose), follows_track, tuple(mood))
        for head, expressive, blink, gaze, pose, mood in zip(
            head_T1, expressive_T1, blink_T1, gaze_T2, pose_T3, mood_TE, strict=True
        )
    ]


class MotionModel:
    """Plans movement from speech: a trained network for the lips, a stochastic model for everything else."""

    def __init__(self, network: LipNetwork) -> None:
        self.network = network.eval()

    @classmethod
    def load(cls, folder: Path = WEIGHTS_FOLDER) -> MotionModel:
        """Load the weights that ship with the project.

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
        return cls(network)

    def articulation(self, samples_N: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return what the mouth does at each video frame: shape (T, 12), columns as in `ARTICULATORS`."""
        return at_video_frames(
            hear_articulation(self.network, samples_N), num_video_frames(len(samples_N), VIDEO_RATE_HZ), VIDEO_RATE_HZ
        )

    def plan(self, samples_N: NDArray[np.float32], controls: MotionControls) -> MotionTrack:
        """Plan the movement for a whole recording.

        The row for an instant depends on the speech up to 120 ms after it and on nothing later.

        Args:
            samples_N: 16 kHz mono float32, −1..1.
            controls: what the client asks for.
        Returns: ceil(N / 640) rows at 25 Hz, at least one.
        """
        samples_N = np.ascontiguousarray(samples_N, np.float32)
        with torch.inference_mode():
            curves_TC = self.articulation(samples_N)
        times_T = np.arange(len(curves_TC)) / VIDEO_RATE_HZ
        intensity_T = controls.intensity.at(times_T)[:, 0]
        mood_TE = controls.emotion.at(times_T)
        actions_T52 = facial_actions(curves_TC, intensity_T.astype(np.float32))
        behaviour = Behaviour(controls.seed, VIDEO_RATE_HZ)
        heard = heard_frames(samples_N, curves_TC)
        lived = [behaviour.step(*each) for each in zip(heard, wishes(controls, times_T), strict=True)]
        mood_TE[:, EMOTIONS.index("joy")] += [frame.smile for frame in lived]
        closure_T, rounding_T, speech_T = (curves_TC[:, ARTICULATOR_INDEX[n]] for n in ("closure", "pucker", "speech"))
        actions_T52 += emotional_actions(mood_TE, closure_T, rounding_T, speech_T)
        for name, values in (
            ("eyeBlinkLeft", [frame.blink for frame in lived]),
            ("eyeBlinkRight", [frame.blink for frame in lived]),
            ("browInnerUp", [frame.brow_inner for frame in lived]),
            ("browOuterUpLeft", [frame.brow_outer for frame in lived]),
            ("browOuterUpRight", [frame.brow_outer for frame in lived]),
        ):
            actions_T52[:, ACTION_INDEX[name]] += values
        return MotionTrack(
            np.clip(actions_T52, 0.0, 1.0),
            np.array([frame.pose_6 for frame in lived], np.float32),
            np.array([frame.gaze_2 for frame in lived], np.float32),
            controls.head_distance.at(times_T)[:, 0].astype(np.float32),
        )
