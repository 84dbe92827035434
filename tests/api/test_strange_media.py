"""Strange media, as the endpoint sees them: a report or a named error, within bounded time and memory; and the service
goes on.
"""

from __future__ import annotations

import itertools
import resource
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from api.client import PlacetClient
from policy.identity import SCOPE_DETECT_CREATE
from tests.api import strange_media as strange
from tests.api.conftest import Running, vetted
from tests.detector.drawing import draw_face

MIB = 2**20
Answer = Callable[[bytes, str], tuple[int, dict[str, Any]]]


@pytest.fixture(scope="module")
def answer(server: Running, operator: PlacetClient) -> Answer:
    client = vetted(server, operator, "platform", org="platform")

    def asked(data: bytes, mime: str = "application/octet-stream") -> tuple[int, dict[str, Any]]:
        headers = {"Authorization": f"Bearer {client.token(SCOPE_DETECT_CREATE)}", "Content-Type": mime}
        got = httpx.post(f"{server.url}/v1/detections", headers=headers, content=data, timeout=300)
        if got.status_code == 202:
            while True:
                headers["Authorization"] = f"Bearer {client.token(SCOPE_DETECT_CREATE)}"
                state = httpx.get(server.url + got.headers["location"], headers=headers, timeout=60).json()
                if state["status"] == "done":
                    return 200, state["report"]
                assert state["status"] != "failed", state
        return got.status_code, got.json()

    return asked


@pytest.mark.parametrize(
    "made",
    [strange.variable_rate, strange.turned, strange.ten_bits, strange.interlaced, strange.see_through],
)
def test_unusual_clips_are_scored_like_others(made: Callable[[], bytes], answer: Answer) -> None:
    status, report = answer(made(), "application/octet-stream")
    assert status == 200, report
    assert report["media"]["kind"] == "clip" and report["media"]["faces"] == 1
    assert report["layers"]["detector"]["p"] is not None and report["layers"]["detector"]["timeline"]
    assert report["layers"]["watermark"]["state"] in ("not_detected", "inconclusive")


def test_one_frame_a_second(answer: Answer) -> None:
    status, report = answer(strange.one_a_second(), "video/mp4")
    assert status == 200 and report["media"]["duration_s"] == pytest.approx(20.0, abs=1.0)
    assert {reason["code"] for reason in report["abstain_reasons"]} >= {"too_few_frames"}


def test_several_faces_have_a_track_each(answer: Answer) -> None:
    status, report = answer(strange.several_faces(), "video/mp4")
    layer = report["layers"]["detector"]
    assert status == 200 and report["media"]["faces"] == 3
    assert [each["face"] for each in layer["faces"]] == [0, 1, 2]
    sides = [each["face_px"] for each in layer["faces"]]
    assert sides[0] == max(sides)
    lefts = [each["box"][0] for each in layer["faces"]]
    assert min(lefts[1:]) < lefts[0] < max(lefts[1:]), "the main face is in the middle"
    for face in range(3):
        own = [part for part in layer["timeline"] if part["face"] == face]
        assert own[0]["start_s"] == 0 and all(a["end_s"] == b["start_s"] for a, b in itertools.pairwise(own))


def test_things_that_are_no_media_have_a_name(answer: Answer) -> None:
    page, bomb = strange.page(), strange.zip_bomb()
    for data, mime in itertools.product((page, bomb), ("application/octet-stream", "video/mp4")):
        status, problem = answer(data, mime)
        assert status == 415 and problem["code"] in ("detector.picture_unsupported", "media.unsupported")


def test_a_picture_that_would_be_gigabytes_is_refused_by_its_header(answer: Answer) -> None:
    status, problem = answer(strange.picture_bomb(), "image/png")
    assert (status, problem["code"]) == (413, "detector.picture_too_large")


def test_text_that_unpacks_without_end_is_not_unpacked(answer: Answer) -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    status, found = answer(strange.packed_manifest_bomb(), "image/png")
    assert status == 200 or found["code"].startswith("detector.picture"), found
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss - before < 2 * MIB  # in KiB: below 2 GiB


@pytest.mark.heavy
def test_an_hour_is_examined_at_its_beginning(answer: Answer) -> None:
    status, report = answer(strange.an_hour(), "video/mp4")
    assert status == 200 and report["media"]["duration_s"] == pytest.approx(3600, abs=2)
    assert any("first 60 seconds were examined" in limit for limit in report["limits"])


@pytest.mark.heavy
def test_eight_k_is_refused_by_its_header(answer: Answer) -> None:
    status, problem = answer(strange.eight_k(), "video/mp4")
    assert (status, problem["code"]) == (413, "media.too_large")


@pytest.mark.heavy
def test_five_hundred_faces(answer: Answer) -> None:
    status, report = answer(strange.crowd_clip(), "video/mp4")
    assert status == 200 and len(report["layers"]["detector"]["faces"]) <= 4


def test_the_service_is_still_there(answer: Answer) -> None:
    status, report = answer(strange.video([draw_face(1, 160)] * 16), "video/mp4")
    assert status == 200 and report["media"]["faces"] == 1
