"""/v1/detections: what can be said about an image, clip or sound, in layers; usable without access to generation."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path as Folder
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Path, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse, PlainTextResponse
from pydantic import Field, ValidationError

import detector
from api.deps import DetectCreator, ServiceDep, limited
from api.detections.desk import OVERLAY_TYPES, STAGES, Caller, Detection
from api.detections.resumable import MAX_OPEN, PIECES_TYPE, TUS_EXTENSIONS, TUS_VERSION, Upload
from api.engine.examiner import ExamineJob
from api.errors import ContentTypeError, InvalidFieldError, NotFoundError, RequestError
from api.schemas import Moment, RequestModel, ResponseModel, moment
from api.service import Service
from api.uploads import counted, read_body, read_form
from policy.identity import Actor

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
MODEL_CARD = Folder(detector.__file__).parent / "weights" / "detector.md"  # found without loading the detector
ROOM_PATIENCE_S = 120.0
RETRY_AFTER_S = 1


class FinishedUpload(RequestModel):
    """Instead of a file: one that was uploaded in pieces."""

    upload: str = Field(pattern=r"^upl_[0-9a-f]{24}$", description="Name of a complete upload.")


class DetectionState(ResponseModel):
    """A detection and what has become of it."""

    id: str
    status: Literal["queued", "running", "done", "failed"]
    progress: float = Field(ge=0, le=1)
    layers_done: list[str] = Field(description=f"Stages that are behind it, of {', '.join(STAGES)}.")
    created_at: Moment
    report: dict[str, Any] | None = Field(None, description="The layered report, when done.")
    problem: dict[str, str] | None = Field(None, description="Code and detail, when failed.")


class WebhookIn(RequestModel):
    """Where to tell that a detection is done."""

    url: str = Field(max_length=400, examples=["https://platform.example/placet"])


class WebhookOut(ResponseModel):
    """What is registered."""

    url: str
    registered_at: Moment
    keys: str = Field(description="Where the keys are that the messages are signed with.")


class UploadState(ResponseModel):
    """An upload in pieces."""

    upload: str
    offset: int
    length: int


class DetectionLimits(ResponseModel):
    """What this service takes, keeps and says."""

    max_bytes: int
    max_examined_s: float = Field(description="Of longer clips the beginning is examined.")
    detector_window_s: float
    synchronous_up_to_s: float
    detections_per_minute: int
    detections_per_day: int
    near_duplicates_per_hour: int
    kept_s: float = Field(description="How long a report can be fetched, from memory.")
    media_types: list[str]
    open_uploads: int
    public_tier: bool
    model_card: str
    honest_limits: list[str]


_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            **{kind: {"schema": {"type": "string", "format": "binary"}} for kind in (*MEDIA_TYPES, UNKNOWN)},
            "application/json": {"schema": FinishedUpload.model_json_schema()},
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
_PIECE: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {kind: {"schema": {"type": "string", "format": "binary"}} for kind in (PIECES_TYPE, UNKNOWN)},
    }
}

DetectionId = Annotated[str, Path(pattern=r"^det_[0-9a-f]{16,24}$")]
UploadId = Annotated[str, Path(pattern=r"^upl_[0-9a-f]{24}$")]
_TUS = {"Tus-Resumable": TUS_VERSION}


def caller_for(actor: Actor) -> Caller:
    """A client that was let in: the vetted tier."""
    return Caller(actor.client_id, "vetted")


@router.post(
    "",
    summary="Examine an image, clip or sound; nothing of it is kept",
    openapi_extra=_BODY,
    responses={202: {"model": DetectionState, "description": "It takes longer: poll the address in Location."}},
)
async def detect(
    request: Request,
    service: ServiceDep,
    actor: DetectCreator,
    overlay: Annotated[
        Literal["", "png", "mp4"], Query(description="draw where and when the evidence lies; see heatmap_url")
    ] = "",
    thorough: Annotated[bool, Query(description="ask the detector also where mark or manifest decide")] = False,
    webhook: Annotated[bool, Query(description="answer 202, and tell the registered webhook when done")] = False,
    prefer: Annotated[str, Header(description="`respond-async` (RFC 7240): do not wait")] = "",
    idempotency_key: Annotated[
        str, Header(max_length=200, description="a repeated request gets the same detection")
    ] = "",
) -> Response:
    limited(request, "detections", actor.client_id)
    caller = caller_for(actor)
    if webhook and service.webhooks.find(actor.client_id) is None:
        raise InvalidFieldError("No webhook is registered: PUT one to /v1/detections/webhook first.")
    data, mime = await read_medium(request, service, caller)
    detection = await run_in_threadpool(
        service.detections.submit,
        caller,
        data,
        ExamineJob(mime, overlay, thorough),
        idempotency_key=idempotency_key,
        wants_webhook=webhook,
    )
    if "respond-async" not in prefer and not webhook:
        await detection.wait(service.settings.detection_wait_s)
    return await answer(detection)


async def answer(detection: Detection) -> Response:
    """The report, if it is there; where to find it, if not. Raises what the examination ended with."""
    if detection.error is not None:
        raise detection.error
    if detection.report is not None:
        return JSONResponse(detection.report)
    headers = {
        "Location": f"/v1/detections/{detection.detection_id}",
        "Retry-After": str(RETRY_AFTER_S),
        "Preference-Applied": "respond-async",
    }
    return JSONResponse(state_of(detection).model_dump(mode="json"), 202, headers)


async def read_medium(request: Request, service: Service, caller: Caller) -> tuple[bytes, str]:
    """The file that a request brings, and its media type. Room for it is taken, and stays taken.

    Raises: ContentTypeError, BodyTooLargeError, BusyError: there was no room in time.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json":
        try:
            named = FinishedUpload.model_validate_json(await read_body(request, service.settings.max_json_bytes))
        except ValidationError as exc:
            raise RequestError('Send {"upload": "upl_…"} with the name of a complete upload.') from exc
        return service.detections.uploads.take(caller.name, named.upload), UNKNOWN
    if kind != "multipart/form-data" and kind not in MEDIA_TYPES and kind != UNKNOWN:
        raise ContentTypeError(f"multipart/form-data or one of {', '.join(MEDIA_TYPES)}")
    limit, room = service.settings.max_detection_bytes, service.detections.room
    declared = request.headers.get("content-length", "")
    expected = room.share_of(min(int(declared), limit) if declared.isdigit() else limit)
    await room.take(expected, ROOM_PATIENCE_S)
    data = b""
    try:
        if kind == "multipart/form-data":
            form = await read_form(
                request, file_limits={"media": limit}, texts=(), max_text_bytes=service.settings.max_json_bytes
            )
            data, mime = form.file("media"), UNKNOWN
        else:
            data, mime = await read_body(request, limit), kind
    except BaseException:
        room.give_back(expected)
        raise
    room.give_back(expected - room.share_of(len(data)))  # from here on it is counted as what it is
    return data, mime


def state_of(detection: Detection) -> DetectionState:
    """A detection, on the wire."""
    error = detection.error
    return DetectionState(
        id=detection.detection_id,
        status=detection.status,
        progress=round(detection.progress, 2),
        layers_done=list(detection.stages),
        created_at=moment(detection.created_at_s),
        report=detection.report,
        problem=None if error is None else {"code": error.code, "detail": str(error)},
    )


# -- what the detector is and is not


@router.get(
    "/model-card",
    summary="What the detector was made from, and every figure",
    response_class=Response,
    responses={200: {"content": {"text/markdown": {"schema": {"type": "string"}}}}},
)
def model_card() -> PlainTextResponse:
    return PlainTextResponse(MODEL_CARD.read_text(encoding="utf-8"), media_type="text/markdown; charset=utf-8")


@router.get("/limits", summary="What is taken, kept and said; and what is not known")
def limits(service: ServiceDep) -> DetectionLimits:
    settings = service.settings
    return DetectionLimits(
        max_bytes=settings.max_detection_bytes,
        max_examined_s=settings.max_detection_s,
        detector_window_s=10.0,
        synchronous_up_to_s=settings.detection_sync_s,
        detections_per_minute=settings.detections_per_minute,
        detections_per_day=settings.detections_per_day,
        near_duplicates_per_hour=settings.near_duplicates_per_hour,
        kept_s=settings.detection_keep_s,
        media_types=list(MEDIA_TYPES),
        open_uploads=MAX_OPEN,
        public_tier=settings.public_detection,
        model_card=f"{service.issuer}/v1/detections/model-card",
        honest_limits=[
            "A missing manifest or mark is no evidence of authenticity: both can be removed.",
            "No verdict says that something is authentic.",
            "The detector knows this project's generator; other generators may leave nothing that it knows.",
            "It looks at faces in clips: still pictures, sounds and clips without a face get no score.",
            "The verdict rests on the main face; up to three more are scored beside it.",
            "Figures and their intervals stand in /v1/detections/model-card.",
        ],
    )


# -- webhook


@router.get("/webhook", summary="The registered webhook", response_model=WebhookOut)
def webhook_registered(service: ServiceDep, actor: DetectCreator) -> WebhookOut:
    row = service.webhooks.find(actor.client_id)
    if row is None:
        raise NotFoundError("No webhook is registered: PUT one here.")
    return _webhook_out(service, row.url, row.created_at)


@router.put("/webhook", summary="Register where to tell that a detection is done: a public https address")
def register_webhook(service: ServiceDep, actor: DetectCreator, body: WebhookIn) -> WebhookOut:
    row = service.webhooks.enter(actor.client_id, body.url)
    return _webhook_out(service, row.url, row.created_at)


@router.delete("/webhook", summary="Forget the webhook", status_code=204, response_class=Response)
def remove_webhook(service: ServiceDep, actor: DetectCreator) -> Response:
    service.webhooks.leave(actor.client_id)
    return Response(status_code=204)


def _webhook_out(service: Service, url: str, created_at: float) -> WebhookOut:
    return WebhookOut(url=url, registered_at=moment(created_at), keys=f"{service.issuer}/oauth/jwks")


# -- uploads in pieces


@router.post("/uploads", summary="Begin an upload in pieces (tus 1.0.0)", status_code=201)
def begin_upload(
    service: ServiceDep,
    actor: DetectCreator,
    response: Response,
    upload_length: Annotated[int, Header(ge=1, description="bytes of the whole file")],
) -> UploadState:
    upload = service.detections.uploads.create(actor.client_id, upload_length)
    response.headers["Location"] = f"/v1/detections/uploads/{upload.upload_id}"
    response.headers.update(_upload_headers(service, upload))
    return UploadState(upload=upload.upload_id, offset=upload.offset, length=upload.length)


@router.head("/uploads/{upload_id}", summary="How much of an upload is here", response_class=Response)
def ask_upload(upload_id: UploadId, service: ServiceDep, actor: DetectCreator) -> Response:
    upload = service.detections.uploads.find(actor.client_id, upload_id)
    return Response(headers=_upload_headers(service, upload))


@router.patch(
    "/uploads/{upload_id}",
    summary="Add a piece; what arrives of it stays, even if the connection breaks",
    status_code=204,
    response_class=Response,
    openapi_extra=_PIECE,
)
async def add_piece(
    request: Request,
    upload_id: UploadId,
    service: ServiceDep,
    actor: DetectCreator,
    upload_offset: Annotated[int, Header(ge=0, description="where this piece begins")],
) -> Response:
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() not in (PIECES_TYPE, UNKNOWN):
        raise ContentTypeError(f"{PIECES_TYPE} or {UNKNOWN}")
    shelf = service.detections.uploads
    upload, offset = shelf.find(actor.client_id, upload_id), upload_offset
    shelf.append(upload, offset, b"")
    async for piece in counted(request, max(1, upload.length - offset)):
        shelf.append(upload, offset, piece)
        offset += len(piece)
    return Response(status_code=204, headers=_upload_headers(service, upload))


@router.delete("/uploads/{upload_id}", summary="Give an upload up", status_code=204, response_class=Response)
def end_upload(upload_id: UploadId, service: ServiceDep, actor: DetectCreator) -> Response:
    shelf = service.detections.uploads
    shelf.drop(shelf.find(actor.client_id, upload_id))
    return Response(status_code=204, headers=_TUS)


def _upload_headers(service: Service, upload: Upload) -> dict[str, str]:
    left_s = max(0.0, upload.expires_at_s - service.detections.uploads.now())
    expires = datetime.fromtimestamp(service.now() + left_s, UTC).strftime("%a, %d %b %Y %H:%M:%S GMT")
    return {
        **_TUS,
        "Tus-Extension": TUS_EXTENSIONS,
        "Upload-Offset": str(upload.offset),
        "Upload-Length": str(upload.length),
        "Upload-Expires": expires,
    }


# -- one detection


@router.get("/{detection_id}", summary="A detection and, when it is done, its report")
def state(detection_id: DetectionId, service: ServiceDep, actor: DetectCreator, response: Response) -> DetectionState:
    detection = service.detections.find(caller_for(actor), detection_id)
    if not detection.is_over:
        response.headers["Retry-After"] = str(RETRY_AFTER_S)
    return state_of(detection)


@router.delete("/{detection_id}", summary="Forget a report at once", status_code=204, response_class=Response)
def forget(detection_id: DetectionId, service: ServiceDep, actor: DetectCreator) -> Response:
    service.detections.forget(caller_for(actor), detection_id)
    return Response(status_code=204)


@router.get(
    "/{detection_id}/heatmap.{kind}",
    summary="Where and when the evidence lies, drawn over the clip",
    response_class=Response,
    responses={200: {"content": {kind: {} for kind in OVERLAY_TYPES.values()}}},
)
def heatmap(
    detection_id: DetectionId, kind: Literal["png", "mp4"], service: ServiceDep, actor: DetectCreator
) -> Response:
    picture = service.detections.picture(caller_for(actor), detection_id, kind)
    return Response(picture, media_type=OVERLAY_TYPES[kind])
