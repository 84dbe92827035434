"""The OpenAPI document as it is served: what FastAPI writes, put right where our answers differ."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from api.problems import PROBLEM_MEDIA_TYPE

_PROBLEM = {"$ref": "#/components/schemas/Problem"}
_OAUTH_ERRORS = ("/oauth/token", "/oauth/introspect", "/oauth/revoke")


def install_document(app: FastAPI) -> None:
    """Serve our document at /openapi.json; made once, when it is first asked for."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            made = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
            app.openapi_schema = _put_right(made)
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]


def _put_right(made: dict[str, Any]) -> dict[str, Any]:
    for path, item in made["paths"].items():
        for operation in item.values():
            responses = operation["responses"]
            # FastAPI's own shape of validation errors, which ours replace
            responses.pop("422", None)
            # errors are problem documents; at the token endpoint they are OAuth errors as well (RFC 6749 §5.2)
            default = responses.get("default")
            if default is not None:
                kinds = [PROBLEM_MEDIA_TYPE, *(["application/json"] if path in _OAUTH_ERRORS else [])]
                default["content"] = {kind: {"schema": _PROBLEM} for kind in kinds}
    for name in ("HTTPValidationError", "ValidationError"):
        made.get("components", {}).get("schemas", {}).pop(name, None)
    return made
