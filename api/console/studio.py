"""/studio: a vetted researcher speaks through a persona or a person who has agreed, and sees it live."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response
from sqlalchemy import select

from api.console.i18n import language_of
from api.console.pages import PAGE_HEADERS, render
from api.console.session import FromOurScript, Session, SignedIn, at_named_origin
from api.deps import ServiceDep
from api.errors import NotFoundError
from api.live.schemas import LiveSessionIn
from api.routes.live import opened, request_of
from api.service import Service
from api.storage.models import Consent, Portrait, Subject
from generator.emotion import EMOTIONS
from policy.identity import Actor
from policy.purposes import PURPOSES_BY_LANGUAGE

router = APIRouter(include_in_schema=False, dependencies=[Depends(at_named_origin)])

Researcher = Annotated[Session, Depends(SignedIn("researcher"))]
_SLIDERS: Final = ("gaze", "head_pose", "head_distance", "emotion")
_MAX_CHOICES: Final = 60
_HEADERS: Final = {
    "Permissions-Policy": PAGE_HEADERS["Permissions-Policy"].replace("microphone=()", "microphone=(self)")
}


@dataclass(frozen=True)
class Choice:
    """A portrait that this researcher may animate, and for what.

    Attributes:
        controls: names of the controls that the consent allows among those on the page.
    """

    subject_id: str
    subject_class: str
    portrait_sha256: str
    purposes: tuple[str, ...]
    controls: tuple[str, ...]
    expires_at: int


@router.get("/studio", response_class=HTMLResponse)
def studio(request: Request, service: ServiceDep, me: Researcher) -> HTMLResponse:
    return render(
        request,
        "studio/studio.html",
        headers=_HEADERS,
        choices=choices(service, me.account_id),
        purposes=PURPOSES_BY_LANGUAGE[language_of(request)],
        emotions=EMOTIONS,
    )


@router.get("/studio/portraits/{sha256}")
def portrait(service: ServiceDep, me: Researcher, sha256: str) -> Response:
    if all(each.portrait_sha256 != sha256 for each in choices(service, me.account_id)):
        raise NotFoundError("Nobody has agreed that you may use this picture.")
    with service.database.read() as session:
        found = session.get_one(Portrait, sha256)
    return Response(service.enrolment.open_portrait(found), media_type="image/png")


@router.post("/studio/sessions", dependencies=[FromOurScript])
async def create(service: ServiceDep, me: Researcher, asked: LiveSessionIn) -> JSONResponse:
    client = service.clients.find(me.account_id)
    actor = Actor(client.client_id, client.org, frozenset(client.scopes), frozenset(client.roles))
    session = await service.live.open(actor, request_of(asked))
    return JSONResponse(opened(service, session).model_dump(), 201)


def choices(service: Service, client_id: str) -> list[Choice]:
    """Whom a client may show today, the newest consent first."""
    now = service.now()
    live = (
        select(Consent, Subject)
        .join(Subject, Subject.subject_id == Consent.subject_id)
        .where(
            Consent.grantee_client == client_id,
            Consent.revoked_at.is_(None),
            Consent.superseded_by.is_(None),
            Consent.expires_at > now,
            Subject.erased_at.is_(None),
            Subject.epoch == Consent.epoch,
        )
        .order_by(Consent.created_at.desc())
        .limit(_MAX_CHOICES)
    )
    with service.database.read() as session:
        found = session.execute(live).all()
    return [
        _choice(consent.statement, subject, sha256)
        for consent, subject in found
        if consent.statement["not_before"] <= now
        for sha256 in consent.statement["portraits"]
    ]


def _choice(statement: dict[str, Any], subject: Subject, portrait_sha256: str) -> Choice:
    allowed = set(statement["controls"])
    return Choice(
        subject_id=subject.subject_id,
        subject_class=subject.subject_class,
        portrait_sha256=portrait_sha256,
        purposes=tuple(statement["purposes"]),
        controls=tuple(name for name in _SLIDERS if "*" in allowed or name in allowed),
        expires_at=int(statement["expires_at"]),
    )
