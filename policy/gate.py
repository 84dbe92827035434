"""The gate: decide, log, permit, in this order and in no other. The one object that both the API and the CLI use.

No log, no permit: every method that returns has its entry on disk.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from policy.canonical import canonical_json, sha256_hex
from policy.decision import Decision, Facts, PolicyEngine, RenderRequest, controls_sha256, replay
from policy.errors import EntryRefusedError, LogError, PermitRefusedError
from policy.evidence import LogEvidence, verify_evidence
from policy.facts import Pseudonym
from policy.keys import KeyRing
from policy.log import Log
from policy.permit import MAX_PERMIT_LIFETIME_S, Permit, issue_permit

__all__ = ["DECISION_KIND", "Gate", "Ruling", "replay"]

DECISION_KIND: Final = "decision"
CLOCK_ACCEPTED_KIND: Final = "clock.accepted"
_ENTRIES_TO_LOOK_AT: Final = 256
MAX_RULING_AGE_S: Final = 60
"""A ruling is good for a permit this long; later the facts may have changed and must be judged again."""


@dataclass(frozen=True)
class Ruling:
    """A decision with the proof that it was logged.

    `request` and `facts` are as the caller gave them (with the gate's time); the log holds their pseudonymised form.
    """

    decision: Decision
    evidence: LogEvidence
    request: RenderRequest
    facts: Facts


class Gate:
    """Rules on requests, logs every ruling, and signs permits for those that are allowed.

    Args:
        now: Unix time in seconds; the only clock that decisions and permits know.
    """

    def __init__(self, engine: PolicyEngine, log: Log, keys: KeyRing, now: Callable[[], float]) -> None:
        self.engine = engine
        self.log = log
        self._keys = keys
        self._pseudonym: Pseudonym = keys.pseudonym
        self._now = now
        self._lock = threading.Lock()
        self._used: dict[int, float] = {}
        self._made: dict[int, tuple[Ruling, str | None]] = {}
        self._latest_s = latest_time_s(log)

    def rule(self, request: RenderRequest, facts: Facts) -> Ruling:
        """Decide, and log the decision durably, refusals too.

        Returns: the ruling; look at `decision.allowed`, and at `decision.reasons` for all that stands in the way.
        Raises: LogError: it could not be logged, so nothing may be released.
        """
        # (1) the time is the gate's, whatever the caller believes; and how far it lies behind what was seen before
        now = self._now()
        with self._lock:
            self._latest_s = max(self._latest_s, now)
            clock_back_s = int(self._latest_s - now)
        facts = replace(facts, now=int(now), clock_back_s=clock_back_s)
        # (2) decide on exactly what will be logged
        pseudonym = _once_each(self._pseudonym)
        logged_request = request.pseudonymised(pseudonym)
        logged_facts = facts.pseudonymised(pseudonym)
        decision = self.engine.decide(logged_request, logged_facts)
        # (3) on disk before anything else happens
        evidence = self.log.append(DECISION_KIND, _decision_body(decision, logged_request, logged_facts))
        ruling = Ruling(decision, evidence, request, facts)
        with self._lock:
            self._made = {
                index: each for index, each in self._made.items() if now - each[0].facts.now <= MAX_RULING_AGE_S
            }
            self._made[evidence.index] = (ruling, logged_request.subject_id)
        return ruling

    def permit(
        self,
        ruling: Ruling,
        *,
        worker: str,
        portrait_sha256: str,
        speech_sha256: str,
        controls: Mapping[str, Any],
        mark_id: str,
        driving_sha256: str | None = None,
    ) -> str:
        """A permit for exactly what was ruled on, for one worker, once, for at most 60 seconds.

        Args:
            mark_id: 16 hex digits, the id that the watermark will carry.
        Raises: PermitRefusedError: refused, too old, used already, of other inputs, or not proven by the log.
        """
        request, decision, now = ruling.request, ruling.decision, self._now()
        # (1) allowed at all
        if not decision.allowed or decision.reasons:
            raise PermitRefusedError("This was refused, so there is no permit; see the reasons of the decision.")
        # (2) the decision is in our log, as it stands here: this gate has just put it there, or the entry proves it
        subject = None if request.subject_id is None else self._pseudonym("subject", request.subject_id)
        if self._made.get(getattr(ruling.evidence, "index", -1)) == (ruling, subject):
            self._check_still_logged(ruling.evidence)
        else:
            self._check_logged(ruling)
        # (3) fresh, and not used for a permit before
        if not 0 <= now - ruling.facts.now <= MAX_RULING_AGE_S:
            raise PermitRefusedError("This decision is too old for a permit; ask again.")
        # (4) of exactly these inputs
        given = (portrait_sha256, speech_sha256, controls_sha256(controls), driving_sha256)
        if given != (
            request.portrait_sha256,
            request.speech_sha256,
            request.controls_sha256,
            request.driving_sha256,
        ):
            raise PermitRefusedError("The inputs are not those that were decided on; ask for a decision on these.")
        issued_at = int(now)
        consent, driver = ruling.facts.consent, ruling.facts.driver
        permit = Permit(
            permit_id=secrets.token_hex(16),
            decision_index=ruling.evidence.index,
            action=request.action,
            client_id=request.client_id,
            subject=subject or "",
            portrait_sha256=portrait_sha256,
            speech_sha256=speech_sha256,
            controls_sha256=request.controls_sha256,
            consent_sha256=None if consent is None else consent.sha256,
            consent_epoch=ruling.facts.subject_epoch,
            mark_id=mark_id,
            purpose=request.purpose,
            worker=worker,
            issued_at=issued_at,
            expires_at=issued_at + MAX_PERMIT_LIFETIME_S,
            driving_sha256=driving_sha256,
            driver_consent_sha256=None if driver is None or driver.consent is None else driver.consent.sha256,
        )
        self._use_once(ruling.evidence.index, now)
        return issue_permit(permit, self._keys.permit_key)

    def record(self, kind: str, body: dict[str, Any]) -> LogEvidence:
        """Log anything else that happens: consents, refusals at the door, deliveries, key events.

        Args:
            body: pseudonyms (`pseudonym`), hashes, codes and numbers only.
        Raises: LogError.
        """
        if kind == DECISION_KIND:
            raise EntryRefusedError("Decisions are logged by ruling, not by hand.")
        return self.log.append(kind, body)

    def pseudonym(self, namespace: str, value: str) -> str:
        """The name under which a subject, client or file appears in the log; see `KeyRing.pseudonym`."""
        return self._pseudonym(namespace, value)

    def use_pseudonyms(self, pseudonym: Pseudonym) -> None:
        """Let somebody else say under which name a value is logged, e.g. with a salt per subject that can be destroyed.

        Args:
            pseudonym: (namespace, value) -> name; equal names for equal values for as long as a ruling is in use.
        """
        self._pseudonym = pseudonym

    def _check_still_logged(self, evidence: LogEvidence) -> None:
        """Raises: PermitRefusedError: the log, as it is now, has another entry in this place, or none."""
        try:
            is_there = self.log.evidence(evidence.index).leaf_hash == evidence.leaf_hash
        except LogError as exc:
            raise PermitRefusedError("The log does not prove this decision, so there is no permit.") from exc
        if not is_there:
            raise PermitRefusedError("The log holds another decision than this one, so there is no permit.")

    def _check_logged(self, ruling: Ruling) -> None:
        """Raises: PermitRefusedError: the log does not hold this ruling (RFC 9162 §2.1.3)."""
        expected = _decision_body(
            ruling.decision,
            ruling.request.pseudonymised(self._pseudonym),
            ruling.facts.pseudonymised(self._pseudonym),
        )
        try:
            verify_evidence(ruling.evidence, self._keys.log_publics, origin=self.log.origin)
            entry = self.log.entry(ruling.evidence.index)
        except (LogError, AttributeError) as exc:
            raise PermitRefusedError("The log does not prove this decision, so there is no permit.") from exc
        if sha256_hex(b"\x00" + canonical_json(entry)) != ruling.evidence.leaf_hash:
            raise PermitRefusedError("The evidence is not that of the logged decision, so there is no permit.")
        if entry["kind"] != DECISION_KIND or canonical_json(entry["body"]) != canonical_json(expected):
            raise PermitRefusedError("The log holds another decision than this one, so there is no permit.")

    def accept_clock(self) -> LogEvidence:
        """Trust the clock as it is now, although it was later before: for an operator who has set it right.

        Raises: LogError.
        """
        with self._lock:
            behind_s, self._latest_s = int(self._latest_s - self._now()), self._now()
        return self.log.append(CLOCK_ACCEPTED_KIND, {"behind_s": behind_s})

    def _use_once(self, index: int, now: float) -> None:
        with self._lock:
            if index in self._used:
                raise PermitRefusedError("This decision has led to a permit already; ask again for another render.")
            self._used = {each: at for each, at in self._used.items() if now - at <= 2 * MAX_RULING_AGE_S}
            self._used[index] = now


def _once_each(pseudonym: Pseudonym) -> Pseudonym:
    """The same, asked once for each value; for as long as one ruling takes."""
    known: dict[tuple[str, str], str] = {}

    def remembered(namespace: str, value: str) -> str:
        name = known.get((namespace, value))
        if name is None:
            name = known[namespace, value] = pseudonym(namespace, value)
        return name

    return remembered


def latest_time_s(log: Log) -> float:
    """The latest time, in Unix seconds, of the newest entries: those after the operator last accepted the clock."""
    latest_s = 0.0
    for entry in reversed(log.entries(max(0, log.size - _ENTRIES_TO_LOOK_AT), _ENTRIES_TO_LOOK_AT)):
        if entry["kind"] == CLOCK_ACCEPTED_KIND:
            return max(latest_s, entry_time_s(entry))
        latest_s = max(latest_s, entry_time_s(entry))
        if entry["kind"] == DECISION_KIND:  # what was known then is not forgotten behind many refusals
            latest_s = max(latest_s, entry_time_s(entry) + entry["body"]["facts"]["clock_back_s"])
    return latest_s


def entry_time_s(entry: dict[str, Any]) -> float:
    """Time of an entry in Unix seconds."""
    return datetime.fromisoformat(entry["time"]).timestamp()


def _decision_body(decision: Decision, request: RenderRequest, facts: Facts) -> dict[str, Any]:
    """What the log keeps of a decision: enough to repeat it, nothing that names a person."""
    return {
        "allowed": decision.allowed,
        "reasons": list(decision.codes),
        "policy_sha256": decision.policy_sha256,
        "facts_sha256": decision.facts_sha256,
        "request": request.to_json(),
        "facts": facts.to_json(),
    }
