"""/healthz, /readyz and /metrics: for whoever keeps the service running. No personal data, no token needed."""

from __future__ import annotations

from fastapi import APIRouter, Response
from fastapi.responses import PlainTextResponse

from api.deps import ServiceDep
from api.errors import StorageError
from api.schemas import HealthOut
from policy.errors import PolicyError

router = APIRouter(tags=["health"])


@router.get("/healthz", summary="Is the process alive?")
def healthz() -> HealthOut:
    return HealthOut(status="ok")


@router.get("/readyz", summary="Can it decide, log, store and render? 503 where it cannot.")
def readyz(service: ServiceDep, response: Response) -> HealthOut:
    witnessing = service.witnessing
    try:
        log_size = service.log.size
        service.check_storage()
        lag = witnessing.lag_entries if witnessing.is_configured else None
    except (PolicyError, StorageError):
        response.status_code = 503
        return HealthOut(status="failing", worker=service.worker.process.is_ready)
    is_ready = service.worker.process.is_ready
    if sum(1 for each in witnessing.states() if not each.problem) < witnessing.required:
        response.status_code = 503
        return HealthOut(status="failing", log_size=log_size, worker=is_ready, witness_lag=lag)
    if service.settings.prewarm and not is_ready:
        response.status_code = 503
        return HealthOut(status="starting", log_size=log_size, worker=False, witness_lag=lag)
    return HealthOut(status="ok", log_size=log_size, worker=is_ready, witness_lag=lag)


@router.get("/metrics", summary="Prometheus text", response_class=PlainTextResponse)
def metrics(service: ServiceDep) -> PlainTextResponse:
    gauges = {
        "placet_log_size": service.log.size,
        "placet_render_queue": service.renders.num_waiting,
        "placet_worker_up": float(service.worker.process.is_running),
        "placet_worker_starts": service.worker.process.num_starts,
    }
    gauges["placet_alarms"] = sum(1 for each in service.audit.alarms() if each.severity == "alarm")
    if service.witnessing.is_configured:
        gauges["placet_witness_lag_entries"] = service.witnessing.lag_entries
        gauges["placet_witness_lag_seconds"] = service.witnessing.lag_s
        gauges["placet_witness_failing"] = sum(1 for each in service.witnessing.states() if each.problem)
    return PlainTextResponse(service.metrics.text(gauges), media_type="text/plain; version=0.0.4")
