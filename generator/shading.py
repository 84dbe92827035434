"""Shading: how an expression changes the light on a face: cheeks that rise catch it, folds and furrows lose it.

Skin is taken as matt and lit by one soft light. Direction and strength of the light come from the photo itself (its
brightness over the fitted head's normals); per frame the normals of the moved surface say how much lighter or darker
each place becomes than the photo shows it. Only the expression counts: the light turns with the head.
"""

# V vertex of the sheet  F triangle  L lit vertex

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import cv2
import numba
import numpy as np
from jaxtyping import Float32, Int32
from numpy import ndarray

from generator.head import NUM_LIP_COLUMNS
from generator.sheet import Sheet

_STRENGTH: Final = 1.25  # the surface is coarser than skin: its folds are shallower
_LARGEST: Final = 0.22
_DARKEST: Final = 0.25
_STEEPEST: Final = 0.9
_USUAL_SLOPE: Final = np.array([0.0, -0.35, -0.45], np.float32)  # from above (y is down) and in front (z is away)
_PRIOR: Final = 0.02
_SKIN_LOOPS: Final = 4  # of the rings around the mouth, counted from outside; the others are lips
_MOVED_M: Final = 0.0004
_NUM_TRIMMED_FITS: Final = 3


@dataclass(frozen=True, eq=False)
class Shading:
    """What one portrait needs to shade its expressions.

    Attributes:
        faces_F3: triangles near the face.
        weight_V: 0..1, where shading may change: on skin that facial actions move, not on eyes, lips and hair.
        slope_3: brightness per component of the normal, relative to the mean.
        rest_V: brightness at rest.
    """

    faces_F3: Int32[ndarray, "f 3"]
    weight_V: Float32[ndarray, " v"]
    slope_3: Float32[ndarray, " 3"]
    rest_V: Float32[ndarray, " v"]

    def ratio(self, shaped_V3: Float32[ndarray, "v 3"]) -> Float32[ndarray, " v"]:
        """By what to multiply the photo's brightness at each vertex, near 1."""
        lit = np.empty(len(shaped_V3), np.float32)
        _brightness(shaped_V3, self.faces_F3, self.slope_3, lit)
        change = np.clip((lit / self.rest_V - 1) * np.float32(_STRENGTH), -_LARGEST, _LARGEST)
        return 1 + change * self.weight_V


def build_shading(
    sheet: Sheet, image_SS3: ndarray, oval_N2: ndarray, eye_openings_SS: Float32[ndarray, "s s"]
) -> Shading:
    """Prepare a portrait's skin for shading.

    Args:
        oval_N2: outline of the face in pixels of the stage.
        eye_openings_SS: 0..1, both eyes.
    """
    size = sheet.size_px
    inside: ndarray = np.zeros((size, size), np.float32)
    cv2.fillPoly(inside, [np.round(oval_N2).astype(np.int32)], 1.0)
    soft_px = 0.02 * size
    inside = cv2.GaussianBlur(cv2.erode(inside, np.ones((3, 3)), iterations=round(soft_px)), (0, 0), soft_px)
    inside = inside * (1 - np.clip(3 * cv2.GaussianBlur(eye_openings_SS, (0, 0), 0.012 * size), 0, 1))
    column, row = np.clip(sheet.rest_pixels_V2.astype(int), 0, size - 1).T
    moved_m = np.abs(sheet.fields_AV3).sum(2).max(0)
    weight = inside[row, column] * np.clip(moved_m / _MOVED_M - 0.5, 0, 1)
    weight[sheet.mouth_start + _SKIN_LOOPS * NUM_LIP_COLUMNS :] = 0.0
    touched = weight > 0.01
    faces = np.ascontiguousarray(sheet.faces_F3[touched[sheet.faces_F3].any(1)])

    normal = np.empty_like(sheet.rest_V3)
    _normals(sheet.rest_V3, faces, normal)
    luma = cv2.GaussianBlur(image_SS3.astype(np.float32).mean(-1), (0, 0), 0.01 * size)[row, column]
    slope = light_slope(normal[weight > 0.5], luma[weight > 0.5])
    rest = np.empty(len(weight), np.float32)
    _brightness(sheet.rest_V3, faces, slope, rest)
    return Shading(faces, weight.astype(np.float32), slope, rest)


def light_slope(normal_L3: ndarray, luma_L: ndarray) -> Float32[ndarray, " 3"]:
    """Slope of relative brightness over the normal: what the photo shows, held near light from above in front."""
    if len(luma_L) < 12:
        return _USUAL_SLOPE
    keep = np.ones(len(luma_L), bool)
    slope = _USUAL_SLOPE.astype(np.float64)
    for _ in range(_NUM_TRIMMED_FITS):  # brows, beards and highlights are not light
        mean = max(float(luma_L[keep].mean()), 1.0)
        centred = normal_L3[keep] - normal_L3[keep].mean(0)
        relative = luma_L[keep] / mean - 1
        ridge = _PRIOR * len(relative) * np.eye(3)
        slope = np.linalg.solve(centred.T @ centred + ridge, centred.T @ relative + ridge @ _USUAL_SLOPE)
        error = np.abs(luma_L / mean - 1 - (normal_L3 - normal_L3[keep].mean(0)) @ slope)
        keep = error <= np.quantile(error, 0.75)
    return (slope * min(1.0, _STEEPEST / max(float(np.linalg.norm(slope)), 1e-6))).astype(np.float32)


@numba.njit(cache=True, nogil=True, fastmath=True)
def _normals(points: ndarray, faces: ndarray, normal: ndarray) -> None:
    """Unit normals towards the camera (z away), zero where no triangle is."""
    normal[:] = 0
    for f in range(len(faces)):
        a, b, c = faces[f]
        ux, uy, uz = points[b, 0] - points[a, 0], points[b, 1] - points[a, 1], points[b, 2] - points[a, 2]
        vx, vy, vz = points[c, 0] - points[a, 0], points[c, 1] - points[a, 1], points[c, 2] - points[a, 2]
        nx, ny, nz = uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx
        if nz > 0:  # triangles come in either order
            nx, ny, nz = -nx, -ny, -nz
        for v in (a, b, c):
            normal[v, 0] += nx
            normal[v, 1] += ny
            normal[v, 2] += nz
    for v in range(len(normal)):
        length = np.sqrt(normal[v, 0] ** 2 + normal[v, 1] ** 2 + normal[v, 2] ** 2)
        if length > 0:
            for k in range(3):
                normal[v, k] /= length


@numba.njit(cache=True, nogil=True, fastmath=True)
def _brightness(points: ndarray, faces: ndarray, slope: ndarray, lit: ndarray) -> None:
    """Relative brightness at each vertex; 1 for skin that faces the camera."""
    normal = np.empty_like(points)
    _normals(points, faces, normal)
    for v in range(len(lit)):
        value = 1 + normal[v, 0] * slope[0] + normal[v, 1] * slope[1] + (normal[v, 2] + 1) * slope[2]
        lit[v] = max(value, np.float32(_DARKEST))
