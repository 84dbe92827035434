"""The tiles of a log as files: read, extended in place, and brought back to the last checkpoint after a crash.

The right-hand tile of each level is one growing file whose name carries its width: appending writes behind the last
byte, makes it durable, and renames `000.p/5` to `000.p/6`. A crash can therefore leave three things, all beyond the
signed checkpoint: bytes behind the last entry, a name that lags behind, a file that the checkpoint does not know.
`TileStore.settle` removes exactly these. Callers hold the log's lock.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path

from policy.errors import LogCorruptError
from policy.files import fsync_data, fsync_directory, write_all
from policy.merkle import HASH_NUM_BYTES
from policy.tiles import ENTRIES, TILE_WIDTH, Pyramid, TileName, split_bundle, split_hashes

_NUM_LOOKS = 5
_CACHED_TILES = 256


class TileStore:
    """Tiles below one directory. Raises OSError where the disk does; the log turns that into its own errors."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def path(self, name: TileName) -> Path:
        """Where a tile of exactly this width lies."""
        return self.directory / name.path

    def num_bytes(self, name: TileName) -> int:
        """Size of the file of exactly this name, -1 where there is none."""
        try:
            return self.path(name).stat().st_size
        except FileNotFoundError:
            return -1

    def exists(self, level: int, index: int) -> bool:
        """Whether there is anything of this tile, in whatever width."""
        return bool(self._candidates(TileName(level, index)))

    def read_prefix(self, name: TileName) -> bytes:
        """A tile of at least this width; tiles only grow, so its first part is the tile asked for.

        Another process may rename the tile at this very moment, hence several looks.

        Raises: LogCorruptError: it is missing.
        """
        for _ in range(_NUM_LOOKS):
            for path in (self.path(name), *self._candidates(name)):
                with suppress(FileNotFoundError):
                    return path.read_bytes()
        raise LogCorruptError(f"{name.path} is missing; restore the log from its backup.")

    def extend(self, name: TileName, data: bytes, new_width: int, *, durable: bool) -> None:
        """Append `data` to the tile `name` (width 0: it does not exist yet) and name it after its new width."""
        target_name = TileName(name.level, name.index, new_width)
        target = self.path(target_name)
        is_new = name.width == 0
        source = target if is_new else self.path(name)
        if is_new:
            _make_directory(target.parent)
        descriptor = os.open(source, os.O_WRONLY | os.O_APPEND | (os.O_CREAT | os.O_EXCL if is_new else 0), 0o644)
        try:
            write_all(descriptor, data)
            if durable or new_width == TILE_WIDTH:
                fsync_data(descriptor)
        finally:
            os.close(descriptor)
        if is_new:
            fsync_directory(target.parent)
        else:
            self._rename(source, target)

    def settle(self, name: TileName) -> tuple[bytes, bytes]:
        """Bring the right-hand tile `name` back to exactly its width.

        Returns: what the file then holds, and the bytes that were removed. A hash tile may come back short (its
            content is not made durable on every append); the log rebuilds it from the entries.
        Raises: LogCorruptError: entries that the checkpoint covers are missing.
        """
        found = self._candidates(name)
        if len(found) > 1:
            raise LogCorruptError(f"{name.whole_path} exists in several widths; restore the log from its backup.")
        data = found[0].read_bytes() if found else b""
        if name.level == ENTRIES:
            entries, length = split_bundle(data, name.width)
            if len(entries) < name.width:
                raise LogCorruptError(
                    f"{name.path} ends at entry {name.index * TILE_WIDTH + len(entries)}, "
                    "before the signed checkpoint; restore the log from its backup."
                )
        else:
            length = min(len(data), name.width * HASH_NUM_BYTES)
        if found:
            if length < len(data):
                _truncate(found[0], length)
            if found[0] != self.path(name):
                _make_directory(self.path(name).parent)
                self._rename(found[0], self.path(name))
        return data[:length], data[length:]

    def rewrite(self, name: TileName, data: bytes) -> None:
        """Replace a hash tile that a crash left short."""
        self.discard(name.level, name.index)
        self.extend(TileName(name.level, name.index, 0), data, name.width, durable=True)

    def discard(self, level: int, index: int) -> int:
        """Remove a tile of any width. Returns: the number of bytes removed."""
        num_bytes = 0
        for path in self._candidates(TileName(level, index)):
            num_bytes += path.stat().st_size
            path.unlink()
            if path.parent.name.endswith(".p"):
                path.parent.rmdir()
        return num_bytes

    def _candidates(self, name: TileName) -> list[Path]:
        """Every file that holds this tile, whatever its width."""
        whole = self.directory / name.whole_path
        partial = Path(f"{whole}.p")
        return [whole] * whole.is_file() + (sorted(partial.iterdir()) if partial.is_dir() else [])

    @staticmethod
    def _rename(source: Path, target: Path) -> None:
        if source == target:
            return
        source.rename(target)
        if source.parent != target.parent and source.parent.name.endswith(".p"):
            source.parent.rmdir()


class FullTiles:
    """Full hash tiles, which never change, the last few of them in memory. Callers hold a lock."""

    def __init__(self, store: TileStore) -> None:
        self._store = store
        self._tiles: OrderedDict[tuple[int, int], Pyramid] = OrderedDict()

    def get(self, level: int, index: int) -> Pyramid:
        """A full tile. Raises: LogCorruptError: missing, or of the wrong length."""
        cached = self._tiles.get((level, index))
        if cached is not None:
            self._tiles.move_to_end((level, index))
            return cached
        name = TileName(level, index)
        hashes = split_hashes(self._store.read_prefix(name))
        if len(hashes) != TILE_WIDTH:
            raise LogCorruptError(f"{name.path} has the wrong length; run `placet audit verify`.")
        return self.remember(level, index, Pyramid(hashes))

    def remember(self, level: int, index: int, tile: Pyramid) -> Pyramid:
        """Keep a tile that has just become full."""
        self._tiles[level, index] = tile
        while len(self._tiles) > _CACHED_TILES:
            self._tiles.popitem(last=False)
        return tile

    def clear(self) -> None:
        """Forget all of them."""
        self._tiles.clear()


def _truncate(path: Path, num_bytes: int) -> None:
    descriptor = os.open(path, os.O_WRONLY)
    try:
        os.ftruncate(descriptor, num_bytes)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _make_directory(directory: Path) -> None:
    """`mkdir -p`, durable."""
    if directory.is_dir():
        return
    _make_directory(directory.parent)
    directory.mkdir(exist_ok=True)
    fsync_directory(directory.parent)
