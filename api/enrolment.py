"""Enrolment of subjects: challenge, signed statement, portrait. Afterwards the subject's key speaks for the subject."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from joserfc import jws
from joserfc.errors import JoseError
from sqlalchemy import delete, select

from api.clients import ClientDirectory
from api.engine.intake import Intake
from api.engine.worker import Worker
from api.errors import ChallengeError, ConflictError, InvalidFieldError, NotFoundError
from api.storage.blobs import BlobStore
from api.storage.database import Database
from api.storage.models import Challenge, Portrait, Subject
from api.storage.sealing import new_wrapped_key, seal, unseal
from policy.canonical import sha256_hex
from policy.consent import key_thumbprint, new_nonce, public_jwk, verify_enrolment
from policy.errors import StatementError
from policy.gate import Gate
from policy.keys import KeyRing


@dataclass(frozen=True)
class IssuedChallenge:
    """What a subject signs back: a nonce, their pseudonym, and the hash of their picture once normalised."""

    nonce: str
    subject_id: str
    expires_at: float
    portrait_sha256: str | None


@dataclass(frozen=True)
class EnrolledSubject:
    """A subject that was just enrolled."""

    subject_id: str
    portrait_sha256: str
    summary: dict[str, Any]
    log_index: int


class Enrolment:
    """Takes subjects on record."""

    def __init__(
        self,
        *,
        database: Database,
        blobs: BlobStore,
        gate: Gate,
        keys: KeyRing,
        clients: ClientDirectory,
        intake: Intake,
        worker: Worker,
        now: Callable[[], float],
        challenge_lifetime_s: float,
    ) -> None:
        self._database = database
        self._blobs = blobs
        self._gate = gate
        self._keys = keys
        self._clients = clients
        self._intake = intake
        self._worker = worker
        self._now = now
        self._challenge_lifetime_s = challenge_lifetime_s

    def challenge(self, portrait: bytes | None) -> IssuedChallenge:
        """A challenge to sign, usable once. With a portrait: also the hash that the statement must name it by."""
        portrait_sha256 = self._intake.portrait(portrait)[1]["sha256"] if portrait is not None else None
        nonce, subject_id = new_nonce(), f"sub_{secrets.token_hex(8)}"
        expires_at = self._now() + self._challenge_lifetime_s
        with self._database.write() as session:
            session.execute(delete(Challenge).where(Challenge.expires_at < self._now()))
            session.add(Challenge(nonce=nonce, subject_id=subject_id, expires_at=expires_at))
        return IssuedChallenge(nonce, subject_id, expires_at, portrait_sha256)

    def enrol(self, portrait: bytes, statement_jws: str, unverified_jwk: str) -> EnrolledSubject:
        """Take a subject on record.

        Args:
            portrait: image file as uploaded.
            statement_jws: an EnrolmentStatement signed by the key in `unverified_jwk` (a JWK as JSON text).
        Raises: StatementError, ChallengeError, RemoteError (`portrait.*`), ConflictError, InvalidFieldError.
        """
        key = _parse_jwk(unverified_jwk)
        try:
            challenge = self._take_challenge(statement_jws)
            # (1) the key is theirs, the statement is fresh, the class is attested
            enrolment = verify_enrolment(statement_jws, key, self._now(), nonce=challenge.nonce)
        except (StatementError, ChallengeError) as error:
            self._gate.record("enrolment.refused", {"code": error.code})
            raise
        statement = enrolment.statement
        if statement.subject_id != challenge.subject_id:
            raise ChallengeError("The statement must name the subject_id that came with the challenge.")
        # (2) the picture is the one that was signed for, and can be animated
        png, seen = self._intake.portrait(portrait)
        portrait_sha256 = str(seen["sha256"])
        if statement.portraits != (portrait_sha256,):
            raise InvalidFieldError(
                f"The statement must name exactly this portrait, whose normalised form has SHA-256 {portrait_sha256}."
            )
        summary = self._worker.prepare(png)
        # (3) on record, log first
        return self._store(
            statement.subject_id,
            statement.subject_class,
            dict(enrolment.public_jwk),
            png,
            summary,
            {
                "class": statement.subject_class,
                "statement_sha256": enrolment.sha256,
                "key_thumbprint": key_thumbprint(key),
            },
        )

    def _store(
        self,
        subject_id: str,
        subject_class: str,
        key: dict[str, Any],
        png: bytes,
        summary: dict[str, Any],
        body: dict[str, Any],
    ) -> EnrolledSubject:
        portrait_sha256 = sha256_hex(png)
        wrapped_key = new_wrapped_key(self._keys.subject_key_wrap)
        sealed_blob = self._blobs.put(
            seal(png, subject_id=subject_id, wrapped_key=wrapped_key, wrapping_key=self._keys.subject_key_wrap)
        )
        with self._database.write() as session:
            if session.get(Portrait, portrait_sha256) is not None:
                self._blobs.remove(sealed_blob)
                raise ConflictError("This portrait is enrolled already: its subject can use it, nobody else can.")
            evidence = self._gate.record(
                "subject.enrolled",
                {
                    **body,
                    "subject": self._gate.pseudonym("subject", subject_id),
                    "portrait": self._gate.pseudonym("portrait", portrait_sha256),
                },
            )
            now = self._now()
            session.add(
                Subject(
                    subject_id=subject_id,
                    subject_class=subject_class,
                    public_jwk=key,
                    wrapped_key=wrapped_key,
                    created_at=now,
                    log_index=evidence.index,
                )
            )
            session.flush()
            session.add(
                Portrait(
                    sha256=portrait_sha256,
                    subject_id=subject_id,
                    sealed_blob=sealed_blob,
                    summary=summary,
                    created_at=now,
                )
            )
            self._clients.add_subject(session, subject_id, key, evidence.index)
        return EnrolledSubject(subject_id, portrait_sha256, summary, evidence.index)

    def find(self, subject_id: str) -> tuple[Subject, list[Portrait]]:
        """A subject and their portraits. Raises NotFoundError."""
        with self._database.read() as session:
            subject = session.get(Subject, subject_id)
            if subject is None:
                raise NotFoundError("There is no such subject.")
            portraits = session.scalars(
                select(Portrait).where(Portrait.subject_id == subject_id).order_by(Portrait.created_at)
            ).all()
        return subject, list(portraits)

    def subject_of(self, portrait_sha256: str) -> str | None:
        """Whose portrait this is, if anybody has enrolled it."""
        with self._database.read() as session:
            portrait = session.get(Portrait, portrait_sha256)
        return portrait.subject_id if portrait is not None else None

    def open_portrait(self, portrait: Portrait) -> bytes:
        """The normalised PNG of an enrolled portrait. Raises StorageError; NotFoundError after an erasure."""
        with self._database.read() as session:
            subject = session.get_one(Subject, portrait.subject_id)
        if subject.wrapped_key is None:
            raise NotFoundError("The person shown has had their data erased.")
        return unseal(
            self._blobs.get(portrait.sealed_blob),
            subject_id=portrait.subject_id,
            wrapped_key=subject.wrapped_key,
            wrapping_key=self._keys.subject_key_wrap,
        )

    def _take_challenge(self, statement_jws: str) -> Challenge:
        """The challenge that a statement says it answers, used up by being taken."""
        nonce = _unverified_nonce(statement_jws)
        with self._database.write() as session:
            challenge = session.get(Challenge, nonce) if nonce else None
            if challenge is not None:
                session.delete(challenge)
        if challenge is None or challenge.expires_at < self._now():
            raise ChallengeError("This challenge is unknown, used or too old: ask for a new one and sign again.")
        return challenge


def _parse_jwk(unverified_jwk: str) -> Mapping[str, Any]:
    try:
        key = json.loads(unverified_jwk)
    except (ValueError, RecursionError) as exc:
        raise InvalidFieldError("public_jwk must be a JSON Web Key as JSON text.") from exc
    if not isinstance(key, dict):
        raise InvalidFieldError("public_jwk must be a JSON object.")
    if "d" not in key:
        key = public_jwk(key)
    return key


def _unverified_nonce(statement_jws: str) -> str:
    try:
        payload = json.loads(jws.extract_compact(statement_jws.encode()).payload)
    except (JoseError, ValueError, TypeError, AttributeError, RecursionError):
        return ""
    nonce = payload.get("nonce") if isinstance(payload, dict) else None
    return nonce if isinstance(nonce, str) else ""
