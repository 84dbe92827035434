"""A witness: cosigns a checkpoint only if it extends everything that it has seen of that log, and never forgets.

It is a program of its own with a directory and a key of its own, best on a machine that the log's operator does not
run. It holds one checkpoint for each log that it watches, on disk before any cosignature leaves. Whoever trusts two
checkpoints of one witness knows that they belong to one history; a log that shows two histories gets no cosignature
for the second, and the request that tried is kept as proof.

    witness/                     0700
      witness.pem                Ed25519, signs cosignatures (PKCS #8)
      witness.json               name
      logs/<sha256 of origin>    verifier keys of a log that is watched, one a line
      latest/<sha256 of origin>  the newest checkpoint that was cosigned, with the cosignature
      refused/<sha256>           requests that a log's key signed and that contradict what was cosigned

Protocol: c2sp.org/tlog-witness. The HTTP side is `api.witness`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from policy.canonical import canonical_json, sha256_hex
from policy.cosignature import WitnessKey, cosign, parse_request
from policy.errors import (
    CheckpointError,
    ProofError,
    WitnessConflictError,
    WitnessError,
    WitnessMalformedError,
    WitnessOriginError,
    WitnessProofError,
    WitnessSignatureError,
    WitnessSplitViewError,
    WitnessStateError,
)
from policy.files import exclusive, fsync_directory, write_atomically
from policy.merkle import EMPTY_ROOT, verify_consistency
from policy.note import Checkpoint, check_key_name, parse_verifier_key, split_note, verifier_key, verify_checkpoint

MAX_REFUSED_KEPT: Final = 100
_KEY_FILE, _ABOUT_FILE, _LOCK_FILE = "witness.pem", "witness.json", ".lock"
_FOLDERS = ("logs", "latest", "refused")
_ORIGIN_LINE = re.compile(rb"[^\n]{1,255}")


@dataclass(frozen=True)
class Watched:
    """One log that a witness watches: its keys, and what was cosigned last (None: nothing yet)."""

    origin: str
    verifier_keys: tuple[str, ...]
    latest: Checkpoint | None
    latest_note: str


class Witness:
    """The state of one witness in one directory. Safe for several threads and processes.

    Make it with `Witness.create`, open it with `Witness.open`.
    """

    def __init__(self, directory: Path, name: str, key: ed25519.Ed25519PrivateKey, now: Callable[[], float]) -> None:
        self.directory = directory
        self.key = WitnessKey(name, key.public_key())
        self._private_key = key
        self._now = now

    @classmethod
    def create(cls, directory: Path, name: str, now: Callable[[], float]) -> Witness:
        """Make a witness with a new key in `directory`, which must not exist or be empty.

        Args:
            name: for the world, e.g. `witness.example/w1`; part of every cosignature.
            now: Unix time in seconds.
        Raises: CheckpointError: the name. WitnessStateError: something is there already, or it cannot be written.
        """
        check_key_name(name)
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            if any(directory.iterdir()):
                raise WitnessStateError("The directory is not empty; the state of a witness is never overwritten.")
            for folder in _FOLDERS:
                (directory / folder).mkdir(mode=0o700)
            pem = ed25519.Ed25519PrivateKey.generate().private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
            write_atomically(directory / _KEY_FILE, pem, mode=0o600)
            write_atomically(directory / _ABOUT_FILE, canonical_json({"v": 1, "name": name}))
            fsync_directory(directory.parent)
        except OSError as exc:
            raise _unusable(exc) from exc
        return cls.open(directory, now)

    @classmethod
    def open(cls, directory: Path, now: Callable[[], float]) -> Witness:
        """Open the witness in `directory`. Raises: WitnessStateError: none there, or damaged."""
        try:
            about = json.loads((directory / _ABOUT_FILE).read_bytes())
            key = serialization.load_pem_private_key((directory / _KEY_FILE).read_bytes(), password=None)
            name = check_key_name(about["name"])
        except FileNotFoundError as exc:
            raise WitnessStateError("There is no witness in this directory; run `placet witness init` first.") from exc
        except OSError as exc:
            raise _unusable(exc) from exc
        except (ValueError, KeyError, TypeError, UnsupportedAlgorithm, CheckpointError) as exc:
            raise WitnessStateError("The files of the witness are damaged; restore them from the backup.") from exc
        if not isinstance(key, ed25519.Ed25519PrivateKey):
            raise WitnessStateError(f"{_KEY_FILE} is not an Ed25519 key; restore it from the backup.")
        return cls(directory, name, key, now)

    def watch(self, log_verifier_key: str) -> str:
        """Take a log into what is watched, or a further key of one after its rotation. Returns its origin.

        Raises: CheckpointError: not a verifier key. WitnessStateError.
        """
        origin, public_key = parse_verifier_key(log_verifier_key)
        line = verifier_key(origin, public_key)
        with self._exclusive():
            known = self._verifier_keys(origin)
            if line not in known:
                text = "".join(f"{each}\n" for each in (*known, line))
                write_atomically(self._place("logs", origin), text.encode(), mode=0o600)
        return origin

    def add_checkpoint(self, body: bytes) -> str:
        """Judge one request to cosign (c2sp.org/tlog-witness, `add-checkpoint`).

        Returns: the signature line, after the checkpoint is on disk.
        Raises: WitnessMalformedError, WitnessOriginError, WitnessSignatureError, WitnessConflictError,
            WitnessSplitViewError, WitnessProofError, WitnessStateError.
        """
        # (1) the form of the request
        old_size, proof, note = parse_request(body)
        match = _ORIGIN_LINE.match(note)
        origin = match[0].decode("utf-8", "replace") if match else ""
        with self._exclusive():
            # (2) a log that is watched, (3) signed by a key of it
            checkpoint = self._signed_checkpoint(origin, note)
            # (4) old ≤ new
            if old_size > checkpoint.size:
                raise WitnessMalformedError("A checkpoint that is smaller than the old size would be a rollback.")
            # (5) the sender continues from what was cosigned last
            latest = self._latest(origin)[0] or Checkpoint(origin, 0, EMPTY_ROOT)
            if old_size != latest.size:
                raise WitnessConflictError(latest.size)
            # (6) one size, one root
            if checkpoint.size == latest.size and checkpoint.root != latest.root:
                self._keep_refused(body)
                raise WitnessSplitViewError(
                    f"Another checkpoint of size {latest.size} was cosigned: the log shows two histories."
                )
            # (7) consistency, RFC 9162 §2.1.4.2; nothing has to be proven from the empty tree
            try:
                verify_consistency(latest.size, latest.root, checkpoint.size, checkpoint.root, proof)
            except ProofError as exc:
                self._keep_refused(body)
                raise WitnessProofError(f"The checkpoint is not proven to extend the last one. {exc.sentence}") from exc
            # (8) on disk before it leaves
            text, _ = split_note(note)
            line = cosign(text, self.key.name, self._private_key, int(self._now())).text
            kept = note.rpartition(b"\n\n")[0] + b"\n\n" + self._log_lines(note, origin) + line.encode()
            write_atomically(self._place("latest", origin), kept, mode=0o600)
        return line

    def watched(self) -> list[Watched]:
        """Every log that is watched, by origin. Raises: WitnessStateError."""
        found = []
        try:
            for path in sorted((self.directory / "logs").iterdir()):
                keys = tuple(path.read_text().splitlines())
                origin = parse_verifier_key(keys[0])[0]
                latest, note = self._latest(origin)
                found.append(Watched(origin, keys, latest, note))
        except (OSError, IndexError, CheckpointError) as exc:
            raise WitnessStateError("The list of watched logs is damaged; restore it from the backup.") from exc
        return found

    def num_refused(self) -> int:
        """How many contradicting requests are kept as proof."""
        return sum(1 for _ in (self.directory / "refused").iterdir())

    def _signed_checkpoint(self, origin: str, note: bytes) -> Checkpoint:
        keys = self._verifier_keys(origin)
        if not keys:
            raise WitnessOriginError("This witness does not watch that log; add it with `placet witness init --log`.")
        failure: CheckpointError | None = None
        for text in reversed(keys):
            try:
                return verify_checkpoint(note, parse_verifier_key(text)[1], origin=origin)
            except CheckpointError as exc:
                failure = exc
        raise WitnessSignatureError("The checkpoint is not signed by a key of that log.") from failure

    def _log_lines(self, note: bytes, origin: str) -> bytes:
        """The signature lines of the log itself; those of other witnesses are not ours to keep."""
        return "".join(line.text for line in split_note(note)[1] if line.name == origin).encode()

    def _verifier_keys(self, origin: str) -> list[str]:
        try:
            return self._place("logs", origin).read_text().splitlines()
        except FileNotFoundError:
            return []
        except OSError as exc:
            raise _unusable(exc) from exc

    def _latest(self, origin: str) -> tuple[Checkpoint | None, str]:
        """What was cosigned last for a log, and the note. Raises: WitnessStateError: damaged, so nothing is signed."""
        try:
            note = self._place("latest", origin).read_bytes()
        except FileNotFoundError:
            return None, ""
        except OSError as exc:
            raise _unusable(exc) from exc
        try:
            return self._signed_checkpoint(origin, note), note.decode()
        except WitnessError as exc:
            raise WitnessStateError("The last checkpoint on record is damaged; nothing is cosigned.") from exc

    def _keep_refused(self, body: bytes) -> None:
        """Keep what proves that a log has two histories; bounded, so that nobody can fill the disk with it."""
        folder = self.directory / "refused"
        if self.num_refused() < MAX_REFUSED_KEPT:
            write_atomically(folder / sha256_hex(body), body, mode=0o600)

    def _place(self, folder: str, origin: str) -> Path:
        return self.directory / folder / sha256_hex(origin.encode())

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        """Compare and replace as one step, also between processes."""
        try:
            with exclusive(self.directory / _LOCK_FILE):
                yield
        except OSError as exc:
            raise _unusable(exc) from exc


def _unusable(exc: OSError) -> WitnessStateError:
    return WitnessStateError(
        f"The state of the witness cannot be read or written ({exc.strerror}); nothing is cosigned until it can."
    )
