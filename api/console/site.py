"""Pages that anybody may open: /, /sign-in, /sign-out, and the files in static/."""

from __future__ import annotations

import mimetypes
from typing import Annotated, Any, Final

from fastapi import APIRouter, Body, Depends, Request
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse, RedirectResponse, Response

from api.console.pages import STATIC, render, static_version
from api.console.session import (
    ConsoleForm,
    FromOurScript,
    at_named_origin,
    clear_session_cookie,
    safe_next,
    session_cookie_name,
    session_of,
    set_session_cookie,
)
from api.deps import ServiceDep, limited
from api.errors import NotFoundError

router = APIRouter(include_in_schema=False, dependencies=[Depends(at_named_origin)])

HOME_BY_KIND: Final = {"subject": "/me", "researcher": "/studio", "auditor": "/audit", "operator": "/operate"}
"""Where somebody is taken after signing in, if they were not on the way to another page."""

Fetched = Annotated[dict[str, Any], Body()]
"""The JSON object that a script of ours sends."""


@router.get("/", response_class=HTMLResponse)
def home(request: Request, service: ServiceDep) -> HTMLResponse:
    return render(request, "home.html", log_key=service.log.verifier_key)


@router.get("/sign-in", response_class=HTMLResponse)
def sign_in(request: Request) -> Response:
    unverified_next = request.query_params.get("next")
    if (session := session_of(request)) is not None:
        return RedirectResponse(safe_next(unverified_next, HOME_BY_KIND.get(session.kind, "/")), 303)
    signed_out = "signed_out" in request.query_params
    return render(request, "sign_in.html", next=safe_next(unverified_next, ""), signed_out=signed_out)


@router.post("/sign-in/begin", dependencies=[FromOurScript])
def sign_in_begin(request: Request, service: ServiceDep) -> JSONResponse:
    limited(request, "sign-ins")
    return JSONResponse({"options": service.passkeys.begin_assertion()})


@router.post("/sign-in/finish", dependencies=[FromOurScript])
def sign_in_finish(request: Request, service: ServiceDep, body: Fetched) -> JSONResponse:
    limited(request, "sign-ins")
    account_id = service.passkeys.finish_assertion(body.get("credential"))
    token, session = service.sessions.open(account_id)
    otherwise = HOME_BY_KIND.get(session.kind, "/")
    answer = JSONResponse({"next": safe_next(str(body.get("next") or ""), otherwise)})
    set_session_cookie(request, answer, token)
    return answer


@router.post("/sign-out")
def sign_out(request: Request, service: ServiceDep, form: ConsoleForm) -> RedirectResponse:
    service.sessions.close(request.cookies.get(session_cookie_name(request), ""))
    answer = RedirectResponse("/sign-in?signed_out", 303)
    clear_session_cookie(request, answer)
    # nothing of a signed-in page may come back with the back button
    answer.headers["Clear-Site-Data"] = '"cache"'
    return answer


@router.get("/static/{version}/{name:path}")
def static(version: str, name: str) -> FileResponse:
    path = (STATIC / name).resolve()
    if not path.is_relative_to(STATIC.resolve()) or not path.is_file():
        raise NotFoundError("There is no such file.")
    kept = "public, max-age=31536000, immutable" if version == static_version() else "no-store"
    media_type = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    return FileResponse(path, media_type=media_type, headers={"Cache-Control": kept})
