"""How much a mark shows: ColorVideoVDP, PSNR and SSIM of marked frames against the same frames unmarked.

T frame  H,W pixel  C colour channel (R,G,B)
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

_SSIM_SIGMA_PX = 1.5
_SSIM_CONSTANTS = ((0.01 * 255) ** 2, (0.03 * 255) ** 2)


@dataclass(frozen=True)
class Visibility:
    """Attributes:
    jod: ColorVideoVDP (Mantiuk et al. 2024) on a full-HD display at desk distance: 10 is no visible difference; None
        if the package `cvvdp` is not installed.
    psnr_db: over the three colour channels.
    ssim: of luma (Wang et al. 2004), the mean over all frames.
    """

    jod: float | None
    psnr_db: float
    ssim: float


def visibility(
    marked_THWC: NDArray[np.uint8], plain_THWC: NDArray[np.uint8], rate_hz: float, *, with_jod: bool = True
) -> Visibility:
    """Compare marked frames with plain ones; ColorVideoVDP takes about a second per frame on one core."""
    pairs = list(zip(marked_THWC, plain_THWC, strict=True))
    error = float(np.mean([(marked.astype(np.float32) - plain) ** 2 for marked, plain in pairs]))
    return Visibility(
        jod=_jod(marked_THWC, plain_THWC, rate_hz) if with_jod else None,
        psnr_db=float(10 * np.log10(255**2 / max(error, 1e-9))),
        ssim=float(np.mean([_ssim(_luma(marked), _luma(plain)) for marked, plain in pairs])),
    )


def _luma(frame_HWC: NDArray[np.uint8]) -> NDArray[np.float32]:
    return np.asarray(cv2.cvtColor(frame_HWC, cv2.COLOR_RGB2GRAY), np.float32)


def _ssim(a_HW: NDArray[np.float32], b_HW: NDArray[np.float32]) -> float:
    def smooth(image_HW: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.asarray(cv2.GaussianBlur(image_HW, (11, 11), _SSIM_SIGMA_PX))

    mean_a, mean_b = smooth(a_HW), smooth(b_HW)
    variance_a = smooth(a_HW * a_HW) - mean_a**2
    variance_b = smooth(b_HW * b_HW) - mean_b**2
    covariance = smooth(a_HW * b_HW) - mean_a * mean_b
    c1, c2 = _SSIM_CONSTANTS
    likeness = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    return float((likeness / ((mean_a**2 + mean_b**2 + c1) * (variance_a + variance_b + c2))).mean())


@cache
def _metric() -> Any:
    try:
        import pycvvdp
        import torch
    except ImportError:
        return None
    return pycvvdp.cvvdp(display_name="standard_fhd", device=torch.device("cpu"), quiet=True)


def _jod(test_THWC: NDArray[np.uint8], reference_THWC: NDArray[np.uint8], rate_hz: float) -> float | None:
    metric = _metric()
    if metric is None:
        return None
    jod, _ = metric.predict(
        test_THWC.transpose(1, 2, 3, 0),
        reference_THWC.transpose(1, 2, 3, 0),
        dim_order="HWCF",
        frames_per_second=rate_hz,
    )
    return float(jod)
