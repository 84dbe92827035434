"""How well scores tell two classes apart, and how sure one can be of it: pure functions of arrays.

N clip  K bin  R resample
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.stats import beta, rankdata

Scores = Float[np.ndarray, " n"]
Labels = Int[np.ndarray, " n"] | Bool[np.ndarray, " n"]


class Interval(NamedTuple):
    """A figure with its 95 % interval."""

    value: float
    low: float
    high: float


def auc(scores_N: Scores, labels_N: Labels) -> float:
    """Area under the ROC curve: the chance that a synthetic clip scores above an authentic one, ties counted half."""
    positive_N = np.asarray(labels_N, bool)
    num_positive, num_negative = int(positive_N.sum()), int((~positive_N).sum())
    if not num_positive or not num_negative:
        return float("nan")
    ranks_N = rankdata(scores_N)
    return float((ranks_N[positive_N].sum() - num_positive * (num_positive + 1) / 2) / (num_positive * num_negative))


def tpr_at_fpr(scores_N: Scores, labels_N: Labels, fpr: float) -> float:
    """Share of synthetic clips found when at most `fpr` of the authentic ones are called synthetic."""
    positive_N = np.asarray(labels_N, bool)
    negatives = np.sort(np.asarray(scores_N)[~positive_N])[::-1]
    allowed = int(np.floor(fpr * len(negatives)))
    threshold = negatives[allowed] if allowed < len(negatives) else -np.inf
    return float((np.asarray(scores_N)[positive_N] > threshold).mean())


def equal_error_rate(scores_N: Scores, labels_N: Labels) -> float:
    """The rate at which misses and false alarms are equally frequent, between two thresholds the mean of both."""
    positive_N = np.asarray(labels_N, bool)
    thresholds = np.unique(scores_N)
    misses = np.array([(np.asarray(scores_N)[positive_N] < t).mean() for t in thresholds])
    alarms = np.array([(np.asarray(scores_N)[~positive_N] >= t).mean() for t in thresholds])
    nearest = int(np.argmin(np.abs(misses - alarms)))
    return float((misses[nearest] + alarms[nearest]) / 2)


def balanced_weights(labels_N: Labels) -> Float[np.ndarray, " n"]:
    """Weights with which both classes count the same, and which sum to one: what `p` supposes."""
    positive_N = np.asarray(labels_N, bool)
    return np.where(positive_N, 0.5 / max(int(positive_N.sum()), 1), 0.5 / max(int((~positive_N).sum()), 1))


def expected_calibration_error(p_N: Scores, labels_N: Labels, num_bins: int = 10) -> float:
    """Mean distance between stated probability and frequency at equal priors, over bins of about equal weight; clips
    of the same probability share a bin."""
    p_N, labels_N = np.asarray(p_N), np.asarray(labels_N, float)
    weights_N = balanced_weights(labels_N)
    values_V, place_N = np.unique(p_N, return_inverse=True)
    weights_V = np.bincount(place_N, weights_N, len(values_V))
    middles_V = np.cumsum(weights_V) - weights_V / 2
    bins_V = np.minimum((middles_V * num_bins).astype(int), num_bins - 1)
    gaps_N = np.bincount(bins_V[place_N], weights_N * (p_N - labels_N), num_bins)
    return float(np.abs(gaps_N).sum() / weights_N.sum())


def brier(p_N: Scores, labels_N: Labels) -> float:
    """Mean squared distance between stated probability and outcome, at equal priors."""
    weights_N = balanced_weights(labels_N)
    return float(np.average((np.asarray(p_N) - np.asarray(labels_N, float)) ** 2, weights=weights_N))


def coverage_risk(p_N: Scores, labels_N: Labels, coverages: Sequence[float]) -> list[tuple[float, float]]:
    """How often the likelier class is the wrong one, among the share of the clips that are surest; at equal priors.

    Args:
        coverages: shares of the weight that is judged.
    Returns: each coverage with its risk.
    """
    p_N, labels_N = np.asarray(p_N), np.asarray(labels_N, bool)
    order = np.argsort(-np.abs(p_N - 0.5), kind="stable")
    weights_N = balanced_weights(labels_N)[order]
    wrong_N = ((p_N >= 0.5) != labels_N)[order] * weights_N
    covered_N = np.cumsum(weights_N)
    found = []
    for coverage in coverages:
        last = min(int(np.searchsorted(covered_N, coverage - 1e-9)), len(covered_N) - 1)
        found.append((float(coverage), float(wrong_N[: last + 1].sum() / covered_N[last])))
    return found


def proportion(num_hits: int, num_trials: int) -> Interval:
    """A share with its exact 95 % interval (Clopper & Pearson 1934). Without trials nothing is known: 0 to 1."""
    if num_trials == 0:
        return Interval(float("nan"), 0.0, 1.0)
    low = float(beta.ppf(0.025, num_hits, num_trials - num_hits + 1)) if num_hits else 0.0
    high = float(beta.ppf(0.975, num_hits + 1, num_trials - num_hits)) if num_hits < num_trials else 1.0
    return Interval(num_hits / num_trials, low, high)


def bootstrap(
    figure: Callable[[Scores, Labels], float],
    scores_N: Scores,
    labels_N: Labels,
    groups: Sequence[str],
    *,
    seed: int = 0,
    num_resamples: int = 400,
) -> Interval:
    """A figure with its percentile interval, whole groups (identities) drawn with replacement.

    Clips of one identity are not independent: drawing them one by one would promise too much.
    """
    value = figure(scores_N, labels_N)
    by_group: dict[str, list[int]] = {}
    for index, group in enumerate(groups):
        by_group.setdefault(group, []).append(index)
    # Authentic and synthetic groups are drawn apart, so that neither class runs empty.
    strata: dict[tuple[int, ...], list[list[int]]] = {}
    labels = np.asarray(labels_N, int)
    for indices in by_group.values():
        strata.setdefault(tuple(sorted(set(labels[indices].tolist()))), []).append(indices)
    rng = np.random.default_rng(seed)
    values_R = []
    for _ in range(num_resamples):
        drawn = np.concatenate(
            [groups_in[i] for groups_in in strata.values() for i in rng.integers(len(groups_in), size=len(groups_in))]
        )
        values_R.append(figure(np.asarray(scores_N)[drawn], labels[drawn]))
    low, high = np.nanpercentile(values_R, [2.5, 97.5]) if np.isfinite(values_R).any() else (np.nan, np.nan)
    return Interval(float(value), float(low), float(high))
