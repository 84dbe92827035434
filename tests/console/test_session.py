"""Browser sessions and invitations by themselves: when they end, what is kept of them, where they may lead."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import select, text

from api.console.session import safe_next
from api.errors import NotFoundError
from api.service import Service
from api.settings import Settings
from api.setup import create_instance
from api.storage.models import BrowserSession, Client
from policy.errors import PasskeyError


@dataclass
class Clock:
    """A clock that stands still until it is moved."""

    now_s: float = 1_795_000_000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture(scope="module")
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, clock: Clock) -> Iterator[Service]:
    settings = Settings(home=tmp_path_factory.mktemp("sessions") / "home", issuer="http://localhost:8470")
    create_instance(settings, "sessions", clock)
    service = Service(settings, clock)
    yield service
    service.close()


@pytest.fixture(scope="module")
def account_id(service: Service) -> str:
    """The local operator."""
    return str(json.loads(service.settings.operator_key_path.read_text())["client_id"])


def test_a_session_ends_when_it_is_not_used(service: Service, clock: Clock, account_id: str) -> None:
    token, session = service.sessions.open(account_id)
    assert session.kind == "operator" and service.sessions.find(token) == session
    for _ in range(5):
        clock.now_s += service.settings.session_idle_s - 1
        assert service.sessions.find(token) == session
    clock.now_s += service.settings.session_idle_s
    assert service.sessions.find(token) is None


def test_a_session_ends_after_its_lifetime_however_it_is_used(service: Service, clock: Clock, account_id: str) -> None:
    token, _ = service.sessions.open(account_id)
    ends_at_s = clock.now_s + service.settings.session_lifetime_s
    while clock.now_s + 1800 < ends_at_s:
        clock.now_s += 1800
        assert service.sessions.find(token) is not None
    clock.now_s = ends_at_s
    assert service.sessions.find(token) is None


def test_a_closed_session_is_gone_and_both_are_logged(service: Service, account_id: str) -> None:
    size = service.log.size
    token, _ = service.sessions.open(account_id)
    service.sessions.close(token)
    service.sessions.close(token)
    assert service.sessions.find(token) is None
    entries = service.log.entries(size)
    assert [entry["kind"] for entry in entries] == ["session.opened", "session.closed"]
    assert account_id not in json.dumps(entries) and token not in json.dumps(entries)


def test_a_session_ends_with_the_account(service: Service, account_id: str) -> None:
    token, _ = service.sessions.open(account_id)
    with service.database.write() as db:
        db.get_one(Client, account_id).status = "suspended"
    assert service.sessions.find(token) is None
    with pytest.raises(NotFoundError):
        service.sessions.open(account_id)
    with service.database.write() as db:
        db.get_one(Client, account_id).status = "approved"


def test_the_database_cannot_be_turned_into_cookies(service: Service, account_id: str) -> None:
    token, _ = service.sessions.open(account_id)
    with service.database.read() as db:
        rows = db.scalars(select(BrowserSession)).all()
        dump = str(db.execute(text("SELECT * FROM browser_sessions")).all())
    assert rows and token not in dump
    for row in rows:
        assert service.sessions.find(row.session_pseudonym) is None
    for other in ("", "x", token[:-1], token + "A", token.swapcase()):
        assert service.sessions.find(other) is None


def test_an_invitation_expires_and_survives_a_bad_passkey(service: Service, clock: Clock) -> None:
    made = service.invitations.invite("auditor", name="Kim", org="lab", invited_by="op_1")
    assert service.invitations.begin(made.token)["user"]["name"] == "Kim"
    with pytest.raises(PasskeyError):
        service.invitations.accept(made.token, {"type": "public-key"})
    assert service.invitations.find(made.token).client_id == made.client_id
    with pytest.raises(NotFoundError):
        service.clients.find(made.client_id)
    with pytest.raises(NotFoundError):
        service.invitations.find(made.token + "x")
    clock.now_s += service.settings.invitation_lifetime_s
    with pytest.raises(NotFoundError):
        service.invitations.find(made.token)


@pytest.mark.parametrize(
    "path",
    ["https://elsewhere.example", "//elsewhere.example", "/\\elsewhere.example", "javascript:1", "", "me", "/a\nb"],
)
def test_signing_in_never_leads_elsewhere(path: str) -> None:
    assert safe_next(path, "/me") == "/me"


def test_signing_in_leads_back(tmp_path: Path) -> None:
    assert safe_next("/oauth/authorize?client_id=x&state=%2F") == "/oauth/authorize?client_id=x&state=%2F"
