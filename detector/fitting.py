"""Teaching the head: a logistic regression with a strong ridge. Convex, so there is no chance in it: the same examples
give the same head.

N clip  F feature
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression

from detector.data import Example, Kind
from detector.errors import EmptyCorpusError
from detector.heads import Heads, pair_features

_SKETCH_WIDTH = 32


@dataclass(frozen=True)
class Teaching:
    """How the head is taught.

    Attributes:
        ridge: inverse strength of the ridge, the `C` of scikit-learn.
        shares: how much each kind counts, however many clips of it there are. Self-blended clips count little: they
            keep the head from learning who is protected or talks, but they are not what it is for.
    """

    ridge: float = 0.01
    shares: dict[Kind, float] = field(
        default_factory=lambda: {
            Kind.RENDER: 2.0,
            Kind.FILMED_STILL: 1.0,
            Kind.TALKING: 1.0,
            Kind.SELF_BLENDED_STILL: 0.05,
            Kind.SELF_BLENDED_TALKING: 0.05,
        }
    )


def fit_heads(examples: Sequence[Example], teaching: Teaching) -> Heads:
    """Teach the head on the examples of the training split.

    Args:
        examples: both classes.
        teaching: how much each kind counts, and how far the head may go.
    Raises: EmptyCorpusError: a class is missing.
    """
    labels_N = np.array([example.item.label for example in examples])
    if len(set(labels_N.tolist())) < 2:
        raise EmptyCorpusError("The training split needs examples of both classes.")
    rows = [pair_features(example.cells_TCGG) for example in examples]
    means_NF = np.stack([row_PF.mean(axis=0) for row_PF in rows])
    width = min(_SKETCH_WIDTH, len(examples) - 1)
    blank = Heads(
        means_NF.mean(axis=0),
        np.maximum(means_NF.std(axis=0), 1e-4).astype(np.float32),
        np.zeros(means_NF.shape[1], np.float32),
        0.0,
        np.zeros((means_NF.shape[1], width), np.float32),
    )
    # Standardised pair by pair and then averaged, as clips are judged.
    standard_NF = np.stack([blank.standardised(row_PF).mean(axis=0) for row_PF in rows])
    numbers = Counter(example.item.kind for example in examples)
    weights_N = np.array([teaching.shares[e.item.kind] / numbers[e.item.kind] for e in examples])
    weights_N *= len(examples) / weights_N.sum()
    head = LogisticRegression(C=teaching.ridge, max_iter=500).fit(standard_NF, labels_N, sample_weight=weights_N)
    sketch = PCA(width, svd_solver="full").fit(standard_NF)
    return Heads(
        blank.usual_F,
        blank.spread_F,
        head.coef_[0].astype(np.float32),
        float(head.intercept_[0]),
        np.ascontiguousarray(sketch.components_.T, np.float32),
    )
