"""What people read before they sign: every text complete in every language, and never changed after the fact."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

import policy.texts as texts
from policy.canonical import sha256_hex
from policy.consent import PURPOSE_EDUCATION, PURPOSE_RESEARCH, EnrolmentStatement, ErasureStatement
from policy.errors import StatementTextError, TextChangedError
from policy.purposes import PURPOSES_BY_LANGUAGE
from policy.texts import CURRENT_VERSION, LANGUAGES, find_text, known_texts, shown_text, source_of

from .conftest import START, statement

DIRECTORY = Path(texts.__file__).parent


def test_every_kind_exists_in_every_language_with_the_same_sections() -> None:
    kinds = {name.kind for name in known_texts()}
    assert kinds == {"consent", "enrolment", "erasure"}
    for kind in kinds:
        keys = set()
        for language in LANGUAGES:
            source = source_of(find_text(kind, CURRENT_VERSION, language))
            keys.add(tuple(re.findall(r"\{#([a-z_]+)\}", source)))
            places = re.findall(r"\{([a-z_]+)\}", source)
            keys.add(("places", *sorted(places)))
        assert len(keys) == 2, f"the sections or values of {kind} differ between languages"


def test_every_file_is_in_the_list_and_every_language_has_all_words() -> None:
    sums = json.loads((DIRECTORY / "sums.json").read_text())
    files = {path.name for path in DIRECTORY.iterdir() if path.suffix in {".md", ".json"}} - {"sums.json"}
    assert set(sums) == files
    words = [json.loads((DIRECTORY / f"words.{CURRENT_VERSION}.{each}.json").read_text()) for each in LANGUAGES]
    for part in ("phrases", "controls"):
        assert len({tuple(sorted(each[part])) for each in words}) == 1
    assert all(set(PURPOSES_BY_LANGUAGE[each]) == set(PURPOSES_BY_LANGUAGE["en"]) for each in LANGUAGES)


@pytest.mark.parametrize("language", ["en", "de", "de-CH"])
def test_a_consent_in_plain_words(language: str) -> None:
    asked = statement(
        purposes=(PURPOSE_RESEARCH, PURPOSE_EDUCATION), controls=("seed", "sparkle"), max_uses=3, language=language,
        not_before=1_790_000_000, expires_at=1_790_600_000,
    )  # fmt: skip
    shown = shown_text(asked, grantee_name="Speech Lab")
    sections = {section.key: section.text for section in shown.sections}
    assert asked.grantee_org in sections["who"] and "Speech Lab" in sections["who"]
    for iri in asked.purposes:
        assert iri in sections["what_for"] and PURPOSES_BY_LANGUAGE[language[:2]][iri] in sections["what_for"]
    assert ("21. September 2026, 14:13 Uhr UTC" if language != "en" else "21 September 2026, 14:13 UTC") in sections[
        "term"
    ]
    assert "3" in sections["uses"] and "(seed)" in sections["controls"] and "- sparkle" in sections["controls"]
    assert not re.search(r"\{|\}", shown.plain) and shown.name.sha256 == sha256_hex(source_of(shown.name).encode())


def test_what_differs_is_said_differently() -> None:
    def said(**changes: Any) -> str:
        return shown_text(statement(**changes)).plain

    assert said(controls=()) != said(controls=("*",)) != said(controls=("seed",))
    assert "Once." in said(max_uses=1)
    assert "takes the place" in said(supersedes="ab" * 32) and "takes the place" not in said()


def test_enrolment_and_erasure_have_texts() -> None:
    values: dict[str, Any] = {
        "subject_id": "alice", "portraits": ("0" * 64,), "nonce": "0" * 32, "key_thumbprint": "A" * 43,
        "issued_at": START, "text_version": CURRENT_VERSION, "language": "de",
    }  # fmt: skip
    adult = EnrolmentStatement(subject_class="adult", adult_attested=True, rights_basis="", **values)
    artwork = EnrolmentStatement(subject_class="artwork", adult_attested=False, rights_basis="gemeinfrei", **values)
    assert "volljährig" in shown_text(adult).plain and "gemeinfrei" in shown_text(artwork).plain
    assert "cannot be undone" in shown_text(ErasureStatement("alice", 0, START, CURRENT_VERSION, "en")).plain


@pytest.mark.parametrize("version, language", [("2026-10", "en"), (CURRENT_VERSION, "fr"), ("1", "de"), ("", "en")])
def test_a_text_that_was_never_shown(version: str, language: str) -> None:
    with pytest.raises(StatementTextError, match=CURRENT_VERSION):
        find_text("consent", version, language)


def test_a_text_that_was_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in DIRECTORY.glob("*.*"):
        if path.suffix in {".md", ".json"}:
            (tmp_path / path.name).write_bytes(path.read_bytes())
    changed = tmp_path / f"consent.{CURRENT_VERSION}.en.md"
    changed.write_text(changed.read_text().replace("nothing else", "much else"))
    monkeypatch.setattr(texts, "_DIRECTORY", tmp_path)
    texts._checked.cache_clear()
    with pytest.raises(TextChangedError):
        shown_text(statement())
    texts._checked.cache_clear()
