"""Stated probabilities match frequencies, conformal sets keep their error rate, thresholds keep theirs."""

from __future__ import annotations

import numpy as np
import pytest

from detector.calibration import (
    CONFORMAL_ERROR,
    HEAVY_BELOW_BITS_PER_PIXEL,
    Calibration,
    calibrate,
    choose_threshold,
    stratum_of,
)
from detector.metrics import expected_calibration_error


def sample(rng: np.random.Generator, num: int, gap: float = 2.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logits that are three times too sure, embeddings and labels of a made-up model."""
    labels = rng.integers(0, 2, num)
    evidence = rng.normal(gap * (labels - 0.5), 1)
    return 3 * gap * evidence, np.stack([evidence, *rng.normal(0, 1, (3, num))], axis=1), labels


@pytest.fixture
def fitted(rng: np.random.Generator) -> Calibration:
    logits, embeddings, labels = sample(rng, 600)
    return calibrate(logits, embeddings, labels, ["light", "heavy"] * 300)


def test_probability_matches_frequency(fitted: Calibration, rng: np.random.Generator) -> None:
    logits, _, labels = sample(rng, 4000)
    stated = np.array([fitted.probability(float(logit)) for logit in logits])
    overconfident = 1 / (1 + np.exp(-logits))
    assert expected_calibration_error(stated, labels) < 0.03 < expected_calibration_error(overconfident, labels)


def test_likelihood_ratio_is_the_log_odds_at_equal_priors(fitted: Calibration) -> None:
    for logit in (-4.0, 0.0, 1.5):
        p = fitted.probability(logit)
        assert fitted.log_likelihood_ratio(logit) == pytest.approx(np.log(p / (1 - p)))


@pytest.mark.parametrize("stratum", ["all", "light", "heavy"])
def test_conformal_sets_hold_the_true_class_as_often_as_promised(
    fitted: Calibration, rng: np.random.Generator, stratum: str
) -> None:
    logits, _, labels = sample(rng, 3000)
    for label, name in enumerate(("authentic", "synthetic")):
        sets = [fitted.conformal_set(float(logit), stratum) for logit in logits[labels == label]]  # type: ignore[arg-type]
        excluded = np.mean([name not in kept for kept in sets])
        assert excluded <= CONFORMAL_ERROR + 0.035, "class-conditional: each class by itself"


def test_sets_hold_both_classes_where_the_classes_overlap(rng: np.random.Generator) -> None:
    logits, embeddings, labels = sample(rng, 400, gap=0.2)
    vague = calibrate(logits, embeddings, labels, ["light"] * 400)
    assert vague.conformal_set(float(np.median(logits)), "light") == ("authentic", "synthetic")


def test_a_stratum_with_few_clips_falls_back_to_all(rng: np.random.Generator) -> None:
    logits, embeddings, labels = sample(rng, 200)
    fitted = calibrate(logits, embeddings, labels, ["heavy"] * 4 + ["light"] * 196)
    assert fitted.conformal_set(0.3, "heavy") == fitted.conformal_set(0.3, "all")


def test_outliers_are_told_from_the_known(fitted: Calibration) -> None:
    near, far = fitted.centres_2D[0], fitted.centres_2D[0] + 50
    assert fitted.novelty(near) < 0.2
    assert not fitted.is_outlier(near)
    assert fitted.novelty(far) == 1.0
    assert fitted.is_outlier(far)


def test_perfect_separation_stays_finite() -> None:
    logits = np.array([-5.0, -4.0, 4.0, 5.0])
    fitted = calibrate(logits, np.eye(4), np.array([0, 0, 1, 1]), ["light"] * 4)
    assert 0 < fitted.probability(-1e6) < fitted.probability(0.0) < fitted.probability(1e6) < 1


def test_threshold_keeps_its_rate_on_new_clips(rng: np.random.Generator) -> None:
    rates = [(rng.beta(8, 4, 2000) >= choose_threshold(rng.beta(8, 4, 300), 0.05)).mean() for _ in range(100)]
    assert np.mean(rates) == pytest.approx(0.05, abs=0.01)


def test_threshold_never_accuses_against_the_odds() -> None:
    assert choose_threshold(np.full(500, 0.02), 0.01) == pytest.approx(0.5)


def test_threshold_from_few_clips_lies_above_all_of_them() -> None:
    assert choose_threshold(np.array([0.1, 0.7, 0.9]), 0.01) > 0.9


def test_strata() -> None:
    assert stratum_of(None) == "all"
    assert stratum_of(HEAVY_BELOW_BITS_PER_PIXEL) == "light"
    assert stratum_of(HEAVY_BELOW_BITS_PER_PIXEL / 2) == "heavy"
