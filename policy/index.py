"""A search index beside the log: by time, pseudonym, kind, outcome, reason, policy. Not part of the truth.

One SQLite file that can be deleted at any time: it is built again from the log. It remembers the root of the tree that
it has read, so an index of another history is noticed and thrown away. What it finds are numbers of entries; whoever
wants to be sure reads the entries themselves, with their proofs.

Clock jumps are noted on the way, because only here every entry is seen in order.
"""

from __future__ import annotations

import re
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from policy.alarms import clock_event
from policy.errors import LogError, SearchIndexError
from policy.log import Log

INDEX_VERSION: Final = 1
MAX_LIMIT: Final = 500
_CHUNK: Final = 1000
_PSEUDONYM = re.compile(r"[a-z][a-z0-9_.-]*:[0-9a-f]{32}")
_MAX_NAMES: Final = 200
_TABLES: Final = """
CREATE TABLE entries (idx INTEGER PRIMARY KEY, at_ms INTEGER NOT NULL, kind TEXT NOT NULL, allowed INTEGER,
                      policy TEXT);
CREATE INDEX entries_by_time ON entries (at_ms);
CREATE INDEX entries_by_kind ON entries (kind, idx);
CREATE INDEX entries_by_policy ON entries (policy, idx) WHERE policy IS NOT NULL;
CREATE TABLE names (name TEXT NOT NULL, idx INTEGER NOT NULL, PRIMARY KEY (name, idx)) WITHOUT ROWID;
CREATE INDEX names_by_entry ON names (idx);
CREATE TABLE reasons (code TEXT NOT NULL, idx INTEGER NOT NULL, PRIMARY KEY (code, idx)) WITHOUT ROWID;
CREATE INDEX reasons_by_entry ON reasons (idx);
CREATE TABLE clock (idx INTEGER PRIMARY KEY, code TEXT NOT NULL, by_ms INTEGER NOT NULL, at_ms INTEGER NOT NULL);
CREATE TABLE state (one INTEGER PRIMARY KEY CHECK (one = 1), size INTEGER NOT NULL, root TEXT NOT NULL,
                    latest_ms INTEGER NOT NULL, previous_ms INTEGER NOT NULL);
INSERT INTO state VALUES (1, 0, '', 0, 0);
"""
_COUNTS: Final = "SELECT (at_ms - ?) / ?, sum(allowed IS 1), sum(allowed IS 0), sum(allowed IS NULL) FROM entries"


@dataclass(frozen=True)
class Query:
    """What to look for; everything that is set must hold.

    Args:
        since_s, until_s: Unix seconds, from and up to but not including.
        names: pseudonyms that the entry, or the decision that it belongs to, speaks of.
        kind: a kind, or its first words followed by a dot (`render.`).
        allowed: outcome of a decision.
        reason: a reason of a refusal, or the code of a failure or rejection.
        before: only entries with smaller numbers: where the last page ended.
    """

    since_s: float | None = None
    until_s: float | None = None
    names: tuple[str, ...] = ()
    kind: str = ""
    allowed: bool | None = None
    reason: str = ""
    policy_sha256: str = ""
    before: int | None = None


@dataclass(frozen=True)
class Found:
    """A page of results, newest first. `next_before` leads to the next page; None: there is none."""

    indices: tuple[int, ...]
    total: int
    next_before: int | None


@dataclass(frozen=True)
class ClockEvent:
    """An entry whose time does not follow from the one before it."""

    index: int
    code: str
    by_s: float
    at_s: float


@dataclass(frozen=True)
class Bucket:
    """A stretch of time and what happened in it."""

    start_s: float
    num_allowed: int
    num_refused: int
    num_other: int


class EntryIndex:
    """The index of one log in one file. Safe for several threads; several processes may share the file."""

    def __init__(self, path: Path, log: Log) -> None:
        """Open the index, or begin a new one. Raises: SearchIndexError: the file cannot be used."""
        self._path = path
        self._log = log
        self._lock = threading.RLock()
        self._is_closing = False
        self._db = self._open()

    def close(self) -> None:
        """Close the file, also while somebody lets it catch up."""
        self._is_closing = True
        with self._lock:
            self._db.close()

    def catch_up(self) -> int:
        """Read what the log holds and the index does not know yet. Returns the number of entries indexed.

        Raises: SearchIndexError; LogError: the log cannot be read.
        """
        with self._lock:
            try:
                if not self._is_of_this_history():
                    self._rebuild()
                return self._read_on()
            except sqlite3.DatabaseError as exc:
                if isinstance(exc, sqlite3.OperationalError):
                    raise _unusable(exc) from exc
                self._rebuild()  # a damaged file is no loss
                return self._read_on()

    def search(self, query: Query, limit: int = 100) -> Found:
        """The newest entries that fit, at most `limit` (500). Raises: SearchIndexError."""
        limit = max(1, min(limit, MAX_LIMIT))
        where, values = _where(query)
        page, page_values = _where(query, with_before=True)
        with self._reading() as db:
            (total,) = db.execute(f"SELECT count(*) FROM entries WHERE {where}", values).fetchone()  # noqa: S608
            rows = db.execute(
                f"SELECT idx FROM entries WHERE {page} ORDER BY idx DESC LIMIT ?",  # noqa: S608
                [*page_values, limit + 1],
            ).fetchall()
        indices = tuple(int(row[0]) for row in rows[:limit])
        return Found(indices, int(total), indices[-1] if len(rows) > limit else None)

    def histogram(self, query: Query, num_buckets: int = 48) -> list[Bucket]:
        """What fits, over time, in equal stretches from the first such entry to the last. Raises: SearchIndexError."""
        where, values = _where(query)
        with self._reading() as db:
            first, last = db.execute(
                f"SELECT min(at_ms), max(at_ms) FROM entries WHERE {where}",  # noqa: S608
                values,
            ).fetchone()
            if first is None:
                return []
            width = max(1000, -(-(last - first + 1) // num_buckets))
            rows = db.execute(
                f"{_COUNTS} WHERE {where} GROUP BY 1",
                [first, width, *values],
            ).fetchall()
        counts = {int(row[0]): row[1:] for row in rows}
        return [
            Bucket((first + nth * width) / 1000, *map(int, counts.get(nth, (0, 0, 0))))
            for nth in range((last - first) // width + 1)
        ]

    def names(self, index: int) -> tuple[str, ...]:
        """The pseudonyms that an entry, or the decision that it belongs to, speaks of. Raises: SearchIndexError."""
        with self._reading() as db:
            rows = db.execute("SELECT name FROM names WHERE idx = ? ORDER BY name", (index,))
            return tuple(str(row[0]) for row in rows)

    def kinds(self) -> dict[str, int]:
        """Every kind of entry, and how many there are. Raises: SearchIndexError."""
        with self._reading() as db:
            return {str(kind): int(num) for kind, num in db.execute("SELECT kind, count(*) FROM entries GROUP BY 1")}

    def reasons(self) -> dict[str, int]:
        """Every reason, and how often it was given. Raises: SearchIndexError."""
        with self._reading() as db:
            return {str(code): int(num) for code, num in db.execute("SELECT code, count(*) FROM reasons GROUP BY 1")}

    def policies(self) -> dict[str, tuple[int, int]]:
        """Every policy hash that decided something: first and last entry. Raises: SearchIndexError."""
        statement = "SELECT policy, min(idx), max(idx) FROM entries WHERE policy IS NOT NULL GROUP BY 1 ORDER BY 2"
        with self._reading() as db:
            return {str(policy): (int(first), int(last)) for policy, first, last in db.execute(statement)}

    def clock_events(self, limit: int = 100) -> list[ClockEvent]:
        """Entries whose time does not follow, newest first. Raises: SearchIndexError."""
        with self._reading() as db:
            rows = db.execute("SELECT idx, code, by_ms, at_ms FROM clock ORDER BY idx DESC LIMIT ?", (limit,))
            return [ClockEvent(int(idx), str(code), by / 1000, at / 1000) for idx, code, by, at in rows]

    # -- building

    def _read_on(self) -> int:
        """Index everything up to the present end of the log."""
        num_done, size = 0, self._log.size
        while not self._is_closing:
            with self._writing() as db:
                start, latest_ms, previous_ms = db.execute("SELECT size, latest_ms, previous_ms FROM state").fetchone()
                if start >= size:
                    return num_done
                entries = self._log.entries(start, min(_CHUNK, size - start))
                for entry in entries:
                    at_ms = _milliseconds(entry["time"])
                    event = clock_event(previous_ms, latest_ms, at_ms) if entry["index"] else None
                    if event is not None:
                        db.execute(
                            "INSERT INTO clock VALUES (?, ?, ?, ?)", (entry["index"], event.code, event.by_ms, at_ms)
                        )
                    previous_ms, latest_ms = at_ms, max(latest_ms, at_ms)
                    _insert(db, entry, at_ms)
                end = start + len(entries)
                db.execute(
                    "UPDATE state SET size = ?, root = ?, latest_ms = ?, previous_ms = ?",
                    (end, self._log.root(end).hex(), latest_ms, previous_ms),
                )
                num_done += len(entries)
        return num_done

    def _is_of_this_history(self) -> bool:
        size, root = self._db.execute("SELECT size, root FROM state").fetchone()
        return size == 0 or (size <= self._log.size and self._log.root(size).hex() == root)

    def _rebuild(self) -> None:
        """Begin again with an empty file."""
        with suppress(sqlite3.Error):
            self._db.close()
        for suffix in ("", "-wal", "-shm"):
            self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)
        self._db = self._open()

    def _open(self) -> sqlite3.Connection:
        try:
            db = sqlite3.connect(self._path, timeout=30, isolation_level=None, check_same_thread=False)
            try:
                db.execute("PRAGMA journal_mode=WAL")
                db.execute("PRAGMA synchronous=NORMAL")
                (version,) = db.execute("PRAGMA user_version").fetchone()
            except sqlite3.DatabaseError:
                version = -1
            if version not in (0, INDEX_VERSION):
                db.close()
                self._path.unlink(missing_ok=True)
                return self._open()
            if version == 0:
                db.executescript(f"BEGIN IMMEDIATE; {_TABLES} PRAGMA user_version = {INDEX_VERSION}; COMMIT")
        except (sqlite3.Error, OSError) as exc:
            raise _unusable(exc) from exc
        return db

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                yield self._db
            except sqlite3.Error as exc:
                raise _unusable(exc) from exc

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield self._db
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")


def names_in(value: object) -> list[str]:
    """Every pseudonym in a JSON value, each once, in order."""
    found: dict[str, None] = {}
    stack = [value]
    while stack and len(found) < _MAX_NAMES:
        item = stack.pop()
        if isinstance(item, str):
            if _PSEUDONYM.fullmatch(item):
                found[item] = None
        elif isinstance(item, dict):
            stack.extend(reversed(list(item.values())))
        elif isinstance(item, list):
            stack.extend(reversed(item))
    return list(found)


def _insert(db: sqlite3.Connection, entry: dict[str, Any], at_ms: int) -> None:
    body, index = entry["body"], entry["index"]
    allowed = body.get("allowed")
    policy = body.get("policy_sha256")
    db.execute(
        "INSERT INTO entries VALUES (?, ?, ?, ?, ?)",
        (
            index,
            at_ms,
            entry["kind"],
            int(allowed) if isinstance(allowed, bool) else None,
            policy if isinstance(policy, str) else None,
        ),
    )
    names = set(names_in(body))
    about = body.get("decision_index")
    if type(about) is int and about < index:  # what follows from a decision concerns the same people
        names |= {str(row[0]) for row in db.execute("SELECT name FROM names WHERE idx = ?", (about,))}
    db.executemany("INSERT INTO names VALUES (?, ?)", [(name, index) for name in names])
    codes = set(_strings(body.get("reasons"))) | set(_strings([body.get("code")]))
    db.executemany("INSERT INTO reasons VALUES (?, ?)", [(code, index) for code in codes])


def _strings(value: object) -> list[str]:
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []


def _where(query: Query, *, with_before: bool = False) -> tuple[str, list[Any]]:
    terms: list[str] = ["1"]
    values: list[Any] = []

    def add(term: str, *given: Any) -> None:
        terms.append(term)
        values.extend(given)

    if query.since_s is not None:
        add("at_ms >= ?", int(query.since_s * 1000))
    if query.until_s is not None:
        add("at_ms < ?", int(query.until_s * 1000))
    for name in query.names:
        add("idx IN (SELECT idx FROM names WHERE name = ?)", name)
    if query.kind.endswith("."):
        add("kind >= ? AND kind < ?", query.kind, query.kind[:-1] + "/")
    elif query.kind:
        add("kind = ?", query.kind)
    if query.allowed is not None:
        add("allowed = ?", int(query.allowed))
    if query.reason:
        add("idx IN (SELECT idx FROM reasons WHERE code = ?)", query.reason)
    if query.policy_sha256:
        add("policy = ?", query.policy_sha256)
    if with_before and query.before is not None:
        add("idx < ?", query.before)
    return " AND ".join(terms), values


def read_entries(log: Log, indices: Sequence[int]) -> list[dict[str, Any]]:
    """The entries themselves, in the order of `indices`. Raises: LogError."""
    return [log.entry(index) for index in indices]


def _milliseconds(moment: str) -> int:
    try:
        return round(datetime.fromisoformat(moment).timestamp() * 1000)
    except ValueError as exc:
        raise LogError("An entry carries a time that is none.") from exc


def _unusable(exc: Exception) -> SearchIndexError:
    return SearchIndexError(
        f"The search index cannot be used ({type(exc).__name__}); delete it, and it is built again from the log."
    )
