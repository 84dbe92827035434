"""Short cuts that a detector could take, tried on purpose: each probe sees only what must not tell the classes apart.

A probe is a logistic regression, judged on identities that it did not see. On pairs (a render and its own un-animated
twin on the same journey) each should stay near an area of one half; a larger figure says how far the material gives
itself away by something other than the face.

N clip  F feature of the probe
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from detector.data import Example
from detector.metrics import Interval, auc, bootstrap

_NUM_FOLDS = 5


def probe_short_cuts(examples: Sequence[Example], *, seed: int = 0) -> dict[str, Interval]:
    """Area under the curve of each probe, with a 95 % interval by identity.

    Args:
        examples: of any split; only pairs that have both classes are used.
        seed: of the resampling.
    Returns: empty where there are fewer than `_NUM_FOLDS` identities with pairs.
    """
    paired = _with_twins(examples)
    groups = [example.item.identity for example in paired]
    if len(set(groups)) < _NUM_FOLDS:
        return {}
    labels_N = np.array([example.item.label for example in paired])
    sights = {
        "bit_rate": np.log([example.coding_4[:1] for example in paired]),
        "size_and_codec": np.stack([_coding_features(example) for example in paired]),
        "thumbnail_16x16": np.stack([example.thumbnail_HWC.ravel() / 255 for example in paired]),
        "background": np.stack([example.background_C for example in paired]),
        "face_size": np.array([[example.face_px] for example in paired]),
    }
    return {name: _auc_of(features_NF, labels_N, groups, seed) for name, features_NF in sights.items()}


def _with_twins(examples: Sequence[Example]) -> list[Example]:
    """One authentic and one synthetic example of each pair that has both."""
    by_pair: dict[tuple[str, int], Example] = {}
    for example in examples:
        by_pair.setdefault((example.item.pair, example.item.label), example)
    num_labels = Counter(pair for pair, _ in by_pair)
    return [example for (pair, _), example in by_pair.items() if num_labels[pair] == 2]


def _coding_features(example: Example) -> np.ndarray:
    _, side_px, codec, crf = example.coding_4
    return np.array([side_px, crf, codec == 0, codec == 1, codec == 2], float)


def _auc_of(features_NF: np.ndarray, labels_N: np.ndarray, groups: list[str], seed: int) -> Interval:
    # Strong ridge: with more features than clips a weak one would only memorise.
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=500))
    scores_N = cross_val_predict(
        probe, features_NF, labels_N, groups=groups, cv=GroupKFold(_NUM_FOLDS), method="decision_function"
    )
    return bootstrap(auc, scores_N, labels_N, groups, seed=seed)
