"""The contact printer: a z-buffer that says which triangle covers each pixel."""

from __future__ import annotations

import numba
import numpy as np


@numba.njit(cache=True)
def rasterise(
    points_V3: np.ndarray, triangles_F3: np.ndarray, height: int, width: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points as (x px, y px, depth) -> triangle_HW (-1 where empty), weights_HW3, depth_HW."""
    depth_HW = np.full((height, width), 1e9)
    triangle_HW = np.full((height, width), -1, np.int32)
    weights_HW3 = np.zeros((height, width, 3))
    for f in range(triangles_F3.shape[0]):
        x0, y0, z0 = points_V3[triangles_F3[f, 0]]
        x1, y1, z1 = points_V3[triangles_F3[f, 1]]
        x2, y2, z2 = points_V3[triangles_F3[f, 2]]
        area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)
        if abs(area) < 1e-9:
            continue
        first_x, last_x = max(0, int(np.floor(min(x0, x1, x2)))), min(width - 1, int(np.ceil(max(x0, x1, x2))))
        first_y, last_y = max(0, int(np.floor(min(y0, y1, y2)))), min(height - 1, int(np.ceil(max(y0, y1, y2))))
        for y in range(first_y, last_y + 1):
            for x in range(first_x, last_x + 1):
                w1 = ((x - x0) * (y2 - y0) - (x2 - x0) * (y - y0)) / area
                w2 = ((x1 - x0) * (y - y0) - (x - x0) * (y1 - y0)) / area
                w0 = 1 - w1 - w2
                if w0 < -1e-6 or w1 < -1e-6 or w2 < -1e-6:
                    continue
                z = w0 * z0 + w1 * z1 + w2 * z2
                if z < depth_HW[y, x]:
                    depth_HW[y, x] = z
                    triangle_HW[y, x] = f
                    weights_HW3[y, x, 0], weights_HW3[y, x, 1], weights_HW3[y, x, 2] = w0, w1, w2
    return triangle_HW, weights_HW3, depth_HW
