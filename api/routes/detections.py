"""/v1/detections: what can be said about an image, clip or sound, in layers; usable without access to generation."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool

from api.deps import DetectCreator, ServiceDep, limited
from api.engine.examiner import examine_and_log
from api.errors import ContentTypeError
from api.uploads import read_body, read_form

router = APIRouter(prefix="/v1/detections", tags=["detections"])

MEDIA_TYPES = (
    "image/jpeg",
    "image/png",
    "image/webp",
    "video/mp4",
    "video/webm",
    "video/quicktime",
    "video/x-matroska",
    "audio/wav",
    "audio/mpeg",
    "audio/mp4",
    "audio/ogg",
    "audio/flac",
)

UNKNOWN = "application/octet-stream"
"""The first bytes decide."""

_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            **{kind: {"schema": {"type": "string", "format": "binary"}} for kind in MEDIA_TYPES},
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["media"],
                    "properties": {
                        "media": {"type": "string", "format": "binary", "description": "image, clip or sound"}
                    },
                }
            },
        },
    }
}


@router.post("", summary="Examine an image, clip or sound; nothing of it is kept", openapi_extra=_BODY)
async def detect(request: Request, service: ServiceDep, actor: DetectCreator) -> dict[str, Any]:
    limited(request, "detections", actor.client_id)
    limit = service.settings.max_detection_bytes
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        form = await read_form(
            request, file_limits={"media": limit}, texts=(), max_text_bytes=service.settings.max_json_bytes
        )
        data = form.file("media")
        mime = UNKNOWN
    elif kind in MEDIA_TYPES or kind == UNKNOWN:
        data = await read_body(request, limit)
        mime = kind
    else:
        raise ContentTypeError(f"multipart/form-data or one of {', '.join(MEDIA_TYPES)}")
    return await run_in_threadpool(examine_and_log, service, actor.client_id, data, mime)
