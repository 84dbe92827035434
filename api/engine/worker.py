"""The render worker: a process of its own that turns a permit and its inputs into a marked, signed file.

It is given the *public* permit key, the watermark key and the certificates, and nothing that could issue a permit or
sign a manifest (see `api.engine.signing`).
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

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from api.engine.child import Handler, Progress, connect, serve
from api.engine.process import EngineProcess
from api.engine.signing import ClaimSigner, GatewayKey, TimeStamping, worker_authority
from api.engine.wire import Message
from api.settings import Settings
from policy.instance import Instance
from policy.keys import public_key_bytes
from policy.kms import Retirement

PREPARE = "prepare"
RENDER = "render"
LIVE = "live"
_WEIGHTS_KEY = "weights key of "


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

    def __init__(self, settings: Settings, instance: Instance, name: str = "") -> None:
        self._settings = settings
        self._instance = instance
        self._time_stamping = TimeStamping(settings, instance.pki)
        self.name = name or settings.worker_name
        keys = instance.keys
        self.process = EngineProcess(
            "api.engine.worker", self._hello, lambda: keys.kids("permit", "log", "watermark", "c2pa")
        )

    def prepare(self, portrait_png: bytes, face: int | str | None = None) -> dict[str, Any]:
        """Analyse a normalised portrait and keep the analysis warm. Raises RemoteError with a `portrait.*` code.

        Args:
            face: which one of several, see `generator.faces`.
        """
        answer = self.process.call(
            {"op": PREPARE, "face": face}, {"portrait": portrait_png}, wall_s=self._settings.render_wall_s
        )
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
        driving: bytes | None = None,
        driver_consent: dict[str, Any] | None = None,
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
                "driver_consent": driver_consent,
                "evidence": evidence,
                "dst": str(dst.absolute()),
            }

        answer = self.process.call(
            job,
            {"portrait": portrait, "speech": speech} | ({} if driving is None else {"driving": driving}),
            wall_s=self._settings.render_wall_s,
            on_progress=on_progress,
            on_question=ClaimSigner(self._instance.keys.c2pa_key),
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

    def close(self) -> None:
        """Stop the process, and what it leans on."""
        self.process.close()
        self._time_stamping.close()

    def _hello(self) -> Message:
        settings, keys = self._settings, self._instance.keys
        return Message(
            {
                "name": self.name,
                "permit_public": base64.b64encode(public_key_bytes(keys.permit_public)).decode(),
                "permit_retired": [
                    {"public": base64.b64encode(public_key_bytes(each.public_key)).decode(), "at_s": each.at_s}
                    for each in keys.service.retirements("permit")
                    if isinstance(each.public_key, Ed25519PublicKey)
                ],
                "log_publics": [base64.b64encode(public_key_bytes(key)).decode() for key in keys.log_publics],
                "ledger": str(self._instance.ledger_path.absolute()),
                "pki": str(self._instance.pki.absolute()),
                "tsa_url": self._time_stamping.url,
                "labels": list(settings.labels),
                "tsa_roots_pem": self._time_stamping.roots_pem,
                "threads": settings.threads,
                "manner": "" if settings.manner is None else str(settings.manner.absolute()),
                "sealed_weights": str(settings.sealed_weights_dir.absolute()) if settings.weights == "sealed" else "",
            },
            {"watermark_key": keys.watermark_key} | self._weights_keys(),
        )

    def _weights_keys(self) -> dict[str, bytes]:
        """What opens the sealed weights, for the worker alone. Raises: WeightsError."""
        if self._settings.weights == "packaged":
            return {}
        from generator.sealing import unwrap_data_keys

        opened = unwrap_data_keys(self._instance.keys.service, self._settings.sealed_weights_dir)
        return {f"{_WEIGHTS_KEY}{name}": key for name, key in opened.items()}


# -- worker process


def prepare_worker(hello: Message) -> Handler:
    """Load models and keys; returns the handler of jobs."""
    from api.live.worker import live
    from generator.manner import USUAL, Manner
    from generator.sealed import use_source
    from generator.sealing import SealedWeights
    from generator.session import RenderWorker

    if folder := str(hello.header["sealed_weights"]):
        opened = {
            name.removeprefix(_WEIGHTS_KEY): key
            for name, key in hello.attachments.items()
            if name.startswith(_WEIGHTS_KEY)
        }
        use_source(SealedWeights(Path(folder), opened))
    set_threads(int(hello.header["threads"]))
    claim_key = GatewayKey(Path(hello.header["pki"]))
    worker = RenderWorker(
        name=hello.header["name"],
        permit_public=Ed25519PublicKey.from_public_bytes(base64.b64decode(hello.header["permit_public"])),
        ledger_path=Path(hello.header["ledger"]),
        watermark_key=hello.attachments["watermark_key"],
        authority=worker_authority(
            Path(hello.header["pki"]), claim_key, hello.header["tsa_url"], hello.header["tsa_roots_pem"]
        ),
        log_publics=[Ed25519PublicKey.from_public_bytes(base64.b64decode(key)) for key in hello.header["log_publics"]],
        permit_retired=[
            Retirement(Ed25519PublicKey.from_public_bytes(base64.b64decode(each["public"])), float(each["at_s"]))
            for each in hello.header["permit_retired"]
        ],
        labels=hello.header["labels"],
        manner=Manner.load(Path(hello.header["manner"])) if hello.header["manner"] else USUAL,
    )

    def handle(job: Message, progress: Progress) -> Message:
        if job.header["op"] == PREPARE:
            summary = worker.prepare(job.attachments["portrait"], job.header["face"])
            return Message({"summary": asdict(summary)})
        claim_key.ask = progress.ask
        if job.header["op"] == LIVE:
            return live(worker, job, progress)
        produced = worker.render(
            job.header["permit"],
            portrait=job.attachments["portrait"],
            speech=job.attachments["speech"],
            controls=job.header["controls"],
            consent=job.header["consent"],
            driving=job.attachments.get("driving"),
            driver_consent=job.header["driver_consent"],
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
