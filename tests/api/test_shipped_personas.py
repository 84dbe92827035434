"""The shipped personas at the desk: listed, shown, written out with their manifest, enrolled as what they are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from api.cli.root import app
from api.client import PlacetClient
from generator.personas import ROOT_FILE, list_personas, load_persona
from policy.consent import PURPOSE_RESEARCH
from tests.api.conftest import Running
from watermark.credentials import read_credentials


def run(*arguments: object, expect: int = 0) -> dict[str, Any]:
    """A command with --json: the object on its last line, after checking the exit status."""
    result = CliRunner().invoke(app, ["personas", *map(str, arguments), "--json"])
    assert result.exit_code == expect, result.output + str(result.exception)
    answer: dict[str, Any] = json.loads(result.stdout.strip().splitlines()[-1])
    return answer


def test_eight_are_listed_with_their_ages_the_default_one_first() -> None:
    found = run("list")["personas"]
    assert [each["name"] for each in found] == [each.name for each in list_personas()]
    assert found[0]["name"] == "ilias"
    assert all(18 <= youngest <= oldest for youngest, oldest in (each["apparent_age_years"] for each in found))


def test_one_is_shown_and_written_out_with_its_manifest(tmp_path: Path) -> None:
    out = tmp_path / "zahra.png"
    shown = run("show", "zahra", "--out", out)
    assert shown["credentials"]["state"] == "trusted"
    assert shown["credentials"]["digital_source_type"].endswith("/compositeSynthetic")
    assert read_credentials(out, "image/png", ROOT_FILE.read_text()).state == "trusted"
    assert run("show", "zahra", "--out", out, expect=2)["error"], "never overwritten"


def test_an_unknown_one_is_answered_with_the_known_ones() -> None:
    answer = run("show", "nobody", expect=2)
    assert answer["error"] == "persona.unknown"
    assert "zahra" in answer["detail"]


@pytest.mark.heavy
@pytest.mark.parametrize("name", [persona.name for persona in list_personas()[1:]])
def test_each_enrols_under_its_manifest_and_consents(server: Running, name: str) -> None:
    persona = load_persona(name)
    with PlacetClient(server.url) as client:
        enrolled = client.enrol(persona.portrait(), subject_class="persona", rights_basis=persona.attestation)
        assert enrolled.subject_id
        profile = client.profile()
        assert profile["subject_class"] == "persona"
        assert profile["attested_by"] == "manifest"
        consent = client.consent(grantee_org="tests", grantee_client="nobody", purposes=[PURPOSE_RESEARCH])
        assert client.consents()[0]["consent_id"] == consent["consent_id"]
