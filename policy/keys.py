"""The key ring: the keys of one instance by their purpose, whatever service holds them.

Nothing here prints or returns key material in a message.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from policy.errors import KeyRingError
from policy.keyfiles import FileKeyService
from policy.kms import CurrentSigningKey, KeyService, LocalSigningKey, SigningKey

_PSEUDONYM_NUM_HEX = 32


@dataclass(frozen=True)
class KeyAccess:
    """How the keys of an instance are reached.

    Args:
        kms: `file`, or a PKCS #11 URI; see `policy.pkcs11`.
        pin: of the token's user.
    """

    kms: str = "file"
    pin: str = field(default="", repr=False)

    def create(self, directory: Path) -> KeyService:
        """A service with new keys. Raises: KeyRingError."""
        if self.kms == "file":
            return FileKeyService.create(directory)
        from policy.pkcs11 import Pkcs11KeyService, parse_uri  # a library of the operating system; only where wanted

        return Pkcs11KeyService.create(directory, parse_uri(self.kms), self.pin)

    def open(self, directory: Path) -> KeyService:
        """The service that `create` made. Raises: KeyRingError."""
        if self.kms == "file":
            return FileKeyService(directory)
        from policy.pkcs11 import Pkcs11KeyService, parse_uri

        return Pkcs11KeyService(directory, parse_uri(self.kms), self.pin)


class KeyRing:
    """All keys of an instance, over a `KeyService`. Nothing is kept here that a rotation would make stale."""

    def __init__(self, service: KeyService) -> None:
        self.service = service

    def __repr__(self) -> str:
        return "KeyRing()"

    @classmethod
    def create(cls, directory: Path, access: KeyAccess | None = None) -> KeyRing:
        """Make new keys in `directory`, which is created (0700) or must be empty.

        Args:
            access: where the keys themselves shall be; by default in files of this directory.
        Raises: KeyRingError: the directory holds something already, or cannot be written; the token does not open.
        """
        return cls((access or KeyAccess()).create(directory))

    @classmethod
    def load(cls, directory: Path, access: KeyAccess | None = None) -> KeyRing:
        """The keys of `directory`, each read once to see that it is whole.

        Raises: KeyRingError: a file is missing, damaged, of the wrong kind, or accessible to others; the token does not
            open.
        """
        service = (access or KeyAccess()).open(directory)
        service.describe()
        return cls(service)

    # ---- signing

    @property
    def permit_key(self) -> SigningKey:
        """Signs permits; follows a rotation."""
        return CurrentSigningKey(self.service, "permit")

    @property
    def log_key(self) -> SigningKey:
        """Signs checkpoints; follows a rotation."""
        return CurrentSigningKey(self.service, "log")

    @property
    def oauth_key(self) -> ec.EllipticCurvePrivateKey:
        """Signs access tokens, as a private key in this process.

        Raises: KeyRingError: the key is in a token that does not give it out; sign with `oauth_signer`.
        """
        key = self.service.signing_key("oauth")
        if isinstance(key, LocalSigningKey) and isinstance(key.private_key, ec.EllipticCurvePrivateKey):
            return key.private_key
        raise KeyRingError("The OAuth key is in a token and cannot be taken out; sign with it where it is.")

    @property
    def oauth_signer(self) -> SigningKey:
        """Signs access tokens wherever the key is; follows a rotation."""
        return CurrentSigningKey(self.service, "oauth")

    @property
    def c2pa_key(self) -> SigningKey:
        """Signs manifests; follows a rotation."""
        return CurrentSigningKey(self.service, "c2pa")

    @property
    def permit_public(self) -> ed25519.Ed25519PublicKey:
        """What a worker needs to verify permits, now."""
        return _ed25519(self.service.signing_key("permit").public_key)

    @property
    def log_public(self) -> ed25519.Ed25519PublicKey:
        """What anyone needs to verify checkpoints, now."""
        return _ed25519(self.service.signing_key("log").public_key)

    @property
    def permit_publics(self) -> tuple[ed25519.Ed25519PublicKey, ...]:
        """Current and retired permit keys, newest first."""
        return (self.permit_public, *map(_ed25519, self.service.retired("permit")))

    @property
    def log_publics(self) -> tuple[ed25519.Ed25519PublicKey, ...]:
        """Current and retired log keys, newest first: checkpoints of the past are signed by those of the past."""
        return (self.log_public, *map(_ed25519, self.service.retired("log")))

    # ---- secrets

    @property
    def watermark_key(self) -> bytes:
        """Places the invisible mark in what is made from now on."""
        return self.service.secrets("watermark")[0]

    @property
    def watermark_keys(self) -> tuple[bytes, ...]:
        """Current and retired watermark keys: readers try them in this order."""
        return self.service.secrets("watermark")

    @cached_property
    def commitment_key(self) -> bytes:
        """HMAC key behind the pseudonyms; never rotated, see `policy.kms`."""
        return self.service.secrets("commitment")[0]

    @property
    def subject_key_wrap(self) -> bytes:
        """The wrapping key of subjects' keys, where the service gives it out."""
        return self.service.secrets("subject-wrap")[0]

    def kids(self, *names: str) -> tuple[str, ...]:
        """Names of the current keys, to see whether any was rotated."""
        current = {info.name: info.kid for info in self.service.describe()}
        return tuple(current[name] for name in names)

    def pseudonym(self, namespace: str, value: str) -> str:
        """The name under which `value` appears in the log: `namespace:` and 128 bits of HMAC-SHA-256.

        Stable within an instance, meaningless without its commitment key, so the log holds no personal data while the
        instance can still find every entry of a subject. Equal values stay equal: decisions can be replayed on them.
        """
        message = namespace.encode() + b"\0" + value.encode()
        digest = hmac.new(self.commitment_key, message, hashlib.sha256).hexdigest()
        return f"{namespace}:{digest[:_PSEUDONYM_NUM_HEX]}"


def public_key_bytes(key: ed25519.Ed25519PublicKey) -> bytes:
    """The 32 bytes of an Ed25519 public key (RFC 8032 §5.1.2)."""
    return key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)


def _ed25519(key: object) -> ed25519.Ed25519PublicKey:
    assert isinstance(key, ed25519.Ed25519PublicKey)  # by `kms.SIGNING_KEYS`
    return key
