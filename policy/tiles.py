"""Tiles: how the tree and its entries are cut into files (c2sp.org/tlog-tiles). Pure names, widths and encodings.

    checkpoint                     signed note
    tile/<L>/<N>                   256 hashes of level L (each the root over 256^L leaves)
    tile/<L>/<N>.p/<W>             the same while only W of them exist
    tile/entries/<N>[.p/<W>]       256 (or W) entries: uint16 length, big-endian, then the bytes

<N> is written in groups of three digits, all but the last prefixed by x: 1234067 -> x001/x234/067.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from policy.errors import EntryNotFoundError, EntryRefusedError, LogCorruptError
from policy.merkle import HASH_NUM_BYTES, node_hash

TILE_HEIGHT: Final = 8
TILE_WIDTH: Final = 1 << TILE_HEIGHT
MAX_ENTRY_NUM_BYTES: Final = 0xFFFF
ENTRIES: Final = -1
"""The "level" under which entry bundles are named."""

_PATH = re.compile(
    r"tile/(?P<level>entries|0|[1-9]|[1-5][0-9]|6[0-3])/(?P<index>(?:x[0-9]{3}/)*[0-9]{3})"
    r"(?:\.p/(?P<width>[1-9][0-9]{0,2}))?"
)


@dataclass(frozen=True, order=True)
class TileName:
    """One tile: level 0…63 for hashes or `ENTRIES`, index within the level, and how much of it there is."""

    level: int
    index: int
    width: int = TILE_WIDTH

    @property
    def whole_path(self) -> str:
        """The path of the tile once it is full."""
        level = "entries" if self.level == ENTRIES else str(self.level)
        return f"tile/{level}/{_index_path(self.index)}"

    @property
    def path(self) -> str:
        """The path of exactly this tile."""
        return self.whole_path if self.width == TILE_WIDTH else f"{self.whole_path}.p/{self.width}"

    @classmethod
    def parse(cls, path: str) -> TileName:
        """The tile that a path names; only the one correct spelling is taken.

        Raises: EntryNotFoundError.
        """
        match = _PATH.fullmatch(path)
        if match:
            level = ENTRIES if match["level"] == "entries" else int(match["level"])
            index = int(match["index"].replace("x", "").replace("/", ""))
            name = cls(level, index, int(match["width"] or TILE_WIDTH))
            if name.path == path:
                return name
        raise EntryNotFoundError("There is no such tile; paths look like tile/0/000 or tile/entries/000.p/5.")


def tiles_of(size: int) -> Iterator[TileName]:
    """Every tile of a tree, bottom up and from left to right; entry bundles directly before their hashes."""
    level = 0
    while (num_hashes := size >> (TILE_HEIGHT * level)) > 0:
        for index in range(-(-num_hashes // TILE_WIDTH)):
            width = min(TILE_WIDTH, num_hashes - index * TILE_WIDTH)
            if level == 0:
                yield TileName(ENTRIES, index, width)
            yield TileName(level, index, width)
        level += 1


def encode_entry(data: bytes) -> bytes:
    """An entry as it stands in a bundle.

    Raises: EntryRefusedError: longer than the format allows.
    """
    if len(data) > MAX_ENTRY_NUM_BYTES:
        raise EntryRefusedError(
            f"The entry is {len(data)} bytes long and the log takes {MAX_ENTRY_NUM_BYTES}; "
            "log a hash of the large part."
        )
    return len(data).to_bytes(2, "big") + data


def split_bundle(data: bytes, num_entries: int) -> tuple[list[bytes], int]:
    """The first `num_entries` entries of a bundle, and the number of bytes that they take.

    Fewer come back where the bytes end too early; it is the caller who knows whether that is damage.
    """
    entries: list[bytes] = []
    offset = 0
    while len(entries) < num_entries:
        end = offset + 2 + int.from_bytes(data[offset : offset + 2], "big")
        if offset + 2 > len(data) or end > len(data):
            break
        entries.append(data[offset + 2 : end])
        offset = end
    return entries, offset


def split_hashes(data: bytes) -> list[bytes]:
    """The 32-byte hashes of a hash tile; an incomplete last one is left out."""
    return [data[at : at + HASH_NUM_BYTES] for at in range(0, len(data) - HASH_NUM_BYTES + 1, HASH_NUM_BYTES)]


class Pyramid:
    """The hashes of one tile with all complete nodes above them, up to eight levels."""

    def __init__(self, hashes: list[bytes] | None = None) -> None:
        self.levels: list[list[bytes]] = [[] for _ in range(TILE_HEIGHT + 1)]
        for value in hashes or []:
            self.append(value)

    def __len__(self) -> int:
        return len(self.levels[0])

    def append(self, value: bytes) -> None:
        """Add the next hash at the bottom, and each node that it completes."""
        if len(self) == TILE_WIDTH:
            raise LogCorruptError("A tile cannot hold more than 256 hashes.")
        for nodes in self.levels:
            nodes.append(value)
            if len(nodes) % 2:
                break
            value = node_hash(nodes[-2], nodes[-1])

    def node(self, level: int, index: int) -> bytes:
        """Node `index` of `level` (0…8) within this tile."""
        return self.levels[level][index]


def _index_path(index: int) -> str:
    groups = [f"{index % 1000:03d}"]
    while index := index // 1000:
        groups.insert(0, f"x{index % 1000:03d}")
    return "/".join(groups)
