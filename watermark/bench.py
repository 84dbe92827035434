"""How long marking and reading take, on one thread.

Without a video, a made-up one is used: smooth blobs before a textured wall that drift about, with camera grain, 512²,
25 frames per second, 3 s. What is timed does not depend on what is shown, except that an unmarked clip takes longest to
read: every place is tried.
"""

from __future__ import annotations

import hashlib
import statistics
import time
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from watermark.colour import colour_track, encoder_planes
from watermark.embed import Embedder
from watermark.extract import read_mark
from watermark.media import Clip, decode_clip
from watermark.payload import MarkId

_DURATION_S = 3.0
_MARK = MarkId(0x0123456789ABCDEF)


def drifting_blobs(side_px: int = 512, num_frames: int = 75, seed: int = 0) -> NDArray[np.uint8]:
    """Frames (T, H, W, 3) made from nothing."""
    rng = np.random.default_rng(seed)
    size = (side_px + 64, side_px + 64)
    wall_HWC: NDArray[Any] = cv2.resize(rng.normal(128, 30, (24, 24, 3)), size, interpolation=cv2.INTER_CUBIC)
    wall_HWC = wall_HWC + 25 * cv2.GaussianBlur(rng.normal(0, 1, (*size, 3)), (0, 0), 1.5)
    frames = []
    for index in range(num_frames):
        x, y = (round(32 + 20 * float(np.sin(index * speed))) for speed in (0.08, 0.05))
        frame_HWC = wall_HWC[y : y + side_px, x : x + side_px] + rng.normal(0, 1.2, (side_px, side_px, 3))
        frames.append(np.clip(np.rint(frame_HWC), 0, 255).astype(np.uint8))
    return np.stack(frames)


def bench_mark(video: bytes | None = None, *, runs: int = 5, progress: Callable[[float], None]) -> dict[str, Any]:
    """Time marking and reading.

    Args:
        video: a video file, of which 3 s are used; by default `drifting_blobs`.
        runs: of each reading, after one to warm up; marking is timed on every frame.
        progress: is told the share that is done.
    Returns: medians of wall-clock and processor time: `embed_ms_per_frame`, `read_3s_marked_s`, `read_3s_unmarked_s`,
        `read_still_s`; the reading begins with decoded frames and ends with the verdict.
    """
    key = hashlib.sha256(b"placet bench").digest()
    clip = Clip(drifting_blobs(), 25.0) if video is None else decode_clip(video, stop_after_s=_DURATION_S)
    height, width = clip.frames_THWC.shape[1:3]
    num_threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        with threadpool_limits(1):
            embedder = Embedder(key, _MARK, width, height, clip.rate_hz)
            all_planes = [encoder_planes(frame_HWC) for frame_HWC in clip.frames_THWC]
            embedder.mark_planes(encoder_planes(clip.frames_THWC[0]), 0)
            embedding = [
                _timed(lambda planes=planes, index=index: embedder.mark_planes(planes, index))  # type: ignore[misc]
                for index, planes in enumerate(all_planes)
            ]
            progress(0.2)
            marked = Clip(embedder.apply(clip.frames_THWC), clip.rate_hz)
            result: dict[str, Any] = {"width": width, "height": height, "num_threads": 1}
            result |= _medians("embed", "ms_per_frame", 1e3, embedding)
            still = Clip(marked.frames_THWC[:1], clip.rate_hz)
            for step, (name, each) in enumerate((("3s_marked", marked), ("3s_unmarked", clip), ("still", still))):
                times = [_timed(lambda each=each: _read(each, key)) for _ in range(runs + 1)][1:]  # type: ignore[misc]
                result |= _medians(f"read_{name}", "s", 1.0, times)
                progress(0.4 + 0.3 * step)
    finally:
        cv2.setNumThreads(num_threads)
    return result


def _read(clip: Clip, key: bytes) -> None:
    read_mark(colour_track(clip), key, {_MARK}.__contains__, num_registered=1)


def _timed(job: Callable[[], object]) -> tuple[float, float]:
    """Wall-clock and processor time, in seconds."""
    wall_s, processor_s = time.perf_counter(), time.process_time()
    job()
    return time.perf_counter() - wall_s, time.process_time() - processor_s


def _medians(what: str, unit: str, scale: float, times: list[tuple[float, float]]) -> dict[str, float]:
    wall, processor = (round(scale * statistics.median(each), 3) for each in zip(*times, strict=True))
    return {f"{what}_{unit}": wall, f"{what}_processor_{unit}": processor}
