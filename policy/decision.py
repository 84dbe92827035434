"""May this be rendered? A pure function of request, facts and Cedar policies, with every reason named.

Anything undecided is a refusal: an evaluation error, a value outside the schema, a missing permit.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import cedarpy

from policy.canonical import canonical_json, sha256_hex
from policy.errors import CanonicalError, PolicySetError, ReplayError
from policy.facts import (
    ACTION_EVALUATE,
    ACTION_RENDER,
    ConsentFacts,
    Facts,
    RenderRequest,
    choose_consent,
    controls_sha256,
)
from policy.screen import screen

__all__ = [
    "ACTION_EVALUATE",
    "ACTION_RENDER",
    "CORE_REASONS",
    "ConsentFacts",
    "Decision",
    "Facts",
    "PolicyEngine",
    "Reason",
    "RenderRequest",
    "choose_consent",
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
        "attestation.missing",
        "attestation.contradicted",
    }
)
"""Rules that an operator's own policy files must contain; the others (budget, duration, …) are theirs to drop."""


_MAX_PARSED: Final = 4096
"""Pairs of client and portrayal that are kept parsed."""
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


class PolicyEngine:
    """Cedar policies, parsed and validated once. Immutable; make a new engine to change policies."""

    def __init__(self, schema_text: str, policy_text: str) -> None:
        """Parse and validate.

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
        self._parsed: dict[tuple[tuple[object, ...], tuple[type, ...]], cedarpy.Entities] = {}
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
        if missing := sorted(CORE_REASONS - set(self._reasons)):
            raise PolicySetError(f"The rule {missing[0]} is missing; the gate does not run without it.")
        self._policies = _policy_set(policies)
        self._screens = {
            action: _policy_set(screen(policies, _uid("Action", action))) for action in (ACTION_RENDER, ACTION_EVALUATE)
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
        try:
            facts_sha256 = sha256_hex(canonical_json({"request": request.to_json(), "facts": facts.to_json()}))
        except CanonicalError:  # what cannot be written down cannot be logged or repeated either
            return Decision(False, (UNDECIDED,), self.policy_sha256, "")
        reasons = self.evaluate(request, facts)
        return Decision(not reasons, reasons, self.policy_sha256, facts_sha256)

    def evaluate(self, request: RenderRequest, facts: Facts) -> tuple[Reason, ...]:
        """Why not: all reasons, or none where it is allowed. `decide` without the hash of what was decided on."""
        # entities and request always against the schema: without it a missing attribute would skip a forbid
        try:
            entities = self._entities(_stable_values(request, facts))
            cedar_request = {
                "principal": _uid("Client", request.client_id),
                "action": _uid("Action", request.action),
                "resource": _PORTRAYAL,
                "context": _cedar_context(request, facts),
            }
            # (1) the screen: only a yes without errors is taken from it, see `policy.screen`
            if (quick := self._screens.get(request.action)) is not None:
                result = cedarpy.is_authorized(cedar_request, quick, entities, self._schema)
                fired, errors = set(result.diagnostics.reasons), result.diagnostics.errors
                if result.allowed and not errors and fired and fired <= self._permits:
                    return ()
            # (2) every rule for itself
            result = cedarpy.is_authorized(cedar_request, self._policies, entities, self._schema)
            fired, errors, allowed = set(result.diagnostics.reasons), result.diagnostics.errors, result.allowed
        except (ValueError, TypeError, OverflowError):
            fired, errors, allowed = set(), ["not evaluated"], False
        # (3) every forbid that fired is a reason
        reasons = [reason for code, reason in self._reasons.items() if code in fired]
        # (4) allowed only if Cedar says so, by a permit we know, without a single error
        if errors:
            reasons.append(UNDECIDED)
        elif not reasons and not (allowed and fired and fired <= self._permits):
            reasons.append(NOT_PERMITTED)
        return tuple(reasons)

    def _entities(self, values: tuple[object, ...]) -> cedarpy.Entities:
        """Client and portrayal, parsed against the schema once for as long as nothing about them changes.

        A pure memory: the key is everything that they are made of, with its types, since 1 == True == 1.0 in Python and
        nowhere else.
        """
        key = (values, tuple(map(type, values)))
        entities = self._parsed.get(key)
        if entities is None:
            entities = cedarpy.Entities.from_json_str(json.dumps(_cedar_entities(values)), self._schema)
            if len(self._parsed) >= _MAX_PARSED:
                self._parsed.clear()
            self._parsed[key] = entities
        return entities


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
    return _TO_JSON(
        {
            "now": facts.now,
            "clockBackS": facts.clock_back_s,
            "durationMs": request.duration_ms,
            "budgetUsedMs": facts.budget_used_ms,
            "streams": facts.streams,
            "uses": 0 if facts.consent is None else facts.consent.uses,
        }
    )


def _stable_values(request: RenderRequest, facts: Facts) -> tuple[object, ...]:
    """Everything that `_cedar_entities` reads, in one tuple."""
    consent = facts.consent
    return (
        request.client_id,
        request.org,
        request.scopes,
        facts.vetting,
        facts.vetting_expires_at,
        facts.budget_ms,
        facts.max_streams,
        facts.max_duration_ms,
        facts.subject_class,
        facts.subject_erased,
        facts.subject_epoch,
        facts.face_match,
        facts.matches_other_subject,
        facts.attested_class,
        request.portrait_sha256,
        request.purpose,
        request.controls,
        *(
            ()
            if consent is None
            else (
                consent.grantee_org,
                consent.grantee_client,
                consent.purposes,
                consent.portraits,
                consent.controls,
                consent.not_before,
                consent.expires_at,
                consent.max_uses,
                consent.epoch,
                consent.revoked,
            )
        ),
    )


def _cedar_entities(values: tuple[Any, ...]) -> list[dict[str, Any]]:
    """The client and the portrayal, from `_stable_values` and from nothing else."""
    (
        client_id, org, scopes, vetting, vetting_expires_at, budget_ms, max_streams, max_duration_ms,
        subject_class, erased, epoch, face_match, matches_other, attested_class, portrait, purpose, controls,
        *consent,
    ) = values  # fmt: skip
    client = {
        "org": org,
        "scopes": scopes,
        "vetting": vetting,
        "vettingExpiresAt": vetting_expires_at,
        "budgetMs": budget_ms,
        "maxStreams": max_streams,
        "maxDurationMs": max_duration_ms,
    }
    portrayal = {
        "class": subject_class,
        "erased": erased,
        "epoch": epoch,
        "portrait": portrait,
        "faceMatch": face_match,
        "matchesOther": matches_other,
        "purpose": purpose,
        "controls": controls,
        "attestedClass": attested_class,
    }
    if consent:
        names = (
            "granteeOrg", "granteeClient", "purposes", "portraits", "controls",
            "notBefore", "expiresAt", "maxUses", "epoch", "revoked",
        )  # fmt: skip
        portrayal["consent"] = dict(zip(names, consent, strict=True)) | {"granteeClient": _uid("Client", consent[1])}
    return [
        {"uid": _uid("Client", client_id), "attrs": client, "parents": []},
        {"uid": _PORTRAYAL, "attrs": portrayal, "parents": []},
    ]


_PORTRAYAL: Final = _uid("Portrayal", "")
