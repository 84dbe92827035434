"""The one door out: a complete, marked, signed file, or nothing."""

from __future__ import annotations

import hashlib
import pickle
import re
import signal
import subprocess
import sys
import textwrap
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.watermark.clips import lag_s, talking
from watermark.attacks import chain, h264, resize
from watermark.credentials import ManifestSpec, SigningAuthority, read_credentials
from watermark.errors import (
    EmptyOutputError,
    FrameTooSmallError,
    InconsistentFramesError,
    InvalidManifestSpecError,
    WatermarkError,
)
from watermark.extract import read_mark
from watermark.mark import Produced, UnmarkedFrames, produce
from watermark.media import Clip, decode_clip, decode_colour_track
from watermark.payload import MarkId

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def deliver(
    clip: Clip, key: bytes, mark_id: MarkId, make_spec: Callable[[MarkId], ManifestSpec], authority: SigningAuthority
) -> Callable[..., Produced]:
    """`produce` with everything but frames and destination filled in."""

    def run(frames: Iterator[UnmarkedFrames], dst: Path, **changes: object) -> Produced:
        arguments: dict = {
            "rate_hz": 25.0,
            "mark_id": mark_id,
            "key": key,
            "spec": make_spec(mark_id),
            "authority": authority,
            "dst": dst,
        } | changes
        assert clip.sound is not None
        return produce(frames, clip.sound, **arguments)

    return run


def batches(clip: Clip, size: int = 20) -> Iterator[UnmarkedFrames]:
    for start in range(0, len(clip.frames_THWC), size):
        yield UnmarkedFrames(clip.frames_THWC[start : start + size])


def test_what_comes_out_is_whole(
    clip: Clip,
    key: bytes,
    mark_id: MarkId,
    authority: SigningAuthority,
    deliver: Callable[..., Produced],
    tmp_path: Path,
) -> None:
    seen: list[int] = []
    produced = deliver(batches(clip), tmp_path / "out.mp4", progress=seen.append)
    assert [path.name for path in tmp_path.iterdir()] == ["out.mp4"]
    assert produced.sha256 == hashlib.sha256(produced.path.read_bytes()).hexdigest()
    assert (produced.num_frames, produced.duration_s, produced.mark_id) == (75, 3.0, mark_id)
    assert seen == [20, 40, 60, 75]
    reading = read_credentials(produced.path, "video/mp4", authority.root_pem)
    assert (reading.state, reading.mark_id, reading.manifest_id) == ("trusted", mark_id, produced.manifest_id)
    decoded = decode_clip(produced.path)
    assert decoded.frames_THWC.shape == clip.frames_THWC.shape
    assert decoded.sound is not None and clip.sound is not None
    assert abs(lag_s(decoded.sound.samples_N, clip.sound.samples_N, 16_000)) <= 0.020
    track = decode_colour_track(produced.path)
    assert read_mark(track, key, {mark_id}.__contains__, num_registered=1).mark_id == mark_id
    # stripped of its metadata, shrunk and encoded again, the id is still there
    stripped = chain(resize(0.5), h264(30))(decoded)
    assert read_mark(stripped, key, {mark_id}.__contains__, num_registered=1).mark_id == mark_id


def test_full_frames_of_any_shape_are_delivered(
    key: bytes, mark_id: MarkId, deliver: Callable[..., Produced], tmp_path: Path
) -> None:
    tall = talking(361, 641, duration_s=2.0)
    produced = deliver(batches(tall), tmp_path / "tall.mp4")
    assert decode_clip(produced.path).frames_THWC.shape[1:3] == (640, 360)
    track = decode_colour_track(produced.path)
    assert read_mark(track, key, {mark_id}.__contains__, num_registered=1).mark_id == mark_id


class Interrupted(Exception):
    pass


@pytest.mark.parametrize("error", [Interrupted, KeyboardInterrupt, MemoryError, SystemExit])
def test_nothing_is_left_when_the_renderer_fails(
    error: type[BaseException], clip: Clip, deliver: Callable[..., Produced], tmp_path: Path
) -> None:
    def failing() -> Iterator[UnmarkedFrames]:
        yield UnmarkedFrames(clip.frames_THWC[:30])
        raise error

    with pytest.raises(error):
        deliver(failing(), tmp_path / "out.mp4")
    assert list(tmp_path.iterdir()) == []


def test_an_earlier_file_stays_when_a_new_one_fails(
    clip: Clip, deliver: Callable[..., Produced], tmp_path: Path
) -> None:
    (tmp_path / "out.mp4").write_bytes(b"earlier")

    def failing() -> Iterator[UnmarkedFrames]:
        yield UnmarkedFrames(clip.frames_THWC[:5])
        raise Interrupted

    with pytest.raises(Interrupted):
        deliver(failing(), tmp_path / "out.mp4")
    assert (tmp_path / "out.mp4").read_bytes() == b"earlier"


def test_a_signer_that_fails_delivers_nothing(
    clip: Clip, authority: SigningAuthority, deliver: Callable[..., Produced], tmp_path: Path
) -> None:
    class Failing(SigningAuthority):
        def __init__(self) -> None:
            self.__dict__ |= authority.__dict__

        def sign_bytes(self, data: bytes) -> bytes:
            raise ConnectionError("no answer")

    with pytest.raises(WatermarkError, match="nothing is delivered"):
        deliver(batches(clip), tmp_path / "out.mp4", authority=Failing())
    assert list(tmp_path.iterdir()) == []


def test_a_killed_process_leaves_no_file_that_looks_whole(tmp_path: Path) -> None:
    script = textwrap.dedent(
        """
        import sys, time
        from pathlib import Path
        from tests.watermark.clips import talking
        from watermark.credentials import Ingredient, ManifestSpec, SigningAuthority
        from watermark.mark import UnmarkedFrames, produce
        from watermark.encoding import encode_sound_wav
        from watermark.payload import MarkId

        directory = Path(sys.argv[1])
        clip = talking(128, 128, duration_s=1.0)

        def endless():
            while True:
                yield UnmarkedFrames(clip.frames_THWC)
                print("batch", flush=True)

        part = Ingredient(encode_sound_wav(clip.sound), "audio/wav", "Speech")
        spec = ManifestSpec("t", part, part, MarkId(1), None, {}, "0")
        authority = SigningAuthority.create(directory / "pki", "Placet")
        produce(endless(), clip.sound, rate_hz=25.0, mark_id=MarkId(1), key=bytes(32), spec=spec, authority=authority,
                dst=directory / "out" / "clip.mp4")
        """
    )
    (tmp_path / "out").mkdir()
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    for _ in range(4):
        assert process.stdout.readline() == "batch\n"
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=30)
    process.stdout.close()
    left = list((tmp_path / "out").iterdir())
    assert left, "the killed process had begun to write"
    for path in left:
        assert path.suffix == ".partial"
        with pytest.raises(WatermarkError):
            decode_clip(path)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"mark_id": MarkId(99)}, InvalidManifestSpecError),
        ({"key": b"short"}, WatermarkError),
    ],
)
def test_contradictions_are_refused(
    change: dict, error: type[Exception], clip: Clip, deliver: Callable[..., Produced], tmp_path: Path
) -> None:
    with pytest.raises(error):
        deliver(batches(clip), tmp_path / "out.mp4", **change)
    assert list(tmp_path.iterdir()) == []


def test_frames_must_be_there_and_alike(clip: Clip, deliver: Callable[..., Produced], tmp_path: Path) -> None:
    with pytest.raises(EmptyOutputError):
        deliver(iter(()), tmp_path / "out.mp4")
    with pytest.raises(EmptyOutputError):
        deliver(iter([UnmarkedFrames(clip.frames_THWC[:0])]), tmp_path / "out.mp4")
    with pytest.raises(FrameTooSmallError):
        deliver(iter([UnmarkedFrames(clip.frames_THWC[:2, :64, :64])]), tmp_path / "out.mp4")
    mixed = [UnmarkedFrames(clip.frames_THWC[:2]), UnmarkedFrames(clip.frames_THWC[:2, :256])]
    with pytest.raises(InconsistentFramesError):
        deliver(iter(mixed), tmp_path / "out.mp4")
    assert list(tmp_path.iterdir()) == []


def test_unmarked_frames_are_opaque(clip: Clip) -> None:
    unmarked = UnmarkedFrames(clip.frames_THWC[:2])
    assert repr(unmarked) == "<2 unmarked frames>"
    assert not [name for name in dir(unmarked) if not name.startswith("_")]
    with pytest.raises(TypeError):
        pickle.dumps(unmarked)
    with pytest.raises(TypeError):
        np.asarray(unmarked, np.uint8)
    with pytest.raises(InconsistentFramesError):
        UnmarkedFrames(clip.frames_THWC[0])
    with pytest.raises(InconsistentFramesError):
        UnmarkedFrames(clip.frames_THWC.astype(np.float32))  # type: ignore[arg-type]


def test_nobody_else_opens_unmarked_frames() -> None:
    pattern = re.compile(r"UnmarkedFrames\._frames|_UnmarkedFrames__|\._frames\(")
    openers = {
        str(path.relative_to(ROOT))
        for package in ("watermark", "generator", "detector", "policy", "api")
        for path in (ROOT / package).rglob("*.py")
        if pattern.search(path.read_text())
    }
    assert openers == {"watermark/mark.py", "watermark/segments.py"}


def test_memory_does_not_grow_with_length(clip: Clip, deliver: Callable[..., Produced], tmp_path: Path) -> None:
    alive: list[bool] = []

    def frames() -> Iterator[UnmarkedFrames]:
        previous = None
        for start in range(0, 60, 10):
            data = clip.frames_THWC[start : start + 10, ::2, ::2].copy()
            batch_ref = weakref.ref(data)
            yield UnmarkedFrames(data)
            del data
            if previous is not None:
                alive.append(previous() is not None)
            previous = batch_ref

    deliver(frames(), tmp_path / "out.mp4")
    assert not any(alive), "batches written long ago are still held"
