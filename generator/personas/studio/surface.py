"""The drawing board: geometry that both the make-up and the hair need, in plain numpy.

World: metres, x towards the sitter's left, y away from the camera, z up. N points, V vertices, F triangles.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates
from scipy.spatial import cKDTree

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

HALF_ANGLE_DEG = 115.0


def unit(vectors: Floats) -> Floats:
    """Vectors of length one (zero stays zero)."""
    return vectors / (np.linalg.norm(vectors, axis=-1, keepdims=True) + 1e-12)


def tangential(vectors_N3: Floats, normals_N3: Floats) -> Floats:
    """What of each vector lies in the surface."""
    return vectors_N3 - (vectors_N3 * normals_N3).sum(-1, keepdims=True) * normals_N3


def wobble(points_N3: Floats, per_metre: float, seed: int, channels: int = 3) -> Floats:
    """Smooth noise_NC in space, about unit variance, three octaves from `per_metre` radians per metre up."""
    rng = np.random.default_rng(seed)
    out = np.zeros((len(points_N3), channels))
    for octave in range(3):
        waves = rng.normal(size=(10, 3)) * per_metre * 1.7**octave
        phases = rng.uniform(0, 2 * np.pi, (10, channels))
        for wave, phase in zip(waves, phases, strict=True):
            out += np.sin((points_N3 @ wave)[:, None] + phase) / np.sqrt(10) * 0.6**octave
    return out


@dataclass(frozen=True)
class Cylinder:
    """The texture atlas' geometry: a cylinder round the head; columns are angles, rows are heights.

    It suits a picture taken from the front, where it spends its texels evenly on what the camera sees.
    """

    axis_y: float
    bottom_z: float
    top_z: float

    def uv(self, points_N3: Floats) -> Floats:
        """Texture coordinates_N2 (u towards the sitter's left, v up), each 0..1 inside the atlas."""
        half = np.deg2rad(HALF_ANGLE_DEG)
        angle = np.arctan2(points_N3[:, 0], -(points_N3[:, 1] - self.axis_y))
        height = (points_N3[:, 2] - self.bottom_z) / (self.top_z - self.bottom_z)
        return np.stack([(angle + half) / (2 * half), height], 1)

    def texels(self, points_N3: Floats, size_px: int) -> Floats:
        """Position_N2 in an atlas picture of `size_px` squared, x right, y down."""
        uv = self.uv(points_N3)
        return np.stack([uv[:, 0] * size_px, (1 - uv[:, 1]) * size_px], 1)

    def sample(self, picture_AW: Floats, points_N3: Floats) -> Floats:
        """Values_N of a one-channel atlas picture at points of the surface."""
        at = self.texels(points_N3, len(picture_AW))
        return map_coordinates(picture_AW, [at[:, 1], at[:, 0]], order=1, mode="nearest")


class Skin:
    """The sitter's surface as the strands meet it: roots can be drawn on it, and nothing may grow inwards."""

    def __init__(self, vertices_V3: Floats, normals_V3: Floats, triangles_F3: Ints) -> None:
        self.vertices_V3, self.normals_V3, self.triangles_F3 = vertices_V3, normals_V3, triangles_F3
        self._near = cKDTree(vertices_V3)

    def draw_roots(self, density_F: Floats, count: int, rng: np.random.Generator) -> tuple[Floats, Floats]:
        """`count` points_N3 and normals_N3, spread in proportion to area times `density_F` of the triangle."""
        a, b, c = (self.vertices_V3[self.triangles_F3[:, k]] for k in range(3))
        weight = np.linalg.norm(np.cross(b - a, c - a), axis=1) * density_F
        corners = self.triangles_F3[rng.choice(len(weight), count, p=weight / weight.sum())]
        r1, r2 = np.sqrt(rng.random(count)), rng.random(count)
        mix = np.stack([1 - r1, r1 * (1 - r2), r1 * r2], 1)[..., None]
        return (self.vertices_V3[corners] * mix).sum(1), unit((self.normals_V3[corners] * mix).sum(1))

    @property
    def centres_F3(self) -> Floats:
        return self.vertices_V3[self.triangles_F3].mean(1)

    def push_out(self, points_N3: Floats, clearance_N: Floats | float) -> Floats:
        """Points moved along the nearest normal until they float `clearance_N` metres above the skin."""
        _, nearest = self._near.query(points_N3)
        height = ((points_N3 - self.vertices_V3[nearest]) * self.normals_V3[nearest]).sum(1)
        lift = np.clip(clearance_N - height, 0, None)
        return points_N3 + self.normals_V3[nearest] * lift[:, None]
