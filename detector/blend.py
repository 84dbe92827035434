"""Self-blended clips: a face pasted onto its own picture, so that only the traces of pasting tell.

Reimplemented from Shiohara & Yamasaki, "Detecting Deepfakes with Self-Blended Images" (CVPR 2022, arXiv 2204.08376,
§3.2): source and target are two copies of the same picture, one of them changed in colour and sharpness, the source
moved a little, and blended in under a soft, deformed face mask. For clips the change stays the same over time and the
mask follows the face. Nobody is animated: every frame shows what it showed before.

T frame  H,W pixel  C colour  V vertex of the mask
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float32, UInt8

from detector.face import FaceBox

_NUM_VERTICES = 20


@dataclass(frozen=True)
class _Change:
    """One copy's change of colour and sharpness (source–target generator, §3.2.1)."""

    shift_C: tuple[float, ...]
    gain: float
    saturation: float
    shrink: float
    sharpen: float

    @classmethod
    def draw(cls, rng: np.random.Generator) -> _Change:
        blurred = rng.random() < 0.5
        return cls(
            tuple(float(x) for x in rng.uniform(-18, 18, 3)),
            float(rng.uniform(0.88, 1.12)),
            float(rng.uniform(0.7, 1.3)),
            float(rng.uniform(0.4, 0.9)) if blurred else 1.0,
            0.0 if blurred else float(rng.uniform(0.1, 0.7)),
        )

    def apply(self, frame_HWC: UInt8[np.ndarray, "h w 3"]) -> Float32[np.ndarray, "h w 3"]:
        height, width = frame_HWC.shape[:2]
        changed_HWC: np.ndarray = frame_HWC.astype(np.float32)
        if self.shrink < 1:
            small = cv2.resize(changed_HWC, None, fx=self.shrink, fy=self.shrink, interpolation=cv2.INTER_AREA)
            changed_HWC = cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)
        if self.sharpen > 0:
            changed_HWC = changed_HWC + self.sharpen * (changed_HWC - cv2.GaussianBlur(changed_HWC, (0, 0), 1.5))
        grey_HW1 = changed_HWC.mean(axis=2, keepdims=True)
        changed_HWC = grey_HW1 + self.saturation * (changed_HWC - grey_HW1)
        return np.clip(self.gain * changed_HWC + np.asarray(self.shift_C, np.float32), 0, 255).astype(np.float32)


def self_blend(
    frames_THWC: UInt8[np.ndarray, "t h w 3"], boxes: Sequence[FaceBox | None], rng: np.random.Generator
) -> UInt8[np.ndarray, "t h w 3"]:
    """Paste the face of every frame onto itself.

    Args:
        frames_THWC: sRGB, 0..255; left unmodified.
        boxes: the face in each frame; a frame without one stays as it is.
        rng: the only source of chance.
    """
    change = _Change.draw(rng)
    source_is_changed = bool(rng.random() < 0.5)
    radii_V = _mask_radii(rng)
    soft = float(rng.uniform(0.02, 0.10))
    ratio = float(rng.choice([0.25, 0.5, 0.75, 1.0, 1.0, 1.0]))  # the blending ratios of §3.2.2, full ones more often
    shift = rng.uniform(-0.015, 0.015, 2)
    scale = float(rng.uniform(0.97, 1.03))
    tremble_T2 = rng.normal(0, 0.002, (len(frames_THWC), 2))
    blended = []
    for frame_HWC, box, tremble in zip(frames_THWC, boxes, tremble_T2, strict=True):
        if box is None:
            blended.append(frame_HWC)
            continue
        changed_HWC, kept_HWC = change.apply(frame_HWC), frame_HWC.astype(np.float32)
        source_HWC, target_HWC = (changed_HWC, kept_HWC) if source_is_changed else (kept_HWC, changed_HWC)
        matrix = cv2.getRotationMatrix2D((box.centre_x, box.centre_y), 0.0, scale)
        matrix[:, 2] += (shift + tremble) * box.side_px
        height, width = frame_HWC.shape[:2]
        source_HWC = cv2.warpAffine(source_HWC, matrix, (width, height), borderMode=cv2.BORDER_REFLECT_101)
        mask_HW1 = ratio * _mask(box, radii_V, soft, (height, width))[..., None]
        blended.append(np.rint(mask_HW1 * source_HWC + (1 - mask_HW1) * target_HWC).astype(np.uint8))
    return np.stack(blended)


def _mask_radii(rng: np.random.Generator) -> Float32[np.ndarray, "v 2"]:
    """A deformed outline around the box centre, in box sides: the whole face, or its lower half with the mouth."""
    angles_V = np.linspace(0, 2 * np.pi, _NUM_VERTICES, endpoint=False)
    bumps_V = np.ones(_NUM_VERTICES)
    for order in range(1, 5):
        bumps_V += rng.normal(0, 0.06) * np.cos(order * angles_V + rng.uniform(0, 2 * np.pi))
    outline_V2 = np.stack([0.46 * np.cos(angles_V), 0.58 * np.sin(angles_V)], axis=1) * bumps_V[:, None]
    if rng.random() < 0.35:
        outline_V2[:, 1] = np.maximum(
            outline_V2[:, 1], -0.02
        )  # image y points down: keep what is below the nose bridge
    return outline_V2.astype(np.float32)


def _mask(box: FaceBox, outline_V2: np.ndarray, soft: float, shape: tuple[int, int]) -> Float32[np.ndarray, "h w"]:
    corners_V2 = outline_V2 * box.side_px + (box.centre_x, box.centre_y)
    mask_HW = np.zeros(shape, np.float32)
    cv2.fillPoly(mask_HW, [np.rint(corners_V2).astype(np.int32)], 1.0)
    return np.asarray(cv2.GaussianBlur(mask_HW, (0, 0), max(1.0, soft * box.side_px)), np.float32)
