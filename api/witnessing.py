"""The log's side of witnessing: hand each new checkpoint to the configured witnesses, keep what they cosigned.

By default this happens behind the scenes, a second or so after an entry was made; how far the cosigned checkpoint lags
is a gauge, and an alarm where it lags for long. Where `witness_required` is set it happens before an entry is
acknowledged: too few cosignatures, and nothing is released (503).

    <home>/witnesses/cosigned    the newest checkpoint with enough cosignatures, a C2SP signed note
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Final

import httpx

from api.errors import InvalidFieldError
from api.witness import SIZE_MEDIA_TYPE
from policy.cosignature import (
    Cosignature,
    WitnessKey,
    cosignatures,
    parse_response,
    verify_cosignature,
    with_cosignatures,
    write_request,
)
from policy.errors import CheckpointError, LogError, WitnessRequiredError
from policy.evidence import LogEvidence
from policy.files import write_atomically
from policy.log import Log
from policy.note import Checkpoint, split_note, verify_checkpoint

logger = logging.getLogger("placet.witnessing")

COSIGNED_FILE: Final = "cosigned"
_NUM_TRIES: Final = 3
_MAX_ANSWER_NUM_BYTES: Final = 64 * 1024


@dataclass(frozen=True)
class WitnessAddress:
    """A witness that this instance submits to."""

    key: WitnessKey
    url: str

    @classmethod
    def parse(cls, text: str) -> WitnessAddress:
        """Read `VERIFIER_KEY URL`. Raises InvalidFieldError."""
        vkey, _, url = text.strip().partition(" ")
        if not url.strip().startswith(("http://", "https://")):
            raise InvalidFieldError("A witness is given as its verifier key, a space, and its http(s) address.")
        try:
            return cls(WitnessKey.parse(vkey), url.strip().rstrip("/"))
        except CheckpointError as exc:
            raise InvalidFieldError(f"The verifier key of a witness cannot be used. {exc.sentence}") from exc


@dataclass(frozen=True)
class WitnessState:
    """How one witness stands.

    Attributes:
        size: of the checkpoint that it cosigned last for us; 0 before the first.
        cosigned_at: when, by its own clock, Unix seconds.
        problem: code of what went wrong the last time, empty if nothing did.
    """

    name: str
    verifier_key: str
    url: str
    size: int = 0
    cosigned_at: int | None = None
    problem: str = ""
    sentence: str = ""

    @property
    def contradicts(self) -> bool:
        """Whether the witness says that this log has another history than the one it has seen."""
        return self.problem in CONTRADICTIONS


CONTRADICTIONS: Final = frozenset({"witness.split_view", "witness.proof", "witness.ahead"})


class Witnessing:
    """Submits checkpoints and keeps the newest that is cosigned. Does nothing where no witness is configured.

    Args:
        required: cosignatures that an entry needs before it is acknowledged; 0: none, in the background.
        directory: where the cosigned checkpoint is kept.
        now: Unix time in seconds.
    """

    def __init__(
        self,
        log: Log,
        addresses: Sequence[WitnessAddress],
        *,
        required: int,
        directory: Path,
        now: Callable[[], float],
        timeout_s: float = 5.0,
        interval_s: float = 1.0,
    ) -> None:
        if required > len(addresses):
            raise InvalidFieldError("More cosignatures are required than witnesses are configured.")
        self.required = required
        self._log = log
        self._addresses = tuple(addresses)
        self._directory = directory
        self._now = now
        self._interval_s = interval_s
        self._states = {a.key.text: WitnessState(a.key.name, a.key.text, a.url) for a in addresses}
        self._client = httpx.Client(timeout=timeout_s)
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        self._note = self._stored()

    @property
    def is_configured(self) -> bool:
        """Whether there is any witness to submit to."""
        return bool(self._addresses)

    @property
    def keys(self) -> tuple[WitnessKey, ...]:
        """The witnesses whose cosignatures count."""
        return tuple(address.key for address in self._addresses)

    def start(self) -> None:
        """Submit from now on, before acknowledging or behind the scenes."""
        if not self._addresses:
            return
        if self.required:
            self._log.require_endorsement(self.endorse)
        self._thread = threading.Thread(target=self._keep_up, name="witnessing", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop submitting."""
        self._stopped.set()
        self._log.require_endorsement(None)
        if self._thread is not None:
            self._thread.join(10.0)
        self._client.close()

    # -- what is known

    def note(self) -> str | None:
        """The newest cosigned checkpoint, None before the first."""
        return self._note

    def checkpoint(self) -> Checkpoint | None:
        """The same, parsed."""
        note = self._note
        return (
            None if note is None else verify_checkpoint(note.encode(), self._log.public_keys, origin=self._log.origin)
        )

    def cosignatures(self, note: str) -> tuple[Cosignature, ...]:
        """The valid cosignatures of the configured witnesses on a note."""
        return cosignatures(note.encode(), self.keys)

    def evidence(self, index: int) -> LogEvidence:
        """Evidence under the newest cosigned checkpoint where it covers the entry, else under the newest of all."""
        note, checkpoint = self._note, self.checkpoint()
        if note is not None and checkpoint is not None and index < checkpoint.size:
            return self._log.evidence_under(index, note)
        return self._log.evidence(index)

    def states(self) -> tuple[WitnessState, ...]:
        """Every configured witness."""
        return tuple(self._states.values())

    @property
    def lag_entries(self) -> int:
        """Entries that are not under a cosigned checkpoint yet; 0 where no witness is configured."""
        checkpoint = self.checkpoint()
        return self._log.size - (checkpoint.size if checkpoint else 0) if self._addresses else 0

    @property
    def lag_s(self) -> float:
        """Age of the oldest entry that is not under a cosigned checkpoint, seconds."""
        lag = self.lag_entries
        if not lag:
            return 0.0
        oldest = self._log.entry(self._log.size - lag)
        return max(0.0, self._now() - datetime.fromisoformat(oldest["time"]).timestamp())

    # -- submitting

    def endorse(self, new: Sequence[LogEvidence]) -> Sequence[LogEvidence]:
        """Evidence of new entries under a cosigned checkpoint; what `policy.log.Endorse` asks for.

        Raises: WitnessRequiredError.
        """
        note = self.submit(new[-1].checkpoint)
        if verify_checkpoint(note.encode(), self._log.public_keys).size == new[-1].tree_size:
            return [replace(each, checkpoint=note) for each in new]
        return [self._log.evidence_under(each.index, note) for each in new]

    def submit(self, note: str) -> str:
        """Have a checkpoint cosigned by every witness that answers, and keep the result.

        Returns: the cosigned checkpoint, or a newer one where that has been cosigned already.
        Raises: WitnessRequiredError: fewer than `required` (at least one) cosigned.
        """
        with self._lock:
            checkpoint = verify_checkpoint(note.encode(), self._log.public_keys, origin=self._log.origin)
            known = self.checkpoint()
            if known is not None and self._note is not None and known.size >= checkpoint.size:
                if self._log.root(checkpoint.size) == checkpoint.root:
                    return self._note
                raise WitnessRequiredError("This checkpoint is of another history than the one that was cosigned.")
            if len(self._addresses) == 1:
                answers = [self._ask(self._addresses[0], note, checkpoint)]
            else:
                with ThreadPoolExecutor(len(self._addresses)) as pool:
                    answers = list(pool.map(lambda address: self._ask(address, note, checkpoint), self._addresses))
            found = [answer for answer in answers if answer is not None]
            if len(found) < max(1, self.required):
                raise WitnessRequiredError(
                    f"{len(found)} of {max(1, self.required)} required witnesses cosigned the log. "
                    "Nothing is released until enough do: see that they run, and what they say."
                )
            cosigned = with_cosignatures(note, [each.line for each in found])
            self._store(cosigned)
            return cosigned

    def _ask(self, address: WitnessAddress, note: str, checkpoint: Checkpoint) -> Cosignature | None:
        """Submit to one witness (c2sp.org/tlog-witness). Returns None, and remembers why, where it does not cosign."""
        state = self._states[address.key.text]
        old_size = min(state.size, checkpoint.size)
        problem, sentence = "witness.unreachable", "The witness did not answer."
        for _ in range(_NUM_TRIES):
            try:
                proof = self._log.consistency_proof(old_size, checkpoint.size)
                answer = self._client.post(
                    f"{address.url}/add-checkpoint", content=write_request(old_size, proof, note)
                )
                if answer.status_code == 200:
                    found = self._accept(address, note, answer.content[:_MAX_ANSWER_NUM_BYTES])
                    self._states[address.key.text] = replace(
                        state, size=checkpoint.size, cosigned_at=found.time_s, problem="", sentence=""
                    )
                    return found
                if answer.status_code == 409 and answer.headers.get("content-type", "").startswith(SIZE_MEDIA_TYPE):
                    theirs = int(answer.text[:20])
                    if theirs <= checkpoint.size:
                        old_size = theirs
                        continue
                    problem = "witness.ahead"
                    sentence = (
                        f"The witness has cosigned {theirs} entries, more than the {checkpoint.size} shown to it."
                    )
                    if theirs <= self._log.size:  # somebody of ours was faster
                        problem = "witness.busy"
                    break
                problem, _, sentence = answer.text[:300].strip().partition(": ")
                break
            except httpx.HTTPError as exc:
                problem, sentence = "witness.unreachable", f"The witness did not answer ({type(exc).__name__})."
                break
            except (LogError, ValueError) as exc:
                problem, sentence = "witness.answer", f"The answer of the witness cannot be used. {exc}"
                break
        if state.problem != problem:
            logger.warning("witness %s does not cosign: %s", address.key.name, problem)
        self._states[address.key.text] = replace(state, problem=problem, sentence=sentence)
        return None

    @staticmethod
    def _accept(address: WitnessAddress, note: str, answer: bytes) -> Cosignature:
        """The witness's own line out of its answer, verified; lines of others are ignored. Raises CheckpointError."""
        text, _ = split_note(note.encode())
        for line in parse_response(answer):
            if (line.name, line.key_id) == (address.key.name, address.key.key_id):
                return verify_cosignature(text, line, address.key)
        raise CheckpointError("It holds no cosignature of this witness.")

    def _keep_up(self) -> None:
        """Submit whenever the log has grown."""
        while not self._stopped.wait(self._interval_s):
            try:
                if self.lag_entries:
                    self.submit(self._log.checkpoint())
            except LogError as exc:
                logger.debug("not cosigned yet: %s", exc.code)

    # -- keeping

    def _store(self, note: str) -> None:
        try:
            self._directory.mkdir(mode=0o700, exist_ok=True)
            write_atomically(self._directory / COSIGNED_FILE, note.encode(), mode=0o644)
        except OSError as exc:
            raise WitnessRequiredError(f"The cosigned checkpoint cannot be kept ({exc.strerror}).") from exc
        self._note = note

    def _stored(self) -> str | None:
        """What was kept, if it is ours and its cosignatures still count."""
        try:
            note = (self._directory / COSIGNED_FILE).read_text()
            verify_checkpoint(note.encode(), self._log.public_keys, origin=self._log.origin)
            return note if len(self.cosignatures(note)) >= max(1, self.required) else None
        except FileNotFoundError:
            return None
        except (OSError, ValueError, LogError):
            logger.warning("the cosigned checkpoint on record cannot be used; a new one is asked for")
            return None
