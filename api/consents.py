"""Consents on record: given, narrowed, looked at, revoked. A revocation is in force when its answer is sent.

Statements come in both signed forms (see `policy.consent`). Whatever is refused is an entry in the log, like whatever
is accepted.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from api.engine.facts import num_uses, num_uses_by_consent
from api.errors import ApiError, ConflictError, InvalidFieldError, NotFoundError
from api.passkeys import PasskeyBook
from api.storage.database import Database
from api.storage.models import Consent, Portrait, Revocation, Subject
from policy.canonical import canonical_json, sha256_hex
from policy.consent import (
    EVERYTHING,
    ConsentStatement,
    Signed,
    Signer,
    check_narrower,
    verify_consent,
    verify_revocation,
)
from policy.errors import PasskeyError, StatementError
from policy.gate import Gate
from policy.passkey import AssertionEvidence
from policy.texts import ShownText, shown_text

MAX_LIVE_CONSENTS = 1000
MAX_LIVE_CONSENTS_PER_CLIENT = 100
"""A decision looks at all of those of one client, so their number is bounded."""


class ConsentEpochError(ApiError):
    """The statement was signed for another epoch than the subject's present one."""

    code = "consent.epoch"


class TooManyConsentsError(ApiError):
    """More consents are live at the same time than anybody could keep in view."""

    code = "consent.too_many"


class ConsentEndedError(ApiError):
    """A consent that is over cannot be narrowed."""

    code = "consent.ended"


@dataclass(frozen=True)
class ConsentDraft:
    """A statement ready to be signed, and what it means.

    Attributes:
        canonical: the RFC 8785 text whose SHA-256 is signed.
        passkey_options: for `navigator.credentials.get`; its challenge is that SHA-256.
    """

    statement: ConsentStatement
    canonical: str
    sha256: str
    text: ShownText
    passkey_options: dict[str, Any]


class ConsentBook:
    """Signed consents and revocations, each an entry in the log first.

    Args:
        grantee_name: client id -> the name that the operator has vetted, "" where there is none.
    """

    def __init__(
        self,
        database: Database,
        gate: Gate,
        passkeys: PasskeyBook,
        grantee_name: Callable[[str], str],
        now: Callable[[], float],
    ) -> None:
        self._database = database
        self._gate = gate
        self._passkeys = passkeys
        self._grantee_name = grantee_name
        self._now = now

    # -- before signing

    def draft(self, statement: ConsentStatement) -> ConsentDraft:
        """What a statement says in plain words, and what a passkey has to answer to sign it. Nothing is recorded.

        Raises: StatementTextError.
        """
        canonical = canonical_json(statement.to_json())
        sha256 = sha256_hex(canonical)
        return ConsentDraft(
            statement=statement,
            canonical=canonical.decode(),
            sha256=sha256,
            text=shown_text(statement, grantee_name=self._grantee_name(statement.grantee_client)),
            passkey_options=self._passkeys.statement_options(statement.subject_id, sha256),
        )

    # -- giving

    def give(self, subject_id: str, signed: Signed) -> Consent:
        """Put a consent on record; one that supersedes another ends that other.

        Args:
            subject_id: who is authenticated; the statement must be theirs.
        Raises: StatementError, PasskeyError, InvalidFieldError, ConsentEpochError, ConflictError,
            TooManyConsentsError, ConsentEndedError.
        """
        with self._refusals_logged(subject_id, "consent"), self._database.write() as session:
            subject = _subject(session, subject_id)
            verified = verify_consent(signed, self.signer(session, subject, signed), self._now())
            self._note(session, verified.assertion)
            statement = verified.statement
            if statement.subject_id != subject_id:
                raise InvalidFieldError("The statement is about another subject: sign one about yourself.")
            if statement.epoch != subject.epoch:
                raise ConsentEpochError(f"Your epoch is {subject.epoch} now: put it into the statement and sign again.")
            enrolled = set(session.scalars(select(Portrait.sha256).where(Portrait.subject_id == subject_id)))
            if not set(statement.portraits) <= enrolled:
                raise InvalidFieldError("The statement names a portrait that you have not enrolled.")
            if session.scalar(select(Consent).where(Consent.sha256 == verified.sha256)) is not None:
                raise ConflictError("This very statement is on record already: sign a new one if you want another.")
            old = self._superseded(session, subject, statement)
            if old is None:
                self._check_number(session, subject, statement)
            evidence = self._gate.record(
                "consent.given",
                {
                    "subject": self._gate.pseudonym("subject", subject_id),
                    "grantee": self._gate.pseudonym("client", statement.grantee_client),
                    "consent_sha256": verified.sha256,
                    "supersedes": statement.supersedes or None,
                    "purposes": list(statement.purposes),
                    "expires_at": statement.expires_at,
                    "max_uses": statement.max_uses,
                    "epoch": statement.epoch,
                    "text": f"consent.{statement.text_version}.{statement.language}",
                    "signed_with": "jws" if verified.assertion is None else "passkey",
                },
            )
            consent = Consent(
                consent_id=f"con_{secrets.token_hex(8)}",
                subject_id=subject_id,
                sha256=verified.sha256,
                signed=verified.signed,
                statement=statement.to_json(),
                grantee_org=statement.grantee_org,
                grantee_client=statement.grantee_client,
                expires_at=statement.expires_at,
                epoch=statement.epoch,
                created_at=self._now(),
                log_index=evidence.index,
            )
            session.add(consent)
            if old is not None:
                old.superseded_by = consent.consent_id
        return consent

    def _superseded(self, session: Session, subject: Subject, statement: ConsentStatement) -> Consent | None:
        """The consent that a statement takes the place of, if it is live and allows at least as much."""
        if not statement.supersedes:
            return None
        old = session.scalar(select(Consent).where(Consent.sha256 == statement.supersedes))
        if old is None or old.subject_id != subject.subject_id:
            raise NotFoundError("You have given no consent with the SHA-256 that supersedes names.")
        is_live = old.revoked_at is None and old.superseded_by is None and old.epoch == subject.epoch
        if not is_live or old.expires_at <= self._now():
            raise ConsentEndedError("The consent that supersedes names is over already: give a new one instead.")
        uses_left = int(old.statement["max_uses"]) - num_uses(session, old.consent_id)
        check_narrower(statement, statement_of(old), uses_left=uses_left)
        return old

    def _check_number(self, session: Session, subject: Subject, statement: ConsentStatement) -> None:
        live = select(func.count()).where(
            Consent.subject_id == subject.subject_id,
            Consent.epoch == subject.epoch,
            Consent.revoked_at.is_(None),
            Consent.superseded_by.is_(None),
            Consent.expires_at > self._now(),
        )
        of_client = live.where(Consent.grantee_client == statement.grantee_client)
        for counted, most in ((live, MAX_LIVE_CONSENTS), (of_client, MAX_LIVE_CONSENTS_PER_CLIENT)):
            if (session.scalar(counted) or 0) >= most:
                raise TooManyConsentsError(
                    f"{most} of your consents are live already: revoke one before you give more."
                )

    # -- taking back

    def revoke(self, subject_id: str, consent_id: str, signed: Signed) -> tuple[Revocation, int]:
        """Take back one consent, or everything.

        Returns: the revocation on record, and the subject's epoch from now on.
        Raises: StatementError, PasskeyError, InvalidFieldError, ConsentEpochError, NotFoundError.
        """
        with self._refusals_logged(subject_id, "revocation"), self._database.write() as session:
            subject = _subject(session, subject_id)
            consent = session.get(Consent, consent_id)
            if consent is None or consent.subject_id != subject_id:
                raise NotFoundError("You have given no such consent.")
            verified = verify_revocation(signed, self.signer(session, subject, signed), self._now())
            self._note(session, verified.assertion)
            statement = verified.statement
            if statement.subject_id != subject_id:
                raise InvalidFieldError("The statement is about another subject: sign one about yourself.")
            takes_everything = statement.consent_sha256 == EVERYTHING
            if not takes_everything and statement.consent_sha256 != consent.sha256:
                raise InvalidFieldError(f"The statement must name this consent by its SHA-256, {consent.sha256}.")
            known = session.scalar(select(Revocation).where(Revocation.sha256 == verified.sha256))
            if known is not None:
                return known, subject.epoch
            epoch = subject.epoch + (1 if takes_everything else 0)
            if statement.epoch != epoch:
                raise ConsentEpochError(f"The epoch of this revocation must be {epoch}: sign it again with that.")
            evidence = self._gate.record(
                "consent.revoked",
                {
                    "subject": self._gate.pseudonym("subject", subject_id),
                    "consent_sha256": statement.consent_sha256,
                    "statement_sha256": verified.sha256,
                    "epoch": epoch,
                    "signed_with": "jws" if verified.assertion is None else "passkey",
                },
            )
            now = self._now()
            subject.epoch = epoch
            consent.revoked_at = consent.revoked_at or now
            if takes_everything:
                revoke_all(session, subject_id, now)
            revocation = Revocation(
                revocation_id=f"rev_{secrets.token_hex(8)}",
                consent_id=consent_id,
                sha256=verified.sha256,
                signed=verified.signed,
                epoch_after=epoch,
                created_at=now,
                log_index=evidence.index,
            )
            session.add(revocation)
        return revocation, epoch

    # -- looking

    def find(self, subject_id: str, consent_id: str) -> tuple[Consent, int]:
        """One of the subject's consents, and how often it was used. Raises NotFoundError."""
        with self._database.read() as session:
            consent = session.get(Consent, consent_id)
            if consent is None or consent.subject_id != subject_id:
                raise NotFoundError("You have given no such consent.")
            return consent, num_uses(session, consent_id)

    def all(self, subject_id: str) -> list[tuple[Consent, int]]:
        """Every consent that the subject ever gave, newest first, with its number of uses."""
        with self._database.read() as session:
            found = session.scalars(
                select(Consent).where(Consent.subject_id == subject_id).order_by(Consent.created_at.desc())
            ).all()
            uses = num_uses_by_consent(session, select(Consent.consent_id).where(Consent.subject_id == subject_id))
            return [(consent, uses.get(consent.consent_id, 0)) for consent in found]

    def text_of(self, consent: Consent) -> ShownText:
        """What was shown to the person when they signed it."""
        return shown_text(statement_of(consent), grantee_name=self._grantee_name(consent.grantee_client))

    # -- who signs

    def signer(self, session: Session, subject: Subject, signed: Signed) -> Signer:
        """Who must have signed this for `subject`: one of their passkeys, or the key that they enrolled with.

        Raises: PasskeyError.
        """
        if isinstance(signed, Mapping):
            return self._passkeys.signer_of(session, subject.subject_id, signed)
        return subject.public_jwk

    def _note(self, session: Session, assertion: AssertionEvidence | None) -> None:
        if assertion is not None:
            self._passkeys.note_use(session, assertion)

    @contextmanager
    def _refusals_logged(self, subject_id: str, what: str) -> Iterator[None]:
        with refusals_logged(self._gate, subject_id, what):
            yield


@contextmanager
def refusals_logged(gate: Gate, subject_id: str, what: str) -> Iterator[None]:
    """Whatever refuses a statement inside becomes an entry with its code; it goes on as it was raised."""
    try:
        yield
    except (StatementError, PasskeyError, ApiError) as error:
        body = {"subject": gate.pseudonym("subject", subject_id), "statement": what, "code": error.code}
        evidence = gate.record("statement.refused", body)
        if isinstance(error, ApiError):
            error.extras.setdefault("log_index", evidence.index)
        raise


def statement_of(consent: Consent) -> ConsentStatement:
    """What a consent on record says."""
    values = {name: value for name, value in consent.statement.items() if name not in ("type", "v")}
    for name in ("purposes", "portraits", "controls"):
        values[name] = tuple(values[name])
    return ConsentStatement(**values)


def revoke_all(session: Session, subject_id: str, now: float) -> None:
    """End every consent of a subject that has not ended yet."""
    session.execute(
        update(Consent).where(Consent.subject_id == subject_id, Consent.revoked_at.is_(None)).values(revoked_at=now)
    )


def _subject(session: Session, subject_id: str) -> Subject:
    subject = session.get(Subject, subject_id)
    if subject is None or subject.erased_at is not None:
        raise NotFoundError("There is no such subject.")
    return subject
