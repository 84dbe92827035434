"""Who is asking: actors, scopes, and the form of identifiers. Pure values; tokens are verified in `api.oauth`."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, field
from typing import Final

from policy.errors import IdentityError

SCOPE_RENDER_CREATE: Final = "render:create"
SCOPE_RENDER_READ: Final = "render:read"
SCOPE_LIVE_CREATE: Final = "live:create"
SCOPE_DETECT_CREATE: Final = "detect:create"
SCOPE_AUDIT_READ: Final = "audit:read"
SCOPE_SUBJECT_SELF: Final = "subject:self"
SCOPE_OPERATOR_ADMIN: Final = "operator:admin"
SCOPE_FETCH_MANIFESTS: Final = "fetch:manifests"  # named by the C2PA Soft Binding Resolution API

ALL_SCOPES: Final[frozenset[str]] = frozenset(
    {
        SCOPE_RENDER_CREATE,
        SCOPE_RENDER_READ,
        SCOPE_LIVE_CREATE,
        SCOPE_DETECT_CREATE,
        SCOPE_AUDIT_READ,
        SCOPE_SUBJECT_SELF,
        SCOPE_OPERATOR_ADMIN,
        SCOPE_FETCH_MANIFESTS,
    }
)

_UNSHOWN: Final = frozenset({"Cc", "Cf", "Co", "Cs", "Cn", "Zl", "Zp"})
_LOOKALIKE_SCRIPTS: Final = frozenset({"LATIN", "GREEK", "CYRILLIC", "ARMENIAN"})
_IDENTIFIER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")


@dataclass(frozen=True)
class Actor:
    """An authenticated caller.

    Args:
        client_id: the OAuth client.
        org: the organisation that the client belongs to.
        scopes: what the access token permits, e.g. `render:create`.
        roles: standing of the client here, e.g. `researcher`, `auditor`.
    Raises: IdentityError: an identifier of the wrong form, or a scope that does not exist.
    """

    client_id: str
    org: str
    scopes: frozenset[str] = field(default_factory=frozenset)
    roles: frozenset[str] = field(default_factory=frozenset)

    def __post_init__(self) -> None:
        check_identifier(self.client_id, "client_id")
        check_identifier(self.org, "org")
        if unknown := sorted(self.scopes - ALL_SCOPES):
            raise IdentityError(f"There is no scope {unknown[0]!r}; the scopes are {', '.join(sorted(ALL_SCOPES))}.")


def check_identifier(value: object, what: str) -> str:
    """The identifier itself, if it has the one accepted form: 1–128 ASCII letters, digits and `. _ : -`.

    ASCII only, so that two identifiers which look alike are alike.

    Raises: IdentityError.
    """
    if not isinstance(value, str) or not _IDENTIFIER.fullmatch(value):
        raise IdentityError(
            f"{what} must be 1 to 128 ASCII letters, digits, dots, underscores, colons or hyphens, "
            "beginning with a letter or digit."
        )
    return value


def check_display_text(value: object, what: str) -> str:
    """The text itself, if it can be shown to people without deceiving them about what it says.

    In Unicode normal form C, without control, format or private-use characters (which turn, hide or join text), and
    with one of the scripts that look alike in each word: Latin, Greek, Cyrillic or Armenian. A whole word in another
    script that looks like a Latin one passes; identifiers, which decide everything, are ASCII (`check_identifier`).

    Raises: IdentityError.
    """
    if not isinstance(value, str):
        raise IdentityError(f"{what} must be text.")
    if unicodedata.normalize("NFC", value) != value:
        raise IdentityError(f"{what} must be in Unicode normal form C; retype it.")
    if any(unicodedata.category(char) in _UNSHOWN and char not in "\n\t" for char in value):
        raise IdentityError(f"{what} holds invisible or control characters; remove them.")
    for word in re.findall(r"\w+", value):
        scripts = {unicodedata.name(char, "").partition(" ")[0] for char in word} & _LOOKALIKE_SCRIPTS
        if len(scripts) > 1:
            raise IdentityError(f"A word in {what} mixes scripts that look alike; write it in one.")
    return value
