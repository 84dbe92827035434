"""Signed notes and checkpoints: the published example, and every flipped bit."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from hypothesis import example, given
from hypothesis import strategies as st

from policy.errors import CheckpointError
from policy.merkle import EMPTY_ROOT
from policy.note import check_key_name, sign_checkpoint, sign_note, verifier_key, verify_checkpoint, verify_note

VECTOR = json.loads((Path(__file__).parents[1] / "vectors/policy/signed_note.json").read_text())
KEY = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
CHECKPOINT = sign_checkpoint("placet.test/log", 42, EMPTY_ROOT, KEY).encode()


def test_the_published_note() -> None:
    public = ed25519.Ed25519PublicKey.from_public_bytes(base64.b64decode(VECTOR["verifier_key"].split("+", 2)[2])[1:])
    assert verifier_key(VECTOR["name"], public) == VECTOR["verifier_key"]
    assert verify_note(VECTOR["note"].encode(), VECTOR["name"], public) == VECTOR["text"]


def test_a_checkpoint_says_what_was_signed() -> None:
    checkpoint = verify_checkpoint(CHECKPOINT, KEY.public_key(), origin="placet.test/log")
    assert (checkpoint.origin, checkpoint.size, checkpoint.root) == ("placet.test/log", 42, EMPTY_ROOT)


def test_every_flipped_bit_is_found() -> None:
    for at in range(len(CHECKPOINT) * 8):
        changed = bytearray(CHECKPOINT)
        changed[at // 8] ^= 1 << at % 8
        with pytest.raises(CheckpointError):
            verify_checkpoint(bytes(changed), KEY.public_key())


def test_truncated_and_extended_checkpoints_are_refused() -> None:
    for end in range(len(CHECKPOINT)):
        with pytest.raises(CheckpointError):
            verify_checkpoint(CHECKPOINT[:end], KEY.public_key())
    for tail in (b"\n", b"x", b"\x00", CHECKPOINT):
        with pytest.raises(CheckpointError):
            verify_checkpoint(CHECKPOINT + tail, KEY.public_key())


def test_signatures_of_others_are_passed_over() -> None:
    other = sign_checkpoint("placet.test/log", 42, EMPTY_ROOT, ed25519.Ed25519PrivateKey.generate())
    cosigned = CHECKPOINT + (other.rpartition("\n\n")[2]).encode()
    assert verify_checkpoint(cosigned, KEY.public_key()).size == 42
    twice = CHECKPOINT + (CHECKPOINT.rpartition(b"\n\n")[2])
    assert verify_checkpoint(twice, KEY.public_key()).size == 42
    with pytest.raises(CheckpointError):
        verify_checkpoint(other.encode(), KEY.public_key())


def test_another_log_is_refused() -> None:
    with pytest.raises(CheckpointError, match="another log"):
        verify_checkpoint(CHECKPOINT, KEY.public_key(), origin="placet.test/other")


@pytest.mark.parametrize("body", ["a\n01\nAA==\n", "a\n1\nAA==\n", "a\n-1\n\n", "a\n1\n", "a\n1\nAA==\nextra\n", "a\n"])
def test_a_signed_text_that_is_no_checkpoint_is_refused(body: str) -> None:
    with pytest.raises(CheckpointError):
        verify_checkpoint(sign_note(body, "a", KEY).encode(), KEY.public_key())


@pytest.mark.parametrize("name", ["", "two words", "plus+sign", "line\nbreak", "x" * 256])
def test_names_that_a_note_cannot_carry(name: str) -> None:
    with pytest.raises(CheckpointError):
        check_key_name(name)


@given(st.binary(max_size=300))
@example(b"\xe2\x80\x94 \n\n\xe2\x80\x94 a b\n")
def test_the_parser_raises_only_our_errors(data: bytes) -> None:
    with pytest.raises(CheckpointError):
        verify_checkpoint(data, KEY.public_key())
