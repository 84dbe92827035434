"""What the audit pages work out before they show it: drawings that lead to the root, rows, fields, differences."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from api.console.audit_view import diff_lines, draw_proof, fields_of, fired_rules, row_of, timeline_of
from policy.archive import PolicyTexts
from policy.decision import PolicyEngine
from policy.index import Bucket
from policy.log import Log

ALICE, CLIENT = "subject:" + "a" * 32, "client:" + "c" * 32


def test_a_drawn_proof_leads_to_the_root_and_covers_everything_once(tmp_path: Path) -> None:
    log = Log.create(tmp_path / "log", Ed25519PrivateKey.generate(), "drawn/log")
    notes = []
    for size in range(1, 41):
        log.append("test", {"n": size})
        notes.append(log.checkpoint())
    for size in (1, 2, 3, 7, 8, 31, 33, 40):
        for index in range(size):
            evidence = log.evidence_under(index, notes[size - 1])
            drawing = draw_proof(evidence)
            covered = sorted(n for step in drawing.steps for n in range(step.first, step.last + 1))
            assert covered == [n for n in range(size) if n != index]
            assert (drawing.steps[-1].node if drawing.steps else evidence.leaf_hash) == evidence.root_hash
            assert all(step.is_left == (step.last < index) for step in drawing.steps)
            heights = [step.y for step in drawing.steps]
            assert heights == sorted(heights, reverse=True) and (not heights or heights[-1] == drawing.root_y)


def test_rows_say_what_an_entry_is_about() -> None:
    refused = {
        "index": 4,
        "time": "2026-11-22T10:00:00.000Z",
        "kind": "decision",
        "body": {"allowed": False, "reasons": ["consent.missing"]},
    }
    row = row_of(refused, ("org:" + "0" * 32, CLIENT, ALICE, "speech:" + "1" * 32))
    assert (row.tone, row.reasons, row.names) == ("bad", ("consent.missing",), (ALICE, CLIENT))
    rejected = refused | {"kind": "token.rejected", "body": {"code": "token.expired"}}
    assert (row_of(rejected, ()).tone, row_of(rejected, ()).reasons) == ("bad", ("token.expired",))
    assert row_of(refused | {"kind": "something.new", "body": {}}, ()).tone == "quiet"


@pytest.mark.parametrize(
    ("name", "value", "shape"),
    [
        ("a", None, "none"),
        ("a", "", "none"),
        ("a", [], "none"),
        ("a", True, "yes"),
        ("a", False, "no"),
        ("a", ["x"], "list"),
        ("a", 7, "text"),
        ("expires_at", 1_790_000_000, "moment"),
        ("a", 1_790_000_000, "text"),
        ("a", ALICE, "name"),
        ("a", "0" * 64, "hash"),
        ("a", "render", "code"),
    ],
)
def test_fields_are_shown_by_what_they_are(name: str, value: object, shape: str) -> None:
    (field,) = fields_of({"outer": {name: value}})
    assert (field.path, field.shape) == (f"outer.{name}", shape)


def test_the_rules_behind_a_decision() -> None:
    engine = PolicyEngine.load()
    texts = PolicyTexts(engine.policy_sha256, engine.schema_text, engine.policy_text)
    (rule,) = fired_rules({"allowed": False, "reasons": ["consent.missing"]}, texts)
    assert rule.sentence and rule.text is not None and "forbid" in rule.text
    allowed = fired_rules({"allowed": True, "reasons": [], "request": {"action": "render"}}, texts)
    assert allowed and all("permit" in (rule.text or "") for rule in allowed)
    (unknown,) = fired_rules({"allowed": False, "reasons": ["rule.of.old"]}, texts)
    assert (unknown.sentence, unknown.text) == ("", None)
    assert [each.text for each in fired_rules({"allowed": False, "reasons": ["consent.missing"]}, None)] == [None]


def test_a_timeline_stays_within_its_frame() -> None:
    assert timeline_of([]) is None
    timeline = timeline_of([Bucket(1000.0 + n, n % 3, n % 2, 40 * (n == 5)) for n in range(30)])
    assert timeline is not None and timeline.most == 43
    for bar in timeline.bars:
        assert 0 <= bar.refused_y <= bar.allowed_y <= bar.other_y <= timeline.height
        assert 0 <= bar.x < bar.x + bar.width <= timeline.width


def test_lines_of_a_difference() -> None:
    lines = diff_lines(["--- old/x", "+++ new/x", "@@ -1 +1 @@", " same", "-gone", "+new"])
    assert [kind for kind, _ in lines] == ["hunk", "same", "del", "add"]
