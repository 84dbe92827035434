"""The witness: cosigns what extends, refuses everything else by name, and remembers across restarts."""

from __future__ import annotations

import base64
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.cosignature import (
    WitnessKey,
    cosignatures,
    parse_request,
    parse_response,
    require_cosignatures,
    verify_cosignature,
    with_cosignatures,
    write_request,
)
from policy.errors import (
    CheckpointError,
    WitnessConflictError,
    WitnessMalformedError,
    WitnessOriginError,
    WitnessProofError,
    WitnessRequiredError,
    WitnessSignatureError,
    WitnessSplitViewError,
    WitnessStateError,
)
from policy.evidence import verify_evidence
from policy.keys import KeyRing
from policy.log import Log
from policy.note import sign_checkpoint, split_note, verifier_key
from policy.witness import Witness

from .conftest import ORIGIN, START, Clock

NAME = "witness.test/w1"


@pytest.fixture
def witness(tmp_path: Path, log: Log, clock: Clock) -> Witness:
    made = Witness.create(tmp_path / "witness", NAME, clock)
    made.watch(log.verifier_key)
    return made


def grow(log: Log, num: int) -> str:
    log.append_many([("test", {"n": n}) for n in range(num)])
    return log.checkpoint()


def request(log: Log, old_size: int, note: str | None = None) -> bytes:
    note = log.checkpoint() if note is None else note
    new_size = int(note.split("\n")[1])
    return write_request(old_size, log.consistency_proof(old_size, new_size), note)


def test_a_growing_log_is_cosigned(witness: Witness, log: Log, clock: Clock) -> None:
    old_size = 0
    for num in (0, 1, 4, 250, 10):
        note = grow(log, num) if num else log.checkpoint()
        line = witness.add_checkpoint(request(log, old_size))
        cosigned = note + line
        (found,) = cosignatures(cosigned.encode(), [witness.key])
        assert (found.name, found.time_s) == (NAME, START)
        old_size = log.size
        # asking again for the same checkpoint is answered again
        assert witness.add_checkpoint(request(log, old_size)) == line
    (watched,) = witness.watched()
    assert watched.latest is not None and watched.latest.size == log.size
    assert [line.name for line in split_note(watched.latest_note.encode())[1]] == [ORIGIN, NAME]
    # evidence under a cosigned checkpoint is evidence like any other
    evidence = log.evidence_under(3, watched.latest_note)
    assert verify_evidence(evidence, log.public_key, origin=ORIGIN).size == log.size
    assert require_cosignatures(evidence.checkpoint.encode(), [witness.key], 1)


def test_what_is_refused_and_why(witness: Witness, log: Log, keys: KeyRing, tmp_path: Path, clock: Clock) -> None:
    grow(log, 5)
    witness.add_checkpoint(request(log, 0))
    grow(log, 4)
    good = request(log, 5)
    # an unknown origin, a key that is not the log's
    with pytest.raises(WitnessOriginError):
        witness.add_checkpoint(write_request(0, (), sign_checkpoint("placet.test/other", 1, bytes(32), keys.log_key)))
    with pytest.raises(WitnessSignatureError):
        witness.add_checkpoint(write_request(5, (), sign_checkpoint(ORIGIN, 9, bytes(32), keys.permit_key)))
    changed = good.replace(b"\n9\n", b"\n8\n")
    with pytest.raises(WitnessSignatureError):
        witness.add_checkpoint(changed)
    # a start that is not where the witness stands; it says where that is
    for old_size in (0, 3):
        with pytest.raises(WitnessConflictError) as conflict:
            witness.add_checkpoint(request(log, old_size))
        assert conflict.value.size == 5
    # rollback: a smaller checkpoint, validly signed
    small = sign_checkpoint(ORIGIN, 3, log.root(3), keys.log_key)
    with pytest.raises(WitnessMalformedError, match="rollback"):
        witness.add_checkpoint(write_request(5, (), small))
    with pytest.raises(WitnessConflictError):
        witness.add_checkpoint(write_request(3, (), small))
    assert witness.num_refused() == 0
    # a fork, validly signed: of the same size, and of a larger one, with the best proof that it can have
    fork = Log.create(tmp_path / "fork", keys.log_key, ORIGIN, now=clock)
    fork.append_many([("test", {"n": n * 2}) for n in range(5)])
    with pytest.raises(WitnessSplitViewError):
        witness.add_checkpoint(request(fork, 5))
    fork.append_many([("test", {"n": n}) for n in range(4)])
    with pytest.raises(WitnessProofError):
        witness.add_checkpoint(request(fork, 5))
    with pytest.raises(WitnessProofError):
        witness.add_checkpoint(write_request(5, (), log.checkpoint()))
    assert witness.num_refused() == 3, "requests that contradict are proof, and kept"
    # none of this moved it
    assert witness.add_checkpoint(good)


def test_it_remembers_across_restarts_and_processes(witness: Witness, log: Log, clock: Clock) -> None:
    grow(log, 5)
    witness.add_checkpoint(request(log, 0))
    again = Witness.open(witness.directory, clock)
    assert again.key.text == witness.key.text
    with pytest.raises(WitnessConflictError):
        again.add_checkpoint(request(log, 0))
    grow(log, 1)
    again.add_checkpoint(request(log, 5))
    with pytest.raises(WitnessConflictError):
        witness.add_checkpoint(request(log, 5))


def test_only_one_of_two_at_once_is_cosigned(witness: Witness, log: Log) -> None:
    """The race that the specification warns of: whoever comes second starts from the wrong size."""
    grow(log, 3)
    notes = [log.checkpoint(), grow(log, 2), grow(log, 2), grow(log, 2)]
    outcomes: list[str] = []

    def ask(note: str) -> None:
        try:
            witness.add_checkpoint(request(log, 0, note))
            outcomes.append("cosigned")
        except WitnessConflictError:
            outcomes.append("conflict")

    threads = [threading.Thread(target=ask, args=(note,)) for note in notes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["conflict"] * 3 + ["cosigned"]


def test_damaged_state_cosigns_nothing(witness: Witness, log: Log, clock: Clock) -> None:
    grow(log, 5)
    witness.add_checkpoint(request(log, 0))
    (latest,) = (witness.directory / "latest").iterdir()
    latest.write_bytes(latest.read_bytes().replace(b"\n5\n", b"\n4\n"))
    with pytest.raises(WitnessStateError):
        witness.add_checkpoint(request(log, 5))
    (witness.directory / "witness.json").write_bytes(b"{}")
    for directory in (witness.directory, witness.directory / "nowhere"):
        with pytest.raises(WitnessStateError):
            Witness.open(directory, clock)
    with pytest.raises(WitnessStateError, match="never overwritten"):
        Witness.create(witness.directory, NAME, clock)


def test_a_full_disk_gives_no_cosignature(witness: Witness, log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    grow(log, 5)

    def full(*_args: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(WitnessStateError, match="nothing is cosigned"):
            witness.add_checkpoint(request(log, 0))
    assert witness.watched()[0].latest is None
    assert witness.add_checkpoint(request(log, 0))


def test_a_rotated_log_key_goes_on(witness: Witness, log: Log, keys: KeyRing) -> None:
    grow(log, 2)
    witness.add_checkpoint(request(log, 0))
    new_key = keys.permit_key
    rotated = sign_checkpoint(ORIGIN, 2, log.root(2), new_key)
    with pytest.raises(WitnessSignatureError):
        witness.add_checkpoint(write_request(2, (), rotated))
    witness.watch(verifier_key(ORIGIN, keys.permit_public))
    witness.add_checkpoint(write_request(2, (), rotated))


def test_cosignatures_bind_time_text_and_key(witness: Witness, log: Log, clock: Clock, tmp_path: Path) -> None:
    note = grow(log, 3)
    text, _ = split_note(note.encode())
    (line,) = parse_response(witness.add_checkpoint(request(log, 0)).encode())
    assert verify_cosignature(text, line, witness.key).time_s == START
    other = Witness.create(tmp_path / "other", "witness.test/w2", clock)
    with pytest.raises(CheckpointError):
        verify_cosignature(text, line, other.key)
    with pytest.raises(CheckpointError):
        verify_cosignature(text.replace("\n3\n", "\n2\n"), line, witness.key)
    for nth in range(len(line.signature)):
        flipped = bytearray(line.signature)
        flipped[nth] ^= 1
        with pytest.raises(CheckpointError):
            verify_cosignature(text, type(line)(line.name, line.key_id, bytes(flipped)), witness.key)
    # signatures of strangers count for nothing, and too few are too few
    cosigned = with_cosignatures(note, [line])
    assert cosignatures(cosigned.encode(), [other.key]) == ()
    with pytest.raises(WitnessRequiredError):
        require_cosignatures(cosigned.encode(), [witness.key, other.key], 2)
    with pytest.raises(WitnessRequiredError):
        require_cosignatures(with_cosignatures(cosigned, [line]).encode(), [witness.key], 2)
    assert WitnessKey.parse(witness.key.text) == WitnessKey(NAME, witness.key.public_key)
    with pytest.raises(CheckpointError):
        WitnessKey.parse(log.verifier_key)


@given(
    st.integers(0, 2**63 - 1),
    st.lists(st.binary(min_size=32, max_size=32), max_size=63),
    st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1),
)
def test_requests_read_back(old_size: int, proof: list[bytes], note: str) -> None:
    assert parse_request(write_request(old_size, proof, note)) == (old_size, tuple(proof), note.encode())


@given(st.binary(max_size=400))
def test_requests_are_ours_or_refused(body: bytes) -> None:
    for candidate in (body, b"old 1\n" + body, b"old 1\n" + base64.b64encode(body) + b"\n\nx"):
        try:
            old_size, proof, note = parse_request(candidate)
        except WitnessMalformedError:
            continue
        assert write_request(old_size, proof, note.decode("latin-1")).startswith(b"old ")


def test_malformed_requests(witness: Witness) -> None:
    for body in (b"", b"old 1", b"old 01\n\nx", b"old -1\n\nx", b"old 1\n\n", b"old 1\nAAAA\n\nx", b"x" * 70_000):
        with pytest.raises((WitnessMalformedError, WitnessOriginError)):
            witness.add_checkpoint(body)
    long = b"old 1\n" + (base64.b64encode(bytes(32)) + b"\n") * 64 + b"\nx"
    with pytest.raises(WitnessMalformedError, match="63"):
        witness.add_checkpoint(long)
