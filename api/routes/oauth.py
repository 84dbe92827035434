"""/oauth and its metadata: where clients get tokens."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool

from api.deps import ServiceDep, caller_of, limited
from api.errors import ContentTypeError
from api.oauth.server import TokenRequest

router = APIRouter(tags=["oauth"])

_ASSERTION = {
    "client_assertion_type": {"type": "string", "const": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"},
    "client_assertion": {"type": "string", "description": "RFC 7523 JWT, aud = the issuer, good once"},
    "client_id": {"type": "string", "description": "instead, for a program without a key"},
}


def _form(required: list[str], **properties: dict[str, Any]) -> dict[str, Any]:
    """The OpenAPI description of a form that names who sends it."""
    schema = {"type": "object", "required": required, "properties": {**properties, **_ASSERTION}}
    return {"requestBody": {"required": True, "content": {"application/x-www-form-urlencoded": {"schema": schema}}}}


_TOKEN_FORM = _form(
    ["grant_type"],
    grant_type={"type": "string", "enum": ["client_credentials", "authorization_code"]},
    scope={"type": "string", "description": "scopes of one endpoint, separated by spaces"},
    resource={"type": "string", "description": "RFC 8707; must be the endpoint of the scopes"},
    code={"type": "string", "description": "from the authorization endpoint"},
    redirect_uri={"type": "string", "description": "the one that the code was sent to"},
    code_verifier={"type": "string", "description": "RFC 7636"},
)
_TOKEN_FORM["parameters"] = [
    {
        "name": "DPoP",
        "in": "header",
        "required": False,
        "schema": {"type": "string"},
        "description": "Proof of possession (RFC 9449); required for scopes render:* and live:*.",
    }
]
_ABOUT_TOKEN = _form(["token"], token={"type": "string", "description": "an access token"})


@router.get("/.well-known/oauth-authorization-server", summary="Authorization server metadata (RFC 8414)")
def metadata(service: ServiceDep) -> dict[str, Any]:
    return service.oauth.metadata()


@router.get("/oauth/jwks", summary="Keys that access tokens are signed with (RFC 7517)")
def jwks(service: ServiceDep) -> dict[str, Any]:
    return service.oauth.jwks()


@router.post("/oauth/token", summary="Get an access token (RFC 6749, RFC 7523, RFC 9449)", openapi_extra=_TOKEN_FORM)
async def token(request: Request, service: ServiceDep) -> Response:
    limited(request, "token requests")
    return await run_in_threadpool(service.oauth.answer, await _read(request))


@router.post("/oauth/revoke", summary="Withdraw an access token (RFC 7009)", openapi_extra=_ABOUT_TOKEN)
async def revoke(request: Request, service: ServiceDep) -> Response:
    return await run_in_threadpool(service.oauth.revoke, await _read(request))


@router.post("/oauth/introspect", summary="Ask what an access token is worth (RFC 7662)", openapi_extra=_ABOUT_TOKEN)
async def introspect(request: Request, service: ServiceDep) -> Response:
    return await run_in_threadpool(service.oauth.introspect, await _read(request))


async def _read(request: Request) -> TokenRequest:
    if not request.headers.get("content-type", "").lower().startswith("application/x-www-form-urlencoded"):
        raise ContentTypeError("application/x-www-form-urlencoded")
    return TokenRequest(request.url.path, request.headers, await request.form(), caller_of(request))
