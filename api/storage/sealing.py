"""Encryption at rest of what shows a person, under a key of that person alone: destroying the key erases them.

Each subject has an AES-256 key, wrapped by the key service under `subject-wrap` and bound to the subject's pseudonym.
Sealed bytes are `version (1 byte) | nonce (12) | AES-256-GCM ciphertext and tag`, bound to the same pseudonym.
"""

from __future__ import annotations

import secrets

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from api.errors import SealError
from policy.errors import UnwrapError
from policy.kms import KeyService

_VERSION = b"\x01"
_NONCE_BYTES = 12
_KEY_BYTES = 32
_WRAPPING_KEY = "subject-wrap"


def new_wrapped_key(subject_id: str, keys: KeyService) -> bytes:
    """A fresh subject key, wrapped for the database."""
    return keys.wrap(_WRAPPING_KEY, secrets.token_bytes(_KEY_BYTES), subject_id.encode())


def rewrapped(wrapped_key: bytes, subject_id: str, keys: KeyService) -> bytes:
    """The same subject key under the current wrapping key, after a rotation. Raises SealError."""
    return keys.wrap(_WRAPPING_KEY, _unwrap(wrapped_key, subject_id, keys), subject_id.encode())


def seal(data: bytes, *, subject_id: str, wrapped_key: bytes, keys: KeyService) -> bytes:
    """Encrypt bytes that show `subject_id`."""
    nonce = secrets.token_bytes(_NONCE_BYTES)
    key = _unwrap(wrapped_key, subject_id, keys)
    return _VERSION + nonce + AESGCM(key).encrypt(nonce, data, subject_id.encode())


def unseal(sealed: bytes, *, subject_id: str, wrapped_key: bytes, keys: KeyService) -> bytes:
    """Decrypt what `seal` made. Raises SealError where key, subject or bytes are not the same."""
    if sealed[:1] != _VERSION:
        raise SealError("The sealed file has an unknown format version.")
    key = _unwrap(wrapped_key, subject_id, keys)
    nonce, ciphertext = sealed[1 : 1 + _NONCE_BYTES], sealed[1 + _NONCE_BYTES :]
    try:
        return AESGCM(key).decrypt(nonce, ciphertext, subject_id.encode())
    except (InvalidTag, ValueError) as exc:
        raise SealError("The sealed file was changed or belongs to someone else.") from exc


def _unwrap(wrapped_key: bytes, subject_id: str, keys: KeyService) -> bytes:
    try:
        return keys.unwrap(_WRAPPING_KEY, wrapped_key, subject_id.encode())
    except UnwrapError as exc:
        raise SealError("The subject's key does not open with this instance's keys.") from exc
