"""Group commit: everything is done once, in order, and leadership survives whatever happens to a leader."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

import pytest

from policy.group import GroupCommit


@dataclass
class Part:
    number: int
    is_done: bool = False


class Disk:
    """Takes a moment per batch, as an fsync does; never two batches at once."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.busy = threading.Lock()

    def commit(self, batch: list[Part]) -> None:
        assert self.busy.acquire(blocking=False), "two batches at once"
        time.sleep(0.002)
        self.batches.append([part.number for part in batch])
        for part in batch:
            part.is_done = True
        self.busy.release()


def run_threads(work: list[threading.Thread]) -> None:
    for thread in work:
        thread.start()
    for thread in work:
        thread.join(timeout=30)
        assert not thread.is_alive(), "somebody waits for ever"


def test_one_caller() -> None:
    disk = Disk()
    GroupCommit(disk.commit, 4).run([Part(n) for n in range(10)])
    assert disk.batches == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


def test_nothing_to_do() -> None:
    disk = Disk()
    group: GroupCommit[Part] = GroupCommit(disk.commit, 4)
    group.run([])
    group.run([Part(1)])
    assert disk.batches == [[1]]


def test_many_callers_fill_batches() -> None:
    disk = Disk()
    group = GroupCommit(disk.commit, 50)

    def work(caller: int) -> None:
        for n in range(20):
            group.run([Part(caller * 1000 + n)])

    run_threads([threading.Thread(target=work, args=(n,), daemon=True) for n in range(16)])
    done = [number for batch in disk.batches for number in batch]
    assert sorted(done) == sorted(caller * 1000 + n for caller in range(16) for n in range(20))
    for caller in range(16):
        mine = [number for number in done if number // 1000 == caller]
        assert mine == sorted(mine), "a caller's work keeps its order"
    assert max(map(len, disk.batches)) >= 8, "batches do not fill up"


def test_a_large_caller_among_small_ones() -> None:
    disk = Disk()
    group = GroupCommit(disk.commit, 7)
    large = threading.Thread(target=lambda: group.run([Part(n) for n in range(100)]), daemon=True)
    small = [threading.Thread(target=lambda n=n: group.run([Part(1000 + n)]), daemon=True) for n in range(10)]
    run_threads([large, *small])
    assert sum(map(len, disk.batches)) == 110
    assert all(len(batch) <= 7 for batch in disk.batches)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_leader_that_is_interrupted_hands_over() -> None:
    disk = Disk()
    struck = threading.Event()

    def commit(batch: list[Part]) -> None:
        if not struck.is_set():
            struck.set()
            time.sleep(0.02)  # let the others queue up
            for part in batch:
                part.is_done = True
            raise KeyboardInterrupt
        disk.commit(batch)

    group = GroupCommit(commit, 50)
    run_threads([threading.Thread(target=lambda n=n: group.run([Part(n)]), daemon=True) for n in range(8)])
    group.run([Part(99)])
    assert disk.batches[-1] == [99]
