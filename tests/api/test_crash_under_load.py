"""kill -9 under load, again and again: no output without entry, no acknowledged entry lost, every byte as signed."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from sqlalchemy import select

from api.service import Service
from api.settings import Settings
from api.setup import create_instance
from api.storage.models import Render
from policy.fsck import fsck

from .crash_nursery import VIDEO


@pytest.mark.parametrize("num_rounds", [2, pytest.param(100, marks=pytest.mark.heavy)])
def test_kill_dash_nine_under_load(tmp_path: Path, num_rounds: int) -> None:
    settings = Settings(home=tmp_path / "home", prewarm=False)
    create_instance(settings, "crash")
    rng = random.Random(20261122)
    nursery = subprocess.Popen(
        [sys.executable, "-m", "tests.api.crash_nursery", str(settings.home)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    entries: set[int] = set()
    outputs: dict[int, str] = {}
    num_interrupted = 0
    try:
        for _ in range(num_rounds):
            told = one_round(nursery, rng)
            entries |= {int(words[1]) for words in told}
            outputs |= {int(words[1]): words[2] for words in told if words[0] == "output"}
            num_interrupted += check(settings, entries, outputs)
    finally:
        assert nursery.stdin is not None
        nursery.stdin.close()
        nursery.wait(30)
    print(f"{num_rounds} kills: {len(entries)} entries, {len(outputs)} outputs, {num_interrupted} renders interrupted")
    assert len(outputs) >= num_rounds and len(entries) > 4 * num_rounds and num_interrupted >= num_rounds


def one_round(nursery: subprocess.Popen[str], rng: random.Random) -> list[list[str]]:
    """Let the children work for a moment, kill them all, and return what they said was done."""
    assert nursery.stdin is not None and nursery.stdout is not None
    nursery.stdin.write("go\n")
    nursery.stdin.flush()
    pids, told = [], []
    kill_at: float | None = None
    while True:
        words = nursery.stdout.readline().split()
        assert words, "the nursery is gone"
        if words[0] == "pids":
            pids = [int(word) for word in words[1:]]
        elif words[0] == "end":
            assert set(words[1:]) == {"-9"}, f"a child ended by itself: {words}"
            return told
        else:
            told.append(words)
        if kill_at is None and pids and any(words[0] == "output" for words in told):
            kill_at = time.monotonic() + rng.random() * 0.3
        if kill_at is not None and time.monotonic() >= kill_at:
            for pid in pids:
                os.kill(pid, signal.SIGKILL)
            pids, kill_at = [], float("inf")


def check(settings: Settings, entries: set[int], outputs: dict[int, str]) -> int:
    """The books after a crash: before anything is put in order, and after. Returns the renders that were cut off."""
    service = Service(settings)
    try:
        log = service.log
        delivered = {
            entry["body"]["video_sha256"]: entry["index"]
            for start in range(0, log.size, 1000)
            for entry in log.entries(start, 1000)
            if entry["kind"] == "delivery"
        }
        # (1) no output without an entry, as the crash left it
        videos = {name for name in service.blobs.names() if service.blobs.path(name).read_bytes().startswith(VIDEO)}
        assert videos <= set(delivered), "a video without a delivery entry"
        # (2) nothing that was acknowledged is lost
        assert max(entries) < log.size
        for index, sha256 in outputs.items():
            assert delivered[sha256] == index
            assert service.blobs.path(sha256).is_file()
        # (3) put in order as at every start: what is not delivered is closed, with an entry, and its file is gone
        with service.database.read() as session:
            num_open = len(session.scalars(select(Render).where(Render.status.in_(("queued", "running")))).all())
        service.renders.recover()
        with service.database.read() as session:
            renders = session.scalars(select(Render)).all()
        kept = {name for name in service.blobs.names() if service.blobs.path(name).read_bytes().startswith(VIDEO)}
        assert kept == {render.video_sha256 for render in renders if render.status == "delivered"}
        for render in renders:
            index = render.delivery_index if render.status == "delivered" else render.closing_index
            assert index is not None and render.status in ("delivered", "failed")
        # (4) every byte as signed
        report = fsck(settings.home / "log", service.keys.log_publics)
        assert report.is_clean, report.problems
        return num_open
    finally:
        service.close()
