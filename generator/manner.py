"""Manner: how somebody moves besides speaking, as a handful of factors on what `generator.behaviour` does by itself.

`placet train motion --video` learns them from video and writes them to a small JSON file, which the setting `manner`
(or `MotionModel.load(manner=…)`) takes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Final

from generator.errors import WeightsError

FORMAT: Final = "placet-manner-1"
LIMITS: Final = (0.05, 5.0)
"""Of every factor."""
_REMEDY: Final = "placet train motion --video"


@dataclass(frozen=True)
class Manner:
    """How much of everything, as a factor of the usual.

    Attributes:
        yaw, pitch, roll: how far apart the postures are between which the head drifts.
        pace: how quickly it takes a new one.
        stir: the quicker movement that rides on them while speaking.
        blinks: how often, beside the rate that is asked for.
        gaze: how far the eyes wander and look aside.
        gaze_stay: how long the eyes stay where they are.
    """

    yaw: float = 1.0
    pitch: float = 1.0
    roll: float = 1.0
    pace: float = 1.0
    stir: float = 1.0
    blinks: float = 1.0
    gaze: float = 1.0
    gaze_stay: float = 1.0

    def scaled(self, factors: Mapping[str, float]) -> Manner:
        """Some of the factors multiplied, within their limits."""
        low, high = LIMITS
        return replace(self, **{name: min(max(getattr(self, name) * by, low), high) for name, by in factors.items()})

    def save(self, path: Path, learned_from: Mapping[str, Any]) -> None:
        """Write the file that `load` reads, with a word on where the numbers come from."""
        manner = {name: round(value, 4) for name, value in asdict(self).items()}
        content = {"format": FORMAT, "manner": manner, "learned_from": dict(learned_from)}
        path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")

    @classmethod
    def load(cls, path: Path) -> Manner:
        """Read a file that was learned. Raises: WeightsError: missing, of another format, or a number out of range."""
        try:
            content = json.loads(path.read_bytes())
            if content["format"] != FORMAT or set(content["manner"]) != {each.name for each in fields(cls)}:
                raise ValueError("another format")
            values = {name: float(value) for name, value in content["manner"].items()}
        except (OSError, ValueError, KeyError, TypeError) as exc:
            raise WeightsError(f"{path} holds no manner of moving ({exc}); make it with `{_REMEDY}`.") from exc
        low, high = LIMITS
        for name, value in values.items():
            if not (math.isfinite(value) and low <= value <= high):
                raise WeightsError(f"{path}: {name} must be from {low:g} to {high:g}; make it anew with `{_REMEDY}`.")
        return cls(**values)


USUAL: Final = Manner()
