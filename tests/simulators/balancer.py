"""A load balancer at its plainest: every new connection goes to the next server."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager


@contextmanager
def balancing(port: int, targets: Sequence[int]) -> Iterator[list[int]]:
    """Pass connections to `port` on to the ports `targets` in turn; yields the list of those that were chosen."""
    chosen: list[int] = []
    turns = itertools.cycle(targets)
    is_up, loops = threading.Event(), []

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        target = next(turns)
        chosen.append(target)
        there_reader, there_writer = await asyncio.open_connection("127.0.0.1", target)
        await asyncio.gather(_pump(reader, there_writer), _pump(there_reader, writer))

    async def run() -> None:
        end = asyncio.Event()
        async with await asyncio.start_server(pass_on, "127.0.0.1", port):
            loops.append((asyncio.get_running_loop(), end))
            is_up.set()
            await end.wait()

    thread = threading.Thread(target=asyncio.run, args=(run(),), daemon=True)
    thread.start()
    is_up.wait(10)
    try:
        yield chosen
    finally:
        loop, end = loops[0]
        loop.call_soon_threadsafe(end.set)
        thread.join(10)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except (ConnectionError, asyncio.CancelledError):
        pass
    finally:
        writer.close()
