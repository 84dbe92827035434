"""The archive of policy texts: kept for good, refused where changed, compared rule by rule, and replayed from."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from policy.archive import PolicyArchive, rules_of
from policy.decision import DEFAULT_DIRECTORY, POLICY_FILE, Facts, PolicyEngine, RenderRequest, replay
from policy.errors import ArchiveError
from policy.gate import Gate
from policy.keys import KeyRing
from policy.log import Log

from .conftest import Clock


@pytest.fixture
def archive(tmp_path: Path, engine: PolicyEngine) -> PolicyArchive:
    archive = PolicyArchive(tmp_path / "policies")
    archive.keep(engine)
    return archive


def stricter(tmp_path: Path) -> PolicyEngine:
    """The shipped policies with one sentence changed, and one rule more."""
    directory = tmp_path / "stricter"
    shutil.copytree(DEFAULT_DIRECTORY, directory)
    path = directory / POLICY_FILE
    text = path.read_text()
    rule = (
        '\n@id("house.closed")\n@says("Nothing is rendered this week; ask again on Monday.")\n'
        "forbid (principal, action, resource) when { context.now < 0 };\n"
    )
    first = next(iter(rules_of(text)))
    path.write_text(text.replace(f'@id("{first}")', f'// reviewed\n@id("{first}")') + rule)
    return PolicyEngine.load(directory)


def test_texts_are_kept_as_they_stood(archive: PolicyArchive, engine: PolicyEngine) -> None:
    assert archive.keep(engine) == engine.policy_sha256 and archive.known() == (engine.policy_sha256,)
    texts = archive.texts(engine.policy_sha256)
    assert (texts.schema_text, texts.policy_text) == (engine.schema_text, engine.policy_text)
    assert archive.engine(engine.policy_sha256).policy_sha256 == engine.policy_sha256
    for code in engine.codes:
        rule = texts.rule(code)
        assert rule is not None and rule.startswith(f'@id("{code}")') and rule.endswith(";")
    assert texts.rule("no.such.rule") is None


def test_changed_or_unknown_texts_are_refused(archive: PolicyArchive, engine: PolicyEngine) -> None:
    for name in ("0" * 64, "", "../keys", "x"):
        with pytest.raises(ArchiveError):
            archive.texts(name)
    path = archive.directory / engine.policy_sha256 / POLICY_FILE
    path.write_text(path.read_text() + " ")
    with pytest.raises(ArchiveError, match="changed"):
        archive.texts(engine.policy_sha256)


def test_a_difference_rule_by_rule(archive: PolicyArchive, engine: PolicyEngine, tmp_path: Path) -> None:
    other = stricter(tmp_path)
    archive.keep(other)
    diff = archive.diff(engine.policy_sha256, other.policy_sha256)
    assert (diff.added, diff.removed, diff.changed, diff.schema) == (("house.closed",), (), (), ())
    assert '+@id("house.closed")' in diff.policies and "+// reviewed" in diff.policies
    back = archive.diff(other.policy_sha256, engine.policy_sha256)
    assert (back.added, back.removed) == ((), ("house.closed",))
    same = archive.diff(engine.policy_sha256, engine.policy_sha256)
    assert same.policies == () and same.to_json()["added"] == []


def test_an_old_decision_is_replayed_after_the_policies_have_moved_on(
    archive: PolicyArchive,
    gate: Gate,
    log: Log,
    keys: KeyRing,
    clock: Clock,
    request_: RenderRequest,
    facts: Facts,
    tmp_path: Path,
) -> None:
    before = gate.rule(request_, facts)
    later = Gate(stricter(tmp_path), log, keys, clock)
    archive.keep(later.engine)
    after = later.rule(request_, facts)
    for ruling in (before, after):
        entry = log.entry(ruling.evidence.index)
        decision = replay(entry, archive.engine(entry["body"]["policy_sha256"]))
        assert (decision.allowed, decision.codes) == (ruling.decision.allowed, ruling.decision.codes)
    assert before.decision.policy_sha256 != after.decision.policy_sha256
