"""The auditor's desk: search the log, repeat decisions, compare policies, look behind a pseudonym, hear alarms.

It joins what `policy` keeps apart: the log, which is the truth, the index beside it, the policy texts, the witnesses.
Looking behind a pseudonym breaks a glass: it asks for a reason, is an entry of the log before the answer is given, and
is shown to the person whom it concerns.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from sqlalchemy import select
from sqlalchemy.orm import Session

from api.errors import InvalidFieldError, NotFoundError
from api.storage.database import Database
from api.storage.models import Client, Reveal, Subject, Use
from api.witnessing import Witnessing
from policy.alarms import Alarm, ahead_alarm, clock_alarm, witness_alarms
from policy.archive import PolicyArchive
from policy.canonical import sha256_hex
from policy.decision import Decision, replay
from policy.errors import CheckpointError, LogError, ReplayError
from policy.gate import DECISION_KIND, Gate
from policy.index import EntryIndex, Found, Query, read_entries
from policy.instance import Instance
from policy.keys import KeyAccess
from policy.log import Log
from policy.note import verify_checkpoint

REVEAL_KIND: Final = "audit.reveal"
SPLIT_VIEW_KIND: Final = "audit.split_view"
INDEX_FILE: Final = "audit.sqlite3"
MIN_REASON_NUM_CHARS: Final = 10
MAX_REASON_NUM_CHARS: Final = 500
_MAX_CLOCK_ALARMS: Final = 50


@dataclass(frozen=True)
class Replay:
    """A decision, made again.

    Attributes:
        same: whether it comes out as it was logged.
        decision: what came out; None where it could not be made again.
        sentence: for people.
    """

    index: int
    same: bool
    decision: Decision | None
    policy_sha256: str
    sentence: str


@dataclass(frozen=True)
class Comparison:
    """A checkpoint that was seen elsewhere, against the log here."""

    size: int
    consistent: bool
    sentence: str
    log_index: int | None = None


@dataclass(frozen=True)
class Revealed:
    """Who is behind a pseudonym. `log_index` is the entry that says that somebody looked."""

    pseudonym: str
    kind: str
    account_id: str
    name: str
    org: str
    log_index: int


class AuditDesk:
    """What auditors can do, for the API, the pages and the command line alike.

    Args:
        database: None where only the log can be looked at (`placet audit` beside a running server).
        witnessing: None where nothing is known of the witnesses.
    """

    def __init__(
        self,
        instance: Instance,
        *,
        now: Callable[[], float],
        database: Database | None = None,
        witnessing: Witnessing | None = None,
        max_lag_s: float = 60.0,
    ) -> None:
        self._instance = instance
        self._now = now
        self._database = database
        self._witnessing = witnessing
        self._max_lag_s = max_lag_s
        self._index = EntryIndex(instance.home / INDEX_FILE, instance.log)

    def close(self) -> None:
        """Close the index."""
        self._index.close()

    def catch_up(self) -> None:
        """Let the index read what the log holds and it does not. Raises LogError."""
        self._index.catch_up()

    @property
    def log(self) -> Log:
        """The log itself."""
        return self._instance.log

    @property
    def archive(self) -> PolicyArchive:
        """Every policy text that ever decided here."""
        return self._instance.archive

    @property
    def current_policy(self) -> str:
        """Hash of the policies in use."""
        return self._instance.engine.policy_sha256

    @property
    def index(self) -> EntryIndex:
        """The search index, up to date with the log."""
        self._index.catch_up()
        return self._index

    # -- looking

    def search(self, query: Query, limit: int) -> tuple[Found, list[dict[str, Any]]]:
        """The newest entries that fit: their numbers, and the entries. Raises LogError."""
        found = self.index.search(query, limit)
        return found, read_entries(self.log, found.indices)

    def replay(self, index: int) -> Replay:
        """Make a logged decision again, by the policies of its time.

        Raises: EntryNotFoundError; NotFoundError: not a decision. ArchiveError: its policies are not kept here.
        """
        entry = self.log.entry(index)
        if entry["kind"] != DECISION_KIND:
            raise NotFoundError("Only decisions can be repeated; this entry is of another kind.")
        policy_sha256 = str(entry["body"].get("policy_sha256", ""))
        engine = self.archive.engine(policy_sha256)
        try:
            decision = replay(entry, engine)
        except ReplayError as exc:
            return Replay(index, False, None, policy_sha256, exc.sentence)
        return Replay(index, True, decision, policy_sha256, "It comes out as it was logged, for the same reasons.")

    def compare(self, note: str, *, by: str) -> Comparison:
        """Hold a checkpoint that was seen elsewhere against this log; one of another history is logged, and an alarm.

        Args:
            by: client_id of whoever asks.
        Raises: InvalidFieldError: not a checkpoint that this log signed.
        """
        log = self.log
        try:
            seen = verify_checkpoint(note.encode("utf-8", "replace"), log.public_keys, origin=log.origin)
        except CheckpointError as exc:
            raise InvalidFieldError(f"This is not a checkpoint of this log. {exc.sentence}") from exc
        if seen.size > log.size:
            sentence = f"This log has {log.size} entries, the checkpoint covers {seen.size}: the log was set back."
        elif log.root(seen.size) != seen.root:
            sentence = f"Of its first {seen.size} entries this log has another history than the checkpoint covers."
        else:
            return Comparison(seen.size, True, f"This log continues the checkpoint of {seen.size} entries.")
        evidence = self._gate.record(
            SPLIT_VIEW_KIND,
            {
                "by": self._gate.pseudonym("client", by),
                "size": seen.size,
                "root": seen.root.hex(),
                "checkpoint_sha256": sha256_hex(note.encode("utf-8", "replace")),
            },
        )
        return Comparison(seen.size, False, sentence, evidence.index)

    # -- breaking the glass

    def reveal(self, pseudonym: str, reason: str, *, by: str, by_org: str) -> Revealed:
        """Say who is behind a pseudonym of the log.

        Args:
            reason: why, in words; kept, and shown to the person. The log holds its hash.
            by, by_org: client_id and organisation of whoever looks.
        Raises: InvalidFieldError: no reason. NotFoundError: nobody here has that pseudonym; that is logged too.
        """
        if self._database is None:
            raise NotFoundError("There is no database here to look into.")
        reason = " ".join(reason.split())
        if not MIN_REASON_NUM_CHARS <= len(reason) <= MAX_REASON_NUM_CHARS or not reason.isprintable():
            raise InvalidFieldError(
                f"Say why, in {MIN_REASON_NUM_CHARS} to {MAX_REASON_NUM_CHARS} characters: it is kept, and shown to "
                "the person."
            )
        with self._database.write() as session:
            found = self._behind(session, pseudonym)
            # on record before the answer is given
            evidence = self._gate.record(
                REVEAL_KIND,
                {
                    "pseudonym": pseudonym[:80],
                    "by": self._gate.pseudonym("client", by),
                    "reason_sha256": sha256_hex(reason.encode()),
                    "found": found is not None,
                },
            )
            session.add(
                Reveal(
                    log_index=evidence.index,
                    pseudonym=pseudonym[:80],
                    account_id=None if found is None else found[1],
                    by_client=by,
                    reason=reason,
                    created_at=self._now(),
                )
            )
            if found is not None and found[0] == "subject":
                session.add(
                    Use(
                        log_index=evidence.index,
                        subject_id=found[1],
                        kind=REVEAL_KIND,
                        org=by_org,
                        purpose=reason[:200],
                        created_at=self._now(),
                    )
                )
        if found is None:
            raise NotFoundError("Nobody on record here has this pseudonym; that you looked is on record.")
        kind, account_id, name, org = found
        return Revealed(pseudonym, kind, account_id, name, org, evidence.index)

    def _behind(self, session: Session, pseudonym: str) -> tuple[str, str, str, str] | None:
        """Kind, id, name and organisation of the account that has a pseudonym: by trying all of them."""
        space = pseudonym.partition(":")[0]
        if space == "subject":
            for subject_id in session.scalars(select(Subject.subject_id)):
                if self._gate.pseudonym("subject", subject_id) == pseudonym:
                    return "subject", subject_id, "", ""
        elif space == "client":
            for client in session.scalars(select(Client)):
                if self._gate.pseudonym("client", client.client_id) == pseudonym:
                    return client.kind, client.client_id, client.name, client.org
        elif space == "org":
            for org in session.scalars(select(Client.org).distinct()):
                if self._gate.pseudonym("org", org) == pseudonym:
                    return "org", org, org, org
        return None

    # -- alarms

    def alarms(self) -> list[Alarm]:
        """Everything that an auditor must know of now, the worst first. Never raises for what is wrong with the log."""
        found: list[Alarm] = []
        try:
            found += self._log_alarms()
        except LogError as exc:
            found.append(Alarm("log.unreadable", "alarm", exc.sentence))
        try:
            found += self._witness_alarms()
        except LogError as exc:
            found.append(Alarm("log.unreadable", "alarm", exc.sentence))
        unique = {(each.code, each.index, each.sentence): each for each in found}
        return sorted(unique.values(), key=lambda each: (each.severity != "alarm", -(each.index or 0)))

    def _log_alarms(self) -> Sequence[Alarm]:
        index = self.index
        found = [
            clock_alarm(each.code, each.by_s, each.index, each.at_s) for each in index.clock_events(_MAX_CLOCK_ALARMS)
        ]
        if size := self.log.size:
            newest = self.log.entry(size - 1)
            ahead = ahead_alarm(_seconds(newest), self._now(), newest["index"])
            found += [ahead] if ahead is not None else []
        for seen in index.search(Query(kind=SPLIT_VIEW_KIND)).indices:
            entry = self.log.entry(seen)
            sentence = f"Somebody holds a signed checkpoint of {entry['body']['size']} entries of another history."
            found.append(Alarm("log.split_view", "alarm", sentence, seen, _seconds(entry)))
        return found

    def _witness_alarms(self) -> Sequence[Alarm]:
        witnessing = self._witnessing
        if witnessing is None or not witnessing.is_configured:
            return []
        found = witness_alarms(
            witnessing.states(),
            lag_entries=witnessing.lag_entries,
            lag_s=witnessing.lag_s,
            max_lag_s=self._max_lag_s,
        )
        # what a witness cosigned cannot be younger than its cosignature
        checkpoint, note = witnessing.checkpoint(), witnessing.note()
        if checkpoint is not None and note is not None and checkpoint.size:
            newest = self.log.entry(checkpoint.size - 1)
            for cosignature in witnessing.cosignatures(note):
                ahead = ahead_alarm(_seconds(newest), cosignature.time_s, newest["index"], clock=cosignature.name)
                found += [ahead] if ahead is not None else []
        return found

    @property
    def _gate(self) -> Gate:
        return self._instance.gate


def desk_for(home: Path, now: Callable[[], float], access: KeyAccess | None = None) -> AuditDesk:
    """A desk on a home where no server needs to run. Raises InstanceError, LogError."""
    return AuditDesk(Instance.open(home, access=access, now=now), now=now)


def _seconds(entry: dict[str, Any]) -> float:
    return datetime.fromisoformat(entry["time"]).timestamp()
