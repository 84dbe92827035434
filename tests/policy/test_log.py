"""The log in ordinary life: appends, reads, proofs, several threads, several processes, a full disk."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from policy.canonical import canonical_json
from policy.errors import (
    CheckpointError,
    EntryNotFoundError,
    EntryRefusedError,
    LogCorruptError,
    LogUnavailableError,
    ProofError,
)
from policy.evidence import LogEvidence, verify_evidence
from policy.fsck import fsck
from policy.keys import KeyRing
from policy.log import Log
from policy.merkle import verify_consistency, verify_inclusion
from policy.note import verify_checkpoint
from policy.tiles import TileName, split_bundle, tiles_of

from .conftest import ORIGIN, Clock


def test_an_empty_log_has_a_signed_checkpoint(log: Log, keys: KeyRing) -> None:
    checkpoint = verify_checkpoint(log.checkpoint().encode(), keys.log_public, origin=ORIGIN)
    assert checkpoint.size == log.size == 0
    assert log.entries(0) == []
    assert fsck(log.directory, keys.log_public).is_clean


def test_an_entry_and_its_evidence(log: Log, keys: KeyRing) -> None:
    evidence = log.append("test.kind", {"n": 1})
    entry = log.entry(0)
    assert entry == {"v": 1, "index": 0, "time": "2026-09-21T14:13:20.000Z", "kind": "test.kind", "body": {"n": 1}}
    assert verify_evidence(evidence, keys.log_public, origin=ORIGIN, leaf=canonical_json(entry)).size == 1
    assert LogEvidence.from_json(evidence.to_json()) == evidence


def test_across_tile_boundaries(log: Log, keys: KeyRing) -> None:
    """From both sides of 256 and 512: evidence given at the time, evidence asked for later, any history."""
    given = log.append_many([("test", {"n": n}) for n in range(240)])
    given += [log.append("test", {"n": n}) for n in range(240, 260)]
    for start, end in ((260, 400), (400, 511), (511, 515), (515, 520)):
        given += log.append_many([("test", {"n": n}) for n in range(start, end)])
    for evidence in given[::7] + given[250:260]:
        verify_evidence(evidence, keys.log_public, origin=ORIGIN)
    again = Log.open(log.directory, keys.log_key, ORIGIN)
    for index in (0, 1, 254, 255, 256, 257, 511, 512, 519):
        verify_evidence(again.evidence(index), keys.log_public, leaf=canonical_json(again.entry(index)))
    checkpoints = {each.tree_size: bytes.fromhex(each.root_hash) for each in given}
    assert set(range(241, 261)) | {400, 511, 515, 520} <= set(checkpoints)
    for old in sorted(checkpoints):
        for new in (256, 257, 400, 511, 520):
            if old <= new:
                path = again.consistency_proof(old, new)
                verify_consistency(old, checkpoints[old], new, checkpoints[new], path)
    leaf = bytes.fromhex(given[300].leaf_hash)
    verify_inclusion(leaf, 300, 400, again.inclusion_proof(300, 400), checkpoints[400])
    assert [entry["body"]["n"] for entry in again.entries(250, 12)] == list(range(250, 262))
    assert len(again.entries(500, 1000)) == 20
    assert fsck(log.directory, keys.log_public).is_clean


def test_the_directory_is_what_a_tile_client_reads(log: Log) -> None:
    log.append_many([("test", {"n": n}) for n in range(258)])
    for name in tiles_of(258):
        assert (log.directory / name.path).read_bytes() == log.tile(name.path)
    # narrower tiles of older checkpoints are still served
    assert log.tile("tile/0/000.p/5") == log.tile("tile/0/000")[: 5 * 32]
    assert len(split_bundle(log.tile("tile/entries/001.p/1"), 2)[0]) == 1
    for missing in ("tile/0/001", "tile/0/002.p/1", "tile/1/000.p/2", TileName(2, 0, 1).path, "tile/x"):
        with pytest.raises(EntryNotFoundError):
            log.tile(missing)


def test_what_may_not_be_logged(log: Log) -> None:
    refused: list[tuple[str, dict]] = [
        ("Kind", {}),
        ("", {}),
        ("x" * 65, {}),
        ("ok", {"n": float("nan")}),
        ("ok", {"n": 2**60}),
        ("ok", {"text": "\ud800"}),
        ("ok", {1: 2}),  # type: ignore[dict-item]
        ("ok", {"token": "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhIn0.c2ln"}),
        ("ok", {"pem": "-----BEGIN PRIVATE KEY-----"}),
        ("ok", {"large": "x" * 65_536}),
        ("ok", ["not an object"]),  # type: ignore[list-item]
    ]
    for kind, body in refused:
        with pytest.raises(EntryRefusedError):
            log.append(kind, body)
    assert log.size == 0
    assert log.append("ok", {"large": "x" * 65_000}).index == 0


def test_entries_that_do_not_exist(log: Log) -> None:
    log.append("test", {})
    for index in (-1, 1, 10**9):
        with pytest.raises(EntryNotFoundError):
            log.entry(index)
        with pytest.raises(EntryNotFoundError):
            log.evidence(index)
    with pytest.raises(EntryNotFoundError):
        log.inclusion_proof(0, 2)
    with pytest.raises(EntryNotFoundError):
        log.consistency_proof(1, 2)
    with pytest.raises(ProofError):
        log.inclusion_proof(1, 1)


def test_forged_evidence_is_refused(log: Log, keys: KeyRing) -> None:
    evidence = [log.append("test", {"n": n}) for n in range(5)][-1]
    good = evidence.to_json()
    forged = [
        good | {"index": 3},
        good | {"tree_size": 4},
        good | {"root_hash": "00" * 32},
        good | {"leaf_hash": "00" * 32},
        good | {"leaf_hash": good["leaf_hash"].upper()},
        good | {"inclusion_proof": good["inclusion_proof"][:-1]},
        good | {"inclusion_proof": ["zz"]},
        good | {"checkpoint": good["checkpoint"].replace("\n5\n", "\n6\n")},
    ]
    for each in forged:
        with pytest.raises((ProofError, CheckpointError)):
            verify_evidence(LogEvidence.from_json(each), keys.log_public)
    for malformed in (None, [], {}, {"index": 0}, good | {"more": 1}, good | {"index": True}, good | {"leaf_hash": 1}):
        with pytest.raises(ProofError):
            LogEvidence.from_json(malformed)
    with pytest.raises(ProofError, match="not the one that was logged"):
        verify_evidence(evidence, keys.log_public, leaf=b"{}")


def test_threads_share_commits(log: Log, keys: KeyRing) -> None:
    results: list[LogEvidence] = []

    def work(worker: int) -> None:
        results.extend(log.append("test", {"worker": worker, "n": n}) for n in range(25))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(each.index for each in results) == list(range(300)) and log.size == 300
    assert len({each.tree_size for each in results}) < 200, "appends were not committed together"
    for each in results:
        verify_evidence(each, keys.log_public)
    per_worker = [entry["body"]["n"] for entry in log.entries(0, 1000) if entry["body"]["worker"] == 3]
    assert per_worker == list(range(25))
    assert fsck(log.directory, keys.log_public).is_clean


def test_a_bad_entry_does_not_hurt_its_neighbours(log: Log) -> None:
    errors: list[Exception] = []

    def work(n: int) -> None:
        try:
            log.append("test", {"n": float("inf") if n % 3 == 0 else n})
        except EntryRefusedError as exc:
            errors.append(exc)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(errors), log.size) == (10, 20)


APPENDER = """
import sys
from pathlib import Path
from policy.keys import KeyRing
from policy.log import Log
keys = KeyRing.load(Path(sys.argv[1]))
log = Log.open(Path(sys.argv[2]), keys.log_key, sys.argv[3])
for n in range(int(sys.argv[4])):
    print(log.append("test", {"n": n}).index, flush=True)
"""


def test_processes_take_turns(tmp_path: Path) -> None:
    keys = KeyRing.create(tmp_path / "keys")
    log = Log.create(tmp_path / "log", keys.log_key, ORIGIN)
    arguments = [sys.executable, "-c", APPENDER, tmp_path / "keys", tmp_path / "log", ORIGIN, "70"]
    children = [subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    mine = [log.append("test", {"n": n}).index for n in range(70)]
    theirs = [int(line) for child in children for line in child.communicate(timeout=60)[0].split()]
    assert sorted(mine + theirs) == list(range(280))
    assert log.size == 280
    assert log.entry(279)["index"] == 279
    assert fsck(log.directory, keys.log_public).is_clean


def test_one_log_is_not_made_twice(log: Log, keys: KeyRing, tmp_path: Path) -> None:
    with pytest.raises(LogUnavailableError, match="never overwritten"):
        Log.create(log.directory, keys.log_key, ORIGIN)
    with pytest.raises(LogUnavailableError):
        Log.open(tmp_path / "nothing", keys.log_key, ORIGIN)
    with pytest.raises(CheckpointError):
        Log.open(log.directory, keys.log_key, "placet.test/other")
    with pytest.raises(CheckpointError):
        Log.open(log.directory, keys.permit_key, ORIGIN)


@pytest.mark.parametrize("step", range(8))
def test_a_full_disk_costs_only_what_was_refused(
    log: Log, keys: KeyRing, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ENOSPC at each write and fsync of an append: refused, and afterwards everything goes on."""
    for n in range(3):
        log.append("test", {"n": n})
    calls = 0

    def failing(real):  # type: ignore[no-untyped-def]
        def call(*args, **kwargs):  # type: ignore[no-untyped-def]
            nonlocal calls
            calls += 1
            if calls == step + 1:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return real(*args, **kwargs)

        return call

    with monkeypatch.context() as patch:
        for name in ("write", "fsync", "fdatasync"):
            patch.setattr(os, name, failing(getattr(os, name)))
        if step < 6:
            with pytest.raises(LogUnavailableError, match="Nothing is released"):
                log.append("refused", {})
        else:
            log.append("accepted", {})
    evidence = log.append("after", {})
    verify_evidence(evidence, keys.log_public)
    kinds = [entry["kind"] for entry in log.entries(0)]
    assert kinds[:3] == ["test"] * 3 and kinds[-1] == "after"
    assert fsck(log.directory, keys.log_public).is_clean


def test_a_log_rewritten_under_a_running_process(log: Log, keys: KeyRing, tmp_path: Path, clock: Clock) -> None:
    """Another history, validly signed and of the same length, put in place while the log is open."""
    for n in range(3):
        log.append("test", {"n": n})
    forged = Log.create(tmp_path / "forged", keys.log_key, ORIGIN, now=clock)
    for n in range(4):
        forged.append("test", {"n": n * 2})
    (tmp_path / "log").rename(tmp_path / "away")
    (tmp_path / "forged").rename(tmp_path / "log")
    with pytest.raises(LogCorruptError, match="rewritten"):
        log.append("test", {})


def test_a_changed_entry_stops_the_log(log: Log, keys: KeyRing) -> None:
    for n in range(5):
        log.append("test", {"n": n})
    path = log.directory / "tile/entries/000.p/5"
    path.write_bytes(path.read_bytes().replace(b'{"n":3}', b'{"n":4}'))
    with pytest.raises(LogCorruptError, match="Entry 3"):
        Log.open(log.directory, keys.log_key, ORIGIN)
