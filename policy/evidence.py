"""Proof that one entry is in the log, in a form that travels: in manifests, to subjects, checked offline."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from policy.errors import ProofError
from policy.merkle import HASH_NUM_BYTES, leaf_hash, verify_inclusion
from policy.note import Checkpoint, LogKeys, verify_checkpoint


@dataclass(frozen=True)
class LogEvidence:
    """Proof that an entry is in the log: everything a stranger with the log's public key needs.

    Hashes are hex; `checkpoint` is the signed note that covers `tree_size` and `root_hash`.
    """

    index: int
    leaf_hash: str
    tree_size: int
    root_hash: str
    inclusion_proof: tuple[str, ...]
    checkpoint: str

    def to_json(self) -> dict[str, Any]:
        """As a JSON object, e.g. for a C2PA assertion."""
        return asdict(self) | {"inclusion_proof": list(self.inclusion_proof)}

    @classmethod
    def from_json(cls, unverified: object) -> LogEvidence:
        """Read `to_json`'s form. Nothing is verified yet; see `verify_evidence`.

        Raises: ProofError: not of that form.
        """
        try:
            obj = dict(unverified)  # type: ignore[call-overload]
            evidence = cls(**obj | {"inclusion_proof": tuple(obj["inclusion_proof"])})
        except (TypeError, ValueError, KeyError) as exc:
            raise ProofError("The log evidence does not have the expected fields.") from exc
        numbers = (evidence.index, evidence.tree_size)
        texts = (evidence.leaf_hash, evidence.root_hash, evidence.checkpoint, *evidence.inclusion_proof)
        if any(type(number) is not int for number in numbers) or not all(isinstance(text, str) for text in texts):
            raise ProofError("The log evidence holds values of the wrong type.")
        return evidence


def verify_evidence(
    evidence: LogEvidence,
    public_keys: LogKeys,
    *,
    origin: str | None = None,
    leaf: bytes | None = None,
) -> Checkpoint:
    """Check that an entry is in the log.

    Args:
        public_keys: the log's key, or its key and those that it had before.
        leaf: the entry's bytes, where the caller has them; without, only its hash is proven.
    Returns: the checkpoint that covers the entry.
    Raises: CheckpointError, ProofError.
    """
    # (1) the checkpoint is signed by the log (c2sp.org/tlog-checkpoint)
    checkpoint = verify_checkpoint(evidence.checkpoint.encode(), public_keys, origin=origin)
    # (2) the evidence speaks of that checkpoint
    if (evidence.tree_size, evidence.root_hash) != (checkpoint.size, checkpoint.root.hex()):
        raise ProofError("The evidence names another tree than its checkpoint.")
    # (3) the leaf hash is that of the entry (RFC 9162 §2.1.1)
    unverified_leaf_hash = _hash_from_hex(evidence.leaf_hash)
    if leaf is not None and leaf_hash(leaf) != unverified_leaf_hash:
        raise ProofError(f"The entry is not the one that was logged as number {evidence.index}.")
    # (4) inclusion, RFC 9162 §2.1.3.2
    path = [_hash_from_hex(text) for text in evidence.inclusion_proof]
    verify_inclusion(unverified_leaf_hash, evidence.index, checkpoint.size, path, checkpoint.root)
    return checkpoint


def _hash_from_hex(text: str) -> bytes:
    try:
        value = bytes.fromhex(text)
    except ValueError as exc:
        raise ProofError("The evidence holds a hash that is not hexadecimal.") from exc
    if value.hex() != text or len(value) != HASH_NUM_BYTES:
        raise ProofError("A hash of the evidence is not 64 lower-case hexadecimal digits.")
    return value
