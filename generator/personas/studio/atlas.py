"""The casting room's wall: photographs of synthetic faces unwrapped onto the sitter, their shading divided out.

A atlas rows, W columns.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from scipy.interpolate import RBFInterpolator

from generator.personas.studio.fit import PhotoFit
from generator.personas.studio.raster import rasterise
from generator.personas.studio.skin import Sheet, to_linear
from generator.personas.studio.surface import Cylinder, Floats, Ints


@dataclass(frozen=True)
class AtlasMap:
    """Which triangle of the sitter lies under each texel."""

    triangle_AW: Ints
    weights_AW3: Floats
    triangles_F3: Ints

    def spread(self, values_VC: Floats) -> Floats:
        """Interpolate per-vertex values over the atlas (zero where nothing lies)."""
        corners = self.triangles_F3[np.maximum(self.triangle_AW, 0)]
        out = sum(values_VC[corners[..., k]] * self.weights_AW3[..., k, None] for k in range(3))
        return np.where(self.triangle_AW[..., None] >= 0, out, 0.0)


def map_atlas(vertices_V3: Floats, triangles_F3: Ints, cylinder: Cylinder, size_px: int) -> AtlasMap:
    """Raster the sitter's surface into the atlas; the outermost surface wins."""
    uv = cylinder.uv(vertices_V3)
    radius = np.hypot(vertices_V3[:, 0], vertices_V3[:, 1] - cylinder.axis_y)
    near = (np.ptp(uv[triangles_F3, 0], axis=1) < 0.3) & (uv[triangles_F3, 1].max(1) > -0.1)
    kept = triangles_F3[near]
    points = np.stack([uv[:, 0] * size_px, (1 - uv[:, 1]) * size_px, -radius], 1)
    triangle, weights, _ = rasterise(points, kept, size_px, size_px)
    return AtlasMap(triangle, weights, kept)


def unwrap(fit: PhotoFit, bgr_HW3: np.ndarray, head_triangles_F3: Ints, atlas: AtlasMap) -> Sheet:
    """Carry one photograph onto the sitter; landmarks are met exactly through a smooth residual."""
    residual = RBFInterpolator(
        fit.predicted_L2, fit.observed_L2 - fit.predicted_L2, kernel="thin_plate_spline", smoothing=1.0, neighbors=60
    )
    used = np.unique(head_triangles_F3)
    points = fit.projected_V3.copy()
    points[used, :2] += residual(points[used, :2])
    height, width = bgr_HW3.shape[:2]
    _, _, depth_HW = rasterise(points, head_triangles_F3, height, width)
    seen = atlas.spread(points)
    normal = atlas.spread(fit.normals_V3)
    x, y = seen[..., 0].astype(np.float32), seen[..., 1].astype(np.float32)
    photo = to_linear(bgr_HW3[:, :, ::-1].astype(np.float64) / 255)
    rgb = cv2.remap(photo.astype(np.float32), x, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT).astype(np.float64)
    columns = np.clip(np.round(x), 0, width - 1).astype(int)
    rows = np.clip(np.round(y), 0, height - 1).astype(int)
    hidden = seen[..., 2] > depth_HW[rows, columns] + 0.006
    facing = np.clip((-normal[..., 2] - 0.15) / 0.35, 0, 1)
    inside = (x > 2) & (y > 2) & (x < width - 3) & (y < height - 3) & (atlas.triangle_AW >= 0)
    trust = facing * ~hidden * inside
    trust = np.minimum(trust, cv2.GaussianBlur(cv2.erode(trust, np.ones((5, 5))), (0, 0), 4))
    rgb = np.clip(rgb, 1e-4, 1)
    return Sheet(delight(rgb, normal, trust), trust)


def _harmonics(normal: Floats) -> Floats:
    x, y, z = normal[..., 0], normal[..., 1], normal[..., 2]
    return np.stack([np.ones_like(x), x, y, z, x * y, y * z, z * x, x * x - y * y, 3 * z * z - 1], -1)


def delight(rgb_AW3: Floats, normal_AW3: Floats, trust_AW: Floats) -> Floats:
    """Divide by the shading that second-order harmonics of the normal explain, channel by channel (robust, in logs)."""
    unit = normal_AW3 / (np.linalg.norm(normal_AW3, axis=-1, keepdims=True) + 1e-9)
    basis = _harmonics(unit)
    sample = np.flatnonzero(trust_AW.ravel() > 0.3)
    sample = sample[:: max(1, len(sample) // 20000)]
    design = basis.reshape(-1, 9)[sample]
    out = np.empty_like(rgb_AW3)
    ridge = np.diag([0.0] + [len(sample) * 2e-3] * 8)
    for channel in range(3):
        log = np.log(rgb_AW3[..., channel]).ravel()[sample]
        weight = trust_AW.ravel()[sample].copy()
        start = weight.copy()
        for _ in range(8):
            solution = np.linalg.solve(design.T @ (design * weight[:, None]) + ridge, design.T @ (weight * log))
            error = log - design @ solution
            # brows, nostrils, stubble and lips lie far below the skin's shading and must not steer it
            weight = start / (1 + (np.where(error < 0, error * 1.6, error) / 0.15) ** 2)
        shading = basis @ solution - design.mean(0) @ solution
        out[..., channel] = rgb_AW3[..., channel] / np.exp(np.clip(shading, -0.9, 0.6))
    return out
