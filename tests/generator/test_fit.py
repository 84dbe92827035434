"""The fit: angles, recovery of known heads, and the field that brings landmarks to zero error."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from generator.actions import ACTION_INDEX
from generator.fit import angles_deg, fit_head, residual_field, rotation
from generator.head import Head, default_head
from generator.portrait import Portrait


@pytest.fixture(scope="module")
def head() -> Head:
    return default_head()


@settings(max_examples=60, deadline=None)
@given(st.floats(-60, 60), st.floats(-40, 40), st.floats(-60, 60))
def test_angles_and_rotation_are_inverse(yaw: float, pitch: float, roll: float) -> None:
    np.testing.assert_allclose(angles_deg(rotation(yaw, pitch, roll)), (yaw, pitch, roll), atol=1e-6)


def test_signs_of_the_angles() -> None:
    forward, right = np.array([0.0, 0, -1]), np.array([1.0, 0, 0])
    assert (rotation(10, 0, 0) @ forward)[0] > 0, "yaw > 0 looks to the picture's right"
    assert (rotation(0, 10, 0) @ forward)[1] < 0, "pitch > 0 lifts the chin"
    assert (rotation(0, 0, 10) @ right)[1] > 0, "roll > 0 is clockwise in the picture"


def _picture_of(head: Head, identity: np.ndarray, actions: np.ndarray, turn: np.ndarray) -> np.ndarray:
    camera = head.at_landmarks(head.vertices(identity, actions)) @ turn.T + np.array([0.02, -0.01, 1.1])
    return camera[:, :2] / camera[:, 2:] * 1500 + np.array([256.0, 256.0])


@pytest.mark.parametrize("pose", [(0, 0, 0), (20, -8, 5), (-35, 10, -12)])
def test_a_known_head_is_found_again(head: Head, pose: tuple[float, float, float]) -> None:
    rng = np.random.default_rng(7)
    actions = np.zeros(52)
    actions[ACTION_INDEX["jawOpen"]] = 0.5
    observed = _picture_of(head, rng.normal(0, 0.5, 40), actions, rotation(*pose))
    fit = fit_head(head, observed, (256, 256))
    assert fit.landmark_error < 0.004
    np.testing.assert_allclose(fit.yaw_pitch_roll_deg, pose, atol=4.0)
    assert fit.actions_A[ACTION_INDEX["jawOpen"]] > 0.25
    assert (fit.actions_A >= 0).all()
    assert (fit.actions_A <= 1).all()


def test_outliers_do_not_pull_the_fit_away(head: Head) -> None:
    observed = _picture_of(head, np.zeros(10), np.zeros(52), rotation(8, 0, 0))
    spoilt = observed.copy()
    spoilt[::23] += 80.0
    fit = fit_head(head, spoilt, (256, 256))
    np.testing.assert_allclose(fit.yaw_pitch_roll_deg, (8, 0, 0), atol=4.0)


def test_the_residual_brings_landmarks_to_where_they_were_seen(portrait: Portrait) -> None:
    head, fit = portrait.head, portrait.fit
    assert fit.landmark_error < 0.012
    vertices = fit.project(head.vertices(fit.identity_K, fit.actions_A))[:, :2] + residual_field(head, fit)
    error = np.linalg.norm(head.at_landmarks(vertices) - portrait.landmarks.points_L2, axis=1)
    assert np.median(error) < 0.004 * portrait.face_px
