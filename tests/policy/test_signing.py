"""Statements signed with a passkey, consents that take another's place, erasure, and texts that must exist."""

from __future__ import annotations

import copy
from hashlib import sha256
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policy.canonical import canonical_json, sha256_hex
from policy.consent import (
    PURPOSE_EDUCATION,
    PURPOSE_RESEARCH,
    ConsentStatement,
    EnrolmentStatement,
    ErasureStatement,
    RevocationStatement,
    check_narrower,
    key_thumbprint,
    new_nonce,
    new_subject_key,
    public_jwk,
    sign_statement,
    verify_consent,
    verify_enrolment,
    verify_erasure,
    verify_revocation,
)
from policy.errors import (
    ConsentWidenedError,
    IdentityError,
    PasskeyChallengeError,
    PasskeyError,
    StatementError,
    StatementMalformedError,
    StatementTextError,
    StatementTimeError,
    StatementTypeError,
)
from policy.identity import check_display_text
from policy.passkey import PasskeySigner, RelyingParty
from tests.authenticator import Authenticator

from .conftest import START, statement

KEY = Authenticator()
SIGNER = PasskeySigner(RelyingParty("localhost", "http://localhost:8470"), KEY.jwk, 0)
JWS_KEY = new_subject_key()


def with_passkey(payload: Any, key: Authenticator = KEY) -> dict[str, Any]:
    return {"statement": payload, "assertion": key.answer(sha256(canonical_json(payload)).digest())}


# ------------------------------------------------------------------------------------------------------- two forms


def test_one_statement_has_one_name_in_both_forms() -> None:
    said = statement()
    by_passkey = verify_consent(with_passkey(said.to_json()), SIGNER, START)
    by_jws = verify_consent(sign_statement(said, JWS_KEY), public_jwk(JWS_KEY), START)
    assert by_passkey.statement == by_jws.statement == said
    assert by_passkey.sha256 == by_jws.sha256 == sha256_hex(canonical_json(said.to_json()))
    assert by_passkey.assertion is not None and by_jws.assertion is None
    assert by_jws.signed.count(".") == 2 and by_passkey.signed.startswith('{"assertion":')


def test_revocation_erasure_and_enrolment_by_passkey() -> None:
    revocation = RevocationStatement("alice", "*", 1, START)
    assert verify_revocation(with_passkey(revocation.to_json()), SIGNER, START).statement == revocation
    erasure = ErasureStatement("alice", 0, START, "2026-11", "en")
    assert verify_erasure(with_passkey(erasure.to_json()), SIGNER, START).statement == erasure
    nonce = new_nonce()
    enrolment = EnrolmentStatement(
        "alice", "adult", ("0" * 64,), nonce, key_thumbprint(KEY.jwk), True, "", START, "2026-11", "de"
    )
    verified = verify_enrolment(with_passkey(enrolment.to_json()), SIGNER, START, nonce=nonce)
    assert verified.statement == enrolment and verified.public_jwk == KEY.jwk


def test_an_answer_signs_one_statement_only() -> None:
    signed = with_passkey(statement().to_json())
    other = statement(max_uses=100).to_json()
    with pytest.raises(PasskeyChallengeError):
        verify_consent({**signed, "statement": other}, SIGNER, START)
    with pytest.raises(StatementMalformedError):
        verify_revocation(signed, SIGNER, START)


def test_forms_are_not_mixed_up() -> None:
    said = statement()
    with pytest.raises(StatementTypeError):
        verify_consent(sign_statement(said, JWS_KEY), SIGNER, START)
    with pytest.raises(StatementTypeError):
        verify_consent(with_passkey(said.to_json()), public_jwk(JWS_KEY), START)
    good = with_passkey(said.to_json())
    for wrong in ({}, {"statement": said.to_json()}, {**good, "jws": "x"}, [good], None, 5, {**good, "statement": []}):
        with pytest.raises(StatementError):
            verify_consent(wrong, SIGNER, START)  # type: ignore[arg-type]


def test_payloads_without_a_canonical_form_or_with_other_values() -> None:
    good = statement().to_json()
    for change in ({"max_uses": 1.5}, {"max_uses": 2**53}, {"expires_at": 2**63}, {"v": True}, {"v": 3},
                   {"purposes": ["x" * 1_000_000]}, {"epoch": "0"}, {"subject_id": "аlice"}):  # fmt: skip
        signed = {"statement": good | change, "assertion": KEY.answer(bytes(32))}
        with pytest.raises((StatementMalformedError, PasskeyChallengeError)):
            verify_consent(signed, SIGNER, START)
        try:
            signed = with_passkey(good | change)
        except Exception:
            continue
        with pytest.raises(StatementMalformedError):
            verify_consent(signed, SIGNER, START)


GOOD = with_passkey(statement().to_json())
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_the_parser_raises_only_our_errors(data: st.DataObject) -> None:
    signed: dict[str, Any] = copy.deepcopy(GOOD)
    part = data.draw(st.sampled_from([signed, signed["statement"], signed["assertion"]]))
    part[data.draw(st.sampled_from(sorted(part)) | st.text(max_size=5))] = data.draw(JSON)
    if data.draw(st.booleans()) and isinstance(signed["statement"], dict):
        try:
            signed["assertion"] = KEY.answer(sha256(canonical_json(signed["statement"])).digest())
        except Exception:
            return
    try:
        consent = verify_consent(signed, SIGNER, START)
    except (StatementError, PasskeyError):
        return
    assert consent.sha256 == sha256_hex(canonical_json(signed["statement"]))


# ---------------------------------------------------------------------------------------------------- dates, texts


def test_dates_of_a_consent() -> None:
    for change in ({"not_before": START - 86_401}, {"not_before": 0, "expires_at": 1}):
        with pytest.raises(StatementTimeError):
            verify_consent(sign_statement(statement(**change), JWS_KEY), public_jwk(JWS_KEY), START)
    for value in (2**63, 2**53, 253_402_300_800, -1):
        with pytest.raises(StatementMalformedError):
            statement(expires_at=value)


@pytest.mark.parametrize("change", [{"text_version": "2026-10"}, {"language": "fr"}])
def test_a_text_that_was_never_shown(change: dict[str, Any]) -> None:
    with pytest.raises(StatementTextError):
        verify_consent(sign_statement(statement(**change), JWS_KEY), public_jwk(JWS_KEY), START)


def test_an_erasure_is_signed_now() -> None:
    for minutes in (-10, 10):
        said = ErasureStatement("alice", 0, START + 60 * minutes, "2026-11", "en")
        with pytest.raises(StatementTimeError):
            verify_erasure(sign_statement(said, JWS_KEY), public_jwk(JWS_KEY), START)


# ------------------------------------------------------------------------------------------------------- narrowing


def test_a_consent_that_takes_the_place_of_another_is_version_2() -> None:
    old, new = statement(), statement(supersedes="ab" * 32)
    assert old.to_json()["v"] == 1 and "supersedes" not in old.to_json()
    assert new.to_json()["v"] == 2
    assert verify_consent(sign_statement(new, JWS_KEY), public_jwk(JWS_KEY), START).statement == new
    for payload in (new.to_json() | {"v": 1}, old.to_json() | {"v": 2}, new.to_json() | {"supersedes": ""}):
        with pytest.raises(StatementMalformedError):
            verify_consent(with_passkey(payload), SIGNER, START)


WIDER: list[dict[str, Any]] = [
    {"grantee_org": "other"}, {"grantee_client": "other"}, {"purposes": (PURPOSE_EDUCATION,)},
    {"portraits": ("0" * 64,)}, {"controls": ("*",)}, {"controls": ("gaze",)}, {"max_uses": 4},
    {"expires_at": START + 2_000_000},
]  # fmt: skip


def test_it_may_only_allow_less() -> None:
    old = statement(controls=("seed", "intensity"), max_uses=10)
    check_narrower(statement(controls=(), max_uses=3), old, uses_left=3)
    check_narrower(statement(controls=("seed",), max_uses=3), statement(controls=("*",)), uses_left=3)
    for change in WIDER:
        new = statement(**{"controls": ("seed",), "max_uses": 3} | change)
        with pytest.raises(ConsentWidenedError, match=next(iter(change))):
            check_narrower(new, old, uses_left=3)


@given(st.sets(st.sampled_from(["seed", "intensity", "framing"])), st.sets(st.sampled_from(["seed", "framing"])))
def test_narrower_is_a_matter_of_sets(old_controls: set[str], new_controls: set[str]) -> None:
    old = statement(controls=tuple(sorted(old_controls)))
    new = statement(controls=tuple(sorted(new_controls)))
    if new_controls <= old_controls:
        check_narrower(new, old, uses_left=new.max_uses)
    else:
        with pytest.raises(ConsentWidenedError):
            check_narrower(new, old, uses_left=new.max_uses)


# ---------------------------------------------------------------------------------------------------- shown to people


@pytest.mark.parametrize("text", ["", "Speech Lab", "Ömer Çelik", "Лаборатория речи", "東京大学 Speech", "a\nb"])
def test_names_that_may_be_shown(text: str) -> None:
    assert check_display_text(text, "name") == text


@pytest.mark.parametrize("text", ["Аcme", "p\u0430ypal", "a\u202eb", "a\u200bb", "e\u0301", "a\x00", "\ud800", None, 5])
def test_names_that_deceive(text: Any) -> None:
    with pytest.raises(IdentityError):
        check_display_text(text, "name")


def test_a_basis_that_deceives_is_refused() -> None:
    with pytest.raises(StatementMalformedError):
        EnrolmentStatement("a", "artwork", ("0" * 64,), "0" * 32, "A" * 43, False, "a\u202eb", 1, "2026-11", "en")


def test_a_purpose_is_one_of_ours() -> None:
    assert isinstance(statement(purposes=(PURPOSE_RESEARCH,)), ConsentStatement)
