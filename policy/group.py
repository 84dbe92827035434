"""Group commit: many threads hand in work, one of them does it for all, and nobody waits longer than two rounds.

The thread that finds nobody at work leads: it takes what has been handed in and commits it in one go. What arrives in
the meantime waits, and the first of the waiting leads next, so leadership goes round and batches fill up by themselves.
(A plain lock does not do this: whoever releases it tends to get it again at once, with a batch of one.)
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar


class Work(Protocol):
    """Something to commit; `is_done` becomes true when it is committed or has failed."""

    @property
    def is_done(self) -> bool: ...


WorkT = TypeVar("WorkT", bound=Work)


@dataclass(eq=False)
class _Ticket(Generic[WorkT]):
    """What one caller has handed in."""

    waiting: deque[WorkT]
    work: Sequence[WorkT]
    wake: threading.Event = field(default_factory=threading.Event)

    @property
    def is_done(self) -> bool:
        return all(each.is_done for each in self.work)


class GroupCommit(Generic[WorkT]):
    """Runs `commit` for everybody, one batch at a time, in the order in which work was handed in.

    Args:
        commit: does a batch and makes each of its parts done; it does not raise for a part that fails.
        max_batch: most parts in a batch.
    """

    def __init__(self, commit: Callable[[list[WorkT]], None], max_batch: int) -> None:
        self._commit = commit
        self._max_batch = max_batch
        self._lock = threading.Lock()
        self._queue: deque[_Ticket[WorkT]] = deque()
        self._leader: _Ticket[WorkT] | None = None

    def run(self, work: Sequence[WorkT]) -> None:
        """Hand in work and return when all of it is done."""
        if not work:
            return
        ticket = _Ticket(deque(work), work)
        with self._lock:
            self._queue.append(ticket)
            leads = self._leader is None
            if leads:
                self._leader = ticket
        try:
            if not leads:
                ticket.wake.wait()  # done by another leader, or chosen to lead
            while not ticket.is_done:
                self._commit_next()
        finally:
            self._leave(ticket)

    def _commit_next(self) -> None:
        """Commit a batch out of what has been handed in, and wake those whose work is done."""
        batch: list[WorkT] = []
        served: list[_Ticket[WorkT]] = []
        with self._lock:
            while self._queue and len(batch) < self._max_batch:
                ticket = self._queue[0]
                while ticket.waiting and len(batch) < self._max_batch:
                    batch.append(ticket.waiting.popleft())
                if not ticket.waiting:
                    served.append(self._queue.popleft())
        try:
            self._commit(batch)
        finally:
            for ticket in served:
                ticket.wake.set()

    def _leave(self, ticket: _Ticket[WorkT]) -> None:
        """Go, and if this thread led, let the first of the waiting lead."""
        with self._lock:
            if ticket.waiting and ticket in self._queue:  # interrupted
                self._queue.remove(ticket)
            if self._leader is ticket:
                self._leader = self._queue[0] if self._queue else None
                if self._leader is not None:
                    self._leader.wake.set()
