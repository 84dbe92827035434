"""What people read before they sign: versioned, hashed texts, filled in with the values of their statement.

A text is a Markdown file `<kind>.<version>.<language>.md`: one title, a lead, sections with a key in `{#…}`. The words
between its values are in `words.<version>.<language>.json`. The SHA-256 of both stand in `sums.json`, so a text that
was once shown never changes unnoticed: new words are a new version, and old versions stay, because signed statements
name them.

The statement is what counts and what is signed; the text says the same in plain words. Rendering is pure, in UTC.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from policy.canonical import sha256_hex
from policy.errors import StatementTextError, TextChangedError
from policy.purposes import PURPOSES_BY_LANGUAGE

if TYPE_CHECKING:
    from policy.consent import ConsentStatement, EnrolmentStatement, ErasureStatement

__all__ = [
    "CURRENT_VERSION",
    "LANGUAGES",
    "Section",
    "ShownText",
    "TextName",
    "control_words",
    "find_text",
    "known_texts",
    "shown_text",
    "source_of",
]

CURRENT_VERSION: Final = "2026-11"
LANGUAGES: Final = ("en", "de")
CONSENT, ENROLMENT, ERASURE = "consent", "enrolment", "erasure"
_DIRECTORY: Final = Path(__file__).parent
_SUMS: Final = "sums.json"
_NAME = re.compile(r"(?P<kind>[a-z]+)\.(?P<version>[0-9A-Za-z-]+)\.(?P<language>[a-z]{2})\.md")
_HEADING = re.compile(r"## (?P<heading>.+) \{#(?P<key>[a-z_]+)\}")
_PLACE = re.compile(r"\{([a-z_]+)\}")


@dataclass(frozen=True, order=True)
class TextName:
    """One text that exists."""

    kind: str
    version: str
    language: str
    sha256: str


@dataclass(frozen=True)
class Section:
    """A paragraph with its heading; `key` is stable across languages."""

    key: str
    heading: str
    text: str


@dataclass(frozen=True)
class ShownText:
    """A text with the values of a statement in it, as it is shown to the person who is asked to sign."""

    name: TextName
    title: str
    lead: str
    sections: tuple[Section, ...]

    @property
    def plain(self) -> str:
        """All of it, as Markdown."""
        parts = [f"# {self.title}", self.lead, *(f"## {each.heading}\n\n{each.text}" for each in self.sections)]
        return "\n\n".join(parts) + "\n"


@cache
def known_texts() -> tuple[TextName, ...]:
    """Every text that a statement may name."""
    found = []
    for file_name, sha256 in _sums().items():
        if match := _NAME.fullmatch(file_name):
            found.append(TextName(match["kind"], match["version"], match["language"], sha256))
    return tuple(sorted(found))


def find_text(kind: str, version: str, language: str) -> TextName:
    """The text that a statement names. A regional tag (`de-CH`) finds the text of its language.

    Raises: StatementTextError: there is none.
    """
    for name in known_texts():
        if (name.kind, name.version, name.language) == (kind, version, language.partition("-")[0]):
            return name
    offered = ", ".join(f"{name.version} ({name.language})" for name in known_texts() if name.kind == kind)
    raise StatementTextError(f"The statement names a text that was never shown here; there are {offered}.")


def control_words(language: str, version: str = CURRENT_VERSION) -> Mapping[str, str]:
    """Every control that a consent can name, in words of the texts. Raises: StatementTextError, TextChangedError."""
    name = find_text(CONSENT, version, language)
    words = json.loads(_checked(f"words.{name.version}.{name.language}.json"))
    return dict(words["controls"])


def source_of(name: TextName) -> str:
    """The text with its empty places, checked against its hash. Raises: TextChangedError."""
    return _checked(f"{name.kind}.{name.version}.{name.language}.md")


def shown_text(
    statement: ConsentStatement | EnrolmentStatement | ErasureStatement, *, grantee_name: str = ""
) -> ShownText:
    """The text that a statement names, with its values in plain words.

    Args:
        grantee_name: what the service knows the grantee's client by; shown beside the identifiers that are signed.
    Raises: StatementTextError, TextChangedError.
    """
    kind = statement.KIND
    name = find_text(kind, statement.text_version, statement.language)
    words = json.loads(_checked(f"words.{name.version}.{name.language}.json"))
    values = _VALUES[kind](statement, words, PURPOSES_BY_LANGUAGE[name.language], grantee_name)
    blocks = [block.strip() for block in re.split(r"\n(?=## )", source_of(name))]
    title, _, lead = blocks[0].partition("\n\n")
    sections = []
    for block in blocks[1:]:
        first, _, text = block.partition("\n\n")
        match = _HEADING.fullmatch(first)
        assert match is not None, "the form of every shipped text is tested"
        sections.append(Section(match["key"], match["heading"], _filled(text, values)))
    return ShownText(name, title.removeprefix("# "), _filled(lead, values), tuple(sections))


def _filled(text: str, values: Mapping[str, str]) -> str:
    return _PLACE.sub(lambda place: values[place[1]], text).strip()


@cache
def _sums() -> dict[str, str]:
    return dict(json.loads((_DIRECTORY / _SUMS).read_text("utf-8")))


@cache
def _checked(file_name: str) -> str:
    data = (_DIRECTORY / file_name).read_bytes()
    if sha256_hex(data) != _sums().get(file_name):
        raise TextChangedError(f"{file_name} was changed after it was published; restore it and make a new version.")
    return data.decode("utf-8")


def _consent_values(
    statement: Any, words: Mapping[str, Any], sentences: Mapping[str, str], grantee_name: str
) -> dict[str, str]:
    phrases: Mapping[str, str] = words["phrases"]
    grantee = phrases["grantee"].format(org=statement.grantee_org, client=statement.grantee_client)
    if grantee_name:
        grantee = f"{grantee_name} ({grantee})"
    num_portraits = len(statement.portraits)
    listed = ", ".join(f"{sha256[:8]}…" for sha256 in statement.portraits)
    if not statement.controls:
        controls = phrases["no_controls"]
    elif statement.controls == ("*",):
        controls = phrases["any_control"]
    else:
        named = (words["controls"].get(each, each) for each in statement.controls)
        controls = phrases["controls"] + "\n\n" + _bullets(named)
    return {
        "grantee": grantee,
        "purposes": _bullets(f"{sentences[iri]} ({iri})" for iri in statement.purposes),
        "portraits": phrases["one_portrait" if num_portraits == 1 else "portraits"].format(
            count=num_portraits, listed=listed
        ),
        "not_before": _moment(statement.not_before, words),
        "expires_at": _moment(statement.expires_at, words),
        "uses": phrases["one_use" if statement.max_uses == 1 else "uses"].format(count=statement.max_uses),
        "controls": controls,
        "supersedes": phrases["supersedes"] if statement.supersedes else "",
    }


def _enrolment_values(
    statement: Any, words: Mapping[str, Any], sentences: Mapping[str, str], grantee_name: str
) -> dict[str, str]:
    phrase = str(words["phrases"][f"class_{statement.subject_class}"])
    return {"statement": phrase.format(basis=statement.rights_basis)}


def _erasure_values(
    statement: Any, words: Mapping[str, Any], sentences: Mapping[str, str], grantee_name: str
) -> dict[str, str]:
    return {}


_VALUES: Final = {CONSENT: _consent_values, ENROLMENT: _enrolment_values, ERASURE: _erasure_values}


def _bullets(items: Iterable[str]) -> str:
    return "\n".join(f"- {item}" for item in items)


def _moment(seconds: int, words: Mapping[str, Any]) -> str:
    """A time in words: “22 November 2026, 10:00 UTC”."""
    at = datetime.fromtimestamp(seconds, UTC)
    return str(words["moment"]).format(
        day=at.day, month=words["months"][at.month - 1], year=at.year, time=f"{at:%H:%M}"
    )
