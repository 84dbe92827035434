"""Taking in what people send, and giving out what players play."""

from __future__ import annotations

import io
import struct
import wave
from contextlib import suppress
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.watermark.clips import lag_s, speechlike, talking
from watermark.colour import colour_track, encoder_planes
from watermark.encoding import VideoCoding, VideoEncoder, encode_clip, encode_sound_wav
from watermark.errors import (
    EmptyInputError,
    EncodingError,
    InputTooLargeError,
    InputTooLongError,
    MediaError,
    NoAudioTrackError,
    NoVideoTrackError,
    SilentSoundError,
    UnreadableMediaError,
    UnsupportedMediaError,
)
from watermark.media import (
    CLIP_LIMITS,
    SPEECH_LIMITS,
    Clip,
    MediaLimits,
    Sound,
    decode_clip,
    decode_colour_track,
    decode_sound,
    probe,
)


@pytest.fixture(scope="module")
def small_clip() -> Clip:
    return talking(160, 120, duration_s=2.0)


@pytest.fixture(scope="module")
def small_video(small_clip: Clip, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("video") / "clip.mp4"
    encode_clip(small_clip, path)
    return path.read_bytes()


def wav(samples_NC: np.ndarray, rate_hz: int, *, as_float: bool = False) -> bytes:
    """A RIFF/WAVE file with any number of channels, as 16-bit integers or 32-bit floats."""
    if not as_float:
        buffer = io.BytesIO()
        with wave.open(buffer, "wb") as file:
            file.setnchannels(samples_NC.shape[1])
            file.setsampwidth(2)
            file.setframerate(rate_hz)
            file.writeframes(np.round(samples_NC * 32767).astype("<i2").tobytes())
        return buffer.getvalue()
    data = samples_NC.astype("<f4").tobytes()
    channels = samples_NC.shape[1]
    form = struct.pack("<HHIIHH", 3, channels, rate_hz, rate_hz * channels * 4, channels * 4, 32)
    chunks = b"fmt " + struct.pack("<I", 16) + form + b"data" + struct.pack("<I", len(data)) + data
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks


def coded(sound: Sound, codec: str, container: str, **stream_options: object) -> bytes:
    """The sound through a real encoder, by another road than the package's own."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as file:
        stream = file.add_stream(codec, rate=sound.rate_hz, **stream_options)
        frame = av.AudioFrame.from_ndarray(sound.samples_N[None], format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = sound.rate_hz, 0, Fraction(1, sound.rate_hz)
        resampler = av.AudioResampler(format=stream.format, layout=stream.layout, rate=sound.rate_hz)
        for part in resampler.resample(frame):
            file.mux(stream.encode(part))
        file.mux(stream.encode(None))
    return buffer.getvalue()


# ---- speech ----------------------------------------------------------------------------------------------------------


def test_wav_comes_back_as_it_was() -> None:
    sound = speechlike(1.0)
    decoded = decode_sound(encode_sound_wav(sound))
    assert decoded.rate_hz == 16_000
    np.testing.assert_allclose(decoded.samples_N, sound.samples_N, atol=1 / 32000)


@pytest.mark.parametrize("rate_hz", [8_000, 11_025, 44_100, 48_000, 96_000])
def test_any_rate_is_resampled_without_delay(rate_hz: int) -> None:
    sound = speechlike(1.5, rate_hz=rate_hz)
    decoded = decode_sound(encode_sound_wav(sound))
    assert decoded.rate_hz == 16_000
    assert decoded.duration_s == pytest.approx(1.5, abs=0.01)
    assert abs(lag_s(decoded.samples_N, sound.resampled(16_000).samples_N, 16_000)) < 0.002


@pytest.mark.parametrize("num_channels", [2, 6])
def test_several_channels_are_mixed_down(num_channels: int) -> None:
    sound = speechlike(1.0, rate_hz=48_000)
    decoded = decode_sound(wav(np.repeat(sound.samples_N[:, None], num_channels, 1) * 0.5, 48_000))
    assert decoded.samples_N.ndim == 1
    assert np.corrcoef(decoded.samples_N, sound.resampled(16_000).samples_N)[0, 1] > 0.98


@pytest.mark.parametrize(
    ("codec", "container"),
    [
        ("libmp3lame", "mp3"),
        ("flac", "flac"),
        ("aac", "ipod"),
        ("libopus", "ogg"),
        ("libopus", "webm"),
        ("aac", "adts"),
    ],
)
def test_common_codecs_are_read(codec: str, container: str) -> None:
    sound = speechlike(2.0, rate_hz=48_000)
    decoded = decode_sound(coded(sound, codec, container))
    assert decoded.duration_s == pytest.approx(2.0, abs=0.12)
    assert abs(lag_s(decoded.samples_N, sound.resampled(16_000).samples_N, 16_000)) < 0.06


def sound_file(kind: str, small_video: bytes) -> bytes:
    speech = encode_sound_wav(speechlike(1.0))
    loud = speechlike(0.5).samples_N[:, None]
    broken = np.where(np.arange(len(loud))[:, None] == 100, np.nan, loud)
    files = {
        "nothing": b"",
        "header only": encode_sound_wav(Sound(np.empty(0, np.float32), 16_000)),
        "silence": encode_sound_wav(Sound(np.zeros(16_000, np.float32), 16_000)),
        "cut short": speech[: len(speech) // 2],
        "FLAC cut short": coded(speechlike(3.0), "flac", "flac")[:20_000],
        "M4A cut short": coded(speechlike(3.0, rate_hz=48_000), "aac", "ipod")[:9_000],
        "only magic": b"RIFF\x24\x00\x00\x00WAVE",
        "text": b"Good morning, this is not a sound file. " * 30,
        "picture": cv2.imencode(".png", np.zeros((8, 8, 3), np.uint8))[1].tobytes(),
        "playlist": b"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nfile:///etc/hostname\n",
        "video": small_video,
        "not numbers": wav(broken, 16_000, as_float=True),
        "1 GHz": wav(loud, 10**9),
        "3 Hz": wav(loud, 3),
        "20 channels": wav(np.repeat(loud, 20, 1), 16_000),
    }
    return files[kind]


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("nothing", EmptyInputError),
        ("header only", EmptyInputError),
        ("silence", SilentSoundError),
        ("cut short", UnreadableMediaError),
        ("FLAC cut short", UnreadableMediaError),
        ("M4A cut short", UnreadableMediaError),
        ("only magic", MediaError),
        ("text", UnsupportedMediaError),
        ("picture", UnsupportedMediaError),
        ("playlist", UnsupportedMediaError),
        ("video", UnsupportedMediaError),
        ("not numbers", UnreadableMediaError),
        ("1 GHz", UnsupportedMediaError),
        ("3 Hz", MediaError),
        ("20 channels", InputTooLargeError),
    ],
)
def test_bad_speech_is_refused_by_name(kind: str, error: type[MediaError], small_video: bytes) -> None:
    with pytest.raises(error) as caught:
        decode_sound(sound_file(kind, small_video))
    assert str(caught.value).endswith((".", ".)")) and caught.value.code.startswith("media.")


def test_a_video_sent_as_speech_is_told_what_to_do(small_video: bytes) -> None:
    with pytest.raises(UnsupportedMediaError, match="Extract its sound track"):
        decode_sound(small_video)


def test_three_hours_are_refused_before_decoding() -> None:
    header = bytearray(encode_sound_wav(Sound(np.empty(0, np.float32), 8_000)))
    num_bytes = 3 * 3600 * 8_000 * 2
    header[40:44] = struct.pack("<I", num_bytes)
    header[4:8] = struct.pack("<I", 36 + num_bytes)
    limits = replace(SPEECH_LIMITS, max_bytes=num_bytes + 100)
    with pytest.raises(InputTooLongError) as caught:
        decode_sound(bytes(header) + bytes(num_bytes), limits)
    assert caught.value.actual == pytest.approx(10_800) and caught.value.limit == 600
    assert caught.value.code == "media.too_long"


def test_a_duration_that_the_header_hides_is_counted() -> None:
    speech = coded(speechlike(4.0, rate_hz=48_000), "aac", "adts")  # no header states its length
    with pytest.raises(InputTooLongError):
        decode_sound(speech, replace(SPEECH_LIMITS, max_duration_s=2.0))


def test_too_many_bytes_are_refused_unread() -> None:
    with pytest.raises(InputTooLargeError) as caught:
        decode_sound(bytes(1001), replace(SPEECH_LIMITS, max_bytes=1000))
    assert caught.value.quantity == "bytes"


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_damaged_sounds_raise_only_our_errors(data: st.DataObject) -> None:
    raw = bytearray(data.draw(st.sampled_from(_SOUND_SEEDS)))
    for _ in range(data.draw(st.integers(1, 6))):
        raw[data.draw(st.integers(0, min(len(raw) - 1, 400)))] = data.draw(st.integers(0, 255))
    try:
        sound = decode_sound(bytes(raw), MediaLimits(max_duration_s=30))
    except MediaError:
        return
    assert np.isfinite(sound.samples_N).all()


_SOUND_SEEDS = (
    encode_sound_wav(speechlike(0.3)),
    coded(speechlike(0.3), "flac", "flac"),
    coded(speechlike(0.3, rate_hz=48_000), "aac", "ipod"),
    coded(speechlike(0.3, rate_hz=48_000), "libopus", "ogg"),
)


# ---- clips -----------------------------------------------------------------------------------------------------------


def test_a_clip_comes_back_with_sound_in_time(small_clip: Clip, small_video: bytes) -> None:
    decoded = decode_clip(small_video)
    assert decoded.frames_THWC.shape == small_clip.frames_THWC.shape
    assert decoded.rate_hz == pytest.approx(25.0)
    error = np.mean((decoded.frames_THWC.astype(float) - small_clip.frames_THWC) ** 2)
    assert 10 * np.log10(255**2 / error) > 33
    assert decoded.sound is not None and small_clip.sound is not None
    # AAC adds priming samples; a frame lasts 40 ms, and half of that is the most that may be lost
    assert abs(lag_s(decoded.sound.samples_N, small_clip.sound.samples_N, 16_000)) <= 0.020


@pytest.mark.parametrize("colour", [(128, 128, 128), (200, 60, 40), (30, 180, 90), (20, 40, 220), (250, 250, 250)])
def test_colours_come_back(colour: tuple[int, int, int], tmp_path: Path) -> None:
    frames_THWC = np.full((5, 64, 64, 3), colour, np.uint8)
    encode_clip(Clip(frames_THWC, 25.0), tmp_path / "flat.mp4", VideoCoding(crf=4))
    decoded = decode_clip(tmp_path / "flat.mp4")
    np.testing.assert_allclose(decoded.frames_THWC.mean((0, 1, 2)), colour, atol=2.5)


def test_a_colour_track_is_the_clip_in_small(small_clip: Clip, small_video: bytes) -> None:
    direct, detour = decode_colour_track(small_video, max_side_px=64), colour_track(decode_clip(small_video), 64)
    assert direct.planes_T2HW.shape == detour.planes_T2HW.shape == (50, 2, 48, 64)
    assert (direct.width, direct.height) == (160, 120)
    np.testing.assert_allclose(direct.times_T, detour.times_T)
    assert np.corrcoef(direct.planes_T2HW.ravel(), detour.planes_T2HW.ravel())[0, 1] > 0.99


def test_odd_sides_lose_their_last_line(tmp_path: Path) -> None:
    odd = talking(101, 99, duration_s=0.2)
    assert encoder_planes(odd.frames_THWC[0]).luma_HW.shape == (98, 100)
    encode_clip(odd, tmp_path / "odd.mp4")
    assert decode_clip(tmp_path / "odd.mp4").frames_THWC.shape[1:3] == (98, 100)


def test_uneven_frames_keep_their_times(small_clip: Clip) -> None:
    stamps = [0, 40, 80, 240, 280, 600, 640, 1000]
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="matroska") as file:
        stream = file.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 160, 120, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for stamp, frame_HWC in zip(stamps, small_clip.frames_THWC, strict=False):
            frame = av.VideoFrame.from_ndarray(frame_HWC, format="rgb24")
            frame.pts, frame.time_base = stamp, Fraction(1, 1000)
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    decoded = decode_clip(buffer.getvalue())
    np.testing.assert_allclose(decoded.times_T, np.array(stamps) / 1000, atol=0.002)
    assert decoded.rate_hz == pytest.approx(7.0, rel=0.01)


def test_turned_recordings_are_set_upright(small_clip: Clip) -> None:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as file:
        stream = file.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 160, 120, "yuv420p"
        stream.set_display_rotation(90)
        for frame_HWC in small_clip.frames_THWC[:5]:
            file.mux(stream.encode(av.VideoFrame.from_ndarray(frame_HWC, format="rgb24")))
        file.mux(stream.encode(None))
    decoded = decode_clip(buffer.getvalue())
    assert decoded.frames_THWC.shape[1:3] == (160, 120)
    upright = np.rot90(small_clip.frames_THWC[0], 1)
    assert np.abs(decoded.frames_THWC[0].astype(int) - upright).mean() < 8
    assert decode_colour_track(buffer.getvalue()).planes_T2HW.shape[2:] == (128, 96)


def test_sound_that_starts_late_is_moved_into_step(small_clip: Clip) -> None:
    sound = speechlike(1.0, rate_hz=48_000)
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="matroska") as file:
        video = file.add_stream("libx264", rate=25)
        video.width, video.height, video.pix_fmt = 160, 120, "yuv420p"
        audio = file.add_stream("flac", rate=48_000, layout="mono")
        for frame_HWC in small_clip.frames_THWC:
            file.mux(video.encode(av.VideoFrame.from_ndarray(frame_HWC, format="rgb24")))
        file.mux(video.encode(None))
        samples = np.round(sound.samples_N[None] * 32767).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 48_000, 24_000, Fraction(1, 48_000)
        file.mux(audio.encode(frame))
        file.mux(audio.encode(None))
    decoded = decode_clip(buffer.getvalue())
    assert decoded.sound is not None
    assert lag_s(decoded.sound.samples_N, sound.resampled(16_000).samples_N, 16_000) == pytest.approx(0.5, abs=0.01)


def test_frames_can_be_shrunk_and_the_rest_left_out(small_video: bytes) -> None:
    decoded = decode_clip(small_video, fit_within_px=80, stop_after_s=1.0)
    assert decoded.frames_THWC.shape == (25, 60, 80, 3)


@pytest.mark.parametrize(
    ("limits", "quantity"),
    [
        (replace(CLIP_LIMITS, max_pixels=160 * 120 - 1), "pixels per frame"),
        (replace(CLIP_LIMITS, max_side_px=159), "pixels along one side"),
        (replace(CLIP_LIMITS, max_frames=49), "frames"),
        (replace(CLIP_LIMITS, max_decoded_bytes=10**6), "bytes when decoded"),
        (replace(CLIP_LIMITS, max_duration_s=1.9), "seconds"),
        (replace(CLIP_LIMITS, max_bytes=1000), "bytes"),
    ],
)
def test_every_count_is_bounded(limits: MediaLimits, quantity: str, small_video: bytes) -> None:
    with pytest.raises(InputTooLargeError) as caught:
        decode_clip(small_video, limits)
    assert caught.value.quantity == quantity


def test_bad_videos_are_refused_by_name(small_video: bytes, small_clip: Clip, tmp_path: Path) -> None:
    heic = b"\x00\x00\x00\x18ftypheic" + bytes(200)
    for data, error in (
        (b"", EmptyInputError),
        (small_video[: len(small_video) // 3], UnreadableMediaError),
        (b"GIF89a" + bytes(300), UnsupportedMediaError),
        (heic, UnsupportedMediaError),
        (encode_sound_wav(speechlike(0.2)), NoVideoTrackError),
    ):
        with pytest.raises(error):
            decode_clip(data)


def test_a_container_without_any_track_of_sound_is_named() -> None:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as file:
        packet = av.Packet(b"not a sound")
        packet.stream, packet.time_base = file.add_data_stream("bin_data"), Fraction(1, 1000)
        packet.pts = packet.dts = 0
        file.mux(packet)
    with pytest.raises(NoAudioTrackError):
        decode_sound(buffer.getvalue())


def test_probe_decodes_nothing(small_video: bytes) -> None:
    info = probe(small_video)
    assert info.video == ("h264", 160, 120, 25.0)
    assert info.audio == ("aac", 48_000, 1)
    assert info.unverified_duration_s == pytest.approx(2.0, abs=0.1)


@pytest.mark.parametrize("seed", range(40))
def test_damaged_videos_raise_only_our_errors(seed: int, small_video: bytes) -> None:
    rng = np.random.default_rng(seed)
    raw = bytearray(small_video[: rng.integers(len(small_video) // 8, len(small_video) + 1)])
    for _ in range(rng.integers(1, 9)):
        raw[rng.integers(0, min(len(raw), 4000))] = int(rng.integers(0, 256))
    with suppress(MediaError):
        decode_clip(bytes(raw), replace(CLIP_LIMITS, max_pixels=10**6, max_duration_s=60, max_decoded_bytes=2**26))


def test_an_encoder_lets_the_exception_through(small_clip: Clip, tmp_path: Path) -> None:
    path = tmp_path / "half.mp4"
    encoder = VideoEncoder(path, width=160, height=120, rate_hz=25.0, sound=small_clip.sound)
    with pytest.raises(RuntimeError, match="lost"), encoder:
        encoder.write(small_clip.frames_THWC[0])
        raise RuntimeError("the renderer was lost")
    assert encoder.num_frames == 1


def test_an_unwritable_place_is_an_encoding_error(small_clip: Clip, tmp_path: Path) -> None:
    with pytest.raises(EncodingError):
        encode_clip(small_clip, tmp_path / "absent" / "clip.mp4")


def test_wav_bytes_are_reproducible() -> None:
    assert encode_sound_wav(speechlike(0.2)) == encode_sound_wav(speechlike(0.2))
