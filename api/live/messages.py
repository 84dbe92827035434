"""What client and service say to each other over the WebSocket of a live session. Pure functions of messages.

Binary messages are media: PCM chunks one way; the init segment and then segments the other way, which joined are the
stream. Text messages are JSON objects with a `type`; docs/live.md lists them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

from api.live.errors import ChunkError, MessageError, OpeningError

SUBPROTOCOL: Final = "placet.live.1"
MAX_TEXT_CHARS: Final = 16_384
MAX_CHUNK_S: Final = 1.0
MAX_MESSAGE_BYTES: Final = 1024 * 1024
"""What a server takes from a socket at all; larger ones close it (RFC 6455 §7.4.1, status 1009)."""
_BYTES_PER_SAMPLE: Final = 2
_LOUD: Final = 33  # of 32,768


@dataclass(frozen=True)
class Opening:
    """The first message of a connection.

    Attributes:
        token: the ticket of a new session, or what lets the client come back to its session.
        after: the last segment that the client has; None for a new session.
    """

    token: str
    after: int | None


@dataclass(frozen=True)
class ControlChange:
    """Controls that are to hold from now on."""

    controls: dict[str, Any]


@dataclass(frozen=True)
class Finish:
    """All is said."""


def opening_of(text: str | None) -> Opening:
    """The first message. Raises: OpeningError."""
    try:
        message = _object(text or "")
    except MessageError as exc:
        raise OpeningError('The first message is {"type": "open", "ticket": …}.') from exc
    match message:
        case {"type": "open", "ticket": str(ticket), **rest} if not rest:
            return Opening(ticket[:200], None)
        case {"type": "resume", "token": str(token), "after": int(after), **rest} if not rest and _is_count(after):
            return Opening(token[:200], after)
    raise OpeningError('The first message is {"type": "open", "ticket": …}, or of type resume with token and after.')


def message_of(text: str) -> ControlChange | Finish:
    """A later text message. Raises: MessageError."""
    match _object(text):
        case {"type": "controls", "controls": dict(controls), **rest} if not rest:
            return ControlChange(controls)
        case {"type": "finish", **rest} if not rest:
            return Finish()
    raise MessageError("Send text messages of the types controls and finish, and sound as binary messages.")


def check_chunk(data: bytes, rate_hz: int) -> float:
    """Duration of a sound chunk in seconds. Raises: ChunkError."""
    most = int(MAX_CHUNK_S * rate_hz) * _BYTES_PER_SAMPLE
    if not data or len(data) % _BYTES_PER_SAMPLE or len(data) > most:
        raise ChunkError(
            f"A sound chunk holds whole 16-bit samples, one second at most ({most} bytes); this one has {len(data)} "
            "bytes."
        )
    return len(data) / _BYTES_PER_SAMPLE / rate_hz


def is_loud(data: bytes) -> bool:
    """Whether a sound chunk is anything but silence: above −60 dB of full scale."""
    samples = memoryview(data).cast("h")
    return max(samples) > _LOUD or min(samples) < -_LOUD


def _object(text: str) -> dict[str, Any]:
    if len(text) > MAX_TEXT_CHARS:
        raise MessageError(f"A text message has at most {MAX_TEXT_CHARS} characters.")
    try:
        message = json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise MessageError("A text message is a JSON object.") from exc
    if not isinstance(message, dict):
        raise MessageError("A text message is a JSON object.")
    return message


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value < 2**31
