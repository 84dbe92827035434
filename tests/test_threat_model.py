"""`docs/threat-model.md` may only lean on tests that exist, and every row leans on one or says why not."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "threat-model.md").read_text("utf-8")
THREATS = TEXT[TEXT.index("## Threats") : TEXT.index("## What we ask of an operator")]
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in THREATS.splitlines()
    if line.startswith("|") and not line.startswith(("|---", "| threat "))
]
REFERENCE = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0][:60])
def test_each_row_is_tried_or_accepted(row: list[str]) -> None:
    assert len(row) == 5 and all(row)
    found = REFERENCE.findall(row[4])
    if not found:
        assert re.fullmatch(r"accepted: .{10,}", row[4]), row[4]
    for path, name in found:
        source = ROOT / path
        assert source.is_file(), path
        assert re.search(rf"^(?:async )?def {name}\(", source.read_text("utf-8"), re.MULTILINE), f"{path}::{name}"


def test_nothing_else_that_is_named_is_missing() -> None:
    assert len(ROWS) >= 40
    for path in re.findall(r"`((?:docs|tests|policy|watermark|generator|api)/[\w/.-]+\.\w+)`", TEXT):
        assert (ROOT / path).exists(), path
