"""Who may call: the directory of OAuth clients, vetted by the operator or enrolled as subjects."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from joserfc.errors import JoseError
from joserfc.jwk import ECKey, KeySet, OKPKey, import_key
from sqlalchemy import select
from sqlalchemy.orm import Session

from api.errors import InvalidFieldError, NotFoundError
from api.oauth.server import OAuthClient
from api.storage.database import Database
from api.storage.models import Client
from policy.gate import Gate
from policy.identity import (
    SCOPE_AUDIT_READ,
    SCOPE_DETECT_CREATE,
    SCOPE_OPERATOR_ADMIN,
    SCOPE_RENDER_CREATE,
    SCOPE_RENDER_READ,
    SCOPE_SUBJECT_SELF,
    check_identifier,
)

SCOPES_BY_KIND: dict[str, frozenset[str]] = {
    "researcher": frozenset({SCOPE_RENDER_CREATE, SCOPE_RENDER_READ, SCOPE_DETECT_CREATE}),
    "platform": frozenset({SCOPE_DETECT_CREATE}),
    "auditor": frozenset({SCOPE_AUDIT_READ}),
    "operator": frozenset({SCOPE_OPERATOR_ADMIN, SCOPE_AUDIT_READ, SCOPE_DETECT_CREATE}),
    "subject": frozenset({SCOPE_SUBJECT_SELF}),
}
"""The most that a client of each kind may hold."""


@dataclass(frozen=True)
class Vetting:
    """What an operator decided about an applicant.

    Attributes:
        term_expires_at: end of the approval, seconds since the epoch.
        budget_s_per_day: seconds of video per day.
    """

    kind: str
    name: str
    org: str
    project: str
    ethics_reference: str
    scopes: frozenset[str]
    term_expires_at: float | None
    budget_s_per_day: float


class ClientDirectory:
    """Clients in the database; every change is an entry in the log first."""

    def __init__(self, database: Database, gate: Gate, now: Callable[[], float]) -> None:
        self._database = database
        self._gate = gate
        self._now = now

    def find(self, client_id: str) -> Client:
        """Raises NotFoundError."""
        with self._database.read() as session:
            client = session.get(Client, client_id)
        if client is None:
            raise NotFoundError("There is no such client.")
        return client

    def is_live(self, client_id: str) -> bool:
        """Whether the client is approved and in term: asked again with every token."""
        with self._database.read() as session:
            return self._is_live(session.get(Client, client_id))

    def oauth_client(self, client_id: str) -> OAuthClient | None:
        """A live client, as the authorization server sees it."""
        with self._database.read() as session:
            client = session.get(Client, client_id)
        if client is None or not self._is_live(client):
            return None
        return OAuthClient(client.client_id, frozenset(client.scopes), client.jwks, tuple(client.redirect_uris or ()))

    def all(self) -> Sequence[Client]:
        """Every client but the subjects."""
        with self._database.read() as session:
            return session.scalars(select(Client).where(Client.kind != "subject").order_by(Client.created_at)).all()

    def register(self, vetting: Vetting, jwks: Mapping[str, Any]) -> Client:
        """Approve a client. Raises InvalidFieldError for keys or scopes that it cannot have."""
        if vetting.kind not in SCOPES_BY_KIND or vetting.kind == "subject":
            raise InvalidFieldError("kind must be one of researcher, platform, auditor, operator.")
        check_identifier(vetting.org, "org")
        if not vetting.scopes or vetting.scopes - SCOPES_BY_KIND[vetting.kind]:
            allowed = ", ".join(sorted(SCOPES_BY_KIND[vetting.kind]))
            raise InvalidFieldError(f"A {vetting.kind} can hold these scopes: {allowed}.")
        keys = public_key_set(jwks)
        prefix = {"researcher": "res", "platform": "pla", "auditor": "aud", "operator": "op"}[vetting.kind]
        client_id = f"{prefix}_{secrets.token_hex(8)}"
        with self._database.write() as session:
            evidence = self._gate.record(
                "client.registered",
                {
                    "client": self._gate.pseudonym("client", client_id),
                    "client_kind": vetting.kind,
                    "org": self._gate.pseudonym("org", vetting.org),
                    "scopes": sorted(vetting.scopes),
                    "budget_s_per_day": round(vetting.budget_s_per_day),
                    "term_expires_at": None if vetting.term_expires_at is None else int(vetting.term_expires_at),
                    "key_thumbprints": sorted(import_key(key).thumbprint() for key in keys["keys"]),
                },
            )
            client = Client(
                client_id=client_id,
                kind=vetting.kind,
                name=vetting.name,
                org=vetting.org,
                project=vetting.project,
                ethics_reference=vetting.ethics_reference,
                jwks=keys,
                scopes=sorted(vetting.scopes),
                roles=[vetting.kind],
                term_expires_at=vetting.term_expires_at,
                budget_s_per_day=vetting.budget_s_per_day,
                created_at=self._now(),
                log_index=evidence.index,
            )
            session.add(client)
        return client

    def add_subject(self, session: Session, subject_id: str, public_jwk: Mapping[str, Any], log_index: int) -> None:
        """Let a newly enrolled subject get tokens with the key that signed the enrolment."""
        session.add(
            Client(
                client_id=subject_id,
                kind="subject",
                org="subject",
                jwks=public_key_set({"keys": [dict(public_jwk)]}),
                scopes=[SCOPE_SUBJECT_SELF],
                roles=["subject"],
                created_at=self._now(),
                log_index=log_index,
            )
        )

    def suspend(self, client_id: str) -> Client:
        """End a client's approval at once; tokens that it still holds are refused from now on."""
        with self._database.write() as session:
            client = session.get(Client, client_id)
            if client is None or client.kind == "subject":
                raise NotFoundError("There is no such client.")
            if client.status != "suspended":
                self._gate.record("client.suspended", {"client": self._gate.pseudonym("client", client_id)})
                client.status = "suspended"
        return client

    def _is_live(self, client: Client | None) -> bool:
        if client is None or client.status != "approved":
            return False
        return client.term_expires_at is None or self._now() < client.term_expires_at


def public_key_set(jwks: Mapping[str, Any]) -> dict[str, Any]:
    """A key set of public P-256 or Ed25519 keys, each with a `kid`, and nothing else. Raises InvalidFieldError."""
    keys = jwks.get("keys")
    if not isinstance(keys, list) or not 1 <= len(keys) <= 8:
        raise InvalidFieldError("jwks must be an object with one to eight public keys in “keys”.")
    cleaned = []
    for unverified in keys:
        try:
            key = import_key(unverified)
        except (JoseError, ValueError, TypeError, KeyError, AttributeError) as exc:
            raise InvalidFieldError("jwks holds a key that cannot be read: send P-256 or Ed25519 public JWKs.") from exc
        if not isinstance(key, ECKey | OKPKey) or key.curve_name not in {"P-256", "Ed25519"}:
            raise InvalidFieldError("jwks may hold P-256 and Ed25519 keys only.")
        if key.is_private:
            raise InvalidFieldError("jwks holds a private key: keep it, make a new one, and send its public half only.")
        public = {name: value for name, value in key.as_dict(private=False).items() if name in _PUBLIC_MEMBERS}
        cleaned.append({**public, "kid": str(unverified.get("kid") or key.thumbprint())})
    KeySet.import_key_set({"keys": cleaned})  # type: ignore[typeddict-item]
    return {"keys": cleaned}


_PUBLIC_MEMBERS = ("kty", "crv", "x", "y")
