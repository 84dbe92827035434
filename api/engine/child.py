"""The other side of `api.engine.process`: the loop that an engine process runs.

A thread reads the socket all the time. When the gateway dies, however it dies, that thread sees the end of the stream
and ends the process at once, so that no orphan goes on working without a gateway that could log what it does.
"""

from __future__ import annotations

import logging
import os
import queue
import socket
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Any

from api.engine.wire import ConnectionLostError, Message, receive, send
from api.errors import RemoteError


class Progress:
    """What a handler and the gateway may say to each other while it works: how far it is, questions, parts.

    Attributes:
        fed: what the gateway hands to the job that is under way, in order.
    """

    def __init__(
        self, connection: socket.socket, inbox: queue.SimpleQueue[Message], fed: queue.SimpleQueue[Message]
    ) -> None:
        self._connection, self._inbox, self.fed = connection, inbox, fed

    def __call__(self, fraction: float) -> None:
        """Tell the fraction done, 0..1."""
        send(self._connection, {"type": "progress", "fraction": fraction})

    def tell(self, header: Mapping[str, Any], attachments: Mapping[str, bytes] | None = None) -> None:
        """Hand over something before the job is done."""
        send(self._connection, {**header, "type": "event"}, attachments)

    def ask(self, header: dict[str, str], attachments: dict[str, bytes]) -> Message:
        """Ask the gateway something, and wait. Raises: RemoteError: it refuses."""
        send(self._connection, {**header, "type": "question"}, attachments)
        answer = self._inbox.get()
        if answer.header.get("type") == "error":
            raise RemoteError(str(answer.header["code"]), str(answer.header["sentence"]))
        return answer


Handler = Callable[[Message, Progress], Message]

logger = logging.getLogger("placet.engine")


def connect(argv: list[str]) -> socket.socket:
    """The socket whose number is the only argument."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    if len(argv) != 2 or not argv[1].isdigit():
        sys.exit("This module is started by the service, not by hand.")
    return socket.socket(fileno=int(argv[1]))


def serve(connection: socket.socket, prepare: Callable[[Message], Handler]) -> None:
    """Greet, then answer jobs one by one until the gateway is gone.

    Args:
        prepare: gets the hello message, loads what is needed and returns the handler of jobs.
    """
    inbox: queue.SimpleQueue[Message] = queue.SimpleQueue()
    fed: queue.SimpleQueue[Message] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(connection, inbox, fed), daemon=True).start()
    try:
        handler = prepare(inbox.get())
    except Exception as error:
        send(connection, describe(error))
        return
    send(connection, {"type": "ready"})
    progress = Progress(connection, inbox, fed)
    while True:
        message = inbox.get()
        try:
            while not fed.empty():  # what came too late for the job before
                fed.get_nowait()
            result = handler(message, progress)
            send(connection, {**result.header, "type": "result"}, result.attachments)
        except ConnectionLostError:
            return
        except Exception as error:
            send(connection, describe(error))


def describe(error: Exception) -> dict[str, str]:
    """An error as a message: our own with code and sentence, a foreign one logged here and sent without internals."""
    code = getattr(error, "code", None)
    if isinstance(code, str):
        return {"type": "error", "code": code, "sentence": str(error)}
    logger.error("job failed", exc_info=error)
    return {"type": "error", "code": "engine.failed", "sentence": "The engine failed on this input: tell the operator."}


def _read(connection: socket.socket, inbox: queue.SimpleQueue[Message], fed: queue.SimpleQueue[Message]) -> None:
    while True:
        try:
            message = receive(connection)
        except Exception:
            os._exit(0)
        (fed if message.header.get("type") == "feed" else inbox).put(message)
