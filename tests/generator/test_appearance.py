"""Measures of pictures say what they claim: known faults give known figures."""

from __future__ import annotations

import numpy as np
import pytest

from generator.appearance import drift, flicker, psnr_outside, seam_energy
from generator.sighting import Sighting

RNG = np.random.default_rng(5)


def still(num: int = 60, side: int = 64) -> np.ndarray:
    picture = RNG.integers(90, 110, (side, side, 3)).astype(np.uint8)
    return np.repeat(picture[None], num, 0)


def seen(num: int, pose_T3: np.ndarray | None = None, distance_T: np.ndarray | None = None) -> Sighting:
    points_TL3 = np.full((num, 468, 3), 32.0)
    return Sighting(
        points_TL3,
        np.zeros((num, 3)) if pose_T3 is None else pose_T3,
        np.ones(num) if distance_T is None else distance_T,
        np.zeros((num, 2)),
        np.full(num, 0.3),
        np.zeros(num, bool),
        25.0,
    )


def test_a_still_clip_does_not_flicker_and_the_marks_sway_is_told_apart() -> None:
    assert flicker(still(), 25.0).adjacent == 0.0
    sway_T = np.rint(2.0 * np.sin(2 * np.pi * 2.5 * np.arange(60) / 25)).astype(np.int64)
    swaying = np.clip(still().astype(np.int64) + sway_T[:, None, None, None], 0, 255).astype(np.uint8)
    found = flicker(swaying, 25.0)
    assert found.adjacent > 0.5
    assert found.per_mark_period == 0.0


def test_a_crack_raises_the_seam_energy() -> None:
    whole = still(1)[0]
    torn = whole.copy()
    torn[10:50, 30:32] = 0
    everywhere = np.ones(whole.shape[:2], bool)
    assert seam_energy(torn, everywhere) > 3.0 * seam_energy(whole, everywhere)


def test_drift_is_found_and_chance_is_not_drift() -> None:
    num = 100
    wandering = RNG.normal(0.0, 3.0, (num, 3))
    frames = still(num)
    assert not drift(frames, seen(num, wandering)).is_measurable
    turning = wandering + np.linspace(0.0, 12.0, num)[:, None] * (1.0, 0.0, 0.0)
    assert drift(frames, seen(num, turning)).yaw_deg == pytest.approx(11.0, abs=2.5)
    assert drift(frames, seen(num, turning)).is_measurable
    assert drift(frames, seen(num, wandering, np.linspace(1.0, 1.03, num))).is_measurable
    fading = np.clip(frames + np.linspace(0.0, 6.0, num).round()[:, None, None, None], 0, 255).astype(np.uint8)
    found = drift(fading, seen(num, wandering))
    assert found.is_measurable
    assert found.colour == pytest.approx(5.4, abs=0.8)


def test_drift_needs_a_clip() -> None:
    with pytest.raises(ValueError, match="20"):
        drift(still(5), seen(5))


def test_agreement_outside_a_box_counts_nothing_inside() -> None:
    photo = still(1)[0]
    frames = np.repeat(photo[None], 3, 0)
    frames[:, 20:40, 20:40] = 255
    assert psnr_outside(frames, photo, (20, 20, 40, 40)) == float("inf")
    frames[:, 0, 0] ^= 1
    assert 60 < psnr_outside(frames, photo, (20, 20, 40, 40)) < 100
