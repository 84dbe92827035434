"""The one path to a video, over HTTP: consent, decision, permit, render, mark, manifest, delivery, revocation."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import select

from api.client import Enrolled, PlacetClient, ProblemError
from api.engine.renders import RenderEngine
from api.storage.models import Render
from policy.canonical import canonical_json
from policy.consent import PURPOSE_RESEARCH
from policy.errors import ProofError
from policy.evidence import LogEvidence, verify_evidence
from tests.api.conftest import Running, make_wav, vetted
from tests.api.test_gate import consent_to, refused
from tests.simulators import tlogverify
from watermark.credentials import read_credentials
from watermark.extract import read_mark
from watermark.media import decode_clip


@pytest.fixture(scope="module")
def author(server: Running, operator: PlacetClient) -> PlacetClient:
    """The researcher whom the persona has consented to."""
    return vetted(server, operator, "researcher")


@pytest.fixture(scope="module")
def delivered(
    server: Running, author: PlacetClient, subject: tuple[PlacetClient, Enrolled]
) -> tuple[dict[str, Any], dict[str, Any], bytes]:
    """A consent, a render under it, and its video."""
    client, enrolled = subject
    consent = consent_to(client, author, controls=("seed",), max_uses=2)
    asked = author.render(
        subject_id=enrolled.subject_id,
        portrait_sha256=enrolled.portrait_sha256,
        speech=make_wav(3.0),
        purpose=PURPOSE_RESEARCH,
        controls={"seed": 5},
    )
    assert asked["status"] == "queued" and asked["mark_id"]
    told: list[float] = []
    done = author.wait(asked, on_progress=told.append, timeout_s=300)
    assert told[-1] == 1.0 and told == sorted(told)
    return consent, done, author.video(done["render_id"])


def test_the_video_is_a_talking_clip_of_the_right_length(delivered: tuple[Any, dict[str, Any], bytes]) -> None:
    _, done, video = delivered
    assert hashlib.sha256(video).hexdigest() == done["video_sha256"]
    clip = decode_clip(video)
    assert clip.rate_hz == pytest.approx(25) and clip.frames_THWC.shape[1:] == (512, 512, 3)
    assert done["duration_s"] == pytest.approx(3.0, abs=0.1) and done["num_frames"] == len(clip.frames_THWC)
    assert clip.sound is not None
    moves = np.abs(np.diff(clip.frames_THWC[:, ::4, ::4].astype(np.float32), axis=0)).mean()
    assert moves > 0.05


def test_the_video_carries_its_mark_and_a_trusted_manifest(
    server: Running, author: PlacetClient, delivered: tuple[dict[str, Any], dict[str, Any], bytes]
) -> None:
    consent, done, video = delivered
    reading = read_mark(
        decode_clip(video),
        server.service.keys.watermark_key,
        lambda mark_id: mark_id.hex == done["mark_id"],
        num_registered=1,
    )
    assert reading.state == "detected"
    manifest = read_credentials(video, "video/mp4", server.service.trust_roots_pem.decode())
    assert manifest.state == "trusted" and manifest.manifest_id == done["manifest_id"]
    assert manifest.mark_id is not None and manifest.mark_id.hex == done["mark_id"]
    text = str(manifest.manifest)
    assert consent["sha256"] in text
    assert author.manifest(done["render_id"])


def test_decision_and_delivery_are_in_the_log_with_proofs(
    server: Running, delivered: tuple[dict[str, Any], dict[str, Any], bytes]
) -> None:
    consent, done, _ = delivered
    log = server.service.log
    decision, delivery = log.entry(done["decision_index"]), log.entry(done["delivery_index"])
    assert decision["kind"] == "decision" and decision["body"]["allowed"] is True
    assert decision["body"]["facts"]["consent"]["sha256"] == consent["sha256"]
    assert delivery["kind"] == "delivery" and delivery["body"]["video_sha256"] == done["video_sha256"]
    assert delivery["body"]["decision_index"] == done["decision_index"] < done["delivery_index"]
    evidence = LogEvidence.from_json(done["evidence"])
    assert evidence.index == done["delivery_index"]
    verify_evidence(evidence, server.service.keys.log_public, origin=log.origin)


def test_the_manifest_proves_its_decision(
    server: Running, delivered: tuple[dict[str, Any], dict[str, Any], bytes]
) -> None:
    """`org.placet.log`: whoever has the video and the log's public key can check that it was decided on."""
    _, done, video = delivered
    manifest = read_credentials(video, "video/mp4", server.service.trust_roots_pem.decode())
    carried = LogEvidence.from_json(manifest.log)
    assert carried.index == done["decision_index"]
    entry = server.service.log.entry(carried.index)
    verify_evidence(carried, server.service.keys.log_public, leaf=canonical_json(entry))
    other = canonical_json(entry | {"body": entry["body"] | {"allowed": False}})
    with pytest.raises(ProofError):
        verify_evidence(carried, server.service.keys.log_public, leaf=other)


@pytest.mark.needs("go")
def test_others_can_check_what_the_manifest_proves(
    server: Running, delivered: tuple[dict[str, Any], dict[str, Any], bytes], tmp_path: Path
) -> None:
    _, done, video = delivered
    manifest = read_credentials(video, "video/mp4", server.service.trust_roots_pem.decode())
    log, entry, proof = server.service.log, tmp_path / "entry", tmp_path / "evidence.json"
    entry.write_bytes(canonical_json(log.entry(done["decision_index"])))
    proof.write_text(json.dumps(manifest.log))
    found = tlogverify.verify("evidence", vkey=log.verifier_key, evidence=proof, entry=entry)
    assert found["index"] == done["decision_index"]


def test_the_subject_sees_both_and_can_count(
    subject: tuple[PlacetClient, Enrolled], delivered: tuple[dict[str, Any], dict[str, Any], bytes]
) -> None:
    consent, done, _ = delivered
    kinds = {use["log_index"]: use["kind"] for use in subject[0].uses()}
    assert kinds[done["decision_index"]] == "decision.allowed" and kinds[done["delivery_index"]] == "delivery"
    state = next(each for each in subject[0].consents() if each["consent_id"] == consent["consent_id"])
    assert state["state"] == "live" and state["num_uses"] == 1


def test_nobody_else_gets_at_it(
    stranger: PlacetClient, delivered: tuple[dict[str, Any], dict[str, Any], bytes]
) -> None:
    render_id = delivered[1]["render_id"]
    for ask in (stranger.render_status, stranger.video, stranger.manifest):
        with pytest.raises(ProblemError) as caught:
            ask(render_id)
        assert (caught.value.status, caught.value.code) == (404, "not_found")


def test_a_consent_is_used_up(
    server: Running,
    author: PlacetClient,
    subject: tuple[PlacetClient, Enrolled],
    delivered: tuple[dict[str, Any], dict[str, Any], bytes],
) -> None:
    request = {
        "subject_id": subject[1].subject_id,
        "portrait_sha256": subject[1].portrait_sha256,
        "speech": make_wav(1.0),
        "purpose": PURPOSE_RESEARCH,
    }
    second = author.wait(author.render(**request), timeout_s=300)
    assert second["mark_id"] != delivered[1]["mark_id"]
    assert refused(server, author, **request).reasons == ("consent.exhausted",)


def test_files_in_the_store_are_exactly_those_that_were_delivered(
    server: Running, delivered: tuple[dict[str, Any], dict[str, Any], bytes]
) -> None:
    videos = {name for name in server.service.blobs.names() if server.service.blobs.get(name)[4:8] == b"ftyp"}
    with server.service.database.read() as session:
        released = set(session.scalars(select(Render.video_sha256).where(Render.delivery_index.is_not(None))))
    assert hashlib.sha256(delivered[2]).hexdigest() in videos
    assert videos <= released, "a file is in the store that no delivery stands behind"
    assert not list(Path(server.settings.staging_dir).glob("*.mp4"))


def test_a_revocation_while_the_video_is_being_made_stops_its_delivery(
    server: Running,
    operator: PlacetClient,
    subject: tuple[PlacetClient, Enrolled],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    client = vetted(server, operator, "researcher")
    consent = consent_to(subject[0], client)
    rendered, revoked = threading.Event(), threading.Event()
    deliver = RenderEngine.deliver

    def wait_then_deliver(engine: RenderEngine, job: Any, produced: Any) -> None:
        rendered.set()
        assert revoked.wait(60)
        deliver(engine, job, produced)

    monkeypatch.setattr(RenderEngine, "deliver", wait_then_deliver)
    asked = client.render(
        subject_id=subject[1].subject_id,
        portrait_sha256=subject[1].portrait_sha256,
        speech=make_wav(1.0),
        purpose=PURPOSE_RESEARCH,
    )
    assert rendered.wait(300)
    subject[0].revoke(consent["consent_id"])
    revoked.set()
    with pytest.raises(ProblemError) as caught:
        client.wait(asked)
    assert (caught.value.status, caught.value.code) == (403, "consent.revoked")
    state = client.render_status(asked["render_id"])
    assert state["status"] == "refused" and state["video_url"] is None
    assert server.service.log.entry(state["closing_index"])["kind"] == "render.refused"
    assert not list(server.settings.staging_dir.glob(f"*{asked['render_id']}*"))


def test_a_worker_that_dies_fails_the_render_and_is_replaced(
    server: Running, operator: PlacetClient, subject: tuple[PlacetClient, Enrolled]
) -> None:
    client = vetted(server, operator, "researcher")
    consent = consent_to(subject[0], client)
    request = {
        "subject_id": subject[1].subject_id,
        "portrait_sha256": subject[1].portrait_sha256,
        "speech": make_wav(20.0),
        "purpose": PURPOSE_RESEARCH,
    }
    process = server.service.worker.process
    asked = client.render(**request)
    while client.render_status(asked["render_id"])["progress"] == 0:
        time.sleep(0.05)
    assert process._process is not None
    process._process.kill()
    with pytest.raises(ProblemError) as caught:
        client.wait(asked)
    assert caught.value.code == "engine.died"
    entry = server.service.log.entry(client.render_status(asked["render_id"])["closing_index"])
    assert entry["kind"] == "render.failed" and entry["body"]["code"] == "engine.died"
    again = client.wait(client.render(**{**request, "speech": make_wav(1.0)}), timeout_s=300)
    assert again["status"] == "delivered"
    subject[0].revoke(consent["consent_id"])


def test_after_the_revocation_the_video_is_withheld_and_nothing_new_is_made(
    server: Running,
    author: PlacetClient,
    subject: tuple[PlacetClient, Enrolled],
    delivered: tuple[dict[str, Any], dict[str, Any], bytes],
) -> None:
    consent, done, _ = delivered
    subject[0].revoke(consent["consent_id"])
    for ask in (author.video, author.manifest):
        with pytest.raises(ProblemError) as caught:
            ask(done["render_id"])
        assert (caught.value.status, caught.value.code) == (403, "consent.revoked")
    problem = refused(
        server,
        author,
        subject_id=subject[1].subject_id,
        portrait_sha256=subject[1].portrait_sha256,
        speech=make_wav(1.0),
        purpose=PURPOSE_RESEARCH,
    )
    assert "consent.revoked" in problem.reasons
