"""Fingerprints: what was signed is recognised after it was changed; what was not signed is not, also with its mark."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from generator.personas import sample_paths
from tests.watermark.clips import talking
from watermark.attacks import Attack, h264, resize
from watermark.colour import encoder_planes
from watermark.embed import Embedder
from watermark.errors import InvalidManifestSpecError
from watermark.extract import read_mark
from watermark.fingerprint import (
    MATCH_SHARE,
    FingerprintReading,
    Fingerprints,
    FingerprintTaker,
    FoundContent,
    View,
    compare,
    views,
)
from watermark.media import Clip, Sound, decode_sound
from watermark.payload import MarkId
from watermark.sound_attacks import SOUND_SUITE


def taken(clip: Clip) -> Fingerprints:
    """As `mark.produce` takes them, and once through the manifest."""
    taker = FingerprintTaker(clip.frames_THWC.shape[2], clip.frames_THWC.shape[1])
    for frame_HWC, time_s in zip(clip.frames_THWC, clip.times_T, strict=True):
        taker.add(encoder_planes(frame_HWC).luma_HW, float(time_s))
    return Fingerprints.from_json(json.loads(json.dumps(taker.finish(clip.sound).to_json())))


@pytest.fixture(scope="module")
def speech() -> list[Sound]:
    return [decode_sound(path.read_bytes()) for path in sorted(sample_paths())[:3]]


@pytest.fixture(scope="module")
def signed_clip(speech: list[Sound]) -> Clip:
    clip = talking(256, 256, 4.0)
    return Clip(clip.frames_THWC, clip.rate_hz, Sound(speech[0].samples_N[: 4 * 16_000], 16_000))


@pytest.fixture(scope="module")
def signed(signed_clip: Clip) -> Fingerprints:
    return taken(signed_clip)


def part(start_s: float) -> Attack:
    def attack(clip: Clip) -> Clip:
        first = round(start_s * clip.rate_hz)
        assert clip.sound is not None
        sound = Sound(clip.sound.samples_N[round(start_s * clip.sound.rate_hz) :], clip.sound.rate_hz)
        return Clip(clip.frames_THWC[first:], clip.rate_hz, sound)

    return attack


def frames(change: Callable[[np.ndarray], np.ndarray]) -> Attack:
    return lambda clip: Clip(np.stack([change(f) for f in clip.frames_THWC]), clip.rate_hz, clip.sound, clip.times_T)


@pytest.mark.parametrize(
    "attack",
    [
        frames(lambda f: f),
        h264(32),
        resize(0.5),
        frames(lambda f: (f * 0.5).astype(np.uint8)),
        frames(lambda f: cv2.GaussianBlur(f, (0, 0), 2.0)),
        part(0.72),
    ],
    ids=["none", "H.264 32", "half size", "half as bright", "blur", "late start"],
)
def test_changed_copies_match(attack: Attack, signed_clip: Clip, signed: Fingerprints) -> None:
    found = attack(signed_clip)
    reading = compare(
        signed,
        FoundContent.of_clip(Clip(found.frames_THWC, found.rate_hz, found.sound or signed_clip.sound, found.times_T)),
    )
    assert reading.state == "match", reading
    assert reading.features["motion"].state == "match"


def test_where_the_found_clip_begins(signed_clip: Clip, signed: Fingerprints) -> None:
    reading = compare(signed, FoundContent.of_clip(part(1.2)(signed_clip)))
    assert reading.features["sound"].offset_s == pytest.approx(1.2, abs=0.04)
    assert reading.features["motion"].offset_s == pytest.approx(1.2, abs=0.1)


@pytest.mark.parametrize(("left", "top"), [(38, 38), (0, 60)])
def test_a_crop_matches_once_the_mark_told_its_scale(
    left: int, top: int, signed_clip: Clip, signed: Fingerprints
) -> None:
    found = frames(lambda f: f[top : top + 180, left : left + 180])(signed_clip)
    candidates = views(256 / 180, False, 1.0, 1.0)
    reading = compare(signed, FoundContent.of_clip(found), candidates=candidates)
    assert reading.features["motion"].state == "match", reading


def test_a_mirrored_copy_matches(signed_clip: Clip, signed: Fingerprints) -> None:
    found = frames(lambda f: f[:, ::-1])(signed_clip)
    reading = compare(signed, FoundContent.of_clip(found), candidates=views(1.0, True, 1.0, 1.0))
    assert reading.state == "match" and reading.features["appearance"].state == "match"


def test_the_same_face_saying_something_else_differs(
    signed_clip: Clip, signed: Fingerprints, speech: list[Sound]
) -> None:
    for other in speech[1:]:
        found = Clip(signed_clip.frames_THWC, 25.0, Sound(other.samples_N[: 4 * 16_000], 16_000))
        reading = compare(signed, FoundContent.of_clip(found))
        assert reading.state == "differs" and reading.features["sound"].state == "differs"
        assert "the sound" in reading.reason


def test_the_same_picture_that_moves_otherwise_differs(signed_clip: Clip, signed: Fingerprints) -> None:
    order = np.random.default_rng(0).permutation(10)
    shuffled = Clip(np.concatenate([signed_clip.frames_THWC[10 * i : 10 * i + 10] for i in order]), 25.0)
    reading = compare(signed, FoundContent.of_clip(shuffled))
    assert reading.state == "differs" and reading.features["motion"].state == "differs"
    assert reading.features["sound"].state == "not_comparable"


@pytest.mark.parametrize("name", ["MP3 64 kb/s", "Opus 32 kb/s", "noise 20 dB", "8 kHz", "gain -20 dB"])
def test_sounds_match_after_what_happens_to_them(name: str, speech: list[Sound]) -> None:
    clip = Clip(np.zeros((1, 128, 128, 3), np.uint8), 25.0, speech[0])
    found = SOUND_SUITE[name](speech[0])
    reading = compare(taken(clip), FoundContent.of_sound(found))
    assert reading.state == "match" and (reading.features["sound"].share or 0) > MATCH_SHARE["sound"]


def test_a_changed_speed_is_undone(speech: list[Sound]) -> None:
    clip = Clip(np.zeros((1, 128, 128, 3), np.uint8), 25.0, speech[0])
    found = FoundContent.of_sound(SOUND_SUITE["speed +10 %"](speech[0]))
    assert compare(taken(clip), found, tempo=1.1, pitch=1.1).state == "match"
    assert compare(taken(clip), found).state == "differs"


def test_a_copied_mark_is_read_but_the_content_differs(
    signed_clip: Clip, signed: Fingerprints, speech: list[Sound], key: bytes
) -> None:
    """The attack: what marking adds to the frames of one clip is added to those of another."""
    mark_id = MarkId(0x0123456789ABCDEF)
    embedder = Embedder(key, mark_id, 256, 256, 25.0)
    residual = embedder.apply(signed_clip.frames_THWC).astype(np.int16) - signed_clip.frames_THWC
    victim_THWC = talking(256, 256, 4.0, seed=9).frames_THWC[::-1]
    other = Sound(speech[1].samples_N[: 4 * 16_000], 16_000)
    pasted = Clip(np.clip(victim_THWC + residual, 0, 255).astype(np.uint8), 25.0, other)
    reading = read_mark(pasted, key, {mark_id}.__contains__, num_registered=1)
    assert reading.state == "detected" and reading.mark_id == mark_id
    compared: FingerprintReading = compare(signed, FoundContent.of_clip(pasted))
    assert compared.state == "differs"
    assert {name for name, feature in compared.features.items() if feature.state == "differs"} >= {"sound"}


def test_too_little_is_not_compared(signed_clip: Clip, signed: Fingerprints) -> None:
    still = Clip(signed_clip.frames_THWC[:1], 25.0)
    assert compare(signed, FoundContent.of_clip(still)).state == "not_comparable"
    nothing = Fingerprints.from_json(FingerprintTaker(64, 64).finish(None).to_json())
    assert compare(nothing, FoundContent.of_clip(signed_clip)).state == "not_comparable"


def test_squares_of_a_view_add_up() -> None:
    for view in (View(), View(0.2, 0.1, 0.7, 0.7), View(-0.5, -0.5, 2.0, 2.0, True)):
        weights, shown = view.weights(8)
        assert np.allclose(weights.sum(axis=0)[shown], 1.0, atol=1e-5)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.just("AAAA"),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
        max_leaves=6,
    ),
    st.sampled_from(["format", "aspect", "appearance", "motion", "sound", ""]),
)
def test_damaged_fingerprints_raise_only_our_error(value: object, name: str) -> None:
    data: dict[str, object] = FingerprintTaker(64, 64).finish(None).to_json() | ({name: value} if name else {})
    with contextlib.suppress(InvalidManifestSpecError):
        Fingerprints.from_json(data)
