"""`FileKeyService`: keys in a directory that only the owner can read.

    keys/                 0700
      permit.pem  log.pem  oauth.pem  c2pa.pem          PKCS #8
      watermark.key  commitment.key                     32 bytes
      subject-wrap.key  weights-wrap.key                32 bytes
      public.json         public halves, current and retired, newest first
      retired/NAME.KID.key                              32 bytes, of secrets and wrapping keys

Keys are read again when their file has changed, so that a running server follows `placet keys rotate`. A rotation
writes the new private key beside the old one, hands over, writes `public.json` (from here on the new key is current),
and renames. A crash before `public.json` leaves the old key, a crash after it is finished at the next use.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from policy.canonical import canonical_json
from policy.errors import KeyRingError
from policy.files import fsync_directory, write_atomically
from policy.kms import (
    KEY_NAMES,
    SECRET_NUM_BYTES,
    SECRETS,
    SIGNING_KEYS,
    UNROTATED,
    WRAPPING_KEYS,
    HandOver,
    KeyInfo,
    LocalSigningKey,
    PrivateKey,
    PublicKey,
    Retirement,
    Rotation,
    SigningKey,
    as_signing_key,
    check_name,
    new_private_key,
    public_der,
    public_kid,
    random_secret,
    secret_kid,
    unwrap_locally,
    wrap_locally,
)

PUBLIC_FILE: Final = "public.json"
RETIRED_FOLDER: Final = "retired"
_LOCK_FILE: Final = ".lock"
_SECRET_NAMES: Final = (*WRAPPING_KEYS, *SECRETS)


class FileKeyService:
    """A `KeyService` over one directory. Make one with `FileKeyService.create`; open it by its constructor."""

    def __init__(self, directory: Path, now: Callable[[], float] = time.time) -> None:
        """Open. Raises: KeyRingError: no such directory, or others may look into it."""
        if not directory.is_dir():
            raise KeyRingError("There is no key directory here; run `placet init` first.")
        if (directory / "token.json").exists():
            raise KeyRingError("The keys of this instance are in a token; set PLACET_KMS to its address.")
        self.directory = directory
        refuse_shared(directory)
        self._now = now
        self._loaded: dict[Path, tuple[tuple[int, int, int], Any]] = {}
        self._finish_rotations()

    @classmethod
    def create(cls, directory: Path) -> FileKeyService:
        """Make all keys anew in `directory`, which is created (0700) or must be empty.

        Raises: KeyRingError: the directory holds something already, or cannot be written.
        """
        prepare_directory(directory)
        try:
            public: dict[str, list[Retirement]] = {}
            for name, algorithm in SIGNING_KEYS.items():
                key = new_private_key(algorithm)
                write_atomically(directory / f"{name}.pem", _to_pem(key), mode=0o600)
                public[name] = [Retirement(key.public_key(), 0.0)]
            for name in _SECRET_NAMES:
                write_atomically(directory / f"{name}.key", random_secret(), mode=0o600)
            write_public_keys(directory, public)
            fsync_directory(directory.parent)
        except OSError as exc:
            raise _unwritable(exc) from exc
        return cls(directory)

    # ---- use

    def signing_key(self, name: str) -> SigningKey:
        """See `KeyService.signing_key`."""
        check_name(name, "signing key", SIGNING_KEYS)
        key: LocalSigningKey = self._read(self.directory / f"{name}.pem", _signing_key)
        if key.algorithm != SIGNING_KEYS[name]:
            kind = "an Ed25519" if SIGNING_KEYS[name] == "Ed25519" else "a P-256"
            raise KeyRingError(f"{name}.pem is not {kind} key; restore it from the backup.")
        return key

    def retired(self, name: str) -> tuple[PublicKey, ...]:
        """See `KeyService.retired`."""
        return tuple(each.public_key for each in self.retirements(name))

    def retirements(self, name: str) -> tuple[Retirement, ...]:
        """See `KeyService.retirements`."""
        current = self.signing_key(name).kid
        return tuple(each for each in self._public().get(name, ()) if public_kid(each.public_key) != current)

    def secrets(self, name: str) -> tuple[bytes, ...]:
        """See `KeyService.secrets`; of wrapping keys too, for this package alone."""
        check_name(name, "secret", _SECRET_NAMES)
        current: bytes = self._read(self.directory / f"{name}.key", _secret)
        retired: list[bytes] = [self._read(path, _secret) for path in self._retired_files(name)]
        return (current, *(secret for secret in retired if secret != current))

    def wrap(self, name: str, plaintext: bytes, context: bytes) -> bytes:
        """See `KeyService.wrap`."""
        check_name(name, "wrapping key", WRAPPING_KEYS)
        return wrap_locally(name, self.secrets(name)[0], plaintext, context)

    def unwrap(self, name: str, wrapped: bytes, context: bytes) -> bytes:
        """See `KeyService.unwrap`."""
        check_name(name, "wrapping key", WRAPPING_KEYS)
        return unwrap_locally(name, self.secrets(name), wrapped, context)

    def describe(self) -> tuple[KeyInfo, ...]:
        """See `KeyService.describe`."""
        found = []
        for name, algorithm in SIGNING_KEYS.items():
            retired = tuple(public_kid(key) for key in self.retired(name))
            found.append(KeyInfo(name, algorithm, self.signing_key(name).kid, retired))
        for name in _SECRET_NAMES:
            current, *before = (secret_kid(name, secret) for secret in self.secrets(name))
            found.append(KeyInfo(name, "AES-256" if name in WRAPPING_KEYS else "HMAC-SHA-256", current, tuple(before)))
        return tuple(found)

    # ---- change

    def rotate(self, name: str, *, hand_over: HandOver | None = None) -> Rotation:
        """See `KeyService.rotate`. Several processes take turns."""
        check_rotatable(name)
        try:
            with key_directory_locked(self.directory):
                if name in SIGNING_KEYS:
                    return self._rotate_signing_key(name, hand_over)
                return self._rotate_secret(name)
        except OSError as exc:
            raise _unwritable(exc) from exc

    def forget(self, name: str) -> tuple[str, ...]:
        """See `KeyService.forget`."""
        check_name(name, "wrapping key", WRAPPING_KEYS)
        try:
            with key_directory_locked(self.directory):
                files = self._retired_files(name)
                for path in files:
                    path.unlink()
                if files:
                    fsync_directory(self.directory / RETIRED_FOLDER)
        except OSError as exc:
            raise _unwritable(exc) from exc
        return tuple(path.name.split(".")[1] for path in files)

    def _rotate_signing_key(self, name: str, hand_over: HandOver | None) -> Rotation:
        old, private_key = self.signing_key(name), new_private_key(SIGNING_KEYS[name])
        new = as_signing_key(private_key)
        # (1) the new private key is on disk, and used by nobody
        pending = self.directory / f"{name}.next.pem"
        write_atomically(pending, _to_pem(private_key), mode=0o600)
        # (2) whoever must say goodbye with the old key does so
        if hand_over is not None:
            hand_over(old, new)
        # (3) the public halves: from here on the rotation will be finished, whatever happens
        public = {each: list(keys) for each, keys in self._public().items()}
        before = [each for each in public.get(name, []) if public_kid(each.public_key) != old.kid]
        retired = Retirement(old.public_key, self._now())
        write_public_keys(self.directory, public | {name: [Retirement(new.public_key, 0.0), retired, *before]})
        # (4) the new key is current, the old private key is gone
        self._finish(pending, self.directory / f"{name}.pem")
        return Rotation(name, old.kid, new.kid)

    def _rotate_secret(self, name: str) -> Rotation:
        old, new = self.secrets(name)[0], random_secret()
        folder = self.directory / RETIRED_FOLDER
        folder.mkdir(mode=0o700, exist_ok=True)
        old_kid = secret_kid(name, old)
        write_atomically(folder / f"{name}.{old_kid}.key", old, mode=0o600)
        write_atomically(self.directory / f"{name}.key", new, mode=0o600)
        return Rotation(name, old_kid, secret_kid(name, new))

    def _finish_rotations(self) -> None:
        """What a crash has cut off after step (3)."""
        for name in SIGNING_KEYS:
            pending = self.directory / f"{name}.next.pem"
            if not pending.exists():
                continue
            with key_directory_locked(self.directory):
                newest = self._public().get(name, ())[:1]
                if (
                    pending.exists()
                    and newest
                    and public_kid(newest[0].public_key) == self._read(pending, _signing_key).kid
                ):
                    self._finish(pending, self.directory / f"{name}.pem")

    def _finish(self, pending: Path, path: Path) -> None:
        pending.replace(path)
        fsync_directory(self.directory)
        self._loaded.pop(path, None)

    # ---- files

    def _public(self) -> dict[str, tuple[Retirement, ...]]:
        """All public keys, newest first."""
        path = self.directory / PUBLIC_FILE
        if not path.exists():  # written by a version that knew no rotation
            return {
                name: (Retirement(self.signing_key(name).public_key, 0.0),)
                for name in SIGNING_KEYS
                if (self.directory / f"{name}.pem").exists()
            }
        public: dict[str, tuple[Retirement, ...]] = self._read(path, _parse_public_keys)
        return public

    def _retired_files(self, name: str) -> list[Path]:
        files = (self.directory / RETIRED_FOLDER).glob(f"{name}.*.key")
        return sorted(files, key=lambda path: path.stat().st_mtime_ns, reverse=True)

    def _read(self, path: Path, parse: Any) -> Any:
        """What a file holds, parsed once for as long as it is the same file. Raises: KeyRingError."""
        try:
            status = path.stat()
            version = (status.st_ino, status.st_mtime_ns, status.st_mode)
            known = self._loaded.get(path)
            if known is not None and known[0] == version:
                return known[1]
            refuse_shared(path)
            value = parse(path, path.read_bytes())
        except OSError as exc:
            raise KeyRingError(f"{path.name} cannot be read ({exc.strerror}); restore it from the backup.") from exc
        self._loaded[path] = (version, value)
        return value


# ---- shared with the PKCS#11 service ---------------------------------------------------------------------------------


def prepare_directory(directory: Path) -> None:
    """An empty key directory of mode 0700. Raises: KeyRingError: there is something in it already."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if any(directory.iterdir()):
            raise KeyRingError("The key directory is not empty; keys are never overwritten. Choose a new directory.")
        directory.chmod(0o700)
    except OSError as exc:
        raise _unwritable(exc) from exc


def write_public_keys(directory: Path, public: dict[str, list[Retirement]]) -> None:
    """Write `public.json`: all public halves, the current ones first. Raises: OSError."""
    content = {
        "v": 1,
        "keys": {
            name: [
                {"public": base64.b64encode(public_der(each.public_key)).decode(), "retired_at": int(each.at_s)}
                for each in keys
            ]
            for name, keys in public.items()
        },
    }
    write_atomically(directory / PUBLIC_FILE, canonical_json(content), mode=0o600)


def check_rotatable(name: str) -> str:
    """The name itself, if such a key can be rotated. Raises: KeyRingError."""
    check_name(name, "key", KEY_NAMES)
    if name in UNROTATED:
        raise KeyRingError(
            f"The key {name} is not rotated: it names subjects in a log that cannot be rewritten, and a new one would "
            "cut every pseudonym off from its past. If it has leaked, start a new instance."
        )
    return name


def refuse_shared(path: Path) -> None:
    """Raises: KeyRingError: group or others may read or write `path`."""
    if os.name == "posix" and stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise KeyRingError(f"{path.name} is accessible to other users; run `chmod go-rwx` on it and rotate its keys.")


@contextmanager
def key_directory_locked(directory: Path) -> Iterator[None]:
    """One change of the keys at a time, across processes. Raises: OSError."""
    descriptor = os.open(directory / _LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _to_pem(key: PrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _signing_key(path: Path, data: bytes) -> SigningKey:
    try:
        private_key = serialization.load_pem_private_key(data, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as exc:
        raise KeyRingError(f"{path.name} is damaged; restore it from the backup.") from exc
    if not isinstance(private_key, (ed25519.Ed25519PrivateKey, ec.EllipticCurvePrivateKey)):
        raise KeyRingError(f"{path.name} is neither an Ed25519 nor a P-256 key; restore it from the backup.")
    return as_signing_key(private_key)


def _secret(path: Path, data: bytes) -> bytes:
    if len(data) != SECRET_NUM_BYTES:
        raise KeyRingError(f"{path.name} must be {SECRET_NUM_BYTES} bytes long; restore it from the backup.")
    return data


def _parse_public_keys(path: Path, data: bytes) -> dict[str, tuple[Retirement, ...]]:
    try:
        entries = json.loads(data)["keys"]
        return {
            str(name): tuple(
                Retirement(_public_key(base64.b64decode(key["public"], validate=True)), float(key["retired_at"]))
                for key in keys
            )
            for name, keys in entries.items()
        }
    except (ValueError, KeyError, TypeError, AttributeError, UnsupportedAlgorithm) as exc:
        raise KeyRingError(f"{path.name} is damaged; restore it from the backup.") from exc


def _public_key(der: bytes) -> PublicKey:
    key = serialization.load_der_public_key(der)
    if not isinstance(key, (ed25519.Ed25519PublicKey, ec.EllipticCurvePublicKey)):
        raise ValueError("neither Ed25519 nor P-256")
    return key


def _unwritable(exc: OSError) -> KeyRingError:
    return KeyRingError(f"The key directory cannot be written ({exc.strerror}).")
