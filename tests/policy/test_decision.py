"""Decisions: each reason alone, all reasons together, a plain twin of the rules as oracle, and replay."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policy.canonical import canonical_json, sha256_hex
from policy.consent import PURPOSE_EDUCATION, PURPOSE_EVALUATION, PURPOSE_RESEARCH, PURPOSE_TRAINING
from policy.decision import (
    ACTION_EVALUATE,
    ACTION_LIVE,
    ACTION_RENDER,
    CORE_REASONS,
    DEFAULT_DIRECTORY,
    ConsentFacts,
    DriverFacts,
    Facts,
    PolicyEngine,
    RenderRequest,
    choose_consent,
    choose_driver_consent,
    replay,
)
from policy.errors import CanonicalError, PolicySetError, ReplayError
from policy.gate import Gate
from policy.identity import SCOPE_DETECT_CREATE, SCOPE_LIVE_CREATE, SCOPE_OPERATOR_ADMIN, SCOPE_RENDER_CREATE

from .conftest import START

SCHEMA = (DEFAULT_DIRECTORY / "placet.cedarschema").read_text()
POLICIES = (DEFAULT_DIRECTORY / "placet.cedar").read_text()
ENGINE = PolicyEngine(SCHEMA, POLICIES)


def consent_with(facts: Facts, **changes: Any) -> Facts:
    assert facts.consent is not None
    return replace(facts, consent=replace(facts.consent, **changes))


def test_what_is_agreed_to_is_allowed(engine: PolicyEngine, request_: RenderRequest, facts: Facts) -> None:
    decision = engine.decide(request_, facts)
    assert decision.allowed and decision.reasons == ()
    assert len(decision.policy_sha256) == len(decision.facts_sha256) == 64


REFUSALS: list[tuple[str, dict[str, Any], dict[str, Any], dict[str, Any]]] = [
    # reason                     request                              facts                                consent
    ("scope.missing", {"scopes": ()}, {}, {}),
    ("scope.missing", {"scopes": (SCOPE_DETECT_CREATE, SCOPE_OPERATOR_ADMIN)}, {}, {}),
    ("vetting.missing", {}, {"vetting": "none"}, {}),
    ("vetting.missing", {}, {"vetting": "pending"}, {}),
    ("vetting.missing", {}, {"vetting": "whatever"}, {}),
    ("vetting.suspended", {}, {"vetting": "suspended"}, {}),
    ("vetting.expired", {}, {"vetting_expires_at": START}, {}),
    ("budget.exceeded", {}, {"budget_used_ms": 55_001}, {}),
    ("streams.exceeded", {}, {"streams": 2}, {}),
    ("streams.exceeded", {}, {"max_streams": 0}, {}),
    ("clock.regressed", {}, {"clock_back_s": 6}, {}),
    ("duration.limit", {"duration_ms": 30_001}, {}, {}),
    ("duration.empty", {"duration_ms": 0}, {}, {}),
    ("duration.empty", {"duration_ms": -5000}, {}, {}),
    ("subject.minor", {}, {"subject_class": "minor"}, {}),
    ("subject.unknown", {}, {"subject_class": "unknown"}, {}),
    ("subject.unknown", {}, {"subject_class": "Adult"}, {}),
    ("subject.erased", {}, {"subject_erased": True}, {}),
    ("face.of_another", {}, {"matches_other_subject": True}, {}),
    ("face.differs", {}, {"face_match": "differs"}, {}),
    ("face.unknown", {}, {"face_match": "unknown"}, {}),
    ("face.unknown", {}, {"face_match": ""}, {}),
    ("consent.revoked", {}, {}, {"revoked": True}),
    ("consent.epoch", {}, {"subject_epoch": 1}, {}),
    ("consent.epoch", {}, {}, {"epoch": 1}),
    ("consent.not_yet_valid", {}, {}, {"not_before": START + 1}),
    ("consent.expired", {}, {}, {"expires_at": START}),
    ("consent.grantee_org", {}, {}, {"grantee_org": "other"}),
    ("consent.grantee_client", {}, {}, {"grantee_client": "client-2"}),
    ("consent.grantee_client", {"client_id": "client-2"}, {}, {}),
    ("consent.purpose", {"purpose": PURPOSE_EDUCATION}, {}, {}),
    ("consent.portrait", {"portrait_sha256": "0" * 64}, {}, {}),
    ("consent.controls", {"controls": ("emotion", "seed")}, {}, {}),
    ("consent.controls", {}, {}, {"controls": ()}),
    ("consent.exhausted", {}, {}, {"uses": 3}),
    ("consent.exhausted", {}, {}, {"uses": 4}),
]


@pytest.mark.parametrize(("code", "request_change", "facts_change", "consent_change"), REFUSALS)
def test_each_reason_alone(
    engine: PolicyEngine,
    request_: RenderRequest,
    facts: Facts,
    code: str,
    request_change: dict[str, Any],
    facts_change: dict[str, Any],
    consent_change: dict[str, Any],
) -> None:
    decision = engine.decide(
        replace(request_, **request_change), consent_with(replace(facts, **facts_change), **consent_change)
    )
    assert not decision.allowed
    assert decision.codes == (code,)
    sentence = decision.reasons[0].sentence
    assert sentence.endswith(".") and len(sentence) > 30


def test_at_the_edges(engine: PolicyEngine, request_: RenderRequest, facts: Facts) -> None:
    """The last moment, the last use, the last second of budget are still good."""
    for each in (
        replace(facts, vetting_expires_at=START + 1),
        replace(facts, budget_used_ms=55_000),
        replace(facts, max_duration_ms=5000),
        replace(facts, streams=1),
        replace(facts, clock_back_s=5),
        consent_with(facts, expires_at=START + 1),
        consent_with(facts, not_before=START),
        consent_with(facts, uses=2),
        consent_with(facts, controls=("*",)),
    ):
        assert engine.decide(request_, each).allowed
    assert engine.decide(replace(request_, controls=()), consent_with(facts, controls=())).allowed


def test_no_consent_and_nothing_known(engine: PolicyEngine, request_: RenderRequest) -> None:
    assert engine.decide(request_, Facts()).codes == (
        "vetting.missing",
        "budget.exceeded",
        "streams.exceeded",
        "duration.limit",
        "subject.unknown",
        "consent.missing",
    )


def test_all_reasons_come_back_together(engine: PolicyEngine, request_: RenderRequest, facts: Facts) -> None:
    decision = engine.decide(
        replace(request_, purpose=PURPOSE_EDUCATION), consent_with(facts, revoked=True, expires_at=START - 1, uses=9)
    )
    assert decision.codes == ("consent.revoked", "consent.expired", "consent.purpose", "consent.exhausted")


def test_a_subject_class_makes_no_exception(engine: PolicyEngine, request_: RenderRequest, facts: Facts) -> None:
    """Personas and artworks need a live consent like anybody."""
    for kind in ("persona", "artwork"):
        assert engine.decide(request_, replace(facts, subject_class=kind)).allowed
        assert engine.decide(request_, replace(facts, subject_class=kind, face_match="unknown")).allowed
        assert engine.decide(request_, replace(facts, subject_class=kind, consent=None)).codes == ("consent.missing",)


# ------------------------------------------------------------------------------------------ evaluation by the operator


@pytest.fixture
def evaluation(request_: RenderRequest) -> RenderRequest:
    return replace(
        request_,
        action=ACTION_EVALUATE,
        scopes=(SCOPE_OPERATOR_ADMIN,),
        purpose=PURPOSE_EVALUATION,
        subject_id=None,
    )


ATTESTED = Facts(attested_class="synthetic", max_duration_ms=30_000, now=START)


def test_evaluation_of_attested_portraits(engine: PolicyEngine, evaluation: RenderRequest) -> None:
    for kind in ("synthetic", "artwork"):
        for purpose in (PURPOSE_EVALUATION, PURPOSE_TRAINING):
            assert engine.decide(replace(evaluation, purpose=purpose), replace(ATTESTED, attested_class=kind)).allowed


@pytest.mark.parametrize(
    ("code", "request_change", "facts_change"),
    [
        ("scope.missing", {"scopes": (SCOPE_RENDER_CREATE,)}, {}),
        ("evaluate.purpose", {"purpose": PURPOSE_RESEARCH}, {}),
        ("attestation.missing", {}, {"attested_class": ""}),
        ("attestation.missing", {}, {"attested_class": "adult"}),
        ("attestation.contradicted", {}, {"subject_class": "adult"}),
        ("face.of_another", {}, {"matches_other_subject": True}),
        ("clock.regressed", {}, {"clock_back_s": 3600}),
        ("subject.minor", {}, {"subject_class": "minor"}),
        ("subject.erased", {}, {"subject_erased": True}),
        ("duration.limit", {"duration_ms": 30_001}, {}),
    ],
)
def test_evaluations_that_are_refused(
    engine: PolicyEngine,
    evaluation: RenderRequest,
    code: str,
    request_change: dict[str, Any],
    facts_change: dict[str, Any],
) -> None:
    decision = engine.decide(replace(evaluation, **request_change), replace(ATTESTED, **facts_change))
    assert decision.codes == (code,)


def test_a_live_session_is_judged_like_a_render_and_needs_its_own_scope(
    engine: PolicyEngine, request_: RenderRequest, facts: Facts
) -> None:
    asked = replace(request_, action=ACTION_LIVE)
    assert engine.decide(asked, facts).codes == ("scope.missing",)
    live = replace(asked, scopes=(SCOPE_LIVE_CREATE,))
    assert engine.decide(live, facts).allowed
    assert engine.decide(live, consent_with(facts, revoked=True)).codes == ("consent.revoked",)
    assert engine.decide(live, replace(facts, streams=facts.max_streams)).codes == ("streams.exceeded",)


def test_an_attestation_does_not_open_renders(engine: PolicyEngine, request_: RenderRequest, facts: Facts) -> None:
    decision = engine.decide(request_, replace(facts, consent=None, attested_class="synthetic"))
    assert decision.codes == ("consent.missing",)


# --------------------------------------------------------------------------------------------------- anything undecided


@pytest.mark.parametrize(
    "change",
    [
        {"action": "delete"}, {"action": ""}, {"duration_ms": 2**70}, {"duration_ms": "5"}, {"purpose": None},
        {"scopes": "render:create"}, {"scopes": (1,)}, {"controls": (None,)}, {"org": 5},
    ],
    ids=str,
)  # fmt: skip
def test_what_does_not_fit_the_schema_is_refused(
    engine: PolicyEngine, request_: RenderRequest, facts: Facts, change: dict[str, Any]
) -> None:
    decision = engine.decide(replace(request_, **change), facts)
    assert not decision.allowed and "decision.undecided" in decision.codes


def test_an_error_in_a_policy_is_a_refusal(request_: RenderRequest, facts: Facts) -> None:
    """Cedar skips a policy that overflows and would allow; an error on its own must refuse."""
    rule = '@id("house.rule")\n@says("Never seen.")\nforbid (principal, action, resource)\n'
    overflowing = "when { context.durationMs * 9223372036854775807 == 0 };\n"
    decision = PolicyEngine(SCHEMA, POLICIES + rule + overflowing).decide(request_, facts)
    assert decision.codes == ("decision.undecided",) and not decision.allowed


def test_equal_in_python_is_not_equal_in_cedar(engine: PolicyEngine, request_: RenderRequest, facts: Facts) -> None:
    """1 == True == 1.0: the memory of parsed entities must not take one for the other."""
    good = consent_with(facts, epoch=1)
    good = replace(good, subject_epoch=1)
    assert engine.decide(request_, good).allowed
    for changed in (
        replace(good, subject_epoch=True),
        replace(good, subject_epoch=1.0),
        replace(good, subject_erased=0),
        consent_with(good, epoch=True),
        consent_with(good, revoked=0),
    ):
        assert not engine.decide(request_, changed).allowed, changed


@pytest.mark.parametrize("value", ["é\U0001f600", 'a"\\\n\0', "\x7f", "\u2028", "\ud800", "hole 0 x", ""])
def test_the_hash_is_that_of_canonical_json(
    engine: PolicyEngine, request_: RenderRequest, facts: Facts, value: str
) -> None:
    for _ in range(2):  # read, and from memory
        for changed in (replace(request_, speech_sha256=value), replace(request_, client_id=value)):
            decision = engine.decide(changed, facts)
            try:
                written = canonical_json({"request": changed.to_json(), "facts": facts.to_json()})
                assert decision.facts_sha256 == sha256_hex(written)
            except CanonicalError:
                assert decision.facts_sha256 == "" and not decision.allowed


def test_names_are_data_and_not_code(engine: PolicyEngine, request_: RenderRequest, facts: Facts) -> None:
    odd = 'x" || true //\n\0'
    decision = engine.decide(replace(request_, client_id=odd, subject_id=odd), facts)
    assert decision.codes == ("consent.grantee_client",)


# ----------------------------------------------------------------------------------------------------- the policy files


@pytest.mark.parametrize(
    ("was", "becomes"),
    [
        ("resource.erased", "resource.erazed"),
        ("resource.purpose", "resource.purpos"),
        ("resource has consent && resource.consent.revoked", "resource.consent.revoked"),
        ("when {", "wen {"),
        ('@id("consent.revoked")', '@id("consent.expired")'),
        ('@id("consent.revoked")', ""),
        ('@id("consent.revoked")', '@id("consent.renamed")'),
        ('@says("The person shown is a minor; minors are never animated.")', ""),
        ("resource)\nwhen { resource.erased }", "resource == ?resource)"),
        ('Placet::Action::"render"', 'Placet::Action::"rendr"'),
    ],
)  # fmt: skip
def test_faults_in_the_policies_are_found_at_loading(was: str, becomes: str) -> None:
    assert was in POLICIES
    with pytest.raises(PolicySetError):
        PolicyEngine(SCHEMA, POLICIES.replace(was, becomes, 1))


def test_faults_in_the_schema_and_files(tmp_path: Path) -> None:
    with pytest.raises(PolicySetError):
        PolicyEngine(SCHEMA.replace("erased: Bool", "erased: Boool"), POLICIES)
    with pytest.raises(PolicySetError):
        PolicyEngine("", "")
    with pytest.raises(PolicySetError):
        PolicyEngine.load(tmp_path)
    (tmp_path / "placet.cedarschema").write_bytes(b"\xff")
    with pytest.raises(PolicySetError):
        PolicyEngine.load(tmp_path)


def test_an_operator_may_add_a_rule(request_: RenderRequest, facts: Facts) -> None:
    rule = '@id("house.quiet")\n@says("Not on this system.")\nforbid (principal, action, resource);\n'
    engine, own = PolicyEngine.load(), PolicyEngine(SCHEMA, POLICIES + rule)
    assert own.decide(request_, facts).codes == ("house.quiet",)
    assert own.policy_sha256 != engine.policy_sha256
    assert set(own.codes) == set(engine.codes) | {"house.quiet"} and set(engine.codes) >= CORE_REASONS


def test_the_permits_hold_without_the_forbids(request_: RenderRequest, facts: Facts) -> None:
    """If a rule is made toothless by mistake, the permit's own conditions still refuse."""
    toothless = POLICIES.replace("when { resource has consent && resource.consent.revoked }", "when { false }")
    assert toothless != POLICIES
    decision = PolicyEngine(SCHEMA, toothless).decide(request_, consent_with(facts, revoked=True))
    assert decision.codes == ("decision.not_permitted",)


# ------------------------------------------------------------------------------------------- a plain twin of the rules


def oracle(request: RenderRequest, facts: Facts) -> set[str]:
    """The same rules in plain Python."""
    consent, reasons = facts.consent, set()

    def refuse(code: str, when: bool) -> None:
        if when:
            reasons.add(code)

    scopes = {"render": SCOPE_RENDER_CREATE, "live": SCOPE_LIVE_CREATE, "evaluate": SCOPE_OPERATOR_ADMIN}
    wanted = scopes[request.action]
    refuse("scope.missing", wanted not in request.scopes)
    refuse("duration.limit", request.duration_ms > facts.max_duration_ms)
    refuse("duration.empty", request.duration_ms <= 0)
    refuse("clock.regressed", facts.clock_back_s > 5)
    refuse("face.of_another", facts.matches_other_subject)
    refuse("subject.minor", facts.subject_class == "minor")
    refuse("subject.erased", facts.subject_erased)
    refuse("face.beside_protected", facts.beside == "protected")
    refuse("face.beside_unknown", facts.beside not in ("nobody", "strangers", "protected"))
    driver, is_render = facts.driver, request.action != ACTION_EVALUATE
    refuse("driver.control", (request.driving_sha256 is not None) != ("driving" in request.controls))
    known = driver is not None and (not is_render or driver.subject_class in ("adult", "persona", "artwork", "minor"))
    refuse("driver.unknown", request.driving_sha256 is not None and not known)
    if driver is not None:
        refuse("driver.minor", driver.subject_class == "minor")
        refuse("driver.erased", driver.subject_erased)
        refuse("driver.of_another", driver.matches_other_subject)
    if driver is not None and is_render:
        refuse("driver.face", driver.face_match != "match")
        refuse("driver.consent_missing", driver.consent is None)
        if (agreed := driver.consent) is not None:
            refuse("driver.consent_revoked", agreed.revoked)
            refuse("driver.consent_epoch", agreed.epoch != driver.subject_epoch)
            refuse("driver.consent_term", not agreed.not_before <= facts.now < agreed.expires_at)
            is_grantee = (agreed.grantee_org, agreed.grantee_client) == (request.org, request.client_id)
            refuse("driver.consent_grantee", not is_grantee)
            refuse("driver.consent_purpose", request.purpose not in agreed.purposes)
            refuse("driver.consent_control", "driver" not in agreed.controls)
            refuse("driver.consent_exhausted", agreed.uses >= agreed.max_uses)
    if request.action == ACTION_EVALUATE:
        refuse("evaluate.purpose", request.purpose not in (PURPOSE_EVALUATION, PURPOSE_TRAINING))
        refuse("attestation.missing", facts.attested_class not in ("synthetic", "artwork"))
        refuse("attestation.contradicted", facts.subject_class == "adult")
        return reasons
    refuse("vetting.missing", facts.vetting not in ("approved", "suspended"))
    refuse("vetting.suspended", facts.vetting == "suspended")
    refuse("vetting.expired", facts.vetting == "approved" and facts.now >= facts.vetting_expires_at)
    refuse("budget.exceeded", facts.budget_used_ms + request.duration_ms > facts.budget_ms)
    refuse("streams.exceeded", facts.streams >= facts.max_streams)
    is_adult = facts.subject_class == "adult"
    refuse("face.differs", is_adult and facts.face_match == "differs")
    refuse("face.unknown", is_adult and facts.face_match not in ("match", "differs"))
    refuse("face.not_chosen", not is_adult and facts.beside != "nobody" and facts.face_match != "match")
    refuse("subject.unknown", facts.subject_class not in ("adult", "persona", "artwork", "minor"))
    refuse("consent.missing", consent is None)
    if consent is not None:
        refuse("consent.revoked", consent.revoked)
        refuse("consent.epoch", consent.epoch != facts.subject_epoch)
        refuse("consent.not_yet_valid", facts.now < consent.not_before)
        refuse("consent.expired", facts.now >= consent.expires_at)
        refuse("consent.grantee_org", consent.grantee_org != request.org)
        refuse("consent.grantee_client", consent.grantee_client != request.client_id)
        refuse("consent.purpose", request.purpose not in consent.purposes)
        refuse("consent.portrait", request.portrait_sha256 not in consent.portraits)
        refuse("consent.controls", "*" not in consent.controls and not set(request.controls) <= set(consent.controls))
        refuse("consent.exhausted", consent.uses >= consent.max_uses)
    return reasons


few = st.integers(0, 3)
names = st.sampled_from(["a", "b"])
purposes = st.sampled_from([PURPOSE_RESEARCH, PURPOSE_EDUCATION, PURPOSE_EVALUATION])
some_controls = st.lists(st.sampled_from(["seed", "gaze", "*", "driving", "driver"]), unique=True, max_size=2).map(
    tuple
)
CONSENT_FIELDS: dict[str, st.SearchStrategy[Any]] = dict(
    sha256=st.just("c"),
    grantee_org=names,
    grantee_client=names,
    purposes=st.lists(purposes, unique=True, max_size=2).map(tuple),
    portraits=st.lists(names, unique=True, max_size=2).map(tuple),
    controls=some_controls,
    not_before=few,
    expires_at=few,
    max_uses=few,
    uses=few,
    epoch=few,
    revoked=st.booleans(),
)
consents = st.builds(ConsentFacts, **CONSENT_FIELDS)
DRIVER_FIELDS: dict[str, st.SearchStrategy[Any]] = dict(
    subject_class=st.sampled_from(["adult", "persona", "minor", "unknown"]),
    subject_erased=st.booleans(),
    subject_epoch=few,
    face_match=st.sampled_from(["match", "differs", "unknown"]),
    matches_other_subject=st.booleans(),
    consent=st.none() | consents,
)
drivers = st.builds(DriverFacts, **DRIVER_FIELDS)
FACTS_FIELDS: dict[str, st.SearchStrategy[Any]] = dict(
    subject_class=st.sampled_from(["adult", "persona", "artwork", "minor", "unknown", ""]),
    subject_erased=st.booleans(),
    subject_epoch=few,
    face_match=st.sampled_from(["match", "differs", "unknown", ""]),
    matches_other_subject=st.booleans(),
    consent=st.none() | consents,
    vetting=st.sampled_from(["none", "pending", "approved", "suspended"]),
    vetting_expires_at=few,
    budget_ms=few,
    budget_used_ms=few,
    streams=few,
    max_streams=few,
    clock_back_s=st.sampled_from([0, 5, 6]),
    max_duration_ms=few,
    attested_class=st.sampled_from(["", "synthetic", "artwork"]),
    now=few,
    beside=st.sampled_from(["nobody", "nobody", "strangers", "protected", "unknown", ""]),
    driver=st.none() | drivers,
)
all_facts = st.builds(Facts, **FACTS_FIELDS)
REQUEST_FIELDS: dict[str, st.SearchStrategy[Any]] = dict(
    action=st.sampled_from([ACTION_RENDER, ACTION_LIVE, ACTION_EVALUATE]),
    client_id=names,
    org=names,
    scopes=st.lists(st.sampled_from([SCOPE_RENDER_CREATE, SCOPE_LIVE_CREATE, SCOPE_OPERATOR_ADMIN]), unique=True).map(
        tuple
    ),
    subject_id=st.none() | names,
    portrait_sha256=names,
    speech_sha256=names,
    controls=st.lists(st.sampled_from(["seed", "gaze", "driving"]), unique=True).map(tuple),
    controls_sha256=names,
    purpose=purposes,
    duration_ms=few,
    driver_id=st.none() | names,
    driving_sha256=st.none() | names,
)


requests = st.builds(RenderRequest, **REQUEST_FIELDS)


def agreeable() -> tuple[RenderRequest, Facts]:
    """What is allowed, as the twin sees it too."""
    request = RenderRequest(
        "render", "a", "a", (SCOPE_RENDER_CREATE,), "a", "a", "a", ("seed",), "a", PURPOSE_RESEARCH, 1
    )
    consent = ConsentFacts("c", "a", "a", (PURPOSE_RESEARCH,), ("a",), ("seed",), 0, 3, 3, 0, 0, False)
    facts = Facts(
        subject_class="adult", face_match="match", consent=consent, vetting="approved", vetting_expires_at=3,
        budget_ms=3, max_streams=1, max_duration_ms=3, now=1,
    )  # fmt: skip
    assert oracle(request, facts) == set()
    return request, facts


def driven() -> tuple[RenderRequest, Facts]:
    """The same with a driving clip, to which everybody has agreed."""
    request, facts = agreeable()
    agreed = ConsentFacts("d", "a", "a", (PURPOSE_RESEARCH,), ("b",), ("driver",), 0, 3, 3, 0, 0, False)
    driver = DriverFacts(subject_class="persona", face_match="match", consent=agreed)
    request = replace(request, controls=("driving",), driver_id="b", driving_sha256="b")
    facts = replace(consent_with(facts, controls=("driving",)), driver=driver)
    assert oracle(request, facts) == set()
    return request, facts


@st.composite
def nearly_agreeable(draw: st.DrawFn) -> tuple[RenderRequest, Facts]:
    """What is allowed, but for up to three fields: pairs of reasons, and the last step before a yes."""
    request, facts = draw(st.sampled_from([agreeable, driven]))()
    if draw(st.booleans()):
        request = replace(request, action=ACTION_LIVE, scopes=(SCOPE_LIVE_CREATE,))
    parts = (
        ("request", REQUEST_FIELDS), ("facts", FACTS_FIELDS), ("consent", CONSENT_FIELDS), ("driver", DRIVER_FIELDS),
        ("driver consent", CONSENT_FIELDS),
    )  # fmt: skip
    fields = [(part, name) for part, names in parts for name in names]
    for part, name in draw(st.lists(st.sampled_from(fields), max_size=3, unique=True)):
        if part == "request":
            request = replace(request, **{name: draw(REQUEST_FIELDS[name])})
        elif part == "facts":
            facts = replace(facts, **{name: draw(FACTS_FIELDS[name])})
        elif part == "consent" and facts.consent is not None:
            facts = replace(facts, consent=replace(facts.consent, **{name: draw(CONSENT_FIELDS[name])}))
        elif part == "driver" and facts.driver is not None:
            facts = replace(facts, driver=replace(facts.driver, **{name: draw(DRIVER_FIELDS[name])}))
        elif part == "driver consent" and facts.driver is not None and facts.driver.consent is not None:
            agreed = replace(facts.driver.consent, **{name: draw(CONSENT_FIELDS[name])})
            facts = replace(facts, driver=replace(facts.driver, consent=agreed))
    return request, facts


cases = nearly_agreeable() | st.tuples(requests, all_facts)


def agrees_with_the_twin(request: RenderRequest, facts: Facts) -> None:
    decision = ENGINE.decide(request, facts)
    expected = oracle(request, facts)
    assert decision.facts_sha256 == sha256_hex(canonical_json({"request": request.to_json(), "facts": facts.to_json()}))
    assert set(decision.codes) == expected
    assert decision.allowed == (not expected)


@settings(max_examples=600)
@given(cases)
def test_cedar_agrees_with_the_twin(case: tuple[RenderRequest, Facts]) -> None:
    agrees_with_the_twin(*case)


@pytest.mark.heavy
@settings(max_examples=10_000)
@given(cases)
def test_cedar_agrees_with_the_twin_at_length(case: tuple[RenderRequest, Facts]) -> None:
    agrees_with_the_twin(*case)


odd_values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=3),
    st.tuples(st.integers(0, 1)),
    st.lists(names),
    st.binary(max_size=2),
)


@settings(max_examples=400)
@given(st.data())
def test_one_odd_value_never_opens_the_gate(data: st.DataObject) -> None:
    """Any field of any other type: refused, or allowed only where the twin would read the same value as good."""
    request, facts = agreeable()
    assert ENGINE.decide(request, facts).allowed and facts.consent is not None  # now its entities are kept parsed
    value = data.draw(odd_values)
    parts: dict[str, Any] = {"request": request, "facts": facts, "consent": facts.consent}
    part = data.draw(st.sampled_from(sorted(parts)))
    name = data.draw(st.sampled_from(sorted(set(vars(parts[part])) - {"consent"})))
    was = getattr(parts[part], name)
    changed = replace(parts[part], **{name: value})
    if part == "request":
        decision = ENGINE.decide(changed, facts)
    elif part == "facts":
        decision = ENGINE.decide(request, changed)
    else:
        decision = ENGINE.decide(request, replace(facts, consent=changed))
    if part == "request":
        written = {"request": changed.to_json(), "facts": facts.to_json()}
    elif part == "facts":
        written = {"request": request.to_json(), "facts": changed.to_json()}
    else:
        written = {"request": request.to_json(), "facts": replace(facts, consent=changed).to_json()}
    try:
        assert decision.facts_sha256 == sha256_hex(canonical_json(written))
    except CanonicalError:
        assert decision.facts_sha256 == "" and decision.codes == ("decision.undecided",)
    unseen = {"subject_id", "driver_id", "speech_sha256", "controls_sha256", "sha256"}  # no rule reads them
    if decision.allowed and name not in unseen:
        assert type(value) is type(was) or (isinstance(value, list) and isinstance(was, tuple))


@settings(max_examples=100)
@given(requests, all_facts)
def test_pseudonyms_do_not_change_the_decision(request: RenderRequest, facts: Facts) -> None:
    def pseudonym(namespace: str, value: str) -> str:
        return f"{namespace}:{value}"

    hidden_request, hidden_facts = request.pseudonymised(pseudonym), facts.pseudonymised(pseudonym)
    assert ENGINE.decide(request, facts).codes == ENGINE.decide(hidden_request, hidden_facts).codes
    assert RenderRequest.from_json(hidden_request.to_json()) == hidden_request
    assert Facts.from_json(hidden_facts.to_json()) == hidden_facts


# ------------------------------------------------------------------------------------------------- choosing and replay


def test_the_consent_that_fits_best_is_chosen(request_: RenderRequest, facts: Facts) -> None:
    good = facts.consent
    assert good is not None
    worse = [
        replace(good, sha256="1", revoked=True),
        replace(good, sha256="2", grantee_org="other", expires_at=good.expires_at + 9),
        replace(good, sha256="3", uses=3),
        replace(good, sha256="4", expires_at=good.expires_at - 1),
    ]
    assert choose_consent([*worse, good], request_, facts) == good
    assert choose_consent([good, *worse], request_, facts) == good
    assert choose_consent([], request_, facts) is None


def test_the_drivers_consent_that_fits_best_is_chosen() -> None:
    request, facts = driven()
    assert facts.driver is not None and facts.driver.consent is not None
    good = facts.driver.consent
    worse = [
        replace(good, sha256="1", controls=("*",)),
        replace(good, sha256="2", revoked=True, expires_at=99),
        replace(good, sha256="3", grantee_client="b"),
    ]
    assert choose_driver_consent([*worse, good], request, facts.driver, 1) == good
    assert choose_driver_consent([], request, facts.driver, 1) is None


def test_fields_that_came_later_are_left_out_while_they_say_nothing(request_: RenderRequest, facts: Facts) -> None:
    """Entries from before driving clips and pictures of several people keep their hash, and are read as they were."""
    assert not {"driver_id", "driving_sha256"} & set(request_.to_json()) and not {"beside", "driver"} & set(
        facts.to_json()
    )
    request, driven_facts = driven()
    assert RenderRequest.from_json(request.to_json()) == request
    assert Facts.from_json(driven_facts.to_json()) == driven_facts
    for spelt_twice in (request_.to_json() | {"driver_id": None}, request_.to_json() | {"driving_sha256": None}):
        with pytest.raises(ReplayError):
            RenderRequest.from_json(spelt_twice)
    with pytest.raises(ReplayError):
        Facts.from_json(facts.to_json() | {"beside": "nobody"})
    with pytest.raises(ReplayError):
        Facts.from_json(facts.to_json() | {"driver": {"subject_class": "adult"}})


def test_replay(gate: Gate, engine: PolicyEngine, request_: RenderRequest, facts: Facts) -> None:
    gate.rule(request_, facts)
    gate.rule(replace(request_, purpose=PURPOSE_EDUCATION), facts)
    gate.rule(request_, Facts())
    codes = [replay(entry, engine).codes for entry in gate.log.entries(0)]
    assert codes[0] == () and codes[1] == ("consent.purpose",) and "consent.missing" in codes[2]


def test_replay_finds_what_does_not_fit(
    gate: Gate, engine: PolicyEngine, request_: RenderRequest, facts: Facts
) -> None:
    gate.rule(request_, facts)
    entry = gate.log.entry(0)
    body = entry["body"]
    forged: list[dict[str, Any]] = [
        entry | {"kind": "delivery"},
        entry | {"body": None},
        {},
        entry | {"body": body | {"allowed": False}},
        entry | {"body": body | {"reasons": ["consent.revoked"]}},
        entry | {"body": body | {"facts_sha256": "0" * 64}},
        entry | {"body": body | {"facts": body["facts"] | {"now": START + 1}}},
        entry | {"body": body | {"facts": body["facts"] | {"more": 1}}},
        entry | {"body": body | {"facts": body["facts"] | {"now": "1"}}},
        entry | {"body": body | {"facts": body["facts"] | {"consent": {}}}},
        entry | {"body": body | {"facts": body["facts"] | {"consent": "x"}}},
        entry | {"body": body | {"request": []}},
        entry | {"body": body | {"request": body["request"] | {"scopes": "x"}}},
        entry | {"body": body | {"policy_sha256": "0" * 64}},
    ]
    for each in forged:
        with pytest.raises(ReplayError):
            replay(each, engine)
    with pytest.raises(ReplayError, match="other policies"):
        replay(entry, PolicyEngine(SCHEMA, POLICIES + "\n// a comment is a change"))
