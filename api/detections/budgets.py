"""How often one caller may ask about pictures that look alike: a detector that can be queried can be learnt.

Whoever looks for a way around a detector asks again and again about one picture, a little changed each time. Such
queries are counted by perceptual hash; the same bytes again are not, because they get the same answer. In memory only,
for an hour: hashes of what was sent, never the thing itself.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from math import ceil
from typing import Final

from api.errors import ApiError, RateError

WINDOW_S: Final = 3600.0
DAY_S: Final = 86_400.0
ALIKE_BITS: Final = 8
"""Perceptual hashes (64 bits) that differ in no more than this belong to pictures that look alike."""
MAX_CALLERS: Final = 2_000
MAX_REMEMBERED: Final = 1_000


class NearDuplicateError(ApiError):
    """The caller has asked about nearly this picture too often."""

    code = "rate.near_duplicate"

    def __init__(self, retry_after_s: int) -> None:
        super().__init__(
            "Too many queries about pictures that look nearly like this one: the answers so far stand. "
            f"Another one is taken in {retry_after_s} seconds.",
            headers={"Retry-After": str(retry_after_s)},
        )


@dataclass(frozen=True)
class _Asked:
    at_s: float
    sha256: str
    likeness: tuple[int, ...]


class NearDuplicates:
    """Queries of the last hour, by caller.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._asked: OrderedDict[str, list[_Asked]] = OrderedDict()

    def admit(self, caller: str, sha256: str, likeness: tuple[int, ...], *, per_hour: int) -> None:
        """Count a query. Raises: NearDuplicateError: `per_hour` others looked nearly like it.

        Args:
            sha256: of the file.
            likeness: see `detector.perceptual`; a file without a picture is not counted.
        """
        if not likeness:
            return
        now = self._clock()
        with self._lock:
            asked = [each for each in self._asked.pop(caller, []) if now - each.at_s < WINDOW_S]
            self._asked[caller] = asked
            if len(self._asked) > MAX_CALLERS:
                self._asked.popitem(last=False)
            if any(each.sha256 == sha256 for each in asked):
                return
            alike = [each for each in asked if _distance(each.likeness, likeness) <= ALIKE_BITS]
            if len(alike) >= per_hour:
                raise NearDuplicateError(max(1, ceil(WINDOW_S - (now - alike[-per_hour].at_s))))
            asked.append(_Asked(now, sha256, likeness))
            del asked[:-MAX_REMEMBERED]


class DailyBudget:
    """How many queries each caller has had today (24 hours from their first).

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._used: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def take(self, caller: str, *, per_day: int) -> int:
        """Count one query; returns how many are left. Raises: RateError."""
        now = self._clock()
        with self._lock:
            since_s, used = self._used.pop(caller, (now, 0))
            if now - since_s >= DAY_S:
                since_s, used = now, 0
            is_allowed = used < per_day
            self._used[caller] = (since_s, used + is_allowed)
            if len(self._used) > MAX_CALLERS:
                self._used.popitem(last=False)
        if not is_allowed:
            raise RateError("detections for one day", ceil(DAY_S - (now - since_s)))
        return per_day - used - 1


def _distance(these: tuple[int, ...], those: tuple[int, ...]) -> int:
    """Bits by which the two nearest of two sets of hashes differ; at most as many as hashes have."""
    return min((a ^ b).bit_count() for a in these for b in those)
