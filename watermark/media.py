"""Clips and sounds, and the only code that decodes them (PyAV); `encoding` is the way out.

What comes in is distrusted: the container is recognised by its first bytes and never guessed, playlists and every
other format that could open a second file or address are unknown here, codecs are listed, and every count (bytes,
pixels, frames, channels, seconds) is bounded before memory is spent on it.

T frame  H,W pixel  N sample  C colour channel (R,G,B)  2 colour difference (Cb,Cr)
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av
import av.error
import numpy as np
from numpy.typing import NDArray
from scipy.signal import resample_poly

from watermark.colour import (
    LIMITED_COLOUR_SCALE,
    LIMITED_LUMA_SCALE,
    ColourTrack,
    DetailKeeper,
    FrameViewer,
    detail_size,
    fitted_size,
)
from watermark.errors import (
    EmptyInputError,
    InputTooLargeError,
    InputTooLongError,
    NoAudioTrackError,
    NoVideoTrackError,
    SilentSoundError,
    UnreadableMediaError,
    UnsupportedMediaError,
)

SPEECH_RATE_HZ = 16_000
"""The rate at which speech is hashed, analysed and kept."""


_VIDEO_CODECS = frozenset(
    ("h264", "hevc", "vp8", "vp9", "libdav1d", "av1", "mpeg4", "mpeg1video", "mpeg2video", "prores", "ffv1", "mjpeg")
)
_AUDIO_CODECS = frozenset(
    ("aac", "mp3", "mp3float", "mp2", "mp2float", "mp1", "mp1float", "opus", "libopus", "vorbis", "libvorbis")
) | {"flac", "alac", "ac3", "eac3", "amrnb", "amrwb", "libopencore_amrnb", "libopencore_amrwb"}
_SOUND_RATES_HZ = (4_000, 384_000)
_SILENCE_PEAK = 10 ** (-60 / 20)  # −60 dB of full scale: below the noise floor of any microphone in use


@dataclass(frozen=True)
class MediaLimits:
    """The most that is taken in from one file."""

    max_bytes: int = 256 * 2**20
    max_duration_s: float = 600.0
    max_side_px: int = 4096
    max_pixels: int = 3840 * 2160
    max_frames: int = 36_000
    max_decoded_bytes: int = 3 * 2**30
    max_channels: int = 16


SPEECH_LIMITS = MediaLimits(max_bytes=128 * 2**20)
CLIP_LIMITS = MediaLimits()


@dataclass(frozen=True)
class Sound:
    """A mono sound: `samples_N` float32 in −1..1 at `rate_hz`."""

    samples_N: NDArray[np.float32]
    rate_hz: int

    @property
    def duration_s(self) -> float:
        return len(self.samples_N) / self.rate_hz

    def resampled(self, rate_hz: int) -> Sound:
        """The same sound at another rate (polyphase filter, no delay)."""
        if rate_hz == self.rate_hz:
            return self
        common = math.gcd(rate_hz, self.rate_hz)
        samples_N = resample_poly(self.samples_N, rate_hz // common, self.rate_hz // common)
        return Sound(np.clip(samples_N, -1.0, 1.0).astype(np.float32), rate_hz)


@dataclass(frozen=True)
class Clip:
    """Moving pictures with their times.

    Attributes:
        frames_THWC: sRGB, uint8, upright (rotation metadata is applied).
        rate_hz: mean frames per second.
        sound: the first sound track, or None. Sample 0 sounds when frame 0 shows.
        times_T: when each frame shows, in seconds from the first. Frames need not be evenly spaced.
    """

    frames_THWC: NDArray[np.uint8]
    rate_hz: float
    sound: Sound | None = None
    times_T: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))

    def __post_init__(self) -> None:
        if len(self.times_T) != len(self.frames_THWC):
            object.__setattr__(self, "times_T", np.arange(len(self.frames_THWC)) / self.rate_hz)

    @property
    def duration_s(self) -> float:
        return float(self.times_T[-1]) + 1 / self.rate_hz if len(self.times_T) else 0.0


# ---- taking in -------------------------------------------------------------------------------------------------------

_IMAGE_BRANDS = (b"heic", b"heix", b"heif", b"mif1", b"msf1", b"avif", b"avis", b"crx ")


def sniff_container(head: bytes) -> str | None:
    """The demuxer for a file that begins with `head` (512 bytes are enough), or None for all that is not read here.

    A closed list by magic number: formats that refer to other files or addresses (playlists, concat, SDP) and raw
    formats without a magic number are not in it.
    """
    if head[:4] in (b"RIFF", b"RF64"):
        return {b"WAVE": "wav", b"AVI ": "avi"}.get(head[8:12])
    if head[4:8] == b"ftyp":
        return None if head[8:12] in _IMAGE_BRANDS else "mov"
    if head[4:8] in (b"moov", b"mdat", b"wide", b"free", b"skip"):
        return "mov"
    for magic, demuxer in (
        (b"fLaC", "flac"),
        (b"OggS", "ogg"),
        (b"\x1aE\xdf\xa3", "matroska"),
        (b"ID3", "mp3"),
        (b"#!AMR", "amr"),
        (b"caff", "caf"),
        (b".snd", "au"),
        (b"FLV\x01", "flv"),
        (b"\x00\x00\x01\xba", "mpeg"),
        (b"\x00\x00\x01\xb3", "mpegvideo"),
    ):
        if head.startswith(magic):
            return demuxer
    if head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
        return "aiff"
    if len(head) > 188 and head[0] == 0x47 and head[188] == 0x47:
        return "mpegts"
    if len(head) > 3 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0:
        return "aac" if head[1] & 0xF6 == 0xF0 else "mp3"
    return None


@contextmanager
def _opened(source: bytes | Path, limits: MediaLimits, wanted: str) -> Iterator[Any]:
    """An open input container; FFmpeg's complaints, also those raised while decoding, leave here as ours."""
    num_bytes = len(source) if isinstance(source, bytes) else source.stat().st_size
    if num_bytes == 0:
        raise EmptyInputError(f"The {wanted} file is empty (0 bytes). Send the file again.")
    if num_bytes > limits.max_bytes:
        raise InputTooLargeError("bytes", num_bytes, limits.max_bytes)
    with io.BytesIO(source) if isinstance(source, bytes) else source.open("rb") as file:
        head = file.read(512)
        file.seek(0)
        demuxer = sniff_container(head)
        if demuxer is None:
            raise UnsupportedMediaError(
                f"The file is not a {wanted} file that is read here. Send "
                + ("WAV, FLAC, MP3, M4A/AAC, Ogg or AIFF." if wanted == "sound" else "MP4/MOV, WebM/MKV, AVI or MPEG.")
            )
        try:
            with av.open(
                file,
                format=demuxer,
                metadata_errors="ignore",
                # Nothing that a file says may make FFmpeg open another file or address.
                options={"protocol_whitelist": "", "enable_drefs": "0", "use_absolute_path": "0"},
            ) as container:
                yield container
        except (av.error.FFmpegError, EOFError) as exc:
            raise UnreadableMediaError(
                f"The {wanted} file is damaged or cut short ({type(exc).__name__}). Export it again and resend it."
            ) from exc


def _declared_duration_s(container: Any) -> float | None:
    return container.duration / 1e6 if container.duration else None


def _moving_picture(container: Any) -> Any | None:
    """The first video stream that is not a cover picture."""
    for stream in container.streams.video:
        if not (stream.disposition & stream.disposition.attached_pic):
            return stream
    return None


def _check_codec(stream: Any, allowed: frozenset[str]) -> None:
    name = stream.codec_context.name if stream.codec_context is not None else "unknown"
    if name not in allowed and not (stream.type == "audio" and name.startswith("pcm_")):
        raise UnsupportedMediaError(
            f"The {stream.type} track is coded as {name}, which is not read here. Export it as H.264 or AAC."
        )


@dataclass(frozen=True)
class MediaInfo:
    """What a file says about itself; unverified, nothing is decoded."""

    container: str
    unverified_duration_s: float | None
    video: tuple[str, int, int, float] | None  # codec, width, height, frames per second
    audio: tuple[str, int, int] | None  # codec, samples per second, channels


def probe(source: bytes | Path, limits: MediaLimits = CLIP_LIMITS) -> MediaInfo:
    """What `source` claims to hold, without decoding it. Raises as `decode_clip` does."""
    with _opened(source, limits, "video") as container:
        picture = _moving_picture(container)
        sounds = container.streams.audio
        return MediaInfo(
            container.format.name,
            _declared_duration_s(container),
            (picture.codec_context.name, picture.width, picture.height, float(picture.average_rate or 0))
            if picture
            else None,
            (sounds[0].codec_context.name, sounds[0].rate, sounds[0].channels) if sounds else None,
        )


class _SoundCollector:
    """Gathers the frames of one sound track as mono float32 at one rate, within the limits."""

    def __init__(self, stream: Any, rate_hz: int, limits: MediaLimits) -> None:
        _check_codec(stream, _AUDIO_CODECS)
        if stream.channels > limits.max_channels:
            raise InputTooLargeError("channels", stream.channels, limits.max_channels)
        self._check_rate(stream.rate)
        self._resampler: av.AudioResampler | None = None
        self._form: tuple[str, str, int] | None = None
        self._rate_hz, self._limits = rate_hz, limits
        self._parts: list[NDArray[np.float32]] = []
        self._num_samples = 0
        self.start_s: float | None = None

    def add(self, frame: Any) -> None:
        if frame.format.name.startswith(("flt", "dbl")) and not np.isfinite(frame.to_ndarray()).all():
            raise UnreadableMediaError(
                "The sound holds samples that are not numbers (NaN or infinity). Export it as 16-bit PCM and resend it."
            )
        if self.start_s is None:
            self.start_s = frame.time or 0.0
        form = (frame.format.name, frame.layout.name, frame.sample_rate)
        if form != self._form:  # the first frame, or a stream that changes its channels or rate on the way
            self._take(None)
            self._check_rate(frame.sample_rate)
            self._form = form
            self._resampler = av.AudioResampler(format="flt", layout="mono", rate=self._rate_hz)
        frame.pts = None  # the samples are contiguous; stamps that jump must not make the resampler invent silence
        self._take(frame)

    @staticmethod
    def _check_rate(rate_hz: int) -> None:
        low, high = _SOUND_RATES_HZ
        if not low <= rate_hz <= high:  # also: resampling from a few hertz takes minutes
            raise UnsupportedMediaError(
                f"The sound has {rate_hz} samples per second; {low} to {high} are read. Export it at 48000."
            )

    def _take(self, frame: Any) -> None:
        if self._resampler is None:
            return
        for part in self._resampler.resample(frame):
            samples_N = np.asarray(part.to_ndarray(), np.float32).reshape(-1)
            self._parts.append(samples_N)
            self._num_samples += len(samples_N)
            if self._num_samples > self._limits.max_duration_s * self._rate_hz:
                raise InputTooLongError(self._num_samples / self._rate_hz, self._limits.max_duration_s)

    @property
    def num_samples(self) -> int:
        return self._num_samples

    def sound(self) -> Sound:
        self._take(None)
        samples_N = np.concatenate(self._parts) if self._parts else np.empty(0, np.float32)
        return Sound(np.clip(samples_N, -1.0, 1.0).astype(np.float32), self._rate_hz)


def decode_sound(source: bytes, limits: MediaLimits = SPEECH_LIMITS, *, rate_hz: int = SPEECH_RATE_HZ) -> Sound:
    """Take in speech: any listed container, codec, rate and channel count becomes mono at `rate_hz`.

    Args:
        source: the whole file.
        limits: bounds on bytes, seconds and channels.
        rate_hz: the rate to resample to.
    Returns: a sound that is longer than nothing and louder than silence.
    Raises:
        EmptyInputError, InputTooLargeError, InputTooLongError, UnsupportedMediaError (also for a video file, whose
        sound has to be extracted first), UnreadableMediaError (damaged, cut short, samples that are not numbers),
        NoAudioTrackError, SilentSoundError.
    """
    with _opened(source, limits, "sound") as container:
        # (1) one sound track, no moving picture
        if _moving_picture(container) is not None:
            raise UnsupportedMediaError(
                "This is a video file, and speech was expected. Extract its sound track (WAV, FLAC, M4A) and send it."
            )
        if not container.streams.audio:
            raise NoAudioTrackError("The file holds no sound track. Send a recording of the speech.")
        # (2) what it says about its length, before anything is decoded
        declared_s = _declared_duration_s(container)
        if declared_s is not None and declared_s > limits.max_duration_s:
            raise InputTooLongError(declared_s, limits.max_duration_s)
        # (3) decode; the limits hold for what is really there, too
        stream = container.streams.audio[0]
        collector = _SoundCollector(stream, rate_hz, limits)
        for frame in container.decode(stream):
            collector.add(frame)
        sound = collector.sound()
        exact_header = container.format.name in ("wav", "flac", "aiff", "au") or "mp4" in container.format.name
    # (4) plausible as speech
    if len(sound.samples_N) == 0:
        raise EmptyInputError("The sound track holds no samples. Record the speech again.")
    if exact_header and declared_s is not None and sound.duration_s < 0.98 * declared_s - 0.25:
        raise UnreadableMediaError(
            f"The sound ends after {sound.duration_s:.2f} s of {declared_s:.2f} s: the file is cut short. Send it all."
        )
    if isinstance(source, bytes) and _wav_is_cut_short(source):
        raise UnreadableMediaError("The WAV file is shorter than its header says: it is cut short. Send all of it.")
    if float(np.abs(sound.samples_N).max()) < _SILENCE_PEAK:
        raise SilentSoundError("The sound is silent. Check the microphone and record the speech again.")
    return sound


def decode_sound_track(
    source: bytes | Path,
    limits: MediaLimits = CLIP_LIMITS,
    *,
    rate_hz: int = SPEECH_RATE_HZ,
    stop_after_s: float = math.inf,
) -> Sound | None:
    """The first sound track of any listed file, with or without a picture, from its own first sample.

    Args:
        source: the whole file, or where it lies.
        limits: bounds on bytes, seconds and channels.
        rate_hz: the rate to resample to.
        stop_after_s: leave out what sounds later than this.
    Returns: the sound, also a silent one; None if the file has no sound track or not a sample in it.
    Raises: EmptyInputError, InputTooLargeError, InputTooLongError, UnsupportedMediaError, UnreadableMediaError.
    """
    with _opened(source, limits, "media") as container:
        if not container.streams.audio:
            return None
        stream = container.streams.audio[0]
        collector = _SoundCollector(stream, rate_hz, limits)
        for frame in container.decode(stream):
            collector.add(frame)
            if collector.num_samples >= stop_after_s * rate_hz:
                break
        sound = collector.sound()
    return sound if len(sound.samples_N) else None


def _wav_is_cut_short(source: bytes) -> bool:
    """Whether the data chunk of a RIFF/WAVE file announces more bytes than there are (streamed files announce none)."""
    if source[:4] != b"RIFF" or source[8:12] != b"WAVE":
        return False
    offset = 12
    while offset + 8 <= len(source):
        size = int.from_bytes(source[offset + 4 : offset + 8], "little")
        if source[offset : offset + 4] == b"data":
            return size < 0x7FFF0000 and offset + 8 + size > len(source) + 1
        offset += 8 + size + (size & 1)
    return False


@dataclass(frozen=True)
class _VideoTrack:
    """A video stream that passed the checks on what it says about itself."""

    stream: Any
    limits: MediaLimits

    @classmethod
    def of(cls, container: Any, limits: MediaLimits, stop_after_s: float) -> _VideoTrack:
        stream = _moving_picture(container)
        if stream is None:
            raise NoVideoTrackError("The file holds no moving picture. Send a video file.")
        _check_codec(stream, _VIDEO_CODECS)
        declared_s = _declared_duration_s(container)
        if math.isinf(stop_after_s) and declared_s is not None and declared_s > limits.max_duration_s:
            raise InputTooLongError(declared_s, limits.max_duration_s)
        track = cls(stream, limits)
        track.check_size(stream.width, stream.height)
        stream.thread_type = "AUTO"
        return track

    def check_size(self, width: int, height: int) -> None:
        if width * height > self.limits.max_pixels:
            raise InputTooLargeError("pixels per frame", width * height, self.limits.max_pixels)
        if max(width, height) > self.limits.max_side_px:
            raise InputTooLargeError("pixels along one side", max(width, height), self.limits.max_side_px)


def _matrix(frame: Any) -> str:
    """The YCbCr matrix of a decoded frame; without a tag, as players assume: BT.709 for HD, BT.601 below."""
    if frame.colorspace == 1 or (frame.colorspace == 2 and frame.height >= 720):
        return "ITU709"
    return "ITU601"


def _seconds(frame: Any, fallback_s: float) -> float:
    return float(frame.pts * frame.time_base) if frame.pts is not None and frame.time_base else fallback_s


def decode_clip(
    source: bytes | Path,
    limits: MediaLimits = CLIP_LIMITS,
    *,
    fit_within_px: int | None = None,
    stop_after_s: float = math.inf,
    every: int = 1,
    sound_rate_hz: int = SPEECH_RATE_HZ,
) -> Clip:
    """Decode a video file of any listed kind.

    Args:
        source: the whole file, or where it lies.
        limits: bounds on bytes, seconds, pixels, frames and decoded bytes.
        fit_within_px: shrink frames so that no side is longer than this.
        stop_after_s: leave out what shows later than this.
        every: keep the first of so many frames, with its time.
        sound_rate_hz: the rate of the returned sound.
    Returns: upright frames at their time stamps, with the first sound track shifted so that both start together.
    Raises: EmptyInputError, InputTooLargeError, InputTooLongError, UnsupportedMediaError, UnreadableMediaError,
        NoVideoTrackError.
    """
    frames: list[NDArray[np.uint8]] = []
    times: list[float] = []
    with _opened(source, limits, "video") as container:
        track = _VideoTrack.of(container, limits, stop_after_s)
        streams = [track.stream]
        collector: _SoundCollector | None = None
        if container.streams.audio:
            collector = _SoundCollector(container.streams.audio[0], sound_rate_hz, limits)
            streams.append(container.streams.audio[0])
        mean_rate_hz = float(track.stream.average_rate or 25)
        size: tuple[int, int] | None = None
        num_seen = 0
        for frame in container.decode(*streams):
            if isinstance(frame, av.AudioFrame):
                if collector is not None:
                    collector.add(frame)
                continue
            num_seen += 1
            if (num_seen - 1) % every:
                continue
            time_s = _seconds(frame, times[-1] + every / mean_rate_hz if times else 0.0)
            if times and time_s - times[0] >= stop_after_s:
                break
            track.check_size(frame.width, frame.height)
            if size is None:
                size = fitted_size(frame.width, frame.height, fit_within_px or limits.max_side_px)
            if len(frames) >= limits.max_frames:
                raise InputTooLargeError("frames", len(frames) + 1, limits.max_frames)
            if (len(frames) + 1) * size[0] * size[1] * 3 > limits.max_decoded_bytes:
                raise InputTooLargeError(
                    "bytes when decoded", (len(frames) + 1) * size[0] * size[1] * 3, limits.max_decoded_bytes
                )
            frames.append(_upright(_as_rgb(frame, fit_within_px, size), frame.rotation))
            times.append(time_s)
            if time_s - times[0] > limits.max_duration_s:
                raise InputTooLongError(time_s - times[0], limits.max_duration_s)
        sound = collector.sound() if collector is not None and collector.start_s is not None else None
    if not frames:
        raise UnreadableMediaError("No frame of the video could be decoded. Export it again and resend it.")
    order = np.argsort(times, kind="stable")
    times_T = np.asarray(times)[order]
    if (np.diff(order) < 0).any():
        frames = [frames[i] for i in order]
    if sound is not None and collector is not None and collector.start_s is not None:
        sound = _shifted(sound, collector.start_s - float(times_T[0]), times_T[-1] - times_T[0] + 1 / mean_rate_hz)
    times_T = times_T - times_T[0]
    rate_hz = (len(times_T) - 1) / times_T[-1] if len(times_T) > 1 and times_T[-1] > 0 else mean_rate_hz
    return Clip(np.stack(frames), float(rate_hz), sound, times_T)


def frame_times(source: bytes | Path, limits: MediaLimits = CLIP_LIMITS, *, stop_after_s: float) -> NDArray[np.float64]:
    """When the frames of a clip show, in seconds from the first, read from its packets: nothing is decoded.

    Args:
        stop_after_s: leave out what shows later than this.
    Returns: empty where packets carry no times. Damaged files may have fewer frames than packets.
    Raises: as `decode_clip` does.
    """
    times: list[float] = []
    with _opened(source, limits, "video") as container:
        for packet in container.demux(_VideoTrack.of(container, limits, stop_after_s).stream):
            if packet.size and packet.pts is None:
                return np.empty(0)
            if packet.size:
                times.append(float(packet.pts * packet.time_base))
                # frames that show out of their order in the file do so by a few frames only
                if times[-1] - times[0] >= stop_after_s + 2.0 or len(times) > limits.max_frames:
                    break
    ordered_T = np.sort(np.asarray(times))
    return ordered_T[ordered_T - ordered_T[0] < stop_after_s] - ordered_T[0] if len(ordered_T) else ordered_T


def _as_rgb(frame: Any, fit_within_px: int | None, size: tuple[int, int] | None = None) -> NDArray[np.uint8]:
    size = size or fitted_size(frame.width, frame.height, fit_within_px or max(frame.width, frame.height))
    how = "AREA" if fit_within_px else "BILINEAR"
    rgb = frame.reformat(*size, format="rgb24", src_colorspace=_matrix(frame), interpolation=how)
    return np.asarray(rgb.to_ndarray(), np.uint8)


def decode_colour_track(
    source: bytes | Path,
    limits: MediaLimits = CLIP_LIMITS,
    *,
    max_side_px: int = 128,
    stop_after_s: float = math.inf,
    viewer: FrameViewer | None = None,
) -> ColourTrack:
    """Decode no more of a video file than the reader of the invisible mark needs: small planes, 16 bits deep.

    Faster than `decode_clip` followed by `colour_track`, and flat in memory. Raises as `decode_clip` does.

    Args:
        viewer: sees some of the frames in colour as they go by, so that the file need not be decoded again for it.
    """
    planes: list[NDArray[np.float32]] = []
    times: list[float] = []
    details = DetailKeeper()
    with _opened(source, limits, "video") as container:
        track = _VideoTrack.of(container, limits, stop_after_s)
        mean_rate_hz = float(track.stream.average_rate or 25)
        size: tuple[int, int] | None = None
        width = height = 0
        for frame in container.decode(track.stream):
            time_s = _seconds(frame, times[-1] + 1 / mean_rate_hz if times else 0.0)
            if times and time_s - times[0] >= stop_after_s:
                break
            track.check_size(frame.width, frame.height)
            if size is None:
                width, height = frame.width, frame.height
                size = fitted_size(width, height, max_side_px)
            if len(times) >= limits.max_frames:
                raise InputTooLargeError("frames", len(times) + 1, limits.max_frames)
            if time_s - (times[0] if times else time_s) > limits.max_duration_s:
                raise InputTooLongError(time_s - times[0], limits.max_duration_s)
            small = frame.reformat(*size, format="yuv444p16le", interpolation="AREA").to_ndarray()
            full_range = frame.color_range == 2 or frame.format.name.startswith(("yuvj", "rgb", "gbr"))
            # Y, Cb and Cr in full range, as float
            zeros = np.array([0.0 if full_range else 4096.0, 32768.0, 32768.0], np.float32)
            limited = np.array([LIMITED_LUMA_SCALE, LIMITED_COLOUR_SCALE, LIMITED_COLOUR_SCALE], np.float32)
            scales = np.float32(256.0) * (np.ones(3, np.float32) if full_range else limited)
            small_HWC = _upright((small - zeros) / scales, frame.rotation)
            planes.append(np.ascontiguousarray(np.moveaxis(small_HWC, -1, 0), np.float32))
            if viewer is not None and len(times) in viewer.wanted:
                viewer.see(len(times), _upright(_as_rgb(frame, viewer.fit_within_px), frame.rotation))
            times.append(time_s)
            if details.wants_next():
                detail = frame.reformat(*detail_size(frame.width, frame.height), format="gray", interpolation="AREA")
                details.add(time_s, _upright(detail.to_ndarray(), frame.rotation))
            if frame.rotation % 180 and len(planes) == 1:
                width, height = height, width
    if not planes:
        raise UnreadableMediaError("No frame of the video could be decoded. Export it again and resend it.")
    order = np.argsort(times, kind="stable")
    times_T = np.asarray(times)[order]
    planes_T3HW = np.stack(planes)[order]
    detail_SHW, detail_times_S = details.stacked()
    return ColourTrack(
        planes_T3HW[:, 1:],
        times_T - times_T[0],
        width,
        height,
        planes_T3HW[:, 0],
        detail_SHW,
        detail_times_S - times_T[0],
    )


def _upright(image: NDArray[Any], rotation_deg: int) -> NDArray[Any]:
    """Apply the display matrix that phones write instead of turning the pixels."""
    quarter_turns = round(rotation_deg / 90) % 4
    return np.ascontiguousarray(np.rot90(image, quarter_turns)) if quarter_turns else image


def _shifted(sound: Sound, late_by_s: float, duration_s: float) -> Sound:
    """Bring a sound that starts `late_by_s` after the picture into step with it, and drop what outlasts it by far."""
    offset = round(late_by_s * sound.rate_hz)
    samples_N = sound.samples_N[-offset:] if offset < 0 else np.pad(sound.samples_N, (offset, 0))
    return Sound(samples_N[: math.ceil((duration_s + 1.0) * sound.rate_hz)], sound.rate_hz)
