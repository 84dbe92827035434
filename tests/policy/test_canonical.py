"""Canonical JSON: equal to the reference encoder, and one spelling only on the way in."""

from __future__ import annotations

import json

import pytest
import rfc8785
from hypothesis import example, given
from hypothesis import strategies as st

from policy.canonical import MAX_DEPTH, canonical_json, parse_canonical, sha256_hex
from policy.errors import CanonicalError

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
numbers = st.integers(-(2**53) + 1, 2**53 - 1) | st.floats(allow_nan=False, allow_infinity=False)
scalars = st.none() | st.booleans() | numbers | text
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4), max_leaves=15
)


@given(values)
@example({"é": 1, "z": 2, "\U0001f600": 3, "ﬁ": 4})
@example([2.0**53, 1e20, 1e21, -(2.0**60)])
@example({"a": '\x00\x1f\x7f"\\/\u2028'})
def test_written_as_the_reference_writes_it(value: object) -> None:
    data = canonical_json(value)
    assert data == rfc8785.dumps(value)
    assert canonical_json(parse_canonical(data)) == data


def test_rfc8785_example() -> None:
    """The example of RFC 8785 §3.2.2–3.2.4."""
    value = json.loads(
        r"""{"numbers": [333333333.33333329, 1E30, 4.50, 2e-3, 0.000000000000000000000000001],
        "string": "\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/", "literals": [null, true, false]}"""
    )
    expected = (
        '{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],'
        '"string":"€$\\u000f\\nA\'B\\"\\\\\\\\\\"/"}'
    )
    assert canonical_json(value) == expected.encode()


def test_tuples_are_arrays() -> None:
    assert canonical_json({"b": (1, 2), "a": ()}) == b'{"a":[],"b":[1,2]}'


@pytest.mark.parametrize(
    "value",
    [float("nan"), float("inf"), 2**53, -(2**53), {1: 2}, b"bytes", object(), "\ud800", {"\ud800": 1}, [{1, 2}]],
    ids=repr,
)
def test_what_has_no_canonical_form(value: object) -> None:
    with pytest.raises(CanonicalError):
        canonical_json(value)


def test_a_value_that_contains_itself() -> None:
    endless: list[object] = []
    endless.append(endless)
    with pytest.raises(CanonicalError):
        canonical_json(endless)


@pytest.mark.parametrize(
    "data",
    [b"", b" {}", b"{} ", b'{"b":1,"a":2}', b'{"a":1,"a":1}', b'{"a":1,"a":2}', b"1.0", b"1e2", b"-0",
     b"NaN", b"Infinity", b'"\\u0041"', b'"\\/"', b"\xff", b'{"a" :1}', b"9007199254740993", b"1" * 5000,
     b"\xef\xbb\xbf{}", b"[" * 10_000, b"{", b"nul"],
)  # fmt: skip
def test_other_spellings_are_refused(data: bytes) -> None:
    with pytest.raises(CanonicalError):
        parse_canonical(data)


def test_nesting_is_bounded() -> None:
    assert parse_canonical(b"[" * MAX_DEPTH + b"]" * MAX_DEPTH)
    with pytest.raises(CanonicalError, match="deeper"):
        parse_canonical(b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1))
    assert parse_canonical(b'["' + b"[" * 20 + b'"]') == ["[" * 20]


@given(st.binary(max_size=100))
def test_the_parser_raises_only_our_errors(data: bytes) -> None:
    try:
        value = parse_canonical(data)
    except CanonicalError:
        return
    assert canonical_json(value) == data


def test_sha256() -> None:
    assert sha256_hex(b"abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
