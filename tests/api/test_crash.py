"""kill -9 in the middle: no output without its log entry, nothing half-written, and a clean start afterwards."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from api.client import Credentials
from api.errors import ConflictError
from api.service import Service
from api.settings import Settings
from api.setup import create_instance
from api.storage.models import Mark, Render
from policy.fsck import fsck


def serve(home: Path) -> tuple[subprocess.Popen[str], str]:
    """`placet serve` as its own process; returns it and its address."""
    command = [sys.executable, "-m", "api.cli", "serve", "--home", str(home), "--port", "0", "--json"]
    environment = {**os.environ, "PLACET_PREWARM": "false"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, "the server did not start"
    return process, json.loads(line)["url"]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    settings = Settings(home=tmp_path / "home", prewarm=False)
    create_instance(settings, "crash")
    return settings


def test_after_kill_9_nothing_is_lost_and_nothing_is_left(settings: Settings) -> None:
    # (1) a server that answers, and is killed while it does
    process, url = serve(settings.home)
    answered = _knock(url, 0.5)
    process.send_signal(signal.SIGKILL)
    process.wait(10)
    # (2) what a kill in the middle of a render leaves
    _leave_a_running_render(settings)
    orphan = (settings.home / "blobs") / "ab" / ("ab" * 32)
    orphan.parent.mkdir(parents=True, exist_ok=True)
    orphan.write_bytes(b"a video that no delivery stands behind")
    (orphan.parent / ".0011223344556677.partial").write_bytes(b"half")
    staged = settings.staging_dir / ".ren_x.mp4.abcd.u.partial"
    staged.write_bytes(b"unsigned frames")
    # (3) the next start puts it in order; a second server on the same home is refused; killed again
    process, url = serve(settings.home)
    assert httpx.get(f"{url}/readyz").status_code == 200
    assert not orphan.exists() and not staged.exists()
    assert not list((settings.home / "blobs").rglob("*.partial"))
    second = Service(settings)
    with pytest.raises(ConflictError):
        second.start()
    second.close()
    answered += _knock(url, 0.5)
    process.send_signal(signal.SIGKILL)
    process.wait(10)
    # (4) the books agree
    service = Service(settings)
    with service.database.read() as session:
        render = session.get_one(Render, "ren_0123")
    assert (render.status, render.failure_code) == ("failed", "render.interrupted")
    assert render.closing_index is not None
    entry = service.log.entry(render.closing_index)
    assert entry["kind"] == "render.failed" and entry["body"]["code"] == "render.interrupted"
    assert len(set(answered)) == len(answered) > 3
    assert all(service.log.entry(index)["kind"] == "token.rejected" for index in answered)
    assert fsck(settings.home / "log", service.keys.log_public).is_clean
    service.close()


def _knock(url: str, duration_s: float) -> list[int]:
    """Be refused again and again; returns the log indices that were answered."""
    stop_at, indices = time.monotonic() + duration_s, []
    with httpx.Client(base_url=url) as client:
        while time.monotonic() < stop_at or len(indices) < 2:
            indices.append(client.get("/v1/audit/entries").json()["log_index"])
    return indices


def _leave_a_running_render(settings: Settings) -> None:
    """A render as a crash leaves it: on record, running, with its mark."""
    operator = Credentials.load(settings.operator_key_path)
    service = Service(settings)
    with service.database.write() as session:
        session.add(
            Render(
                render_id="ren_0123",
                client_id=operator.client_id,
                subject_id=None,
                action="evaluate",
                purpose="urn:placet:purpose:evaluation",
                controls={},
                portrait_sha256="0" * 64,
                speech_sha256="1" * 64,
                speech_s=2.0,
                consent_id=None,
                status="running",
                decision_index=1,
                mark_id="00112233445566aa",
                created_at=time.time(),
            )
        )
        session.flush()
        session.add(Mark(mark_id="00112233445566aa", render_id="ren_0123", created_at=time.time()))
    service.close()
