"""A client of live sessions: opens one, speaks, and takes the stream, on two threads if need be.

with placet_live(client, subject_id=…, portrait_sha256=…, purpose=…, controls={"gaze": None}) as live:
    live.say(pcm)                       # 16-bit mono, up to a second a piece
    live.change({"gaze": [10, 0]})
    live.finish()
    for segment in live.segments():     # the init segment is live.init_segment
        player.append(segment)
    live.ended                          # {"reason": "complete", "log_index": …}
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Final, Self

from websockets.exceptions import ConnectionClosed, InvalidHandshake
from websockets.sync.client import ClientConnection, connect

from api.client import ClientError, PlacetClient, ProblemError, UnreachableError
from policy.identity import SCOPE_LIVE_CREATE

_MAX_MESSAGE_BYTES: Final = 8 * 2**20


class LiveEndedError(ClientError):
    """The connection ended without the end of the stream: resume it within the grace time, or open another session."""

    code = "client.live_ended"


class LiveConnection:
    """One connection to one session.

    Args:
        session: what the service answered when the session was opened.
        resume: what `opened` of an earlier connection said, to come back to its session.
        after: the last segment that came before that connection was lost.
        max_message_bytes: larger messages of the service are refused.
    Attributes:
        opened: the service's greeting: media type, manifest id, log index.
        init_segment: to be played first; empty after a resumption.
        notes: what the service had to say besides: refused chunks and controls.
        ended: how it ended; None until then.
    """

    def __init__(self, session: Mapping[str, Any], *, resume: Mapping[str, Any] | None = None, after: int = 0) -> None:
        self._url, self._subprotocol = str(session["url"]), str(session["subprotocol"])
        self._open = ExitStack()
        try:
            self.socket: ClientConnection = self._open.enter_context(
                connect(
                    self._url,
                    subprotocols=[self._subprotocol],  # type: ignore[list-item]
                    compression=None,
                    max_size=_MAX_MESSAGE_BYTES,
                    open_timeout=30,
                    ping_interval=None,  # the service asks; it answers late while it takes no more sound
                )
            )
        except (OSError, InvalidHandshake, TimeoutError) as exc:
            raise UnreachableError(f"There is no live connection to {self._url}: is the service running?") from exc
        first = (
            {"type": "open", "ticket": session["ticket"]}
            if resume is None
            else {"type": "resume", "token": resume["resume_token"], "after": after}
        )
        self.notes: list[dict[str, Any]] = []
        self.ended: dict[str, Any] | None = None
        self.num_segments = after
        self._send(json.dumps(first))
        self.opened = self._greeting()
        self.init_segment = b""
        if self.opened["resumed_after"] == 0:
            received = self._receive(60.0)
            assert isinstance(received, bytes)
            self.init_segment = received

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._open.close()

    def say(self, pcm: bytes) -> None:
        """Send sound: 16-bit little-endian mono PCM at the session's rate, up to a second. Raises: LiveEndedError."""
        self._send(pcm)

    def change(self, controls: Mapping[str, Any]) -> None:
        """Set controls from now on. Raises: LiveEndedError."""
        self._send(json.dumps({"type": "controls", "controls": dict(controls)}))

    def finish(self) -> None:
        """Say that all is said. Raises: LiveEndedError."""
        self._send(json.dumps({"type": "finish"}))

    def segments(self, timeout_s: float = 60.0) -> Iterator[bytes]:
        """The segments as they come, the signed end last.

        Raises: LiveEndedError: the connection is lost. UnreachableError: nothing came for `timeout_s`.
        """
        while self.ended is None:
            message = self._receive(timeout_s)
            if isinstance(message, bytes):
                self.num_segments += 1
                yield message
            elif message.get("type") == "ended":
                self.ended = message
            else:
                self.notes.append(message)

    def _greeting(self) -> dict[str, Any]:
        while True:
            message = self._receive(120.0)
            if isinstance(message, dict) and message.get("type") == "opened":
                return message
            if isinstance(message, dict) and message.get("type") == "ended":
                self.ended = message
                raise ProblemError(403 if message["reason"] == "revoked" else 503, message)

    def _receive(self, timeout_s: float) -> bytes | dict[str, Any]:
        try:
            message = self.socket.recv(timeout_s)
        except TimeoutError as exc:
            raise UnreachableError(f"Nothing came for {timeout_s:.0f} seconds.") from exc
        except ConnectionClosed as exc:
            raise LiveEndedError(_why(exc)) from exc
        return message if isinstance(message, bytes) else dict(json.loads(message))

    def _send(self, message: bytes | str) -> None:
        try:
            self.socket.send(message)
        except ConnectionClosed as exc:
            raise LiveEndedError(_why(exc)) from exc


def open_session(placet: PlacetClient, **asked: Any) -> dict[str, Any]:
    """Ask for a session; fields as in `api.live.schemas.LiveSessionIn`. Raises: ProblemError with `reasons`."""
    return placet.call_json("POST", "/v1/live/sessions", SCOPE_LIVE_CREATE, json=asked)


def placet_live(placet: PlacetClient, **asked: Any) -> LiveConnection:
    """Open a session and connect to it. Raises: ProblemError with `reasons` if the gate refuses."""
    return LiveConnection(open_session(placet, **asked))


def _why(closed: ConnectionClosed) -> str:
    frame = closed.rcvd
    return f"The connection ended ({frame.reason or frame.code})." if frame is not None else "The connection was lost."
