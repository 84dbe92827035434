"""Takes JWTs apart: a handful of functions in which everything that can be wrong with one becomes one error.

A JWT comes from strangers. joserfc, the JSON parser and the key parsers each have their own ways to fail on odd input;
callers of this module see `UnreadableJwtError` only.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, KeySet, OKPKey, RSAKey, import_key

MAX_JWT_CHARS: Final = 8192
_PUBLIC_MEMBERS: Final = ("kty", "crv", "x", "y")
_PRIVATE_MEMBERS: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})
JWT_FAULTS: Final = (JoseError, ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError)


class UnreadableJwtError(ValueError):
    """The text is not a JWT that can be read, or its signature does not verify."""


class Signer(Protocol):
    """What signs: `policy.kms.SigningKey`."""

    @property
    def kid(self) -> str: ...

    @property
    def algorithm(self) -> str: ...

    def sign(self, message: bytes, /) -> bytes: ...


def unverified_jwt(compact: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Header and claims of a compact JWT, its signature not yet looked at.

    Raises: UnreadableJwtError: not three parts of base64url with a JSON object in each of the first two; too long; or
        a header that asks for extensions (`crit`, RFC 7515 §4.1.11), of which none is known here.
    """
    if len(compact) > MAX_JWT_CHARS:
        raise UnreadableJwtError("The JWT is too long.")
    parts = compact.split(".")
    if len(parts) != 3:
        raise UnreadableJwtError("A compact JWT has three parts.")
    header, claims = _json_object(parts[0]), _json_object(parts[1])
    if "crit" in header:
        raise UnreadableJwtError("The JWT asks for extensions that are not known here.")
    return header, claims


def verified_claims(compact: str, keys: KeySet | ECKey | OKPKey | RSAKey, algorithms: Sequence[str]) -> dict[str, Any]:
    """The claims of a JWT whose signature verifies with one of `keys` under one of `algorithms`.

    Keys named inside the JWT (jwk, jku, x5u, x5c) are never looked at.

    Raises: UnreadableJwtError.
    """
    unverified_jwt(compact)
    try:
        claims = jwt.decode(compact, keys, algorithms=list(algorithms)).claims
    except JWT_FAULTS as exc:
        raise UnreadableJwtError("The signature of the JWT does not verify.") from exc
    if not isinstance(claims, dict):
        raise UnreadableJwtError("The claims of the JWT are not an object.")
    return dict(claims)


def signed_jwt(header: Mapping[str, Any], claims: Mapping[str, Any], key: Signer) -> str:
    """A compact JWT (RFC 7519 §7.1) under a key that may live in a device: only its `sign` is called."""
    protected = {"alg": "ES256" if key.algorithm == "ES256" else "EdDSA", **header, "kid": key.kid}
    signing_input = f"{_encoded(protected)}.{_encoded(claims)}"
    return f"{signing_input}.{base64url(key.sign(signing_input.encode()))}"


def public_key_of(unverified_jwk: object) -> ECKey | OKPKey:
    """A P-256 or Ed25519 public key from a JWK that a stranger sent. Raises: UnreadableJwtError."""
    if not isinstance(unverified_jwk, dict) or _PRIVATE_MEMBERS & set(unverified_jwk):
        raise UnreadableJwtError("Send a public JWK: an object without private members.")
    members = {name: unverified_jwk[name] for name in _PUBLIC_MEMBERS if name in unverified_jwk}
    try:
        key = import_key(members)
        if not isinstance(key, ECKey | OKPKey) or key.curve_name not in {"P-256", "Ed25519"}:
            raise UnreadableJwtError("Keys are P-256 or Ed25519 here.")
        key.get_op_key("verify")  # the point must be on the curve
    except JWT_FAULTS as exc:
        raise UnreadableJwtError("The JWK cannot be read: send a P-256 or Ed25519 public key.") from exc
    return key


def numeric_date(claims: Mapping[str, Any], name: str) -> float | None:
    """A NumericDate claim (RFC 7519 §2) as seconds since the epoch; None if it is absent or no finite number."""
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        seconds = float(value)
    except OverflowError:
        return None
    return seconds if math.isfinite(seconds) else None


def base64url(content: bytes) -> str:
    """base64url without padding (RFC 7515 §2)."""
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def sha256_base64url(text: str) -> str:
    """SHA-256 of ASCII text, base64url: the form of `ath` (RFC 9449 §4.2) and S256 (RFC 7636 §4.2)."""
    return base64url(hashlib.sha256(text.encode()).digest())


def _encoded(value: Mapping[str, Any]) -> str:
    return base64url(json.dumps(dict(value), separators=(",", ":")).encode())


def _json_object(part: str) -> dict[str, Any]:
    try:
        value = json.loads(base64.b64decode(part + "=" * (-len(part) % 4), altchars=b"-_", validate=True))
    except (ValueError, binascii.Error, RecursionError) as exc:
        raise UnreadableJwtError("A part of the JWT is not base64url of JSON.") from exc
    if not isinstance(value, dict):
        raise UnreadableJwtError("A part of the JWT is not a JSON object.")
    return value
