"""The barber: scalp hair, brows, stubble and lashes, grown strand by strand in numpy.

S strands, K points of a strand. Everything is drawn from one generator, so a seed gives the same hair again.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from generator.personas.studio.surface import Cylinder, Floats, Skin, tangential, unit, wobble


@dataclass(frozen=True)
class Strands:
    """One growth of hair: where the strands run, how thick they are, and which dye they take."""

    name: str
    dye: str
    points_SK3: Floats
    radii_SK: Floats


@dataclass(frozen=True)
class Cut:
    """A short cut, combed to one side.

    The hairline is drawn in an atlas of 1024 texels: how far from the middle column, and the row there.
    """

    hairline: tuple[tuple[float, float], ...]
    num_strands: int = 75_000
    side_length_m: float = 0.0045
    upper_side_length_m: float = 0.007
    top_length_m: float = 0.021
    to_the_left: float = 0.34
    forward: float = 0.42
    lift: float = 0.30
    quiff: float = 0.42
    clump: float = 0.55
    radius_m: float = 0.000042

    def depth_px(self, points_N3: Floats, cylinder: Cylinder) -> tuple[Floats, Floats]:
        """How far inside the hairline points lie, in atlas rows of 1024 (negative: bare skin), and their |column|."""
        at = cylinder.texels(points_N3, 1024)
        column = np.abs(at[:, 0] - 512)
        angle = (at[:, 0] - 512) / 512 * 2.0
        line = np.array(self.hairline)
        ragged = 2.0 * np.sin(angle * 37) + 3.0 * np.sin(angle * 13 + 1.0)
        return np.interp(column, line[:, 0], line[:, 1]) - at[:, 1] - ragged, column


def grow(
    skin: Skin,
    roots_S3: Floats,
    start_S3: Floats,
    end_S3: Floats,
    lengths_S: Floats,
    num_points: int,
    *,
    curl: float,
    seed: int,
    clearance_m: float,
    stand_off_m: float = 0.0,
) -> Floats:
    """Points_SK3 of strands that leave the skin along `start` and bend towards `end`, never through the skin."""
    start, end = unit(start_S3), unit(end_S3)
    step = (lengths_S / (num_points - 1))[:, None]
    sway = wobble(roots_S3, 260, seed) * curl
    here, points = roots_S3.copy(), [roots_S3]
    for k in range(1, num_points):
        t = k / (num_points - 1)
        bend = 1 - (1 - t) ** 1.6
        here = here + unit(start * (1 - t) ** 1.6 + end * bend + sway * t) * step
        here = skin.push_out(here, clearance_m + stand_off_m * min(1.0, 3 * t) * np.minimum(1, lengths_S / 0.02))
        points.append(here)
    return np.stack(points, 1)


def gather(points_SK3: Floats, lengths_S: Floats, strength: float, per_clump: int, rng: np.random.Generator) -> Floats:
    """Draw strands towards a leading strand near them, more so at the tips, as hair does."""
    roots = points_SK3[:, 0]
    leaders = rng.choice(len(roots), max(8, len(roots) // per_clump), replace=False)
    _, nearest = cKDTree(roots[leaders]).query(roots + rng.normal(0, 0.0012, roots.shape))
    leader = leaders[nearest]
    t = np.linspace(0, 1, points_SK3.shape[1]) ** 1.3
    ratio = np.minimum(lengths_S / lengths_S[leader], 1.15)[:, None, None]
    goal = roots[leader][:, None] + (points_SK3[leader] - roots[leader][:, None]) * ratio
    pull = strength * rng.uniform(0.5, 1.1, len(roots))[:, None, None] * t[None, :, None]
    return points_SK3 * (1 - pull) + goal * pull


def taper(num_strands: int, num_points: int, radius_m: float, tip: float, rng: np.random.Generator) -> Floats:
    """Radii_SK from `radius_m` at the root to `tip` of it at the end, some strands finer than others."""
    profile = radius_m * (1 - (1 - tip) * np.linspace(0, 1, num_points) ** 2)
    return profile[None] * rng.uniform(0.8, 1.15, (num_strands, 1))


def scalp_hair(
    skin: Skin, cylinder: Cylinder, crown_z: float, cut: Cut, rng: np.random.Generator, share: float = 1.0
) -> list[Strands]:
    """The cut itself, and the finer, sparser hairs in front of the hairline that keep it from looking like a wig."""
    centres = skin.centres_F3
    depth, column = cut.depth_px(centres, cylinder)
    above_nape = centres[:, 2] > crown_z - 0.28
    density = np.clip((depth + 4) / 26, 0, 1) ** 1.2 * above_nape
    count = int(cut.num_strands * share)
    roots, normals = skin.draw_roots(density, count, rng)
    depth, _ = cut.depth_px(roots, cylinder)
    top = np.clip((normals[:, 2] + 0.02) / 0.85, 0, 1) * np.clip((depth - 5) / 25, 0, 1)
    front = np.clip(-(roots[:, 1] - cylinder.axis_y) / 0.09, -1, 1)
    height = np.clip((roots[:, 2] - (crown_z - 0.10)) / 0.08, 0, 1)
    lengths = cut.side_length_m + cut.upper_side_length_m * height
    lengths = lengths + cut.top_length_m * top * (0.7 + 0.5 * np.clip(front, 0, 1))
    lengths = lengths * (1 + 0.16 * wobble(roots, 60, 5, 1)[:, 0]) * rng.uniform(0.8, 1.12, count)
    lengths = lengths * np.clip(0.45 + 0.55 * (depth + 3) / 28, 0.35, 1)
    ones = np.ones(count)
    down = np.stack([0 * ones, 0.45 * ones, -ones], 1)
    over = np.stack([cut.to_the_left * ones, 0.10 - cut.forward * front, 0.10 * ones], 1)
    flow = unit(tangential(down * (1 - top[:, None]) + over * top[:, None] * 1.3, normals))
    waves = wobble(roots, 38, 9) * 0.14 * (0.4 + top[:, None]) + wobble(roots, 130, 11) * 0.12
    start = normals * (cut.lift + cut.quiff * top * np.clip(front + 0.3, 0, 1))[:, None] + flow * 0.8 + waves
    end = flow + normals * (0.02 + 0.1 * top)[:, None] + waves * 1.2 + np.array([0, 0.25, 0]) * top[:, None]
    points = grow(skin, roots, start, end, lengths, 9, curl=0.07, seed=3, clearance_m=0.0006, stand_off_m=0.0025)
    points = gather(points, lengths, cut.clump, 28, rng)
    hair = Strands("hair", "hair", points, taper(count, 9, cut.radius_m, 0.25, rng))

    depth, column = cut.depth_px(centres, cylinder)
    edge = np.exp(-(((depth + 3) / 7) ** 2)) * (column < 240) * (centres[:, 2] > crown_z - 0.2)
    count = max(50, int(cut.num_strands * share) // 50)
    roots, normals = skin.draw_roots(edge, count, rng)
    _, column = cut.depth_px(roots, cylinder)
    combed = np.where((column > 200)[:, None], np.array([0, 0.6, -0.8]), np.array([0.5, 0.2, 0.9]))
    flow = unit(tangential(combed, normals)) + wobble(roots, 200, 4) * 0.3
    lengths = rng.uniform(0.003, 0.011, count)
    points = grow(
        skin, roots, normals * 0.5 + flow, flow + normals * 0.2, lengths, 7, curl=0.12, seed=1, clearance_m=0.0006
    )
    return [hair, Strands("baby hair", "hair", points, taper(count, 7, cut.radius_m * 0.5, 0.25, rng))]


def brows(skin: Skin, cylinder: Cylinder, density_AW: Floats, num_hairs: int, rng: np.random.Generator) -> Strands:
    """Hairs where the make-up's brows are dark; upwards near the nose, outwards and down at the temples."""
    roots, normals = skin.draw_roots(cylinder.sample(density_AW, skin.centres_F3), num_hairs, rng)
    outwards = np.sign(roots[:, 0])
    t = np.clip((np.abs(roots[:, 0]) - 0.012) / 0.032, 0, 1)
    combed = np.stack([outwards * (0.45 + 0.75 * t), np.zeros(num_hairs), 0.95 - 1.25 * t], 1)
    flow = unit(tangential(combed, normals)) + wobble(roots, 300, 2) * 0.16
    lengths = rng.uniform(0.0045, 0.0078, num_hairs) * (1 - 0.25 * t)
    end = flow + normals * 0.08 - np.array([0, 0, 0.15])
    points = grow(skin, roots, normals * 0.38 + flow, end, lengths, 7, curl=0.06, seed=1, clearance_m=0.00025)
    return Strands("brows", "brow", points, taper(num_hairs, 7, 0.000036, 0.2, rng))


def stubble(skin: Skin, cylinder: Cylinder, density_AW: Floats, num_hairs: int, rng: np.random.Generator) -> Strands:
    """A few days of beard."""
    roots, normals = skin.draw_roots(cylinder.sample(density_AW, skin.centres_F3), num_hairs, rng)
    combed = np.stack([roots[:, 0] * 3, np.full(num_hairs, -0.1), -np.ones(num_hairs)], 1)
    flow = unit(tangential(combed, normals)) + wobble(roots, 300, 8) * 0.35
    lengths = rng.uniform(0.0008, 0.0024, num_hairs)
    start, end = normals * 0.75 + flow * 0.8, flow + normals * 0.3
    points = grow(skin, roots, start, end, lengths, 4, curl=0.06, seed=1, clearance_m=0.0001)
    return Strands("stubble", "stubble", points, taper(num_hairs, 4, 0.00003, 0.5, rng))


def lashes(
    strip_V3: Floats, eye_centre_3: Floats, side: float, *, is_upper: bool, num_hairs: int, rng: np.random.Generator
) -> Strands:
    """Lashes from the lid's rim, which is the edge of the head model's lash strip that lies nearest the eyeball."""
    away = np.linalg.norm(strip_V3 - eye_centre_3, axis=1)
    edges = np.linspace(strip_V3[:, 0].min() - 1e-6, strip_V3[:, 0].max() + 1e-6, 14)
    column = np.digitize(strip_V3[:, 0], edges)
    rim = np.array(
        [
            strip_V3[inside[np.argmin(away[inside])]]
            for c in np.unique(column)
            for inside in [np.flatnonzero(column == c)]
        ]
    )
    at = np.sort(rng.uniform(0.04, 0.99, num_hairs))
    roots = np.stack([np.interp(at, np.linspace(0, 1, len(rim)), rim[:, k]) for k in range(3)], 1)
    outwards = unit(roots - eye_centre_3)
    across = (roots[:, 0] - eye_centre_3[0]) * side / 0.016
    fan, ones = side * across, np.ones(num_hairs)
    if is_upper:
        start = outwards * 0.9 + np.stack([fan * 0.35, -0.7 * ones, -0.15 * ones], 1)
        end = outwards * 0.3 + np.stack([fan * 0.55, -0.35 * ones, ones], 1)
        lengths = 0.0070 * (0.72 + 0.4 * np.clip(across, -0.6, 1)) * rng.uniform(0.75, 1.1, num_hairs)
    else:
        start = outwards * 0.9 + np.stack([fan * 0.3, -0.4 * ones, -0.3 * ones], 1)
        end = np.stack([fan * 0.5, -0.5 * ones, -0.55 * ones], 1)
        lengths = 0.0046 * (0.8 + 0.3 * np.clip(across, -0.6, 1)) * rng.uniform(0.6, 1.1, num_hairs)
    start = unit(start) + rng.normal(0, 0.12, start.shape)
    end = unit(end) + rng.normal(0, 0.15, end.shape)
    num_points = 8
    here, points = roots.copy(), [roots]
    for k in range(1, num_points):
        t = k / (num_points - 1)
        here = here + unit(unit(start) * (1 - t) + unit(end) * t) * (lengths / (num_points - 1))[:, None]
        points.append(here)
    radius = 0.000068 if is_upper else 0.000045
    return Strands("lashes", "lash", np.stack(points, 1), taper(num_hairs, num_points, radius, 0.15, rng))
