"""Invitations of staff: one-time links with which an auditor or operator makes their first passkey.

An operator invites; the account comes into being together with the passkey, in one transaction, and holds no OAuth key.
The link is kept as a keyed hash only.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy.orm import Session as DatabaseSession

from api.clients import SCOPES_BY_KIND
from api.errors import NotFoundError
from api.passkeys import PasskeyBook
from api.storage.database import Database
from api.storage.models import Client, Invitation
from policy.errors import PasskeyError
from policy.gate import Gate
from policy.identity import check_identifier

StaffKind = Literal["auditor", "operator", "researcher"]
_PREFIX_BY_KIND = {"auditor": "aud", "operator": "op", "researcher": "res"}
_TOKEN_NUM_BYTES = 24
_CHALLENGE_NUM_BYTES = 32


@dataclass(frozen=True)
class Invited:
    """A fresh invitation; `token` exists nowhere else."""

    token: str
    client_id: str
    expires_at: float
    log_index: int


class InvitationBook:
    """Invitations of staff, each an entry in the log first."""

    def __init__(
        self,
        database: Database,
        gate: Gate,
        passkeys: PasskeyBook,
        now: Callable[[], float],
        *,
        lifetime_s: float,
        researcher_budget_s: float = 0.0,
    ) -> None:
        self._database = database
        self._gate = gate
        self._passkeys = passkeys
        self._now = now
        self._lifetime_s = lifetime_s
        self._researcher_budget_s = researcher_budget_s  # of video per day, until an operator says otherwise

    def invite(self, kind: StaffKind, *, name: str, org: str, invited_by: str) -> Invited:
        """Make a link for one person. Raises: IdentityError: `org` is not an identifier."""
        check_identifier(org, "org")
        token = secrets.token_urlsafe(_TOKEN_NUM_BYTES)
        client_id = f"{_PREFIX_BY_KIND[kind]}_{secrets.token_hex(8)}"
        now = self._now()
        with self._database.write() as db:
            evidence = self._gate.record(
                "staff.invited",
                {
                    "client": self._gate.pseudonym("client", client_id),
                    "client_kind": kind,
                    "org": self._gate.pseudonym("org", org),
                    "invited_by": self._gate.pseudonym("client", invited_by),
                    "expires_at": int(now + self._lifetime_s),
                },
            )
            db.add(
                Invitation(
                    token_pseudonym=self._name(token),
                    client_id=client_id,
                    kind=kind,
                    name=name,
                    org=org,
                    created_at=now,
                    expires_at=now + self._lifetime_s,
                    log_index=evidence.index,
                )
            )
        return Invited(token, client_id, now + self._lifetime_s, evidence.index)

    def find(self, token: str) -> Invitation:
        """An invitation that still works. Raises: NotFoundError."""
        with self._database.read() as db:
            return self._find(db, token)

    def begin(self, token: str) -> dict[str, Any]:
        """Options for the browser to make the passkey with. Raises: NotFoundError."""
        with self._database.write() as db:
            invitation = self._find(db, token)
            invitation.challenge = secrets.token_bytes(32)
            return self._passkeys.options_for(invitation.client_id, invitation.name, invitation.challenge)

    def accept(self, token: str, response: object) -> str:
        """Make the account together with its passkey; the link is spent then, and not if the passkey is refused.

        Returns: the account's client id.
        Raises: NotFoundError, PasskeyError.
        """
        try:
            with self._database.write() as db:
                invitation = self._find(db, token)
                challenge, invitation.challenge = invitation.challenge or secrets.token_bytes(32), None
                self._passkeys.register(db, invitation.client_id, response, challenge=challenge)
                return self._add_account(db, invitation)
        except PasskeyError as error:
            self._gate.record("passkey.refused", {"code": error.code, "account": None})
            raise

    def _add_account(self, db: DatabaseSession, invitation: Invitation) -> str:
        evidence = self._gate.record(
            "client.registered",
            {
                "client": self._gate.pseudonym("client", invitation.client_id),
                "client_kind": invitation.kind,
                "org": self._gate.pseudonym("org", invitation.org),
                "scopes": sorted(SCOPES_BY_KIND[invitation.kind]),
                "invitation": invitation.log_index,
            },
        )
        invitation.used_at = self._now()
        client = Client(
            client_id=invitation.client_id,
            kind=invitation.kind,
            name=invitation.name,
            org=invitation.org,
            jwks={"keys": []},
            scopes=sorted(SCOPES_BY_KIND[invitation.kind]),
            roles=[invitation.kind],
            budget_s_per_day=self._researcher_budget_s if invitation.kind == "researcher" else 0.0,
            created_at=self._now(),
            log_index=evidence.index,
        )
        db.add(client)
        return client.client_id

    def _find(self, db: DatabaseSession, token: str) -> Invitation:
        invitation = db.get(Invitation, self._name(token))
        if invitation is None or invitation.used_at is not None or self._now() >= invitation.expires_at:
            raise NotFoundError(
                "This link was used, has expired, or was never given out: ask an operator for a new one."
            )
        return invitation

    def _name(self, token: str) -> str:
        return self._gate.pseudonym("invitation", token[:200])
