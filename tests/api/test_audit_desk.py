"""The auditor's desk, over HTTP and by command: search, replay, policies, break glass, other histories, alarms."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from api.audit import REVEAL_KIND, SPLIT_VIEW_KIND, desk_for
from api.cli.root import app
from api.client import Enrolled, PlacetClient, ProblemError
from api.settings import Settings
from api.setup import create_instance
from policy.consent import PURPOSE_RESEARCH
from policy.decision import DEFAULT_DIRECTORY, POLICY_FILE, Facts, RenderRequest
from policy.identity import SCOPE_RENDER_CREATE, Actor
from policy.instance import Instance
from policy.note import sign_checkpoint
from tests.api.conftest import Running


def get(client: PlacetClient, path: str, /, **params: object) -> dict[str, Any]:
    return client._json("GET", f"/v1/audit/{path}", "audit:read", params=params)


def post(client: PlacetClient, path: str, body: object | None = None) -> dict[str, Any]:
    return client._json("POST", f"/v1/audit/{path}", "audit:read", json=body)


def ruling(gate: Any, subject: str = "nobody") -> int:
    """A refused decision about somebody; returns its index."""
    actor = Actor("client-1", "uni", frozenset({SCOPE_RENDER_CREATE}))
    request = RenderRequest.of(
        actor,
        subject_id=subject,
        portrait_sha256="0" * 64,
        speech_sha256="1" * 64,
        controls={},
        purpose=PURPOSE_RESEARCH,
        duration_s=1.0,
    )
    return int(gate.rule(request, Facts()).evidence.index)


def test_search_by_everything(server: Running, auditor: PlacetClient) -> None:
    gate = server.service.gate
    index = ruling(gate, "sought")
    name = gate.pseudonym("subject", "sought")
    for params in (
        {"subject": name},
        {"subject": name, "client": gate.pseudonym("client", "client-1")},
        {"kind": "decision", "decision": "refused", "subject": name},
        {"reason": "subject.unknown", "subject": name, "policy": gate.engine.policy_sha256},
        {"since": "2020-01-01T00:00:00Z", "until": "2120-01-01T00:00:00+02:00", "subject": name},
    ):
        found = get(auditor, "search", **params)
        assert [entry["index"] for entry in found["entries"]] == [index], params
        assert found["total"] == 1 and found["next_before"] is None
    assert get(auditor, "search", subject=name, decision="allowed")["total"] == 0
    assert get(auditor, "search", subject=name, until="2020-01-01T00:00:00Z")["total"] == 0
    page = get(auditor, "search", limit=2)
    older = get(auditor, "search", limit=2, before=page["next_before"])
    assert page["entries"][-1]["index"] == older["entries"][0]["index"] + 1
    for bad in (
        {"since": "yesterday"},
        {"since": "2026-01-01T00:00:00"},
        {"since": "0001-01-01T00:00:00+14:00"},
        {"subject": "alice"},
        {"policy": "x"},
        {"decision": "perhaps"},
        {"limit": 0},
        {"before": 2**53},
    ):
        with pytest.raises(ProblemError) as refused:
            get(auditor, "search", **bad)
        assert refused.value.status == 400, bad


def test_a_decision_is_made_again(server: Running, auditor: PlacetClient) -> None:
    index = ruling(server.service.gate)
    logged = auditor.entry(index)["entry"]["body"]
    made = post(auditor, f"entries/{index}/replay")
    assert made["same"] is True and made["allowed"] is False
    assert [reason["code"] for reason in made["reasons"]] == logged["reasons"]
    assert made["policy_sha256"] == logged["policy_sha256"] and made["facts_sha256"] == logged["facts_sha256"]
    assert all(reason["sentence"] for reason in made["reasons"])
    with pytest.raises(ProblemError) as refused:
        post(auditor, "entries/0/replay")
    assert refused.value.status == 404


def test_policies_and_their_texts(server: Running, auditor: PlacetClient) -> None:
    current = server.service.gate.engine.policy_sha256
    assert [each["policy_sha256"] for each in get(auditor, "policies")["policies"] if each["current"]] == [current]
    texts = get(auditor, f"policies/{current}")
    assert texts["policy_text"] == server.service.gate.engine.policy_text
    assert get(auditor, f"policies/{current}/diff/{current}")["policies"] == []
    for missing in ("policies/" + "0" * 64, f"policies/{current}/diff/x"):
        with pytest.raises(ProblemError) as refused:
            get(auditor, missing)
        assert (refused.value.status, refused.value.code) == (404, "log.archive")


def test_looking_behind_a_pseudonym_is_logged_and_shown(
    server: Running, auditor: PlacetClient, subject: tuple[PlacetClient, Enrolled]
) -> None:
    person, enrolled = subject
    gate, reason = server.service.gate, "Complaint 2026/114: was this render agreed to?"
    name = gate.pseudonym("subject", enrolled.subject_id)
    found = post(auditor, "reveals", {"pseudonym": name, "reason": reason})
    assert (found["kind"], found["account_id"]) == ("subject", enrolled.subject_id)
    entry = server.service.log.entry(found["log_index"])
    assert entry["kind"] == REVEAL_KIND and entry["body"]["pseudonym"] == name and entry["body"]["found"] is True
    assert reason not in json.dumps(entry) and enrolled.subject_id not in json.dumps(entry)
    shown = [use for use in person.uses() if use["kind"] == REVEAL_KIND]
    assert [(use["purpose"], use["log_index"], use["org"]) for use in shown] == [
        (reason, found["log_index"], "university")
    ]
    client_id = auditor._credentials.client_id if hasattr(auditor, "_credentials") else ""
    if client_id:
        other = post(auditor, "reveals", {"pseudonym": gate.pseudonym("client", client_id), "reason": reason})
        assert (other["kind"], other["account_id"]) == ("auditor", client_id)
    # nobody there: said so, and on record all the same; no reason: nothing happens
    size = server.service.log.size
    with pytest.raises(ProblemError) as refused:
        post(auditor, "reveals", {"pseudonym": "subject:" + "0" * 32, "reason": reason})
    assert refused.value.status == 404 and server.kinds_since(size).count(REVEAL_KIND) == 1
    for body in (
        {"pseudonym": name, "reason": "why not"},
        {"pseudonym": name, "reason": " " * 40},
        {"pseudonym": name, "reason": "line\u0000feed and more of it"},
        {"pseudonym": enrolled.subject_id, "reason": reason},
        {"pseudonym": name},
    ):
        with pytest.raises(ProblemError) as refused:
            post(auditor, "reveals", body)
        assert refused.value.status == 400, body


def test_a_checkpoint_of_another_history_raises_an_alarm(server: Running, auditor: PlacetClient) -> None:
    log = server.service.log
    old = auditor.checkpoint()
    ruling(server.service.gate)
    assert post(auditor, "checkpoints", {"checkpoint": old})["consistent"] is True
    assert "log.split_view" not in {each["code"] for each in get(auditor, "alarms")["alarms"]}
    forged = sign_checkpoint(log.origin, 2, bytes(32), server.service.keys.log_key)
    found = post(auditor, "checkpoints", {"checkpoint": forged})
    assert found["consistent"] is False and log.entry(found["log_index"])["kind"] == SPLIT_VIEW_KIND
    ahead = sign_checkpoint(log.origin, log.size + 5, bytes(32), server.service.keys.log_key)
    assert "set back" in post(auditor, "checkpoints", {"checkpoint": ahead})["sentence"]
    alarms = [each for each in get(auditor, "alarms")["alarms"] if each["code"] == "log.split_view"]
    assert len(alarms) == 2 and alarms[-1]["index"] == found["log_index"]
    for bad in ("x", "ä", old.replace("\n", "\r\n"), old.replace(log.origin, "elsewhere/log")):
        with pytest.raises(ProblemError) as refused:
            post(auditor, "checkpoints", {"checkpoint": bad})
        assert refused.value.status == 400


def test_only_auditors(server: Running, researcher: PlacetClient, auditor: PlacetClient) -> None:
    for path in ("search", "alarms", "policies", "witnesses"):
        with pytest.raises(ProblemError) as refused:
            researcher._json("GET", f"/v1/audit/{path}", "audit:read")
        assert refused.value.status in (400, 401, 403)
    assert get(auditor, "witnesses") == {
        "witnesses": [],
        "required": 0,
        "checkpoint": None,
        "cosigned_size": 0,
        "lag_entries": 0,
        "lag_s": 0.0,
    }


# -- the command line


@pytest.fixture
def home(tmp_path: Path) -> Path:
    home = tmp_path / "home"
    create_instance(Settings(home=home), "desk")
    return home


def run(*arguments: str) -> tuple[int, dict[str, Any]]:
    result = CliRunner().invoke(app, [*arguments, "--json"])
    return result.exit_code, json.loads(result.stdout.strip().splitlines()[-1])


def test_the_commands(home: Path, tmp_path: Path) -> None:
    where = ("--home", str(home))
    old = Instance.open(home)
    index = ruling(old.gate)
    status, found = run("audit", "search", "--kind", "decision", "--decision", "refused", *where)
    assert status == 0 and [entry["index"] for entry in found["entries"]] == [index]
    assert run("audit", "search", "--since", "2100-01-01", *where)[1]["total"] == 0
    status, made = run("audit", "replay", str(index), *where)
    assert status == 0 and made["same"] and "subject.unknown" in {each["code"] for each in made["reasons"]}
    assert run("audit", "replay", "0", *where)[0] == 2
    # the operator changes a sentence: what was decided before is still repeated by what held then
    directory = tmp_path / "policies"
    shutil.copytree(DEFAULT_DIRECTORY, directory)
    policy = directory / POLICY_FILE
    policy.write_text(policy.read_text().replace('@says("', '@says("Sorry: ', 1))
    new = Instance.open(home, policies=directory)
    later = ruling(new.gate)
    for each in (index, later):
        assert run("audit", "replay", str(each), *where)[1]["same"] is True
    status, listed = run("audit", "diff", *where)
    assert status == 0 and len(listed["policies"]) == 2
    hashes = (old.engine.policy_sha256, new.engine.policy_sha256)
    status, changes = run("audit", "diff", hashes[0][:12], hashes[1][:12], *where)
    assert status == 0 and len(changes["changed"]) == 1 and not changes["added"]
    assert run("audit", "diff", "zz", *where)[0] == 2
    assert run("audit", "alarms", *where) == (0, {"alarms": []})


def test_a_clock_that_was_moved_raises_alarms_and_moves_no_epoch(home: Path) -> None:
    """Entries are numbered, not dated: order and epochs hold whatever the clock says, and the jump is an alarm."""
    moved = Instance.open(home, now=lambda: time.time() - 7200)
    index = moved.log.append("consent.revoked", {"epoch": 3}).index
    assert index == moved.log.size - 1
    status, found = run("audit", "alarms", "--home", str(home))
    assert status == 1 and [(each["code"], each["index"]) for each in found["alarms"]] == [("clock.back", index)]
    Instance.open(home, now=lambda: time.time() + 7200).log.append("consent.given", {"epoch": 4})
    desk = desk_for(home, time.time)
    assert [each.code for each in desk.alarms()] == ["clock.ahead", "clock.back"]
    assert [entry["body"].get("epoch") for entry in desk.log.entries(index)] == [3, 4]
    desk.close()
    status, report = run("audit", "verify", "--home", str(home))
    assert status == 0 and report["clean"]


def test_a_log_that_cannot_be_read_is_an_alarm(home: Path) -> None:
    desk = desk_for(home, time.time)
    (home / "log" / "checkpoint").write_text("gone")
    assert [each.code for each in desk.alarms()] == ["log.unreadable"]
    desk.close()
