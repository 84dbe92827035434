"""Hiding a mark in frames: the key's fields, weighted by the code word: smooth ones that sway, and the still tile.

What a frame gets depends on nothing but the frame and its number, so a clip may be marked in pieces, from any frame on,
and the pieces join without a seam.

T frame  H,W pixel  C colour channel (R,G,B)  2 colour difference (Cb,Cr)
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from watermark.carriers import Carriers, wave
from watermark.colour import LIMITED_COLOUR_SCALE, LIMITED_LUMA_SCALE, EncoderPlanes, encoder_planes
from watermark.errors import FrameTooSmallError, InconsistentFramesError
from watermark.payload import MarkId
from watermark.tile import TILE_GAIN, TileWriter, add_luma, still_dither

AMPLITUDE = 1.25
"""Root mean square of the mark over both colour-difference channels, in 8-bit full-range steps."""
LUMA_AMPLITUDE = 0.9
"""Root mean square of what sways in luma, in the same steps."""
MIN_SIDE_PX = 96
_TORUS_SAMPLES = 128


class Embedder:
    """Adds one mark to the frames of one clip.

    What sways is drawn once; per frame there is one multiplication and one addition on the planes that the encoder
    takes anyway. The tile is fitted to each frame.

    Args:
        key: 32 secret bytes.
        mark_id: what to hide.
        width, height: of the frames, in pixels.
        rate_hz: frames per second.
        strength: 1 as delivered, in all parts of the mark; −1 takes a mark off.
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
        strength: float = 1.0,
    ) -> None:
        if min(width, height) < MIN_SIDE_PX:
            raise FrameTooSmallError(
                f"A frame of {width}×{height} pixels is too small to mark; no side may be below {MIN_SIDE_PX}."
            )
        self.mark_id, self.width, self.height, self.rate_hz = mark_id, width, height, rate_hz
        carriers = Carriers.of_key(key)
        colour_2NN = strength * AMPLITUDE * carriers.pattern(mark_id, _TORUS_SAMPLES)
        luma_NN = strength * LUMA_AMPLITUDE * carriers.luma_pattern(mark_id, _TORUS_SAMPLES)
        self._torus_3NN = np.concatenate([luma_NN[None], colour_2NN])
        half_2HW = self._laid_over(self._torus_3NN[1:], width // 2, height // 2, 2.0)
        self._half_2HW = LIMITED_COLOUR_SCALE * half_2HW
        # From here on in the even frame that the encoder takes
        self._luma_HW = LIMITED_LUMA_SCALE * self._laid_over(self._torus_3NN[:1], width & ~1, height & ~1, 1.0)[0]
        self._dither_HW = still_dither(width & ~1, height & ~1)
        self._tile = TileWriter(key, mark_id, width, height, strength * TILE_GAIN)

    def _laid_over(
        self, torus_CNN: NDArray[np.float32], width: int, height: int, step_px: float
    ) -> NDArray[np.float32]:
        """A torus at the centres of `height` × `width` samples that are `step_px` frame pixels apart."""
        per_px = _TORUS_SAMPLES / min(self.width, self.height)
        columns = ((np.arange(width) + 0.5) * step_px * per_px).astype(np.float32) % _TORUS_SAMPLES
        rows = ((np.arange(height) + 0.5) * step_px * per_px).astype(np.float32) % _TORUS_SAMPLES
        margin = 4  # room for the cubic kernel beyond the seam
        padded = np.pad(torus_CNN, ((0, 0), (margin, margin), (margin, margin)), mode="wrap")
        grid_columns, grid_rows = np.meshgrid(columns + margin - 0.5, rows + margin - 0.5)
        return np.stack([cv2.remap(plane, grid_columns, grid_rows, cv2.INTER_CUBIC) for plane in padded])

    def mark_planes(self, planes: EncoderPlanes, index: int) -> None:
        """Mark frame number `index` in place, in the form the encoder takes: about a millisecond at 512²."""
        if planes.colour_2HW.shape != self._half_2HW.shape:
            raise InconsistentFramesError(
                f"Frame {index} does not have {self.width}×{self.height} pixels like the ones before it."
            )
        sway = np.float32(wave(index / self.rate_hz))
        for plane_HW, pattern_HW in zip(planes.colour_2HW, self._half_2HW, strict=True):
            cv2.scaleAdd(pattern_HW, float(sway), plane_HW, dst=plane_HW)
        tile_nn, mask_hw = self._tile.tile_and_mask(planes.luma_HW)
        add_luma(planes.luma_HW, tile_nn, mask_hw, self._luma_HW, sway, self._dither_HW)

    def apply(self, frames_THWC: NDArray[np.uint8], first_index: int = 0) -> NDArray[np.uint8]:
        """Marked copies of sRGB frames, of which the first is frame number `first_index` of the clip."""
        if frames_THWC.shape[1:3] != (self.height, self.width):
            raise InconsistentFramesError(f"The frames do not have {self.width}×{self.height} pixels.")
        blue, red = self._laid_over(self._torus_3NN[1:], self.width, self.height, 1.0)
        # Rec. ITU-R BT.709-6 solved for R'G'B'
        colour_HWC = np.stack([1.5748 * red, -0.1873 * blue - 0.4681 * red, 1.8556 * blue], axis=-1)
        marked = np.empty_like(frames_THWC)
        for i, frame_HWC in enumerate(frames_THWC):
            sway = np.float32(wave((first_index + i) / self.rate_hz))
            marked[i] = np.clip(np.rint(frame_HWC + colour_HWC * sway + self._luma_change(frame_HWC, sway)), 0, 255)
        return marked

    def _luma_change(self, frame_HWC: NDArray[np.uint8], sway: np.float32) -> NDArray[np.float32]:
        """What the mark adds to R', G' and B' alike, in steps: (H, W, 1)."""
        tile_nn, mask_hw = self._tile.tile_and_mask(encoder_planes(frame_HWC).luma_HW)
        height, width = self._luma_HW.shape
        repeats = (-(-height // len(tile_nn)), -(-width // len(tile_nn)))
        change_HW = np.tile(tile_nn, repeats)[:height, :width] * mask_hw.repeat(2, 0).repeat(2, 1)
        change_HW += self._luma_HW * sway
        change_HW = change_HW / LIMITED_LUMA_SCALE + self._dither_HW
        return np.pad(change_HW, ((0, self.height - height), (0, self.width - width)), mode="edge")[..., None]
