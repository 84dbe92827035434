"""A portrait of nobody, and a real gate that lets tests render it: there is no ungated door, not even for tests."""

from __future__ import annotations

import io
import json
import time
import wave
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy import ndarray

from generator.personas import list_personas
from generator.portrait import Portrait, normalise_portrait, prepare
from policy.consent import PURPOSE_EVALUATION
from policy.facts import ACTION_EVALUATE, Facts, RenderRequest
from policy.gate import Ruling
from policy.identity import SCOPE_OPERATOR_ADMIN, Actor
from policy.instance import Instance
from policy.permit import Grant, PermitLedger, PermitVerifier

cv2.setNumThreads(1)
WORKER = "worker-of-the-tests"


@pytest.fixture(scope="session")
def portrait_png() -> bytes:
    """The normalised portrait of the first persona that ships."""
    return normalise_portrait(list_personas()[0].portrait())


@pytest.fixture(scope="session")
def portrait(portrait_png: bytes) -> Portrait:
    return prepare(portrait_png)


@pytest.fixture(scope="session")
def speech_wav() -> bytes:
    """Half a second of a hum, as normalised speech."""
    t = np.arange(8000) / 16000
    samples = (np.sin(2 * np.pi * 140 * t) * np.hanning(len(t)) * 12000).astype("<i2")
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16000)
        file.writeframes(samples.tobytes())
    return out.getvalue()


@dataclass(frozen=True)
class Gatekeeper:
    """A temporary instance whose operator evaluates synthetic portraits."""

    instance: Instance

    def rule(self, portrait: bytes, speech: bytes, controls: dict[str, Any]) -> Ruling:
        request = RenderRequest.of(
            Actor("operator", "tests", frozenset({SCOPE_OPERATOR_ADMIN}), frozenset({"operator"})),
            subject_id=None,
            portrait_sha256=sha256(portrait).hexdigest(),
            speech_sha256=sha256(speech).hexdigest(),
            controls=controls,
            purpose=PURPOSE_EVALUATION,
            duration_s=0.5,
            action=ACTION_EVALUATE,
        )
        facts = Facts(vetting="approved", max_duration_ms=60_000, budget_ms=60_000, attested_class="synthetic")
        return self.instance.gate.rule(request, facts)

    def permit(
        self, portrait: bytes, speech: bytes, controls: dict[str, Any], mark_id: str = "00c0ffee00c0ffee"
    ) -> tuple[str, Ruling]:
        """A permit, and the ruling that it rests on."""
        ruling = self.rule(portrait, speech, controls)
        assert ruling.decision.allowed, json.dumps([reason.code for reason in ruling.decision.reasons])
        token = self.instance.gate.permit(
            ruling,
            worker=WORKER,
            portrait_sha256=sha256(portrait).hexdigest(),
            speech_sha256=sha256(speech).hexdigest(),
            controls=controls,
            mark_id=mark_id,
        )
        return token, ruling

    def grant(self, portrait: bytes, speech: bytes = b"none") -> Grant:
        """A redeemed permit."""
        token, _ = self.permit(portrait, speech, {})
        ledger = PermitLedger(self.instance.ledger_path)
        verifier = PermitVerifier(self.instance.keys.permit_public, WORKER, ledger, time.time)
        return verifier.redeem(token, portrait=portrait, speech=speech, controls={})


@pytest.fixture(scope="session")
def gatekeeper(tmp_path_factory: pytest.TempPathFactory) -> Gatekeeper:
    return Gatekeeper(Instance.create(tmp_path_factory.mktemp("instance") / "home", "tests"))


@dataclass(frozen=True)
class Track:
    """A hand-made track of motion."""

    actions_T52: ndarray
    head_pose_T6: ndarray
    gaze_T2: ndarray
    distance_T: ndarray

    @classmethod
    def of(
        cls,
        *actions: ndarray,
        pose: tuple[float, ...] = (0.0,) * 6,
        gaze: tuple[float, float] = (0, 0),
        distance: float = 1.0,
    ) -> Track:
        n = len(actions)
        return cls(
            np.stack(actions),
            np.tile(np.float32(pose), (n, 1)),
            np.tile(np.float32(gaze), (n, 1)),
            np.full(n, distance, np.float32),
        )


Render = Callable[..., ndarray]


@pytest.fixture
def render(portrait: Portrait, portrait_png: bytes, gatekeeper: Gatekeeper, tmp_path: Path) -> Render:
    """Frames as a permitted render makes them. The pixels are taken from the marked, signed file's own door."""
    from generator.renderer import Renderer
    from watermark.mark import UnmarkedFrames

    def frames(track: Track, framing: str = "square") -> ndarray:
        grant = gatekeeper.grant(portrait_png, repr(np.random.default_rng().integers(1 << 40)).encode())
        chunks = Renderer(portrait, grant).frames(track, framing)  # type: ignore[arg-type]
        return np.concatenate([UnmarkedFrames._frames(chunk) for chunk in chunks])

    return frames
