"""What an entry of the log is: canonical JSON `{v, index, time, kind, body}`, without secrets. Pure functions.

The format is append-only: entries are never rewritten, so every version that was ever written stays readable.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any, Final

from policy.canonical import canonical_json, parse_canonical
from policy.errors import CanonicalError, EntryRefusedError, LogCorruptError
from policy.tiles import MAX_ENTRY_NUM_BYTES

ENTRY_VERSION: Final = 1
_KIND = re.compile(r"[a-z][a-z0-9_.-]{0,63}")
_SECRET = re.compile(r"-----BEGIN|eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*\.")
"""PEM blocks and JWTs: the two forms in which keys and tokens are most likely to slip in."""


def parse_entry(leaf: bytes, index: int) -> dict[str, Any]:
    """An entry's bytes as the object they are.

    Raises: LogCorruptError: not the canonical JSON of entry `index`.
    """
    try:
        obj = parse_canonical(leaf)
    except CanonicalError as exc:
        raise LogCorruptError(f"Entry {index} is not canonical JSON: it was changed.") from exc
    fields = {"v", "index", "time", "kind", "body"}
    if not isinstance(obj, dict) or set(obj) != fields or obj["v"] != ENTRY_VERSION or obj["index"] != index:
        raise LogCorruptError(f"Entry {index} does not have the form of an entry of that number.")
    return obj


def write_entry(index: int, now_s: float, kind: str, body: dict[str, Any]) -> bytes:
    """The bytes of an entry, made at Unix time `now_s`. Raises: CanonicalError, which `check_entry` rules out."""
    moment = datetime.fromtimestamp(now_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return canonical_json({"v": ENTRY_VERSION, "index": index, "time": moment, "kind": kind, "body": body})


def check_entry(kind: str, body: dict[str, Any]) -> None:
    """Refuse, before anything is written, what can never be an entry.

    Raises: EntryRefusedError.
    """
    if not _KIND.fullmatch(kind):
        raise EntryRefusedError("The kind of an entry must be lower-case words joined by dots, such as consent.given.")
    if not isinstance(body, dict):
        raise EntryRefusedError("The body of an entry must be a JSON object.")
    try:
        largest = write_entry(2**53 - 1, 0.0, kind, body)
    except CanonicalError as exc:
        raise EntryRefusedError("The body of an entry must be JSON with numbers within ±2⁵³.") from exc
    if len(largest) > MAX_ENTRY_NUM_BYTES:
        raise EntryRefusedError(
            f"The entry is {len(largest)} bytes long and the log takes {MAX_ENTRY_NUM_BYTES}; "
            "log a hash of the large part."
        )
    if _SECRET.search(largest.decode()):
        raise EntryRefusedError("The entry holds something that looks like a token or key; log its pseudonym or hash.")
