"""The face's own life: natural rates, hard bounds, one seed one movement."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from generator.behaviour import POSE_LIMITS_DEG, Behaviour, BehaviourFrame, HeardFrame, Wish

MINUTE = 1500


def talk(num_frames: int = MINUTE) -> list[HeardFrame]:
    """Phrases of about three seconds with four syllables a second, some louder, and pauses between."""
    rng = np.random.default_rng(7)
    speech_T, strength_T, start = np.zeros(num_frames), np.zeros(num_frames), 0
    while start < num_frames:
        frames = np.arange(start, min(start + int(rng.uniform(50, 100)), num_frames))
        speech_T[frames] = 1.0
        strength_T[frames] = (
            0.55 + 0.35 * np.sin(2 * np.pi * 4 * frames / 25) + 0.2 * np.sin(2 * np.pi * 0.9 * frames / 25)
        )
        start += len(frames) + int(rng.uniform(8, 22))
    return [HeardFrame(float(s), float(np.clip(p, 0, 1))) for s, p in zip(speech_T, strength_T, strict=True)]


def live(seed: int, heard: list[HeardFrame] | None = None, **wished: object) -> list[BehaviourFrame]:
    wish = Wish(**wished)  # type: ignore[arg-type]
    if heard is None:
        return _live_minute(seed, wish)
    behaviour = Behaviour(seed)
    return [behaviour.step(frame, wish) for frame in heard]


@cache
def _live_minute(seed: int, wish: Wish) -> list[BehaviourFrame]:
    behaviour = Behaviour(seed)
    return [behaviour.step(frame, wish) for frame in talk()]


def poses(frames: list[BehaviourFrame]) -> np.ndarray:
    return np.array([frame.pose_6 for frame in frames])


def blinks(frames: list[BehaviourFrame]) -> np.ndarray:
    return np.array([frame.blink for frame in frames])


def num_blinks(blink_T: np.ndarray) -> int:
    shut_T = blink_T > 0.45
    return int((~shut_T[:-1] & shut_T[1:]).sum())


def test_the_same_seed_moves_the_same_and_another_differently() -> None:
    first, again, other = live(3), live(3, talk()), live(4)
    assert np.array_equal(poses(first), poses(again))
    assert np.array_equal(blinks(first), blinks(again))
    assert not np.allclose(poses(first), poses(other))


def test_it_is_causal() -> None:
    heard = talk()
    changed = heard[:700] + [HeardFrame(0.0, 0.0)] * 800
    for before, after in zip(live(1, heard)[:700], live(1, changed)[:700], strict=True):
        assert np.array_equal(before.pose_6, after.pose_6)
        assert before.blink == after.blink


@pytest.mark.parametrize("seed", range(6))
def test_the_head_stays_within_its_bounds_and_comes_back(seed: int) -> None:
    pose_T6 = poses(live(seed))
    assert (np.abs(pose_T6[:, :3]) <= POSE_LIMITS_DEG).all()
    assert np.abs(pose_T6[:, 3:]).max() < 0.04
    assert np.abs(pose_T6[:, :3].mean(0)).max() < 2.4
    assert (pose_T6[:, :3].std(0) > (2.0, 1.5, 1.2)).all()
    assert np.abs(np.diff(pose_T6[:, :3], axis=0)).max() * 25 < 110.0


def test_most_head_movement_is_slow() -> None:
    """VASA-1's clips: two thirds to four fifths below 0.5 Hz, a few percent above 2 Hz."""
    for axis in range(3):
        power = np.zeros(MINUTE // 2 + 1)
        for seed in range(4):
            angle_T = poses(live(seed))[:, axis]
            power += np.abs(np.fft.rfft((angle_T - angle_T.mean()) * np.hanning(MINUTE))) ** 2
        hertz = np.fft.rfftfreq(MINUTE, 1 / 25)
        total = power[hertz >= 0.1].sum()
        assert power[(hertz >= 0.1) & (hertz < 0.5)].sum() / total > 0.6
        assert power[hertz >= 2.0].sum() / total < 0.05


def test_no_head_motion_means_a_still_head() -> None:
    assert np.abs(poses(live(1, head_motion=0.0))).max() == 0.0


@pytest.mark.parametrize("rate_per_min", [8.0, 22.0, 45.0])
def test_the_blink_rate_is_what_was_asked_for(rate_per_min: float) -> None:
    counted = np.mean([num_blinks(blinks(live(seed, blink_rate_per_min=rate_per_min))) for seed in range(6)])
    assert counted == pytest.approx(rate_per_min, rel=0.3)


def test_no_blinks_when_none_are_wanted() -> None:
    assert blinks(live(1, blink_rate_per_min=0.0)).max() == 0.0


def test_every_blink_shuts_the_eye_in_some_frame_and_opens_more_slowly_than_it_shuts() -> None:
    blink_T = np.concatenate([blinks(live(seed)) for seed in range(4)])
    shut = np.flatnonzero((blink_T[:-1] <= 0.0) & (blink_T[1:] > 0.0))
    assert len(shut) > 20
    falls, rises = [], []
    for start in shut[shut % MINUTE < MINUTE - 14]:  # the last one may be cut off
        course = blink_T[start : start + 14]
        assert course.max() == 1.0
        falls.append(int(np.argmax(course == 1.0)))
        peak = len(course) - 1 - int(np.argmax(course[::-1] == 1.0))
        below = np.flatnonzero(course[peak:] < 0.05)
        if len(below):
            rises.append(int(below[0]))
    assert np.mean(rises) > np.mean(falls)


def test_blinking_less_leaves_head_and_gaze_as_they_were() -> None:
    often, never = live(5, blink_rate_per_min=50.0), live(5, blink_rate_per_min=0.0)
    assert np.array_equal(poses(often), poses(never))
    assert np.array_equal([f.gaze_2 for f in often], [f.gaze_2 for f in never])


def test_eyes_hold_their_target_while_the_head_turns() -> None:
    frames = live(2)
    world_T2 = np.array([f.gaze_2 + f.pose_6[:2] for f in frames])
    # Between jumps nothing of the head's movement is left in the direction of the gaze.
    steady_T = np.linalg.norm(np.diff(world_T2, axis=0), axis=1) < 1e-9
    assert steady_T.mean() > 0.8
    shifts = np.linalg.norm(np.diff(world_T2, axis=0), axis=1) > 0.3
    assert 30 < shifts.sum() < 200


def test_gaze_controls_move_the_mean_gaze() -> None:
    centre = np.mean([f.gaze_2 + f.pose_6[:2] for f in live(2)], axis=0)
    aside = np.mean([f.gaze_2 + f.pose_6[:2] for f in live(2, gaze_2=(10.0, -5.0))], axis=0)
    assert aside - centre == pytest.approx((10.0, -5.0), abs=0.5)


def test_brows_rise_on_accents_and_rest_in_silence() -> None:
    assert max(f.brow_inner for f in live(1)) > 0.12
    silent = live(1, [HeardFrame(0.0, 0.0)] * MINUTE)
    assert max(f.brow_inner for f in silent) == 0.0
    assert max(f.brow_inner for f in live(1, expressiveness=0.0)) == 0.0


def test_silence_still_lives() -> None:
    silent = live(1, [HeardFrame(0.0, 0.0)] * MINUTE)
    assert num_blinks(blinks(silent)) > 5
    assert poses(silent)[:, 0].std() > 0.3
