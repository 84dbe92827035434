"""The other side of `comparison`: RivaGAN and dwtDctSvd as the package `invisible-watermark` ships them.

Runs as a program of its own, with that package on its path and nothing of Placet:
`comparison_peer.py embed METHOD HEX FRAMES.npy MARKED.npy` or `comparison_peer.py decode METHOD HEX FRAMES.npy...`.
Frames are (T, H, W, 3) uint8 in BGR. Each prints a JSON line per file, as soon as it is done: the processor time per
frame, and from `decode` for every bit the share of frames that say 1.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import numpy as np
from imwatermark import WatermarkDecoder, WatermarkEncoder


def main(arguments: list[str]) -> None:
    task, method, payload_hex, *files = arguments
    payload = bytes.fromhex(payload_hex)
    coder: Any = WatermarkEncoder() if task == "embed" else WatermarkDecoder("bytes", 8 * len(payload))
    if method == "rivaGan":
        type(coder).loadModel()
    for file in files[:1] if task == "embed" else files:
        started_at_s, frames_THWC = time.process_time(), np.load(file)
        found: dict[str, Any] = {}
        if task == "embed":
            coder.set_watermark("bytes", payload)
            np.save(files[1], np.stack([coder.encode(frame_HWC, method) for frame_HWC in frames_THWC]))
        else:
            each = [coder.decode(frame_HWC, method) for frame_HWC in _enlarged(frames_THWC)]
            bits = np.unpackbits(np.stack([np.frombuffer(read, np.uint8) for read in each]), axis=1)
            found["shares"] = bits.mean(0).tolist()
        found["per_frame_ms"] = 1e3 * (time.process_time() - started_at_s) / len(frames_THWC)
        print(json.dumps(found), flush=True)


def _enlarged(frames_THWC: np.ndarray) -> np.ndarray:
    """Twice the size where the package refuses pictures of at most 256 × 256 pixels."""
    if frames_THWC.shape[1] * frames_THWC.shape[2] > 256 * 256:
        return frames_THWC
    return frames_THWC.repeat(2, axis=1).repeat(2, axis=2)


if __name__ == "__main__":
    main(sys.argv[1:])
