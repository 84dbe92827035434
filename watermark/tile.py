"""The tile: the part of the mark that stands still, in the luma of every frame, so that one picture carries it.

Where it may show is told by the picture: strong where there is texture, in the dark and in the light, faint on what is
smooth. How each of its 211 fields is sent is told by the picture, too: what already leans the right way needs less,
what leans the wrong way gets more, at the same energy. Both follow from the same statistics at half resolution.

H,W pixel  h,w sample at half resolution  K field (0 pilot, 1.. carriers)  n tile samples along one side
"""

from __future__ import annotations

import cv2
import numba
import numpy as np
from numpy.typing import NDArray

from watermark.carriers import TileCarriers
from watermark.payload import MarkId

TILE_GAIN = 0.27
"""Root mean square of the tile on a smooth, mid-grey surface, in 8-bit full-range steps of luma."""
_TILE_PX = 128
_MAX_TILES = 4
_MIN_TILE_PX = 112
_WINDOW = 9
"""Side of the neighbourhood that counts as local, in half-resolution samples."""
_CALM = 2.0
"""Local spread below which a surface is smooth, in 8-bit steps."""
_LIMIT = 2.0
_MASK_SLOPE, _MASK_LIMIT = 0.1, 3.0
_LEAST_SENT, _MOST_SENT = 0.3, 2.2
"""How much less or more than planned a field may be sent, because of what the picture itself holds of it."""


def tile_side_px(width: int, height: int) -> int:
    """Side of the tile in a frame as it is marked: four along the shorter side, fewer in small frames; even."""
    shorter = min(width, height)
    num_tiles = min(max(round(shorter / _TILE_PX), 1), _MAX_TILES)
    return max(_MIN_TILE_PX, 2 * round(shorter / num_tiles / 2))


@numba.njit(cache=True, nogil=True, fastmath=True)
def _normalise(values, mean, power, out, spread):  # type: ignore[no-untyped-def]
    """What a place deviates from its neighbourhood, in units of that neighbourhood's own spread; limited."""
    for row in range(values.shape[0]):
        for column in range(values.shape[1]):
            here = np.sqrt(max(power[row, column], np.float32(0.0)))
            spread[row, column] = here
            ratio = (values[row, column] - mean[row, column]) / (here + np.float32(_CALM))
            out[row, column] = min(max(ratio, np.float32(-_LIMIT)), np.float32(_LIMIT))


def normalised(luma_hw: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Fine structure in units of its neighbourhood's spread, and that spread: two planes like `luma_hw`."""
    mean = cv2.blur(luma_hw, (_WINDOW, _WINDOW))
    deviation = cv2.subtract(luma_hw, mean)
    power = cv2.sqrBoxFilter(deviation, cv2.CV_32F, (_WINDOW, _WINDOW))
    fine, spread = np.empty_like(luma_hw), np.empty_like(luma_hw)
    _normalise(luma_hw, mean, power, fine, spread)
    return fine, spread


@numba.njit(cache=True, nogil=True)
def _mirrored(place, count):  # type: ignore[no-untyped-def]
    """The place inside that stands for one a little outside; the edge itself is not repeated."""
    place = abs(place)
    return place if place < count else 2 * count - 2 - place


@numba.njit(cache=True, nogil=True, fastmath=True)
def _nine_rows(plane, row, line):  # type: ignore[no-untyped-def]
    """Sum of the nine rows about `row`, with four more samples on either side."""
    height, width = plane.shape
    a, b = _mirrored(row - 4, height), _mirrored(row - 3, height)
    c, d = _mirrored(row - 2, height), _mirrored(row - 1, height)
    e, f = _mirrored(row + 1, height), _mirrored(row + 2, height)
    g, h = _mirrored(row + 3, height), _mirrored(row + 4, height)
    for x in range(width):  # in one expression, so that it becomes vector instructions
        near = plane[c, x] + plane[d, x] + plane[row, x] + plane[e, x] + plane[f, x]
        line[x + 4] = plane[a, x] + plane[b, x] + near + plane[g, x] + plane[h, x]
    for k in range(1, 5):
        line[4 - k] = line[4 + k]
        line[width + 3 + k] = line[width + 3 - k]


@numba.njit(cache=True, nogil=True, fastmath=True)
def _nine(line, x):  # type: ignore[no-untyped-def]
    left, right = (
        line[x] + line[x + 1] + line[x + 2] + line[x + 3],
        line[x + 5] + line[x + 6] + line[x + 7] + line[x + 8],
    )
    return left + line[x + 4] + right


# Division by zero cannot happen; numpy's way with it lets the loops become vector instructions.
@numba.njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def _look(luma, n, mask):  # type: ignore[no-untyped-def]
    """All that the writer needs to know of a picture, in one walk over it.

    The same as `normalised`, its fine structure laid onto one tile of n × n samples, and how strong the tile may be:
    more on texture, in the dark and in the light.

    Args:
        luma: uint8 at half resolution.
        n: samples along one side of the tile.
        mask: like `luma`, float32; the gain at each place is written into it.
    Returns: the fine structure on one tile; the mean gain when read.
    """
    height, width = luma.shape
    values, deviation = np.empty((height, width), np.float32), np.empty((height, width), np.float32)
    power, spread = np.empty((height, width), np.float32), np.empty((height, width), np.float32)
    line, fine = np.empty(width + 8, np.float32), np.empty(width, np.float32)
    folded = np.zeros((n, n), np.float32)
    total, zero = np.float32(0.0), np.float32(0.0)
    # (1) how far each place is from the mean of its neighbourhood
    for row in range(height):
        for x in range(width):
            values[row, x] = np.float32(luma[row, x])
    for row in range(height):
        _nine_rows(values, row, line)
        for x in range(width):
            away = values[row, x] - _nine(line, x) * np.float32(1 / 81)
            deviation[row, x] = away
            power[row, x] = away * away
    # (2) the neighbourhood's spread, and the deviation in units of it, folded
    for row in range(height):
        _nine_rows(power, row, line)
        for x in range(width):
            here = np.sqrt(_nine(line, x) * np.float32(1 / 81))
            spread[row, x] = here
            ratio = deviation[row, x] / (here + np.float32(_CALM))
            fine[x] = min(max(ratio, np.float32(-_LIMIT)), np.float32(_LIMIT))
        for start in range(0, width, n):
            for x in range(start, min(start + n, width)):
                folded[row % n, x - start] += fine[x]
    # (3) the mask, by the spread as it is over five samples
    for row in range(height):
        a, b = _mirrored(row - 2, height), _mirrored(row - 1, height)
        c, d = _mirrored(row + 1, height), _mirrored(row + 2, height)
        for x in range(width):
            line[x + 2] = spread[a, x] + spread[b, x] + spread[row, x] + spread[c, x] + spread[d, x]
        line[1], line[0], line[width + 2], line[width + 3] = line[3], line[4], line[width], line[width - 1]
        for x in range(width):
            here = (line[x] + line[x + 1] + line[x + 2] + line[x + 3] + line[x + 4]) * np.float32(1 / 25)
            level = values[row, x]
            allowed = min(np.float32(1.0) + np.float32(_MASK_SLOPE) * here, np.float32(_MASK_LIMIT))
            bright = np.float32(0.5 / 95.0) * max(level - np.float32(160.0), zero)
            dark = np.float32(0.6 / 60.0) * max(np.float32(60.0) - level, zero)
            allowed *= np.float32(1.0) + bright + dark
            mask[row, x] = allowed
            total += allowed / (here + np.float32(_CALM))
    return folded, total / np.float32(height * width)


class TileWriter:
    """Makes the tile of one mark, frame by frame.

    Args:
        key: 32 secret bytes.
        mark_id: what to hide.
        width, height: of the frames, in pixels; even.
        gain: see `TILE_GAIN`; below 0 a mark is taken off.
    Raises: InvalidMarkKeyError.
    """

    def __init__(self, key: bytes, mark_id: MarkId, width: int, height: int, gain: float = TILE_GAIN) -> None:
        self.side_px = tile_side_px(width, height)
        # Small frames have fewer tiles to say the same thing, so each says it a little louder.
        self._gain = gain * float(np.clip((512 * 512 / (width * height)) ** 0.5, 1.0, 1.3))
        self._carriers = TileCarriers.of_key(key)
        self._weights_K = self._carriers.weights(mark_id)

    def tile_and_mask(self, luma_HW: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The tile (side_px², to be repeated from the corner on) and how much of it each half-resolution place takes.

        Args:
            luma_HW: of the frame, 8 bits.
        """
        height, width = luma_HW.shape
        luma_hw = cv2.resize(luma_HW, (width // 2, height // 2), interpolation=cv2.INTER_AREA)
        mask_hw = np.empty(luma_hw.shape, np.float32)
        half_side = self.side_px // 2
        num_tiles = luma_hw.size / half_side**2
        folded_nn, heard_per_step = _look(luma_hw, half_side, mask_hw)
        host_K = self._carriers.coefficients_KD @ TileCarriers.freedoms(folded_nn)
        # in units of what a field of weight 1 would add
        host_K /= np.float32(abs(self._gain) * heard_per_step * num_tiles)
        planned_K = np.abs(self._weights_K)
        signs_K = np.sign(self._weights_K)
        sent_K = np.clip(planned_K - signs_K * host_K, _LEAST_SENT * planned_K, _MOST_SENT * planned_K)
        sent_K *= signs_K * self._gain / np.linalg.norm(sent_K)
        return self._carriers.field(sent_K, self.side_px), mask_hw


@numba.njit(cache=True, nogil=True, fastmath=True)
def add_luma(luma, tile, mask, sway, wave, dither):  # type: ignore[no-untyped-def]
    """Add tile × mask + sway × wave to 8-bit luma in place.

    `dither` (−½..½, the same in every frame) turns what is smaller than one step into a share of the pixels.
    """
    n = tile.shape[0]
    height, width = luma.shape
    line, wide = np.empty(width, np.float32), np.empty(width, np.float32)
    for row in range(height):
        for start in range(0, width, n):
            length = min(n, width - start)
            for column in range(length):
                line[start + column] = tile[row % n, column]
        if row % 2 == 0:
            for column in range(width // 2):
                wide[2 * column] = mask[row // 2, column]
                wide[2 * column + 1] = mask[row // 2, column]
        for column in range(width):
            change = line[column] * wide[column] + sway[row, column] * wave + dither[row, column]
            value = np.float32(luma[row, column]) + change + np.float32(0.5)
            luma[row, column] = np.uint8(np.int32(min(max(value, np.float32(0.0)), np.float32(255.0))))


def still_dither(width: int, height: int) -> NDArray[np.float32]:
    """Numbers from −½ to ½, any few neighbours spread evenly ("interleaved gradient noise", Jimenez 2014): (H, W)."""
    columns, rows = np.meshgrid(np.arange(width), np.arange(height))
    inner = np.modf(0.06711056 * columns + 0.00583715 * rows)[0]
    return (np.modf(52.9829189 * inner)[0] - 0.5).astype(np.float32)
