"""/check: what can be said about a file, for anybody. Works without an account, and without JavaScript.

Without an account, or as a depicted person, the answer comes in bands (the public tier); staff who are signed in see
scores and the heatmap. The page holds no medium: the report lives in memory for some minutes, for this browser only.
"""

from __future__ import annotations

import hashlib
import json

from fastapi import APIRouter, Depends, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

from api.console.check_view import shown
from api.console.pages import render, wants_page
from api.console.session import SignInNeededError, at_named_origin, check_csrf, session_of, visit_of
from api.deps import ServiceDep, caller_of, limited
from api.detections.desk import OVERLAY_TYPES, Caller, Detection
from api.engine.examiner import ExamineJob
from api.errors import NotFoundError
from api.limits import network_of
from api.routes.detections import ROOM_PATIENCE_S, UNKNOWN, DetectionId
from api.service import Service
from api.uploads import read_form

router = APIRouter(prefix="/check", include_in_schema=False, dependencies=[Depends(at_named_origin)])

_VETTED = frozenset({"operator", "auditor", "researcher", "platform"})


def caller_behind(request: Request, service: Service) -> Caller:
    """Who asks with this browser. Raises: SignInNeededError: nobody is signed in, and this instance wants that."""
    session = session_of(request)
    if session is not None and session.kind in _VETTED:
        return Caller(session.account_id, "vetted")
    if not service.settings.public_detection:
        raise SignInNeededError("Sign in first.")
    visit = hashlib.sha256(b"placet check\0" + visit_of(request).encode()).hexdigest()
    return Caller(f"visit:{visit[:32]}", "public", f"network:{network_of(caller_of(request))}")


@router.get("", response_class=HTMLResponse)
def page(request: Request, service: ServiceDep) -> HTMLResponse:
    caller = caller_behind(request, service)
    return render(
        request, "check/ask.html", tier=caller.tier, max_mib=service.settings.max_detection_bytes // (1024 * 1024)
    )


@router.post("")
async def ask(request: Request, service: ServiceDep) -> Response:
    """Take a file in. The form's token comes in a header (our script) or in the form itself (no script)."""
    caller = caller_behind(request, service)
    from_script = request.headers.get("x-csrf-token", "")
    if from_script:
        check_csrf(request, from_script)
    limited(request, "public detections" if caller.tier == "public" else "detections")
    limit, room = service.settings.max_detection_bytes, service.detections.room
    declared = request.headers.get("content-length", "")
    expected = room.share_of(min(int(declared), limit) if declared.isdigit() else limit)
    await room.take(expected, ROOM_PATIENCE_S)
    try:
        form = await read_form(request, file_limits={"media": limit}, texts=("csrf",), max_text_bytes=1024)
        if not from_script:
            check_csrf(request, form.texts.get("csrf", ""))
        data = form.file("media")
    except BaseException:
        room.give_back(expected)
        raise
    room.give_back(expected - room.share_of(len(data)))
    overlay = "png" if caller.tier == "vetted" else ""
    detection = await run_in_threadpool(service.detections.submit, caller, data, ExamineJob(UNKNOWN, overlay))
    path = f"/check/{detection.detection_id}"
    return RedirectResponse(path, 303) if wants_page(request) else JSONResponse({"next": path})


@router.get("/{detection_id}", response_class=HTMLResponse)
def result(detection_id: DetectionId, request: Request, service: ServiceDep) -> HTMLResponse:
    detection = service.detections.find(caller_behind(request, service), detection_id)
    if detection.error is not None:
        raise detection.error
    if detection.report is None:
        return render(request, "check/waiting.html", detection=detection, steps=_steps(detection))
    text = json.dumps(detection.report, indent=1, ensure_ascii=False)
    return render(request, "check/report.html", view=shown(detection.report), report_json=text, detection=detection)


@router.get("/{detection_id}/state")
def state(detection_id: DetectionId, request: Request, service: ServiceDep) -> JSONResponse:
    """How far it is, for the script of the waiting page."""
    detection = service.detections.find(caller_behind(request, service), detection_id)
    return JSONResponse({"is_over": detection.is_over, "steps": _steps(detection)})


@router.get("/{detection_id}/heatmap.png")
def heatmap(detection_id: DetectionId, request: Request, service: ServiceDep) -> Response:
    caller = caller_behind(request, service)
    if caller.tier == "public":
        raise NotFoundError("Heatmaps are for vetted platforms.")
    return Response(service.detections.picture(caller, detection_id, "png"), media_type=OVERLAY_TYPES["png"])


def _steps(detection: Detection) -> list[dict[str, str]]:
    """The layers in their order, each done, running or waiting."""
    steps, is_next = [], True
    for name in ("opened", "c2pa", "watermark", "detector"):
        is_done = detection.is_over or name in detection.stages
        state = "done" if is_done else "running" if is_next and detection.status == "running" else "waiting"
        is_next = is_next and is_done
        steps.append({"name": name, "state": state})
    return steps
