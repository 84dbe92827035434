"""The attack suite, and the evaluation that uses it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.watermark.clips import talking
from watermark.attacks import ISSUED, SUITE, crop, drop, h264, none, pillarbox, rate, resize, saturation, trim
from watermark.evaluate import clips_below, evaluate, main, plot
from watermark.media import Clip, encode_clip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("clips")
    encode_clip(talking(256, 256, duration_s=2.4), directory / "one.mp4")
    (directory / "notes.txt").write_text("not a clip")
    return directory


@pytest.fixture(scope="module")
def tiny() -> Clip:
    return talking(128, 128, duration_s=0.4)


@pytest.mark.parametrize("name", [name for name in SUITE if "first 2 s" not in name])
def test_every_attack_repeats_itself_and_gives_a_clip(name: str, tiny: Clip) -> None:
    before = tiny.frames_THWC.copy()
    once, again = SUITE[name](tiny), SUITE[name](tiny)
    np.testing.assert_array_equal(tiny.frames_THWC, before)
    # x264's rate control reads past the edge of some small frames: two runs of an encoder may differ a little.
    assert np.abs(once.frames_THWC.astype(int) - again.frames_THWC).mean() < 2.0
    assert len(once.times_T) == len(once.frames_THWC) > 0
    assert once.frames_THWC.dtype == np.uint8


def test_attacks_do_what_they_say(tiny: Clip) -> None:
    assert none()(tiny) is tiny
    assert resize(0.5)(tiny).frames_THWC.shape[1:3] == (64, 64)
    assert crop(0.5)(tiny).frames_THWC.shape[1:3] == (64, 64)
    assert pillarbox(1.5)(tiny).frames_THWC.shape[1:3] == (128, 192)
    assert np.ptp(saturation(0.0)(tiny).frames_THWC.astype(int), axis=3).max() == 0
    assert rate(12.5)(tiny).rate_hz == 12.5
    assert len(drop(0.3)(tiny).times_T) < len(tiny.times_T)
    assert trim(0.2, 9)(tiny).times_T[0] == 0
    coarse, fine = h264(45)(tiny).frames_THWC, h264(10)(tiny).frames_THWC
    errors = [np.abs(frames.astype(int) - tiny.frames_THWC).mean() for frames in (coarse, fine)]
    assert errors[0] > errors[1]


def test_evaluation_reports_what_survived(folder: Path, tmp_path: Path) -> None:
    steps: list[tuple[int, int, str]] = []
    attacks = {"none": ISSUED["none"], "grey": SUITE["grey"]}
    report = evaluate(
        clips_below(folder),
        attacks=attacks,
        measure_visibility=False,
        progress=lambda done, total, label: steps.append((done, total, label)),
    )
    assert report["attacks"]["none"] == {"recovered": 1, "tried": 1} | {
        "min_correlation": report["attacks"]["none"]["min_correlation"]
    }
    assert report["attacks"]["grey"]["recovered"] == 0, "a colour mark cannot survive the loss of colour"
    assert report["false_positives"]["detected"] == 0 and report["false_positives"]["readings"] == 3
    assert report["false_positives"]["words_tried"] >= 3
    assert report["visibility"][0]["psnr_db"] > 40 and report["min_jod"] is None
    assert steps[0][0] == 0 and steps[-1][:2] == (4, 4)
    json.dumps(report)
    plot(report, tmp_path / "report.png")
    assert (tmp_path / "report.png").read_bytes().startswith(b"\x89PNG")


def test_the_command_ends_with_one_json_line(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("watermark.evaluate.ISSUED", {"none": none()})
    assert main(["--clips", str(folder), "--out", str(tmp_path), "--issued-only", "--no-jod"]) == 0
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert report == json.loads((tmp_path / "report.json").read_text())
    assert (tmp_path / "report.png").is_file()


def test_a_folder_without_clips_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--clips", str(tmp_path)])
    assert caught.value.code == 2


@pytest.mark.needs_data
def test_real_talking_clips_keep_their_id(shared_data: Path) -> None:
    clips = clips_below(shared_data / "video" / "grid")[:1]
    attacks = {name: ISSUED[name] for name in ("none", "crop 70 %", "rotate 5° + CRF 30")}
    report = evaluate(clips, attacks=attacks, measure_visibility=False)
    assert report["issued_all_recovered"], report["attacks"]
    assert report["false_positives"]["detected"] == 0
