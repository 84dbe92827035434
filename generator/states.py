"""States: one clip that goes through everything a face must be able to do, and a sheet of pictures that shows it.

Comes in: the movement planned for a recording under `state_controls`. Goes out: which of its frames shows the portrait
speaking, joyful, sad, looking aside, turned, blinking and with closed lips, and a picture of many portraits in all of
these states, one row each. Defects that no figure finds (tears, double lips, floating teeth, bent spectacles) are found
by looking at it.
"""

# T frame of the plan  H,W pixel

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import cv2
import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from generator.actions import ACTION_INDEX
from generator.motion import MotionTrack

STATES: Final = ("speech", "joy", "sadness", "gaze left", "yaw 15°", "blink", "closed lips")
DRAWING: Final = "drawing"

_GAZE_DEG: Final = -15.0
_YAW_DEG: Final = 15.0
# When each state holds, as shares of the clip; between them it eases from one to the next.
_HELD: Final = {"plain": (0.0, 0.24), "joy": (0.30, 0.40), "sadness": (0.50, 0.60), "gaze left": (0.68, 0.78),
                "yaw 15°": (0.86, 1.0)}  # fmt: skip
_OPEN_EYES: Final = 0.08
_GAP, _HEADING_PX, _PAPER, _INK = 6, 26, 246, 30


def state_controls(duration_s: float, seed: int = 7) -> dict[str, Any]:
    """Controls, as a client sends them, under which a clip of this length goes through all states."""

    def keyframes(rest: object, held: Mapping[str, object]) -> dict[str, object]:
        frames: list[tuple[float, object]] = [(0.0, rest)]
        for name, value in held.items():
            start, end = _HELD[name]
            frames += [(start - 0.06, rest), (start, value), (end, value)]
            if end < 1.0:
                frames.append((end + 0.06, rest))
        merged = {round(share * duration_s, 3): value for share, value in frames}
        return {"keyframes": [{"at_s": at_s, "value": merged[at_s]} for at_s in sorted(merged)]}

    return {
        "seed": seed,
        "blink_rate": 60.0,
        "emotion": keyframes("neutral", {"joy": "joy", "sadness": "sadness"}),
        "gaze": keyframes([0.0, 0.0], {"gaze left": [_GAZE_DEG, 0.0]}),
        "head_pose": {"mode": "track", **keyframes([0.0, 0.0, 0.0], {"yaw 15°": [_YAW_DEG, 0.0, 0.0]})},
    }


def state_moments(track: MotionTrack) -> dict[str, int]:
    """Which frame of a clip planned under `state_controls` shows which state."""
    actions_T52 = track.actions_T52
    num = len(actions_T52)
    blink_T = actions_T52[:, ACTION_INDEX["eyeBlinkLeft"]]
    jaw_T, sealed_T = (actions_T52[:, ACTION_INDEX[name]] for name in ("jawOpen", "mouthClose"))
    parted_T = jaw_T - sealed_T

    def held(name: str) -> ndarray:
        start, end = _HELD[name]
        return np.arange(int(np.ceil(start * num)), max(int(end * num), int(np.ceil(start * num)) + 1))

    plain = held("plain")
    closed = np.arange(num)[parted_T < 0.01]
    moments = {
        "speech": int(plain[np.argmax(parted_T[plain] - 2 * blink_T[plain])]),
        "blink": int(plain[np.argmax(blink_T[plain])]),
        # lips that meet over an open jaw are the hard case
        "closed lips": int(closed[np.argmax(jaw_T[closed] - blink_T[closed])])
        if len(closed)
        else int(parted_T.argmin()),
    }
    for name in ("joy", "sadness", "gaze left", "yaw 15°"):
        frames = held(name)
        middle = np.abs(frames - frames.mean()) / len(frames)
        moments[name] = int(frames[np.argmin(10 * (blink_T[frames] > _OPEN_EYES) + middle)])
    return moments


def widest_moment(track: MotionTrack) -> int:
    """The frame in which the lips are furthest apart and the eyes open."""
    actions_T52 = track.actions_T52
    parted_T = actions_T52[:, ACTION_INDEX["jawOpen"]] - actions_T52[:, ACTION_INDEX["mouthClose"]]
    return int(np.argmax(parted_T - 2 * actions_T52[:, ACTION_INDEX["eyeBlinkLeft"]]))


def as_drawing(image_HW3: UInt8[ndarray, "h w 3"]) -> UInt8[ndarray, "h w 3"]:
    """The picture as a coloured pencil drawing: flat tones, grain of the paper gone, dark strokes along edges."""
    flat = image_HW3
    size = max(5, round(0.015 * image_HW3.shape[1]))
    for _ in range(3):
        flat = cv2.bilateralFilter(flat, size, 34, size)
    grey: ndarray = cv2.cvtColor(flat, cv2.COLOR_RGB2GRAY).astype(np.float32)
    light = cv2.GaussianBlur(255 - grey, (0, 0), 0.008 * image_HW3.shape[1])
    strokes = np.clip(grey / np.maximum(255 - light, 1) * 1.04, 0, 1) ** 2.2
    paper = 255 - (255 - flat.astype(np.float32)) * 0.8
    return np.clip(paper * strokes[..., None] + 0.5, 0, 255).astype(np.uint8)


@dataclass(frozen=True, eq=False)
class StateRow:
    """One portrait in its states.

    Attributes:
        name: of the portrait.
        pictures: by column; None where there is none, with `reasons` saying why.
    """

    name: str
    pictures: Mapping[str, UInt8[ndarray, "h w 3"] | None]
    reasons: Mapping[str, str]


def state_sheet(rows: Sequence[StateRow], columns: Sequence[str], tile_px: int = 320) -> UInt8[ndarray, "h w 3"]:
    """All rows as one picture, a column for each state."""
    step = tile_px + _GAP
    sheet = np.full((len(rows) * step + _GAP + _HEADING_PX, len(columns) * step + _GAP, 3), _PAPER, np.uint8)
    for place, column in enumerate(columns):
        _write(sheet, column.replace("°", " deg"), (_GAP + place * step, _HEADING_PX - 7))
    for index, row in enumerate(rows):
        y = _HEADING_PX + _GAP + index * step
        for place, column in enumerate(columns):
            x = _GAP + place * step
            picture = row.pictures.get(column)
            if picture is None:
                _write(sheet, row.reasons.get(column, ""), (x + 4, y + tile_px // 2))
                continue
            shrink = picture.shape[0] > tile_px
            tile = cv2.resize(picture, (tile_px, tile_px), interpolation=cv2.INTER_AREA if shrink else cv2.INTER_CUBIC)
            sheet[y : y + tile_px, x : x + tile_px] = tile
        _write(sheet, row.name, (_GAP + 6, y + tile_px - 8), light=True)
    return sheet


def _write(sheet_HW3: ndarray, text: str, place: tuple[int, int], *, light: bool = False) -> None:
    font, size = cv2.FONT_HERSHEY_SIMPLEX, 0.5
    if light:
        cv2.putText(sheet_HW3, text, place, font, size, (0, 0, 0), 3, cv2.LINE_AA)
    ink = (255, 255, 255) if light else (_INK, _INK, _INK)
    cv2.putText(sheet_HW3, text, place, font, size, ink, 1, cv2.LINE_AA)
