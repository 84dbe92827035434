"""Signatures on what the service sends to others: HTTP Message Signatures (RFC 9421) with a digest of the content
(RFC 9530), by the key that signs access tokens. Its public half is at /oauth/jwks.

`verify` is the other side, for whoever receives such a message.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from api.errors import ApiError
from policy.kms import SigningKey

TAG: Final = "placet-webhook"
_COMPONENTS: Final = ("@method", "@target-uri", "content-type", "content-digest")
_INPUT = re.compile(r'placet=(\("@method" "@target-uri" "content-type" "content-digest"\)((?:;[a-z]+=[^;]+)*))')
_SIGNATURE = re.compile(r"placet=:([A-Za-z0-9+/=]+):")


class MessageSignatureError(ApiError):
    """The message was not signed by the service, or changed on the way. The sentence says which check failed."""

    code = "access.signature"


def signed_headers(key: SigningKey, url: str, body: bytes, *, created_s: int) -> dict[str, str]:
    """Headers of a signed POST of JSON to `url`."""
    headers = {"content-type": "application/json", "content-digest": _digest(body)}
    parameters = f';created={created_s};keyid="{key.kid}";alg="ecdsa-p256-sha256";tag="{TAG}"'
    inner = "(" + " ".join(f'"{name}"' for name in _COMPONENTS) + ")" + parameters
    signature = base64.b64encode(key.sign(_base(url, headers, inner))).decode()
    return {**headers, "signature-input": f"placet={inner}", "signature": f"placet=:{signature}:"}


def verify(
    headers: Mapping[str, str], url: str, body: bytes, jwks: Mapping[str, Any], *, now_s: float, max_age_s: float = 300
) -> dict[str, Any]:
    """Check a webhook; returns its content.

    Args:
        headers: of the request, names in lower case.
        url: the address that it was sent to, as registered.
        jwks: what the service publishes at /oauth/jwks.
        now_s: Unix time; a message that is older than `max_age_s` is refused, so that none can be replayed later.
    Raises: MessageSignatureError.
    """
    # (1) the content is the one that was signed, RFC 9530 §2
    if headers.get("content-digest") != _digest(body):
        raise MessageSignatureError("The content does not have the digest in its header.")
    # (2) the parameters, RFC 9421 §2.3
    found = _INPUT.fullmatch(headers.get("signature-input", ""))
    signature = _SIGNATURE.fullmatch(headers.get("signature", ""))
    if found is None or signature is None:
        raise MessageSignatureError("There is no signature over method, address, type and digest.")
    parameters = dict(part.split("=", 1) for part in found[2].strip(";").split(";") if "=" in part)
    if parameters.get("tag") != f'"{TAG}"' or parameters.get("alg") != '"ecdsa-p256-sha256"':
        raise MessageSignatureError("The signature was made for another purpose.")
    try:
        age_s = now_s - int(parameters.get("created", "0"))
    except ValueError as exc:
        raise MessageSignatureError("The signature does not say when it was made.") from exc
    if not -60 <= age_s <= max_age_s:
        raise MessageSignatureError("The signature is too old, or from the future.")
    # (3) the signature, RFC 9421 §3.3.4: r and s, 32 bytes each
    kid = parameters.get("keyid", "").strip('"')
    key = next((key for key in jwks.get("keys", []) if key.get("kid") == kid), None)
    if key is None:
        raise MessageSignatureError("The key is not one of the service's: read /oauth/jwks again.")
    try:
        raw = base64.b64decode(signature[1], validate=True)
        r, s = int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big")
        public = ec.EllipticCurvePublicNumbers(_number(key["x"]), _number(key["y"]), ec.SECP256R1()).public_key()
        public.verify(encode_dss_signature(r, s), _base(url, headers, found[1]), ec.ECDSA(hashes.SHA256()))
    except (InvalidSignature, ValueError, KeyError, binascii.Error) as exc:
        raise MessageSignatureError("The signature does not verify.") from exc
    return dict(json.loads(body))


def _digest(body: bytes) -> str:
    return f"sha-256=:{base64.b64encode(hashlib.sha256(body).digest()).decode()}:"


def _base(url: str, headers: Mapping[str, str], inner: str) -> bytes:
    """The signature base, RFC 9421 §2.5."""
    values = {"@method": "POST", "@target-uri": url, **headers}
    lines = [f'"{name}": {values[name]}' for name in _COMPONENTS] + [f'"@signature-params": {inner}']
    return "\n".join(lines).encode()


def _number(encoded: str) -> int:
    return int.from_bytes(base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)), "big")
