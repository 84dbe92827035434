"""Others check our log: Go's sumdb (note, tlog) reads the export, pymerkle computes the root. Nothing of ours helps."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pytest
from pymerkle import InmemoryTree

from policy.bundle import export_bundle
from policy.canonical import canonical_json
from policy.cosignature import write_request
from policy.errors import WitnessError
from policy.fsck import fsck, verify_bundle
from policy.keys import KeyRing
from policy.log import Log
from policy.note import verifier_key
from policy.tiles import ENTRIES, encode_entry, split_bundle, tiles_of
from policy.witness import Witness
from tests.simulators.tlogverify import refusal, verify

from .conftest import ORIGIN, Clock

NUM_ENTRIES = 700
PROVEN = "0,1,255,256,511,512,699"


@pytest.fixture
def grown(log: Log, tmp_path: Path) -> Log:
    """Three tiles of entries; the checkpoint of the first 300 is kept as `old`."""
    log.append_many([("test", {"n": n}) for n in range(300)])
    (tmp_path / "old").write_text(log.checkpoint())
    log.append_many([("test", {"n": n}) for n in range(300, NUM_ENTRIES)])
    return log


def rewritten(bundle: Path, changes: dict[str, bytes]) -> Path:
    """A copy of a bundle with other files in it, as a plain tar."""
    copy = bundle.with_suffix(".rewritten.tar")
    with tarfile.open(bundle) as source, tarfile.open(copy, "w") as target:
        for member in source:
            file = source.extractfile(member)
            assert file is not None
            data = changes.get(member.name, file.read())
            info = tarfile.TarInfo(member.name)
            info.size = len(data)
            target.addfile(info, io.BytesIO(data))
    return copy


@pytest.mark.needs("go")
def test_go_verifies_the_export(grown: Log, keys: KeyRing, tmp_path: Path, clock: Clock) -> None:
    witness = Witness.create(tmp_path / "witness", "witness.test/w1", clock)
    witness.watch(grown.verifier_key)
    note = grown.checkpoint()
    cosigned = note + witness.add_checkpoint(write_request(0, (), note))
    grown.append_many([("test", {"n": n}) for n in range(20)])
    bundle = tmp_path / "log.tar"
    export_bundle(grown, bundle, cosigned=cosigned)
    key = grown.verifier_key
    found = verify("bundle", vkey=key, bundle=bundle, old=tmp_path / "old", entries=PROVEN, witness=witness.key.text)
    assert (found["size"], found["old_size"], found["cosigned_size"]) == (NUM_ENTRIES + 20, 300, NUM_ENTRIES)
    assert found["proven"] == [int(text) for text in PROVEN.split(",")]
    assert found["cosigned_by"] == "witness.test/w1"
    # and so do we
    report = verify_bundle(bundle, grown.public_key, witnesses=[witness.key])
    assert report.is_clean and (report.cosigned_by, report.cosigned_size) == (("witness.test/w1",), NUM_ENTRIES)
    # another witness has not cosigned it
    other = Witness.create(tmp_path / "other", "witness.test/w1", clock)
    assert "has not cosigned" in refusal("bundle", vkey=key, bundle=bundle, witness=other.key.text)
    # another log's key opens nothing
    assert "checkpoint" in refusal("bundle", vkey=verifier_key(ORIGIN, keys.permit_public), bundle=bundle)


@pytest.mark.needs("go")
def test_go_refuses_what_was_changed(grown: Log, keys: KeyRing, tmp_path: Path, clock: Clock) -> None:
    bundle, key = tmp_path / "log.tar", grown.verifier_key
    export_bundle(grown, bundle)
    # a changed entry, a changed hash tile, a changed size
    entries = grown.tile("tile/entries/001")
    changed = rewritten(bundle, {"tile/entries/001": entries.replace(b'"n":300', b'"n":301')})
    assert "do not lead to the root" in refusal("bundle", vkey=key, bundle=changed)
    tile = bytearray(grown.tile("tile/0/001"))
    tile[100] ^= 1
    assert "tile/0/001" in refusal("bundle", vkey=key, bundle=rewritten(bundle, {"tile/0/001": bytes(tile)}))
    note = grown.checkpoint()
    shorter = rewritten(bundle, {"checkpoint": note.replace(f"\n{NUM_ENTRIES}\n", "\n699\n").encode()})
    assert "checkpoint" in refusal("bundle", vkey=key, bundle=shorter)
    cut = split_bundle(grown.tile("tile/entries/002.p/188"), 187)[0]
    fewer = rewritten(bundle, {"tile/entries/002.p/188": b"".join(map(encode_entry, cut))})
    assert "187 entries" in refusal("bundle", vkey=key, bundle=fewer)
    assert "no entry 700" in refusal("bundle", vkey=key, bundle=bundle, entries="700")
    # a forked history, validly signed by the log's own key and sound in itself
    fork = Log.create(tmp_path / "fork", keys.log_key, ORIGIN, now=clock)
    fork.append_many([("test", {"n": n if n != 17 else 18}) for n in range(NUM_ENTRIES)])
    forked = tmp_path / "fork.tar"
    export_bundle(fork, forked)
    assert verify("bundle", vkey=key, bundle=forked)["size"] == NUM_ENTRIES
    assert "does not continue" in refusal("bundle", vkey=key, bundle=forked, old=tmp_path / "old")
    # a log set back to before the older checkpoint
    short = Log.create(tmp_path / "short", keys.log_key, ORIGIN, now=clock)
    short.append_many([("test", {"n": n}) for n in range(200)])
    export_bundle(short, tmp_path / "short.tar")
    assert "fewer than" in refusal("bundle", vkey=key, bundle=tmp_path / "short.tar", old=tmp_path / "old")


@pytest.mark.needs("go")
@pytest.mark.parametrize("attack", ["rewritten", "truncated", "forked"])
def test_fsck_witness_and_outsiders_all_fail_a_tampered_log(
    grown: Log, keys: KeyRing, tmp_path: Path, clock: Clock, attack: str
) -> None:
    """By somebody who holds the log's key: each of these is sound in itself and validly signed."""
    witness = Witness.create(tmp_path / "witness", "witness.test/w1", clock)
    witness.watch(grown.verifier_key)
    kept = grown.checkpoint()
    witness.add_checkpoint(write_request(0, (), kept))
    sizes = {"rewritten": NUM_ENTRIES, "truncated": NUM_ENTRIES - 100, "forked": NUM_ENTRIES + 100}
    tampered = Log.create(tmp_path / "tampered", keys.log_key, ORIGIN, now=clock)
    changed = -1 if attack == "truncated" else 17
    tampered.append_many([("test", {"n": -n if n == changed else n}) for n in range(sizes[attack])])
    # (1) fsck, with a checkpoint that was kept
    assert fsck(tampered.directory, keys.log_public).is_clean
    assert not fsck(tampered.directory, keys.log_public, earlier_checkpoint=kept.encode()).is_clean
    # (2) the witness, which remembers
    old_size = min(NUM_ENTRIES, tampered.size)
    with pytest.raises(WitnessError):
        witness.add_checkpoint(
            write_request(old_size, tampered.consistency_proof(old_size, tampered.size), tampered.checkpoint())
        )
    # (3) somebody else's program
    bundle = tmp_path / "tampered.tar"
    export_bundle(tampered, bundle)
    (tmp_path / "kept").write_text(kept)
    assert refusal("bundle", vkey=grown.verifier_key, bundle=bundle, old=tmp_path / "kept")


@pytest.mark.needs("go")
def test_go_checks_the_proof_of_one_entry(grown: Log, tmp_path: Path) -> None:
    """The evidence that manifests carry."""
    entry, proof = tmp_path / "entry", tmp_path / "evidence.json"
    entry.write_bytes(canonical_json(grown.entry(437)))
    good = grown.evidence(437).to_json()
    key = grown.verifier_key

    def outcome(**changes: object) -> str:
        proof.write_text(json.dumps(good | changes))
        return refusal("evidence", vkey=key, evidence=proof, entry=entry)

    proof.write_text(json.dumps(good))
    assert verify("evidence", vkey=key, evidence=proof, entry=entry) == {"index": 437, "size": NUM_ENTRIES}
    assert "entry 436" in outcome(index=436)
    assert "another size" in outcome(tree_size=699)
    assert "checkpoint" in outcome(tree_size=699, checkpoint=good["checkpoint"].replace("\n700\n", "\n699\n"))
    assert "entry 437" in outcome(inclusion_proof=good["inclusion_proof"][:-1])
    assert "entry 437" in outcome(inclusion_proof=[*good["inclusion_proof"][1:], good["inclusion_proof"][0]])
    entry.write_bytes(entry.read_bytes().replace(b'"n":437', b'"n":438'))
    assert "entry 437" in outcome()


@pytest.mark.parametrize("size", [1, 2, 3, 255, 256, 257, 700])
def test_pymerkle_comes_to_the_same_root(grown: Log, size: int) -> None:
    tree = InmemoryTree(algorithm="sha256")
    for name in tiles_of(NUM_ENTRIES):
        if name.level == ENTRIES:
            for leaf in split_bundle(grown.tile(name.path), name.width)[0]:
                if tree.get_size() < size:
                    tree.append_entry(leaf)
    assert tree.get_root() == grown.root(size)
