"""Teaching the heads, and weighing them against each other.

The linear head is a logistic regression with a strong ridge: convex, no chance in it. The networks of the movement head
are small, many and kept small by weight decay; all their chance comes from one seed. How much each of the two heads
counts is fitted on what they say of identities that were left out when they were taught for that purpose.

N clip  P pair  F feature of the cells  M measurement of movement
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float64
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold
from threadpoolctl import threadpool_limits
from torch import Tensor, nn

from detector.data import Example, Kind
from detector.errors import EmptyCorpusError
from detector.heads import Heads, pair_features
from detector.model import on_one_thread
from detector.movement import MovementHead

_SKETCH_WIDTH = 32
_NUM_FOLDS = 4
_LEAST_PART = 0.1


@dataclass(frozen=True)
class Teaching:
    """How the heads are taught.

    Attributes:
        ridge: inverse strength of the ridge, the `C` of scikit-learn.
        num_members, num_hidden: networks of the movement head, and hidden units of each.
        decay: weight decay of the movement head.
        dropout: share of the measurements that are hidden from a network at each step.
        num_steps: of its optimiser, each over all clips.
        shares: how much each kind counts, however many clips of it there are. Self-blended clips count little: they
            keep the heads from learning who is protected or talks, but they are not what they are for.
        seed: of the movement head.
    """

    ridge: float = 0.01
    num_members: int = 5
    num_hidden: int = 16
    decay: float = 0.05
    dropout: float = 0.2
    num_steps: int = 200
    shares: dict[Kind, float] = field(
        default_factory=lambda: {
            Kind.RENDER: 2.0,
            Kind.FILMED_STILL: 1.0,
            Kind.TALKING: 1.0,
            Kind.SELF_BLENDED_STILL: 0.05,
            Kind.SELF_BLENDED_TALKING: 0.05,
        }
    )
    seed: int = 0


class Taught(NamedTuple):
    """What teaching gives.

    Attributes:
        heads: taught on all examples.
        left_out_N: what heads that were taught without its identity say of each example, weighed alike; not a number
            where there were none. With it, calibration may use the training split, too.
    """

    heads: Heads
    left_out_N: Float64[np.ndarray, " n"]


@on_one_thread
@threadpool_limits.wrap(limits=1, user_api="blas")
def fit_heads(examples: Sequence[Example], teaching: Teaching) -> Taught:
    """Teach both heads on the examples of the training split, and weigh them.

    Args:
        examples: both classes.
        teaching: how much each kind counts, and how far the heads may go.
    Raises: EmptyCorpusError: a class is missing.
    """
    labels_N = np.array([example.item.label for example in examples])
    if len(set(labels_N.tolist())) < 2:
        raise EmptyCorpusError("The training split needs examples of both classes.")
    linear, movement = _fit_linear(examples, teaching), _fit_movement(examples, teaching)
    said_N2 = _said_by_others(examples, teaching)
    parts_2, bias = _fit_parts(said_N2, examples, teaching)
    heads = replace(
        linear,
        weight_F=(parts_2[0] * linear.weight_F).astype(np.float32),
        bias=float(parts_2[0]) * linear.bias + bias,
        movement=movement.scaled(float(parts_2[1])),
    )
    return Taught(heads, said_N2 @ parts_2 + bias)


def _weights_of(examples: Sequence[Example], teaching: Teaching) -> np.ndarray:
    numbers = Counter(example.item.kind for example in examples)
    weights_N = np.array([teaching.shares[e.item.kind] / numbers[e.item.kind] for e in examples])
    return np.asarray(weights_N * len(examples) / weights_N.sum())


def _fit_linear(examples: Sequence[Example], teaching: Teaching) -> Heads:
    """The linear head, and the sketch; of movement it knows nothing."""
    labels_N = np.array([example.item.label for example in examples])
    rows = [pair_features(example.cells_TCGG) for example in examples]
    means_NF = np.stack([row_PF.mean(axis=0) for row_PF in rows])
    width = min(_SKETCH_WIDTH, len(examples) - 1)
    num_moves = examples[0].moves_PM.shape[1]
    blank = Heads(
        means_NF.mean(axis=0),
        np.maximum(means_NF.std(axis=0), 1e-4).astype(np.float32),
        np.zeros(means_NF.shape[1], np.float32),
        0.0,
        np.zeros((means_NF.shape[1], width), np.float32),
        _silent(num_moves),
    )
    # Standardised pair by pair and then averaged, as clips are judged.
    standard_NF = np.stack([blank.standardised(row_PF).mean(axis=0) for row_PF in rows])
    head = LogisticRegression(C=teaching.ridge, max_iter=500).fit(
        standard_NF, labels_N, sample_weight=_weights_of(examples, teaching)
    )
    sketch = PCA(width, svd_solver="full").fit(standard_NF)
    return replace(
        blank,
        weight_F=head.coef_[0].astype(np.float32),
        bias=float(head.intercept_[0]),
        components_FD=np.ascontiguousarray(sketch.components_.T, np.float32),
    )


def _silent(num_moves: int) -> MovementHead:
    """A movement head that says nothing."""
    return MovementHead(
        np.zeros(num_moves, np.float32),
        np.ones(num_moves, np.float32),
        np.zeros((1, num_moves, 1), np.float32),
        np.zeros((1, 1), np.float32),
        np.zeros((1, 1), np.float32),
        np.zeros(1, np.float32),
    )


def _fit_movement(examples: Sequence[Example], teaching: Teaching) -> MovementHead:
    """The networks of movement: a clip's logit is the mean of its pairs', and clips are what the loss counts."""
    moves_PM = np.concatenate([example.moves_PM for example in examples])
    usual_M = moves_PM.mean(axis=0)
    spread_M = np.maximum(moves_PM.std(axis=0), 1e-3)
    blank = replace(_silent(moves_PM.shape[1]), usual_M=usual_M, spread_M=spread_M)
    standard_PM = torch.from_numpy(blank.standardised(moves_PM))
    clips = [np.full(len(example.moves_PM), number) for number, example in enumerate(examples)]
    clip_P = torch.from_numpy(np.concatenate(clips))
    num_P = torch.bincount(clip_P).float()
    labels_N = torch.tensor([float(example.item.label) for example in examples])
    weights_N = torch.from_numpy(_weights_of(examples, teaching)).float()
    members = []
    for number in range(teaching.num_members):
        chance = torch.Generator().manual_seed(1000 * teaching.seed + number)
        members.append(_fit_member(standard_PM, clip_P, num_P, labels_N, weights_N, teaching, chance))
    hidden, hidden_bias, out, out_bias = (torch.stack(part).numpy() for part in zip(*members, strict=True))
    return replace(blank, hidden_EMH=hidden, hidden_bias_EH=hidden_bias, out_EH=out, out_bias_E=out_bias)


def _fit_member(
    standard_PM: Tensor,
    clip_P: Tensor,
    num_P: Tensor,
    labels_N: Tensor,
    weights_N: Tensor,
    teaching: Teaching,
    chance: torch.Generator,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    num_moves, num_hidden = standard_PM.shape[1], teaching.num_hidden
    hidden_MH = torch.randn(num_moves, num_hidden, generator=chance) / num_moves**0.5
    hidden_bias_H = torch.zeros(num_hidden)
    out_H = torch.randn(num_hidden, generator=chance) / num_hidden**0.5
    out_bias = torch.zeros(())
    parts = [part.requires_grad_(True) for part in (hidden_MH, hidden_bias_H, out_H, out_bias)]
    optimiser = torch.optim.AdamW(parts, lr=0.01, weight_decay=teaching.decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, teaching.num_steps)
    for _ in range(teaching.num_steps):
        # What is hidden is hidden from all pairs of a clip, so that no other pair gives it away.
        kept_NM = (torch.rand(len(labels_N), num_moves, generator=chance) >= teaching.dropout).float()
        seen_PM = standard_PM * kept_NM[clip_P] / (1 - teaching.dropout)
        logits_P = torch.relu(seen_PM @ hidden_MH + hidden_bias_H) @ out_H + out_bias
        logits_N = torch.zeros(len(labels_N)).index_add(0, clip_P, logits_P) / num_P
        losses_N = nn.functional.binary_cross_entropy_with_logits(logits_N, labels_N, reduction="none")
        optimiser.zero_grad()
        (losses_N * weights_N).mean().backward()
        optimiser.step()
        schedule.step()
    hidden_MH, hidden_bias_H, out_H, out_bias = (part.detach() for part in parts)
    return hidden_MH, hidden_bias_H, out_H, out_bias


def _said_by_others(examples: Sequence[Example], teaching: Teaching) -> Float64[np.ndarray, "n 2"]:
    """What the linear head and the movement head say of each example when they were taught without its identity."""
    groups = [example.item.identity for example in examples]
    labels_N = np.array([example.item.label for example in examples])
    said_N2 = np.full((len(examples), 2), np.nan)
    folds = GroupKFold(min(_NUM_FOLDS, len(set(groups)))).split(said_N2, labels_N, groups)
    for taught, left_out in folds:
        inside = [examples[index] for index in taught]
        if len({example.item.label for example in inside}) < 2:
            continue
        linear, movement = _fit_linear(inside, teaching), _fit_movement(inside, teaching)
        for index in left_out:
            example = examples[index]
            said_N2[index, 0] = linear.judge(example.cells_TCGG, example.moves_PM).logit
            said_N2[index, 1] = movement.logits(example.moves_PM).mean()
    return said_N2


def _fit_parts(
    said_N2: Float64[np.ndarray, "n 2"], examples: Sequence[Example], teaching: Teaching
) -> tuple[Float64[np.ndarray, " 2"], float]:
    """How much the linear head, the movement head and a constant count."""
    labels_N = np.array([example.item.label for example in examples])
    known_N = np.isfinite(said_N2).all(axis=1)
    if len(set(labels_N[known_N].tolist())) < 2:
        return np.array([0.5, 0.5]), 0.0
    judge = LogisticRegression(C=1.0).fit(
        said_N2[known_N], labels_N[known_N], sample_weight=_weights_of(examples, teaching)[known_N]
    )
    return np.maximum(judge.coef_[0], _LEAST_PART).astype(np.float64), float(judge.intercept_[0])
