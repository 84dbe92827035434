"""COSE_Sign1 (RFC 9052) with ES256, as C2PA uses it: making and verifying, nothing else."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import cbor2
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

ALG, KID, X5CHAIN, IAT = 1, 4, 33, "iat"
ES256 = -7
SIGN1_TAG = 18
SIGNATURE_NUM_BYTES = 64
_MAX_NUM_BYTES = 1 << 20


class CoseError(ValueError):
    """Bytes that are not what they should be, or a signature that does not verify. Callers turn it into their own."""


def encode(value: Any) -> bytes:
    """CBOR with definite lengths and shortest integers (RFC 8949 §4.2.1), keys in the order given."""
    return cbor2.dumps(value)


def decode(data: bytes) -> Any:
    """One CBOR value without anything after it; dates become `datetime`. Raises: CoseError."""
    if len(data) > _MAX_NUM_BYTES:
        raise CoseError("The CBOR value is too large.")
    stream = io.BytesIO(data)
    try:
        value = cbor2.CBORDecoder(stream).decode()
    except (cbor2.CBORError, ValueError, TypeError, OverflowError, RecursionError) as exc:
        raise CoseError("The bytes are not CBOR.") from exc
    if stream.read(1):
        raise CoseError("Something follows the CBOR value.")
    return value


def public_cose_key(key: ec.EllipticCurvePublicKey, kid: bytes) -> dict[int, Any]:
    """COSE_Key (RFC 9053 §7.1.1) of a P-256 key: EC2, kid, ES256, P-256, x, y."""
    numbers = key.public_numbers()
    return {1: 2, 2: kid, 3: ES256, -1: 1, -2: numbers.x.to_bytes(32, "big"), -3: numbers.y.to_bytes(32, "big")}


def key_of_cose(value: Any) -> tuple[ec.EllipticCurvePublicKey, bytes]:
    """Key and kid of a COSE_Key. Raises: CoseError: not a P-256 key for ES256."""
    if not isinstance(value, dict) or (value.get(1), value.get(3), value.get(-1)) != (2, ES256, 1):
        raise CoseError("The COSE_Key is not a P-256 key for ES256.")
    kid, x, y = value.get(2), value.get(-2), value.get(-3)
    if not (isinstance(kid, bytes) and kid and isinstance(x, bytes) and isinstance(y, bytes)):
        raise CoseError("The COSE_Key lacks its name or a coordinate.")
    try:
        numbers = ec.EllipticCurvePublicNumbers(int.from_bytes(x, "big"), int.from_bytes(y, "big"), ec.SECP256R1())
        return numbers.public_key(), kid
    except ValueError as exc:
        raise CoseError("The COSE_Key is not a point of the curve.") from exc


@dataclass(frozen=True)
class Sign1:
    """A parsed COSE_Sign1, unverified.

    Attributes:
        protected: as signed, undecoded.
        payload: None where it is detached.
    """

    protected: bytes
    unprotected: dict[Any, Any]
    payload: bytes | None
    signature: bytes

    @classmethod
    def of(cls, value: Any) -> Sign1:
        """From a decoded CBOR value. Raises: CoseError."""
        if isinstance(value, cbor2.CBORTag) and value.tag == SIGN1_TAG:
            value = value.value
        if not isinstance(value, list | tuple) or len(value) != 4:
            raise CoseError("This is not a COSE_Sign1.")
        # Within a tag cbor2 gives immutable values: a tuple, a frozen mapping.
        protected, unprotected, payload, signature = value
        if not (
            isinstance(protected, bytes)
            and isinstance(unprotected, Mapping)
            and (payload is None or isinstance(payload, bytes))
            and isinstance(signature, bytes)
        ):
            raise CoseError("A part of the COSE_Sign1 has the wrong type.")
        return cls(protected, dict(unprotected), payload, signature)

    def header(self) -> dict[Any, Any]:
        """The protected header. Raises: CoseError."""
        header = decode(self.protected)
        if not isinstance(header, dict):
            raise CoseError("The protected header is not a map.")
        return header

    def verify(self, key: ec.EllipticCurvePublicKey, detached_payload: bytes | None = None) -> bytes:
        """Check the signature. Returns: the payload that it covers. Raises: CoseError."""
        payload = self.payload if self.payload is not None else detached_payload
        if payload is None or self.header().get(ALG) != ES256 or len(self.signature) != SIGNATURE_NUM_BYTES:
            raise CoseError("The signature has no payload, another algorithm than ES256, or another length.")
        half = SIGNATURE_NUM_BYTES // 2
        r, s = (int.from_bytes(part, "big") for part in (self.signature[:half], self.signature[half:]))
        try:
            key.verify(encode_dss_signature(r, s), _to_be_signed(self.protected, payload), ec.ECDSA(hashes.SHA256()))
        except InvalidSignature as exc:
            raise CoseError("The signature does not verify.") from exc
        return payload


def sign1(
    sign: Callable[[bytes], bytes],
    payload: bytes,
    *,
    protected: dict[Any, Any] | None = None,
    unprotected: dict[Any, Any] | None = None,
    is_detached: bool = False,
) -> cbor2.CBORTag:
    """COSE_Sign1_Tagged over `payload`; `sign` makes the 64 bytes of an ES256 signature, as `SigningKey.sign` does."""
    header = encode({ALG: ES256} | (protected or {}))
    signature = sign(_to_be_signed(header, payload))
    return cbor2.CBORTag(SIGN1_TAG, [header, unprotected or {}, None if is_detached else payload, signature])


def _to_be_signed(protected: bytes, payload: bytes) -> bytes:
    """Sig_structure of RFC 9052 §4.4, without external data."""
    return encode(["Signature1", protected, b"", payload])


def unsigned(_message: bytes) -> bytes:
    """In place of a signature where only its size matters."""
    return bytes(SIGNATURE_NUM_BYTES)
