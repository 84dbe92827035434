"""/v1/consents: what a subject allows, signed by the subject's own key, and how they take it back."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter

from api.deps import ServiceDep, SubjectSelf
from api.schemas import ConsentOut, ConsentsOut, RevocationOut, StatementIn, moment, moment_or_none
from api.storage.models import Consent

router = APIRouter(prefix="/v1/consents", tags=["consents"])


@router.post("", status_code=201, summary="Give a consent (signed ConsentStatement)")
def give(body: StatementIn, service: ServiceDep, actor: SubjectSelf) -> ConsentOut:
    return _out(service.consents.give(actor.client_id, body.statement), 0, service.now())


@router.get("", summary="All my consents")
def consents(service: ServiceDep, actor: SubjectSelf) -> ConsentsOut:
    found = service.consents.all(actor.client_id)
    return ConsentsOut(consents=[_out(consent, num_uses, service.now()) for consent, num_uses in found])


@router.get("/{consent_id}", summary="One of my consents")
def consent(consent_id: str, service: ServiceDep, actor: SubjectSelf) -> ConsentOut:
    found, num_uses = service.consents.find(actor.client_id, consent_id)
    return _out(found, num_uses, service.now())


@router.post(
    "/{consent_id}/revocation",
    status_code=201,
    summary="Take a consent back, or everything (signed RevocationStatement); in force when this is answered",
)
def revoke(consent_id: str, body: StatementIn, service: ServiceDep, actor: SubjectSelf) -> RevocationOut:
    revocation, epoch = service.consents.revoke(actor.client_id, consent_id, body.statement)
    return RevocationOut(
        consent_id=consent_id, epoch=epoch, revoked_at=moment(revocation.created_at), log_index=revocation.log_index
    )


def _out(consent: Consent, num_uses: int, now: float) -> ConsentOut:
    statement = consent.statement
    state: Literal["live", "not_yet", "expired", "used_up", "revoked"]
    if consent.revoked_at is not None:
        state = "revoked"
    elif now >= statement["expires_at"]:
        state = "expired"
    elif num_uses >= statement["max_uses"]:
        state = "used_up"
    else:
        state = "not_yet" if now < statement["not_before"] else "live"
    return ConsentOut(
        consent_id=consent.consent_id,
        subject_id=consent.subject_id,
        state=state,
        statement=statement,
        sha256=consent.sha256,
        num_uses=num_uses,
        given_at=moment(consent.created_at),
        revoked_at=moment_or_none(consent.revoked_at),
        log_index=consent.log_index,
    )
