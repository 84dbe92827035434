"""Fifty uploads at once, to a real server: each is answered, memory stays within what was set, nothing stays behind."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from api.client import Credentials, PlacetClient
from api.engine.process import EngineProcess
from tests.api.conftest import Running, serving

NUM_UPLOADS = 50
UPLOAD_BYTES = 3 * 2**20
ROOM_BYTES = 16 * 2**20


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server with room for five uploads, whose examiner makes its reports up: what is tested is the way in."""
    home = tmp_path_factory.mktemp("small") / "home"
    with serving(home, detection_memory_bytes=ROOM_BYTES, near_duplicates_per_hour=10_000) as running:
        examiner = running.service.examiner
        examiner._idle.get()
        toy = EngineProcess("tests.console.toy_examiner", examiner._hello)
        examiner._idle.put(toy)
        yield running
        toy.close()


def test_fifty_uploads_at_once_and_none_is_lost(small: Running) -> None:
    bodies = [b"generated %d" % number + bytes(UPLOAD_BYTES) for number in range(NUM_UPLOADS)]
    most, is_over = [0], threading.Event()

    def watch() -> None:
        while not is_over.wait(0.002):
            most[0] = max(most[0], small.service.detections.room.taken_bytes)

    watching = threading.Thread(target=watch, daemon=True)
    watching.start()
    with PlacetClient(small.url, Credentials.load(small.settings.operator_key_path)) as client:
        client.detect(b"generated first")
        with ThreadPoolExecutor(NUM_UPLOADS) as pool:
            reports = list(pool.map(client.detect, bodies))
    is_over.set()
    watching.join()
    assert len({report["id"] for report in reports}) == NUM_UPLOADS
    assert all(report["verdict"] == "generated_here" for report in reports)
    assert UPLOAD_BYTES < most[0] <= ROOM_BYTES
    assert small.service.detections.room.taken_bytes == 0 and small.service.detections.num_unfinished == 0
    assert httpx.get(f"{small.url}/healthz").status_code == 200


@pytest.mark.heavy
def test_the_same_with_real_clips() -> None:
    """What `placet bench detections --parallel 50` measures, with clips of one second."""
    from tests.api.test_cli import run

    load = run("bench", "detections", "--parallel", NUM_UPLOADS, "--clip-s", 1.0, "--processes", 2)["load"]
    assert (load["answered"], load["lost"], load["different_verdicts"]) == (NUM_UPLOADS, 0, 0)
    assert load["uploads_left_bytes"] == 0
    assert load["gateway_peak_mib"] < 1500 and load["largest_process_peak_mib"] < 3000
