"""A faster set of policies for what will be allowed: one forbid in place of thirty.

Most requests are allowed, and for those nobody asks which rule fired. A *screen* is made mechanically from the policies
of one action: the permits as they are, and all forbids as the conditions of a single one, joined by "or". Cedar's "or"
is false only if each part is false and none is in error. So if the screen allows without an error, the policies
themselves would; in every other case they are evaluated one by one, and say why.

Pure functions over Cedar's JSON policy format (docs.cedarpolicy.com/policies/json-format.html).
"""

from __future__ import annotations

import json
from typing import Any, Final

Policy = dict[str, Any]
Expression = dict[str, Any]

SCREEN_ID: Final = "screen"
_ANYTHING: Final = {"op": "All"}


def screen(policies: dict[str, Policy], action: dict[str, str]) -> dict[str, Policy]:
    """The screen of `policies` for requests of one action.

    Args:
        policies: by their ids, in Cedar's JSON format.
        action: type and id of the action.
    """
    kept: dict[str, Policy] = {}
    conditions: list[Expression] = []
    for name, policy in policies.items():
        named = _named_actions(policy["action"])
        if action in named:
            scoped = policy | {"action": _ANYTHING}
        elif named:
            continue  # of other actions
        else:
            scoped = policy
        if policy["effect"] == "forbid" and all(
            scoped[part] == _ANYTHING for part in ("principal", "action", "resource")
        ):
            conditions.append(_condition(policy))
        else:
            kept[name] = scoped
    if conditions:
        kept[SCREEN_ID] = {
            "effect": "forbid",
            "principal": _ANYTHING,
            "action": _ANYTHING,
            "resource": _ANYTHING,
            "conditions": [{"kind": "when", "body": _any_of(_grouped(conditions))}],
        }
    return kept


def _named_actions(scope: Expression) -> list[Expression]:
    """The actions that the scope of a policy names; none where it holds for all, or for a group of them."""
    if scope["op"] == "==":
        return [scope["entity"]]
    return list(scope["entities"]) if scope["op"] == "in" and "entities" in scope else []


def _condition(policy: Policy) -> Expression:
    """Conditions of a policy as one expression: those of "when", and not those of "unless"."""
    parts = [
        condition["body"] if condition["kind"] == "when" else {"!": {"arg": condition["body"]}}
        for condition in policy["conditions"]
    ]
    if not parts:
        return {"Value": True}
    whole, *rest = parts
    for part in rest:
        whole = {"&&": {"left": whole, "right": part}}
    return whole


def _grouped(conditions: list[Expression]) -> list[Expression]:
    """`a && b, a && c` as `a && (b || c)`: what several rules ask first is asked once."""
    groups: dict[str, tuple[Expression, list[Expression]]] = {}
    for nth, condition in enumerate(conditions):
        terms = _terms(condition)
        if len(terms) < 2:
            groups[f"alone {nth}"] = (condition, [])
            continue
        first, *rest = terms
        groups.setdefault(json.dumps(first, sort_keys=True), (first, []))[1].append(_all_of(rest))
    return [_all_of([first, _any_of(rests)]) if rests else first for first, rests in groups.values()]


def _terms(expression: Expression) -> list[Expression]:
    """The parts of `a && b && c`, from left to right."""
    if set(expression) != {"&&"}:
        return [expression]
    return [*_terms(expression["&&"]["left"]), *_terms(expression["&&"]["right"])]


def _all_of(expressions: list[Expression]) -> Expression:
    whole, *rest = expressions
    for expression in rest:
        whole = {"&&": {"left": whole, "right": expression}}
    return whole


def _any_of(expressions: list[Expression]) -> Expression:
    whole, *rest = expressions
    for expression in rest:
        whole = {"||": {"left": whole, "right": expression}}
    return whole
