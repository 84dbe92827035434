"""A long-lived engine process, seen from the gateway: started when needed, one job at a time, restarted if it dies."""

from __future__ import annotations

import contextlib
import logging
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from api.engine.wire import ConnectionLostError, Message, ProtocolError, receive, send
from api.errors import EngineError, RemoteError

logger = logging.getLogger("placet.engine")


class EngineTimeoutError(EngineError):
    """The process did not answer in time and was stopped."""

    code = "engine.timeout"


class EngineDiedError(EngineError):
    """The process ended in the middle of a job."""

    code = "engine.died"


class EngineProcess:
    """Handle of `python -m <module> <fd>`.

    Args:
        module: what to run; it speaks `api.engine.wire` on the socket whose number it is given.
        hello: builds the first message, with what the process needs to know.
        version: what `hello` depends on, such as the kids of keys; where it has changed, the process is started anew
            before its next job.
    """

    def __init__(self, module: str, hello: Callable[[], Message], version: Callable[[], object] = lambda: None) -> None:
        self._module = module
        self._hello = hello
        self._version = version
        self._started_with: object = None
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: socket.socket | None = None
        self._job = threading.Lock()
        self._sending = threading.Lock()
        self._closed = False
        self._ready = False
        self.num_starts = 0

    @property
    def is_running(self) -> bool:
        """Whether the process is there now."""
        process = self._process
        return process is not None and process.poll() is None

    @property
    def is_ready(self) -> bool:
        """Whether it runs and has finished loading."""
        return self._ready and self.is_running

    @property
    def pid(self) -> int | None:
        """Process id, where it runs."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    def start(self, timeout_s: float = 120.0) -> None:
        """Start the process, if it does not run, and wait until it is ready."""
        with self._job:
            self._ensure(timeout_s)

    def call(
        self,
        header: Mapping[str, Any] | Callable[[], Mapping[str, Any]],
        attachments: Mapping[str, bytes] | None = None,
        *,
        wall_s: float,
        on_progress: Callable[[float], None] | None = None,
        on_question: Callable[[Message], Message] | None = None,
        on_event: Callable[[Message], object] | None = None,
    ) -> Message:
        """Have one job done.

        Args:
            header: the job; a function is called when the process is ready and nothing else is ahead, for what must not
                grow old while it waits, such as a permit.
            wall_s: the process is stopped if it says nothing at all for this long.
            on_progress: told a fraction 0..1 now and then.
            on_question: answers what the process asks while it works; what it raises goes back as the answer.
            on_event: told what the process has ready before the job is done, such as the parts of a stream.
        Raises:
            RemoteError: the job failed with one of our errors.
            EngineTimeoutError, EngineDiedError: the process is gone; the next call starts another.
        """
        with self._job:
            connection = self._ensure(120.0)
            job = header() if callable(header) else header
            connection.settimeout(wall_s)
            try:
                with self._sending:
                    send(connection, job, attachments)
                while True:
                    message = receive(connection)
                    match message.header.get("type"):
                        case "progress":
                            if on_progress is not None:
                                on_progress(float(message.header["fraction"]))
                        case "question" if on_question is not None:
                            self._answer(connection, message, on_question)
                        case "event" if on_event is not None:
                            on_event(message)
                        case "result":
                            return message
                        case "error":
                            raise RemoteError(str(message.header["code"]), str(message.header["sentence"]))
                        case _:
                            raise ProtocolError("The engine process sent an unknown message.")
            except TimeoutError as exc:
                self._stop()
                raise EngineTimeoutError("The job took too long and was stopped: try a shorter input.") from exc
            except ConnectionLostError as exc:
                self._stop()
                raise EngineDiedError("The engine stopped in the middle of the job: try again.") from exc
            except ProtocolError:
                self._stop()
                raise

    def feed(self, header: Mapping[str, Any], attachments: Mapping[str, bytes] | None = None) -> None:
        """Hand more to the job that is under way, from any thread. Raises: EngineDiedError: there is no process."""
        connection = self._connection
        if connection is None:
            raise EngineDiedError("The engine stopped in the middle of the job: try again.")
        try:
            with self._sending:
                send(connection, {**header, "type": "feed"}, attachments)
        except (ConnectionLostError, TimeoutError) as exc:
            raise EngineDiedError("The engine stopped in the middle of the job: try again.") from exc

    def _answer(self, connection: socket.socket, question: Message, on_question: Callable[[Message], Message]) -> None:
        try:
            answer = on_question(question)
        except Exception as error:
            code = getattr(error, "code", None)
            if not isinstance(code, str):
                logger.error("a question of an engine process could not be answered", exc_info=error)
            refusal = (code, str(error)) if isinstance(code, str) else ("engine.failed", "The gateway cannot answer.")
            with self._sending:
                send(connection, {"type": "error", "code": refusal[0], "sentence": refusal[1]})
            return
        with self._sending:
            send(connection, {**answer.header, "type": "answer"}, answer.attachments)

    def close(self) -> None:
        """Stop the process for good."""
        self._closed = True
        self._stop()

    def _ensure(self, timeout_s: float) -> socket.socket:
        if self._closed:
            raise EngineError("The service is shutting down: try again later.")
        version = self._version()
        if self._connection is not None and self.is_running and version == self._started_with:
            return self._connection
        self._stop()
        self._started_with = version
        ours, theirs = socket.socketpair()
        with theirs:
            theirs.set_inheritable(True)
            self._process = subprocess.Popen(
                [sys.executable, "-m", self._module, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
            )
        self._connection = ours
        self.num_starts += 1
        ours.settimeout(timeout_s)
        started_at = time.monotonic()
        hello = self._hello()
        try:
            send(ours, hello.header, hello.attachments)
            answer = receive(ours)
        except (TimeoutError, ConnectionLostError) as exc:
            self._stop()
            raise EngineError("The engine process did not start: see the service's log.") from exc
        if answer.header.get("type") != "ready":
            self._stop()
            raise EngineError(f"The engine process did not start: {answer.header.get('sentence', 'no reason given')}")
        self._ready = True
        logger.info("%s ready after %.1f s", self._module, time.monotonic() - started_at)
        return ours

    def _stop(self) -> None:
        self._ready = False
        # taken first: whoever waits for an answer in another thread wakes up and stops the process too
        connection, self._connection = self._connection, None
        process, self._process = self._process, None
        if connection is not None:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()
        if process is not None:
            if process.poll() is None:
                process.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
