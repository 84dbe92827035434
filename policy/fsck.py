"""Re-read a whole log and say whether every byte is what was signed; if not, which entry, tile or checkpoint is not.

Works on a log directory and on an export bundle, with nothing but the log's public key. Hashes are trusted from the top
down: the signed root authenticates the right-hand tiles, each tile its children, the lowest tiles the entries. Where a
tile and what lies below it disagree, the one that leads to the signed root is right and the other is named.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any, Final, Protocol

from policy.bundle import COSIGNED_FILE, VKEY_FILE, BundleFiles, export_bundle
from policy.cosignature import WitnessKey, cosignatures
from policy.entry import parse_entry
from policy.errors import BundleError, CheckpointError, LogCorruptError, LogUnavailableError, ProofError
from policy.log import CHECKPOINT_FILE, LOCK_FILE
from policy.merkle import EMPTY_ROOT, HASH_NUM_BYTES, consistency_path, leaf_hash, tree_root, verify_consistency
from policy.note import Checkpoint, LogKeys, as_keys, key_id, split_note, verifier_key, verify_checkpoint
from policy.tiles import ENTRIES, TILE_HEIGHT, TILE_WIDTH, Pyramid, TileName, split_bundle, split_hashes, tiles_of

__all__ = ["FsckProblem", "FsckReport", "export_bundle", "fsck", "verify_bundle"]

MAX_PROBLEMS: Final = 100
"""A thoroughly damaged log does not need a million lines."""


@dataclass(frozen=True)
class FsckProblem:
    """One thing that is wrong.

    Args:
        code: `checkpoint`, `entry`, `tile`, `missing`, `unexpected`, `history` or `bundle`.
        where: the file, or `entry N`.
        index: the number of the entry, where it is one.
    """

    code: str
    where: str
    sentence: str
    index: int | None = None

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return {"code": self.code, "where": self.where, "sentence": self.sentence, "index": self.index}


@dataclass(frozen=True)
class FsckReport:
    """What was checked, and everything that was found; `problems` is empty if every byte is what was signed.

    Args:
        cosigned_by: known witnesses that stand for the first `cosigned_size` entries.
    """

    origin: str
    size: int
    root_hash: str
    problems: tuple[FsckProblem, ...]
    cosigned_by: tuple[str, ...] = ()
    cosigned_size: int = 0

    @property
    def is_clean(self) -> bool:
        """Whether nothing was found."""
        return not self.problems

    def require_clean(self) -> None:
        """Raises: LogCorruptError: with the first problem."""
        if self.problems:
            raise LogCorruptError(self.problems[0].sentence)

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return {
            "origin": self.origin,
            "size": self.size,
            "root_hash": self.root_hash,
            "problems": [problem.to_json() for problem in self.problems],
            "cosigned_by": list(self.cosigned_by),
            "cosigned_size": self.cosigned_size,
        }


def fsck(
    directory: Path,
    public_keys: LogKeys,
    *,
    earlier_checkpoint: bytes | None = None,
    progress: Callable[[float], object] | None = None,
) -> FsckReport:
    """Check the log in `directory`.

    Bytes behind the last signed entry are a problem too: a crash leaves them until the log is opened again.

    Args:
        public_keys: the log's key, or its keys where it was rotated, from somewhere else than the directory.
        earlier_checkpoint: a checkpoint that was kept elsewhere; the log must still contain what it covers. Without
            one, a log that was set back as a whole to an older signed state cannot be told from an older log.
        progress: called with the fraction done.
    Raises: LogUnavailableError: the directory cannot be read.
    """
    files = _DirectoryFiles(directory)
    try:
        fixed_files = {LOCK_FILE: b""} if files.read(LOCK_FILE) is not None else {}
        report = _Check(files, public_keys, earlier_checkpoint, progress=progress).run(fixed_files)
        if report.is_clean:
            return report
        with files.at_rest():  # what looks wrong may be an append that is going on
            return _Check(files, public_keys, earlier_checkpoint, progress=progress).run(fixed_files)
    except OSError as exc:
        raise LogUnavailableError(f"The log cannot be read ({exc.strerror or type(exc).__name__}).") from exc


def verify_bundle(
    path: Path,
    public_keys: LogKeys,
    *,
    earlier_checkpoint: bytes | None = None,
    witnesses: Sequence[WitnessKey] = (),
    progress: Callable[[float], object] | None = None,
) -> FsckReport:
    """Check an export bundle as `fsck` checks a directory.

    Args:
        witnesses: witnesses whose word counts; without, the lines of witnesses in the bundle are passed over.
    Raises: BundleError: the file cannot be read at all.
    """
    try:
        with path.open("rb") as file:
            try:
                files = BundleFiles(file)
            except BundleError as exc:
                return FsckReport("", 0, "", (FsckProblem("bundle", path.name, exc.sentence),))
            name = (files.read(CHECKPOINT_FILE) or b"").split(b"\n", 1)[0].decode("utf-8", "replace")
            vkeys = [f"{verifier_key(name, key)}\n".encode() for key in as_keys(public_keys)]
            found = files.read(VKEY_FILE)
            fixed_files = {VKEY_FILE: found if found in vkeys and found is not None else vkeys[0]}
            check = _Check(files, public_keys, earlier_checkpoint, tuple(witnesses), progress)
            if (cosigned := files.read(COSIGNED_FILE)) is not None:
                fixed_files[COSIGNED_FILE] = check.cosigned = cosigned
            return check.run(fixed_files)
    except OSError as exc:
        raise BundleError(f"The bundle cannot be read ({exc.strerror}).") from exc


class _Files(Protocol):
    def paths(self) -> list[str]: ...

    def read(self, path: str) -> bytes | None: ...


class _DirectoryFiles:
    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def paths(self) -> list[str]:
        found: list[str] = []
        for folder, folders, files in os.walk(self._directory):
            odd = [name for name in folders if Path(folder, name).is_symlink()]
            found += [os.path.relpath(f"{folder}/{name}", self._directory) for name in files + odd]
        return found

    def read(self, path: str) -> bytes | None:
        try:
            return (self._directory / path).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None

    @contextmanager
    def at_rest(self) -> Iterator[None]:
        """Keep writers out, where there is a lock to do so."""
        try:
            descriptor = os.open(self._directory / LOCK_FILE, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            yield
            return
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH)
            yield
        finally:
            os.close(descriptor)


@dataclass
class _Check:
    """One run over one log."""

    files: _Files
    public_keys: LogKeys
    earlier_checkpoint: bytes | None
    witnesses: tuple[WitnessKey, ...] = ()
    progress: Callable[[float], object] | None = None
    cosigned: bytes | None = None
    size: int = 0
    problems: list[FsckProblem] = field(default_factory=list)

    def run(self, fixed_files: dict[str, bytes]) -> FsckReport:
        """Check everything.

        Args:
            fixed_files: files beside the log's own, with the content that they must have.
        """
        # (1) the checkpoint is signed by the log's key (c2sp.org/tlog-checkpoint)
        checkpoint = self._checkpoint()
        if checkpoint is None:
            return FsckReport("", 0, "", tuple(self.problems))
        self.size = checkpoint.size
        # (2) exactly the files of a tree of this size (c2sp.org/tlog-tiles)
        self._check_names(checkpoint.size, fixed_files)
        # (3) hash tiles from the signed root downwards; (4) entries against the lowest tiles
        self._check_tree(checkpoint)
        # (5) what was signed earlier is still there (RFC 9162 §2.1.4)
        if self.earlier_checkpoint is not None and not self.problems:
            self._check_history(checkpoint, self.earlier_checkpoint)
        # (6) what witnesses have seen of it
        cosigned_size, cosigned_by = self._check_cosigned(checkpoint) if self.cosigned is not None else (0, ())
        problems = tuple(self.problems[:MAX_PROBLEMS])
        return FsckReport(
            checkpoint.origin, checkpoint.size, checkpoint.root.hex(), problems, cosigned_by, cosigned_size
        )

    def _report(self, code: str, where: str, sentence: str, index: int | None = None) -> None:
        self.problems.append(FsckProblem(code, where, sentence, index))

    def _checkpoint(self) -> Checkpoint | None:
        note = self.files.read(CHECKPOINT_FILE)
        if note is None:
            self._report("missing", CHECKPOINT_FILE, "The checkpoint is missing; without it nothing can be proven.")
            return None
        try:
            checkpoint = verify_checkpoint(note, self.public_keys)
        except CheckpointError as exc:
            self._report("checkpoint", CHECKPOINT_FILE, exc.sentence)
            return None
        # every line is of a known key, and right; two where one key handed over to the next
        keys = {key_id(checkpoint.origin, key): key for key in as_keys(self.public_keys)}
        for line in split_note(note)[1]:
            key = keys.pop(line.key_id, None)
            if key is None or line.name != checkpoint.origin:
                sentence = "The checkpoint carries a signature line of an unknown key."
                self._report("checkpoint", CHECKPOINT_FILE, sentence)
                continue
            try:
                verify_checkpoint(note, key)
            except CheckpointError as exc:
                self._report("checkpoint", CHECKPOINT_FILE, exc.sentence)
        return checkpoint

    def _check_cosigned(self, checkpoint: Checkpoint) -> tuple[int, tuple[str, ...]]:
        """The cosigned checkpoint is of this history. Returns its size, and the known witnesses that stand for it."""
        assert self.cosigned is not None
        try:
            earlier = verify_checkpoint(self.cosigned, self.public_keys, origin=checkpoint.origin)
            found = cosignatures(self.cosigned, self.witnesses)
        except CheckpointError as exc:
            self._report("checkpoint", COSIGNED_FILE, exc.sentence)
            return 0, ()
        if not self.problems:
            self._check_history(checkpoint, self.cosigned)
        return earlier.size, tuple(each.name for each in found)

    def _check_names(self, size: int, fixed_files: dict[str, bytes]) -> None:
        expected = {name.path for name in tiles_of(size)} | {CHECKPOINT_FILE} | set(fixed_files)
        found = set(self.files.paths())
        for path in sorted(expected - found):
            self._report("missing", path, f"{path} is missing.")
        for path in sorted(found - expected):
            self._report(
                "unexpected",
                path,
                f"{path} does not belong to a log of {size} entries: it was added, or a crash left it behind.",
            )
        for path, content in fixed_files.items():
            if path in found and self.files.read(path) != content:
                self._report("unexpected", path, f"{path} holds something that does not belong there.")

    def _check_tree(self, checkpoint: Checkpoint) -> None:
        """From the right-hand tiles, which the root authenticates, down to the entries, from left to right."""
        if checkpoint.size == 0:
            if checkpoint.root != EMPTY_ROOT:
                self._report("checkpoint", CHECKPOINT_FILE, "The root of the empty log is wrong.")
            return
        for name, hashes in reversed(self._right_hand_tiles(checkpoint).items()):
            self._check_below(name, hashes)

    def _check_below(self, name: TileName, hashes: list[bytes] | None) -> None:
        """Check what a tile with these true hashes (None: unknown) stands over."""
        if name.level == 0:
            self._check_entries(name, hashes)
            return
        for nth in range(name.width):
            child = TileName(name.level - 1, name.index * TILE_WIDTH + nth)
            self._check_below(child, self._full_tile(child, None if hashes is None else hashes[nth]))

    def _check_entries(self, name: TileName, hashes: list[bytes] | None) -> None:
        """Check the bundle of entries under a lowest tile."""
        bundle_name = TileName(ENTRIES, name.index, name.width)
        data = self.files.read(bundle_name.path)
        if data is None:
            return  # reported with the names
        first = name.index * TILE_WIDTH
        leaves, num_bytes = split_bundle(data, name.width)
        is_framed = len(leaves) == name.width and num_bytes == len(data)
        changed = [nth for nth, leaf in enumerate(leaves) if hashes is not None and leaf_hash(leaf) != hashes[nth]]
        if not is_framed and (changed or len(leaves) < name.width):
            # a length was changed: what follows is shifted, and only the first one is surely wrong
            nth = changed[0] if changed else len(leaves)
            self._report_entry(first + nth, "was changed or cut off; what follows it in its file cannot be read")
            return
        if not is_framed:
            sentence = f"{bundle_name.path} has {len(data) - num_bytes} bytes behind its last entry."
            self._report("entry", bundle_name.path, sentence)
        for nth in changed:
            self._report_entry(first + nth, "was changed: it is not the one that was signed")
        if self.progress is not None and self.size:
            self.progress(min(1.0, (first + name.width) / self.size))
        for nth, leaf in enumerate(leaves):
            if nth not in changed:
                try:
                    parse_entry(leaf, first + nth)
                except LogCorruptError as exc:
                    self._report("entry", f"entry {first + nth}", exc.sentence, first + nth)

    # A tile is either what is stored or what follows from below; the signed root, or the parent, says which.

    def _right_hand_tiles(self, checkpoint: Checkpoint) -> dict[TileName, list[bytes] | None]:
        """The partial tiles, lowest first, with their true hashes; None where these cannot be known."""
        size = checkpoint.size
        names = [name for name in tiles_of(size) if name.level != ENTRIES and name.width < TILE_WIDTH]

        def leads_to_root(tiles: Sequence[list[bytes] | None]) -> bool:
            pyramids = {name.level: Pyramid(hashes) for name, hashes in zip(names, tiles, strict=True) if hashes}

            def read(level: int, index: int) -> bytes:
                tile_level, height = divmod(level, TILE_HEIGHT)
                return pyramids[tile_level].node(height, index % (TILE_WIDTH >> height))

            return len(pyramids) == len(names) and tree_root(size, read) == checkpoint.root

        stored = [self._stored_hashes(name) for name in names]
        if leads_to_root(stored):
            return dict(zip(names, stored, strict=True))
        derived = [self._derived_hashes(name) for name in names]
        for choice in product((False, True), repeat=len(names)):
            tiles = [derived[nth] if is_derived else stored[nth] for nth, is_derived in enumerate(choice)]
            if leads_to_root(tiles):
                for name, was, should in zip(names, stored, tiles, strict=True):
                    self._report_tile(name, was, should)
                return dict(zip(names, tiles, strict=True))
        for name, was, below in zip(names, stored, derived, strict=True):
            if was != below:
                self._report_disagreement(name, was, below)
        self._report(
            "history",
            CHECKPOINT_FILE,
            f"Neither tiles nor entries lead to the root that was signed for {size} entries: the log was rewritten.",
        )
        return dict.fromkeys(names)

    def _full_tile(self, name: TileName, parent: bytes | None) -> list[bytes] | None:
        """The true hashes of a full tile under its true parent hash; None where they cannot be known."""
        stored = self._stored_hashes(name)
        if parent is None or (stored and Pyramid(stored).node(TILE_HEIGHT, 0) == parent):
            return stored
        derived = self._derived_hashes(name)
        if derived and Pyramid(derived).node(TILE_HEIGHT, 0) == parent:
            self._report_tile(name, stored, derived)
            return derived
        self._report_disagreement(name, stored, derived)
        return None

    def _stored_hashes(self, name: TileName) -> list[bytes] | None:
        """A hash tile as it is stored; one of the wrong length is reported, and None if it is too short."""
        data = self.files.read(name.path)
        if data is None:
            return None  # reported with the names
        num_bytes = name.width * HASH_NUM_BYTES
        if len(data) != num_bytes:
            self._report("tile", name.path, f"{name.path} is {len(data)} bytes long instead of {num_bytes}.")
        return split_hashes(data[:num_bytes]) if len(data) >= num_bytes else None

    def _derived_hashes(self, name: TileName) -> list[bytes] | None:
        """A hash tile as it follows from what lies below it; None where that is damaged."""
        if name.level == 0:
            data = self.files.read(TileName(ENTRIES, name.index, name.width).path) or b""
            leaves, _ = split_bundle(data, name.width)
            return [leaf_hash(leaf) for leaf in leaves] if len(leaves) == name.width else None
        roots: list[bytes] = []
        for nth in range(name.width):
            data = self.files.read(TileName(name.level - 1, name.index * TILE_WIDTH + nth).path) or b""
            if len(data) != TILE_WIDTH * HASH_NUM_BYTES:
                return None
            roots.append(Pyramid(split_hashes(data)).node(TILE_HEIGHT, 0))
        return roots

    def _report_tile(self, name: TileName, stored: list[bytes] | None, true: list[bytes] | None) -> None:
        """A tile that is not what it must be; where `stored` is None that has been said already."""
        for nth, (was, should) in enumerate(zip(stored or [], true or [], strict=False)):
            if was != should:
                sentence = f"{name.path} was changed at hash {nth}; what lies below it is sound."
                index = name.index * TILE_WIDTH + nth if name.level == 0 else None
                self._report("tile", name.path, sentence, index)

    def _report_disagreement(self, name: TileName, stored: list[bytes] | None, derived: list[bytes] | None) -> None:
        """A tile and what lies below it, neither of which leads to what was signed."""
        differing = [nth for nth, (a, b) in enumerate(zip(stored or [], derived or [], strict=False)) if a != b]
        for nth in differing:
            if name.level == 0:
                self._report_entry(name.index * TILE_WIDTH + nth, f"and its hash in {name.path} were changed")
            else:
                self._report("tile", name.path, f"{name.path} was changed at hash {nth}, and so was what lies below.")
        if not differing:
            self._report("tile", name.path, f"{name.path} does not lead to what was signed.")

    def _report_entry(self, index: int, what: str) -> None:
        self._report("entry", f"entry {index}", f"Entry {index} {what}.", index)

    def _check_history(self, checkpoint: Checkpoint, earlier_note: bytes) -> None:
        """The tree still contains an earlier one; called on a log that is otherwise sound."""
        tiles: dict[tuple[int, int], Pyramid] = {}

        def read(level: int, index: int) -> bytes:
            tile_level, height = divmod(level, TILE_HEIGHT)
            tile_index, offset = divmod(index, TILE_WIDTH >> height)
            if (tile_level, tile_index) not in tiles:
                width = min(TILE_WIDTH, (checkpoint.size >> (TILE_HEIGHT * tile_level)) - tile_index * TILE_WIDTH)
                tiles[tile_level, tile_index] = Pyramid(self._stored_hashes(TileName(tile_level, tile_index, width)))
            return tiles[tile_level, tile_index].node(height, offset)

        try:
            earlier = verify_checkpoint(earlier_note, self.public_keys, origin=checkpoint.origin)
            path = consistency_path(earlier.size, checkpoint.size, read)
            verify_consistency(earlier.size, earlier.root, checkpoint.size, checkpoint.root, path)
        except (CheckpointError, ProofError) as exc:
            self._report(
                "history", CHECKPOINT_FILE, f"The log does not continue the earlier checkpoint. {exc.sentence}"
            )
