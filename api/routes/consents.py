"""/v1/consents: what a subject allows, signed by the subject's own key, and how they take it back."""

from __future__ import annotations

from dataclasses import asdict
from typing import Literal

from fastapi import APIRouter

from api.deps import ServiceDep, SubjectSelf
from api.schemas import (
    ConsentDraftOut,
    ConsentOut,
    ConsentsOut,
    ConsentTermsIn,
    RevocationOut,
    SectionOut,
    ShownTextOut,
    moment,
    moment_or_none,
)
from api.statements import STATEMENT_BODY, SignedStatement
from api.storage.models import Consent
from policy.consent import CURRENT_VERSION, ConsentStatement
from policy.texts import ShownText

router = APIRouter(prefix="/v1/consents", tags=["consents"])


@router.post("", status_code=201, summary="Give a consent (signed ConsentStatement)", openapi_extra=STATEMENT_BODY)
def give(signed: SignedStatement, service: ServiceDep, actor: SubjectSelf) -> ConsentOut:
    return _out(service, service.consents.give(actor.client_id, signed), 0)


@router.post("/drafts", summary="A statement to read and sign, with what it says in plain words; records nothing")
def draft(body: ConsentTermsIn, service: ServiceDep, actor: SubjectSelf) -> ConsentDraftOut:
    subject, portraits = service.enrolment.find(actor.client_id)
    statement = ConsentStatement(
        subject_id=actor.client_id,
        grantee_org=body.grantee_org,
        grantee_client=body.grantee_client,
        purposes=tuple(body.purposes),
        portraits=tuple(body.portraits or (each.sha256 for each in portraits)),
        controls=tuple(body.controls),
        not_before=int(service.now() if body.not_before is None else body.not_before.timestamp()),
        expires_at=int(body.expires_at.timestamp()),
        max_uses=body.max_uses,
        epoch=subject.epoch,
        text_version=CURRENT_VERSION,
        language=body.language,
        supersedes=body.supersedes or "",
    )
    drafted = service.consents.draft(statement)
    return ConsentDraftOut(
        statement=statement.to_json(),
        canonical=drafted.canonical,
        sha256=drafted.sha256,
        text=shown(drafted.text),
        passkey_options=drafted.passkey_options,
    )


@router.get("", summary="All my consents")
def consents(service: ServiceDep, actor: SubjectSelf) -> ConsentsOut:
    found = service.consents.all(actor.client_id)
    return ConsentsOut(consents=[_out(service, consent, num_uses) for consent, num_uses in found])


@router.get("/{consent_id}", summary="One of my consents")
def consent(consent_id: str, service: ServiceDep, actor: SubjectSelf) -> ConsentOut:
    found, num_uses = service.consents.find(actor.client_id, consent_id)
    return _out(service, found, num_uses)


@router.get("/{consent_id}/text", summary="What was shown to me when I signed it")
def text(consent_id: str, service: ServiceDep, actor: SubjectSelf) -> ShownTextOut:
    found, _ = service.consents.find(actor.client_id, consent_id)
    return shown(service.consents.text_of(found))


@router.post(
    "/{consent_id}/revocation",
    status_code=201,
    summary="Take a consent back, or everything (signed RevocationStatement); in force when this is answered",
    openapi_extra=STATEMENT_BODY,
)
def revoke(consent_id: str, signed: SignedStatement, service: ServiceDep, actor: SubjectSelf) -> RevocationOut:
    revocation, epoch = service.consents.revoke(actor.client_id, consent_id, signed)
    return RevocationOut(
        consent_id=consent_id, epoch=epoch, revoked_at=moment(revocation.created_at), log_index=revocation.log_index
    )


def shown(text: ShownText) -> ShownTextOut:
    """A text as it goes over the wire."""
    sections = [SectionOut(key=each.key, heading=each.heading, text=each.text) for each in text.sections]
    return ShownTextOut(**asdict(text.name), title=text.title, lead=text.lead, sections=sections)


def _out(service: ServiceDep, consent: Consent, num_uses: int) -> ConsentOut:
    statement, now = consent.statement, service.now()
    state: Literal["live", "not_yet", "expired", "used_up", "superseded", "revoked"]
    if consent.revoked_at is not None:
        state = "revoked"
    elif consent.superseded_by is not None:
        state = "superseded"
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
        signed=consent.signed,
        sha256=consent.sha256,
        grantee_name=service.clients.display_name(consent.grantee_client),
        superseded_by=consent.superseded_by,
        num_uses=num_uses,
        given_at=moment(consent.created_at),
        revoked_at=moment_or_none(consent.revoked_at),
        log_index=consent.log_index,
    )
