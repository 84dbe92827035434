"""What learns: a linear head on what the cells of the face do, within a frame and from one frame to the next, and
beside it the small networks of `detector.movement` on how the face moves. Their logits are summed.

Each pair of consecutive frames becomes one row of numbers: how much every channel changes in the mouth, around the
eyes and in the whole face, *relative to the edge of the crop* (a camera that shakes changes all of them alike), and how
uneven it is across each region. The head is a logistic regression on the mean over the pairs, so that a clip's logit is
the mean of its pairs' logits, and what is said of a moment adds up to what is said of the whole.

Deeper heads (attention over the cells, temporal convolution) learnt the training faces by heart: see NOTES.md.

T frame looked at  P pair of consecutive frames (T = 2 P)  C channel  G cell  F feature of a pair  D width of the sketch
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from jaxtyping import Float32, Float64, Shaped

from detector.model import GRID, NUM_CHANNELS
from detector.movement import MovementHead

# Rows and columns of the 14×14 grid; the crop is centred on the face box, so a region is about the same place in all.
_REGIONS: Final[dict[str, tuple[slice, slice | list[int]]]] = {
    "face": (slice(0, GRID), slice(0, GRID)),
    "mouth": (slice(8, 13), slice(4, 10)),
    "eyes": (slice(3, 7), slice(2, 12)),
    "edge": (slice(0, GRID), [0, 1, GRID - 2, GRID - 1]),
}
_CHANGING: Final = ("mouth", "eyes", "face")
NUM_FEATURES: Final = (len(_CHANGING) + len(_REGIONS)) * NUM_CHANNELS

_STILL: Final = 1e-3
"""Changes below this are the rounding of the coded cells; the logarithm must not dwell on them."""
_FARTHEST: Final = 5.0
"""Standard deviations at which a feature is cut off: no single channel decides."""


def pair_features(cells_TCGG: Shaped[np.ndarray, "t c 14 14"]) -> Float32[np.ndarray, "p f"]:
    """One row per pair; frames 2p and 2p + 1 are consecutive in the clip."""
    cells_P2CGG = cells_TCGG.astype(np.float32).reshape(-1, 2, *cells_TCGG.shape[1:])
    change_PCGG = np.abs(cells_P2CGG[:, 1] - cells_P2CGG[:, 0])
    change = {
        name: np.log(change_PCGG[:, :, rows][..., columns].mean(axis=(2, 3)) + _STILL)
        for name, (rows, columns) in _REGIONS.items()
    }
    uneven = [
        cells_P2CGG[:, :, :, rows][..., columns].std(axis=(3, 4)).mean(axis=1) for rows, columns in _REGIONS.values()
    ]
    relative = [change[name] - change["edge"] for name in _CHANGING]
    return np.concatenate([*relative, *uneven], axis=1)


class Judgement(NamedTuple):
    """What the head says of one clip.

    Attributes:
        logit: of the whole, larger is more likely synthetic; before calibration.
        pairs_P: of each pair; their mean is the logit.
        sketch_D: the clip in few numbers, for telling how far from the training material it lies.
    """

    logit: float
    pairs_P: Float64[np.ndarray, " p"]
    sketch_D: Float64[np.ndarray, " d"]


@dataclass(frozen=True, eq=False)
class Heads:
    """All that was learnt.

    Attributes:
        usual_F, spread_F: mean and standard deviation of each feature in the training material.
        weight_F, bias: of the logistic regression on standardised features.
        components_FD: directions in which the training material varies most.
        movement: what was learnt of movement.
    """

    usual_F: Float32[np.ndarray, " f"]
    spread_F: Float32[np.ndarray, " f"]
    weight_F: Float32[np.ndarray, " f"]
    bias: float
    components_FD: Float32[np.ndarray, "f d"]
    movement: MovementHead

    @property
    def num_parameters(self) -> int:
        """Numbers that decide; standardisation and sketch do not count."""
        return len(self.weight_F) + 1 + self.movement.num_parameters

    def standardised(self, features_PF: Float32[np.ndarray, "p f"]) -> Float32[np.ndarray, "p f"]:
        """Features in standard deviations from the usual, cut off where no clip of the training material lies."""
        return np.clip((features_PF - self.usual_F) / self.spread_F, -_FARTHEST, _FARTHEST)

    def heat(self, cells_TCGG: Shaped[np.ndarray, "t c 14 14"]) -> Float32[np.ndarray, "p 14 14"]:
        """What every place of the face contributes to the linear part of its pair's logit; the bias is left out.

        A feature is a mean or a spread over the cells of a region, so its part is shared out among them: by how much
        each cell changes, or by how far it lies from the region's mean.
        """
        part_PF = self.standardised(pair_features(cells_TCGG)) * self.weight_F
        cells_P2CGG = cells_TCGG.astype(np.float32).reshape(-1, 2, *cells_TCGG.shape[1:])
        change_PCGG = np.abs(cells_P2CGG[:, 1] - cells_P2CGG[:, 0])
        heat_PGG = np.zeros((len(part_PF), GRID, GRID), np.float32)
        regions = [(name, change_PCGG) for name in _CHANGING]
        regions += [(name, None) for name in _REGIONS]
        for index, (name, size_PCGG) in enumerate(regions):
            rows, columns = _REGIONS[name]
            part_PC = part_PF[:, index * NUM_CHANNELS : (index + 1) * NUM_CHANNELS]
            if size_PCGG is None:
                inside = cells_P2CGG[:, :, :, rows][..., columns]
                share = ((inside - inside.mean(axis=(3, 4), keepdims=True)) ** 2).mean(axis=1)
            else:
                share = size_PCGG[:, :, rows][..., columns]
            share = share + 1e-6
            share = share / share.sum(axis=(2, 3), keepdims=True)
            region = heat_PGG[:, rows]
            region[..., columns] += np.einsum("pc,pcgh->pgh", part_PC, share)
        return heat_PGG

    def judge(self, cells_TCGG: Shaped[np.ndarray, "t c 14 14"], moves_PM: Float32[np.ndarray, "p m"]) -> Judgement:
        """Judge a clip from the cells and the movements of its pairs; at least one pair."""
        standard_PF = self.standardised(pair_features(cells_TCGG)).astype(np.float64)
        pairs_P = standard_PF @ self.weight_F + self.bias + self.movement.logits(moves_PM)
        return Judgement(float(pairs_P.mean()), pairs_P, standard_PF.mean(axis=0) @ self.components_FD)
