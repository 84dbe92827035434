"""What subjects sign: enrolment, consent, revocation, erasure. Statements, their exact form, and their verification.

A consent is the record that ISO/IEC TS 27560:2023 calls a consent record, reduced to what a gate can enforce, with
purposes from the Data Privacy Vocabulary. It is signed by the depicted person's own key, so the operator cannot invent
it. Its name everywhere is the SHA-256 of the canonical payload; the random `record_id` inside makes that name a hiding
commitment, so it may stand in manifests and in the log.

A statement is signed in one of two forms, under the same hash: as compact JWS, or with a passkey, as
`{"statement": {…}, "assertion": {…}}` where the assertion's challenge is the SHA-256 of the canonical statement.

Pure functions; the clock is an argument (Unix seconds). The wire formats are append-only: a field may be added under a
new `v`, none may change its meaning.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Final, TypeVar, get_type_hints

from policy.canonical import canonical_json, sha256_hex
from policy.errors import (
    AttestationError,
    ConsentWidenedError,
    IdentityError,
    MinorRefusedError,
    StatementMalformedError,
    StatementNonceError,
    StatementTimeError,
    StatementTypeError,
)
from policy.identity import check_display_text, check_identifier
from policy.passkey import AssertionEvidence, PasskeySigner, essential_members, verify_signed_by_passkey
from policy.purposes import (
    PURPOSE_ACCESSIBILITY,
    PURPOSE_COMMUNICATION,
    PURPOSE_EDUCATION,
    PURPOSE_EVALUATION,
    PURPOSE_RESEARCH,
    PURPOSE_TRAINING,
    PURPOSES,
)
from policy.statement import key_thumbprint, new_subject_key, public_jwk, sign_payload, verify_payload
from policy.texts import CURRENT_VERSION, find_text

__all__ = [
    "ANY_CONTROL",
    "CURRENT_VERSION",
    "PURPOSES",
    "PURPOSE_ACCESSIBILITY",
    "PURPOSE_COMMUNICATION",
    "PURPOSE_EDUCATION",
    "PURPOSE_EVALUATION",
    "PURPOSE_RESEARCH",
    "PURPOSE_TRAINING",
    "Consent",
    "ConsentStatement",
    "Enrolment",
    "EnrolmentStatement",
    "Erasure",
    "ErasureStatement",
    "Revocation",
    "RevocationStatement",
    "Signed",
    "Signer",
    "check_narrower",
    "key_thumbprint",
    "new_nonce",
    "new_subject_key",
    "public_jwk",
    "sign_statement",
    "verify_consent",
    "verify_enrolment",
    "verify_erasure",
    "verify_revocation",
]

Signed = str | Mapping[str, Any]
"""A signed statement as it comes: compact JWS, or `{"statement": {…}, "assertion": {…}}`."""
Signer = Mapping[str, Any] | PasskeySigner
"""Who must have signed it: a public JWK (for a JWS), or a passkey on record (for an assertion)."""

STATEMENT_VERSION: Final = 1
SUPERSEDING_VERSION: Final = 2
"""The version of a consent that takes another's place: it has `supersedes`, which version 1 does not know."""

ANY_CONTROL: Final = "*"
CLASS_ADULT: Final = "adult"
CLASS_PERSONA: Final = "persona"
CLASS_ARTWORK: Final = "artwork"
SUBJECT_CLASSES: Final = (CLASS_ADULT, CLASS_PERSONA, CLASS_ARTWORK)

EVERYTHING: Final = "*"
"""In a revocation, instead of a consent's hash: all consents given so far."""

MAX_PORTRAITS: Final = 64
MAX_CONTROLS: Final = 64
MAX_USES: Final = 1_000_000
MAX_TERM_S: Final = 2 * 366 * 86_400
"""A consent lasts two years at most; then the person is asked again."""
MAX_CLOCK_SKEW_S: Final = 300
MAX_SIGNING_S: Final = 86_400
"""A consent may begin this long before it is given: time to read and sign it. It cannot be dated back further."""
MAX_TIME_S: Final = 253_402_300_799  # the end of the year 9999
MAX_EPOCH: Final = 2**31

_SHA256 = re.compile(r"[0-9a-f]{64}")
_HEX_128 = re.compile(r"[0-9a-f]{32}")
_CONTROL = re.compile(r"[a-z][a-z0-9_]{0,63}")
_LANGUAGE = re.compile(r"[a-z]{2,3}(-[A-Za-z0-9]{2,8}){0,2}")
_TEXT_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]{0,31}")
_THUMBPRINT = re.compile(r"[A-Za-z0-9_-]{43}")
_MAX_RIGHTS_BASIS_NUM_CHARS: Final = 500


@dataclass(frozen=True)
class ConsentStatement:
    """ "This organisation may, for these purposes, animate these portraits of me."

    Args:
        subject_id: the person depicted.
        grantee_org, grantee_client: who may; both must match.
        purposes: IRIs out of `PURPOSES`.
        portraits: SHA-256 (hex) of the normalised portraits that may be animated.
        controls: names of the controls that the grantee may set; `("*",)` for any, `()` for none.
        not_before, expires_at: Unix seconds, from and until (exclusive).
        max_uses: renders that may be made.
        epoch: the subject's epoch at signing; withdrawing everything moves it.
        text_version, language: which text was shown to the person (BCP 47).
        record_id: 128 random bits in hex; the record identifier of TS 27560.
        supersedes: SHA-256 of an earlier consent that ends with this one, which allows less; "" for none.
    Raises: StatementMalformedError, naming the field.
    """

    TYP: ClassVar[str] = "placet-consent+jws"
    KIND: ClassVar[str] = "consent"

    subject_id: str
    grantee_org: str
    grantee_client: str
    purposes: tuple[str, ...]
    portraits: tuple[str, ...]
    controls: tuple[str, ...]
    not_before: int
    expires_at: int
    max_uses: int
    epoch: int
    text_version: str
    language: str
    record_id: str = field(default_factory=lambda: secrets.token_hex(16))
    supersedes: str = ""

    def __post_init__(self) -> None:
        _check_id(self.subject_id, "subject_id")
        _check_id(self.grantee_org, "grantee_org")
        _check_id(self.grantee_client, "grantee_client")
        _check_set(self.purposes, "purposes", 1, len(PURPOSES))
        if unknown := [purpose for purpose in self.purposes if purpose not in PURPOSES]:
            raise StatementMalformedError(
                f"purposes may hold only the purposes that this service offers; {_shortened(unknown[0])} is not one."
            )
        _check_set(self.portraits, "portraits", 1, MAX_PORTRAITS, _SHA256)
        _check_set(self.controls, "controls", 0, MAX_CONTROLS)
        if self.controls != (ANY_CONTROL,):
            _check_set(self.controls, "controls", 0, MAX_CONTROLS, _CONTROL)
        _check_int(self.not_before, "not_before", 0, MAX_TIME_S)
        _check_int(self.expires_at, "expires_at", 0, MAX_TIME_S)
        _check_int(self.max_uses, "max_uses", 1, MAX_USES)
        _check_int(self.epoch, "epoch", 0, MAX_EPOCH)
        _check_text(self.text_version, "text_version", _TEXT_VERSION)
        _check_text(self.language, "language", _LANGUAGE)
        _check_text(self.record_id, "record_id", _HEX_128)
        if self.supersedes:
            _check_text(self.supersedes, "supersedes", _SHA256)
        if not self.not_before < self.expires_at <= self.not_before + MAX_TERM_S:
            raise StatementMalformedError(
                "expires_at must lie after not_before, by at most two years; choose a shorter term and sign again."
            )

    def to_json(self) -> dict[str, Any]:
        """The payload that is signed."""
        return _payload(self)


@dataclass(frozen=True)
class RevocationStatement:
    """ "I take it back."

    Args:
        consent_sha256: the consent that ends, or `EVERYTHING`.
        epoch: the subject's epoch from now on. When everything is withdrawn it is one more than before, which makes
            every older consent stale.
        revoked_at: Unix seconds.
    """

    TYP: ClassVar[str] = "placet-revocation+jws"

    subject_id: str
    consent_sha256: str
    epoch: int
    revoked_at: int
    record_id: str = field(default_factory=lambda: secrets.token_hex(16))

    def __post_init__(self) -> None:
        _check_id(self.subject_id, "subject_id")
        if self.consent_sha256 != EVERYTHING:
            _check_text(self.consent_sha256, "consent_sha256", _SHA256)
        _check_int(self.epoch, "epoch", 0, MAX_EPOCH)
        _check_int(self.revoked_at, "revoked_at", 0, MAX_TIME_S)
        _check_text(self.record_id, "record_id", _HEX_128)

    def to_json(self) -> dict[str, Any]:
        """The payload that is signed."""
        return _payload(self)


@dataclass(frozen=True)
class EnrolmentStatement:
    """ "This is me (or: this is mine), and this key speaks for me."

    Args:
        subject_class: adult, persona or artwork.
        portraits: SHA-256 (hex) of the normalised portraits.
        nonce: the challenge that the service gave out; see `new_nonce`.
        key_thumbprint: RFC 7638 thumbprint of the key that signs; see `key_thumbprint`.
        adult_attested: the person states to be of age; required for adults.
        rights_basis: why it may be animated at all: origin of a persona, licence of an artwork; "" for adults.
        issued_at: Unix seconds.
    """

    TYP: ClassVar[str] = "placet-enrolment+jws"
    KIND: ClassVar[str] = "enrolment"

    subject_id: str
    subject_class: str
    portraits: tuple[str, ...]
    nonce: str
    key_thumbprint: str
    adult_attested: bool
    rights_basis: str
    issued_at: int
    text_version: str
    language: str

    def __post_init__(self) -> None:
        _check_id(self.subject_id, "subject_id")
        if self.subject_class == "minor":
            raise MinorRefusedError("Minors are not enrolled, whoever asks; this service does not animate them.")
        if self.subject_class not in SUBJECT_CLASSES:
            raise StatementMalformedError(f"subject_class must be one of {', '.join(SUBJECT_CLASSES)}.")
        _check_set(self.portraits, "portraits", 1, MAX_PORTRAITS, _SHA256)
        _check_text(self.nonce, "nonce", _HEX_128)
        _check_text(self.key_thumbprint, "key_thumbprint", _THUMBPRINT)
        if type(self.adult_attested) is not bool:
            raise StatementMalformedError("adult_attested must be true or false.")
        if not isinstance(self.rights_basis, str) or len(self.rights_basis) > _MAX_RIGHTS_BASIS_NUM_CHARS:
            raise StatementMalformedError(
                f"rights_basis must be text of at most {_MAX_RIGHTS_BASIS_NUM_CHARS} characters."
            )
        try:
            check_display_text(self.rights_basis, "rights_basis")
        except IdentityError as exc:
            raise StatementMalformedError(exc.sentence) from exc
        _check_int(self.issued_at, "issued_at", 0, MAX_TIME_S)
        _check_text(self.text_version, "text_version", _TEXT_VERSION)
        _check_text(self.language, "language", _LANGUAGE)
        if self.subject_class == CLASS_ADULT and not self.adult_attested:
            raise AttestationError("A person must attest to be of age; set adult_attested and sign again.")
        if self.subject_class != CLASS_ADULT and not self.rights_basis.strip():
            raise AttestationError(
                "A persona or artwork needs its rights_basis: how it was made, or under which licence it is used."
            )

    def to_json(self) -> dict[str, Any]:
        """The payload that is signed."""
        return _payload(self)


@dataclass(frozen=True)
class ErasureStatement:
    """ "Forget me."

    Args:
        epoch: the subject's epoch at signing.
        issued_at: Unix seconds.
    """

    TYP: ClassVar[str] = "placet-erasure+jws"
    KIND: ClassVar[str] = "erasure"

    subject_id: str
    epoch: int
    issued_at: int
    text_version: str
    language: str
    record_id: str = field(default_factory=lambda: secrets.token_hex(16))

    def __post_init__(self) -> None:
        _check_id(self.subject_id, "subject_id")
        _check_int(self.epoch, "epoch", 0, MAX_EPOCH)
        _check_int(self.issued_at, "issued_at", 0, MAX_TIME_S)
        _check_text(self.text_version, "text_version", _TEXT_VERSION)
        _check_text(self.language, "language", _LANGUAGE)
        _check_text(self.record_id, "record_id", _HEX_128)

    def to_json(self) -> dict[str, Any]:
        """The payload that is signed."""
        return _payload(self)


Statement = ConsentStatement | RevocationStatement | EnrolmentStatement | ErasureStatement
StatementT = TypeVar("StatementT", ConsentStatement, RevocationStatement, EnrolmentStatement, ErasureStatement)


@dataclass(frozen=True)
class Consent:
    """A verified consent: what was said, its name, the signed form to keep and show, how a passkey vouched for it."""

    statement: ConsentStatement
    sha256: str
    signed: str = field(repr=False)
    assertion: AssertionEvidence | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Revocation:
    """A verified revocation."""

    statement: RevocationStatement
    sha256: str
    signed: str = field(repr=False)
    assertion: AssertionEvidence | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Erasure:
    """A verified wish to be forgotten."""

    statement: ErasureStatement
    sha256: str
    signed: str = field(repr=False)
    assertion: AssertionEvidence | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Enrolment:
    """A verified enrolment; `public_jwk` is the key that speaks for the subject from now on."""

    statement: EnrolmentStatement
    sha256: str
    signed: str = field(repr=False)
    public_jwk: Mapping[str, Any] = field(repr=False)
    assertion: AssertionEvidence | None = field(default=None, repr=False)


def sign_statement(statement: Statement, private_jwk: Mapping[str, Any]) -> str:
    """The subject's side: a statement as compact JWS.

    Args:
        private_jwk: P-256 (signs ES256) or Ed25519; see `new_subject_key`.
    Raises: StatementKeyError.
    """
    return sign_payload(statement.to_json(), statement.TYP, private_jwk)


def verify_consent(signed: Signed, signer: Signer, now: float) -> Consent:
    """Accept a consent that its subject signed.

    Whether `signer` is the key of `statement.subject_id` is for the caller to know.

    Raises: StatementError (malformed, type, key, signature, text, time), PasskeyError.
    """
    statement, verified = _verify(ConsentStatement, signed, signer)
    # (7) it names a text that exists
    find_text(statement.KIND, statement.text_version, statement.language)
    # (8) not over yet, not dated back; it may begin in the future
    if statement.expires_at <= now:
        raise StatementTimeError("This consent has already expired; choose a later expires_at and sign again.")
    if statement.not_before < now - MAX_SIGNING_S:
        raise StatementTimeError("This consent is dated back; let not_before be now or later and sign again.")
    return Consent(statement, *verified)


def verify_revocation(signed: Signed, signer: Signer, now: float) -> Revocation:
    """Accept a revocation that the subject signed. The caller matches subject, consent and epoch with its records.

    An old date does not stop a revocation: it can only take away.

    Raises: StatementError (malformed, type, key, signature, time), PasskeyError.
    """
    statement, verified = _verify(RevocationStatement, signed, signer)
    # (7) not from the future
    if statement.revoked_at > now + MAX_CLOCK_SKEW_S:
        raise StatementTimeError("This revocation is dated in the future; set the clock right and sign again.")
    return Revocation(statement, *verified)


def verify_erasure(signed: Signed, signer: Signer, now: float) -> Erasure:
    """Accept that a subject wants to be forgotten. The caller matches subject and epoch with its records.

    Raises: StatementError (malformed, type, key, signature, text, time), PasskeyError.
    """
    statement, verified = _verify(ErasureStatement, signed, signer)
    # (7) it names a text that exists, and was signed now: what cannot be undone is not done on an old paper
    find_text(statement.KIND, statement.text_version, statement.language)
    if abs(now - statement.issued_at) > MAX_CLOCK_SKEW_S:
        raise StatementTimeError("This erasure is not dated now; set the clock right and sign again.")
    return Erasure(statement, *verified)


def verify_enrolment(signed: Signed, signer: Signer, now: float, *, nonce: str) -> Enrolment:
    """Accept an enrolment: possession of the key, the answer to our challenge, the class and its attestation.

    Args:
        nonce: the challenge that was given to this subject; the caller lets it be used once only.
    Raises: StatementError (malformed, type, key, signature, nonce, text, time), PasskeyError, MinorRefusedError,
        AttestationError.
    """
    statement, (sha256, kept, assertion) = _verify(EnrolmentStatement, signed, signer)
    key = signer.public_jwk if isinstance(signer, PasskeySigner) else signer
    # (7) it answers our challenge, with the key that it names, now, and names a text that exists
    if not secrets.compare_digest(statement.nonce.encode(), nonce.encode()):
        raise StatementNonceError("This enrolment answers another challenge; ask for a new one and sign again.")
    if statement.key_thumbprint != key_thumbprint(key):
        raise StatementMalformedError("key_thumbprint is not that of the key which signed; sign again.")
    find_text(statement.KIND, statement.text_version, statement.language)
    if abs(now - statement.issued_at) > MAX_CLOCK_SKEW_S:
        raise StatementTimeError("This enrolment is not dated now; set the clock right and sign again.")
    return Enrolment(statement, sha256, kept, public_jwk(key), assertion)


def check_narrower(new: ConsentStatement, old: ConsentStatement, *, uses_left: int) -> None:
    """Hold a consent that takes another's place to what it says: that it allows less, or as much, and nothing new.

    Args:
        uses_left: how often the old one could still be used.
    Raises: ConsentWidenedError, naming the field.
    """
    wider = {
        "grantee_org": new.grantee_org != old.grantee_org,
        "grantee_client": new.grantee_client != old.grantee_client,
        "purposes": not set(new.purposes) <= set(old.purposes),
        "portraits": not set(new.portraits) <= set(old.portraits),
        "controls": old.controls != (ANY_CONTROL,) and not set(new.controls) <= set(old.controls),
        "expires_at": new.expires_at > old.expires_at,
        "max_uses": new.max_uses > uses_left,
    }
    if field_name := next((name for name, is_wider in wider.items() if is_wider), None):
        raise ConsentWidenedError(
            f"{field_name} allows more than the consent that this one takes the place of; narrow it, or give a new "
            "consent that supersedes nothing."
        )


def new_nonce() -> str:
    """A challenge for an enrolment: 128 random bits in hex."""
    return secrets.token_hex(16)


def _verify(
    kind: type[StatementT], signed: Signed, signer: Signer
) -> tuple[StatementT, tuple[str, str, AssertionEvidence | None]]:
    """The statement; its hash, the form to keep, and how a passkey vouched for it."""
    # (1)–(5) form, key, header or ceremony, signature, canonical payload
    assertion = None
    if isinstance(signer, PasskeySigner):
        payload, data, assertion = verify_signed_by_passkey(signed, signer)
        assert isinstance(signed, Mapping)
        kept = canonical_json({"statement": payload, "assertion": essential_members(signed["assertion"])}).decode()
    elif isinstance(signed, str):
        payload, data = verify_payload(signed, kind.TYP, signer)
        kept = signed
    else:
        raise StatementTypeError("This statement is signed with a passkey that is not on record; sign it as JWS.")
    # (6) exactly the fields of this kind and version, each within its range
    return _from_payload(kind, payload), (sha256_hex(data), kept, assertion)


def _type_name(kind: type[Any]) -> str:
    return str(kind.TYP).removesuffix("+jws")


def _payload(statement: Statement) -> dict[str, Any]:
    supersedes = isinstance(statement, ConsentStatement) and statement.supersedes
    version = SUPERSEDING_VERSION if supersedes else STATEMENT_VERSION
    obj: dict[str, Any] = {"type": _type_name(type(statement)), "v": version}
    for each in fields(statement):
        if each.name == "supersedes" and version == STATEMENT_VERSION:
            continue
        value = getattr(statement, each.name)
        obj[each.name] = list(value) if isinstance(value, tuple) else value
    return obj


def _from_payload(kind: type[StatementT], payload: dict[str, Any]) -> StatementT:
    names, version = {each.name for each in fields(kind)}, payload.get("v")
    supersedes = kind is ConsentStatement and version == SUPERSEDING_VERSION
    known = type(version) is int and (supersedes or version == STATEMENT_VERSION)
    if payload.get("type") != _type_name(kind) or not known:
        raise StatementMalformedError(f"The statement must be of type {_type_name(kind)}, v {STATEMENT_VERSION}.")
    if not supersedes:
        names -= {"supersedes"}
    elif not payload.get("supersedes"):
        raise StatementMalformedError("A consent of v 2 must say in supersedes which one it takes the place of.")
    if wrong := sorted(names ^ (set(payload) - {"type", "v"})):
        raise StatementMalformedError(f"The statement must have exactly its fields; look at {_shortened(wrong[0])}.")
    hints = get_type_hints(kind)
    values = {name: payload[name] for name in names}
    for name in names:
        if hints[name] == tuple[str, ...]:
            if not isinstance(values[name], list):
                raise StatementMalformedError(f"{name} must be a list.")
            values[name] = tuple(values[name])
    return kind(**values)


def _check_id(value: object, name: str) -> None:
    try:
        check_identifier(value, name)
    except IdentityError as exc:
        raise StatementMalformedError(exc.sentence) from exc


def _check_text(value: object, name: str, pattern: re.Pattern[str]) -> None:
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise StatementMalformedError(f"{name} does not have the form that it must have; correct it and sign again.")


def _check_int(value: object, name: str, least: int, most: int) -> None:
    if type(value) is not int or not least <= value <= most:
        raise StatementMalformedError(f"{name} must be a whole number from {least} to {most}.")


def _check_set(values: object, name: str, least: int, most: int, pattern: re.Pattern[str] | None = None) -> None:
    if not isinstance(values, tuple) or not all(isinstance(value, str) for value in values):
        raise StatementMalformedError(f"{name} must be a list of texts.")
    if not least <= len(values) <= most or len(set(values)) != len(values):
        raise StatementMalformedError(f"{name} must hold {least} to {most} different values.")
    if pattern is not None and not all(pattern.fullmatch(value) for value in values):
        raise StatementMalformedError(f"A value in {name} does not have the form that it must have.")


def _shortened(text: str) -> str:
    """A value out of a statement, safe to quote: printable ASCII, at most 40 characters."""
    return ascii(text[:40])
