"""Faces drawn with a few ellipses: found by the face finder, of nobody, different for every seed."""

from __future__ import annotations

import cv2
import numpy as np


def draw_face(seed: int, side_px: int = 512) -> np.ndarray:
    """A square picture of a drawn face, sRGB 0..255, with some texture."""
    rng = np.random.default_rng(seed)
    skin = np.array([224, 180, 150]) * rng.uniform(0.6, 1.05) + rng.normal(0, 6, 3)
    hair = np.array([60, 45, 35]) * rng.uniform(0.5, 2.0)
    canvas = np.full((512, 512, 3), rng.uniform(60, 200, 3), np.float32)
    cx, cy = 256 + int(rng.integers(-15, 15)), 260 + int(rng.integers(-15, 15))
    cv2.ellipse(canvas, (cx, cy + 300), (190, 130), 0, 0, 360, rng.uniform(30, 200, 3).tolist(), -1)
    cv2.rectangle(canvas, (cx - 45, cy + 100), (cx + 45, cy + 200), (skin * 0.85).tolist(), -1)
    cv2.ellipse(canvas, (cx, cy - 30), (128, 158), 0, 0, 360, hair.tolist(), -1)
    cv2.ellipse(canvas, (cx, cy), (108, 145), 0, 0, 360, skin.tolist(), -1)
    for side in (-1, 1):
        eye = (cx + side * 42, cy - 25)
        cv2.ellipse(canvas, eye, (20, 10), 0, 0, 360, (240, 240, 238), -1)
        cv2.circle(canvas, eye, 9, rng.uniform(40, 120, 3).tolist(), -1)
        cv2.circle(canvas, eye, 4, (15, 15, 15), -1)
        cv2.ellipse(canvas, (eye[0], eye[1] - 2), (21, 11), 0, 180, 360, (skin * 0.5).tolist(), 3)
        cv2.ellipse(canvas, (eye[0], eye[1] - 24), (26, 8), 0, 180, 360, hair.tolist(), 6)
        cv2.ellipse(canvas, (cx + side * 12, cy + 38), (8, 5), 0, 0, 360, (skin * 0.65).tolist(), -1)
    cv2.line(canvas, (cx - 6, cy - 15), (cx - 12, cy + 32), (skin * 0.85).tolist(), 4)
    cv2.ellipse(canvas, (cx, cy + 78), (38, 12), 0, 0, 360, (190, 90, 90), -1)
    cv2.line(canvas, (cx - 36, cy + 78), (cx + 36, cy + 78), (110, 45, 45), 3)
    canvas = cv2.GaussianBlur(canvas, (0, 0), 1.5)
    texture = cv2.GaussianBlur(rng.normal(0, 1, (512, 512, 1)).astype(np.float32), (0, 0), 1.2)
    light = 1 + 0.15 * np.linspace(-1, 1, 512)[None, :, None] * rng.choice([-1, 1])
    drawn = np.clip(canvas * light + 12 * np.atleast_3d(texture), 0, 255).astype(np.uint8)
    return drawn if side_px == 512 else cv2.resize(drawn, (side_px, side_px), interpolation=cv2.INTER_AREA)
