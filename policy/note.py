"""Signed notes and checkpoints as C2SP writes them: how the log says "this is my whole content, signed".

    placet.example/log          origin, also the name of the key
    42                          tree size
    w1ZZ…=                      root hash, base64

    — placet.example/log 3J0…=  signature: base64(key id || Ed25519 over the text before the blank line)

Pure functions. Specifications: c2sp.org/signed-note, c2sp.org/tlog-checkpoint. The format is append-only: readers of
other implementations hold copies of old checkpoints.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ed25519

from policy.errors import CheckpointError
from policy.keys import public_key_bytes
from policy.kms import SigningKey, as_signing_key
from policy.merkle import HASH_NUM_BYTES

ALGORITHM_ED25519: Final = 0x01
ALGORITHM_COSIGNATURE: Final = 0x04
"""Ed25519 by a witness, over checkpoint and time: see `policy.cosignature`."""
MAX_NOTE_NUM_BYTES: Final = 1_000_000
_KEY_ID_NUM_BYTES: Final = 4
_NAME = re.compile(r"[^\s+\x00-\x1f\x7f]{1,255}")
_SIGNATURE_LINE = re.compile(r"— (?P<name>\S+) (?P<signature>\S+)\n")
_DECIMAL = re.compile(r"0|[1-9][0-9]{0,18}")


LogKeys = ed25519.Ed25519PublicKey | Sequence[ed25519.Ed25519PublicKey]
"""The key of a log, or its key and those that it had before: any of them may have signed."""
Signer = SigningKey | ed25519.Ed25519PrivateKey


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint: the state of the log that its key stands for."""

    origin: str
    size: int
    root: bytes


def check_key_name(name: str) -> str:
    """The name itself, if a signed note may carry it: not empty, no white space, no plus sign.

    Raises: CheckpointError.
    """
    if not _NAME.fullmatch(name):
        raise CheckpointError("The name of a log must be 1 to 255 characters without spaces or plus signs.")
    return name


def key_id(name: str, public_key: ed25519.Ed25519PublicKey, algorithm: int = ALGORITHM_ED25519) -> bytes:
    """SHA-256(name || 0x0A || algorithm || public key)[:4], c2sp.org/signed-note."""
    raw = bytes([algorithm]) + public_key_bytes(public_key)
    return hashlib.sha256(name.encode() + b"\n" + raw).digest()[:_KEY_ID_NUM_BYTES]


def verifier_key(name: str, public_key: ed25519.Ed25519PublicKey, algorithm: int = ALGORITHM_ED25519) -> str:
    """The public key in the text form that other note readers take: `name+hex key id+base64(algorithm || key)`."""
    raw = bytes([algorithm]) + public_key_bytes(public_key)
    return f"{name}+{key_id(name, public_key, algorithm).hex()}+{_b64(raw)}"


def parse_verifier_key(text: str, algorithm: int = ALGORITHM_ED25519) -> tuple[str, ed25519.Ed25519PublicKey]:
    """Read `verifier_key`'s form.

    Returns: the name of the log or witness, and its key.
    Raises: CheckpointError: not of that form, of another algorithm, or the key id is not that of name and key.
    """
    try:
        name, claimed_id, encoded = text.strip().split("+", 2)
        raw = base64.b64decode(encoded, validate=True)
        public_key = ed25519.Ed25519PublicKey.from_public_bytes(raw[1:])
    except ValueError as exc:
        raise CheckpointError("This is not a verifier key; it looks like name+01234567+A….") from exc
    if raw[0] != algorithm or key_id(name, public_key, algorithm).hex() != claimed_id:
        raise CheckpointError("The verifier key does not hold what its key id says; copy it again, whole.")
    return name, public_key


def as_keys(public_keys: LogKeys) -> tuple[ed25519.Ed25519PublicKey, ...]:
    """One key or several, as several."""
    return (public_keys,) if isinstance(public_keys, ed25519.Ed25519PublicKey) else tuple(public_keys)


def sign_note(text: str, name: str, *keys: Signer) -> str:
    """`text` (which ends in a newline) with one signature line by each key; two when one key hands over to the next."""
    if not text.endswith("\n"):
        raise CheckpointError("The text of a note must end in a newline.")
    check_key_name(name)
    lines = []
    for key in map(as_signing_key, keys):
        if not isinstance(public_key := key.public_key, ed25519.Ed25519PublicKey):
            raise CheckpointError("Checkpoints are signed with Ed25519 keys.")
        lines.append(f"— {name} {_b64(key_id(name, public_key) + key.sign(text.encode()))}\n")
    return f"{text}\n{''.join(lines)}"


@dataclass(frozen=True)
class SignatureLine:
    """One signature line of a note, unverified: whose it claims to be, and the signature without the key id."""

    name: str
    key_id: bytes
    signature: bytes

    @property
    def text(self) -> str:
        """The line as it stands in a note, newline included."""
        return f"— {self.name} {_b64(self.key_id + self.signature)}\n"


def split_note(note: bytes) -> tuple[str, list[SignatureLine]]:
    """The text of a note and its signature lines, in order; nothing is verified yet (c2sp.org/signed-note, "Format").

    Raises: CheckpointError: malformed.
    """
    if len(note) > MAX_NOTE_NUM_BYTES:
        raise CheckpointError("The checkpoint is far too long to be one.")
    try:
        whole = note.decode("utf-8")
    except UnicodeDecodeError as exc:
        raise CheckpointError("The checkpoint is not UTF-8 text.") from exc
    head, separator, tail = whole.rpartition("\n\n")
    if not separator or not tail or any(ord(char) < 0x20 and char != "\n" for char in whole):
        raise CheckpointError("The checkpoint is not a signed note.")
    return head + "\n", parse_signature_lines(tail)


def parse_signature_lines(tail: str) -> list[SignatureLine]:
    """The lines below the blank line of a note. Raises: CheckpointError."""
    lines = tail.splitlines(keepends=True)
    matches = [_SIGNATURE_LINE.fullmatch(line) for line in lines]
    if "".join(lines) != tail or not all(matches):
        raise CheckpointError("A signature line of the checkpoint is malformed.")
    found: list[SignatureLine] = []
    for match in matches:
        assert match is not None
        blob = _unb64(match["signature"])
        found.append(SignatureLine(match["name"], blob[:_KEY_ID_NUM_BYTES], blob[_KEY_ID_NUM_BYTES:]))
    return found


def verify_note(note: bytes, name: str, public_keys: LogKeys) -> str:
    """The text of a note that one of `public_keys` signed under `name`; signatures of other keys are passed over.

    Raises: CheckpointError: malformed, no signature by these keys, or a wrong one.
    """
    # (1) the outer form: UTF-8, text, blank line, signature lines (c2sp.org/signed-note, "Format")
    text, lines = split_note(note)
    # (2) a line with our name and the id of one of our keys
    wanted = {key_id(name, public_key): public_key for public_key in as_keys(public_keys)}
    for line in lines:
        if line.name != name or (public_key := wanted.get(line.key_id)) is None:
            continue
        # (3) Ed25519 over the text, RFC 8032 §5.1.7
        try:
            public_key.verify(line.signature, text.encode())
        except InvalidSignature as exc:
            raise CheckpointError("The signature of the checkpoint is wrong: it was changed after signing.") from exc
        return text
    raise CheckpointError("The checkpoint is not signed by this log's key.")


def checkpoint_text(origin: str, size: int, root: bytes) -> str:
    """Body of a checkpoint, c2sp.org/tlog-checkpoint."""
    return f"{origin}\n{size}\n{_b64(root)}\n"


def sign_checkpoint(origin: str, size: int, root: bytes, *keys: Signer) -> str:
    """The signed checkpoint of a tree."""
    return sign_note(checkpoint_text(origin, size, root), origin, *keys)


def verify_checkpoint(note: bytes, public_keys: LogKeys, *, origin: str | None = None) -> Checkpoint:
    """Read a checkpoint that one of `public_keys` signed.

    Args:
        origin: the log that it must be of; by default the one that it names (the key id binds name and key).
    Raises: CheckpointError.
    """
    unverified_origin = note.split(b"\n", 1)[0].decode("utf-8", "replace")
    name = unverified_origin if origin is None else origin
    if unverified_origin != name:
        raise CheckpointError("The checkpoint is of another log.")
    # (1) signature, before anything else is read
    text = verify_note(note, check_key_name(name), public_keys)
    # (2) origin, size, root; extension lines are not used by this log
    lines = text.split("\n")
    if len(lines) != 4 or not _DECIMAL.fullmatch(lines[1]):
        raise CheckpointError("The checkpoint does not consist of origin, size and root hash.")
    root = _unb64(lines[2])
    if len(root) != HASH_NUM_BYTES:
        raise CheckpointError("The root hash of the checkpoint is not 32 bytes long.")
    return Checkpoint(origin=name, size=int(lines[1]), root=root)


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _unb64(text: str) -> bytes:
    """Strict base64: one spelling for each value."""
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as exc:
        raise CheckpointError("The checkpoint holds malformed base64.") from exc
    if _b64(data) != text:
        raise CheckpointError("The checkpoint holds base64 that is not in its one canonical spelling.")
    return data
