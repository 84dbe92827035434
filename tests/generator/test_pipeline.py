"""The belt: everything in order, never much ahead, errors where they belong, nothing left behind."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from generator.pipeline import Belt


def test_pieces_come_in_order_each_once() -> None:
    with Belt(range(50), 3) as taken:
        assert list(taken) == list(range(50))


def test_an_empty_belt_ends() -> None:
    nothing: list[int] = []
    with Belt(nothing, 1) as taken:
        assert list(taken) == []


def test_the_maker_works_on_a_thread_of_its_own_and_waits_when_the_belt_is_full() -> None:
    made: list[str] = []
    has_made_three = threading.Event()

    def pieces() -> Iterator[int]:
        for piece in range(9):
            made.append(threading.current_thread().name)
            if len(made) == 3:
                has_made_three.set()
            yield piece

    with Belt(pieces(), 2) as taken:
        assert has_made_three.wait(5.0)  # two lie on the belt, the third waits for room
        assert len(made) == 3
        assert list(taken) == list(range(9))
    assert set(made) == {"belt"}


def test_an_error_comes_after_the_pieces_before_it() -> None:
    def pieces() -> Iterator[int]:
        yield from (1, 2)
        raise OSError("the disk is full")

    taken: list[int] = []
    with pytest.raises(OSError, match="the disk is full"), Belt(pieces(), 1) as belt:
        taken.extend(belt)
    assert taken == [1, 2]
    assert all(each.name != "belt" for each in threading.enumerate())


def test_an_error_of_the_taker_stops_the_maker() -> None:
    made: list[int] = []

    def pieces() -> Iterator[int]:
        for piece in range(1_000_000):
            made.append(piece)
            yield piece

    with pytest.raises(ValueError, match="enough"), Belt(pieces(), 2) as taken:
        next(taken)
        raise ValueError("enough")
    assert len(made) < 10
    assert all(each.name != "belt" for each in threading.enumerate())


def test_interrupts_of_the_maker_are_raised_too() -> None:
    def pieces() -> Iterator[int]:
        raise KeyboardInterrupt
        yield 0

    with pytest.raises(KeyboardInterrupt), Belt(pieces(), 1) as taken:
        list(taken)
