"""The glass eye maker: a painted eyeball with a sunken iris under a clear cornea."""

from __future__ import annotations

import cv2
import numpy as np

from generator.personas.studio.surface import Floats, Ints

COLUMNS = 96


def paint(size_px: int, iris: float, inner_rgb: Floats, outer_rgb: Floats, seed: int) -> Floats:
    """Linear RGB_HW3 of an eye from the front; `iris` is its radius as a fraction of the eyeball's.

    The iris has radial fibres, a lighter collarette, a dark limbus; the white is grey towards the upper lid, which
    shades it, and reddens with veins towards the corners.
    """
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:size_px, 0:size_px]
    x, y = (columns + 0.5) / size_px * 2 - 1, 1 - (rows + 0.5) / size_px * 2
    angle, q = np.arctan2(y, x), np.hypot(x, y) / iris

    def fibres(frequency: int) -> Floats:
        wave = rng.integers(frequency // 2, frequency * 2, 24)
        phase, weight = rng.uniform(0, 2 * np.pi, 24), rng.uniform(0.3, 1, 24) / np.sqrt(24)
        total: Floats = np.zeros_like(q)
        for k, p, w in zip(wave, phase, weight, strict=True):
            total += np.sin(k * angle + p + np.sin(q * 6 + p) * 0.8) * w
        return total

    texture = fibres(60) * 0.5 + fibres(24) * 0.4
    outward = np.clip((q - 0.45) / 0.4, 0, 1)[..., None]
    colour = (inner_rgb * (1 - outward) + outer_rgb * outward) * (1 + 0.42 * texture)[..., None]
    colour *= (1 - 0.35 * np.exp(-(((q - 0.62) / 0.05) ** 2)) * np.clip(fibres(9), 0, 1))[..., None]
    colour *= (1 - 0.72 * np.clip((q - 0.80) / 0.2, 0, 1) ** 1.5)[..., None]
    pupil = np.clip((q - 0.36) / 0.035, 0, 1)[..., None]
    colour = colour * pupil + 0.004 * (1 - pupil)

    white = np.array([0.50, 0.435, 0.40]) * np.ones((size_px, size_px, 1))
    corner = np.clip((np.abs(x) - 0.38) / 0.45, 0, 1)[..., None]
    white = white * (1 - corner * np.array([0.10, 0.27, 0.27]))
    white = white * (1 - _veins(size_px, iris, rng)[..., None] * np.array([0.12, 0.5, 0.5]))
    edge = np.clip((q - 0.93) / 0.13, 0, 1)[..., None]
    edge = edge * edge * (3 - 2 * edge)
    lid_shade = 1 - 0.45 * np.clip((y - 0.06) / 0.34, 0, 1) ** 1.2 - 0.12 * np.clip((-y - 0.2) / 0.2, 0, 1)
    return np.clip((colour * (1 - edge) + white * edge) * lid_shade[..., None], 0, 1)


def _veins(size_px: int, iris: float, rng: np.random.Generator) -> Floats:
    canvas = np.zeros((size_px, size_px), np.float32)
    for _ in range(46):
        start = rng.choice([0, np.pi]) + rng.normal(0, 0.45)
        radius = rng.uniform(0.8, 0.98)
        x, y, heading = np.cos(start) * radius, np.sin(start) * radius, start + np.pi + rng.normal(0, 0.3)
        path = []
        for _ in range(rng.integers(30, 90)):
            path.append(((x + 1) / 2 * size_px, (1 - y) / 2 * size_px))
            heading += rng.normal(0, 0.22)
            x, y = x + np.cos(heading) * 0.007, y + np.sin(heading) * 0.007
            if np.hypot(x, y) < iris * 1.12:
                break
        line, shade, width = np.array(path, np.int32), float(rng.uniform(0.25, 0.8)), int(rng.integers(1, 3))
        cv2.polylines(canvas, [line], False, shade, width, cv2.LINE_AA)
    return cv2.GaussianBlur(canvas, (0, 0), 1.1).astype(np.float64)


def _lathe(radius_R: Floats, forward_R: Floats) -> tuple[Floats, Ints]:
    turn = 2 * np.pi * np.arange(COLUMNS) / COLUMNS
    ring = np.stack([np.cos(turn), np.zeros(COLUMNS), np.sin(turn)], 1)
    vertices = radius_R[:, None, None] * ring[None] - forward_R[:, None, None] * np.array([0.0, 1.0, 0.0])
    faces = [
        (i * COLUMNS + k, i * COLUMNS + (k + 1) % COLUMNS, (i + 1) * COLUMNS + (k + 1) % COLUMNS, (i + 1) * COLUMNS + k)
        for i in range(len(radius_R) - 1)
        for k in range(COLUMNS)
    ]
    return vertices.reshape(-1, 3), np.array(faces)


def eyeball(radius_m: float, iris_m: float) -> tuple[Floats, Ints, Floats]:
    """Vertices_V3 about the centre, facing -y, faces, and texture coordinates_V2 for `paint`; the iris is sunk flat."""
    limbus = np.arcsin(iris_m / radius_m)
    polar = np.concatenate([np.linspace(0, limbus, 26), np.linspace(limbus, 0.62 * np.pi, 54)[1:]])
    radius = radius_m * np.sin(polar)
    forward = radius_m * np.cos(polar)
    is_iris = polar <= limbus
    forward[is_iris] = radius_m * np.cos(limbus) - 0.0006 * (1 - (radius[is_iris] / iris_m) ** 2)
    vertices, faces = _lathe(radius, forward)
    return vertices, faces, vertices[:, [0, 2]] / radius_m / 2 + 0.5


def cornea(radius_m: float, iris_m: float) -> tuple[Floats, Ints]:
    """The wet shell over the eyeball, bulging over the iris; it catches the lights."""
    polar = np.linspace(0, 0.6 * np.pi, 70)
    reach = np.arcsin(iris_m / radius_m) * 1.18
    bulge = 0.0011 * radius_m / 0.0155 * np.clip(1 - (polar / reach) ** 2, 0, None) ** 1.5
    shell = radius_m * 1.004 + bulge
    return _lathe(shell * np.sin(polar), shell * np.cos(polar))
