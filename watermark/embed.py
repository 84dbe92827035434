"""Hiding a mark in frames: the key's colour fields, weighted by the code word, swaying slowly.

T frame  H,W pixel  C colour channel (R,G,B)  2 colour difference (Cb,Cr)
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from watermark.carriers import Carriers, wave
from watermark.errors import FrameTooSmallError, InconsistentFramesError
from watermark.media import LIMITED_COLOUR_SCALE, EncoderPlanes
from watermark.payload import MarkId

AMPLITUDE = 1.25
"""Root mean square of the mark over both colour-difference channels, in 8-bit full-range steps."""
MIN_SIDE_PX = 96
_TORUS_SAMPLES = 128


class Embedder:
    """Adds one mark to the frames of one clip.

    The pattern is drawn once; per frame there is one multiplication and one addition on the colour planes that the
    encoder takes anyway.

    Args:
        key: 32 secret bytes.
        mark_id: what to hide.
        width, height: of the frames, in pixels.
        rate_hz: frames per second.
        amplitude: see `AMPLITUDE`.
    Raises: FrameTooSmallError: a side below 96 pixels. InvalidMarkKeyError.
    """

    def __init__(
        self,
        key: bytes,
        mark_id: MarkId,
        width: int,
        height: int,
        rate_hz: float,
        *,
        amplitude: float = AMPLITUDE,
    ) -> None:
        if min(width, height) < MIN_SIDE_PX:
            raise FrameTooSmallError(
                f"A frame of {width}×{height} pixels is too small to mark; no side may be below {MIN_SIDE_PX}."
            )
        self.mark_id, self.width, self.height, self.rate_hz = mark_id, width, height, rate_hz
        self._torus_2NN = amplitude * Carriers.of_key(key).pattern(mark_id, _TORUS_SAMPLES)
        self._half_2HW = LIMITED_COLOUR_SCALE * self._laid_over(width // 2, height // 2, 2.0)

    def _laid_over(self, width: int, height: int, step_px: float) -> NDArray[np.float32]:
        """The pattern at the centres of `height` × `width` samples that are `step_px` frame pixels apart."""
        per_px = _TORUS_SAMPLES / min(self.width, self.height)
        columns = ((np.arange(width) + 0.5) * step_px * per_px).astype(np.float32) % _TORUS_SAMPLES
        rows = ((np.arange(height) + 0.5) * step_px * per_px).astype(np.float32) % _TORUS_SAMPLES
        margin = 4  # room for the cubic kernel beyond the seam
        padded = np.pad(self._torus_2NN, ((0, 0), (margin, margin), (margin, margin)), mode="wrap")
        grid_columns, grid_rows = np.meshgrid(columns + margin, rows + margin)
        return np.stack([cv2.remap(plane, grid_columns, grid_rows, cv2.INTER_CUBIC) for plane in padded])

    def mark_planes(self, planes: EncoderPlanes, index: int) -> None:
        """Mark frame number `index` in place, in the form the encoder takes: well under a millisecond at 512²."""
        if planes.colour_2HW.shape != self._half_2HW.shape:
            raise InconsistentFramesError(
                f"Frame {index} does not have {self.width}×{self.height} pixels like the ones before it."
            )
        planes.colour_2HW += self._half_2HW * np.float32(wave(index / self.rate_hz))

    def apply(self, frames_THWC: NDArray[np.uint8], first_index: int = 0) -> NDArray[np.uint8]:
        """Marked copies of sRGB frames, of which the first is frame number `first_index` of the clip."""
        if frames_THWC.shape[1:3] != (self.height, self.width):
            raise InconsistentFramesError(f"The frames do not have {self.width}×{self.height} pixels.")
        blue, red = self._laid_over(self.width, self.height, 1.0)
        # Rec. ITU-R BT.709-6 solved for R'G'B'
        delta_HWC = np.stack([1.5748 * red, -0.1873 * blue - 0.4681 * red, 1.8556 * blue], axis=-1)
        marked = np.empty_like(frames_THWC)
        for i, frame_HWC in enumerate(frames_THWC):
            sway = np.float32(wave((first_index + i) / self.rate_hz))
            marked[i] = np.clip(np.rint(frame_HWC + delta_HWC * sway), 0, 255)
        return marked
