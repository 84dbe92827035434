"""The Merkle tree of RFC 6962 §2.1 / RFC 9162 §2.1: hashes, proofs, and verifiers that raise.

Pure functions of bytes. A tree is seen through a `NodeReader`, `read(level, index)`: the hash of the complete subtree
over leaves [index·2^level, (index+1)·2^level). Where those hashes lie (tiles on disk, a list in a test) is the caller's
business. Proofs are tuples of 32-byte hashes in the RFC's order.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Sequence

from policy.errors import ProofError

HASH_NUM_BYTES = 32
EMPTY_ROOT = hashlib.sha256(b"").digest()
"""Root of the tree without leaves (RFC 9162 §2.1.1)."""

NodeReader = Callable[[int, int], bytes]


def leaf_hash(data: bytes) -> bytes:
    """SHA-256(0x00 || data), RFC 9162 §2.1.1."""
    return hashlib.sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """SHA-256(0x01 || left || right), RFC 9162 §2.1.1."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def subtree_root(start: int, end: int, read: NodeReader) -> bytes:
    """MTH over leaves [start, end), where `start` is a multiple of the largest power of two that splits the range."""
    size = end - start
    if size <= 0:
        return EMPTY_ROOT
    if size & (size - 1) == 0:
        level = size.bit_length() - 1
        return read(level, start >> level)
    split = start + _largest_power_below(size)
    return node_hash(subtree_root(start, split, read), subtree_root(split, end, read))


def tree_root(size: int, read: NodeReader) -> bytes:
    """Root hash of the tree over the first `size` leaves."""
    return subtree_root(0, size, read)


def inclusion_path(index: int, size: int, read: NodeReader) -> tuple[bytes, ...]:
    """PATH(index, D[size]) of RFC 9162 §2.1.3.1.

    Raises: ProofError: `index` is not in a tree of that size.
    """
    if not 0 <= index < size:
        raise ProofError(f"There is no entry {index} in a tree of size {size}.")
    path: list[bytes] = []
    start, end = 0, size
    while end - start > 1:
        split = start + _largest_power_below(end - start)
        if index < split:
            path.append(subtree_root(split, end, read))
            end = split
        else:
            path.append(subtree_root(start, split, read))
            start = split
    return tuple(reversed(path))


def consistency_path(old_size: int, new_size: int, read: NodeReader) -> tuple[bytes, ...]:
    """PROOF(old_size, D[new_size]) of RFC 9162 §2.1.4.1; empty where one of the trees is empty or they are the same.

    Raises: ProofError: the sizes are not 0 ≤ old ≤ new.
    """
    if not 0 <= old_size <= new_size:
        raise ProofError(f"A tree of size {new_size} cannot extend one of size {old_size}.")
    if old_size in (0, new_size):
        return ()
    path: list[bytes] = []
    start, end, whole = 0, new_size, True
    while end != old_size:
        split = start + _largest_power_below(end - start)
        if old_size <= split:
            path.append(subtree_root(split, end, read))
            end = split
        else:
            path.append(subtree_root(start, split, read))
            start, whole = split, False
    if not whole:
        path.append(subtree_root(start, end, read))
    return tuple(reversed(path))


def verify_inclusion(leaf: bytes, index: int, size: int, path: Sequence[bytes], root: bytes) -> None:
    """Check that the leaf hash `leaf` is entry `index` of the tree (`size`, `root`): RFC 9162 §2.1.3.2.

    Raises: ProofError.
    """
    _check_hashes(leaf, root, *path)
    # (1) index within the tree
    if not 0 <= index < size:
        raise ProofError(f"There is no entry {index} in a tree of size {size}.")
    # (2)–(4) fold the path from the leaf to the root
    fn, sn, folded = index, size - 1, leaf
    for sibling in path:
        if sn == 0:
            raise ProofError("The inclusion proof is too long.")
        if fn & 1 or fn == sn:
            folded = node_hash(sibling, folded)
            while not fn & 1 and fn:
                fn >>= 1
                sn >>= 1
        else:
            folded = node_hash(folded, sibling)
        fn >>= 1
        sn >>= 1
    # (5) nothing left over, and the root is the one that was signed
    if sn != 0:
        raise ProofError("The inclusion proof is too short.")
    if not hmac.compare_digest(folded, root):
        raise ProofError(f"The proof does not lead from entry {index} to this root: one of them was changed.")


def verify_consistency(old_size: int, old_root: bytes, new_size: int, new_root: bytes, path: Sequence[bytes]) -> None:
    """Check that the tree (`new_size`, `new_root`) extends (`old_size`, `old_root`): RFC 9162 §2.1.4.2.

    Raises: ProofError.
    """
    _check_hashes(old_root, new_root, *path)
    if not 0 <= old_size <= new_size:
        raise ProofError(f"A tree of size {new_size} cannot extend one of size {old_size}.")
    # (1) trivial cases carry no hashes
    if old_size in (0, new_size):
        if path:
            raise ProofError("The consistency proof is too long.")
        expected = EMPTY_ROOT if old_size == 0 else new_root
        if not hmac.compare_digest(old_root, expected):
            raise ProofError("Two different roots for one tree size: the log has been rewritten.")
        return
    # (2) a power of two is its own first node
    nodes = list(path) if old_size & (old_size - 1) else [old_root, *path]
    if not nodes:
        raise ProofError("The consistency proof is empty.")
    # (3)–(5)
    fn, sn = old_size - 1, new_size - 1
    while fn & 1:
        fn >>= 1
        sn >>= 1
    # (6) fold both roots at once
    old_folded = new_folded = nodes[0]
    for node in nodes[1:]:
        if sn == 0:
            raise ProofError("The consistency proof is too long.")
        if fn & 1 or fn == sn:
            old_folded = node_hash(node, old_folded)
            new_folded = node_hash(node, new_folded)
            while not fn & 1 and fn:
                fn >>= 1
                sn >>= 1
        else:
            new_folded = node_hash(new_folded, node)
        fn >>= 1
        sn >>= 1
    # (7) both roots come out, and nothing is left over
    if sn != 0:
        raise ProofError("The consistency proof is too short.")
    if not hmac.compare_digest(old_folded, old_root) or not hmac.compare_digest(new_folded, new_root):
        raise ProofError(f"The tree of size {new_size} does not extend the one of size {old_size}.")


def _largest_power_below(size: int) -> int:
    """Largest power of two smaller than `size` (≥ 2)."""
    return 1 << (size - 1).bit_length() - 1


def _check_hashes(*hashes: bytes) -> None:
    if any(len(value) != HASH_NUM_BYTES for value in hashes):
        raise ProofError("Every hash of a proof must be 32 bytes long.")
