"""/v1/subjects: the people who are shown. They enrol, see what is kept, and see every use of their face with proof."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool

from api.deps import ServiceDep, limited
from api.enrolment import EnrolledSubject, parse_jwk
from api.errors import MissingFieldError
from api.schemas import ChallengeOut, SubjectOut, moment
from api.statements import signed_of_form, strict_json
from api.uploads import Form, read_form

router = APIRouter(prefix="/v1/subjects", tags=["subjects"])

_PORTRAIT = {"type": "string", "format": "binary", "description": "image file: PNG, JPEG, WebP …"}
_FACE = {
    "type": "string",
    "description": 'where the picture shows several people: "largest", or a number counted from the left, from 0',
}
_CHALLENGE_BODY = {
    "requestBody": {
        "required": False,
        "content": {
            "multipart/form-data": {"schema": {"type": "object", "properties": {"portrait": _PORTRAIT, "face": _FACE}}}
        },
    }
}
_ENROL_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["portrait", "enrolment"],
                    "properties": {
                        "portrait": _PORTRAIT,
                        "face": _FACE,
                        "enrolment": {
                            "type": "string",
                            "description": "signed EnrolmentStatement: compact JWS, or JSON {statement, assertion}",
                        },
                        "public_jwk": {"type": "string", "description": "with a JWS: the key that signed, as JSON"},
                        "registration": {
                            "type": "string",
                            "description": "with an assertion: the new passkey, the answer of "
                            "navigator.credentials.create as JSON",
                        },
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
    portrait, face = None, None
    if request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        limits = service.settings
        form = await read_form(
            request,
            file_limits={"portrait": limits.max_portrait_bytes},
            texts=("face",),
            max_text_bytes=limits.max_json_bytes,
        )
        portrait, face = form.file("portrait"), face_of_form(form)
    issued = await run_in_threadpool(service.enrolment.challenge, portrait, face)
    return ChallengeOut(
        nonce=issued.nonce,
        subject_id=issued.subject_id,
        portrait_sha256=issued.portrait_sha256,
        passkey_options=issued.passkey_options,
        expires_at=moment(issued.expires_at),
    )


@router.post("", status_code=201, summary="Enrol as a subject", openapi_extra=_ENROL_BODY)
async def enrol(request: Request, service: ServiceDep) -> SubjectOut:
    limited(request, "enrolments")
    limits = service.settings
    form = await read_form(
        request,
        file_limits={"portrait": limits.max_portrait_bytes},
        texts=("enrolment", "public_jwk", "registration", "face"),
        max_text_bytes=limits.max_json_bytes,
    )
    subject = await run_in_threadpool(_enrol, service, form)
    return SubjectOut(
        subject_id=subject.subject_id,
        portrait_sha256=subject.portrait_sha256,
        summary=subject.summary,
        log_index=subject.log_index,
    )


def _enrol(service: ServiceDep, form: Form) -> EnrolledSubject:
    jwk, registration = form.texts.get("public_jwk"), form.texts.get("registration")
    if jwk is None and registration is None:
        raise MissingFieldError("public_jwk” or “registration")
    return service.enrolment.enrol(
        form.file("portrait"),
        signed_of_form(form.text("enrolment")),
        jwk=None if jwk is None else parse_jwk(jwk),
        registration=None if registration is None else strict_json(registration),
        face=face_of_form(form),
    )


def face_of_form(form: Form) -> int | str | None:
    """The field “face”: a number or a word; whether there is such a face, the picture says."""
    said = form.texts.get("face", "").strip()
    return int(said) if said.isascii() and said.isdigit() and len(said) < 6 else said or None
