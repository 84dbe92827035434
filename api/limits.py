"""How often somebody may ask, and how much of the log a stranger may fill. In memory, bounded, one process.

Limits are there so that one caller cannot take the service from the others, or make the log grow without end. They are
no access control: a restart forgets them.
"""

from __future__ import annotations

import ipaddress
import logging
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import ceil
from typing import Any, Final

from api.errors import RateError

logger = logging.getLogger("placet.limits")

MAX_KEYS: Final = 20_000
MAX_ADDRESSES: Final = 2_000
WINDOW_S: Final = 60.0
OTHERS: Final = ""


def network_of(address: str) -> str:
    """What counts as one caller: an IPv4 address, or the /64 of an IPv6 address (RFC 6177). Empty for anything else."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return OTHERS
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.ip_network((parsed, 64), strict=False))
    return str(parsed)


class RateLimiter:
    """Token buckets: each caller may ask `per_minute` times a minute, and as many at once.

    Args:
        per_minute: by kind of request; a kind that is not named is not limited.
        clock: monotonic seconds.
    """

    def __init__(self, per_minute: Mapping[str, int], clock: Callable[[], float] = time.monotonic) -> None:
        self._per_minute = dict(per_minute)
        self._clock = clock
        self._lock = threading.Lock()
        self._buckets: OrderedDict[tuple[str, str], tuple[float, float]] = OrderedDict()

    def take(self, kind: str, caller: str) -> None:
        """Count one request of `caller`. Raises RateError with the seconds to wait."""
        per_minute = self._per_minute.get(kind)
        if per_minute is None:
            return
        rate_hz, key = per_minute / 60.0, (kind, caller)
        with self._lock:
            now = self._clock()
            tokens, seen_at_s = self._buckets.pop(key, (float(per_minute), now))
            tokens = min(float(per_minute), tokens + (now - seen_at_s) * rate_hz)
            is_allowed = tokens >= 1.0
            self._buckets[key] = (tokens - 1.0 if is_allowed else tokens, now)
            if len(self._buckets) > MAX_KEYS:
                self._buckets.popitem(last=False)  # whoever asked least recently: their bucket is nearly full anyway
        if not is_allowed:
            raise RateError(kind.partition(".")[0], ceil((1.0 - tokens) / rate_hz))


@dataclass
class _Window:
    started_at_s: float
    num: int = 0
    unlogged: Counter[tuple[str, str]] = field(default_factory=Counter)


class RejectionLog:
    """Puts refusals into the audit log: the first few of each address one by one, the rest of a minute counted.

    Args:
        kind: of the entries; those that only count have `.counted` behind it.
        record: appends one entry and answers its index.
        num_single: entries of their own that one address gets per minute.
        num_single_total: the same for all addresses together, so that many addresses are no way around it.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        record: Callable[[str, dict[str, Any]], int],
        *,
        kind: str,
        num_single: int,
        num_single_total: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._record = record
        self._kind = kind
        self._num_single = num_single
        self._num_single_total = num_single_total
        self._clock = clock
        self._lock = threading.Lock()
        self._windows: dict[str, _Window] = {}
        self._total = _Window(clock())
        self._timer: threading.Timer | None = None

    def note(self, code: str, *, client: str | None, endpoint: str, address: str) -> int | None:
        """Log or count one rejection. Returns the index of its entry; None if it was only counted so far.

        Args:
            client, address: pseudonyms; the address may be empty.
        """
        self.flush(only_over=True)
        with self._lock:
            now = self._clock()
            if now - self._total.started_at_s >= WINDOW_S:
                self._total = _Window(now)
            if address not in self._windows and len(self._windows) >= MAX_ADDRESSES:
                address = OTHERS
            window = self._windows.setdefault(address, _Window(now))
            window.num += 1
            self._total.num += 1
            is_single = window.num <= self._num_single and self._total.num <= self._num_single_total
            if not is_single:
                window.unlogged[(code, endpoint)] += 1
                self._remember_to_flush()
        if not is_single:
            return None
        body = {"code": code, "client": client, "endpoint": endpoint, "address": address or None}
        return self._record(self._kind, body)

    def flush(self, *, only_over: bool = False) -> None:
        """Log what was only counted, one entry per address. `only_over`: minutes that are over."""
        with self._lock:
            now = self._clock()
            done = {
                address: window
                for address, window in self._windows.items()
                if not only_over or now - window.started_at_s >= WINDOW_S
            }
            for address in done:
                del self._windows[address]
        for address, window in done.items():
            if window.unlogged:
                body = {
                    "address": address or None,
                    "num": window.unlogged.total(),
                    "window_s": round(WINDOW_S),
                    "codes": [
                        {"code": code, "endpoint": endpoint, "num": num}
                        for (code, endpoint), num in sorted(window.unlogged.items())
                    ],
                }
                self._record(f"{self._kind}.counted", body)

    def close(self) -> None:
        """Log what was only counted."""
        if self._timer is not None:
            self._timer.cancel()
        self.flush()

    def _remember_to_flush(self) -> None:
        """Counted rejections reach the log within two minutes, also when nobody asks any more."""
        if self._timer is None or not self._timer.is_alive():
            self._timer = threading.Timer(2 * WINDOW_S, self._flush_later)
            self._timer.daemon = True
            self._timer.start()

    def _flush_later(self) -> None:
        try:
            self.flush()
        except Exception:
            logger.exception("counted rejections could not be logged")
