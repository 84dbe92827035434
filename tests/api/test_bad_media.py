"""Media made to break a verifier: each gets a report with a state for every layer, and the service goes on."""

from __future__ import annotations

import json
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from api.client import PlacetClient
from api.engine.examiner import examine_file_and_log
from policy.identity import SCOPE_DETECT_CREATE
from tests.api.conftest import Running, vetted
from tests.api.test_cli import run
from tests.watermark.bad_media import Stranger, audio_only, corrupted, jpeg, mp4, one_frame, sparse
from tests.watermark.clips import talking
from watermark.authority import SigningAuthority
from watermark.media import Clip

LAYERS = {"c2pa", "watermark", "watermark_audio", "fingerprints", "detector"}
MIB = 2**20


@pytest.fixture(scope="module")
def platform(server: Running, operator: PlacetClient) -> PlacetClient:
    return vetted(server, operator, "platform", org="platform")


@pytest.fixture(scope="module")
def clip() -> Clip:
    return talking(160, 160, 2.5)


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Stranger:
    """Somebody with a certificate that this instance does not know."""
    return Stranger(SigningAuthority.create(tmp_path_factory.mktemp("stranger") / "pki", "Somebody else"))


def check(report: dict[str, Any]) -> dict[str, str]:
    """The state of each layer; a layer that was not looked at says why, and nothing internal shows."""
    assert set(report["layers"]) == LAYERS
    for layer in report["layers"].values():
        assert layer["state"] != "not_examined" or layer["reason"]
    text = json.dumps(report)
    assert "Traceback" not in text and ".py" not in text
    assert report["verdict"] in ("abstain", "no_evidence", "likely_manipulated", "conflict")
    return {name: layer["state"] for name, layer in report["layers"].items()}


@pytest.fixture(scope="module")
def examined(server: Running, platform: PlacetClient) -> Callable[[bytes, str], dict[str, str]]:
    def states(data: bytes, mime: str = "application/octet-stream") -> dict[str, str]:
        headers = {"Authorization": f"Bearer {platform.token(SCOPE_DETECT_CREATE)}", "Content-Type": mime}
        response = httpx.post(f"{server.url}/v1/detections", headers=headers, content=data, timeout=300)
        assert response.status_code == 200, response.text
        return check(response.json())

    return states


Examined = Callable[..., dict[str, str]]


@pytest.mark.parametrize("kept", [0.02, 0.4, 0.97])
def test_a_truncated_video(kept: float, clip: Clip, examined: Examined, tmp_path: Path) -> None:
    whole = mp4(clip, tmp_path)
    states = examined(whole[: int(kept * len(whole))], "video/mp4")
    assert states["c2pa"] in ("absent", "invalid", "not_examined")


def test_a_sound_alone(clip: Clip, examined: Examined) -> None:
    states = examined(audio_only(clip), "audio/wav")
    assert (states["watermark"], states["detector"]) == ("not_examined", "not_examined")
    assert states["watermark_audio"] == "not_detected"


def test_a_video_of_one_frame(clip: Clip, examined: Examined, tmp_path: Path) -> None:
    states = examined(one_frame(clip, tmp_path), "video/mp4")
    assert states["watermark"] in ("not_detected", "inconclusive") and states["watermark_audio"] == "not_examined"
    assert states["detector"] == "abstained"


def test_a_corrupt_manifest(stranger: Stranger, examined: Examined) -> None:
    states = examined(corrupted(stranger.signed(jpeg(128), "image/jpeg")), "image/jpeg")
    assert states["c2pa"] in ("invalid", "not_examined")


def test_a_manifest_of_another_issuer(stranger: Stranger, clip: Clip, examined: Examined, tmp_path: Path) -> None:
    """Valid, and trusted by nobody here: it claims a camera, and that supports nothing."""
    states = examined(stranger.signed(mp4(clip, tmp_path), "video/mp4"), "video/mp4")
    assert states["c2pa"] == "valid"


def test_a_manifest_of_fifty_megabytes(stranger: Stranger, examined: Examined) -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    states = examined(stranger.signed(jpeg(128), "image/jpeg", padding=50 * MIB), "image/jpeg")
    assert states["c2pa"] == "valid"
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss - before < 2 * MIB  # in KiB: below 2 GiB


def test_ingredients_nested_a_hundred_deep(stranger: Stranger, examined: Examined) -> None:
    assert examined(stranger.nested(100), "image/jpeg")["c2pa"] == "valid"


def test_a_hollow_file_of_four_gigabytes(server: Running, tmp_path: Path) -> None:
    report = examine_file_and_log(server.service, "local-operator", sparse(tmp_path / "hollow.mp4"))
    assert set(check(report).values()) == {"not_examined"}
    assert report["media"]["sha256"] == "" and "4294967296 bytes" in report["layers"]["c2pa"]["reason"]


@pytest.mark.heavy
def test_verify_needs_no_server(tmp_path: Path) -> None:
    run("init", "--home", tmp_path / "home")
    report = run("verify", sparse(tmp_path / "hollow.mp4"), "--home", tmp_path / "home", expect=1)
    assert set(check(report).values()) == {"not_examined"}
    (tmp_path / "text.mp4").write_text("not a video " * 100)
    assert (
        run("verify", tmp_path / "text.mp4", "--home", tmp_path / "home", expect=2)["error"]
        == "detector.picture_unsupported"
    )


def test_the_service_is_still_there(server: Running, examined: Examined) -> None:
    assert examined(jpeg(128), "image/jpeg")["detector"] == "abstained"
