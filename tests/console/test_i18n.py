"""Words of the pages: every language says everything, and in the same places."""

from __future__ import annotations

import json
import re
import string
from pathlib import Path

import pytest

from api.console import i18n

HERE = Path(i18n.__file__).parent
PAGES = sorted(path.name for path in (HERE / "texts" / "en").glob("*.json"))
KEY_IN_TEMPLATE = re.compile(r"""\bt\("([a-z0-9_.-]+)"[,)]""")


def placeholders(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("language", [code for code in i18n.LANGUAGES if code != "en"])
def test_languages_have_the_same_keys_and_placeholders(language: str, page: str) -> None:
    english, other = (
        json.loads((HERE / "texts" / code / page).read_text(encoding="utf-8")) for code in ("en", language)
    )
    assert set(english) == set(other)
    for key, text in english.items():
        assert placeholders(text) == placeholders(other[key]), key
        assert other[key].strip() and "<" not in text + other[key], key


@pytest.mark.parametrize("language", i18n.LANGUAGES)
def test_every_language_has_the_same_files(language: str) -> None:
    assert sorted(path.name for path in (HERE / "texts" / language).glob("*.json")) == PAGES


def test_templates_ask_for_texts_that_exist() -> None:
    known = i18n.translator("en").texts
    for path in sorted((HERE / "templates").rglob("*.html")):
        for key in KEY_IN_TEMPLATE.findall(path.read_text(encoding="utf-8")):
            assert key in known, f"{path.name}: {key}"


def test_templates_hold_nothing_inline() -> None:
    for path in sorted((HERE / "templates").rglob("*.html")):
        source = path.read_text(encoding="utf-8")
        assert not re.search(r"<style|\sstyle=|\son[a-z]+=|javascript:|<script(?![^>]*\ssrc=)|\|\s*safe", source), (
            path.name
        )


@pytest.mark.parametrize(
    ("header", "language"),
    [
        ("", "en"),
        ("de", "de"),
        ("de-CH, fr;q=0.9", "de"),
        ("fr, de;q=0.3, en;q=0.2", "de"),
        ("en;q=0.1, de;q=0.9", "de"),
        ("de;q=0, en", "en"),
        ("de;q=high", "en"),
        ("*;;,,;q", "en"),
        ("x" * 10_000, "en"),
    ],
)
def test_the_browsers_language_is_understood(header: str, language: str) -> None:
    assert i18n.preferred_language(header) == language
