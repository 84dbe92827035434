"""Hiding and finding: the id survives what it must survive, and is not seen where it is not."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from tests.watermark.clips import talking
from watermark.attacks import (
    ISSUED,
    chain,
    crop,
    drop,
    flip,
    h264,
    hue,
    jpeg,
    none,
    pillarbox,
    quarter_turn,
    rate,
    resize,
    saturation,
    trim,
)
from watermark.carriers import Carriers
from watermark.colour import ColourTrack, encoder_planes
from watermark.embed import Embedder
from watermark.errors import FrameTooSmallError, InconsistentFramesError, InvalidMarkKeyError
from watermark.extract import MAX_ATTEMPTS, MarkReading, read_mark
from watermark.media import Clip
from watermark.payload import MarkId


@pytest.fixture(scope="module")
def marked(clip: Clip, key: bytes, mark_id: MarkId) -> Clip:
    return embedded(clip, key, mark_id)


def embedded(clip: Clip, key: bytes, mark_id: MarkId) -> Clip:
    height, width = clip.frames_THWC.shape[1:3]
    embedder = Embedder(key, mark_id, width, height, clip.rate_hz)
    return Clip(embedder.apply(clip.frames_THWC), clip.rate_hz, clip.sound)


def read(clip: Clip | ColourTrack, key: bytes, *registered: MarkId) -> MarkReading:
    return read_mark(clip, key, frozenset(registered).__contains__, num_registered=10**6)


@pytest.mark.parametrize("attack", list(ISSUED))
def test_the_whole_id_survives_what_it_must(attack: str, marked: Clip, key: bytes, mark_id: MarkId) -> None:
    reading = read(ISSUED[attack](marked), key, mark_id)
    assert (reading.state, reading.mark_id) == ("detected", mark_id)
    assert reading.null_fpr == reading.num_attempts * 10**6 / 2**64 < 1e-10


@pytest.mark.parametrize(
    "attack",
    [flip(), rate(15), drop(0.3), trim(0.28, 9.0), trim(0.0, 1.6), pillarbox(16 / 9), chain(flip(), h264(30))],
    ids=["flip", "15 Hz", "lost frames", "late start", "short", "pillarbox", "flip + CRF 30"],
)
def test_it_survives_other_edits(attack, marked: Clip, key: bytes, mark_id: MarkId) -> None:  # type: ignore[no-untyped-def]
    assert read(attack(marked), key, mark_id).mark_id == mark_id


def test_the_geometry_is_reported(marked: Clip, key: bytes, mark_id: MarkId) -> None:
    turned = read(ISSUED["rotate 5°"](marked), key, mark_id)
    assert turned.rotation_deg == pytest.approx(5.0, abs=0.5)
    cropped = read(ISSUED["crop 70 %"](marked), key, mark_id)
    assert cropped.scale == pytest.approx(1 / 0.7, rel=0.02)
    assert read(flip()(marked), key, mark_id).is_mirrored


@pytest.mark.parametrize(("width", "height"), [(640, 360), (360, 640), (720, 480)])
def test_any_frame_shape_carries_the_mark(width: int, height: int, key: bytes, mark_id: MarkId) -> None:
    wide = embedded(talking(width, height, duration_s=2.4, seed=3), key, mark_id)
    assert read(h264(30)(wide), key, mark_id).mark_id == mark_id


def test_another_rate_carries_the_same_sway(key: bytes, mark_id: MarkId) -> None:
    fast = embedded(talking(320, 320, duration_s=2.0, rate_hz=50.0), key, mark_id)
    assert read(fast, key, mark_id).mark_id == mark_id


def test_nothing_is_found_where_nothing_is(clip: Clip, marked: Clip, key: bytes, mark_id: MarkId) -> None:
    wrong_key = hashlib.sha256(b"another instance").digest()
    for null, with_key in ((clip, key), (h264(30)(clip), key), (flip()(clip), key), (marked, wrong_key)):
        reading = read(null, with_key, mark_id)
        assert reading.state == "not_detected"
        assert reading.mark_id is None
        assert reading.num_attempts > 0
        assert reading.correlation < 0.68


def test_an_id_that_the_registry_does_not_know_is_not_detected(marked: Clip, key: bytes, mark_id: MarkId) -> None:
    reading = read(marked, key, MarkId(mark_id.value ^ 1))
    assert (reading.state, reading.mark_id) == ("inconclusive", None)
    assert "registry" in reading.reason


@pytest.mark.parametrize(("num_frames", "rate_hz"), [(1, 25.0), (10, 25.0), (12, 4.0)])
def test_stills_and_snippets_without_a_mark_are_told_apart(
    num_frames: int, rate_hz: float, clip: Clip, key: bytes
) -> None:
    reading = read(Clip(clip.frames_THWC[:num_frames], rate_hz), key)
    assert reading.state == "not_detected"
    assert "still" in reading.reason


@pytest.mark.parametrize("attack", [none(), jpeg(75), saturation(0.0), flip(), quarter_turn(), resize(0.75), crop(0.7)])
def test_one_picture_carries_the_whole_id(attack, marked: Clip, key: bytes, mark_id: MarkId) -> None:  # type: ignore[no-untyped-def]
    reading = read(attack(Clip(marked.frames_THWC[40:41], 25.0)), key, mark_id)
    assert (reading.mark_id, reading.carrier) == (mark_id, "tile")


def test_a_grey_copy_keeps_the_id(marked: Clip, key: bytes, mark_id: MarkId) -> None:
    assert read(chain(h264(18), saturation(0.0))(marked), key, mark_id).mark_id == mark_id


def test_a_quarter_turn_of_the_picture_or_of_the_colours_is_found(marked: Clip, key: bytes, mark_id: MarkId) -> None:
    turned = read(chain(h264(18), quarter_turn())(marked), key, mark_id)
    assert turned.rotation_deg == pytest.approx(90.0, abs=1.0)
    assert not turned.is_mirrored
    coloured = read(chain(hue(0.25), h264(30))(marked), key, mark_id)
    assert (coloured.mark_id, coloured.carrier) == (mark_id, "sway")


def test_no_reading_looks_up_more_words_than_the_bound_says(clip: Clip, key: bytes) -> None:
    assert read(clip, key).num_attempts <= MAX_ATTEMPTS
    assert MAX_ATTEMPTS * 10**6 / 2.0**64 < 1e-9


def test_a_mark_in_the_middle_of_a_long_clip_is_found(key: bytes, mark_id: MarkId) -> None:
    short = talking(192, 192, duration_s=10.0)
    marked = embedded(short, key, mark_id)
    frames_THWC = np.concatenate([short.frames_THWC, marked.frames_THWC, short.frames_THWC])
    reading = read(Clip(frames_THWC, 25.0), key, mark_id)
    assert reading.mark_id == mark_id
    assert reading.start_s is not None and 9.0 <= reading.start_s <= 11.0


def test_marking_planes_is_marking_frames(clip: Clip, key: bytes, mark_id: MarkId) -> None:
    embedder = Embedder(key, mark_id, 512, 512, 25.0)
    frame_THWC = clip.frames_THWC[3:4]
    planes = encoder_planes(frame_THWC[0])
    embedder.mark_planes(planes, 3)
    expected = encoder_planes(embedder.apply(frame_THWC, first_index=3)[0])
    assert np.abs(planes.colour_2HW - expected.colour_2HW).mean() < 0.3
    assert np.abs(planes.luma_HW.astype(int) - expected.luma_HW).mean() < 0.5


def test_luma_stays_within_a_few_steps(clip: Clip, key: bytes, mark_id: MarkId) -> None:
    for level in (0, 16, 128, 235, 255):
        planes = encoder_planes(np.full((512, 512, 3), level, np.uint8))
        untouched = planes.luma_HW.copy()
        Embedder(key, mark_id, 512, 512, 25.0).mark_planes(planes, 3)
        change = planes.luma_HW.astype(int) - untouched
        assert np.abs(change).max() <= 8
        assert abs(change.mean()) < 0.1


def test_a_frame_is_marked_alike_wherever_a_segment_begins(clip: Clip, key: bytes, mark_id: MarkId) -> None:
    whole, live = (Embedder(key, mark_id, 512, 512, 25.0) for _ in range(2))
    for index in (0, 1, 2):
        whole.mark_planes(encoder_planes(clip.frames_THWC[index]), index)
    late, straight = encoder_planes(clip.frames_THWC[30]), encoder_planes(clip.frames_THWC[30])
    whole.mark_planes(late, 30)
    live.mark_planes(straight, 30)
    np.testing.assert_array_equal(late.luma_HW, straight.luma_HW)
    np.testing.assert_array_equal(late.colour_2HW, straight.colour_2HW)


def test_taking_a_mark_off_leaves_nearly_nothing(clip: Clip, key: bytes, mark_id: MarkId) -> None:
    marked = Embedder(key, mark_id, 512, 512, 25.0).apply(clip.frames_THWC)
    bare = Embedder(key, mark_id, 512, 512, 25.0, strength=-1.0).apply(marked)
    assert read(Clip(bare, 25.0), key, mark_id).state == "not_detected"


def test_batches_join_without_a_seam(clip: Clip, key: bytes, mark_id: MarkId) -> None:
    embedder = Embedder(key, mark_id, 512, 512, 25.0)
    whole = embedder.apply(clip.frames_THWC[:6])
    parts = [embedder.apply(clip.frames_THWC[i : i + 2], first_index=i) for i in (0, 2, 4)]
    np.testing.assert_array_equal(whole, np.concatenate(parts))


def test_the_mark_is_faint(clip: Clip, marked: Clip) -> None:
    error = np.mean((marked.frames_THWC.astype(np.float32) - clip.frames_THWC) ** 2)
    assert 10 * np.log10(255**2 / error) > 40.0


def test_fields_are_orthonormal_and_depend_on_the_key(key: bytes) -> None:
    coefficients_KD = Carriers.of_key(key).coefficients_KD
    np.testing.assert_allclose(coefficients_KD @ coefficients_KD.T, np.eye(211), atol=1e-9)
    fields = Carriers.of_key(key).fields(64).reshape(211, -1)
    np.testing.assert_allclose((fields**2).mean(1), 1.0, atol=0.2)
    assert np.abs(fields @ fields.T / fields.shape[1] - np.eye(211)).max() < 0.25
    other = Carriers.of_key(hashlib.sha256(b"other").digest()).fields(64).reshape(211, -1)
    assert np.abs(fields @ other.T / fields.shape[1]).max() < 0.25


def test_the_wire_format_has_not_changed() -> None:
    # Marks in circulation must stay readable: fields of a known key, with room for LAPACK builds.
    fields = Carriers.of_key(bytes(range(32))).fields(64)
    np.testing.assert_allclose(fields[[0, 1, 210], 0, 3, 5], [-0.49926, 1.60895, -0.04318], atol=1e-4)


def test_keys_are_32_bytes(mark_id: MarkId, clip: Clip) -> None:
    with pytest.raises(InvalidMarkKeyError):
        Embedder(b"short", mark_id, 512, 512, 25.0)
    with pytest.raises(InvalidMarkKeyError):
        read(clip, b"short")


def test_small_and_changing_frames_are_refused(clip: Clip, key: bytes, mark_id: MarkId) -> None:
    with pytest.raises(FrameTooSmallError):
        Embedder(key, mark_id, 95, 512, 25.0)
    embedder = Embedder(key, mark_id, 512, 512, 25.0)
    with pytest.raises(InconsistentFramesError):
        embedder.apply(clip.frames_THWC[:, :256])
    with pytest.raises(InconsistentFramesError):
        embedder.mark_planes(encoder_planes(clip.frames_THWC[0, :256]), 0)
