"""HTTP types: what goes over the wire, and nothing else.

Additive changes only: a field once published keeps its meaning. Times are RFC 3339 in UTC. Unknown fields of a request
are refused.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field


def moment(seconds: float) -> datetime:
    """Seconds since the epoch as the wire's time."""
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=0)


def moment_or_none(seconds: float | None) -> datetime | None:
    """The same for a time that may be absent."""
    return None if seconds is None else moment(seconds)


def _aware(value: datetime) -> datetime:
    if value.tzinfo is None:
        raise ValueError("add a time zone, for example 2027-01-31T00:00:00Z")
    try:
        return value.astimezone(UTC)
    except OverflowError as exc:  # the first and last hours of the calendar
        raise ValueError("choose a year between 1 and 9999, in UTC") from exc


Moment = Annotated[datetime, AfterValidator(_aware)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", examples=["0" * 64])]


class RequestModel(BaseModel):
    """A body that somebody sends."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ResponseModel(BaseModel):
    """A body that we answer with."""

    model_config = ConfigDict(frozen=True)


class Problem(ResponseModel):
    """RFC 9457 problem document: the one error shape."""

    type: str = Field(examples=["urn:placet:problem:render.refused"])
    title: str
    status: int
    code: str = Field(description="Stable; programs decide by this.")
    detail: str = Field(description="A sentence for people that says what to do.")
    instance: str
    reasons: list[Reason] | None = Field(None, description="Every reason of a refusal.")
    log_index: int | None = Field(None, description="Entry of the audit log that records this.")
    incident_id: str | None = None


class Reason(ResponseModel):
    """Why the gate refused."""

    code: str = Field(examples=["consent.missing"])
    sentence: str


class Evidence(ResponseModel):
    """Proof that an entry is in the log (RFC 9162 inclusion proof under a C2SP signed checkpoint)."""

    index: int
    leaf_hash: str
    tree_size: int
    root_hash: str
    inclusion_proof: list[str]
    checkpoint: str


# -- subjects and consents


class ChallengeOut(ResponseModel):
    """A nonce to put into the enrolment statement; usable once."""

    nonce: str
    subject_id: str = Field(description="The pseudonym that the statement must name.")
    portrait_sha256: str | None = Field(description="SHA-256 of the normalised portrait, if one was sent along.")
    passkey_options: dict[str, Any] = Field(
        description="For `navigator.credentials.create`, to sign with a passkey; its challenge is the nonce."
    )
    expires_at: datetime


class SubjectOut(ResponseModel):
    """A newly enrolled subject. Its id is also the OAuth client id of the key that signed."""

    subject_id: str
    portrait_sha256: str = Field(description="SHA-256 of the normalised portrait; consents name it.")
    summary: dict[str, Any] = Field(description="What the analysis saw in the portrait.")
    log_index: int


class PortraitOut(ResponseModel):
    """An enrolled portrait."""

    portrait_sha256: str
    summary: dict[str, Any]
    enrolled_at: datetime


class ProfileOut(ResponseModel):
    """What is kept about the subject who asks."""

    subject_id: str
    subject_class: str
    attested_by: Literal["self", "manifest", "declaration"] = Field(
        description="Who says so: the adult; the manifest of a shipped persona; whoever enrolled it."
    )
    pseudonym: str = Field(description="Your name in the log.")
    epoch: int = Field(description="Counts revocations; put it into the next consent.")
    portraits: list[PortraitOut]
    enrolled_at: datetime
    log_index: int


class UseOut(ResponseModel):
    """One log entry that concerns the subject's face, with its proof."""

    kind: str = Field(examples=["decision.refused", "delivery"])
    org: str
    client_id: str
    client_name: str = Field(description="Name under which the operator has vetted the client.")
    purpose: str
    render_id: str | None
    consent_id: str | None
    at: datetime
    log_index: int
    entry: dict[str, Any] = Field(description="The entry itself; its canonical form is the leaf that is proven.")
    evidence: Evidence


class UsesOut(ResponseModel):
    """Uses of the subject's face, oldest first."""

    uses: list[UseOut]
    next_start: int | None = Field(None, description="`start` of the next page, if there are more.")


class PasskeyIn(RequestModel):
    """A new passkey."""

    registration: dict[str, Any] = Field(description="Answer of `navigator.credentials.create`.")
    label: str = Field("", max_length=100)


class PasskeyOut(ResponseModel):
    """A passkey on record."""

    credential_id: str = Field(description="base64url")
    label: str
    backed_up: bool
    created_at: datetime
    used_at: datetime | None
    log_index: int


class PasskeysOut(ResponseModel):
    """The passkeys of an account."""

    passkeys: list[PasskeyOut]


class PasskeyOptionsOut(ResponseModel):
    """What the browser asks an authenticator."""

    options: dict[str, Any]


class ErasureOut(ResponseModel):
    """Everything that was kept is gone."""

    subject_id: str
    erased_at: datetime
    num_portraits: int
    num_videos: int
    log_index: int


class StatementIn(RequestModel):
    """A statement signed by the subject: a compact JWS, or the statement itself with a passkey's assertion of it."""

    statement: Annotated[str, Field(min_length=1, max_length=65536)] | dict[str, Any] = Field(
        description="compact JWS; or, with `assertion`, the statement as JSON object"
    )
    assertion: dict[str, Any] | None = Field(
        None, description="of `navigator.credentials.get`, challenge = SHA-256 of the canonical statement"
    )

    @property
    def signed(self) -> str | dict[str, Any]:
        """As `policy.consent` takes it."""
        if self.assertion is None and isinstance(self.statement, str):
            return self.statement
        return {"statement": self.statement, "assertion": self.assertion}


class SectionOut(ResponseModel):
    """A paragraph of a text; `key` is the same in every language."""

    key: str
    heading: str
    text: str


class TextNameOut(ResponseModel):
    """A text that a statement may name."""

    kind: Literal["consent", "enrolment", "erasure"]
    version: str
    language: str
    sha256: str


class TextOut(TextNameOut):
    """A text with its empty places, in Markdown."""

    source: str


class TextsOut(ResponseModel):
    """Every text that a statement may name."""

    texts: list[TextNameOut]
    purposes: dict[str, dict[str, str]] = Field(description="Language -> purpose IRI -> its sentence.")


class ShownTextOut(TextNameOut):
    """A text with the values of a statement in it."""

    title: str
    lead: str
    sections: list[SectionOut]


class ConsentTermsIn(RequestModel):
    """What a subject is about to agree to; the service turns it into a statement to read and sign."""

    grantee_org: str = Field(min_length=1, max_length=128)
    grantee_client: str = Field(min_length=1, max_length=128)
    purposes: list[Annotated[str, Field(max_length=200)]] = Field(min_length=1, max_length=16)
    portraits: list[Sha256] | None = Field(None, max_length=64, description="By default all that are enrolled.")
    controls: list[Annotated[str, Field(max_length=64)]] = Field(default_factory=list, max_length=64)
    not_before: Moment | None = None
    expires_at: Moment
    max_uses: int = Field(ge=1, le=1_000_000)
    language: str = Field("en", max_length=35)
    supersedes: Sha256 | None = Field(None, description="SHA-256 of the consent that this one narrows.")


class ConsentDraftOut(ResponseModel):
    """A statement ready to be signed, and what it says in plain words. Nothing is on record yet."""

    statement: dict[str, Any]
    canonical: str = Field(description="RFC 8785 text of the statement: what is hashed and signed.")
    sha256: str
    text: ShownTextOut
    passkey_options: dict[str, Any] = Field(description="For `navigator.credentials.get`.")


class ConsentOut(ResponseModel):
    """A consent on record."""

    consent_id: str
    subject_id: str
    state: Literal["live", "not_yet", "expired", "used_up", "superseded", "revoked"]
    statement: dict[str, Any]
    signed: str = Field(description="As it came: compact JWS, or statement and assertion as JSON.")
    sha256: str = Field(description="SHA-256 that decisions, permits and manifests name this consent by.")
    grantee_name: str = Field(description="Name under which the operator has vetted the grantee's client.")
    superseded_by: str | None = Field(description="The narrower consent in its place.")
    num_uses: int
    given_at: datetime
    revoked_at: datetime | None
    log_index: int


class ConsentsOut(ResponseModel):
    """Every consent of the subject who asks, newest first."""

    consents: list[ConsentOut]


class RevocationOut(ResponseModel):
    """A revocation on record, in force since `revoked_at`."""

    consent_id: str
    epoch: int = Field(description="The subject's epoch from now on.")
    revoked_at: datetime
    log_index: int


# -- renders

RenderStatus = Literal["queued", "running", "delivered", "refused", "failed"]


class RenderOut(ResponseModel):
    """A render and what has become of it."""

    render_id: str
    status: RenderStatus
    progress: float = Field(ge=0, le=1)
    subject_id: str | None
    purpose: str
    portrait_sha256: str
    speech_sha256: str
    speech_s: float
    controls: dict[str, Any]
    consent_id: str | None
    mark_id: str = Field(description="Watermark id in every frame.")
    manifest_id: str | None
    video_sha256: str | None
    duration_s: float | None
    num_frames: int | None
    video_url: str | None
    manifest_url: str | None
    decision_index: int
    delivery_index: int | None
    closing_index: int | None = Field(description="Log entry of a refusal or failure after the decision.")
    failure: Reason | None
    evidence: Evidence | None = Field(description="Proof of the delivery entry, or of the decision before delivery.")
    created_at: datetime
    finished_at: datetime | None


# -- operators


class ExternalClient(RequestModel):
    """A client as an outside issuer knows it."""

    issuer: str = Field(min_length=1, max_length=250, description="Exactly as in `iss` of its tokens.")
    client_id: str = Field(min_length=1, max_length=128, description="Exactly as in its tokens.")


class ClientIn(RequestModel):
    """An applicant whom the operator approves."""

    kind: Literal["researcher", "platform", "auditor", "operator", "tool"] = "researcher"
    name: str = Field(min_length=1, max_length=200)
    org: str = Field(min_length=1, max_length=128, description="Short identifier of the organisation.")
    project: str = Field("", max_length=2000)
    ethics_reference: str = Field("", max_length=200)
    jwks: dict[str, Any] = Field(
        default_factory=dict,
        description="Public keys (P-256 or Ed25519) that the client authenticates with. A tool on somebody's machine, "
        "and a client of an outside issuer, may have none.",
    )
    scopes: list[str] = Field(min_length=1, max_length=8)
    term_expires_at: Moment | None = Field(None, description="End of the approval.")
    budget_s_per_day: float | None = Field(None, ge=0, le=86400, description="Seconds of video per day.")
    max_concurrent: int | None = Field(None, ge=0, le=64, description="Renders and streams open at a time.")
    redirect_uris: list[str] = Field(
        default_factory=list, max_length=8, description="Where authorization codes may be sent; exact addresses."
    )
    external: ExternalClient | None = Field(None, description="The client's name at an outside issuer.")


class ClientOut(ResponseModel):
    """A client on record."""

    client_id: str
    kind: str
    name: str
    org: str
    project: str
    ethics_reference: str
    scopes: list[str]
    status: Literal["approved", "suspended"]
    status_reason: str
    term_expires_at: datetime | None
    budget_s_per_day: float
    max_concurrent: int
    redirect_uris: list[str]
    external: str | None = Field(description="Outside issuer and name there.")
    created_at: datetime
    log_index: int


class ClientsOut(ResponseModel):
    """All clients but the subjects."""

    clients: list[ClientOut]


class TermsIn(RequestModel):
    """New terms for a client; what is absent stays."""

    term_expires_at: Moment | None = None
    budget_s_per_day: float | None = Field(None, ge=0, le=86400)
    max_concurrent: int | None = Field(None, ge=0, le=64)


class ReasonIn(RequestModel):
    """Why an operator does something, for the people whom it concerns. Kept beside the record, not in the log."""

    reason: str = Field("", max_length=500)


class ApplicationIn(RequestModel):
    """An organisation asks to be let in."""

    kind: Literal["researcher", "platform", "auditor"] = "researcher"
    name: str = Field(min_length=1, max_length=200, description="Of the group or product.")
    org: str = Field(min_length=1, max_length=128, description="Short identifier of the organisation.")
    contact: str = Field(min_length=3, max_length=200, description="How to reach a person there.")
    project: str = Field(min_length=1, max_length=2000, description="What for.")
    ethics_reference: str = Field("", max_length=200, description="Approval of an ethics board, if there is one.")
    scopes: list[str] = Field(min_length=1, max_length=8)
    jwks: dict[str, Any] = Field(description="Public keys (P-256 or Ed25519) that the client will authenticate with.")
    term_days: int = Field(365, ge=1, le=1095)
    budget_s_per_day: float = Field(600, ge=0, le=86400, description="Seconds of video per day.")


class ApplicationOut(ResponseModel):
    """What became of an application, for whoever sent it."""

    application_id: str = Field(description="Keep it: it is what the application can be found by.")
    status: Literal["open", "approved", "refused"]
    reason: str
    client_id: str | None = Field(description="To get tokens with, once it is approved.")
    created_at: datetime
    closed_at: datetime | None
    log_index: int
    closing_index: int | None


class ApplicationDetail(ApplicationOut):
    """An application, as an operator reads it."""

    kind: str
    name: str
    org: str
    contact: str
    project: str
    ethics_reference: str
    scopes: list[str]
    term_days: int
    budget_s_per_day: float


class ApplicationsOut(ResponseModel):
    """Applications, newest first."""

    applications: list[ApplicationDetail]


class GrantIn(RequestModel):
    """What is granted; what is absent is granted as it was asked for."""

    term_days: int | None = Field(None, ge=1, le=1095)
    budget_s_per_day: float | None = Field(None, ge=0, le=86400)
    max_concurrent: int | None = Field(None, ge=0, le=64)


# -- audit


class EntryOut(ResponseModel):
    """A log entry with proof."""

    entry: dict[str, Any]
    evidence: Evidence


class EntriesOut(ResponseModel):
    """A stretch of the log."""

    entries: list[dict[str, Any]]
    tree_size: int
    next_start: int | None


class ProofOut(ResponseModel):
    """An inclusion or consistency proof: hex hashes, in the order of RFC 9162 §2.1.3 or §2.1.4."""

    proof: list[str]
    first_size: int | None = None
    tree_size: int
    index: int | None = None


class HealthOut(ResponseModel):
    """Whether the service can do its work."""

    status: Literal["ok", "starting", "failing"]
    log_size: int | None = None
    worker: bool | None = None
    witness_lag: int | None = Field(
        default=None, description="Entries not under a cosigned checkpoint yet; null: no witness."
    )


Problem.model_rebuild()
