"""Where keys live, and the little that anybody may ask of them: sign, wrap, unwrap, rotate.

A `KeyService` is a file directory (`FileKeyService`, here) or a PKCS#11 token (`policy.pkcs11`). Callers hold
`SigningKey`s and never see a private key; `KeyRing` (`policy.keys`) names the keys of an instance on top of it.

    permit, log       Ed25519   sign permits and checkpoints
    oauth, c2pa       ES256     sign access tokens and manifests
    subject-wrap      AES-256   wraps the per-subject keys
    weights-wrap      AES-256   wraps the keys of sealed weights
    watermark         32 bytes  places the invisible mark
    commitment        32 bytes  HMAC key behind the pseudonyms in the log

A rotation makes a new key, hands over, and retires the old one: of a signing key only the public half is kept; a
wrapping key is kept until everything under it is wrapped anew (`forget`); a retired watermark key is kept, because
videos that carry its marks are out in the world. The commitment key is not rotated: it names subjects in a log that
cannot be rewritten, so a new one would cut every pseudonym off from its past.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, Protocol, runtime_checkable

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from policy.errors import KeyRingError, UnwrapError

Algorithm = Literal["Ed25519", "ES256"]
PublicKey = ed25519.Ed25519PublicKey | ec.EllipticCurvePublicKey
PrivateKey = ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey

SIGNING_KEYS: Final[Mapping[str, Algorithm]] = {
    "permit": "Ed25519",
    "log": "Ed25519",
    "oauth": "ES256",
    "c2pa": "ES256",
}
WRAPPING_KEYS: Final = ("subject-wrap", "weights-wrap")
SECRETS: Final = ("watermark", "commitment")
KEY_NAMES: Final = (*SIGNING_KEYS, *WRAPPING_KEYS, *SECRETS)
UNROTATED: Final = frozenset({"commitment"})

SECRET_NUM_BYTES: Final = 32
KID_NUM_HEX: Final = 32
_WRAP_VERSION: Final = b"\x01"
_KID_NUM_BYTES: Final = 8
_NONCE_NUM_BYTES: Final = 12


@runtime_checkable
class SigningKey(Protocol):
    """A private key that signs and does nothing else."""

    @property
    def kid(self) -> str:
        """Name of the key: SHA-256 of its public half, shortened; see `public_kid`."""
        ...

    @property
    def algorithm(self) -> Algorithm:
        """Ed25519 (RFC 8032) or ES256 (RFC 7518 §3.4)."""
        ...

    @property
    def public_key(self) -> PublicKey:
        """The public half."""
        ...

    def sign(self, message: bytes) -> bytes:
        """64 bytes: an Ed25519 signature, or r‖s of ECDSA with P-256 over the SHA-256 of `message`."""
        ...


@dataclass(frozen=True)
class Rotation:
    """What a rotation did: names of the keys only."""

    name: str
    old_kid: str
    new_kid: str


@dataclass(frozen=True)
class Retirement:
    """A signing key of the past: its public half, and when it ceased to sign (Unix seconds)."""

    public_key: PublicKey
    at_s: float


@dataclass(frozen=True)
class KeyInfo:
    """One key of a service, for people and for the log: nothing in it is secret.

    Args:
        algorithm: Ed25519, ES256, AES-256 or HMAC-SHA-256.
        kid: name of the current key.
        retired: kids of the keys before it, newest first.
    """

    name: str
    algorithm: str
    kid: str
    retired: tuple[str, ...]


HandOver = Callable[[SigningKey, SigningKey], object]
"""Called with the old and the new signing key before the new one becomes current; what it raises stops the rotation."""


class KeyService(Protocol):
    """Keys by name. All methods raise `KeyRingError` for keys that are missing, damaged or open to others."""

    def signing_key(self, name: str) -> SigningKey:
        """The current signing key `name`. Ask again for every use: another process may have rotated it."""
        ...

    def retired(self, name: str) -> tuple[PublicKey, ...]:
        """Public halves of the signing keys before the current one, newest first."""
        ...

    def retirements(self, name: str) -> tuple[Retirement, ...]:
        """The same, with the time of each: for those who take the word of a retired key for a while only."""
        ...

    def secrets(self, name: str) -> tuple[bytes, ...]:
        """The secret `name` and its retired forms, current first."""
        ...

    def rotate(self, name: str, *, hand_over: HandOver | None = None) -> Rotation:
        """Replace a key by a new one. The old one stays current until `hand_over` has returned."""
        ...

    def wrap(self, name: str, plaintext: bytes, context: bytes) -> bytes:
        """Encrypt under the current wrapping key `name`, bound to `context`."""
        ...

    def unwrap(self, name: str, wrapped: bytes, context: bytes) -> bytes:
        """What `wrap` was given, also under a retired key. Raises: UnwrapError."""
        ...

    def forget(self, name: str) -> tuple[str, ...]:
        """Destroy the retired forms of a wrapping key, after everything is wrapped anew; returns their kids."""
        ...

    def describe(self) -> tuple[KeyInfo, ...]:
        """Every key there is."""
        ...


# ---- names of keys ---------------------------------------------------------------------------------------------------


def public_kid(public_key: PublicKey) -> str:
    """Name of a signing key: the first 128 bits of SHA-256 over its SubjectPublicKeyInfo (RFC 5280 §4.1.2.7), hex."""
    return hashlib.sha256(public_der(public_key)).hexdigest()[:KID_NUM_HEX]


def public_der(public_key: PublicKey) -> bytes:
    """SubjectPublicKeyInfo in DER."""
    return public_key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def secret_kid(name: str, secret: bytes) -> str:
    """Name of a secret of 256 random bits. A one-way hash, of no use to whoever wants the secret."""
    return hashlib.sha256(b"placet-kid\0" + name.encode() + b"\0" + secret).hexdigest()[:KID_NUM_HEX]


def check_name(name: str, kind: str, names: tuple[str, ...] | Mapping[str, Algorithm]) -> str:
    """The name itself, if it is one of `names`. Raises: KeyRingError."""
    if name not in names:
        raise KeyRingError(f"There is no {kind} {name!r}; there are {', '.join(names)}.")
    return name


# ---- keys in this process --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LocalSigningKey:
    """A `SigningKey` whose private half is in the memory of this process."""

    kid: str
    algorithm: Algorithm
    private_key: PrivateKey = field(repr=False)

    @property
    def public_key(self) -> PublicKey:
        """The public half."""
        return self.private_key.public_key()

    def sign(self, message: bytes) -> bytes:
        """See `SigningKey.sign`."""
        if isinstance(self.private_key, ed25519.Ed25519PrivateKey):
            return self.private_key.sign(message)
        r, s = decode_dss_signature(self.private_key.sign(message, ec.ECDSA(hashes.SHA256())))
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def as_signing_key(key: SigningKey | PrivateKey) -> SigningKey:
    """A `SigningKey` as it is, or one around a private key of `cryptography`.

    Raises: KeyRingError: neither Ed25519 nor P-256.
    """
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return LocalSigningKey(public_kid(key.public_key()), "Ed25519", key)
    if isinstance(key, ec.EllipticCurvePrivateKey):
        if not isinstance(key.curve, ec.SECP256R1):
            raise KeyRingError("A signing key is Ed25519 or P-256; make a new one.")
        return LocalSigningKey(public_kid(key.public_key()), "ES256", key)
    return key


def new_private_key(algorithm: Algorithm) -> PrivateKey:
    """A fresh private key in memory."""
    return ed25519.Ed25519PrivateKey.generate() if algorithm == "Ed25519" else ec.generate_private_key(ec.SECP256R1())


@dataclass(frozen=True)
class CurrentSigningKey:
    """The signing key `name` of a service, whichever is current at the moment of each call.

    For those who hold on to a key for long, such as the log: they see a rotation by another process at once.
    """

    service: KeyService
    name: str

    @property
    def kid(self) -> str:
        """Kid of the key that is current now."""
        return self.service.signing_key(self.name).kid

    @property
    def algorithm(self) -> Algorithm:
        """The same before and after a rotation."""
        return SIGNING_KEYS[self.name]

    @property
    def public_key(self) -> PublicKey:
        """Public half of the key that is current now."""
        return self.service.signing_key(self.name).public_key

    def sign(self, message: bytes) -> bytes:
        """Sign with the key that is current now."""
        return self.service.signing_key(self.name).sign(message)


def verifying_keys(key: SigningKey) -> tuple[PublicKey, ...]:
    """Public halves whose signatures count where `key` signs: its own, and those it had before, newest first."""
    if isinstance(key, CurrentSigningKey):
        return (key.public_key, *key.service.retired(key.name))
    return (key.public_key,)


# ---- wrapping --------------------------------------------------------------------------------------------------------


def wrap_aad(name: str, context: bytes) -> bytes:
    """What a wrapped key is bound to: the name of the wrapping key, and the caller's context."""
    return b"placet-wrap\0" + name.encode() + b"\0" + context


def wrapped_header(kid: str) -> bytes:
    """Start of every wrapped key: `version (1 byte) | kid of the wrapping key (8)`. APPEND-ONLY FORMAT."""
    return _WRAP_VERSION + bytes.fromhex(kid)[:_KID_NUM_BYTES]


def split_wrapped(wrapped: bytes) -> tuple[bytes, bytes, bytes]:
    """Header, nonce and ciphertext of what `wrap` made. Raises: UnwrapError: too short, or of another version."""
    num_header = 1 + _KID_NUM_BYTES
    if len(wrapped) < num_header + _NONCE_NUM_BYTES + 16 or wrapped[:1] != _WRAP_VERSION:
        raise UnwrapError("This is not a wrapped key of this version; restore it from the backup.")
    return wrapped[:num_header], wrapped[num_header : num_header + _NONCE_NUM_BYTES], wrapped[num_header + 12 :]


def wrapped_kid(wrapped: bytes) -> str:
    """The first 64 bits, in hex, of the kid of the key under which this was wrapped. Raises: UnwrapError."""
    return split_wrapped(wrapped)[0][1:].hex()


def wrap_locally(name: str, key: bytes, plaintext: bytes, context: bytes) -> bytes:
    """AES-256-GCM (NIST SP 800-38D) with a random nonce: `header | nonce (12) | ciphertext and tag`."""
    nonce = secrets.token_bytes(_NONCE_NUM_BYTES)
    header = wrapped_header(secret_kid(name, key))
    return header + nonce + AESGCM(key).encrypt(nonce, plaintext, wrap_aad(name, context))


def unwrap_locally(name: str, keys: tuple[bytes, ...], wrapped: bytes, context: bytes) -> bytes:
    """Open with the key that the header names. Raises: UnwrapError."""
    header, nonce, ciphertext = split_wrapped(wrapped)
    for key in keys:
        if wrapped_header(secret_kid(name, key)) == header:
            try:
                return AESGCM(key).decrypt(nonce, ciphertext, wrap_aad(name, context))
            except InvalidTag as exc:
                raise UnwrapError("The wrapped key was changed, or belongs to something else.") from exc
    raise UnwrapError(f"The wrapping key {name} of kid {header[1:].hex()}… is gone, and with it what it wrapped.")


def random_secret() -> bytes:
    """256 bits from the operating system."""
    return os.urandom(SECRET_NUM_BYTES)
