"""What the gateway and its engine processes say to each other over a socket pair.

A message is a JSON header with binary attachments; nothing on this wire can make the reader run code (no pickle).

    length of header (4 bytes, big endian) | header: JSON {"attachments": [[name, length], ...], ...} | attachments ...
"""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from api.errors import EngineError

MAX_HEADER_BYTES = 8 * 1024 * 1024
MAX_ATTACHMENTS_BYTES = 1024 * 1024 * 1024


@dataclass(frozen=True)
class Message:
    """A header (JSON object) and named byte strings."""

    header: dict[str, Any]
    attachments: dict[str, bytes] = field(default_factory=dict)


class ConnectionLostError(EngineError):
    """The other end is gone."""

    code = "engine.connection_lost"


class ProtocolError(EngineError):
    """The other end sent something that is not a message."""

    code = "engine.protocol"


def send(connection: socket.socket, header: Mapping[str, Any], attachments: Mapping[str, bytes] | None = None) -> None:
    """Send one message. Raises ConnectionLostError."""
    attachments = attachments or {}
    encoded = json.dumps({**header, "attachments": [[name, len(data)] for name, data in attachments.items()]}).encode()
    try:
        connection.sendall(struct.pack(">I", len(encoded)) + encoded)
        for data in attachments.values():
            connection.sendall(data)
    except OSError as exc:
        raise ConnectionLostError("The other process is gone.") from exc


def receive(connection: socket.socket) -> Message:
    """Wait for one message. Raises ConnectionLostError, ProtocolError, or TimeoutError by the socket's timeout."""
    (length,) = struct.unpack(">I", _exactly(connection, 4))
    if length > MAX_HEADER_BYTES:
        raise ProtocolError("The other process sent an oversized header.")
    try:
        header = json.loads(_exactly(connection, length))
        sizes = [(str(name), int(size)) for name, size in header.pop("attachments")]
    except (ValueError, TypeError, AttributeError, KeyError) as exc:
        raise ProtocolError("The other process sent an unreadable header.") from exc
    if sum(size for _, size in sizes) > MAX_ATTACHMENTS_BYTES or any(size < 0 for _, size in sizes):
        raise ProtocolError("The other process sent oversized attachments.")
    return Message(header, {name: _exactly(connection, size) for name, size in sizes})


def _exactly(connection: socket.socket, size: int) -> bytes:
    buffer = bytearray(size)
    view, filled = memoryview(buffer), 0
    while filled < size:
        try:
            count = connection.recv_into(view[filled:])
        except TimeoutError:
            raise
        except OSError as exc:
            raise ConnectionLostError("The other process is gone.") from exc
        if count == 0:
            raise ConnectionLostError("The other process is gone.")
        filled += count
    return bytes(buffer)
