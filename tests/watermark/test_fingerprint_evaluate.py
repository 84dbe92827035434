"""The evaluation of fingerprints: copies are known again, others are not, and the tables say so."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from generator.personas import sample_paths
from tests.watermark.clips import talking
from watermark import fingerprint_evaluate
from watermark.encoding import encode_clip
from watermark.fingerprint_evaluate import evaluate_fingerprints, table
from watermark.media import Clip


def test_copies_match_and_others_do_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, chosen in (("PICTURE_ATTACKS", ("none", "flip")), ("SOUND_ATTACKS", ("none", "MP3 64 kb/s"))):
        suite = getattr(fingerprint_evaluate, name)
        monkeypatch.setattr(fingerprint_evaluate, name, {attack: suite[attack] for attack in chosen})
    clip = talking(192, 192, 3.0)
    encode_clip(clip, tmp_path / "0.mp4")
    order = np.random.default_rng(0).permutation(15)
    moved_otherwise = np.concatenate([clip.frames_THWC[5 * i : 5 * i + 5, ::-1] for i in order])
    encode_clip(Clip(moved_otherwise, clip.rate_hz), tmp_path / "1.mp4")
    steps: list[tuple[int, int, str]] = []
    report = evaluate_fingerprints(
        sorted(tmp_path.glob("*.mp4")),
        sorted(sample_paths())[:2],
        num_attacked=1,
        recording_s=4.0,
        progress=lambda *step: steps.append(step),
    )
    assert [step[0] for step in steps] == list(range(6)) and steps[-1][1] == 6
    for part, what in (("picture", "motion"), ("sound", "sound")):
        for row in report[part]["copies"].values():
            assert (row["num"], row["match"]) == (1, 1), (part, row)
            assert row["extreme_share"][what] > 0.84
        assert report[part]["different"]["num"] == 2 and report[part]["different"]["match"] == 0
    text = table(report)
    assert "| copy: MP3 64 kb/s | 1 of 1 |" in text and "| **different recordings** | 0 of 2 |" in text
