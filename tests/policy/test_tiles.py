"""Names and encodings of tiles, as c2sp.org/tlog-tiles writes them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.errors import EntryNotFoundError, EntryRefusedError, LogCorruptError
from policy.merkle import leaf_hash
from policy.tiles import ENTRIES, Pyramid, TileName, encode_entry, split_bundle, tiles_of


@pytest.mark.parametrize(
    ("name", "path"),
    [
        (TileName(0, 0), "tile/0/000"),
        (TileName(3, 1_234_067), "tile/3/x001/x234/067"),
        (TileName(0, 1000, 5), "tile/0/x001/000.p/5"),
        (TileName(ENTRIES, 273, 112), "tile/entries/273.p/112"),
    ],
)
def test_paths(name: TileName, path: str) -> None:
    assert name.path == path
    assert TileName.parse(path) == name


@pytest.mark.parametrize(
    "path",
    ["", "tile/0/0", "tile/0/0000", "tile/00/000", "tile/64/000", "tile/0/x000/000", "tile/0/001/000", "tile/0/000.p/0",
     "tile/0/000.p/256", "tile/0/000.p/05", "tile/0/../000", "tile/0/000\n", "/tile/0/000", "tile/entries/000/"],
)  # fmt: skip
def test_other_spellings_are_refused(path: str) -> None:
    with pytest.raises(EntryNotFoundError):
        TileName.parse(path)


@given(st.integers(-1, 63), st.integers(0, 10**9), st.integers(1, 256))
def test_paths_come_back(level: int, index: int, width: int) -> None:
    name = TileName(level, index, width)
    assert TileName.parse(name.path) == name


def test_tiles_of_a_tree() -> None:
    assert list(tiles_of(0)) == []
    paths = [name.path for name in tiles_of(256 * 256 + 3)]
    assert paths[:2] == ["tile/entries/000", "tile/0/000"]
    assert paths[-4:] == ["tile/entries/256.p/3", "tile/0/256.p/3", "tile/1/000", "tile/2/000.p/1"]


@given(st.lists(st.binary(max_size=300), max_size=20))
def test_bundles_come_back(entries: list[bytes]) -> None:
    data = b"".join(map(encode_entry, entries))
    assert split_bundle(data, len(entries)) == (entries, len(data))
    assert split_bundle(data + b"xyz", len(entries)) == (entries, len(data))
    cut, _ = split_bundle(data[:-1], len(entries))
    assert cut == entries[: len(cut)] and (len(cut) < len(entries) or not entries)


def test_an_entry_that_is_too_large() -> None:
    assert len(encode_entry(bytes(65535))) == 65537
    with pytest.raises(EntryRefusedError, match="65535"):
        encode_entry(bytes(65536))


def test_a_pyramid_is_full_at_256() -> None:
    pyramid = Pyramid([leaf_hash(bytes([n])) for n in range(256)])
    assert [len(level) for level in pyramid.levels] == [256, 128, 64, 32, 16, 8, 4, 2, 1]
    with pytest.raises(LogCorruptError):
        pyramid.append(bytes(32))
