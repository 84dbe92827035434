"""Manner: files that are none, and that what is learned moves as what was seen."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from generator.behaviour import Behaviour, HeardFrame
from generator.errors import DrivingTooShortError, WeightsError
from generator.manner import USUAL, Manner
from generator.train.manner import fit_manner, mismatch, simulated, train


def test_a_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    manner = Manner(yaw=0.5, blinks=1.25)
    manner.save(tmp_path / "mine.json", {"licence": "made up"})
    assert Manner.load(tmp_path / "mine.json") == manner
    assert json.loads((tmp_path / "mine.json").read_text())["learned_from"] == {"licence": "made up"}


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        '{"format": "placet-manner-0", "manner": {}}',
        '{"format": "placet-manner-1", "manner": {"yaw": 1}}',
    ],
)
def test_other_files_are_refused_with_the_command_that_helps(tmp_path: Path, content: str) -> None:
    (tmp_path / "mine.json").write_text(content)
    with pytest.raises(WeightsError, match="placet train motion --video"):
        Manner.load(tmp_path / "mine.json")
    with pytest.raises(WeightsError):
        Manner.load(tmp_path / "missing.json")


@pytest.mark.parametrize("value", [0.0, 5.1, float("nan"), -1.0])
def test_numbers_out_of_range_are_refused(tmp_path: Path, value: float) -> None:
    content = {"format": "placet-manner-1", "manner": asdict(USUAL) | {"pace": value}}
    (tmp_path / "mine.json").write_text(json.dumps(content))
    with pytest.raises(WeightsError, match="pace"):
        Manner.load(tmp_path / "mine.json")


def test_a_stiller_manner_is_stiller() -> None:
    still = Behaviour(3, 25.0, replace(USUAL, yaw=0.1, pitch=0.1, roll=0.1, blinks=0.05))
    usual = Behaviour(3, 25.0)
    heard = HeardFrame(1.0, 0.5)
    moved = [np.array([each.step(heard).pose_6[:3] for _ in range(200)]).std(0).mean() for each in (still, usual)]
    assert moved[0] < 0.5 * moved[1]


def test_learning_finds_the_manner_that_it_was_shown() -> None:
    shown = Manner(yaw=0.5, pitch=0.5, roll=0.5, blinks=0.5)
    seen = simulated(shown, 8.0, seed=1)
    found, rounds = fit_manner(seen, 8.0, seed=1)
    assert mismatch(seen, rounds[0][1]) > 0.3 > 0.12 > mismatch(seen, rounds[-1][1])
    assert found.yaw == pytest.approx(0.5, abs=0.2) and found.blinks < 0.9


def test_a_folder_without_a_face_teaches_nothing(tmp_path: Path) -> None:
    (tmp_path / "clip.mp4").write_bytes(b"no clip")
    with pytest.raises(DrivingTooShortError, match="1 were tried"):
        train(tmp_path, tmp_path / "scratch", tmp_path / "out.json", licence="none")
    assert not (tmp_path / "out.json").exists()
