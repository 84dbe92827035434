"""The worker: what it refuses, and that what it delivers is complete, marked and signed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from generator.errors import ControlError, GrantMismatchError
from generator.session import RenderWorker
from policy.errors import PermitError, ProofError
from tests.generator.conftest import WORKER, Gatekeeper
from watermark.credentials import SigningAuthority, read_credentials
from watermark.media import decode_clip

MARK_ID = "00c0ffee00c0ffee"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> SigningAuthority:
    return SigningAuthority.create(tmp_path_factory.mktemp("pki") / "pki", "Tests")


@pytest.fixture(scope="module")
def worker(gatekeeper: Gatekeeper, authority: SigningAuthority) -> RenderWorker:
    instance = gatekeeper.instance
    return RenderWorker(
        WORKER,
        instance.keys.permit_public,
        instance.ledger_path,
        instance.keys.watermark_key,
        authority,
        instance.keys.log_public,
    )


def _order(
    gatekeeper: Gatekeeper, portrait: bytes, speech: bytes, controls: dict[str, Any]
) -> tuple[str, dict[str, Any]]:
    token, ruling = gatekeeper.permit(portrait, speech, controls, MARK_ID)
    return token, ruling.evidence.to_json()


def test_summary_says_what_was_found_and_animates_nothing(worker: RenderWorker, portrait_png: bytes) -> None:
    summary = worker.prepare(portrait_png)
    assert summary.face_px > 96
    assert abs(summary.yaw_deg) < 20
    assert 0 < summary.fit_error < 0.02


def test_a_permit_gives_one_marked_and_signed_video(
    worker: RenderWorker,
    gatekeeper: Gatekeeper,
    authority: SigningAuthority,
    portrait_png: bytes,
    speech_wav: bytes,
    tmp_path: Path,
) -> None:
    token, evidence = _order(gatekeeper, portrait_png, speech_wav, {"seed": 3})
    done: list[float] = []
    order: dict[str, Any] = {
        "portrait": portrait_png, "speech": speech_wav, "controls": {"seed": 3}, "consent": None, "evidence": evidence,
    }  # fmt: skip
    produced = worker.render(token, **order, dst=tmp_path / "out.mp4", progress=done.append)
    assert done[-1] == 1.0
    clip = decode_clip(produced.path)
    assert clip.frames_THWC.shape[1:] == (512, 512, 3)
    assert len(clip.frames_THWC) == produced.num_frames == 13
    reading = read_credentials(produced.path, "video/mp4", authority.root_pem)
    assert reading.state == "trusted"
    assert str(reading.mark_id) == MARK_ID
    with pytest.raises(PermitError):
        worker.render(token, **order, dst=tmp_path / "again.mp4")
    assert not (tmp_path / "again.mp4").exists()


def test_inputs_other_than_the_permitted_are_refused(
    worker: RenderWorker, gatekeeper: Gatekeeper, portrait_png: bytes, speech_wav: bytes, tmp_path: Path
) -> None:
    token, evidence = _order(gatekeeper, portrait_png, speech_wav, {})
    order: dict[str, Any] = {
        "portrait": portrait_png, "speech": speech_wav, "controls": {}, "consent": None, "evidence": evidence,
    }  # fmt: skip
    for changed in ({"portrait": portrait_png + b"\0"}, {"speech": speech_wav + b"\0"}, {"controls": {"seed": 1}}):
        with pytest.raises(PermitError):
            worker.render(token, **(order | changed), dst=tmp_path / "out.mp4")
    assert not list(tmp_path.iterdir())


def test_evidence_must_be_genuine_and_of_the_same_decision(
    worker: RenderWorker, gatekeeper: Gatekeeper, portrait_png: bytes, speech_wav: bytes, tmp_path: Path
) -> None:
    token, ruling = gatekeeper.permit(portrait_png, speech_wav, {})
    order: dict[str, Any] = {"portrait": portrait_png, "speech": speech_wav, "controls": {}, "consent": None}
    forged = replace(ruling.evidence, leaf_hash="00" * 32).to_json()
    with pytest.raises(ProofError):
        worker.render(token, **order, evidence=forged, dst=tmp_path / "out.mp4")
    other = gatekeeper.rule(portrait_png, speech_wav, {}).evidence.to_json()
    with pytest.raises(GrantMismatchError):
        worker.render(token, **order, evidence=other, dst=tmp_path / "out.mp4")
    assert not list(tmp_path.iterdir())


def test_the_manifest_may_not_state_another_consent(
    worker: RenderWorker, gatekeeper: Gatekeeper, portrait_png: bytes, speech_wav: bytes, tmp_path: Path
) -> None:
    token, evidence = _order(gatekeeper, portrait_png, speech_wav, {})
    with pytest.raises(GrantMismatchError):
        worker.render(
            token,
            portrait=portrait_png,
            speech=speech_wav,
            controls={},
            consent={"sha256": "ab" * 32},
            evidence=evidence,
            dst=tmp_path / "out.mp4",
        )


def test_unknown_controls_are_named(
    worker: RenderWorker, gatekeeper: Gatekeeper, portrait_png: bytes, speech_wav: bytes, tmp_path: Path
) -> None:
    controls = {"wings": True}
    token, evidence = _order(gatekeeper, portrait_png, speech_wav, controls)
    with pytest.raises(ControlError, match="wings"):
        worker.render(
            token,
            portrait=portrait_png,
            speech=speech_wav,
            controls=controls,
            consent=None,
            evidence=evidence,
            dst=tmp_path / "out.mp4",
        )
