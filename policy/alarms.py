"""What an auditor must be told without asking: time that does not pass, witnesses that contradict, two histories.

Pure functions of what was seen. An alarm has a stable code, a sentence for people, and where it has one, its entry.

    clock.back               an entry is older than one before it: the clock was set back
    log.gap                  long nothing between two entries: the service stood still, or the clock leapt
    clock.ahead              the newest entry lies in the future, by our clock or by a witness's
    log.split_view           somebody was shown another history of this log
    log.unreadable           the log cannot be read
    witness.contradiction    a witness says that this log has another history than the one it has seen
    witness.lag              what was logged is long not cosigned
    witness.silent           a witness does not cosign
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal, Protocol

CLOCK_TOLERANCE_MS: Final = 1_000
"""Clocks are slewed by their daemons; less than this is no jump."""
GAP_MS: Final = 24 * 3600 * 1000
AHEAD_TOLERANCE_S: Final = 60.0

Severity = Literal["alarm", "warning"]


@dataclass(frozen=True)
class Alarm:
    """One thing to look into. `at_s` is when it happened, Unix seconds, where that is known."""

    code: str
    severity: Severity
    sentence: str
    index: int | None = None
    at_s: float | None = None

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return asdict(self)


@dataclass(frozen=True)
class ClockJump:
    """How the time of an entry fails to follow: `clock.back` or `log.gap`, and by how much."""

    code: str
    by_ms: int


def clock_event(previous_ms: int, latest_ms: int, at_ms: int) -> ClockJump | None:
    """Judge the time of an entry.

    Args:
        previous_ms: time of the entry before it.
        latest_ms: latest time of all entries before it.
    Returns: None if time passed as it should.
    """
    if latest_ms - at_ms > CLOCK_TOLERANCE_MS and previous_ms - at_ms > CLOCK_TOLERANCE_MS:
        return ClockJump("clock.back", previous_ms - at_ms)
    if at_ms - previous_ms > GAP_MS:
        return ClockJump("log.gap", at_ms - previous_ms)
    return None


def clock_alarm(code: str, by_s: float, index: int, at_s: float) -> Alarm:
    """The alarm for an entry whose time does not follow."""
    if code == "clock.back":
        sentence = (
            f"The clock was set back by {_duration(by_s)} before entry {index}: set it right, and find out who did."
        )
        return Alarm(code, "alarm", sentence, index, at_s)
    sentence = (
        f"Nothing was logged for {_duration(by_s)} before entry {index}: the service stood still, or the clock leapt."
    )
    return Alarm(code, "warning", sentence, index, at_s)


def ahead_alarm(newest_s: float, now_s: float, index: int, *, clock: str = "this machine") -> Alarm | None:
    """The newest entry against another clock."""
    if newest_s - now_s <= AHEAD_TOLERANCE_S:
        return None
    sentence = f"Entry {index} is dated {_duration(newest_s - now_s)} after the clock of {clock}: compare the clocks."
    return Alarm("clock.ahead", "alarm", sentence, index, newest_s)


class WitnessSeen(Protocol):
    """What is known of a witness; `problem` is empty while it cosigns."""

    @property
    def name(self) -> str: ...
    @property
    def problem(self) -> str: ...
    @property
    def sentence(self) -> str: ...
    @property
    def contradicts(self) -> bool: ...


def witness_alarms(
    witnesses: Iterable[WitnessSeen], *, lag_entries: int, lag_s: float, max_lag_s: float
) -> list[Alarm]:
    """Witnesses that contradict or are silent, and a cosigned checkpoint that lags behind."""
    found = []
    for witness in witnesses:
        if witness.contradicts:
            sentence = f"Witness {witness.name} has seen another history of this log. {witness.sentence}"
            found.append(Alarm("witness.contradiction", "alarm", sentence))
        elif witness.problem:
            found.append(
                Alarm("witness.silent", "warning", f"Witness {witness.name} does not cosign. {witness.sentence}")
            )
    if lag_s > max_lag_s:
        sentence = f"{lag_entries} entries are not cosigned, the oldest for {_duration(lag_s)}: see to the witnesses."
        found.append(Alarm("witness.lag", "alarm", sentence))
    return found


def _duration(seconds: float) -> str:
    for size, name in ((86_400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {name}"
    return f"{seconds:.0f} seconds"
