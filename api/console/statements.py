"""Statements on their way to a passkey and back: what a page's script gets to sign, and what it sends."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from api.errors import InvalidFieldError
from api.service import Service
from policy.canonical import canonical_json, sha256_hex
from policy.consent import Statement
from policy.texts import ShownText


def to_sign(service: Service, account_id: str, statement: Statement) -> dict[str, Any]:
    """What `signStatement` of static/statements.js takes: the statement, and options whose challenge is its hash."""
    content = statement.to_json()
    options = service.passkeys.statement_options(account_id, sha256_hex(canonical_json(content)))
    return {"statement": content, "options": options}


def signed_of(body: Mapping[str, Any]) -> Mapping[str, Any]:
    """The signed statement that a script sends. Unverified. Raises: InvalidFieldError."""
    signed = body.get("signed")
    if not isinstance(signed, dict):
        raise InvalidFieldError("The signed statement is missing: load the page again and repeat.")
    return signed


@dataclass(frozen=True)
class Paragraph:
    """A paragraph of a shown text, or a list where `items` are."""

    text: str
    items: tuple[str, ...] = ()


def paragraphs(text: str) -> list[Paragraph]:
    """The paragraphs and bullet lists of a section of a `ShownText`."""
    found = []
    for block in text.split("\n\n"):
        lines = [line.strip() for line in block.strip().splitlines()]
        if lines and all(line.startswith("- ") for line in lines):
            found.append(Paragraph("", tuple(line[2:] for line in lines)))
        elif lines:
            found.append(Paragraph(" ".join(lines)))
    return found


def as_json(text: ShownText) -> dict[str, Any]:
    """A shown text for a script that builds it into the page."""
    return {
        "title": text.title,
        "lead": text.lead,
        "sections": [
            {
                "heading": section.heading,
                "paragraphs": [{"text": each.text, "items": list(each.items)} for each in paragraphs(section.text)],
            }
            for section in text.sections
        ],
    }
