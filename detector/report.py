"""The layered report: what the manifest, the mark and the detector say, and a verdict by fixed rules.

The rules are ordered and the first that holds decides; nothing is averaged. A missing manifest or mark is never
evidence of authenticity, and no verdict says that a clip shows what happened.

WIRE FORMAT: platforms parse this report. Append fields, verdicts and codes; never rename or remove one.

T frame  H,W pixel
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from detector.bands import band_of
from detector.calibration import PRIOR
from detector.exhibit import WINDOW_S, Exhibit, take_in
from detector.manifests import manifest_tree
from detector.marks import Marks, Resolve, read_marks_under_any
from detector.observation import MAX_FACES, FramesByIndex
from detector.perceptual import perceptual_hash
from detector.score import Detector, DetectorScore, Reason
from watermark.credentials import CredentialReading, read_credentials
from watermark.errors import UnreadableMediaError, UnsupportedMediaError
from watermark.media import CLIP_LIMITS, Clip, MediaLimits
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


NO_PICTURE = Reason("no_picture", "There is no picture in this file; the detector looks at faces.")
UNREADABLE = "unreadable"
NOT_NEEDED = "not_needed"
"""State of the detector's layer where no score could change the verdict; the network was not asked."""

_CONTENT_LIMITS = {
    "match": "The content agrees with the fingerprints that were signed with the mark. They are similarity, no proof.",
    "differs": "Mark present but content differs: the mark alone does not show that this content was made here.",
    "not_comparable": "A mark can be copied onto other content; the content was not compared with the registered clip.",
}


@dataclass(frozen=True)
class Evidence:
    """What the layers found, as far as the rules look at it.

    Attributes:
        mark: state of the marks of picture and sound together; "foreign" when one is of this key and no register
            entry explains it.
        manifest: state of the C2PA manifest.
        source_type: what the manifest declares as origin.
        p: the detector's probability of synthetic; None where it saw no face.
        threshold: that of the operating point.
        abstain: why the detector's score is no basis for a verdict.
        content: whether the content is the one that was signed together with the mark.
    """

    mark: Literal["detected", "foreign", "not_detected", "inconclusive"]
    manifest: Literal["trusted", "valid", "invalid", "absent"]
    source_type: str | None
    p: float | None
    threshold: float
    abstain: tuple[Reason, ...]
    content: Literal["match", "differs", "not_comparable"] = "not_comparable"

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
    if evidence.mark == "detected" and evidence.content == "differs":
        return "generated_here", Reason(
            "mark_read_content_differs",
            "Mark present but content differs: a mark of this service was read, but this is not the content that was "
            "signed with it. The clip was changed, or the mark was copied onto another.",
        )
    if evidence.mark == "detected":
        return "generated_here", Reason(
            "mark_read", "Picture or sound carry a mark that this service registered when it generated a clip."
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


Stage = Literal["opened", "c2pa", "watermark", "detector"]


@dataclass(frozen=True)
class Opening:
    """What is known of a medium before any layer looks at it.

    Attributes:
        kind: see `Exhibit.kind`.
        duration_s: as the file says; None for pictures, and where it does not.
        likeness: see `perceptual_hash`, of the picture or of frames of the clip; empty where nothing can be seen.
    """

    kind: str
    duration_s: float | None
    likeness: tuple[int, ...]


class Watcher(Protocol):
    """Somebody who follows an examination, and may stop it before the first layer looks."""

    def opened(self, opening: Opening) -> None:
        """The medium is decoded. What is raised here ends the examination."""

    def done(self, stage: Stage) -> None:
        """A layer has looked."""


@dataclass(frozen=True)
class Examination:
    """A report, and what its pictures are drawn from.

    Attributes:
        report: see `examine`.
        exhibit: what was looked at.
        score: what the detector said, in full.
    """

    report: dict[str, Any]
    exhibit: Exhibit
    score: DetectorScore


def examine(data: bytes, mime: str, **how: Any) -> dict[str, Any]:
    """The report alone; arguments and errors are those of `inspect`."""
    return inspect(data, mime, **how).report


def inspect(
    data: bytes,
    mime: str,
    *,
    trust_roots_pem: bytes | str,
    watermark_key: bytes,
    retired_watermark_keys: Sequence[bytes] = (),
    is_registered: Callable[[MarkId], bool],
    resolve: Resolve,
    detector: Detector,
    num_registered: int = ASSUMED_REGISTERED,
    limits: MediaLimits = CLIP_LIMITS,
    report_id: str = "",
    is_thorough: bool = False,
    watcher: Watcher | None = None,
) -> Examination:
    """Examine a picture, a clip or a sound in layers. Nothing is kept. Damaged media are examined as far as they go.

    Args:
        data: the whole file.
        mime: its media type; "application/octet-stream" lets the first bytes decide.
        trust_roots_pem: root certificates whose signers count as trusted.
        watermark_key: the instance's 32 bytes.
        retired_watermark_keys: those that it had before, newest first.
        is_registered: whether a mark id was ever given out.
        resolve: what the register knows of an id (manifest id, hashes, revocation), or None.
        detector: see `Detector.load`.
        num_registered: how many ids were given out, for the false-positive rate of the mark.
        limits: bounds on what is decoded.
        report_id: the name that the caller gives this report.
        is_thorough: ask the detector also where its score cannot change the verdict.
        watcher: is told how far the examination is.
    Returns: the report, JSON-able, in the shape that README.md shows, and what belongs to it.
    Raises: MediaError, PictureError (what is sent is no medium that is read here, or too large), InvalidMarkKeyError.
    """
    exhibit = take_in(data, mime, limits)
    if watcher is not None:
        watcher.opened(Opening(exhibit.kind, exhibit.duration_s, _likeness(exhibit)))
    # (1) manifest: cheapest, and decides most
    credentials, c2pa_problem = _credentials(data, exhibit.mime, trust_roots_pem)
    if watcher is not None:
        watcher.done("c2pa")
    # (2) marks of picture and sound, and the content that was signed with them
    keys = (watermark_key, *retired_watermark_keys)
    marks = read_marks_under_any(exhibit, keys, is_registered, resolve, credentials, num_registered=num_registered)
    if watcher is not None:
        watcher.done("watermark")
    # (3) the network, where it can add something
    score = _UNASKED
    if is_thorough or _can_matter(credentials, marks):
        score = _score(exhibit, detector)
    if watcher is not None:
        watcher.done("detector")
    digest = hashlib.sha256(data).hexdigest()
    report = _report(exhibit, credentials, c2pa_problem, marks, score, detector, digest, report_id)
    return Examination(report, exhibit, score)


def _can_matter(credentials: CredentialReading, marks: Marks) -> bool:
    """Whether any score could change the verdict: rules 1 and 2 hold whatever the detector says.

    A mark on content that differs is another matter: what was put in its place is worth a look.
    """
    if marks.state == "detected":
        return marks.content_state == "differs"
    return not (credentials.state == "trusted" and credentials.digital_source_type in AI_SOURCE_TYPES)


def _likeness(exhibit: Exhibit) -> tuple[int, ...]:
    """Perceptual hashes of the picture, or of three of the frames that are there, spread over the clip."""
    if not isinstance(exhibit.shown, Clip):
        return () if exhibit.shown is None else (perceptual_hash(exhibit.shown),)
    frames = exhibit.shown.frames_THWC
    indices = frames.indices if isinstance(frames, FramesByIndex) else tuple(range(len(frames)))
    spread = sorted({indices[0], indices[len(indices) // 2], indices[-1]})
    return tuple(perceptual_hash(frames[index]) for index in spread)


def unexamined(problem: str, *, detector: Detector, sha256: str = "", report_id: str = "") -> dict[str, Any]:
    """The report on a file that no layer could look at.

    Args:
        problem: why, in words.
        detector: for the operating point that a verdict would have rested on.
        sha256: of the file, empty if it was not even read.
        report_id: the name that the caller gives this report.
    """
    exhibit = Exhibit(b"", "unreadable", "", None, None, None, None, None, problem, CLIP_LIMITS)
    marks = Marks(None, None, problem, problem, None, None, None, problem)
    score = _score(exhibit, detector)
    return _report(exhibit, CredentialReading("absent"), problem, marks, score, detector, sha256, report_id)


def _report(
    exhibit: Exhibit,
    credentials: CredentialReading,
    c2pa_problem: str,
    marks: Marks,
    score: DetectorScore,
    detector: Detector,
    sha256: str,
    report_id: str,
) -> dict[str, Any]:
    point = detector.operating_point
    evidence = Evidence(
        marks.state,
        credentials.state,
        credentials.digital_source_type,
        score.p,
        point.threshold,
        score.abstain,
        marks.content_state,
    )
    verdict, reason = decide(evidence)
    return {
        "id": report_id,
        "model_version": detector.model_version,
        "media": {
            "sha256": sha256,
            "kind": exhibit.kind,
            "duration_s": None if exhibit.duration_s is None else round(exhibit.duration_s, 3),
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
            "c2pa": _c2pa_layer(credentials, c2pa_problem),
            **marks.layers(),
            "detector": _detector_layer(score, detector.calibrated_on, point.threshold),
        },
        "abstain_reasons": [_as_json(reason) for reason in score.abstain],
        "limits": _limits(evidence, exhibit, marks, score, detector) + ([c2pa_problem] if c2pa_problem else []),
        "retention": "none",
    }


_UNASKED = DetectorScore(None, PRIOR, None, (), None, (), 0, 0, 0.0, ())


def _score(exhibit: Exhibit, detector: Detector) -> DetectorScore:
    if exhibit.shown is not None:
        return detector.score(exhibit.shown, bits_per_pixel=exhibit.bits_per_pixel)
    reason = NO_PICTURE if exhibit.kind == "sound" else Reason(UNREADABLE, exhibit.problem or "Nothing can be seen.")
    return DetectorScore(None, PRIOR, None, (), None, (), 0, 0, 0.0, (reason,))


def _credentials(data: bytes, mime: str, trust_roots_pem: bytes | str) -> tuple[CredentialReading, str]:
    """The manifest, and why it could not be looked at, in words."""
    roots = trust_roots_pem.decode() if isinstance(trust_roots_pem, bytes) else trust_roots_pem
    try:
        return read_credentials(data, mime, roots), ""
    except UnsupportedMediaError:
        return CredentialReading("absent"), "Manifests are not read in files of this type."
    except UnreadableMediaError:
        return CredentialReading("absent"), "The file is too damaged to look for a manifest in it."


def _c2pa_layer(reading: CredentialReading, problem: str) -> dict[str, Any]:
    return {
        "state": "not_examined" if problem else reading.state,
        "digital_source_type": reading.digital_source_type or "",
        "manifest_id": reading.manifest_id or "",
        "signer": reading.signer or "",
        "signed_at": reading.signed_at.isoformat() if reading.signed_at is not None else "",
        "manifest": manifest_tree(reading),
        "problems": [found.code for found in reading.problems],
        **({"reason": problem} if problem else {}),
    }


def _detector_layer(score: DetectorScore, calibrated_on: str, threshold: float) -> dict[str, Any]:
    unseen = {NO_PICTURE.code, UNREADABLE} & {reason.code for reason in score.abstain}
    state = "not_examined" if unseen else "abstained" if score.abstain else "scored"
    layer: dict[str, Any] = {}
    if score is _UNASKED:
        layer["reason"] = "Mark or manifest decide whatever the score; the detector was not asked."
    elif unseen:
        layer["reason"] = score.abstain[0].sentence
    return {
        "state": NOT_NEEDED if score is _UNASKED else state,
        "p": _rounded(score.p),
        "band": band_of(score.p, threshold),
        "prior": score.prior,
        "llr": _rounded(score.llr),
        "conformal_set": list(score.conformal_set),
        "calibrated_on": calibrated_on,
        "ood": _rounded(score.ood),
        "timeline": [
            {
                "start_s": part.start_s,
                "end_s": part.end_s,
                "face": part.face,
                "p": round(part.p, 4),
                "band": band_of(part.p, threshold),
            }
            for part in score.timeline
        ],
        "faces": [
            {
                "face": seen.face,
                "p": round(seen.p, 4),
                "band": band_of(seen.p, threshold),
                "frames_used": seen.num_frames,
                "face_px": round(seen.face_px),
                "box": list(seen.box),
                "abstain_reasons": [reason.code for reason in seen.abstain],
            }
            for seen in score.faces
        ],
        "heatmap_url": "",
        **layer,
    }


def _limits(evidence: Evidence, exhibit: Exhibit, marks: Marks, score: DetectorScore, detector: Detector) -> list[str]:
    point = detector.operating_point
    limits = ["A missing manifest or mark is no evidence of authenticity: both can be removed."]
    if exhibit.problem:
        limits.append(exhibit.problem)
    if evidence.mark == "detected":
        limits.append(_CONTENT_LIMITS[evidence.content])
        if marks.are_two:
            limits.append("Picture and sound carry different marks of this service: parts of two clips were joined.")
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
    if exhibit.is_partly_examined:
        limits.append(f"Only the first {exhibit.limits.max_duration_s:g} seconds were examined; the rest may differ.")
    if any(not seen.abstain and seen.p >= point.threshold for seen in score.faces[1:]):
        limits.append("Another face than the main one scores above the threshold; the verdict rests on the main face.")
    if score.num_faces > max(len(score.faces), 1) and score.faces:
        limits.append(f"There are {score.num_faces} faces; at most {MAX_FACES} that stay in view are scored.")
    if exhibit.is_cut:
        limits.append(f"The detector looked at the first {WINDOW_S:g} seconds; the marks were looked for everywhere.")
    if exhibit.kind == "picture":
        limits.append("A still picture carries only the weaker part of the mark.")
    return limits


def _as_json(reason: Reason) -> dict[str, str]:
    return {"code": reason.code, "sentence": reason.sentence}


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
