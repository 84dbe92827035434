"""The belt between two rooms: one thread makes, another takes, and never more than a few pieces lie in between.

Rendering a frame and marking and encoding the one before it have nothing to wait for in each other, and both leave
Python's lock alone most of the time: on two cores they run side by side.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

_Piece = TypeVar("_Piece")
_GLANCE_S: Final = 0.2  # how often a maker that waits for room looks whether anybody still wants what it makes


@dataclass(frozen=True)
class _End:
    """The maker is done: with everything, or because of an error."""

    error: BaseException | None


class Belt(Generic[_Piece]):
    """Makes the pieces of an iterable on a thread of its own, ahead of whoever takes them.

    The pieces come in order, each once. An error of the maker is raised where its piece would have come. Use as a
    context manager: leaving it stops the maker before its next piece, and waits for it.

    Args:
        pieces: iterated on the other thread alone.
        depth: how many finished pieces may lie on the belt; the maker waits when it is full.
    """

    def __init__(self, pieces: Iterable[_Piece], depth: int) -> None:
        self._pieces = pieces
        self._belt: queue.Queue[_Piece | _End] = queue.Queue(depth)
        self._is_left = threading.Event()
        self._maker = threading.Thread(target=self._make, name="belt", daemon=True)

    def __enter__(self) -> Iterator[_Piece]:
        self._maker.start()
        return self._taken()

    def __exit__(self, *_: object) -> None:
        self._is_left.set()
        self._maker.join()

    def _taken(self) -> Iterator[_Piece]:
        while not isinstance(piece := self._belt.get(), _End):
            yield piece
        if piece.error is not None:
            raise piece.error

    def _make(self) -> None:
        error: BaseException | None = None
        try:
            for piece in self._pieces:
                if not self._put(piece):
                    return
        except BaseException as exc:  # raised again where the pieces are taken
            error = exc
        self._put(_End(error))

    def _put(self, piece: _Piece | _End) -> bool:
        """Lay a piece on the belt; False if nobody takes any more."""
        while not self._is_left.is_set():
            try:
                self._belt.put(piece, timeout=_GLANCE_S)
            except queue.Full:
                continue
            return True
        return False
