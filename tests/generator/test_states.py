"""The sheet of states: its controls are valid, its moments lie where they should, its pictures are laid out."""

from __future__ import annotations

import numpy as np

from generator.actions import ACTION_INDEX
from generator.controls import MotionControls
from generator.motion import MotionTrack
from generator.perception import detect_faces
from generator.portrait import Portrait
from generator.states import DRAWING, STATES, StateRow, as_drawing, state_controls, state_moments, state_sheet


def test_the_clip_goes_through_all_states() -> None:
    controls = MotionControls.from_json(state_controls(5.0))
    times = np.linspace(0, 5, 126)
    assert controls.emotion.at(times)[:, 0].max() == 1.0 and controls.emotion.at(times)[:, 1].max() == 1.0
    assert controls.gaze.at(times)[:, 0].min() == -15.0 and controls.head_pose.at(times)[-1, 0] == 15.0
    held = 5.0 * np.array([0.12, 0.35, 0.55, 0.73, 0.93])
    asked = (controls.emotion.at(held), controls.gaze.at(held), controls.head_pose.at(held))
    np.testing.assert_array_equal(sum((each != 0).sum(1) for each in asked), [0, 1, 1, 1, 1])


def test_moments_show_what_they_are_named_for() -> None:
    actions = np.zeros((100, 52), np.float32)
    jaw, sealed, blink = (ACTION_INDEX[name] for name in ("jawOpen", "mouthClose", "eyeBlinkLeft"))
    actions[:, jaw] = 0.2
    actions[10, jaw], actions[15, blink] = 0.5, 1.0
    actions[20, [jaw, sealed]] = 0.3
    actions[35, blink] = 1.0  # in the middle of joy
    pose, gaze, distance = np.zeros((100, 6), np.float32), np.zeros((100, 2), np.float32), np.ones(100, np.float32)
    moments = state_moments(MotionTrack(actions, pose, gaze, distance))
    assert set(moments) == set(STATES)
    assert (moments["speech"], moments["blink"], moments["closed lips"]) == (10, 15, 20)
    assert 30 <= moments["joy"] < 40 and moments["joy"] != 35
    assert 86 <= moments["yaw 15°"] < 100


def test_a_drawing_still_shows_the_face(portrait: Portrait) -> None:
    drawn = as_drawing(portrait.photo_HW3)
    assert drawn.shape == portrait.photo_HW3.shape and len(detect_faces(drawn)) == 1


def test_the_sheet_has_a_row_for_each_portrait_and_says_what_is_missing() -> None:
    picture = np.full((96, 96, 3), 200, np.uint8)
    rows = [StateRow("a", dict.fromkeys(STATES, picture), {DRAWING: "portrait.no_face"}), StateRow("b", {}, {})]
    sheet = state_sheet(rows, (*STATES, DRAWING), tile_px=64)
    assert sheet.shape == (2 * 70 + 6 + 26, 8 * 70 + 6, 3)
    assert sheet[60, 40, 0] == 200 and sheet[60 + 70, 40, 0] == 246
