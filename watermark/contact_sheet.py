"""A clip at one glance: evenly spaced frames in a grid, each with its time, as one picture."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import UInt8

_GAP = 6
_PAPER = 246


def contact_sheet(
    frames_THWC: UInt8[np.ndarray, "t h w 3"], *, rate_hz: float, columns: int = 5, rows: int = 2, tile: int = 256
) -> UInt8[np.ndarray, "h w 3"]:
    """Lay out `columns * rows` frames, first and last included.

    Args:
        frames_THWC: sRGB, at least one frame.
        rate_hz: frames per second, for the time stamps.
        tile: width of one picture in pixels; its height follows from the frames.
    Returns: the sheet, sRGB.
    """
    num = min(columns * rows, len(frames_THWC))
    chosen = np.unique(np.linspace(0, len(frames_THWC) - 1, num).round().astype(int))
    height, width = frames_THWC.shape[1:3]
    tile_h = round(tile * height / width)
    used_rows = -(-len(chosen) // columns)
    sheet = np.full((used_rows * (tile_h + _GAP) + _GAP, columns * (tile + _GAP) + _GAP, 3), _PAPER, dtype=np.uint8)
    for place, index in enumerate(chosen):
        row, column = divmod(place, columns)
        y, x = _GAP + row * (tile_h + _GAP), _GAP + column * (tile + _GAP)
        picture = cv2.resize(frames_THWC[index], (tile, tile_h), interpolation=cv2.INTER_AREA)
        label = f"{index / rate_hz:.2f} s"
        for colour, thickness in (((0, 0, 0), 3), ((255, 255, 255), 1)):
            cv2.putText(
                picture, label, (8, tile_h - 10), cv2.FONT_HERSHEY_SIMPLEX, 0.45, colour, thickness, cv2.LINE_AA
            )
        sheet[y : y + tile_h, x : x + tile] = picture
    return sheet
