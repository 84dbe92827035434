"""The plan keeps identities apart and short cuts out; the path from item to example is the same for both classes."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from detector.blend import self_blend
from detector.camera import CameraStyle, film_still, sway
from detector.channel import Channel, deliver, without_mark
from detector.data import (
    EARLIER,
    VARIANT,
    Item,
    Kind,
    Material,
    Quotas,
    Render,
    check_disjoint,
    make_example,
    plan,
    renders_in,
    splits_of,
)
from detector.errors import EmptyCorpusError, LeakyCorpusError
from detector.observation import Observer
from detector.trials import TRIALS
from tests.detector.drawing import draw_face
from watermark.embed import Embedder
from watermark.media import Clip
from watermark.payload import MarkId


def material() -> Material:
    """A made-up corpus; planning reads no file."""
    renders = tuple(
        Render(f"r{i}{voice}", f"synthetic/{i:02d}", voice, Path(f"r{i}{voice}.mp4"), MarkId(i))
        for i in range(8)
        for voice in "ab"
    )
    return Material(
        tuple(Path(f"officials/{i:03d}.jpg") for i in range(40)),
        tuple(Path(f"synthetic/{i:02d}.jpg") for i in range(20)),
        tuple(Path(f"grid/{i}.mpg") for i in range(6)),
        renders,
        b"k" * 32,
    )


@pytest.fixture
def items() -> list[Item]:
    return plan(material(), Quotas(), 0)


def test_an_identity_is_in_one_split(items: list[Item]) -> None:
    splits = defaultdict(set)
    for item in items:
        splits[item.identity].add(item.split)
    assert all(len(found) == 1 for found in splits.values())
    assert {item.split for item in items if item.kind is Kind.RENDER} == {"train", "calibrate", "test"}


def test_every_render_has_its_own_still_on_the_same_journey(items: list[Item]) -> None:
    stills = {(item.pair, item.identity, item.trial) for item in items if item.kind is Kind.FILMED_STILL}
    renders = [item for item in items if item.kind is Kind.RENDER]
    assert len([item for item in renders if not item.trial]) == 8 * 2
    assert all((item.pair, item.identity, item.trial) in stills for item in renders)


def test_trials_are_of_the_test_split_and_go_another_way_with_the_same_take(items: list[Item]) -> None:
    ordinary = {item.name: item for item in items if not item.trial}
    trials = [item for item in items if item.trial]
    assert {item.trial for item in trials} == set(TRIALS)
    for item in trials:
        origin = ordinary[item.name.removesuffix(f"/{item.trial}")]
        assert item.split == "test"
        assert (item.seed, item.pair, item.label) == (origin.seed, origin.pair, origin.label)


def test_what_is_held_out_only_measures_and_only_on_faces_of_the_test_split() -> None:
    known = material()
    held_out = tuple(replace(r, name=f"{r.name}-x", variant="other", held_out=True) for r in known.renders[:16:2])
    found = plan(replace(known, renders=known.renders + held_out), Quotas(), 0)
    ordinary = [item for item in found if item.trial != f"{VARIANT}other"]
    assert {item.name for item in ordinary} == {item.name for item in plan(known, Quotas(), 0)}
    others = [item for item in found if item.trial == f"{VARIANT}other"]
    assert {item.split for item in others} == {"test"}
    assert {item.label for item in others} == {0, 1}


def test_earlier_versions_only_teach_and_a_voice_stays_in_its_split() -> None:
    known = material()
    stated = tuple(replace(render, split="test", voice="c") for render in known.renders)
    earlier = tuple(
        Render(f"e{i}{voice}", f"synthetic/{i:02d}", voice, Path("e.mp4"), MarkId(i), EARLIER, has_this_key=False)
        for i in range(6, 20)
        for voice in "cd"
    )
    found = plan(replace(known, renders=stated + earlier), Quotas(), 0)
    renders = [item.render for item in found if item.render is not None and item.split != "test"]
    assert renders
    assert {render.variant for render in renders} == {EARLIER}
    assert {render.voice for render in renders} == {"d"}, "the other voice is of the test split"
    leaking = [replace(render, split="train") for render in known.renders[:1]]
    with pytest.raises(LeakyCorpusError):
        plan(replace(known, renders=(*stated, replace(leaking[0], identity="synthetic/19", voice="c"))), Quotas(), 0)


def test_protected_and_talking_people_are_in_both_classes_but_never_rendered(items: list[Item]) -> None:
    for source in ("officials", "grid"):
        found = [item for item in items if item.source == source]
        assert {item.label for item in found} == {0, 1}
        assert all(item.render is None and item.kind is not Kind.RENDER for item in found)


def test_planning_is_reproducible_and_seeded() -> None:
    assert plan(material(), Quotas(), 0) == plan(material(), Quotas(), 0)
    first, second = plan(material(), Quotas(), 0), plan(material(), Quotas(), 1)
    assert [item.split for item in first] == [item.split for item in second]
    assert {item.seed for item in first}.isdisjoint(item.seed for item in second)


def test_a_new_identity_moves_no_more_than_the_borders() -> None:
    names = [f"person {i}" for i in range(100)]
    before, after = splits_of(names, 0.3, 0.2), splits_of([*names, "newcomer"], 0.3, 0.2)
    assert sum(before[name] != after[name] for name in names) <= 2


def test_leaks_and_missing_classes_are_refused(items: list[Item]) -> None:
    twin = next(item for item in items if item.split == "test")
    with pytest.raises(LeakyCorpusError) as leak:
        check_disjoint([*items, Item("x", twin.kind, twin.identity, "x", "train", "x", 0)])
    assert leak.value.identities == {twin.identity}
    with pytest.raises(EmptyCorpusError):
        plan(Material((), tuple(Path(f"s/{i}.jpg") for i in range(9)), (), ()), Quotas(), 0)


def test_the_watermark_key_is_not_shown() -> None:
    assert "kkkk" not in repr(material())


def test_marks_are_in_both_classes_alike() -> None:
    with_key = material()
    assert with_key.mark_share == 0.5
    assert Material((), (), (), with_key.renders).mark_share == 1.0, "without the key, all renders stay marked"
    assert Material((Path("a.jpg"),), (), (), ()).mark_share == 0.5


def test_an_index_of_renders_is_read(tmp_path: Path) -> None:
    entry = {"file": "a.mp4", "identity": "synthetic/01", "voice": "af", "mark_id": "00000000000000ff"}
    (tmp_path / "index.jsonl").write_text(json.dumps(entry) + "\n")
    [render] = renders_in(tmp_path)
    assert (render.name, render.identity, render.mark_id.value) == ("a", "synthetic/01", 255)


def test_a_filmed_still_moves_as_a_whole(observer: Observer, rng: np.random.Generator) -> None:
    still_HWC = draw_face(5, 640)
    [face] = observer.finder.find(still_HWC)
    tripod = film_still(still_HWC, face, CameraStyle(0, 0, 0, 0), rng, num_frames=4, side_px=256)
    assert tripod.shape == (4, 256, 256, 3)
    assert (tripod == tripod[0]).all()
    held = film_still(still_HWC, face, CameraStyle(0.02, 0.02, 1.0, 0), rng, num_frames=25, side_px=256)
    assert np.abs(held[0].astype(int) - held[-1]).mean() > 0.5
    noisy = sway(tripod, CameraStyle(0, 0, 0, 2.0), rng)
    assert (noisy.astype(int) - tripod).std() == pytest.approx(2.0, rel=0.15)


def test_self_blending_changes_the_face_and_leaves_the_rest(observer: Observer) -> None:
    frames_THWC = np.stack([draw_face(6)] * 2)
    boxes, _ = observer.finder.track(list(frames_THWC))
    changes = [
        np.abs(self_blend(frames_THWC, boxes, np.random.default_rng(seed)).astype(int) - frames_THWC).mean(axis=(0, 3))
        for seed in range(8)
    ]
    # Either the face or what surrounds it is the changed copy; a trace is always left at the face.
    assert all(change[200:360, 180:330].max() > 2 for change in changes)
    assert any(change[:40].max() == 0 for change in changes)
    untouched = self_blend(frames_THWC, [None, None], np.random.default_rng(0))
    assert (untouched == frames_THWC).all()


def test_a_journey_is_reproducible_and_ends_at_its_size() -> None:
    channel = Channel.draw(np.random.default_rng(4))
    clip = Clip(np.stack([draw_face(1, 256)] * 3), 25.0)
    first, second = channel.carry(clip), channel.carry(clip)
    assert (first.clip.frames_THWC == second.clip.frames_THWC).all()
    assert max(first.clip.frames_THWC.shape[1:3]) == channel.side_px
    assert first.bits_per_pixel > 0


def test_a_mark_is_taken_off_by_the_holder_of_the_key() -> None:
    plain = np.stack([draw_face(2, 256)] * 8)
    marked = Embedder(b"k" * 32, MarkId(77), 256, 256, 25.0).apply(plain)
    restored = without_mark(Clip(marked, 25.0), b"k" * 32, MarkId(77)).frames_THWC
    part = without_mark(Clip(marked[3:], 25.0), b"k" * 32, MarkId(77), first_index=3).frames_THWC
    assert (part == restored[3:]).all()
    # what remains is the rounding, with its dither
    assert np.abs(marked.astype(int) - plain).mean() > 2 * np.abs(restored.astype(int) - plain).mean()


def test_deliveries_are_marked_as_wished(rng: np.random.Generator) -> None:
    frames_THWC = np.stack([np.full((128, 128, 3), 128, np.uint8)] * 6)
    spread = [deliver(frames_THWC, 25.0, rng, is_marked=is_marked).frames_THWC.std() for is_marked in (False, True)]
    assert spread[0] < 0.5 < spread[1]


@pytest.mark.parametrize("kind", [Kind.FILMED_STILL, Kind.SELF_BLENDED_STILL])
def test_both_classes_become_alike_examples(observer: Observer, tmp_path: Path, kind: Kind) -> None:
    import cv2

    path = tmp_path / "still.png"
    cv2.imwrite(str(path), draw_face(8)[..., ::-1])
    item = Item("x", kind, "drawn/8", "drawn", "train", "pair", 11, path, num_frames=16)
    example = make_example(item, observer)
    assert example is not None
    if kind is Kind.SELF_BLENDED_STILL:
        again = make_example(item, observer)
        assert again is not None
        assert (example.cells_TCGG == again.cells_TCGG).all()
    assert example.cells_TCGG.dtype == np.float16
    assert len(example.moves_PM) == len(example.cells_TCGG) / 2
    assert example.thumbnail_HWC.shape == (16, 16, 3)
    assert example.face_px > 64
