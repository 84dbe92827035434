"""/v1/renders: ask for a video, follow it, fetch it. Everything here passes the gate; there is no other way in."""

from __future__ import annotations

import base64
import json
from typing import Any, cast

from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool

from api.deps import RenderCreator, RenderReader, ServiceDep
from api.engine.delivery import ConsentedVideo
from api.engine.driving import Driving
from api.engine.renders import Submission
from api.errors import InvalidFieldError, MissingFieldError
from api.faces import NOBODY_ELSE, Bystanders
from api.schemas import Evidence, Reason, RenderOut, RenderStatus, moment, moment_or_none
from api.storage.models import Render
from api.uploads import Form, read_form
from policy.canonical import sha256_hex
from policy.identity import Actor

router = APIRouter(prefix="/v1/renders", tags=["renders"])

MAX_PURPOSE_CHARS = 200
"""A purpose goes into the log as it is, so it is nothing that a stranger could write letters with."""

_TEXTS = ("subject_id", "portrait_sha256", "purpose", "controls", "text", "language", "voice", "driver_id")
_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["subject_id", "purpose"],
                    "properties": {
                        "subject_id": {"type": "string", "description": "whom the video will show"},
                        "speech": {
                            "type": "string",
                            "format": "binary",
                            "description": "sound, up to ten minutes; or text, or a driving clip with sound",
                        },
                        "text": {
                            "type": "string",
                            "description": "instead of speech: what a synthetic voice says, declared as such in the "
                            "manifest; the consent must allow the control voice",
                        },
                        "language": {"type": "string", "description": "of the text, a tag such as en or de"},
                        "voice": {"type": "string", "description": "which of the engine's voices, such as f3"},
                        "driving": {
                            "type": "string",
                            "format": "binary",
                            "description": "video of one face whose expression and pose the portrait follows; the "
                            "consents must allow the controls driving (person shown) and driver (person in the clip)",
                        },
                        "driver_id": {"type": "string", "description": "subject id of whoever moves in that video"},
                        "portrait": {"type": "string", "format": "binary", "description": "image file"},
                        "portrait_sha256": {
                            "type": "string",
                            "description": "instead of a file: an enrolled portrait",
                        },
                        "purpose": {"type": "string", "description": "purpose IRI that the consent must cover"},
                        "controls": {"type": "string", "description": "motion controls, a JSON object"},
                    },
                }
            }
        },
    }
}


@router.post(
    "",
    status_code=202,
    summary="Ask for a video; 403 with every reason if the gate refuses",
    openapi_extra=_BODY,
)
async def create(request: Request, response: Response, service: ServiceDep, actor: RenderCreator) -> RenderOut:
    limits = service.settings
    form = await read_form(
        request,
        file_limits={
            "speech": limits.max_speech_bytes,
            "portrait": limits.max_portrait_bytes,
            "driving": limits.max_driving_bytes,
        },
        texts=_TEXTS,
        max_text_bytes=limits.max_json_bytes,
    )
    render = await run_in_threadpool(_submit, service, actor, form)
    response.headers["Location"] = f"/v1/renders/{render.render_id}"
    return render


def _submit(service: ServiceDep, actor: Actor, form: Form) -> RenderOut:
    """Take in (decode in a limited process, normalise, hash), then hand over to the gate."""
    subject_id, purpose = form.text("subject_id"), form.text("purpose")
    if len(purpose) > MAX_PURPOSE_CHARS or not purpose.isascii() or not purpose.isprintable():
        raise InvalidFieldError(f"purpose must be an IRI of at most {MAX_PURPOSE_CHARS} ASCII characters.")
    controls = _controls(form.texts.get("controls", ""))
    if ("portrait" in form.files) == ("portrait_sha256" in form.texts):
        raise (
            MissingFieldError("portrait” or “portrait_sha256")
            if "portrait" not in form.files
            else InvalidFieldError("Send either the portrait or its portrait_sha256, not both.")
        )
    portrait, template, bystanders = form.files.get("portrait"), None, NOBODY_ELSE
    if portrait is None:
        portrait_sha256 = form.text("portrait_sha256")
        if len(portrait_sha256) != 64 or not set(portrait_sha256) <= set("0123456789abcdef"):
            raise InvalidFieldError("portrait_sha256 must be 64 lower-case hex digits.")
        # Whoever else an enrolled picture shows is not kept; they are looked at again.
        portrait = service.enrolment.open_group_picture(subject_id, portrait_sha256, "face" in controls)
    if portrait is not None:
        portrait, seen = service.intake.portrait(portrait, controls.get("face"))
        portrait_sha256, template = str(seen["sha256"]), base64.b64decode(seen["template"])
        bystanders = Bystanders.of(seen)
    driving, own_sound = _driving(service, form, controls)
    speech, speech_s = _speech(service, form, controls, own_sound)
    if controls:
        service.intake.controls(controls)
    submission = Submission(
        subject_id=subject_id,
        portrait=portrait,
        portrait_sha256=portrait_sha256,
        speech=speech,
        speech_s=speech_s,
        purpose=purpose,
        controls=controls,
        template=template,
        bystanders=bystanders,
        driving=driving,
    )
    render_id = service.renders.submit(actor, submission)
    return _out(service, service.renders.find(render_id, actor.client_id))


def _driving(service: ServiceDep, form: Form, controls: dict[str, Any]) -> tuple[Driving | None, bytes | None]:
    """The driving clip, taken in, and its own sound where there is no other speech; puts its control in place."""
    if "driving" not in form.files:
        if "driving" in controls or form.texts.get("driver_id"):
            raise InvalidFieldError(
                "driver_id and the control driving go with a driving clip: send the file “driving”."
            )
        return None, None
    has_speech = "speech" in form.files or bool(form.texts.get("text", "").strip())
    controls.setdefault("driving", {"lips": "speech" if has_speech else "clip"})
    movement, sound, seen = service.intake.driving(form.files["driving"], with_sound=not has_speech)
    return Driving.of(form.text("driver_id"), movement, seen), sound


def _speech(service: ServiceDep, form: Form, controls: dict[str, Any], own_sound: bytes | None) -> tuple[bytes, float]:
    """What is said, and for how long: a recording, a text, or the sound of the driving clip."""
    if "voice" in controls:
        raise InvalidFieldError("The control voice is set here, for speech that is made from text: send text instead.")
    text = form.texts.get("text", "")
    if not text.strip():
        if form.texts.get("language") or form.texts.get("voice"):
            raise InvalidFieldError("language and voice say how a text is spoken: send text, or leave them out.")
        return service.intake.speech(form.file("speech") if own_sound is None else own_sound)
    if "speech" in form.files:
        raise InvalidFieldError("Send either speech or text, not both.")
    language, voice = form.texts.get("language", "").strip() or "en", form.texts.get("voice", "").strip()
    wav, duration_s, stated = service.intake.spoken(text, language, voice)
    controls["voice"] = stated
    service.gate.record(
        "speech.synthesised",
        {
            "text": service.gate.pseudonym("text", stated["text_sha256"]),
            "speech": service.gate.pseudonym("speech", sha256_hex(wav)),
            "engine": stated["engine"],
            "language": stated["language"],
            "voice": stated["voice"],
        },
    )
    return wav, duration_s


@router.get("/{render_id}", summary="Status, progress, watermark id, manifest id and log evidence")
def read(render_id: str, service: ServiceDep, actor: RenderReader) -> RenderOut:
    return _out(service, service.renders.find(render_id, actor.client_id))


@router.get(
    "/{render_id}/video",
    summary="The video; 403 once the consent is revoked, and the connection ends if that happens on the way",
    status_code=200,
    response_class=Response,
    responses={
        200: {"description": "The whole file", "content": {"video/mp4": {}}},
        206: {"description": "The range that was asked for", "content": {"video/mp4": {}}},
    },
)
def video(render_id: str, request: Request, service: ServiceDep, actor: RenderReader) -> Response:
    render = service.renders.released(render_id, actor.client_id)
    assert render.video_sha256 is not None
    if_range = request.headers.get("if-range")
    byte_range = request.headers.get("range") if if_range in (None, f'"{render.video_sha256}"') else None
    return ConsentedVideo(service, render, render.video_sha256, byte_range)


@router.get("/{render_id}/manifest", summary="The C2PA manifest store", response_class=Response)
def manifest(render_id: str, service: ServiceDep, actor: RenderReader) -> Response:
    render = service.renders.released(render_id, actor.client_id)
    assert render.manifest_sha256 is not None
    return Response(service.blobs.get(render.manifest_sha256), media_type="application/c2pa")


def _controls(text: str) -> dict[str, Any]:
    if not text.strip():
        return {}
    try:
        controls = json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise InvalidFieldError('controls must be a JSON object, for example {"seed": 1}.') from exc
    if not isinstance(controls, dict):
        raise InvalidFieldError('controls must be a JSON object, for example {"seed": 1}.')
    return controls


def _out(service: ServiceDep, render: Render) -> RenderOut:
    delivered = render.status == "delivered"
    has_video = delivered and render.video_sha256 is not None
    proven = render.delivery_index if render.delivery_index is not None else render.decision_index
    progress = 1.0 if delivered else service.renders.progress(render.render_id) or 0.0
    return RenderOut(
        render_id=render.render_id,
        status=cast(RenderStatus, render.status),
        progress=progress,
        subject_id=render.subject_id,
        purpose=render.purpose,
        portrait_sha256=render.portrait_sha256,
        speech_sha256=render.speech_sha256,
        speech_s=render.speech_s,
        controls=render.controls,
        consent_id=render.consent_id,
        mark_id=render.mark_id,
        manifest_id=render.manifest_id,
        video_sha256=render.video_sha256,
        duration_s=render.duration_s,
        num_frames=render.num_frames,
        video_url=f"/v1/renders/{render.render_id}/video" if has_video else None,
        manifest_url=f"/v1/renders/{render.render_id}/manifest" if has_video else None,
        decision_index=render.decision_index,
        delivery_index=render.delivery_index,
        closing_index=render.closing_index,
        failure=None
        if render.failure_code is None
        else Reason(code=render.failure_code, sentence=render.failure_detail or ""),
        evidence=Evidence(**service.witnessing.evidence(proven).to_json()),
        created_at=moment(render.created_at),
        finished_at=moment_or_none(render.finished_at),
    )
