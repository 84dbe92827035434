"""The job of a live session: what gateway and worker process say to each other, on either side.

gateway ── job: permit, portrait, terms, the key of the end ──▶ worker verifies, prepares
        ◀── opened: init segment ──
        ── sound · silence · controls · finish ─▶  ◀── segment · refused ── … ── ended ──
        ── close: how many have left ──▶ recording ──▶ result
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from api.engine.child import Progress
from api.engine.signing import ClaimSigner
from api.engine.wire import Message
from api.engine.worker import LIVE, Produced, Worker
from policy.kms import SigningKey

if TYPE_CHECKING:
    from generator.session import RenderWorker

OPENED: Final = "opened"
SEGMENT: Final = "segment"
REFUSED: Final = "refused"
ENDED: Final = "ended"

_QUIT: Final = Message({"op": "quit"})


# -- gateway side


@dataclass(frozen=True)
class LiveJob:
    """What the worker is handed.

    Attributes:
        authorise: answers the permit and the log evidence of its decision, once the worker is free.
        end_key: see `watermark.live.EndSigner.entry`.
        spool: where the stream may be kept for its recording.
        may_repeat: see `generator.live.LiveStream`.
    """

    authorise: Callable[[], tuple[str, dict[str, Any]]]
    portrait: bytes
    terms: bytes
    controls: dict[str, Any]
    consent: dict[str, Any] | None
    end_key: bytes
    spool: Path
    may_repeat: bool


def run_live(
    worker: Worker, job: LiveJob, key: SigningKey, *, wall_s: float, on_event: Callable[[Message], object]
) -> Produced | None:
    """Have the worker live through one session; returns its recording, if there is one.

    Args:
        key: of the claim signer.
        wall_s: the worker is stopped if it says nothing at all for this long.
        on_event: told of `OPENED`, each `SEGMENT`, `REFUSED` and `ENDED`; in the thread that calls this.
    Raises: RemoteError, EngineError.
    """

    def header() -> dict[str, Any]:
        permit, evidence = job.authorise()
        return {
            "op": LIVE,
            "permit": permit,
            "evidence": evidence,
            "controls": job.controls,
            "consent": job.consent,
            "spool": str(job.spool.absolute()),
            "may_repeat": job.may_repeat,
        }

    attachments = {"portrait": job.portrait, "terms": job.terms, "end_key": job.end_key}
    answer = worker.process.call(header, attachments, wall_s=wall_s, on_question=ClaimSigner(key), on_event=on_event)
    fields = answer.header.get("produced")
    if fields is None:
        return None
    return Produced(
        path=Path(fields["path"]),
        sha256=str(fields["sha256"]),
        manifest_store=answer.attachments["manifest_store"],
        manifest_id=str(fields["manifest_id"]),
        num_frames=int(fields["num_frames"]),
        duration_s=float(fields["duration_s"]),
    )


Event = Message | BaseException | Produced | None
"""What comes from a session's worker: events, then its error or its recording (None where there is none)."""


def start_live(
    worker: Worker,
    job: LiveJob,
    key: SigningKey,
    *,
    wall_s: float,
    begin: Callable[[], None],
    post: Callable[[Event], object],
) -> threading.Thread:
    """`run_live` on a thread of its own.

    Args:
        begin: what comes before it on that thread; its error is the session's.
        post: is handed every event, and at last the error or the recording.
    """

    def work() -> None:
        try:
            begin()
            post(run_live(worker, job, key, wall_s=wall_s, on_event=post))
        except BaseException as error:
            post(error)

    thread = threading.Thread(target=work, name=f"live {job.spool.stem}", daemon=True)
    thread.start()
    return thread


# -- worker process


def live(worker: RenderWorker, job: Message, progress: Progress) -> Message:
    """Live through one session: open it, feed it, hand over its segments, and make its recording."""
    from threadpoolctl import threadpool_limits

    from watermark.boxes import embedded_store
    from watermark.fragments import codecs

    stream = worker.open_live(
        job.header["permit"],
        portrait=job.attachments["portrait"],
        terms=job.attachments["terms"],
        controls=job.header["controls"],
        consent=job.header["consent"],
        evidence=job.header["evidence"],
        end_key=job.attachments["end_key"],
        spool=Path(job.header["spool"]),
        may_repeat=bool(job.header["may_repeat"]),
    )
    closing: queue.SimpleQueue[Message] = queue.SimpleQueue()
    with threadpool_limits(1, user_api="blas"), stream:
        init = stream.init_segment
        opened = {"event": OPENED, "manifest_id": stream.manifest_id, "codecs": codecs(init)}
        progress.tell(opened, {"init": init, "manifest_store": embedded_store(init) or b""})
        feeder = threading.Thread(target=_feed, args=(stream, progress, closing), name="feeder", daemon=True)
        feeder.start()
        try:
            for each in stream.segments():
                facts = {"number": each.number, "num_frames": each.num_frames, "num_repeated": each.num_repeated}
                progress.tell({"event": SEGMENT, **facts}, {"segment": each.data})
            progress.tell({"event": ENDED, "is_expired": stream.is_expired})
            close = closing.get()
            produced = None
            if close.header["op"] == "close" and close.header["dst"]:
                produced = stream.record(
                    int(close.header["num_segments"]), Path(close.header["dst"]), close.header["session"]
                )
        finally:
            progress.fed.put(_QUIT)
            feeder.join()
    if produced is None:
        return Message({"produced": None})
    fields = {
        "path": str(produced.path),
        "sha256": produced.sha256,
        "manifest_id": produced.manifest_id,
        "num_frames": produced.num_frames,
        "duration_s": produced.duration_s,
    }
    return Message({"produced": fields}, {"manifest_store": produced.manifest_store})


def _feed(stream: Any, progress: Progress, closing: queue.SimpleQueue[Message]) -> None:
    """Hand on what the gateway feeds, until the session is closed."""
    import numpy as np

    from generator.errors import ControlError
    from generator.live_terms import pcm16

    try:
        while True:
            message = progress.fed.get()
            match message.header["op"]:
                case "sound":
                    stream.hear(pcm16(message.attachments["sound"]))
                case "silence":
                    stream.hear(np.zeros(int(message.header["num_samples"]), np.float32))
                case "controls":
                    try:
                        stream.change(message.header["controls"])
                    except ControlError as error:
                        progress.tell({"event": REFUSED, "code": error.code, "sentence": str(error)})
                case "finish":
                    stream.finish()
                case "close":
                    stream.abort()
                    closing.put(message)
                case _:
                    stream.abort()
                    closing.put(message)
                    return
    except Exception as error:  # raised again where the segments are taken
        stream.abort(error)
        closing.put(_QUIT)
