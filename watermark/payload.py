"""The 64-bit mark id, and the code word that carries it: a convolutional code read with soft decisions.

The code is the rate-1/3, constraint-length-7 code with generators 133, 171, 165 (octal; Proakis, "Digital
Communications", table of maximum free distance codes: d_free = 15), ended by six zeros: 64 bits become 210 symbols.

WIRE FORMAT: marks in circulation depend on generators, bit order (most significant first) and tail. Append, never edit.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numba
import numpy as np
from numpy.typing import NDArray

from watermark.errors import InvalidMarkIdError

NUM_ID_BITS = 64
_CONSTRAINT = 7
_GENERATORS = (0o133, 0o171, 0o165)
_NUM_STATES = 1 << (_CONSTRAINT - 1)
_NUM_STEPS = NUM_ID_BITS + _CONSTRAINT - 1
NUM_SYMBOLS = _NUM_STEPS * len(_GENERATORS)
"""Length of a code word: 210."""


@dataclass(frozen=True, order=True)
class MarkId:
    """The random 64-bit name of one output, which the registry resolves to its manifest."""

    value: int

    def __post_init__(self) -> None:
        if not 0 <= self.value < 1 << NUM_ID_BITS:
            raise InvalidMarkIdError("A mark id is an unsigned 64-bit number.")

    @classmethod
    def random(cls, random_bytes: Callable[[int], bytes] = secrets.token_bytes) -> MarkId:
        """A fresh id; `random_bytes(n)` gives n unpredictable bytes (tests pass a seeded source)."""
        return cls(int.from_bytes(random_bytes(NUM_ID_BITS // 8), "big"))

    @classmethod
    def from_hex(cls, text: str) -> MarkId:
        """Read 16 lower-case hexadecimal digits. Raises: InvalidMarkIdError."""
        if not re.fullmatch("[0-9a-f]{16}", text):
            raise InvalidMarkIdError("A mark id is written as 16 lower-case hexadecimal digits.")
        return cls(int(text, 16))

    @property
    def hex(self) -> str:
        return f"{self.value:016x}"

    def __str__(self) -> str:
        return self.hex


@dataclass(frozen=True)
class Decoded:
    """The code word nearest to what was received.

    Attributes:
        mark_id: its id. Always some id, also for noise: only a registry (or a signed manifest) gives it meaning.
        correlation: cosine between the received symbols and the code word, 1 for a clean reception; noise gives ≈ 0.55.
        num_disagreeing: received symbols whose sign contradicts the code word, of 210.
    """

    mark_id: MarkId
    correlation: float
    num_disagreeing: int


@dataclass(frozen=True)
class _Trellis:
    """State transitions; S state (64), 2 branches into it."""

    symbols_SB3: NDArray[np.float64]  # sent when leaving state s with input bit b: ±1
    next_SB: NDArray[np.int64]
    previous_S2: NDArray[np.int64]
    input_S2: NDArray[np.int64]
    into_S23: NDArray[np.float64]


@cache
def _trellis() -> _Trellis:
    symbols = np.zeros((_NUM_STATES, 2, len(_GENERATORS)))
    following = np.zeros((_NUM_STATES, 2), np.int64)
    previous = np.zeros((_NUM_STATES, 2), np.int64)
    inputs = np.zeros((_NUM_STATES, 2), np.int64)
    num_found = np.zeros(_NUM_STATES, np.int64)
    for state in range(_NUM_STATES):
        for bit in (0, 1):
            register = bit << (_CONSTRAINT - 1) | state
            symbols[state, bit] = [1 - 2 * ((register & generator).bit_count() & 1) for generator in _GENERATORS]
            target = following[state, bit] = register >> 1
            previous[target, num_found[target]] = state
            inputs[target, num_found[target]] = bit
            num_found[target] += 1
    return _Trellis(symbols, following, previous, inputs, symbols[previous, inputs])


def encode(mark_id: MarkId) -> NDArray[np.float64]:
    """The code word of `mark_id`: 210 symbols of ±1."""
    trellis = _trellis()
    bits = [mark_id.value >> (NUM_ID_BITS - 1 - i) & 1 for i in range(NUM_ID_BITS)] + [0] * (_CONSTRAINT - 1)
    state, word = 0, []
    for bit in bits:
        word.append(trellis.symbols_SB3[state, bit])
        state = trellis.next_SB[state, bit]
    return np.concatenate(word)


def decode(soft: NDArray[np.floating]) -> Decoded:
    """The most likely code word (Viterbi) for received symbols.

    Args:
        soft: 210 numbers; the sign says which symbol, the size how sure, on any common scale.
    Returns: the nearest id with how near it is.
    """
    return decode_list(soft, 1)[0]


def decode_list(soft: NDArray[np.floating], count: int) -> list[Decoded]:
    """The `count` most likely code words, the nearest first (parallel list Viterbi; Seshadri and Sundberg 1994).

    A registry tells which of them is meant; every one that is looked up counts as an attempt.

    Args:
        soft: as for `decode`.
        count: how many words, at least 1.
    """
    if soft.shape != (NUM_SYMBOLS,):
        raise ValueError(f"a code word has {NUM_SYMBOLS} symbols, not {soft.shape}")
    trellis = _trellis()
    metrics_L, values_L, disagreeing_L = _list_viterbi(
        np.ascontiguousarray(soft, np.float64).reshape(_NUM_STEPS, -1),
        count,
        trellis.previous_S2,
        trellis.input_S2,
        trellis.into_S23,
    )
    norm = float(np.linalg.norm(soft)) * float(np.sqrt(NUM_SYMBOLS))
    return [
        Decoded(MarkId(int(value)), float(metric) / norm if norm > 0 else 0.0, int(disagreeing))
        for metric, value, disagreeing in zip(metrics_L, values_L, disagreeing_L, strict=True)
    ]


@numba.njit(cache=True, nogil=True)
def _list_viterbi(soft, count, previous, inputs, into):  # type: ignore[no-untyped-def]
    """The best `count` paths that end in state 0, best first: their correlation, their bits as one number, and how many
    of their symbols the received ones contradict."""
    num_steps, num_states = soft.shape[0], previous.shape[0]
    metrics = np.full((num_states, count), -np.inf)
    metrics[0, 0] = 0.0
    following = np.empty_like(metrics)
    branches = np.zeros((num_steps, num_states, count), np.uint8)
    ranks = np.zeros((num_steps, num_states, count), np.int32)
    for step in range(num_steps):
        for state in range(num_states):
            first, second = previous[state, 0], previous[state, 1]
            gain_first = (soft[step] * into[state, 0]).sum()
            gain_second = (soft[step] * into[state, 1]).sum()
            rank_first = rank_second = 0  # both lists are sorted: merge them
            for rank in range(count):
                by_first = metrics[first, rank_first] + gain_first
                by_second = metrics[second, rank_second] + gain_second
                if by_first >= by_second:
                    following[state, rank], ranks[step, state, rank] = by_first, rank_first
                    rank_first += 1
                else:
                    following[state, rank], ranks[step, state, rank] = by_second, rank_second
                    branches[step, state, rank] = 1
                    rank_second += 1
        metrics, following = following, metrics
    num_found = 0
    while num_found < count and metrics[0, num_found] > -np.inf:
        num_found += 1
    values, disagreeing = np.zeros(num_found, np.uint64), np.zeros(num_found, np.int64)
    for found in range(num_found):
        state, rank = 0, found
        for step in range(num_steps - 1, -1, -1):
            branch = branches[step, state, rank]
            if step < NUM_ID_BITS and inputs[state, branch]:
                values[found] |= np.uint64(1) << np.uint64(NUM_ID_BITS - 1 - step)
            disagreeing[found] += (soft[step] * into[state, branch] < 0).sum()
            rank = ranks[step, state, rank]
            state = previous[state, branch]
    return metrics[0, :num_found].copy(), values, disagreeing
