"""What the page of a report shows, worked out from the report: tones, keys of texts, the drawing. No words in here."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

TONE_BY_VERDICT: Final = {
    "generated_here": "warn",
    "ai_signed": "warn",
    "conflict": "bad",
    "provenance_supported": "good",
    "likely_manipulated": "bad",
    "no_evidence": "quiet",
    "abstain": "quiet",
}
TONE_BY_STATE: Final = {
    "trusted": "good",
    "valid": "quiet",
    "invalid": "bad",
    "detected": "warn",
    "match": "good",
    "differs": "bad",
    "scored": "quiet",
}
BANDS: Final = ("very_low", "low", "medium", "high", "very_high")

WIDTH, HEIGHT = 720.0, 190.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 44.0, 12.0, 12.0, 34.0


@dataclass(frozen=True)
class Step:
    """A stretch of the timeline, as drawn and as read out."""

    x: float
    y: float
    width: float
    start_s: float
    end_s: float
    band: str
    p: float | None
    is_high: bool


@dataclass(frozen=True)
class Timeline:
    """One face over time.

    Attributes:
        path: the line, as an SVG path.
        threshold_y: where the operating point is drawn.
        ticks: x and seconds.
        rungs: y and the band, or None and the probability.
    """

    face: int
    path: str
    steps: tuple[Step, ...]
    threshold_y: float
    ticks: tuple[tuple[float, str], ...]
    rungs: tuple[tuple[float, str], ...]


@dataclass(frozen=True)
class View:
    """A report, ready to be put into words.

    Attributes:
        limits: keys of sentences below `check.limit.`, each with its values.
        null_exponent: the bound on false marks is ten to minus this.
    """

    verdict: str
    reason: str
    tone: str
    is_public: bool
    media: dict[str, Any]
    c2pa: dict[str, Any]
    marks: tuple[tuple[str, dict[str, Any], int], ...]
    content: dict[str, Any]
    detector: dict[str, Any]
    faces: tuple[dict[str, Any], ...]
    timelines: tuple[Timeline, ...]
    point: dict[str, Any]
    abstain: tuple[str, ...]
    limits: tuple[tuple[str, dict[str, Any]], ...]

    def tone_of(self, state: str) -> str:
        """Tone of a layer's state."""
        return TONE_BY_STATE.get(state, "quiet")


def shown(report: dict[str, Any]) -> View:
    """What to show of a report, of either tier."""
    layers = report["layers"]
    detector, point = layers["detector"], report["operating_point"]
    is_public = report.get("tier") == "public"
    marks = tuple(
        (name, layers[name], _exponent(layers[name].get("null_fpr", 0.0))) for name in ("watermark", "watermark_audio")
    )
    faces = sorted({part["face"] for part in detector["timeline"]})
    return View(
        verdict=report["verdict"],
        reason=report["reason"]["code"],
        tone=TONE_BY_VERDICT.get(report["verdict"], "quiet"),
        is_public=is_public,
        media=report["media"],
        c2pa=layers["c2pa"],
        marks=marks,
        content=layers["fingerprints"],
        detector=detector,
        faces=tuple(detector.get("faces", [])),
        timelines=tuple(
            timeline(detector["timeline"], face, float(point["threshold"]), is_public=is_public) for face in faces
        ),
        point=point,
        abstain=tuple(reason["code"] for reason in report["abstain_reasons"]),
        limits=_limits(report),
    )


def timeline(parts: list[dict[str, Any]], face: int, threshold: float, *, is_public: bool) -> Timeline:
    """The drawing of one face's timeline: probabilities, or bands for the public tier."""
    own = [part for part in parts if part["face"] == face]
    end_s = max(part["end_s"] for part in own)

    def across(time_s: float) -> float:
        return round(_LEFT + (WIDTH - _LEFT - _RIGHT) * time_s / end_s, 1)

    def up(share: float) -> float:
        return round(HEIGHT - _BOTTOM - (HEIGHT - _TOP - _BOTTOM) * share, 1)

    def share(part: dict[str, Any]) -> float:
        return (BANDS.index(part["band"]) + 0.5) / len(BANDS) if is_public else float(part["p"])

    steps = tuple(
        Step(
            across(part["start_s"]),
            up(share(part)),
            round(across(part["end_s"]) - across(part["start_s"]), 1),
            part["start_s"],
            part["end_s"],
            part["band"],
            None if is_public else float(part["p"]),
            part["band"] == "very_high",
        )
        for part in own
    )
    path = " ".join(
        f"{'M' if nth == 0 else 'L'}{step.x} {step.y} H{round(step.x + step.width, 1)}"
        for nth, step in enumerate(steps)
    )
    stride_s = max(1, math.ceil(end_s / 10))
    ticks = tuple((across(float(second)), str(second)) for second in range(0, math.floor(end_s) + 1, stride_s))
    rungs = (
        tuple((up((nth + 0.5) / len(BANDS)), band) for nth, band in enumerate(BANDS))
        if is_public
        else tuple((up(value), f"{value:g}") for value in (0.0, 0.5, 1.0))
    )
    return Timeline(face, path, steps, up(0.8 if is_public else threshold), ticks, rungs)


def _exponent(null_fpr: float) -> int:
    return math.floor(-math.log10(null_fpr)) if null_fpr > 0 else 0


def _limits(report: dict[str, Any]) -> tuple[tuple[str, dict[str, Any]], ...]:
    """What stands against believing too much, as keys: the same things that the report says in English."""
    point, layers, media = report["operating_point"], report["layers"], report["media"]
    found: list[tuple[str, dict[str, Any]]] = [("absence", {})]
    marks = [layers[name] for name in ("watermark", "watermark_audio")]
    if any(mark["state"] == "detected" for mark in marks):
        found.append((f"content_{layers['fingerprints']['state']}", {}))
        if len({mark.get("mark_id") for mark in marks if mark.get("mark_id")}) > 1:
            found.append(("two_marks", {}))
    if any("not in its register" in limit for limit in report["limits"]):
        found.append(("foreign", {}))
    if any("seconds were examined" in limit for limit in report["limits"]):
        found.append(("partly", {}))
    if any("Another face" in limit for limit in report["limits"]):
        found.append(("another_face", {}))
    if (media.get("duration_s") or 0) > 10.5:
        found.append(("window", {}))
    if media["kind"] == "picture":
        found.append(("still", {}))
    found.append(("scope", {}))
    low, high = (f"{100 * value:.1f}" for value in point["fpr_ci95"])
    state = "established" if point["established"] else "unproven"
    found.append((f"rate_{state}", {"low": low, "high": high, "count": point["num_authentic"]}))
    return tuple(found)
