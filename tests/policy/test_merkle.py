"""The tree against the published vectors, against the RFC's own recursion, and against every small lie."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.errors import ProofError
from policy.merkle import (
    EMPTY_ROOT,
    consistency_path,
    inclusion_path,
    leaf_hash,
    node_hash,
    tree_root,
    verify_consistency,
    verify_inclusion,
)
from policy.tiles import Pyramid

VECTORS = json.loads((Path(__file__).parents[1] / "vectors/policy/rfc6962.json").read_text())
LEAVES = [bytes.fromhex(text) for text in VECTORS["leaves"]]
HASHES = [leaf_hash(bytes([n % 256, n // 256])) for n in range(200)]
PYRAMID = Pyramid(HASHES)
sizes = st.integers(1, len(HASHES))


def mth(hashes: list[bytes]) -> bytes:
    """MTH as RFC 9162 §2.1.1 writes it, kept apart from the implementation."""
    if not hashes:
        return EMPTY_ROOT
    if len(hashes) == 1:
        return hashes[0]
    split = 1
    while split * 2 < len(hashes):
        split *= 2
    return node_hash(mth(hashes[:split]), mth(hashes[split:]))


def test_published_roots() -> None:
    pyramid = Pyramid([leaf_hash(leaf) for leaf in LEAVES])
    assert VECTORS["empty_root"] == EMPTY_ROOT.hex() == tree_root(0, pyramid.node).hex()
    for size, root in enumerate(VECTORS["roots"], start=1):
        assert tree_root(size, pyramid.node).hex() == root


@pytest.mark.parametrize("vector", VECTORS["inclusion"], ids=str)
def test_published_inclusion_proofs(vector: dict) -> None:
    pyramid = Pyramid([leaf_hash(leaf) for leaf in LEAVES])
    path = inclusion_path(vector["index"], vector["size"], pyramid.node)
    assert [node.hex() for node in path] == vector["path"]
    root = bytes.fromhex(VECTORS["roots"][vector["size"] - 1])
    verify_inclusion(leaf_hash(LEAVES[vector["index"]]), vector["index"], vector["size"], path, root)


@pytest.mark.parametrize("vector", VECTORS["consistency"], ids=str)
def test_published_consistency_proofs(vector: dict) -> None:
    pyramid = Pyramid([leaf_hash(leaf) for leaf in LEAVES])
    old, new = vector["old"], vector["new"]
    path = consistency_path(old, new, pyramid.node)
    assert [node.hex() for node in path] == vector["path"]
    roots = [bytes.fromhex(root) for root in VECTORS["roots"]]
    verify_consistency(old, roots[old - 1], new, roots[new - 1], path)


@pytest.mark.parametrize("size", [*range(1, 20), 31, 32, 33, 64, 127, 200])
def test_every_entry_of_every_size_verifies(size: int) -> None:
    root = tree_root(size, PYRAMID.node)
    assert root == mth(HASHES[:size])
    for index in range(size):
        verify_inclusion(HASHES[index], index, size, inclusion_path(index, size, PYRAMID.node), root)
    for old in range(size + 1):
        path = consistency_path(old, size, PYRAMID.node)
        verify_consistency(old, tree_root(old, PYRAMID.node), size, root, path)


@given(st.data(), sizes)
def test_any_lie_about_an_entry_fails(data: st.DataObject, size: int) -> None:
    index = data.draw(st.integers(0, size - 1))
    root, path = tree_root(size, PYRAMID.node), inclusion_path(index, size, PYRAMID.node)
    parts = [HASHES[index], root, *path]
    which = data.draw(st.integers(0, len(parts) - 1))
    bit = data.draw(st.integers(0, 255))
    changed = bytearray(parts[which])
    changed[bit // 8] ^= 1 << bit % 8
    parts[which] = bytes(changed)
    with pytest.raises(ProofError):
        verify_inclusion(parts[0], index, size, parts[2:], parts[1])
    other = data.draw(st.integers(-1, size).filter(lambda n: n != index))
    with pytest.raises(ProofError):
        verify_inclusion(HASHES[index], other, size, path, root)
    with pytest.raises(ProofError):
        verify_inclusion(HASHES[index], index, size, [*path, HASHES[0]], root)
    if path:
        with pytest.raises(ProofError):
            verify_inclusion(HASHES[index], index, size, path[:-1], root)


@given(st.data(), st.integers(2, len(HASHES)))
def test_any_lie_about_history_fails(data: st.DataObject, size: int) -> None:
    old = data.draw(st.integers(1, size - 1))
    old_root, root = tree_root(old, PYRAMID.node), tree_root(size, PYRAMID.node)
    path = consistency_path(old, size, PYRAMID.node)
    parts = [old_root, root, *path]
    which = data.draw(st.integers(0, len(parts) - 1))
    changed = bytearray(parts[which])
    changed[data.draw(st.integers(0, 31))] ^= data.draw(st.integers(1, 255))
    parts[which] = bytes(changed)
    with pytest.raises(ProofError):
        verify_consistency(old, parts[0], size, parts[1], parts[2:])
    with pytest.raises(ProofError):
        verify_consistency(old, old_root, size, root, [*path, HASHES[0]])
    with pytest.raises(ProofError):
        verify_consistency(old, old_root, size, root, path[:-1])
    other = data.draw(st.integers(1, size).filter(lambda n: n != old))
    with pytest.raises(ProofError):
        verify_consistency(other, old_root, size, root, path)


def test_a_hash_of_the_wrong_length_is_refused() -> None:
    with pytest.raises(ProofError):
        verify_inclusion(HASHES[0][:-1], 0, 1, (), HASHES[0])


def test_out_of_range_is_refused() -> None:
    for index, size in ((0, 0), (5, 5), (-1, 5)):
        with pytest.raises(ProofError):
            inclusion_path(index, size, PYRAMID.node)
    with pytest.raises(ProofError):
        consistency_path(6, 5, PYRAMID.node)
    with pytest.raises(ProofError):
        verify_consistency(3, HASHES[0], 3, HASHES[1], ())
    with pytest.raises(ProofError):
        verify_consistency(0, HASHES[0], 3, HASHES[1], ())
