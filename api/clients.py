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

from api.errors import ConflictError, InvalidFieldError, NotFoundError
from api.oauth.codes import redirect_uri_fault
from api.oauth.server import OAuthClient
from api.storage.database import Database
from api.storage.models import Client
from policy.gate import Gate
from policy.identity import (
    ALL_SCOPES,
    SCOPE_AUDIT_READ,
    SCOPE_DETECT_CREATE,
    SCOPE_FETCH_MANIFESTS,
    SCOPE_LIVE_CREATE,
    SCOPE_OPERATOR_ADMIN,
    SCOPE_RENDER_CREATE,
    SCOPE_RENDER_READ,
    SCOPE_SUBJECT_SELF,
    check_identifier,
)

SCOPES_BY_KIND: dict[str, frozenset[str]] = {
    "researcher": frozenset(
        {SCOPE_RENDER_CREATE, SCOPE_RENDER_READ, SCOPE_LIVE_CREATE, SCOPE_DETECT_CREATE, SCOPE_FETCH_MANIFESTS}
    ),
    "platform": frozenset({SCOPE_DETECT_CREATE, SCOPE_FETCH_MANIFESTS}),
    "auditor": frozenset({SCOPE_AUDIT_READ, SCOPE_FETCH_MANIFESTS}),
    "operator": frozenset({SCOPE_OPERATOR_ADMIN, SCOPE_AUDIT_READ, SCOPE_DETECT_CREATE, SCOPE_FETCH_MANIFESTS}),
    "subject": frozenset({SCOPE_SUBJECT_SELF}),
    "tool": ALL_SCOPES,
}
"""The most that a client of each kind may hold. A tool acts for people who sign in, and never gets more than they."""

VETTED_KINDS = ("researcher", "platform", "auditor", "operator", "tool")
_PREFIX_BY_KIND = {"researcher": "res", "platform": "pla", "auditor": "aud", "operator": "op", "tool": "app"}
DEFAULT_CONCURRENT = 4
MAX_REDIRECT_URIS = 8
MAX_REASON_CHARS = 500


@dataclass(frozen=True)
class Vetting:
    """What an operator decided about an applicant.

    Attributes:
        term_expires_at: end of the approval, seconds since the epoch.
        budget_s_per_day: seconds of video per day.
        max_concurrent: renders and streams that may be open at a time.
        redirect_uris: where authorization codes may be sent; only tools and pages of others have any.
        external: what an outside issuer calls it, see `external_name`.
    """

    kind: str
    name: str
    org: str
    project: str
    ethics_reference: str
    scopes: frozenset[str]
    term_expires_at: float | None
    budget_s_per_day: float
    max_concurrent: int = DEFAULT_CONCURRENT
    redirect_uris: tuple[str, ...] = ()
    external: str | None = None


@dataclass(frozen=True)
class Terms:
    """New terms for a client; None leaves one as it is.

    Attributes:
        term_expires_at: seconds since the epoch.
    """

    term_expires_at: float | None = None
    budget_s_per_day: float | None = None
    max_concurrent: int | None = None


def external_name(issuer: str, client_id: str) -> str:
    """The name of a client of an outside issuer, as kept on record."""
    return f"{issuer}#{client_id}"


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

    def vetted(self, client_id: str) -> Client:
        """A client that is no subject. Raises NotFoundError."""
        with self._database.read() as session:
            return self._vetted(session, client_id)

    def display_name(self, client_id: str) -> str:
        """The name under which a client was vetted; "" for subjects and for clients that do not exist."""
        with self._database.read() as session:
            client = session.get(Client, client_id)
        return "" if client is None or client.kind == "subject" else client.name

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
        """Approve a client. Raises InvalidFieldError for keys, scopes or addresses that it cannot have."""
        keys = self.check(vetting, jwks)
        with self._database.write() as session:
            return self.enter(session, vetting, keys)

    def check(self, vetting: Vetting, jwks: Mapping[str, Any]) -> dict[str, Any]:
        """The cleaned key set of an applicant who could be approved. Raises InvalidFieldError, IdentityError."""
        if vetting.kind not in VETTED_KINDS:
            raise InvalidFieldError(f"kind must be one of {', '.join(VETTED_KINDS)}.")
        check_identifier(vetting.org, "org")
        if not vetting.scopes or vetting.scopes - SCOPES_BY_KIND[vetting.kind]:
            allowed = ", ".join(sorted(SCOPES_BY_KIND[vetting.kind]))
            raise InvalidFieldError(f"A {vetting.kind} can hold these scopes: {allowed}.")
        if len(vetting.redirect_uris) > MAX_REDIRECT_URIS:
            raise InvalidFieldError(f"redirect_uris may have {MAX_REDIRECT_URIS} addresses.")
        for uri in vetting.redirect_uris:
            if fault := redirect_uri_fault(uri):
                raise InvalidFieldError(f"A redirect URI {fault}.")
        if vetting.kind == "tool" and not vetting.redirect_uris:
            raise InvalidFieldError("A tool needs redirect_uris: it acts for people who sign in.")
        is_keyless = not jwks.get("keys") and (vetting.kind == "tool" or vetting.external is not None)
        return {"keys": []} if is_keyless else public_key_set(jwks)

    def enter(
        self, session: Session, vetting: Vetting, keys: Mapping[str, Any], application: int | None = None
    ) -> Client:
        """Put an approved client on record, log first.

        Args:
            keys: cleaned by `check`.
            application: log index of the application that led here.
        """
        if vetting.external is not None:
            taken = session.scalar(select(Client.client_id).where(Client.external == vetting.external))
            if taken is not None:
                raise ConflictError(
                    "This client of the outside issuer is on record already: suspend or amend that one."
                )
        client_id = f"{_PREFIX_BY_KIND[vetting.kind]}_{secrets.token_hex(8)}"
        evidence = self._gate.record(
            "client.registered",
            {
                "client": self._gate.pseudonym("client", client_id),
                "client_kind": vetting.kind,
                "org": self._gate.pseudonym("org", vetting.org),
                "scopes": sorted(vetting.scopes),
                "budget_s_per_day": round(vetting.budget_s_per_day),
                "max_concurrent": vetting.max_concurrent,
                "term_expires_at": None if vetting.term_expires_at is None else int(vetting.term_expires_at),
                "key_thumbprints": sorted(import_key(key).thumbprint() for key in keys["keys"]),
                "is_external": vetting.external is not None,
                "application": application,
            },
        )
        client = Client(
            client_id=client_id,
            kind=vetting.kind,
            name=vetting.name,
            org=vetting.org,
            project=vetting.project,
            ethics_reference=vetting.ethics_reference,
            jwks=dict(keys),
            scopes=sorted(vetting.scopes),
            roles=[vetting.kind],
            term_expires_at=vetting.term_expires_at,
            budget_s_per_day=vetting.budget_s_per_day,
            max_concurrent=vetting.max_concurrent,
            redirect_uris=list(vetting.redirect_uris),
            external=vetting.external,
            created_at=self._now(),
            log_index=evidence.index,
        )
        session.add(client)
        return client

    def external_client(self, issuer: str, client_id: str) -> str | None:
        """The local name of a client of an outside issuer; None if no operator has let it in."""
        with self._database.read() as session:
            query = select(Client.client_id).where(Client.external == external_name(issuer, client_id))
            return session.scalar(query)

    def scopes_and_org(self, client_id: str) -> tuple[frozenset[str], str]:
        """What a client was vetted for, and whose it is. Raises NotFoundError."""
        client = self.find(client_id)
        return frozenset(client.scopes), client.org

    def may_redirect(self, client_id: str) -> tuple[tuple[str, ...], frozenset[str]] | None:
        """Redirect URIs and scopes of a live client, for the authorization endpoint."""
        client = self.oauth_client(client_id)
        return None if client is None else (client.redirect_uris, client.scopes)

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

    def amend(self, client_id: str, terms: Terms) -> Client:
        """Give a client new terms, from now on. Raises NotFoundError."""
        with self._database.write() as session:
            client = self._vetted(session, client_id)
            if terms.term_expires_at is not None:
                client.term_expires_at = terms.term_expires_at
            if terms.budget_s_per_day is not None:
                client.budget_s_per_day = terms.budget_s_per_day
            if terms.max_concurrent is not None:
                client.max_concurrent = terms.max_concurrent
            self._gate.record(
                "client.amended",
                {
                    "client": self._gate.pseudonym("client", client_id),
                    "budget_s_per_day": round(client.budget_s_per_day),
                    "max_concurrent": client.max_concurrent,
                    "term_expires_at": None if client.term_expires_at is None else int(client.term_expires_at),
                },
            )
        return client

    def suspend(self, client_id: str, reason: str = "") -> Client:
        """End a client's approval at once; tokens that it still holds are refused from now on. Raises NotFoundError."""
        return self._set_status(client_id, "suspended", "client.suspended", reason)

    def resume(self, client_id: str, reason: str = "") -> Client:
        """Lift a suspension; the term stays what it was. Raises NotFoundError."""
        return self._set_status(client_id, "approved", "client.resumed", reason)

    def _set_status(self, client_id: str, status: str, kind: str, reason: str) -> Client:
        with self._database.write() as session:
            client = self._vetted(session, client_id)
            if client.status != status:
                # the reason is for people, and may name some: it stays out of the log
                self._gate.record(kind, {"client": self._gate.pseudonym("client", client_id)})
                client.status = status
                client.status_reason = reason[:MAX_REASON_CHARS]
        return client

    def _vetted(self, session: Session, client_id: str) -> Client:
        client = session.get(Client, client_id)
        if client is None or client.kind == "subject":
            raise NotFoundError("There is no such client.")
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
