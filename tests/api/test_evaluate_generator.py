"""Which portrait speaks with which recording, and what is refused before anything is rendered."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from api.cli.evaluate_generator import _SPEECH_SUFFIXES, _files, _pairs
from api.errors import InvalidFieldError

VOICES = [Path(f"{name}.wav") for name in "abc"]


def test_every_portrait_speaks_with_every_recording() -> None:
    assert len(set(_pairs(["x", "y"], VOICES, None))) == 6
    assert _pairs(["x", "y"], VOICES, 99) == _pairs(["x", "y"], VOICES, None)


@pytest.mark.parametrize("most", [1, 2, 3, 4, 5])
def test_fewer_pairs_take_portraits_and_recordings_in_turn(most: int) -> None:
    pairs = _pairs(["x", "y"], VOICES, most)
    assert len(set(pairs)) == most
    for column in (0, 1):
        counts = Counter(pair[column] for pair in pairs)
        assert max(counts.values()) - min(counts.values()) <= 1


def test_a_folder_without_recordings_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing to hear", "utf-8")
    with pytest.raises(InvalidFieldError, match=r"\.wav"):
        _files(tmp_path, _SPEECH_SUFFIXES)
