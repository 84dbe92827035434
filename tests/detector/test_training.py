"""A small training on drawn faces learns what it is shown, keeps its promises about files, and can be repeated."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from detector.data import Example, ExampleStore, plan
from detector.errors import EmptyCorpusError, WeightsError
from detector.evaluate import evaluate, table
from detector.fitting import fit_heads
from detector.heads import NUM_FEATURES, pair_features
from detector.metrics import auc
from detector.model import NUM_CHANNELS
from detector.observation import Observer
from detector.probes import probe_short_cuts
from detector.score import Detector, read_weights, write_weights
from detector.train import operating_point_on
from detector.trials import ATTACKS
from tests.detector.conftest import QUOTAS, TEACHING, SmallTraining
from tests.detector.drawing import draw_face
from watermark.encoding import encode_clip
from watermark.media import Clip


@pytest.fixture(scope="module")
def examples(small_training: SmallTraining, observer: Observer) -> list[Example]:
    """The examples of the small training, read back from its store."""
    items = plan(small_training.material, QUOTAS, 7)
    store = ExampleStore(small_training.scratch / "examples")
    return list(store.examples(items, observer, mark_share=0.5, watermark_key=None, progress=lambda done, total: None))


def test_the_head_overfits_a_few_clips(examples: list[Example]) -> None:
    few = [example for example in examples if example.item.split == "train"][:8]
    heads = fit_heads(few, replace(TEACHING, ridge=1.0)).heads
    logits = np.array([heads.judge(example.cells_TCGG, example.moves_PM).logit for example in few])
    assert auc(logits, np.array([example.item.label for example in few])) == 1.0


def test_teaching_is_repeatable(examples: list[Example]) -> None:
    first, second = fit_heads(examples, TEACHING).heads, fit_heads(examples, TEACHING).heads
    assert np.array_equal(first.weight_F, second.weight_F)
    assert np.array_equal(first.components_FD, second.components_FD)
    assert np.array_equal(first.movement.hidden_EMH, second.movement.hidden_EMH)
    assert not np.array_equal(first.weight_F, fit_heads(examples, replace(TEACHING, ridge=0.5)).heads.weight_F)


def test_one_class_alone_is_refused(examples: list[Example]) -> None:
    authentic = [example for example in examples if not example.item.label]
    with pytest.raises(EmptyCorpusError):
        fit_heads(authentic, TEACHING)


def test_a_clip_is_the_mean_of_its_pairs(examples: list[Example]) -> None:
    heads = fit_heads(examples, TEACHING).heads
    cells_TCGG = examples[0].cells_TCGG
    moves_PM = examples[0].moves_PM
    whole = heads.judge(cells_TCGG, moves_PM)
    parts = [heads.judge(cells_TCGG[2 * p : 2 * p + 2], moves_PM[p : p + 1]).logit for p in range(len(moves_PM))]
    assert whole.pairs_P == pytest.approx(parts)
    assert whole.logit == pytest.approx(np.mean(parts))


def test_features_see_motion_within_the_face_and_not_of_the_camera(rng: np.random.Generator) -> None:
    still = rng.normal(0, 1, (1, NUM_CHANNELS, 14, 14)).repeat(2, axis=0)
    shaken, speaking = still.copy(), still.copy()
    shaken[1] += 0.5
    speaking[1, :, 8:13, 4:10] += 0.5
    relative = slice(0, 3 * NUM_CHANNELS)
    assert np.abs(pair_features(shaken)[0, relative] - pair_features(still)[0, relative]).max() < 1e-3
    assert (pair_features(speaking)[0, :NUM_CHANNELS] - pair_features(still)[0, :NUM_CHANNELS]).min() > 3
    assert pair_features(still).shape == (1, NUM_FEATURES)


def test_report_and_card_say_what_was_done(small_training: SmallTraining) -> None:
    report = small_training.report
    assert report.model_version == small_training.detector.model_version
    assert set(report.figures) >= {"auc", "tpr_at_fpr_1pct", "eer", "ece", "brier", "coverage", "short_cut_probes"}
    card = report.weights.with_suffix(".md").read_text()
    for word in ("data", "licence", "seed", "limit", report.model_version, "**not established**"):
        assert word in card or word in card.lower()
    assert report.weights.with_suffix(".png").stat().st_size > 10_000
    assert report.weights.stat().st_size < 16 * 2**20
    assert not list(report.weights.parent.glob("*.partial"))


def test_weights_come_back_as_they_were(small_training: SmallTraining, tmp_path: Path) -> None:
    weights, version = read_weights(small_training.report.weights)
    assert write_weights(tmp_path / "copy.safetensors", weights) == version
    again, _ = read_weights(tmp_path / "copy.safetensors")
    assert again.operating_point == weights.operating_point
    assert again.calibration.scores.keys() == weights.calibration.scores.keys()
    assert again.heads.bias == weights.heads.bias
    assert np.array_equal(again.heads.movement.out_EH, weights.heads.movement.out_EH)
    assert np.array_equal(again.heads.weight_F, weights.heads.weight_F)


@pytest.mark.parametrize("damage", [lambda d: d[: len(d) // 2], lambda d: b"", lambda d: b"not a tensor" * 40])
def test_damaged_weights_are_named(
    small_training: SmallTraining, tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    path = tmp_path / "detector.safetensors"
    path.write_bytes(damage(small_training.report.weights.read_bytes()))
    with pytest.raises(WeightsError):
        Detector.load(path)
    with pytest.raises(WeightsError):
        Detector.load(tmp_path / "missing.safetensors")


def test_a_rate_is_established_only_by_enough_faultless_clips() -> None:
    enough = {str(i): 0.1 for i in range(300)}
    assert operating_point_on(enough, 0.5).established
    assert not operating_point_on(dict(list(enough.items())[1:]), 0.5).established
    flawed = operating_point_on({**enough, "0": 0.9}, 0.5)
    assert not flawed.established
    assert (flawed.num_false_alarms, flawed.num_authentic) == (1, 300)
    assert flawed.fpr_ci95[1] < 0.02


def test_probes_need_pairs_and_give_intervals(examples: list[Example]) -> None:
    probes = probe_short_cuts(examples)
    assert set(probes) == {"bit_rate", "size_and_codec", "thumbnail_16x16", "background", "face_size"}
    assert probes["size_and_codec"].value == pytest.approx(0.5, abs=0.01), "a pair shares one channel"
    assert probe_short_cuts(examples[:4]) == {}


def test_folders_are_evaluated(small_training: SmallTraining, tmp_path: Path) -> None:
    for folder, seeds in (("authentic", range(20, 23)), ("synthetic", range(23, 26))):
        (tmp_path / folder).mkdir()
        for seed in seeds:
            encode_clip(Clip(np.stack([draw_face(seed, 320)] * 4), 25.0), tmp_path / folder / f"{seed}.mp4")
    cv2.imwrite(str(tmp_path / "authentic" / "picture.png"), draw_face(9, 200)[..., ::-1])
    report = evaluate(
        tmp_path / "authentic",
        tmp_path / "synthetic",
        detector=small_training.detector,
        plots_dir=tmp_path,
        attacks={"H.264 CRF 35": ATTACKS["H.264 CRF 35"]},
    )
    assert report["attacks"]["H.264 CRF 35"]["num_synthetic"] == 3
    assert "| H.264 CRF 35 |" in table(report) and "| AUC |" in table(report)
    assert report["num_without_score"] == 1, "a picture gets no score"
    assert (report["num_authentic"], report["num_synthetic"]) == (3, 3)
    assert 0 <= report["auc"][1] <= report["auc"][0] <= report["auc"][2] <= 1
    assert report["coverage"][0] == 0.0, "clips of four frames are no basis for a verdict"
    assert (tmp_path / "detector.png").is_file()
    with pytest.raises(EmptyCorpusError):
        evaluate(tmp_path / "authentic", tmp_path / "nothing", detector=small_training.detector)
