"""The scorecard: what is good is met, what is bad is missed, what was not measured says so."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from generator.appearance import Flicker
from generator.evaluate import LipMeasures
from generator.naturalness import BANDS, NaturalRow, motion_statistics, natural_rows, pose_variation_deg
from generator.scorecard import ClipFigures, TrialFigures, as_table, scorecard
from generator.sighting import Sighting
from generator.trials import Disentanglement, control_errors, disentanglement, holds, rest_frames

LIPS = LipMeasures(20, 20, 40, 0, 0.85, 0.8, 15.0, 0.01)
CLIP = ClipFigures(LIPS, (0.1, 0.2, 0.25), 0.97, 0.4, Flicker(0.6, 0.1))
TRIAL = TrialFigures(
    {name: [0.5, -0.5] for name in ("yaw_deg", "pitch_deg", "roll_deg", "gaze_yaw_deg", "gaze_pitch_deg")}
    | {"distance": [0.01, -0.02]},
    Disentanglement(0.03, 0.02, {"lips": 0.03}),
    1.05,
)
GOOD = [NaturalRow(name, band[1], band) for name, band in BANDS.items()]


def statuses(*args: object, **kwargs: object) -> dict[str, str]:
    return {row.name: row.status for row in scorecard(*args, **kwargs)}  # type: ignore[arg-type]


def test_what_is_good_is_met() -> None:
    found = statuses([CLIP], [TRIAL], GOOD, paste_back_db=[41.0], failures={"no face": "portrait.no_face"})
    assert found.pop("stability: drift") == "not measured"
    assert set(found.values()) == {"met"}


def test_nothing_measured_is_never_met() -> None:
    assert set(statuses([], [], []).values()) == {"not measured"}


@pytest.mark.parametrize(
    ("flawed", "row"),
    [
        (replace(CLIP, lips=replace(LIPS, num_closed=18)), "lip sync: closures on p b m"),
        (replace(CLIP, lips=replace(LIPS, lag_ms=-55.0)), "lip sync: lag"),
        (replace(CLIP, lips=replace(LIPS, correlation=0.6)), "lip sync: opening on vowels"),
        (replace(CLIP, lips=replace(LIPS, silence_motion=0.2)), "silence: lips, against speech"),
        (replace(CLIP, likeness=(0.1, 0.1, 0.6)), "identity: distance from the portrait"),
        (replace(CLIP, sharpness=0.7), "sharpness: gradient energy against the portrait"),
        (replace(CLIP, pose_variation_deg=0.1), "pose variation ΔP"),
        (replace(CLIP, flicker=Flicker(2.0, 1.5)), "stability: flicker of still regions"),
    ],
)
def test_a_flaw_is_missed_and_nothing_else(flawed: ClipFigures, row: str) -> None:
    found = statuses([flawed], [TRIAL], GOOD)
    assert [name for name, status in found.items() if status == "missed"] == [row]


def test_bad_input_that_is_let_through_is_missed() -> None:
    found = statuses([], [], [], failures={"no face": "portrait.no_face", "face too small": None})
    assert found["failure inputs"] == "missed"


def test_figures_survive_being_written_down() -> None:
    assert ClipFigures.from_json(CLIP.to_json()) == CLIP
    without = replace(CLIP, lips=None)
    assert ClipFigures.from_json(without.to_json()) == without


def test_the_table_has_a_line_for_every_row() -> None:
    rows = scorecard([CLIP], [TRIAL], GOOD)
    assert len(as_table(rows).splitlines()) == len(rows) + 2


# ---- movement --------------------------------------------------------------------------------------------------------


def sighting(pose_T3: np.ndarray, gaze_T2: np.ndarray | None = None, distance_T: np.ndarray | None = None) -> Sighting:
    num = len(pose_T3)
    points_TL3 = np.tile(np.random.default_rng(2).uniform(100, 400, (468, 3)), (num, 1, 1))
    return Sighting(
        points_TL3,
        pose_T3,
        np.ones(num) if distance_T is None else distance_T,
        np.zeros((num, 2)) if gaze_T2 is None else gaze_T2,
        np.full(num, 0.3),
        np.zeros(num, bool),
        25.0,
    )


def test_pose_variation_is_the_mean_step_of_the_angles() -> None:
    pose_T3 = np.zeros((51, 3))
    pose_T3[:, 0] = np.arange(51) * 0.9
    assert pose_variation_deg(pose_T3) == pytest.approx(0.3)


def test_a_slow_swing_has_its_power_where_it_swings() -> None:
    times_T = np.arange(500) / 25
    found = motion_statistics(sighting(np.outer(6.0 * np.sin(2 * np.pi * 0.3 * times_T), (1.0, 0.5, 0.2))))
    assert found["yaw_std_deg"] == pytest.approx(6.0 / np.sqrt(2), rel=0.05)
    assert found["yaw_power_share_0.1-0.5hz"] > 0.98
    assert found["blinks_per_min"] == 0.0


def test_short_clips_say_nothing_about_movement() -> None:
    short = sighting(np.zeros((20, 3)))
    assert natural_rows([short]) == []
    with pytest.raises(ValueError, match="4 s"):
        motion_statistics(short)


# ---- trials ----------------------------------------------------------------------------------------------------------


def trial(gain: float) -> Sighting:
    """A face that does this much of what the trial asks for."""
    num = round((holds()[-1].end_s + 0.2) * 25)
    pose_T3, gaze_T2, distance_T = np.zeros((num, 3)), np.zeros((num, 2)), np.ones(num)
    for hold in holds():
        frames = slice(round(hold.start_s * 25), round(hold.end_s * 25) + 1)
        if hold.kind == "pose":
            pose_T3[frames] = gain * np.array(hold.value)
        elif hold.kind == "gaze":
            gaze_T2[frames] = gain * np.array(hold.value)
        elif hold.kind == "distance":
            distance_T[frames] = 1.0 + gain * (float(hold.value) - 1.0)  # type: ignore[arg-type]
    return sighting(pose_T3, gaze_T2, distance_T)


def test_a_face_that_does_what_is_asked_has_no_errors() -> None:
    errors = control_errors(trial(1.0))
    assert {name: len(values) for name, values in errors.items()} == {
        "yaw_deg": 4, "pitch_deg": 2, "roll_deg": 2, "gaze_yaw_deg": 2, "gaze_pitch_deg": 2, "distance": 2
    }  # fmt: skip
    assert max(abs(error) for values in errors.values() for error in values) < 1e-9


def test_a_face_that_turns_too_little_is_found_out() -> None:
    errors = control_errors(trial(0.7))
    assert errors["yaw_deg"][0] == pytest.approx(-4.5)
    assert errors["gaze_pitch_deg"] == pytest.approx([-3.0, 3.0])
    assert errors["distance"][0] == pytest.approx(0.86 / 0.8 - 1.0)


def test_a_rigid_face_leaks_nothing() -> None:
    found = disentanglement(trial(1.0), {"lips": 0.1, "corners": 0.1, "brows": 0.1, "lids": 0.1})
    assert found.expression_by_pose == 0.0
    assert found.pose_by_expression == 0.0


def test_the_trial_begins_at_rest_and_no_hold_overlaps_another() -> None:
    assert rest_frames(25.0).start < rest_frames(25.0).stop
    ends = [hold.end_s for hold in holds()]
    assert all(end < hold.start_s for end, hold in zip(ends, holds()[1:], strict=False))
