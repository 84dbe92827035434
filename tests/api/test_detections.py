"""Detection and evaluation: what this instance made is recognised, with and without its metadata; nothing is kept."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from api.client import PlacetClient, ProblemError
from api.engine.examiner import MarkRegistry
from api.errors import RefusedError
from api.evaluation import Evaluation, evaluate_render
from policy.identity import SCOPE_DETECT_CREATE
from tests.api.conftest import Running, make_wav, vetted
from watermark.attacks import h264
from watermark.encoding import encode_clip
from watermark.media import decode_clip


@pytest.fixture(scope="module")
def made(server: Running, portrait: bytes, tmp_path_factory: pytest.TempPathFactory) -> Evaluation:
    """A video that the operator made for evaluation, through the gate."""
    out = tmp_path_factory.mktemp("evaluation") / "made.mp4"
    return evaluate_render(server.service, portrait=portrait, speech=make_wav(4.0), attested_class="synthetic", out=out)


@pytest.fixture(scope="module")
def platform(server: Running, operator: PlacetClient) -> PlacetClient:
    """A vetted platform: may detect, nothing else."""
    return vetted(server, operator, "platform", org="platform")


def test_an_evaluation_is_logged_with_what_the_operator_attested(server: Running, made: Evaluation) -> None:
    decision = server.service.log.entry(made.render.decision_index)["body"]
    assert decision["request"]["action"] == "evaluate" and decision["facts"]["attested_class"] == "synthetic"
    assert made.render.delivery_index is not None
    delivery = server.service.log.entry(made.render.delivery_index)["body"]
    assert delivery["video_sha256"] == hashlib.sha256(made.file.read_bytes()).hexdigest()


def test_an_evaluation_without_the_operators_word_is_refused(server: Running, portrait: bytes, tmp_path: Path) -> None:
    with pytest.raises(RefusedError):
        evaluate_render(
            server.service, portrait=portrait, speech=make_wav(1.0), attested_class="", out=tmp_path / "x.mp4"
        )
    assert not (tmp_path / "x.mp4").exists()


def detect(server: Running, client: PlacetClient, **options: Any) -> dict[str, Any]:
    """One detection; checks that it is logged without anything that names the content."""
    size = server.service.log.size
    headers = {"Authorization": f"Bearer {client.token(SCOPE_DETECT_CREATE)}"} | options.pop("headers", {})
    response = httpx.post(f"{server.url}/v1/detections", headers=headers, timeout=300, **options)
    assert response.status_code == 200, response.text
    report: dict[str, Any] = response.json()
    entry = server.service.log.entry(report["log_index"])
    assert entry["kind"] == "detection" and entry["body"]["verdict"] == report["verdict"]
    assert report["log_index"] >= size and report["media"]["sha256"] not in json.dumps(entry)
    return report


def test_what_was_made_here_is_recognised(server: Running, platform: PlacetClient, made: Evaluation) -> None:
    video = made.file.read_bytes()
    report = detect(server, platform, content=video, headers={"Content-Type": "video/mp4"})
    assert report["verdict"] == "generated_here" and report["retention"] == "none"
    assert report["layers"]["c2pa"]["state"] == "trusted"
    assert report["layers"]["watermark"]["state"] == "detected"
    as_form = detect(server, platform, files={"media": ("clip.mp4", video)})
    assert as_form["verdict"] == report["verdict"] and as_form["id"] != report["id"]


def test_it_is_recognised_after_re_encoding_without_metadata(
    server: Running, platform: PlacetClient, made: Evaluation, tmp_path: Path
) -> None:
    stripped = tmp_path / "stripped.mp4"
    encode_clip(h264(28)(decode_clip(made.file)), stripped)
    report = detect(server, platform, content=stripped.read_bytes(), headers={"Content-Type": "video/mp4"})
    assert report["layers"]["c2pa"]["state"] == "absent"
    assert report["layers"]["watermark"]["state"] == "detected" and report["verdict"] == "generated_here"


def test_nothing_is_ever_called_real(server: Running, platform: PlacetClient, portrait: bytes) -> None:
    report = detect(server, platform, content=portrait, headers={"Content-Type": "image/png"})
    assert "real" not in report["verdict"]


def test_detection_gives_no_access_to_generation(platform: PlacetClient) -> None:
    with pytest.raises(ProblemError) as caught:
        platform.render(subject_id="x", speech=b"x", purpose="x", portrait_sha256="0" * 64)
    assert caught.value.code == "oauth.invalid_scope"


def test_the_registry_knows_its_marks_and_tells_no_names(server: Running, made: Evaluation) -> None:
    registry = MarkRegistry(server.service.database)
    assert registry.is_registered(made.render.mark_id) and not registry.is_registered("0" * 16)
    record = server.service.manifests.recovered(made.render.mark_id)
    assert record is not None and record["video_sha256"] == made.render.video_sha256
    assert record["statement"] == "manifest signature valid, content matched by watermark"
    assert (record["manifest_state"], record["consent"]) == ("trusted", "not_needed")
    assert not {"subject_id", "client_id", "portrait_sha256"} & set(record)
    assert registry.num_registered >= 1
