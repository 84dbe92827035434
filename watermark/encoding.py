"""Encoding: frames and sound become files, H.264 or another codec in MP4, sound in time. Nothing here marks or signs.

N sample  H,W pixel  C colour channel (R,G,B)  2 colour difference (Cb,Cr)
"""

from __future__ import annotations

import io
import math
import wave
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Literal, Self

import av
import av.error
import numpy as np
from numpy.typing import NDArray

from watermark.colour import EncoderPlanes, encoder_planes
from watermark.errors import EncodingError
from watermark.media import Clip, Sound

DELIVERY_SOUND_RATE_HZ = 48_000
"""The rate of the sound track in delivered files, which every player accepts."""


ProgressiveCodec = Literal["libx264", "libx265", "libvpx-vp9", "libsvtav1"]


def encode_sound_wav(sound: Sound) -> bytes:
    """The sound as a 16-bit PCM WAV file; the same samples always give the same bytes."""
    samples_N = np.round(np.clip(sound.samples_N, -1.0, 1.0) * 32767).astype("<i2")
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(sound.rate_hz)
        file.writeframes(samples_N.tobytes())
    return buffer.getvalue()


@dataclass(frozen=True)
class VideoCoding:
    """How frames are coded. The default is what is delivered: H.264, visually lossless, fast to start playing."""

    codec: ProgressiveCodec = "libx264"
    crf: int = 18
    preset: str = "veryfast"
    sound_bit_rate: int = 128_000
    num_threads: int = 0

    def options(self) -> dict[str, str]:
        options = {"crf": str(self.crf)}
        if self.codec == "libvpx-vp9":
            return options | {"b": "0", "deadline": "realtime", "cpu-used": "6"}
        if self.codec == "libsvtav1":
            return options | {"preset": "10", "svtav1-params": "lp=1"}
        options["preset"] = self.preset
        if self.codec == "libx265":
            options["x265-params"] = "log-level=none"
        return options


class VideoEncoder:
    """Writes one MP4 file, frame by frame, with its sound interleaved as the picture goes: memory stays flat.

    Use as a context manager. Leaving it by an exception gives the file up: what lies at `dst` is then incomplete, even
    where it plays, and it is the caller's to remove (`mark.produce` does).

    Args:
        dst: an MP4 file to write; or where to write one that stays in memory, in fragments.
        width, height: of the frames, in pixels; an odd side loses its last line.
        rate_hz: frames per second.
        sound: the sound track, or None.
        coding: codec and quality.
        metadata: of the file, by name.
    """

    def __init__(
        self,
        dst: Path | BinaryIO,
        *,
        width: int,
        height: int,
        rate_hz: float,
        sound: Sound | None,
        coding: VideoCoding | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        coding = coding or VideoCoding()
        self._width, self._height = width & ~1, height & ~1
        self._rate = Fraction(rate_hz).limit_denominator(60_000)
        self._num_frames = 0
        self._sound_sent = 0
        self._closed = False
        try:
            target: Any = str(dst) if isinstance(dst, Path) else dst
            order = "+faststart" if isinstance(dst, Path) else "+frag_keyframe+empty_moov+default_base_moof"
            flags = {"movflags": f"{order}+use_metadata_tags"}
            self._container: Any = av.open(target, "w", format="mp4", options=flags)
            self._container.metadata.update(metadata or {})
            video: Any = self._container.add_stream(coding.codec, rate=self._rate, options=coding.options())
            video.width, video.height, video.pix_fmt = self._width, self._height, "yuv420p"
            video.codec_context.time_base = 1 / self._rate
            video.codec_context.thread_count = coding.num_threads
            # BT.709 primaries, transfer and matrix, limited range: written into the stream, so no player guesses.
            video.codec_context.color_primaries = video.codec_context.color_trc = video.codec_context.colorspace = 1
            video.codec_context.color_range = 1
            self._video = video
            self._audio: Any = None
            if sound is not None:
                self._sound = sound.resampled(DELIVERY_SOUND_RATE_HZ)
                self._audio = self._container.add_stream("aac", rate=DELIVERY_SOUND_RATE_HZ, layout="mono")
                self._audio.bit_rate = coding.sound_bit_rate
        except (av.error.FFmpegError, OSError) as exc:
            raise EncodingError(f"The video file could not be opened for writing ({type(exc).__name__}).") from exc

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None:
            self.finish()
        elif not self._closed:
            self._closed = True
            # The file is given up: the exception that brought us here is the one to show.
            with suppress(av.error.FFmpegError, OSError):
                self._container.close()

    @property
    def num_frames(self) -> int:
        return self._num_frames

    def write_planes(self, planes: EncoderPlanes) -> None:
        """Append one frame given as `encoder_planes` makes them."""
        colour_2HW = np.clip(np.rint(planes.colour_2HW), 0, 255).astype(np.uint8)
        packed = np.concatenate([planes.luma_HW.reshape(-1), colour_2HW.reshape(-1)])
        frame = av.VideoFrame.from_ndarray(packed.reshape(self._height * 3 // 2, self._width), format="yuv420p")
        frame.pts, frame.time_base = self._num_frames, 1 / self._rate
        frame.colorspace, frame.color_range = 1, 1
        self._mux(self._video, frame)
        self._num_frames += 1
        if self._audio is not None:
            self._send_sound(math.ceil(self._num_frames / self._rate * DELIVERY_SOUND_RATE_HZ))

    def write(self, frame_HWC: NDArray[np.uint8]) -> None:
        """Append one sRGB frame."""
        self.write_planes(encoder_planes(frame_HWC))

    def finish(self) -> None:
        """Append what is left of the sound, and complete the file."""
        if self._closed:
            return
        if self._audio is not None:
            self._send_sound(len(self._sound.samples_N))
            self._mux(self._audio, None)
        self._mux(self._video, None)
        self._closed = True
        try:
            self._container.close()
        except (av.error.FFmpegError, OSError) as exc:
            raise EncodingError(f"The video file could not be completed ({type(exc).__name__}).") from exc

    def _send_sound(self, end: int) -> None:
        end = min(end, len(self._sound.samples_N))
        if end <= self._sound_sent:
            return
        chunk_N = np.ascontiguousarray(self._sound.samples_N[self._sound_sent : end])
        frame = av.AudioFrame.from_ndarray(chunk_N[None], format="fltp", layout="mono")
        frame.sample_rate, frame.pts = DELIVERY_SOUND_RATE_HZ, self._sound_sent
        frame.time_base = Fraction(1, DELIVERY_SOUND_RATE_HZ)
        self._sound_sent = end
        self._mux(self._audio, frame)

    def _mux(self, stream: Any, frame: Any) -> None:
        try:
            for packet in stream.encode(frame):
                self._container.mux(packet)
        except (av.error.FFmpegError, OSError) as exc:
            raise EncodingError(f"The encoder could not write the video ({type(exc).__name__}).") from exc


def encode_clip(clip: Clip, dst: Path, coding: VideoCoding | None = None) -> None:
    """Write a whole clip at its mean rate. Unmarked: `mark.produce` is what delivers."""
    height, width = clip.frames_THWC.shape[1:3]
    with VideoEncoder(
        dst, width=width, height=height, rate_hz=clip.rate_hz, sound=clip.sound, coding=coding
    ) as encoder:
        for frame_HWC in clip.frames_THWC:
            encoder.write(frame_HWC)
