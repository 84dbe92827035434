"""Enrolment of subjects: challenge, signed statement, portrait. Afterwards the subject's key speaks for the subject.

Two forms, as everywhere (see `policy.consent`): a JWS under a key of the subject's own, or a passkey that is registered
with the same challenge. A face that is protected already is enrolled by nobody else.
"""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from joserfc import jws
from joserfc.errors import JoseError
from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from api.clients import ClientDirectory
from api.engine.intake import Intake
from api.engine.worker import Worker
from api.errors import ApiError, ChallengeError, ConflictError, InvalidFieldError, NotFoundError
from api.faces import Bystanders, FaceGallery
from api.passkeys import PasskeyBook
from api.pseudonyms import salted
from api.storage.blobs import BlobStore
from api.storage.database import Database
from api.storage.models import Challenge, Portrait, Subject
from api.storage.sealing import new_wrapped_key, seal, unseal
from generator.personas import list_personas
from policy.canonical import sha256_hex
from policy.consent import (
    CLASS_ADULT,
    CLASS_PERSONA,
    Signed,
    Signer,
    new_nonce,
    public_jwk,
    verify_enrolment,
)
from policy.consent import Enrolment as VerifiedEnrolment
from policy.errors import PasskeyAccountError, PasskeyError, StatementError
from policy.facts import BESIDE_NOBODY, BESIDE_STRANGERS
from policy.gate import Gate
from policy.keys import KeyRing
from policy.passkey import PasskeySigner, credential_id_of, verify_registration

ATTESTED_BY_SELF, ATTESTED_BY_MANIFEST, ATTESTED_BY_DECLARATION = "self", "manifest", "declaration"
"""Who says that the class is right: the adult; the manifest that ships with a persona; whoever enrolled it."""
_SALT_NUM_BYTES = 32


class FaceProtectedError(ApiError):
    """The portrait is like a face that somebody else has enrolled."""

    code = "enrolment.face_protected"


@dataclass(frozen=True)
class IssuedChallenge:
    """What a subject signs back: a nonce, their pseudonym, and the hash of their picture once normalised.

    Attributes:
        passkey_options: for `navigator.credentials.create`, if the subject signs with a passkey.
    """

    nonce: str
    subject_id: str
    expires_at: float
    portrait_sha256: str | None
    passkey_options: dict[str, Any]


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
        passkeys: PasskeyBook,
        faces: FaceGallery,
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
        self._passkeys = passkeys
        self._faces = faces
        self._intake = intake
        self._worker = worker
        self._now = now
        self._challenge_lifetime_s = challenge_lifetime_s

    def challenge(self, portrait: bytes | None, face: int | str | None = None) -> IssuedChallenge:
        """A challenge to sign, usable once. With a portrait: also the hash that the statement must name it by.

        Args:
            face: whose picture it is, if it shows several people; see `generator.faces`.
        """
        portrait_sha256 = self._intake.portrait(portrait, face)[1]["sha256"] if portrait is not None else None
        nonce, subject_id = new_nonce(), f"sub_{secrets.token_hex(8)}"
        expires_at = self._now() + self._challenge_lifetime_s
        with self._database.write() as session:
            session.execute(delete(Challenge).where(Challenge.expires_at < self._now()))
            session.add(Challenge(nonce=nonce, subject_id=subject_id, expires_at=expires_at))
        options = self._passkeys.options_for(subject_id, subject_id, bytes.fromhex(nonce))
        return IssuedChallenge(nonce, subject_id, expires_at, portrait_sha256, options)

    def enrol(
        self,
        portrait: bytes,
        signed: Signed,
        *,
        jwk: Mapping[str, Any] | None = None,
        registration: object = None,
        face: int | str | None = None,
    ) -> EnrolledSubject:
        """Take a subject on record.

        Args:
            portrait: image file as uploaded.
            signed: an EnrolmentStatement, as JWS by the key `jwk`, or with its assertion by a passkey.
            jwk: the public key, for a JWS.
            registration: the new passkey, as `navigator.credentials.create` answers, for an assertion.
            face: which face is the subject's, if the picture shows several; see `generator.faces`.
        Raises: StatementError, PasskeyError, ChallengeError, RemoteError (`portrait.*`), ConflictError,
            InvalidFieldError, FaceProtectedError.
        """
        with self._refusals_logged():
            challenge = self._take_challenge(signed)
            # (1) the key is theirs, the statement is fresh, the class is attested
            signer = self._signer(signed, challenge.nonce, jwk, registration)
            enrolment = verify_enrolment(signed, signer, self._now(), nonce=challenge.nonce)
            if enrolment.statement.subject_id != challenge.subject_id:
                raise ChallengeError("The statement must name the subject_id that came with the challenge.")
            # (2) the picture is the one that was signed for, and can be animated
            png, seen = self._intake.portrait(portrait, face)
            portrait_sha256 = str(seen["sha256"])
            if enrolment.statement.portraits != (portrait_sha256,):
                raise InvalidFieldError(
                    "The statement must name exactly this portrait, whose normalised form has SHA-256 "
                    f"{portrait_sha256}."
                )
            summary = self._worker.prepare(png, face) | {"num_faces": seen["num_faces"], "face": face}
            template, bystanders = base64.b64decode(seen["template"]), Bystanders.of(seen)
            # (3) the face is nobody else's; on record, log first
            attested_by = _attested_by(enrolment.statement.subject_class, sha256_hex(portrait))
            return self._store(enrolment, png, summary, template, bystanders, attested_by, registration)

    def _store(
        self,
        enrolment: VerifiedEnrolment,
        png: bytes,
        summary: dict[str, Any],
        template: bytes,
        bystanders: Bystanders,
        attested_by: str,
        registration: object,
    ) -> EnrolledSubject:
        statement, portrait_sha256 = enrolment.statement, sha256_hex(png)
        subject_id, keys, now = statement.subject_id, self._keys.service, self._now()
        wrapped_key = new_wrapped_key(subject_id, keys)
        sealed_blob = self._blobs.put(seal(png, subject_id=subject_id, wrapped_key=wrapped_key, keys=keys))
        try:
            with self._database.write() as session:
                self._check_nobody_elses(session, portrait_sha256, template, subject_id, bystanders)
                salt = secrets.token_bytes(_SALT_NUM_BYTES)
                evidence = self._gate.record(
                    "subject.enrolled",
                    {
                        "class": statement.subject_class,
                        "attested_by": attested_by,
                        "statement_sha256": enrolment.sha256,
                        "key_thumbprint": statement.key_thumbprint,
                        "signed_with": "jws" if enrolment.assertion is None else "passkey",
                        "text": f"enrolment.{statement.text_version}.{statement.language}",
                        "subject": salted(self._keys, "subject", subject_id, salt),
                        "portrait": salted(self._keys, "portrait", portrait_sha256, salt),
                    },
                )
                subject = Subject(
                    subject_id=subject_id,
                    subject_class=statement.subject_class,
                    public_jwk=dict(enrolment.public_jwk),
                    enrolment=enrolment.signed,
                    attested_by=attested_by,
                    wrapped_key=wrapped_key,
                    pseudonym_salt=salt,
                    created_at=now,
                    log_index=evidence.index,
                )
                session.add(subject)
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
                session.flush()
                self._faces.add(session, subject, portrait_sha256, template)
                self._clients.add_subject(session, subject_id, enrolment.public_jwk, evidence.index)
                if enrolment.assertion is not None:
                    nonce = bytes.fromhex(statement.nonce)
                    self._passkeys.register(session, subject_id, registration, challenge=nonce)
                    session.flush()
                    self._passkeys.note_use(session, enrolment.assertion)
        except BaseException:
            self._blobs.remove(sealed_blob)
            raise
        return EnrolledSubject(subject_id, portrait_sha256, summary, evidence.index)

    def _check_nobody_elses(
        self, session: Session, portrait_sha256: str, template: bytes, subject_id: str, bystanders: Bystanders
    ) -> None:
        if session.get(Portrait, portrait_sha256) is not None:
            raise ConflictError("This portrait is enrolled already: its subject can use it, nobody else can.")
        likeness = self._faces.look(session, template, subject_id, bystanders)
        if likeness.beside not in (BESIDE_NOBODY, BESIDE_STRANGERS):
            raise FaceProtectedError(
                "Somebody else in the picture is protected here, or could not be compared: send one of yourself alone."
            )
        if likeness.matches_other_subject:
            raise FaceProtectedError(
                "This face is enrolled already, and only who enrolled it can use it. If it is yours, use that account; "
                "if it only resembles another, the operator can look into it."
            )

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

    def open_group_picture(self, subject_id: str, portrait_sha256: str, is_face_chosen: bool) -> bytes | None:
        """An enrolled portrait of this subject that must be looked at again before it is decided on.

        Args:
            is_face_chosen: somebody named one of its faces.
        Returns: the normalised PNG; None where it shows the subject alone, or is not theirs.
        """
        with self._database.read() as session:
            portrait = session.get(Portrait, portrait_sha256)
            if portrait is None or portrait.subject_id != subject_id:
                return None
            if portrait.summary.get("num_faces", 1) == 1 and not is_face_chosen:
                return None
        try:
            return self.open_portrait(portrait)
        except NotFoundError:  # erased: the decision says so, with every other reason
            return None

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
            keys=self._keys.service,
        )

    def _signer(self, signed: Signed, nonce: str, jwk: Mapping[str, Any] | None, registration: object) -> Signer:
        """Who must have signed the enrolment: the key that came with it, or the passkey that is registered."""
        if (jwk is None) == (registration is None) or isinstance(signed, Mapping) != (jwk is None):
            raise InvalidFieldError("Send a JWS with its public_jwk, or statement and assertion with the registration.")
        if jwk is not None:
            return jwk
        site = self._passkeys.site
        new = verify_registration(registration, challenge=bytes.fromhex(nonce), rp_id=site.rp_id, origin=site.origin)
        assert isinstance(signed, Mapping)
        if credential_id_of(signed.get("assertion")) != new.credential_id:
            raise PasskeyAccountError("The statement must be signed with the passkey that is registered with it.")
        return PasskeySigner(site, new.public_jwk, new.sign_count)

    def _take_challenge(self, signed: Signed) -> Challenge:
        """The challenge that a statement says it answers, used up by being taken."""
        nonce = _unverified_nonce(signed)
        with self._database.write() as session:
            challenge = session.get(Challenge, nonce) if nonce else None
            if challenge is not None:
                session.delete(challenge)
        if challenge is None or challenge.expires_at < self._now():
            raise ChallengeError("This challenge is unknown, used or too old: ask for a new one and sign again.")
        return challenge

    @contextmanager
    def _refusals_logged(self) -> Iterator[None]:
        try:
            yield
        except (StatementError, PasskeyError, ApiError) as error:
            evidence = self._gate.record("enrolment.refused", {"code": error.code})
            if isinstance(error, ApiError):
                error.extras.setdefault("log_index", evidence.index)
            raise


def parse_jwk(unverified_jwk: str) -> Mapping[str, Any]:
    """A public key out of a form. Raises: InvalidFieldError, StatementKeyError."""
    try:
        key = json.loads(unverified_jwk)
    except (ValueError, RecursionError) as exc:
        raise InvalidFieldError("public_jwk must be a JSON Web Key as JSON text.") from exc
    if not isinstance(key, dict):
        raise InvalidFieldError("public_jwk must be a JSON object.")
    if "d" not in key:
        key = public_jwk(key)
    return key


def _attested_by(subject_class: str, upload_sha256: str) -> str:
    if subject_class == CLASS_ADULT:
        return ATTESTED_BY_SELF
    shipped = {persona.portrait_sha256 for persona in list_personas()}
    is_shipped = subject_class == CLASS_PERSONA and upload_sha256 in shipped
    return ATTESTED_BY_MANIFEST if is_shipped else ATTESTED_BY_DECLARATION


def _unverified_nonce(signed: Signed) -> str:
    if isinstance(signed, Mapping):
        payload = signed.get("statement")
    else:
        try:
            payload = json.loads(jws.extract_compact(signed.encode()).payload)
        except (JoseError, ValueError, TypeError, AttributeError, RecursionError):
            return ""
    nonce = payload.get("nonce") if isinstance(payload, dict) else None
    return nonce if isinstance(nonce, str) else ""
