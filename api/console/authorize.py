"""/oauth/authorize: somebody who is signed in lets a program act for them, or does not (RFC 6749 §4.1, PKCE required).

The program is one that an operator put on record, with its exact redirect URIs. What it may get is at most what it is
allowed and what the person holds. Nothing is granted without a click on a page of ours.
"""

from __future__ import annotations

from typing import Annotated
from urllib.parse import parse_qsl, urlsplit

from fastapi import APIRouter, Depends, Request
from fastapi.responses import RedirectResponse, Response

from api.console.pages import CONTENT_SECURITY_POLICY, render
from api.console.session import ConsoleForm, Session, SignedIn, at_named_origin, session_of, sign_in_path
from api.deps import ServiceDep, caller_of
from api.oauth.codes import AuthorizationError, AuthorizationRequest, authorization_request
from api.service import Service

router = APIRouter(include_in_schema=False, dependencies=[Depends(at_named_origin)])

Anybody = Annotated[Session, Depends(SignedIn("subject", "researcher", "platform", "auditor", "operator"))]


@router.get("/oauth/authorize")
def ask(request: Request, service: ServiceDep) -> Response:
    """The page that asks. Errors go back to the program where that is safe, else they are shown."""
    try:
        asked = _asked(service, request.url.query)
        session = session_of(request)
        if session is None:
            return RedirectResponse(sign_in_path(request), 303)
        _check_held(service, asked, session)
    except AuthorizationError as error:
        return _refused(request, service, error)
    client = service.clients.find(asked.client_id)
    parts = urlsplit(asked.redirect_uri)
    # the answer to the form leads there: browsers apply form-action to redirects too (CSP3 §6.4.2)
    policy = CONTENT_SECURITY_POLICY.replace(
        "form-action 'self'", f"form-action 'self' {parts.scheme}://{parts.netloc}"
    )
    return render(
        request,
        "authorize.html",
        headers={"Content-Security-Policy": policy},
        client=client,
        scopes=sorted(asked.scopes),
        destination=parts.netloc,
        query=request.url.query,
    )


@router.post("/oauth/authorize")
def answer(request: Request, service: ServiceDep, session: Anybody, form: ConsoleForm) -> Response:
    """What the person decided. Everything is checked again: the form came through their browser."""
    try:
        asked = _asked(service, form.get("query", ""))
        _check_held(service, asked, session)
        if form.get("decision") != "allow":
            sentence = "The person said no."
            location = asked.location(error="access_denied", error_description=sentence)
            raise AuthorizationError("access_denied", sentence, location)
    except AuthorizationError as error:
        return _refused(request, service, error)
    code = service.oauth.codes.give(asked, session.account_id)
    service.gate.record("oauth.authorized", _names(service, asked, session))
    return RedirectResponse(asked.location(code=code), 303)


def _asked(service: Service, query: str) -> AuthorizationRequest:
    try:
        params = parse_qsl(query, keep_blank_values=True, max_num_fields=40)
    except ValueError as exc:
        raise AuthorizationError("invalid_request", "The address of this page is malformed.") from exc
    return authorization_request(params, redirect_uris_of=service.clients.may_redirect, issuer=service.issuer)


def _check_held(service: Service, asked: AuthorizationRequest, session: Session) -> None:
    """Nobody can hand on what they do not hold."""
    account = service.clients.find(session.account_id)
    if missing := sorted(asked.scopes - set(account.scopes)):
        sentence = f"This account does not hold {missing[0]}."
        location = asked.location(error="access_denied", error_description=sentence)
        raise AuthorizationError("access_denied", sentence, location)


def _refused(request: Request, service: Service, error: AuthorizationError) -> Response:
    """Log it, then tell the program by redirect, or the person by a page."""
    client_id = request.query_params.get("client_id", "")[:128]
    index = service.record_rejection(f"oauth.{error.error}", client_id, "/oauth/authorize", caller_of(request))
    if error.location:
        return RedirectResponse(error.location, 303)
    error.extras["log_index"] = index
    raise error


def _names(service: Service, asked: AuthorizationRequest, session: Session) -> dict[str, object]:
    space = "subject" if session.kind == "subject" else "client"
    return {
        "client": service.gate.pseudonym("client", asked.client_id),
        "account": service.gate.pseudonym(space, session.account_id),
        "scopes": sorted(asked.scopes),
    }
