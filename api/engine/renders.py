"""The life of a render after its inputs were taken in: decide, log, queue, permit, render, check again, log, publish.

Order is what makes it safe, so it is written out here once:

    rule + log  ->  queue  ->  consent still live?  ->  permit  ->  worker  ->  [ consent still live?  ->  log delivery
    ->  publish ]

What stands in brackets is one write transaction of the database; a revocation is another. Whichever is first is seen
whole by the other, so after a revocation has been answered nothing of that consent is published any more.
"""

from __future__ import annotations

import logging
import queue
import secrets
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from api.engine.driving import DRIVER_USE_KIND, Driving, driver_facts
from api.engine.facts import gather
from api.engine.signing import check_can_sign
from api.engine.standing import ClientSuspendedError as ClientSuspendedError
from api.engine.standing import ConsentWithdrawnError as ConsentWithdrawnError
from api.engine.standing import check_client as check_client
from api.engine.standing import check_consent as check_consent
from api.engine.worker import Produced
from api.errors import ApiError, BusyError, NotFoundError, RefusedError, StoreUnreachableError
from api.faces import NOBODY_ELSE, Bystanders, Likeness
from api.storage.models import Client, Consent, Mark, Portrait, Render, Subject, Use
from policy.canonical import sha256_hex
from policy.decision import ACTION_LIVE, ACTION_RENDER, Facts, RenderRequest
from policy.gate import MAX_RULING_AGE_S, Ruling
from policy.identity import Actor

if TYPE_CHECKING:
    from api.service import Service

logger = logging.getLogger("placet.renders")

QUEUED, RUNNING, DELIVERED, REFUSED, FAILED = "queued", "running", "delivered", "refused", "failed"
_RETRY_AFTER_S = 15
_LOOK_AGAIN_S = 2.0
_RULING_FRESH_S = MAX_RULING_AGE_S / 2


class PortraitNotEnrolledError(ApiError):
    """The decision was about a portrait of which only the hash is known."""

    code = "portrait.not_enrolled"


@dataclass(frozen=True)
class RenderJob:
    """An allowed request on its way to the worker. Inputs live here, in memory, and nowhere else."""

    render_id: str
    ruling: Ruling
    portrait: bytes | None
    speech: bytes
    controls: dict[str, Any]
    mark_id: str
    consent: dict[str, Any] | None
    template: bytes | None = None
    bystanders: Bystanders = NOBODY_ELSE
    driving: Driving | None = None
    driver_consent: dict[str, Any] | None = None


@dataclass(frozen=True)
class Submission:
    """A request whose inputs were taken in and normalised.

    Attributes:
        portrait: normalised PNG, or None to use the enrolled portrait with `portrait_sha256`.
        template: of the face in `portrait` that is meant; None to use that of the enrolled portrait, if there is one.
        bystanders: the other faces in it.
        driving: the driving clip, taken in; None for speech alone.
        speech: 16 kHz mono PCM16 WAV; for a live session its terms, see `generator.live_terms`.
        speech_s: how long it lasts; a live session at most.
        attested_class: the operator's word on what the portrait is, for the action evaluate.
    """

    subject_id: str | None
    portrait: bytes | None
    portrait_sha256: str
    speech: bytes
    speech_s: float
    purpose: str
    controls: dict[str, Any]
    action: str = ACTION_RENDER
    attested_class: str = ""
    template: bytes | None = None
    bystanders: Bystanders = NOBODY_ELSE
    driving: Driving | None = None


class RenderEngine:
    """Takes submissions, keeps the queue, runs one job at a time on the worker."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._queue: queue.Queue[RenderJob | None] = queue.Queue()
        self._progress: dict[str, float] = {}
        self._thread: threading.Thread | None = None

    @property
    def num_waiting(self) -> int:
        """Jobs in the queue."""
        return self._queue.qsize()

    # -- deciding

    def submit(self, actor: Actor, submission: Submission) -> str:
        """Decide, log, and queue. Returns the render id.

        Raises: RefusedError, with every reason; BusyError; SigningError: the result could not be signed.
        """
        if self.num_waiting >= self._service.settings.render_queue:
            raise BusyError(_RETRY_AFTER_S)
        check_can_sign(self._service.instance.pki)
        job = self.decide(actor, submission)
        self._queue.put(job)
        return job.render_id

    def decide(self, actor: Actor, submission: Submission) -> RenderJob:
        """Rule on a submission and put the outcome on record; raises RefusedError unless it is allowed."""
        service = self._service
        request = RenderRequest.of(
            actor,
            subject_id=submission.subject_id,
            portrait_sha256=submission.portrait_sha256,
            speech_sha256=sha256_hex(submission.speech),
            controls=submission.controls,
            purpose=submission.purpose,
            duration_s=submission.speech_s,
            action=submission.action,
            driver_id=None if submission.driving is None else submission.driving.driver_id,
            driving_sha256=None if submission.driving is None else submission.driving.sha256,
        )
        with service.database.write() as session:
            facts, consent = gather(
                session,
                request,
                now=service.now(),
                max_duration_s=self._longest_s(submission.action),
                likeness=self._likeness(session, submission, request),
                attested_class=submission.attested_class,
            )
            facts, driver_consent = self._with_driver(session, request, facts, submission.driving)
            ruling = service.gate.rule(request, facts)
            allowed = ruling.decision.allowed
            render_id = f"ren_{secrets.token_hex(8)}" if allowed else None
            consent_id = consent.consent_id if consent is not None else None
            kind = "decision.allowed" if allowed else "decision.refused"
            if submission.subject_id is not None and session.get(Subject, submission.subject_id) is not None:
                self._note_use(
                    session,
                    ruling.evidence.index,
                    kind,
                    submission.subject_id,
                    actor,
                    submission.purpose,
                    render_id,
                    consent_id,
                )
            driver_id = request.driver_id
            if driver_id is not None and session.get(Subject, driver_id) is not None:
                self._note_driver(
                    session,
                    ruling.evidence.index,
                    kind,
                    driver_id,
                    actor,
                    submission.purpose,
                    render_id,
                    None if driver_consent is None else driver_consent.consent_id,
                    reasons=ruling.decision.codes,
                )
            if render_id is not None:
                job = self._enter(session, actor, submission, ruling, consent, driver_consent, render_id)
        if render_id is None:
            service.metrics.count("placet_renders_total", outcome="refused")
            raise refusal(ruling)
        return job

    def _enter(
        self,
        session: Session,
        actor: Actor,
        submission: Submission,
        ruling: Ruling,
        consent: Consent | None,
        driver_consent: Consent | None,
        render_id: str,
    ) -> RenderJob:
        """Put an allowed request on record, with the watermark id that it will carry."""
        mark_id = self._fresh_mark_id(session)
        now = self._service.now()
        session.add(
            Render(
                worker=self._service.settings.worker_name,
                render_id=render_id,
                client_id=actor.client_id,
                subject_id=submission.subject_id,
                action=submission.action,
                purpose=submission.purpose,
                controls=submission.controls,
                portrait_sha256=submission.portrait_sha256,
                speech_sha256=sha256_hex(submission.speech),
                speech_s=submission.speech_s,
                consent_id=consent.consent_id if consent is not None else None,
                consent_epoch=consent.epoch if consent is not None else 0,
                driving_sha256=None if submission.driving is None else submission.driving.sha256,
                driver_id=None if submission.driving is None else submission.driving.driver_id,
                driver_consent_id=None if driver_consent is None else driver_consent.consent_id,
                driver_consent_epoch=0 if driver_consent is None else driver_consent.epoch,
                status=QUEUED,
                decision_index=ruling.evidence.index,
                mark_id=mark_id,
                created_at=now,
            )
        )
        session.flush()
        session.add(Mark(mark_id=mark_id, render_id=render_id, created_at=now))
        return RenderJob(
            render_id=render_id,
            ruling=ruling,
            portrait=submission.portrait or self._enrolled_portrait(session, submission),
            speech=submission.speech,
            controls=submission.controls,
            mark_id=mark_id,
            consent=_stated(consent, submission.purpose),
            template=submission.template,
            bystanders=submission.bystanders,
            driving=submission.driving,
            driver_consent=_stated(driver_consent, submission.purpose),
        )

    def _with_driver(
        self, session: Session, request: RenderRequest, facts: Facts, driving: Driving | None, besides: str = ""
    ) -> tuple[Facts, Consent | None]:
        """The facts with those about the driver, and the driver's consent; as they are where nobody drives."""
        if driving is None:
            return facts, None
        now = self._service.now()
        driver, consent = driver_facts(session, self._service.faces, request, driving, now=now, besides=besides)
        return replace(facts, driver=driver), consent

    def _likeness(self, session: Session, asked: Submission | RenderJob, request: RenderRequest) -> Likeness:
        """Whose face the portrait shows, by the template of what was sent or of what is enrolled under its hash."""
        faces = self._service.faces
        template = asked.template or faces.of_portrait(session, request.portrait_sha256)
        return faces.look(session, template, request.subject_id, asked.bystanders)

    def _enrolled_portrait(self, session: Session, submission: Submission) -> bytes | None:
        portrait = session.get(Portrait, submission.portrait_sha256)
        if portrait is None or portrait.subject_id != submission.subject_id:
            return None
        return self._service.enrolment.open_portrait(portrait)

    @staticmethod
    def _fresh_mark_id(session: Session) -> str:
        while True:
            mark_id = secrets.token_hex(8)
            if session.get(Mark, mark_id) is None:
                return mark_id

    # -- working

    def start(self) -> None:
        """Start the thread that works the queue off."""
        self._thread = threading.Thread(target=self._work, name="renders", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Take no further job; the current one ends when its worker does."""
        self._queue.put(None)

    def join(self, timeout_s: float) -> None:
        """Wait until the current job is on record."""
        if self._thread is not None:
            self._thread.join(timeout_s)

    def progress(self, render_id: str) -> float | None:
        """How far a running render is, 0..1."""
        return self._progress.get(render_id)

    def _work(self) -> None:
        unclosed: list[str] = []
        while True:
            try:
                job = self._queue.get(timeout=_LOOK_AGAIN_S if unclosed else None)
            except queue.Empty:
                unclosed = [render_id for render_id in unclosed if not self._is_closed_late(render_id)]
                continue
            if job is None:
                return
            try:
                self.run(job)
            except StoreUnreachableError:
                logger.warning("render %s ends when the storage answers again", job.render_id)
                unclosed.append(job.render_id)
            except Exception:
                logger.exception("render %s could not be closed; the next start will do it", job.render_id)

    def _is_closed_late(self, render_id: str) -> bool:
        """Close what ended while the storage was away, unless it was delivered in its last moment."""
        try:
            with self._service.database.read() as session:
                status = session.get_one(Render, render_id).status
            if status in (QUEUED, RUNNING):
                sentence = "The storage of the service was away for a moment: ask again."
                self.close(render_id, FAILED, StoreUnreachableError.code, sentence)
        except StoreUnreachableError:
            return False
        return True

    def run(self, job: RenderJob) -> None:
        """Bring one job to an end: delivered, refused or failed, each with its log entry."""
        staged = self._service.settings.staging_dir / f"{job.render_id}.mp4"
        try:
            self.begin(job)
            produced = self._render(job, staged)
            self.deliver(job, produced)
            self._service.metrics.count("placet_renders_total", outcome=DELIVERED)
        except (ConsentWithdrawnError, RefusedError) as error:
            self.close(job.render_id, REFUSED, error.code, str(error))
        except Exception as error:
            if not hasattr(error, "code"):
                logger.exception("render %s failed", job.render_id)
            code = str(getattr(error, "code", "internal"))
            detail = str(error) if hasattr(error, "code") else "Something went wrong on our side."
            self.close(job.render_id, FAILED, code, detail)
        finally:
            # whatever a lost worker left of it, finished or not
            for leftover in staged.parent.glob(f"*{job.render_id}*"):
                leftover.unlink(missing_ok=True)
            self._progress.pop(job.render_id, None)

    def begin(self, job: RenderJob) -> None:
        with self._service.database.write() as session:
            render = session.get_one(Render, job.render_id)
            check_client(session, render)
            check_consent(session, render)
            render.status = RUNNING
            render.started_at = self._service.now()
        if job.portrait is None:
            raise PortraitNotEnrolledError("Only the hash of this portrait is known: send the portrait file itself.")

    def _render(self, job: RenderJob, staged: Path) -> Produced:
        service = self._service
        assert job.portrait is not None

        def remember(fraction: float) -> None:
            self._progress[job.render_id] = fraction

        return service.worker.render(
            lambda: self.authorise(job, service.worker.name),
            portrait=job.portrait,
            speech=job.speech,
            controls=job.controls,
            consent=job.consent,
            driving=None if job.driving is None else job.driving.movement,
            driver_consent=job.driver_consent,
            dst=staged,
            on_progress=remember,
        )

    def authorise(self, job: RenderJob, worker: str) -> tuple[str, dict[str, Any]]:
        """A permit for one job on one worker, and the proof that its decision is in the log.

        Raises: ConsentWithdrawnError, RefusedError: what was allowed is allowed no more. PermitRefusedError.
        """
        service, ruling = self._service, self._fresh_ruling(job)
        permit = service.gate.permit(
            ruling,
            worker=worker,
            portrait_sha256=ruling.request.portrait_sha256,
            speech_sha256=ruling.request.speech_sha256,
            controls=job.controls,
            mark_id=job.mark_id,
            driving_sha256=ruling.request.driving_sha256,
        )
        # under the newest cosigned checkpoint where one covers it: the manifest carries it out into the world
        return permit, service.witnessing.evidence(ruling.evidence.index).to_json()

    def _longest_s(self, action: str) -> float:
        settings = self._service.settings
        return settings.max_live_s if action == ACTION_LIVE else settings.max_speech_s

    def _fresh_ruling(self, job: RenderJob) -> Ruling:
        """The ruling of a job: its own while that is young, a new one, logged again, after a wait in the queue.

        Raises: RefusedError: what was allowed is allowed no more.
        """
        service = self._service
        if service.now() - job.ruling.facts.now <= _RULING_FRESH_S:
            with service.database.read() as session:
                check_consent(session, session.get_one(Render, job.render_id))
            return job.ruling
        with service.database.write() as session:
            render = session.get_one(Render, job.render_id)
            facts, _ = gather(
                session,
                job.ruling.request,
                now=service.now(),
                max_duration_s=self._longest_s(job.ruling.request.action),
                likeness=self._likeness(session, job, job.ruling.request),
                attested_class=job.ruling.facts.attested_class,
                besides=job.render_id,
            )
            facts, _ = self._with_driver(session, job.ruling.request, facts, job.driving, job.render_id)
            ruling = service.gate.rule(job.ruling.request, facts)
            render.decision_index = ruling.evidence.index
            kind = "decision.allowed" if ruling.decision.allowed else "decision.refused"
            self.note_use_of(session, render, ruling.evidence.index, kind)
        if not ruling.decision.allowed:
            raise refusal(ruling)
        return ruling

    def deliver(self, job: RenderJob, produced: Produced) -> None:
        """Check the consent a last time, log, publish: one transaction."""
        service = self._service
        manifest_sha256 = service.blobs.put(produced.manifest_store)
        with service.database.write() as session:
            render = session.get_one(Render, job.render_id)
            # (1) a revocation or suspension that came first stops it here; one that comes later waits for us
            check_client(session, render)
            check_consent(session, render)
            # (2) the entry, durable before anybody can see the file
            evidence = service.gate.record(
                "delivery",
                {
                    "decision_index": render.decision_index,
                    "video_sha256": produced.sha256,
                    "manifest_id": produced.manifest_id,
                    "manifest_sha256": manifest_sha256,
                    "mark_id": render.mark_id,
                    "num_frames": produced.num_frames,
                },
            )
            # (3) the file, by one rename
            service.blobs.adopt(produced.path, produced.sha256)
            render.status = DELIVERED
            render.delivery_index = evidence.index
            render.manifest_id = produced.manifest_id
            render.manifest_sha256 = manifest_sha256
            render.video_sha256 = produced.sha256
            render.num_frames = produced.num_frames
            render.duration_s = produced.duration_s
            render.finished_at = service.now()
            self.note_use_of(session, render, evidence.index, "delivery")

    def close(self, render_id: str, status: str, code: str, detail: str) -> None:
        """Put the end of a render that delivers nothing on record, log first."""
        service = self._service
        service.metrics.count("placet_renders_total", outcome=status)
        with service.database.write() as session:
            render = session.get_one(Render, render_id)
            evidence = service.gate.record(
                f"render.{status}", {"decision_index": render.decision_index, "code": code, "mark_id": render.mark_id}
            )
            render.status = status
            render.closing_index = evidence.index
            render.failure_code = code
            render.failure_detail = detail
            render.finished_at = service.now()
            self.note_use_of(session, render, evidence.index, f"render.{status}")

    # -- after a crash

    def recover(self) -> None:
        """Close what was under way here when the service stopped, and remove files that no delivery stands behind."""
        service = self._service
        with service.database.read() as session:
            ours = Render.worker.in_((service.settings.worker_name, ""))
            unfinished = session.scalars(
                select(Render.render_id).where(Render.status.in_((QUEUED, RUNNING)), ours)
            ).all()
        for render_id in unfinished:
            self.close(
                render_id, FAILED, "render.interrupted", "The service stopped before this was finished: ask again."
            )
        with service.database.read() as session:
            known = {
                name
                for column in (Render.video_sha256, Render.manifest_sha256, Portrait.sealed_blob)
                for name in session.scalars(select(column).where(column.is_not(None)))
            }
        for name in list(service.blobs.names(older_than_s=service.left_alone_s)):
            if name not in known:
                service.blobs.remove(name)

    # -- reading

    def find(self, render_id: str, client_id: str) -> Render:
        """A render of this client. Raises NotFoundError for those of others too."""
        with self._service.database.read() as session:
            render = session.get(Render, render_id)
        if render is None or render.client_id != client_id:
            raise NotFoundError("This client has no such render.")
        return render

    def released(self, render_id: str, client_id: str) -> Render:
        """A delivered render whose consent still stands. Raises NotFoundError, ConsentWithdrawnError."""
        render = self.find(render_id, client_id)
        if render.status != DELIVERED:
            raise NotFoundError(f"This render is {render.status}; there is no video.")
        if render.video_sha256 is None:
            raise NotFoundError("This live session was not recorded; there is no video.")
        with self._service.database.read() as session:
            check_consent(session, render)
        return render

    def check_still_released(self, render_id: str) -> None:
        """Whether a delivery that has begun may go on. Raises ConsentWithdrawnError."""
        with self._service.database.read() as session:
            render = session.get_one(Render, render_id)
            check_consent(session, render)
            if render.status != DELIVERED:
                raise ConsentWithdrawnError(
                    "The person shown has had their data erased: nothing is given out any more."
                )

    def note_stopped(self, render_id: str, code: str, num_bytes: int) -> int:
        """Put on record that a delivery ended before its end. Returns the log index."""
        service = self._service
        service.metrics.count("placet_deliveries_stopped_total", code=code)
        with service.database.write() as session:
            render = session.get_one(Render, render_id)
            evidence = service.gate.record(
                "delivery.stopped",
                {
                    "delivery_index": render.delivery_index,
                    "mark_id": render.mark_id,
                    "code": code,
                    "num_bytes": num_bytes,
                },
            )
            self.note_use_of(session, render, evidence.index, "delivery.stopped")
        return evidence.index

    def note_use_of(self, session: Session, render: Render, log_index: int, kind: str) -> None:
        """Let the person shown see a log entry about a render of theirs, if anybody is enrolled."""
        if render.subject_id is None and render.driver_id is None:
            return
        by = self._service.clients.find(render.client_id)
        about: tuple[Actor | Client, str, str | None] = (by, render.purpose, render.render_id)
        if render.subject_id is not None:
            self._note_use(session, log_index, kind, render.subject_id, *about, render.consent_id)
        if render.driver_id is not None:
            self._note_driver(session, log_index, kind, render.driver_id, *about, render.driver_consent_id)

    def _note_use(
        self,
        session: Session,
        log_index: int,
        kind: str,
        subject_id: str,
        by: Actor | Client,
        purpose: str,
        render_id: str | None,
        consent_id: str | None,
    ) -> None:
        session.add(
            Use(
                log_index=log_index,
                subject_id=subject_id,
                kind=kind,
                org=by.org,
                client_id=by.client_id,
                purpose=purpose[:200],
                render_id=render_id,
                consent_id=consent_id,
                created_at=self._service.now(),
            )
        )

    def _note_driver(
        self,
        session: Session,
        of_index: int,
        kind: str,
        driver_id: str,
        by: Actor | Client,
        purpose: str,
        render_id: str | None,
        consent_id: str | None,
        reasons: Sequence[str] = (),
    ) -> None:
        """The same for the driver of a clip, under a log entry of its own."""
        gate = self._service.gate
        body = {"of": of_index, "use": kind, "driver": gate.pseudonym("subject", driver_id), "reasons": list(reasons)}
        log_index = gate.record(DRIVER_USE_KIND, body).index
        self._note_use(session, log_index, kind, driver_id, by, purpose, render_id, consent_id)


def _stated(consent: Consent | None, purpose: str) -> dict[str, Any] | None:
    """What a manifest says of a consent."""
    if consent is None:
        return None
    return {
        "sha256": consent.sha256,
        "epoch": consent.epoch,
        "purpose": purpose,
        "expires_at": int(consent.statement["expires_at"]),
    }


def refusal(ruling: Ruling) -> RefusedError:
    """A refusal as an error: all reasons, and where the decision is logged."""
    reasons = [reason.to_json() for reason in ruling.decision.reasons]
    return RefusedError(
        " ".join(reason.sentence for reason in ruling.decision.reasons),
        extras={"reasons": reasons, "log_index": ruling.evidence.index},
    )
