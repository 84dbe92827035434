"""Renders for training pass the gate, are logged as training, are indexed, and are not made twice."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from api.training import INDEX, generator_fingerprint, render_takes
from detector.casting import HELD_OUT, Take
from detector.data import renders_in
from policy.consent import PURPOSE_TRAINING
from tests.api.conftest import Running, make_wav


@pytest.fixture
def takes(portrait: bytes, tmp_path: Path) -> list[Take]:
    """One that can be rendered, and one that cannot: its portrait shows nobody."""
    face, nobody, voice = tmp_path / "face.png", tmp_path / "nobody.png", tmp_path / "voice.wav"
    face.write_bytes(portrait)
    nobody.write_bytes(b"no picture at all")
    voice.write_bytes(make_wav(0.6))
    return [
        Take("good", "drawn/face", face, voice, "a", "test", HELD_OUT, {"seed": 7}),
        Take("bad", "drawn/nobody", nobody, voice, "a", "test", "plain", {}),
    ]


def test_takes_are_rendered_once_and_indexed(server: Running, takes: list[Take], tmp_path: Path) -> None:
    size, folder = server.service.log.size, tmp_path / "renders"
    assert render_takes(server.service, takes, folder) == 1, "one was turned down"
    decision = server.service.log.entry(size)["body"]
    assert decision["request"]["purpose"] == PURPOSE_TRAINING
    lines = [json.loads(line) for line in (folder / INDEX).read_text().splitlines()]
    assert [line["name"] for line in lines] == ["good", "bad"]
    assert lines[0]["generator"] == generator_fingerprint()
    assert "file" not in lines[1] and lines[1]["turned_down"]
    [render] = renders_in(folder)
    assert render.held_out and render.split == "test" and render.path.is_file()

    size = server.service.log.size
    assert render_takes(server.service, takes, folder) == 1
    assert server.service.log.size == size, "nothing was asked for again"
