"""Weights at rest, sealed for one instance: whoever copies the files without the instance's keys has noise.

    HOME/weights/
      motion.safetensors.sealed    header line | ciphertext and tag (AES-256-GCM)
      head.safetensors.sealed
      keys.json                    file name → its data key, wrapped under `weights-wrap`

The header is one line of canonical JSON: format version, file name, size and SHA-256 of the plain bytes, nonce. It is
authenticated with the content. Each file has a data key of its own, wrapped by the instance's key service and bound to
name and hash; a rotation wraps the data keys anew and leaves the large files alone.

Only the worker opens them: the gateway unwraps the data keys when it starts the worker, and hands them over its private
socket. Nothing plain is ever written.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from generator.errors import WeightsError
from generator.sealed import WEIGHTS_FOLDER, expected_hashes, read_weights
from policy.canonical import canonical_json
from policy.errors import KeyRingError, UnwrapError
from policy.files import write_atomically
from policy.kms import KeyService

WRAPPING_KEY: Final = "weights-wrap"
SUFFIX: Final = ".sealed"
_KEYS_FILE: Final = "keys.json"
_VERSION: Final = 1
_MAX_HEADER_NUM_BYTES: Final = 4096
_NONCE_NUM_BYTES: Final = 12
_REMEDY: Final = "Seal them anew with `placet models seal`"
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class SealedFile:
    """What is known of one sealed file."""

    name: str
    sha256: str
    num_bytes: int


@dataclass(frozen=True)
class SealedWeights:
    """Sealed weights with the keys that open them: a source for `generator.sealed.use_source`."""

    folder: Path
    data_keys: Mapping[str, bytes] = field(repr=False)

    def read(self, name: str, expected_sha256: str) -> bytes:
        """The plain bytes of a weights file.

        Args:
            expected_sha256: what this version of the program was shipped with.
        Raises: WeightsError: missing, truncated, altered, of another version, or sealed for another instance; the
            sentence names the file, the expected hash, and what to do.
        """
        path = self.folder / f"{name}{SUFFIX}"
        what_to_do = f"Expected sha256 {expected_sha256}. {_REMEDY}; `placet models unseal-check` shows them all."
        try:
            data = path.read_bytes()
        except OSError as exc:
            raise WeightsError(f"The sealed weights {path} cannot be read ({exc.strerror}). {what_to_do}") from exc
        header, line, ciphertext = _parse(path, data, what_to_do)
        key = self.data_keys.get(name)
        if key is None:
            raise WeightsError(f"There is no key for the sealed weights {path}. {what_to_do}")
        try:
            plain = AESGCM(key).decrypt(base64.b64decode(header["nonce"]), ciphertext, line)
        except (InvalidTag, ValueError) as exc:
            raise WeightsError(f"The sealed weights {path} are damaged or were tampered with. {what_to_do}") from exc
        found = hashlib.sha256(plain).hexdigest()
        if found != expected_sha256:
            raise WeightsError(f"The sealed weights {path} are of another version (sha256 {found}). {what_to_do}")
        return plain


def seal_weights(keys: KeyService, folder: Path, source: Path = WEIGHTS_FOLDER) -> tuple[SealedFile, ...]:
    """Seal every weights file of `source` into `folder`; what was sealed before is replaced.

    Raises: WeightsError: a file of `source` is not whole. KeyRingError, OSError.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    wrapped_keys: dict[str, str] = {}
    made: list[SealedFile] = []
    for name, sha256 in sorted(expected_hashes(source).items()):
        plain = read_weights(name, "placet models list", source)
        key, nonce = AESGCM.generate_key(256), secrets.token_bytes(_NONCE_NUM_BYTES)
        line = canonical_json(
            {
                "v": _VERSION,
                "name": name,
                "num_bytes": len(plain),
                "sha256": sha256,
                "nonce": base64.b64encode(nonce).decode(),
            }
        )
        sealed = line + b"\n" + AESGCM(key).encrypt(nonce, plain, line)
        write_atomically(folder / f"{name}{SUFFIX}", sealed, mode=0o600)
        wrapped_keys[name] = base64.b64encode(keys.wrap(WRAPPING_KEY, key, _context(name, sha256))).decode()
        made.append(SealedFile(name, sha256, len(plain)))
    write_atomically(folder / _KEYS_FILE, canonical_json(wrapped_keys), mode=0o600)
    return tuple(made)


def unwrap_data_keys(keys: KeyService, folder: Path) -> dict[str, bytes]:
    """The data keys of the sealed files, by file name: what the gateway gives the worker.

    Raises: WeightsError: nothing was sealed, or it was sealed for another instance. KeyRingError.
    """
    found: dict[str, bytes] = {}
    for name, wrapped in _wrapped_keys(folder).items():
        try:
            found[name] = keys.unwrap(WRAPPING_KEY, wrapped, _context(name, _sha256_in_header(folder, name)))
        except UnwrapError as exc:
            raise WeightsError(
                f"The key of the sealed weights {folder / name}{SUFFIX} does not open with this instance's keys. "
                f"{_REMEDY}."
            ) from exc
    return found


def rewrap_data_keys(keys: KeyService, folder: Path) -> int:
    """Wrap the data keys under the current wrapping key, after a rotation. Returns how many there are.

    Raises: WeightsError, KeyRingError, OSError.
    """
    if not (folder / _KEYS_FILE).exists():
        return 0
    wrapped_keys = {
        name: base64.b64encode(keys.wrap(WRAPPING_KEY, key, _context(name, _sha256_in_header(folder, name)))).decode()
        for name, key in unwrap_data_keys(keys, folder).items()
    }
    write_atomically(folder / _KEYS_FILE, canonical_json(wrapped_keys), mode=0o600)
    return len(wrapped_keys)


def check_sealed(keys: KeyService, folder: Path, source: Path = WEIGHTS_FOLDER) -> dict[str, str]:
    """File name → what is wrong with it, or "" where it opens to exactly what was shipped."""
    expected = expected_hashes(source)
    try:
        weights = SealedWeights(folder, unwrap_data_keys(keys, folder))
    except (WeightsError, KeyRingError) as exc:
        return dict.fromkeys(sorted(expected), str(exc))
    states = {}
    for name in sorted(expected):
        try:
            weights.read(name, expected[name])
            states[name] = ""
        except WeightsError as exc:
            states[name] = str(exc)
    return states


def _context(name: str, sha256: str) -> bytes:
    return f"{name}\0{sha256}".encode()


def _wrapped_keys(folder: Path) -> dict[str, bytes]:
    path = folder / _KEYS_FILE
    try:
        return {
            str(name): base64.b64decode(wrapped, validate=True)
            for name, wrapped in json.loads(path.read_bytes()).items()
        }
    except FileNotFoundError as exc:
        raise WeightsError(f"Nothing is sealed here: {path} is missing. {_REMEDY}.") from exc
    except (OSError, ValueError, TypeError, AttributeError) as exc:
        raise WeightsError(f"{path} is damaged. {_REMEDY}.") from exc


def _sha256_in_header(folder: Path, name: str) -> str:
    path = folder / f"{name}{SUFFIX}"
    try:
        with path.open("rb") as file:
            head = file.read(_MAX_HEADER_NUM_BYTES)
    except OSError as exc:
        raise WeightsError(f"The sealed weights {path} cannot be read ({exc.strerror}). {_REMEDY}.") from exc
    header, _, _ = _parse(path, head, f"{_REMEDY}.")
    return str(header["sha256"])


def _parse(path: Path, data: bytes, what_to_do: str) -> tuple[dict[str, Any], bytes, bytes]:
    """Header, its bytes, and the ciphertext of a sealed file. Raises: WeightsError."""
    line, _, ciphertext = data.partition(b"\n")
    try:
        header = json.loads(line) if len(line) <= _MAX_HEADER_NUM_BYTES else None
        is_ours = (
            isinstance(header, dict)
            and set(header) == {"v", "name", "num_bytes", "sha256", "nonce"}
            and header["v"] == _VERSION
            and bool(_SHA256.fullmatch(header["sha256"]))
            and f"{header['name']}{SUFFIX}" == path.name
            and len(base64.b64decode(header["nonce"], validate=True)) == _NONCE_NUM_BYTES
        )
    except (ValueError, TypeError, RecursionError, binascii.Error) as exc:
        raise WeightsError(f"{path} is damaged: it does not begin as sealed weights do. {what_to_do}") from exc
    if not is_ours:
        raise WeightsError(f"{path} is damaged, or sealed by another version. {what_to_do}")
    assert isinstance(header, dict)  # by `is_ours`
    return header, line, ciphertext
