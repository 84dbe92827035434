"""Passkeys on record, and the challenges that they answer: each challenge once, for a few minutes.

Two ceremonies (WebAuthn Level 3 §1.3): registration binds a passkey to an account, assertion shows who is there. A
third use, signing a statement, has no challenge of ours: the statement's hash is the challenge, see `signer_of`.
An account is a subject or a client of the operator's staff. Refusals are log entries; challenges and keys never are.
"""

from __future__ import annotations

import ipaddress
import secrets
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from api.storage.database import Database
from api.storage.models import Passkey, PasskeyChallenge, Subject
from policy.canonical import sha256_hex
from policy.consent import key_thumbprint
from policy.errors import (
    PasskeyAccountError,
    PasskeyChallengeError,
    PasskeyError,
    PasskeyUnknownError,
)
from policy.gate import Gate
from policy.passkey import (
    AssertionEvidence,
    PasskeySigner,
    RelyingParty,
    assertion_options,
    challenge_of,
    credential_id_of,
    registration_options,
    verify_assertion,
    verify_registration,
)

REGISTRATION, ASSERTION = "registration", "assertion"
_CHALLENGE_NUM_BYTES = 32
MAX_PASSKEYS_PER_ACCOUNT = 16


def relying_party(base_url: str) -> RelyingParty:
    """The site that passkeys of this service are bound to.

    WebAuthn knows domains only, so a service on a loopback address is `localhost`: open its pages under that name.
    """
    parts = urlsplit(base_url)
    host = parts.hostname or "localhost"
    try:
        is_loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_loopback = False
    rp_id = "localhost" if is_loopback else host
    port = "" if parts.port is None else f":{parts.port}"
    return RelyingParty(rp_id=rp_id, origin=f"{parts.scheme}://{rp_id}{port}")


class PasskeyBook:
    """Registers passkeys and recognises them.

    Args:
        site: what passkeys are bound to; see `relying_party`.
        is_live: whether an account may act at all.
    """

    def __init__(
        self,
        *,
        database: Database,
        gate: Gate,
        site: RelyingParty,
        is_live: Callable[[str], bool],
        now: Callable[[], float],
        challenge_lifetime_s: float,
    ) -> None:
        self.site = site
        self._database = database
        self._gate = gate
        self._is_live = is_live
        self._now = now
        self._challenge_lifetime_s = challenge_lifetime_s

    # -- registration

    def begin_registration(self, account_id: str, user_name: str) -> dict[str, Any]:
        """Options for `navigator.credentials.create`.

        Args:
            user_name: what the browser lists the passkey under; a pseudonym, not a name.
        """
        return self.options_for(account_id, user_name, self._issue(REGISTRATION, account_id))

    def options_for(self, account_id: str, user_name: str, challenge: bytes) -> dict[str, Any]:
        """The same with a challenge that the caller keeps."""
        return registration_options(
            rp_id=self.site.rp_id,
            rp_name=self.site.name,
            user_id=account_id.encode(),
            user_name=user_name,
            challenge=challenge,
            known_credential_ids=[each.credential_id for each in self.of_account(account_id)],
        )

    def finish_registration(self, account_id: str, response: object, *, label: str = "") -> Passkey:
        """Put a new passkey of `account_id` on record.

        Args:
            response: of `navigator.credentials.create`, as `toJSON()` writes it.
            label: the person's own name for it, at most 100 characters.
        Raises: PasskeyError.
        """
        try:
            challenge = self._take(response, REGISTRATION, account_id)
            with self._database.write() as session:
                return self.register(session, account_id, response, challenge=challenge, label=label)
        except PasskeyError as error:
            self._refused(error, account_id)
            raise

    def register(
        self, session: Session, account_id: str, response: object, *, challenge: bytes, label: str = ""
    ) -> Passkey:
        """Verify a registration and add it, log first, inside the caller's transaction. Raises: PasskeyError."""
        new = verify_registration(response, challenge=challenge, rp_id=self.site.rp_id, origin=self.site.origin)
        if session.get(Passkey, new.credential_id) is not None:
            raise PasskeyAccountError("This passkey is on record already; choose another one.")
        known = session.scalars(select(Passkey.credential_id).where(Passkey.account_id == account_id)).all()
        if len(known) >= MAX_PASSKEYS_PER_ACCOUNT:
            raise PasskeyAccountError(
                f"An account holds at most {MAX_PASSKEYS_PER_ACCOUNT} passkeys; remove one first."
            )
        evidence = self._gate.record(
            "passkey.registered",
            {
                "account": self._gate.pseudonym("client", account_id),
                "credential_sha256": sha256_hex(new.credential_id),
                "key_thumbprint": key_thumbprint(new.public_jwk),
                "backed_up": new.backed_up,
            },
        )
        passkey = Passkey(
            credential_id=new.credential_id,
            account_id=account_id,
            public_jwk=dict(new.public_jwk),
            sign_count=new.sign_count,
            backed_up=new.backed_up,
            label=label[:100],
            created_at=self._now(),
            log_index=evidence.index,
        )
        session.add(passkey)
        return passkey

    # -- assertion

    def begin_assertion(self, account_id: str = "") -> dict[str, Any]:
        """Options for `navigator.credentials.get`. Without an account the browser offers every passkey of this site."""
        known = [each.credential_id for each in self.of_account(account_id)] if account_id else []
        challenge = self._issue(ASSERTION, account_id)
        return assertion_options(rp_id=self.site.rp_id, challenge=challenge, credential_ids=known)

    def finish_assertion(self, response: object, account_id: str = "") -> str:
        """Who is there: the account of the passkey that answered one of our challenges.

        Args:
            account_id: who it must be; "" for anybody.
        Raises: PasskeyError.
        """
        try:
            challenge = self._take(response, ASSERTION, account_id)
            with self._database.write() as session:
                passkey = self._known(session, response, account_id)
                evidence = verify_assertion(
                    response,
                    challenge=challenge,
                    rp_id=self.site.rp_id,
                    origin=self.site.origin,
                    public_jwk=passkey.public_jwk,
                    sign_count=passkey.sign_count,
                )
                self.note_use(session, evidence)
                found = passkey.account_id
            if not self._is_live(found):
                raise PasskeyAccountError("The account of this passkey is suspended or erased; ask the operator.")
        except PasskeyError as error:
            self._refused(error, account_id)
            raise
        return found

    # -- statements

    def statement_options(self, account_id: str, statement_sha256: str) -> dict[str, Any]:
        """Options for `navigator.credentials.get` with which `account_id` signs a statement (see `policy.consent`)."""
        known = [each.credential_id for each in self.of_account(account_id)]
        challenge = bytes.fromhex(statement_sha256)
        return assertion_options(rp_id=self.site.rp_id, challenge=challenge, credential_ids=known)

    def signer_of(self, session: Session, account_id: str, signed: Mapping[str, Any]) -> PasskeySigner:
        """The passkey that a statement says it was signed with, if it is one of `account_id`'s.

        Raises: PasskeyMalformedError, PasskeyUnknownError, PasskeyAccountError.
        """
        passkey = self._known(session, signed.get("assertion"), account_id)
        return PasskeySigner(self.site, passkey.public_jwk, passkey.sign_count)

    def note_use(self, session: Session, evidence: AssertionEvidence) -> None:
        """Keep the counter of a passkey whose answer was verified."""
        passkey = session.get_one(Passkey, evidence.credential_id)
        passkey.sign_count = evidence.sign_count
        passkey.backed_up = evidence.backed_up
        passkey.used_at = self._now()

    # -- record

    def of_account(self, account_id: str) -> list[Passkey]:
        """The passkeys of an account, oldest first."""
        with self._database.read() as session:
            ours = select(Passkey).where(Passkey.account_id == account_id).order_by(Passkey.created_at)
            return list(session.scalars(ours))

    def remove(self, account_id: str, credential_id: bytes) -> None:
        """Take a passkey off record, log first.

        Raises: PasskeyUnknownError; PasskeyAccountError: nobody could act for the account any more.
        """
        with self._database.write() as session:
            passkey = session.get(Passkey, credential_id)
            if passkey is None or passkey.account_id != account_id:
                raise PasskeyUnknownError("You have no such passkey.")
            others = session.scalars(select(Passkey.credential_id).where(Passkey.account_id == account_id)).all()
            subject = session.get(Subject, account_id)
            has_own_key = subject is not None and subject.public_jwk != passkey.public_jwk
            if len(others) == 1 and not has_own_key:
                raise PasskeyAccountError("This is your last passkey: register another one before you remove it.")
            body = {
                "account": self._gate.pseudonym("client", account_id),
                "credential_sha256": sha256_hex(credential_id),
            }
            self._gate.record("passkey.removed", body)
            session.delete(passkey)

    # -- inside

    def _known(self, session: Session, response: object, account_id: str) -> Passkey:
        passkey = session.get(Passkey, credential_id_of(response))
        if passkey is None:
            raise PasskeyUnknownError("This passkey is not on record here; register it first, or use another one.")
        if account_id and passkey.account_id != account_id:
            raise PasskeyAccountError("This passkey belongs to somebody else; use one of your own.")
        return passkey

    def _issue(self, ceremony: str, account_id: str) -> bytes:
        challenge, now = secrets.token_bytes(_CHALLENGE_NUM_BYTES), self._now()
        with self._database.write() as session:
            session.execute(delete(PasskeyChallenge).where(PasskeyChallenge.expires_at < now))
            session.add(
                PasskeyChallenge(
                    challenge=challenge,
                    ceremony=ceremony,
                    account_id=account_id,
                    expires_at=now + self._challenge_lifetime_s,
                )
            )
        return challenge

    def _take(self, response: object, ceremony: str, account_id: str) -> bytes:
        """The challenge that a response says it answers, used up by being taken. Raises: PasskeyError."""
        unverified = challenge_of(response)
        with self._database.write() as session:
            issued = session.get(PasskeyChallenge, unverified)
            if issued is not None:
                session.delete(issued)
        if issued is None or issued.ceremony != ceremony or issued.expires_at < self._now():
            raise PasskeyChallengeError("This challenge is unknown, used or too old; ask for a new one.")
        if issued.account_id != account_id:
            raise PasskeyAccountError("This challenge was given to somebody else; ask for one of your own.")
        return issued.challenge

    def _refused(self, error: PasskeyError, account_id: str) -> None:
        account = self._gate.pseudonym("client", account_id) if account_id else None
        self._gate.record("passkey.refused", {"code": error.code, "account": account})
