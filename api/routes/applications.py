"""/v1/applications: where an organisation asks to be let in. No token: whoever has none yet is who this is for."""

from __future__ import annotations

from typing import Literal, cast

from fastapi import APIRouter

from api.applications import Wish
from api.deps import Limited, ServiceDep
from api.schemas import ApplicationDetail, ApplicationIn, ApplicationOut, moment, moment_or_none
from api.storage.models import Application

router = APIRouter(prefix="/v1/applications", tags=["applications"])


@router.post("", status_code=201, summary="Apply for access", dependencies=[Limited("applications")])
def apply(body: ApplicationIn, service: ServiceDep) -> ApplicationOut:
    wish = Wish(
        kind=body.kind,
        name=body.name,
        org=body.org,
        contact=body.contact,
        project=body.project,
        ethics_reference=body.ethics_reference,
        scopes=frozenset(body.scopes),
        term_days=body.term_days,
        budget_s_per_day=body.budget_s_per_day,
    )
    return _out(service.applications.apply(wish, body.jwks))


@router.get("/{application_id}", summary="What became of an application", dependencies=[Limited("applications")])
def read(application_id: str, service: ServiceDep) -> ApplicationOut:
    return _out(service.applications.find(application_id))


def detail(application: Application) -> ApplicationDetail:
    """An application, as an operator reads it."""
    return ApplicationDetail(
        **_out(application).model_dump(),
        kind=application.kind,
        name=application.name,
        org=application.org,
        contact=application.contact,
        project=application.project,
        ethics_reference=application.ethics_reference,
        scopes=application.scopes,
        term_days=application.term_days,
        budget_s_per_day=application.budget_s_per_day,
    )


def _out(application: Application) -> ApplicationOut:
    return ApplicationOut(
        application_id=application.application_id,
        status=cast(Literal["open", "approved", "refused"], application.status),
        reason=application.reason,
        client_id=application.client_id,
        created_at=moment(application.created_at),
        closed_at=moment_or_none(application.closed_at),
        log_index=application.log_index,
        closing_index=application.closing_index,
    )
