"""/v1/operators: vetting. An operator approves clients, gives them a term and budgets, and can end it at once."""

from __future__ import annotations

from typing import Annotated, Literal, cast

from fastapi import APIRouter, Body, Query

from api.applications import Grant
from api.clients import DEFAULT_CONCURRENT, Terms, Vetting, external_name
from api.deps import Operator, ServiceDep
from api.routes.applications import detail
from api.schemas import (
    ApplicationDetail,
    ApplicationsOut,
    ClientIn,
    ClientOut,
    ClientsOut,
    GrantIn,
    ReasonIn,
    TermsIn,
    moment,
    moment_or_none,
)
from api.storage.models import Client

router = APIRouter(prefix="/v1/operators", tags=["operators"])

OptionalReason = Annotated[ReasonIn, Body(default_factory=ReasonIn)]


@router.post("/clients", status_code=201, summary="Approve a client")
def register(body: ClientIn, service: ServiceDep, operator: Operator) -> ClientOut:
    budget = service.settings.budget_s_per_day if body.budget_s_per_day is None else body.budget_s_per_day
    vetting = Vetting(
        kind=body.kind,
        name=body.name,
        org=body.org,
        project=body.project,
        ethics_reference=body.ethics_reference,
        scopes=frozenset(body.scopes),
        term_expires_at=body.term_expires_at.timestamp() if body.term_expires_at else None,
        budget_s_per_day=budget,
        max_concurrent=DEFAULT_CONCURRENT if body.max_concurrent is None else body.max_concurrent,
        redirect_uris=tuple(body.redirect_uris),
        external=None if body.external is None else external_name(body.external.issuer, body.external.client_id),
    )
    return _out(service.clients.register(vetting, body.jwks))


@router.get("/clients", summary="All clients but the subjects")
def clients(service: ServiceDep, operator: Operator) -> ClientsOut:
    return ClientsOut(clients=[_out(client) for client in service.clients.all()])


@router.get("/clients/{client_id}", summary="One client")
def client(client_id: str, service: ServiceDep, operator: Operator) -> ClientOut:
    return _out(service.clients.vetted(client_id))


@router.post("/clients/{client_id}/terms", summary="Give a client another term or other budgets")
def amend(client_id: str, body: TermsIn, service: ServiceDep, operator: Operator) -> ClientOut:
    terms = Terms(
        term_expires_at=body.term_expires_at.timestamp() if body.term_expires_at else None,
        budget_s_per_day=body.budget_s_per_day,
        max_concurrent=body.max_concurrent,
    )
    return _out(service.clients.amend(client_id, terms))


@router.post("/clients/{client_id}/suspension", summary="End a client's approval at once")
def suspend(client_id: str, service: ServiceDep, operator: Operator, body: OptionalReason) -> ClientOut:
    return _out(service.clients.suspend(client_id, body.reason))


@router.post("/clients/{client_id}/resumption", summary="Lift a suspension")
def resume(client_id: str, service: ServiceDep, operator: Operator, body: OptionalReason) -> ClientOut:
    return _out(service.clients.resume(client_id, body.reason))


@router.get("/applications", summary="Applications of organisations, newest first")
def applications(
    service: ServiceDep,
    operator: Operator,
    status: Annotated[Literal["open", "approved", "refused"] | None, Query()] = None,
) -> ApplicationsOut:
    return ApplicationsOut(applications=[detail(each) for each in service.applications.all(status or "")])


@router.get("/applications/{application_id}", summary="One application")
def application(application_id: str, service: ServiceDep, operator: Operator) -> ApplicationDetail:
    return detail(service.applications.find(application_id))


@router.post("/applications/{application_id}/approval", status_code=201, summary="Let an applicant in")
def approve(
    application_id: str,
    service: ServiceDep,
    operator: Operator,
    body: Annotated[GrantIn, Body(default_factory=GrantIn)],
) -> ClientOut:
    grant = Grant(term_days=body.term_days, budget_s_per_day=body.budget_s_per_day, max_concurrent=body.max_concurrent)
    _, client = service.applications.approve(application_id, grant, operator_id=operator.client_id)
    return _out(client)


@router.post("/applications/{application_id}/refusal", summary="Turn an applicant down")
def refuse(application_id: str, service: ServiceDep, operator: Operator, body: OptionalReason) -> ApplicationDetail:
    return detail(service.applications.refuse(application_id, body.reason, operator_id=operator.client_id))


def _out(client: Client) -> ClientOut:
    return ClientOut(
        client_id=client.client_id,
        kind=client.kind,
        name=client.name,
        org=client.org,
        project=client.project,
        ethics_reference=client.ethics_reference,
        scopes=client.scopes,
        status=cast(Literal["approved", "suspended"], "approved" if client.status == "approved" else "suspended"),
        status_reason=client.status_reason or "",
        term_expires_at=moment_or_none(client.term_expires_at),
        budget_s_per_day=client.budget_s_per_day,
        max_concurrent=client.max_concurrent,
        redirect_uris=list(client.redirect_uris or ()),
        external=client.external,
        created_at=moment(client.created_at),
        log_index=client.log_index,
    )
