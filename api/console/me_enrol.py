"""/me/enrol: a portrait, a passkey made on the way, and the first signature. Ends signed in."""

from __future__ import annotations

import json
from typing import Any

from fastapi import APIRouter, Depends, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

from api.console.i18n import language_of
from api.console.pages import render
from api.console.session import FromOurScript, at_named_origin, session_of, set_session_cookie
from api.console.statements import as_json
from api.deps import ServiceDep, limited
from api.errors import InvalidFieldError
from api.schemas import moment
from api.uploads import read_form
from policy.consent import CLASS_ADULT, SUBJECT_CLASSES, EnrolmentStatement
from policy.texts import CURRENT_VERSION, shown_text

router = APIRouter(prefix="/me/enrol", include_in_schema=False, dependencies=[Depends(at_named_origin)])

_UNKNOWN_YET = "A" * 43
"""In place of the thumbprint, which exists once the passkey does: the text that is shown does not depend on it."""


@router.get("", response_class=HTMLResponse)
def page(request: Request) -> Response:
    session = session_of(request)
    if session is not None and session.kind == "subject":
        return RedirectResponse("/me", 303)
    return render(request, "me/enrol.html", classes=SUBJECT_CLASSES)


@router.post("/begin", dependencies=[FromOurScript])
async def begin(request: Request, service: ServiceDep) -> JSONResponse:
    """A challenge for a picture, the text to read, and everything the browser needs to write the statement."""
    limited(request, "enrolments")
    form = await read_form(
        request,
        file_limits={"portrait": service.settings.max_portrait_bytes},
        texts=("subject_class", "rights_basis"),
        max_text_bytes=service.settings.max_json_bytes,
    )
    subject_class = form.text("subject_class")
    issued = await run_in_threadpool(service.enrolment.challenge, form.file("portrait"))
    statement = EnrolmentStatement(
        subject_id=issued.subject_id,
        subject_class=subject_class,
        portraits=(issued.portrait_sha256 or "",),
        nonce=issued.nonce,
        key_thumbprint=_UNKNOWN_YET,
        adult_attested=subject_class == CLASS_ADULT,
        rights_basis="" if subject_class == CLASS_ADULT else form.texts.get("rights_basis", "").strip(),
        issued_at=int(service.now()),
        text_version=CURRENT_VERSION,
        language=language_of(request),
    )
    return JSONResponse(
        {
            "statement": statement.to_json() | {"key_thumbprint": None},
            "text": as_json(shown_text(statement)),
            "options": issued.passkey_options,
            "expires_at": moment(issued.expires_at).isoformat(),
        }
    )


@router.post("/finish", dependencies=[FromOurScript])
async def finish(request: Request, service: ServiceDep) -> JSONResponse:
    """Take the subject on record, and sign them in."""
    limited(request, "enrolments")
    form = await read_form(
        request,
        file_limits={"portrait": service.settings.max_portrait_bytes},
        texts=("signed", "registration"),
        max_text_bytes=service.settings.max_json_bytes,
    )
    signed, registration = _object(form.text("signed")), _object(form.text("registration"))
    subject = await run_in_threadpool(
        lambda: service.enrolment.enrol(form.file("portrait"), signed, registration=registration)
    )
    token, _ = await run_in_threadpool(service.sessions.open, subject.subject_id)
    answer = JSONResponse({"next": "/me?done=enrolled"})
    set_session_cookie(request, answer, token)
    return answer


def _object(text: str) -> dict[str, Any]:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise InvalidFieldError("The answer of the passkey is not JSON: load the page again and repeat.") from exc
    if not isinstance(content, dict):
        raise InvalidFieldError("The answer of the passkey must be a JSON object.")
    return content
