"""Encryption at rest of what shows a person, under a key of that person alone: destroying the key erases them.

Each subject has an AES-256 key, wrapped (RFC 3394) under the instance's `subject_key_wrap`. Sealed bytes are
`version (1 byte) | nonce (12) | AES-256-GCM ciphertext and tag`, bound to the subject's pseudonym.
"""

from __future__ import annotations

import secrets

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.keywrap import InvalidUnwrap, aes_key_unwrap, aes_key_wrap

from api.errors import SealError

_VERSION = b"\x01"
_NONCE_BYTES = 12


def new_wrapped_key(wrapping_key: bytes) -> bytes:
    """A fresh subject key, wrapped for the database."""
    return aes_key_wrap(wrapping_key, secrets.token_bytes(32))


def seal(data: bytes, *, subject_id: str, wrapped_key: bytes, wrapping_key: bytes) -> bytes:
    """Encrypt bytes that show `subject_id`."""
    nonce = secrets.token_bytes(_NONCE_BYTES)
    key = _unwrap(wrapped_key, wrapping_key)
    return _VERSION + nonce + AESGCM(key).encrypt(nonce, data, subject_id.encode())


def unseal(sealed: bytes, *, subject_id: str, wrapped_key: bytes, wrapping_key: bytes) -> bytes:
    """Decrypt what `seal` made. Raises SealError where key, subject or bytes are not the same."""
    if sealed[:1] != _VERSION:
        raise SealError("The sealed file has an unknown format version.")
    key = _unwrap(wrapped_key, wrapping_key)
    nonce, ciphertext = sealed[1 : 1 + _NONCE_BYTES], sealed[1 + _NONCE_BYTES :]
    try:
        return AESGCM(key).decrypt(nonce, ciphertext, subject_id.encode())
    except InvalidTag as exc:
        raise SealError("The sealed file was changed or belongs to someone else.") from exc


def _unwrap(wrapped_key: bytes, wrapping_key: bytes) -> bytes:
    try:
        return aes_key_unwrap(wrapping_key, wrapped_key)
    except (InvalidUnwrap, ValueError) as exc:
        raise SealError("The subject's key does not open with this instance's key.") from exc
