"""Text instead of speech, over HTTP: agreed to, declared synthetic in the manifest, in the log by its hash alone."""

from __future__ import annotations

import ctypes.util
from typing import Any

import pytest

from api.client import Enrolled, PlacetClient, ProblemError
from policy.consent import PURPOSE_RESEARCH
from tests.api.conftest import Running, make_wav, vetted
from tests.api.test_gate import consent_to, refused
from watermark.credentials import read_credentials

pytestmark = pytest.mark.skipif(
    ctypes.util.find_library("espeak-ng") is None, reason="no text-to-speech engine is installed"
)
TEXT = "Nobody said this."


@pytest.fixture(scope="module")
def asking(server: Running, operator: PlacetClient, subject: tuple[PlacetClient, Enrolled]) -> PlacetClient:
    client = vetted(server, operator, "researcher")
    consent_to(subject[0], client, controls=("seed", "voice"))
    return client


def request_for(subject: tuple[PlacetClient, Enrolled], **more: Any) -> dict[str, Any]:
    enrolled = subject[1]
    return {
        "subject_id": enrolled.subject_id,
        "portrait_sha256": enrolled.portrait_sha256,
        "purpose": PURPOSE_RESEARCH,
    } | more


def test_a_text_is_spoken_by_a_voice_that_is_declared_synthetic(
    server: Running, asking: PlacetClient, subject: tuple[PlacetClient, Enrolled]
) -> None:
    size = server.service.log.size
    done = asking.wait(asking.render(**request_for(subject, text=TEXT, language="en", voice="f3")), timeout_s=300)
    voice = done["controls"]["voice"]
    assert voice["engine"].startswith("eSpeak NG") and (voice["language"], voice["voice"]) == ("en", "f3")
    assert 0.5 < done["duration_s"] < 4
    # (1) the manifest: the voice is nobody's
    reading = read_credentials(asking.video(done["render_id"]), "video/mp4", server.service.trust_roots_pem.decode())
    assert reading.state == "trusted" and reading.manifest is not None
    said = {each["label"]: each["data"] for each in reading.manifest["assertions"]}
    assert said["org.placet.voice"] == {"synthetic": True} | {
        key: voice[key] for key in ("engine", "language", "voice")
    }
    (spoken,) = [each for each in said["c2pa.actions.v2"]["actions"] if "Speech" in each.get("description", "")]
    assert spoken["digitalSourceType"].endswith("/algorithmicMedia")
    assert TEXT not in str(reading.manifest) and voice["text_sha256"] not in str(reading.manifest)
    # (2) the log: that it was made, and of what, without the text
    entries = server.service.log.entries(size, 100)
    (made,) = [each["body"] for each in entries if each["kind"] == "speech.synthesised"]
    assert made["engine"] == voice["engine"] and made["text"] == server.service.gate.pseudonym(
        "text", voice["text_sha256"]
    )
    assert TEXT not in str(entries) and voice["text_sha256"] not in str(entries)
    decision = server.service.log.entry(done["decision_index"])["body"]
    assert decision["request"]["controls"] == ["voice"] and decision["request"]["speech_sha256"] == made["speech"]


def test_whoever_agreed_to_their_own_speech_alone_is_not_made_to_say_a_text(
    server: Running, operator: PlacetClient, subject: tuple[PlacetClient, Enrolled]
) -> None:
    client = vetted(server, operator, "researcher")
    consent_to(subject[0], client, controls=("seed",))
    assert refused(server, client, **request_for(subject, text=TEXT)).reasons == ("consent.controls",)


@pytest.mark.parametrize(
    ("more", "status", "code"),
    [
        ({"text": TEXT, "speech": make_wav(0.5)}, 400, "request.field_invalid"),
        ({"speech": make_wav(0.5), "language": "de"}, 400, "request.field_invalid"),
        ({"speech": make_wav(0.5), "controls": {"voice": {"engine": "me"}}}, 400, "request.field_invalid"),
        ({"text": TEXT, "language": "xx"}, 422, "voice.unknown"),
        ({"text": TEXT, "voice": "../../etc"}, 422, "voice.unknown"),
        ({"text": "?!"}, 422, "voice.text"),
        ({"text": "a" * 5001}, 422, "voice.text"),
        ({}, 400, "request.field_missing"),
    ],
)
def test_bad_texts_are_refused_with_a_name(
    more: dict[str, Any], status: int, code: str, server: Running, asking: PlacetClient,
    subject: tuple[PlacetClient, Enrolled],
) -> None:  # fmt: skip
    size = server.service.log.size
    with pytest.raises(ProblemError) as caught:
        asking.render(**request_for(subject, **more))
    assert (caught.value.status, caught.value.code) == (status, code)
    assert "decision" not in server.kinds_since(size)
