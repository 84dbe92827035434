"""Tables. Times are seconds since the Unix epoch (UTC); identifiers are random and say nothing about a person.

A change here needs a revision in `api.storage.migrations`; a test holds the two against each other.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, BigInteger, Float, ForeignKey, Index, Integer, LargeBinary, String, Text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship


class Base(DeclarativeBase):
    """Parent of every table."""


class Client(Base):
    """An OAuth client: a vetted researcher, platform or auditor, the operator, or a subject acting for themself."""

    __tablename__ = "clients"
    client_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    kind: Mapped[str] = mapped_column(String(16))  # researcher | platform | auditor | operator | subject
    name: Mapped[str] = mapped_column(String(200), default="")
    org: Mapped[str] = mapped_column(String(200), default="")
    project: Mapped[str] = mapped_column(Text, default="")
    ethics_reference: Mapped[str] = mapped_column(String(200), default="")
    jwks: Mapped[dict[str, Any]] = mapped_column(JSON)
    scopes: Mapped[list[str]] = mapped_column(JSON)
    roles: Mapped[list[str]] = mapped_column(JSON)
    status: Mapped[str] = mapped_column(String(16), default="approved")  # approved | suspended
    status_reason: Mapped[str] = mapped_column(Text, default="")  # why, in the operator's words
    term_expires_at: Mapped[float | None] = mapped_column(Float, default=None)
    budget_s_per_day: Mapped[float] = mapped_column(Float, default=0.0)
    max_concurrent: Mapped[int] = mapped_column(Integer, default=4)  # renders and streams at a time
    redirect_uris: Mapped[list[str]] = mapped_column(JSON, default=list)  # may use authorization codes if there are any
    external: Mapped[str | None] = mapped_column(String(400), unique=True, default=None)  # its name at another issuer
    created_at: Mapped[float] = mapped_column(Float)
    log_index: Mapped[int] = mapped_column(Integer)


class Subject(Base):
    """A depicted person, persona or artwork, known by pseudonym only."""

    __tablename__ = "subjects"
    subject_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    subject_class: Mapped[str] = mapped_column(String(16))
    epoch: Mapped[int] = mapped_column(Integer, default=0)
    public_jwk: Mapped[dict[str, Any]] = mapped_column(JSON)
    enrolment: Mapped[str] = mapped_column(Text, default="")  # the signed statement, in the form in which it came
    attested_by: Mapped[str] = mapped_column(String(16), default="")  # self | manifest | declaration
    wrapped_key: Mapped[bytes | None] = mapped_column(LargeBinary, default=None)  # gone after erasure
    pseudonym_salt: Mapped[bytes | None] = mapped_column(LargeBinary, default=None)  # gone after erasure
    erased_at: Mapped[float | None] = mapped_column(Float, default=None)
    created_at: Mapped[float] = mapped_column(Float)
    log_index: Mapped[int] = mapped_column(Integer)
    portraits: Mapped[list[Portrait]] = relationship(back_populates="subject", order_by="Portrait.created_at")


class Portrait(Base):
    """An enrolled portrait. The picture itself is a blob sealed under the subject's key."""

    __tablename__ = "portraits"
    sha256: Mapped[str] = mapped_column(String(64), primary_key=True)  # of the normalised PNG
    subject_id: Mapped[str] = mapped_column(ForeignKey("subjects.subject_id"), index=True)
    sealed_blob: Mapped[str] = mapped_column(String(64))
    summary: Mapped[dict[str, Any]] = mapped_column(JSON)
    created_at: Mapped[float] = mapped_column(Float)
    subject: Mapped[Subject] = relationship(back_populates="portraits")


class Template(Base):
    """What the face in an enrolled portrait is recognised by, sealed under the subject's key."""

    __tablename__ = "templates"
    portrait_sha256: Mapped[str] = mapped_column(ForeignKey("portraits.sha256"), primary_key=True)
    subject_id: Mapped[str] = mapped_column(ForeignKey("subjects.subject_id"), index=True)
    sealed: Mapped[bytes] = mapped_column(LargeBinary)


class Challenge(Base):
    """An enrolment nonce: usable once, for a few minutes."""

    __tablename__ = "challenges"
    nonce: Mapped[str] = mapped_column(String(64), primary_key=True)
    subject_id: Mapped[str] = mapped_column(String(64))  # the pseudonym that the subject will have
    expires_at: Mapped[float] = mapped_column(Float)


class Passkey(Base):
    """A passkey that speaks for an account: a subject, or a member of staff (operator, auditor, researcher)."""

    __tablename__ = "passkeys"
    credential_id: Mapped[bytes] = mapped_column(LargeBinary, primary_key=True)
    account_id: Mapped[str] = mapped_column(String(64), index=True)  # a subject_id or client_id
    public_jwk: Mapped[dict[str, Any]] = mapped_column(JSON)
    sign_count: Mapped[int] = mapped_column(Integer, default=0)
    backed_up: Mapped[bool] = mapped_column(default=False)
    label: Mapped[str] = mapped_column(String(100), default="")
    created_at: Mapped[float] = mapped_column(Float)
    used_at: Mapped[float | None] = mapped_column(Float, default=None)
    log_index: Mapped[int] = mapped_column(Integer)


class PasskeyChallenge(Base):
    """A challenge for a passkey ceremony: usable once, for a few minutes."""

    __tablename__ = "passkey_challenges"
    challenge: Mapped[bytes] = mapped_column(LargeBinary, primary_key=True)
    ceremony: Mapped[str] = mapped_column(String(16))  # registration | assertion
    account_id: Mapped[str] = mapped_column(String(64), default="")  # "": whoever answers
    expires_at: Mapped[float] = mapped_column(Float, index=True)


class Consent(Base):
    """A consent that the subject signed, in the form in which it came."""

    __tablename__ = "consents"
    __table_args__ = (
        Index("consents_by_grantee", "subject_id", "grantee_client", "superseded_by", "revoked_at", "expires_at"),
    )
    consent_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    subject_id: Mapped[str] = mapped_column(ForeignKey("subjects.subject_id"), index=True)
    sha256: Mapped[str] = mapped_column(String(64), unique=True)
    signed: Mapped[str] = mapped_column(Text)  # compact JWS, or statement and assertion as JSON
    statement: Mapped[dict[str, Any]] = mapped_column(JSON)
    grantee_org: Mapped[str] = mapped_column(String(128))
    grantee_client: Mapped[str] = mapped_column(String(128))
    expires_at: Mapped[int] = mapped_column(BigInteger)
    epoch: Mapped[int] = mapped_column(Integer)
    created_at: Mapped[float] = mapped_column(Float)
    revoked_at: Mapped[float | None] = mapped_column(Float, default=None)
    superseded_by: Mapped[str | None] = mapped_column(String(64), default=None)  # the narrower consent in its place
    log_index: Mapped[int] = mapped_column(Integer)


class Revocation(Base):
    """A signed revocation of one consent."""

    __tablename__ = "revocations"
    revocation_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    consent_id: Mapped[str] = mapped_column(ForeignKey("consents.consent_id"), index=True)
    sha256: Mapped[str] = mapped_column(String(64), unique=True)
    signed: Mapped[str] = mapped_column(Text)
    epoch_after: Mapped[int] = mapped_column(Integer)
    created_at: Mapped[float] = mapped_column(Float)
    log_index: Mapped[int] = mapped_column(Integer)


class Render(Base):
    """One allowed request for a video and what became of it. Refused requests live in the log and in `uses` only."""

    __tablename__ = "renders"
    __table_args__ = (Index("renders_by_client_and_time", "client_id", "created_at"),)
    render_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    client_id: Mapped[str] = mapped_column(ForeignKey("clients.client_id"))
    subject_id: Mapped[str | None] = mapped_column(String(64), index=True)
    action: Mapped[str] = mapped_column(String(16))  # render | evaluate
    purpose: Mapped[str] = mapped_column(String(200))
    controls: Mapped[dict[str, Any]] = mapped_column(JSON)
    portrait_sha256: Mapped[str] = mapped_column(String(64))
    speech_sha256: Mapped[str] = mapped_column(String(64))
    speech_s: Mapped[float] = mapped_column(Float)
    consent_id: Mapped[str | None] = mapped_column(ForeignKey("consents.consent_id"), index=True)
    consent_epoch: Mapped[int] = mapped_column(Integer, default=0)
    driving_sha256: Mapped[str | None] = mapped_column(String(64), default=None)  # of the movement of a driving clip
    driver_id: Mapped[str | None] = mapped_column(String(64), index=True, default=None)  # the subject who moved in it
    driver_consent_id: Mapped[str | None] = mapped_column(String(64), index=True, default=None)
    driver_consent_epoch: Mapped[int] = mapped_column(Integer, server_default="0", default=0)
    status: Mapped[str] = mapped_column(String(16), index=True)  # queued | running | delivered | refused | failed
    worker: Mapped[str] = mapped_column(String(64), server_default="", default="")  # whose engine it waits for
    progress: Mapped[float] = mapped_column(Float, default=0.0)
    decision_index: Mapped[int] = mapped_column(Integer)
    delivery_index: Mapped[int | None] = mapped_column(Integer, default=None)
    closing_index: Mapped[int | None] = mapped_column(Integer, default=None)  # log entry of a refusal or failure
    mark_id: Mapped[str] = mapped_column(String(16), unique=True)
    manifest_id: Mapped[str | None] = mapped_column(String(200), default=None)
    manifest_sha256: Mapped[str | None] = mapped_column(String(64), default=None)
    video_sha256: Mapped[str | None] = mapped_column(String(64), index=True, default=None)
    num_frames: Mapped[int | None] = mapped_column(Integer, default=None)
    duration_s: Mapped[float | None] = mapped_column(Float, default=None)
    failure_code: Mapped[str | None] = mapped_column(String(100), default=None)
    failure_detail: Mapped[str | None] = mapped_column(Text, default=None)
    created_at: Mapped[float] = mapped_column(Float)
    started_at: Mapped[float | None] = mapped_column(Float, default=None)
    finished_at: Mapped[float | None] = mapped_column(Float, default=None)


class Mark(Base):
    """Watermark registry: which render an id in a picture points to. Written before the first frame is marked."""

    __tablename__ = "marks"
    mark_id: Mapped[str] = mapped_column(String(16), primary_key=True)
    render_id: Mapped[str] = mapped_column(ForeignKey("renders.render_id"))
    created_at: Mapped[float] = mapped_column(Float)


class Use(Base):
    """One log entry that concerns a subject's face: decision, refusal, delivery. What `/v1/subjects/me/uses` lists."""

    __tablename__ = "uses"
    log_index: Mapped[int] = mapped_column(Integer, primary_key=True)
    subject_id: Mapped[str] = mapped_column(String(64), index=True)
    kind: Mapped[str] = mapped_column(String(40))
    org: Mapped[str] = mapped_column(String(200), default="")
    client_id: Mapped[str] = mapped_column(String(64), default="")
    purpose: Mapped[str] = mapped_column(String(200), default="")
    render_id: Mapped[str | None] = mapped_column(String(64), default=None)
    consent_id: Mapped[str | None] = mapped_column(String(64), default=None)
    created_at: Mapped[float] = mapped_column(Float)


class AuthorizationCodeRow(Base):
    """An authorization code, by its hash. Kept a little beyond its life, so that a second use is noticed."""

    __tablename__ = "authorization_codes"
    code_sha256: Mapped[str] = mapped_column(String(64), primary_key=True)
    client_id: Mapped[str] = mapped_column(String(64))
    account_id: Mapped[str] = mapped_column(String(64))
    redirect_uri: Mapped[str] = mapped_column(String(400))
    scope: Mapped[str] = mapped_column(String(400))
    code_challenge: Mapped[str] = mapped_column(String(64))
    dpop_thumbprint: Mapped[str] = mapped_column(String(64), default="")
    token_jti: Mapped[str] = mapped_column(String(64))
    expires_at: Mapped[float] = mapped_column(Float, index=True)
    redeemed_at: Mapped[float | None] = mapped_column(Float, default=None)


class Application(Base):
    """An organisation that asks to be let in, and what an operator said."""

    __tablename__ = "applications"
    application_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    kind: Mapped[str] = mapped_column(String(16))  # researcher | platform | auditor
    name: Mapped[str] = mapped_column(String(200))
    org: Mapped[str] = mapped_column(String(128))
    contact: Mapped[str] = mapped_column(String(200))
    project: Mapped[str] = mapped_column(Text)
    ethics_reference: Mapped[str] = mapped_column(String(200))
    scopes: Mapped[list[str]] = mapped_column(JSON)
    jwks: Mapped[dict[str, Any]] = mapped_column(JSON)
    term_days: Mapped[int] = mapped_column(Integer)
    budget_s_per_day: Mapped[float] = mapped_column(Float)
    status: Mapped[str] = mapped_column(String(16), index=True, default="open")  # open | approved | refused
    reason: Mapped[str] = mapped_column(Text, default="")
    client_id: Mapped[str | None] = mapped_column(String(64), default=None)
    created_at: Mapped[float] = mapped_column(Float)
    closed_at: Mapped[float | None] = mapped_column(Float, default=None)
    log_index: Mapped[int] = mapped_column(Integer)
    closing_index: Mapped[int | None] = mapped_column(Integer, default=None)


class SpentId(Base):
    """Identifiers that must not be seen twice, or again: assertion `jti`s, denied access tokens, DPoP proofs."""

    __tablename__ = "spent_ids"
    space: Mapped[str] = mapped_column(String(100), primary_key=True)
    value: Mapped[str] = mapped_column(String(200), primary_key=True)
    expires_at: Mapped[float] = mapped_column(Float, index=True)


class BrowserSession(Base):
    """Somebody who signed in with a browser. The row is found by a keyed hash of the cookie, never by the cookie."""

    __tablename__ = "browser_sessions"
    session_pseudonym: Mapped[str] = mapped_column(String(100), primary_key=True)
    account_id: Mapped[str] = mapped_column(String(64), index=True)  # a subject_id or client_id
    kind: Mapped[str] = mapped_column(String(16))  # subject | researcher | auditor | operator
    csrf: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[float] = mapped_column(Float)
    seen_at: Mapped[float] = mapped_column(Float)
    expires_at: Mapped[float] = mapped_column(Float, index=True)


class Invitation(Base):
    """A one-time link with which a member of staff makes their first passkey, found by a keyed hash of its token."""

    __tablename__ = "invitations"
    token_pseudonym: Mapped[str] = mapped_column(String(100), primary_key=True)
    client_id: Mapped[str] = mapped_column(String(64))  # the account that comes into being with the passkey
    kind: Mapped[str] = mapped_column(String(16))  # auditor | operator
    name: Mapped[str] = mapped_column(String(200))
    org: Mapped[str] = mapped_column(String(200))
    created_at: Mapped[float] = mapped_column(Float)
    expires_at: Mapped[float] = mapped_column(Float)
    used_at: Mapped[float | None] = mapped_column(Float, default=None)
    challenge: Mapped[bytes | None] = mapped_column(LargeBinary, default=None)  # for the passkey, given out last
    log_index: Mapped[int] = mapped_column(Integer)


class Webhook(Base):
    """Where a client is told that a detection is done."""

    __tablename__ = "webhooks"
    client_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    url: Mapped[str] = mapped_column(String(400))
    created_at: Mapped[float] = mapped_column(Float)
    log_index: Mapped[int] = mapped_column(Integer)


class Reveal(Base):
    """Somebody looked behind a pseudonym of the log, and why. The log holds the hash of the reason."""

    __tablename__ = "reveals"
    log_index: Mapped[int] = mapped_column(Integer, primary_key=True)
    pseudonym: Mapped[str] = mapped_column(String(80), index=True)
    account_id: Mapped[str | None] = mapped_column(String(200), default=None)
    by_client: Mapped[str] = mapped_column(String(64))
    reason: Mapped[str] = mapped_column(Text)
    created_at: Mapped[float] = mapped_column(Float)
