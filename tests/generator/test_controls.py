"""Controls: what is read, what is refused and how it is named, and how a value moves between keyframes."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from generator.controls import MotionControls
from generator.emotion import EMOTIONS
from generator.errors import ControlError

JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


def test_nothing_asked_is_the_default() -> None:
    assert MotionControls.from_json({}) == MotionControls()


def test_a_control_holds_or_follows_keyframes() -> None:
    controls = MotionControls.from_json(
        {
            "gaze": {"yaw_deg": 10},
            "head_pose": [5, -3, 2],
            "head_distance": {"keyframes": [{"at_s": 1, "value": 1.0}, {"at_s": 3, "value": 1.2}]},
        }
    )
    times_T = np.array([0.0, 1.0, 2.0, 3.0, 9.0])
    assert np.array_equal(controls.gaze.at(times_T), [[10.0, 0.0]] * 5)
    assert np.array_equal(controls.head_pose.at(times_T)[0], [5.0, -3.0, 2.0])
    assert np.allclose(controls.head_distance.at(times_T)[:, 0], [1.0, 1.0, 1.1, 1.2, 1.2])


def test_a_track_of_poses_replaces_the_heads_own_movement() -> None:
    pose = {"mode": "track", "keyframes": [{"at_s": 0, "value": [0, 0, 0]}, {"at_s": 2, "value": {"yaw_deg": 15}}]}
    assert MotionControls.from_json({"head_pose": pose}).head_pose_mode == "track"


def test_emotions_by_name_by_amount_and_by_point() -> None:
    def mix(wish: object) -> dict[str, float]:
        amounts = MotionControls.from_json({"emotion": wish}).emotion.at(np.zeros(1))[0]
        return dict(zip(EMOTIONS, amounts, strict=True))

    assert mix("joy")["joy"] == 1.0
    assert mix({"preset": "anger", "amount": 0.4})["anger"] == 0.4
    assert sum(mix("neutral").values()) == 0.0 == sum(mix({"valence": 0, "arousal": 0}).values())
    pleased = mix({"valence": 0.8, "arousal": 0.3})
    assert max(pleased, key=pleased.__getitem__) == "joy"
    low = mix({"valence": -0.7, "arousal": -0.5})
    assert max(low, key=low.__getitem__) == "sadness"
    assert sum(mix({"valence": 0.4, "arousal": 0.2}).values()) < sum(pleased.values()) <= 1.0


@pytest.mark.parametrize(
    ("controls", "field"),
    [
        ({"mood": 1}, "mood"),
        ({"head_pose_mode": "track"}, "head_pose_mode"),
        ({"seed": -1}, "seed"),
        ({"seed": 1.5}, "seed"),
        ({"seed": True}, "seed"),
        ({"seed": 2**31}, "seed"),
        ({"intensity": 1.6}, "intensity"),
        ({"intensity": "1"}, "intensity"),
        ({"head_motion": float("nan")}, "head_motion"),
        ({"blink_rate": 61}, "blink_rate"),
        ({"gaze": {"yaw_deg": -21}}, "gaze.yaw_deg"),
        ({"gaze": {"yaw": 1}}, "gaze"),
        ({"gaze": {}}, "gaze"),
        ({"head_pose": [0, 11, 0]}, "head_pose.pitch_deg"),
        ({"head_pose": {"mode": "around", "yaw_deg": 1}}, "head_pose"),
        ({"head_distance": 0.7}, "head_distance"),
        ({"emotion": "bliss"}, "emotion"),
        ({"emotion": {"preset": "joy", "amount": 2}}, "emotion.amount"),
        ({"emotion": {"valence": 1.1, "arousal": 0}}, "emotion.valence"),
        ({"framing": "round"}, "framing"),
        ({"face": 16}, "face"),
        ({"intensity": {"keyframes": []}}, "intensity"),
        ({"intensity": {"keyframes": [{"at_s": 0}]}}, "intensity"),
        ({"intensity": {"keyframes": [{"at_s": 1, "value": 1}, {"at_s": 1, "value": 1}]}}, "intensity"),
        ({"intensity": {"keyframes": [{"at_s": -1, "value": 1}]}}, "intensity.at_s"),
    ],
)
def test_a_wrong_control_is_named_with_its_range(controls: dict[str, Any], field: str) -> None:
    with pytest.raises(ControlError) as caught:
        MotionControls.from_json(controls)
    assert caught.value.field == field
    assert field in str(caught.value)
    assert caught.value.http_status == 422


@given(st.dictionaries(st.sampled_from(["gaze", "emotion", "head_pose", "head_distance", "seed", "face"]), JSON))
def test_anything_else_is_a_control_error(controls: dict[str, Any]) -> None:
    with contextlib.suppress(ControlError):
        MotionControls.from_json(controls)
