"""Driving: a movement that is known comes back out of the landmarks that it makes; its bytes; who drives what."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy import ndarray

from generator.actions import ACTION_INDEX
from generator.controls import MotionControls
from generator.driving import Movement, driven_rows, drivers_in, movement_of, track_movement
from generator.errors import DriverFaceError, DrivingTooShortError, MovementError, SeveralDriversError
from generator.fit import rotation
from generator.motion import MotionRow
from generator.portrait import Portrait
from generator.sighting import Sighting

NUM_FRAMES = 40
SHA = "ab" * 32


def seen_of(portrait: Portrait, jaw_T: ndarray, brow_T: ndarray, yaw_T: ndarray, shut_T: ndarray) -> Sighting:
    """What would be seen of the portrait's head if it did this."""
    head, fit = portrait.head, portrait.fit
    points = []
    for jaw, brow, yaw in zip(jaw_T, brow_T, yaw_T, strict=True):
        actions = fit.actions_A.copy()
        actions[ACTION_INDEX["jawOpen"]] += jaw
        actions[ACTION_INDEX["browInnerUp"]] += brow
        still = head.at_landmarks(head.vertices(fit.identity_K, actions)).astype(np.float64)
        camera = still @ (fit.rotation_33 @ rotation(yaw, 0, 0)).T + fit.translation_3
        points.append(fit.project_camera(camera) + np.concatenate([fit.residual_L2, np.zeros((468, 1))], 1))
    num = len(points)
    return Sighting(
        points_TL3=np.stack(points),
        pose_T3=np.stack([yaw_T, np.zeros(num), np.zeros(num)], 1),
        distance_T=np.ones(num),
        gaze_T2=np.zeros((num, 2)),
        opening_T=0.3 * (1 - 0.65 * shut_T),
        lost_T=np.zeros(num, bool),
        rate_hz=25.0,
    )


@pytest.fixture(scope="module")
def known(portrait: Portrait) -> tuple[dict[str, ndarray], Movement]:
    """A movement that we made, and what is taken from it."""
    times_T = np.arange(NUM_FRAMES) / 25
    made = {
        "jaw": 0.5 * np.clip(np.sin(2 * np.pi * 1.5 * times_T - 1), 0, 1),
        "brow": 0.6 * np.clip(np.sin(2 * np.pi * 0.7 * times_T - 2), 0, 1),
        "yaw": 9 * np.sin(2 * np.pi * 0.6 * times_T),
        "shut": np.isin(np.arange(NUM_FRAMES), (20, 21, 22)).astype(float),
    }
    seen = seen_of(portrait, made["jaw"], made["brow"], made["yaw"], made["shut"])
    centre = (portrait.fit.centre_xy[0], portrait.fit.centre_xy[1])
    return made, movement_of(seen, times_T, centre, SHA, portrait.head)


def test_a_known_movement_is_found_again(known: tuple[dict[str, ndarray], Movement]) -> None:
    made, movement = known
    num = movement.num_frames
    assert abs(num - NUM_FRAMES) <= 1
    jaw, brow = (movement.actions_T52[:, ACTION_INDEX[name]] for name in ("jawOpen", "browInnerUp"))
    assert np.corrcoef(jaw, made["jaw"][:num])[0, 1] > 0.95 and 0.3 < jaw.max() < 0.65
    assert np.corrcoef(brow, made["brow"][:num])[0, 1] > 0.95
    yaw = movement.pose_T3[:, 0]
    assert np.abs(yaw - yaw.mean() - (made["yaw"][:num] - made["yaw"][:num].mean())).max() < 2.0
    assert np.abs(movement.pose_T3[:, 1:]).max() < 1.5
    blink = movement.actions_T52[:, ACTION_INDEX["eyeBlinkLeft"]]
    assert blink[21] > 0.9 and np.delete(blink, range(18, 25)).max() < 0.05


def test_a_movement_has_one_form_in_bytes(known: tuple[dict[str, ndarray], Movement]) -> None:
    data = known[1].to_bytes()
    again = Movement.from_bytes(data)
    assert again.to_bytes() == data and again.clip_sha256 == SHA
    for damaged in (b"", data[:-1], data[1:], data + b"0", data[:60], b"x" + data[1:]):
        with pytest.raises(MovementError):
            Movement.from_bytes(damaged)
    for value in (np.nan, np.inf, 90.0, -30.0):
        rows = np.frombuffer(data[-58 * 4 :], "<f4").copy()
        rows[52] = value
        with pytest.raises(MovementError):
            Movement.from_bytes(data[: -58 * 4] + rows.tobytes())


@given(st.binary(max_size=400))
def test_anything_else_is_no_movement(data: bytes) -> None:
    with pytest.raises(MovementError):
        Movement.from_bytes(data)


def plan(num: int) -> Iterator[MotionRow]:
    """A plan in which the voice opens the jaw and everything else rests."""
    actions = np.zeros(52, np.float32)
    actions[ACTION_INDEX["jawOpen"]] = 0.7
    for _ in range(num):
        yield MotionRow(actions, np.zeros(6, np.float32), np.zeros(2, np.float32), 1.0)


def test_lips_are_the_clips_or_the_voices(known: tuple[dict[str, ndarray], Movement]) -> None:
    movement, jaw, brow = known[1], ACTION_INDEX["jawOpen"], ACTION_INDEX["browInnerUp"]
    of_clip = list(driven_rows(plan(30), movement, MotionControls.from_json({"driving": {"lips": "clip"}})))
    of_voice = list(driven_rows(plan(30), movement, MotionControls.from_json({"driving": {"lips": "speech"}})))
    assert np.allclose([row.actions_52[jaw] for row in of_clip], movement.actions_T52[:30, jaw])
    assert {float(row.actions_52[jaw]) for row in of_voice} == {float(np.float32(0.7))}
    for rows in (of_clip, of_voice):
        assert np.allclose([row.actions_52[brow] for row in rows], movement.actions_T52[:30, brow])
        assert np.allclose([row.head_pose_6[:3] for row in rows], movement.pose_T3[:30], atol=1e-5)


def test_what_is_asked_for_is_added_and_a_short_movement_comes_to_rest(
    known: tuple[dict[str, ndarray], Movement],
) -> None:
    movement = known[1]
    wish = {"driving": {"lips": "clip"}, "head_pose": [0, 5, 0], "gaze": [6, 0], "head_distance": 1.1}
    rows = list(driven_rows(plan(NUM_FRAMES + 40), movement, MotionControls.from_json(wish)))
    assert np.allclose(rows[3].head_pose_6[:3], movement.pose_T3[3] + [0, 5, 0], atol=1e-5)
    last = rows[-1]
    assert not last.actions_52.any() and np.allclose(last.head_pose_6, [0, 5, 0, 0, 0, 0])
    assert np.allclose(last.gaze_2, [6, 0]) and last.distance == pytest.approx(1.1)


def test_clips_that_show_nobody_or_two_or_nothing(portrait: Portrait) -> None:
    face = portrait.cropped(256)
    with pytest.raises(SeveralDriversError, match="2 faces"):
        drivers_in(np.concatenate([face, face], 1)[None])
    with pytest.raises(DriverFaceError):
        drivers_in(np.full((2, 128, 128, 3), 128, np.uint8))
    with pytest.raises(DriverFaceError, match="at least 64"):
        drivers_in(np.pad(portrait.cropped(80), ((200, 200), (200, 200), (0, 0)))[None])
    ((_, seen, others),) = drivers_in(face[None])
    assert others == () and seen.size_px > 64
    with pytest.raises(DrivingTooShortError):
        track_movement(face[None].repeat(4, 0), np.arange(4) / 25, b"")
