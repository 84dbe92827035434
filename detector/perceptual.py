"""Perceptual hashes: pictures that look alike have hashes that differ in few bits.

The low frequencies of the discrete cosine transform against their median, 64 bits, after Zauner, "Implementation and
Benchmarking of Perceptual Image Hash Functions" (2010). They say that two queries resemble each other; they identify
nobody, and are no proof of anything.

H,W pixel
"""

from __future__ import annotations

from collections.abc import Iterable

import cv2
import numpy as np
from jaxtyping import UInt8

NUM_BITS = 64
_SIDE_PX = 32
_LOW = 8


def perceptual_hash(picture_HWC: UInt8[np.ndarray, "h w 3"]) -> int:
    """64 bits, the lowest frequency first."""
    small_HWC = cv2.resize(picture_HWC, (_SIDE_PX, _SIDE_PX), interpolation=cv2.INTER_AREA)
    luma_HW = cv2.cvtColor(small_HWC, cv2.COLOR_RGB2GRAY).astype(np.float32)
    low = cv2.dct(luma_HW)[:_LOW, :_LOW].reshape(-1)
    bits = low > np.median(low[1:])  # the mean brightness says nothing
    return int("".join("1" if bit else "0" for bit in bits), 2)


def distance(these: Iterable[int], those: Iterable[int]) -> int:
    """Bits by which the two nearest of two sets of hashes differ; `NUM_BITS` where one is empty."""
    others = list(those)
    return min(((a ^ b).bit_count() for a in these for b in others), default=NUM_BITS)
