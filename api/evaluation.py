"""Renders for measuring the system, by the operator, through the same gate as everyone's.

Action `evaluate`, purpose evaluation or training, and the operator's word on what the portrait is (synthetic or
artwork), which the log keeps. Outputs are marked, signed and registered like any other.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from api.client import Credentials
from api.engine.renders import RenderJob, Submission
from api.errors import RemoteError
from api.faces import Bystanders
from api.service import Service
from api.settings import Settings
from api.storage.models import Render
from policy.consent import PURPOSE_EVALUATION
from policy.decision import ACTION_EVALUATE
from policy.identity import SCOPE_OPERATOR_ADMIN, Actor


@dataclass(frozen=True)
class Evaluation:
    """One evaluated render: the file, and its row."""

    file: Path
    render: Render

    @property
    def render_s(self) -> float:
        """Wall-clock time from start to delivery."""
        return (self.render.finished_at or 0.0) - (self.render.started_at or 0.0)

    def to_json(self) -> dict[str, Any]:
        """For the command line."""
        return {
            "file": str(self.file),
            "render_id": self.render.render_id,
            "mark_id": self.render.mark_id,
            "duration_s": self.render.duration_s,
            "num_frames": self.render.num_frames,
            "render_s": round(self.render_s, 3),
            "frames_per_s": round((self.render.num_frames or 0) / self.render_s, 2) if self.render_s else None,
            "decision_index": self.render.decision_index,
            "delivery_index": self.render.delivery_index,
        }


@contextmanager
def laboratory(settings: Settings) -> Iterator[Service]:
    """The instance's service without its server: own worker, own staging, the same gate, log and registry."""
    service = Service(Settings(**{**settings.model_dump(), "worker_name": f"lab-{os.getpid()}"}))
    service.settings.staging_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        yield service
    finally:
        service.close()


def evaluate_render(
    service: Service,
    *,
    portrait: bytes,
    speech: bytes,
    attested_class: str,
    out: Path,
    purpose: str = PURPOSE_EVALUATION,
    controls: dict[str, Any] | None = None,
) -> Evaluation:
    """Render once as the local operator.

    Args:
        attested_class: synthetic or artwork.
        out: where to put a copy of the video.
        purpose: evaluation or training; the log keeps it.
    Raises: RefusedError with every reason; RemoteError if an input cannot be used or the render fails.
    """
    job, client_id = permitted(
        service, portrait=portrait, speech=speech, attested_class=attested_class, purpose=purpose, controls=controls
    )
    service.renders.run(job)
    render = service.renders.find(job.render_id, client_id)
    if render.status != "delivered" or render.video_sha256 is None:
        raise RemoteError(render.failure_code or "engine.failed", render.failure_detail or "The render failed.")
    out.write_bytes(service.blobs.get(render.video_sha256))
    return Evaluation(out, render)


def permitted(
    service: Service,
    *,
    portrait: bytes,
    speech: bytes,
    attested_class: str,
    purpose: str = PURPOSE_EVALUATION,
    controls: dict[str, Any] | None = None,
) -> tuple[RenderJob, str]:
    """Take inputs in and have the gate decide on them, as the local operator; what is allowed is on record.

    Returns: the job, to be run, and whose it is.
    Raises: RefusedError with every reason; RemoteError if an input cannot be used.
    """
    operator = Credentials.load(service.settings.operator_key_path)
    org = service.clients.find(operator.client_id).org
    actor = Actor(operator.client_id, org, frozenset({SCOPE_OPERATOR_ADMIN}), frozenset({"operator"}))
    png, seen = service.intake.portrait(portrait, (controls or {}).get("face"))
    wav, speech_s = service.intake.speech(speech)
    if controls:
        service.intake.controls(controls)
    job = service.renders.decide(
        actor,
        Submission(
            subject_id=service.enrolment.subject_of(str(seen["sha256"])),
            portrait=png,
            portrait_sha256=str(seen["sha256"]),
            speech=wav,
            speech_s=speech_s,
            purpose=purpose,
            controls=controls or {},
            action=ACTION_EVALUATE,
            attested_class=attested_class,
            template=base64.b64decode(seen["template"]),
            bystanders=Bystanders.of(seen),
        ),
    )
    return job, actor.client_id
