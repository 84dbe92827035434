"""What a decision is about: the request, and the facts that policy needs. Frozen values with a JSON form.

Both can be pseudonymised; the gate decides on the pseudonymised form, which is also what it logs. Equal values get
equal pseudonyms, so the decision is the same, and an auditor can repeat it from the log entry alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, replace
from math import ceil
from typing import Any, Final, get_type_hints

from policy.canonical import canonical_json, sha256_hex
from policy.consent import Consent
from policy.errors import ReplayError
from policy.identity import Actor

ACTION_RENDER: Final = "render"
ACTION_LIVE: Final = "live"
ACTION_EVALUATE: Final = "evaluate"

CLASS_UNKNOWN: Final = "unknown"
CLASS_MINOR: Final = "minor"

FACE_MATCH: Final = "match"
FACE_DIFFERS: Final = "differs"
FACE_UNKNOWN: Final = "unknown"

BESIDE_NOBODY: Final = "nobody"
BESIDE_STRANGERS: Final = "strangers"
BESIDE_PROTECTED: Final = "protected"
BESIDE_UNKNOWN: Final = "unknown"

CONTROL_DRIVING: Final = "driving"
"""The control whose consent lets somebody else's recorded movement move a face."""
CONTROL_DRIVER: Final = "driver"
"""Named in a consent: one's own recorded movement may move another face. "*" does not mean it."""

VETTING_NONE: Final = "none"
VETTING_PENDING: Final = "pending"
VETTING_APPROVED: Final = "approved"
VETTING_SUSPENDED: Final = "suspended"

Pseudonym = Callable[[str, str], str]
"""`KeyRing.pseudonym`: (namespace, value) -> the name under which the value is logged."""


@dataclass(frozen=True)
class RenderRequest:
    """What is asked for. Made from an `Actor` by `RenderRequest.of`.

    Inputs are named by SHA-256 (hex); `controls` are the names of the controls that the caller sets. `driver_id` and
    `driving_sha256` say whose recorded movement moves the face, and which: None for speech alone, and then left out of
    the JSON form, which is that of requests from before there was such a thing.
    """

    action: str
    client_id: str
    org: str
    scopes: tuple[str, ...]
    subject_id: str | None
    portrait_sha256: str
    speech_sha256: str
    controls: tuple[str, ...]
    controls_sha256: str
    purpose: str
    duration_ms: int
    driver_id: str | None = None
    driving_sha256: str | None = None

    @classmethod
    def of(
        cls,
        actor: Actor,
        *,
        subject_id: str | None,
        portrait_sha256: str,
        speech_sha256: str,
        controls: Mapping[str, Any],
        purpose: str,
        duration_s: float,
        action: str = ACTION_RENDER,
        driver_id: str | None = None,
        driving_sha256: str | None = None,
    ) -> RenderRequest:
        """The request of `actor`.

        Args:
            subject_id: who is shown; None for a portrait that nobody has enrolled (evaluation only).
            controls: the controls as given, a JSON object; kept as names and hash.
            purpose: one of the purposes of `policy.consent`.
            duration_s: length of the speech.
            driver_id: who moves in the driving clip; None if nobody has enrolled them.
            driving_sha256: of the movement taken from that clip; None without one.
        """
        return cls(
            action=action,
            client_id=actor.client_id,
            org=actor.org,
            scopes=tuple(sorted(actor.scopes)),
            subject_id=subject_id,
            portrait_sha256=portrait_sha256,
            speech_sha256=speech_sha256,
            controls=tuple(sorted(controls)),
            controls_sha256=controls_sha256(controls),
            purpose=purpose,
            duration_ms=ceil(duration_s * 1000),
            driver_id=driver_id,
            driving_sha256=driving_sha256,
        )

    def pseudonymised(self, pseudonym: Pseudonym) -> RenderRequest:
        """The same request without anything that leads to a person or a file."""
        return replace(
            self,
            client_id=pseudonym("client", self.client_id),
            org=pseudonym("org", self.org),
            subject_id=None if self.subject_id is None else pseudonym("subject", self.subject_id),
            portrait_sha256=pseudonym("portrait", self.portrait_sha256),
            speech_sha256=pseudonym("speech", self.speech_sha256),
            driver_id=None if self.driver_id is None else pseudonym("subject", self.driver_id),
            driving_sha256=None if self.driving_sha256 is None else pseudonym("driving", self.driving_sha256),
        )

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return _to_json(self)

    @classmethod
    def from_json(cls, unverified: object) -> RenderRequest:
        """From a log entry. Raises: ReplayError."""
        return _from_json(cls, unverified)


@dataclass(frozen=True)
class ConsentFacts:
    """The consent that is put forward, and what has happened to it since it was signed."""

    sha256: str
    grantee_org: str
    grantee_client: str
    purposes: tuple[str, ...]
    portraits: tuple[str, ...]
    controls: tuple[str, ...]
    not_before: int
    expires_at: int
    max_uses: int
    uses: int
    epoch: int
    revoked: bool

    @classmethod
    def of(cls, consent: Consent, *, uses: int, revoked: bool) -> ConsentFacts:
        """From a verified consent.

        Args:
            uses: renders that were permitted under it so far.
        """
        statement = consent.statement
        return cls(
            sha256=consent.sha256,
            grantee_org=statement.grantee_org,
            grantee_client=statement.grantee_client,
            purposes=statement.purposes,
            portraits=statement.portraits,
            controls=statement.controls,
            not_before=statement.not_before,
            expires_at=statement.expires_at,
            max_uses=statement.max_uses,
            uses=uses,
            epoch=statement.epoch,
            revoked=revoked,
        )

    def pseudonymised(self, pseudonym: Pseudonym) -> ConsentFacts:
        """The same consent without anything that leads to a person or a file."""
        return replace(
            self,
            grantee_org=pseudonym("org", self.grantee_org),
            grantee_client=pseudonym("client", self.grantee_client),
            portraits=tuple(sorted(pseudonym("portrait", sha256) for sha256 in self.portraits)),
        )


@dataclass(frozen=True)
class DriverFacts:
    """The person who moves in a driving clip. Defaults are those of somebody about whom nothing is known.

    Args:
        subject_class, subject_erased, subject_epoch: as in `Facts`, of the driver.
        face_match: match, differs or unknown: the faces in the clip beside the face that the driver enrolled.
        matches_other_subject: the clip shows a face that somebody else than the driver has enrolled.
        consent: the driver's, to be judged by.
    """

    subject_class: str = CLASS_UNKNOWN
    subject_erased: bool = False
    subject_epoch: int = 0
    face_match: str = FACE_UNKNOWN
    matches_other_subject: bool = False
    consent: ConsentFacts | None = None

    def pseudonymised(self, pseudonym: Pseudonym) -> DriverFacts:
        """The same facts without anything that leads to a person or a file."""
        return replace(self, consent=None if self.consent is None else self.consent.pseudonymised(pseudonym))


@dataclass(frozen=True)
class Facts:
    """What is known at the moment of deciding. Defaults are those of somebody about whom nothing is known.

    Args:
        subject_class: adult, persona, artwork, minor or unknown.
        subject_epoch: moves when the subject withdraws everything; a consent of another epoch is stale.
        face_match: match, differs or unknown: the portrait beside the face that the subject enrolled.
        matches_other_subject: the portrait shows a face that somebody else has enrolled.
        beside: who else is in the picture: nobody; strangers; protected, if one of them has enrolled here; unknown, if
            one could not be compared. "nobody" is left out of the JSON form.
        driver: who moves in the driving clip; None without one, and then left out of the JSON form.
        consent: the consent to judge by; see `choose_consent`.
        vetting: none, pending, approved or suspended.
        vetting_expires_at: Unix seconds.
        budget_ms, budget_used_ms: output that the client may make, and has made, today.
        max_duration_ms: longest single render.
        attested_class: "", synthetic or artwork: the operator's word, for the action evaluate.
        streams, max_streams: renders and live sessions that the client has open now, and may have.
        clock_back_s: by how much the gate's clock is behind the latest time that it or the log has seen; the gate sets
            it.
        now: Unix seconds; the gate sets it from its own clock.
    """

    subject_class: str = CLASS_UNKNOWN
    subject_erased: bool = False
    subject_epoch: int = 0
    face_match: str = FACE_UNKNOWN
    matches_other_subject: bool = False
    consent: ConsentFacts | None = None
    vetting: str = VETTING_NONE
    vetting_expires_at: int = 0
    budget_ms: int = 0
    budget_used_ms: int = 0
    streams: int = 0
    max_streams: int = 0
    max_duration_ms: int = 0
    attested_class: str = ""
    clock_back_s: int = 0
    now: int = 0
    beside: str = BESIDE_NOBODY
    driver: DriverFacts | None = None

    def pseudonymised(self, pseudonym: Pseudonym) -> Facts:
        """The same facts without anything that leads to a person or a file."""
        return replace(
            self,
            consent=None if self.consent is None else self.consent.pseudonymised(pseudonym),
            driver=None if self.driver is None else self.driver.pseudonymised(pseudonym),
        )

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return _to_json(self)

    @classmethod
    def from_json(cls, unverified: object) -> Facts:
        """From a log entry. Raises: ReplayError."""
        facts = _from_json(cls, unverified)
        if facts.consent is not None:
            facts = replace(facts, consent=_from_json(ConsentFacts, facts.consent))
        if facts.driver is not None:
            driver = _from_json(DriverFacts, facts.driver)
            if driver.consent is not None:
                driver = replace(driver, consent=_from_json(ConsentFacts, driver.consent))
            facts = replace(facts, driver=driver)
        return facts


def choose_consent(candidates: Iterable[ConsentFacts], request: RenderRequest, facts: Facts) -> ConsentFacts | None:
    """The consent that fits a request best, so that a refusal names what stands in the way and not a bystander.

    A preference only: whatever is chosen is judged by the policies. Ties go to the one that lasts longest.
    """

    def fit(consent: ConsentFacts) -> tuple[int, int, str]:
        holds = (
            consent.grantee_org == request.org,
            consent.grantee_client == request.client_id,
            request.purpose in consent.purposes,
            request.portrait_sha256 in consent.portraits,
            "*" in consent.controls or set(request.controls) <= set(consent.controls),
            not consent.revoked,
            consent.epoch == facts.subject_epoch,
            consent.not_before <= facts.now,
            facts.now < consent.expires_at,
            consent.uses < consent.max_uses,
        )
        return sum(holds), consent.expires_at, consent.sha256

    return max(candidates, key=fit, default=None)


def choose_driver_consent(
    candidates: Iterable[ConsentFacts], request: RenderRequest, driver: DriverFacts, now: int
) -> ConsentFacts | None:
    """The driver's consent that fits a request best; the same kind of preference as `choose_consent`."""

    def fit(consent: ConsentFacts) -> tuple[int, int, str]:
        holds = (
            consent.grantee_org == request.org,
            consent.grantee_client == request.client_id,
            CONTROL_DRIVER in consent.controls,
            request.purpose in consent.purposes,
            not consent.revoked,
            consent.epoch == driver.subject_epoch,
            consent.not_before <= now,
            now < consent.expires_at,
            consent.uses < consent.max_uses,
        )
        return sum(holds), consent.expires_at, consent.sha256

    return max(candidates, key=fit, default=None)


def controls_sha256(controls: Mapping[str, Any]) -> str:
    """The name of a set of controls: SHA-256 of their canonical JSON. Raises: CanonicalError."""
    return sha256_hex(canonical_json(dict(controls)))


# What is left out of the JSON form while it has this value: fields that came after the first entries were written, so
# that old entries keep the hash under which they were decided. WIRE FORMAT: append only.
_LEFT_OUT: Final[Mapping[str, object]] = {
    "driver_id": None,
    "driving_sha256": None,
    "beside": BESIDE_NOBODY,
    "driver": None,
}


def _to_json(value: RenderRequest | Facts | ConsentFacts | DriverFacts) -> dict[str, Any]:
    obj: dict[str, Any] = {}
    for name, item in vars(value).items():
        if name in _LEFT_OUT and item == _LEFT_OUT[name]:
            continue
        if isinstance(item, tuple):
            obj[name] = list(item)
        elif isinstance(item, (ConsentFacts, DriverFacts)):
            obj[name] = _to_json(item)
        else:
            obj[name] = item
    return obj


def _from_json(cls: type[Any], unverified: object) -> Any:
    """A frozen value from JSON: exactly its fields, each of its type."""
    names = {each.name for each in fields(cls)}
    if not isinstance(unverified, dict) or not names - set(_LEFT_OUT) <= set(unverified) <= names:
        raise ReplayError(f"The entry does not hold the fields of a {cls.__name__}.")
    values: dict[str, Any] = {}
    for name, hint in get_type_hints(cls).items():
        if name not in unverified:
            continue
        item = unverified[name]
        if hint in (int, str, bool):
            fits = type(item) is hint
        elif hint == tuple[str, ...]:
            fits = isinstance(item, list) and all(isinstance(part, str) for part in item)
            item = tuple(item) if fits else item
        else:
            fits = item is None or isinstance(item, (str, dict))
        if not fits or (name in _LEFT_OUT and item == _LEFT_OUT[name]):  # one spelling for each value
            raise ReplayError(f"The field {name} of the entry is of the wrong type.")
        values[name] = item
    return cls(**values)
