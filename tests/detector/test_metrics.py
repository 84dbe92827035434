"""Figures of merit against values worked out by hand, and intervals that hold what they promise."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from detector.metrics import (
    auc,
    bootstrap,
    brier,
    coverage_risk,
    equal_error_rate,
    expected_calibration_error,
    proportion,
    tpr_at_fpr,
)

LABELS = np.array([0, 0, 0, 1, 1, 1])


def test_auc_counts_ties_half() -> None:
    assert auc(np.array([0.0, 0.1, 0.2, 0.3, 0.4, 0.5]), LABELS) == 1.0
    assert auc(np.full(6, 0.5), LABELS) == 0.5
    assert auc(np.array([0.0, 0.1, 0.4, 0.3, 0.5, 0.6]), LABELS) == pytest.approx(8 / 9)
    assert np.isnan(auc(np.zeros(2), np.zeros(2)))


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.lists(st.tuples(st.floats(-5, 5), st.booleans()), min_size=2, max_size=40))
def test_auc_is_antisymmetric(clips: list[tuple[float, bool]]) -> None:
    scores, labels = np.array([s for s, _ in clips]), np.array([y for _, y in clips], int)
    if 0 < labels.sum() < len(labels):
        assert auc(scores, labels) + auc(-scores, labels) == pytest.approx(1.0)


def test_tpr_allows_no_more_false_alarms_than_asked() -> None:
    scores = np.concatenate([np.linspace(0, 1, 100), [0.985, 0.5, 2.0]])
    labels = np.concatenate([np.zeros(100), np.ones(3)]).astype(int)
    assert tpr_at_fpr(scores, labels, 0.01) == pytest.approx(1 / 3)  # one authentic clip (1.0) may lie above
    assert tpr_at_fpr(scores, labels, 0.02) == pytest.approx(2 / 3)


def test_equal_error_rate() -> None:
    assert equal_error_rate(np.array([0.0, 0.1, 0.2, 0.3, 0.4, 0.5]), LABELS) == 0.0
    assert equal_error_rate(np.array([0.0, 0.1, 0.35, 0.3, 0.4, 0.5]), LABELS) == pytest.approx(1 / 3)


def test_calibration_error_and_brier_of_known_cases() -> None:
    assert expected_calibration_error(np.array([0.0, 0.0, 1.0, 1.0]), np.array([0, 0, 1, 1])) == 0.0
    assert brier(np.array([0.5, 0.5]), np.array([0, 1])) == 0.25
    p = np.full(1000, 0.9)
    assert expected_calibration_error(p, np.ones(1000), 1) == pytest.approx(0.1)


def test_calibration_is_judged_at_equal_priors() -> None:
    labels = np.array([0] * 90 + [1] * 10)
    # Half of either class says nothing: at equal priors that is exactly right, however rare one class is.
    assert expected_calibration_error(np.full(100, 0.5), labels) < 0.06
    assert brier(np.where(labels == 1, 0.0, 1.0), labels) == pytest.approx(1.0)


def test_risk_grows_with_coverage_where_doubt_is_justified() -> None:
    p = np.array([0.01, 0.02, 0.6, 0.99, 0.98, 0.55])
    found = coverage_risk(p, np.array([0, 0, 0, 1, 1, 1]), (0.5, 1.0))
    assert found == [(0.5, 0.0), (1.0, pytest.approx(1 / 6))]


def test_proportion_is_exact() -> None:
    # The rule of three: no error among 300 leaves at most about 1 % (1.2 % two-sided).
    assert proportion(0, 300).high == pytest.approx(0.0122, abs=2e-4)
    assert proportion(300, 300).high == 1.0
    assert (proportion(0, 0).low, proportion(0, 0).high) == (0.0, 1.0)


def test_bootstrap_draws_whole_identities(rng: np.random.Generator) -> None:
    labels = np.tile([0, 1], 100)
    scores = labels + rng.normal(0, 1, 200)
    alone = bootstrap(auc, scores, labels, [str(i) for i in range(200)])
    assert alone.low < alone.value < alone.high
    # The same clips, ten times each, tell no more: the interval must not shrink.
    repeated = bootstrap(auc, np.repeat(scores, 10), np.repeat(labels, 10), [str(i // 10) for i in range(2000)])
    assert repeated.high - repeated.low == pytest.approx(alone.high - alone.low, rel=0.3)
