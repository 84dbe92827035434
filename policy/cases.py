"""A table of cases for the policies: what must be refused for which reasons, and what must be allowed.

    {
      "base": {"request": {…}, "facts": {…, "consent": {…}},
               "driven": {"request": {…}, "consent": {…}, "driver": {…, "consent": {…}}}},
      "cases": [
        {"name": "…", "rule": "consent.expired", "facts": {"now": 5}, "consent": {"expires_at": 5},
         "expect": ["consent.expired"]},
        {"name": "…", "rule": "consent.expired", "consent": {"expires_at": 6}, "expect": []}
      ]
    }

Each case is the base, which is allowed, with some fields changed; `"consent": null` takes the consent away.
`driver` and `driver_consent` are about a driving clip: such a case is the base with the changes of `driven`, then its
own; `"driver": null` takes the driver away. `expect`
lists all reasons that must come back, none for allowed. `rule` says what the case is there for: a rule is covered by
one case that it refuses and one, for the same rule, that is allowed. The shipped table is `cedar/cases.json`; operators
keep theirs beside their rules.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from policy.decision import DEFAULT_DIRECTORY, DriverFacts, Facts, PolicyEngine, RenderRequest
from policy.errors import PolicySetError, ReplayError

CASES_FILE: Final = "cases.json"
DEFAULT_CASES: Final = DEFAULT_DIRECTORY / CASES_FILE
_CASE_FIELDS: Final = frozenset({"name", "rule", "request", "facts", "consent", "driver", "driver_consent", "expect"})


@dataclass(frozen=True)
class Case:
    """One row of the table."""

    name: str
    rule: str
    request: RenderRequest
    facts: Facts
    expect: tuple[str, ...]


@dataclass(frozen=True)
class CaseResult:
    """What the policies said to one case."""

    case: Case
    got: tuple[str, ...]

    @property
    def is_as_expected(self) -> bool:
        """The same reasons, all of them, in whatever order."""
        return set(self.got) == set(self.case.expect)

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return {
            "name": self.case.name,
            "rule": self.case.rule,
            "expected": sorted(self.case.expect),
            "got": list(self.got),
            "is_as_expected": self.is_as_expected,
        }


def load_cases(path: Path = DEFAULT_CASES) -> tuple[Case, ...]:
    """Read a table, JSON or, with PyYAML there, YAML.

    Raises: PolicySetError: not of this form; the sentence names the case.
    """
    try:
        text = path.read_text("utf-8")
        table = _yaml(text) if path.suffix in {".yaml", ".yml"} else json.loads(text)
        base, rows = table["base"], list(table["cases"])
        request, facts = RenderRequest.from_json(base["request"]), Facts.from_json(base["facts"])
        driven = _driven(base["driven"], request, facts) if "driven" in base else (request, facts)
    except ReplayError as exc:
        raise PolicySetError(f"The base of {path.name} is not a request with facts. {exc.sentence}") from exc
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise PolicySetError(
            f"{path.name} is not a table of cases ({type(exc).__name__}); see policy/cases.py."
        ) from exc
    return tuple(_case(row, *(driven if _is_driven(row) else (request, facts))) for row in rows)


def run_cases(engine: PolicyEngine, cases: Sequence[Case]) -> tuple[CaseResult, ...]:
    """Put every case to the policies."""
    return tuple(CaseResult(case, engine.decide(case.request, case.facts).codes) for case in cases)


def uncovered_rules(engine: PolicyEngine, cases: Sequence[Case]) -> tuple[str, ...]:
    """Rules that lack a case which they refuse, or one, named for them, that is allowed."""
    refusing = {code for case in cases for code in case.expect}
    allowing = {case.rule for case in cases if not case.expect}
    return tuple(code for code in engine.codes if code not in refusing or code not in allowing)


def _is_driven(row: Any) -> bool:
    return isinstance(row, dict) and bool({"driver", "driver_consent"} & set(row))


def _driven(changes: Mapping[str, Any], request: RenderRequest, facts: Facts) -> tuple[RenderRequest, Facts]:
    """The base with a driving clip. Raises: what `load_cases` turns into PolicySetError."""
    assert facts.consent is not None
    driver = Facts.from_json(facts.to_json() | {"driver": changes["driver"]}).driver
    consent = replace(facts.consent, **_values(changes["consent"]))
    return replace(request, **_values(changes["request"])), replace(facts, consent=consent, driver=driver)


def _case(row: Any, request: RenderRequest, facts: Facts) -> Case:
    name = row.get("name") if isinstance(row, dict) else None
    if not isinstance(name, str) or not set(row) <= _CASE_FIELDS or not isinstance(row.get("expect"), list):
        raise PolicySetError(f"The case {name or '(unnamed)'} needs a name and the list `expect`, and no other fields.")
    try:
        consent = facts.consent
        if "consent" in row:
            changes = row["consent"]
            consent = None if changes is None or consent is None else replace(consent, **_values(changes))
        driver = facts.driver
        if _is_driven(row):
            driver = _driver(row, driver)
        return Case(
            name,
            str(row.get("rule", "")),
            replace(request, **_values(row.get("request", {}))),
            replace(facts, consent=consent, driver=driver, **_values(row.get("facts", {}))),
            tuple(str(code) for code in row["expect"]),
        )
    except (TypeError, ValueError, AttributeError) as exc:
        raise PolicySetError(f"The case {name!r} changes a field that does not exist.") from exc


def _driver(row: Mapping[str, Any], driver: DriverFacts | None) -> DriverFacts | None:
    changes = row.get("driver", {})
    if changes is None or driver is None:
        return None
    driver = replace(driver, **_values(changes))
    consent_changes = row.get("driver_consent", {})
    if consent_changes is None or driver.consent is None:
        return replace(driver, consent=None)
    return replace(driver, consent=replace(driver.consent, **_values(consent_changes)))


def _values(changes: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in changes.items()}


def _yaml(text: str) -> Any:
    try:
        reader = importlib.import_module("yaml")
    except ModuleNotFoundError as exc:
        raise PolicySetError("To read YAML, install PyYAML; or write the table as JSON.") from exc
    try:
        return reader.safe_load(text)
    except reader.YAMLError as exc:
        raise ValueError("not YAML") from exc
