"""The shipped table of cases, and tables that are none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from policy.cases import DEFAULT_CASES, load_cases, run_cases, uncovered_rules
from policy.decision import PolicyEngine
from policy.errors import PolicySetError

from .test_decision import POLICIES, SCHEMA, oracle

CASES = load_cases()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_each_case(case: Any, engine: PolicyEngine) -> None:
    (result,) = run_cases(engine, [case])
    assert result.is_as_expected, result.to_json()
    assert oracle(case.request, case.facts) == set(case.expect)


def test_every_rule_has_a_refusing_and_an_allowing_case(engine: PolicyEngine) -> None:
    assert uncovered_rules(engine, CASES) == ()
    own = '@id("house.quiet")\n@says("Not on this system.")\nforbid (principal, action, resource);\n'
    assert uncovered_rules(PolicyEngine(SCHEMA, POLICIES + own), CASES) == ("house.quiet",)


def test_a_rule_that_was_lost_is_noticed() -> None:
    toothless = POLICIES.replace("when { resource.erased }", "when { false }")
    wrong = [each for each in run_cases(PolicyEngine(SCHEMA, toothless), CASES) if not each.is_as_expected]
    assert [each.case.rule for each in wrong] == ["subject.erased"]


def test_yaml(tmp_path: Path) -> None:
    yaml = pytest.importorskip("yaml")
    (tmp_path / "cases.yaml").write_text(yaml.safe_dump(json.loads(DEFAULT_CASES.read_text())))
    assert load_cases(tmp_path / "cases.yaml") == CASES
    (tmp_path / "cases.yaml").write_text("a: [")
    with pytest.raises(PolicySetError):
        load_cases(tmp_path / "cases.yaml")


@pytest.mark.parametrize(
    "change",
    [
        {"cases": 5}, {"base": {}}, {"base": {"request": {}, "facts": {}}}, {"cases": [5]}, {"cases": [{"name": "x"}]},
        {"cases": [{"name": "x", "expect": [], "more": 1}]},
        {"cases": [{"name": "x", "expect": [], "facts": {"y": 1}}]},
        {"cases": [{"name": "x", "expect": [], "request": 5}]}, {"cases": [{"name": "x", "expect": "y"}]},
        {"cases": [{"name": "x", "expect": [], "facts": {"consent": {}}}]},
    ],
    ids=str,
)  # fmt: skip
def test_tables_that_are_none(tmp_path: Path, change: dict[str, Any]) -> None:
    (tmp_path / "cases.json").write_text(json.dumps(json.loads(DEFAULT_CASES.read_text()) | change))
    with pytest.raises(PolicySetError):
        load_cases(tmp_path / "cases.json")
