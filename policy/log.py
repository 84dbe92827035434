"""The audit log: every decision, permit and delivery, in a Merkle tree that even the operator cannot rewrite unseen.

Entries are canonical JSON `{v, index, time, kind, body}`, stored in c2sp.org/tlog-tiles form under a checkpoint that is
signed at every commit. `append` returns only when the entry and the checkpoint that covers it are on disk. Appends of
several threads are committed together, with one fsync for all of them; appends of several processes take turns by a
file lock. What may stand in an entry: pseudonyms, hashes, codes, numbers. No personal data, no tokens, no keys.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric import ed25519

from policy.canonical import sha256_hex
from policy.entry import check_entry, parse_entry, write_entry
from policy.errors import (
    EntryNotFoundError,
    LogCorruptError,
    LogError,
    LogUnavailableError,
)
from policy.evidence import LogEvidence, verify_evidence
from policy.files import exclusive, fsync_directory, write_atomically
from policy.group import GroupCommit
from policy.kms import as_signing_key, verifying_keys
from policy.merkle import (
    EMPTY_ROOT,
    HASH_NUM_BYTES,
    NodeReader,
    consistency_path,
    inclusion_path,
    leaf_hash,
    tree_root,
)
from policy.note import Checkpoint, Signer, check_key_name, sign_checkpoint, verifier_key, verify_checkpoint
from policy.store import FullTiles, TileStore
from policy.tiles import (
    ENTRIES,
    TILE_HEIGHT,
    TILE_WIDTH,
    Pyramid,
    TileName,
    encode_entry,
    split_bundle,
    split_hashes,
)

__all__ = ["RECOVERED_KIND", "Endorse", "Log", "LogEvidence", "verify_evidence"]

Endorse = Callable[[Sequence[LogEvidence]], Sequence[LogEvidence]]
"""Has the checkpoint of new entries cosigned before they are acknowledged; raises LogError where it cannot."""

RECOVERED_KIND: Final = "log.recovered"
"""Kind of the entry that says a torn tail was removed after a crash."""
MAX_BATCH: Final = TILE_WIDTH - 1
MAX_ENTRIES_PER_READ: Final = 1000
CHECKPOINT_FILE: Final = "checkpoint"
LOCK_FILE: Final = ".lock"


@dataclass
class _Append:
    """One caller's entry on its way through a commit."""

    kind: str
    body: dict[str, Any]
    evidence: LogEvidence | None = None
    error: LogError | None = None

    @property
    def is_done(self) -> bool:
        return self.evidence is not None or self.error is not None


@dataclass
class _Edge:
    """The right-hand tile of one level, still growing."""

    index: int
    hashes: Pyramid


@dataclass
class _Tree:
    """What is kept in memory: the checkpoint, the right-hand tiles, and the length of the growing entry bundle."""

    checkpoint: Checkpoint
    note: str
    edges: list[_Edge] = field(default_factory=list)
    bundle_num_bytes: int = 0


class Log:
    """An append-only log in one directory. `Log.create` makes it, `Log.open` opens it; both need the signing key.

    Safe for several threads and several processes. After a failed write the next call starts again from what is on
    disk, so a full disk costs the entries that were refused and nothing else.
    """

    def __init__(self, directory: Path, key: Signer, origin: str, now: Callable[[], float]) -> None:
        self.directory = directory
        self.origin = check_key_name(origin)
        self._key = as_signing_key(key)
        self._signers: tuple[Signer, ...] = (self._key,)
        self._now = now
        self._store = TileStore(directory)
        self._mutex = threading.RLock()
        self._group: GroupCommit[_Append] = GroupCommit(self._commit, MAX_BATCH)
        self._tree: _Tree | None = None
        self._full_tiles = FullTiles(self._store)
        self._recovery: dict[str, Any] | None = None
        self._endorse: Endorse | None = None

    @classmethod
    def create(
        cls,
        directory: Path,
        key: Signer,
        origin: str,
        *,
        now: Callable[[], float] = time.time,
    ) -> Log:
        """Start an empty log in `directory`, which must not exist or be empty.

        Args:
            origin: the log's name for the world, e.g. `placet.example/log`; part of every checkpoint.
            now: Unix time in seconds.
        Raises: LogUnavailableError: there is something in the directory, or it cannot be written.
        """
        check_key_name(origin)
        try:
            directory.mkdir(parents=True, exist_ok=True)
            if any(directory.iterdir()):
                raise LogUnavailableError("The log directory is not empty; a log is never overwritten.")
            (directory / LOCK_FILE).touch(mode=0o644)
            write_atomically(directory / CHECKPOINT_FILE, sign_checkpoint(origin, 0, EMPTY_ROOT, key).encode())
            fsync_directory(directory.parent)
        except OSError as exc:
            raise _unavailable(exc) from exc
        return cls.open(directory, key, origin, now=now)

    @classmethod
    def open(
        cls,
        directory: Path,
        key: Signer,
        origin: str,
        *,
        now: Callable[[], float] = time.time,
    ) -> Log:
        """Open the log in `directory` and remove what a crash left behind the signed checkpoint.

        What was removed is itself logged with the next append, as an entry of kind `log.recovered`.

        Raises: CheckpointError: the checkpoint is not this log's. LogCorruptError: the newest tiles do not add up to
            it. LogUnavailableError: no log here, or no access.
        """
        log = cls(directory, key, origin, now)
        with log._mutex:
            log._refresh()
        return log

    # ------------------------------------------------------------------------------------------------- writing

    def append(self, kind: str, body: dict[str, Any]) -> LogEvidence:
        """Add an entry, durably.

        Args:
            kind: what happened, e.g. `decision`, `delivery`, `consent.given`.
            body: JSON object; pseudonyms, hashes, codes and numbers only.
        Returns: the entry's place and its proof, after both are on disk.
        Raises:
            EntryRefusedError: too large, not canonical JSON, or with something inside that looks like a secret.
            LogUnavailableError: it could not be made durable. LogCorruptError: the files contradict the checkpoint.
        """
        return self.append_many([(kind, body)])[0]

    def append_many(self, entries: Sequence[tuple[str, dict[str, Any]]]) -> list[LogEvidence]:
        """Add several entries in this order, with as few fsyncs as possible; other callers' entries may lie between.

        Returns: the evidence of each.
        Raises: as `append`. EntryRefusedError comes before anything is written; after another error some of the first
            entries may be in the log.
        """
        for kind, body in entries:
            check_entry(kind, body)
        mine = [_Append(kind, body) for kind, body in entries]
        self._group.run(mine)
        for each in mine:
            if each.error is not None:
                raise each.error
        return [each.evidence for each in mine if each.evidence is not None]

    def hand_over(self, old: Signer, new: Signer, kind: str, body: dict[str, Any]) -> LogEvidence:
        """Log a change of the log's key under a checkpoint that both keys have signed.

        Whoever knows the old key can follow to the new one: the checkpoint is signed by both, and covers an entry that
        says so.

        Raises: as `append`.
        """
        self._signers = (old, new)
        try:
            return self.append(kind, body)
        finally:
            self._signers = (self._key,)

    def require_endorsement(self, endorse: Endorse | None) -> None:
        """From now on acknowledge an entry only once `endorse` has returned its evidence.

        An entry whose endorsement fails stays in the log, but nobody is told that it is there: its caller gets the
        error, and nothing may be released.
        """
        self._endorse = endorse

    def _commit(self, batch: list[_Append]) -> None:
        """Write a batch and give every caller evidence or an error; never raises for the callers' sake."""
        self._commit_here(batch)
        written = [append for append in batch if append.error is None and append.evidence is not None]
        if self._endorse is None or not written:
            return
        try:
            endorsed = self._endorse([append.evidence for append in written if append.evidence is not None])
        except LogError as exc:
            for append in written:
                append.error = type(exc)(exc.sentence)
        except BaseException:
            for append in written:
                append.error = LogUnavailableError("The cosigning of the log was interrupted; try again.")
            raise
        else:
            for append, evidence in zip(written, endorsed, strict=True):
                append.evidence = evidence

    def _commit_here(self, batch: list[_Append]) -> None:
        try:
            with self._mutex, self._exclusive():
                self._write(batch)
        except LogError as exc:
            self._forget()
            for append in batch:
                append.error = type(exc)(exc.sentence)
        except OSError as exc:
            self._forget()
            for append in batch:
                append.error = _unavailable(exc)
        except BaseException:
            self._forget()
            for append in batch:
                append.error = LogUnavailableError("The write to the log was interrupted; try again.")
            raise

    def _write(self, batch: list[_Append]) -> None:
        tree = self._refresh_locked()
        self._tree = None  # until the new checkpoint is on disk, memory is not to be trusted
        recovery = [_Append(RECOVERED_KIND, self._recovery)] if self._recovery else []
        appends = recovery + batch
        first = tree.checkpoint.size
        now = self._now()
        leaves = [write_entry(first + nth, now, each.kind, each.body) for nth, each in enumerate(appends)]
        # (1) entries, durable; (2) hashes, which can be rebuilt from them
        at = 0
        while at < len(leaves):
            chunk = leaves[at : at + TILE_WIDTH - (first + at) % TILE_WIDTH]
            self._add_entries(tree, first + at, chunk)
            self._add_hashes(tree, 0, [leaf_hash(leaf) for leaf in chunk])
            at += len(chunk)
        # (3) the checkpoint, durable: from here on the entries exist
        size = first + len(leaves)
        read = self._reader(tree)
        root = tree_root(size, read)
        tree.checkpoint = Checkpoint(self.origin, size, root)
        tree.note = sign_checkpoint(self.origin, size, root, *self._signers)
        write_atomically(self.directory / CHECKPOINT_FILE, tree.note.encode())
        self._tree = tree
        self._recovery = None
        # (4) proofs
        for index, append in enumerate(appends, start=first):
            append.evidence = _evidence(index, tree.checkpoint, tree.note, read)

    def _add_entries(self, tree: _Tree, size: int, leaves: Sequence[bytes]) -> None:
        """Append leaves that all fit into the current bundle."""
        index, width = divmod(size, TILE_WIDTH)
        data = b"".join(map(encode_entry, leaves))
        self._store.extend(TileName(ENTRIES, index, width), data, width + len(leaves), durable=True)
        is_full = width + len(leaves) == TILE_WIDTH
        tree.bundle_num_bytes = 0 if is_full else tree.bundle_num_bytes + len(data)

    def _add_hashes(self, tree: _Tree, level: int, hashes: Sequence[bytes]) -> None:
        """Append hashes that all fit into the current tile of `level`; a full tile hands its root upwards."""
        if level == len(tree.edges):
            tree.edges.append(_Edge(0, Pyramid()))
        edge = tree.edges[level]
        width = len(edge.hashes)
        name = TileName(level, edge.index, width)
        self._store.extend(name, b"".join(hashes), width + len(hashes), durable=False)
        for value in hashes:
            edge.hashes.append(value)
        if len(edge.hashes) == TILE_WIDTH:
            tree.edges[level] = _Edge(edge.index + 1, Pyramid())
            self._full_tiles.remember(level, edge.index, edge.hashes)
            self._add_hashes(tree, level + 1, [edge.hashes.node(TILE_HEIGHT, 0)])

    # ------------------------------------------------------------------------------------------------- reading

    def checkpoint(self) -> str:
        """The newest checkpoint, a C2SP signed note."""
        return self._current().note

    @property
    def size(self) -> int:
        """Number of entries under the newest checkpoint."""
        return self._current().checkpoint.size

    @property
    def public_keys(self) -> tuple[ed25519.Ed25519PublicKey, ...]:
        """The current key and those before it, newest first: any of them may have signed a checkpoint of the past."""
        return tuple(key for key in verifying_keys(self._key) if isinstance(key, ed25519.Ed25519PublicKey))

    @property
    def public_key(self) -> ed25519.Ed25519PublicKey:
        """The current key."""
        return self.public_keys[0]

    @property
    def verifier_key(self) -> str:
        """The public key in the text form that other implementations take."""
        return verifier_key(self.origin, self.public_key)

    def entry(self, index: int) -> dict[str, Any]:
        """Entry number `index`, parsed.

        Raises: EntryNotFoundError; LogCorruptError: its bytes are damaged.
        """
        found = self.entries(index, 1) if index >= 0 else []
        if not found:
            raise EntryNotFoundError(f"The log has no entry {index}.")
        return found[0]

    def entries(self, start: int, limit: int = 100) -> list[dict[str, Any]]:
        """Up to `limit` (at most 1,000) entries from `start` on, parsed; fewer at the end of the log.

        Raises: EntryNotFoundError: a negative start. LogCorruptError: damaged bytes.
        """
        if start < 0:
            raise EntryNotFoundError("Entries are numbered from 0.")
        end = min(start + min(limit, MAX_ENTRIES_PER_READ), self.size)
        leaves: list[dict[str, Any]] = []
        while (at := start + len(leaves)) < end:
            index, offset = divmod(at, TILE_WIDTH)
            num_wanted = min(TILE_WIDTH, offset + end - at)
            bundle, _ = split_bundle(self._store.read_prefix(TileName(ENTRIES, index, num_wanted)), num_wanted)
            if len(bundle) < num_wanted:
                raise LogCorruptError(
                    f"Entry {index * TILE_WIDTH + len(bundle)} is cut off; run `placet audit verify`."
                )
            leaves += [parse_entry(leaf, at + nth) for nth, leaf in enumerate(bundle[offset:])]
        return leaves

    def tile(self, path: str) -> bytes:
        """The bytes under a tlog-tiles path, e.g. `tile/0/000.p/5`, for clients that read the log by tiles.

        Raises: EntryNotFoundError: not a tile of the current tree.
        """
        name = TileName.parse(path)
        num_hashes = self.size >> (TILE_HEIGHT * max(name.level, 0))
        if name.index * TILE_WIDTH + name.width > num_hashes:
            raise EntryNotFoundError("The log has not grown to this tile yet.")
        data = self._store.read_prefix(name)
        length = split_bundle(data, name.width)[1] if name.level == ENTRIES else name.width * HASH_NUM_BYTES
        return data[:length]

    def inclusion_proof(self, index: int, size: int) -> tuple[bytes, ...]:
        """Proof that entry `index` is in the tree of the first `size` entries (RFC 9162 §2.1.3).

        Raises: EntryNotFoundError: the log is not that long. ProofError: `index` is not in that tree.
        """
        with self._mutex:
            return inclusion_path(index, size, self._reader(self._covering(size)))

    def consistency_proof(self, old_size: int, new_size: int) -> tuple[bytes, ...]:
        """Proof that the tree of `new_size` extends that of `old_size` (RFC 9162 §2.1.4).

        Raises: EntryNotFoundError: the log is not that long. ProofError: not 0 ≤ old ≤ new.
        """
        with self._mutex:
            return consistency_path(old_size, new_size, self._reader(self._covering(new_size)))

    def evidence(self, index: int) -> LogEvidence:
        """Evidence for an existing entry under the newest checkpoint.

        Raises: EntryNotFoundError.
        """
        with self._mutex:
            tree = self._current()
            if not 0 <= index < tree.checkpoint.size:
                raise EntryNotFoundError(f"The log has no entry {index}.")
            return _evidence(index, tree.checkpoint, tree.note, self._reader(tree))

    def evidence_under(self, index: int, note: str) -> LogEvidence:
        """Evidence for an existing entry under an earlier checkpoint, e.g. the newest that witnesses have cosigned.

        Raises: EntryNotFoundError: the checkpoint does not cover the entry. CheckpointError: not one of this log.
            LogCorruptError: a checkpoint of another history.
        """
        checkpoint = verify_checkpoint(note.encode(), self.public_keys, origin=self.origin)
        size = checkpoint.size
        if not 0 <= index < size:
            raise EntryNotFoundError(f"The checkpoint of size {size} does not cover entry {index}.")
        with self._mutex:
            read = self._reader(self._covering(size))
            if tree_root(size, read) != checkpoint.root:
                raise LogCorruptError(f"The log holds another history than its checkpoint of size {size}.")
            return _evidence(index, checkpoint, note, read)

    def root(self, size: int) -> bytes:
        """Root of the tree over the first `size` entries. Raises: EntryNotFoundError: the log is not that long."""
        with self._mutex:
            return tree_root(size, self._reader(self._covering(size)))

    def _covering(self, size: int) -> _Tree:
        tree = self._current()
        if size > tree.checkpoint.size:
            raise EntryNotFoundError(f"The log has {tree.checkpoint.size} entries, not {size}.")
        return tree

    def _reader(self, tree: _Tree) -> Callable[[int, int], bytes]:
        """Node hashes of `tree`, from memory at the right-hand edge and from full tiles elsewhere."""

        def read(level: int, index: int) -> bytes:
            tile_level, height = divmod(level, TILE_HEIGHT)
            tile_index, offset = divmod(index, TILE_WIDTH >> height)
            edge = tree.edges[tile_level]
            tile = edge.hashes if edge.index == tile_index else self._full_tiles.get(tile_level, tile_index)
            return tile.node(height, offset)

        return read

    # ------------------------------------------------------------------------------------- keeping up with the disk

    def _current(self) -> _Tree:
        """The tree under the checkpoint that is on disk now; another process may have moved it."""
        with self._mutex:
            if self._tree is not None and self._read_checkpoint() == self._tree.note.encode():
                return self._tree
            return self._refresh()

    def _refresh(self) -> _Tree:
        try:
            with self._exclusive():
                return self._refresh_locked()
        except OSError as exc:
            self._forget()
            raise _unavailable(exc) from exc

    def _refresh_locked(self) -> _Tree:
        """Make memory and files agree with the signed checkpoint. The file lock is held: nobody is writing."""
        note = self._read_checkpoint()
        known = self._tree
        if known is not None and known.note.encode() == note and self._is_settled(known):
            return known
        self._tree = None
        checkpoint = verify_checkpoint(note, self.public_keys, origin=self.origin)
        tree = self._settle(checkpoint, note.decode())
        if known is not None:
            self._check_extends(known, tree)
        self._tree = tree
        return tree

    def _check_extends(self, known: _Tree, tree: _Tree) -> None:
        """What this process has seen signed must still be there."""
        old = known.checkpoint
        if old.size > tree.checkpoint.size or tree_root(old.size, self._reader(tree)) != old.root:
            raise LogCorruptError(
                f"The log on disk no longer contains the {old.size} entries that were signed before: it was rewritten."
            )

    def _is_settled(self, tree: _Tree) -> bool:
        """Whether the right-hand files are exactly as the last commit left them."""
        index, width = divmod(tree.checkpoint.size, TILE_WIDTH)
        tiles = [(TileName(ENTRIES, index, width), tree.bundle_num_bytes)]
        for level, edge in enumerate(tree.edges):
            tiles.append((TileName(level, edge.index, len(edge.hashes)), len(edge.hashes) * HASH_NUM_BYTES))
        return all(
            self._store.num_bytes(name) == num_bytes if name.width else not self._store.exists(name.level, name.index)
            for name, num_bytes in tiles
        )

    def _settle(self, checkpoint: Checkpoint, note: str) -> _Tree:
        """Load the right-hand tiles; remove what lies beyond the checkpoint; rebuild hash tiles that are short.

        Raises: LogCorruptError: what is there does not add up to the signed root.
        """
        tree = _Tree(checkpoint, note)
        size = checkpoint.size
        (self.directory / f"{CHECKPOINT_FILE}.tmp").unlink(missing_ok=True)
        # (1) tiles to the right of the edge: the last commit may have begun one on each level
        num_removed = self._discard_beyond(ENTRIES, size)
        level = 0
        while level == 0 or size >> (TILE_HEIGHT * (level - 1)):
            num_removed += self._discard_beyond(level, size >> (TILE_HEIGHT * level))
            level += 1
        # (2) the growing bundle of entries
        index, width = divmod(size, TILE_WIDTH)
        leaves: list[bytes] = []
        torn = b""
        if width:
            data, torn = self._store.settle(TileName(ENTRIES, index, width))
            leaves, tree.bundle_num_bytes = split_bundle(data, width)
        # (3) the growing hash tiles, each rebuilt from what lies below where it is short
        num_rebuilt = 0
        level = 0
        while count := size >> (TILE_HEIGHT * level):
            index, width = divmod(count, TILE_WIDTH)
            hashes: list[bytes] = []
            if width:
                name = TileName(level, index, width)
                data, beyond = self._store.settle(name)
                num_removed += len(beyond)
                hashes = split_hashes(data)
                if len(data) != width * HASH_NUM_BYTES:
                    hashes = (
                        [leaf_hash(leaf) for leaf in leaves]
                        if level == 0
                        else [
                            self._full_tiles.get(level - 1, index * TILE_WIDTH + nth).node(TILE_HEIGHT, 0)
                            for nth in range(width)
                        ]
                    )
                    self._store.rewrite(name, b"".join(hashes))
                    num_rebuilt += 1
            tree.edges.append(_Edge(index, Pyramid(hashes)))
            level += 1
        # (4) entries against hashes, hashes against the signed root
        first = size - len(leaves)
        for nth, leaf in enumerate(leaves):
            if leaf_hash(leaf) != tree.edges[0].hashes.node(0, nth):
                raise LogCorruptError(f"Entry {first + nth} was changed; run `placet audit verify`.")
        if tree_root(size, self._reader(tree)) != checkpoint.root:
            raise LogCorruptError("The tiles do not add up to the signed checkpoint; run `placet audit verify`.")
        if num_removed or torn or num_rebuilt:
            self._recovery = {
                "num_bytes_removed": num_removed + len(torn),
                "removed_entries_sha256": sha256_hex(torn),
                "num_tiles_rebuilt": num_rebuilt,
            }
        return tree

    def _discard_beyond(self, level: int, num_hashes: int) -> int:
        index, width = divmod(num_hashes, TILE_WIDTH)
        num_bytes = self._store.discard(level, index + 1)
        return num_bytes + (0 if width else self._store.discard(level, index))

    def _read_checkpoint(self) -> bytes:
        try:
            return (self.directory / CHECKPOINT_FILE).read_bytes()
        except FileNotFoundError as exc:
            raise LogUnavailableError("There is no log here; run `placet init`, or restore the backup.") from exc
        except OSError as exc:
            raise _unavailable(exc) from exc

    def _forget(self) -> None:
        self._tree = None
        self._full_tiles.clear()

    def _exclusive(self) -> AbstractContextManager[None]:
        """The lock between processes."""
        return exclusive(self.directory / LOCK_FILE)


def _evidence(index: int, checkpoint: Checkpoint, note: str, read: NodeReader) -> LogEvidence:
    return LogEvidence(
        index=index,
        leaf_hash=read(0, index).hex(),
        tree_size=checkpoint.size,
        root_hash=checkpoint.root.hex(),
        inclusion_proof=tuple(node.hex() for node in inclusion_path(index, checkpoint.size, read)),
        checkpoint=note,
    )


def _unavailable(exc: OSError) -> LogUnavailableError:
    return LogUnavailableError(
        f"The log cannot be written ({exc.strerror or type(exc).__name__}). Nothing is released until it can: "
        "check the disk and its permissions."
    )
