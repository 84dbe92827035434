"""An engine process that answers with reports made up beforehand, for the pages: real process, real socket, no models.

The media say which report they want: a line of text such as `animated`.
"""

from __future__ import annotations

import io
import sys
import time
from typing import Any

from PIL import Image

from api.engine.child import Handler, Progress, connect, serve
from api.engine.wire import Message
from detector.bands import band_of
from watermark.errors import UnsupportedMediaError

THRESHOLD = 0.85
_ROOT = "http://cv.iptc.org/newscodes/digitalsourcetype/"
_WAVE = (0.31, 0.42, 0.55, 0.9, 0.97, 0.93, 0.61, 0.48)


def prepare(_hello: Message) -> Handler:
    """Nothing to load."""
    return handle


def handle(job: Message, progress: Progress) -> Message:
    """Go through the stages as the real one does, slowly enough to be seen where the file says `slow`."""
    wish = job.attachments.get("media", b"")[:64].decode(errors="replace").split()
    if "unexamined" in job.header:
        return Message({"report": _nothing()})
    if wish[:1] == ["refused"]:
        raise UnsupportedMediaError("This is no medium: send another file.")
    news: dict[str, Any] = {"what": "opened", "sha256": "0" * 64, "kind": "clip", "duration_s": 8.0, "likeness": []}
    progress.ask(news, {})
    for stage in ("c2pa", "watermark", "detector"):
        time.sleep(2.0 if "slow" in wish else 0.0)
        progress.ask({"what": "done", "stage": stage}, {})
    report = {"generated": _generated, "animated": _animated}.get(wish[0] if wish else "", _nothing)()
    pictures = {}
    if job.header.get("overlay") == "png" and report["layers"]["detector"]["timeline"]:
        out = io.BytesIO()
        Image.linear_gradient("L").convert("RGB").resize((320, 392)).save(out, "PNG")
        pictures["png"] = out.getvalue()
    return Message({"report": {**report, "id": job.header["report_id"]}}, pictures)


def _report(verdict: str, reason: str, **layers: Any) -> dict[str, Any]:
    return {
        "id": "",
        "model_version": "placet-detector-toy",
        "media": {"sha256": "0" * 64, "kind": "clip", "duration_s": 8.0, "frames_used": 16, "faces": 1, "face_px": 210},
        "verdict": verdict,
        "reason": {"code": reason, "sentence": "…"},
        "operating_point": {
            "name": "fpr_1pct",
            "threshold": THRESHOLD,
            "fpr_ci95": [0.002, 0.0282],
            "num_authentic": 308,
            "established": False,
        },
        "layers": {
            "c2pa": {
                "state": "absent", "digital_source_type": "", "manifest_id": "", "signer": "", "signed_at": "",
                "manifest": None, "problems": [],
            },
            "watermark": {"state": "not_detected", "null_fpr": 1e-12},
            "watermark_audio": {"state": "not_examined", "null_fpr": 0.0, "reason": "There is no sound."},
            "fingerprints": {"state": "not_examined", "reason": "…"},
            "detector": _detector([]),
            **layers,
        },
        "abstain_reasons": [],
        "limits": ["A missing manifest or mark is no evidence of authenticity: both can be removed."],
        "retention": "none",
    }  # fmt: skip


def _detector(scores: list[float], state: str = "scored") -> dict[str, Any]:
    p = max(scores) if scores else None
    return {
        "state": state,
        "p": p,
        "band": band_of(p, THRESHOLD),
        "prior": 0.5,
        "llr": None if p is None else 2.1,
        "conformal_set": ["synthetic"] if scores else [],
        "calibrated_on": "…",
        "ood": 0.4 if scores else None,
        "timeline": [
            {"start_s": float(nth), "end_s": nth + 1.0, "face": 0, "p": value, "band": band_of(value, THRESHOLD)}
            for nth, value in enumerate(scores)
        ],
        "faces": [],
        "heatmap_url": "",
    }


def _nothing() -> dict[str, Any]:
    report = _report("abstain", "detector_abstains", detector=_detector([], "abstained"))
    return {**report, "abstain_reasons": [{"code": "no_face", "sentence": "…"}]}


def _animated() -> dict[str, Any]:
    return _report("likely_manipulated", "score_above_threshold", detector=_detector(list(_WAVE)))


def _generated() -> dict[str, Any]:
    created = {"action": "c2pa.created", "source_type": "compositeWithTrainedAlgorithmicMedia"}
    portrait = {
        "label": "urn:c2pa:2", "title": "portrait.jpg", "generator": "Camera 1.2", "signer": "Example Camera, Example",
        "signed_at": "", "actions": [{"action": "c2pa.created", "source_type": "digitalCapture"}], "ingredients": [],
        "is_cut": False,
    }  # fmt: skip
    manifest = {
        "label": "urn:c2pa:1", "title": "video.mp4", "generator": "Placet 0.1", "signer": "Placet example, Placet",
        "signed_at": "", "actions": [created], "is_cut": False,
        "ingredients": [
            {"title": "portrait.jpg", "relationship": "inputTo", "manifest": portrait},
            {"title": "speech.wav", "relationship": "inputTo", "manifest": None},
        ],
    }  # fmt: skip
    mark = {"state": "detected", "null_fpr": 4e-13, "mark_id": "0123456789abcdef", "content": "match", "record": None}
    return _report(
        "generated_here",
        "mark_read",
        c2pa={
            "state": "trusted",
            "digital_source_type": _ROOT + "compositeWithTrainedAlgorithmicMedia",
            "manifest_id": "urn:c2pa:1",
            "signer": "Placet example, Placet",
            "signed_at": "2026-11-22T09:30:00+00:00",
            "manifest": manifest,
            "problems": [],
        },
        watermark=mark,
        watermark_audio=mark,
        fingerprints={"state": "match", "reason": "…", "features": {}},
        detector=_detector([], "not_needed"),
    )


if __name__ == "__main__":
    serve(connect(sys.argv), prepare)
