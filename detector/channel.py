"""What happens to a clip between its maker and whoever doubts it: the one path that every item of both classes takes.

A detector that sees authentic material fresh from disk and synthetic material twice compressed learns compression. So
each clip, of either class, is (1) marked or not by chance, (2) coded as deliveries are, (3) shaken, scaled, blurred,
dimmed, made noisy, and (4) coded again, all by settings drawn without looking at the label, and shared within a pair.

T frame  H,W pixel  C colour
"""

from __future__ import annotations

import hashlib
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import UInt8

from detector.camera import CameraStyle, sway
from watermark.colour import encoder_planes
from watermark.embed import Embedder
from watermark.encoding import ProgressiveCodec, VideoCoding, VideoEncoder, encode_clip
from watermark.media import Clip, decode_clip
from watermark.payload import MarkId

CODECS: tuple[ProgressiveCodec, ...] = ("libx264", "libx265")
"""Of the second coding. Others are for measuring what was never seen."""

# Keys of no instance: they only put marks on authentic training material. Few, because each costs a second to unfold.
_KEYS = tuple(hashlib.sha256(b"placet detector corpus key %d" % number).digest() for number in range(3))


class Arrival(NamedTuple):
    """A clip after its journey.

    Attributes:
        clip: what the detector is shown.
        num_bytes: size of the last file.
    """

    clip: Clip
    num_bytes: int

    @property
    def bits_per_pixel(self) -> float:
        num_frames, height, width = self.clip.frames_THWC.shape[:3]
        return 8 * self.num_bytes / (num_frames * height * width)


@dataclass(frozen=True)
class Channel:
    """One journey, drawn by chance.

    Attributes:
        side_px: longer side of the frames on arrival.
        flip: mirrored left to right.
        blur_px: standard deviation of a Gaussian blur.
        gain: factor on brightness.
        camera: how the clip is shaken, and the noise that is added.
        seed: what shaking and noise are drawn from.
        codec, crf: the second coding.
    """

    side_px: int
    flip: bool
    blur_px: float
    gain: float
    camera: CameraStyle
    seed: int
    codec: ProgressiveCodec
    crf: int

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Channel:
        codec = CODECS[int(rng.choice(2, p=[0.75, 0.25]))]
        return cls(
            side_px=int(rng.choice([512, 512, 448, 384, 320, 256])),
            flip=bool(rng.random() < 0.5),
            blur_px=float(rng.choice([0.0, 0.0, 0.6, 1.0])),
            gain=float(rng.uniform(0.8, 1.2)),
            camera=CameraStyle.draw(rng),
            seed=int(rng.integers(2**31)),
            codec=codec,
            crf=int(rng.integers(18, 36)),
        )

    @classmethod
    def clean(cls) -> Channel:
        """Nothing but the second coding, at delivery quality."""
        return cls(512, False, 0.0, 1.0, CameraStyle(0.0, 0.0, 0.0, 0.0), 0, "libx264", 18)

    def carry(self, clip: Clip) -> Arrival:
        """Send a clip as it was delivered on its journey. Raises: EncodingError."""
        frames_THWC = np.stack([self._disturb(frame_HWC) for frame_HWC in clip.frames_THWC])
        frames_THWC = sway(frames_THWC, self.camera, np.random.default_rng(self.seed), rate_hz=clip.rate_hz)
        return recode(Clip(frames_THWC, clip.rate_hz), VideoCoding(self.codec, self.crf, num_threads=1))

    def _disturb(self, frame_HWC: UInt8[np.ndarray, "h w 3"]) -> np.ndarray:
        height, width = frame_HWC.shape[:2]
        scale = self.side_px / max(height, width)
        if scale != 1:
            how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
            frame_HWC = cv2.resize(frame_HWC, (round(width * scale), round(height * scale)), interpolation=how)
        if self.flip:
            frame_HWC = np.ascontiguousarray(frame_HWC[:, ::-1])
        if self.blur_px > 0:
            frame_HWC = cv2.GaussianBlur(frame_HWC, (0, 0), self.blur_px)
        if self.gain != 1.0:
            frame_HWC = cv2.convertScaleAbs(frame_HWC, alpha=self.gain)
        return frame_HWC


def deliver(
    frames_THWC: UInt8[np.ndarray, "t h w 3"], rate_hz: float, rng: np.random.Generator, *, is_marked: bool
) -> Clip:
    """Make a delivery of frames that were never rendered: coded and, if so wished, marked under a key and id of chance.

    What this returns stays in memory: it exists so that neither the mark nor the first coding is the label.
    """
    height, width = frames_THWC.shape[1:3]
    embedder = None
    if is_marked:
        key = _KEYS[int(rng.integers(len(_KEYS)))]
        embedder = Embedder(key, MarkId.random(rng.bytes), width, height, rate_hz)
    first_index = int(rng.integers(100))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "delivery.mp4"
        coding = VideoCoding(num_threads=1)
        with VideoEncoder(path, width=width, height=height, rate_hz=rate_hz, sound=None, coding=coding) as encoder:
            for index, frame_HWC in enumerate(frames_THWC):
                planes = encoder_planes(frame_HWC)
                if embedder is not None:
                    embedder.mark_planes(planes, first_index + index)
                encoder.write_planes(planes)
        return decode_clip(path)


def without_mark(clip: Clip, key: bytes, mark_id: MarkId, first_index: int = 0) -> Clip:
    """A delivery, or the part of it that begins with frame `first_index`, with its own mark taken off, as only the
    holder of the key can: for training, in memory."""
    height, width = clip.frames_THWC.shape[1:3]
    embedder = Embedder(key, mark_id, width, height, clip.rate_hz, strength=-1.0)
    return Clip(embedder.apply(clip.frames_THWC, first_index), clip.rate_hz)


def recode(clip: Clip, coding: VideoCoding) -> Arrival:
    """Code a clip and decode it again. Raises: EncodingError."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        encode_clip(clip, path, coding)
        return Arrival(decode_clip(path), path.stat().st_size)
