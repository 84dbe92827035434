"""The scorecard: every property of the generator that is measured, its aim, what was found, and whether that is met."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from generator.appearance import Drift, Flicker
from generator.evaluate import LipMeasures
from generator.naturalness import NaturalRow
from generator.trials import Disentanglement

Status = Literal["met", "missed", "not measured"]


@dataclass(frozen=True)
class ScoreRow:
    """One property.

    Attributes:
        name: of the property.
        aim: in words.
        figure: what was found, in words.
        status: whether the aim is met.
    """

    name: str
    aim: str
    figure: str
    status: Status


@dataclass(frozen=True)
class ClipFigures:
    """What was measured on one talking clip.

    Attributes:
        lips: None without a transcription.
        likeness: distances of sampled frames from the portrait.
        sharpness: gradient energy over the portrait's.
        pose_variation_deg: ΔP.
        flicker: of still regions.
    """

    lips: LipMeasures | None
    likeness: tuple[float, ...]
    sharpness: float
    pose_variation_deg: float
    flicker: Flicker

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "lips": None if self.lips is None else self.lips.to_json()}

    @classmethod
    def from_json(cls, stated: Mapping[str, Any]) -> ClipFigures:
        """Read `to_json`'s form. Raises: KeyError, TypeError, ValueError: it is of another version."""
        lips = stated["lips"]
        known = None if lips is None else {name: lips[name] for name in LipMeasures.__dataclass_fields__}
        return cls(
            lips=None if known is None else LipMeasures(**known),
            likeness=tuple(float(v) for v in stated["likeness"]),
            sharpness=float(stated["sharpness"]),
            pose_variation_deg=float(stated["pose_variation_deg"]),
            flicker=Flicker(**stated["flicker"]),
        )


@dataclass(frozen=True)
class TrialFigures:
    """What was measured on one portrait's trial clip.

    Attributes:
        control_errors: by control, one per hold (see `trials.control_errors`).
        disentanglement: None where no speech was there to tell the ranges.
        seam_ratio: strongest thin structure in any turned frame, over that of the frame at rest.
    """

    control_errors: Mapping[str, Sequence[float]]
    disentanglement: Disentanglement | None
    seam_ratio: float

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def _row(name: str, aim: str, figure: str, is_met: bool | None) -> ScoreRow:
    return ScoreRow(name, aim, figure, "not measured" if is_met is None else "met" if is_met else "missed")


def scorecard(
    clips: Sequence[ClipFigures],
    trials: Sequence[TrialFigures],
    natural: Sequence[NaturalRow],
    *,
    drift: Drift | None = None,
    drift_minutes: float = 0.0,
    paste_back_db: Sequence[float] = (),
    failures: Mapping[str, str | None] | None = None,
) -> list[ScoreRow]:
    """All rows; what was not measured says so.

    Args:
        paste_back_db: agreement outside the face region with the photo in delivered, coded files.
        failures: by kind of bad input, the code of the error that it got; None if it was let through.
    """
    return [
        *_lip_rows(clips),
        *_looks_rows(clips),
        *_control_rows(trials),
        *_motion_rows(clips, natural),
        *_stability_rows(clips, drift, drift_minutes),
        _row(
            "paste-back: outside the face region",
            "equal to the photo before marking; ≥ 38 dB once marked and coded",
            f"{min(paste_back_db):.1f} dB at worst of {len(paste_back_db)} portraits" if paste_back_db else "–",
            min(paste_back_db) >= 38.0 if paste_back_db else None,
        ),
        _row(
            "head turns: thin bright or dark structure",
            "≤ 1.15 of that at rest",
            f"{max(t.seam_ratio for t in trials):.2f} at worst of {len(trials)} portraits" if trials else "–",
            max(t.seam_ratio for t in trials) <= 1.15 if trials else None,
        ),
        _failure_row(failures),
    ]


def _lip_rows(clips: Sequence[ClipFigures]) -> list[ScoreRow]:
    lips = [clip.lips for clip in clips if clip.lips is not None]
    names = (
        ("lip sync: lag", "≤ 40 ms"),
        ("lip sync: closures on p b m", "≥ 0.95"),
        ("lip sync: opening on vowels", "≥ 0.7"),
        ("silence: lips, against speech", "≤ 5 %"),
    )
    if not lips:
        return [_row(name, aim, "–", None) for name, aim in names]
    lag_ms = statistics.median(each.lag_ms for each in lips)
    num_closures, num_closed = sum(each.num_closures for each in lips), sum(each.num_closed for each in lips)
    recall = num_closed / max(num_closures, 1)
    correlation = statistics.median(each.correlation for each in lips)
    still = [each.silence_motion for each in lips if each.silence_motion is not None]
    worst_ms = max((each.lag_ms for each in lips), key=abs)
    found: tuple[tuple[str, bool | None], ...] = (
        (f"{lag_ms:+.0f} ms median, {worst_ms:+.0f} ms at worst", abs(lag_ms) <= 40.0),
        (f"{recall:.3f} ({num_closed} of {num_closures})", recall >= 0.95),
        (f"{correlation:.2f} median", correlation >= 0.7),
        (
            f"{statistics.median(still):.1%} median" if still else "–",
            statistics.median(still) <= 0.05 if still else None,
        ),
    )
    return [_row(*name, *each) for name, each in zip(names, found, strict=True)]


def _looks_rows(clips: Sequence[ClipFigures]) -> list[ScoreRow]:
    near = [distance for clip in clips for distance in clip.likeness]
    sharp = [clip.sharpness for clip in clips]
    return [
        _row(
            "identity: distance from the portrait",
            "median ≤ 0.30, worst ≤ 0.50",
            f"median {np.median(near):.2f}, worst {max(near):.2f} of {len(near)} frames" if near else "–",
            bool(np.median(near) <= 0.30 and max(near) <= 0.50) if near else None,
        ),
        _row(
            "sharpness: gradient energy against the portrait",
            "≥ 0.9",
            f"{np.median(sharp):.2f} median, {min(sharp):.2f} at worst" if sharp else "–",
            bool(np.median(sharp) >= 0.9) if sharp else None,
        ),
    ]


_CONTROLS = (
    ("yaw", "yaw_deg", 2.0, "°", 1.0),
    ("pitch", "pitch_deg", 2.0, "°", 1.0),
    ("roll", "roll_deg", 2.0, "°", 1.0),
    ("gaze yaw", "gaze_yaw_deg", 4.0, "°", 1.0),
    ("gaze pitch", "gaze_pitch_deg", 4.0, "°", 1.0),
    ("distance", "distance", 3.0, " %", 100.0),
)


def _control_rows(trials: Sequence[TrialFigures]) -> list[ScoreRow]:
    rows = []
    for name, key, aim, unit, factor in _CONTROLS:
        errors = [abs(error) * factor for trial in trials for error in trial.control_errors[key]]
        rows.append(
            _row(
                f"control: {name}",
                f"≤ {aim:g}{unit}",
                f"{np.mean(errors):.1f}{unit} mean, {max(errors):.1f}{unit} at worst" if errors else "–",
                bool(np.mean(errors) <= aim) if errors else None,
            )
        )
    parts = [trial.disentanglement for trial in trials if trial.disentanglement is not None]
    for name, values in (
        ("disentanglement: expression under pose alone", [each.expression_by_pose for each in parts]),
        ("disentanglement: pose under expression alone", [each.pose_by_expression for each in parts]),
    ):
        figure = f"{np.mean(values):.1%} of range" if values else "–"
        rows.append(_row(name, "≤ 5 % of range", figure, bool(np.mean(values) <= 0.05) if values else None))
    return rows


def _motion_rows(clips: Sequence[ClipFigures], natural: Sequence[NaturalRow]) -> list[ScoreRow]:
    variation = [clip.pose_variation_deg for clip in clips]
    num_natural = sum(row.is_natural for row in natural)
    return [
        _row(
            "pose variation ΔP",
            "≥ 0.3°",
            f"{np.mean(variation):.2f}° mean" if variation else "–",
            bool(np.mean(variation) >= 0.3) if variation else None,
        ),
        _row(
            "natural motion: rows within the reference's p10–p90",
            "≥ 80 %",
            f"{num_natural} of {len(natural)} ({num_natural / len(natural):.0%})" if natural else "–",
            num_natural >= 0.8 * len(natural) if natural else None,
        ),
    ]


def _stability_rows(clips: Sequence[ClipFigures], drift: Drift | None, minutes: float) -> list[ScoreRow]:
    still = [clip.flicker.per_mark_period for clip in clips]
    sway = [clip.flicker.adjacent for clip in clips]
    moved = "–"
    if drift is not None:
        moved = (
            f"{minutes:g} min: {drift.yaw_deg:+.1f}° {drift.pitch_deg:+.1f}° {drift.roll_deg:+.1f}° "
            f"(± {drift.usual_deg:.1f}°), scale {drift.scale:+.1%}, colour {drift.colour:.2f} steps"
        )
    return [
        _row(
            "stability: flicker of still regions",
            "≤ 0.5 steps of 255, the mark's sway aside",
            f"{np.median(still):.2f} steps median ({np.median(sway):.2f} with the mark)" if still else "–",
            bool(np.median(still) <= 0.5) if still else None,
        ),
        _row("stability: drift", "none measurable", moved, None if drift is None else not drift.is_measurable),
    ]


def _failure_row(failures: Mapping[str, str | None] | None) -> ScoreRow:
    if not failures:
        return _row("failure inputs", "a named error before any render", "–", None)
    figure = ", ".join(f"{kind}: {code or 'accepted'}" for kind, code in failures.items())
    return _row("failure inputs", "a named error before any render", figure, all(failures.values()))


def as_table(rows: Sequence[ScoreRow]) -> str:
    """Markdown, as in docs/generator.md."""
    lines = ["| property | aim | found | |", "|---|---|---|---|"]
    return "\n".join([*lines, *(f"| {row.name} | {row.aim} | {row.figure} | {row.status} |" for row in rows)])
