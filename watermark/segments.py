"""The live door out: rendered frames become marked, signed segments of fragmented MP4, one after the other.

One movie fragment per segment, H.264 and AAC, of as few frames as are wanted, key frames where they are wanted. With
the picture alone a segment is a CMAF one (ISO/IEC 23000-19), or a CMAF chunk where it does not begin with a key frame;
with sound both tracks share the fragment, which players take (Media Source, HLS) but which CMAF's definition of a track
does not cover, so it declares plain fragmented MP4.

The mark in the sound needs some 0.2 s of what follows. So sound comes in later segments than the picture that it
belongs to; its time stamps put it back in its place.

T frame  H,W pixel  C colour channel (R,G,B)  N sample
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import av
import av.error
import numpy as np

from watermark.audio_mark import AudioEmbedder
from watermark.boxes import make
from watermark.colour import EncoderPlanes, encoder_planes
from watermark.embed import Embedder
from watermark.encoding import DELIVERY_SOUND_RATE_HZ, VideoCoding
from watermark.errors import EncodingError, InconsistentFramesError
from watermark.fingerprint import FingerprintTaker
from watermark.fragments import Run, Sample, fragment, length_prefixed, tracks
from watermark.labels import Labels
from watermark.live import EndReason, LiveSigner
from watermark.mark import UnmarkedFrames
from watermark.media import Sound

DEFAULT_SEGMENT_S = 1.0
_AAC_SAMPLES = 1024
_STYP = make(b"styp", b"msdh" + bytes(4) + b"msdhmsixcmfs")


@dataclass(frozen=True)
class Segment:
    """A part of a stream.

    Attributes:
        data: `styp`, then, once signed, `emsg`, then one movie fragment with its media.
        num_frames: of the picture; 0 for what is left of the sound at the end.
        duration_s: of the picture.
    """

    data: bytes
    num_frames: int
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
        key_frame_s: from one key frame to the next; rounded to whole frames. By default every segment begins with one.
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
        key_frame_s: float | None = None,
        coding: VideoCoding | None = None,
    ) -> None:
        coding = coding or VideoCoding()
        self._width, self._height = width & ~1, height & ~1
        self._rate = Fraction(rate_hz).limit_denominator(60_000)
        self._frames_per_segment = max(1, round(segment_s * rate_hz))
        self._frames_per_key = max(1, round((key_frame_s or segment_s) * rate_hz))
        self._num_frames = self._num_emitted = self._num_samples = self._num_segments = 0
        self._pictures: list[Sample] = []
        self._sounds: list[Sample] = []
        self._sound_start = 0
        sink = _Sink()
        # The muxer writes the init segment only; the fragments are our own.
        flags = "frag_keyframe+empty_moov+default_base_moof+skip_trailer" + ("" if has_sound else "+cmaf")
        options = coding.options() | {"tune": "zerolatency", "sc_threshold": "0", "g": str(2**30), "forced-idr": "1"}
        try:
            self._container: Any = av.open(sink, "w", format="mp4", options={"movflags": flags})
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
        self.init_segment = sink.taken()
        by_handler = {track.handler: track for track in tracks(self.init_segment)}
        self._video_track, self._audio_track = by_handler[b"vide"], by_handler.get(b"soun")
        self._frame_ticks = round(self._video_track.timescale / self._rate)

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
        if self._num_frames % self._frames_per_key == 0:
            frame.pict_type = av.video.frame.PictureType.I
        self._code_picture(frame)
        self._num_frames += 1
        if self._audio is not None and sound is not None and len(sound.samples_N):
            self._send_sound(sound)
        return [self._segment()] if len(self._pictures) == self._frames_per_segment else []

    def finish(self, sound: Sound | None = None) -> list[Segment]:
        """Close the encoder; returns the last segments.

        Args:
            sound: what is left of it.
        """
        if self._audio is not None:
            if sound is not None and len(sound.samples_N):
                self._send_sound(sound)
            self._code_sound(None)
        self._code_picture(None)
        return [self._segment()] if self._pictures or self._sounds else []

    def _send_sound(self, sound: Sound) -> None:
        if sound.rate_hz != DELIVERY_SOUND_RATE_HZ:
            raise InconsistentFramesError(f"Live sound comes at {DELIVERY_SOUND_RATE_HZ} Hz.")
        samples_N = np.ascontiguousarray(sound.samples_N, np.float32)
        frame = av.AudioFrame.from_ndarray(samples_N[None], format="fltp", layout="mono")
        frame.sample_rate, frame.pts = DELIVERY_SOUND_RATE_HZ, self._num_samples
        frame.time_base = Fraction(1, DELIVERY_SOUND_RATE_HZ)
        self._num_samples += len(samples_N)
        self._code_sound(frame)

    def _code_picture(self, frame: Any) -> None:
        for packet in self._coded(self._video, frame):
            data = length_prefixed(bytes(packet))
            self._pictures.append(Sample(data, self._frame_ticks, bool(packet.is_keyframe)))

    def _code_sound(self, frame: Any) -> None:
        for packet in self._coded(self._audio, frame):
            # AAC begins with a packet of nothing, which lies before the picture's first frame. A fragmented file
            # has no edit list to hide it, and with it all sound would come 21 ms late.
            if packet.pts is None or packet.pts >= 0:
                self._sounds.append(Sample(bytes(packet), int(packet.duration or _AAC_SAMPLES), True))

    @staticmethod
    def _coded(stream: Any, frame: Any) -> list[Any]:
        try:
            return list(stream.encode(frame))
        except (av.error.FFmpegError, OSError) as exc:
            raise EncodingError(f"The encoder could not write the stream ({type(exc).__name__}).") from exc

    def _segment(self) -> Segment:
        """Everything coded since the last one, as a segment."""
        runs: list[Run] = []
        if self._pictures:
            runs.append(Run(self._video_track, self._num_emitted * self._frame_ticks, self._pictures))
        if self._sounds and self._audio_track is not None:
            runs.append(Run(self._audio_track, self._sound_start, self._sounds))
            self._sound_start += sum(sample.duration for sample in self._sounds)
        self._num_segments += 1
        num_frames = len(self._pictures)
        data = _STYP + fragment(self._num_segments, runs)
        self._num_emitted += num_frames
        self._pictures, self._sounds = [], []
        return Segment(data, num_frames, float(num_frames / self._rate))


class LiveProducer:
    """Marks, codes and signs a stream: frames in, segments that may leave out, and no other way between.

    Args:
        encoder: of this stream.
        embedder: of the mark that every frame carries.
        signer: of this stream.
        sound_embedder: of the mark that the sound carries, at 48 kHz; None for sound without one.
        labels: what is drawn into the picture.
        fingerprints: is shown what is coded, for a recording; see `watermark.recording`.
    Attributes:
        init_segment: signed; to be sent first.
        manifest_id: of the manifest in it.
    """

    def __init__(
        self,
        encoder: SegmentEncoder,
        embedder: Embedder,
        signer: LiveSigner,
        *,
        sound_embedder: AudioEmbedder | None = None,
        labels: Labels | None = None,
        fingerprints: FingerprintTaker | None = None,
    ) -> None:
        self._encoder, self._embedder, self._signer = encoder, embedder, signer
        self._sound_mark = None if sound_embedder is None else sound_embedder.stream()
        self._labels, self._fingerprints = labels, fingerprints
        self.init_segment = signer.sign_init(encoder.init_segment)
        self.manifest_id = signer.manifest_id

    def write(self, frames: UnmarkedFrames, sound: Sound | None) -> list[bytes]:
        """Take a batch of frames with the sound that belongs to it; returns the signed segments that it completes.

        Args:
            sound: at 48 kHz, as long as the frames; None where there is no sound track.
        """
        return [segment.data for segment in self.write_segments(frames, sound)]

    def write_segments(self, frames: UnmarkedFrames, sound: Sound | None) -> list[Segment]:
        """The same, with what each segment holds."""
        signed: list[Segment] = []
        frames_THWC = UnmarkedFrames._frames(frames)
        for index, frame_HWC in enumerate(frames_THWC):
            number, time_s = self._encoder.num_frames, self._encoder.num_frames / self._embedder.rate_hz
            planes = encoder_planes(frame_HWC if self._labels is None else self._labels.drawn(frame_HWC, time_s))
            self._embedder.mark_planes(planes, number)
            if self._fingerprints is not None:
                self._fingerprints.add(planes.luma_HW, time_s)
            part = None if sound is None else self._marked(_part(sound, index, len(frames_THWC)))
            signed += self._sign(self._encoder.write(planes, part))
        return signed

    def finish(self, reason: EndReason = "complete") -> list[bytes]:
        """Close the stream; returns the last segments and the signed end."""
        return [*(segment.data for segment in self.finish_segments()), self._signer.end(reason)]

    def finish_segments(self) -> list[Segment]:
        """Close the stream; returns the last segments, without the end, which somebody else signs (`EndSigner`)."""
        rest = None if self._sound_mark is None else Sound(self._sound_mark.finish(), DELIVERY_SOUND_RATE_HZ)
        return self._sign(self._encoder.finish(rest))

    def _marked(self, sound: Sound) -> Sound:
        if self._sound_mark is None:
            return sound
        return Sound(self._sound_mark.write(sound.samples_N), sound.rate_hz)

    def _sign(self, segments: list[Segment]) -> list[Segment]:
        return [
            replace(segment, data=self._signer.sign_segment(segment.data, segment.duration_s)) for segment in segments
        ]


def _part(sound: Sound, index: int, count: int) -> Sound:
    """The `index`-th of `count` parts of a sound."""
    begin, end = (math.ceil(len(sound.samples_N) * place / count) for place in (index, index + 1))
    return Sound(sound.samples_N[begin:end], sound.rate_hz)
