"""Content-addressed store: a blob's name is the SHA-256 of its bytes, and it appears whole or not at all."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path

from api.errors import BlobDamagedError, BlobMissingError, BlobNameError

_NAME = re.compile(r"[0-9a-f]{64}")


class BlobStore:
    """Files under `root/<first two hex digits>/<sha256>`."""

    def __init__(self, root: Path) -> None:
        self._root = root
        root.mkdir(parents=True, exist_ok=True, mode=0o700)

    def path(self, sha256: str) -> Path:
        """Where a blob is, or would be. Raises BlobNameError for anything that is not 64 hex digits."""
        if not _NAME.fullmatch(sha256):
            raise BlobNameError("A blob is named by 64 lower-case hex digits.")
        return self._root / sha256[:2] / sha256

    def put(self, data: bytes) -> str:
        """Store bytes durably; returns their SHA-256."""
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
        """Move a finished, synced file in, by one rename. Raises BlobDamagedError if its bytes are not `sha256`."""
        with source.open("rb") as opened:
            if hashlib.file_digest(opened, "sha256").hexdigest() != sha256:
                raise BlobDamagedError("The file changed between its making and its publication.")
        target = self.path(sha256)
        target.parent.mkdir(exist_ok=True, mode=0o700)
        source.rename(target)
        _sync_directory(target.parent)

    def get(self, sha256: str) -> bytes:
        """Read and check a blob. Raises BlobMissingError or BlobDamagedError."""
        try:
            data = self.path(sha256).read_bytes()
        except FileNotFoundError as exc:
            raise BlobMissingError("The stored file is gone.") from exc
        if hashlib.sha256(data).hexdigest() != sha256:
            raise BlobDamagedError("The stored file does not match its hash.")
        return data

    def remove(self, sha256: str) -> None:
        """Forget a blob; no matter if it is gone."""
        self.path(sha256).unlink(missing_ok=True)

    def names(self) -> Iterator[str]:
        """Every blob's SHA-256."""
        return (path.name for path in self._root.glob("??/*") if _NAME.fullmatch(path.name))

    def sweep_partial(self) -> int:
        """Remove what a crash left half-written; returns how many files."""
        leftovers = list(self._root.glob("??/.*.partial"))
        for path in leftovers:
            path.unlink(missing_ok=True)
        return len(leftovers)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
