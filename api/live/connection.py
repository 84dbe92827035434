"""One WebSocket, as a live session sees it, and how long it waits for somebody who may not listen."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable
from typing import Final, Protocol

from api.errors import ApiError

END_SEND_S: Final = 2.0


class LostError(Exception):
    """The connection is gone."""


class Connection(Protocol):
    """One WebSocket, as a session sees it.

    Attributes:
        is_greeted: whether it has been told what is coming.
    """

    is_greeted: bool

    async def send_bytes(self, data: bytes) -> None:
        """Raises: LostError."""

    async def send_text(self, text: str) -> None:
        """Raises: LostError."""

    async def receive(self) -> bytes | str:
        """The next message. Raises: LostError."""

    async def close(self, code: int, reason: str) -> None:
        """Say goodbye; does not raise."""


async def bounded(sending: Awaitable[None]) -> None:
    """Send a last word to somebody who may not listen."""
    try:
        async with asyncio.timeout(END_SEND_S):
            await sending
    except (LostError, TimeoutError):
        return


async def first_of(*events: asyncio.Event, timeout_s: float) -> None:
    """Wait until one of the events is set, or for so long."""
    tasks = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(tasks, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()


async def say(connection: Connection, kind: str, error: ApiError) -> None:
    """Tell a client that something of it does not count, and why."""
    try:
        await connection.send_text(json.dumps({"type": kind, "code": error.code, "detail": str(error)}))
    except LostError:
        return
