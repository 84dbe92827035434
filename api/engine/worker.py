"""The render worker: a process of its own that turns a permit and its inputs into a marked, signed file.

It is given the *public* permit key, the watermark key and the signing authority, and nothing that could issue a permit.
It checks every permit itself (signature, worker, expiry, single use, re-hashed inputs), so whoever reaches it without
the gateway gets nothing.
"""

from __future__ import annotations

import base64
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path
from typing import Any

from api.engine.child import Handler, Progress, connect, serve
from api.engine.process import EngineProcess
from api.engine.wire import Message
from api.settings import Settings
from policy.keys import KeyRing, public_key_bytes

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

    def __init__(self, settings: Settings, keys: KeyRing) -> None:
        self._settings = settings
        self._keys = keys
        self.name = settings.worker_name
        self.process = EngineProcess("api.engine.worker", self._hello)

    def prepare(self, portrait_png: bytes) -> dict[str, Any]:
        """Analyse a normalised portrait and keep the analysis warm. Raises RemoteError with a `portrait.*` code."""
        answer = self.process.call({"op": PREPARE}, {"portrait": portrait_png}, wall_s=self._settings.render_wall_s)
        return dict(answer.header["summary"])

    def render(
        self,
        permit: Callable[[], str],
        *,
        portrait: bytes,
        speech: bytes,
        controls: dict[str, Any],
        consent: dict[str, Any] | None,
        evidence: dict[str, Any],
        dst: Path,
        on_progress: Callable[[float], None] | None = None,
    ) -> Produced:
        """Redeem the permit that `permit` issues once the worker is free.

        Raises: RemoteError with a `permit.*` or other code; EngineError if the process is lost.
        """
        answer = self.process.call(
            lambda: {
                "op": RENDER,
                "permit": permit(),
                "controls": controls,
                "consent": consent,
                "evidence": evidence,
                "dst": str(dst),
            },
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
        settings = self._settings
        return Message(
            {
                "name": self.name,
                "permit_public": base64.b64encode(public_key_bytes(self._keys.permit_public)).decode(),
                "log_public": base64.b64encode(public_key_bytes(self._keys.log_public)).decode(),
                "ledger": str((settings.home / "worker" / f"{self.name}.sqlite3").absolute()),
                "pki": str(settings.pki_dir.absolute()),
                "threads": settings.threads,
            },
            {"watermark_key": self._keys.watermark_key},
        )


# -- worker process


def prepare_worker(hello: Message) -> Handler:
    """Load models and keys; returns the handler of jobs."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    from generator.session import RenderWorker
    from watermark.credentials import SigningAuthority

    set_threads(int(hello.header["threads"]))
    ledger = Path(hello.header["ledger"])
    ledger.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    worker = RenderWorker(
        name=hello.header["name"],
        permit_public=Ed25519PublicKey.from_public_bytes(base64.b64decode(hello.header["permit_public"])),
        ledger_path=ledger,
        watermark_key=hello.attachments["watermark_key"],
        authority=SigningAuthority.load(Path(hello.header["pki"])),
        log_public=Ed25519PublicKey.from_public_bytes(base64.b64decode(hello.header["log_public"])),
    )

    def handle(job: Message, progress: Progress) -> Message:
        if job.header["op"] == PREPARE:
            summary = worker.prepare(job.attachments["portrait"])
            return Message({"summary": asdict(summary) if is_dataclass(summary) else dict(summary)})
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
