"""One live session in the gateway, from its ticket to its end on record.

    first connection ─▶ worker opens (permit) ─▶ log `live.opened` ─▶ init segment
      ─▶ for each segment: connected? consent, client, time still good? ─▶ send     (log `live.progress` now and then)
      ─▶ signed end ─▶ log `live.closed` ─▶ recording ─▶ log `delivery`

The worker makes, the gateway lets out: right before a segment is sent the database is asked whether it still may be, so
that after a revocation has been answered at most the one segment leaves that was asked for before. The end is signed
here, where it is known how many have left, whatever has become of the worker. All of this runs on the event loop; what
blocks (database, log, worker) runs on threads.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import secrets
import threading
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from starlette.concurrency import run_in_threadpool

from api.engine.renders import DELIVERED, FAILED, REFUSED, ClientSuspendedError, ConsentWithdrawnError, RenderJob
from api.engine.wire import Message
from api.engine.worker import Produced, Worker
from api.errors import ApiError, EngineError
from api.live.clock import SoundClock
from api.live.connection import Connection, LostError, bounded, first_of, say
from api.live.counts import Counts
from api.live.errors import (
    ControlFloodError,
    FastError,
    GoneError,
    IdleError,
    ResumeError,
    SilenceError,
    SlowReaderError,
    StalledError,
    StreamError,
    TakenOverError,
    TicketError,
    TimeOverError,
    as_api_error,
    named,
)
from api.live.messages import ControlChange, Opening, check_chunk, is_loud, message_of
from api.live.worker import OPENED, SEGMENT, Event, LiveJob, start_live
from generator.live_terms import LiveTerms
from watermark.live import EndReason, EndSigner

if TYPE_CHECKING:
    from api.service import Service

logger = logging.getLogger("placet.live")

REALTIME: Final = "realtime"
_TICK_S: Final = 0.04
_FREE_BACKLOG_S: Final = 1.0
"""How much sound a client that is not bound to time may be ahead of the frames; then its socket is not read."""
_STALLED_S: Final = 30.0
_MAX_FAULTS: Final = 50
_RING_S: Final = 10.0
_WALL_CLOCK: Final = 4.0
"""A session that is not bound to time may take so many times as long as the picture it may make."""
_PERMIT_S: Final = 120.0
_TOO_SLOW: Final = "Segments are not taken as fast as they are made: take them faster, or ask for less."


class LiveSession:
    """One session.

    Args:
        job: as the gate has decided it, with the id that every frame carries.
        worker: reserved for this session.
        pace: "realtime": gaps become silence, sound that comes too fast is dropped; "free": as fast as it goes.
        valid_until: Unix time after which no segment leaves, whatever is left of the terms.
        leaf_der: certificate of the claim signer, for the key that signs the end.
        on_end: called when all is over.
    Attributes:
        session_id: also names the render that the session is on record as.
        ticket: opens the session, once.
    """

    def __init__(
        self,
        service: Service,
        job: RenderJob,
        terms: LiveTerms,
        worker: Worker,
        *,
        client_id: str,
        pace: str,
        valid_until: float,
        leaf_der: bytes,
        on_end: Callable[[LiveSession], None],
    ) -> None:
        self._service, self.job, self.terms, self.worker = service, job, terms, worker
        self.session_id, self.client_id, self.pace = job.render_id, client_id, pace
        self._valid_until, self._on_end = valid_until, on_end
        self.ticket, self.resume_token = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
        self._end_signer = EndSigner(leaf_der)
        self.counts = Counts()
        self.reason: EndReason | None = None
        self.error: ApiError | None = None
        self._events: asyncio.Queue[Event] = asyncio.Queue()
        self._queued_frames = 0
        self._connection: Connection | None = None
        self._came = asyncio.Event()
        self._is_ticket_used = False
        self._client_has = 0
        # what a client that comes back may not have seen
        self._ring: deque[tuple[int, bytes]] = deque(maxlen=round(_RING_S * terms.rate_hz / terms.frames_per_segment))
        self._stop_error: ApiError | None = None
        self._stopping = asyncio.Event()
        self._made = asyncio.Event()
        self._fed_s = self._made_s = 0.0
        self._init = b""
        self._manifest_id = ""
        self._codecs = ""
        self._opened_index = 0
        self._logged_at = 0.0
        self._segments_sha256 = hashlib.sha256()
        self._changes_sha256 = hashlib.sha256()
        self._clock = SoundClock()
        self._change_tokens = float(service.settings.live_controls_per_s)
        self._loop = asyncio.get_running_loop()
        self._is_feedable = False
        self._turn = asyncio.Lock()
        self.task = self._loop.create_task(self._live(), name=f"live {self.session_id}")

    # -- connections

    def admit(self, opening: Opening, connection: Connection) -> None:
        """Let a connection in that has the ticket, or comes back. Raises: TicketError, ResumeError."""
        if opening.after is None:
            if self._is_ticket_used or not secrets.compare_digest(opening.token, self.ticket):
                raise TicketError("This ticket was used already: open another session.")
            self._is_ticket_used = True
        else:
            if not secrets.compare_digest(opening.token, self.resume_token) or not self._init:
                raise TicketError("This session does not know you: open another one.")
            oldest = self._ring[0][0] if self._ring else self.counts.num_segments + 1
            if not oldest - 1 <= opening.after <= self.counts.num_segments + 1:
                raise ResumeError("What you have not seen is not kept any more: open another session.")
        if self.reason is not None or self._stop_error is not None:
            raise TicketError("This session is over.")
        before, self._connection = self._connection, connection
        self._client_has = opening.after or 0
        self._came.set()
        if opening.after is not None:
            self._loop.create_task(self._greet(connection))
        if before is not None:
            taken_over = TakenOverError("The client goes on with another connection.")
            self._loop.create_task(before.close(1008, taken_over.code))

    async def serve(self, connection: Connection) -> None:
        """Take what a connection sends, until it is lost or the session is over."""
        ticking = self._loop.create_task(self._tick(connection))
        receiving = self._loop.create_task(self._receive(connection))
        try:
            await asyncio.wait({receiving, self.task}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            ticking.cancel()
            receiving.cancel()
            await asyncio.gather(ticking, receiving, return_exceptions=True)
            self._let_go(connection)

    def _let_go(self, connection: Connection) -> None:
        if self._connection is connection:
            self._connection = None
            self._came.clear()
            self._clock.pause(self._loop.time())
            self._loop.call_later(self._service.settings.live_grace_s, self._miss)

    def _miss(self) -> None:
        """The grace time after a lost connection is over."""
        if self._connection is None and self._clock.is_paused(self._service.settings.live_grace_s, self._loop.time()):
            self.stop(GoneError("The connection was lost, and nobody came back in time."))

    def stop(self, error: ApiError) -> None:
        """End the session for this reason, before its next segment."""
        if self._stop_error is None:
            self._stop_error = error
            self._stopping.set()

    def stop_from_elsewhere(self, error: ApiError) -> threading.Event:
        """The same from any thread; the event is set when all is over."""
        ended = threading.Event()

        def stop() -> None:
            self.task.add_done_callback(lambda _: ended.set())
            self.stop(error)

        self._loop.call_soon_threadsafe(stop)
        return ended

    # -- what comes in

    async def _receive(self, connection: Connection) -> None:
        try:
            while True:
                message = await connection.receive()
                try:
                    if isinstance(message, bytes):
                        await self._sound(message)
                    else:
                        await self._text(message)
                except StreamError as error:
                    self.counts.num_faults += 1
                    if self.counts.num_faults > _MAX_FAULTS:
                        raise
                    await say(connection, "refused", error)
        except LostError:
            return
        except ApiError as error:
            self.stop(error)
        except Exception:
            logger.exception("session %s: a message could not be taken", self.session_id)
            self.stop(EngineError("Something went wrong on our side: open another session."))
        # what still comes is taken off the wire: a socket closed over unread data loses the last words to the client
        with suppress(LostError):
            while True:
                await connection.receive()

    async def _sound(self, data: bytes) -> None:
        duration_s = check_chunk(data, self.terms.sound_rate_hz)
        self._clock.heard(self._loop.time(), is_loud=is_loud(data))
        if self.pace == REALTIME:
            if not self._clock.has_room(self._loop.time(), duration_s):
                self._service.metrics.count("placet_live_dropped_total", code=FastError.code)
                if self._clock.may_complain(self._loop.time()):
                    raise FastError("More sound came in than time went by: what is too much was dropped.")
                return
        else:
            while self._fed_s - self._made_s > _FREE_BACKLOG_S and not self._stopping.is_set():
                self._made.clear()
                await first_of(self._made, self._stopping, timeout_s=1.0)
        self._clock.fed(self._loop.time(), duration_s)
        await self._feed({"op": "sound"}, {"sound": data}, duration_s)

    async def _text(self, text: str) -> None:
        message = message_of(text)
        if not isinstance(message, ControlChange):
            self._clock.stop()
            await self._feed({"op": "finish"})
            return
        self._change_tokens -= 1.0
        if self._change_tokens < 0.0:
            self._change_tokens = 0.0
            raise ControlFloodError(
                f"More than {self._service.settings.live_controls_per_s} changes of controls came in a second: this "
                "one does not count."
            )
        self.counts.num_changes += 1
        self._changes_sha256.update(json.dumps(message.controls, sort_keys=True).encode() + b"\n")
        await self._feed({"op": "controls", "controls": message.controls})

    async def _feed(
        self, header: Mapping[str, Any], attachments: Mapping[str, bytes] | None = None, duration_s: float = 0.0
    ) -> None:
        if self._is_feedable:
            self._fed_s += duration_s
            await run_in_threadpool(self.worker.process.feed, header, attachments)

    async def _tick(self, connection: Connection) -> None:
        """What time does to a session while somebody is connected."""
        settings = self._service.settings
        while True:
            await asyncio.sleep(_TICK_S)
            now = self._loop.time()
            self._change_tokens = min(
                self._change_tokens + settings.live_controls_per_s * _TICK_S, float(settings.live_controls_per_s)
            )
            if self._clock.idle_s(now) > settings.live_idle_s:
                self.stop(IdleError(f"No sound came for {settings.live_idle_s:.0f} seconds."))
            elif self._clock.silent_s() > settings.live_silence_s:
                self.stop(SilenceError(f"Nothing but silence came for {settings.live_silence_s:.0f} seconds."))
            elif self._fed_s - self._made_s > 1.0 and self._clock.since_made_s(now) > _STALLED_S:
                self.stop(StalledError("The worker does not keep up: try again later."))
            elif self.pace == REALTIME and (gap_s := self._clock.gap_s(now)) > 0:
                is_new = self._clock.fill(gap_s)
                self.counts.num_gaps += is_new
                num_samples = round(gap_s * self.terms.sound_rate_hz)
                await self._feed({"op": "silence", "num_samples": num_samples}, None, gap_s)

    # -- the life of the session

    async def _live(self) -> None:
        settings = self._service.settings
        job_thread: threading.Thread | None = None
        try:
            warming = self._loop.create_task(run_in_threadpool(self._warm_up))
            warming.add_done_callback(lambda done: done.cancelled() or done.exception())
            await first_of(self._came, self._stopping, timeout_s=settings.live_ticket_s)
            if self._stop_error is not None:
                raise self._stop_error
            if self._connection is None:
                raise TicketError("Nobody came with the ticket in time.")
            job_thread = self._start_worker()
            await self._open()
            await self._let_out()
            self.reason = "complete"
        except TimeOverError as error:
            self.reason, self.error = "expired", error
        except (ConsentWithdrawnError, ClientSuspendedError) as error:
            self.reason, self.error = "revoked", error
        except StreamError as error:
            self.reason, self.error = "stopped", error
        except ApiError as error:
            self.reason, self.error = "failed", error
        except Exception as error:
            if not isinstance(getattr(error, "code", None), str):
                logger.exception("session %s failed", self.session_id)
            self.reason, self.error = "failed", as_api_error(error)
        try:
            await self._close(job_thread)
        except Exception:
            logger.exception("session %s could not be closed; the next start will do it", self.session_id)
        finally:
            self._on_end(self)

    def _warm_up(self) -> None:
        """Have the worker start, and analyse the portrait, while the client is on its way."""
        assert self.job.portrait is not None
        self.worker.prepare(self.job.portrait)

    def _start_worker(self) -> threading.Thread:
        service, job = self._service, self.job
        staging: Path = service.settings.staging_dir
        assert job.portrait is not None  # `LiveDesk.open` looks
        live_job = LiveJob(
            authorise=lambda: service.renders.authorise(job, self.worker.name),
            portrait=job.portrait,
            terms=job.speech,
            controls=job.controls,
            consent=job.consent,
            end_key=self._end_signer.entry,
            spool=staging / f"{self.session_id}.stream",
            may_repeat=self.pace == REALTIME,
        )

        return start_live(
            self.worker,
            live_job,
            service.keys.c2pa_key,
            wall_s=service.settings.live_idle_s + service.settings.live_grace_s + _PERMIT_S,
            begin=lambda: service.renders.begin(job),
            post=lambda event: self._loop.call_soon_threadsafe(self._arrived, event),
        )

    def _arrived(self, event: Event) -> None:
        if isinstance(event, Message) and event.header["event"] == SEGMENT:
            num_frames = int(event.header["num_frames"])
            self._queued_frames += num_frames
            self._made_s += num_frames / self.terms.rate_hz
            self._clock.made(self._loop.time())
            self._made.set()
        self._events.put_nowait(event)

    async def _next(self) -> Message | Produced | None:
        """The next thing that the worker has made. Raises what it failed with, or what the session is to end for."""
        getting = self._loop.create_task(self._events.get())
        stopping = self._loop.create_task(self._stopping.wait())
        try:
            await asyncio.wait({getting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()
        if self._stop_error is not None:
            getting.cancel()
            raise self._stop_error
        event = getting.result()
        if isinstance(event, BaseException):
            raise event
        return event

    async def _open(self) -> None:
        """The worker has verified and prepared; this is on record before anything leaves."""
        event = await self._next()
        assert isinstance(event, Message) and event.header["event"] == OPENED
        self._init = event.attachments["init"]
        self._manifest_id, self._codecs = str(event.header["manifest_id"]), str(event.header["codecs"])
        self._segments_sha256.update(self._init)
        self._opened_index = await run_in_threadpool(
            self._service.live.note_opened,
            self.job,
            self.terms,
            self._manifest_id,
            event.attachments["manifest_store"],
        )
        self._logged_at = self._service.now()
        longest_s = _WALL_CLOCK * self.terms.max_duration_ms / 1000 + self._service.settings.live_grace_s
        self._valid_until = min(self._valid_until, self._logged_at + longest_s)
        self._is_feedable = True
        await self._connected()

    async def _greet(self, connection: Connection) -> None:
        """Say what is coming, and send what the client has not seen; once for each connection."""
        async with self._turn:
            if connection.is_greeted or connection is not self._connection:
                return
            try:
                await connection.send_text(json.dumps(self._greeting()))
                if self._client_has == 0:
                    await connection.send_bytes(self._init)
                for number, data in list(self._ring):
                    if number > self._client_has:
                        await self._check()
                        await connection.send_bytes(data)
            except LostError:
                self._let_go(connection)
            except ApiError as error:
                self.stop(error)
            connection.is_greeted = True
            self._clock.go_on(self._loop.time())

    def _greeting(self) -> dict[str, Any]:
        return {
            "type": "opened",
            "session_id": self.session_id,
            "mime": f'video/mp4; codecs="{self._codecs}"',
            "manifest_id": self._manifest_id,
            "log_index": self._opened_index,
            "resume_token": self.resume_token,
            "grace_s": self._service.settings.live_grace_s,
            "resumed_after": self._client_has,
            **{name: getattr(self.terms, name) for name in ("rate_hz", "frames_per_segment", "max_duration_ms")},
        }

    async def _let_out(self) -> None:
        while True:
            event = await self._next()
            assert isinstance(event, Message)
            match event.header["event"]:
                case "segment":
                    await self._send(event)
                case "refused":
                    connection = self._connection
                    if connection is not None:
                        sentence = str(event.header["sentence"])
                        await say(connection, "refused", named(str(event.header["code"]), sentence))
                case "ended":
                    if event.header["is_expired"]:
                        raise TimeOverError("The time that was permitted is over.")
                    return

    async def _send(self, event: Message) -> None:
        """Let one segment out."""
        settings = self._service.settings
        number, num_frames = int(event.header["number"]), int(event.header["num_frames"])
        data = event.attachments["segment"]
        while True:
            # (1) somebody is there
            connection = await self._connected()
            # (2) who takes it takes it fast enough
            if self.pace == REALTIME and self._queued_frames / self.terms.rate_hz > settings.live_slow_s:
                raise SlowReaderError(_TOO_SLOW)
            if number <= self._client_has:  # it had arrived, when its connection was lost
                break
            # (3) it still may leave: asked right before it does
            await self._check()
            try:
                async with asyncio.timeout(settings.live_slow_s):
                    await connection.send_bytes(data)
                break
            except TimeoutError:
                raise SlowReaderError(
                    "Segments are not taken as fast as they are made: take them, or open less."
                ) from None
            except LostError:
                self._let_go(connection)
        self._queued_frames -= num_frames
        self.counts.num_segments = number
        self.counts.num_frames += num_frames
        self.counts.num_repeated += int(event.header["num_repeated"])
        self._segments_sha256.update(data)
        self._ring.append((number, data))
        # (4) and now and then the state goes on record
        if self._service.now() - self._logged_at >= settings.live_log_interval_s:
            self._logged_at = self._service.now()
            await run_in_threadpool(self._service.gate.record, "live.progress", self._state())

    async def _check(self) -> None:
        """Raises: ConsentWithdrawnError, ClientSuspendedError, TimeOverError, or what the session is to end for."""
        if self._stop_error is not None:
            raise self._stop_error
        if self._service.now() >= self._valid_until:
            raise TimeOverError("The consent, or the time that was permitted, is over.")
        await run_in_threadpool(self._service.live.check_may_go_on, self.session_id)

    async def _connected(self) -> Connection:
        """Whoever is connected, greeted. Raises: GoneError: nobody came back within the grace time."""
        while (connection := self._connection) is None or not connection.is_greeted:
            if connection is not None:
                await self._greet(connection)
                continue
            await first_of(self._came, self._stopping, timeout_s=self._service.settings.live_grace_s)
            if self._stop_error is not None:
                raise self._stop_error
        return connection

    def _state(self) -> dict[str, Any]:
        return {
            "decision_index": self.job.ruling.evidence.index,
            "opened_index": self._opened_index,
            "mark_id": self.job.mark_id,
            "num_segments": self.counts.num_segments,
            "num_frames": self.counts.num_frames,
            "segments_sha256": self._segments_sha256.hexdigest(),
            "num_changes": self.counts.num_changes,
            "changes_sha256": self._changes_sha256.hexdigest(),
        }

    # -- the end

    async def _close(self, job_thread: threading.Thread | None) -> None:
        """The signed end, the entry, goodbye, and the recording."""
        assert self.reason is not None
        code = self.error.code if self.error is not None else ""
        connection, self._connection = self._connection, None
        self._is_feedable = False
        # (1) the end of the stream, whoever still listens
        if self._init:
            end = self._end_signer.end(self._manifest_id, self.counts.num_segments, self.reason)
            self._segments_sha256.update(end)
            if connection is not None and connection.is_greeted:
                await bounded(connection.send_bytes(end))
        # (2) on record
        duration_s = self.counts.num_frames / self.terms.rate_hz
        has_recording = self.terms.record and self.counts.num_frames > 0 and self.reason not in ("revoked", "failed")
        index = await run_in_threadpool(
            self._service.live.note_closed,
            self.job.render_id,
            self._state() | {"reason": self.reason, "code": code, "num_gaps": self.counts.num_gaps},
            duration_s=duration_s,
            status=None if has_recording else _STATUS[self.reason] if self.counts.num_frames else FAILED,
            error=self.error,
        )
        # (3) goodbye, with the reason
        if connection is not None:
            ended = {
                "type": "ended",
                "reason": self.reason,
                "code": code,
                "detail": str(self.error) if self.error is not None else "",
                "log_index": index,
                **{name: getattr(self.counts, name) for name in ("num_segments", "num_gaps", "num_repeated")},
                "render_id": self.session_id if has_recording else None,
            }
            await bounded(connection.send_text(json.dumps(ended)))
            await bounded(connection.close(1011 if self.reason == "failed" else 1000, code or self.reason))
        # (4) the recording
        if job_thread is not None:
            await self._record(has_recording, index)
            await run_in_threadpool(job_thread.join, 30.0)
        for leftover in self._service.settings.staging_dir.glob(f"*{self.session_id}*"):
            leftover.unlink(missing_ok=True)

    async def _record(self, is_wanted: bool, closed_index: int) -> None:
        """Let the worker make the recording, and deliver it like a render."""
        service = self._service
        dst = service.settings.staging_dir / f"{self.session_id}.mp4"
        entries = [self.job.ruling.evidence.index, self._opened_index, closed_index]
        session = {"stream_manifest_id": self._manifest_id, "log_entries": entries}
        close = {
            "op": "close",
            "num_segments": self.counts.num_segments,
            "dst": str(dst.absolute()) if is_wanted else "",
            "session": session,
        }
        try:
            await run_in_threadpool(self.worker.process.feed, close)
            async with asyncio.timeout(service.settings.render_wall_s):
                while isinstance(event := await self._events.get(), Message):
                    continue
            if isinstance(event, BaseException):
                raise event
            if is_wanted:
                assert isinstance(event, Produced)
                await run_in_threadpool(service.renders.deliver, self.job, event)
        except Exception as error:
            if is_wanted:
                failed = as_api_error(error)
                status = REFUSED if isinstance(error, ConsentWithdrawnError | ClientSuspendedError) else FAILED
                await run_in_threadpool(service.renders.close, self.session_id, status, failed.code, str(failed))


_STATUS: Final[dict[str, str]] = {
    "complete": DELIVERED,
    "expired": DELIVERED,
    "stopped": DELIVERED,
    "revoked": REFUSED,
    "failed": FAILED,
}
