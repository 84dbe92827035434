"""The house rules that a machine can check: import direction, weights with cards, settings, README commands."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from typer.testing import CliRunner

from api.cli.root import app

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("generator", "detector", "watermark", "policy", "api")


def tracked_files() -> list[Path]:
    """Files of the working tree that git tracks, or all of them where there is no git (an unpacked archive)."""
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listing.returncode != 0:
        return [path for name in (*PACKAGES, "tests", "docs") for path in (ROOT / name).rglob("*") if path.is_file()]
    return [ROOT / name for name in listing.stdout.split("\0") if name and (ROOT / name).is_file()]


def test_import_contract_holds() -> None:
    done = subprocess.run([Path(sys.executable).with_name("lint-imports")], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_only_the_settings_module_reads_the_environment() -> None:
    readers = {
        str(path.relative_to(ROOT))
        for name in PACKAGES
        for path in (ROOT / name).rglob("*.py")
        if re.search(r"os\.environ|os\.getenv", path.read_text())
    }
    assert readers <= {"api/settings.py"}, f"only api/settings.py may read the environment, found {sorted(readers)}"


def test_every_weights_file_is_small_and_has_a_card() -> None:
    weights = [path for path in tracked_files() if path.suffix == ".safetensors"]
    assert weights, "the product ships weights"
    for path in weights:
        assert path.stat().st_size <= 16 * 2**20, f"{path.name} is larger than 16 MiB"
        card = path.with_suffix(".md")
        assert card.is_file(), f"{path.name} has no model card {card.name} beside it"
        text = card.read_text().lower()
        for word in ("data", "licen", "seed", "limit"):
            assert word in text, f"{card.name} does not say anything about '{word}'"


def test_every_package_has_a_readme_and_notes() -> None:
    for name in PACKAGES:
        for page in ("README.md", "NOTES.md"):
            assert (ROOT / name / page).is_file(), f"{name}/{page} is missing"


def test_no_private_keys_are_committed() -> None:
    marker = "-----BEGIN " + "PRIVATE KEY-----\n"
    for path in tracked_files():
        if path.suffix in {".py", ".md", ".json", ".pem", ".toml", ".yml", ".key", ""}:
            assert marker not in path.read_text(errors="replace"), f"{path.relative_to(ROOT)} holds a private key"


def test_readme_commands_exist() -> None:
    """Every `make` target and `placet` command named in the README is there."""
    readme = (ROOT / "README.md").read_text()
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    assert {"demo", "test"} <= set(re.findall(r"\bmake ([a-z]+)", readme))
    assert set(re.findall(r"`make ([a-z]+)`", readme)) <= targets
    commands = set(re.findall(r"^(?:\$ )?placet ([a-z]+)", readme, flags=re.MULTILINE))
    for command in sorted(commands):
        done = CliRunner().invoke(app, [command, "--help"])
        assert done.exit_code == 0, f"README names 'placet {command}': {done.output}"
