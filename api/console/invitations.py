"""/invitations/{token}, where an invited auditor or operator makes their first passkey, and how operators invite."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends, Request
from fastapi.responses import HTMLResponse, JSONResponse
from pydantic import Field

from api.console.pages import render
from api.console.session import FromOurScript, at_named_origin, set_session_cookie
from api.console.site import HOME_BY_KIND
from api.deps import Operator, ServiceDep, limited
from api.errors import NotFoundError
from api.invitations import StaffKind
from api.schemas import RequestModel, ResponseModel, moment

# -- over HTTP, for operators


class InvitationIn(RequestModel):
    """A member of staff to be."""

    role: StaffKind
    name: str = Field(min_length=1, max_length=200)
    org: str = Field(
        "local-operator", min_length=1, max_length=128, description="Short identifier of the organisation."
    )


class InvitationOut(ResponseModel):
    """A link that works once."""

    url: str = Field(description="Give it to this person only; it cannot be shown again.")
    client_id: str
    expires_at: datetime
    log_index: int


api_router = APIRouter(prefix="/v1/operators", tags=["operators"])


@api_router.post("/invitations", status_code=201, summary="Invite an auditor or operator to make a passkey")
def invite(body: InvitationIn, service: ServiceDep, operator: Operator) -> InvitationOut:
    made = service.invitations.invite(body.role, name=body.name, org=body.org, invited_by=operator.client_id)
    return InvitationOut(
        url=f"{service.settings.browser_origin}/invitations/{made.token}",
        client_id=made.client_id,
        expires_at=moment(made.expires_at),
        log_index=made.log_index,
    )


# -- the page, for whoever was invited

router = APIRouter(include_in_schema=False, dependencies=[Depends(at_named_origin)])


@router.get("/invitations/{token}", response_class=HTMLResponse)
def page(request: Request, service: ServiceDep, token: str) -> HTMLResponse:
    try:
        invitation = service.invitations.find(token)
    except NotFoundError:
        return render(request, "invitation.html", status=404, invitation=None)
    return render(request, "invitation.html", invitation=invitation)


@router.post("/invitations/{token}/begin", dependencies=[FromOurScript])
def begin(request: Request, service: ServiceDep, token: str) -> JSONResponse:
    limited(request, "sign-ins")
    return JSONResponse({"options": service.invitations.begin(token)})


@router.post("/invitations/{token}/finish", dependencies=[FromOurScript])
def finish(request: Request, service: ServiceDep, token: str, body: Annotated[dict[str, Any], Body()]) -> JSONResponse:
    client_id = service.invitations.accept(token, body.get("credential"))
    cookie, session = service.sessions.open(client_id)
    answer = JSONResponse({"next": HOME_BY_KIND[session.kind]})
    set_session_cookie(request, answer, cookie)
    return answer
