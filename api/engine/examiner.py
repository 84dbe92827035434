"""The detection process: looks at untrusted media with the watermark reader, the C2PA reader and the detector.

It has no keys but the watermark key, reads the mark registry and the manifests that it leads to, and keeps nothing.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import func, select

from api.engine.child import Handler, Progress, connect, serve
from api.engine.process import EngineDiedError, EngineProcess, EngineTimeoutError
from api.engine.wire import Message
from api.engine.worker import set_threads
from api.resolver import ManifestRepository
from api.settings import Settings
from api.storage.addresses import Addresses
from api.storage.blobs import open_blobs
from api.storage.database import Database
from api.storage.models import Mark
from policy.keys import KeyRing

if TYPE_CHECKING:
    from api.service import Service


_WATERMARK_KEY = "watermark key "
_STORES = "stores"


class Examiner:
    """Hands media to the detection process."""

    def __init__(self, settings: Settings, keys: KeyRing, trust_roots_pem: bytes) -> None:
        self._settings = settings
        self._keys = keys
        self._trust_roots_pem = trust_roots_pem
        self.process = EngineProcess("api.engine.examiner", self._hello, lambda: keys.kids("watermark"))

    def examine(self, data: bytes, mime: str) -> dict[str, Any]:
        """The layered report on one image, clip or sound. Raises RemoteError with the code of what is wrong with it.

        A file over which the detection process dies or hangs gets a report, too: one that says so for every layer.
        """
        try:
            answer = self.process.call({"mime": mime}, {"media": data}, wall_s=self._settings.examine_wall_s)
        except (EngineDiedError, EngineTimeoutError):
            return self.unexamined(
                "The file could not be examined within the bounds of time and memory.", hashlib.sha256(data).hexdigest()
            )
        return dict(answer.header["report"])

    def unexamined(self, problem: str, sha256: str = "") -> dict[str, Any]:
        """The report on a file that is not looked at, for the reason `problem`."""
        answer = self.process.call({"unexamined": problem, "sha256": sha256}, wall_s=self._settings.examine_wall_s)
        return dict(answer.header["report"])

    def _hello(self) -> Message:
        return Message(
            {
                "max_duration_s": self._settings.max_detection_s,
                "threads": self._settings.threads,
            },
            {"trust_roots_pem": self._trust_roots_pem, _STORES: self._settings.addresses.to_bytes()}
            | {f"{_WATERMARK_KEY}{nth:03d}": key for nth, key in enumerate(self._keys.watermark_keys)},
        )


def examine_and_log(service: Service, client_id: str, data: bytes, mime: str) -> dict[str, Any]:
    """Examine media, and log who asked and what came out.

    Of the content the log gets a keyed hash only, useless without the instance's key.
    """
    digest = hashlib.sha256(data).digest()
    content = hmac.new(service.keys.commitment_key, b"detection\0" + digest, hashlib.sha256).hexdigest()
    entry = {"client": service.gate.pseudonym("client", client_id), "content_hmac": content, "num_bytes": len(data)}
    return _logged(service, entry, lambda: service.examiner.examine(data, mime))


def examine_file_and_log(service: Service, client_id: str, path: Path) -> dict[str, Any]:
    """The same for a file on this machine. One over the limit is not read; its report says so."""
    num_bytes, limit = path.stat().st_size, service.settings.max_detection_bytes
    if num_bytes <= limit:
        return examine_and_log(service, client_id, path.read_bytes(), "application/octet-stream")
    entry = {"client": service.gate.pseudonym("client", client_id), "content_hmac": "", "num_bytes": num_bytes}
    problem = f"The file has {num_bytes} bytes; at most {limit} are examined. It was not read."
    return _logged(service, entry, lambda: service.examiner.unexamined(problem))


def _logged(service: Service, entry: dict[str, Any], job: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    try:
        report = job()
    except Exception as error:
        service.gate.record("detection.failed", {**entry, "code": str(getattr(error, "code", "internal"))})
        raise
    verdict = str(report["verdict"])
    evidence = service.gate.record("detection", {**entry, "verdict": verdict})
    service.metrics.count("placet_detections_total", verdict=verdict)
    return {**report, "log_index": evidence.index}


class MarkRegistry:
    """Which watermark ids exist, and what they point to."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def is_registered(self, mark_id: Any) -> bool:
        """Whether this instance has ever given out the id."""
        with self._database.read() as session:
            return session.get(Mark, _hex(mark_id)) is not None

    @property
    def num_registered(self) -> int:
        """How many ids were given out, at least one."""
        with self._database.read() as session:
            return max(1, session.scalar(select(func.count()).select_from(Mark)) or 0)


def _hex(mark_id: Any) -> str:
    return mark_id if isinstance(mark_id, str) else str(mark_id.hex)


# -- detection process


def prepare_examiner(hello: Message) -> Handler:
    """Load the detector; returns the handler of jobs."""
    from detector.report import examine, unexamined
    from detector.score import Detector
    from watermark.media import CLIP_LIMITS

    set_threads(int(hello.header["threads"]))
    addresses = Addresses.from_bytes(hello.attachments[_STORES])
    database = Database.open(addresses.database)
    registry = MarkRegistry(database)
    manifests = ManifestRepository(
        database, open_blobs(addresses.blobs), hello.attachments["trust_roots_pem"].decode()
    )
    current_key, *retired_keys = (
        hello.attachments[name] for name in sorted(hello.attachments) if name.startswith(_WATERMARK_KEY)
    )
    detector = Detector.load()
    limits = replace(CLIP_LIMITS, max_duration_s=float(hello.header["max_duration_s"]))

    def handle(job: Message, _progress: Progress) -> Message:
        report_id = f"det_{secrets.token_hex(8)}"
        if "unexamined" in job.header:
            problem, sha256 = str(job.header["unexamined"]), str(job.header["sha256"])
            return Message({"report": unexamined(problem, detector=detector, sha256=sha256, report_id=report_id)})
        report = examine(
            job.attachments["media"],
            job.header["mime"],
            trust_roots_pem=hello.attachments["trust_roots_pem"],
            watermark_key=current_key,
            retired_watermark_keys=retired_keys,
            is_registered=registry.is_registered,
            resolve=lambda mark_id: manifests.recovered(mark_id.hex),
            detector=detector,
            num_registered=registry.num_registered,
            limits=limits,
            report_id=report_id,
        )
        return Message({"report": report})

    return handle


if __name__ == "__main__":
    serve(connect(sys.argv), prepare_examiner)
