"""The one shape of every error on the wire: RFC 9457 problem documents with a stable code and a sentence that helps."""

from __future__ import annotations

import http
import logging
import secrets
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from api.console.pages import wants_page
from api.console.refusals import error_page
from api.errors import (
    ApiError,
    BodyTooLargeError,
    ContentTypeError,
    InvalidFieldError,
    MissingFieldError,
    RequestError,
    UnknownFieldError,
    status_of,
)
from policy.errors import PolicyError
from watermark.errors import WatermarkError

logger = logging.getLogger("placet.api")

PROBLEM_MEDIA_TYPE = "application/problem+json"
INCIDENT_CODE = "internal"


def problem(
    request: Request,
    *,
    status: int,
    code: str,
    detail: str,
    extras: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
    instance: str | None = None,
) -> Response:
    """The one error shape: RFC 9457 with a stable `code`; for browsers the same in words, on a page."""
    body = {
        "type": f"urn:placet:problem:{code}",
        "title": http.HTTPStatus(status).phrase,
        "status": status,
        "code": code,
        "detail": detail,
        "instance": instance or request.url.path,
        **(extras or {}),
    }
    if wants_page(request):
        return error_page(request, body, headers or {})
    return JSONResponse(body, status, dict(headers or {}), media_type=PROBLEM_MEDIA_TYPE)


def install_error_handlers(app: FastAPI) -> None:
    """Make every error of every route come out as a problem document."""

    @app.exception_handler(RequestValidationError)
    def _invalid(request: Request, error: RequestValidationError) -> Response:
        code, sentence = _validation_sentence(error)
        return problem(request, status=status_of(code) or 400, code=code, detail=sentence)

    @app.exception_handler(HTTPException)
    def _http(request: Request, error: HTTPException) -> Response:
        sentences = {
            404: "There is nothing at this address: see /docs for the endpoints.",
            405: f"This address does not take {request.method}: see /docs for the methods it takes.",
        }
        phrase = http.HTTPStatus(error.status_code).phrase.lower().replace(" ", "_")
        return problem(
            request,
            status=error.status_code,
            code=getattr(error, "code", phrase),
            detail=sentences.get(error.status_code, str(error.detail)),
            headers=error.headers,
        )

    for base in (ApiError, PolicyError, WatermarkError):
        app.add_exception_handler(base, _known)
    app.add_exception_handler(Exception, _unforeseen)


def _known(request: Request, error: Exception) -> Response:
    """An error of ours: its row in the table; without one, or as a fault of our own, an incident."""
    code = str(getattr(error, "code", ""))
    status = status_of(code)
    if status is None or status == 500:
        return _unforeseen(request, error)
    extras, headers = (error.extras, error.headers) if isinstance(error, ApiError) else ({}, {})
    if _is_refused_upload(request, code):
        extras = {**extras, "log_index": _recorded(request, code)}
    return problem(request, status=status, code=code, detail=str(error), extras=extras, headers=headers)


def _recorded(request: Request, code: str) -> int | None:
    """Log a refused upload. Where the log cannot be written the refusal stands all the same."""
    address = request.client.host if request.client is not None else ""
    try:
        index: int | None = request.app.state.service.record_refused_input(code, request.url.path, address)
    except PolicyError as error:
        logger.warning("a refused upload could not be logged: %s", error)
        return None
    return index


def _is_refused_upload(request: Request, code: str) -> bool:
    """Whether an error says that somebody sent media which cannot be used, by mistake or to see what happens."""
    is_upload = request.method == "POST" and request.url.path.startswith(_UPLOAD_PATHS)
    return is_upload and (code.partition(".")[0] in _MEDIA_CODES or code == BodyTooLargeError.code)


_UPLOAD_PATHS = ("/v1/renders", "/v1/subjects", "/v1/detections", "/me")
_MEDIA_CODES = frozenset({"portrait", "speech", "media", "intake", "control", "detector"})


def _unforeseen(request: Request, error: Exception) -> Response:
    """An incident: everything in our log under an identifier, nothing but that identifier in the answer."""
    incident_id = f"inc_{secrets.token_hex(8)}"
    logger.error("incident %s: %s", incident_id, type(error).__name__, exc_info=error)
    return problem(
        request,
        status=500,
        code=INCIDENT_CODE,
        detail=f"Something went wrong on our side: report incident {incident_id} to the operator.",
        instance=f"urn:placet:incident:{incident_id}",
        extras={"incident_id": incident_id},
    )


def _validation_sentence(error: RequestValidationError) -> tuple[str, str]:
    """Code and sentence for the first thing that Pydantic found wrong; never repeats the value itself."""
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"][1:] if not isinstance(part, int)) or "body"
    match first["type"]:
        case "json_invalid":
            return RequestError.code, "The body is not valid JSON: send one JSON object."
        case "missing" if place == "body":
            return RequestError.code, "The body is missing: send one JSON object with Content-Type application/json."
        case "missing":
            return MissingFieldError.code, str(MissingFieldError(place))
        case "extra_forbidden":
            return UnknownFieldError.code, f"Unknown field “{place}”: see /docs for the fields this endpoint takes."
        case "model_attributes_type" | "dict_type":
            return ContentTypeError.code, "The body must be one JSON object with Content-Type application/json."
    return InvalidFieldError.code, f"The field “{place}” cannot be used: {first['msg']}."
