"""Coarse answers: five bands instead of a score, for whoever has not been vetted.

A detector that can be queried can be learnt. Five bands say what a person needs to know, and little of which way a
small change of the picture moved the score.
"""

from __future__ import annotations

from typing import Any, Final, Literal

Band = Literal["very_low", "low", "medium", "high", "very_high"]

_LOW, _MEDIUM, _HIGH = 0.05, 0.25, 0.5
_FINE: Final = ("p", "llr", "ood", "box")
"""What a coarse answer leaves out, wherever it stands."""


def band_of(p: float | None, threshold: float) -> Band | None:
    """The band of a probability; the highest begins at the threshold of the operating point. None where there is none.

    Args:
        p: probability of synthetic, 0..1.
        threshold: of the operating point, 0.5..1.
    """
    if p is None:
        return None
    if p >= threshold:
        return "very_high"
    return "very_low" if p < _LOW else "low" if p < _MEDIUM else "medium" if p < _HIGH else "high"


def coarse(report: dict[str, Any]) -> dict[str, Any]:
    """The report for the public tier: bands, no scores, no conformal set, no heatmap. The verdict is the same."""
    layer = dict(report["layers"]["detector"])
    for name in _FINE:
        if name in layer:
            layer[name] = None
    layer["conformal_set"] = []
    layer["heatmap_url"] = ""
    for parts in ("timeline", "faces"):
        layer[parts] = [
            {name: value for name, value in part.items() if name not in _FINE} for part in layer.get(parts, [])
        ]
    return {**report, "tier": "public", "layers": {**report["layers"], "detector": layer}}
