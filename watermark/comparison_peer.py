"""The other side of `comparison`: RivaGAN and dwtDctSvd as the package `invisible-watermark` ships them.

Runs as a program of its own, with that package on its path and nothing of Placet:
`comparison_peer.py embed METHOD HEX FRAMES.npy MARKED.npy` or `comparison_peer.py decode METHOD HEX FRAMES.npy...`.
Frames are (T, H, W, 3) uint8 in BGR. `decode` prints, as JSON, for every file and bit the share of frames that say 1.
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
    started_at_s, num_frames, shares = time.process_time(), 0, []
    if task == "embed":
        coder.set_watermark("bytes", payload)
        frames_THWC = np.load(files[0])
        np.save(files[1], np.stack([coder.encode(frame_HWC, method) for frame_HWC in frames_THWC]))
        num_frames = len(frames_THWC)
    else:
        for file in files:
            frames_THWC = _enlarged(np.load(file))
            read = [np.frombuffer(coder.decode(frame_HWC, method), np.uint8) for frame_HWC in frames_THWC]
            shares.append(np.unpackbits(np.stack(read), axis=1).mean(0).tolist())
            num_frames += len(frames_THWC)
    per_frame_ms = 1e3 * (time.process_time() - started_at_s) / num_frames
    print(json.dumps({"shares": shares, "per_frame_ms": per_frame_ms}))


def _enlarged(frames_THWC: np.ndarray) -> np.ndarray:
    """Twice the size where the package refuses pictures of at most 256 × 256 pixels."""
    if frames_THWC.shape[1] * frames_THWC.shape[2] > 256 * 256:
        return frames_THWC
    return frames_THWC.repeat(2, axis=1).repeat(2, axis=2)


if __name__ == "__main__":
    main(sys.argv[1:])
