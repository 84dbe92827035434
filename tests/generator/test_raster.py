"""The rasteriser: coverage, interpolation, depth and windows."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from generator.raster import FAR, identify, paint, vertex_normals

SQUARE = np.array([[0, 0, 1], [8, 0, 1], [0, 8, 1], [8, 8, 1]], np.float32)
FACES = np.array([[0, 1, 2], [1, 3, 2]], np.int32)


def _maps(height: int, width: int, channels: int) -> tuple[np.ndarray, np.ndarray]:
    return np.full((height, width), FAR, np.float32), np.full((height, width, channels), -1, np.float32)


def test_two_triangles_cover_a_square_without_gap_and_reproduce_positions() -> None:
    depth, out = _maps(8, 8, 2)
    paint(SQUARE, FACES, SQUARE[:, :2].copy(), depth, out)
    assert (depth < FAR).all()
    y, x = np.mgrid[:8, :8] + 0.5
    np.testing.assert_allclose(out[..., 0], x, atol=1e-4)
    np.testing.assert_allclose(out[..., 1], y, atol=1e-4)


def test_the_nearest_surface_wins_in_either_order() -> None:
    near = SQUARE * np.array([0.5, 0.5, 1], np.float32) - np.array([0, 0, 0.5], np.float32)
    points = np.concatenate([SQUARE, near])
    values = np.repeat([[1.0], [2.0]], 4, axis=0).astype(np.float32)
    for faces in (np.concatenate([FACES, FACES + 4]), np.concatenate([FACES + 4, FACES])):
        depth, out = _maps(8, 8, 1)
        paint(points, faces.astype(np.int32), values, depth, out)
        assert (out[:4, :4] == 2).all()
        assert (out[5:, 5:] == 1).all()


def test_a_window_shows_the_same_as_the_whole_picture() -> None:
    depth, out = _maps(8, 8, 2)
    paint(SQUARE, FACES, SQUARE[:, :2].copy(), depth, out)
    depth_window, window = _maps(3, 4, 2)
    paint(SQUARE, FACES, SQUARE[:, :2].copy(), depth_window, window, origin_xy=(2.0, 4.0))
    np.testing.assert_allclose(window, out[4:7, 2:6], atol=1e-5)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(-30, 40, width=32), min_size=9, max_size=9))
def test_any_triangle_stays_inside_the_maps_and_weights_sum_to_one(numbers: list[float]) -> None:
    points = np.array(numbers, np.float32).reshape(3, 3)
    _, face, weight = identify(points, np.array([[0, 1, 2]], np.int32), 12, 10)
    hit = face >= 0
    np.testing.assert_allclose(weight[hit].sum(-1), 1, atol=1e-3)
    assert (weight[hit] > -1e-3).all()


def test_normals_of_a_plane_point_along_its_axis() -> None:
    normals = vertex_normals(SQUARE.astype(np.float64), FACES)
    np.testing.assert_allclose(np.abs(normals), np.tile([0, 0, 1], (4, 1)), atol=1e-6)
