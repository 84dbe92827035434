"""Erasure: a subject has everything that is kept about them destroyed. What remains proves that it was done.

Destroyed: the subject's key (so sealed pictures and templates are noise, also in backups that hold the database of
later), the salt behind their names in the log, portraits, templates, passkeys, what their consents say, the list of
uses, videos that show them. Kept: that there was an account, of which class and until when; hashes of consents, which
name nobody; the log, whose entries nobody can connect to them any more.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import and_, delete, or_, select, update
from sqlalchemy.orm import Session

from api.consents import ConsentBook, ConsentEpochError, refusals_logged, revoke_all
from api.errors import InvalidFieldError, NotFoundError
from api.storage.blobs import BlobStore
from api.storage.database import Database
from api.storage.models import (
    BrowserSession,
    Client,
    Consent,
    Passkey,
    PasskeyChallenge,
    Portrait,
    Render,
    Revocation,
    Subject,
    Template,
    Use,
)
from policy.consent import Signed, verify_erasure
from policy.gate import Gate


@dataclass(frozen=True)
class Erased:
    """What an erasure did."""

    subject_id: str
    erased_at: float
    num_portraits: int
    num_videos: int
    log_index: int


class Eraser:
    """Carries out erasures."""

    def __init__(
        self, database: Database, blobs: BlobStore, gate: Gate, consents: ConsentBook, now: Callable[[], float]
    ) -> None:
        self._database = database
        self._blobs = blobs
        self._gate = gate
        self._consents = consents
        self._now = now

    def erase(self, subject_id: str, signed: Signed) -> Erased:
        """Forget a subject, on their own signed wish. In force when this returns; cannot be undone.

        Raises: StatementError, PasskeyError, InvalidFieldError, ConsentEpochError, NotFoundError.
        """
        with refusals_logged(self._gate, subject_id, "erasure"), self._database.write() as session:
            subject = session.get(Subject, subject_id)
            if subject is None or subject.erased_at is not None:
                raise NotFoundError("There is no such subject.")
            # (1) their own wish, about themself, now
            verified = verify_erasure(signed, self._consents.signer(session, subject, signed), self._now())
            if verified.statement.subject_id != subject_id:
                raise InvalidFieldError("The statement is about another subject: sign one about yourself.")
            if verified.statement.epoch != subject.epoch:
                raise ConsentEpochError(f"Your epoch is {subject.epoch} now: put it into the statement and sign again.")
            # (2) on record, under the name that nobody can compute any more afterwards
            evidence = self._gate.record(
                "subject.erased",
                {
                    "subject": self._gate.pseudonym("subject", subject_id),
                    "statement_sha256": verified.sha256,
                    "epoch": subject.epoch + 1,
                    "signed_with": "jws" if verified.assertion is None else "passkey",
                },
            )
            # (3) what is under way ends, what was delivered is withheld: the epoch moves, every consent is over
            now = self._now()
            subject.epoch += 1
            subject.erased_at = now
            revoke_all(session, subject_id, now)
            # (4) keys and salt, then everything that they opened
            subject.wrapped_key = None
            subject.pseudonym_salt = None
            subject.public_jwk = {}
            subject.enrolment = ""
            blobs = _forget_pictures(session, subject_id)
            videos = _forget_uses(session, subject_id)
            _forget_account(session, subject_id)
        for name in (*blobs, *videos):
            self._blobs.remove(name)
        self._database.shred_log()
        return Erased(subject_id, now, len(blobs), len(videos), evidence.index)


def _forget_pictures(session: Session, subject_id: str) -> list[str]:
    """Remove portraits and templates; returns the blobs to delete."""
    blobs = list(session.scalars(select(Portrait.sealed_blob).where(Portrait.subject_id == subject_id)))
    session.execute(delete(Template).where(Template.subject_id == subject_id))
    session.execute(delete(Portrait).where(Portrait.subject_id == subject_id))
    return blobs


def _forget_uses(session: Session, subject_id: str) -> list[str]:
    """Remove what consents and renders say about the person; returns the videos to delete."""
    of_subject, driven_by = Render.subject_id == subject_id, Render.driver_id == subject_id
    videos = list(
        session.scalars(select(Render.video_sha256).where(or_(of_subject, driven_by), Render.video_sha256.is_not(None)))
    )
    consents = select(Consent.consent_id).where(Consent.subject_id == subject_id)
    session.execute(update(Revocation).where(Revocation.consent_id.in_(consents)).values(signed=""))
    session.execute(
        update(Consent)
        .where(Consent.subject_id == subject_id)
        .values(signed="", statement={}, grantee_org="", grantee_client="")
    )
    # renders by the operator's word alone have no consent that could end: they end themselves
    unconsented = update(Render).where(
        or_(and_(of_subject, Render.consent_id.is_(None)), and_(driven_by, Render.driver_consent_id.is_(None)))
    )
    session.execute(unconsented.values(status="refused", failure_code="subject.erased"))
    session.execute(update(Render).where(of_subject).values(subject_id=None, portrait_sha256="", speech_sha256=""))
    session.execute(update(Render).where(driven_by).values(driver_id=None, driving_sha256=None))
    session.execute(delete(Use).where(Use.subject_id == subject_id))
    return [name for name in videos if name is not None]


def _forget_account(session: Session, subject_id: str) -> None:
    """Nobody acts for the subject any more."""
    for table in (Passkey, PasskeyChallenge, BrowserSession):
        session.execute(delete(table).where(table.account_id == subject_id))
    session.execute(
        update(Client).where(Client.client_id == subject_id).values(status="suspended", jwks={"keys": []}, scopes=[])
    )
