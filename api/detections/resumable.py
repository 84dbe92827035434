"""Uploads in pieces, after the tus protocol 1.0.0 (core, creation, expiration, termination): what came stays, in
memory, until the rest is there or ten minutes have passed without a byte.

    POST   …/uploads            Upload-Length: 73400320            201, Location
    PATCH  …/uploads/upl_…      Upload-Offset: 0, bytes            204, Upload-Offset: how far it got
    HEAD   …/uploads/upl_…                                         200, Upload-Offset: where to go on
    POST   /v1/detections       {"upload": "upl_…"}                the report, as for a file sent at once
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from api.detections.room import Room
from api.errors import BodyTooLargeError, ConflictError, InvalidFieldError, NotFoundError

TUS_VERSION: Final = "1.0.0"
TUS_EXTENSIONS: Final = "creation,expiration,termination"
PIECES_TYPE: Final = "application/offset+octet-stream"
LIFETIME_S: Final = 600.0
MAX_OPEN: Final = 4


class OffsetError(ConflictError):
    """A piece that does not begin where the last one ended."""

    code = "conflict.offset"


class IncompleteError(ConflictError):
    """The upload is not complete yet."""

    code = "conflict.incomplete"


@dataclass(eq=False)
class Upload:
    """A file that comes in pieces.

    Attributes:
        upload_id: names it.
        owner: who sends it.
        length: bytes when it is complete.
    """

    upload_id: str
    owner: str
    length: int
    expires_at_s: float
    received: bytearray = field(default_factory=bytearray)

    @property
    def offset(self) -> int:
        """Bytes that are here."""
        return len(self.received)


class UploadShelf:
    """Uploads of all callers.

    Args:
        room: where their bytes are counted, from the moment an upload is announced.
        max_bytes: largest file.
        clock: monotonic seconds.
    """

    def __init__(self, room: Room, *, max_bytes: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._room = room
        self._max_bytes = max_bytes
        self._clock = clock
        self._lock = threading.Lock()
        self._uploads: dict[str, Upload] = {}

    def create(self, owner: str, length: int) -> Upload:
        """Announce an upload. Raises: BodyTooLargeError, ConflictError (too many at once), BusyError."""
        if length < 1:
            raise InvalidFieldError("Upload-Length must be a number of bytes above 0.")
        if length > self._max_bytes:
            raise BodyTooLargeError("The upload", self._max_bytes)
        self.sweep()
        with self._lock:
            if sum(each.owner == owner for each in self._uploads.values()) >= MAX_OPEN:
                raise ConflictError(f"You have {MAX_OPEN} uploads open already: complete or delete one first.")
            self._room.take_now(self._room.share_of(length))
            upload = Upload(f"upl_{secrets.token_hex(12)}", owner, length, self._clock() + LIFETIME_S)
            self._uploads[upload.upload_id] = upload
        return upload

    def find(self, owner: str, upload_id: str) -> Upload:
        """Raises: NotFoundError: also for an upload of somebody else."""
        self.sweep()
        upload = self._uploads.get(upload_id)
        if upload is None or upload.owner != owner:
            raise NotFoundError("There is no such upload, or it has expired: begin a new one.")
        return upload

    def append(self, upload: Upload, offset: int, piece: bytes) -> None:
        """Add a piece. Raises: OffsetError, BodyTooLargeError."""
        with self._lock:
            if offset != upload.offset:
                raise OffsetError(f"The upload goes on at byte {upload.offset}: ask with HEAD, then send from there.")
            if offset + len(piece) > upload.length:
                raise BodyTooLargeError("The upload", upload.length)
            upload.received += piece
            upload.expires_at_s = self._clock() + LIFETIME_S

    def take(self, owner: str, upload_id: str) -> bytes:
        """The complete file, which leaves the shelf; its room stays taken. Raises: NotFoundError, IncompleteError."""
        upload = self.find(owner, upload_id)
        if upload.offset != upload.length:
            raise IncompleteError(f"{upload.offset} of {upload.length} bytes are here: send the rest first.")
        with self._lock:
            self._uploads.pop(upload_id, None)
        return bytes(upload.received)

    def drop(self, upload: Upload) -> None:
        """Forget an upload."""
        with self._lock:
            if self._uploads.pop(upload.upload_id, None) is not None:
                self._room.give_back(self._room.share_of(upload.length))

    def now(self) -> float:
        """The clock by which uploads expire."""
        return self._clock()

    def sweep(self) -> None:
        """Forget what has expired."""
        now = self._clock()
        for upload in [each for each in list(self._uploads.values()) if each.expires_at_s <= now]:
            self.drop(upload)
