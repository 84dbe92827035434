"""The material: who is shown, in which class, on which side of the split, and how each item becomes an example.

The rules that keep short cuts out (design: "No shortcuts"):

- People who must not be animated appear as they are and self-blended: being one of them says nothing.
- Synthetic identities appear rendered, and as their own un-animated stills: being synthetic says nothing.
- Talking people appear as they are and self-blended: a moving mouth alone says nothing, as far as there are such clips.
- All items go through `channel`: marks, coding, size, blur and noise say nothing. A pair shares one channel.
- An identity, with everything made from it, is in exactly one split, and so is a voice.
- What is held out (a variant of the generator) and what is tried (attacks, see `detector.trials`) is of the test split.

T frame  P pair  C channel  G cell  M measurement  H,W pixel
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Literal, NamedTuple

import cv2
import numpy as np
from jaxtyping import Float16, Float32, UInt8

from detector.blend import self_blend
from detector.camera import CameraStyle, film_still
from detector.channel import CODECS, Channel, deliver, without_mark
from detector.errors import EmptyCorpusError, LeakyCorpusError
from detector.face import FaceBox
from detector.observation import NUM_PAIRS, Observer
from detector.picture import read_picture
from detector.trials import TRIALS
from watermark.media import Clip, decode_clip
from watermark.payload import MarkId

Split = Literal["train", "calibrate", "test"]
VARIANT = "variant "
EARLIER = "earlier_version"

_RECIPE = "3"
"""Part of every cache key: raise it when the way from item to example changes."""


class Kind(StrEnum):
    """What an item is. The first two are authentic: not animated, not pasted."""

    FILMED_STILL = "filmed_still"
    TALKING = "talking"
    SELF_BLENDED_STILL = "self_blended_still"
    SELF_BLENDED_TALKING = "self_blended_talking"
    RENDER = "render"

    @property
    def synthetic(self) -> bool:
        return self not in (Kind.FILMED_STILL, Kind.TALKING)


@dataclass(frozen=True)
class Render:
    """One output of the generator, to be had when it is asked for.

    Attributes:
        name: unique among the renders.
        identity: whose portrait was animated: the portrait's folder and stem, as in "synthetic/9x7_04".
        voice: who speaks.
        path: the delivery: marked, like everything that leaves the generator.
        mark_id: the mark it carries.
        variant: which manner of the generator made it.
        split: where its identity belongs; None leaves that to the plan.
        held_out: kept out of training and calibration, and measured apart under the name of its variant.
        has_this_key: whether its mark is under the material's key, and can be taken off again.
    """

    name: str
    identity: str
    voice: str
    path: Path
    mark_id: MarkId
    variant: str = ""
    split: Split | None = None
    held_out: bool = False
    has_this_key: bool = True


@dataclass(frozen=True)
class Material:
    """Where the material lies. Every folder may be absent; a class without any item is refused when training.

    Attributes:
        protected_stills: portraits of people who must never be animated.
        synthetic_stills: portraits of synthetic identities, the ones that were rendered.
        talking_clips: recordings of people who talk.
        renders: the generator's outputs.
        watermark_key: the key they are marked under. With it, half of them are shown to the network with their mark
            taken off again, in memory; without it, all of them marked, and then all authentic items are marked too.
    """

    protected_stills: tuple[Path, ...]
    synthetic_stills: tuple[Path, ...]
    talking_clips: tuple[Path, ...]
    renders: tuple[Render, ...]
    watermark_key: bytes | None = field(default=None, repr=False)

    @property
    def mark_share(self) -> float:
        """Share of marked items, in either class."""
        return 0.5 if self.watermark_key is not None or not self.renders else 1.0


@dataclass(frozen=True)
class Quotas:
    """How much is made of what.

    Attributes:
        train, calibrate: share of the identities of each folder; the rest is for testing.
        talking_train: the same for the talking people, of whom there are few.
        talking_takes: examples cut from each talking clip.
        protected_train, protected_calibrate: the same for protected people, whom the false alarms are counted on.
        render_takes: journeys that each render of the training split is sent on; the others take one.
        blended_share: share of the protected stills that also appear self-blended.
        blended_takes: of the takes of a talking clip, how many also appear self-blended.
        protected: protected stills, at most.
        unrendered: synthetic stills of identities that were not rendered, at most.
        earlier: renders of earlier versions, at most.
        trials: renders of the test split, with their stills, that are put through every trial.
        num_frames: length of an example in frames, over which as many pairs are spread as the service looks at.
    """

    train: float = 0.45
    calibrate: float = 0.15
    talking_train: float = 0.5
    talking_takes: int = 8
    protected_train: float = 0.25
    protected_calibrate: float = 0.25
    render_takes: int = 1
    blended_share: float = 0.1
    blended_takes: int = 1
    protected: int = 160
    unrendered: int = 40
    earlier: int = 48
    trials: int = 10
    num_frames: int = 40


@dataclass(frozen=True)
class Item:
    """One example to be made. `pair` names what it shares identity, take and channel with; `seed` is all its chance.

    `trial` is empty for the ordinary journey; otherwise the item only measures: it names a trial of `detector.trials`
    or, after `VARIANT`, a variant of the generator that was held out.
    """

    name: str
    kind: Kind
    identity: str
    source: str
    split: Split
    pair: str
    seed: int
    path: Path | None = None
    render: Render | None = None
    trial: str = ""
    num_frames: int = 40

    @property
    def label(self) -> int:
        return int(self.kind.synthetic)


class Example(NamedTuple):
    """An item as the network sees it, and what short cuts could look at instead.

    Attributes:
        item: what it was made from.
        cells_TCGG, moves_PM: see `Observation`.
        face_px: side of the face on arrival.
        thumbnail_HWC: the middle frame, 16×16.
        background_C: mean cells of a corner of the middle frame, away from the face.
        coding_4: bits per pixel, side of the frames, codec as a number, constant rate factor; after a trial unknown,
            hence zeros.
    """

    item: Item
    cells_TCGG: Float16[np.ndarray, "t c 14 14"]
    moves_PM: Float32[np.ndarray, "p m"]
    face_px: float
    thumbnail_HWC: Float32[np.ndarray, "16 16 3"]
    background_C: Float32[np.ndarray, " c"]
    coding_4: Float32[np.ndarray, " 4"]


def renders_in(folder: Path, *, earlier: bool = False) -> tuple[Render, ...]:
    """The renders that a folder's `index.jsonl` lists, as `api.training` writes it; only the first four are needed:
    `{"file", "identity", "voice", "mark_id", "variant", "split", "is_held_out"}`. Lines of takes that were turned down
    have no file and are passed over.

    Args:
        folder: of the index.
        earlier: they are of an earlier version of the generator, under the marks of another instance, and only teach.
    """
    renders = []
    for line in (folder / "index.jsonl").read_text().splitlines():
        entry = json.loads(line)
        if "file" in entry:
            path = folder / entry["file"]
            renders.append(
                Render(
                    name=path.stem,
                    identity=entry["identity"],
                    voice=entry["voice"],
                    path=path,
                    mark_id=MarkId.from_hex(entry["mark_id"]),
                    variant=EARLIER if earlier else entry.get("variant", ""),
                    split=None if earlier else entry.get("split"),
                    held_out=bool(entry.get("is_held_out")),
                    has_this_key=not earlier,
                )
            )
    return tuple(renders)


def splits_of(identities: Iterable[str], train: float, calibrate: float) -> dict[str, Split]:
    """Put each identity of one folder into a split; the order of the hash decides, so that a new identity moves few."""
    ordered = sorted(set(identities), key=lambda name: hashlib.sha256(name.encode()).digest())
    num_train = round(train * len(ordered))
    num_calibrate = max(1, round(calibrate * len(ordered))) if len(ordered) > 2 else 0
    names: dict[str, Split] = {}
    for position, name in enumerate(ordered):
        if position < num_train:
            names[name] = "train"
        elif position < num_train + num_calibrate:
            names[name] = "calibrate"
        else:
            names[name] = "test"
    return names


def plan(material: Material, quotas: Quotas, seed: int) -> list[Item]:
    """List every item to be made. Pure: nothing is read.

    Raises: EmptyCorpusError: a class has nothing to show. LeakyCorpusError: an identity would be in two splits.
    """
    items = [*_plan_protected(material, quotas, seed), *_plan_synthetic(material, quotas, seed)]
    items += _plan_talking(material, quotas, seed)
    items += _plan_trials(items, quotas)
    if not any(item.label for item in items) or all(item.label for item in items):
        raise EmptyCorpusError("Both classes need at least one item: authentic material, and renders to compare with.")
    check_disjoint(items)
    return [replace(item, num_frames=quotas.num_frames) for item in items]


def check_disjoint(items: Sequence[Item]) -> None:
    """Raises: LeakyCorpusError: an identity, or a voice of renders that state their split, is in more than one."""
    splits: dict[str, set[str]] = defaultdict(set)
    for item in items:
        splits[item.identity].add(item.split)
        if item.render is not None and item.render.split is not None:
            splits[f"voice {item.render.voice}"].add(item.split)
    leaking = frozenset(identity for identity, found in splits.items() if len(found) > 1)
    if leaking:
        raise LeakyCorpusError(leaking)


def make_example(
    item: Item, observer: Observer, *, mark_share: float = 0.5, watermark_key: bytes | None = None
) -> Example | None:
    """Make one example: picture or clip → camera → delivery → channel → cells. None where no face is found at the end.

    Args:
        item: what to make.
        observer: finds the face and computes the cells.
        mark_share: share of the items that are marked, in either class.
        watermark_key: the key the renders are marked under; needed to take marks off.
    """
    channel = Channel.draw(np.random.default_rng(_seed_of(item.pair, 0)))
    delivered = _delivered(item, observer, np.random.default_rng(item.seed), mark_share, watermark_key)
    if delivered is None:
        return None
    if item.trial in TRIALS:
        clip, coding_4 = TRIALS[item.trial].attack(delivered), np.zeros(4, np.float32)
    else:
        arrival = channel.carry(delivered)
        clip = arrival.clip
        codec = CODECS.index(channel.codec)
        coding_4 = np.array([arrival.bits_per_pixel, channel.side_px, codec, channel.crf], np.float32)
    observation = observer.observe(clip.frames_THWC, clip.rate_hz)
    if observation is None:
        return None
    middle_HWC = clip.frames_THWC[len(clip.frames_THWC) // 2]
    corner = middle_HWC.shape[0] // 5
    background_CGG = observer.features.of(np.ascontiguousarray(middle_HWC[:corner, :corner]))
    return Example(
        item,
        observation.cells_TCGG,
        observation.moves_PM,
        observation.face_px,
        cv2.resize(middle_HWC, (16, 16), interpolation=cv2.INTER_AREA).astype(np.float32),
        background_CGG.mean(axis=(1, 2)),
        coding_4,
    )


@dataclass(frozen=True)
class ExampleStore:
    """Examples on disk, so that a second training does not compute them again. Holds cells and numbers, no pictures
    but 16×16 thumbnails."""

    folder: Path

    def examples(
        self,
        items: Sequence[Item],
        observer: Observer,
        *,
        mark_share: float,
        watermark_key: bytes | None,
        progress: Callable[[int, int], None],
        make_missing: bool = True,
    ) -> Iterator[Example]:
        """Each item's example, made or read; items without a face at the end are left out, and those that were not made
        yet, unless they are to be made."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for position, item in enumerate(items):
            progress(position, len(items))
            path = self.folder / f"{_key_of(item, mark_share)}.npz"
            if not path.is_file():
                if not make_missing:
                    continue
                example = make_example(item, observer, mark_share=mark_share, watermark_key=watermark_key)
                fields = {} if example is None else {k: v for k, v in example._asdict().items() if k != "item"}
                partial = path.with_suffix(".partial.npz")
                np.savez(partial, **fields)
                partial.rename(path)
            with np.load(path) as fields:
                if "cells_TCGG" in fields:
                    yield Example(
                        item,
                        fields["cells_TCGG"],
                        fields["moves_PM"],
                        float(fields["face_px"]),
                        fields["thumbnail_HWC"],
                        fields["background_C"],
                        fields["coding_4"],
                    )
        progress(len(items), len(items))


def _plan_protected(material: Material, quotas: Quotas, seed: int) -> Iterator[Item]:
    stills = _some(material.protected_stills, quotas.protected)
    splits = splits_of(map(_identity, stills), quotas.protected_train, quotas.protected_calibrate)
    for position, path in enumerate(stills):
        identity = _identity(path)
        pair = f"{seed}/{identity}/still"
        yield _item(Kind.FILMED_STILL, identity, splits[identity], pair, path=path)
        if position % 10 < round(10 * quotas.blended_share):
            yield _item(Kind.SELF_BLENDED_STILL, identity, splits[identity], pair, path=path)


def _plan_synthetic(material: Material, quotas: Quotas, seed: int) -> Iterator[Item]:
    stills = {_identity(path): path for path in material.synthetic_stills}
    splits = _splits_of_synthetic(material, quotas)
    voices = {render.voice: render.split for render in material.renders if render.split is not None}
    taught = [render for render in material.renders if not render.held_out and render.variant != EARLIER]
    earlier = [render for render in material.renders if _may_teach(render, splits, voices)]
    taught += earlier[: quotas.earlier]
    for render in taught:
        split = splits[render.identity]
        for take in range(quotas.render_takes if split == "train" else 1):
            pair = f"{seed}/{render.identity}/{render.name}/{take}"
            yield _item(Kind.RENDER, render.identity, split, pair, render=render)
            if render.identity in stills:
                yield _item(Kind.FILMED_STILL, render.identity, split, pair, path=stills[render.identity])
    for render in material.renders:
        if render.held_out and splits[render.identity] == "test":
            pair, trial = f"{seed}/{render.identity}/{render.variant}/{render.name}", f"{VARIANT}{render.variant}"
            yield _item(Kind.RENDER, render.identity, "test", pair, render=render, trial=trial)
            if render.identity in stills:
                path = stills[render.identity]
                yield _item(Kind.FILMED_STILL, render.identity, "test", pair, path=path, trial=trial)
    rendered = {render.identity for render in taught}
    others = [path for identity, path in stills.items() if identity not in rendered]
    for path in _some(others, quotas.unrendered):
        identity = _identity(path)
        yield _item(Kind.FILMED_STILL, identity, splits[identity], f"{seed}/{identity}/still", path=path)


def _may_teach(render: Render, splits: Mapping[str, Split], voices: Mapping[str, Split | None]) -> bool:
    """Whether a render of an earlier version may be used: the test split is for the present one alone, and a voice
    stays in the split that it has."""
    split = splits[render.identity]
    return render.variant == EARLIER and split != "test" and voices.get(render.voice, split) == split


def _splits_of_synthetic(material: Material, quotas: Quotas) -> dict[str, Split]:
    """Where each synthetic identity belongs: as its renders came, or by chance; rendered ones, those that only earlier
    versions rendered, and others apart, so that each split gets its share of each."""
    rendered = {render.identity for render in material.renders if render.variant != EARLIER}
    share = (quotas.train, quotas.calibrate)
    earlier = {render.identity for render in material.renders if render.variant == EARLIER}
    others = {_identity(path) for path in material.synthetic_stills} - earlier
    stated = {render.identity: render.split for render in material.renders if render.split is not None}
    only_taught = splits_of(earlier, 1 - quotas.calibrate, quotas.calibrate)
    return splits_of(others - rendered, *share) | only_taught | splits_of(rendered, *share) | stated


def _plan_talking(material: Material, quotas: Quotas, seed: int) -> Iterator[Item]:
    splits = splits_of((_identity(path) for path in material.talking_clips), quotas.talking_train, quotas.calibrate)
    for path in material.talking_clips:
        identity = _identity(path)
        for take in range(quotas.talking_takes):
            pair = f"{seed}/{identity}/{take}"
            yield _item(Kind.TALKING, identity, splits[identity], pair, path=path)
            if take < quotas.blended_takes:
                yield _item(Kind.SELF_BLENDED_TALKING, identity, splits[identity], pair, path=path)


def _plan_trials(items: Sequence[Item], quotas: Quotas) -> list[Item]:
    """Some of the test split once more, for every trial: renders and their stills, people who talk, other stills."""
    tested = [item for item in items if item.split == "test" and not item.trial]
    renders = [item for item in tested if item.kind is Kind.RENDER][: quotas.trials]
    pairs = {item.pair for item in renders}
    twins = [item for item in tested if item.kind is Kind.FILMED_STILL and item.pair in pairs]
    others = []
    for kind in (Kind.TALKING, Kind.FILMED_STILL):
        others += [item for item in tested if item.kind is kind and item.pair not in pairs][: quotas.trials // 3]
    return [
        replace(item, name=f"{item.name}/{trial}", trial=trial)
        for item in (*renders, *twins, *others)
        for trial in TRIALS
    ]


def _some(paths: Iterable[Path], most: int) -> list[Path]:
    """At most so many, chosen by the hash of who is shown."""
    return sorted(paths, key=lambda path: hashlib.sha256(_identity(path).encode()).digest())[:most]


def _item(
    kind: Kind,
    identity: str,
    split: Split,
    pair: str,
    *,
    path: Path | None = None,
    render: Render | None = None,
    trial: str = "",
) -> Item:
    name = f"{pair}/{kind}"
    source = "renders" if path is None else path.parent.name
    return Item(name, kind, identity, source, split, pair, _seed_of(name, 1), path, render, trial)


def _delivered(
    item: Item, observer: Observer, rng: np.random.Generator, mark_share: float, watermark_key: bytes | None
) -> Clip | None:
    """The clip as its maker would hand it out: the renders are; authentic and self-blended material is made so here."""
    is_marked = TRIALS[item.trial].is_marked if item.trial in TRIALS else None
    if is_marked is None:
        is_marked = bool(rng.random() < mark_share)
    if item.render is not None:
        clip, start = _excerpt(decode_clip(item.render.path), item.num_frames, rng)
        if watermark_key is not None and item.render.has_this_key and not is_marked:
            clip = without_mark(clip, watermark_key, item.render.mark_id, start)
        return clip
    assert item.path is not None, "an item has a path or a render"
    if item.kind in (Kind.FILMED_STILL, Kind.SELF_BLENDED_STILL):
        # Both items of a pair are filmed by the same camera.
        shared = np.random.default_rng(_seed_of(item.pair, 2))
        still_HWC = read_picture(item.path.read_bytes())
        faces = observer.finder.find(still_HWC)
        if not faces:
            return None
        style = CameraStyle.draw(shared)
        frames_THWC = film_still(still_HWC, faces[0], style, shared, num_frames=item.num_frames)
    else:
        shared = np.random.default_rng(_seed_of(item.pair, 2))
        framed = _framed(_excerpt(decode_clip(item.path), item.num_frames, shared)[0], observer, shared)
        if framed is None:
            return None
        frames_THWC = framed.frames_THWC
    if item.kind.synthetic:
        frames_THWC = self_blend(frames_THWC, _boxes(frames_THWC, observer), rng)
    return deliver(frames_THWC, 25.0, rng, is_marked=is_marked)


def _excerpt(clip: Clip, num_frames: int, rng: np.random.Generator) -> tuple[Clip, int]:
    """A part of the length of an example, and where it begins."""
    start = int(rng.integers(max(1, len(clip.frames_THWC) - num_frames + 1)))
    return Clip(clip.frames_THWC[start : start + num_frames], clip.rate_hz), start


def _framed(clip: Clip, observer: Observer, rng: np.random.Generator) -> Clip | None:
    """A square around the face, of a size drawn by chance, at the size of a delivery."""
    faces = observer.finder.find(clip.frames_THWC[0])
    if not faces:
        return None
    height, width = clip.frames_THWC.shape[1:3]
    side = int(min(height, width, faces[0].side_px * rng.uniform(1.6, 2.2)))
    left = int(np.clip(faces[0].centre_x - side / 2, 0, width - side))
    top = int(np.clip(faces[0].centre_y - side / 2, 0, height - side))
    frames_THWC = np.stack(
        [
            cv2.resize(frame_HWC[top : top + side, left : left + side], (512, 512), interpolation=cv2.INTER_CUBIC)
            for frame_HWC in clip.frames_THWC
        ]
    )
    return Clip(frames_THWC, clip.rate_hz)


def _boxes(frames_THWC: UInt8[np.ndarray, "t h w 3"], observer: Observer) -> list[FaceBox | None]:
    """The face in every frame, found in every fourth and held in between."""
    found, _ = observer.finder.track([frames_THWC[index] for index in range(0, len(frames_THWC), 4)])
    return [found[index // 4] for index in range(len(frames_THWC))]


def _identity(path: Path) -> str:
    return f"{path.parent.name}/{path.stem}"


def _seed_of(name: str, purpose: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{purpose}:{name}".encode()).digest()[:8], "big") >> 1


def _key_of(item: Item, mark_share: float) -> str:
    described = f"{_RECIPE}|{item.name}|{item.path}|{mark_share:.2f}|{item.num_frames}|{NUM_PAIRS}"
    return hashlib.sha256(described.encode()).hexdigest()[:24]
