"""The terms of a live session: how long it may last and in which form it comes and goes. Pure values.

What will be said in a live session is not known when it is permitted. So the permit is bound to the terms in the place
of the speech: their bytes are hashed into it, and the worker that redeems it keeps to them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from generator.errors import GeneratorError
from policy.canonical import canonical_json, parse_canonical
from policy.errors import CanonicalError

FRAME_RATES_HZ: Final = (25, 40)
SOUND_RATES_HZ: Final = (16_000, 48_000)
MAX_FRAMES_PER_SEGMENT: Final = 5
MAX_DURATION_S: Final = 24 * 3600
FIXED_CONTROLS: Final = frozenset({"seed", "framing", "face"})
"""Controls that hold from the first frame to the last."""
_FORM: Final = "placet-live-1"


class LiveTermsError(GeneratorError):
    """Terms of a live session that cannot be kept.

    Attributes:
        field: which of them.
    """

    code: ClassVar[str] = "control.live_terms"

    def __init__(self, field: str, sentence: str) -> None:
        super().__init__(sentence)
        self.field = field


@dataclass(frozen=True)
class LiveTerms:
    """What a live session may be.

    Attributes:
        max_duration_ms: of the picture.
        rate_hz: frames per second.
        sound_rate_hz: of the sound that comes in: mono, 16 bit.
        frames_per_segment: 1 to 5; fewer come sooner, more cost less.
        record: whether the session is kept as one file afterwards.
    Raises: LiveTermsError.
    """

    max_duration_ms: int
    rate_hz: int = 25
    sound_rate_hz: int = 16_000
    frames_per_segment: int = 1
    record: bool = True

    def __post_init__(self) -> None:
        _check("max_duration_ms", self.max_duration_ms, range(1, MAX_DURATION_S * 1000 + 1), "at most 24 hours")
        _check("rate_hz", self.rate_hz, FRAME_RATES_HZ, "25 or 40 frames per second")
        _check("sound_rate_hz", self.sound_rate_hz, SOUND_RATES_HZ, "16000 or 48000")
        per_segment = range(1, MAX_FRAMES_PER_SEGMENT + 1)
        _check("frames_per_segment", self.frames_per_segment, per_segment, f"1 to {MAX_FRAMES_PER_SEGMENT}")
        if type(self.record) is not bool:
            raise LiveTermsError("record", "record must be true or false.")

    def to_bytes(self) -> bytes:
        """What the permit is bound to."""
        return canonical_json({"form": _FORM} | asdict(self))

    @classmethod
    def from_bytes(cls, unverified: bytes) -> LiveTerms:
        """Read what `to_bytes` wrote. Raises: LiveTermsError."""
        try:
            values = parse_canonical(unverified)
        except CanonicalError as exc:
            raise LiveTermsError("form", "These are not the terms of a live session.") from exc
        names = {each.name for each in fields(cls)}
        if not isinstance(values, dict) or set(values) != names | {"form"} or values["form"] != _FORM:
            raise LiveTermsError("form", "These are not the terms of a live session.")
        return cls(**{name: values[name] for name in names})


def set_controls(controls: Mapping[str, Any]) -> dict[str, Any]:
    """The controls that have a value from the start; the others (null) may be set later."""
    return {name: value for name, value in controls.items() if value is not None}


def pcm16(data: bytes) -> NDArray[np.float32]:
    """Samples in −1..1 of 16-bit little-endian PCM; a last odd byte counts for nothing."""
    return np.frombuffer(data[: len(data) & ~1], "<i2").astype(np.float32) / np.float32(32768)


def _check(field: str, value: object, allowed: range | tuple[int, ...], what: str) -> None:
    if type(value) is not int or value not in allowed:
        raise LiveTermsError(field, f"{field} must be {what}.")
