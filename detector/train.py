"""From material to a detector: plan, make examples, teach, calibrate, test on other identities, write weights and card.

Behind `placet train detector`. Seeded throughout: the same material, seed and library versions give the same heads.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from detector.calibration import Calibration, OperatingPoint, Stratum, calibrate, choose_threshold, stratum_of
from detector.card import CardFacts, model_card
from detector.casting import Take, cast, recordings_in
from detector.data import Example, ExampleStore, Item, Kind, Material, Quotas, plan, renders_in
from detector.errors import EmptyCorpusError
from detector.evaluate import Scored, auc_between, figures, plot
from detector.fitting import Teaching, fit_heads
from detector.heads import Heads
from detector.metrics import auc, bootstrap, proportion
from detector.observation import Observer
from detector.probes import probe_short_cuts
from detector.score import LEAST_FACE_PX, WEIGHTS, DetectorWeights, write_weights
from detector.trials import WITH_MARK, WITHOUT_MARK

Progress = Callable[[str, int, int], None]

OPERATING_POINT = "fpr_1pct"
_AIMED_FPR = 0.01
_FEWEST_TO_ESTABLISH = 300
_SELF_BLENDED = {
    Kind.SELF_BLENDED_STILL: Kind.FILMED_STILL,
    Kind.SELF_BLENDED_TALKING: Kind.TALKING,
}


@dataclass(frozen=True)
class TrainingReport:
    """What came out of a training: figures of the test split, and where the weights lie."""

    model_version: str
    weights: Path
    figures: dict[str, Any]


class _Judged(NamedTuple):
    example: Example
    logit: float
    sketch_D: np.ndarray


def material_in(
    data_root: Path, renders: Path | None, watermark_key: bytes | None = None, *, earlier: Path | None = None
) -> Material:
    """The material in the layout of the project's data folder.

    Args:
        data_root: has `portraits/officials`, `portraits/synthetic*`, `video/grid`, as far as they exist.
        renders: a folder of deliveries with an `index.jsonl`, or None.
        watermark_key: the key they are marked under.
        earlier: another such folder, of earlier versions of the generator, under the marks of another instance.
    """
    others = () if earlier is None else renders_in(earlier, earlier=True)
    return Material(
        protected_stills=_files(data_root, "portraits/officials/*.jpg"),
        synthetic_stills=synthetic_portraits(data_root),
        talking_clips=_files(data_root, "video/grid/*.mpg"),
        renders=(renders_in(renders) if renders is not None else ()) + others,
        watermark_key=watermark_key,
    )


def synthetic_portraits(data_root: Path) -> tuple[Path, ...]:
    """The portraits of synthetic identities in the layout of the project's data folder."""
    return _files(data_root, "portraits/synthetic*/*.jpg")


def cast_from(data_root: Path, *, num_takes: int, num_held_out: int, seed: int = 0) -> list[Take]:
    """The takes to be rendered for a training on this material, see `detector.casting`. Raises: EmptyCorpusError."""
    quotas = Quotas()
    return cast(
        synthetic_portraits(data_root),
        recordings_in(data_root / "speech" / "kokoro"),
        num_takes=num_takes,
        num_held_out=num_held_out,
        shares=(quotas.train, quotas.calibrate),
        seed=seed,
    )


def train(
    material: Material,
    *,
    scratch: Path,
    weights: Path = WEIGHTS,
    quotas: Quotas | None = None,
    teaching: Teaching | None = None,
    seed: int = 0,
    command: str = "",
    make_missing: bool = True,
    progress: Progress = lambda stage, done, total: None,
) -> TrainingReport:
    """Train a detector and write it, its model card and its plots.

    Args:
        material: what to learn from. Nobody in it is animated here; renders come ready-made, through the gate.
        scratch: where examples are kept between trainings (cells and 16×16 thumbnails, no pictures).
        weights: the file to write; the card gets the same name with `.md`, the plots with `.png`.
        quotas: how much is made of what.
        teaching: how the head is taught.
        seed: of everything drawn by chance.
        command: for the card: how the training was started, and from which state of the code.
        make_missing: make the examples that are not in the scratch folder yet; otherwise train on those that are.
        progress: called with the stage and how far it is.
    Raises: EmptyCorpusError, LeakyCorpusError, BackboneError, MediaError, PictureError.
    """
    quotas, teaching = quotas or Quotas(), teaching or Teaching()
    # (1) material -> examples
    items = plan(material, quotas, seed)
    examples = _examples(items, material, scratch, progress, make_missing)
    ordinary = [example for example in examples if not example.item.trial]
    by_split = {split: [e for e in ordinary if e.item.split == split] for split in ("train", "calibrate", "test")}
    # (2) heads, from the training identities alone
    progress("teach", 0, 1)
    heads, left_out_N = fit_heads(by_split["train"], teaching)
    progress("teach", 1, 1)
    # (3) calibration and threshold, from identities that the heads never saw: the split kept for that, and the training
    # split as judged by heads that were taught without the identity in question
    taught = [
        judged._replace(logit=float(logit))
        for judged, logit in zip(_judge(heads, by_split["train"]), left_out_N, strict=True)
        if np.isfinite(logit)
    ]
    judged = _judge(heads, _in_scope(by_split["calibrate"]))
    judged += [one for one in taught if _is_in_scope(one.example, by_split["train"])]
    calibrated_on = [one.example for one in judged]
    if len({one.example.item.label for one in judged}) < 2:
        raise EmptyCorpusError("The calibration split needs examples of both classes; add material.")
    calibration = _calibrate(judged)
    threshold = choose_threshold(_p_of(_balanced_authentic(judged), calibration), _AIMED_FPR)
    # (4) figures, from identities that neither saw
    tested = _judge(heads, _in_scope(by_split["test"]))
    point = operating_point_on(tested_p(tested, calibration), threshold)
    scored = [_scored(one, calibration) for one in tested]
    report = {
        **figures(scored, point, seed=seed),
        "auc_of_self_blended": _self_blended(_judge(heads, by_split["test"]), calibration, seed),
        "render_against_own_still": _paired_figures(tested, calibration, point, seed),
        "trials": trial_table(heads, calibration, point, examples, seed),
        "mark": mark_difference(heads, examples, seed),
        "short_cut_probes": {
            name: [round(float(value), 4) for value in interval]
            for name, interval in probe_short_cuts(ordinary, seed=seed).items()
        },
        "num_examples": _counts(examples),
    }
    # (5) weights, card, plots
    version = write_weights(weights, DetectorWeights(heads, calibration, point, _described(calibrated_on)))
    facts = CardFacts(
        version,
        heads.num_parameters,
        _sources(material),
        _variants(material),
        material.mark_share,
        quotas,
        teaching,
        seed,
        command,
    )
    weights.with_suffix(".md").write_text(model_card(facts, report, point))
    plot(scored, point, weights.with_suffix(".png"))
    return TrainingReport(version, weights, report)


def operating_point_on(p_authentic: dict[str, float], threshold: float) -> OperatingPoint:
    """Measure a threshold on authentic test clips, one per identity: more of the same person would not be independent.

    Args:
        p_authentic: the highest probability that each authentic identity reached.
        threshold: what was chosen on the calibration split.
    """
    false_alarms = sum(p >= threshold for p in p_authentic.values())
    measured = proportion(false_alarms, len(p_authentic))
    established = len(p_authentic) >= _FEWEST_TO_ESTABLISH and false_alarms == 0
    return OperatingPoint(
        OPERATING_POINT, threshold, len(p_authentic), false_alarms, (measured.low, measured.high), established
    )


def tested_p(tested: Sequence[_Judged], calibration: Calibration) -> dict[str, float]:
    """The highest probability that each identity reached with an authentic clip."""
    highest: dict[str, float] = {}
    for one in tested:
        if not one.example.item.label:
            p = calibration.probability(one.logit)
            highest[one.example.item.identity] = max(p, highest.get(one.example.item.identity, 0.0))
    return highest


def trial_table(
    heads: Heads, calibration: Calibration, point: OperatingPoint, examples: Sequence[Example], seed: int
) -> dict[str, dict[str, Any]]:
    """How renders are told from authentic clips in each trial, and in each variant that was held out.

    Returns: by trial: area under the curve, shares of either class above the shipped threshold, all with intervals, and
        numbers of clips. Trials that lack a class are left out.
    """
    table: dict[str, dict[str, Any]] = {}
    for trial in dict.fromkeys(example.item.trial for example in examples if example.item.trial):
        judged = _judge(heads, [example for example in examples if example.item.trial == trial])
        scored = [_scored(one, calibration) for one in judged]
        authentic = [clip for clip in scored if not clip.label]
        synthetic = [clip for clip in scored if clip.label]
        if authentic and synthetic:
            table[trial] = {
                "num_authentic": len(authentic),
                "num_synthetic": len(synthetic),
                "auc": auc_between(authentic, synthetic, seed=seed),
                "tpr": _share_above(synthetic, point.threshold),
                "fpr": _share_above(authentic, point.threshold),
            }
    return table


def _share_above(clips: Sequence[Scored], threshold: float) -> list[float]:
    return [round(value, 4) for value in proportion(sum(clip.p >= threshold for clip in clips), len(clips))]


def mark_difference(heads: Heads, examples: Sequence[Example], seed: int) -> list[float]:
    """Area under the curve with marks on all clips, less that with marks on none of the same clips.

    Returns: value, low and high end of its interval; empty where the trials were not made.
    """
    by_item: dict[str, dict[str, Example]] = {}
    for example in examples:
        if example.item.trial in (WITH_MARK, WITHOUT_MARK):
            name = example.item.name.removesuffix(example.item.trial)
            by_item.setdefault(name, {})[example.item.trial] = example
    pairs = [found for found in by_item.values() if len(found) == 2]
    labels_N = np.array([found[WITH_MARK].item.label for found in pairs])
    if len(set(labels_N.tolist())) < 2:
        return []
    logits_N2 = np.array(
        [
            [heads.judge(found[trial].cells_TCGG, found[trial].moves_PM).logit for trial in (WITH_MARK, WITHOUT_MARK)]
            for found in pairs
        ]
    )
    groups = [found[WITH_MARK].item.identity for found in pairs]
    rows_N = np.arange(len(pairs), dtype=np.float64)

    def difference(drawn_N: np.ndarray, drawn_labels_N: np.ndarray) -> float:
        both_N2 = logits_N2[drawn_N.astype(int)]
        return auc(both_N2[:, 0], drawn_labels_N) - auc(both_N2[:, 1], drawn_labels_N)

    return [round(value, 4) for value in bootstrap(difference, rows_N, labels_N, groups, seed=seed)]


def _files(root: Path, pattern: str) -> tuple[Path, ...]:
    return tuple(sorted(root.glob(pattern)))


def _examples(
    items: list[Item], material: Material, scratch: Path, progress: Progress, make_missing: bool
) -> list[Example]:
    made = ExampleStore(scratch / "examples").examples(
        items,
        Observer.load(),
        mark_share=material.mark_share,
        watermark_key=material.watermark_key,
        progress=lambda done, total: progress("examples", done, total),
        make_missing=make_missing,
    )
    return [example for example in made if example.face_px >= LEAST_FACE_PX]


def _judge(heads: Heads, examples: Sequence[Example]) -> list[_Judged]:
    judged = []
    for example in examples:
        judgement = heads.judge(example.cells_TCGG, example.moves_PM)
        judged.append(_Judged(example, judgement.logit, judgement.sketch_D))
    return judged


def _calibrate(judged: Sequence[_Judged]) -> Calibration:
    strata: list[Stratum] = [stratum_of(float(one.example.coding_4[0])) for one in judged]
    return calibrate(
        np.array([one.logit for one in judged]),
        np.stack([one.sketch_D for one in judged]),
        np.array([one.example.item.label for one in judged]),
        strata,
    )


def _balanced_authentic(judged: Sequence[_Judged]) -> list[_Judged]:
    """Each authentic identity's least favourable clip: the threshold must hold for people, not for clips."""
    worst: dict[str, _Judged] = {}
    for one in judged:
        if not one.example.item.label:
            known = worst.get(one.example.item.identity)
            worst[one.example.item.identity] = one if known is None or one.logit > known.logit else known
    return list(worst.values())


def _p_of(judged: Sequence[_Judged], calibration: Calibration) -> np.ndarray:
    return np.array([calibration.probability(one.logit) for one in judged])


def _scored(one: _Judged, calibration: Calibration) -> Scored:
    item, bits_per_pixel = one.example.item, float(one.example.coding_4[0]) or None
    is_ambiguous = len(calibration.conformal_set(one.logit, stratum_of(bits_per_pixel))) == 2
    abstains = is_ambiguous or calibration.is_outlier(one.sketch_D)
    p = calibration.probability(one.logit)
    return Scored(
        item.name, item.identity, item.label, str(item.kind), p, abstains, bits_per_pixel, one.example.face_px
    )


def _in_scope(examples: Sequence[Example]) -> list[Example]:
    """What the detector answers for: renders, once there are any; self-blended clips then only taught it manners."""
    return [example for example in examples if _is_in_scope(example, examples)]


def _is_in_scope(example: Example, among: Sequence[Example]) -> bool:
    return example.item.kind not in _SELF_BLENDED or all(other.item.kind is not Kind.RENDER for other in among)


def _self_blended(tested: Sequence[_Judged], calibration: Calibration, seed: int) -> dict[str, list[float]]:
    """Self-blended clips against the authentic clips that they were made from, by kind."""
    scored = [_scored(one, calibration) for one in tested]
    found = {}
    for kind, origin in _SELF_BLENDED.items():
        pasted = [clip for clip in scored if clip.kind == kind]
        whole = [clip for clip in scored if clip.kind == origin and clip.identity in {c.identity for c in pasted}]
        if pasted and whole:
            found[str(kind)] = auc_between(whole, pasted, seed=seed)
    return found


def _paired_figures(
    tested: Sequence[_Judged], calibration: Calibration, point: OperatingPoint, seed: int
) -> dict[str, Any] | None:
    """The hardest fair question: renders against the un-animated stills of the same identities."""
    rendered = {one.example.item.identity for one in tested if one.example.item.kind is Kind.RENDER}
    scored = [_scored(one, calibration) for one in tested if one.example.item.identity in rendered]
    return figures(scored, point, seed=seed) if rendered else None


def _counts(examples: Sequence[Example]) -> dict[str, int]:
    counted = Counter(f"{e.item.split}/{e.item.kind}" + (" (trials)" if e.item.trial else "") for e in examples)
    return dict(sorted(counted.items()))


def _sources(material: Material) -> dict[str, int]:
    stills_and_clips = (*material.protected_stills, *material.synthetic_stills, *material.talking_clips)
    return dict(Counter(path.parent.name for path in stills_and_clips) + Counter(renders=len(material.renders)))


def _variants(material: Material) -> dict[str, int]:
    return dict(Counter(render.variant or "unnamed" for render in material.renders))


def _described(examples: Sequence[Example]) -> str:
    """What was calibrated on, in words."""
    kinds = Counter(str(example.item.kind).replace("_", " ") for example in examples)
    listed = ", ".join(f"{number} {kind}" for kind, number in sorted(kinds.items()))
    identities = len({example.item.identity for example in examples})
    return f"{len(examples)} clips of {identities} identities outside training ({listed})"
