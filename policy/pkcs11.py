"""`Pkcs11KeyService`: keys in a hardware security module, by PKCS #11 (OASIS PKCS #11 3.1).

Signing and wrapping keys are made inside the token, marked sensitive and not extractable, and never leave it. The
watermark key and the commitment key must be in memory to be of use (thousands of frames and names a second); at rest
they are files that only a key inside the token opens.

    keys/                     0700
      token.json              which object of the token is which key; current first
      watermark.wrapped       version | kid | nonce | AES-256-GCM, under the token's key `raw-wrap`
      commitment.wrapped
      retired/watermark.KID.wrapped

`token.json` is written last and in one step: it says what is current. An object that it does not name is left over from
a rotation that was cut off; it is never used.

A service is chosen by a PKCS #11 URI (RFC 7512): `pkcs11:token=placet?module-path=/usr/lib/softhsm/libsofthsm2.so`.
The PIN never stands in it.
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, unquote

import pkcs11
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from pkcs11 import Attribute, GCMParams, KeyType, Mechanism, ObjectClass
from pkcs11.exceptions import PKCS11Error, UserAlreadyLoggedIn
from pkcs11.util.ec import encode_named_curve_parameters

from policy.canonical import canonical_json
from policy.errors import KeyRingError, UnwrapError
from policy.files import fsync_directory, write_atomically
from policy.keyfiles import RETIRED_FOLDER, check_rotatable, key_directory_locked, prepare_directory, refuse_shared
from policy.kms import (
    SECRET_NUM_BYTES,
    SECRETS,
    SIGNING_KEYS,
    WRAPPING_KEYS,
    Algorithm,
    HandOver,
    KeyInfo,
    PublicKey,
    Retirement,
    Rotation,
    SigningKey,
    check_name,
    public_der,
    public_kid,
    random_secret,
    secret_kid,
    split_wrapped,
    wrap_aad,
    wrapped_header,
)

INDEX_FILE: Final = "token.json"
RAW_WRAP: Final = "raw-wrap"
"""Wraps what must leave the token to be of use."""
_IN_TOKEN: Final = (*WRAPPING_KEYS, RAW_WRAP)
_CURVE_OIDS: Final[dict[Algorithm, str]] = {"Ed25519": "1.3.101.112", "ES256": "1.2.840.10045.3.1.7"}
_ID_NUM_BYTES: Final = 16
_GCM_TAG_BITS: Final = 128


@dataclass(frozen=True)
class TokenAddress:
    """Which token, and by which library. See `parse_uri`."""

    library: Path
    token: str


def parse_uri(uri: str) -> TokenAddress:
    """Read a PKCS #11 URI with the path attribute `token` and the query attribute `module-path` (RFC 7512 §2.3).

    Raises: KeyRingError: not of this form, or with a PIN inside.
    """
    scheme, _, rest = uri.partition(":")
    path, _, query = rest.partition("?")
    attributes = dict(part.split("=", 1) for part in path.split(";") if "=" in part)
    options = parse_qs(query)
    if "pin-value" in options or "pin-source" in options:
        raise KeyRingError("A PIN does not belong in the address of a token; give it in a file (PLACET_KMS_PIN_FILE).")
    if scheme != "pkcs11" or set(attributes) != {"token"} or set(options) != {"module-path"}:
        raise KeyRingError("The address of a token looks like pkcs11:token=NAME?module-path=/path/to/library.so.")
    return TokenAddress(Path(options["module-path"][0]), unquote(attributes["token"]))


@dataclass(frozen=True)
class _Entry:
    """One key in `token.json`: the id of the object, and the public half of a signing key."""

    object_id: bytes
    public_key: PublicKey | None
    retired_at: float = 0.0

    @property
    def kid(self) -> str:
        return self.object_id.hex() if self.public_key is None else public_kid(self.public_key)


_Index = dict[str, tuple[_Entry, ...]]


@dataclass(frozen=True)
class TokenSigningKey:
    """A `SigningKey` whose private half is in the token."""

    kid: str
    algorithm: Algorithm
    public_key: PublicKey
    _sign: Callable[[bytes], bytes] = field(repr=False)

    def sign(self, message: bytes) -> bytes:
        """See `SigningKey.sign`."""
        return self._sign(message)


class Pkcs11KeyService:
    """A `KeyService` over a token and a directory. Make with `Pkcs11KeyService.create`, open by the constructor."""

    def __init__(self, directory: Path, address: TokenAddress, pin: str, now: Callable[[], float] = time.time) -> None:
        """Open the directory; the token is opened with the first use, in whichever process that is.

        Raises: KeyRingError: no keys of a token in this directory, or others may look into it.
        """
        if not (directory / INDEX_FILE).is_file():
            raise KeyRingError("The keys of this instance are not in a token; set kms to what it was made with.")
        refuse_shared(directory)
        self.directory = directory
        self._now = now
        self._token = _Token(address, pin)
        self._loaded: dict[Path, tuple[tuple[int, int], Any]] = {}

    @classmethod
    def create(cls, directory: Path, address: TokenAddress, pin: str) -> Pkcs11KeyService:
        """Make all keys anew in the token, and what belongs to them in `directory`, which must be empty.

        Raises: KeyRingError: something is in the directory, or the token does not open or cannot make such keys.
        """
        prepare_directory(directory)
        token = _Token(address, pin)
        index: _Index = {name: (token.new_pair(name, algorithm),) for name, algorithm in SIGNING_KEYS.items()}
        index |= {name: (token.new_wrapping_key(name),) for name in _IN_TOKEN}
        for name in SECRETS:
            wrapped = token.wrap(RAW_WRAP, index[RAW_WRAP][0], random_secret(), name.encode())
            write_atomically(directory / f"{name}.wrapped", wrapped, mode=0o600)
        _write_index(directory, index)
        fsync_directory(directory.parent)
        return cls(directory, address, pin)

    # ---- use

    def signing_key(self, name: str) -> SigningKey:
        """See `KeyService.signing_key`."""
        check_name(name, "signing key", SIGNING_KEYS)
        return self._signing_key(name, self._index()[name][0])

    def retired(self, name: str) -> tuple[PublicKey, ...]:
        """See `KeyService.retired`."""
        return tuple(each.public_key for each in self.retirements(name))

    def retirements(self, name: str) -> tuple[Retirement, ...]:
        """See `KeyService.retirements`."""
        check_name(name, "signing key", SIGNING_KEYS)
        before = self._index()[name][1:]
        return tuple(Retirement(each.public_key, each.retired_at) for each in before if each.public_key is not None)

    def secrets(self, name: str) -> tuple[bytes, ...]:
        """See `KeyService.secrets`. Raises: KeyRingError: also for wrapping keys, which do not leave the token."""
        check_name(name, "secret that leaves the token", SECRETS)
        retired = (self.directory / RETIRED_FOLDER).glob(f"{name}.*.wrapped")
        newest_first = sorted(retired, key=lambda path: path.stat().st_mtime_ns, reverse=True)
        current, *before = (self._secret(name, path) for path in (self.directory / f"{name}.wrapped", *newest_first))
        return (current, *(secret for secret in before if secret != current))

    def wrap(self, name: str, plaintext: bytes, context: bytes) -> bytes:
        """See `KeyService.wrap`."""
        check_name(name, "wrapping key", WRAPPING_KEYS)
        return self._token.wrap(name, self._index()[name][0], plaintext, context)

    def unwrap(self, name: str, wrapped: bytes, context: bytes) -> bytes:
        """See `KeyService.unwrap`."""
        check_name(name, "wrapping key", WRAPPING_KEYS)
        return self._unwrap(name, wrapped, context)

    def describe(self) -> tuple[KeyInfo, ...]:
        """See `KeyService.describe`."""
        index = self._index()
        found = []
        for name in (*SIGNING_KEYS, *_IN_TOKEN):
            current, *before = (entry.kid for entry in index[name])
            found.append(KeyInfo(name, SIGNING_KEYS.get(name, "AES-256"), current, tuple(before)))
        for name in SECRETS:
            current, *before = (secret_kid(name, secret) for secret in self.secrets(name))
            found.append(KeyInfo(name, "HMAC-SHA-256", current, tuple(before)))
        return tuple(found)

    # ---- change

    def rotate(self, name: str, *, hand_over: HandOver | None = None) -> Rotation:
        """See `KeyService.rotate`. Several processes take turns."""
        check_rotatable(name)
        try:
            with key_directory_locked(self.directory):
                index = self._index()
                if name in SIGNING_KEYS:
                    return self._rotate_signing_key(index, name, hand_over)
                if name in WRAPPING_KEYS:
                    entry = self._token.new_wrapping_key(name)
                    _write_index(self.directory, index | {name: (entry, *index[name])})
                    return Rotation(name, index[name][0].kid, entry.kid)
                return self._rotate_secret(name, index)
        except OSError as exc:
            raise KeyRingError(f"The key directory cannot be written ({exc.strerror}).") from exc

    def forget(self, name: str) -> tuple[str, ...]:
        """See `KeyService.forget`."""
        check_name(name, "wrapping key", WRAPPING_KEYS)
        try:
            with key_directory_locked(self.directory):
                index = self._index()
                current, *before = index[name]
                _write_index(self.directory, index | {name: (current,)})
        except OSError as exc:
            raise KeyRingError(f"The key directory cannot be written ({exc.strerror}).") from exc
        for entry in before:
            self._token.destroy(entry)
        return tuple(entry.kid for entry in before)

    def _rotate_signing_key(self, index: _Index, name: str, hand_over: HandOver | None) -> Rotation:
        old, new = index[name][0], self._token.new_pair(name, SIGNING_KEYS[name])
        try:
            if hand_over is not None:
                hand_over(self._signing_key(name, old), self._signing_key(name, new))
        except BaseException:
            self._token.destroy(new)
            raise
        retired = replace(old, retired_at=self._now())
        _write_index(self.directory, index | {name: (new, retired, *index[name][1:])})
        self._token.destroy(old)
        return Rotation(name, old.kid, new.kid)

    def _rotate_secret(self, name: str, index: _Index) -> Rotation:
        path, folder, old = self.directory / f"{name}.wrapped", self.directory / RETIRED_FOLDER, self.secrets(name)[0]
        new, old_kid = random_secret(), secret_kid(name, old)
        folder.mkdir(mode=0o700, exist_ok=True)
        write_atomically(folder / f"{name}.{old_kid}.wrapped", path.read_bytes(), mode=0o600)
        wrapped = self._token.wrap(RAW_WRAP, index[RAW_WRAP][0], new, name.encode())
        write_atomically(path, wrapped, mode=0o600)
        return Rotation(name, old_kid, secret_kid(name, new))

    # ---- inside

    def _signing_key(self, name: str, entry: _Entry) -> TokenSigningKey:
        assert entry.public_key is not None  # by `_parse_index`
        algorithm = SIGNING_KEYS[name]
        return TokenSigningKey(
            entry.kid, algorithm, entry.public_key, lambda message: self._token.sign(entry, algorithm, message)
        )

    def _unwrap(self, name: str, wrapped: bytes, context: bytes) -> bytes:
        header, nonce, ciphertext = split_wrapped(wrapped)
        for entry in self._index()[name]:
            if wrapped_header(entry.kid) == header:
                return self._token.unwrap(name, entry, nonce, ciphertext, context)
        raise UnwrapError(f"The wrapping key {name} of kid {header[1:].hex()}… is gone, and with it what it wrapped.")

    def _secret(self, name: str, path: Path) -> bytes:
        def unwrapped(data: bytes) -> bytes:
            secret = self._unwrap(RAW_WRAP, data, name.encode())
            if len(secret) != SECRET_NUM_BYTES:
                raise KeyRingError(f"{path.name} does not hold a key; restore it from the backup.")
            return secret

        secret: bytes = self._read(path, unwrapped)
        return secret

    def _index(self) -> _Index:
        index: _Index = self._read(self.directory / INDEX_FILE, _parse_index)
        return index

    def _read(self, path: Path, parse: Callable[[bytes], Any]) -> Any:
        """What a file holds, parsed once for as long as it is the same file. Raises: KeyRingError."""
        try:
            status = path.stat()
            version = (status.st_ino, status.st_mtime_ns)
            if (known := self._loaded.get(path)) is not None and known[0] == version:
                return known[1]
            refuse_shared(path)
            value = parse(path.read_bytes())
        except OSError as exc:
            raise KeyRingError(f"{path.name} cannot be read ({exc.strerror}); restore it from the backup.") from exc
        self._loaded[path] = (version, value)
        return value


class _Token:
    """A session with the token: opened with the first use, shared by all threads."""

    def __init__(self, address: TokenAddress, pin: str) -> None:
        self._address = address
        self._pin = pin
        self._lock = threading.RLock()
        self._session: Any = None
        self._objects: dict[tuple[bytes, ObjectClass], Any] = {}

    def new_pair(self, name: str, algorithm: Algorithm) -> _Entry:
        """A key pair made inside the token."""
        object_id = secrets.token_bytes(_ID_NUM_BYTES)
        kind = KeyType.EC_EDWARDS if algorithm == "Ed25519" else KeyType.EC
        with self._open() as session:
            parameters = session.create_domain_parameters(
                kind, {Attribute.EC_PARAMS: encode_named_curve_parameters(_CURVE_OIDS[algorithm])}, local=True
            )
            public, _ = parameters.generate_keypair(
                store=True,
                id=object_id,
                label=f"placet {name}",
                private_template={Attribute.SENSITIVE: True, Attribute.EXTRACTABLE: False},
            )
            return _Entry(object_id, _public_key(algorithm, bytes(public[Attribute.EC_POINT])))

    def new_wrapping_key(self, name: str) -> _Entry:
        """An AES-256 key made inside the token."""
        object_id = secrets.token_bytes(_ID_NUM_BYTES)
        with self._open() as session:
            session.generate_key(
                KeyType.AES,
                256,
                store=True,
                id=object_id,
                label=f"placet {name}",
                template={Attribute.SENSITIVE: True, Attribute.EXTRACTABLE: False},
            )
        return _Entry(object_id, None)

    def sign(self, entry: _Entry, algorithm: Algorithm, message: bytes) -> bytes:
        """64 bytes; see `SigningKey.sign`."""
        with self._open() as session:
            key = self._find(session, entry, ObjectClass.PRIVATE_KEY)
            if algorithm == "Ed25519":
                return bytes(key.sign(message, mechanism=Mechanism.EDDSA))
            return bytes(key.sign(hashlib.sha256(message).digest(), mechanism=Mechanism.ECDSA))

    def wrap(self, name: str, entry: _Entry, plaintext: bytes, context: bytes) -> bytes:
        """`header | nonce (12) | ciphertext and tag`, as `kms.wrap_locally` writes it."""
        nonce = secrets.token_bytes(12)
        parameters = GCMParams(nonce, wrap_aad(name, context), _GCM_TAG_BITS)
        with self._open() as session:
            key = self._find(session, entry, ObjectClass.SECRET_KEY)
            ciphertext = bytes(key.encrypt(plaintext, mechanism=Mechanism.AES_GCM, mechanism_param=parameters))
        return wrapped_header(entry.kid) + nonce + ciphertext

    def unwrap(self, name: str, entry: _Entry, nonce: bytes, ciphertext: bytes, context: bytes) -> bytes:
        """Raises: UnwrapError."""
        parameters = GCMParams(nonce, wrap_aad(name, context), _GCM_TAG_BITS)
        with self._open() as session:
            key = self._find(session, entry, ObjectClass.SECRET_KEY)
            try:
                return bytes(key.decrypt(ciphertext, mechanism=Mechanism.AES_GCM, mechanism_param=parameters))
            except PKCS11Error as exc:
                raise UnwrapError("The wrapped key was changed, or belongs to something else.") from exc

    def destroy(self, entry: _Entry) -> None:
        """Remove all objects of a key from the token."""
        with self._open() as session:
            for each in list(session.get_objects({Attribute.ID: entry.object_id})):
                each.destroy()
            self._objects.clear()

    @contextmanager
    def _open(self) -> Iterator[Any]:
        """The session, for one thread at a time. Raises: KeyRingError."""
        with self._lock:
            try:
                if self._session is None:
                    token = pkcs11.lib(str(self._address.library)).get_token(token_label=self._address.token)
                    try:
                        self._session = token.open(user_pin=self._pin, rw=True)
                    except UserAlreadyLoggedIn:  # a process logs in once, for all its sessions (PKCS #11 §5.6.8)
                        self._session = token.open(rw=True)
                yield self._session
            except (PKCS11Error, RuntimeError) as exc:
                raise KeyRingError(
                    f"The token {self._address.token!r} does not do as it is asked ({type(exc).__name__}); check the "
                    "library, the name of the token and the PIN."
                ) from exc

    def _find(self, session: Any, entry: _Entry, kind: ObjectClass) -> Any:
        key = (entry.object_id, kind)
        if key not in self._objects:
            self._objects[key] = session.get_key(object_class=kind, id=entry.object_id)
        return self._objects[key]


def _public_key(algorithm: Algorithm, ec_point: bytes) -> PublicKey:
    """From CKA_EC_POINT, a DER octet string around the point (PKCS #11 §6.3.3)."""
    point = ec_point[2:]
    if algorithm == "Ed25519":
        return ed25519.Ed25519PublicKey.from_public_bytes(point)
    return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), point)


def _write_index(directory: Path, index: _Index) -> None:
    keys = {
        name: [
            {
                "id": entry.object_id.hex(),
                "retired_at": int(entry.retired_at),
                "public": None if entry.public_key is None else base64.b64encode(public_der(entry.public_key)).decode(),
            }
            for entry in entries
        ]
        for name, entries in index.items()
    }
    write_atomically(directory / INDEX_FILE, canonical_json({"v": 1, "keys": keys}), mode=0o600)


def _parse_index(data: bytes) -> _Index:
    try:
        keys = json.loads(data)["keys"]
        index = {
            name: tuple(
                _Entry(
                    bytes.fromhex(each["id"]),
                    None if each["public"] is None else _from_der(each["public"]),
                    float(each["retired_at"]),
                )
                for each in keys[name]
            )
            for name in (*SIGNING_KEYS, *_IN_TOKEN)
        }
    except (ValueError, KeyError, TypeError, AttributeError, UnsupportedAlgorithm) as exc:
        raise KeyRingError(f"{INDEX_FILE} is damaged; restore it from the backup.") from exc
    if not all(
        entries and (entries[0].public_key is not None) == (name in SIGNING_KEYS) for name, entries in index.items()
    ):
        raise KeyRingError(f"{INDEX_FILE} is damaged; restore it from the backup.")
    return index


def _from_der(text: str) -> PublicKey:
    key = serialization.load_der_public_key(base64.b64decode(text, validate=True))
    if not isinstance(key, (ed25519.Ed25519PublicKey, ec.EllipticCurvePublicKey)):
        raise ValueError("neither Ed25519 nor P-256")
    return key
