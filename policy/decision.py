"""May this be rendered? A pure function of request, facts and Cedar policies, with every reason named.

Anything undecided is a refusal: an evaluation error, a value outside the schema, a missing permit.
"""

from __future__ import annotations

import json
import re
import secrets
from dataclasses import dataclass
from json.encoder import encode_basestring  # type: ignore[attr-defined]
from pathlib import Path
from typing import Any, Final

import cedarpy

from policy.canonical import canonical_json, sha256_hex
from policy.errors import CanonicalError, PolicySetError, ReplayError
from policy.facts import (
    ACTION_EVALUATE,
    ACTION_LIVE,
    ACTION_RENDER,
    BESIDE_NOBODY,
    ConsentFacts,
    DriverFacts,
    Facts,
    RenderRequest,
    choose_consent,
    choose_driver_consent,
    controls_sha256,
)
from policy.screen import screen

__all__ = [
    "ACTION_EVALUATE",
    "ACTION_LIVE",
    "ACTION_RENDER",
    "CORE_REASONS",
    "ConsentFacts",
    "Decision",
    "DriverFacts",
    "Facts",
    "PolicyEngine",
    "Reason",
    "RenderRequest",
    "choose_consent",
    "choose_driver_consent",
    "controls_sha256",
    "replay",
]

SCHEMA_FILE: Final = "placet.cedarschema"
POLICY_FILE: Final = "placet.cedar"
DEFAULT_DIRECTORY: Final = Path(__file__).parent / "cedar"

CORE_REASONS: Final[frozenset[str]] = frozenset(
    {
        "scope.missing",
        "subject.minor",
        "subject.unknown",
        "subject.erased",
        "face.of_another",
        "face.differs",
        "face.unknown",
        "face.beside_protected",
        "face.beside_unknown",
        "face.not_chosen",
        "clock.regressed",
        "consent.missing",
        "consent.revoked",
        "consent.epoch",
        "consent.not_yet_valid",
        "consent.expired",
        "consent.grantee_org",
        "consent.grantee_client",
        "consent.purpose",
        "consent.portrait",
        "consent.controls",
        "consent.exhausted",
        "driver.control",
        "driver.unknown",
        "driver.minor",
        "driver.erased",
        "driver.of_another",
        "driver.face",
        "driver.consent_missing",
        "driver.consent_revoked",
        "driver.consent_epoch",
        "driver.consent_term",
        "driver.consent_grantee",
        "driver.consent_purpose",
        "driver.consent_control",
        "driver.consent_exhausted",
        "attestation.missing",
        "attestation.contradicted",
    }
)
"""Rules that an operator's own policy files must contain; the others (budget, duration, …) are theirs to drop."""


_MAX_KNOWN: Final = 4096
"""Combinations of client, subject, portrait, purpose and consent that are kept parsed."""
_MAX_INTEGER: Final = 2**53 - 1
_NUM_HOLES: Final = 7
_HOLE: Final = secrets.token_hex(16)
"""Marks where volatile values stand; not to be guessed, so no value of a request can look like it."""
_TO_JSON: Final = json.JSONEncoder(separators=(",", ":")).encode


@dataclass(frozen=True)
class Reason:
    """Why not: a stable code, and a sentence for people that says what to do."""

    code: str
    sentence: str

    def to_json(self) -> dict[str, str]:
        """As a JSON object."""
        return {"code": self.code, "sentence": self.sentence}


UNDECIDED: Final = Reason(
    "decision.undecided", "The policies could not be evaluated on this request, so it is refused; tell the operator."
)
NOT_PERMITTED: Final = Reason(
    "decision.not_permitted", "No policy permits this; check action, scope and purpose, or ask the operator."
)


@dataclass(frozen=True)
class Decision:
    """The outcome, its reasons (all of them, empty if allowed), and what it was decided by and on."""

    allowed: bool
    reasons: tuple[Reason, ...]
    policy_sha256: str
    facts_sha256: str

    @property
    def codes(self) -> tuple[str, ...]:
        """The codes of all reasons, in the order of the policy file."""
        return tuple(reason.code for reason in self.reasons)


@dataclass(frozen=True, slots=True)
class _Known:
    """What stays the same over many requests: entities, and canonical JSON cut where the volatile values stand."""

    entities: cedarpy.Entities
    fragments: tuple[str, ...]
    holes: tuple[int, ...]


class PolicyEngine:
    """Cedar policies, parsed and validated once. Immutable; make a new engine to change policies."""

    def __init__(self, schema_text: str, policy_text: str, *, required: frozenset[str] = CORE_REASONS) -> None:
        """Parse and validate.

        Args:
            required: rules that must be there; fewer only to repeat decisions from before one of them existed.

        Raises: PolicySetError: syntax, a policy that does not fit the schema, a missing or doubled @id, a forbid
            without @says, or a core rule that is missing.
        """
        self.schema_text, self.policy_text = schema_text, policy_text  # as they stood, for `policy.archive`
        try:
            self._schema = cedarpy.Schema.from_str(schema_text)
            parsed = json.loads(cedarpy.policies_to_json_str(policy_text))
        except ValueError as exc:
            raise PolicySetError("The Cedar schema or policies cannot be parsed; run `placet policy test`.") from exc
        validation = cedarpy.validate_policies(policy_text, schema_text)
        if not validation.validation_passed:
            first = validation.errors[0]
            name = validation.id_annotations_by_policy_id.get(first.policy_id, first.policy_id)
            raise PolicySetError(f"The policy {name or '(unnamed)'} does not fit the schema; correct it.")
        self._memory: dict[tuple[tuple[object, ...], tuple[type, ...]], _Known] = {}
        self._permits: set[str] = set()
        self._reasons: dict[str, Reason] = {}
        policies = _keyed_by_own_ids(parsed)
        for code, policy in policies.items():
            if policy["effect"] == "permit":
                self._permits.add(code)
            elif sentence := policy["annotations"].get("says"):
                self._reasons[code] = Reason(code, sentence)
            else:
                raise PolicySetError(f"The rule {code} has no @says; add the sentence that people will read.")
        if missing := sorted(required - set(self._reasons)):
            raise PolicySetError(f"The rule {missing[0]} is missing; the gate does not run without it.")
        self._policies = _policy_set(policies)
        self._screens = {
            action: _policy_set(screen(policies, _uid("Action", action)))
            for action in (ACTION_RENDER, ACTION_LIVE, ACTION_EVALUATE)
        }
        self.policy_sha256 = sha256_hex(
            canonical_json({"policies": sha256_hex(policy_text.encode()), "schema": sha256_hex(schema_text.encode())})
        )

    @classmethod
    def load(cls, directory: Path | None = None) -> PolicyEngine:
        """The policies of a directory, by default those that ship with Placet.

        Raises: PolicySetError.
        """
        directory = directory or DEFAULT_DIRECTORY
        try:
            return cls((directory / SCHEMA_FILE).read_text("utf-8"), (directory / POLICY_FILE).read_text("utf-8"))
        except (OSError, UnicodeDecodeError) as exc:
            raise PolicySetError(
                f"The policy directory must hold {SCHEMA_FILE} and {POLICY_FILE} as UTF-8 text."
            ) from exc

    @property
    def codes(self) -> tuple[str, ...]:
        """Every reason that these policies can give, in the order of the file."""
        return tuple(self._reasons)

    @property
    def reasons(self) -> tuple[Reason, ...]:
        """The same with their sentences."""
        return tuple(self._reasons.values())

    def decide(self, request: RenderRequest, facts: Facts) -> Decision:
        """Judge a request. Never raises for what a request or its facts hold: what cannot be judged is refused."""
        known = self._known(request, facts)
        try:
            facts_sha256 = sha256_hex(_canonical(request, facts, known))
        except CanonicalError:  # what cannot be written down cannot be logged or repeated either
            return Decision(False, (UNDECIDED,), self.policy_sha256, "")
        reasons = self._evaluate(request, facts, known)
        return Decision(not reasons, reasons, self.policy_sha256, facts_sha256)

    def evaluate(self, request: RenderRequest, facts: Facts) -> tuple[Reason, ...]:
        """Why not: all reasons, or none where it is allowed. `decide` without the hash of what was decided on."""
        return self._evaluate(request, facts, self._known(request, facts))

    def _evaluate(self, request: RenderRequest, facts: Facts, known: _Known | None) -> tuple[Reason, ...]:
        # entities and request always against the schema: without it a missing attribute would skip a forbid
        try:
            if known is None:
                raise ValueError("not entities of the schema")
            cedar_request = {
                "principal": {"type": "Placet::Client", "id": request.client_id},
                "action": {"type": "Placet::Action", "id": request.action},
                "resource": _PORTRAYAL,
                "context": _cedar_context(request, facts),
            }
            # (1) the screen: only a yes without errors is taken from it, see `policy.screen`
            if (quick := self._screens.get(request.action)) is not None:
                result = cedarpy.is_authorized(cedar_request, quick, known.entities, self._schema)
                diagnostics = result.diagnostics
                by = diagnostics.reasons
                if result.allowed and by and self._permits.issuperset(by) and not diagnostics.errors:
                    return ()
            # (2) every rule for itself
            result = cedarpy.is_authorized(cedar_request, self._policies, known.entities, self._schema)
            fired, errors, allowed = set(result.diagnostics.reasons), result.diagnostics.errors, result.allowed
        except (ValueError, TypeError, OverflowError, AttributeError):
            fired, errors, allowed = set(), ["not evaluated"], False
        # (3) every forbid that fired is a reason
        reasons = [reason for code, reason in self._reasons.items() if code in fired]
        # (4) allowed only if Cedar says so, by a permit we know, without a single error
        if errors:
            reasons.append(UNDECIDED)
        elif not reasons and not (allowed and fired and fired <= self._permits):
            reasons.append(NOT_PERMITTED)
        return tuple(reasons)

    def _known(self, request: RenderRequest, facts: Facts) -> _Known | None:
        """What stays the same over many requests, parsed and written once; None if it does not fit the schema.

        A pure memory: the key is everything that it is made of, with its types, since 1 == True == 1.0 in Python and
        nowhere else. Inside tuples only text fits the schema, so there types need no second look.
        """
        try:
            values = _stable_values(request, facts)
            key = (values, tuple(map(type, values)))
            known = self._memory.get(key)
            if known is None:
                entities = cedarpy.Entities.from_json_str(json.dumps(_cedar_entities(request, facts)), self._schema)
                known = _Known(entities, *_with_holes(request, facts))
                if len(self._memory) >= _MAX_KNOWN:
                    self._memory.clear()
                self._memory[key] = known
        except (ValueError, TypeError, OverflowError, AttributeError, CanonicalError):
            return None
        return known


def replay(entry: dict[str, Any], engine: PolicyEngine) -> Decision:
    """Repeat a logged decision from nothing but its log entry.

    Args:
        entry: an entry of kind `decision`, as `Log.entry` returns it.
        engine: the policies to judge by; they must be those of the time.
    Returns: the decision, the same as was logged.
    Raises: ReplayError: not a decision, other policies, facts that do not hash to what was logged, or another outcome.
    """
    body = entry.get("body")
    if entry.get("kind") != "decision" or not isinstance(body, dict):
        raise ReplayError("Only entries of kind decision can be replayed.")
    # (1) the policies of the time
    if body.get("policy_sha256") != engine.policy_sha256:
        raise ReplayError("This was decided under other policies; load the ones with the hash in the entry.")
    # (2) the facts of the time
    request, facts = RenderRequest.from_json(body.get("request")), Facts.from_json(body.get("facts"))
    # (3) the same outcome for the same reasons
    decision = engine.decide(request, facts)
    if decision.facts_sha256 != body.get("facts_sha256"):
        raise ReplayError("The facts in this entry are not those that were decided on.")
    if (decision.allowed, list(decision.codes)) != (body.get("allowed"), body.get("reasons")):
        raise ReplayError("The decision comes out differently from what was logged; the entry cannot be trusted.")
    return decision


def _keyed_by_own_ids(parsed: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Policies under their @id; Cedar's own ids are policy0, policy1, … in the order of the file."""
    if parsed.get("templates"):
        raise PolicySetError("Policy templates are not used here; write each rule out.")
    ordered = sorted(parsed["staticPolicies"].items(), key=lambda item: int(item[0].removeprefix("policy")))
    policies: dict[str, dict[str, Any]] = {}
    for _, policy in ordered:
        code = policy.get("annotations", {}).get("id")
        if not code or code in policies:
            raise PolicySetError("Every policy needs an @id of its own; one is missing or used twice.")
        policies[code] = policy
    return policies


def _policy_set(policies: dict[str, dict[str, Any]]) -> cedarpy.PolicySet:
    return cedarpy.PolicySet.from_json_str(
        json.dumps({"staticPolicies": policies, "templates": {}, "templateLinks": []})
    )


def _uid(kind: str, name: str) -> dict[str, str]:
    return {"type": f"Placet::{kind}", "id": name}


def _cedar_context(request: RenderRequest, facts: Facts) -> str:
    """What changes with every request, as JSON."""
    context: dict[str, object] = {
        "now": facts.now,
        "clockBackS": facts.clock_back_s,
        "durationMs": request.duration_ms,
        "budgetUsedMs": facts.budget_used_ms,
        "uses": 0 if facts.consent is None else facts.consent.uses,
    }
    if facts.driver is not None and facts.driver.consent is not None:
        context["driverUses"] = facts.driver.consent.uses
    return _TO_JSON(context)


def _stable_values(request: RenderRequest, facts: Facts) -> tuple[object, ...]:
    """Every value of a request and its facts but `_volatile_values`."""
    consent = facts.consent
    values: tuple[object, ...] = (
        request.action, request.client_id, request.org, request.scopes, request.subject_id, request.portrait_sha256,
        request.controls, request.purpose,
        facts.subject_class, facts.subject_erased, facts.subject_epoch, facts.face_match, facts.matches_other_subject,
        facts.vetting, facts.vetting_expires_at, facts.budget_ms, facts.streams, facts.max_streams,
        facts.max_duration_ms, facts.attested_class, facts.beside,
    )  # fmt: skip
    if consent is not None:
        values = (*values, *_stable_of_consent(consent))
    driver = facts.driver
    if driver is None and request.driver_id is None and request.driving_sha256 is None:
        return values
    # Clips that drive are rare, and each is another one: nothing of it is held to change with every request.
    values = (*values, "driver", request.driver_id, request.driving_sha256)
    if driver is None:
        return values
    values = (
        *values,
        driver.subject_class, driver.subject_erased, driver.subject_epoch, driver.face_match,
        driver.matches_other_subject,
    )  # fmt: skip
    if driver.consent is not None:
        values = (*values, driver.consent.uses, *_stable_of_consent(driver.consent))
    return values


def _stable_of_consent(consent: ConsentFacts) -> tuple[object, ...]:
    return (
        consent.sha256, consent.grantee_org, consent.grantee_client, consent.purposes, consent.portraits,
        consent.controls, consent.not_before, consent.expires_at, consent.max_uses, consent.epoch, consent.revoked,
    )  # fmt: skip


def _cedar_entities(request: RenderRequest, facts: Facts) -> list[dict[str, Any]]:
    """The client and the portrayal. Reads `_stable_values` and nothing else."""
    client = {
        "org": request.org,
        "scopes": request.scopes,
        "vetting": facts.vetting,
        "vettingExpiresAt": facts.vetting_expires_at,
        "budgetMs": facts.budget_ms,
        "streams": facts.streams,
        "maxStreams": facts.max_streams,
        "maxDurationMs": facts.max_duration_ms,
    }
    portrayal: dict[str, Any] = {
        "class": facts.subject_class,
        "erased": facts.subject_erased,
        "epoch": facts.subject_epoch,
        "portrait": request.portrait_sha256,
        "faceMatch": facts.face_match,
        "matchesOther": facts.matches_other_subject,
        "purpose": request.purpose,
        "controls": request.controls,
        "attestedClass": facts.attested_class,
    }
    if facts.beside != BESIDE_NOBODY:
        portrayal["beside"] = facts.beside
    if (consent := facts.consent) is not None:
        portrayal["consent"] = _cedar_consent(consent)
    if (driver := facts.driver) is not None:
        portrayal["driver"] = {
            "class": driver.subject_class,
            "erased": driver.subject_erased,
            "epoch": driver.subject_epoch,
            "faceMatch": driver.face_match,
            "matchesOther": driver.matches_other_subject,
        }
        if driver.consent is not None:
            portrayal["driver"]["consent"] = _cedar_consent(driver.consent)
    if request.driving_sha256 is not None:
        portrayal["driving"] = request.driving_sha256
    return [
        {"uid": _uid("Client", request.client_id), "attrs": client, "parents": []},
        {"uid": _PORTRAYAL, "attrs": portrayal, "parents": []},
    ]


def _cedar_consent(consent: ConsentFacts) -> dict[str, Any]:
    return {
        "granteeOrg": consent.grantee_org,
        "granteeClient": _uid("Client", consent.grantee_client),
        "purposes": consent.purposes,
        "portraits": consent.portraits,
        "controls": consent.controls,
        "notBefore": consent.not_before,
        "expiresAt": consent.expires_at,
        "maxUses": consent.max_uses,
        "epoch": consent.epoch,
        "revoked": consent.revoked,
    }


_PORTRAYAL: Final = _uid("Portrayal", "")


# ---- canonical JSON of request and facts ----------------------------------------------------------------------------


def _volatile_values(request: RenderRequest, facts: Facts) -> tuple[object, ...]:
    """The values that are new with every request, in the order of the holes."""
    uses = 0 if facts.consent is None else facts.consent.uses
    return (
        facts.now,
        facts.clock_back_s,
        facts.budget_used_ms,
        uses,
        request.duration_ms,
        request.speech_sha256,
        request.controls_sha256,
    )


def _with_holes(request: RenderRequest, facts: Facts) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Canonical JSON of request and facts, cut where the volatile values stand, and which of them stands where."""
    marks = [f"hole {nth} {_HOLE}" for nth in range(_NUM_HOLES)]
    unfilled: dict[str, Any] = {
        "request": request.to_json()
        | {"duration_ms": marks[4], "speech_sha256": marks[5], "controls_sha256": marks[6]},
        "facts": facts.to_json() | {"now": marks[0], "clock_back_s": marks[1], "budget_used_ms": marks[2]},
    }
    if facts.consent is not None:
        unfilled["facts"]["consent"] = unfilled["facts"]["consent"] | {"uses": marks[3]}
    pieces = re.split(rf'"hole (\d) {_HOLE}"', canonical_json(unfilled).decode())
    return tuple(pieces[::2]), tuple(int(nth) for nth in pieces[1::2])


def _canonical(request: RenderRequest, facts: Facts, known: _Known | None) -> bytes:
    """Canonical JSON of request and facts, from what is known where that is possible. Raises: CanonicalError."""
    if known is not None:
        texts: list[str] = []
        for value in _volatile_values(request, facts):
            if type(value) is int and -_MAX_INTEGER <= value <= _MAX_INTEGER:
                texts.append(str(value))
            elif type(value) is str:
                texts.append(encode_basestring(value))
        if len(texts) == _NUM_HOLES:
            parts = [known.fragments[0]]
            for nth, fragment in zip(known.holes, known.fragments[1:], strict=True):
                parts += (texts[nth], fragment)
            try:
                return "".join(parts).encode()
            except UnicodeEncodeError as exc:
                raise CanonicalError("A lone surrogate has no canonical form.") from exc
    return canonical_json({"request": request.to_json(), "facts": facts.to_json()})
