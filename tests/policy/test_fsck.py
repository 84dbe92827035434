"""A flipped, missing or added byte anywhere in a log: `fsck` says so, and names the entry or the file."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from policy.errors import LogCorruptError, LogUnavailableError
from policy.fsck import FsckReport, fsck
from policy.keys import KeyRing
from policy.log import Log
from policy.tiles import split_bundle

from .conftest import ORIGIN, Clock

NUM_SMALL, NUM_LARGE = 21, 259


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory, keys: KeyRing) -> dict[int, Path]:
    """Logs of one partial tile, of exactly one full tile, and of a full and a partial one. Left unmodified."""
    made = {}
    for size in (NUM_SMALL, 256, NUM_LARGE):
        log = Log.create(tmp_path_factory.mktemp("fsck") / "log", keys.log_key, ORIGIN, now=Clock())
        log.append_many([("test", {"n": n}) for n in range(size)])
        made[size] = log.directory
    return made


@pytest.fixture
def small(logs: dict[int, Path], tmp_path: Path) -> Path:
    return shutil.copytree(logs[NUM_SMALL], tmp_path / "log")


@pytest.fixture
def large(logs: dict[int, Path], tmp_path: Path) -> Path:
    return shutil.copytree(logs[NUM_LARGE], tmp_path / "log")


def files_of(directory: Path) -> Iterator[tuple[Path, bytes]]:
    for path in sorted(directory.rglob("*")):
        if path.is_file() and path.name != ".lock":
            yield path, path.read_bytes()


def entry_at(data: bytes, offset: int) -> int:
    """The number of the entry within its bundle that byte `offset` belongs to."""
    end, number = 0, -1
    while end <= offset:
        end += 2 + int.from_bytes(data[end : end + 2], "big")
        number += 1
    return number


def assert_named(report: FsckReport, directory: Path, path: Path, data: bytes, offset: int) -> None:
    """The first problem is the entry, tile or checkpoint that byte `offset` of `path` belongs to."""
    assert report.problems, f"byte {offset} of {path.name} was flipped unseen"
    where = path.relative_to(directory).as_posix()
    first = report.problems[0]
    if where.startswith("tile/entries"):
        bundle = int(where.removeprefix("tile/entries/")[:3])
        index = bundle * 256 + entry_at(data, offset)
        assert (first.code, first.where, first.index) == ("entry", f"entry {index}", index)
        assert str(index) in first.sentence
    else:
        assert first.where == where
        if where.startswith("tile/0"):
            assert first.index == int(where.removeprefix("tile/0/")[:3]) * 256 + offset // 32
    with pytest.raises(LogCorruptError):
        report.require_clean()


def test_sound_logs_are_clean(logs: dict[int, Path], keys: KeyRing) -> None:
    for size, directory in logs.items():
        report = fsck(directory, keys.log_public)
        assert report.is_clean and report.size == size
        report.require_clean()


def test_every_flipped_byte_is_named(tmp_path: Path, keys: KeyRing) -> None:
    small = Log.create(tmp_path / "log", keys.log_key, ORIGIN, now=Clock()).directory
    Log.open(small, keys.log_key, ORIGIN).append_many([("t", {})] * 20)
    rng = random.Random(1)
    for path, data in files_of(small):
        for offset in range(len(data)):
            changed = bytearray(data)
            changed[offset] ^= 1 << rng.randrange(8)
            path.write_bytes(changed)
            assert_named(fsck(small, keys.log_public), small, path, data, offset)
        path.write_bytes(data)
    assert fsck(small, keys.log_public).is_clean


def test_flipped_bytes_of_a_log_with_a_full_tile(large: Path, keys: KeyRing) -> None:
    rng = random.Random(2)
    for path, data in files_of(large):
        edges = {0, 1, 31, 32, len(data) - 1}
        for offset in sorted(edges | {rng.randrange(len(data)) for _ in range(12)}):
            if offset < len(data):
                changed = bytearray(data)
                changed[offset] ^= 1 << rng.randrange(8)
                path.write_bytes(changed)
                assert_named(fsck(large, keys.log_public), large, path, data, offset)
        path.write_bytes(data)
    assert fsck(large, keys.log_public).is_clean


@pytest.mark.parametrize("size", [NUM_SMALL, 256, NUM_LARGE])
def test_missing_truncated_and_extended_files(logs: dict[int, Path], tmp_path: Path, keys: KeyRing, size: int) -> None:
    directory = shutil.copytree(logs[size], tmp_path / "log")
    for path, data in files_of(directory):
        where = path.relative_to(directory).as_posix()
        path.unlink()
        problems = fsck(directory, keys.log_public).problems
        assert (problems[0].code, problems[0].where) == ("missing", where)
        for changed in (b"", data[:-1], data[: len(data) // 2], data + b"\x00", data + b"\n", data + data):
            path.write_bytes(changed)
            problems = fsck(directory, keys.log_public).problems
            assert problems, f"{where} with {len(changed)} instead of {len(data)} bytes was not seen"
            if where.startswith("tile/entries"):
                assert problems[0].where == where or problems[0].index is not None
            else:
                assert problems[0].where == where
        path.write_bytes(data)
    assert fsck(directory, keys.log_public).is_clean


@pytest.mark.parametrize(
    "added", ["note.txt", "tile/0/001", "tile/2/000.p/1", "tile/entries/000.p/20", "checkpoint.tmp"]
)
def test_files_that_do_not_belong(small: Path, keys: KeyRing, added: str) -> None:
    (small / added).parent.mkdir(parents=True, exist_ok=True)
    (small / added).write_bytes(b"x")
    (problem,) = fsck(small, keys.log_public).problems
    assert (problem.code, problem.where) == ("unexpected", added)


def test_links_do_not_belong(small: Path, keys: KeyRing, tmp_path: Path) -> None:
    (small / "tile/1").symlink_to(tmp_path)
    (problem,) = fsck(small, keys.log_public).problems
    assert (problem.code, problem.where) == ("unexpected", "tile/1")


def test_something_in_the_lock_file(small: Path, keys: KeyRing) -> None:
    (small / ".lock").write_bytes(b"x")
    assert [problem.where for problem in fsck(small, keys.log_public).problems] == [".lock"]


def test_entries_swapped(small: Path, keys: KeyRing) -> None:
    path = small / f"tile/entries/000.p/{NUM_SMALL}"
    leaves, _ = split_bundle(path.read_bytes(), NUM_SMALL)
    leaves[4], leaves[5] = leaves[5], leaves[4]
    path.write_bytes(b"".join(len(leaf).to_bytes(2, "big") + leaf for leaf in leaves))
    assert [problem.index for problem in fsck(small, keys.log_public).problems] == [4, 5]


@pytest.mark.parametrize("size", [NUM_SMALL, NUM_LARGE])
def test_history_rewritten_without_the_key(logs: dict[int, Path], tmp_path: Path, keys: KeyRing, size: int) -> None:
    """Entry 3 and its hash in the tile changed to fit each other: the signed root does not follow."""
    from policy.merkle import leaf_hash

    directory = shutil.copytree(logs[size], tmp_path / "log")
    suffix = f".p/{size}" if size < 256 else ""
    bundle, tile = directory / f"tile/entries/000{suffix}", directory / f"tile/0/000{suffix}"
    data = bundle.read_bytes()
    forged = data.replace(b'{"n":3}', b'{"n":4}')
    bundle.write_bytes(forged)
    tile.write_bytes(tile.read_bytes()[:96] + leaf_hash(split_bundle(forged, 4)[0][3]) + tile.read_bytes()[128:])
    problems = fsck(directory, keys.log_public).problems
    assert problems and problems[0].code in ("history", "tile")
    # the same, with the level above made to fit as well where there is one
    assert "signed" in problems[0].sentence


def test_a_log_signed_by_another_key(small: Path, keys: KeyRing) -> None:
    (problem,) = fsck(small, keys.permit_public).problems
    assert (problem.code, problem.where) == ("checkpoint", "checkpoint")


def test_a_log_set_back_to_an_older_state(tmp_path: Path, keys: KeyRing) -> None:
    """Only somebody who kept a later checkpoint can see this; with it, fsck does."""
    log = Log.create(tmp_path / "log", keys.log_key, ORIGIN)
    log.append_many([("test", {"n": n}) for n in range(5)])
    shutil.copytree(log.directory, tmp_path / "old")
    first = log.checkpoint().encode()
    log.append_many([("test", {"n": n}) for n in range(300)])
    later = log.checkpoint().encode()
    assert fsck(log.directory, keys.log_public, earlier_checkpoint=first).is_clean
    assert fsck(tmp_path / "old", keys.log_public).is_clean
    (problem,) = fsck(tmp_path / "old", keys.log_public, earlier_checkpoint=later).problems
    assert problem.code == "history"


def test_a_forked_log(tmp_path: Path, keys: KeyRing) -> None:
    """The same size, another history, validly signed."""
    notes = []
    for name in ("a", "b"):
        log = Log.create(tmp_path / name, keys.log_key, ORIGIN)
        log.append_many([(name, {"n": n}) for n in range(5)])
        notes.append(log.checkpoint().encode())
    (problem,) = fsck(tmp_path / "a", keys.log_public, earlier_checkpoint=notes[1]).problems
    assert problem.code == "history"


def test_an_entry_that_is_signed_but_malformed(tmp_path: Path, keys: KeyRing, monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer that goes wrong is found as well as a forger."""
    log = Log.create(tmp_path / "log", keys.log_key, ORIGIN)
    monkeypatch.setattr("policy.log.write_entry", lambda *parts: b'{"index": 0}')
    log.append("test", {})
    (problem,) = fsck(log.directory, keys.log_public).problems
    assert (problem.code, problem.index) == ("entry", 0)


def test_no_log_at_all(tmp_path: Path, keys: KeyRing) -> None:
    assert [problem.where for problem in fsck(tmp_path, keys.log_public).problems] == ["checkpoint"]
    with pytest.raises(LogUnavailableError):
        (tmp_path / "checkpoint").mkdir()
        fsck(tmp_path, keys.log_public)
