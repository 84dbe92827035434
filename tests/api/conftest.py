"""One real server for all tests of the service: a new instance in a temporary home, uvicorn on a free port.

Every test talks HTTP to it, as a stranger would. `service` is the same service seen from inside, for what cannot be
seen from outside (the log, the worker).
"""

from __future__ import annotations

import io
import os
import socket
import threading
import time
import wave
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import uvicorn

from api.app import create_app
from api.client import Credentials, Enrolled, PlacetClient
from api.clients import SCOPES_BY_KIND
from api.service import Service
from api.settings import Settings
from api.setup import create_instance
from policy.consent import new_subject_key
from tests.faces import another_face

if TYPE_CHECKING:
    from tests.api.arena import Arena
    from tests.simulators.stores import Stores


@dataclass(frozen=True)
class Running:
    """A server that is up."""

    url: str
    settings: Settings
    service: Service

    def kinds_since(self, size: int) -> list[str]:
        """Kinds of the log entries from number `size` on."""
        return [entry["kind"] for entry in self.service.log.entries(size, 1000)]


SHARED_STORES: Stores | None = None
"""Set where the suite is played on PostgreSQL and S3 instead of files: `PLACET_TEST_STORES=shared pytest tests/api`."""
_stores_of: dict[Path, dict[str, Any]] = {}


@pytest.fixture(scope="session", autouse=True)
def stores() -> Iterator[None]:
    """The stores that all instances of this run are made on."""
    global SHARED_STORES
    if os.environ.get("PLACET_TEST_STORES") != "shared":
        yield
        return
    from tests.simulators.stores import running_stores

    with running_stores() as SHARED_STORES:
        yield


@contextmanager
def serving(home: Path, **changes: Any) -> Iterator[Running]:
    """A new instance in `home`, served on a free port for as long as the block lasts.

    Args:
        changes: settings other than those that suit most tests.
    """
    listener = socket.create_server(("127.0.0.1", 0))
    given: dict[str, Any] = {
        "threads": 1,
        "prewarm": False,
        "token_requests_per_minute": 100_000,
        "enrolments_per_minute": 10_000,
        "applications_per_minute": 10_000,
        "detections_per_minute": 10_000,
        "detection_wait_s": 300.0,
        "public_detections_per_minute": 10_000,
        "rejections_logged_per_minute": 10_000,
        "max_speech_s": 30.0,
        "max_portrait_bytes": 4 * 1024 * 1024,
        "max_speech_bytes": 10 * 1024 * 1024,
    }
    if SHARED_STORES is not None and not home.exists():
        _stores_of[home] = SHARED_STORES.new()
    given |= _stores_of.get(home, {})
    settings = Settings(home=home, port=listener.getsockname()[1], **(given | changes))
    if not home.exists():
        create_instance(settings, "tests")
    app = create_app(settings)
    running = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
    thread = threading.Thread(target=running.run, args=([listener],), daemon=True)
    thread.start()
    while not running.started:
        assert thread.is_alive(), "the server did not start"
        time.sleep(0.02)
    try:
        yield Running(settings.base_url, settings, app.state.service)
    finally:
        running.should_exit = True
        thread.join(20)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """The server that all tests share."""
    with serving(tmp_path_factory.mktemp("instance") / "home") as running:
        yield running


@pytest.fixture(scope="session")
def operator(server: Running) -> Iterator[PlacetClient]:
    """The local operator."""
    with PlacetClient(server.url, Credentials.load(server.settings.operator_key_path)) as client:
        yield client


def vetted(server: Running, operator: PlacetClient, kind: str, **changes: object) -> PlacetClient:
    """A new client of one kind, approved by the operator."""
    key = new_subject_key()
    application = {
        "kind": kind,
        "name": f"a {kind}",
        "org": "university",
        "scopes": sorted(SCOPES_BY_KIND[kind]),
        "jwks": Credentials("", key).public_jwks,
        **changes,
    }
    made = operator.register_client(**application)
    return PlacetClient(server.url, Credentials(made["client_id"], key))


@pytest.fixture(scope="session")
def researcher(server: Running, operator: PlacetClient) -> PlacetClient:
    """A vetted researcher."""
    return vetted(server, operator, "researcher")


@pytest.fixture(scope="session")
def stranger(server: Running, operator: PlacetClient) -> PlacetClient:
    """A vetted researcher of another organisation, to whom nobody has consented."""
    return vetted(server, operator, "researcher", org="elsewhere")


@pytest.fixture(scope="session")
def auditor(server: Running, operator: PlacetClient) -> PlacetClient:
    """A vetted auditor."""
    return vetted(server, operator, "auditor")


@pytest.fixture(scope="session")
def portrait() -> bytes:
    """The portrait of a shipped persona: nobody."""
    from generator.personas import list_personas

    return list_personas()[0].portrait()


def altered(portrait: bytes, value: int) -> bytes:
    """Another portrait, of another face."""
    return another_face(portrait, value)


@pytest.fixture(scope="session")
def speech() -> bytes:
    """A second and a half of something speech-like: a buzz under a syllable envelope, WAV."""
    return make_wav(1.6)


def make_wav(duration_s: float, rate_hz: int = 16_000, num_channels: int = 1, amplitude: float = 0.4) -> bytes:
    """A test sound as WAV."""
    times_N = np.arange(round(duration_s * rate_hz)) / rate_hz
    buzz_N = sum(np.sin(2 * np.pi * 120 * harmonic * times_N) / harmonic for harmonic in range(1, 12))
    samples_N = amplitude * buzz_N * (0.5 - 0.5 * np.cos(2 * np.pi * 4 * times_N))
    frames = np.repeat((np.clip(samples_N, -1, 1) * 32767).astype("<i2")[:, None], num_channels, axis=1)
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(num_channels)
        file.setsampwidth(2)
        file.setframerate(rate_hz)
        file.writeframes(frames.tobytes())
    return out.getvalue()


@pytest.fixture(scope="session")
def subject(server: Running, portrait: bytes) -> Iterator[tuple[PlacetClient, Enrolled]]:
    """The persona, enrolled: its client and what came back."""
    with PlacetClient(server.url) as client:
        enrolled = client.enrol(
            portrait, subject_class="persona", rights_basis="made for this project, resembles nobody"
        )
        yield client, enrolled


@pytest.fixture
def home_of(server: Running) -> Path:
    """Home of the shared instance."""
    return server.settings.home


@pytest.fixture(scope="session")
def arena(
    server: Running,
    operator: PlacetClient,
    researcher: PlacetClient,
    stranger: PlacetClient,
    auditor: PlacetClient,
    subject: tuple[PlacetClient, Enrolled],
    portrait: bytes,
    speech: bytes,
) -> Arena:
    """The server, and everybody who is around."""
    from tests.api.arena import Arena

    return Arena(server, operator, researcher, stranger, auditor, subject[0], subject[1], portrait, speech)
