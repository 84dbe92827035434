"""`placet evaluate contact-sheet`: portraits × states as one picture, through the gate; what failed is named in it."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from api.cli.root import app
from generator.personas import list_personas


@pytest.mark.heavy
def test_a_persona_in_all_states_and_a_picture_without_a_face(tmp_path: Path) -> None:
    home, portraits, out = tmp_path / "home", tmp_path / "portraits", tmp_path / "out"
    portraits.mkdir()
    (portraits / "persona.png").write_bytes(list_personas()[0].portrait())
    cv2.imwrite(str(portraits / "wall.png"), np.full((256, 256, 3), 190, np.uint8))
    run = CliRunner()
    assert run.invoke(app, ["init", "--home", str(home)]).exit_code == 0
    arguments = ["evaluate", "contact-sheet", "--portraits", str(portraits), "--out", str(out), "--home", str(home)]
    result = run.invoke(app, [*arguments, "--tile", "128", "--json"])
    assert result.exit_code == 1, "the wall cannot be rendered"
    answer = json.loads(result.stdout.strip().splitlines()[-1])
    assert len(answer["clips"]) == 2 and all(clip["mark_id"] for clip in answer["clips"])
    assert {each["portrait"] for each in answer["missing"]} == {"wall"}
    assert {each["code"] for each in answer["missing"]} == {"portrait.no_face"}
    sheet = cv2.imread(answer["sheet"])
    assert sheet is not None
    assert sheet.shape[1] == 8 * 134 + 6
    speech, closed = sheet[38:160, 6:128], sheet[38:160, 6 + 6 * 134 : 128 + 6 * 134]
    assert np.abs(speech.astype(int) - closed).max() > 40, "the lips differ"
