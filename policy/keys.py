"""The keys of one instance: made once, kept in a directory that only the owner can read.

    keys/               0700
      permit.pem        Ed25519, signs permits             (PKCS #8)
      log.pem           Ed25519, signs checkpoints         (PKCS #8)
      oauth.pem         P-256, signs access tokens         (PKCS #8)
      watermark.key     32 bytes, places the invisible mark
      commitment.key    32 bytes, HMAC key behind the pseudonyms in the log
      subject-wrap.key  32 bytes, wraps the per-subject keys

Nothing here prints or returns key material in a message.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import stat
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from policy.errors import KeyRingError
from policy.files import fsync_directory, write_atomically

_SIGNING_FILES = ("permit.pem", "log.pem", "oauth.pem")
_SECRET_FILES = ("watermark.key", "commitment.key", "subject-wrap.key")
_SECRET_NUM_BYTES = 32
_PSEUDONYM_NUM_HEX = 32


@dataclass(frozen=True)
class KeyRing:
    """All keys of an instance. Create with `KeyRing.create`, open with `KeyRing.load`."""

    permit_key: ed25519.Ed25519PrivateKey = field(repr=False)
    log_key: ed25519.Ed25519PrivateKey = field(repr=False)
    oauth_key: ec.EllipticCurvePrivateKey = field(repr=False)
    watermark_key: bytes = field(repr=False)
    commitment_key: bytes = field(repr=False)
    subject_key_wrap: bytes = field(repr=False)

    @classmethod
    def create(cls, directory: Path) -> KeyRing:
        """Make new keys in `directory`, which is created (0700) or must be empty.

        Raises: KeyRingError: the directory holds something already, or cannot be written.
        """
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            if any(directory.iterdir()):
                raise KeyRingError(
                    "The key directory is not empty; keys are never overwritten. Choose a new directory."
                )
            directory.chmod(0o700)
            keys = cls(
                permit_key=ed25519.Ed25519PrivateKey.generate(),
                log_key=ed25519.Ed25519PrivateKey.generate(),
                oauth_key=ec.generate_private_key(ec.SECP256R1()),
                watermark_key=secrets.token_bytes(_SECRET_NUM_BYTES),
                commitment_key=secrets.token_bytes(_SECRET_NUM_BYTES),
                subject_key_wrap=secrets.token_bytes(_SECRET_NUM_BYTES),
            )
            signing_keys: tuple[ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey, ...] = (
                keys.permit_key,
                keys.log_key,
                keys.oauth_key,
            )
            for name, key in zip(_SIGNING_FILES, signing_keys, strict=True):
                write_atomically(directory / name, _to_pem(key), mode=0o600)
            for name, secret in zip(
                _SECRET_FILES, (keys.watermark_key, keys.commitment_key, keys.subject_key_wrap), strict=True
            ):
                write_atomically(directory / name, secret, mode=0o600)
            fsync_directory(directory.parent)
        except OSError as exc:
            raise KeyRingError(f"The key directory cannot be written ({exc.strerror}).") from exc
        return keys

    @classmethod
    def load(cls, directory: Path) -> KeyRing:
        """Read the keys of `directory`.

        Raises: KeyRingError: a file is missing, damaged, of the wrong kind, or accessible to others.
        """
        if not directory.is_dir():
            raise KeyRingError("There is no key directory here; run `placet init` first.")
        _refuse_shared(directory)
        permit, log, oauth = (_load_pem(directory / name) for name in _SIGNING_FILES)
        watermark, commitment, subject_wrap = (_load_secret(directory / name) for name in _SECRET_FILES)
        if not isinstance(permit, ed25519.Ed25519PrivateKey) or not isinstance(log, ed25519.Ed25519PrivateKey):
            raise KeyRingError("permit.pem and log.pem must be Ed25519 keys; restore them from the backup.")
        if not isinstance(oauth, ec.EllipticCurvePrivateKey) or not isinstance(oauth.curve, ec.SECP256R1):
            raise KeyRingError("oauth.pem is not a P-256 key; restore it from the backup.")
        return cls(permit, log, oauth, watermark, commitment, subject_wrap)

    @property
    def permit_public(self) -> ed25519.Ed25519PublicKey:
        """What a worker needs to verify permits."""
        return self.permit_key.public_key()

    @property
    def log_public(self) -> ed25519.Ed25519PublicKey:
        """What anyone needs to verify checkpoints."""
        return self.log_key.public_key()

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


def _to_pem(key: ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _load_pem(path: Path) -> object:
    try:
        return serialization.load_pem_private_key(_read_private(path), password=None)
    except (ValueError, TypeError) as exc:
        raise KeyRingError(f"{path.name} is damaged; restore it from the backup.") from exc


def _load_secret(path: Path) -> bytes:
    secret = _read_private(path)
    if len(secret) != _SECRET_NUM_BYTES:
        raise KeyRingError(f"{path.name} must be {_SECRET_NUM_BYTES} bytes long; restore it from the backup.")
    return secret


def _read_private(path: Path) -> bytes:
    try:
        _refuse_shared(path)
        return path.read_bytes()
    except OSError as exc:
        raise KeyRingError(f"{path.name} cannot be read ({exc.strerror}); restore it from the backup.") from exc


def _refuse_shared(path: Path) -> None:
    if os.name == "posix" and stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise KeyRingError(f"{path.name} is accessible to other users; run `chmod go-rwx` on it and rotate its keys.")
