"""What learns of movement: a few small networks over the measurements of `detector.kinematics`, one logit per pair.

The linear head sees that a face changes; these see *how*: that a mouth moves against a head whose skin keeps its grain
is a conjunction, and a sum of single measurements cannot say "and". Several networks of one hidden layer, begun by
different chance and averaged, because one alone is as sure where it knows nothing as where it knows much.

P pair  M measurement  E member  H hidden unit
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from jaxtyping import Float32, Float64

_FARTHEST: Final = 4.0
"""Standard deviations at which a measurement is cut off."""


@dataclass(frozen=True, eq=False)
class MovementHead:
    """All that was learnt of movement.

    Attributes:
        usual_M, spread_M: mean and standard deviation of each measurement in the training material.
        hidden_EMH, hidden_bias_EH: of the hidden layers.
        out_EH, out_bias_E: of their logits.
    """

    usual_M: Float32[np.ndarray, " m"]
    spread_M: Float32[np.ndarray, " m"]
    hidden_EMH: Float32[np.ndarray, "e m h"]
    hidden_bias_EH: Float32[np.ndarray, "e h"]
    out_EH: Float32[np.ndarray, "e h"]
    out_bias_E: Float32[np.ndarray, " e"]

    @property
    def num_parameters(self) -> int:
        return sum(part.size for part in (self.hidden_EMH, self.hidden_bias_EH, self.out_EH, self.out_bias_E))

    def standardised(self, moves_PM: Float32[np.ndarray, "p m"]) -> Float32[np.ndarray, "p m"]:
        """In standard deviations from the usual."""
        return np.clip((moves_PM - self.usual_M) / self.spread_M, -_FARTHEST, _FARTHEST)

    def logits(self, moves_PM: Float32[np.ndarray, "p m"]) -> Float64[np.ndarray, " p"]:
        """One logit per pair, the mean over the members."""
        standard_PM = self.standardised(moves_PM)
        hidden_EPH = np.maximum(standard_PM @ self.hidden_EMH + self.hidden_bias_EH[:, None], 0)
        logits_EP = (hidden_EPH * self.out_EH[:, None]).sum(axis=2) + self.out_bias_E[:, None]
        return np.asarray(logits_EP.mean(axis=0), np.float64)

    def scaled(self, factor: float) -> MovementHead:
        """The same head, its logits multiplied."""
        return MovementHead(
            self.usual_M,
            self.spread_M,
            self.hidden_EMH,
            self.hidden_bias_EH,
            (factor * self.out_EH).astype(np.float32),
            (factor * self.out_bias_E).astype(np.float32),
        )
