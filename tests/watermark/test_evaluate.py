"""The attack suite, and the evaluation that uses it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.watermark.clips import talking
from watermark.attacks import (
    ISSUED,
    PROMISED,
    QUICK,
    SUITE,
    crop,
    drop,
    h264,
    none,
    pillarbox,
    quarter_turn,
    rate,
    resize,
    saturation,
    trim,
)
from watermark.encoding import encode_clip
from watermark.evaluate import clips_below, evaluate, main
from watermark.media import Clip
from watermark.nulls import null_report, pictures_below
from watermark.survival import table, write_survival
from watermark.visibility import visibility


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("clips")
    encode_clip(talking(256, 256, duration_s=2.4), directory / "one.mp4")
    (directory / "notes.txt").write_text("not a clip")
    return directory


@pytest.fixture(scope="module")
def tiny() -> Clip:
    return talking(128, 128, duration_s=0.4)


@pytest.mark.parametrize("name", list(SUITE))
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
    assert quarter_turn()(pillarbox(1.5)(tiny)).frames_THWC.shape[1:3] == (192, 128)
    assert pillarbox(1.5)(tiny).frames_THWC.shape[1:3] == (128, 192)
    assert np.ptp(saturation(0.0)(tiny).frames_THWC.astype(int), axis=3).max() == 0
    assert rate(12.5)(tiny).rate_hz == 12.5
    assert len(drop(0.3)(tiny).times_T) < len(tiny.times_T)
    assert trim(0.2, 9)(tiny).times_T[0] == 0
    coarse, fine = h264(45)(tiny).frames_THWC, h264(10)(tiny).frames_THWC
    errors = [np.abs(frames.astype(int) - tiny.frames_THWC).mean() for frames in (coarse, fine)]
    assert errors[0] > errors[1]


def test_every_promise_names_an_attack() -> None:
    assert set(PROMISED) == set(SUITE)
    assert set(QUICK) <= set(SUITE)
    assert {PROMISED[name] for name in QUICK} == {1.0, 0.95, 0.6}


def test_evaluation_reports_what_survived_and_goes_on_where_it_stopped(folder: Path, tmp_path: Path) -> None:
    steps: list[tuple[int, int, str]] = []
    attacks = {name: SUITE[name] for name in ("none", "grey")}

    def run() -> dict[str, Any]:
        return evaluate(
            clips_below(folder),
            attacks=attacks,
            measure_visibility=False,
            keep_in=tmp_path / "pieces",
            progress=lambda done, total, label: steps.append((done, total, label)),
        )

    report = run()
    assert report["attacks"]["none"] == {
        "recovery_1_frame": 1.0,
        "recovery_1s": 1.0,
        "recovery_1_5s": 1.0,
        "recovery_3s": 1.0,
        "bit_accuracy": 1.0,
        "promised": 1.0,
    }
    assert report["false_positives"]["detected"] == 0 and report["false_positives"]["readings"] == 3
    assert report["false_positives"]["words_tried"] >= 3
    assert report["psnr_db"] > 38 and report["ssim"] > 0.97 and report["jod_median"] is None
    assert steps[0][0] == 0 and steps[-1][:2] == (4, 4)

    def never(_clip: Clip) -> Clip:
        raise AssertionError("this was done before")

    attacks = dict.fromkeys(attacks, never)
    assert run() == report
    json.dumps(report)
    write_survival(report, tmp_path)
    assert (tmp_path / "report.png").read_bytes().startswith(b"\x89PNG")
    assert "| none | 100 % | 100 % | 100 % | 100 % | 1.000 | 100 % |" in table(report)


def test_the_command_ends_with_one_json_line(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("watermark.evaluate.QUICK", ("none",))
    assert main(["--clips", str(folder), "--out", str(tmp_path), "--quick"]) == 0
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert report == json.loads((tmp_path / "report.json").read_text())
    assert (tmp_path / "report.png").is_file()


def test_visibility_is_nothing_for_equal_frames_and_grows_with_noise(tiny: Clip) -> None:
    same = visibility(tiny.frames_THWC, tiny.frames_THWC, 25.0, with_jod=False)
    assert same.ssim == pytest.approx(1.0) and same.psnr_db > 90
    noisy = np.clip(tiny.frames_THWC + np.random.default_rng(0).normal(0, 5, tiny.frames_THWC.shape), 0, 255)
    worse = visibility(noisy.astype(np.uint8), tiny.frames_THWC, 25.0, with_jod=False)
    assert worse.ssim < 0.95 and 32 < worse.psnr_db < 36


def test_windows_without_a_mark_give_random_words(folder: Path) -> None:
    report = null_report(clips_below(folder), 12, seed=1)
    assert report["hits"] == 0 and report["num_windows"] == sum(report["windows"].values()) == 12
    assert report["num_words"] >= 12
    assert report["bound_per_clip"] < 1e-9
    assert min(report["fair_bits_p"], report["fair_pairs_p"], report["like_noise_p"]) > 1e-4
    assert pictures_below(folder) == []


def test_a_folder_without_clips_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--clips", str(tmp_path)])
    assert caught.value.code == 2


@pytest.mark.needs_data
def test_real_talking_clips_keep_their_id(shared_data: Path) -> None:
    clips = clips_below(shared_data / "video" / "grid")[:1]
    attacks = {name: ISSUED[name] for name in ("none", "crop 70 %", "rotate 5° + CRF 30")}
    report = evaluate(clips, attacks=attacks, measure_visibility=False)
    assert report["promises_kept"], report["attacks"]
    assert report["false_positives"]["detected"] == 0
