"""A small training on drawn faces learns what it is shown, keeps its promises about files, and can be repeated."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from detector.data import Example, ExampleStore, plan
from detector.errors import EmptyCorpusError, WeightsError
from detector.evaluate import evaluate
from detector.fitting import Schedule, fit_heads
from detector.metrics import auc
from detector.model import NUM_CHANNELS, HeadConfig, Heads
from detector.observation import Observer
from detector.probes import probe_short_cuts
from detector.score import Detector, judge_cells, read_weights, write_weights
from detector.train import operating_point_on
from tests.detector.conftest import QUOTAS, SmallTraining


@pytest.fixture(scope="module")
def examples(small_training: SmallTraining, observer: Observer) -> list[Example]:
    """The examples of the small training, read back from its store."""
    items = plan(small_training.material, QUOTAS, 7)
    store = ExampleStore(small_training.scratch / "examples")
    return list(store.examples(items, observer, mark_share=0.5, watermark_key=None, progress=lambda done, total: None))


def test_heads_overfit_a_few_clips(examples: list[Example]) -> None:
    few = [example for example in examples if example.item.split == "train"][:8]
    config = HeadConfig(dropout=0.0, branch_dropout=0.0)
    heads = fit_heads(
        few, config, Schedule(num_steps=60, num_pairs=3, learning_rate=4e-3), seed=1, progress=lambda done, total: None
    )
    logits = np.array([float(judge_cells(heads, example.cells_TCGG).clip_B[0]) for example in few])
    assert auc(logits, np.array([example.item.label for example in few])) == 1.0


def test_teaching_is_seeded_and_leaves_the_global_chance_alone(examples: list[Example]) -> None:
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    runs = [
        fit_heads(examples, HeadConfig(), Schedule(num_steps=4, num_pairs=3), seed=seed, progress=lambda d, t: None)
        for seed in (3, 3, 4)
    ]
    states = [torch.cat([p.flatten() for p in heads.parameters()]) for heads in runs]
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])
    assert torch.equal(torch.random.get_rng_state(), before)


def test_one_class_alone_is_refused(examples: list[Example]) -> None:
    authentic = [example for example in examples if not example.item.label]
    with pytest.raises(EmptyCorpusError):
        fit_heads(authentic, HeadConfig(), Schedule(num_steps=1), seed=0, progress=lambda done, total: None)


def test_logit_is_the_sum_of_its_cells() -> None:
    torch.manual_seed(0)
    heads = Heads(HeadConfig()).eval()
    judged = heads(torch.randn(2, 4, NUM_CHANNELS, 14, 14))
    assert torch.allclose(judged.cells_BTGG.sum((2, 3)) + heads.speak.bias, judged.frame_BT, atol=1e-5)
    single = heads(torch.randn(1, 1, NUM_CHANNELS, 14, 14))
    assert torch.equal(single.clip_B, single.frame_BT[:, 0]), "a picture has no change to judge"


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
    for name, tensor in weights.heads.state_dict().items():
        assert torch.equal(tensor, again.heads.state_dict()[name])


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
    import cv2

    from tests.detector.drawing import draw_face

    for folder, seeds in (("authentic", range(20, 23)), ("synthetic", range(23, 26))):
        (tmp_path / folder).mkdir()
        for seed in seeds:
            cv2.imwrite(str(tmp_path / folder / f"{seed}.png"), draw_face(seed, 320)[..., ::-1])
    cv2.imwrite(str(tmp_path / "authentic" / "empty.png"), np.zeros((64, 64, 3), np.uint8))
    report = evaluate(
        tmp_path / "authentic", tmp_path / "synthetic", detector=small_training.detector, plots_dir=tmp_path
    )
    assert report["num_without_face"] == 1
    assert (report["num_authentic"], report["num_synthetic"]) == (3, 3)
    assert 0 <= report["auc"][1] <= report["auc"][0] <= report["auc"][2] <= 1
    assert report["coverage"][0] == 0.0, "single pictures are no basis for a verdict"
    assert (tmp_path / "detector.png").is_file()
    with pytest.raises(EmptyCorpusError):
        evaluate(tmp_path / "authentic", tmp_path / "nothing", detector=small_training.detector)
