"""Whatever comes in from outside: parsers answer with a value or with one of our errors, and nothing else.

Bytes from nowhere find little, so most examples are something good with a few things changed: a byte, a character, a
field, a type. `test_permit`, `test_consent`, `test_note` and `test_passkey` do the same for their own formats.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from generator.errors import WeightsError
from generator.sealed import write_weights
from generator.sealing import SealedWeights, seal_weights, unwrap_data_keys
from policy.canonical import canonical_json, parse_canonical
from policy.consent import new_subject_key, public_jwk, sign_statement, verify_consent
from policy.decision import Facts, RenderRequest
from policy.entry import parse_entry
from policy.errors import PolicyError
from policy.evidence import LogEvidence, verify_evidence
from policy.keyfiles import FileKeyService
from policy.keys import KeyRing
from policy.log import Log
from policy.note import parse_verifier_key, split_note, verifier_key, verify_checkpoint
from policy.permit import Permit, issue_permit, read_permit
from policy.pkcs11 import parse_uri
from policy.tiles import TileName, split_bundle

from .conftest import ORIGIN, START, Clock, hex_of, statement

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**64), 2**64) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@dataclass(frozen=True)
class World:
    """Something good of every format, and how each is read."""

    good: dict[str, bytes]
    read: dict[str, Callable[[bytes], object]]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, keys: KeyRing) -> World:
    folder = tmp_path_factory.mktemp("fuzz")
    log = Log.create(folder / "log", keys.log_key, ORIGIN, now=Clock())
    log.append_many([("test", {"n": n}) for n in range(9)])
    evidence = canonical_json(log.evidence(4).to_json())
    subject = new_subject_key()
    service = FileKeyService.create(folder / "keys")
    write_weights(folder / "packaged" / "head.safetensors", b"weights" * 40)
    (sealed,) = seal_weights(service, folder / "sealed", folder / "packaged")
    data_keys = unwrap_data_keys(service, folder / "sealed")
    permit = Permit(
        permit_id="0" * 32, decision_index=3, action="render", client_id="c", subject="", portrait_sha256=hex_of(b"p"),
        speech_sha256=hex_of(b"s"), controls_sha256=hex_of(b"c"), consent_sha256=None, consent_epoch=0,
        mark_id="0" * 16, purpose="p", worker="w", issued_at=START, expires_at=START + 60,
    )  # fmt: skip

    def unseal(data: bytes) -> object:
        path = folder / "sealed" / "head.safetensors.sealed"
        path.write_bytes(data)
        return SealedWeights(folder / "sealed", data_keys).read(sealed.name, sealed.sha256)

    def public_keys(data: bytes) -> object:
        (folder / "keys" / "public.json").write_bytes(data)
        return service.describe()

    return World(
        good={
            "permit": issue_permit(permit, keys.permit_key).encode(),
            "statement": sign_statement(statement(), subject).encode(),
            "checkpoint": log.checkpoint().encode(),
            "note": log.checkpoint().encode(),
            "evidence": evidence,
            "verifier key": verifier_key(ORIGIN, keys.log_public).encode(),
            "entry": canonical_json(log.entry(4)),
            "bundle": log.tile("tile/entries/000.p/9"),
            "tile name": b"tile/0/x001/234.p/7",
            "request": canonical_json({"request": 1}),
            "wrapped key": service.wrap("subject-wrap", b"key", b"context"),
            "sealed weights": (folder / "sealed" / "head.safetensors.sealed").read_bytes(),
            "public keys": (folder / "keys" / "public.json").read_bytes(),
            "token address": b"pkcs11:token=a?module-path=/x.so",
        },
        read={
            "permit": lambda data: read_permit(data.decode("latin-1"), keys.permit_public),
            "statement": lambda data: verify_consent(data.decode("latin-1"), public_jwk(subject), START),
            "checkpoint": lambda data: verify_checkpoint(data, keys.log_publics, origin=ORIGIN),
            "note": split_note,
            "evidence": lambda data: verify_evidence(LogEvidence.from_json(_json(data)), keys.log_publics),
            "verifier key": lambda data: parse_verifier_key(data.decode("latin-1")),
            "entry": lambda data: parse_entry(data, 4),
            "bundle": lambda data: split_bundle(data, 9),
            "tile name": lambda data: TileName.parse(data.decode("latin-1")),
            "request": lambda data: (RenderRequest.from_json(_json(data)), Facts.from_json(_json(data))),
            "wrapped key": lambda data: service.unwrap("subject-wrap", data, b"context"),
            "sealed weights": unseal,
            "public keys": public_keys,
            "token address": lambda data: parse_uri(data.decode("latin-1")),
        },
    )


SIGNED = {"permit", "statement", "checkpoint", "evidence", "wrapped key", "sealed weights"}
"""Formats of which nothing but what was signed is read; signatures of others may stand beside it."""


def _json(data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return parse_canonical(data)


@st.composite
def damage(draw: st.DrawFn) -> Callable[[bytes], bytes]:
    """A few edits: bytes replaced, cut, repeated, inserted; for JSON a value replaced by another."""
    edits = draw(
        st.lists(st.tuples(st.sampled_from("rcdij"), st.floats(0, 1), st.binary(max_size=6), JSON), max_size=3)
    )

    def apply(data: bytes) -> bytes:
        for how, where, new, value in edits:
            at = int(where * len(data))
            if how == "r":
                data = data[:at] + new + data[at + len(new) :]
            elif how == "c":
                data = data[:at]
            elif how == "d":
                data = data + data[at:]
            elif how == "i":
                data = data[:at] + new + data[at:]
            else:
                data = _with_another_value(data, where, value)
        return data

    return apply


def _with_another_value(data: bytes, where: float, value: object) -> bytes:
    try:
        obj = json.loads(data)
        names = sorted(obj)
        return json.dumps(obj | {names[int(where * (len(names) - 1))]: value}).encode()
    except (ValueError, TypeError, IndexError, AttributeError):
        return data


def survives(world: World, kind: str, data: bytes) -> None:
    try:
        value = world.read[kind](data)
    except (PolicyError, WeightsError) as exc:
        assert str(exc).endswith("."), f"no sentence: {exc!r}"
    else:
        assert kind not in SIGNED or value == world.read[kind](world.good[kind]), f"{kind} was changed unseen"


KINDS = [
    "permit", "statement", "checkpoint", "note", "evidence", "verifier key", "entry", "bundle", "tile name", "request",
    "wrapped key", "sealed weights", "public keys", "token address",
]  # fmt: skip


def test_the_good_ones_are_good(world: World) -> None:
    assert list(world.good) == KINDS
    for kind in set(KINDS) - {"request"}:
        world.read[kind](world.good[kind])


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=60)
@given(change=damage(), noise=st.binary(max_size=60))
def test_only_our_errors(world: World, kind: str, change: Callable[[bytes], bytes], noise: bytes) -> None:
    survives(world, kind, change(world.good[kind]))
    survives(world, kind, noise)


@pytest.mark.heavy
@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=500)
@given(change=damage(), noise=st.binary(max_size=60))
def test_only_our_errors_at_length(world: World, kind: str, change: Callable[[bytes], bytes], noise: bytes) -> None:
    survives(world, kind, change(world.good[kind]))
    survives(world, kind, noise)
