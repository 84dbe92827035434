"""Which endpoint a permission belongs to. A token has one audience: what may detect cannot generate, and so on."""

from __future__ import annotations

from collections.abc import Iterable

from authlib.oauth2.rfc6749 import InvalidScopeError, OAuth2Error

from policy.identity import (
    SCOPE_AUDIT_READ,
    SCOPE_DETECT_CREATE,
    SCOPE_FETCH_MANIFESTS,
    SCOPE_LIVE_CREATE,
    SCOPE_OPERATOR_ADMIN,
    SCOPE_RENDER_CREATE,
    SCOPE_RENDER_READ,
    SCOPE_SUBJECT_SELF,
)

AUDIENCE_PATH_BY_SCOPE = {
    SCOPE_RENDER_CREATE: "/v1/renders",
    SCOPE_RENDER_READ: "/v1/renders",
    SCOPE_LIVE_CREATE: "/v1/live",
    SCOPE_DETECT_CREATE: "/v1/detections",
    SCOPE_AUDIT_READ: "/v1/audit",
    SCOPE_SUBJECT_SELF: "/v1/subjects",
    SCOPE_OPERATOR_ADMIN: "/v1/operators",
    SCOPE_FETCH_MANIFESTS: "/softbinding",
}


_BOUND_PREFIXES = ("render:", "live:")


def requires_proof(scope: str) -> bool:
    """Whether tokens of a scope must be bound to a key (DPoP): all that make somebody's face move."""
    return scope.startswith(_BOUND_PREFIXES)


class InvalidTargetError(OAuth2Error):
    """RFC 8707 §2: the requested resource is unknown, or not the one that the scopes belong to."""

    error = "invalid_target"


def audience_of(scopes: Iterable[str], issuer: str, resources: Iterable[str] = ()) -> str:
    """The one audience that all these scopes share.

    Args:
        scopes: what the client asks for.
        issuer: base URL of the service.
        resources: values of the request's `resource` parameter (RFC 8707), if it has any.
    Raises:
        InvalidScopeError: an unknown scope, none, or scopes of different endpoints (RFC 9068 §3).
        InvalidTargetError: `resource` names another endpoint.
    """
    paths = {AUDIENCE_PATH_BY_SCOPE.get(scope) for scope in scopes}
    path = paths.pop() if len(paths) == 1 else None
    if path is None:
        raise InvalidScopeError(description="Ask for known scopes of one endpoint at a time.")
    audience = issuer + path
    if any(resource != audience for resource in resources):
        raise InvalidTargetError(description="The resource is not the one that these scopes belong to.")
    return audience
