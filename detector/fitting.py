"""Teaching the heads: batches of pairs, three losses, averaged weights. Seeded; the same examples give the same heads.

B clip in a batch  T frame  C channel  G cell
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from detector.data import Example, Kind
from detector.errors import EmptyCorpusError
from detector.model import HeadConfig, Heads


@dataclass(frozen=True)
class Schedule:
    """How the heads are taught.

    Attributes:
        num_steps: batches in all.
        num_pairs: pairs (an item and what was made from it) per batch.
        learning_rate: at its highest; it rises for a tenth of the steps and then falls along a cosine.
        weight_decay: of AdamW.
        frame_loss: weight of the loss on single frames, which keeps the spatial head able to judge alone.
        margin_loss: weight of the loss that wants a synthetic clip above its own authentic twin.
        averaging: decay of the running average of the weights; the average is what is kept.
        label_smoothing: how far targets stay away from 0 and 1.
    """

    num_steps: int = 1200
    num_pairs: int = 8
    learning_rate: float = 1.5e-3
    weight_decay: float = 0.02
    frame_loss: float = 0.5
    margin_loss: float = 0.5
    averaging: float = 0.995
    label_smoothing: float = 0.02


# How many pairs of each make out of ten; kinds that are absent leave their share to the others.
_SHARES: dict[Kind, int] = {Kind.RENDER: 5, Kind.TALKING: 2, Kind.FILMED_STILL: 3}


def fit_heads(
    examples: Sequence[Example],
    config: HeadConfig,
    schedule: Schedule,
    *,
    seed: int,
    progress: Callable[[int, int], None],
) -> Heads:
    """Teach heads on the examples of the training split.

    Args:
        examples: both classes.
        config: shape of the heads.
        schedule: how they are taught.
        seed: of the first weights, batches and dropout.
        progress: called with steps done and steps in all.
    Raises: EmptyCorpusError: a class is missing.
    """
    if len({example.item.label for example in examples}) < 2:
        raise EmptyCorpusError("The training split needs examples of both classes.")
    rng = np.random.default_rng(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        heads = Heads(config)
        measure_channels(heads, examples)
        average = copy.deepcopy(heads).requires_grad_(False)
        optimiser = torch.optim.AdamW(heads.parameters(), lr=schedule.learning_rate, weight_decay=schedule.weight_decay)
        batches = _PairBatches(examples, schedule.num_pairs, rng)
        heads.train()
        for step in range(schedule.num_steps):
            for group in optimiser.param_groups:
                group["lr"] = schedule.learning_rate * _rate_at(step / schedule.num_steps)
            loss = _loss(heads, *batches.draw(), schedule)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(heads.parameters(), 1.0)
            optimiser.step()
            decay = min(schedule.averaging, (1 + step) / (10 + step))
            for kept, new in zip(average.parameters(), heads.parameters(), strict=True):
                kept.lerp_(new.detach(), 1 - decay)
            progress(step + 1, schedule.num_steps)
    return average.eval()


def measure_channels(heads: Heads, examples: Sequence[Example]) -> None:
    """Store what each channel usually is, over the training material, in the buffers of `heads`."""
    sums_C = np.zeros(heads.usual_C.shape[0])
    squares_C = np.zeros_like(sums_C)
    num = 0
    for example in examples:
        cells_TCGG = example.cells_TCGG.astype(np.float32)
        sums_C += cells_TCGG.sum(axis=(0, 2, 3))
        squares_C += np.square(cells_TCGG, dtype=np.float64).sum(axis=(0, 2, 3))
        num += cells_TCGG.shape[0] * cells_TCGG.shape[2] * cells_TCGG.shape[3]
    usual_C = sums_C / num
    spread_C = np.sqrt(np.maximum(squares_C / num - usual_C**2, 1e-6))
    heads.usual_C.copy_(torch.from_numpy(usual_C))
    heads.spread_C.copy_(torch.from_numpy(spread_C))


class _PairBatches:
    """Draws batches of pairs, each kind by its share, so that the classes and sources stay in balance."""

    def __init__(self, examples: Sequence[Example], num_pairs: int, rng: np.random.Generator) -> None:
        by_pair: dict[str, list[Example]] = defaultdict(list)
        for example in examples:
            by_pair[example.item.pair].append(example)
        self._pools: dict[Kind, list[list[Example]]] = {kind: [] for kind in _SHARES}
        for members in by_pair.values():
            kinds = {member.item.kind for member in members}
            kind = next(
                (k for k in (Kind.RENDER, Kind.TALKING) if k in kinds),
                Kind.TALKING if Kind.SELF_BLENDED_TALKING in kinds else Kind.FILMED_STILL,
            )
            self._pools[kind].append(members)
        present = [kind for kind, pool in self._pools.items() if pool]
        shares = np.array([_SHARES[kind] for kind in present], float)
        self._present, self._weights = present, shares / shares.sum()
        self._num_pairs = num_pairs
        self._rng = rng

    def draw(self) -> tuple[Tensor, Tensor, list[tuple[int, int]]]:
        """Cells (B, T, C, G, G), labels (B), and (synthetic, authentic) positions of the pairs that have both."""
        rng = self._rng
        num_frames = 2 * int(rng.integers(1, 4))
        chosen: list[Example] = []
        twins: list[tuple[int, int]] = []
        for kind_index in rng.choice(len(self._present), size=self._num_pairs, p=self._weights):
            pool = self._pools[self._present[kind_index]]
            members = pool[int(rng.integers(len(pool)))]
            positions = range(len(chosen), len(chosen) + len(members))
            chosen += members
            synthetic = [p for p, m in zip(positions, members, strict=True) if m.item.label]
            authentic = [p for p, m in zip(positions, members, strict=True) if not m.item.label]
            twins += [(s, a) for s in synthetic for a in authentic]
        cells = torch.from_numpy(np.stack([self._some_pairs(example, num_frames) for example in chosen]))
        if rng.random() < 0.5:
            cells = cells.flip(-1)
        labels = torch.tensor([float(example.item.label) for example in chosen])
        return cells.float(), labels, twins

    def _some_pairs(self, example: Example, num_frames: int) -> np.ndarray:
        # A clip in which the face was lost for a while has fewer pairs: some are then taken twice.
        starts = 2 * self._rng.choice(
            len(example.cells_TCGG) // 2,
            size=num_frames // 2,
            replace=len(example.cells_TCGG) < num_frames,
        )
        return example.cells_TCGG[np.stack([starts, starts + 1], axis=1).ravel()]


def _loss(
    heads: Heads, cells_BTCGG: Tensor, labels_B: Tensor, twins: list[tuple[int, int]], schedule: Schedule
) -> Tensor:
    judged = heads(cells_BTCGG)
    targets_B = labels_B * (1 - 2 * schedule.label_smoothing) + schedule.label_smoothing
    # Each class counts half, however many of its clips are in the batch.
    weights_B = torch.where(labels_B > 0, 0.5 / labels_B.sum().clamp_min(1), 0.5 / (1 - labels_B).sum().clamp_min(1))
    clip_loss = nn.functional.binary_cross_entropy_with_logits(judged.clip_B, targets_B, weights_B, reduction="sum")
    frame_loss = nn.functional.binary_cross_entropy_with_logits(
        judged.frame_BT,
        targets_B[:, None].expand_as(judged.frame_BT),
        weights_B[:, None].expand_as(judged.frame_BT) / judged.frame_BT.shape[1],
        reduction="sum",
    )
    loss = clip_loss + schedule.frame_loss * frame_loss
    if twins:
        synthetic, authentic = torch.tensor(twins).T
        gap = judged.frame_BT.mean(dim=1)[synthetic] - judged.frame_BT.mean(dim=1)[authentic]
        loss = loss + schedule.margin_loss * nn.functional.softplus(2 - gap).mean()
    return loss


def _rate_at(done: float) -> float:
    return done / 0.1 if done < 0.1 else 0.02 + 0.98 * 0.5 * (1 + float(np.cos(np.pi * (done - 0.1) / 0.9)))
