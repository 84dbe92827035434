"""A cast keeps faces and voices apart, holds one variant out, and is fair from its first take on."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

import pytest

from detector.casting import HELD_OUT, VARIANTS, Recording, Take, cast, recordings_in
from detector.errors import EmptyCorpusError
from generator.controls import MotionControls

PORTRAITS = [Path(f"portraits/synthetic/{number:02d}.jpg") for number in range(40)]
RECORDINGS = [Recording(Path(f"speech/{n}.opus"), f"voice {n % 12}", 3.0) for n in range(60)]


def takes(num_takes: int = 40, num_held_out: int = 6, seed: int = 0) -> list[Take]:
    return cast(PORTRAITS, RECORDINGS, num_takes=num_takes, num_held_out=num_held_out, shares=(0.45, 0.15), seed=seed)


def test_faces_and_voices_are_each_in_one_split() -> None:
    splits = defaultdict(set)
    for take in takes():
        splits[take.identity].add(take.split)
        splits[take.voice].add(take.split)
    assert all(len(found) == 1 for found in splits.values())
    assert {take.split for take in takes()} == {"train", "calibrate", "test"}


def test_the_held_out_variant_is_of_the_test_split_alone() -> None:
    held_out = [take for take in takes() if take.variant == HELD_OUT]
    assert len(held_out) == 6
    assert {take.split for take in held_out} == {"test"}
    assert {take.variant for take in takes()} == set(VARIANTS)


def test_casting_is_seeded_and_names_are_unique() -> None:
    assert takes() == takes()
    assert takes(seed=1) != takes()
    assert len({take.name for take in takes()}) == 46


def test_the_beginning_is_a_fair_sample() -> None:
    first = takes()[:20]
    assert {take.split for take in first} == {"train", "calibrate", "test"}
    assert len({take.variant for take in first}) >= 5


def test_controls_are_ones_that_the_generator_takes() -> None:
    for take in takes():
        MotionControls.from_json(take.controls)


def test_what_is_missing_is_said() -> None:
    with pytest.raises(EmptyCorpusError):
        cast([], RECORDINGS, num_takes=4, num_held_out=0, shares=(0.5, 0.2), seed=0)
    with pytest.raises(EmptyCorpusError):
        cast(PORTRAITS, RECORDINGS[:1], num_takes=9, num_held_out=0, shares=(0.5, 0.2), seed=0)


def test_recordings_of_a_fitting_length_are_listed(tmp_path: Path) -> None:
    entries = [
        {"file": f"{n}.opus", "voice": "a", "duration_s": duration} for n, duration in enumerate((1.0, 3.0, 9.0))
    ]
    (tmp_path / "index.jsonl").write_text("\n".join(map(json.dumps, entries)) + "\n")
    assert [recording.path.name for recording in recordings_in(tmp_path)] == ["1.opus"]
