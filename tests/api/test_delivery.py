"""Giving out a video: byte ranges, and what still leaves after a revocation, counted at both ends of a connection."""

from __future__ import annotations

import secrets
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from api.app import create_app
from api.cli.root import listen
from api.client import Credentials, PlacetClient
from api.engine import delivery
from api.engine.delivery import CHUNK_BYTES, RangeError, Span, span_of
from api.settings import Settings
from api.setup import create_instance
from api.storage.models import Consent, Render, Subject
from policy.consent import PURPOSE_RESEARCH
from policy.identity import SCOPE_RENDER_READ
from tests.api.conftest import Running, vetted

SIZE = 4_000_000
SEND_BUFFER_BYTES = 32 * 1024


@pytest.mark.parametrize(
    ("header", "first", "last"),
    [
        (None, 0, 99), ("bytes=0-", 0, 99), ("bytes=10-19", 10, 19), ("bytes=90-500", 90, 99), ("bytes=-10", 90, 99),
        ("bytes=-500", 0, 99), ("bytes=", 0, 99), ("bytes=-", 0, 99), ("items=1-2", 0, 99), ("bytes=1-2,5-6", 0, 99),
        ("bytes=9-3", 0, 99), ("bytes=a-b", 0, 99),
    ],
)  # fmt: skip
def test_ranges(header: str | None, first: int, last: int) -> None:
    assert span_of(header, 100) == Span(first, last, 100)


@pytest.mark.parametrize("header", ["bytes=100-", "bytes=500-600", "bytes=-0"])
def test_ranges_beyond_the_end(header: str) -> None:
    with pytest.raises(RangeError) as caught:
        span_of(header, 100)
    assert caught.value.headers == {"Content-Range": "bytes */100"}


class Delivery:
    """A delivered video of a subject who is on record, made without the minutes of making one."""

    def __init__(self, running: Running, client: PlacetClient) -> None:
        self.running, self.service, self.client = running, running.service, client
        self.video = secrets.token_bytes(SIZE)
        self.render_id, self.consent_id = f"ren_{secrets.token_hex(8)}", f"con_{secrets.token_hex(8)}"
        subject_id, now = f"sub_{secrets.token_hex(8)}", time.time()
        self.subject_id = subject_id
        assert client.credentials is not None
        service = self.service
        index = service.gate.record("delivery", {"of": "a test"}).index
        with service.database.write() as session:
            session.add(
                Subject(subject_id=subject_id, subject_class="persona", public_jwk={}, created_at=now, log_index=index)
            )
            session.flush()
            session.add(
                Consent(
                    consent_id=self.consent_id, subject_id=subject_id, sha256=secrets.token_hex(32), signed="",
                    statement={}, grantee_org="", grantee_client="", expires_at=int(now) + 99, epoch=0, created_at=now,
                    log_index=index,
                )
            )  # fmt: skip
            session.flush()
            session.add(
                Render(
                    render_id=self.render_id, client_id=client.credentials.client_id, subject_id=subject_id,
                    action="render", purpose=PURPOSE_RESEARCH, controls={}, portrait_sha256="0" * 64,
                    speech_sha256="0" * 64, speech_s=1.0, consent_id=self.consent_id, status="delivered",
                    decision_index=index, delivery_index=index, mark_id=secrets.token_hex(8), created_at=now,
                    video_sha256=service.blobs.put(self.video),
                )
            )  # fmt: skip

    @property
    def path(self) -> str:
        return f"/v1/renders/{self.render_id}/video"

    def revoke(self) -> None:
        """What a revocation commits (`ConsentBook.revoke`, tested with its signatures elsewhere)."""
        with self.service.database.write() as session:
            session.get_one(Consent, self.consent_id).revoked_at = time.time()

    def get(self, **headers: str) -> httpx.Response:
        authorization = self.client.authorization("GET", self.path, SCOPE_RENDER_READ)
        return httpx.get(self.running.url + self.path, headers={**authorization, **headers})


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Running, PlacetClient]]:
    """A server on a socket as `placet serve` makes it, with a small send buffer, and a vetted researcher."""
    listener = listen("127.0.0.1", 0, SEND_BUFFER_BYTES)
    settings = Settings(
        home=tmp_path_factory.mktemp("instance") / "home", port=listener.getsockname()[1], threads=1, prewarm=False
    )
    create_instance(settings, "tests")
    app = create_app(settings)
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical"))
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive(), "the server did not start"
        time.sleep(0.02)
    running = Running(settings.base_url, settings, app.state.service)
    with PlacetClient(running.url, Credentials.load(settings.operator_key_path)) as operator:
        yield running, vetted(running, operator, "researcher")
    server.should_exit = True
    thread.join(20)


def test_whole_and_in_parts(serving: tuple[Running, PlacetClient]) -> None:
    made = Delivery(*serving)
    whole = made.get()
    assert whole.status_code == 200 and whole.content == made.video
    assert whole.headers["content-type"] == "video/mp4" and whole.headers["accept-ranges"] == "bytes"
    assert whole.headers["cache-control"] == "no-store"
    part = made.get(Range="bytes=100000-299999")
    assert part.status_code == 206 and part.content == made.video[100_000:300_000]
    assert part.headers["content-range"] == f"bytes 100000-299999/{SIZE}"
    assert made.get(**{"Range": "bytes=5-9", "If-Range": '"another"'}).status_code == 200
    assert made.get(**{"Range": "bytes=5-9", "If-Range": whole.headers["etag"]}).status_code == 206
    beyond = made.get(Range=f"bytes={SIZE}-")
    assert beyond.status_code == 416 and beyond.json()["code"] == "request.range"


def test_after_a_revocation_at_most_one_chunk_leaves(
    serving: tuple[Running, PlacetClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Delivery(*serving)
    handed_out: list[tuple[float, int]] = []
    read_chunk = delivery.ConsentedVideo._checked_chunk

    def counting(self: Any, *arguments: Any) -> bytes | None:
        chunk = read_chunk(self, *arguments)
        handed_out.append((time.monotonic(), len(chunk or b"")))
        return chunk

    monkeypatch.setattr(delivery.ConsentedVideo, "_checked_chunk", counting)
    size = made.service.log.size
    with socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * 1024)
        slow.connect(("127.0.0.1", made.running.settings.port))
        authorization = made.client.authorization("GET", made.path, SCOPE_RENDER_READ)
        lines = [f"GET {made.path} HTTP/1.1", "Host: x", *(f"{name}: {value}" for name, value in authorization.items())]
        slow.sendall("\r\n".join([*lines, "", ""]).encode())
        slow.settimeout(10)
        num_before = 0
        while num_before < 300_000:
            num_before += len(slow.recv(8192))
        made.revoke()
        revoked_at = time.monotonic()
        num_after = 0
        while received := _receive(slow):
            num_after += len(received)
    left_after = [num_bytes for at, num_bytes in handed_out if at > revoked_at and num_bytes]
    assert len(left_after) <= 1 and sum(left_after) <= CHUNK_BYTES
    # what the client still gets was under way already: one chunk, the transport's and the kernel's buffers
    assert num_after <= CHUNK_BYTES + 64 * 1024 + CHUNK_BYTES + 2 * SEND_BUFFER_BYTES + 64 * 1024
    assert num_before + num_after < SIZE
    entry = made.service.log.entries(size, 10)[-1]
    assert entry["kind"] == "delivery.stopped" and entry["body"]["code"] == "consent.revoked"
    assert entry["body"]["num_bytes"] == sum(num_bytes for _, num_bytes in handed_out)
    # and the next request gets nothing at all
    assert made.get().json()["code"] == "consent.revoked"


def _receive(connection: socket.socket) -> bytes:
    try:
        return connection.recv(65_536)
    except ConnectionResetError:
        return b""


def test_a_client_that_hangs_up_disturbs_nobody(serving: tuple[Running, PlacetClient]) -> None:
    made = Delivery(*serving)
    authorization = made.client.authorization("GET", made.path, SCOPE_RENDER_READ)
    with httpx.stream("GET", made.running.url + made.path, headers=authorization) as response:
        next(response.iter_raw())
    assert made.get().content == made.video


def test_the_default_send_buffer_is_small() -> None:
    with listen("127.0.0.1", 0, Settings(home=Path()).send_buffer_bytes) as listener:
        assert listener.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) <= 4 * CHUNK_BYTES
