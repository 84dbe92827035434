"""Rotation of an instance's keys: nothing stops, nothing old is lost, and the log says what happened."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from policy.bundle import export_bundle
from policy.decision import Facts, RenderRequest
from policy.errors import CheckpointError, KeyRingError, LogUnavailableError, PermitSignatureError
from policy.evidence import verify_evidence
from policy.fsck import fsck, verify_bundle
from policy.gate import Gate
from policy.instance import Instance
from policy.kms import public_kid
from policy.log import Log
from policy.note import split_note, verify_checkpoint
from policy.permit import PermitLedger, PermitVerifier
from policy.rotation import hand_over_notes, rotate_key

from .conftest import CONTROLS, PORTRAIT, SPEECH, Clock
from .test_gate import INPUTS


@pytest.fixture
def instance(tmp_path: Path, clock: Clock) -> Instance:
    return Instance.create(tmp_path / "home", "demo", now=clock)


@pytest.mark.parametrize("name", ["permit", "log", "oauth", "c2pa", "watermark", "subject-wrap", "weights-wrap"])
def test_each_rotation_is_logged(instance: Instance, name: str) -> None:
    rotated = rotate_key(instance, name)
    before, after = instance.log.entries(instance.log.size - (3 if name == "log" else 2), 2)
    assert (before["kind"], before["body"]) == ("key.rotating", {"key": name, "kid": rotated.rotation.old_kid})
    assert after["kind"] == "key.rotated" and after["index"] == rotated.log_index
    assert after["body"]["new_kid"] == rotated.rotation.new_kid != rotated.rotation.old_kid
    assert set(after["body"]) <= {"key", "old_kid", "new_kid", "public_sha256"}


def test_what_does_not_rotate(instance: Instance) -> None:
    size = instance.log.size
    for name in ("commitment", "nothing", ""):
        with pytest.raises(KeyRingError):
            rotate_key(instance, name)
    assert instance.log.size == size


def test_without_the_log_there_is_no_rotation(instance: Instance, monkeypatch: pytest.MonkeyPatch) -> None:
    before = instance.keys.service.describe()
    append, calls = Log.append, []

    def second_fails(log: Log, kind: str, body: dict[str, Any]) -> Any:
        calls.append(kind)
        if len(calls) > 1:
            raise LogUnavailableError("The log cannot be written.")
        return append(log, kind, body)

    monkeypatch.setattr(Log, "append", second_fails)
    with pytest.raises(LogUnavailableError):
        rotate_key(instance, "permit")
    assert instance.keys.service.describe() == before


def test_the_log_hands_over_under_two_signatures(instance: Instance, tmp_path: Path) -> None:
    old = instance.keys.log_public
    first = instance.log.append("test", {"n": 1})
    running = Instance.open(instance.home)  # another process
    rotate_key(instance, "log")
    new = instance.keys.log_public
    (note,) = hand_over_notes(instance)
    assert len(split_note(note.encode())[1]) == 2
    assert verify_checkpoint(note.encode(), old) == verify_checkpoint(note.encode(), new)
    # who was running signs with the new key from the next entry on, and alone
    last = running.log.append("test", {"n": 2})
    verify_evidence(last, new)
    with pytest.raises(CheckpointError):
        verify_evidence(last, old)
    # the past is signed by the key of the past
    with pytest.raises(CheckpointError):
        verify_evidence(first, new)
    verify_evidence(first, running.keys.log_publics)
    report = fsck(instance.home / "log", new)
    assert report.is_clean and report.size == running.log.size
    export_bundle(running.log, tmp_path / "audit.tar")
    assert verify_bundle(tmp_path / "audit.tar", new).is_clean
    assert Instance.open(instance.home).log.size == running.log.size


def test_a_log_that_stands_under_the_retired_key(instance: Instance) -> None:
    """A crash right after the switch: the newest checkpoint is signed by the old key, or by both."""
    checkpoint = (instance.home / "log" / "checkpoint").read_bytes()
    instance.keys.service.rotate("log")
    assert (instance.home / "log" / "checkpoint").read_bytes() == checkpoint
    again = Instance.open(instance.home)
    again.log.append("test", {})
    assert fsck(instance.home / "log", again.keys.log_public).is_clean


def test_a_changed_note_of_a_hand_over(instance: Instance) -> None:
    rotate_key(instance, "log")
    (path,) = (instance.home / "keys" / "handover").iterdir()
    path.write_bytes(path.read_bytes().replace(b"demo", b"dema"))
    with pytest.raises(CheckpointError):
        hand_over_notes(instance)


def test_permits_of_the_minute_before(
    instance: Instance, clock: Clock, request_: RenderRequest, facts: Facts, tmp_path: Path
) -> None:
    gate, keys = instance.gate, instance.keys
    old = keys.permit_key
    before, late = (gate.permit(gate.rule(request_, facts), **INPUTS) for _ in range(2))
    rotate_key(instance, "permit")
    after = gate.permit(gate.rule(request_, facts), **INPUTS)
    assert old.kid == keys.permit_key.kid  # who holds on to the key holds on to the current one
    retirements = [replace(each, at_s=clock.now) for each in keys.service.retirements("permit")]

    def verifier(ledger: str) -> PermitVerifier:
        return PermitVerifier(
            keys.permit_public, "worker-1", PermitLedger(tmp_path / ledger), clock, retired=retirements
        )

    inputs: dict[str, Any] = {"portrait": PORTRAIT, "speech": SPEECH, "controls": CONTROLS}
    verifier("a").redeem(before, **inputs)
    verifier("a").redeem(after, **inputs)
    clock.now += 66  # the retired key's word is worth nothing now, whatever the date in the permit says
    with pytest.raises(PermitSignatureError):
        verifier("b").redeem(late, **inputs)


def test_rotations_under_load(instance: Instance, request_: RenderRequest, facts: Facts) -> None:
    """Threads rule and take permits while every key of the gate is rotated: nobody is refused."""
    failures: list[BaseException] = []
    is_over = threading.Event()
    gate: Gate = Instance.open(instance.home, now=lambda: facts.now).gate

    def work() -> None:
        while not is_over.is_set():
            try:
                gate.permit(gate.rule(request_, facts), **INPUTS)
            except BaseException as exc:
                failures.append(exc)
                return

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for name in ("permit", "log", "permit", "log"):
        rotate_key(instance, name)
    is_over.set()
    for thread in threads:
        thread.join()
    assert not failures
    assert len({public_kid(key) for key in instance.keys.log_publics}) == 3
    assert fsck(instance.home / "log", instance.keys.log_public).is_clean
