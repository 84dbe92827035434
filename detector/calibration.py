"""From logits to statements: probability, likelihood ratio, conformal set, distance from the known, operating point.

Everything here is fitted on identities that the heads never saw, and is a pure function of the logits and sketches of
those. What is stated of a single clip:

- `p`: probability of *synthetic* if both classes were equally frequent beforehand (Platt 1999, fitted by scikit-learn).
- `llr`: the natural logarithm of the likelihood ratio; add it to the logarithm of your own prior odds.
- conformal set: the classes that cannot be excluded at the stated error rate, whatever the distribution, as long as the
  clip is of the kind calibrated on (Vovk; class-conditional, "Mondrian", and per codec stratum).
- `ood`: share of the calibration clips that lie nearer to the known material than this one.

N clip  D width of the sketch  S sorted nonconformity
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Int
from sklearn.linear_model import LogisticRegression

ClassName = Literal["authentic", "synthetic"]
CLASSES: tuple[ClassName, ClassName] = ("authentic", "synthetic")

Stratum = Literal["all", "light", "heavy"]
STRATA: tuple[Stratum, ...] = ("all", "light", "heavy")

HEAVY_BELOW_BITS_PER_PIXEL = 0.05
"""Clips coded with less than this are their own stratum; 512² at 25 fps: 330 kbit/s."""

CONFORMAL_ERROR = 0.05
"""How often a class may be excluded wrongly."""

_FEWEST_IN_STRATUM = 20
_OUTLIER_FACTOR = 1.3
PRIOR = 0.5


@dataclass(frozen=True)
class OperatingPoint:
    """A threshold on `p`, and what is known of its false alarms.

    Attributes:
        name: the rate aimed at, as in "fpr_1pct".
        threshold: at or above it a clip counts as likely manipulated; never below one half.
        num_authentic: independent authentic clips of the test split that the rate was measured on.
        num_false_alarms: how many of them were at or above the threshold.
        fpr_ci95: exact 95 % interval of the rate.
        established: whether the rate aimed at is shown: at least 300 clips without a single error (rule of three).
    """

    name: str
    threshold: float
    num_authentic: int
    num_false_alarms: int
    fpr_ci95: tuple[float, float]
    established: bool


@dataclass(frozen=True)
class Calibration:
    """All that was fitted on the calibration split.

    Attributes:
        slope, offset: of the logistic curve from logit to probability.
        scores: nonconformity of the calibration clips, sorted, by (stratum, class).
        centres_2D: mean sketch of each class.
        whitening_DD: maps sketches so that distances count in standard deviations.
        distances_S: distances of the calibration clips from the nearer centre, sorted.
    """

    slope: float
    offset: float
    scores: dict[tuple[Stratum, ClassName], Float[np.ndarray, " s"]]
    centres_2D: Float[np.ndarray, "2 d"]
    whitening_DD: Float[np.ndarray, "d d"]
    distances_S: Float[np.ndarray, " s"]

    def probability(self, logit: float) -> float:
        """Probability of synthetic at equal priors."""
        return 1 / (1 + math.exp(-float(np.clip(self.slope * logit + self.offset, -30, 30))))

    def log_likelihood_ratio(self, logit: float) -> float:
        """Natural logarithm of P(seen | synthetic) / P(seen | authentic); at equal priors the log odds."""
        return float(np.clip(self.slope * logit + self.offset, -30, 30))

    def conformal_set(self, logit: float, stratum: Stratum) -> tuple[ClassName, ...]:
        """The classes that cannot be excluded at `CONFORMAL_ERROR`; may be none, one or both."""
        return tuple(name for name in CLASSES if self._p_value(logit, name, stratum) > CONFORMAL_ERROR)

    def _p_value(self, logit: float, name: ClassName, stratum: Stratum) -> float:
        scores_S = self.scores.get((stratum, name))
        if scores_S is None or len(scores_S) < _FEWEST_IN_STRATUM:
            scores_S = self.scores[("all", name)]
        num_stranger = len(scores_S) - int(np.searchsorted(scores_S, _strangeness(logit, name), side="left"))
        return (num_stranger + 1) / (len(scores_S) + 1)

    def distance(self, sketch_D: Float[np.ndarray, " d"]) -> float:
        """Distance from the nearer class centre, in standard deviations."""
        offsets_2D = (self.centres_2D - sketch_D) @ self.whitening_DD
        return float(np.linalg.norm(offsets_2D, axis=1).min())

    def novelty(self, sketch_D: Float[np.ndarray, " d"]) -> float:
        """Share of the calibration clips that lie nearer to the known material than this one, 0..1."""
        return float(np.searchsorted(self.distances_S, self.distance(sketch_D)) / len(self.distances_S))

    def is_outlier(self, sketch_D: Float[np.ndarray, " d"]) -> bool:
        """Whether it lies well beyond every clip calibrated on."""
        return self.distance(sketch_D) > _OUTLIER_FACTOR * float(self.distances_S[-1])


def stratum_of(bits_per_pixel: float | None) -> Stratum:
    """Which codec stratum a clip belongs to; without a rate (a picture, a foreign container) none in particular."""
    if bits_per_pixel is None:
        return "all"
    return "heavy" if bits_per_pixel < HEAVY_BELOW_BITS_PER_PIXEL else "light"


def calibrate(
    logits_N: Float[np.ndarray, " n"],
    sketches_ND: Float[np.ndarray, "n d"],
    labels_N: Int[np.ndarray, " n"],
    strata: list[Stratum],
) -> Calibration:
    """Fit everything on clips of both classes that the heads never saw.

    Args:
        logits_N: of the whole clips.
        sketches_ND: see `Judgement`.
        labels_N: 1 synthetic, 0 authentic; at least one of each.
        strata: codec stratum of each clip.
    """
    # (1) logistic curve with balanced classes; the ridge keeps it finite where the classes do not overlap
    curve = LogisticRegression(C=1.0, class_weight="balanced").fit(logits_N[:, None], labels_N)
    # (2) nonconformity per class, over all clips and per stratum
    scores: dict[tuple[Stratum, ClassName], np.ndarray] = {}
    for stratum in STRATA:
        inside_N = np.array([stratum in ("all", own) for own in strata])
        for label, name in enumerate(CLASSES):
            chosen_N = inside_N & (labels_N == label)
            scores[stratum, name] = np.sort([_strangeness(float(logit), name) for logit in logits_N[chosen_N]])
    # (3) distance from the class centres, under one shrunken covariance
    centres_2D = np.stack([sketches_ND[labels_N == label].mean(axis=0) for label in range(2)])
    whitening_DD = _whitening(sketches_ND - centres_2D[labels_N])
    fitted = Calibration(
        float(curve.coef_[0, 0]), float(curve.intercept_[0]), scores, centres_2D, whitening_DD, np.zeros(1)
    )
    distances_S = np.sort([fitted.distance(sketch_D) for sketch_D in sketches_ND])
    return Calibration(fitted.slope, fitted.offset, scores, centres_2D, whitening_DD, distances_S)


def choose_threshold(p_authentic_N: Float[np.ndarray, " n"], fpr: float) -> float:
    """The threshold on p that at most a share `fpr` of *new* authentic clips should reach (split-conformal quantile).

    With too few clips to say so, it lies above all of them. Never below one half: a verdict against the odds would be
    no evidence.
    """
    ordered = np.sort(p_authentic_N)
    rank = math.ceil((len(ordered) + 1) * (1 - fpr))
    reached = ordered[rank - 1] if rank <= len(ordered) else ordered[-1]
    return float(max(0.5, np.nextafter(reached, 1.0)))


def _strangeness(logit: float, name: ClassName) -> float:
    return -logit if name == "synthetic" else logit


def _whitening(residuals_ND: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "d d"]:
    """Inverse square root of the covariance, shrunken towards its diagonal as far as so few clips demand."""
    num_clips, width = residuals_ND.shape
    covariance_DD = residuals_ND.T @ residuals_ND / num_clips
    shrink = min(1.0, 2.0 * width / num_clips)
    covariance_DD = (1 - shrink) * covariance_DD + shrink * np.diag(np.diag(covariance_DD))
    values_D, vectors_DD = np.linalg.eigh(covariance_DD)
    floor = max(1e-3 * float(values_D.max()), 1e-12)
    return (vectors_DD / np.sqrt(np.maximum(values_D, floor))) @ vectors_DD.T
