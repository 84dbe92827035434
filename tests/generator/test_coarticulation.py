"""The teacher: what must be visible is visible, and silence is still."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from generator.coarticulation import (
    ARTICULATOR_INDEX,
    ARTICULATORS,
    VISEMES,
    Phone,
    articulate,
    lip_aperture,
    phones_from_json,
    speech_spans,
)

TIMES_T = np.arange(150) / 50.0


def spoken(symbols: str, each_s: float = 0.08, start_s: float = 0.5) -> tuple[Phone, ...]:
    rows = [("^", 0.0, start_s)]
    rows += [(symbol, start_s + i * each_s, start_s + (i + 1) * each_s) for i, symbol in enumerate(symbols)]
    return tuple(Phone(*row) for row in [*rows, ("$", rows[-1][2], rows[-1][2] + 0.3)])


def curve(phones: tuple[Phone, ...], name: str) -> np.ndarray:
    return articulate(phones, TIMES_T)[:, ARTICULATOR_INDEX[name]]


def at(phones: tuple[Phone, ...], index: int) -> int:
    """The instant in the middle of phone `index`."""
    return round((phones[index].start_s + phones[index].end_s) / 2 * 50)


@pytest.mark.parametrize("symbol", "pbm")
def test_bilabials_close_the_lips_between_open_vowels(symbol: str) -> None:
    phones = spoken(f"a{symbol}a")
    aperture_T = lip_aperture(articulate(phones, TIMES_T))
    assert aperture_T[at(phones, 2)] < 0.01
    assert aperture_T[at(phones, 1)] > 0.5
    assert aperture_T[at(phones, 3)] > 0.5


@pytest.mark.parametrize("symbol", "pbm")
def test_a_very_short_closure_is_still_seen_at_25_frames_per_second(symbol: str) -> None:
    for offset_s in np.linspace(0.0, 0.04, 9):
        phones = (Phone("a", 0.4, 0.6), Phone(symbol, 0.6, 0.625), Phone("a", 0.625, 0.8))
        aperture_T = lip_aperture(articulate(phones, np.arange(30) / 25 + offset_s))
        near_T = np.abs(np.arange(30) / 25 + offset_s - 0.61) < 0.05
        assert aperture_T[near_T].min() < 0.12


@pytest.mark.parametrize("symbol", "fv")
def test_labiodentals_tuck_the_lower_lip_without_closing(symbol: str) -> None:
    phones = spoken(f"a{symbol}a")
    assert curve(phones, "tuck")[at(phones, 2)] > 0.95
    assert curve(phones, "closure").max() == 0.0
    assert curve(phones, "jaw")[at(phones, 2)] < 0.4


@pytest.mark.parametrize(
    ("symbol", "articulator"),
    [
        ("u", "pucker"),
        ("w", "pucker"),
        ("ɔ", "funnel"),
        ("ʃ", "funnel"),
        ("i", "spread"),
        ("s", "teeth"),
        ("θ", "tongue"),
    ],
)
def test_each_sound_shows_its_own_gesture(symbol: str, articulator: str) -> None:
    phones = spoken(f"ə{symbol}ə", each_s=0.12)
    assert curve(phones, articulator)[at(phones, 2)] > 0.35
    assert curve(phones, articulator)[at(phones, 2)] > 2 * curve(spoken("əkə", each_s=0.12), articulator)[at(phones, 2)]


def test_rounding_starts_before_the_rounded_vowel() -> None:
    """Anticipatory coarticulation: in "stu" the lips round during the consonants."""
    rounded, spread = spoken("stu"), spoken("sti")
    assert curve(rounded, "pucker")[at(rounded, 2)] > curve(spread, "pucker")[at(spread, 2)] + 0.1


def test_open_vowels_open_more_than_close_ones() -> None:
    for wide, narrow in (("a", "i"), ("ɑ", "u"), ("ɛ", "ɪ")):
        phones = spoken(f"t{wide}t"), spoken(f"t{narrow}t")
        assert curve(phones[0], "jaw")[at(phones[0], 2)] > curve(phones[1], "jaw")[at(phones[1], 2)] + 0.1


def test_silence_is_at_rest_before_between_and_after() -> None:
    phones = (*spoken("ama")[:-1], Phone(" ", 0.74, 1.5), Phone("o", 1.5, 1.7), Phone("$", 1.7, 3.0))
    curves_TC = articulate(phones, TIMES_T)
    quiet_T = (TIMES_T < 0.43) | ((TIMES_T > 0.84) & (TIMES_T < 1.43)) | (TIMES_T > 1.8)
    assert np.abs(curves_TC[quiet_T]).max() == 0.0
    assert speech_spans(phones) == [(0.5, 0.74), (1.5, 1.7)]


def test_a_gap_between_words_is_no_silence() -> None:
    phones = (Phone("a", 0.2, 0.4), Phone(" ", 0.4, 0.45), Phone("a", 0.45, 0.6))
    assert curve(phones, "speech")[21] == 1.0
    assert curve(phones, "jaw")[21] > 0.3


def test_length_and_stress_marks_belong_to_their_vowel() -> None:
    plain = (Phone("t", 0.2, 0.3), Phone("ɔ", 0.3, 0.4), Phone("ː", 0.4, 0.5), Phone("t", 0.5, 0.6))
    assert curve(plain, "jaw")[23] > 0.6
    stressed = (Phone("t", 0.2, 0.3), Phone("ˈ", 0.3, 0.32), Phone("ɔ", 0.32, 0.5), Phone("t", 0.5, 0.6))
    assert curve(stressed, "jaw").max() > curve(plain, "jaw").max()


@given(
    st.lists(
        st.tuples(st.sampled_from([*VISEMES, " ", "ˈ", "ː", "?", "☃"]), st.floats(0.0, 0.3)), min_size=0, max_size=25
    )
)
def test_any_sequence_gives_finite_curves_between_0_and_1(sequence: list[tuple[str, float]]) -> None:
    time_s, phones = 0.0, []
    for symbol, length_s in sequence:
        phones.append(Phone(symbol, time_s, time_s + length_s))
        time_s += length_s
    curves_TC = articulate(phones, TIMES_T)
    assert curves_TC.shape == (150, len(ARTICULATORS))
    assert np.isfinite(curves_TC).all()
    assert curves_TC.min() >= 0.0
    assert curves_TC.max() <= 1.0


@pytest.mark.parametrize(
    "rows", [[["a", 0.0]], [["a", "0", 1]], [[1, 0.0, 1.0]], [["a", 1.0, 0.5]], [["a", 1, 2], ["b", 0.5, 3]]]
)
def test_a_broken_transcription_is_refused(rows: list[list[object]]) -> None:
    with pytest.raises(ValueError, match="phone"):
        phones_from_json(rows)
