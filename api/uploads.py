"""Reads request bodies: counted while they stream in, held in memory only, unknown fields refused by name."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import Request
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import (
    BodyTooLargeError,
    ContentTypeError,
    InvalidFieldError,
    MissingFieldError,
    RequestError,
    UnknownFieldError,
)

_OVERHEAD_BYTES = 64 * 1024  # part headers and boundaries
_DRAIN_BYTES = 256 * 1024 * 1024
_DRAIN_S = 10.0


@dataclass(frozen=True)
class Form:
    """A multipart form, read and checked."""

    files: dict[str, bytes]
    texts: dict[str, str]

    def file(self, name: str) -> bytes:
        """A file that must be there. Raises MissingFieldError."""
        if name not in self.files:
            raise MissingFieldError(name)
        return self.files[name]

    def text(self, name: str) -> str:
        """A text that must be there and say something. Raises MissingFieldError."""
        if not self.texts.get(name, "").strip():
            raise MissingFieldError(name)
        return self.texts[name].strip()


async def read_form(
    request: Request, *, file_limits: Mapping[str, int], texts: Sequence[str], max_text_bytes: int
) -> Form:
    """Read a multipart form.

    Args:
        file_limits: which files the form may have, and how many bytes each.
        texts: which text fields it may have.
    Raises: ContentTypeError, BodyTooLargeError, UnknownFieldError, InvalidFieldError, RequestError.
    """
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        raise ContentTypeError("multipart/form-data")
    limit = sum(file_limits.values()) + len(texts) * max_text_bytes + _OVERHEAD_BYTES
    parser = _Parser(request, limit, file_limits=file_limits, texts=texts, max_text_bytes=max_text_bytes)
    try:
        items = (await parser.parse()).multi_items()
    except MultiPartException as exc:
        raise RequestError("The multipart body is malformed: send complete parts with a boundary.") from exc
    if not parser.is_complete:
        raise RequestError("The multipart body ends before its closing boundary: send it again, whole.")
    files: dict[str, bytes] = {}
    plain: dict[str, str] = {}
    for name, value in items:
        if name in files or name in plain:
            raise InvalidFieldError(f"The field “{name[:64]}” is there twice: send it once.")
        if isinstance(value, UploadFile) == (name not in file_limits):
            kind = "a file (with a filename)" if name in file_limits else "text (without a filename)"
            raise InvalidFieldError(f"Send the field “{name[:64]}” as {kind}.")
        if isinstance(value, UploadFile):
            files[name] = await value.read()
            await value.close()
        else:
            plain[name] = value
    return Form(files, plain)


async def read_body(request: Request, limit_bytes: int) -> bytes:
    """Read a raw body. Raises BodyTooLargeError."""
    return b"".join([chunk async for chunk in counted(request, limit_bytes)])


async def counted(request: Request, limit_bytes: int) -> AsyncGenerator[bytes]:
    """The body's chunks; stops with BodyTooLargeError as soon as there are too many bytes, or are said to be."""
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > limit_bytes:
        raise BodyTooLargeError("The request", limit_bytes)
    size = 0
    try:
        async for chunk in request.stream():
            size += len(chunk)
            if size > limit_bytes:
                raise BodyTooLargeError("The request", limit_bytes)
            yield chunk
    except ClientDisconnect as exc:
        raise RequestError("The connection ended before the whole request was here: send it again.") from exc


class _Parser(MultiPartParser):
    """Starlette's parser, stopping early: at a part that is too large or has a name that nobody asked for."""

    spool_max_size = 1 << 40  # never spill an upload to disk

    def __init__(
        self,
        request: Request,
        limit_bytes: int,
        *,
        file_limits: Mapping[str, int],
        texts: Sequence[str],
        max_text_bytes: int,
    ) -> None:
        num_parts = len(file_limits) + len(texts) + 4
        super().__init__(
            request.headers,
            counted(request, limit_bytes),
            max_files=num_parts,
            max_fields=num_parts,
            max_part_size=1 << 40,  # the limits below are ours
        )
        self._known = [*file_limits, *texts]
        self._limits = {**dict.fromkeys(texts, max_text_bytes), **file_limits}
        self._part_bytes = 0
        self.is_complete = False

    def on_end(self) -> None:
        self.is_complete = True

    def on_part_begin(self) -> None:
        super().on_part_begin()
        self._part_bytes = 0

    def on_headers_finished(self) -> None:
        super().on_headers_finished()
        if self._current_part.field_name not in self._limits:
            raise UnknownFieldError([self._current_part.field_name], self._known)

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        self._part_bytes += end - start
        limit = self._limits[self._current_part.field_name]
        if self._part_bytes > limit:
            raise BodyTooLargeError(f"The field “{self._current_part.field_name}”", limit)
        super().on_part_data(data, start, end)


class JsonTooLargeError(HTTPException):
    """A JSON or form body beyond the limit. An HTTPException: FastAPI lets no other error out of body reading."""

    code = BodyTooLargeError.code

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(413, str(BodyTooLargeError("The request", limit_bytes)))


class BodyGuard:
    """ASGI middleware with two duties around every request body.

    - A body that FastAPI reads on its own (JSON, forms of the token endpoint) is cut off at `max_json_bytes`.
    - When a request is answered before its body was read to the end (a token refused, an upload too large), the rest is
      read and thrown away first, within bounds: otherwise the connection is reset and the caller never sees the answer.
    """

    def __init__(self, app: ASGIApp, *, max_json_bytes: int) -> None:
        self._app = app
        self._max_json_bytes = max_json_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        kind = dict(scope["headers"]).get(b"content-type", b"").lower()
        limit = self._max_json_bytes if kind.startswith((b"application/json", b"application/x-www-form")) else None
        size, ended = 0, False

        async def counting_receive() -> Message:
            nonlocal size, ended
            message = await receive()
            ended = message["type"] != "http.request" or not message.get("more_body", False)
            size += len(message.get("body", b""))
            if limit is not None and size > limit:
                raise JsonTooLargeError(limit)
            return message

        async def draining_send(message: Message) -> None:
            if message["type"] == "http.response.start" and not ended:
                await drain()
            await send(message)

        async def drain() -> None:
            nonlocal ended
            drained, started_at_s = 0, time.monotonic()
            while not ended and drained < _DRAIN_BYTES and time.monotonic() - started_at_s < _DRAIN_S:
                message: dict[str, Any] = dict(await receive())
                ended = message["type"] != "http.request" or not message.get("more_body", False)
                drained += len(message.get("body", b""))

        await self._app(scope, counting_receive, draining_send)
