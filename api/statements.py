"""Signed statements as they come over HTTP: read once, strictly, and every refusal logged with its name.

A body with a doubled key means two things at once; JSON parsers pick one of them silently. It is refused here, like an
unknown field, before anybody looks at what it says.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, NoReturn

from fastapi import Depends, Request
from fastapi.concurrency import run_in_threadpool
from pydantic import ValidationError

from api.deps import ServiceDep, SubjectSelf
from api.errors import ContentTypeError, InvalidFieldError, RequestError, UnknownFieldError
from api.schemas import StatementIn
from api.uploads import JsonTooLargeError
from policy.consent import Signed

STATEMENT_BODY: dict[str, Any] = {
    "requestBody": {"required": True, "content": {"application/json": {"schema": StatementIn.model_json_schema()}}}
}
"""`openapi_extra` of an endpoint that takes a signed statement."""
_MAX_BRACKETS = 10_000


class DoubledKeyError(RequestError):
    """A key appears twice in one JSON object."""

    code = "request.doubled_key"


def strict_json(data: bytes | str) -> Any:
    """JSON without doubled keys, constants that are not JSON, or absurd nesting.

    Raises: RequestError, DoubledKeyError.
    """
    try:
        text = data if isinstance(data, str) else data.decode("utf-8")
        if text.count("[") + text.count("{") > _MAX_BRACKETS:
            raise RequestError("The JSON is nested too deeply: send one flat object.")
        return json.loads(text, object_pairs_hook=_without_doubled_keys, parse_constant=_no_constant)
    except (ValueError, RecursionError) as exc:
        raise RequestError("The body is not valid JSON: send one JSON object.") from exc


def signed_of_form(text: str) -> Signed:
    """A signed statement out of a form field: a compact JWS, or statement and assertion as JSON.

    Raises: RequestError, DoubledKeyError.
    """
    if not text.lstrip().startswith("{"):
        return text.strip()
    return dict(strict_json(text))


async def _signed_statement(request: Request, service: ServiceDep, actor: SubjectSelf) -> Signed:
    """The signed statement in the body, after authentication. Raises RequestError, 413."""
    try:
        if not request.headers.get("content-type", "").lower().startswith("application/json"):
            raise ContentTypeError("application/json")
        unverified = strict_json(await request.body())
        return _parsed(unverified).signed
    except (RequestError, JsonTooLargeError) as error:
        await run_in_threadpool(_log, service, actor.client_id, error.code)
        raise


SignedStatement = Annotated[Signed, Depends(_signed_statement)]


def _parsed(unverified: Any) -> StatementIn:
    if not isinstance(unverified, dict):
        raise ContentTypeError("application/json and one JSON object in it")
    if unknown := sorted(set(unverified) - set(StatementIn.model_fields)):
        raise UnknownFieldError(unknown[:3], list(StatementIn.model_fields))
    try:
        return StatementIn.model_validate(unverified)
    except ValidationError as exc:
        raise InvalidFieldError("statement must be a compact JWS, or an object with its assertion.") from exc


def _log(service: ServiceDep, subject_id: str, code: str) -> None:
    body = {"subject": service.gate.pseudonym("subject", subject_id), "statement": "unread", "code": code}
    service.gate.record("statement.refused", body)


def _without_doubled_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    obj = dict(pairs)
    if len(obj) != len(pairs):
        raise DoubledKeyError("A key appears twice in one JSON object: send each once.")
    return obj


def _no_constant(name: str) -> NoReturn:
    raise RequestError(f"{name} is not JSON: send numbers.")
