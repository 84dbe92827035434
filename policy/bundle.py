"""Export bundles: a log at one checkpoint as a single file that anybody can check without this service.

A bundle is a plain tar (POSIX ustar) of the tlog-tiles files, with `vkey` (the public key in the text form of
c2sp.org/signed-note) in front, so that other implementations read it after `tar x`. Headers and padding are fixed: a
bundle has exactly one byte form, and any changed byte is found.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, Final

from policy.errors import BundleError
from policy.files import fsync_directory
from policy.log import CHECKPOINT_FILE, Log
from policy.note import Checkpoint, verify_checkpoint
from policy.tiles import ENTRIES, TILE_WIDTH, tiles_of

VKEY_FILE: Final = "vkey"
COSIGNED_FILE: Final = "cosigned"
"""Optional: the newest checkpoint that witnesses have cosigned, of the same size or smaller."""
_BLOCK: Final = tarfile.BLOCKSIZE
_END: Final = bytes(2 * _BLOCK)


def export_bundle(
    log: Log, path: Path, *, cosigned: str | None = None, progress: Callable[[float], object] | None = None
) -> Checkpoint:
    """Write the log as it is now to `path`, replacing what is there; appends may go on meanwhile.

    Args:
        cosigned: a checkpoint of this log with the cosignatures of witnesses, to be put into the bundle.
        progress: called with the fraction done.
    Returns: the checkpoint that the bundle holds.
    Raises: BundleError: it cannot be written. LogError: the log cannot be read.
    """
    note = log.checkpoint().encode()
    checkpoint = verify_checkpoint(note, log.public_keys, origin=log.origin)
    temporary = path.with_name(f"{path.name}.tmp")
    try:
        with temporary.open("wb") as out:
            _write_member(out, VKEY_FILE, f"{log.verifier_key}\n".encode())
            _write_member(out, CHECKPOINT_FILE, note)
            if cosigned is not None:
                _write_member(out, COSIGNED_FILE, cosigned.encode())
            for name in tiles_of(checkpoint.size):
                _write_member(out, name.path, log.tile(name.path))
                if progress is not None and name.level == ENTRIES:
                    progress(name.index * TILE_WIDTH / checkpoint.size)
            out.write(_END)
            out.flush()
            os.fsync(out.fileno())
        temporary.replace(path)
        fsync_directory(path.absolute().parent)
    except OSError as exc:
        raise BundleError(f"The bundle cannot be written ({exc.strerror}).") from exc
    finally:
        temporary.unlink(missing_ok=True)
    return checkpoint


class BundleFiles:
    """The files inside a bundle, read in place; memory stays flat however large the bundle is."""

    def __init__(self, file: BinaryIO) -> None:
        """Index the bundle. Raises: BundleError: not byte for byte in the one form that `export_bundle` writes."""
        self._file = file
        self._places: dict[str, tuple[int, int]] = {}
        for name, at, num_bytes in _members(file):
            if name in self._places:
                raise BundleError(f"The bundle holds {name!r} twice.")
            self._places[name] = at, num_bytes

    def paths(self) -> list[str]:
        """Every path in the bundle."""
        return list(self._places)

    def read(self, path: str) -> bytes | None:
        """The content of a file, None where there is none."""
        if path not in self._places:
            return None
        at, num_bytes = self._places[path]
        self._file.seek(at)
        return self._file.read(num_bytes)


def _members(file: BinaryIO) -> Iterator[tuple[str, int, int]]:
    """Name, offset and length of each member, in order."""
    file.seek(0, os.SEEK_END)
    end = file.tell()
    at = 0
    while True:
        file.seek(at)
        header = file.read(_BLOCK)
        if header == bytes(_BLOCK):
            if header + file.read() != _END:
                raise BundleError("The end of the bundle was changed, or something was added to it.")
            return
        try:
            info = tarfile.TarInfo.frombuf(header, "utf-8", "strict")
            is_ours = header == _header(info.name, info.size)
        except (tarfile.TarError, ValueError) as exc:
            raise BundleError(f"At byte {at} the bundle is cut off or was changed.") from exc
        padding = -info.size % _BLOCK
        if not is_ours or info.size < 0 or at + _BLOCK + info.size + padding > end:
            raise BundleError(f"The header of {info.name!r} in the bundle was changed.")
        file.seek(at + _BLOCK + info.size)
        if file.read(padding) != bytes(padding):
            raise BundleError(f"The padding behind {info.name!r} in the bundle was changed.")
        yield info.name, at + _BLOCK, info.size
        at += _BLOCK + info.size + padding


def _write_member(out: BinaryIO, name: str, data: bytes) -> None:
    out.write(_header(name, len(data)) + data + bytes(-len(data) % _BLOCK))


def _header(name: str, num_bytes: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = num_bytes
    return info.tobuf(tarfile.USTAR_FORMAT, "utf-8", "strict")
