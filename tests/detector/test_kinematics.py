"""The measurements of movement see a face that moves against its head, and not a camera that moves before it."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from detector.face import FaceBox
from detector.kinematics import NUM_MEASURES, REGIONS, Kinematics
from tests.detector.drawing import draw_face

BOX = FaceBox(256.0, 260.0, 230.0, 1.0, ())
_MOUTH, _BROWS, _NOSE = REGIONS.index("mouth"), REGIONS.index("brows"), REGIONS.index("nose")
_UNLIKE_GRAIN = 5 * len(REGIONS)


def measured(before_HWC: np.ndarray, after_HWC: np.ndarray) -> np.ndarray:
    kinematics = Kinematics()
    return kinematics.measure(kinematics.look(before_HWC, BOX), kinematics.look(after_HWC, BOX))


def shifted(picture_HWC: np.ndarray, x: float, y: float) -> np.ndarray:
    height, width = picture_HWC.shape[:2]
    matrix = np.array([[1, 0, x], [0, 1, y]], np.float32)
    return cv2.warpAffine(picture_HWC, matrix, (width, height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)


def with_open_mouth(picture_HWC: np.ndarray) -> np.ndarray:
    opened_HWC = picture_HWC.copy()
    cv2.ellipse(opened_HWC, (256, 335), (30, 20), 0, 0, 360, (60, 15, 15), -1)
    return opened_HWC


def test_nothing_moves_in_a_still() -> None:
    picture_HWC = draw_face(3)
    still = measured(picture_HWC, picture_HWC)
    assert still.shape == (NUM_MEASURES,)
    assert still[: len(REGIONS)].max() < -3.5
    assert still[_UNLIKE_GRAIN : _UNLIKE_GRAIN + len(REGIONS)].max() < -2.9


def test_a_camera_explains_what_it_moves() -> None:
    picture_HWC = draw_face(3)
    panned = measured(picture_HWC, shifted(picture_HWC, 5.0, 2.0))
    spoken = measured(picture_HWC, with_open_mouth(picture_HWC))
    assert panned[-6] > spoken[-6], "the shift of the camera is told"
    assert panned[_MOUTH] < spoken[_MOUTH], "no part of the face moves against it"
    assert panned[_UNLIKE_GRAIN + _MOUTH] < spoken[_UNLIKE_GRAIN + _MOUTH]


def test_a_mouth_that_opens_is_seen_where_it_is() -> None:
    picture_HWC = draw_face(3)
    spoken = measured(picture_HWC, with_open_mouth(picture_HWC))
    unlike = spoken[_UNLIKE_GRAIN : _UNLIKE_GRAIN + len(REGIONS)]
    assert unlike[_MOUTH] > unlike[_BROWS] + 0.5
    assert unlike[_MOUTH] > unlike[_NOSE] + 0.5


def test_new_grain_in_every_frame_is_told_from_grain_that_travels() -> None:
    rng = np.random.default_rng(1)
    picture_HWC = draw_face(3)
    grain_HWC = rng.normal(0, 6, picture_HWC.shape)
    noisy = [np.clip(picture_HWC + each, 0, 255).astype(np.uint8) for each in (grain_HWC, grain_HWC[::-1])]
    travelling = measured(noisy[0], shifted(noisy[0], 4.0, 0.0))
    fresh = measured(noisy[0], shifted(noisy[1], 4.0, 0.0))
    nose = _UNLIKE_GRAIN + _NOSE
    assert fresh[nose] > travelling[nose] + 0.3


@pytest.mark.parametrize("box", [FaceBox(10.0, 10.0, 200.0, 1.0, ()), FaceBox(500.0, 300.0, 480.0, 1.0, ())])
def test_faces_at_the_edge_are_measured_within_the_frame(box: FaceBox) -> None:
    kinematics, picture_HWC = Kinematics(), draw_face(3)
    looks = [kinematics.look(each, box) for each in (picture_HWC, shifted(picture_HWC, 2.0, 0.0))]
    assert np.isfinite(kinematics.measure(*looks)).all()
    assert looks[0].weights_RN.sum(axis=1) == pytest.approx(1.0, abs=1e-4)
