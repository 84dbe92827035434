"""`placet verify DIR`: a line for every file, errors too; what is interrupted is gone on with."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from api.cli.verify import examine_folder
from api.engine.process import EngineProcess
from api.service import Service
from api.settings import Settings
from api.setup import create_instance
from tests.api.test_cli import run


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    """An instance whose examiner makes its reports up."""
    settings = Settings(home=tmp_path / "home", max_detection_bytes=1000)
    create_instance(settings, "tests")
    made = Service(settings)
    made.examiner._idle.get()
    toy = EngineProcess("tests.console.toy_examiner", made.examiner._hello)
    made.examiner._idle.put(toy)
    yield made
    toy.close()
    made.close()


def lines(path: Path) -> dict[str, dict[str, Any]]:
    found = [json.loads(text) for text in path.read_text().splitlines()]
    assert len({line["file"] for line in found}) == len(found), "one line a file"
    return {line["file"]: line for line in found}


def test_every_file_gets_a_line_and_a_second_run_goes_on(service: Service, tmp_path: Path) -> None:
    folder, out = tmp_path / "media", tmp_path / "media" / "reports.jsonl"
    (folder / "deeper").mkdir(parents=True)
    (folder / "a.mp4").write_bytes(b"generated 1")
    (folder / "deeper" / "b.mp4").write_bytes(b"animated 2")
    (folder / "large.mp4").write_bytes(b"generated" + bytes(2000))
    told: list[float] = []
    first = examine_folder(service, folder, out, on_progress=told.append)
    assert (first.num_examined, first.num_skipped, first.num_errors) == (3, 0, 0) and told[-1] == 1.0
    assert first.verdicts == {"generated_here": 1, "likely_manipulated": 1, "abstain": 1}
    found = lines(out)
    assert set(found) == {"a.mp4", "deeper/b.mp4", "large.mp4"}
    assert len(found["a.mp4"]["sha256"]) == 64 and found["large.mp4"]["sha256"] == ""
    # interrupted in the middle of a line, one file changed, one more
    out.write_text(out.read_text() + '{"file": "half')
    (folder / "c.mp4").write_bytes(b"nothing 3")
    second = examine_folder(service, folder, out, jobs=2)
    assert (second.num_examined, second.num_skipped) == (1, 3)
    assert set(lines(out)) == set(found) | {"c.mp4"}
    (folder / "a.mp4").write_bytes(b"animated 1")
    third = examine_folder(service, folder, out)
    assert (third.num_examined, third.num_skipped) == (1, 3)
    assert [json.loads(text)["file"] for text in out.read_text().splitlines()].count("a.mp4") == 2


def test_what_cannot_be_examined_is_a_line_with_an_error(service: Service, tmp_path: Path) -> None:
    folder, out = tmp_path / "media", tmp_path / "reports.jsonl"
    folder.mkdir()
    (folder / "no.mp4").write_bytes(b"refused")
    (folder / "gone.mp4").symlink_to(folder / "nowhere")
    (folder / "yes.mp4").write_bytes(b"generated")
    summary = examine_folder(service, folder, out)
    assert (summary.num_examined, summary.num_errors) == (1, 1)
    assert lines(out)["no.mp4"]["error"] == "media.unsupported" and "report" not in lines(out)["no.mp4"]
    again = examine_folder(service, folder, out)
    assert (again.num_examined, again.num_skipped, again.num_errors) == (0, 2, 0)


def test_another_file_is_not_taken_for_reports(service: Service, tmp_path: Path) -> None:
    (tmp_path / "media").mkdir()
    out = tmp_path / "notes.txt"
    out.write_text("shopping list\n")
    with pytest.raises(typer.Exit):
        examine_folder(service, tmp_path / "media", out)
    assert out.read_text() == "shopping list\n"


def test_a_folder_needs_a_place_for_its_reports(tmp_path: Path) -> None:
    run_home = tmp_path / "home"
    run("init", "--home", run_home)
    from typer.testing import CliRunner

    from api.cli.root import app

    result = CliRunner().invoke(app, ["verify", str(tmp_path), "--home", str(run_home)])
    assert result.exit_code == 2 and "--jsonl" in result.output
