"""How an organisation is let in: it applies, an operator approves or refuses, and both are log entries.

    apply ──▶ open ──▶ approved (a client with term, budget and concurrency)
                  └──▶ refused  (with a reason that the applicant can read)

The application carries public keys only. Its identifier is random and is what the applicant asks with: no account, no
token. What was asked for and what was granted are both kept.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from api.clients import DEFAULT_CONCURRENT, MAX_REASON_CHARS, ClientDirectory, Vetting
from api.errors import ApiError, ConflictError, NotFoundError
from api.storage.database import Database
from api.storage.models import Application, Client
from policy.gate import Gate

APPLICANT_KINDS: Final = ("researcher", "platform", "auditor")
MAX_OPEN: Final = 500
DAY_S: Final = 86_400

OPEN, APPROVED, REFUSED = "open", "approved", "refused"


class ApplicationsFullError(ApiError):
    """More applications wait than an operator will ever read."""

    code = "application.too_many"


@dataclass(frozen=True)
class Wish:
    """What an organisation applies for.

    Attributes:
        contact: how the operator reaches a person there; kept out of the log.
        term_days: for how long.
        budget_s_per_day: seconds of video per day.
    """

    kind: str
    name: str
    org: str
    contact: str
    project: str
    ethics_reference: str
    scopes: frozenset[str]
    term_days: int
    budget_s_per_day: float


@dataclass(frozen=True)
class Grant:
    """What an operator grants; None grants what was asked for."""

    term_days: int | None = None
    budget_s_per_day: float | None = None
    max_concurrent: int | None = None


class ApplicationBook:
    """Applications, and what became of them; every change is an entry in the log first."""

    def __init__(self, database: Database, gate: Gate, clients: ClientDirectory, now: Callable[[], float]) -> None:
        self._database = database
        self._gate = gate
        self._clients = clients
        self._now = now

    def apply(self, wish: Wish, jwks: Mapping[str, Any]) -> Application:
        """Take an application in. Raises InvalidFieldError, IdentityError, ApplicationsFullError."""
        keys = self._clients.check(_vetting(wish, Grant(), 0.0), jwks)
        application_id = f"app_{secrets.token_hex(12)}"
        with self._database.write() as session:
            waiting = session.scalar(select(func.count()).where(Application.status == OPEN)) or 0
            if waiting >= MAX_OPEN:
                raise ApplicationsFullError("Too many applications wait for an answer: write to the operator.")
            evidence = self._gate.record(
                "application.received",
                {
                    "application": self._gate.pseudonym("application", application_id),
                    "org": self._gate.pseudonym("org", wish.org),
                    "client_kind": wish.kind,
                    "scopes": sorted(wish.scopes),
                    "term_days": wish.term_days,
                    "budget_s_per_day": round(wish.budget_s_per_day),
                },
            )
            application = Application(
                application_id=application_id,
                kind=wish.kind,
                name=wish.name,
                org=wish.org,
                contact=wish.contact,
                project=wish.project,
                ethics_reference=wish.ethics_reference,
                scopes=sorted(wish.scopes),
                jwks=keys,
                term_days=wish.term_days,
                budget_s_per_day=wish.budget_s_per_day,
                created_at=self._now(),
                log_index=evidence.index,
            )
            session.add(application)
        return application

    def find(self, application_id: str) -> Application:
        """Raises NotFoundError."""
        with self._database.read() as session:
            application = session.get(Application, application_id)
        if application is None:
            raise NotFoundError("There is no such application.")
        return application

    def all(self, status: str = "") -> Sequence[Application]:
        """Applications, newest first; of one status, if it is given."""
        query = select(Application).order_by(Application.created_at.desc(), Application.application_id).limit(MAX_OPEN)
        with self._database.read() as session:
            return session.scalars(query.where(Application.status == status) if status else query).all()

    def approve(self, application_id: str, grant: Grant, *, operator_id: str) -> tuple[Application, Client]:
        """Let the applicant in, for a term and within budgets. Raises NotFoundError, ConflictError."""
        with self._database.write() as session:
            application = self._open(session, application_id)
            vetting = _vetting(application, grant, self._now())
            client = self._clients.enter(session, vetting, application.jwks, application.log_index)
            self._close(session, application, APPROVED, "", operator_id, client.client_id)
        return application, client

    def refuse(self, application_id: str, reason: str, *, operator_id: str) -> Application:
        """Turn the applicant down, with a reason for them. Raises NotFoundError, ConflictError."""
        with self._database.write() as session:
            application = self._open(session, application_id)
            self._close(session, application, REFUSED, reason[:MAX_REASON_CHARS], operator_id, None)
        return application

    def _open(self, session: Session, application_id: str) -> Application:
        application = session.get(Application, application_id)
        if application is None:
            raise NotFoundError("There is no such application.")
        if application.status != OPEN:
            raise ConflictError(f"This application was {application.status} already.")
        return application

    def _close(
        self,
        session: Session,
        application: Application,
        status: str,
        reason: str,
        operator_id: str,
        client_id: str | None,
    ) -> None:
        evidence = self._gate.record(
            f"application.{status}",
            {
                "application": self._gate.pseudonym("application", application.application_id),
                "received": application.log_index,
                "operator": self._gate.pseudonym("client", operator_id),
                "client": None if client_id is None else self._gate.pseudonym("client", client_id),
            },
        )
        application.status = status
        application.reason = reason
        application.client_id = client_id
        application.closed_at = self._now()
        application.closing_index = evidence.index


def _vetting(wish: Wish | Application, grant: Grant, now: float) -> Vetting:
    """A wish as far as it is granted."""
    term_days = wish.term_days if grant.term_days is None else grant.term_days
    return Vetting(
        kind=wish.kind,
        name=wish.name,
        org=wish.org,
        project=wish.project,
        ethics_reference=wish.ethics_reference,
        scopes=frozenset(wish.scopes),
        term_expires_at=now + term_days * DAY_S,
        budget_s_per_day=wish.budget_s_per_day if grant.budget_s_per_day is None else grant.budget_s_per_day,
        max_concurrent=DEFAULT_CONCURRENT if grant.max_concurrent is None else grant.max_concurrent,
    )
