"""The live door out: rendered frames become marked, signed segments of fragmented MP4, one after the other.

One movie fragment per segment, cut at key frames of our own choosing, H.264 and AAC. With the picture alone a segment
is a CMAF one (ISO/IEC 23000-19); with sound both tracks share the fragment, which players take (Media Source, HLS) but
which CMAF's definition of a track does not cover, so it declares plain fragmented MP4.

T frame  H,W pixel  C colour channel (R,G,B)  N sample
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
import av.error
import numpy as np

from watermark.boxes import cut, make
from watermark.colour import EncoderPlanes, encoder_planes
from watermark.embed import Embedder
from watermark.encoding import DELIVERY_SOUND_RATE_HZ, VideoCoding
from watermark.errors import EncodingError, InconsistentFramesError
from watermark.live import EndReason, LiveSigner
from watermark.mark import UnmarkedFrames
from watermark.media import Sound

DEFAULT_SEGMENT_S = 1.0
_STYP = make(b"styp", b"msdh" + bytes(4) + b"msdhmsixcmfs")


@dataclass(frozen=True)
class Segment:
    """A part of a stream.

    Attributes:
        data: `styp`, then, once signed, `emsg`, then one movie fragment with its media.
        duration_s: of the picture.
    """

    data: bytes
    duration_s: float


class _Sink(io.RawIOBase):
    """Where the muxer writes: bytes are taken away as they come."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int:
        self._buffer += data
        return len(data)

    def taken(self) -> bytes:
        """What was written since the last call."""
        data = bytes(self._buffer)
        self._buffer.clear()
        return data


class SegmentEncoder:
    """Codes marked frames and sound into the fragments of one stream.

    Args:
        width, height: of the frames; an odd side loses its last line.
        rate_hz: frames per second.
        has_sound: whether there is a sound track.
        segment_s: duration of a segment; rounded to whole frames.
        coding: quality of the picture. The encoder looks no frame ahead.
    Attributes:
        init_segment: what a player needs first.
    """

    def __init__(
        self,
        *,
        width: int,
        height: int,
        rate_hz: float,
        has_sound: bool = True,
        segment_s: float = DEFAULT_SEGMENT_S,
        coding: VideoCoding | None = None,
    ) -> None:
        coding = coding or VideoCoding()
        self._width, self._height = width & ~1, height & ~1
        self._rate = Fraction(rate_hz).limit_denominator(60_000)
        self._frames_per_segment = max(1, round(segment_s * rate_hz))
        self._num_frames = self._num_emitted = self._num_samples = 0
        self._sink = _Sink()
        self._pending = b""
        flags = "frag_keyframe+empty_moov+default_base_moof+skip_trailer" + ("" if has_sound else "+cmaf")
        options = coding.options() | {"tune": "zerolatency", "sc_threshold": "0", "g": str(2**30), "forced-idr": "1"}
        muxing = {"movflags": flags, "flush_packets": "1", "avoid_negative_ts": "disabled"}
        try:
            self._container: Any = av.open(self._sink, "w", format="mp4", options=muxing)
            video: Any = self._container.add_stream("libx264", rate=self._rate, options=options)
            video.width, video.height, video.pix_fmt = self._width, self._height, "yuv420p"
            context = video.codec_context
            context.time_base = 1 / self._rate
            context.thread_count = coding.num_threads
            context.color_primaries = context.color_trc = context.colorspace = context.color_range = 1
            self._video, self._audio = video, None
            if has_sound:
                self._audio = self._container.add_stream("aac", rate=DELIVERY_SOUND_RATE_HZ, layout="mono")
                self._audio.bit_rate = coding.sound_bit_rate
            self._container.start_encoding()
        except (av.error.FFmpegError, OSError) as exc:
            raise EncodingError(f"The live encoder could not be opened ({type(exc).__name__}).") from exc
        self.init_segment = self._sink.taken()

    @property
    def num_frames(self) -> int:
        """Frames taken so far."""
        return self._num_frames

    def write(self, planes: EncoderPlanes, sound: Sound | None) -> list[Segment]:
        """Append one frame and the sound that goes with it; returns the segments that this completes."""
        colour_2HW = np.clip(np.rint(planes.colour_2HW), 0, 255).astype(np.uint8)
        packed = np.concatenate([planes.luma_HW.reshape(-1), colour_2HW.reshape(-1)])
        frame = av.VideoFrame.from_ndarray(packed.reshape(self._height * 3 // 2, self._width), format="yuv420p")
        frame.pts, frame.time_base = self._num_frames, 1 / self._rate
        frame.colorspace, frame.color_range = 1, 1
        if self._num_frames % self._frames_per_segment == 0:
            frame.pict_type = av.video.frame.PictureType.I
        self._mux(self._video, frame)
        self._num_frames += 1
        if self._audio is not None and sound is not None and len(sound.samples_N):
            self._send_sound(sound)
        return self._completed()

    def finish(self) -> list[Segment]:
        """Close the encoder; returns the last segments."""
        if self._audio is not None:
            self._mux(self._audio, None)
        self._mux(self._video, None)
        try:
            self._container.close()
        except (av.error.FFmpegError, OSError) as exc:
            raise EncodingError(f"The stream could not be completed ({type(exc).__name__}).") from exc
        return self._completed()

    def _send_sound(self, sound: Sound) -> None:
        if sound.rate_hz != DELIVERY_SOUND_RATE_HZ:
            raise InconsistentFramesError(f"Live sound comes at {DELIVERY_SOUND_RATE_HZ} Hz.")
        samples_N = np.ascontiguousarray(sound.samples_N, np.float32)
        frame = av.AudioFrame.from_ndarray(samples_N[None], format="fltp", layout="mono")
        frame.sample_rate, frame.pts = DELIVERY_SOUND_RATE_HZ, self._num_samples
        frame.time_base = Fraction(1, DELIVERY_SOUND_RATE_HZ)
        self._num_samples += len(samples_N)
        self._mux(self._audio, frame)

    def _mux(self, stream: Any, frame: Any) -> None:
        try:
            for packet in stream.encode(frame):
                # AAC begins with a packet of nothing, which lies before the picture's first frame. A fragmented file
                # has no edit list to hide it, and with it all sound would come 21 ms late.
                if packet.pts is None or packet.pts >= 0:
                    self._container.mux(packet)
        except (av.error.FFmpegError, OSError) as exc:
            raise EncodingError(f"The encoder could not write the stream ({type(exc).__name__}).") from exc

    def _completed(self) -> list[Segment]:
        """Whole fragments among what the muxer has written."""
        self._pending += self._sink.taken()
        segments: list[Segment] = []
        while (size := _fragment_size(self._pending)) is not None:
            num_frames = min(self._frames_per_segment, self._num_frames - self._num_emitted)
            self._num_emitted += num_frames
            segments.append(Segment(_STYP + self._pending[:size], float(num_frames / self._rate)))
            self._pending = self._pending[size:]
        return segments


def _fragment_size(data: bytes) -> int | None:
    """Size of the movie fragment and its media at the start of `data`; None while it is not whole."""
    fragment = int.from_bytes(data[:4], "big")
    if len(data) < fragment + 8 or not data:
        return None
    media = int.from_bytes(data[fragment : fragment + 4], "big")
    whole = fragment + media
    return whole if len(data) >= whole and [box.kind for box in cut(data[:whole])] == [b"moof", b"mdat"] else None


class LiveProducer:
    """Marks, codes and signs a stream: frames in, segments that may leave out, and no other way between.

    Args:
        encoder: of this stream.
        embedder: of the mark that every frame carries.
        signer: of this stream.
    Attributes:
        init_segment: signed; to be sent first.
    """

    def __init__(self, encoder: SegmentEncoder, embedder: Embedder, signer: LiveSigner) -> None:
        self._encoder, self._embedder, self._signer = encoder, embedder, signer
        self.init_segment = signer.sign_init(encoder.init_segment)
        self._sent_samples = 0

    def write(self, frames: UnmarkedFrames, sound: Sound | None) -> list[bytes]:
        """Take a batch of frames with the sound that belongs to it; returns the signed segments that it completes.

        Args:
            sound: at 48 kHz, as long as the frames; None where there is no sound track.
        """
        signed: list[bytes] = []
        frames_THWC = UnmarkedFrames._frames(frames)
        for index, frame_HWC in enumerate(frames_THWC):
            planes = encoder_planes(frame_HWC)
            self._embedder.mark_planes(planes, self._encoder.num_frames)
            part = None if sound is None else _part(sound, index, len(frames_THWC))
            signed += self._sign(self._encoder.write(planes, part))
        return signed

    def finish(self, reason: EndReason = "complete") -> list[bytes]:
        """Close the stream; returns the last segments and the signed end."""
        return [*self._sign(self._encoder.finish()), self._signer.end(reason)]

    def _sign(self, segments: list[Segment]) -> list[bytes]:
        return [self._signer.sign_segment(segment.data, segment.duration_s) for segment in segments]


def _part(sound: Sound, index: int, count: int) -> Sound:
    """The `index`-th of `count` parts of a sound."""
    begin, end = (math.ceil(len(sound.samples_N) * place / count) for place in (index, index + 1))
    return Sound(sound.samples_N[begin:end], sound.rate_hz)
