"""Sound as it circulates: compressed to MP3, AAC or Opus, or played at another tempo (PyAV, as in `media`).

N sample
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any, Literal

import av
import av.error
import av.filter
import numpy as np
from numpy.typing import NDArray

from watermark.errors import EncodingError
from watermark.media import Sound

SoundCodec = Literal["mp3", "aac", "opus"]
_ENCODERS: dict[SoundCodec, tuple[str, str, int]] = {
    "mp3": ("libmp3lame", "mp3", 44_100),
    "aac": ("aac", "adts", 48_000),
    "opus": ("libopus", "ogg", 48_000),
}


def encode_sound(sound: Sound, codec: SoundCodec, bit_rate: int) -> bytes:
    """A compressed sound file: MP3 (44.1 kHz), AAC in ADTS or Opus in Ogg (48 kHz), mono.

    Raises: EncodingError.
    """
    name, container_format, rate_hz = _ENCODERS[codec]
    buffer = io.BytesIO()
    try:
        with av.open(buffer, "w", format=container_format) as container:
            stream: Any = container.add_stream(name, rate=rate_hz, layout="mono")
            stream.bit_rate = bit_rate
            stream.codec_context.open()
            resampler = av.AudioResampler(
                format=stream.codec_context.format.name,
                layout="mono",
                rate=rate_hz,
                frame_size=stream.codec_context.frame_size,
            )
            for frame in [*resampler.resample(_frame(sound.resampled(rate_hz))), *resampler.resample(None), None]:
                container.mux(stream.encode(frame))
    except (av.error.FFmpegError, OSError) as exc:
        raise EncodingError(f"The sound could not be encoded as {codec} ({type(exc).__name__}).") from exc
    return buffer.getvalue()


def stretched(sound: Sound, tempo: float) -> Sound:
    """The sound played `tempo` times faster at the same pitch (FFmpeg's `atempo`, waveform similarity overlap-add)."""
    graph = av.filter.Graph()
    source = graph.add_abuffer(format="fltp", sample_rate=sound.rate_hz, layout="mono")
    tempo_filter, sink = graph.add("atempo", f"{tempo:.6f}"), graph.add("abuffersink")
    source.link_to(tempo_filter)
    tempo_filter.link_to(sink)
    graph.configure()
    graph.push(_frame(sound))
    graph.push(None)
    parts = [np.asarray(part.to_ndarray(), np.float32).reshape(-1) for part in _pulled(graph)]
    return Sound(np.concatenate(parts) if parts else np.empty(0, np.float32), sound.rate_hz)


def _pulled(graph: Any) -> Iterator[Any]:
    while True:
        try:
            yield graph.pull()
        except (av.error.EOFError, av.error.BlockingIOError):
            return


def _frame(sound: Sound) -> Any:
    samples_N: NDArray[np.float32] = np.ascontiguousarray(sound.samples_N, np.float32)
    frame: Any = av.AudioFrame.from_ndarray(samples_N[None], format="fltp", layout="mono")
    frame.sample_rate, frame.pts = sound.rate_hz, 0
    return frame
