"""/operate: for whoever runs the service. Health in words, applications, clients with their budgets, keys.

Every change is an entry in the audit log before it counts. Dangerous ones stand behind a dialog that names them.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request
from fastapi.responses import HTMLResponse, RedirectResponse

from api.applications import Grant
from api.clients import Terms
from api.console.operate_view import client_lines, key_lines, overall, signs
from api.console.pages import render
from api.console.session import ConsoleForm, Session, SignedIn, at_named_origin
from api.deps import ServiceDep
from api.errors import InvalidFieldError
from api.keyring import rotate

router = APIRouter(include_in_schema=False, dependencies=[Depends(at_named_origin)])

Operator = Annotated[Session, Depends(SignedIn("operator"))]
_DAY_S = 86_400


@router.get("/operate", response_class=HTMLResponse)
def health(request: Request, service: ServiceDep, session: Operator) -> HTMLResponse:
    found = signs(service)
    return render(request, "operate/health.html", signs=found, overall=overall(found), now=service.now())


@router.get("/operate/applications", response_class=HTMLResponse)
def applications(request: Request, service: ServiceDep, session: Operator) -> HTMLResponse:
    found = service.applications.all()
    waiting = [each for each in found if each.status == "open"]
    answered = [each for each in found if each.status != "open"]
    return render(request, "operate/applications.html", waiting=waiting, answered=answered[:50], done=_done(request))


@router.post("/operate/applications/{application_id}/approve")
def approve(application_id: str, service: ServiceDep, session: Operator, form: ConsoleForm) -> RedirectResponse:
    grant = Grant(
        term_days=int(_number(form, "term_days", 1, 1095)),
        budget_s_per_day=_number(form, "budget_s_per_day", 0, _DAY_S),
        max_concurrent=int(_number(form, "max_concurrent", 0, 64)),
    )
    service.applications.approve(application_id, grant, operator_id=session.account_id)
    return RedirectResponse("/operate/applications?done=approved", 303)


@router.post("/operate/applications/{application_id}/refuse")
def refuse(application_id: str, service: ServiceDep, session: Operator, form: ConsoleForm) -> RedirectResponse:
    service.applications.refuse(application_id, form.get("reason", ""), operator_id=session.account_id)
    return RedirectResponse("/operate/applications?done=refused", 303)


@router.get("/operate/clients", response_class=HTMLResponse)
def clients(request: Request, service: ServiceDep, session: Operator) -> HTMLResponse:
    lines = client_lines(service)
    return render(request, "operate/clients.html", lines=lines, now=service.now(), done=_done(request))


@router.post("/operate/clients/{client_id}/terms")
def amend(client_id: str, service: ServiceDep, session: Operator, form: ConsoleForm) -> RedirectResponse:
    days = form.get("term_days", "").strip()
    terms = Terms(
        term_expires_at=service.now() + _number(form, "term_days", 0, 1095) * _DAY_S if days else None,
        budget_s_per_day=_number(form, "budget_s_per_day", 0, _DAY_S),
        max_concurrent=int(_number(form, "max_concurrent", 0, 64)),
    )
    service.clients.amend(client_id, terms)
    return RedirectResponse("/operate/clients?done=amended", 303)


@router.post("/operate/clients/{client_id}/suspend")
def suspend(client_id: str, service: ServiceDep, session: Operator, form: ConsoleForm) -> RedirectResponse:
    if client_id == session.account_id:
        raise InvalidFieldError("You cannot suspend yourself: another operator has to do that.")
    service.clients.suspend(client_id, form.get("reason", ""))
    return RedirectResponse("/operate/clients?done=suspended", 303)


@router.post("/operate/clients/{client_id}/resume")
def resume(client_id: str, service: ServiceDep, session: Operator, form: ConsoleForm) -> RedirectResponse:
    service.clients.resume(client_id, form.get("reason", ""))
    return RedirectResponse("/operate/clients?done=resumed", 303)


@router.get("/operate/keys", response_class=HTMLResponse)
def keys(request: Request, service: ServiceDep, session: Operator) -> HTMLResponse:
    lines = key_lines(service)
    return render(request, "operate/keys.html", lines=lines, kms=service.settings.kms, done=_done(request))


@router.post("/operate/keys/{name}/rotate")
def rotate_key(name: str, service: ServiceDep, session: Operator, form: ConsoleForm) -> RedirectResponse:
    rotate(service.settings, name)
    return RedirectResponse("/operate/keys?done=rotated", 303)


def _done(request: Request) -> str:
    """What was just done, if it is one of the things that can be done here."""
    done = request.query_params.get("done", "")
    return done if done in ("approved", "refused", "amended", "suspended", "resumed", "rotated") else ""


def _number(form: dict[str, str], name: str, least: float, most: float) -> float:
    """A number of a form. Raises InvalidFieldError."""
    try:
        value = float(form.get(name, ""))
    except ValueError as exc:
        raise InvalidFieldError(f"The field “{name}” must be a number.") from exc
    if not least <= value <= most:
        raise InvalidFieldError(f"The field “{name}” must be from {least:g} to {most:g}.")
    return value
