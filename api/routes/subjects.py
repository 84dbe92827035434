"""/v1/subjects: the people who are shown. They enrol, see what is kept, and see every use of their face with proof."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from sqlalchemy import select

from api.deps import ServiceDep, SubjectSelf, limited
from api.schemas import ChallengeOut, Evidence, PortraitOut, ProfileOut, SubjectOut, UseOut, UsesOut, moment
from api.storage.models import Use
from api.uploads import read_form

router = APIRouter(prefix="/v1/subjects", tags=["subjects"])

_PORTRAIT = {"type": "string", "format": "binary", "description": "image file: PNG, JPEG, WebP …"}
_CHALLENGE_BODY = {
    "requestBody": {
        "required": False,
        "content": {"multipart/form-data": {"schema": {"type": "object", "properties": {"portrait": _PORTRAIT}}}},
    }
}
_ENROL_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["portrait", "enrolment", "public_jwk"],
                    "properties": {
                        "portrait": _PORTRAIT,
                        "enrolment": {"type": "string", "description": "signed EnrolmentStatement, a compact JWS"},
                        "public_jwk": {"type": "string", "description": "the public key that signed, a JWK as JSON"},
                    },
                }
            }
        },
    }
}


@router.post("/challenges", status_code=201, summary="Ask for an enrolment challenge", openapi_extra=_CHALLENGE_BODY)
async def challenge(request: Request, service: ServiceDep) -> ChallengeOut:
    """Usable once, for a few minutes. Send the portrait along to learn the hash that the statement must name it by."""
    limited(request, "enrolments")
    portrait = None
    if request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        limits = service.settings
        form = await read_form(
            request, file_limits={"portrait": limits.max_portrait_bytes}, texts=(), max_text_bytes=limits.max_json_bytes
        )
        portrait = form.file("portrait")
    issued = await run_in_threadpool(service.enrolment.challenge, portrait)
    return ChallengeOut(
        nonce=issued.nonce,
        subject_id=issued.subject_id,
        portrait_sha256=issued.portrait_sha256,
        expires_at=moment(issued.expires_at),
    )


@router.post("", status_code=201, summary="Enrol as a subject", openapi_extra=_ENROL_BODY)
async def enrol(request: Request, service: ServiceDep) -> SubjectOut:
    limited(request, "enrolments")
    limits = service.settings
    form = await read_form(
        request,
        file_limits={"portrait": limits.max_portrait_bytes},
        texts=("enrolment", "public_jwk"),
        max_text_bytes=limits.max_json_bytes,
    )
    portrait, enrolment, public_jwk = form.file("portrait"), form.text("enrolment"), form.text("public_jwk")
    subject = await run_in_threadpool(service.enrolment.enrol, portrait, enrolment, public_jwk)
    return SubjectOut(
        subject_id=subject.subject_id,
        portrait_sha256=subject.portrait_sha256,
        summary=subject.summary,
        log_index=subject.log_index,
    )


@router.get("/me", summary="What is kept about me")
def me(service: ServiceDep, actor: SubjectSelf) -> ProfileOut:
    subject, portraits = service.enrolment.find(actor.client_id)
    return ProfileOut(
        subject_id=subject.subject_id,
        subject_class=subject.subject_class,
        epoch=subject.epoch,
        portraits=[
            PortraitOut(portrait_sha256=each.sha256, summary=each.summary, enrolled_at=moment(each.created_at))
            for each in portraits
        ],
        enrolled_at=moment(subject.created_at),
        log_index=subject.log_index,
    )


@router.get("/me/uses", summary="Every use of my face, with its inclusion proof")
def uses(service: ServiceDep, actor: SubjectSelf) -> UsesOut:
    with service.database.read() as session:
        found = session.scalars(select(Use).where(Use.subject_id == actor.client_id).order_by(Use.log_index)).all()
    return UsesOut(
        uses=[
            UseOut(
                kind=use.kind,
                org=use.org,
                purpose=use.purpose,
                render_id=use.render_id,
                consent_id=use.consent_id,
                at=moment(use.created_at),
                log_index=use.log_index,
                evidence=Evidence(**service.log.evidence(use.log_index).to_json()),
            )
            for use in found
        ]
    )
