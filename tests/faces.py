"""Many faces out of one: the shipped persona's portrait, bent until the face match takes it for somebody else.

The tests need subjects whose faces are nobody's and unlike each other; the project ships one persona. Each variant
moves brows, eyes, nose, mouth, jaw and cheeks by smooth random amounts and shifts the colours. The seeds were picked so
that all are at least 0.47 apart in `generator.likeness` (the protected distance is 0.45).
"""

from __future__ import annotations

import io
from functools import cache

import cv2
import numpy as np
from PIL import Image

_SEEDS = (
    29, 53, 61, 0, 31, 3, 44, 78, 82, 71, 59, 11, 80, 70, 88, 30, 60, 62, 8, 42, 20, 35, 28, 74, 10, 36, 33, 87, 37, 67,
)  # fmt: skip
NUM_FACES = len(_SEEDS)
_SIDE_PX = 512
_FACE_PER_PICTURE = 0.4146
_PLACES = (
    (0.386, 0.404), (0.616, 0.404), (0.504, 0.506), (0.432, 0.583), (0.573, 0.581), (0.501, 0.702), (0.502, 0.265),
    (0.307, 0.457), (0.682, 0.455), (0.502, 0.39), (0.346, 0.367), (0.652, 0.366),
)  # fmt: skip
_PAIRS = ((0, 1), (3, 4), (7, 8), (10, 11))
_IN_THE_MIDDLE = [2, 5, 6, 9]


@cache
def another_face(portrait: bytes, number: int) -> bytes:
    """Variant `number` (any integer; they repeat after `NUM_FACES`) of the persona's portrait, as PNG."""
    rng = np.random.default_rng(_SEEDS[number % NUM_FACES])
    picture = np.array(Image.open(io.BytesIO(portrait)).convert("RGB"))
    picture = cv2.resize(picture, (_SIDE_PX, _SIDE_PX), interpolation=cv2.INTER_AREA)
    y_HW, x_HW = np.mgrid[0:_SIDE_PX, 0:_SIDE_PX].astype(np.float32) / _SIDE_PX
    from_x_HW, from_y_HW = x_HW.copy(), y_HW.copy()
    moves = rng.uniform(-1, 1, (len(_PLACES), 2)) * 0.1 * _FACE_PER_PICTURE
    for right, left in _PAIRS:
        moves[left] = moves[right] * (-1, 1)
    moves[_IN_THE_MIDDLE, 0] *= 0.15
    for (x, y), (dx, dy) in zip(_PLACES, moves, strict=True):
        near_HW = np.exp(-((x_HW - x) ** 2 + (y_HW - y) ** 2) / (2 * (0.14 * _FACE_PER_PICTURE) ** 2))
        from_x_HW -= dx * near_HW
        from_y_HW -= dy * near_HW
    bent = cv2.remap(
        picture, from_x_HW * _SIDE_PX, from_y_HW * _SIDE_PX, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    lab = cv2.cvtColor(bent, cv2.COLOR_RGB2LAB).astype(np.float32)
    lab[..., 0] *= rng.uniform(0.7, 1.2)
    lab[..., 1:] += rng.uniform(-8, 8, 2)
    out = io.BytesIO()
    Image.fromarray(cv2.cvtColor(np.clip(lab, 0, 255).astype(np.uint8), cv2.COLOR_LAB2RGB)).save(out, "PNG")
    return out.getvalue()


def same_face(portrait: bytes, number: int) -> bytes:
    """Another picture of the same face: smaller, a little darker, saved as JPEG."""
    picture = Image.open(io.BytesIO(portrait)).convert("RGB")
    picture = picture.resize((picture.width * 3 // 4, picture.height * 3 // 4), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    picture.point(lambda value: int(value * 0.9)).save(out, "JPEG", quality=80 - number % 20)
    return out.getvalue()
