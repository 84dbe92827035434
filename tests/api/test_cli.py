"""The command line: what a newcomer types, its JSON, and its exit status."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from api.cli.root import app
from api.client import Credentials
from generator.personas import list_personas
from policy.consent import PURPOSE_RESEARCH
from tests.api.conftest import Running, altered


def run(*arguments: object, expect: int = 0) -> dict[str, Any]:
    """A command with --json: the object on its last line, after checking the exit status."""
    result = CliRunner().invoke(app, [*map(str, arguments), "--json"])
    assert result.exit_code == expect, result.output + str(result.exception)
    answer: dict[str, Any] = json.loads(result.stdout.strip().splitlines()[-1])
    return answer


def test_init_makes_an_instance_once_with_private_keys(tmp_path: Path) -> None:
    home = tmp_path / "home"
    made = run("init", "--home", home, "--name", "first")
    assert made["log_key"].startswith("first.placet.local/log+")
    credentials = Credentials.load(Path(made["operator_key"]))
    assert credentials.client_id == made["operator_client_id"] and "d" in credentials.key
    for path in [Path(made["operator_key"]), *(home / "keys").iterdir()]:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    assert "d" not in credentials.public_jwks["keys"][0]
    assert run("init", "--home", home, expect=2)["error"] == "storage.instance_exists"
    assert run("init", "--home", tmp_path / "other", "--name", "Not A Name", expect=2)["error"] == "instance.invalid"
    assert not (tmp_path / "other").exists()


def test_a_command_without_a_service_says_so(tmp_path: Path) -> None:
    run("init", "--home", tmp_path / "home")
    answer = run("operators", "list", "--home", tmp_path / "home", "--url", "http://127.0.0.1:1", expect=2)
    assert answer["error"] == "client.unreachable"


def test_models_are_listed_with_their_hashes() -> None:
    found = run("models", "list")["models"]
    assert {"generator/weights/head.safetensors", "generator/weights/motion.safetensors"} <= {
        each["file"] for each in found
    }
    assert all(len(each["sha256"]) == 64 and each["has_card"] for each in found)


def test_personas_are_listed() -> None:
    found = run("personas", "list")["personas"]
    assert found and all(Path(each["portrait"]).is_file() for each in found)


def test_the_story_from_the_command_line(server: Running, tmp_path: Path, speech: bytes) -> None:
    url = ("--url", server.url)
    lab, me = tmp_path / "lab.jwk", tmp_path / "me.jwk"
    made = run(
        "operators",
        "register",
        "--key",
        lab,
        "--org",
        "cli-lab",
        "--name",
        "a lab",
        "--home",
        server.settings.home,
        *url,
    )
    assert stat.S_IMODE(lab.stat().st_mode) == 0o600 and made["status"] == "approved"
    assert made["client_id"] in {
        each["client_id"] for each in run("operators", "list", "--home", server.settings.home, *url)["clients"]
    }

    portrait = tmp_path / "face.png"
    portrait.write_bytes(altered(list_personas()[0].portrait(), 9))
    enrolled = run(
        "subjects", "enrol", portrait, "--key", me, "--class", "persona", "--rights-basis", "made for a test", *url
    )
    again = run("subjects", "enrol", portrait, "--key", me, "--class", "persona", *url, expect=2)
    assert again["error"] == "file"

    sound, video = tmp_path / "hello.wav", tmp_path / "hello.mp4"
    sound.write_bytes(speech)
    render = ("render", "--key", lab, "--subject", enrolled["subject_id"], "--speech", sound, "--portrait", portrait)
    refused = run(*render, "--out", video, *url, expect=1)
    assert [reason["code"] for reason in refused["reasons"]] == ["consent.missing"] and not video.exists()

    given = run(
        "consent",
        "give",
        "--key",
        me,
        "--org",
        "cli-lab",
        "--client",
        made["client_id"],
        "--purpose",
        PURPOSE_RESEARCH,
        *url,
    )
    done = run(*render, "--out", video, *url)
    assert done["status"] == "delivered" and video.stat().st_size > 10_000
    assert [each["state"] for each in run("consent", "list", "--key", me, *url)["consents"]] == ["live"]
    run("consent", "revoke", given["consent_id"], "--key", me, *url)
    refused = run(*render, "--out", video, *url, expect=1)
    assert [reason["code"] for reason in refused["reasons"]] == ["consent.revoked"]
    kinds = [use["kind"] for use in run("subjects", "uses", "--key", me, *url)["uses"]]
    assert kinds == ["decision.refused", "decision.allowed", "delivery", "decision.refused"]
    assert run("subjects", "show", "--key", me, *url)["epoch"] == 0
    assert run("audit", "verify", "--home", server.settings.home)["clean"] is True

    taken_away = tmp_path / "mine.zip"
    assert run("subjects", "export", "--key", me, "--out", taken_away, *url)["num_bytes"] == taken_away.stat().st_size
    assert run("subjects", "erase", "--key", me, *url, expect=2) and taken_away.is_file()
    assert run("subjects", "erase", "--key", me, "--yes", *url)["num_videos"] == 1
    assert run("subjects", "show", "--key", me, *url, expect=2)["error"] == "oauth.invalid_client"

    suspended = run("operators", "suspend", made["client_id"], "--home", server.settings.home, *url)
    assert suspended["status"] == "suspended"


def test_bench_log_ends_with_one_json_line() -> None:
    answer = run("bench", "log", "--entries", "2000", "--seconds", "0.5")
    assert answer["bench"] == "log" and answer["writers"]["per_s"] > answer["one_writer"]["per_s"] > 0
    assert answer["machine"]["num_cores"] >= 1


@pytest.mark.parametrize("arguments", [("audit", "show", "x"), ("render",), ("nothing",)])
def test_wrong_usage_ends_with_status_2(arguments: tuple[str, ...]) -> None:
    assert CliRunner().invoke(app, list(arguments)).exit_code == 2
