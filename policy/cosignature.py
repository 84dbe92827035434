"""Cosignatures: how a witness says "this checkpoint extends all that I have seen of this log". Pure functions.

    — witness.example/w1 jWbP…=     base64(key id || time, 8 bytes big-endian || Ed25519 over what follows)

    cosignature/v1
    time 1679315147
    placet.example/log              the whole text of the checkpoint
    42
    w1ZZ…=

Specifications: c2sp.org/tlog-cosignature (`cosignature/v1`), c2sp.org/tlog-witness (the request). Both are append-only.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ed25519

from policy.errors import CheckpointError, WitnessMalformedError, WitnessRequiredError
from policy.merkle import HASH_NUM_BYTES
from policy.note import (
    ALGORITHM_COSIGNATURE,
    SignatureLine,
    check_key_name,
    key_id,
    parse_signature_lines,
    parse_verifier_key,
    split_note,
    verifier_key,
)

MAX_PROOF_NUM_HASHES: Final = 63
MAX_REQUEST_NUM_BYTES: Final = 64 * 1024
_TIME_NUM_BYTES: Final = 8
_SIGNATURE_NUM_BYTES: Final = 64
_OLD = re.compile(rb"old (0|[1-9][0-9]{0,18})")


@dataclass(frozen=True)
class WitnessKey:
    """A witness as others know it: its name and its public key."""

    name: str
    public_key: ed25519.Ed25519PublicKey

    @classmethod
    def parse(cls, text: str) -> WitnessKey:
        """Read a verifier key of type 0x04. Raises: CheckpointError."""
        return cls(*parse_verifier_key(text, ALGORITHM_COSIGNATURE))

    @property
    def text(self) -> str:
        """The verifier key, as clients are configured with it."""
        return verifier_key(self.name, self.public_key, ALGORITHM_COSIGNATURE)

    @property
    def key_id(self) -> bytes:
        """SHA-256(name || 0x0A || 0x04 || public key)[:4]."""
        return key_id(self.name, self.public_key, ALGORITHM_COSIGNATURE)


@dataclass(frozen=True)
class Cosignature:
    """A verified cosignature: who, and when (Unix seconds, by the witness's clock)."""

    name: str
    time_s: int
    line: SignatureLine


def cosign(text: str, name: str, key: ed25519.Ed25519PrivateKey, time_s: int) -> SignatureLine:
    """The cosignature of the witness `name` on a checkpoint.

    Args:
        text: the checkpoint without its signature lines, final newline included.
    """
    signature = key.sign(_message(text, time_s))
    identifier = key_id(check_key_name(name), key.public_key(), ALGORITHM_COSIGNATURE)
    return SignatureLine(name, identifier, time_s.to_bytes(_TIME_NUM_BYTES, "big") + signature)


def verify_cosignature(text: str, line: SignatureLine, witness: WitnessKey) -> Cosignature:
    """Check one signature line against the witness that it claims to be of.

    Raises: CheckpointError: of another witness, malformed, or not signed by it.
    """
    # (1) the line names this witness and this key
    if (line.name, line.key_id) != (witness.name, witness.key_id):
        raise CheckpointError("This cosignature is not of that witness.")
    # (2) time and signature (c2sp.org/tlog-cosignature, "Format")
    if len(line.signature) != _TIME_NUM_BYTES + _SIGNATURE_NUM_BYTES:
        raise CheckpointError("A cosignature has the wrong length.")
    time_s = int.from_bytes(line.signature[:_TIME_NUM_BYTES], "big")
    if time_s >= 1 << 63:
        raise CheckpointError("The time of a cosignature is out of range.")
    # (3) Ed25519 over header, time and the whole text, RFC 8032 §5.1.7
    try:
        witness.public_key.verify(line.signature[_TIME_NUM_BYTES:], _message(text, time_s))
    except InvalidSignature as exc:
        raise CheckpointError(f"The cosignature of {witness.name} is wrong: something was changed.") from exc
    return Cosignature(witness.name, time_s, line)


def cosignatures(note: bytes, witnesses: Sequence[WitnessKey]) -> tuple[Cosignature, ...]:
    """The valid cosignatures of known witnesses on a note, one for each witness; everything else is passed over.

    Raises: CheckpointError: the note is malformed, or a line of a known witness does not verify.
    """
    text, lines = split_note(note)
    known = {(witness.name, witness.key_id): witness for witness in witnesses}
    found: dict[tuple[str, bytes], Cosignature] = {}
    for line in lines:
        place = line.name, line.key_id
        if place in known:
            found[place] = verify_cosignature(text, line, known[place])
    return tuple(found.values())


def require_cosignatures(note: bytes, witnesses: Sequence[WitnessKey], num_required: int) -> tuple[Cosignature, ...]:
    """The cosignatures of at least `num_required` different witnesses.

    Raises: WitnessRequiredError: too few. CheckpointError: as `cosignatures`.
    """
    found = cosignatures(note, witnesses)
    if len(found) < num_required:
        raise WitnessRequiredError(
            f"The checkpoint carries {len(found)} of the {num_required} cosignatures that are required; "
            "wait for the witnesses, or start them."
        )
    return found


def with_cosignatures(note: str, lines: Sequence[SignatureLine]) -> str:
    """A note with further signature lines below those that it has."""
    return note + "".join(line.text for line in lines)


def write_request(old_size: int, proof: Sequence[bytes], note: str) -> bytes:
    """Body of `add-checkpoint` (c2sp.org/tlog-witness)."""
    lines = [f"old {old_size}", *(base64.b64encode(node).decode() for node in proof), "", note]
    return "\n".join(lines).encode()


def parse_request(body: bytes) -> tuple[int, tuple[bytes, ...], bytes]:
    """Read the body of `add-checkpoint`.

    Returns: old size, consistency proof, and the checkpoint as sent, unverified.
    Raises: WitnessMalformedError.
    """
    if len(body) > MAX_REQUEST_NUM_BYTES:
        raise WitnessMalformedError("The request is far too long to be one.")
    head, separator, note = body.partition(b"\n\n")
    first, *hashes = head.split(b"\n")
    match = _OLD.fullmatch(first)
    if not separator or not match:
        raise WitnessMalformedError("A request is an “old SIZE” line, proof lines, a blank line and a checkpoint.")
    if len(hashes) > MAX_PROOF_NUM_HASHES:
        raise WitnessMalformedError("A consistency proof has at most 63 hashes.")
    return int(match[1]), tuple(map(_proof_hash, hashes)), note


def parse_response(body: bytes) -> list[SignatureLine]:
    """The signature lines that a witness answers with, unverified. Raises: CheckpointError."""
    try:
        return parse_signature_lines(body.decode("utf-8"))
    except UnicodeDecodeError as exc:
        raise CheckpointError("The answer of the witness is not UTF-8 text.") from exc


def _message(text: str, time_s: int) -> bytes:
    return f"cosignature/v1\ntime {time_s}\n{text}".encode()


def _proof_hash(text: bytes) -> bytes:
    try:
        value = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as exc:
        raise WitnessMalformedError("A proof line is not base64.") from exc
    if len(value) != HASH_NUM_BYTES or base64.b64encode(value) != text:
        raise WitnessMalformedError("A proof line is not the base64 of one 32-byte hash.")
    return value
