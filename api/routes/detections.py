"""/v1/detections: what can be said about an image or clip, in layers. Usable without any access to generation."""

from __future__ import annotations

import hashlib
import hmac
from typing import Any

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool

from api.deps import DetectCreator, ServiceDep
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
)

_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            **{kind: {"schema": {"type": "string", "format": "binary"}} for kind in MEDIA_TYPES},
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["media"],
                    "properties": {"media": {"type": "string", "format": "binary", "description": "image or clip"}},
                }
            },
        },
    }
}


@router.post("", summary="Examine an image or clip; nothing of it is kept", openapi_extra=_BODY)
async def detect(request: Request, service: ServiceDep, actor: DetectCreator) -> dict[str, Any]:
    limit = service.settings.max_detection_bytes
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        form = await read_form(
            request, file_limits={"media": limit}, texts=(), max_text_bytes=service.settings.max_json_bytes
        )
        data = form.file("media")
        mime = sniff(data)
    elif kind in MEDIA_TYPES or kind == "application/octet-stream":
        data = await read_body(request, limit)
        mime = kind if kind in MEDIA_TYPES else sniff(data)
    else:
        raise ContentTypeError(f"multipart/form-data or one of {', '.join(MEDIA_TYPES)}")
    return await run_in_threadpool(_examine, service, actor.client_id, data, mime)


def _examine(service: ServiceDep, client_id: str, data: bytes, mime: str) -> dict[str, Any]:
    """Examine, then log who asked and what came out; of the content only a keyed hash, useless without our key."""
    content = hmac.new(service.keys.commitment_key, b"detection\0" + hashlib.sha256(data).digest(), hashlib.sha256)
    entry = {
        "client": service.gate.pseudonym("client", client_id),
        "content_hmac": content.hexdigest(),
        "num_bytes": len(data),
    }
    try:
        report = service.examiner.examine(data, mime)
    except Exception as error:
        service.gate.record("detection.failed", {**entry, "code": str(getattr(error, "code", "internal"))})
        raise
    verdict = str(report["verdict"])
    evidence = service.gate.record("detection", {**entry, "verdict": verdict})
    service.metrics.count("placet_detections_total", verdict=verdict)
    return {**report, "log_index": evidence.index}


def sniff(data: bytes) -> str:
    """The media type that the first bytes announce; what is unknown is left to the decoder to refuse."""
    match data[:4], data[4:8], data[8:12]:
        case b"\x89PNG", _, _:
            return "image/png"
        case b"RIFF", _, b"WEBP":
            return "image/webp"
        case b"\x1aE\xdf\xa3", _, _:
            return "video/webm"
        case _, b"ftyp", b"qt  ":
            return "video/quicktime"
        case _, b"ftyp", _:
            return "video/mp4"
    return "image/jpeg" if data[:3] == b"\xff\xd8\xff" else "application/octet-stream"
