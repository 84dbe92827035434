"""The search index: finds what is in the log, follows it, and is thrown away where it does not fit."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.alarms import GAP_MS, Alarm, ahead_alarm, clock_alarm, clock_event, witness_alarms
from policy.index import EntryIndex, Query, names_in
from policy.keys import KeyRing
from policy.log import Log

from .conftest import ORIGIN, START, Clock

ALICE, BOB = "subject:" + "a" * 32, "subject:" + "b" * 32
CLIENT = "client:" + "c" * 32


@pytest.fixture
def filled(log: Log, clock: Clock) -> Log:
    """Two decisions, a delivery, a rejected token, an hour apart each."""
    bodies: list[tuple[str, dict[str, object]]] = [
        ("decision", {"allowed": True, "reasons": [], "policy_sha256": "1" * 64, "request": {"subject_id": ALICE}}),
        ("delivery", {"decision_index": 0, "video_sha256": "0" * 64}),
        (
            "decision",
            {
                "allowed": False,
                "reasons": ["consent.missing", "scope.missing"],
                "policy_sha256": "2" * 64,
                "request": {"subject_id": BOB, "client_id": CLIENT},
            },
        ),
        ("token.rejected", {"code": "token.expired", "client": CLIENT}),
    ]
    for kind, body in bodies:
        log.append(kind, body)
        clock.now += 3600
    return log


@pytest.fixture
def index(tmp_path: Path, filled: Log) -> EntryIndex:
    index = EntryIndex(tmp_path / "index.sqlite3", filled)
    assert index.catch_up() == 4
    return index


def test_every_way_to_search(index: EntryIndex) -> None:
    for query, expected in (
        (Query(), (3, 2, 1, 0)),
        (Query(names=(ALICE,)), (1, 0)),
        (Query(names=(CLIENT,)), (3, 2)),
        (Query(names=(CLIENT, BOB)), (2,)),
        (Query(kind="decision"), (2, 0)),
        (Query(kind="token."), (3,)),
        (Query(kind="token"), ()),
        (Query(allowed=True), (0,)),
        (Query(allowed=False), (2,)),
        (Query(reason="scope.missing"), (2,)),
        (Query(reason="token.expired"), (3,)),
        (Query(policy_sha256="1" * 64), (0,)),
        (Query(since_s=START + 3600), (3, 2, 1)),
        (Query(since_s=START, until_s=START + 3600), (0,)),
        (Query(kind="'; DROP TABLE entries; --"), ()),
    ):
        found = index.search(query)
        assert (found.indices, found.total, found.next_before) == (expected, len(expected), None), query
    first = index.search(Query(), 3)
    assert (first.indices, first.total, first.next_before) == ((3, 2, 1), 4, 1)
    assert index.search(Query(before=first.next_before)).indices == (0,)
    assert index.names(1) == index.names(0) == (ALICE,), "a delivery is about those whom its decision is about"
    assert index.kinds() == {"decision": 2, "delivery": 1, "token.rejected": 1}
    assert index.reasons() == {"consent.missing": 1, "scope.missing": 1, "token.expired": 1}
    assert index.policies() == {"1" * 64: (0, 0), "2" * 64: (2, 2)}


def test_the_histogram_counts_everything_once(index: EntryIndex) -> None:
    buckets = index.histogram(Query(), 10)
    assert len(buckets) == 10 and buckets[0].start_s == START
    assert sum(each.num_allowed for each in buckets) == 1
    assert sum(each.num_refused for each in buckets) == 1
    assert sum(each.num_other for each in buckets) == 2
    assert index.histogram(Query(kind="nothing")) == []
    assert len(index.histogram(Query(kind="delivery"))) == 1


def test_it_follows_the_log_and_survives_anything(
    index: EntryIndex, filled: Log, keys: KeyRing, tmp_path: Path, clock: Clock
) -> None:
    filled.append("test", {})
    assert index.catch_up() == 1 and index.catch_up() == 0
    index.close()
    # damaged, of an older form, gone: built again
    path = tmp_path / "index.sqlite3"
    for damage in (b"not a database at all" * 100, b"", None):
        for suffix in ("", "-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
        if damage is not None:
            path.write_bytes(damage)
        again = EntryIndex(path, filled)
        assert again.catch_up() == 5
        again.close()
    # of another history of the same length
    other = Log.create(tmp_path / "other", keys.log_key, ORIGIN, now=clock)
    other.append_many([("other", {}) for _ in range(5)])
    elsewhere = EntryIndex(path, other)
    assert elsewhere.catch_up() == 5 and elsewhere.kinds() == {"other": 5}
    elsewhere.close()


def test_a_clock_that_does_not_pass_is_noticed(log: Log, clock: Clock, tmp_path: Path) -> None:
    for step_s in (0, 10, -0.5, -600, 5, 90_000):
        clock.now += step_s
        log.append("test", {})
    index = EntryIndex(tmp_path / "index.sqlite3", log)
    index.catch_up()
    events = index.clock_events()
    assert [(each.index, each.code, each.by_s) for each in events] == [(5, "log.gap", 90_000), (3, "clock.back", 600)]
    times = [datetime.fromisoformat(log.entry(n)["time"]).timestamp() for n in range(6)]
    assert times[3] < times[2], "the entry keeps the time that the clock showed; its number is what counts"
    assert clock_alarm("clock.back", 600, 3, times[3]).severity == "alarm"
    assert "25 hours" in clock_alarm("log.gap", 90_000, 5, times[5]).sentence


@given(st.lists(st.integers(-GAP_MS, GAP_MS // 2), max_size=20))
def test_time_that_passes_raises_no_alarm(steps: list[int]) -> None:
    at = previous = latest = 10**12
    for step in steps:
        at += step
        event = clock_event(previous, latest, at)
        assert (event is not None) == (step < -1000 and latest - at > 1000)
        previous, latest = at, max(latest, at)


def test_witnesses_and_clocks_in_words() -> None:
    class Seen:
        def __init__(self, problem: str) -> None:
            self.name, self.problem, self.sentence = "w1", problem, "Why."
            self.contradicts = problem == "witness.split_view"

    seen = [Seen(""), Seen("witness.unreachable"), Seen("witness.split_view")]
    alarms = witness_alarms(seen, lag_entries=3, lag_s=500, max_lag_s=60)
    assert [each.code for each in alarms] == ["witness.silent", "witness.contradiction", "witness.lag"]
    assert ahead_alarm(START, START, 1) is None
    assert isinstance(ahead_alarm(START + 3600, START, 1), Alarm)
    assert witness_alarms([], lag_entries=0, lag_s=0, max_lag_s=60) == []


def test_pseudonyms_are_found_wherever_they_stand() -> None:
    assert names_in({"a": [ALICE, {"b": BOB}], "c": ALICE, "d": 1, "e": "subject:" + "a" * 31}) == [ALICE, BOB]
