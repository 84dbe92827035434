"""What lies in deploy/ speaks of this program as it is: its settings, its commands, its files."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from api.settings import Settings

DEPLOY = Path(__file__).parents[1] / "deploy"
FILES = sorted(
    path for path in DEPLOY.rglob("*") if path.is_file() and path.name not in {".env", "postgresql.password"}
)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_setting_exists(path: Path) -> None:
    for name in re.findall(r"\bPLACET_([A-Z0-9_]+)", path.read_text()):
        assert name.lower() in Settings.model_fields, f"{path.name}: PLACET_{name}"


@pytest.mark.parametrize("path", sorted(DEPLOY.rglob("*.yaml")), ids=lambda path: path.name)
def test_yaml_is_whole(path: Path) -> None:
    assert all(isinstance(document, dict) for document in yaml.safe_load_all(path.read_text()))


def test_nothing_runs_as_root_or_may_become_it() -> None:
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    ours = [service for service in compose["services"].values() if service.get("image") == "placet"]
    assert len(ours) == 4
    for service in ours:
        assert service["read_only"] and service["cap_drop"] == ["ALL"]
    for document in yaml.safe_load_all((DEPLOY / "kubernetes/placet.yaml").read_text()):
        for container in document.get("spec", {}).get("template", {}).get("spec", {}).get("containers", []):
            assert container["securityContext"]["readOnlyRootFilesystem"]


def test_no_secret_is_shipped() -> None:
    values = re.findall(r"^(?:\w*(?:SECRET|PASSWORD|KEY_ID)\w*)=(.*)$", (DEPLOY / "example.env").read_text(), re.M)
    assert values and set(values) == {"CHANGE-ME"}
