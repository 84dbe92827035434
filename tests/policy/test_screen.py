"""The screen: it may say yes only where every rule for itself would."""

from __future__ import annotations

import json

import cedarpy
import pytest
from hypothesis import given, settings

from policy.decision import Facts, PolicyEngine, RenderRequest
from policy.screen import SCREEN_ID, screen

from .test_decision import ENGINE, POLICIES, SCHEMA, cases

RENDER = {"type": "Placet::Action", "id": "render"}


def compiled(text: str, action: dict[str, str] = RENDER) -> dict[str, dict[str, object]]:
    policies = json.loads(cedarpy.policies_to_json_str(text))["staticPolicies"]
    return screen(policies, action)


@settings(max_examples=300)
@given(cases)
def test_with_and_without_a_screen_alike(case: tuple[RenderRequest, Facts]) -> None:
    slow = PolicyEngine.__new__(PolicyEngine)
    vars(slow).update(vars(ENGINE) | {"_screens": {}})
    assert slow.decide(*case) == ENGINE.decide(*case)


def test_rules_of_other_actions_are_left_out() -> None:
    made = compiled(POLICIES)
    text = json.dumps(made)
    assert SCREEN_ID in made and len(made) == 2
    assert "attestedClass" not in text and "expiresAt" in text


def test_rules_with_a_scope_of_their_own_stay_apart() -> None:
    made = compiled(
        'permit (principal, action, resource);'
        'forbid (principal == Placet::Client::"x", action, resource);'
        'forbid (principal, action in Placet::Action::"render", resource);'
        'forbid (principal, action, resource is Placet::Portrayal);'
        "forbid (principal, action, resource) when { context.now > 3 } unless { context.uses == 1 };"
    )  # fmt: skip
    assert set(made) == {"policy0", "policy1", "policy2", "policy3", SCREEN_ID}


def test_rules_of_several_actions_count_for_each_of_them() -> None:
    text = (
        "permit (principal, action, resource);"
        'forbid (principal, action in [Placet::Action::"render", Placet::Action::"live"], resource)'
        "when { context.now > 3 };"
    )
    for name, expected in (
        ("render", {"policy0", SCREEN_ID}),
        ("live", {"policy0", SCREEN_ID}),
        ("evaluate", {"policy0"}),
    ):
        assert set(compiled(text, {"type": "Placet::Action", "id": name})) == expected


def test_a_forbid_without_conditions_forbids() -> None:
    made = compiled("permit (principal, action, resource); forbid (principal, action, resource);")
    assert made[SCREEN_ID]["conditions"] == [{"kind": "when", "body": {"Value": True}}]


@pytest.mark.parametrize(
    "rule",
    [
        "when { context.durationMs * 9223372036854775807 == 0 }",
        "unless { context.durationMs * 9223372036854775807 != 0 }",
        "when { context.uses == 0 && context.durationMs * 9223372036854775807 == 0 }",
    ],
)
def test_an_error_in_the_screen_is_no_yes(rule: str, request_: RenderRequest, facts: Facts) -> None:
    own = f'@id("house.rule")\n@says("Never seen.")\nforbid (principal, action, resource)\n{rule};\n'
    decision = PolicyEngine(SCHEMA, POLICIES + own).decide(request_, facts)
    assert not decision.allowed and decision.codes == ("decision.undecided",)
