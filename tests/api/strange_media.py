"""Media as cameras, tools and mischief make them: turned, interlaced, deep, see-through, huge, endless, crowded."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Iterable
from fractions import Fraction
from typing import Any

import av
import numpy as np
from PIL import Image

from tests.detector.drawing import draw_face

SIDE_PX = 192


def swaying(num_frames: int, side_px: int = SIDE_PX, seed: int = 30) -> list[np.ndarray]:
    """A drawn face before an unsteady camera."""
    face_HWC = draw_face(seed, side_px)
    return [np.roll(face_HWC, round(3 * np.sin(i / 4)), axis=1) for i in range(num_frames)]


def video(
    frames: Iterable[np.ndarray],
    *,
    codec: str = "libx264",
    container: str = "mp4",
    rate_hz: float = 25.0,
    pixels: str = "yuv420p",
    times_s: Iterable[float] | None = None,
    turned_deg: int = 0,
    options: dict[str, str] | None = None,
    interlaced: bool = False,
) -> bytes:
    """A video file of sRGB frames.

    Args:
        times_s: when each frame shows; by default evenly spaced.
        turned_deg: display matrix, as phones write it.
        interlaced: coded as two fields.
    """
    target = io.BytesIO()
    stamps = None if times_s is None else list(times_s)
    with av.open(target, "w", format=container) as file:
        stream: Any = file.add_stream(codec, rate=Fraction(rate_hz).limit_denominator(1000), options=options or {})
        stream.pix_fmt = pixels
        stream.codec_context.time_base = Fraction(1, 1000)
        for number, frame_HWC in enumerate(frames):
            if number == 0:
                stream.height, stream.width = frame_HWC.shape[:2]
                if turned_deg:
                    stream.set_display_rotation(turned_deg)
            kind = "rgba" if frame_HWC.shape[2] == 4 else "rgb24"
            frame = av.VideoFrame.from_ndarray(frame_HWC, format=kind).reformat(format=pixels)
            frame.time_base = Fraction(1, 1000)
            frame.pts = round(1000 * (number / rate_hz if stamps is None else stamps[number]))
            if interlaced:
                frame.interlaced_frame = True
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    return target.getvalue()


def variable_rate() -> bytes:
    """Thirty frames that show when they like."""
    rng = np.random.default_rng(1)
    return video(swaying(30), times_s=np.cumsum(rng.uniform(0.01, 0.12, 30)).tolist())


def turned() -> bytes:
    """Recorded sideways, with the turn in the metadata."""
    frames = [np.ascontiguousarray(np.rot90(frame_HWC, -1)) for frame_HWC in swaying(20)]
    return video(frames, turned_deg=90)


def ten_bits() -> bytes:
    return video(swaying(20), pixels="yuv420p10le")


def interlaced() -> bytes:
    """Two fields a frame, each from another moment."""
    frames = swaying(40)
    woven = []
    for first, second in zip(frames[::2], frames[1::2], strict=True):
        woven_HWC = first.copy()
        woven_HWC[1::2] = second[1::2]
        woven.append(woven_HWC)
    return video(woven, options={"x264-params": "tff=1:interlaced=1"})


def see_through() -> bytes:
    """VP9 with an alpha channel."""
    alpha_HW1 = np.full((SIDE_PX, SIDE_PX, 1), 128, np.uint8)
    frames = [np.concatenate([frame_HWC, alpha_HW1], axis=2) for frame_HWC in swaying(18)]
    return video(frames, codec="libvpx-vp9", container="webm", pixels="yuva420p", options={"cpu-used": "8"})


def one_a_second() -> bytes:
    """Twenty seconds at one frame a second."""
    return video(swaying(20), rate_hz=1.0)


def an_hour() -> bytes:
    """Sixty minutes at one frame a second, of next to nothing."""
    return video((np.full((64, 64, 3), 60 + i % 100, np.uint8) for i in range(3600)), rate_hz=1.0)


def eight_k() -> bytes:
    """7680×4320, two frames."""
    grey_HWC = np.full((4320, 7680, 3), 90, np.uint8)
    return video([grey_HWC, grey_HWC], options={"preset": "ultrafast"})


def crowd(num_faces: int = 500, cell_px: int = 72) -> np.ndarray:
    """A picture of so many drawn faces, each about 40 pixels large."""
    columns = 25
    rows = -(-num_faces // columns)
    tiles = [draw_face(seed, cell_px) for seed in range(12)]
    picture_HWC = np.zeros((rows * cell_px, columns * cell_px, 3), np.uint8)
    for number in range(num_faces):
        row, column = divmod(number, columns)
        top, left = row * cell_px, column * cell_px
        picture_HWC[top : top + cell_px, left : left + cell_px] = tiles[number % len(tiles)]
    return picture_HWC


def crowd_clip() -> bytes:
    """Five hundred faces for most of a second."""
    picture_HWC = crowd()
    return video([np.roll(picture_HWC, i % 3, axis=1) for i in range(18)], options={"preset": "ultrafast"})


def several_faces() -> bytes:
    """Three faces side by side; the middle one is the largest."""
    small, large = draw_face(31, 224), draw_face(32, 384)
    frames = []
    for number in range(24):
        canvas_HWC = np.full((416, 864, 3), 120, np.uint8)
        shift = round(3 * np.sin(number / 4))
        canvas_HWC[150:374, 4:228] = np.roll(small, shift, axis=1)
        canvas_HWC[16:400, 240:624] = np.roll(large, shift, axis=0)
        canvas_HWC[150:374, 632:856] = np.roll(small[:, ::-1], -shift, axis=1)
        frames.append(canvas_HWC)
    return video(frames)


def zip_bomb() -> bytes:
    """An archive of a hundred megabytes of nothing."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("clip.mp4", bytes(100 * 2**20))
    return target.getvalue()


def picture_bomb(side_px: int = 60_000) -> bytes:
    """A PNG of a few kilobytes that says it is gigabytes large."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", side_px, side_px, 8, 2, 0, 0, 0)
    rows = zlib.compress(bytes(1 + 3 * side_px) * 200, 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def packed_manifest_bomb() -> bytes:
    """A PNG whose text chunks unpack to a hundred megabytes each."""
    out = io.BytesIO()
    Image.new("RGB", (32, 32)).save(out, "PNG")
    whole = out.getvalue()
    text = zlib.compress(bytes(100 * 2**20), 9)
    content = b"bomb\0\0" + text
    chunk = struct.pack(">I", len(content)) + b"zTXt" + content + struct.pack(">I", zlib.crc32(b"zTXt" + content))
    return whole[:33] + chunk * 3 + whole[33:]


def page() -> bytes:
    """A web page, whatever its name."""
    return b"<!doctype html><html><body><script>alert(1)</script></body></html>" * 50
