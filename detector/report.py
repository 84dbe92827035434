"""The layered report: what the manifest, the mark and the detector say, and a verdict by fixed rules.

The rules are ordered and the first that holds decides; nothing is averaged. A missing manifest or mark is never
evidence of authenticity, and no verdict says that a clip shows what happened.

WIRE FORMAT: platforms parse this report. Append fields, verdicts and codes; never rename or remove one.

T frame  H,W pixel
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from detector.picture import PictureLimits, read_picture
from detector.score import Detector, DetectorScore, Reason
from watermark.credentials import CredentialReading, read_credentials
from watermark.errors import UnreadableMediaError, UnsupportedMediaError
from watermark.extract import MarkReading, read_mark
from watermark.media import (
    CLIP_LIMITS,
    Clip,
    MediaLimits,
    decode_clip,
    decode_colour_track,
    probe,
    sniff_container,
)
from watermark.payload import MarkId

Verdict = Literal[
    "generated_here",
    "ai_signed",
    "conflict",
    "provenance_supported",
    "likely_manipulated",
    "no_evidence",
    "abstain",
]

WINDOW_S = 10.0
"""How much of a clip the detector looks at, from its start; the mark is looked for everywhere."""
FIT_WITHIN_PX = 960
"""Larger frames are shrunk for the detector, to the sizes that its error rates were measured on."""
ASSUMED_REGISTERED = 1_000_000
"""Ids supposed to be registered where the caller does not say; the false-positive rate is then an upper bound."""

_IPTC = "http://cv.iptc.org/newscodes/digitalsourcetype/"
AI_SOURCE_TYPES = frozenset(
    (
        _IPTC + "trainedAlgorithmicMedia",
        _IPTC + "compositeWithTrainedAlgorithmicMedia",
        "http://c2pa.org/digitalsourcetype/trainedAlgorithmicData",
    )
)
"""Origins that declare the use of AI: IPTC NewsCodes, digital source type; C2PA Technical Specification 2.4, §18.15."""
CAPTURE_SOURCE_TYPES = frozenset(
    _IPTC + kind for kind in ("digitalCapture", "computationalCapture", "negativeFilm", "positiveFilm", "print")
)
"""Origins that declare a recording of what was in front of a camera."""


@dataclass(frozen=True)
class Evidence:
    """What the layers found, as far as the rules look at it.

    Attributes:
        mark: state of the mark; "foreign" when it is a mark of this key that no register entry explains.
        manifest: state of the C2PA manifest.
        source_type: what the manifest declares as origin.
        p: the detector's probability of synthetic; None where it saw no face.
        threshold: that of the operating point.
        abstain: why the detector's score is no basis for a verdict.
    """

    mark: Literal["detected", "foreign", "not_detected", "inconclusive"]
    manifest: Literal["trusted", "valid", "invalid", "absent"]
    source_type: str | None
    p: float | None
    threshold: float
    abstain: tuple[Reason, ...]

    @property
    def claims_capture(self) -> bool:
        """Whether an intact manifest, by whomever signed, declares a recording."""
        return self.manifest in ("trusted", "valid") and self.source_type in CAPTURE_SOURCE_TYPES

    @property
    def has_high_score(self) -> bool:
        return not self.abstain and self.p is not None and self.p >= self.threshold


def decide(evidence: Evidence) -> tuple[Verdict, Reason]:
    """The verdict, and the rule it came from. Pure; the order is the specification.

    Rule 1 stands before rule 3: a mark at its stated rate outweighs a manifest that anybody could have signed, and a
    false "captured" claim must not be able to soften "generated here" into "conflict". The contradiction is reported
    among the limits.
    """
    # (1) a registered mark was read
    if evidence.mark == "detected":
        return "generated_here", Reason(
            "mark_read", "The frames carry a mark that this service registered when it generated a clip."
        )
    # (2) a trusted signer says that AI was used
    if evidence.manifest == "trusted" and evidence.source_type in AI_SOURCE_TYPES:
        return "ai_signed", Reason("manifest_declares_ai", "A trusted manifest declares that AI made or changed this.")
    # (3) an intact manifest says "captured", and another layer contradicts it
    if evidence.claims_capture and (evidence.mark == "foreign" or evidence.has_high_score):
        return "conflict", Reason(
            "capture_contradicted", "The manifest declares a recording, but another layer contradicts it."
        )
    # (4) a trusted signer says "captured", and nothing contradicts it
    if evidence.manifest == "trusted" and evidence.claims_capture:
        return "provenance_supported", Reason(
            "capture_trusted", "A trusted manifest declares a recording, and no other layer contradicts it."
        )
    # (5) the detector at its operating point, unless it has reasons to abstain
    if evidence.abstain or evidence.p is None:
        return "abstain", Reason("detector_abstains", "Neither manifest nor mark decide, and the detector abstains.")
    if evidence.has_high_score:
        return "likely_manipulated", Reason(
            "score_above_threshold", "The detector's score reaches the threshold of the stated operating point."
        )
    # (6) silence of all layers is not evidence of authenticity
    return "no_evidence", Reason(
        "nothing_found", "No layer found evidence of generation or manipulation. That does not show authenticity."
    )


def examine(
    data: bytes,
    mime: str,
    *,
    trust_roots_pem: bytes | str,
    watermark_key: bytes,
    is_registered: Callable[[MarkId], bool],
    resolve: Callable[[MarkId], Mapping[str, Any] | None],
    detector: Detector,
    num_registered: int = ASSUMED_REGISTERED,
    limits: MediaLimits = CLIP_LIMITS,
    report_id: str = "",
) -> dict[str, Any]:
    """Examine a picture or a clip in layers. Nothing is kept.

    Args:
        data: the whole file.
        mime: its media type; "application/octet-stream" lets the first bytes decide.
        trust_roots_pem: root certificates whose signers count as trusted.
        watermark_key: the instance's 32 bytes.
        is_registered: whether a mark id was ever given out.
        resolve: what the register knows of an id (manifest id, hashes, revocation), or None.
        detector: see `Detector.load`.
        num_registered: how many ids were given out, for the false-positive rate of the mark.
        limits: bounds on what is decoded.
        report_id: the name that the caller gives this report.
    Returns: the report, JSON-able, in the shape that README.md shows.
    Raises: MediaError, PictureError (what is sent cannot be read), InvalidMarkKeyError.
    """
    media = _take_in(data, mime, limits)
    # (1) manifest, (2) mark, (3) detector: in the order of what each is worth
    credentials, notes = _credentials(data, media.mime, trust_roots_pem)
    reading = read_mark(media.track(data, limits), watermark_key, is_registered, num_registered=num_registered)
    record = resolve(reading.mark_id) if reading.mark_id is not None else None
    score = detector.score(media.shown, bits_per_pixel=media.bits_per_pixel)
    point = detector.operating_point
    is_foreign = reading.state == "inconclusive" and reading.num_attempts > 0
    evidence = Evidence(
        "foreign" if is_foreign else reading.state,
        credentials.state,
        credentials.digital_source_type,
        score.p,
        point.threshold,
        score.abstain,
    )
    verdict, reason = decide(evidence)
    return {
        "id": report_id,
        "model_version": detector.model_version,
        "media": {
            "sha256": hashlib.sha256(data).hexdigest(),
            "kind": media.kind,
            "frames_used": score.frames_used,
            "faces": score.num_faces,
            "face_px": round(score.face_px),
        },
        "verdict": verdict,
        "reason": _as_json(reason),
        "operating_point": {
            "name": point.name,
            "threshold": round(point.threshold, 6),
            "fpr_ci95": [round(limit, 6) for limit in point.fpr_ci95],
            "num_authentic": point.num_authentic,
            "established": point.established,
        },
        "layers": {
            "c2pa": _c2pa_layer(credentials),
            "watermark": _watermark_layer(reading, record),
            "detector": _detector_layer(score, detector.calibrated_on),
        },
        "abstain_reasons": [_as_json(reason) for reason in score.abstain],
        "limits": _limits(evidence, media, detector) + notes,
        "retention": "none",
    }


@dataclass(frozen=True)
class _Media:
    """What was sent, decoded as far as the detector needs it."""

    kind: Literal["picture", "clip"]
    mime: str
    shown: Clip | np.ndarray
    bits_per_pixel: float | None
    is_cut: bool

    def track(self, data: bytes, limits: MediaLimits) -> Any:
        """The input of the mark's reader: all of a clip, or the one frame of a picture."""
        if isinstance(self.shown, Clip):
            return decode_colour_track(data, limits)
        return Clip(self.shown[None], 25.0)


def _take_in(data: bytes, mime: str, limits: MediaLimits) -> _Media:
    container = sniff_container(data[:512])
    if container is None and not mime.startswith("video/"):
        picture_HWC = read_picture(data, PictureLimits(max_bytes=min(limits.max_bytes, PictureLimits().max_bytes)))
        known = mime if mime.startswith("image/") else _picture_mime(data)
        return _Media("picture", known, picture_HWC, None, False)
    info = probe(data, limits)
    clip = decode_clip(data, limits, fit_within_px=FIT_WITHIN_PX, stop_after_s=WINDOW_S)
    bits_per_pixel = None
    seconds = info.unverified_duration_s
    if info.video is not None and seconds:
        _, width, height, rate_hz = info.video
        bits_per_pixel = 8 * len(data) / max(1.0, seconds * (rate_hz or clip.rate_hz) * width * height)
    known = (
        mime if mime.startswith("video/") else {"mov": "video/mp4", "avi": "video/x-msvideo"}.get(container or "", "")
    )
    is_cut = seconds is not None and seconds > WINDOW_S + 0.5
    return _Media("clip", known or "application/octet-stream", clip, bits_per_pixel, is_cut)


def _picture_mime(data: bytes) -> str:
    if data[:4] == b"\x89PNG":
        return "image/png"
    if data[:4] == b"RIFF":
        return "image/webp"
    return "image/tiff" if data[:2] in (b"II", b"MM") else "image/jpeg"


def _credentials(data: bytes, mime: str, trust_roots_pem: bytes | str) -> tuple[CredentialReading, list[str]]:
    roots = trust_roots_pem.decode() if isinstance(trust_roots_pem, bytes) else trust_roots_pem
    try:
        return read_credentials(data, mime, roots), []
    except UnsupportedMediaError:
        return CredentialReading("absent"), ["Manifests are not read in files of this type."]
    except UnreadableMediaError:
        # The picture itself could be decoded, so the other layers still have something to say.
        return CredentialReading("absent"), ["The file is too damaged to look for a manifest in it."]


def _c2pa_layer(reading: CredentialReading) -> dict[str, Any]:
    return {
        "state": reading.state,
        "digital_source_type": reading.digital_source_type or "",
        "manifest_id": reading.manifest_id or "",
        "signer": reading.signer or "",
        "problems": [problem.code for problem in reading.problems],
    }


def _watermark_layer(reading: MarkReading, record: Mapping[str, Any] | None) -> dict[str, Any]:
    # Three states and no confidences: a finer answer would help whoever tries to remove the mark.
    layer: dict[str, Any] = {"state": reading.state, "null_fpr": reading.null_fpr}
    if reading.mark_id is not None:
        layer["mark_id"] = reading.mark_id.hex
        layer["content"] = "not compared"
        layer["record"] = dict(record) if record is not None else None
    return layer


def _detector_layer(score: DetectorScore, calibrated_on: str) -> dict[str, Any]:
    return {
        "p": _rounded(score.p),
        "prior": score.prior,
        "llr": _rounded(score.llr),
        "conformal_set": list(score.conformal_set),
        "calibrated_on": calibrated_on,
        "ood": _rounded(score.ood),
        "timeline": [
            {"start_s": part.start_s, "end_s": part.end_s, "face": part.face, "p": round(part.p, 4)}
            for part in score.timeline
        ],
        "heatmap_url": "",
    }


def _limits(evidence: Evidence, media: _Media, detector: Detector) -> list[str]:
    point = detector.operating_point
    limits = ["A missing manifest or mark is no evidence of authenticity: both can be removed."]
    if evidence.mark == "detected":
        limits.append("A mark can be copied onto other content; the content was not compared with the registered clip.")
        if evidence.claims_capture:
            limits.append("The manifest declares a recording and contradicts the mark; the mark outweighs it.")
    if evidence.mark == "foreign":
        limits.append("There is a mark of this service's key whose id is not in its register.")
    limits.append(
        "The detector knows this project's generator. Other generators, pasted faces, and generated stills that are "
        "not animated may leave no evidence that it knows."
    )
    rate = f"false-alarm rate on {point.num_authentic} authentic test clips between {point.fpr_ci95[0]:.2%} and " + (
        f"{point.fpr_ci95[1]:.2%} (95 %)"
    )
    claim = "established" if point.established else "not established"
    limits.append(
        f"Operating point {point.name}: {claim}; {rate}. Nearly all of "
        "these are filmed portraits: expect more false alarms on recordings of people who talk."
    )
    if media.is_cut:
        limits.append(f"The detector looked at the first {WINDOW_S:g} seconds; the mark was looked for everywhere.")
    if media.kind == "picture":
        limits.append("The mark sways in time and cannot be read from a still picture.")
    return limits


def _as_json(reason: Reason) -> dict[str, str]:
    return {"code": reason.code, "sentence": reason.sentence}


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
