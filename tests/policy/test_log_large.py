"""A log of a million entries: any proof of it verifies, every byte is as signed, and others agree. Minutes long."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from policy.bundle import export_bundle
from policy.canonical import canonical_json
from policy.evidence import verify_evidence
from policy.fsck import fsck
from policy.index import EntryIndex, Query
from policy.log import Log
from policy.merkle import verify_consistency
from policy.note import verify_checkpoint
from tests.conftest import PRESENT
from tests.simulators.tlogverify import verify

from .conftest import ORIGIN

NUM_ENTRIES = 1_000_000
CLIENT = "client:" + "c" * 32


@pytest.mark.heavy
def test_a_million_entries(tmp_path: Path) -> None:
    key = Ed25519PrivateKey.generate()
    log = Log.create(tmp_path / "log", key, ORIGIN)
    rng = random.Random(20261122)
    checkpoints = []
    while (size := log.size) < NUM_ENTRIES:
        numbers = range(size, min(size + 2040, NUM_ENTRIES))
        log.append_many([("test", {"n": n} if n % 1000 else {"n": n, "client": CLIENT}) for n in numbers])
        if rng.random() < 0.02:
            checkpoints.append(log.checkpoint())
    # any entry, found by a process that has just opened the log
    log = Log.open(tmp_path / "log", key, ORIGIN)
    for index in [0, NUM_ENTRIES - 1, *(rng.randrange(NUM_ENTRIES) for _ in range(500))]:
        verify_evidence(log.evidence(index), log.public_key, origin=ORIGIN, leaf=canonical_json(log.entry(index)))
    # every checkpoint on the way is contained
    newest = verify_checkpoint(log.checkpoint().encode(), log.public_key)
    assert newest.size == NUM_ENTRIES and checkpoints
    for note in checkpoints:
        old = verify_checkpoint(note.encode(), log.public_key)
        proof = log.consistency_proof(old.size, newest.size)
        verify_consistency(old.size, old.root, newest.size, newest.root, proof)
    assert fsck(tmp_path / "log", log.public_key).is_clean
    # the index beside it
    index_file = EntryIndex(tmp_path / "index.sqlite3", log)
    assert index_file.catch_up() == NUM_ENTRIES
    assert index_file.search(Query(names=(CLIENT,))).total == NUM_ENTRIES // 1000
    index_file.close()
    # and somebody else's verifier over the export
    if PRESENT["go"]():
        bundle, old_note = tmp_path / "log.tar", tmp_path / "old"
        export_bundle(log, bundle)
        old_note.write_text(checkpoints[0])
        entries = ",".join(str(rng.randrange(NUM_ENTRIES)) for _ in range(20))
        found = verify("bundle", vkey=log.verifier_key, bundle=bundle, old=old_note, entries=entries)
        assert found["size"] == NUM_ENTRIES and len(found["proven"]) == 20
    shutil.rmtree(tmp_path / "log")
