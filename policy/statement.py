"""Signed statements of subjects: compact JWS over canonical JSON, ES256 or Ed25519, one `typ` per kind of statement.

This file knows signatures and bytes; what the statements say is in `policy.consent`. The private half of a subject's
key stays with the subject: `sign_payload` runs on their side, `verify_payload` on ours.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Any, Final, Literal

from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OKPKey

from policy.canonical import canonical_json, parse_canonical
from policy.errors import (
    CanonicalError,
    StatementKeyError,
    StatementMalformedError,
    StatementSignatureError,
    StatementTypeError,
)

MAX_STATEMENT_NUM_BYTES: Final = 32_768
_COMPACT = re.compile(r"(?P<header>[A-Za-z0-9_-]+)\.(?P<payload>[A-Za-z0-9_-]+)\.(?P<signature>[A-Za-z0-9_-]{86})")
_PRIVATE_MEMBERS: Final = frozenset({"d", "k", "p", "q", "dp", "dq", "qi", "oth"})
_ALGORITHMS: Final[dict[tuple[str, str], tuple[str, ...]]] = {
    ("EC", "P-256"): ("ES256",),
    ("OKP", "Ed25519"): ("Ed25519", "EdDSA"),
}
"""Key type and curve -> the `alg` values that go with it (RFC 7518 §3.4, RFC 9864 §2.2, RFC 8037 §3.1)."""


def new_subject_key(kind: Literal["P-256", "Ed25519"] = "P-256") -> dict[str, Any]:
    """A fresh private JWK for a subject, to be made and kept on the subject's side."""
    key = ECKey.generate_key("P-256") if kind == "P-256" else OKPKey.generate_key("Ed25519")
    return dict(key.as_dict(private=True))


def public_jwk(jwk: Mapping[str, Any]) -> dict[str, Any]:
    """The public half of a P-256 or Ed25519 JWK, with nothing but its required members.

    Raises: StatementKeyError.
    """
    _, key = _import_key({name: value for name, value in jwk.items() if name not in _PRIVATE_MEMBERS})
    required = ("crv", "kty", "x", "y") if isinstance(key, ECKey) else ("crv", "kty", "x")
    members = key.as_dict(private=False)
    return {name: members[name] for name in required}


def key_thumbprint(jwk: Mapping[str, Any]) -> str:
    """The JWK thumbprint (RFC 7638, SHA-256, base64url) of a subject's key, public or private.

    Raises: StatementKeyError.
    """
    _, key = _import_key(public_jwk(jwk))
    return str(key.thumbprint())


def sign_payload(payload: Mapping[str, Any], typ: str, private_jwk: Mapping[str, Any]) -> str:
    """A statement as compact JWS, signed by its subject.

    Raises: StatementKeyError: not a private P-256 or Ed25519 key. StatementMalformedError: no canonical form.
    """
    algorithms, key = _import_key(private_jwk)
    if not key.is_private:
        raise StatementKeyError("Signing needs the private key; this is the public half.")
    try:
        data = canonical_json(dict(payload))
    except CanonicalError as exc:
        raise StatementMalformedError("The statement has no canonical JSON form.") from exc
    return jws.serialize_compact({"alg": algorithms[0], "typ": typ}, data, key, algorithms=list(algorithms))


def verify_payload(token: str, typ: str, subject_public_jwk: Mapping[str, Any]) -> tuple[dict[str, Any], bytes]:
    """Check form, type and signature of a statement.

    Returns: the payload, parsed, and its canonical bytes, whose SHA-256 names the statement.
    Raises: StatementMalformedError, StatementTypeError, StatementKeyError, StatementSignatureError.
    """
    # (1) compact serialization of bounded length, RFC 7515 §3.1; ES256 and Ed25519 signatures are 64 bytes
    match = _COMPACT.fullmatch(token) if len(token) <= MAX_STATEMENT_NUM_BYTES else None
    if match is None:
        raise StatementMalformedError("The statement is not a signed statement in compact JWS form.")
    # (2) the key is public, of a kind that we take
    if _PRIVATE_MEMBERS & set(subject_public_jwk):
        raise StatementKeyError("A private key must never be sent; keep it and send its public half.")
    algorithms, key = _import_key(subject_public_jwk)
    # (3) header: exactly alg and typ, so no crit, jku, jwk or x5u can say anything (RFC 8725 §3.1, §3.9–3.11)
    try:
        unverified = jws.extract_compact(token.encode())
        unverified_header = unverified.headers()
    except (JoseError, ValueError, TypeError, AttributeError, RecursionError) as exc:
        raise StatementMalformedError("The header of the statement cannot be read.") from exc
    if set(unverified_header) != {"alg", "typ"} or unverified_header["typ"] != typ:
        raise StatementTypeError(f"The header of this statement must hold alg and typ only, with typ {typ}.")
    if unverified_header["alg"] not in algorithms:
        raise StatementTypeError(f"With the subject's key the alg must be {' or '.join(algorithms)}.")
    # (4) signature, RFC 7515 §5.2
    try:
        verified = jws.deserialize_compact(token, key, algorithms=[str(unverified_header["alg"])])
    except (JoseError, ValueError) as exc:
        raise StatementSignatureError("The statement is not signed by this subject's key.") from exc
    # (5) the payload is canonical JSON (RFC 8785): one spelling, no doubled key, an object
    try:
        payload = parse_canonical(verified.payload)
    except CanonicalError as exc:
        raise StatementMalformedError(f"The payload of the statement is refused. {exc.sentence}") from exc
    if not isinstance(payload, dict):
        raise StatementMalformedError("The payload of the statement must be a JSON object.")
    return payload, verified.payload


def decode_base64url(text: object) -> bytes:
    """The bytes of base64url without padding, in its one spelling (RFC 4648 §3.5, §5).

    Raises: ValueError.
    """
    if isinstance(text, str) and text.isascii():
        try:
            data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        except binascii.Error as exc:
            raise ValueError("This is not base64url.") from exc
        if encode_base64url(data) == text:
            return data
    raise ValueError("This is not base64url.")


def encode_base64url(data: bytes) -> str:
    """base64url without padding (RFC 4648 §5)."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _import_key(jwk: Mapping[str, Any]) -> tuple[tuple[str, ...], ECKey | OKPKey]:
    kind = (str(jwk.get("kty")), str(jwk.get("crv")))
    algorithms = _ALGORITHMS.get(kind)
    if algorithms is None:
        raise StatementKeyError("The key of a subject must be a JWK on P-256 or Ed25519.")
    try:
        key = (ECKey if kind[0] == "EC" else OKPKey).import_key(dict(jwk))
        key.thumbprint()  # forces the point to be decoded and checked
        _ = key.public_key
    except (JoseError, ValueError, TypeError, KeyError) as exc:
        raise StatementKeyError("The key of the subject is damaged: its members do not make a key.") from exc
    return algorithms, key
