"""Shared parts of the policy tests: one key ring, a clock that is set by hand, a subject with a signed consent."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from policy.consent import PURPOSE_RESEARCH, Consent, ConsentStatement, new_subject_key, public_jwk, sign_statement
from policy.consent import verify_consent as verify
from policy.decision import ConsentFacts, Facts, PolicyEngine, RenderRequest
from policy.gate import Gate
from policy.identity import SCOPE_RENDER_CREATE, Actor
from policy.keys import KeyRing
from policy.log import Log

ORIGIN = "placet.test/log"
PORTRAIT, SPEECH, CONTROLS = b"a portrait", b"a speech track", {"seed": 7, "intensity": 0.5}
START = 1_790_000_000


def hex_of(data: bytes) -> str:
    return sha256(data).hexdigest()


class Clock:
    """Unix time that moves only when told to."""

    def __init__(self, now: float = START) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@dataclass(frozen=True)
class Subject:
    private_jwk: dict[str, Any]
    consent: Consent

    @property
    def public_jwk(self) -> dict[str, Any]:
        return public_jwk(self.private_jwk)


def statement(**changes: Any) -> ConsentStatement:
    """A consent to `PORTRAIT` for `PURPOSE_RESEARCH` by client-1 of uni."""
    values: dict[str, Any] = {
        "subject_id": "alice",
        "grantee_org": "uni",
        "grantee_client": "client-1",
        "purposes": (PURPOSE_RESEARCH,),
        "portraits": (hex_of(PORTRAIT),),
        "controls": ("intensity", "seed"),
        "not_before": START - 100,
        "expires_at": START + 1000,
        "max_uses": 3,
        "epoch": 0,
        "text_version": "2026-11",
        "language": "en",
    }
    return ConsentStatement(**values | changes)


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> KeyRing:
    return KeyRing.create(tmp_path_factory.mktemp("ring") / "keys")


@pytest.fixture(scope="session")
def engine() -> PolicyEngine:
    return PolicyEngine.load()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def log(tmp_path: Path, keys: KeyRing, clock: Clock) -> Log:
    return Log.create(tmp_path / "log", keys.log_key, ORIGIN, now=clock)


@pytest.fixture
def gate(engine: PolicyEngine, log: Log, keys: KeyRing, clock: Clock) -> Gate:
    return Gate(engine, log, keys, clock)


@pytest.fixture(scope="session")
def subject() -> Subject:
    key = new_subject_key()
    return Subject(key, verify(sign_statement(statement(), key), public_jwk(key), START))


@pytest.fixture
def request_() -> RenderRequest:
    actor = Actor("client-1", "uni", frozenset({SCOPE_RENDER_CREATE}))
    return RenderRequest.of(
        actor,
        subject_id="alice",
        portrait_sha256=hex_of(PORTRAIT),
        speech_sha256=hex_of(SPEECH),
        controls=CONTROLS,
        purpose=PURPOSE_RESEARCH,
        duration_s=5.0,
    )


@pytest.fixture
def facts(subject: Subject) -> Facts:
    return Facts(
        subject_class="adult",
        face_match="match",
        consent=ConsentFacts.of(subject.consent, uses=0, revoked=False),
        vetting="approved",
        vetting_expires_at=START + 500,
        budget_ms=60_000,
        budget_used_ms=0,
        streams=0,
        max_streams=2,
        max_duration_ms=30_000,
        now=START,
    )
