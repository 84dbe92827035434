"""The mark id and its code word."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from watermark.errors import InvalidMarkIdError
from watermark.payload import NUM_SYMBOLS, MarkId, decode, decode_list, encode

ids = st.integers(0, 2**64 - 1).map(MarkId)


@settings(deadline=None)  # the first call compiles
@given(ids)
def test_a_clean_word_decodes_to_its_id(mark_id: MarkId) -> None:
    decoded = decode(encode(mark_id))
    assert decoded.mark_id == mark_id
    assert decoded.correlation == pytest.approx(1.0)
    assert decoded.num_disagreeing == 0


@given(ids, st.integers(0, 2**32))
def test_up_to_seven_wrong_symbols_are_always_corrected(mark_id: MarkId, seed: int) -> None:
    # Free distance 15: any 7 wrong hard decisions leave the sent word the nearest.
    word = encode(mark_id)
    wrong = np.random.default_rng(seed).choice(NUM_SYMBOLS, 7, replace=False)
    word[wrong] *= -1
    assert decode(word).mark_id == mark_id


def test_soft_decisions_survive_a_fifth_of_wrong_signs() -> None:
    rng = np.random.default_rng(0)
    num_recovered, wrong = 0, []
    for _ in range(50):
        mark_id = MarkId.random(rng.bytes)
        received = encode(mark_id) + rng.normal(0, 1 / 0.95, NUM_SYMBOLS)
        wrong.append((received * encode(mark_id) < 0).mean())
        num_recovered += decode(received).mark_id == mark_id
    assert np.mean(wrong) > 0.15
    assert num_recovered >= 45


def test_noise_decodes_to_something_but_nothing_near() -> None:
    rng = np.random.default_rng(1)
    assert max(decode(rng.standard_normal(NUM_SYMBOLS)).correlation for _ in range(200)) < 0.68


def test_the_wire_format_has_not_changed() -> None:
    word = (encode(MarkId.from_hex("0123456789abcdef")) > 0).astype(np.uint8)
    assert hashlib.sha256(np.packbits(word).tobytes()).hexdigest()[:16] == "9bfd8b4740c5b89e"


@given(ids)
def test_hex_round_trip(mark_id: MarkId) -> None:
    assert MarkId.from_hex(mark_id.hex) == mark_id
    assert str(mark_id) == mark_id.hex and len(mark_id.hex) == 16


@pytest.mark.parametrize("text", ["", "0123", "0123456789ABCDEF", "0123456789abcdeg", "0123456789abcdef0", " " * 16])
def test_other_spellings_are_refused(text: str) -> None:
    with pytest.raises(InvalidMarkIdError):
        MarkId.from_hex(text)


@pytest.mark.parametrize("value", [-1, 2**64])
def test_ids_have_64_bits(value: int) -> None:
    with pytest.raises(InvalidMarkIdError):
        MarkId(value)


def test_decode_wants_a_whole_word() -> None:
    with pytest.raises(ValueError, match="210"):
        decode(np.zeros(209))


def test_the_nearest_words_come_in_order_and_without_repeats() -> None:
    rng = np.random.default_rng(5)
    sent = MarkId(0xFEEDFACECAFEBEEF)
    soft = encode(sent) + 1.0 * rng.standard_normal(NUM_SYMBOLS)
    found = decode_list(soft, 16)
    assert [each.correlation for each in found] == sorted((each.correlation for each in found), reverse=True)
    assert len({each.mark_id for each in found}) == 16
    assert sent in {each.mark_id for each in found}
    for each in found:
        word = encode(each.mark_id)
        assert each.correlation == pytest.approx(float(soft @ word) / np.linalg.norm(soft) / NUM_SYMBOLS**0.5)
        assert each.num_disagreeing == int((soft * word < 0).sum())
