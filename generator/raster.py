"""Rasteriser: triangles in, per-pixel maps out. Small z-buffered kernels in numba, compiled once and cached on disk.

Coordinates are continuous pixels: the centre of the pixel in column 0 lies at x = 0.5, a picture of width W spans 0..W.
z grows away from the camera; the nearest surface wins. Interpolation is linear in the picture: the triangles here are
a few pixels wide, where perspective-correct interpolation makes no visible difference.
"""

# V vertex  F triangle  H,W pixel

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar, cast

import numba
import numpy as np
from jaxtyping import Float32, Int32
from numpy import ndarray

FAR: Final = np.float32(1e9)
_Kernel = TypeVar("_Kernel", bound=Callable[..., Any])


def _compiled(kernel: _Kernel) -> _Kernel:
    return cast(_Kernel, numba.njit(cache=True, fastmath=True, nogil=True)(kernel))


@_compiled
def _paint(
    points: ndarray, faces: ndarray, values: ndarray, depth: ndarray, out: ndarray, x_shift: Any, y_shift: Any
) -> None:
    """Interpolate `values` (V, C) over the triangles into `out` (H, W, C) where they are nearer than `depth`."""
    height, width = depth.shape
    num_channels = values.shape[1]
    eps = np.float32(-1e-5)
    one = np.float32(1.0)
    for f in range(faces.shape[0]):
        a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
        x0, y0 = points[a, 0] - x_shift, points[a, 1] - y_shift
        x1, y1 = points[b, 0] - x_shift, points[b, 1] - y_shift
        x2, y2 = points[c, 0] - x_shift, points[c, 1] - y_shift
        area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)
        if abs(area) < 1e-9:
            continue
        left = max(0, int(np.ceil(min(x0, x1, x2) - 0.5)))
        right = min(width - 1, int(np.floor(max(x0, x1, x2) - 0.5)))
        top = max(0, int(np.ceil(min(y0, y1, y2) - 0.5)))
        bottom = min(height - 1, int(np.floor(max(y0, y1, y2) - 0.5)))
        if left > right or top > bottom:
            continue
        inverse = one / area
        dx1, dx2 = (y2 - y0) * inverse, -(y1 - y0) * inverse
        dy1, dy2 = -(x2 - x0) * inverse, (x1 - x0) * inverse
        z0, z1, z2 = points[a, 2], points[b, 2], points[c, 2]
        for y in range(top, bottom + 1):
            py = y + np.float32(0.5) - y0
            for x in range(left, right + 1):
                px = x + np.float32(0.5) - x0
                w1 = px * dx1 + py * dy1
                w2 = px * dx2 + py * dy2
                w0 = one - w1 - w2
                if w0 < eps or w1 < eps or w2 < eps:
                    continue
                z = w0 * z0 + w1 * z1 + w2 * z2
                if z < depth[y, x]:
                    depth[y, x] = z
                    for k in range(num_channels):
                        out[y, x, k] = w0 * values[a, k] + w1 * values[b, k] + w2 * values[c, k]


@_compiled
def _identify(points: ndarray, faces: ndarray, depth: ndarray, face: ndarray, weight: ndarray) -> None:
    height, width = depth.shape
    for f in range(faces.shape[0]):
        a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
        x0, y0 = points[a, 0], points[a, 1]
        x1, y1 = points[b, 0], points[b, 1]
        x2, y2 = points[c, 0], points[c, 1]
        area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)
        if abs(area) < 1e-9:
            continue
        left = max(0, int(np.ceil(min(x0, x1, x2) - 0.5)))
        right = min(width - 1, int(np.floor(max(x0, x1, x2) - 0.5)))
        top = max(0, int(np.ceil(min(y0, y1, y2) - 0.5)))
        bottom = min(height - 1, int(np.floor(max(y0, y1, y2) - 0.5)))
        for y in range(top, bottom + 1):
            for x in range(left, right + 1):
                px, py = x + 0.5 - x0, y + 0.5 - y0
                w1 = (px * (y2 - y0) - (x2 - x0) * py) / area
                w2 = ((x1 - x0) * py - px * (y1 - y0)) / area
                w0 = 1.0 - w1 - w2
                if w0 < -1e-5 or w1 < -1e-5 or w2 < -1e-5:
                    continue
                z = w0 * points[a, 2] + w1 * points[b, 2] + w2 * points[c, 2]
                if z < depth[y, x]:
                    depth[y, x] = z
                    face[y, x] = f
                    weight[y, x, 0] = w0
                    weight[y, x, 1] = w1
                    weight[y, x, 2] = w2


def paint(
    points_V3: Float32[ndarray, "v 3"],
    faces_F3: Int32[ndarray, "f 3"],
    values_VC: Float32[ndarray, "v c"],
    depth_HW: Float32[ndarray, "h w"],
    out_HWC: Float32[ndarray, "h w c"],
    *,
    origin_xy: tuple[float, float] = (0.0, 0.0),
) -> None:
    """Draw triangles with interpolated vertex values into `out_HWC`, where nearer than `depth_HW`; both are updated.

    Args:
        points_V3: x, y in pixels, z away from the camera.
        values_VC: what to interpolate, for example source coordinates (a backward flow) or colours.
        depth_HW: start with `FAR`, or with an earlier layer's depth.
        origin_xy: pixel position of the maps' top left corner, to draw a window of a larger picture.
    """
    _paint(points_V3, faces_F3, values_VC, depth_HW, out_HWC, np.float32(origin_xy[0]), np.float32(origin_xy[1]))


def identify(
    points_V3: Float32[ndarray, "v 3"], faces_F3: Int32[ndarray, "f 3"], height: int, width: int
) -> tuple[Float32[ndarray, "h w"], Int32[ndarray, "h w"], Float32[ndarray, "h w 3"]]:
    """Which triangle every pixel sees: (depth, index of the triangle or −1, barycentric weights)."""
    depth = np.full((height, width), FAR, np.float32)
    face = np.full((height, width), -1, np.int32)
    weight = np.zeros((height, width, 3), np.float32)
    _identify(points_V3, faces_F3, depth, face, weight)
    return depth, face, weight


def vertex_normals(points_V3: ndarray, faces_F3: ndarray) -> Float32[ndarray, "v 3"]:
    """Unit normals, each the mean of the normals of the triangles around a vertex weighted by their area."""
    a, b, c = (points_V3[faces_F3[:, k]] for k in range(3))
    face_normal = np.cross(b - a, c - a)
    normal = np.zeros(points_V3.shape, np.float64)
    for k in range(3):
        np.add.at(normal, faces_F3[:, k], face_normal)
    return (normal / (np.linalg.norm(normal, axis=1, keepdims=True) + 1e-12)).astype(np.float32)
