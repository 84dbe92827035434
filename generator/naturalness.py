"""Whether a face moves as people do: statistics of seen movement, beside those of published talking faces.

A row is natural when its median over the clips lies between the 10th and the 90th percentile of the reference: 16
published clips of VASA-1 (227 s), measured at 25 Hz by another landmark model. Rows whose figure depends on the model
that looks (lids, brows, gaze) are compared by the outside yardstick only, see docs/generator.md.
"""

# T frame

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy import ndarray

from generator.sighting import Sighting

LEAST_S: Final = 4.0
_RATE_HZ: Final = 25.0
_OCTAVES_HZ: Final = ((0.1, 0.5), (0.5, 1.0), (1.0, 2.0), (2.0, 4.0), (4.0, 8.0))
_BLINK_SHARE: Final = 0.55  # an eye less open than this share of its usual opening is shut

# 10th, 50th, 90th percentile over the reference clips.
BANDS: Final[dict[str, tuple[float, float, float]]] = {
    "yaw_std_deg": (3.08, 4.60, 5.48),
    "yaw_range98_deg": (14.3, 20.8, 28.6),
    "yaw_power_share_0.1-0.5hz": (0.382, 0.709, 0.857),
    "yaw_power_share_0.5-1hz": (0.089, 0.214, 0.378),
    "yaw_power_share_1-2hz": (0.030, 0.071, 0.168),
    "yaw_power_share_2-4hz": (0.0049, 0.0126, 0.0351),
    "yaw_power_share_4-8hz": (0.0005, 0.0010, 0.0023),
    "pitch_std_deg": (2.59, 3.59, 4.69),
    "pitch_range98_deg": (11.0, 15.8, 19.7),
    "pitch_power_share_0.1-0.5hz": (0.312, 0.664, 0.828),
    "pitch_power_share_0.5-1hz": (0.090, 0.189, 0.416),
    "pitch_power_share_1-2hz": (0.028, 0.095, 0.251),
    "pitch_power_share_2-4hz": (0.0118, 0.0214, 0.0471),
    "pitch_power_share_4-8hz": (0.0018, 0.0042, 0.0115),
    "roll_std_deg": (2.24, 3.62, 4.37),
    "roll_range98_deg": (9.6, 13.6, 18.9),
    "roll_power_share_0.1-0.5hz": (0.620, 0.835, 0.867),
    "roll_power_share_0.5-1hz": (0.090, 0.118, 0.315),
    "roll_power_share_1-2hz": (0.014, 0.031, 0.088),
    "roll_power_share_2-4hz": (0.0041, 0.0105, 0.0181),
    "roll_power_share_4-8hz": (0.0004, 0.0008, 0.0036),
    "blinks_per_min": (10.0, 33.9, 51.3),
    "aperture_p50": (0.085, 0.107, 0.152),
    "aperture_p95": (0.192, 0.234, 0.287),
    "aperture_std": (0.058, 0.070, 0.081),
    "mouth_width_std": (0.045, 0.064, 0.077),
}


@dataclass(frozen=True)
class NaturalRow:
    """One statistic of the movement.

    Attributes:
        name: of the statistic.
        median: over the clips.
        band: 10th, 50th, 90th percentile of the reference.
    """

    name: str
    median: float
    band: tuple[float, float, float]

    @property
    def is_natural(self) -> bool:
        return self.band[0] <= self.median <= self.band[2]


def pose_variation_deg(pose_T3: ndarray) -> float:
    """ΔP: mean difference of the head's angles (yaw, pitch, roll) between adjacent frames at 25 Hz, in degrees.

    Source: Xu et al., VASA-1, arXiv 2404.10667, section 4.1 (pose variation intensity).
    """
    return float(np.abs(np.diff(pose_T3, axis=0)).mean()) if len(pose_T3) > 1 else 0.0


def motion_statistics(seen: Sighting) -> dict[str, float]:
    """The statistics of one clip, by the names of `BANDS`.

    Raises: ValueError: shorter than `LEAST_S`.
    """
    num = len(seen.pose_T3)
    if num / seen.rate_hz < LEAST_S:
        raise ValueError(f"a clip of less than {LEAST_S:g} s says nothing about movement")
    times_T = np.arange(int(num / seen.rate_hz * _RATE_HZ)) / _RATE_HZ

    def resampled(values_T: ndarray) -> ndarray:
        return np.interp(times_T, np.arange(num) / seen.rate_hz, values_T)

    found: dict[str, float] = {}
    hertz = np.fft.rfftfreq(len(times_T), 1 / _RATE_HZ)
    for axis, name in enumerate(("yaw", "pitch", "roll")):
        angle_T = resampled(seen.pose_T3[:, axis])
        found[f"{name}_std_deg"] = float(angle_T.std())
        found[f"{name}_range98_deg"] = float(np.ptp(np.percentile(angle_T, [1, 99])))
        power = np.abs(np.fft.rfft((angle_T - angle_T.mean()) * np.hanning(len(angle_T)))) ** 2
        total = max(float(power[hertz >= _OCTAVES_HZ[0][0]].sum()), 1e-12)
        for low, high in _OCTAVES_HZ:
            share = float(power[(hertz >= low) & (hertz < high)].sum()) / total
            found[f"{name}_power_share_{low:g}-{high:g}hz"] = share
    shut_T = resampled(seen.opening_T) < _BLINK_SHARE * np.percentile(seen.opening_T, 75)
    found["blinks_per_min"] = float((~shut_T[:-1] & shut_T[1:]).sum() / times_T[-1] * 60.0)
    aperture_T = resampled(seen.aperture_T)
    found["aperture_p50"], found["aperture_p95"] = (float(v) for v in np.percentile(aperture_T, [50, 95]))
    found["aperture_std"] = float(aperture_T.std())
    found["mouth_width_std"] = float(seen.mouth_width_T.std())
    return found


def natural_rows(clips: Sequence[Sighting]) -> list[NaturalRow]:
    """The medians over clips of four seconds or more, each beside its band. Empty without such a clip."""
    found = [motion_statistics(seen) for seen in clips if len(seen.pose_T3) / seen.rate_hz >= LEAST_S]
    if not found:
        return []
    return [NaturalRow(name, float(np.median([each[name] for each in found])), band) for name, band in BANDS.items()]
