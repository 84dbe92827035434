"""/v1/operators: vetting. An operator approves clients, gives them a term and a budget, and can end it at once."""

from __future__ import annotations

from fastapi import APIRouter

from api.clients import Vetting
from api.deps import Operator, ServiceDep
from api.schemas import ClientIn, ClientOut, ClientsOut, moment, moment_or_none
from api.storage.models import Client

router = APIRouter(prefix="/v1/operators", tags=["operators"])


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
    )
    return _out(service.clients.register(vetting, body.jwks))


@router.get("/clients", summary="All clients but the subjects")
def clients(service: ServiceDep, operator: Operator) -> ClientsOut:
    return ClientsOut(clients=[_out(client) for client in service.clients.all()])


@router.get("/clients/{client_id}", summary="One client")
def client(client_id: str, service: ServiceDep, operator: Operator) -> ClientOut:
    return _out(service.clients.find(client_id))


@router.post("/clients/{client_id}/suspension", summary="End a client's approval at once")
def suspend(client_id: str, service: ServiceDep, operator: Operator) -> ClientOut:
    return _out(service.clients.suspend(client_id))


def _out(client: Client) -> ClientOut:
    return ClientOut(
        client_id=client.client_id,
        kind=client.kind,
        name=client.name,
        org=client.org,
        project=client.project,
        ethics_reference=client.ethics_reference,
        scopes=client.scopes,
        status="approved" if client.status == "approved" else "suspended",
        term_expires_at=moment_or_none(client.term_expires_at),
        budget_s_per_day=client.budget_s_per_day,
        created_at=moment(client.created_at),
        log_index=client.log_index,
    )
