"""Content-addressed store: a blob's name is the SHA-256 of its bytes, and it appears whole or not at all.

Two kinds: `FileBlobs` in a directory, and `api.storage.s3.S3Blobs` behind any S3 endpoint.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from api.errors import BlobDamagedError, BlobMissingError, BlobNameError

_NAME = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Bucket:
    """Where a bucket is, and who asks.

    Attributes:
        url: `s3://bucket` or `s3://bucket/prefix`.
        endpoint: of an S3 server that is not Amazon's, e.g. `http://minio:9000`.
        key_id, secret: of the account; empty for what the machine has by itself (an instance role).
    """

    url: str
    endpoint: str = ""
    region: str = "us-east-1"
    key_id: str = ""
    secret: str = ""


class BlobStore(Protocol):
    """What every store does. All of it raises BlobNameError for a name that is not 64 lower-case hex digits, and
    StoreUnreachableError where the store is on another machine that does not answer."""

    def put(self, data: bytes) -> str:
        """Store bytes durably; returns their SHA-256."""

    def adopt(self, source: Path, sha256: str) -> None:
        """Take a finished file over; it is gone afterwards. Raises BlobDamagedError if its bytes are not `sha256`."""

    def get(self, sha256: str) -> bytes:
        """Read and check a blob. Raises BlobMissingError or BlobDamagedError."""

    def num_bytes(self, sha256: str) -> int:
        """Raises BlobMissingError."""

    def read(self, sha256: str, first: int, num_bytes: int) -> bytes:
        """A part, unchecked; shorter where the blob ends. Raises BlobMissingError."""

    def remove(self, sha256: str) -> None:
        """Forget a blob; no matter if it is gone."""

    def names(self, *, older_than_s: float = 0.0) -> Iterator[str]:
        """Every blob's SHA-256, of those that were stored longer ago than that."""

    def sweep_partial(self, *, older_than_s: float = 0.0) -> int:
        """Remove what a crash left half-written; returns how many."""


def open_blobs(where: Path | Bucket) -> BlobStore:
    """The store in a directory (made if need be) or in a bucket. Raises StorageError: not an address."""
    if isinstance(where, Path):
        return FileBlobs(where)
    from api.storage.s3 import S3Blobs

    return S3Blobs(where)


def check_name(sha256: str) -> str:
    """The name itself. Raises BlobNameError."""
    if not _NAME.fullmatch(sha256):
        raise BlobNameError("A blob is named by 64 lower-case hex digits.")
    return sha256


def checked(data: bytes, sha256: str) -> bytes:
    """The bytes themselves, if they are those of the name. Raises BlobDamagedError."""
    if hashlib.sha256(data).hexdigest() != sha256:
        raise BlobDamagedError("The stored file does not match its hash.")
    return data


def check_file(source: Path, sha256: str) -> None:
    """Raises BlobDamagedError if the bytes of a file are not those that the name stands for."""
    check_name(sha256)
    with source.open("rb") as opened:
        if hashlib.file_digest(opened, "sha256").hexdigest() != sha256:
            raise BlobDamagedError("The file changed between its making and its publication.")


class FileBlobs:
    """Files under `root/<first two hex digits>/<sha256>`."""

    def __init__(self, root: Path) -> None:
        self._root = root
        root.mkdir(parents=True, exist_ok=True, mode=0o700)

    def path(self, sha256: str) -> Path:
        """Where a blob is, or would be."""
        return self._root / check_name(sha256)[:2] / sha256

    def put(self, data: bytes) -> str:
        sha256 = hashlib.sha256(data).hexdigest()
        target = self.path(sha256)
        if not target.exists():
            target.parent.mkdir(exist_ok=True, mode=0o700)
            partial = target.with_name(f".{secrets.token_hex(8)}.partial")
            try:
                with partial.open("xb") as out:
                    out.write(data)
                    out.flush()
                    os.fsync(out.fileno())
                partial.rename(target)
            finally:
                partial.unlink(missing_ok=True)
            _sync_directory(target.parent)
        return sha256

    def adopt(self, source: Path, sha256: str) -> None:
        """By one rename of a file that is on disk already, on the same file system."""
        check_file(source, sha256)
        target = self.path(sha256)
        target.parent.mkdir(exist_ok=True, mode=0o700)
        source.rename(target)
        _sync_directory(target.parent)

    def get(self, sha256: str) -> bytes:
        try:
            return checked(self.path(sha256).read_bytes(), sha256)
        except FileNotFoundError as exc:
            raise BlobMissingError("The stored file is gone.") from exc

    def num_bytes(self, sha256: str) -> int:
        try:
            return self.path(sha256).stat().st_size
        except FileNotFoundError as exc:
            raise BlobMissingError("The stored file is gone.") from exc

    def read(self, sha256: str, first: int, num_bytes: int) -> bytes:
        try:
            with self.path(sha256).open("rb") as opened:
                opened.seek(first)
                return opened.read(num_bytes)
        except FileNotFoundError as exc:
            raise BlobMissingError("The stored file is gone.") from exc

    def remove(self, sha256: str) -> None:
        self.path(sha256).unlink(missing_ok=True)

    def names(self, *, older_than_s: float = 0.0) -> Iterator[str]:
        found = (path for path in self._root.glob("??/*") if _NAME.fullmatch(path.name))
        return (path.name for path in found if _is_older(path, older_than_s))

    def sweep_partial(self, *, older_than_s: float = 0.0) -> int:
        leftovers = [path for path in self._root.glob("??/.*.partial") if _is_older(path, older_than_s)]
        for path in leftovers:
            path.unlink(missing_ok=True)
        return len(leftovers)


def _is_older(path: Path, age_s: float) -> bool:
    """Compared with the file system's own clock as far as there is one: the wall clock of this machine."""
    try:
        return age_s <= 0.0 or path.stat().st_mtime < time.time() - age_s
    except FileNotFoundError:
        return False


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
