"""Many faces out of one: the shipped persona's portrait, bent until the face match takes it for somebody else.

The tests need subjects whose faces are nobody's and unlike each other; the project ships one persona. Each variant
moves brows, eyes, nose, mouth, jaw and cheeks by smooth random amounts and shifts the colours. The seeds were picked so that
all are at least 0.5 apart in `generator.likeness` (the protected distance is 0.45).
"""

from __future__ import annotations

import io
from functools import cache

import cv2
import numpy as np
from PIL import Image

_SEEDS = (45, 31, 34, 38, 21, 53, 32, 22, 4, 6, 10, 58, 48, 23, 3, 12, 59, 8, 26, 55)
NUM_FACES = len(_SEEDS)
_SIDE_PX = 512
_FACE_PER_PICTURE = 0.4146
_PLACES = (
    (0.386, 0.404), (0.616, 0.404), (0.504, 0.506), (0.432, 0.583), (0.573, 0.581), (0.501, 0.702), (0.502, 0.265),
    (0.307, 0.457), (0.682, 0.455), (0.502, 0.39), (0.346, 0.367), (0.652, 0.366),
)  # fmt: skip


@cache
def another_face(portrait: bytes, number: int) -> bytes:
    """Variant `number` (any integer; they repeat after `NUM_FACES`) of the persona's portrait, as PNG."""
    rng = np.random.default_rng(_SEEDS[number % NUM_FACES])
    picture = np.array(Image.open(io.BytesIO(portrait)).convert("RGB"))
    picture = cv2.resize(picture, (_SIDE_PX, _SIDE_PX), interpolation=cv2.INTER_AREA)
    y_HW, x_HW = np.mgrid[0:_SIDE_PX, 0:_SIDE_PX].astype(np.float32) / _SIDE_PX
    from_x_HW, from_y_HW = x_HW.copy(), y_HW.copy()
    for x, y in _PLACES:
        dx, dy = rng.uniform(-1, 1, 2) * 0.15 * _FACE_PER_PICTURE
        near_HW = np.exp(-((x_HW - x) ** 2 + (y_HW - y) ** 2) / (2 * (0.16 * _FACE_PER_PICTURE) ** 2))
        from_x_HW -= dx * near_HW
        from_y_HW -= dy * near_HW
    bent = cv2.remap(
        picture, from_x_HW * _SIDE_PX, from_y_HW * _SIDE_PX, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    lab = cv2.cvtColor(bent, cv2.COLOR_RGB2LAB).astype(np.float32)
    lab[..., 0] *= rng.uniform(0.6, 1.2)
    lab[..., 1:] += rng.uniform(-14, 14, 2)
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
