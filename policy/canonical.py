"""Canonical JSON (RFC 8785) and SHA-256: the one byte form under every signature, hash and log entry.

Pure functions. `canonical_json` writes, `parse_canonical` reads and accepts nothing but what `canonical_json` writes,
so equal values have equal bytes and a signed text cannot be re-spelt.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, NoReturn

import rfc8785

from policy.errors import CanonicalError

MAX_DEPTH = 32
"""Nesting beyond this is refused, so that no input can exhaust the stack."""
_MAX_INTEGER = 2**53 - 1
_ENCODE = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":"), check_circular=False
).encode


def canonical_json(obj: Any) -> bytes:
    """The RFC 8785 bytes of a JSON value.

    Tuples are written as arrays. Integers beyond ±(2⁵³−1), NaN, infinities, non-string keys and lone surrogates have no
    canonical form.

    Raises: CanonicalError.
    """
    try:
        if _is_simple(obj, MAX_DEPTH):
            return _ENCODE(obj).encode()
        return rfc8785.dumps(obj)
    except (rfc8785.CanonicalizationError, RecursionError, UnicodeError) as exc:
        raise CanonicalError(f"This value cannot be written as canonical JSON ({type(exc).__name__}).") from exc


def parse_canonical(data: bytes) -> Any:
    """The value of canonical JSON bytes.

    Raises: CanonicalError: not JSON, a duplicate key, too deep, or not byte for byte the RFC 8785 form of its value.
    """
    depth = _depth(data)
    if depth > MAX_DEPTH:
        raise CanonicalError(f"JSON nested deeper than {MAX_DEPTH} levels is not accepted.")
    try:
        obj = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_object_without_duplicates,
            parse_int=_integer,
            parse_constant=_no_constant,
        )
    except CanonicalError:
        raise
    except (ValueError, RecursionError) as exc:
        raise CanonicalError("These bytes are not JSON in UTF-8.") from exc
    if canonical_json(obj) != data:
        raise CanonicalError("This JSON is not in canonical form; write it as RFC 8785 says and sign again.")
    return obj


def sha256_hex(data: bytes) -> str:
    """SHA-256 in lower-case hex, the form in which content is named everywhere."""
    return hashlib.sha256(data).hexdigest()


def _is_simple(value: Any, depth: int) -> bool:
    """Whether the C encoder of `json` writes the canonical form: no floats, and keys that sort alike in both encodings.

    It is several times faster than `rfc8785`, which every decision and log entry would feel.
    """
    kind = type(value)
    if kind is dict:
        if depth <= 0:
            return False
        for key, item in value.items():
            if type(key) is not str or not key.isascii():
                return False
            kind = type(item)
            if kind is str or kind is bool or item is None:
                continue
            if kind is int:
                if not -_MAX_INTEGER <= item <= _MAX_INTEGER:
                    return False
            elif not _is_simple(item, depth - 1):
                return False
        return True
    if kind is list or kind is tuple:
        return depth > 0 and all(type(item) is str or _is_simple(item, depth - 1) for item in value)
    return value is None or kind is str or kind is bool or (kind is int and -_MAX_INTEGER <= value <= _MAX_INTEGER)


def _object_without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    obj = dict(pairs)
    if len(obj) != len(pairs):
        raise CanonicalError("A key appears twice in one JSON object.")
    return obj


def _integer(text: str) -> int | float:
    """JSON numbers are doubles (RFC 8785 §3.2.2.3); beyond ±(2⁵³−1) also those that look like integers."""
    if len(text) > 17 or abs(int(text)) > _MAX_INTEGER:
        return float(text)
    return int(text)


def _no_constant(name: str) -> NoReturn:
    raise CanonicalError(f"{name} is not JSON.")


def _depth(data: bytes) -> int:
    """An upper bound of the nesting depth: brackets inside strings count too, which errs on the safe side."""
    deepest = depth = 0
    if (num_brackets := data.count(b"[") + data.count(b"{")) <= MAX_DEPTH:
        return num_brackets
    for byte in data:
        if byte in b"[{":
            depth += 1
            deepest = max(deepest, depth)
        elif byte in b"]}":
            depth -= 1
    return deepest
