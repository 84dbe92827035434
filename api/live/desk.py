"""The desk of live sessions: opens them through the gate, lets connections in, and puts on record what becomes of them.

A session is a render whose speech is not known yet: the same decision, the same record, the same budget, the same way
to its recording. What is its own stands in `api.live.session`.
"""

from __future__ import annotations

import logging
import secrets
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from cryptography.hazmat.primitives import serialization
from fastapi.concurrency import run_in_threadpool
from sqlalchemy import bindparam, select

from api.engine.facts import NO_TERM
from api.engine.renders import (
    DELIVERED,
    PortraitNotEnrolledError,
    RenderJob,
    Submission,
    check_client,
    check_consent,
)
from api.engine.signing import check_can_sign
from api.engine.worker import Worker
from api.errors import ApiError, BusyError, EngineError, RemoteError
from api.live.connection import Connection
from api.live.errors import TicketError
from api.live.messages import Opening
from api.live.session import LiveSession
from api.storage.models import Client, Consent, Portrait, Render, Subject
from generator.controls import MotionControls
from generator.errors import GeneratorError
from generator.live_terms import LiveTerms, set_controls
from policy.decision import ACTION_LIVE
from policy.identity import Actor
from watermark.authority import load_certificate

if TYPE_CHECKING:
    from api.service import Service

logger = logging.getLogger("placet.live")

_RETRY_AFTER_S: Final = 10
_CLOSE_S: Final = 15.0


@dataclass(frozen=True)
class LiveRequest:
    """What somebody asks for.

    Attributes:
        controls: values from the start; None for a control that may be set later.
        pace: "realtime" or "free", see `LiveSession`.
    """

    subject_id: str
    portrait_sha256: str
    purpose: str
    terms: LiveTerms
    controls: dict[str, Any] = field(default_factory=dict)
    pace: str = "realtime"


class LiveDesk:
    """All live sessions of one service, each on a worker process of its own."""

    def __init__(self, service: Service) -> None:
        self._service = service
        settings = service.settings
        self._workers = tuple(
            Worker(settings, service.instance, f"{settings.worker_name}-live-{number}")
            for number in range(1, settings.live_sessions + 1)
        )
        self._idle = list(reversed(self._workers))
        self._lock = threading.Lock()
        self._sessions: dict[str, LiveSession] = {}
        self._is_closed = False

    @property
    def workers(self) -> tuple[Worker, ...]:
        """One for each session that may be open at a time."""
        return self._workers

    @property
    def num_open(self) -> int:
        """Sessions that are open, or wait for their ticket."""
        return len(self._sessions)

    def session(self, session_id: str) -> LiveSession | None:
        """A session that is open."""
        return self._sessions.get(session_id)

    # -- opening

    async def open(self, actor: Actor, asked: LiveRequest) -> LiveSession:
        """Decide, log, and make out a ticket.

        Raises: RefusedError, with every reason; BusyError; ControlError; PortraitNotEnrolledError; SigningError.
        """
        worker = self._reserve()
        try:
            job, valid_until = await run_in_threadpool(self._decide, actor, asked)
        except BaseException:
            self._give_back(worker)
            raise
        session = LiveSession(
            self._service,
            job,
            asked.terms,
            worker,
            client_id=actor.client_id,
            pace=asked.pace,
            valid_until=valid_until,
            leaf_der=self._leaf_der(),
            on_end=self._ended,
        )
        self._sessions[session.session_id] = session
        self._service.metrics.count("placet_live_sessions_total", outcome="opened")
        return session

    def _decide(self, actor: Actor, asked: LiveRequest) -> tuple[RenderJob, float]:
        service = self._service
        # (1) what could not be done anyway
        check_can_sign(service.instance.pki)
        try:
            MotionControls.from_json(set_controls(asked.controls))
        except GeneratorError as error:
            raise RemoteError(error.code, str(error)) from error
        with service.database.read() as session:
            portrait = session.get(Portrait, asked.portrait_sha256)
            client = session.get_one(Client, actor.client_id)
        if portrait is None:
            raise PortraitNotEnrolledError("A live session shows an enrolled portrait: name one by its hash.")
        # (2) the gate
        job = service.renders.decide(
            actor,
            Submission(
                subject_id=asked.subject_id,
                portrait=None,
                portrait_sha256=asked.portrait_sha256,
                speech=asked.terms.to_bytes(),
                speech_s=asked.terms.max_duration_ms / 1000,
                purpose=asked.purpose,
                controls=asked.controls,
                action=ACTION_LIVE,
            ),
        )
        # (3) until when, whatever is said
        ends = [float(NO_TERM)]
        if job.consent is not None:
            ends.append(float(job.consent["expires_at"]))
        if client.term_expires_at is not None:
            ends.append(client.term_expires_at)
        return job, min(ends)

    def _reserve(self) -> Worker:
        with self._lock:
            if self._is_closed or not self._idle:
                raise BusyError(_RETRY_AFTER_S)
            return self._idle.pop()

    def _give_back(self, worker: Worker) -> None:
        with self._lock:
            self._idle.append(worker)

    def _ended(self, session: LiveSession) -> None:
        self._sessions.pop(session.session_id, None)
        self._service.metrics.count("placet_live_sessions_total", outcome=str(session.reason))
        self._give_back(session.worker)

    def _leaf_der(self) -> bytes:
        leaf = load_certificate(self._service.instance.pki / "leaf.pem")
        return leaf.public_bytes(serialization.Encoding.DER)

    # -- connections

    def admit(self, opening: Opening, connection: Connection) -> LiveSession:
        """The session that a first message leads to. Raises: TicketError, ResumeError."""
        for session in self._sessions.values():
            secret = session.ticket if opening.after is None else session.resume_token
            if secrets.compare_digest(opening.token.encode(), secret.encode()):
                session.admit(opening, connection)
                return session
        raise TicketError("This ticket opens no session: open one, and come with its ticket in time.")

    # -- on record; called on threads

    def note_opened(self, job: RenderJob, terms: LiveTerms, manifest_id: str, manifest_store: bytes) -> int:
        """Put on record that a stream begins. Returns the log index.

        Raises: ConsentWithdrawnError, ClientSuspendedError: not any more. LogError: then nothing may leave.
        """
        service = self._service
        manifest_sha256 = service.blobs.put(manifest_store)
        with service.database.write() as session:
            render = session.get_one(Render, job.render_id)
            check_client(session, render)
            check_consent(session, render)
            evidence = service.gate.record(
                "live.opened",
                {
                    "decision_index": render.decision_index,
                    "mark_id": render.mark_id,
                    "manifest_id": manifest_id,
                    "manifest_sha256": manifest_sha256,
                    "max_duration_ms": terms.max_duration_ms,
                },
            )
            render.manifest_id, render.manifest_sha256 = manifest_id, manifest_sha256
            service.renders.note_use_of(session, render, evidence.index, "live.opened")
        return evidence.index

    def note_closed(
        self, render_id: str, body: dict[str, Any], *, duration_s: float, status: str | None, error: ApiError | None
    ) -> int:
        """Put on record how a session ended; what it did not use of the budget is given back. Returns the log index.

        Args:
            status: of the render; None while its recording is still to come.
        """
        service = self._service
        with service.database.write() as session:
            render = session.get_one(Render, render_id)
            evidence = service.gate.record("live.closed", body)
            render.speech_s = render.duration_s = duration_s
            render.num_frames = int(body["num_frames"])
            if status is not None:
                render.status = status
                render.finished_at = service.now()
                render.closing_index = evidence.index
                if error is not None and status != DELIVERED:
                    render.failure_code, render.failure_detail = error.code, str(error)
            service.renders.note_use_of(session, render, evidence.index, "live.closed")
        return evidence.index

    def check_may_go_on(self, render_id: str) -> None:
        """Whether the next segment may leave. Raises: ConsentWithdrawnError, ClientSuspendedError."""
        with self._service.database.read() as session:
            found = session.execute(_STANDING, {"render_id": render_id}).first()
            if found is not None:
                revoked_at, superseded_by, epoch, given_in, erased_at, standing = found
                if standing == "approved" and revoked_at is superseded_by is erased_at is None and epoch == given_in:
                    return
            render = session.get_one(Render, render_id)
            check_client(session, render)
            check_consent(session, render)

    # -- ending

    def close(self) -> None:
        """End every session, each with its signed end and its entry, and stop the workers."""
        self._is_closed = True
        stopping = EngineError("The service is shutting down: open another session later.")
        tasks = [(session, session.stop_from_elsewhere(stopping)) for session in list(self._sessions.values())]
        for session, ended in tasks:
            if not ended.wait(_CLOSE_S):
                logger.warning("session %s did not end in time; the next start will close it", session.session_id)
        for worker in self._workers:
            worker.close()


_STANDING: Final = (
    select(
        Consent.revoked_at,
        Consent.superseded_by,
        Subject.epoch,
        Render.consent_epoch,
        Subject.erased_at,
        Client.status,
    )
    .join(Consent, Consent.consent_id == Render.consent_id)
    .join(Subject, Subject.subject_id == Consent.subject_id)
    .join(Client, Client.client_id == Render.client_id)
    .where(Render.render_id == bindparam("render_id"))
)
"""Everything that could end a session, by one query."""
