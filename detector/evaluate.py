"""How good the detector is, measured on clips it never saw: figures with intervals, tables by kind, coding and attack.

`figures` judges scores wherever they come from; `evaluate` scores two folders of files, as a platform would send them,
and once more after each attack; `table` writes it down.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from detector.calibration import OperatingPoint, stratum_of
from detector.errors import EmptyCorpusError
from detector.metrics import (
    Interval,
    auc,
    bootstrap,
    brier,
    coverage_risk,
    equal_error_rate,
    expected_calibration_error,
    proportion,
    tpr_at_fpr,
)
from detector.picture import read_picture
from detector.score import Detector
from watermark.attacks import Attack
from watermark.media import Clip, decode_clip

_PICTURES = frozenset((".jpg", ".jpeg", ".png", ".webp", ".bmp"))
_CLIPS = frozenset((".mp4", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg"))
_COVERAGES = (0.25, 0.5, 0.75, 0.9, 1.0)
_ATTACKED_FRAMES = 60
"""Attacks are tried on the middle of a clip: coding all of it would take long and tell nothing more."""


class Scored(NamedTuple):
    """One clip with its score.

    Attributes:
        name: of the clip.
        identity: who is shown; clips of one identity are drawn together when resampling.
        label: 1 synthetic, 0 authentic.
        kind: what it is, for the tables.
        p: probability of synthetic.
        abstains: whether the detector would abstain.
        bits_per_pixel: of the coded clip, or None.
        face_px: side of the face.
    """

    name: str
    identity: str
    label: int
    kind: str
    p: float
    abstains: bool
    bits_per_pixel: float | None
    face_px: float


def figures(scored: Sequence[Scored], point: OperatingPoint, *, seed: int = 0) -> dict[str, Any]:
    """All figures of a set of scored clips, each as value, low and high end of its 95 % interval.

    Raises: EmptyCorpusError: a class is missing.
    """
    if len({clip.label for clip in scored}) < 2:
        raise EmptyCorpusError("Figures need clips of both classes.")
    p_N = np.array([clip.p for clip in scored])
    labels_N = np.array([clip.label for clip in scored])
    identities = [clip.identity for clip in scored]

    def interval(figure: Callable[[np.ndarray, np.ndarray], float]) -> list[float]:
        return _rounded(bootstrap(figure, p_N, labels_N, identities, seed=seed))

    authentic = [clip for clip in scored if not clip.label]
    synthetic = [clip for clip in scored if clip.label]
    return {
        "num_authentic": len(authentic),
        "num_synthetic": len(synthetic),
        "num_identities": len(set(identities)),
        "auc": interval(auc),
        "tpr_at_fpr_1pct": interval(lambda p, y: tpr_at_fpr(p, y, 0.01)),
        "tpr_at_fpr_0.1pct": interval(lambda p, y: tpr_at_fpr(p, y, 0.001)),
        "eer": interval(equal_error_rate),
        "ece": interval(expected_calibration_error),
        "brier": interval(brier),
        "at_operating_point": {
            "threshold": round(point.threshold, 4),
            "tpr": _rounded(_share_at(synthetic, point.threshold)),
            "fpr": _rounded(_share_at(authentic, point.threshold)),
        },
        "coverage": _rounded(proportion(sum(not clip.abstains for clip in scored), len(scored))),
        "coverage_risk": [[coverage, round(risk, 4)] for coverage, risk in coverage_risk(p_N, labels_N, _COVERAGES)],
        "risk_when_covered": _rounded(_risk([clip for clip in scored if not clip.abstains], point.threshold)),
        "auc_by_synthetic_kind": {
            kind: auc_between(authentic, [clip for clip in synthetic if clip.kind == kind], seed=seed)
            for kind in sorted({clip.kind for clip in synthetic})
        },
        "fpr_by_authentic_kind": {
            kind: _rounded(_share_at([clip for clip in authentic if clip.kind == kind], point.threshold))
            for kind in sorted({clip.kind for clip in authentic})
        },
        "auc_by_stratum": {
            stratum: auc_between(*_split_by_label(scored, stratum), seed=seed)
            for stratum in sorted({stratum_of(clip.bits_per_pixel) for clip in scored})
        },
    }


def evaluate(
    authentic_dir: Path,
    synthetic_dir: Path,
    *,
    detector: Detector | None = None,
    plots_dir: Path | None = None,
    attacks: Mapping[str, Attack] | None = None,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Score every clip and picture in two folders (and below) and say how well they are told apart.

    Args:
        authentic_dir: recordings and photographs; nothing in it is animated or kept.
        synthetic_dir: outputs of a generator.
        detector: the shipped one where None.
        plots_dir: where to write `detector.png` (ROC, reliability, coverage and risk, scores), or None.
        attacks: score each clip once more after each of these, such as `detector.trials.ATTACKS`.
        seed: of the resampling.
        progress: called with files done and files in all.
    Returns: see `figures`, and `model_version`, `num_without_score`, `clips` with each file's score, and
        `attacks`: what `figures` says of each of them.
    Raises: EmptyCorpusError: a folder has no readable media with a face. MediaError, PictureError: a file is damaged.
    """
    detector = detector or Detector.load()
    labelled = [(path, 0) for path in _media_in(authentic_dir)] + [(path, 1) for path in _media_in(synthetic_dir)]
    identities = {**_identities(authentic_dir), **_identities(synthetic_dir)}
    attacks = attacks or {}
    scored: list[Scored] = []
    attacked: dict[str, list[Scored]] = {name: [] for name in attacks}
    num_without_score = 0
    for position, (path, label) in enumerate(labelled):
        clip, bits_per_pixel = _read(path)
        identity = identities.get(path, path.stem)
        found = _scored(detector, clip, bits_per_pixel, path.name, identity, label)
        if found is None:
            num_without_score += 1
        else:
            scored.append(found)
            if isinstance(clip, Clip):
                middle = _middle(clip)
                for name, attack in attacks.items():
                    found = _scored(detector, attack(middle), None, path.name, identity, label)
                    attacked[name] += [found] if found is not None else []
        progress(position + 1, len(labelled))
    report = figures(scored, detector.operating_point, seed=seed)
    report["attacks"] = {
        name: figures(clips, detector.operating_point, seed=seed)
        for name, clips in attacked.items()
        if len({clip.label for clip in clips}) == 2
    }
    if plots_dir is not None:
        plot(scored, detector.operating_point, plots_dir / "detector.png")
    clips = [{"name": c.name, "label": c.label, "p": round(c.p, 4), "abstains": c.abstains} for c in scored]
    return {
        "model_version": detector.model_version,
        **report,
        "num_without_score": num_without_score,
        "clips": clips,
    }


def plot(scored: Sequence[Scored], point: OperatingPoint, path: Path) -> None:
    """One picture of four: ROC with the operating point, reliability, coverage and risk, scores of both classes."""
    from matplotlib.figure import Figure

    p_N = np.array([clip.p for clip in scored])
    labels_N = np.array([clip.label for clip in scored], bool)
    sheet = Figure(figsize=(16, 4), layout="constrained")
    roc, reliability, coverage, scores = sheet.subplots(1, 4)
    thresholds = np.concatenate([[np.inf], np.unique(p_N)[::-1]])
    fpr = [(p_N[~labels_N] >= t).mean() for t in thresholds]
    tpr = [(p_N[labels_N] >= t).mean() for t in thresholds]
    roc.step(fpr, tpr, where="post")
    roc.plot(
        (p_N[~labels_N] >= point.threshold).mean(), (p_N[labels_N] >= point.threshold).mean(), "o", label=point.name
    )
    roc.set(xlabel="false alarms", ylabel="found", title="ROC", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    roc.legend(loc="lower right")
    parts = [part for part in np.array_split(np.argsort(p_N), 10) if len(part)]
    reliability.plot([0, 1], [0, 1], ":", color="grey")
    reliability.plot([p_N[part].mean() for part in parts], [labels_N[part].mean() for part in parts], "o-")
    reliability.set(xlabel="stated probability", ylabel="frequency", title="Reliability")
    steps = coverage_risk(p_N, labels_N, tuple(np.linspace(0.05, 1, 39)))
    coverage.plot(*zip(*steps, strict=True))
    coverage.set(xlabel="coverage, surest first", ylabel="wrong", title="Coverage and risk", ylim=(-0.005, None))
    for label, name in ((False, "authentic"), (True, "synthetic")):
        scores.hist(p_N[labels_N == label], bins=np.linspace(0, 1, 21), alpha=0.6, label=name)
    scores.axvline(point.threshold, color="black", linewidth=1)
    scores.set(xlabel="p", ylabel="clips", title="Scores and threshold", yscale="log")
    scores.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.savefig(path, dpi=110)


_NAMES = {
    "auc": "AUC",
    "tpr_at_fpr_1pct": "found at 1 % false alarms",
    "tpr_at_fpr_0.1pct": "found at 0.1 % false alarms",
    "eer": "equal error rate",
    "ece": "expected calibration error, at equal priors",
    "brier": "Brier score, at equal priors",
    "coverage": "coverage (does not abstain)",
    "risk_when_covered": "wrong when it does not abstain",
}


def table(report: Mapping[str, Any]) -> str:
    """The figures of an evaluation as Markdown: value, then its 95 % interval; attacks below."""
    at = report["at_operating_point"]
    rows = [(words, report[name]) for name, words in _NAMES.items()]
    rows += [(f"found at the shipped threshold {at['threshold']:.3f}", at["tpr"]), ("false alarms there", at["fpr"])]
    lines = [f"{report['num_authentic']} authentic and {report['num_synthetic']} synthetic clips, "]
    lines[0] += f"{report['num_identities']} identities or files. Detector `{report['model_version']}`."
    lines += ["", "| figure | value | 95 % |", "|---|---|---|"]
    lines += [f"| {words} | {value:.3f} | {low:.3f}–{high:.3f} |" for words, (value, low, high) in rows]
    lines += ["", "| surest share of the clips | wrong among them |", "|---|---|"]
    lines += [f"| {coverage:.0%} | {risk:.3f} |" for coverage, risk in report["coverage_risk"]]
    if report["attacks"]:
        lines += ["", "| attack | AUC | found at 1 % false alarms | found at the threshold | false alarms there |"]
        lines += ["|---|---|---|---|---|"]
        for name, found in report["attacks"].items():
            at = found["at_operating_point"]
            cells = (found["auc"], found["tpr_at_fpr_1pct"], at["tpr"], at["fpr"])
            shown = " | ".join(f"{value:.3f} ({low:.3f}–{high:.3f})" for value, low, high in cells)
            lines.append(f"| {name} | {shown} |")
    return "\n".join(lines) + "\n"


def _scored(
    detector: Detector,
    clip: Clip | np.ndarray,
    bits_per_pixel: float | None,
    name: str,
    identity: str,
    label: int,
) -> Scored | None:
    """None where there is no score: a picture, or no face."""
    score = detector.score(clip, bits_per_pixel=bits_per_pixel)
    if score.p is None:
        return None
    kind = "clip" if isinstance(clip, Clip) else "picture"
    return Scored(name, identity, label, kind, score.p, bool(score.abstain), bits_per_pixel, score.face_px)


def _middle(clip: Clip) -> Clip:
    start = max(0, (len(clip.frames_THWC) - _ATTACKED_FRAMES) // 2)
    return Clip(clip.frames_THWC[start : start + _ATTACKED_FRAMES], clip.rate_hz)


def _media_in(folder: Path) -> list[Path]:
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in _PICTURES | _CLIPS)
    if not found:
        raise EmptyCorpusError(f"There are no pictures or clips in {folder.name}.")
    return found


def _identities(folder: Path) -> dict[Path, str]:
    """Who is shown, where the folder has an index of renders."""
    index = folder / "index.jsonl"
    if not index.is_file():
        return {}
    entries = [json.loads(line) for line in index.read_text().splitlines() if line.strip()]
    return {folder / entry["file"]: str(entry["identity"]) for entry in entries if "identity" in entry}


def _read(path: Path) -> tuple[Clip | np.ndarray, float | None]:
    data = path.read_bytes()
    if path.suffix.lower() in _PICTURES:
        return read_picture(data), None
    clip = decode_clip(data)
    return clip, 8 * len(data) / clip.frames_THWC[..., 0].size


def _share_at(clips: Iterable[Scored], threshold: float) -> Interval:
    reached = [clip.p >= threshold for clip in clips]
    return proportion(sum(reached), len(reached))


def _risk(clips: Sequence[Scored], threshold: float) -> Interval:
    wrong = [(clip.p >= threshold) != bool(clip.label) for clip in clips]
    return proportion(sum(wrong), len(wrong))


def auc_between(authentic: Sequence[Scored], synthetic: Sequence[Scored], *, seed: int) -> list[float]:
    """Area under the curve of two sets of clips: value, low and high end of the interval; NaN where one is empty."""
    both = [*authentic, *synthetic]
    if not authentic or not synthetic:
        return [float("nan")] * 3
    p_N, labels_N = np.array([clip.p for clip in both]), np.array([clip.label for clip in both])
    return _rounded(bootstrap(auc, p_N, labels_N, [clip.identity for clip in both], seed=seed))


def _split_by_label(scored: Sequence[Scored], stratum: str) -> tuple[list[Scored], list[Scored]]:
    inside = [clip for clip in scored if stratum_of(clip.bits_per_pixel) == stratum]
    return [clip for clip in inside if not clip.label], [clip for clip in inside if clip.label]


def _rounded(interval: Interval) -> list[float]:
    return [round(float(value), 4) for value in interval]
