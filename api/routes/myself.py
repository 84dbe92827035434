"""/v1/subjects/me: what is kept about the subject who asks, every use with its proof, passkeys, export, erasure."""

from __future__ import annotations

from typing import Annotated, Any, Literal, cast

from fastapi import APIRouter, Query, Response
from sqlalchemy import select

from api.deps import ServiceDep, SubjectSelf
from api.errors import InvalidFieldError
from api.export import export_subject
from api.schemas import (
    ErasureOut,
    Evidence,
    PasskeyIn,
    PasskeyOptionsOut,
    PasskeyOut,
    PasskeysOut,
    PortraitOut,
    ProfileOut,
    UseOut,
    UsesOut,
    moment,
    moment_or_none,
)
from api.statements import STATEMENT_BODY, SignedStatement
from api.storage.models import Passkey, Use
from policy.statement import decode_base64url, encode_base64url

router = APIRouter(prefix="/v1/subjects/me", tags=["subjects"])

_PAGE = 500


@router.get("", summary="What is kept about me")
def me(service: ServiceDep, actor: SubjectSelf) -> ProfileOut:
    subject, portraits = service.enrolment.find(actor.client_id)
    return ProfileOut(
        subject_id=subject.subject_id,
        subject_class=subject.subject_class,
        attested_by=cast(Literal["self", "manifest", "declaration"], subject.attested_by),
        pseudonym=service.gate.pseudonym("subject", subject.subject_id),
        epoch=subject.epoch,
        portraits=[
            PortraitOut(portrait_sha256=each.sha256, summary=each.summary, enrolled_at=moment(each.created_at))
            for each in portraits
        ],
        enrolled_at=moment(subject.created_at),
        log_index=subject.log_index,
    )


@router.get("/uses", summary="Every use of my face: by whom, what for, when, with its log entry and inclusion proof")
def uses(
    service: ServiceDep,
    actor: SubjectSelf,
    start: Annotated[int, Query(ge=0, description="Log index to begin with.")] = 0,
    limit: Annotated[int, Query(ge=1, le=_PAGE)] = _PAGE,
) -> UsesOut:
    found = _uses(service, actor.client_id, start, limit + 1)
    return UsesOut(uses=found[:limit], next_start=found[limit].log_index if len(found) > limit else None)


@router.get("/export", summary="Everything that is kept about me, as a zip file", response_class=Response)
def export(service: ServiceDep, actor: SubjectSelf) -> Response:
    found = [use.model_dump(mode="json") for use in _uses(service, actor.client_id, 0, None)]
    headers = {"Content-Disposition": f'attachment; filename="{actor.client_id}.zip"'}
    return Response(export_subject(service, actor.client_id, found), media_type="application/zip", headers=headers)


@router.delete(
    "", summary="Have everything erased (signed ErasureStatement); cannot be undone", openapi_extra=STATEMENT_BODY
)
def erase(signed: SignedStatement, service: ServiceDep, actor: SubjectSelf) -> ErasureOut:
    erased = service.erasure.erase(actor.client_id, signed)
    return ErasureOut(
        subject_id=erased.subject_id,
        erased_at=moment(erased.erased_at),
        num_portraits=erased.num_portraits,
        num_videos=erased.num_videos,
        log_index=erased.log_index,
    )


@router.get("/passkeys", summary="My passkeys")
def passkeys(service: ServiceDep, actor: SubjectSelf) -> PasskeysOut:
    return PasskeysOut(passkeys=[_passkey(each) for each in service.passkeys.of_account(actor.client_id)])


@router.post("/passkeys/challenges", status_code=201, summary="Begin to register another passkey")
def begin_passkey(service: ServiceDep, actor: SubjectSelf) -> PasskeyOptionsOut:
    return PasskeyOptionsOut(options=service.passkeys.begin_registration(actor.client_id, actor.client_id))


@router.post("/passkeys", status_code=201, summary="Register another passkey, which may sign for me from then on")
def add_passkey(body: PasskeyIn, service: ServiceDep, actor: SubjectSelf) -> PasskeyOut:
    added = service.passkeys.finish_registration(actor.client_id, body.registration, label=body.label)
    return _passkey(added)


@router.delete("/passkeys/{credential_id}", status_code=204, summary="Take a passkey off record")
def remove_passkey(credential_id: str, service: ServiceDep, actor: SubjectSelf) -> None:
    try:
        name = decode_base64url(credential_id)
    except ValueError as exc:
        raise InvalidFieldError("A passkey is named by its credential id in base64url.") from exc
    service.passkeys.remove(actor.client_id, name)


def _uses(service: ServiceDep, subject_id: str, start: int, limit: int | None) -> list[UseOut]:
    with service.database.read() as session:
        found = session.scalars(
            select(Use).where(Use.subject_id == subject_id, Use.log_index >= start).order_by(Use.log_index).limit(limit)
        ).all()
    names: dict[str, str] = {}
    return [_use(service, use, names) for use in found]


def _use(service: ServiceDep, use: Use, names: dict[str, str]) -> UseOut:
    if use.client_id not in names:
        names[use.client_id] = service.clients.display_name(use.client_id)
    entry: dict[str, Any] = dict(service.log.entry(use.log_index))
    return UseOut(
        kind=use.kind,
        org=use.org,
        client_id=use.client_id,
        client_name=names[use.client_id],
        purpose=use.purpose,
        render_id=use.render_id,
        consent_id=use.consent_id,
        at=moment(use.created_at),
        log_index=use.log_index,
        entry=entry,
        evidence=Evidence(**service.log.evidence(use.log_index).to_json()),
    )


def _passkey(passkey: Passkey) -> PasskeyOut:
    return PasskeyOut(
        credential_id=encode_base64url(passkey.credential_id),
        label=passkey.label,
        backed_up=passkey.backed_up,
        created_at=moment(passkey.created_at),
        used_at=moment_or_none(passkey.used_at),
        log_index=passkey.log_index,
    )
