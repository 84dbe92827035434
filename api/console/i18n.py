"""Words of the pages in the languages that they are offered in: flat keys, a file per page and language.

`texts/<language>/<page>.json` holds `{"page.key": "text with {placeholders}"}`. Texts are plain: markup belongs into
templates, so that a translation can never inject any. Every language has the same keys and placeholders, which
tests/console/test_i18n.py checks.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from starlette.requests import Request

LANGUAGES: Final[Mapping[str, str]] = {"en": "English", "de": "Deutsch"}
"""Code (BCP 47) -> the language's own name. The first is what is spoken where nothing else fits."""

DEFAULT_LANGUAGE: Final = "en"
LANGUAGE_COOKIE: Final = "placet-language"
_TEXTS = Path(__file__).parent / "texts"


@dataclass(frozen=True)
class Translator:
    """The texts of one language; call it with a key.

    Raises: KeyError: no such key, or a placeholder without a value. Both are mistakes in a template.
    """

    language: str
    texts: Mapping[str, str]

    def __call__(self, key: str, **values: object) -> str:
        """The text for `key`, with `{name}` replaced by `values["name"]`."""
        return self.texts[key].format(**values) if values else self.texts[key]

    def maybe(self, key: str, otherwise: str) -> str:
        """The text for `key` if there is one; for codes that other packages may add to."""
        return self.texts.get(key, otherwise)

    def starting(self, prefix: str) -> dict[str, str]:
        """Every text whose key starts with `prefix`, under its whole key: what a page hands to its script."""
        return {key: text for key, text in self.texts.items() if key.startswith(prefix)}


@cache
def translator(language: str) -> Translator:
    """The translator for one of `LANGUAGES`; the default one for anything else."""
    code = language if language in LANGUAGES else DEFAULT_LANGUAGE
    texts: dict[str, str] = {}
    for path in sorted((_TEXTS / code).glob("*.json")):
        texts.update(json.loads(path.read_text(encoding="utf-8")))
    return Translator(code, texts)


def asked_language(request: Request) -> str | None:
    """The language that the address asks for with `?lang=`, if it is one of ours."""
    asked = request.query_params.get("lang", "")
    return asked if asked in LANGUAGES else None


def language_of(request: Request) -> str:
    """The reader's language: the one asked for, the one chosen before, the browser's first that we speak."""
    if asked := asked_language(request):
        return asked
    if (chosen := request.cookies.get(LANGUAGE_COOKIE, "")) in LANGUAGES:
        return chosen
    return preferred_language(request.headers.get("accept-language", ""))


def preferred_language(accept_language: str) -> str:
    """The best of ours for an Accept-Language header (RFC 9110 §12.5.4); malformed parts count for nothing."""
    weighed: list[tuple[float, int, str]] = []
    for place, part in enumerate(accept_language[:500].split(",")):
        tag, _, parameter = part.strip().partition(";")
        code = tag.strip().lower().split("-")[0]
        name, _, value = parameter.strip().partition("=")
        try:
            quality = float(value) if name.strip() == "q" else 1.0
        except ValueError:
            continue
        if code in LANGUAGES and quality > 0:
            weighed.append((-quality, place, code))
    return min(weighed)[2] if weighed else DEFAULT_LANGUAGE
