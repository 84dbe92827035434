"""The emotion room: what a mood adds to a speaking face.

A mood is a mix of six basic emotions. It comes from a preset with an amount, or from a point in the valence–arousal
plane, which mixes the presets that lie around it. Each emotion is a combination of facial actions (after EMFACS: Ekman
& Friesen, "EMFACS-7", 1983) that leaves the lips free to meet: what would part or seal them fades as they articulate.

    T video frame   E basic emotion (6)   A facial action (52)
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

from generator.actions import ACTION_INDEX

EMOTIONS: Final = ("joy", "sadness", "anger", "surprise", "fear", "disgust")
NEUTRAL: Final = "neutral"

# Where each emotion lies in the circumplex (Russell 1980; positions after Scherer 2005): valence, arousal, −1..1.
CIRCUMPLEX: Final[dict[str, tuple[float, float]]] = {
    "joy": (0.85, 0.35),
    "sadness": (-0.75, -0.50),
    "anger": (-0.65, 0.60),
    "surprise": (0.20, 0.95),
    "fear": (-0.35, 0.85),
    "disgust": (-0.85, 0.10),
}
_ANGLE_SPREAD_RAD: Final = math.radians(32.0)

# Strength of each action at amount 1; names without a side stand for both.
_COMBINATIONS: Final[dict[str, dict[str, float]]] = {
    # AU 6 + 12
    "joy": {"mouthSmile": 0.75, "cheekSquint": 0.65, "eyeSquint": 0.30, "mouthDimple": 0.15, "browOuterUp": 0.10},
    # AU 1 + 4 + 15
    "sadness": {"browInnerUp": 0.75, "browDown": 0.25, "mouthFrown": 0.60, "mouthShrugLower": 0.25, "eyeSquint": 0.15},
    # AU 4 + 5 + 7 + 23
    "anger": {"browDown": 0.90, "eyeSquint": 0.40, "noseSneer": 0.35, "mouthPress": 0.40, "mouthFrown": 0.20},
    # AU 1 + 2 + 5 + 26
    "surprise": {"browInnerUp": 0.85, "browOuterUp": 0.90, "eyeWide": 0.75, "jawOpen": 0.16},
    # AU 1 + 2 + 4 + 5 + 20
    "fear": {"browInnerUp": 0.90, "browOuterUp": 0.35, "browDown": 0.35, "eyeWide": 0.85, "mouthStretch": 0.45},
    # AU 9 + 15 + 16
    "disgust": {"noseSneer": 0.90, "browDown": 0.45, "mouthUpperUp": 0.30, "mouthFrown": 0.30, "eyeSquint": 0.35},
}
# Head and gaze of a mood at amount 1: pitch (chin up), roll in degrees, gaze pitch in degrees, liveliness of the head.
_BEARING: Final[dict[str, tuple[float, float, float, float]]] = {
    "joy": (1.0, 1.0, 0.0, 1.15),
    "sadness": (-4.0, 2.0, -4.0, 0.6),
    "anger": (-2.5, 0.0, 1.5, 1.1),
    "surprise": (2.5, 0.0, 1.0, 1.1),
    "fear": (1.0, -1.5, 0.5, 1.0),
    "disgust": (2.0, 2.0, -1.5, 0.9),
}
# These part or seal the lips: they give way to the voice.
_YIELDING: Final = ("mouthPress", "mouthUpperUp", "jawOpen", "mouthShrugLower")
# These pull at the lips' corners: they soften while the lips meet or round.
_CORNERS: Final = ("mouthSmile", "mouthFrown", "mouthStretch", "mouthDimple")


def mix_of_preset(name: str, amount: float) -> NDArray[np.float64]:
    """A named mood as a mix: shape (6,), in the order of `EMOTIONS`; zeros for neutral."""
    mix_E = np.zeros(len(EMOTIONS))
    if name != NEUTRAL:
        mix_E[EMOTIONS.index(name)] = amount
    return mix_E


def mix_of_point(valence: float, arousal: float) -> NDArray[np.float64]:
    """A point of the valence–arousal plane as a mix of the emotions that lie in its direction; its distance from the
    middle is the amount. A calm, content point (valence above and arousal below zero) is a faint smile.

    Args:
        valence, arousal: −1..1.
    """
    amount = min(1.0, math.hypot(valence, arousal))
    if amount == 0.0:
        return np.zeros(len(EMOTIONS))
    angle = math.atan2(arousal, valence)
    apart_E = np.array([math.remainder(angle - math.atan2(a, v), math.tau) for v, a in CIRCUMPLEX.values()])
    near_E = np.exp(-0.5 * (apart_E / _ANGLE_SPREAD_RAD) ** 2)
    # Nothing basic lies towards calm: there the face comes to rest.
    strength = min(1.0, float(near_E.max()) / 0.6)
    return amount * strength * near_E / near_E.sum()


def _action_matrix() -> NDArray[np.float32]:
    matrix_EA = np.zeros((len(EMOTIONS), len(ACTION_INDEX)), np.float32)
    for row, name in enumerate(EMOTIONS):
        for action, strength in _COMBINATIONS[name].items():
            for side in ("",) if action in ACTION_INDEX else ("Left", "Right"):
                matrix_EA[row, ACTION_INDEX[action + side]] = strength
    return matrix_EA


_MATRIX_EA: Final = _action_matrix()


def _columns(names: tuple[str, ...]) -> list[int]:
    return [
        index for action, index in ACTION_INDEX.items() if action.removesuffix("Left").removesuffix("Right") in names
    ]


def emotional_actions(
    mix_TE: NDArray[np.floating],
    closure_T: NDArray[np.floating],
    rounding_T: NDArray[np.floating],
    speech_T: NDArray[np.floating],
) -> NDArray[np.float32]:
    """What a mood adds to the facial actions of speech.

    Args:
        mix_TE: amounts of the basic emotions, 0..1.
        closure_T: 0..1, lips meet (p, b, m).
        rounding_T: 0..1, lips are rounded.
        speech_T: 0..1, somebody speaks.
    Returns: shape (T, 52), to be added to the actions of speech and clipped to 0..1.
    """
    actions_TA = np.clip(mix_TE.astype(np.float32) @ _MATRIX_EA, 0.0, 1.0)
    actions_TA[:, _columns(_YIELDING)] *= (1.0 - np.maximum(0.8 * speech_T, closure_T))[:, None].astype(np.float32)
    soft_T = 1.0 - np.clip(0.35 * closure_T + 0.5 * rounding_T, 0.0, 0.7)
    actions_TA[:, _columns(_CORNERS)] *= soft_T[:, None].astype(np.float32)
    return actions_TA


def bearing(mix_E: NDArray[np.floating]) -> tuple[float, float, float, float]:
    """How a mood carries the head: pitch and roll in degrees, gaze pitch in degrees, factor of liveliness."""
    table_E4 = np.array([_BEARING[name] for name in EMOTIONS])
    pitch_deg, roll_deg, gaze_pitch_deg = mix_E @ table_E4[:, :3]
    lively = 1.0 + float(mix_E @ (table_E4[:, 3] - 1.0))
    return float(pitch_deg), float(roll_deg), float(gaze_pitch_deg), lively
