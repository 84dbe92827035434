"""The detection process: looks at untrusted media with the watermark reader, the C2PA reader and the detector.

It has no keys but the watermark key, reads the mark registry and the manifests that it leads to, and keeps nothing.
"""

from __future__ import annotations

import hashlib
import hmac
import queue
import resource
import secrets
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
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
    from detector.report import Opening


_WATERMARK_KEY = "watermark key "
_STORES = "stores"


@dataclass(frozen=True)
class ExamineJob:
    """How a medium is to be looked at.

    Attributes:
        mime: its media type, or application/octet-stream.
        overlay: picture to draw of where and when the evidence lies: "", "png" or "mp4".
        is_thorough: ask the detector also where its score cannot change the verdict.
        report_id: the name of the report; by default one is made up.
    """

    mime: str
    overlay: str = ""
    is_thorough: bool = False
    report_id: str = ""


@dataclass(frozen=True)
class Examined:
    """A report, and its pictures by name ("png", "mp4")."""

    report: dict[str, Any]
    pictures: dict[str, bytes] = field(default_factory=dict)


OnNews = Callable[[Mapping[str, Any]], None]
"""Takes `{"what": "opened", "sha256": …, "kind": …, "duration_s": …, "likeness": [hex…]}` or
`{"what": "done", "stage": …}`."""


class Examiner:
    """Hands media to the detection process."""

    def __init__(self, settings: Settings, keys: KeyRing, trust_roots_pem: bytes) -> None:
        self._settings = settings
        self._keys = keys
        self._trust_roots_pem = trust_roots_pem
        self.processes = tuple(
            EngineProcess("api.engine.examiner", self._hello, lambda: keys.kids("watermark"))
            for _ in range(settings.examiners)
        )
        self._idle: queue.SimpleQueue[EngineProcess] = queue.SimpleQueue()
        for process in self.processes:
            self._idle.put(process)

    def examine(self, data: bytes, mime: str) -> dict[str, Any]:
        """The layered report on one image, clip or sound. Raises RemoteError with the code of what is wrong with it.

        A file over which the detection process dies or hangs gets a report, too: one that says so for every layer.
        """
        return self.inspect(data, ExamineJob(mime)).report

    def inspect(self, data: bytes, job: ExamineJob, on_news: OnNews | None = None) -> Examined:
        """The same, with pictures if they are asked for.

        Args:
            on_news: hears of every stage; what it raises ends the examination, and comes out here by its code.
        """
        header = {"mime": job.mime, "report_id": job.report_id, "overlay": job.overlay, "thorough": job.is_thorough}

        def answer(question: Message) -> Message:
            if on_news is not None:
                on_news(question.header)
            return Message({})

        with self._process() as process:
            try:
                result = process.call(header, {"media": data}, wall_s=self._settings.examine_wall_s, on_question=answer)
            except (EngineDiedError, EngineTimeoutError):
                problem = "The file could not be examined within the bounds of time and memory."
                return Examined(self._unexamined(process, problem, hashlib.sha256(data).hexdigest(), job.report_id))
        return Examined(dict(result.header["report"]), result.attachments)

    def unexamined(self, problem: str, sha256: str = "") -> dict[str, Any]:
        """The report on a file that is not looked at, for the reason `problem`."""
        with self._process() as process:
            return self._unexamined(process, problem, sha256)

    def _unexamined(self, process: EngineProcess, problem: str, sha256: str, report_id: str = "") -> dict[str, Any]:
        job = {"unexamined": problem, "sha256": sha256, "report_id": report_id}
        return dict(process.call(job, wall_s=self._settings.examine_wall_s).header["report"])

    @contextmanager
    def _process(self) -> Iterator[EngineProcess]:
        """A process that nobody else uses meanwhile."""
        process = self._idle.get()
        try:
            yield process
        finally:
            self._idle.put(process)

    def _hello(self) -> Message:
        return Message(
            {
                "max_duration_s": self._settings.max_detection_s,
                "threads": self._settings.threads,
                "memory_bytes": self._settings.examine_memory_bytes,
            },
            {"trust_roots_pem": self._trust_roots_pem, _STORES: self._settings.addresses.to_bytes()}
            | {f"{_WATERMARK_KEY}{nth:03d}": key for nth, key in enumerate(self._keys.watermark_keys)},
        )


def examine_and_log(service: Service, client_id: str, data: bytes, mime: str) -> dict[str, Any]:
    """Examine media, and log who asked and what came out.

    Of the content the log gets a keyed hash only, useless without the instance's key.
    """
    client = service.gate.pseudonym("client", client_id)
    entry = {"client": client, "content_hmac": content_hmac(service, data), "num_bytes": len(data)}
    return logged(service, entry, lambda: service.examiner.examine(data, mime))


def examine_file_and_log(service: Service, client_id: str, path: Path) -> dict[str, Any]:
    """The same for a file on this machine. One over the limit is not read; its report says so."""
    num_bytes, limit = path.stat().st_size, service.settings.max_detection_bytes
    if num_bytes <= limit:
        return examine_and_log(service, client_id, path.read_bytes(), "application/octet-stream")
    entry = {"client": service.gate.pseudonym("client", client_id), "content_hmac": "", "num_bytes": num_bytes}
    problem = f"The file has {num_bytes} bytes; at most {limit} are examined. It was not read."
    return logged(service, entry, lambda: service.examiner.unexamined(problem))


def content_hmac(service: Service, data: bytes) -> str:
    """What the log gets of a medium: useless without the instance's key."""
    digest = hashlib.sha256(data).digest()
    return hmac.new(service.keys.commitment_key, b"detection\0" + digest, hashlib.sha256).hexdigest()


def logged(service: Service, entry: dict[str, Any], job: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Have a report made, and log what came out, also where nothing did."""
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
    from detector.overlay import heat_mp4, heat_png
    from detector.report import inspect, unexamined
    from detector.score import Detector
    from watermark.media import CLIP_LIMITS

    set_threads(int(hello.header["threads"]))
    addresses = Addresses.from_bytes(hello.attachments[_STORES])
    database = Database.open(addresses.database)
    registry = MarkRegistry(database)
    manifests = ManifestRepository(database, open_blobs(addresses.blobs), hello.attachments["trust_roots_pem"].decode())
    current_key, *retired_keys = (
        hello.attachments[name] for name in sorted(hello.attachments) if name.startswith(_WATERMARK_KEY)
    )
    detector = Detector.load()
    limits = replace(CLIP_LIMITS, max_duration_s=float(hello.header["max_duration_s"]))

    _cap_memory(int(hello.header["memory_bytes"]))

    def handle(job: Message, progress: Progress) -> Message:
        report_id = str(job.header.get("report_id") or f"det_{secrets.token_hex(8)}")
        if "unexamined" in job.header:
            problem, sha256 = str(job.header["unexamined"]), str(job.header["sha256"])
            return Message({"report": unexamined(problem, detector=detector, sha256=sha256, report_id=report_id)})
        media = job.attachments["media"]
        digest = hashlib.sha256(media).hexdigest()
        try:
            return examined(job, media, progress, digest, report_id)
        except MemoryError:
            problem = "The file needs more memory than its examination may take."
            return Message({"report": unexamined(problem, detector=detector, sha256=digest, report_id=report_id)})

    def examined(job: Message, media: bytes, progress: Progress, digest: str, report_id: str) -> Message:
        examination = inspect(
            media,
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
            is_thorough=bool(job.header.get("thorough")),
            watcher=_Reporter(progress, digest),
        )
        threshold, pictures = detector.operating_point.threshold, {}
        draw = {"png": heat_png, "mp4": heat_mp4}.get(str(job.header.get("overlay")))
        if draw is not None:
            drawn = draw(examination.exhibit, examination.score, threshold)
            pictures = {} if drawn is None else {str(job.header["overlay"]): drawn}
        return Message({"report": examination.report}, pictures)

    return handle


class _Reporter:
    """Tells the gateway how far an examination is, and waits for its nod."""

    def __init__(self, progress: Progress, sha256: str) -> None:
        self._progress, self._sha256 = progress, sha256

    def opened(self, opening: Opening) -> None:
        news: dict[str, Any] = {
            "what": "opened",
            "sha256": self._sha256,
            "kind": opening.kind,
            "duration_s": opening.duration_s,
            "likeness": [f"{each:016x}" for each in opening.likeness],
        }
        self._progress.ask(news, {})

    def done(self, stage: str) -> None:
        self._progress.ask({"what": "done", "stage": stage}, {})


def _cap_memory(num_bytes: int) -> None:
    """Let this process take so much more address space than it has now: a file that needs more breaks it, not us."""
    statm = Path("/proc/self/statm")
    if statm.exists():  # elsewhere the wall-clock limit remains
        limit = int(statm.read_text().split()[0]) * resource.getpagesize() + num_bytes
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


if __name__ == "__main__":
    serve(connect(sys.argv), prepare_examiner)
