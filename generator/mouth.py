"""Mouth: what lies behind the lips: two rows of teeth, gums, tongue and the dark of the cavity.

The rows are curved bands in the fitted head, the upper one fixed to the skull, the lower one to the jaw, painted with
teeth of average proportions; light and colour follow the photo (the white of the eyes tells the light's colour). Where
the photo itself shows teeth, its own pixels are kept and travel with the skull.

Tooth widths and heights: Wheeler's Dental Anatomy (mean crown dimensions).
"""

# h,w pixel of the window  V vertex  A facial action

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Final

import cv2
import numpy as np
from jaxtyping import Float32, Int32
from numpy import ndarray
from scipy.spatial import cKDTree

from generator.head import CONTACT_LOOP, Head
from generator.matte import fill_smoothly
from generator.portrait import Stage
from generator.raster import FAR, paint, vertex_normals
from generator.sheet import HeadPose, Sheet

_UPPER_WIDTHS_MM: Final = (8.6, 6.6, 7.6, 7.1, 6.8, 10.0)
_UPPER_HEIGHTS_MM: Final = (10.4, 9.0, 9.8, 8.4, 7.9, 7.4)
_LOWER_WIDTHS_MM: Final = (5.3, 5.8, 6.9, 7.0, 7.1, 10.8)
_LOWER_HEIGHTS_MM: Final = (8.9, 9.2, 10.2, 8.6, 8.0, 7.4)
_TEXELS_PER_MM: Final = 10.0
_BAND_MM: Final = 16.0
_ARCH_MM: Final = 42.0
_ARCH_BEND_PER_M: Final = 26.0
_UPPER_BELOW_LINE_M: Final = 0.0022
_LOWER_ABOVE_LINE_M: Final = 0.0002
_UPPER_BEHIND_LIPS_M: Final = 0.0065
_LOWER_BEHIND_LIPS_M: Final = 0.0095
_TONGUE_REST_M: Final = np.array([0.0, 0.005, 0.004])
_COLUMNS: Final = 48
_TOOTH_RGB: Final = np.array([0.92, 0.88, 0.80])
_GUM_RGB: Final = np.array([0.72, 0.42, 0.41])
_TONGUE_RGB: Final = np.array([0.70, 0.38, 0.37])
_CAVITY_RGB: Final = np.array([0.16, 0.055, 0.05])


@dataclass(frozen=True, eq=False)
class MouthInterior:
    """The inside of one portrait's mouth.

    Attributes:
        upper_V3, lower_V3, tongue_V3: rest positions in head axes.
        lower_fields_AV3, tongue_fields_AV3: what facial actions do to them.
        light_rgb: colour of a white surface in the photo's light, 0..255.
        photo_teeth_SS2: 0..1, where the photo shows the inside of the mouth; and a wider area around that.
        photo_mouth_SS3: the photo there, continued smoothly a little way around.
    """

    upper_V3: Float32[ndarray, "u 3"]
    lower_V3: Float32[ndarray, "u 3"]
    lower_fields_AV3: Float32[ndarray, "52 u 3"]
    tongue_V3: Float32[ndarray, "t 3"]
    tongue_fields_AV3: Float32[ndarray, "52 t 3"]
    tongue_F3: Int32[ndarray, "f 3"]
    tongue_shade_V: Float32[ndarray, " t"]
    light_rgb: Float32[ndarray, " 3"]
    photo_teeth_SS2: Float32[ndarray, "s s 2"]
    photo_mouth_SS3: ndarray
    upper_rest_pixels_V2: Float32[ndarray, "u 2"]
    shows_teeth: bool

    def painted(
        self,
        sheet: Sheet,
        stage: Stage,
        actions_A: ndarray,
        pose: HeadPose,
        window: tuple[int, int, int, int],
        hole_hw: Float32[ndarray, "h w"],
    ) -> Float32[ndarray, "h w 3"]:
        """Colours of the inside of the mouth.

        Args:
            actions_A: 0..1.
            window: x0, y0, x1, y1 in the frame.
            hole_hw: 0..1, where the lips leave it open.
        """
        x0, y0, x1, y1 = window
        shape = (y1 - y0, x1 - x0)
        margin = stage.margin_px
        origin = (float(x0 + margin), float(y0 + margin))
        band_faces = _band_faces()
        uv = _band_uv()

        # (1) light falls in through the opening: deep places and places close under the upper lip are dark
        rows = np.flatnonzero(hole_hw.max(1) > 0.5)
        opening_px = float(len(rows)) if len(rows) else 1.0
        metre_px = sheet.fit.focal_px / float(sheet.fit.translation_3[2])
        opening_mm = opening_px / metre_px * 1000
        blur = max(1.5, 0.0035 * metre_px)
        lit = cv2.GaussianBlur(hole_hw, (0, 0), blur)
        lit = np.clip((lit - 0.25) / 0.65, 0, 1) ** 0.8
        entrance = 0.80 + 0.20 * min(opening_mm / 8.0, 1.0)

        cavity = np.empty((*shape, 3), np.float32)
        cavity[:] = self.light_rgb * _CAVITY_RGB
        cavity *= (0.70 + 0.60 * lit[..., None]) * entrance

        # (2) tongue, lower row, upper row, nearest wins
        depth = np.full(shape, FAR, np.float32)
        act = actions_A.astype(np.float32)
        tongue = self.tongue_V3 + (act @ self.tongue_fields_AV3.reshape(52, -1)).reshape(-1, 3)
        shade = np.full((*shape, 1), -1, np.float32)
        paint(sheet.rigid(tongue, pose), self.tongue_F3, self.tongue_shade_V[:, None], depth, shade,
              origin_xy=origin)  # fmt: skip
        on_tongue = cv2.GaussianBlur((shade[..., 0] >= 0).astype(np.float32), (0, 0), 0.8)[..., None]
        body = np.maximum(shade, 0) * self.light_rgb * _TONGUE_RGB * (0.45 + 0.55 * lit[..., None]) * entrance
        out = cavity + (body - cavity) * on_tongue

        lower = self.lower_V3 + (act @ self.lower_fields_AV3.reshape(52, -1)).reshape(-1, 3)
        for points, texture, extra, gain in (
            (sheet.rigid(lower, pose), _teeth_texture("lower"), None, 0.82),
            (
                sheet.rigid(self.upper_V3, pose),
                _teeth_texture("upper"),
                self.upper_rest_pixels_V2,
                0.97,
            ),
        ):
            values = uv if extra is None else np.concatenate([uv, extra], 1)
            field = np.full((*shape, values.shape[1]), -1e4, np.float32)
            layer_depth = np.full(shape, FAR, np.float32)
            paint(points, band_faces, values, layer_depth, field, origin_xy=origin)
            sample = cv2.remap(texture, field[..., 0], field[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
            across = (field[..., 0] / texture.shape[1] - 0.5) * 2 * _ARCH_MM
            side = np.exp(-((across / 27.0) ** 2))
            light = (0.90 + 0.10 * lit) * (0.7 + 0.3 * entrance) * (0.48 + 0.52 * side) * gain
            colour = sample[..., :3] * self.light_rgb * light[..., None]
            alpha = sample[..., 3:]
            out = out + (colour - out) * alpha
            if extra is not None and self.shows_teeth:
                px, py = field[..., 2] - 0.5, field[..., 3] - 0.5
                own = cv2.remap(self.photo_mouth_SS3, px, py, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE).astype(
                    np.float32
                )
                kept = cv2.remap(self.photo_teeth_SS2, px, py, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
                kept = np.maximum(kept[..., :1], kept[..., 1:] * alpha)
                out = out + (own - out) * kept
        return out


def build_mouth(
    sheet: Sheet, head: Head, image_SS3: ndarray, light_rgb: ndarray, photo_opening_SS: Float32[ndarray, "s s"]
) -> MouthInterior:
    """Place teeth and tongue behind the lips of a portrait.

    Args:
        light_rgb: colour of the white of the eyes, 0..255.
        photo_opening_SS: 0..1, where the photo shows the inside of the mouth.
    """
    fit = sheet.fit
    # Where the lips of this head meet when closed, and how far the photo's lips sit from the model's.
    neutral = head.vertices(fit.identity_K, np.zeros(52))
    ring = head.lip_loops_JC[CONTACT_LOOP]
    half = len(ring) // 2
    line = (neutral[ring[0]] + neutral[ring[half]]) / 2
    start = sheet.mouth_start + CONTACT_LOOP * len(ring)
    upper_lip = sheet.rest_V3[start] - fit.actions_A.astype(np.float32) @ head.actions_AV3[:, ring[0]]
    corners = neutral[ring[[np.argmax(neutral[ring, 0]), np.argmin(neutral[ring, 0])]]]
    seen = sheet.rest_V3[start + np.array([np.argmax(neutral[ring, 0]), np.argmin(neutral[ring, 0])])]
    seen_width, model_width = float(np.linalg.norm(seen[0] - seen[1])), float(np.linalg.norm(corners[0] - corners[1]))
    scale = float(np.clip(seen_width / max(model_width, 1e-6), 0.8, 1.2))
    middle = np.array([(upper_lip[0] + seen[:, 0].mean()) / 2, upper_lip[1], upper_lip[2]])
    jaw_follow = cKDTree(neutral[np.unique(head.lower_teeth_F3)])
    lower_vertices = np.unique(head.lower_teeth_F3)

    u = np.linspace(-1, 1, _COLUMNS)
    arc = u * _ARCH_MM / 1000
    across = _across(arc) * (0.5 + 0.5 * scale)
    behind = _ARCH_BEND_PER_M * across**2
    gum_mm, edge_mm = -_BAND_MM + 2.0, 2.0

    def band(x: ndarray, edge_y: float, front_z: float, towards_gum: float) -> ndarray:
        near = np.stack([x, np.full_like(x, edge_y - towards_gum * edge_mm / 1000), front_z + behind], 1)
        far = np.stack([x, np.full_like(x, edge_y - towards_gum * gum_mm / 1000), front_z + behind + 0.002], 1)
        return np.concatenate([near, far])

    upper_edge = float(middle[1]) + _UPPER_BELOW_LINE_M
    lower_edge = float(middle[1]) + _LOWER_ABOVE_LINE_M
    upper = band(across + middle[0], upper_edge, float(middle[2]) + _UPPER_BEHIND_LIPS_M, -1.0)
    lower = band(across * 0.93 + middle[0], lower_edge, float(middle[2]) + _LOWER_BEHIND_LIPS_M, 1.0)
    lower_rest_on_model = lower - np.array([*(middle - line)])
    nearest = jaw_follow.query(lower_rest_on_model, k=4)
    weights = 1 / (nearest[0] + 1e-4)
    weights /= weights.sum(1, keepdims=True)
    lower_fields = np.einsum("vk,avkc->avc", weights, head.actions_AV3[:, lower_vertices[nearest[1]]])

    tongue_vertices, tongue_faces = np.unique(head.tongue_F3, return_inverse=True)
    faces = tongue_faces.reshape(-1, 3).astype(np.int32)
    tongue = neutral[tongue_vertices] + (middle - line) + _TONGUE_REST_M
    # Light comes in from the front and above; what lies further back is darker.
    facing = vertex_normals(tongue, faces) @ np.array([0.0, -0.62, -0.78])
    inside = np.clip((tongue[:, 2] - tongue[:, 2].min()) / 0.022, 0, 1)
    shade = (0.30 + 0.70 * np.clip(facing, 0, 1)) * (1 - 0.72 * inside) + 0.02
    f32 = np.float32
    rest_pixels = fit.project(upper)[:, :2]
    shows_teeth = bool(photo_opening_SS.max() > 0.5)
    own: ndarray = image_SS3
    reach = wide = photo_opening_SS
    if shows_teeth:
        own = np.clip(fill_smoothly(image_SS3.astype(np.float32), (photo_opening_SS > 0.9).astype(np.float32)), 0, 255)
        spread = max(1, round(0.004 * sheet.size_px))
        wide = cv2.dilate(photo_opening_SS, np.ones((6 * spread + 1, 8 * spread + 1), np.uint8))
        wide = cv2.GaussianBlur(wide, (0, 0), 1.5 * spread)
    return MouthInterior(
        upper_V3=upper.astype(f32),
        lower_V3=lower.astype(f32),
        lower_fields_AV3=lower_fields.astype(f32),
        tongue_V3=tongue.astype(f32),
        tongue_fields_AV3=head.actions_AV3[:, tongue_vertices].astype(f32),
        tongue_F3=faces,
        tongue_shade_V=shade.astype(f32),
        light_rgb=np.asarray(light_rgb, f32),
        photo_teeth_SS2=np.stack([reach, wide], -1).astype(f32),
        photo_mouth_SS3=own.astype(f32),
        upper_rest_pixels_V2=rest_pixels.astype(f32),
        shows_teeth=shows_teeth,
    )


def _across(arc_m: ndarray) -> ndarray:
    """x on the dental arch at an arc length from the middle: a parabola, integrated numerically."""
    x = np.linspace(0, 0.05, 400)
    length = np.concatenate([[0], np.cumsum(np.sqrt(1 + (2 * _ARCH_BEND_PER_M * x[1:]) ** 2) * np.diff(x))])
    return np.sign(arc_m) * np.interp(np.abs(arc_m), length, x)


@cache
def _band_faces() -> Int32[ndarray, "f 3"]:
    a = np.arange(_COLUMNS - 1)
    b = a + _COLUMNS
    return np.concatenate([np.stack([a, a + 1, b], 1), np.stack([a + 1, b + 1, b], 1)]).astype(np.int32)


@cache
def _band_uv() -> Float32[ndarray, "u 2"]:
    width, height = round(2 * _ARCH_MM * _TEXELS_PER_MM), round(_BAND_MM * _TEXELS_PER_MM)
    u = np.linspace(0, width - 1, _COLUMNS)
    return np.concatenate([np.stack([u, np.zeros_like(u)], 1), np.stack([u, np.full_like(u, height - 1)], 1)]).astype(
        np.float32
    )


@cache
def _teeth_texture(row: str) -> Float32[ndarray, "h w 4"]:
    """One row of teeth with its gum, flattened: reflectance and coverage; v runs from the biting edge to the gum."""
    widths, heights = (_UPPER_WIDTHS_MM, _UPPER_HEIGHTS_MM) if row == "upper" else (_LOWER_WIDTHS_MM, _LOWER_HEIGHTS_MM)
    width, height = round(2 * _ARCH_MM * _TEXELS_PER_MM), round(_BAND_MM * _TEXELS_PER_MM)
    s = (np.arange(width) + 0.5) / _TEXELS_PER_MM - _ARCH_MM
    v = (np.arange(height) + 0.5) / _TEXELS_PER_MM - 2.0  # millimetres above the edge of the middle teeth
    s, v = np.meshgrid(s, v)
    out = np.zeros((height, width, 4))
    # gum: behind everything above a scalloped line
    gum_line = 7.4 if row == "upper" else 6.6
    gum = np.clip((v - gum_line + 2.0) / 0.5, 0, 1)
    out[..., :3] = _GUM_RGB * (0.92 + 0.08 * np.sin(s * 1.3))[..., None]
    out[..., 3] = gum
    # the dark between the teeth
    dark = np.clip((v - 1.2) / 1.0, 0, 1) * (1 - gum)
    out[..., :3] = out[..., :3] * gum[..., None] + (1 - gum[..., None]) * np.array([0.56, 0.42, 0.36])
    out[..., 3] = np.maximum(out[..., 3], dark * 0.9)
    edges = {"upper": (0.0, 0.55, 0.15, 0.5, 0.7, 1.0), "lower": (0.0, 0.05, 0.1, 0.5, 0.7, 0.9)}[row]
    for side in (-1, 1):
        start = 0.0
        for index, (w, h) in enumerate(zip(widths, heights, strict=True)):
            centre, low, high = side * (start + w / 2), edges[index], edges[index] + h
            start += w
            t = (s - centre) / (w / 2 * 0.995)
            round_low = low + (0.10 + 0.06 * index) * np.abs(t) ** 3 * w * (0.5 if index < 2 else 0.8)
            if index == 2:
                round_low = low + 0.9 * np.abs(t) ** 1.5
            round_high = high - 1.7 * np.abs(t) ** 2.5
            body = np.clip((1 - np.abs(t) ** 1.0 * (1.0 - 0.05 * np.clip((v - low) / h, 0, 1))) * w / 2 / 0.15, 0, 1)
            body *= np.clip((v - round_low) / 0.3, 0, 1) * np.clip((round_high - v) / 0.5, 0, 1)
            up = np.clip((v - low) / h, 0, 1)
            colour = _TOOTH_RGB * (1 - 0.06 * up[..., None] * np.array([0.6, 1.0, 1.9]))
            shade = 1 - 0.24 * np.abs(t) ** 3 - 0.05 * np.clip(1 - (v - low) / 1.2, 0, 1) - 0.10 * up**3
            shade *= 1.0 if index < 2 else 0.95
            out[..., :3] += ((colour * shade[..., None]) - out[..., :3]) * body[..., None]
            out[..., 3] = np.maximum(out[..., 3], body)
    return out.astype(np.float32)
