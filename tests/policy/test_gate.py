"""The gate and the instance: decide, log, permit, and no other way round."""

from __future__ import annotations

import errno
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from policy.canonical import canonical_json
from policy.consent import PURPOSE_EDUCATION
from policy.decision import Facts, RenderRequest
from policy.errors import EntryRefusedError, InstanceError, LogUnavailableError, PermitRefusedError
from policy.evidence import verify_evidence
from policy.fsck import fsck
from policy.gate import Gate
from policy.instance import Instance
from policy.keys import KeyRing
from policy.log import Log
from policy.permit import PermitLedger, PermitVerifier

from .conftest import CONTROLS, ORIGIN, PORTRAIT, SPEECH, START, Clock, hex_of

INPUTS: dict[str, Any] = {
    "worker": "worker-1",
    "portrait_sha256": hex_of(PORTRAIT),
    "speech_sha256": hex_of(SPEECH),
    "controls": CONTROLS,
    "mark_id": "00000000000000ff",
}


def test_from_request_to_grant(
    gate: Gate, keys: KeyRing, clock: Clock, request_: RenderRequest, facts: Facts, tmp_path: Path
) -> None:
    ruling = gate.rule(request_, facts)
    assert ruling.decision.allowed
    verify_evidence(ruling.evidence, keys.log_public, origin=ORIGIN, leaf=canonical_json(gate.log.entry(0)))
    token = gate.permit(ruling, **INPUTS)
    verifier = PermitVerifier(keys.permit_public, "worker-1", PermitLedger(tmp_path / "ledger"), clock)
    permit = verifier.redeem(token, portrait=PORTRAIT, speech=SPEECH, controls=CONTROLS).permit
    assert permit.decision_index == ruling.evidence.index == 0
    assert permit.consent_sha256 == facts.consent.sha256 if facts.consent else False
    assert (permit.issued_at, permit.expires_at) == (START, START + 60)
    assert permit.subject == keys.pseudonym("subject", "alice")


def test_refusals_are_logged_too(gate: Gate, request_: RenderRequest) -> None:
    ruling = gate.rule(request_, Facts())
    entry = gate.log.entry(ruling.evidence.index)
    assert entry["kind"] == "decision" and entry["body"]["allowed"] is False
    assert entry["body"]["reasons"] == list(ruling.decision.codes) != []
    with pytest.raises(PermitRefusedError, match="refused"):
        gate.permit(ruling, **INPUTS)


def test_the_log_names_nobody(gate: Gate, request_: RenderRequest, facts: Facts) -> None:
    gate.rule(request_, facts)
    gate.record("delivery", {"subject": gate.pseudonym("subject", "alice")})
    text = canonical_json(gate.log.entries(0)).decode()
    for personal in ("alice", "client-1", "uni", hex_of(PORTRAIT), hex_of(SPEECH)):
        assert f'"{personal}"' not in text
    assert gate.pseudonym("subject", "alice") in text


def test_the_clock_is_the_gates(gate: Gate, clock: Clock, request_: RenderRequest, facts: Facts) -> None:
    clock.now = START + 1000.9
    ruling = gate.rule(request_, replace(facts, now=START, vetting_expires_at=START + 5000))
    assert ruling.decision.codes == ("consent.expired",)
    assert ruling.facts.now == START + 1000


def test_a_ruling_made_by_hand_is_worth_nothing(gate: Gate, request_: RenderRequest, facts: Facts) -> None:
    """Allowed by whoever wrote it, but the log says otherwise, or nothing at all."""
    refused = gate.rule(request_, replace(facts, vetting="none"))
    allowed = gate.rule(request_, facts)
    other = gate.rule(replace(request_, purpose=PURPOSE_EDUCATION), facts)
    forged = [
        replace(refused, decision=allowed.decision),
        replace(allowed, evidence=refused.evidence),
        replace(allowed, evidence=other.evidence),
        replace(allowed, evidence=None),
        replace(allowed, evidence=replace(allowed.evidence, index=0)),
        replace(allowed, evidence=replace(allowed.evidence, checkpoint="")),
        replace(allowed, request=replace(request_, purpose=PURPOSE_EDUCATION)),
        replace(allowed, request=replace(request_, subject_id="bob")),
        replace(allowed, facts=replace(facts, vetting_expires_at=0)),
    ]
    for ruling in forged:
        with pytest.raises(PermitRefusedError):
            gate.permit(ruling, **INPUTS)
    gate.permit(allowed, **INPUTS)


def test_a_ruling_of_another_log(
    gate: Gate, keys: KeyRing, clock: Clock, request_: RenderRequest, facts: Facts, tmp_path: Path
) -> None:
    gate.rule(request_, facts)
    other_keys = KeyRing.create(tmp_path / "other-keys")
    other_log = Log.create(tmp_path / "other-log", other_keys.log_key, ORIGIN, now=clock)
    foreign = Gate(gate.engine, other_log, other_keys, clock).rule(request_, facts)
    with pytest.raises(PermitRefusedError, match="prove"):
        gate.permit(foreign, **INPUTS)


@pytest.mark.parametrize(
    "change",
    [
        {"portrait_sha256": "0" * 64},
        {"speech_sha256": "0" * 64},
        {"controls": CONTROLS | {"seed": 8}},
        {"controls": {}},
    ],
    ids=str,
)
def test_only_what_was_decided_on(gate: Gate, request_: RenderRequest, facts: Facts, change: dict[str, Any]) -> None:
    ruling = gate.rule(request_, facts)
    with pytest.raises(PermitRefusedError, match="inputs"):
        gate.permit(ruling, **INPUTS | change)
    gate.permit(ruling, **INPUTS)


def test_one_ruling_one_permit(gate: Gate, request_: RenderRequest, facts: Facts) -> None:
    ruling = gate.rule(request_, facts)
    gate.permit(ruling, **INPUTS)
    with pytest.raises(PermitRefusedError, match="already"):
        gate.permit(ruling, **INPUTS)


@pytest.mark.parametrize("later", [61, 1000, -1])
def test_an_old_ruling(gate: Gate, clock: Clock, request_: RenderRequest, facts: Facts, later: int) -> None:
    ruling = gate.rule(request_, facts)
    clock.now = START + later
    with pytest.raises(PermitRefusedError, match="too old"):
        gate.permit(ruling, **INPUTS)


def test_no_log_no_permit(gate: Gate, request_: RenderRequest, facts: Facts, monkeypatch: pytest.MonkeyPatch) -> None:
    earlier = gate.rule(request_, facts)

    def full(*arguments: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(LogUnavailableError):
            gate.rule(request_, facts)
        with pytest.raises(LogUnavailableError):
            gate.record("delivery", {})
    (gate.log.directory / "checkpoint").rename(gate.log.directory / "gone")
    with pytest.raises(PermitRefusedError):
        gate.permit(earlier, **INPUTS)
    with pytest.raises(LogUnavailableError):
        gate.rule(request_, facts)


def test_decisions_cannot_be_recorded_by_hand(gate: Gate) -> None:
    with pytest.raises(EntryRefusedError):
        gate.record("decision", {"allowed": True})


# ------------------------------------------------------------------------------------------------------------ instance


def test_an_instance(tmp_path: Path, clock: Clock, request_: RenderRequest, facts: Facts) -> None:
    made = Instance.create(tmp_path / "deep" / "home", "demo", now=clock)
    assert made.gate.rule(request_, facts).decision.allowed
    again = Instance.open(tmp_path / "deep" / "home", now=clock)
    assert (again.name, again.origin, again.log.size) == ("demo", "demo.placet.local/log", 2)
    assert again.log.entry(0)["kind"] == "instance.created"
    assert fsck(again.home / "log", again.keys.log_public).is_clean
    assert again.pki == again.home / "pki" and again.ledger_path.parent == again.home
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["home"]


def test_an_instance_is_never_overwritten(tmp_path: Path) -> None:
    Instance.create(tmp_path / "home", "demo")
    for occupied in (tmp_path / "home", tmp_path, Path(__file__)):
        with pytest.raises(InstanceError):
            Instance.create(occupied, "demo")
    (tmp_path / "empty").mkdir()
    assert Instance.create(tmp_path / "empty", "demo").name == "demo"


def test_a_failed_creation_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("policy.instance.write_atomically", full)
    with pytest.raises(InstanceError):
        Instance.create(tmp_path / "home", "demo")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["", "Demo", "a b", "-a", "a-", "x" * 64, "../x", "ä"])
def test_names_of_instances(tmp_path: Path, name: str) -> None:
    with pytest.raises(InstanceError):
        Instance.create(tmp_path / "home", name)


def test_no_instance_or_a_damaged_one(tmp_path: Path) -> None:
    with pytest.raises(InstanceError, match="placet init"):
        Instance.open(tmp_path)
    Instance.create(tmp_path / "home", "demo")
    for text in ("", "[]", "{}", "\xff", json.dumps({"layout": 2, "name": "demo", "origin": "x"})):
        (tmp_path / "home/instance.json").write_text(text, "latin-1")
        with pytest.raises(InstanceError):
            Instance.open(tmp_path / "home")


# ------------------------------------------------------------------------------------------------------------ the clock


def test_a_clock_set_back(
    gate: Gate, log: Log, keys: KeyRing, clock: Clock, request_: RenderRequest, facts: Facts
) -> None:
    """Refused with a name for as long as the clock is behind, in this process and in the next; until it is accepted."""
    assert gate.rule(request_, facts).decision.allowed
    clock.now = START - 5
    assert gate.rule(request_, facts).decision.allowed  # clocks are slewed
    clock.now = START - 6
    ruling = gate.rule(request_, facts)
    assert ruling.decision.codes == ("clock.regressed",) and ruling.facts.clock_back_s == 6
    again = Gate(gate.engine, log, keys, clock)
    assert again.rule(request_, facts).decision.codes == ("clock.regressed",)
    evidence = again.accept_clock()
    assert log.entry(evidence.index)["body"] == {"behind_s": 6}
    assert again.rule(request_, facts).decision.allowed
    assert Gate(gate.engine, log, keys, clock).rule(request_, facts).decision.allowed
    # an auditor sees the jump in the times of the entries, whatever was accepted
    times = [entry["time"] for entry in log.entries(0)]
    assert times != sorted(times)


def test_a_clock_behind_the_log(
    log: Log, keys: KeyRing, gate: Gate, clock: Clock, request_: RenderRequest, facts: Facts
) -> None:
    """A restart does not make the past forget itself."""
    clock.now = START + 86_400
    log.append("test", {})
    clock.now = START
    decision = Gate(gate.engine, log, keys, clock).rule(request_, facts).decision
    assert decision.codes == ("clock.regressed",)


def test_many_refusals_do_not_bury_what_was_known(
    log: Log, keys: KeyRing, gate: Gate, clock: Clock, request_: RenderRequest, facts: Facts
) -> None:
    gate.rule(request_, facts)
    clock.now = START - 60
    for _ in range(260):
        gate.rule(request_, facts)
    decision = Gate(gate.engine, log, keys, clock).rule(request_, facts).decision
    assert decision.codes == ("clock.regressed",)
