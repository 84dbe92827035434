"""Browser sessions: who is signed in, the cookie that says so, and the token that every form carries.

The cookie holds 256 random bits and nothing else. The server keeps the session under a keyed hash (HMAC) of them, so a
copy of the database opens no session and a cookie cannot be made without the instance's key. A session ends when it is
closed, unused for `session_idle_s`, older than `session_lifetime_s`, or its account is suspended, expired or erased.

For routes::

    @router.get("/audit")
    def overview(request: Request, session: Annotated[Session, Depends(SignedIn("auditor", "operator"))]) -> Response:

    @router.post("/audit/look")                       # every POST: the form's fields, after the CSRF check
    def look(request: Request, form: ConsoleForm, session: …) -> Response:
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Final, Literal, cast
from urllib.parse import quote, urlsplit

from fastapi import Depends, Request, Response
from sqlalchemy import delete
from starlette.exceptions import HTTPException

from api.errors import ApiError, NotFoundError, RequestError
from api.storage.database import Database
from api.storage.models import BrowserSession, Client, Subject
from policy.gate import Gate

if TYPE_CHECKING:
    from api.service import Service

Kind = Literal["subject", "researcher", "platform", "auditor", "operator"]

_TOKEN_NUM_BYTES: Final = 32
_SEEN_EVERY_S: Final = 60.0
_MAX_FORM_FIELDS: Final = 200


class SessionError(ApiError):
    """Something about the browser's session stands in the way."""

    code = "session"


class SignInNeededError(SessionError):
    """Nobody is signed in. Browsers are sent to the sign-in page."""

    code = "session.missing"


class WrongRoleError(SessionError):
    """Somebody is signed in, for whom this page is not."""

    code = "session.role"


class StaleFormError(SessionError):
    """A form without the token of this session, or sent by another site."""

    code = "session.form"


@dataclass(frozen=True)
class Session:
    """Who is signed in with this browser.

    Attributes:
        account_id: a subject_id or client_id.
        csrf: what every form and every fetch of this session must send along.
    """

    account_id: str
    kind: Kind
    csrf: str


class BrowserSessions:
    """The sessions of one instance. Opening and closing are log entries."""

    def __init__(
        self, database: Database, gate: Gate, now: Callable[[], float], *, idle_s: float, lifetime_s: float
    ) -> None:
        self._database = database
        self._gate = gate
        self._now = now
        self._idle_s = idle_s
        self._lifetime_s = lifetime_s

    def open(self, account_id: str) -> tuple[str, Session]:
        """Begin a session for an account that has just proven who it is.

        Returns: the cookie's value, which exists nowhere else, and the session.
        Raises: NotFoundError: no such account, or it may not act (any more).
        """
        token = secrets.token_urlsafe(_TOKEN_NUM_BYTES)
        now = self._now()
        with self._database.write() as db:
            client = db.get(Client, account_id)
            if client is None or not self._is_live(client, db.get(Subject, account_id)):
                raise NotFoundError("There is no account behind this passkey any more: it ended, or was erased.")
            db.execute(delete(BrowserSession).where(BrowserSession.expires_at < now))
            row = BrowserSession(
                session_pseudonym=self._name(token),
                account_id=account_id,
                kind=client.kind,
                csrf=secrets.token_urlsafe(_TOKEN_NUM_BYTES),
                created_at=now,
                seen_at=now,
                expires_at=now + self._lifetime_s,
            )
            self._record("session.opened", row)
            db.add(row)
        return token, _session(row)

    def find(self, token: str) -> Session | None:
        """The session behind a cookie, if it is still good. Every use keeps it from idling out."""
        now = self._now()
        with self._database.read() as db:
            row = db.get(BrowserSession, self._name(token))
            if row is None or now >= row.expires_at or now - row.seen_at >= self._idle_s:
                return None
            client = db.get(Client, row.account_id)
            if client is None or not self._is_live(client, db.get(Subject, row.account_id)):
                return None
            found = _session(row)
        if now - row.seen_at >= _SEEN_EVERY_S:
            with self._database.write() as db:
                if again := db.get(BrowserSession, row.session_pseudonym):
                    again.seen_at = now
        return found

    def close(self, token: str) -> None:
        """End a session; closing one that is gone changes nothing."""
        with self._database.write() as db:
            row = db.get(BrowserSession, self._name(token))
            if row is not None:
                self._record("session.closed", row)
                db.delete(row)

    def _is_live(self, client: Client, subject: Subject | None) -> bool:
        if client.status != "approved" or (subject is not None and subject.erased_at is not None):
            return False
        return client.term_expires_at is None or self._now() < client.term_expires_at

    def _name(self, token: str) -> str:
        return self._gate.pseudonym("browser-session", token[:200])

    def _record(self, kind: str, row: BrowserSession) -> None:
        space = "subject" if row.kind == "subject" else "client"
        self._gate.record(kind, {"account": self._gate.pseudonym(space, row.account_id), "account_kind": row.kind})


def _session(row: BrowserSession) -> Session:
    return Session(row.account_id, cast(Kind, row.kind), row.csrf)


# -- the request's side


def session_of(request: Request) -> Session | None:
    """Who is signed in with the browser that sent this request; None where nobody is. Reads the database once."""
    if not hasattr(request.state, "placet_session"):
        token = request.cookies.get(session_cookie_name(request), "")
        request.state.placet_session = _service(request).sessions.find(token) if token else None
    return cast("Session | None", request.state.placet_session)


class SignedIn:
    """Dependency: the session of somebody of one of these kinds.

    Raises: SignInNeededError: nobody is signed in; a browser is sent to the sign-in page and comes back afterwards.
        WrongRoleError: somebody else is.
    """

    def __init__(self, *kinds: Kind) -> None:
        self._kinds = kinds

    def __call__(self, request: Request) -> Session:
        session = session_of(request)
        if session is None:
            raise SignInNeededError("Sign in first.")
        if session.kind not in self._kinds:
            raise WrongRoleError(f"This page is for another role; you are signed in as {session.kind}.")
        return session


def at_named_origin(request: Request) -> None:
    """Dependency of every page: on this machine, send 127.0.0.1 to localhost, where passkeys work."""
    service = _service(request)
    if (
        request.method == "GET"
        and request.url.hostname in {"127.0.0.1", "::1"}
        and service.settings.rp_id == "localhost"
    ):
        query = f"?{request.url.query}" if request.url.query else ""
        there = f"{service.settings.browser_origin}{request.url.path}{query}"
        raise HTTPException(307, f"This page is at {there}.", {"Location": there})


def csrf_token(request: Request) -> str:
    """What the forms of a page must send back: the session's token, or before sign-in one of this visit."""
    session = session_of(request)
    return session.csrf if session is not None else _visit_csrf(visit_of(request))


def check_csrf(request: Request, unverified_token: str) -> None:
    """Raises StaleFormError unless the request comes from one of our pages, made for this session or visit."""
    # (1) sent by a page of ours: browsers always say the origin of a POST (Fetch §3.2)
    if request.headers.get("origin") != _service(request).settings.browser_origin:
        raise StaleFormError("This was sent by another site, so nothing was done: use the form on our page.")
    # (2) with the token that was put into that page
    if not hmac.compare_digest(csrf_token(request).encode(), unverified_token.encode()):
        raise StaleFormError("This form is too old, so nothing was done: load the page again and repeat.")


async def read_console_form(request: Request) -> dict[str, str]:
    """Dependency: fields of a form of ours, after the CSRF check; a name that comes twice keeps its last value."""
    if not request.headers.get("content-type", "").lower().startswith("application/x-www-form-urlencoded"):
        raise RequestError("Send this form as application/x-www-form-urlencoded.")
    form = await request.form(max_fields=_MAX_FORM_FIELDS)
    fields = {name: value for name, value in form.items() if isinstance(value, str)}
    check_csrf(request, fields.pop("csrf", ""))
    return fields


def check_fetch(request: Request) -> None:
    """Dependency: the same check for requests that our scripts send, with the token in `X-CSRF-Token`."""
    check_csrf(request, request.headers.get("x-csrf-token", ""))


ConsoleForm = Annotated[dict[str, str], Depends(read_console_form)]
FromOurScript = Depends(check_fetch)


# -- cookies


def is_secure(request: Request) -> bool:
    """Whether browsers reach us over https (perhaps through a proxy): the issuer says so."""
    return _service(request).settings.browser_origin.startswith("https:")


def session_cookie_name(request: Request) -> str:
    """`__Host-…` binds a cookie to this host and to https (RFC 6265bis §4.1.3.2); loopback has no https."""
    return "__Host-placet-session" if is_secure(request) else "placet-session"


def set_session_cookie(request: Request, response: Response, token: str) -> None:
    """Let the browser keep a session's cookie."""
    _set_cookie(request, response, session_cookie_name(request), token)


def clear_session_cookie(request: Request, response: Response) -> None:
    """Let the browser forget it."""
    response.delete_cookie(session_cookie_name(request), secure=is_secure(request), httponly=True, samesite="strict")


def visit_of(request: Request) -> str:
    """A random name for this browser before sign-in, so that even the sign-in form cannot be sent by others."""
    if not hasattr(request.state, "placet_visit"):
        known = request.cookies.get(_visit_cookie_name(request), "")
        request.state.placet_visit = known if len(known) == 43 else secrets.token_urlsafe(_TOKEN_NUM_BYTES)
        request.state.placet_visit_is_new = request.state.placet_visit != known
    return cast(str, request.state.placet_visit)


def set_visit_cookie(request: Request, response: Response) -> None:
    """Keep a visit that was named while this request was answered."""
    if getattr(request.state, "placet_visit_is_new", False):
        _set_cookie(request, response, _visit_cookie_name(request), visit_of(request))


def safe_next(unverified_next: str | None, otherwise: str = "/") -> str:
    """Where to go after signing in: a path on this site, never another one."""
    path = unverified_next or ""
    parts = urlsplit(path)
    is_ours = path.startswith("/") and not path.startswith(("//", "/\\")) and not parts.scheme and not parts.netloc
    return path if is_ours and "\\" not in path and path.isprintable() else otherwise


def sign_in_path(request: Request) -> str:
    """The sign-in page, which leads back to the page that was asked for."""
    query = f"?{request.url.query}" if request.url.query else ""
    return f"/sign-in?next={quote(request.url.path + query, safe='')}"


def _visit_cookie_name(request: Request) -> str:
    return "__Host-placet-visit" if is_secure(request) else "placet-visit"


def _visit_csrf(visit: str) -> str:
    return hashlib.sha256(b"placet visit\n" + visit.encode()).hexdigest()


def _set_cookie(request: Request, response: Response, name: str, value: str) -> None:
    lifetime_s = int(_service(request).settings.session_lifetime_s)
    response.set_cookie(
        name, value, max_age=lifetime_s, path="/", secure=is_secure(request), httponly=True, samesite="strict"
    )


def _service(request: Request) -> Service:
    return cast("Service", request.app.state.service)
