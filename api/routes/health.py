"""/healthz, /readyz and /metrics: for whoever keeps the service running. No personal data, no token needed."""

from __future__ import annotations

from fastapi import APIRouter, Response
from fastapi.responses import PlainTextResponse

from api.deps import ServiceDep
from api.schemas import HealthOut
from policy.errors import PolicyError

router = APIRouter(tags=["health"])


@router.get("/healthz", summary="Is the process alive?")
def healthz() -> HealthOut:
    return HealthOut(status="ok")


@router.get("/readyz", summary="Can it decide, log and render? 503 where it cannot.")
def readyz(service: ServiceDep, response: Response) -> HealthOut:
    try:
        log_size = service.log.size
    except PolicyError:
        response.status_code = 503
        return HealthOut(status="failing", worker=service.worker.process.is_ready)
    if service.settings.prewarm and not service.worker.process.is_ready:
        response.status_code = 503
        return HealthOut(status="starting", log_size=log_size, worker=False)
    return HealthOut(status="ok", log_size=log_size, worker=service.worker.process.is_ready)


@router.get("/metrics", summary="Prometheus text", response_class=PlainTextResponse)
def metrics(service: ServiceDep) -> PlainTextResponse:
    gauges = {
        "placet_log_size": service.log.size,
        "placet_render_queue": service.renders.num_waiting,
        "placet_worker_up": float(service.worker.process.is_running),
        "placet_worker_starts": service.worker.process.num_starts,
    }
    return PlainTextResponse(service.metrics.text(gauges), media_type="text/plain; version=0.0.4")
