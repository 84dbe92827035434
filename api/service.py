"""The service: everything a request may need, built once from settings and a home directory, closed in one place."""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from joserfc.jwk import ECKey

from api.clients import ClientDirectory
from api.consents import ConsentBook
from api.engine.examiner import Examiner
from api.engine.intake import Intake
from api.engine.renders import RenderEngine
from api.engine.worker import Worker
from api.enrolment import Enrolment
from api.errors import ConflictError
from api.metrics import Metrics
from api.oauth.resource import AccessTokenValidator
from api.oauth.server import EmbeddedServer
from api.passkeys import PasskeyBook, relying_party
from api.settings import Settings
from api.storage.blobs import BlobStore
from api.storage.database import Database
from api.storage.spent import SpentIds
from policy.instance import Instance
from watermark.credentials import SigningAuthority

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
        self.database = Database.open(settings.database_path)
        self.instance = Instance.open(settings.home, now=now)
        self.keys = self.instance.keys
        self.log = self.instance.log
        self.gate = self.instance.gate
        self.blobs = BlobStore(settings.blobs_dir)
        self.metrics = Metrics()
        self.spent = SpentIds(self.database, now)
        self.clients = ClientDirectory(self.database, self.gate, now)
        key = oauth_key(self.keys.oauth_key)
        self.oauth = EmbeddedServer(
            issuer=self.issuer,
            key=key,
            find_client=self.clients.oauth_client,
            spent=self.spent,
            on_rejection=lambda code, reason, client: self.record_rejection(code, client, "/oauth/token"),
            now=now,
            lifetime_s=settings.token_lifetime_s,
            leeway_s=settings.clock_leeway_s,
        )
        self.tokens = AccessTokenValidator(
            issuer=self.issuer,
            keys=self.oauth.keys,
            spent=self.spent,
            is_live=self.clients.is_live,
            now=now,
            leeway_s=settings.clock_leeway_s,
        )
        self.trust_roots_pem = trust_roots_pem(self.instance.pki)
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
        self.consents = ConsentBook(self.database, self.gate, now)
        self.enrolment = Enrolment(
            database=self.database,
            blobs=self.blobs,
            gate=self.gate,
            keys=self.keys,
            clients=self.clients,
            intake=self.intake,
            worker=self.worker,
            now=now,
            challenge_lifetime_s=settings.challenge_lifetime_s,
        )
        self.renders = RenderEngine(self)
        self._lock: int | None = None

    def start(self) -> None:
        """Put in order what a crash may have left, then start working.

        Raises: ConflictError: another server works on this home.
        """
        self._lock = take_home(self.settings.home)
        shutil.rmtree(self.settings.staging_dir, ignore_errors=True)
        self.settings.staging_dir.mkdir(mode=0o700, parents=True)
        self.blobs.sweep_partial()
        self.renders.recover()
        self.renders.start()
        if self.settings.prewarm:
            threading.Thread(target=self._prewarm, name="prewarm", daemon=True).start()

    def close(self) -> None:
        """Stop the engine and let go of the files. What was running is closed as interrupted at the next start."""
        self.renders.stop()
        for process in (self.worker.process, self.examiner.process, self.intake.process):
            process.close()
        self.renders.join(10.0)
        self.database.close()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def record_rejection(self, code: str, unverified_client_id: str, endpoint: str) -> int:
        """Log that somebody was not let in: a code and a pseudonym, never the token. Returns the log index."""
        self.metrics.count("placet_token_rejections_total", code=code)
        client = self.gate.pseudonym("client", unverified_client_id) if unverified_client_id else None
        return self.gate.record("token.rejected", {"code": code, "client": client, "endpoint": endpoint}).index

    def _prewarm(self) -> None:
        for process in (self.intake.process, self.worker.process, self.examiner.process):
            try:
                process.start()
            except Exception:
                logger.exception("an engine process did not start; it is tried again with the next job")


def take_home(home: Path) -> int:
    """Be the one server of a home, until the descriptor that is returned is closed. Raises ConflictError."""
    descriptor = os.open(home / "server.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as exc:
        os.close(descriptor)
        raise ConflictError("Another server works on this home already: stop it, or choose another home.") from exc
    return descriptor


def oauth_key(private_key: object) -> ECKey:
    """The instance's P-256 key as a JWK with a `kid`."""
    pem = private_key.private_bytes(  # type: ignore[attr-defined]
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    key = ECKey.import_key(pem, {"use": "sig", "alg": "ES256"})
    key.ensure_kid()
    return key


def trust_roots_pem(pki_dir: Path) -> bytes:
    """Roots that a C2PA signature must lead to, to be called trusted."""
    root = SigningAuthority.load(pki_dir).root_pem
    return root if isinstance(root, bytes) else root.encode()
