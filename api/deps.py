"""What routes ask for: the service, an authenticated actor, a checked body."""

from __future__ import annotations

from typing import Annotated, cast

from fastapi import Depends, Request, Security, params
from fastapi.openapi.models import OAuth2, OAuthFlowClientCredentials, OAuthFlows
from fastapi.security.base import SecurityBase

from api.errors import ScopeError, TokenError
from api.limits import network_of
from api.oauth.resource import Presentation, unverified_client_id
from api.oauth.scopes import AUDIENCE_PATH_BY_SCOPE
from api.service import Service
from policy.identity import (
    SCOPE_AUDIT_READ,
    SCOPE_DETECT_CREATE,
    SCOPE_FETCH_MANIFESTS,
    SCOPE_LIVE_CREATE,
    SCOPE_OPERATOR_ADMIN,
    SCOPE_RENDER_CREATE,
    SCOPE_RENDER_READ,
    SCOPE_SUBJECT_SELF,
    Actor,
)


def service_of(request: Request) -> Service:
    """The service that the application was started with."""
    return cast(Service, request.app.state.service)


def caller_of(request: Request) -> str:
    """Address of the caller; empty if it is not known."""
    return request.client.host if request.client is not None else ""


def address_of(request: Request, issuer: str) -> str:
    """The address of a request as the client sees it, whatever stands in front: what proofs are made for."""
    raw_path = request.scope.get("raw_path") or request.scope["path"].encode()
    return issuer + str(raw_path, "ascii", "replace")


def limited(request: Request, what: str, client_id: str = "") -> None:
    """Count one request of this address, and of this client if it is known. Raises RateError (429)."""
    limiter = service_of(request).limiter
    limiter.take(f"{what}.address", network_of(caller_of(request)))
    if client_id:
        limiter.take(f"{what}.client", client_id)


def Limited(what: str) -> params.Depends:
    """Dependency of a route: counts the request before anything in it is looked at."""

    def count(request: Request) -> None:
        limited(request, what)

    return params.Depends(count)


class Requires(SecurityBase):
    """Dependency: a valid access token with one scope, for the endpoint of that scope. Every rejection is logged."""

    def __init__(self, scope: str) -> None:
        self._scope = scope
        self._audience_path = AUDIENCE_PATH_BY_SCOPE[scope]
        self.scheme_name = "oauth2"
        scopes = {name: f"audience …{path}" for name, path in sorted(AUDIENCE_PATH_BY_SCOPE.items())}
        self.model = OAuth2(
            flows=OAuthFlows(clientCredentials=OAuthFlowClientCredentials(tokenUrl="/oauth/token", scopes=scopes)),
            description="Client credentials with `private_key_jwt` (RFC 7523). One audience per token.",
        )

    def __call__(self, request: Request) -> Actor:
        """The actor behind the token. Raises TokenError (401) or ScopeError (403), after the log entry."""
        service = service_of(request)
        authorization = tuple(request.headers.getlist("authorization"))
        headers = {name: tuple(request.headers.getlist(name)) for name in set(request.headers.keys())}
        presentation = Presentation(authorization, request.method, address_of(request, service.issuer), headers)
        try:
            token = service.tokens.verify(presentation, path=self._audience_path, scope=self._scope)
        except (TokenError, ScopeError) as error:
            client = unverified_client_id(authorization)
            error.extras["log_index"] = service.record_rejection(
                error.code, client, self._audience_path, caller_of(request)
            )
            raise
        client_row = service.clients.find(token.account_id)
        return Actor(client_row.client_id, client_row.org, token.scopes, frozenset(client_row.roles))


ServiceDep = Annotated[Service, Depends(service_of)]
RenderCreator = Annotated[Actor, Security(Requires(SCOPE_RENDER_CREATE), scopes=[SCOPE_RENDER_CREATE])]
RenderReader = Annotated[Actor, Security(Requires(SCOPE_RENDER_READ), scopes=[SCOPE_RENDER_READ])]
LiveCreator = Annotated[Actor, Security(Requires(SCOPE_LIVE_CREATE), scopes=[SCOPE_LIVE_CREATE])]
DetectCreator = Annotated[Actor, Security(Requires(SCOPE_DETECT_CREATE), scopes=[SCOPE_DETECT_CREATE])]
AuditReader = Annotated[Actor, Security(Requires(SCOPE_AUDIT_READ), scopes=[SCOPE_AUDIT_READ])]
SubjectSelf = Annotated[Actor, Security(Requires(SCOPE_SUBJECT_SELF), scopes=[SCOPE_SUBJECT_SELF])]
ManifestReader = Annotated[Actor, Security(Requires(SCOPE_FETCH_MANIFESTS), scopes=[SCOPE_FETCH_MANIFESTS])]
Operator = Annotated[Actor, Security(Requires(SCOPE_OPERATOR_ADMIN), scopes=[SCOPE_OPERATOR_ADMIN])]
