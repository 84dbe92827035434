"""Who is asking: actors, scopes, and the form of identifiers. Pure values; tokens are verified in `api.oauth`."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

from policy.errors import IdentityError

SCOPE_RENDER_CREATE: Final = "render:create"
SCOPE_RENDER_READ: Final = "render:read"
SCOPE_DETECT_CREATE: Final = "detect:create"
SCOPE_AUDIT_READ: Final = "audit:read"
SCOPE_SUBJECT_SELF: Final = "subject:self"
SCOPE_OPERATOR_ADMIN: Final = "operator:admin"

ALL_SCOPES: Final[frozenset[str]] = frozenset(
    {
        SCOPE_RENDER_CREATE,
        SCOPE_RENDER_READ,
        SCOPE_DETECT_CREATE,
        SCOPE_AUDIT_READ,
        SCOPE_SUBJECT_SELF,
        SCOPE_OPERATOR_ADMIN,
    }
)

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
