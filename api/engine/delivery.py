"""Hands out a finished video chunk by chunk, and stops within one chunk when the consent ends.

    released? ──403──▶            chunk ▶ consent live? ▶ send ▶ consent live? ▶ send … ▶ end
                                                    └─no─▶ log `delivery.stopped`, close the connection

The check before each chunk reads the database, so a revocation that has been answered is seen by the next check: at
most the one chunk that was checked before still leaves. What the kernel and the transport have taken already cannot be
called back; `placet serve` keeps the send buffer small (`send_buffer_bytes`) so that this is little. A response that is
stopped ends short of its Content-Length, so that no client takes it for the whole file.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastapi.concurrency import run_in_threadpool
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from api.errors import ApiError, BlobDamagedError

if TYPE_CHECKING:
    from api.service import Service
    from api.storage.blobs import BlobStore
    from api.storage.models import Render

CHUNK_BYTES = 32 * 1024
_WINDOW_BYTES = 32 * CHUNK_BYTES
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")

logger = logging.getLogger("placet.delivery")


class RangeError(ApiError):
    """The range that was asked for lies outside of the file."""

    code = "request.range"


@dataclass(frozen=True)
class Span:
    """Bytes `first` to `last`, both included, of a file of `size` bytes."""

    first: int
    last: int
    size: int

    @property
    def num_bytes(self) -> int:
        return self.last - self.first + 1

    @property
    def is_whole(self) -> bool:
        return self.num_bytes == self.size


def span_of(header: str | None, size: int) -> Span:
    """What a Range header asks for (RFC 9110 §14.2). Anything but one byte range is ignored, as the RFC allows.

    Raises: RangeError: the range begins beyond the end (416).
    """
    match = _RANGE.fullmatch(header.strip()) if header else None
    whole = Span(0, size - 1, size)
    if match is None or match[1] == match[2] == "":
        return whole
    if match[1] == "":
        first, last = max(0, size - int(match[2])), size - 1
    else:
        first, last = int(match[1]), min(size - 1, int(match[2])) if match[2] else size - 1
        if match[2] and int(match[2]) < int(match[1]):
            return whole
    if first >= size or last < first:
        raise RangeError("The range lies outside of the file.", headers={"Content-Range": f"bytes */{size}"})
    return Span(first, last, size)


class ConsentedVideo(Response):
    """The response: a file, given out for as long as the person shown agrees.

    Args:
        render: delivered, and released to whoever asks; see `RenderEngine.released`.
        byte_range: the Range header, if there is one.
    """

    media_type = "video/mp4"

    def __init__(self, service: Service, render: Render, sha256: str, byte_range: str | None) -> None:
        super().__init__()
        self._service, self._render = service, render
        self._span = span = span_of(byte_range, service.blobs.num_bytes(sha256))
        self._reader = _Reader(service.blobs, sha256, span)
        self.status_code = 200 if span.is_whole else 206
        self.init_headers(
            {
                "Content-Length": str(span.num_bytes),
                "Content-Disposition": f'attachment; filename="{render.render_id}.mp4"',
                "Accept-Ranges": "bytes",
                "ETag": f'"{sha256}"',
                **({} if span.is_whole else {"Content-Range": f"bytes {span.first}-{span.last}/{span.size}"}),
            }
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send start and chunks; on the end of the consent return in the middle, which closes the connection."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        num_sent = 0
        while num_sent < self._span.num_bytes:
            chunk = await run_in_threadpool(self._checked_chunk, num_sent)
            if chunk is None:
                return
            num_sent += len(chunk)
            is_last = num_sent >= self._span.num_bytes
            await send({"type": "http.response.body", "body": chunk, "more_body": not is_last})

    def _checked_chunk(self, num_sent: int) -> bytes | None:
        """The next chunk; None if it must not leave any more, which is on record then."""
        service, render = self._service, self._render
        try:
            service.renders.check_still_released(render.render_id)
            chunk = self._reader.next()
        except ApiError as error:
            index = service.renders.note_stopped(render.render_id, error.code, num_sent)
            logger.info("delivery of %s stopped after %d bytes, log entry %d", render.render_id, num_sent, index)
            return None
        service.metrics.add("placet_delivered_bytes_total", len(chunk))
        return chunk


class _Reader:
    """A part of a blob, chunk by chunk; asked of the store a window at a time, which may be far away."""

    def __init__(self, blobs: BlobStore, sha256: str, span: Span) -> None:
        self._blobs, self._sha256 = blobs, sha256
        self._at, self._end = span.first, span.last + 1
        self._window = b""

    def next(self) -> bytes:
        """The next chunk. Raises BlobMissingError, BlobDamagedError: shorter than it was; StoreUnreachableError."""
        if not self._window:
            self._window = self._blobs.read(self._sha256, self._at, min(_WINDOW_BYTES, self._end - self._at))
            if not self._window:
                raise BlobDamagedError("The stored file is shorter than it was.")
            self._at += len(self._window)
        chunk, self._window = self._window[:CHUNK_BYTES], self._window[CHUNK_BYTES:]
        return chunk
