"""/oauth and its metadata: where clients get tokens."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool

from api.deps import ServiceDep
from api.errors import ContentTypeError
from api.oauth.server import TokenRequest

router = APIRouter(tags=["oauth"])

_FORM = {
    "requestBody": {
        "required": True,
        "content": {
            "application/x-www-form-urlencoded": {
                "schema": {
                    "type": "object",
                    "required": ["grant_type", "scope", "client_assertion_type", "client_assertion"],
                    "properties": {
                        "grant_type": {"type": "string", "const": "client_credentials"},
                        "scope": {"type": "string", "description": "scopes of one endpoint, separated by spaces"},
                        "resource": {"type": "string", "description": "RFC 8707; must be the endpoint of the scopes"},
                        "client_assertion_type": {
                            "type": "string",
                            "const": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
                        },
                        "client_assertion": {"type": "string", "description": "RFC 7523 JWT, aud = the issuer"},
                    },
                }
            }
        },
    }
}


@router.get("/.well-known/oauth-authorization-server", summary="Authorization server metadata (RFC 8414)")
def metadata(service: ServiceDep) -> dict[str, Any]:
    return service.oauth.metadata()


@router.get("/oauth/jwks", summary="Keys that access tokens are signed with (RFC 7517)")
def jwks(service: ServiceDep) -> dict[str, Any]:
    return service.oauth.jwks()


@router.post("/oauth/token", summary="Get an access token (RFC 6749 §4.4, RFC 7523)", openapi_extra=_FORM)
async def token(request: Request, service: ServiceDep) -> Response:
    return await run_in_threadpool(service.oauth.create_token_response, await _read(request))


@router.post("/oauth/revoke", summary="Withdraw an access token (RFC 7009)", openapi_extra={})
async def revoke(request: Request, service: ServiceDep) -> Response:
    return await run_in_threadpool(service.oauth.revoke, await _read(request))


async def _read(request: Request) -> TokenRequest:
    if not request.headers.get("content-type", "").lower().startswith("application/x-www-form-urlencoded"):
        raise ContentTypeError("application/x-www-form-urlencoded")
    return TokenRequest(request.url.path, request.headers, await request.form())
