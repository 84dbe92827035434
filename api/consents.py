"""Consents on record: given, looked at, revoked. A revocation is in force when its answer is sent."""

from __future__ import annotations

import secrets
from collections.abc import Callable

from sqlalchemy import select
from sqlalchemy.orm import Session

from api.engine.facts import num_uses
from api.errors import ApiError, ConflictError, InvalidFieldError, NotFoundError
from api.storage.database import Database
from api.storage.models import Consent, Portrait, Revocation, Subject
from policy.consent import EVERYTHING, verify_consent, verify_revocation
from policy.gate import Gate


class ConsentEpochError(ApiError):
    """The statement was signed for another epoch than the subject's present one."""

    code = "consent.epoch"


class ConsentBook:
    """Signed consents and revocations, each an entry in the log first."""

    def __init__(self, database: Database, gate: Gate, now: Callable[[], float]) -> None:
        self._database = database
        self._gate = gate
        self._now = now

    def give(self, subject_id: str, statement_jws: str) -> Consent:
        """Put a consent on record.

        Args:
            subject_id: who is authenticated; the statement must be theirs.
        Raises: StatementError, InvalidFieldError, ConsentEpochError, ConflictError.
        """
        with self._database.write() as session:
            subject = _subject(session, subject_id)
            verified = verify_consent(statement_jws, subject.public_jwk, self._now())
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
            evidence = self._gate.record(
                "consent.given",
                {
                    "subject": self._gate.pseudonym("subject", subject_id),
                    "grantee": self._gate.pseudonym("client", statement.grantee_client),
                    "consent_sha256": verified.sha256,
                    "purposes": list(statement.purposes),
                    "expires_at": statement.expires_at,
                    "max_uses": statement.max_uses,
                    "epoch": statement.epoch,
                },
            )
            consent = Consent(
                consent_id=f"con_{secrets.token_hex(8)}",
                subject_id=subject_id,
                sha256=verified.sha256,
                jws=statement_jws,
                statement=statement.to_json(),
                epoch=statement.epoch,
                created_at=self._now(),
                log_index=evidence.index,
            )
            session.add(consent)
        return consent

    def revoke(self, subject_id: str, consent_id: str, statement_jws: str) -> tuple[Revocation, int]:
        """Take back one consent, or everything.

        Returns: the revocation on record, and the subject's epoch from now on.
        Raises: StatementError, InvalidFieldError, ConsentEpochError, NotFoundError.
        """
        with self._database.write() as session:
            subject = _subject(session, subject_id)
            consent = session.get(Consent, consent_id)
            if consent is None or consent.subject_id != subject_id:
                raise NotFoundError("You have given no such consent.")
            verified = verify_revocation(statement_jws, subject.public_jwk, self._now())
            statement = verified.statement
            if statement.subject_id != subject_id:
                raise InvalidFieldError("The statement is about another subject: sign one about yourself.")
            takes_everything = statement.consent_sha256 == EVERYTHING
            if not takes_everything and statement.consent_sha256 != consent.sha256:
                raise InvalidFieldError(f"The statement must name this consent by its SHA-256, {consent.sha256}.")
            epoch = subject.epoch + (1 if takes_everything else 0)
            if statement.epoch != epoch:
                raise ConsentEpochError(f"The epoch of this revocation must be {epoch}: sign it again with that.")
            known = session.scalar(select(Revocation).where(Revocation.sha256 == verified.sha256))
            if known is not None:
                return known, subject.epoch
            evidence = self._gate.record(
                "consent.revoked",
                {
                    "subject": self._gate.pseudonym("subject", subject_id),
                    "consent_sha256": statement.consent_sha256,
                    "statement_sha256": verified.sha256,
                    "epoch": epoch,
                },
            )
            now = self._now()
            subject.epoch = epoch
            for each in [consent] if not takes_everything else _live_consents(session, subject_id):
                each.revoked_at = each.revoked_at or now
            revocation = Revocation(
                revocation_id=f"rev_{secrets.token_hex(8)}",
                consent_id=consent_id,
                sha256=verified.sha256,
                jws=statement_jws,
                epoch_after=epoch,
                created_at=now,
                log_index=evidence.index,
            )
            session.add(revocation)
        return revocation, epoch

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
            return [(consent, num_uses(session, consent.consent_id)) for consent in found]


def _subject(session: Session, subject_id: str) -> Subject:
    subject = session.get(Subject, subject_id)
    if subject is None or subject.erased_at is not None:
        raise NotFoundError("There is no such subject.")
    return subject


def _live_consents(session: Session, subject_id: str) -> list[Consent]:
    return list(session.scalars(select(Consent).where(Consent.subject_id == subject_id, Consent.revoked_at.is_(None))))
