"""The verdict follows the rules in their order, and the report keeps its shape, whatever is sent."""

from __future__ import annotations

import io
import itertools
import json
import re
from pathlib import Path
from typing import Any, get_args

import cv2
import numpy as np
import pytest
from PIL import Image

from detector.errors import EmptyPictureError, NotAPictureError
from detector.report import AI_SOURCE_TYPES, CAPTURE_SOURCE_TYPES, Evidence, Verdict, decide, examine
from detector.score import AMBIGUOUS, NO_FACE, WEIGHTS, Detector
from generator.personas import sample_paths
from tests.detector.conftest import SmallTraining
from tests.detector.drawing import draw_face
from tests.watermark.clips import talking
from watermark.audio_mark import AudioEmbedder
from watermark.colour import encoder_planes
from watermark.embed import Embedder
from watermark.encoding import encode_clip, encode_sound_wav
from watermark.errors import EmptyInputError, InputTooLargeError, UnsupportedMediaError
from watermark.fingerprint import FingerprintTaker
from watermark.media import Clip, MediaLimits, Sound, decode_clip, decode_sound
from watermark.payload import MarkId
from watermark.sound_coding import encode_sound

CAPTURE, AI = sorted(CAPTURE_SOURCE_TYPES)[0], sorted(AI_SOURCE_TYPES)[0]
KEY = bytes(range(32))


def verdict(
    mark: str = "not_detected",
    manifest: str = "absent",
    source_type: str | None = None,
    p: float | None = 0.1,
    abstain: tuple = (),
) -> str:
    return decide(Evidence(mark, manifest, source_type, p, 0.8, abstain))[0]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("evidence", "expected"),
    [
        # (1) a registered mark, whatever else is there
        ({"mark": "detected"}, "generated_here"),
        ({"mark": "detected", "manifest": "trusted", "source_type": AI}, "generated_here"),
        ({"mark": "detected", "manifest": "valid", "source_type": CAPTURE}, "generated_here"),
        ({"mark": "detected", "p": None, "abstain": (NO_FACE,)}, "generated_here"),
        # (2) trusted declaration of AI
        ({"manifest": "trusted", "source_type": AI}, "ai_signed"),
        ({"manifest": "trusted", "source_type": AI, "p": 0.99}, "ai_signed"),
        ({"manifest": "valid", "source_type": AI}, "no_evidence"),
        ({"manifest": "invalid", "source_type": AI, "p": 0.9}, "likely_manipulated"),
        # (3) captured, and contradicted
        ({"manifest": "trusted", "source_type": CAPTURE, "p": 0.8}, "conflict"),
        ({"manifest": "valid", "source_type": CAPTURE, "p": 0.95}, "conflict"),
        ({"manifest": "trusted", "source_type": CAPTURE, "mark": "foreign"}, "conflict"),
        # (4) trusted capture alone
        ({"manifest": "trusted", "source_type": CAPTURE}, "provenance_supported"),
        ({"manifest": "trusted", "source_type": CAPTURE, "p": None, "abstain": (NO_FACE,)}, "provenance_supported"),
        ({"manifest": "trusted", "source_type": CAPTURE, "p": 0.9, "abstain": (AMBIGUOUS,)}, "provenance_supported"),
        ({"manifest": "valid", "source_type": CAPTURE}, "no_evidence"),
        ({"manifest": "invalid", "source_type": CAPTURE}, "no_evidence"),
        # (5) the detector at its operating point
        ({"p": 0.8}, "likely_manipulated"),
        ({"p": 0.7999}, "no_evidence"),
        ({"p": 0.9, "abstain": (AMBIGUOUS,)}, "abstain"),
        ({"p": None, "abstain": (NO_FACE,)}, "abstain"),
        # (6) silence
        ({"mark": "inconclusive"}, "no_evidence"),
        ({"mark": "foreign"}, "no_evidence"),
    ],
)
def test_rules_in_their_order(evidence: dict[str, Any], expected: str) -> None:
    assert verdict(**evidence) == expected


def test_every_combination_has_a_verdict_and_absence_never_supports() -> None:
    for mark, manifest, source, p, abstain in itertools.product(
        ("detected", "foreign", "not_detected", "inconclusive"),
        ("trusted", "valid", "invalid", "absent"),
        (None, AI, CAPTURE, "http://example.org/unheard-of"),
        (0.0, 0.5, 1.0, None),
        ((), (AMBIGUOUS,)),
    ):
        found = verdict(mark, manifest, source, p, abstain if p is not None else (NO_FACE,))
        assert found in get_args(Verdict)
        if found == "provenance_supported":
            assert manifest == "trusted"
            assert source == CAPTURE


# ---- the whole report ------------------------------------------------------------------------------------------------


def mp4(tmp_path: Path, frames_THWC: np.ndarray, rate_hz: float = 25.0) -> bytes:
    path = tmp_path / "clip.mp4"
    encode_clip(Clip(frames_THWC, rate_hz), path)
    return path.read_bytes()


def png(picture_HWC: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture_HWC).save(buffer, "PNG")
    return buffer.getvalue()


def swaying_face(num_frames: int, side_px: int = 256) -> np.ndarray:
    face_HWC = draw_face(30, side_px)
    return np.stack([np.roll(face_HWC, round(3 * np.sin(i / 4)), axis=1) for i in range(num_frames)])


def report_on(
    data: bytes, mime: str, detector: Detector, registered: dict[str, dict[str, str]] | None = None, **more: Any
) -> dict[str, Any]:
    registered = registered or {}
    return examine(
        data,
        mime,
        trust_roots_pem=b"",
        watermark_key=KEY,
        is_registered=lambda mark_id: mark_id.hex in registered,
        resolve=lambda mark_id: registered.get(mark_id.hex),
        num_registered=1000,
        detector=detector,
        **more,
    )


def check_shape(report: dict[str, Any]) -> None:
    """Every field of the published shape is there, with its type; and the report is honest about its words."""
    text = json.dumps(report)
    assert not re.search(r"\breal\b", text, re.IGNORECASE)
    assert set(report) >= {
        "id", "model_version", "media", "verdict", "operating_point", "layers",
        "abstain_reasons", "limits", "retention",
    }  # fmt: skip
    assert re.fullmatch("[0-9a-f]{64}", report["media"]["sha256"])
    assert {"frames_used", "faces"} <= set(report["media"])
    assert report["verdict"] in get_args(Verdict)
    point = report["operating_point"]
    assert point["name"] == "fpr_1pct"
    assert 0.5 <= point["threshold"] <= 1
    assert 0 <= point["fpr_ci95"][0] <= point["fpr_ci95"][1] <= 1
    assert isinstance(point["num_authentic"], int)
    layers = report["layers"]
    assert set(layers) == {"c2pa", "watermark", "watermark_audio", "fingerprints", "detector"}
    assert layers["c2pa"]["state"] in ("trusted", "valid", "invalid", "absent", "not_examined")
    assert isinstance(layers["c2pa"]["digital_source_type"], str)
    for name in ("watermark", "watermark_audio"):
        assert layers[name]["state"] in ("detected", "not_detected", "inconclusive", "not_examined")
        assert layers[name]["null_fpr"] <= 1e-9
    assert layers["fingerprints"]["state"] in ("match", "differs", "not_comparable", "not_examined")
    assert layers["detector"]["state"] in ("scored", "abstained", "not_examined", "not_needed")
    assert all(layer.get("reason") for layer in layers.values() if layer["state"] == "not_examined")
    detector = layers["detector"]
    assert {"p", "prior", "llr", "conformal_set", "calibrated_on", "ood", "timeline", "heatmap_url"} <= set(detector)
    assert set(detector["conformal_set"]) <= {"authentic", "synthetic"}
    for before, after in itertools.pairwise(detector["timeline"]):
        assert before["end_s"] == after["start_s"] or before["face"] != after["face"]
    assert all(set(reason) == {"code", "sentence"} for reason in report["abstain_reasons"])
    assert report["limits"]
    assert report["retention"] == "none"


def codes(report: dict[str, Any]) -> set[str]:
    return {reason["code"] for reason in report["abstain_reasons"]}


def test_a_clip_without_manifest_or_mark(small_training: SmallTraining, tmp_path: Path) -> None:
    report = report_on(mp4(tmp_path, swaying_face(30)), "video/mp4", small_training.detector)
    check_shape(report)
    assert report["layers"]["c2pa"]["state"] == "absent"
    assert report["layers"]["watermark"]["state"] == "not_detected"
    assert report["media"]["frames_used"] >= 16
    assert report["media"]["faces"] == 1
    assert report["verdict"] in ("likely_manipulated", "no_evidence", "abstain")
    timeline = report["layers"]["detector"]["timeline"]
    assert timeline[0]["start_s"] == 0
    assert timeline[-1]["end_s"] == pytest.approx(1.2)


def test_a_registered_mark_decides(small_training: SmallTraining, tmp_path: Path) -> None:
    mark_id = MarkId(0x0123456789ABCDEF)
    frames_THWC = np.stack([draw_face(31, 320)] * 75)
    marked = Embedder(KEY, mark_id, 320, 320, 25.0).apply(frames_THWC)
    data = mp4(tmp_path, marked)
    record = {"manifest_id": "urn:c2pa:test", "created_at": "2026-11-22T00:00:00Z"}
    report = report_on(data, "video/mp4", small_training.detector, {mark_id.hex: record})
    check_shape(report)
    assert report["verdict"] == "generated_here"
    layer = report["layers"]["watermark"]
    assert layer["mark_id"] == mark_id.hex
    assert layer["record"] == record
    assert layer["content"] == "not compared"
    assert not {"correlation", "confidence", "bits"} & set(layer), "no finer answer than three states"
    # The same file before a service whose register does not know the id.
    stranger = report_on(data, "video/mp4", small_training.detector)
    assert stranger["layers"]["watermark"]["state"] == "inconclusive"
    assert stranger["verdict"] != "generated_here"
    assert any("not in its register" in limit for limit in stranger["limits"])


def test_a_picture_gets_neither_score_nor_verdict(small_training: SmallTraining) -> None:
    report = report_on(png(draw_face(32)), "image/png", small_training.detector)
    check_shape(report)
    assert report["verdict"] == "abstain"
    assert "too_few_frames" in codes(report)
    assert report["layers"]["detector"]["p"] is None
    assert report["layers"]["watermark"]["state"] == "not_detected"
    assert report["media"]["frames_used"] == 1


def test_no_face_a_tiny_face_and_a_short_clip_are_reasons_to_abstain(
    small_training: SmallTraining, tmp_path: Path
) -> None:
    detector = small_training.detector
    empty = report_on(mp4(tmp_path, np.full((20, 128, 128, 3), 99, np.uint8)), "video/mp4", detector)
    check_shape(empty)
    assert (empty["verdict"], codes(empty)) == ("abstain", {"no_face"})
    assert empty["layers"]["detector"]["p"] is None
    tiny = report_on(mp4(tmp_path, swaying_face(20, 120)), "video/mp4", detector)
    check_shape(tiny)
    assert tiny["verdict"] == "abstain"
    assert "face_too_small" in codes(tiny)
    short = report_on(mp4(tmp_path, swaying_face(15)), "video/mp4", detector)
    check_shape(short)
    assert "too_few_frames" in codes(short)
    assert short["verdict"] == "abstain"


def test_unknown_media_types_are_told_by_their_bytes(small_training: SmallTraining, tmp_path: Path) -> None:
    for data in (png(draw_face(33, 200)), mp4(tmp_path, swaying_face(18))):
        check_shape(report_on(data, "application/octet-stream", small_training.detector))


def test_a_long_clip_says_what_was_not_looked_at(small_training: SmallTraining, tmp_path: Path) -> None:
    report = report_on(mp4(tmp_path, swaying_face(24, 160), rate_hz=2.0), "video/mp4", small_training.detector)
    check_shape(report)
    assert any("first 10 seconds" in limit for limit in report["limits"])


def test_what_cannot_be_read_raises_our_errors(small_training: SmallTraining, tmp_path: Path) -> None:
    detector = small_training.detector
    whole = mp4(tmp_path, swaying_face(16))
    for data, mime, error in (
        (b"", "image/png", EmptyPictureError),
        (b"", "video/mp4", EmptyInputError),
        (b"%PDF-1.7", "application/octet-stream", NotAPictureError),
        (png(draw_face(1, 64)), "video/mp4", UnsupportedMediaError),
    ):
        with pytest.raises(error):
            report_on(data, mime, detector)
    with pytest.raises(InputTooLargeError):
        report_on(whole, "video/mp4", detector, limits=MediaLimits(max_bytes=len(whole) - 1))
    assert decode_clip(whole).sound is None or isinstance(decode_clip(whole).sound, Sound)


def marked_sound(mark_id: MarkId) -> Sound:
    speech = decode_sound(next(iter(sorted(sample_paths()))).read_bytes())
    return Sound(AudioEmbedder(KEY, mark_id, speech.rate_hz).apply(speech.samples_N), speech.rate_hz)


def signed_fingerprints(clip: Clip) -> dict[str, Any]:
    taker = FingerprintTaker(clip.frames_THWC.shape[2], clip.frames_THWC.shape[1])
    for frame_HWC, time_s in zip(clip.frames_THWC, clip.times_T, strict=True):
        taker.add(encoder_planes(frame_HWC).luma_HW, float(time_s))
    return taker.finish(clip.sound).to_json()


def test_a_sound_alone_is_examined(small_training: SmallTraining) -> None:
    mark_id = MarkId(0xABCDEF0123456789)
    sound = marked_sound(mark_id)
    fingerprints = signed_fingerprints(Clip(np.zeros((1, 64, 64, 3), np.uint8), 25.0, sound))
    registered = {mark_id.hex: {"manifest_id": "urn:c2pa:test", "fingerprints": fingerprints}}
    for data in (encode_sound_wav(sound), encode_sound(sound, "mp3", 64_000)):
        report = report_on(data, "application/octet-stream", small_training.detector, registered)
        check_shape(report)
        assert (report["media"]["kind"], report["verdict"]) == ("sound", "generated_here")
        assert report["layers"]["watermark"]["state"] == "not_examined"
        assert report["layers"]["watermark_audio"]["mark_id"] == mark_id.hex
        assert report["layers"]["watermark_audio"]["record"] == {"manifest_id": "urn:c2pa:test"}
        assert report["layers"]["fingerprints"]["state"] == "match"
        assert codes(report) == set()  # the mark decides; nobody asks for a picture
    unmarked = report_on(sample_paths()[0].read_bytes(), "audio/wav", small_training.detector, registered)
    check_shape(unmarked)
    assert codes(unmarked) == {"no_picture"}
    assert unmarked["verdict"] == "abstain" and unmarked["layers"]["watermark_audio"]["state"] == "not_detected"


def test_a_copied_mark_reads_as_content_that_differs(small_training: SmallTraining, tmp_path: Path) -> None:
    """What marking adds to one clip is added to another, which says and shows something else."""
    mark_id = MarkId(0x0123456789ABCDEF)
    signed_clip = talking(320, 320, 4.0, seed=1)
    embedder = Embedder(KEY, mark_id, 320, 320, 25.0)
    marked_THWC = embedder.apply(signed_clip.frames_THWC)
    registered = {mark_id.hex: {"fingerprints": signed_fingerprints(signed_clip)}}

    def examined(frames_THWC: np.ndarray, sound: Sound | None) -> dict[str, Any]:
        path = tmp_path / "clip.mp4"
        encode_clip(Clip(frames_THWC, 25.0, sound), path)
        report = report_on(path.read_bytes(), "video/mp4", small_training.detector, registered)
        check_shape(report)
        return report

    own = examined(marked_THWC, signed_clip.sound)
    assert own["reason"]["code"] == "mark_read" and own["layers"]["watermark"]["content"] == "match"
    residual = marked_THWC.astype(np.int16) - signed_clip.frames_THWC
    victim = np.stack([draw_face(31, 320)] * len(residual))
    speech = decode_sound(sample_paths()[1].read_bytes())
    pasted = examined(np.clip(victim + residual, 0, 255).astype(np.uint8), Sound(speech.samples_N[:64_000], 16_000))
    assert pasted["verdict"] == "generated_here" and pasted["reason"]["code"] == "mark_read_content_differs"
    assert "content differs" in pasted["reason"]["sentence"]
    assert pasted["layers"]["watermark"]["content"] == "differs"
    assert pasted["layers"]["fingerprints"]["state"] == "differs"


def test_two_marks_in_one_clip_are_named(small_training: SmallTraining, tmp_path: Path) -> None:
    shown, heard = MarkId(1), MarkId(2)
    clip = talking(320, 320, 6.0)
    path = tmp_path / "clip.mp4"
    encode_clip(Clip(Embedder(KEY, shown, 320, 320, 25.0).apply(clip.frames_THWC), 25.0, marked_sound(heard)), path)
    registered = {shown.hex: {"manifest_id": "a"}, heard.hex: {"manifest_id": "b"}}
    report = report_on(path.read_bytes(), "video/mp4", small_training.detector, registered)
    check_shape(report)
    assert report["layers"]["watermark"]["record"] == {"manifest_id": "a"}
    assert report["layers"]["watermark_audio"]["record"] == {"manifest_id": "b"}
    assert any("different marks" in limit for limit in report["limits"])


@pytest.mark.parametrize("kept", [0.3, 0.6, 0.95])
def test_a_file_cut_short_gets_a_state_for_each_layer(
    kept: float, small_training: SmallTraining, tmp_path: Path
) -> None:
    whole = mp4(tmp_path, swaying_face(40))
    report = report_on(whole[: int(kept * len(whole))], "video/mp4", small_training.detector)
    check_shape(report)
    assert report["verdict"] in ("abstain", "no_evidence")


# ---- what is shipped -------------------------------------------------------------------------------------------------

SAMPLES = sorted((Path(__file__).resolve().parents[2] / "generator" / "personas").rglob("*.mp4"))


@pytest.mark.skipif(not WEIGHTS.is_file(), reason="this source tree has no trained detector")
def test_shipped_weights_load_and_state_their_operating_point() -> None:
    detector = Detector.load()
    assert 0.5 <= detector.operating_point.threshold < 1
    assert detector.operating_point.num_authentic >= 1
    assert detector.calibrated_on
    assert detector.model_version in WEIGHTS.with_suffix(".md").read_text()


@pytest.mark.skipif(not WEIGHTS.is_file() or not SAMPLES, reason="no trained detector or no spoken sample is shipped")
def test_shipped_sample_scores_higher_than_the_still_it_was_made_from() -> None:
    detector = Detector.load()
    sample = SAMPLES[0]
    animated = detector.score(decode_clip(sample), bits_per_pixel=0.2)
    assert animated.p is not None
    portraits = [p for p in sample.parent.glob("*") if p.suffix in (".png", ".jpg") and "portrait" in p.stem]
    if not portraits:
        pytest.skip("the sample has no portrait beside it")
    still_HWC = cv2.cvtColor(cv2.imread(str(portraits[0])), cv2.COLOR_BGR2RGB)
    still = detector.score(Clip(np.stack([cv2.resize(still_HWC, (512, 512))] * 16), 25.0))
    assert still.p is not None
    assert animated.p > still.p
