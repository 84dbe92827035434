"""The service: everything a request may need, built once from settings and a home directory, closed in one place."""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from sqlalchemy import select

from api.applications import ApplicationBook
from api.audit import AuditDesk
from api.clients import ClientDirectory
from api.consents import ConsentBook
from api.console.session import BrowserSessions
from api.detections.desk import DetectionDesk
from api.detections.webhooks import WebhookBook, WebhookSender
from api.engine.examiner import Examiner
from api.engine.intake import Intake
from api.engine.renders import RenderEngine
from api.engine.worker import Worker
from api.enrolment import Enrolment
from api.erasure import Eraser
from api.errors import BlobMissingError, ConflictError
from api.faces import FaceGallery
from api.invitations import InvitationBook
from api.limits import RateLimiter, RejectionLog, network_of
from api.live.desk import LiveDesk
from api.metrics import Metrics
from api.oauth.codes import CodeBook
from api.oauth.dpop import ProofBook
from api.oauth.issuers import OutsideIssuer
from api.oauth.keys import TokenKeys
from api.oauth.resource import AccessTokenValidator, BearerScheme, DPoPScheme, OwnIssuer
from api.oauth.server import EmbeddedServer
from api.passkeys import PasskeyBook, relying_party
from api.pseudonyms import SubjectPseudonyms
from api.resolver import ManifestRepository
from api.settings import Settings
from api.storage.blobs import BlobStore, open_blobs
from api.storage.database import Database
from api.storage.spent import SpentIds
from api.witnessing import WitnessAddress, Witnessing
from policy.errors import LogError
from policy.instance import Instance
from watermark.authority import load_certificate

_OTHERS_AT_WORK_S = 3600.0
_NO_BLOB = "0" * 64

logger = logging.getLogger("placet.service")


class Service:
    """Composition of one running instance.

    Args:
        settings: where and within which limits.
        now: clock, seconds since the epoch.
    """

    def __init__(self, settings: Settings, now: Callable[[], float] = time.time) -> None:
        self.settings = settings
        self.now = now
        self.issuer = settings.base_url
        self.database = Database.open(settings.addresses.database)
        self.instance = Instance.open(settings.home, policies=settings.policies, access=settings.key_access, now=now)
        self.keys = self.instance.keys
        self.log = self.instance.log
        self.gate = self.instance.gate
        self.gate.use_pseudonyms(SubjectPseudonyms(self.database, self.keys))
        self.blobs: BlobStore = open_blobs(settings.addresses.blobs)
        self.metrics = Metrics()
        self.spent = SpentIds(self.database, now)
        self.clients = ClientDirectory(self.database, self.gate, now)
        self.applications = ApplicationBook(self.database, self.gate, self.clients, now)
        self.limiter = RateLimiter(settings.rates_per_minute)
        self.rejections, self.refused_inputs = (
            RejectionLog(
                lambda kind, body: self.gate.record(kind, body).index,
                kind=kind,
                num_single=settings.rejections_logged_per_minute,
                num_single_total=20 * settings.rejections_logged_per_minute,
            )
            for kind in ("token.rejected", "input.refused")
        )
        token_keys = TokenKeys(self.keys.service)
        proofs = ProofBook(self.spent, now, lifetime_s=settings.proof_lifetime_s, leeway_s=settings.clock_leeway_s)
        self.tokens = AccessTokenValidator(
            issuers=(OwnIssuer(self.issuer, token_keys), *self._outside_issuers()),
            spent=self.spent,
            is_live=self.clients.is_live,
            now=now,
            leeway_s=settings.clock_leeway_s,
            schemes=(BearerScheme(), DPoPScheme(proofs)),
        )
        self.oauth = EmbeddedServer(
            issuer=self.issuer,
            keys=token_keys,
            find_client=self.clients.oauth_client,
            spent=self.spent,
            proofs=proofs,
            codes=CodeBook(self.database, self.spent, now, token_lifetime_s=settings.token_lifetime_s),
            introspect=self.tokens.inspect,
            may_introspect=lambda client_id: self.clients.find(client_id).kind == "operator",
            on_rejection=lambda code, request: self.record_rejection(
                code, request.unverified_client_id, request.path, request.address
            ),
            now=now,
            lifetime_s=settings.token_lifetime_s,
            leeway_s=settings.clock_leeway_s,
        )
        self.trust_roots_pem = trust_roots_pem(self.instance.pki, settings)
        self.manifests = ManifestRepository(self.database, self.blobs, self.trust_roots_pem.decode())
        self.intake = Intake(settings)
        self.worker = Worker(settings, self.instance)
        self.examiner = Examiner(settings, self.keys, self.trust_roots_pem)
        self.passkeys = PasskeyBook(
            database=self.database,
            gate=self.gate,
            site=relying_party(self.issuer),
            is_live=self.clients.is_live,
            now=now,
            challenge_lifetime_s=settings.challenge_lifetime_s,
        )
        self.sessions = BrowserSessions(
            self.database, self.gate, now, idle_s=settings.session_idle_s, lifetime_s=settings.session_lifetime_s
        )
        self.invitations = InvitationBook(
            self.database,
            self.gate,
            self.passkeys,
            now,
            lifetime_s=settings.invitation_lifetime_s,
            researcher_budget_s=settings.budget_s_per_day,
        )
        self.consents = ConsentBook(self.database, self.gate, self.passkeys, self.clients.display_name, now)
        self.faces = FaceGallery(self.database, self.keys)
        self.enrolment = Enrolment(
            database=self.database,
            blobs=self.blobs,
            gate=self.gate,
            keys=self.keys,
            clients=self.clients,
            passkeys=self.passkeys,
            faces=self.faces,
            intake=self.intake,
            worker=self.worker,
            now=now,
            challenge_lifetime_s=settings.challenge_lifetime_s,
        )
        self.witnessing = Witnessing(
            self.log,
            [WitnessAddress.parse(text) for text in settings.witnesses],
            required=settings.witness_required,
            directory=settings.witnesses_dir,
            now=now,
            timeout_s=settings.witness_timeout_s,
            interval_s=settings.witness_interval_s,
        )
        self.erasure = Eraser(self.database, self.blobs, self.gate, self.consents, now)
        self.audit = AuditDesk(
            self.instance,
            now=now,
            database=self.database,
            witnessing=self.witnessing,
            max_lag_s=settings.witness_lag_alarm_s,
        )
        self.renders = RenderEngine(self)
        self.live = LiveDesk(self)
        self.webhooks = WebhookBook(self.database, self.gate, now)
        self.webhook_sender = WebhookSender(token_keys.signer, now)
        self.detections = DetectionDesk(self)
        self._lock: int | None = None

    def start(self) -> None:
        """Put in order what a crash may have left, then start working.

        Raises: ConflictError: another server works on this home.
        """
        self._lock = take_home(self.settings.home, self.settings.worker_name if self.settings.is_shared else "")
        shutil.rmtree(self.settings.staging_dir, ignore_errors=True)
        self.settings.staging_dir.mkdir(mode=0o700, parents=True)
        self.blobs.sweep_partial(older_than_s=self.left_alone_s)
        self.renders.recover()
        self.witnessing.start()
        self.renders.start()
        if self.settings.prewarm:
            threading.Thread(target=self._prewarm, name="prewarm", daemon=True).start()

    def check_storage(self) -> None:
        """Raises StorageError where the database or the blobs do not answer."""
        with self.database.read() as session:
            session.execute(select(1))
        with suppress(BlobMissingError):
            self.blobs.num_bytes(_NO_BLOB)

    @property
    def left_alone_s(self) -> float:
        """Age from which a file without an owner is a leftover: where others write too, it may just be new."""
        return _OTHERS_AT_WORK_S if self.settings.is_shared else 0.0

    def close(self) -> None:
        """Stop the engine and let go of the files. What was running is closed as interrupted at the next start."""
        self.live.close()
        self.renders.stop()
        self.worker.close()
        self.detections.close()
        self.webhook_sender.close()
        for process in (*self.examiner.processes, self.intake.process):
            process.close()
        self.renders.join(10.0)
        self.rejections.close()
        self.refused_inputs.close()
        self.witnessing.close()
        self.audit.close()
        self.database.close()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def record_rejection(self, code: str, unverified_client_id: str, endpoint: str, address: str = "") -> int | None:
        """Log that somebody was not let in: a code and pseudonyms, never the token.

        Returns the log index, or None if so many came from this address that they are counted now (see `api.limits`).
        """
        self.metrics.count("placet_token_rejections_total", code=code)
        client = self.gate.pseudonym("client", unverified_client_id) if unverified_client_id else None
        return self.rejections.note(code, client=client, endpoint=endpoint, address=self._address(address))

    def record_refused_input(self, code: str, endpoint: str, address: str) -> int | None:
        """Log that an upload could not be used: never any of it. Returns as `record_rejection` does."""
        self.metrics.count("placet_refused_inputs_total", code=code)
        return self.refused_inputs.note(code, client=None, endpoint=endpoint, address=self._address(address))

    def _address(self, address: str) -> str:
        """Pseudonym of an address; empty if it is not known."""
        network = network_of(address)
        return self.gate.pseudonym("address", network) if network else ""

    def _outside_issuers(self) -> list[OutsideIssuer]:
        return [
            OutsideIssuer(
                config,
                own_issuer=self.issuer,
                find_client=self.clients.external_client,
                vetted=self.clients.scopes_and_org,
            )
            for config in self.settings.external_issuers
        ]

    def _prewarm(self) -> None:
        try:
            self.audit.catch_up()  # so that the first search need not
        except LogError as error:
            logger.warning("the search index is not built yet: %s", error.code)
        live = [worker.process for worker in self.live.workers[:1]]
        for process in (self.intake.process, self.worker.process, *live, *self.examiner.processes):
            try:
                process.start()
            except Exception:
                logger.exception("an engine process did not start; it is tried again with the next job")


def take_home(home: Path, worker_name: str = "") -> int:
    """Be the one server of a home, until the descriptor that is returned is closed.

    Args:
        worker_name: where several servers share the home, each has one of its own.
    Raises: ConflictError.
    """
    name = f"server-{worker_name}.lock" if worker_name else "server.lock"
    descriptor = os.open(home / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as exc:
        os.close(descriptor)
        raise ConflictError("Another server works on this home under this name already: stop it first.") from exc
    return descriptor


def trust_roots_pem(pki_dir: Path, settings: Settings) -> bytes:
    """Roots that a C2PA signature or time stamp must lead to, to be called trusted."""
    root = load_certificate(pki_dir / "root.pem").public_bytes(serialization.Encoding.PEM)
    return root + (settings.tsa_roots.read_bytes() if settings.tsa_roots is not None else b"")
