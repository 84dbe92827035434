"""How much of what was sent may be in memory at once. Whoever comes when it is full waits with the body unread."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from dataclasses import dataclass

from api.errors import BusyError

RETRY_AFTER_S = 10


@dataclass(eq=False)
class _Waiting:
    num_bytes: int
    loop: asyncio.AbstractEventLoop
    granted: asyncio.Future[None]


class Room:
    """Bytes that all uploads together may take; first come, first served.

    Args:
        max_bytes: a single upload that is larger gets all of it, once the others are gone.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._taken = 0
        self._waiting: deque[_Waiting] = deque()

    @property
    def taken_bytes(self) -> int:
        """Bytes in use now."""
        return self._taken

    def share_of(self, num_bytes: int) -> int:
        """What an upload of this size is counted as: to be given back later."""
        return min(num_bytes, self._max_bytes)

    def take_now(self, num_bytes: int) -> None:
        """Take room that is there. Raises: BusyError."""
        with self._lock:
            if self._waiting or self._taken + num_bytes > self._max_bytes:
                raise BusyError(RETRY_AFTER_S)
            self._taken += num_bytes

    async def take(self, num_bytes: int, patience_s: float) -> None:
        """Wait for room. Raises: BusyError: there was none in time."""
        loop = asyncio.get_running_loop()
        with self._lock:
            if not self._waiting and self._taken + num_bytes <= self._max_bytes:
                self._taken += num_bytes
                return
            waiting = _Waiting(num_bytes, loop, loop.create_future())
            self._waiting.append(waiting)
        try:
            await asyncio.wait_for(asyncio.shield(waiting.granted), patience_s)
        except (TimeoutError, asyncio.CancelledError) as exc:
            with self._lock:
                is_granted = waiting not in self._waiting
                if not is_granted:
                    self._waiting.remove(waiting)
            if is_granted:
                self.give_back(num_bytes)
            if isinstance(exc, asyncio.CancelledError):
                raise
            raise BusyError(RETRY_AFTER_S) from exc

    def give_back(self, num_bytes: int) -> None:
        """Give room back, from any thread."""
        with self._lock:
            self._taken -= num_bytes
            while self._waiting and self._taken + self._waiting[0].num_bytes <= self._max_bytes:
                waiting = self._waiting.popleft()
                self._taken += waiting.num_bytes
                waiting.loop.call_soon_threadsafe(_grant, waiting.granted)


def _grant(granted: asyncio.Future[None]) -> None:
    if not granted.done():
        granted.set_result(None)
