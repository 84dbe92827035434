"""Faces are found where they are, followed, and cropped squarely even at the edge of the frame."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from detector.face import CROP_PER_BOX, FaceBox, crop_face
from detector.observation import Observer, pair_starts
from tests.detector.drawing import draw_face


def test_a_drawn_face_is_found_in_its_place(observer: Observer) -> None:
    [face] = observer.finder.find(draw_face(3))
    assert abs(face.centre_x - 256) < 30
    assert abs(face.centre_y - 280) < 40
    assert 180 < face.side_px < 260


def test_place_and_size_follow_the_frame(observer: Observer) -> None:
    wide_HWC = np.full((400, 900, 3), 90, np.uint8)
    wide_HWC[50:350, 560:860] = draw_face(3, 300)
    [face] = observer.finder.find(wide_HWC)
    assert abs(face.centre_x - (560 + 150)) < 20
    assert abs(face.centre_y - (50 + 164)) < 25
    assert 100 < face.side_px < 160


def test_nothing_is_found_in_noise(observer: Observer, rng: np.random.Generator) -> None:
    assert observer.finder.find(rng.integers(0, 255, (300, 400, 3), np.uint8)) == []
    assert observer.observe(np.zeros((20, 128, 128, 3), np.uint8), 25.0) is None


def test_two_faces_are_counted_and_the_larger_is_followed(observer: Observer) -> None:
    frame_HWC = np.full((512, 900, 3), 120, np.uint8)
    frame_HWC[:, :512] = draw_face(1)
    frame_HWC[150:450, 590:890] = draw_face(2, 300)
    boxes, num_faces = observer.finder.track([frame_HWC] * 3)
    assert num_faces == 2
    assert all(box is not None and box.centre_x < 512 for box in boxes)


def test_crop_is_square_and_keeps_its_own_pixels() -> None:
    frame_HWC = np.arange(100 * 80 * 3, dtype=np.uint32).astype(np.uint8).reshape(100, 80, 3)
    box = FaceBox(5.0, 95.0, 40.0, 1.0, ())
    crop_HWC = crop_face(frame_HWC, box)
    side = round(40 * CROP_PER_BOX)
    assert crop_HWC.shape == (side, side, 3)
    assert crop_face(frame_HWC, box, 32).shape == (32, 32, 3)


@pytest.mark.parametrize(("num_frames", "num_pairs"), [(2, 8), (3, 8), (16, 8), (17, 4), (250, 8)])
def test_pairs_are_disjoint_and_spread_over_the_clip(num_frames: int, num_pairs: int) -> None:
    starts = pair_starts(num_frames, num_pairs)
    assert starts[0] == 0
    assert starts[-1] == num_frames - 2 or len(starts) == 1
    assert all(b - a >= 2 for a, b in itertools.pairwise(starts))


def test_an_observation_has_two_frames_per_pair(observer: Observer) -> None:
    observation = observer.observe(np.stack([draw_face(4)] * 10), 25.0, num_pairs=2)
    assert observation is not None
    assert observation.frame_indices == (0, 1, 8, 9)
    assert observation.cells_TCGG.shape[0] == 4
    assert np.isfinite(observation.cells_TCGG).all()
    assert observation.num_faces == 1


def test_pairs_of_faster_clips_lie_as_far_apart_in_time(observer: Observer) -> None:
    frames_THWC = np.stack([draw_face(4)] * 12)
    seen = [observer.observe(frames_THWC, rate_hz, num_pairs=1) for rate_hz in (12.0, 25.0, 50.0, 100.0)]
    assert [one.frame_indices for one in seen if one is not None] == [(0, 1), (0, 1), (0, 2), (0, 4)]
