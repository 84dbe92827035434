"""The clock of the sound that comes in: what is too early, what is missing, how long nothing was said. No I/O.

All times are seconds of one monotonic clock, which the caller reads. While nobody is connected the clock stands still.
"""

from __future__ import annotations

from typing import Final

JITTER_S: Final = 0.2
"""Sound may come so late before silence takes its place."""
MAX_LEAD_S: Final = 1.0
"""Sound may come so early; more is dropped where a session is bound to time."""
_LEAST_FILL_S: Final = 0.04
_COMPLAIN_EVERY_S: Final = 1.0


class SoundClock:
    """Follows the sound of one session."""

    def __init__(self) -> None:
        self._started_at: float | None = None
        self._paused_at: float | None = None
        self._fed_s = 0.0
        self._heard_at: float | None = None
        self._loud_at: float | None = None
        self._made_at: float | None = None
        self._complained_at = float("-inf")
        self._is_in_gap = False
        self._is_over = False

    # -- what happens

    def go_on(self, now: float) -> None:
        """Somebody is connected (again)."""
        if self._paused_at is not None:
            away_s = now - self._paused_at
            for name in ("_started_at", "_heard_at", "_loud_at", "_made_at"):
                if (at := getattr(self, name)) is not None:
                    setattr(self, name, at + away_s)
        self._paused_at = None
        if self._heard_at is None:
            self._heard_at = self._loud_at = now

    def pause(self, now: float) -> None:
        """Nobody is connected."""
        self._paused_at = now

    def heard(self, now: float, *, is_loud: bool) -> None:
        """A chunk came in, whatever becomes of it."""
        self._heard_at = now
        if is_loud or self._loud_at is None:
            self._loud_at = now

    def fed(self, now: float, duration_s: float) -> None:
        """A chunk was handed on."""
        if self._started_at is None:
            self._started_at = now
        self._fed_s += duration_s
        self._is_in_gap = False

    def fill(self, duration_s: float) -> bool:
        """Silence took the place of sound; whether this is a new gap."""
        self._fed_s += duration_s
        was_in_gap, self._is_in_gap = self._is_in_gap, True
        return not was_in_gap

    def made(self, now: float) -> None:
        """Frames were made."""
        self._made_at = now

    def stop(self) -> None:
        """All is said: nothing is missing any more."""
        self._is_over = True

    # -- what follows from it

    def has_room(self, now: float, duration_s: float) -> bool:
        """Whether so much sound may come now."""
        return self._started_at is None or self._fed_s + duration_s - (now - self._started_at) <= MAX_LEAD_S

    def gap_s(self, now: float) -> float:
        """How much sound is missing by now, in steps that are worth it; 0 for none."""
        if self._started_at is None or self._is_over or self._paused_at is not None:
            return 0.0
        missing_s = now - self._started_at - JITTER_S - self._fed_s
        return missing_s if missing_s >= _LEAST_FILL_S else 0.0

    def idle_s(self, now: float) -> float:
        """How long no chunk came."""
        return 0.0 if self._heard_at is None or self._is_over or self._paused_at is not None else now - self._heard_at

    def silent_s(self) -> float:
        """How long nothing but silence came."""
        return (
            0.0 if self._heard_at is None or self._loud_at is None or self._is_over else self._heard_at - self._loud_at
        )

    def is_paused(self, for_s: float, now: float) -> bool:
        """Whether nobody has been connected for so long."""
        return self._paused_at is not None and now - self._paused_at >= for_s - 0.01

    def since_made_s(self, now: float) -> float:
        """How long no frame was made."""
        return 0.0 if self._made_at is None else now - self._made_at

    def may_complain(self, now: float) -> bool:
        """Whether it is time to tell the client again."""
        if now - self._complained_at < _COMPLAIN_EVERY_S:
            return False
        self._complained_at = now
        return True
