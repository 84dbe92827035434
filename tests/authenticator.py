"""A passkey in software: what an authenticator and a browser do together, for tests that have no browser.

Written from W3C Web Authentication Level 3 (§5.8.1 client data, §6.1 authenticator data, §6.5 attestation), not from
the library that verifies it. Every part can be told to misbehave.
"""

from __future__ import annotations

import base64
import json
import secrets
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Literal

import cbor2
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

UP, UV, BE, BS, AT = 0x01, 0x04, 0x08, 0x10, 0x40


def b64(data: bytes) -> str:
    """base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@dataclass
class Authenticator:
    """One passkey. `counter` moves with each use if `counts`, as in a security key; otherwise it stays 0."""

    rp_id: str = "localhost"
    origin: str = "http://localhost:8470"
    kind: Literal["ES256", "Ed25519"] = "ES256"
    counts: bool = False
    flags: int = UP | UV
    counter: int = 0
    credential_id: bytes = field(default_factory=lambda: secrets.token_bytes(32))
    key: Any = None

    def __post_init__(self) -> None:
        if self.key is None:
            es256 = self.kind == "ES256"
            self.key = ec.generate_private_key(ec.SECP256R1()) if es256 else ed25519.Ed25519PrivateKey.generate()

    @property
    def cose(self) -> dict[int, Any]:
        """COSE_Key (RFC 9053)."""
        if self.kind == "ES256":
            point = self.key.public_key().public_numbers()
            return {1: 2, 3: -7, -1: 1, -2: point.x.to_bytes(32, "big"), -3: point.y.to_bytes(32, "big")}
        return {1: 1, 3: -8, -1: 6, -2: self.key.public_key().public_bytes_raw()}

    @property
    def jwk(self) -> dict[str, str]:
        """The public key as JWK."""
        if self.kind == "ES256":
            return {"kty": "EC", "crv": "P-256", "x": b64(self.cose[-2]), "y": b64(self.cose[-3])}
        return {"kty": "OKP", "crv": "Ed25519", "x": b64(self.cose[-2])}

    def client_data(self, kind: str, challenge: bytes, **changes: Any) -> bytes:
        """What the browser says about the ceremony."""
        members = {"type": kind, "challenge": b64(challenge), "origin": self.origin, "crossOrigin": False} | changes
        return json.dumps(members).encode()

    def authenticator_data(self, attested: bytes = b"") -> bytes:
        """What the authenticator says."""
        flags = self.flags | (AT if attested else 0)
        return sha256(self.rp_id.encode()).digest() + bytes([flags]) + self.counter.to_bytes(4, "big") + attested

    def sign(self, data: bytes) -> bytes:
        """With the passkey's key."""
        return bytes(self.key.sign(data, ec.ECDSA(hashes.SHA256())) if self.kind == "ES256" else self.key.sign(data))

    def register(self, challenge: bytes, **changes: Any) -> dict[str, Any]:
        """`navigator.credentials.create`, as toJSON()."""
        cose = cbor2.dumps(self.cose)
        attested = bytes(16) + len(self.credential_id).to_bytes(2, "big") + self.credential_id + cose
        attestation = {"fmt": "none", "attStmt": {}, "authData": self.authenticator_data(attested)}
        return self._response(
            clientDataJSON=b64(self.client_data("webauthn.create", challenge, **changes)),
            attestationObject=b64(cbor2.dumps(attestation)),
            transports=["internal"],
        )

    def answer(self, challenge: bytes, **changes: Any) -> dict[str, Any]:
        """`navigator.credentials.get`, as toJSON()."""
        self.counter += self.counts
        client_data, data = self.client_data("webauthn.get", challenge, **changes), self.authenticator_data()
        return self._response(
            clientDataJSON=b64(client_data),
            authenticatorData=b64(data),
            signature=b64(self.sign(data + sha256(client_data).digest())),
        )

    def _response(self, **response: Any) -> dict[str, Any]:
        return {
            "id": b64(self.credential_id),
            "rawId": b64(self.credential_id),
            "type": "public-key",
            "authenticatorAttachment": "platform",
            "clientExtensionResults": {},
            "response": response,
        }
