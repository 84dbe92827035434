"""The tailor: a crew-neck jersey cut from the sitter's own body."""

from __future__ import annotations

import numpy as np
from mathutils import Vector
from mathutils.bvhtree import BVHTree
from scipy.ndimage import gaussian_filter1d
from scipy.spatial import cKDTree

from generator.personas.studio.surface import Floats, Ints, Skin, unit, wobble

NUM_AROUND = 360
# The rib's cross-section: (metres down from the neckline, metres off the skin).
RIB = (
    (-0.0005, 0.001), (0.0, 0.0045), (0.0015, 0.0072), (0.005, 0.0088), (0.010, 0.0094),
    (0.015, 0.0094), (0.019, 0.0088), (0.0215, 0.0074), (0.0225, 0.0045),
)  # fmt: skip


class Neckline:
    """A plane through the neck, low in front and high behind."""

    def __init__(self, chin_3: Floats, drop_m: float, slope: float) -> None:
        self.front_z = float(chin_3[2] - drop_m)
        self._slope, self._y = slope, float(chin_3[1] + 0.03)

    def height(self, points_N3: Floats) -> Floats:
        return self.front_z + self._slope * (points_N3[:, 1] - self._y)


def _round(values: Floats, width: float) -> Floats:
    return gaussian_filter1d(values, width, axis=0, mode="wrap")


def collar(skin: Skin, neckline: Neckline) -> tuple[Floats, Ints, Floats]:
    """The ribbed band: vertices_V3, faces, texture coordinates_V2 (u counts the ribs)."""
    tree = BVHTree.FromPolygons(
        [tuple(v) for v in skin.vertices_V3], [tuple(int(i) for i in t) for t in skin.triangles_F3]
    )
    ring = []
    for turn in 2 * np.pi * np.arange(NUM_AROUND) / NUM_AROUND:
        outward = Vector((np.sin(turn), -np.cos(turn), 0.0))
        z, at = neckline.front_z, None
        for _ in range(14):
            hit = tree.ray_cast(Vector((0, -0.055, z)) + outward * 0.35, -outward)[0]
            if hit is None:
                z -= 0.005
                continue
            at = np.array(hit)
            z = 0.5 * z + 0.5 * float(neckline.height(at[None])[0])
        if at is None:
            raise ValueError("the neckline misses the body; lower the collar in the recipe")
        ring.append(at)
    line = _round(np.array(ring), 7)
    near = cKDTree(skin.vertices_V3)
    normal = unit(_round(skin.normals_V3[near.query(line)[1]], 9))
    along = unit(np.roll(line, -1, 0) - np.roll(line, 1, 0))
    down = unit(np.cross(along, normal))
    down = np.where(down[:, 2:] > 0, -down, down)
    rows = []
    for drop, off in RIB:
        row = line + down * drop
        _, nearest = near.query(row, k=6)
        base = skin.vertices_V3[nearest].mean(1)
        out = unit(_round(skin.normals_V3[nearest].mean(1), 5))
        row = row + out * (off - ((row - base) * out).sum(1))[:, None]
        rows.append(_round(row, 3))
    n = NUM_AROUND
    faces = [
        (i * n + k, i * n + (k + 1) % n, (i + 1) * n + (k + 1) % n, (i + 1) * n + k)
        for i in range(len(RIB) - 1)
        for k in range(n)
    ]
    uv = [[k / n * 150, i / (len(RIB) - 1)] for i in range(len(RIB)) for k in range(n)]
    return np.concatenate(rows), np.array(faces), np.array(uv)


def jersey(body_V3: Floats, normals_V3: Floats, neckline: Neckline) -> Floats:
    """Where the cloth over each body vertex hangs: a few millimetres off, not quite evenly."""
    sag = np.clip((neckline.front_z - 0.03 - body_V3[:, 2]) / 0.1, 0, 1)
    folds = wobble(body_V3 * (0.45, 0.8, 1.5), 42, 33, 1)[:, 0] * sag
    off = 0.0070 + 0.0015 * wobble(body_V3, 30, 21, 1)[:, 0] + 0.002 * sag + 0.0022 * folds
    return body_V3 + normals_V3 * off[:, None]
