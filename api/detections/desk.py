"""The detection desk: who may ask, what waits, what is being looked at, what can be fetched. All of it in memory.

The bytes of a medium are let go of when its examination ends, whatever comes out; its report and the pictures drawn for
it stay for `detection_keep_s`, or until the caller deletes them. A restart forgets them.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import queue
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

from api.detections.budgets import DailyBudget, NearDuplicates
from api.detections.hooks import HashHook
from api.detections.resumable import UploadShelf
from api.detections.room import Room
from api.engine.examiner import ExamineJob, content_hmac, logged
from api.errors import ApiError, BusyError, ConflictError, NotFoundError, RemoteError
from detector.bands import coarse

if TYPE_CHECKING:
    from api.service import Service

logger = logging.getLogger("placet.detections")

Tier = Literal["public", "vetted"]
Status = Literal["queued", "running", "done", "failed"]
Overlay = Literal["", "png", "mp4"]

MAX_WAITING: Final = 500
MAX_KEPT: Final = 2_000
MAX_KEPT_PICTURE_BYTES: Final = 128 * 1024 * 1024
STAGES: Final = ("opened", "c2pa", "watermark", "detector")
OVERLAY_TYPES: Final[Mapping[str, str]] = {"png": "image/png", "mp4": "video/mp4"}


class KeyReusedError(ConflictError):
    """An idempotency key that came with something else before."""

    code = "conflict.idempotency_key"

    def __init__(self) -> None:
        super().__init__("This Idempotency-Key was sent with another file or other options: use a new one.")


@dataclass(frozen=True)
class Caller:
    """Who asks.

    Attributes:
        name: a client id; for the public tier something that names the browser's visit.
        tier: "public" gets bands, "vetted" scores and heatmaps.
        network: what the public tier is counted by.
    """

    name: str
    tier: Tier
    network: str = ""


@dataclass(eq=False)
class Detection:
    """One medium and what has become of it."""

    detection_id: str
    caller: Caller
    sha256: str
    options: tuple[str, bool]
    created_at_s: float
    data: bytes | None
    mime: str
    job: ExamineJob
    status: Status = "queued"
    stages: list[str] = field(default_factory=list)
    duration_s: float | None = None
    is_long: bool = False
    report: dict[str, Any] | None = None
    error: ApiError | None = None
    pictures: dict[str, bytes] = field(default_factory=dict)
    finished_at_s: float | None = None
    wants_webhook: bool = False
    _listeners: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = field(default_factory=list)

    @property
    def is_over(self) -> bool:
        return self.status in ("done", "failed")

    @property
    def progress(self) -> float:
        """Share of the stages that are behind it."""
        return 1.0 if self.is_over else len(self.stages) / (len(STAGES) + 1)

    def changed(self) -> None:
        """Wake whoever waits, from any thread."""
        for loop, event in list(self._listeners):
            loop.call_soon_threadsafe(event.set)

    async def wait(self, timeout_s: float) -> None:
        """Wait until it is over, until it is known to take long, or until time is up."""
        loop, event = asyncio.get_running_loop(), asyncio.Event()
        entry, deadline_s = (loop, event), loop.time() + timeout_s
        self._listeners.append(entry)
        try:
            while not self.is_over and not self.is_long and loop.time() < deadline_s:
                event.clear()
                if self.is_over or self.is_long:
                    return
                try:
                    await asyncio.wait_for(event.wait(), max(0.01, deadline_s - loop.time()))
                except TimeoutError:
                    return
        finally:
            self._listeners.remove(entry)


class DetectionDesk:
    """Takes media in, has them examined one by one per detection process, hands reports out.

    Args:
        service: whose settings, examiner, gate and webhooks are used.
    """

    def __init__(self, service: Service) -> None:
        settings = service.settings
        self._service = service
        self.room = Room(settings.detection_memory_bytes)
        self.uploads = UploadShelf(self.room, max_bytes=settings.max_detection_bytes)
        self._near_duplicates = NearDuplicates()
        self._daily = DailyBudget()
        self._hook = HashHook.named(settings.detection_hook)
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, Detection] = OrderedDict()
        self._by_key: dict[tuple[str, str], Detection] = {}
        self._queue: queue.SimpleQueue[Detection | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []

    # -- asking

    def submit(
        self, caller: Caller, data: bytes, job: ExamineJob, *, idempotency_key: str = "", wants_webhook: bool = False
    ) -> Detection:
        """Queue a medium, whose room has been taken already; it is given back when the examination ends.

        Args:
            idempotency_key: a second request with the same one gets the same detection.
        Returns: the detection, perhaps one that was there already.
        Raises: KeyReusedError, RateError, BusyError. The room is given back then.
        """
        share, sha256 = self.room.share_of(len(data)), hashlib.sha256(data).hexdigest()
        options = (job.overlay, job.is_thorough)
        try:
            with self._lock:
                self._sweep()
                known = self._by_key.get((caller.name, idempotency_key)) if idempotency_key else None
                if known is not None:
                    if (known.sha256, known.options) != (sha256, options):
                        raise KeyReusedError
                    self.room.give_back(share)
                    return known
                if sum(not each.is_over for each in self._kept.values()) >= MAX_WAITING:
                    raise BusyError(30)
                self._daily.take(caller.network or caller.name, per_day=self._per_day(caller))
                detection = self._made(caller, data, job, sha256, options)
                detection.wants_webhook = wants_webhook
                self._kept[detection.detection_id] = detection
                if idempotency_key:
                    self._by_key[caller.name, idempotency_key] = detection
        except ApiError:
            self.room.give_back(share)
            raise
        self._start()
        self._queue.put(detection)
        return detection

    def find(self, caller: Caller, detection_id: str) -> Detection:
        """A detection of this caller. Raises: NotFoundError: also for somebody else's."""
        with self._lock:
            self._sweep()
            detection = self._kept.get(detection_id)
        if detection is None or detection.caller.name != caller.name:
            raise NotFoundError("There is no such detection, or it has been forgotten: send the file again.")
        return detection

    def forget(self, caller: Caller, detection_id: str) -> None:
        """Forget a finished detection at once. Raises: NotFoundError, ConflictError: it is not finished."""
        detection = self.find(caller, detection_id)
        if not detection.is_over:
            raise ConflictError("The detection is still going on: delete it when it has ended.")
        with self._lock:
            self._drop(detection)

    def picture(self, caller: Caller, detection_id: str, kind: str) -> bytes:
        """The overlay of a finished detection. Raises: NotFoundError."""
        detection = self.find(caller, detection_id)
        if kind not in detection.pictures:
            raise NotFoundError(
                "There is no such picture: ask for it with overlay=png or overlay=mp4 when you send a clip with a face."
            )
        return detection.pictures[kind]

    @property
    def num_unfinished(self) -> int:
        """Detections that wait or run."""
        with self._lock:
            return sum(not each.is_over for each in self._kept.values())

    def close(self) -> None:
        """Stop working; what waits is lost, and its callers ask again."""
        for _ in self._threads:
            self._queue.put(None)

    # -- working

    def _start(self) -> None:
        with self._lock:
            while len(self._threads) < len(self._service.examiner.processes):
                name = f"detections-{len(self._threads)}"
                self._threads.append(threading.Thread(target=self._work, name=name, daemon=True))
                self._threads[-1].start()

    def _work(self) -> None:
        while (detection := self._queue.get()) is not None:
            try:
                self._examine(detection)
            except Exception:  # a defect must not stop the desk
                logger.exception("a detection failed")
                detection.error = RemoteError("engine.failed", "The examination failed on our side: try again.")
                detection.status = "failed"
            finally:
                self._finish(detection)

    def _examine(self, detection: Detection) -> None:
        service, caller, data = self._service, detection.caller, detection.data or b""
        detection.status = "running"
        space = "client" if caller.tier == "vetted" else "address"
        entry = {
            "client": service.gate.pseudonym(space, caller.network or caller.name),
            "content_hmac": content_hmac(service, data),
            "num_bytes": len(data),
            "tier": caller.tier,
        }

        refusals: list[ApiError] = []

        def heard(news: Mapping[str, Any]) -> None:
            try:
                self._heard(detection, news)
            except ApiError as error:
                refusals.append(error)
                raise

        def made() -> dict[str, Any]:
            self._hook.check(detection.sha256)
            try:
                examined = service.examiner.inspect(data, detection.job, heard)
            except RemoteError:
                if refusals:  # what was refused here comes back by its code only
                    raise refusals[0] from None
                raise
            detection.pictures = examined.pictures
            return examined.report

        try:
            report = logged(service, entry, made)
        except ApiError as error:
            detection.error, detection.status = error, "failed"
            return
        if caller.tier == "public":
            detection.report = coarse(report)
        else:
            for kind in detection.pictures:
                path = f"/v1/detections/{detection.detection_id}/heatmap.{kind}"
                report["layers"]["detector"]["heatmap_url"] = path
            detection.report = {**report, "tier": "vetted"}
        detection.status = "done"

    def _heard(self, detection: Detection, news: Mapping[str, Any]) -> None:
        """What the detection process says on its way. What is raised here ends the examination."""
        if news.get("what") == "opened":
            likeness = tuple(int(each, 16) for each in news["likeness"])
            self._hook.check(detection.sha256, likeness)
            settings, caller = self._service.settings, detection.caller
            is_public = caller.tier == "public"
            self._near_duplicates.admit(
                caller.network or caller.name,
                detection.sha256,
                likeness,
                per_hour=settings.public_near_duplicates_per_hour if is_public else settings.near_duplicates_per_hour,
            )
            detection.duration_s = news["duration_s"]
            detection.is_long = (detection.duration_s or 0.0) > settings.detection_sync_s + 0.5
            detection.stages.append("opened")
        else:
            detection.stages.append(str(news.get("stage")))
        detection.changed()

    def _finish(self, detection: Detection) -> None:
        size = len(detection.data or b"")
        detection.data = None
        detection.finished_at_s = time.monotonic()
        self.room.give_back(self.room.share_of(size))
        detection.changed()
        if detection.wants_webhook:
            self._tell(detection)

    def _tell(self, detection: Detection) -> None:
        row = self._service.webhooks.find(detection.caller.name)
        if row is not None:
            error = detection.error
            content = {
                "type": "detection.finished",
                "id": detection.detection_id,
                "status": detection.status,
                "url": f"{self._service.issuer}/v1/detections/{detection.detection_id}",
                "report": detection.report,
                "problem": None if error is None else {"code": error.code, "detail": str(error)},
            }
            self._service.webhook_sender.send(row.url, content)

    # -- keeping

    def _made(self, caller: Caller, data: bytes, job: ExamineJob, sha256: str, options: tuple[str, bool]) -> Detection:
        name = f"det_{secrets.token_hex(12)}"
        named = ExamineJob(job.mime, job.overlay, job.is_thorough, name)
        return Detection(name, caller, sha256, options, self._service.now(), data, job.mime, named)

    def _per_day(self, caller: Caller) -> int:
        settings = self._service.settings
        return settings.public_detections_per_day if caller.tier == "public" else settings.detections_per_day

    def _sweep(self) -> None:
        """Forget what is old, and the oldest of what is too much. The lock is held."""
        now, keep_s = time.monotonic(), self._service.settings.detection_keep_s
        over = [each for each in self._kept.values() if each.finished_at_s is not None]
        for detection in over:
            if now - (detection.finished_at_s or now) > keep_s:
                self._drop(detection)
        left = [each for each in over if each.detection_id in self._kept]
        for detection in left[: max(0, len(self._kept) - MAX_KEPT)]:
            self._drop(detection)
        num_bytes = 0
        for detection in reversed(left):
            num_bytes += sum(map(len, detection.pictures.values()))
            if num_bytes > MAX_KEPT_PICTURE_BYTES:
                detection.pictures = {}

    def _drop(self, detection: Detection) -> None:
        self._kept.pop(detection.detection_id, None)
        for key in [key for key, each in self._by_key.items() if each is detection]:
            del self._by_key[key]
