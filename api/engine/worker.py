"""The render worker: a process of its own that turns a permit and its inputs into a marked, signed file.

It is given the *public* permit key, the watermark key and the signing authority, and nothing that could issue a permit.
It checks every permit itself (signature, worker, expiry, single use, re-hashed inputs), so whoever reaches it without
the gateway gets nothing.
"""

from __future__ import annotations

import base64
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from api.engine.child import Handler, Progress, connect, serve
from api.engine.process import EngineProcess
from api.engine.wire import Message
from api.settings import Settings
from policy.instance import Instance
from policy.keys import public_key_bytes

PREPARE = "prepare"
RENDER = "render"


@dataclass(frozen=True)
class Produced:
    """What the worker made.

    Attributes:
        path: the finished file in the staging directory; not yet delivered.
        sha256: of that file.
        manifest_store: its C2PA manifest store.
    """

    path: Path
    sha256: str
    manifest_store: bytes
    manifest_id: str
    num_frames: int
    duration_s: float


# -- gateway side


class Worker:
    """Hands jobs to the worker process."""

    def __init__(self, settings: Settings, instance: Instance) -> None:
        self._settings = settings
        self._instance = instance
        self.name = settings.worker_name
        self.process = EngineProcess("api.engine.worker", self._hello)

    def prepare(self, portrait_png: bytes) -> dict[str, Any]:
        """Analyse a normalised portrait and keep the analysis warm. Raises RemoteError with a `portrait.*` code."""
        answer = self.process.call({"op": PREPARE}, {"portrait": portrait_png}, wall_s=self._settings.render_wall_s)
        return dict(answer.header["summary"])

    def render(
        self,
        authorise: Callable[[], tuple[str, dict[str, Any]]],
        *,
        portrait: bytes,
        speech: bytes,
        controls: dict[str, Any],
        consent: dict[str, Any] | None,
        dst: Path,
        on_progress: Callable[[float], None] | None = None,
    ) -> Produced:
        """Have one permitted render made.

        Args:
            authorise: called once the worker is free; answers the permit and the log evidence of its decision.
        Raises: RemoteError with a `permit.*` or other code; EngineError if the process is lost.
        """

        def job() -> dict[str, Any]:
            permit, evidence = authorise()
            return {
                "op": RENDER,
                "permit": permit,
                "controls": controls,
                "consent": consent,
                "evidence": evidence,
                "dst": str(dst.absolute()),
            }

        answer = self.process.call(
            job,
            {"portrait": portrait, "speech": speech},
            wall_s=self._settings.render_wall_s,
            on_progress=on_progress,
        )
        fields = answer.header["produced"]
        return Produced(
            path=dst,
            sha256=str(fields["sha256"]),
            manifest_store=answer.attachments["manifest_store"],
            manifest_id=str(fields["manifest_id"]),
            num_frames=int(fields["num_frames"]),
            duration_s=float(fields["duration_s"]),
        )

    def _hello(self) -> Message:
        settings, keys = self._settings, self._instance.keys
        return Message(
            {
                "name": self.name,
                "permit_public": base64.b64encode(public_key_bytes(keys.permit_public)).decode(),
                "log_public": base64.b64encode(public_key_bytes(keys.log_public)).decode(),
                "ledger": str(self._instance.ledger_path.absolute()),
                "pki": str(self._instance.pki.absolute()),
                "threads": settings.threads,
            },
            {"watermark_key": keys.watermark_key},
        )


# -- worker process


def prepare_worker(hello: Message) -> Handler:
    """Load models and keys; returns the handler of jobs."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    from generator.session import RenderWorker
    from watermark.credentials import SigningAuthority

    set_threads(int(hello.header["threads"]))
    worker = RenderWorker(
        name=hello.header["name"],
        permit_public=Ed25519PublicKey.from_public_bytes(base64.b64decode(hello.header["permit_public"])),
        ledger_path=Path(hello.header["ledger"]),
        watermark_key=hello.attachments["watermark_key"],
        authority=SigningAuthority.load(Path(hello.header["pki"])),
        log_public=Ed25519PublicKey.from_public_bytes(base64.b64decode(hello.header["log_public"])),
    )

    def handle(job: Message, progress: Progress) -> Message:
        if job.header["op"] == PREPARE:
            summary = worker.prepare(job.attachments["portrait"])
            return Message({"summary": asdict(summary)})
        produced = worker.render(
            job.header["permit"],
            portrait=job.attachments["portrait"],
            speech=job.attachments["speech"],
            controls=job.header["controls"],
            consent=job.header["consent"],
            evidence=job.header["evidence"],
            dst=Path(job.header["dst"]),
            progress=progress,
        )
        fields = {
            "sha256": produced.sha256,
            "manifest_id": produced.manifest_id,
            "num_frames": produced.num_frames,
            "duration_s": produced.duration_s,
        }
        return Message({"produced": fields}, {"manifest_store": produced.manifest_store})

    return handle


def set_threads(num_threads: int) -> None:
    """Bound the processor threads of the numeric libraries; 0 leaves them alone."""
    if num_threads:
        import cv2
        import torch

        torch.set_num_threads(num_threads)
        cv2.setNumThreads(num_threads)


if __name__ == "__main__":
    serve(connect(sys.argv), prepare_worker)
