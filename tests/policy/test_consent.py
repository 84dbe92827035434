"""Signed statements: what is accepted, and everything that is not."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jws
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey

from policy.canonical import canonical_json, sha256_hex
from policy.consent import (
    EVERYTHING,
    PURPOSE_EVALUATION,
    PURPOSE_RESEARCH,
    PURPOSES,
    ConsentStatement,
    EnrolmentStatement,
    RevocationStatement,
    key_thumbprint,
    new_nonce,
    new_subject_key,
    public_jwk,
    sign_statement,
    verify_consent,
    verify_enrolment,
    verify_revocation,
)
from policy.errors import (
    AttestationError,
    MinorRefusedError,
    StatementError,
    StatementKeyError,
    StatementMalformedError,
    StatementNonceError,
    StatementSignatureError,
    StatementTimeError,
    StatementTypeError,
)

from .conftest import PORTRAIT, START, hex_of, statement

KEY = new_subject_key()
PUBLIC = public_jwk(KEY)
GOOD = statement().to_json()


def signed(payload: bytes | dict[str, Any], **header: Any) -> str:
    """A JWS by the subject's key over any payload, under any header."""
    data = payload if isinstance(payload, bytes) else canonical_json(payload)
    header = {"alg": "ES256", "typ": ConsentStatement.TYP} | header
    registry = jws.JWSRegistry(algorithms=["ES256"], strict_check_header=False)
    return jws.serialize_compact(header, data, ECKey.import_key(KEY), registry=registry)


@pytest.mark.parametrize("kind", ["P-256", "Ed25519"])
def test_a_consent_is_accepted(kind: Any) -> None:
    key = new_subject_key(kind)
    given = statement()
    consent = verify_consent(sign_statement(given, key), public_jwk(key), START)
    assert consent.statement == given
    assert consent.sha256 == sha256_hex(canonical_json(given.to_json()))
    assert "ey" not in repr(consent), "the signed form is not printed"


@pytest.mark.filterwarnings("ignore:EdDSA is deprecated")
def test_eddsa_is_the_older_name_of_ed25519() -> None:
    key = new_subject_key("Ed25519")
    header = {"alg": "EdDSA", "typ": ConsentStatement.TYP}
    token = jws.serialize_compact(header, canonical_json(GOOD), OKPKey.import_key(key), algorithms=["EdDSA"])
    assert verify_consent(token, public_jwk(key), START).statement.subject_id == "alice"


def test_two_consents_are_never_the_same_record() -> None:
    assert statement().record_id != statement().record_id
    assert len(canonical_json(GOOD)) < 800


def test_not_the_subjects_key() -> None:
    for other in (new_subject_key(), new_subject_key("Ed25519")):
        with pytest.raises((StatementSignatureError, StatementTypeError)):
            verify_consent(sign_statement(statement(), other), PUBLIC, START)


@pytest.mark.parametrize(
    "change",
    [
        {"alg": "none"}, {"alg": "HS256"}, {"alg": "EdDSA"}, {"alg": "ES384"}, {"typ": "JWT"}, {"typ": None},
        {"typ": RevocationStatement.TYP}, {"jku": "https://attacker.test/keys"}, {"jwk": PUBLIC}, {"kid": "1"},
        {"crit": ["b64"], "b64": False}, {"x5u": "https://attacker.test"}, {"alg": ["ES256"]}, {"alg": None},
    ],
    ids=str,
)  # fmt: skip
def test_headers_that_say_anything_else(change: dict[str, Any]) -> None:
    header = {name: value for name, value in ({"alg": "ES256", "typ": ConsentStatement.TYP} | change).items() if value}
    good = signed(GOOD)
    head = base64.urlsafe_b64encode(json.dumps(header).encode()).rstrip(b"=").decode()
    with pytest.raises((StatementTypeError, StatementMalformedError)):
        verify_consent(".".join([head, *good.split(".")[1:]]), PUBLIC, START)


def test_keys_of_other_kinds() -> None:
    token = signed(GOOD)
    rsa = RSAKey.generate_key(2048).as_dict(private=False)
    octet = OctKey.generate_key(256).as_dict()
    p384 = ECKey.generate_key("P-384").as_dict(private=False)
    off_curve = PUBLIC | {"x": PUBLIC["y"]}
    for key in (rsa, octet, p384, off_curve, {}, PUBLIC | {"x": "!"}, PUBLIC | {"x": 7}, {"kty": "EC", "crv": "P-256"}):
        with pytest.raises(StatementKeyError):
            verify_consent(token, key, START)
    with pytest.raises(StatementKeyError, match="never be sent"):
        verify_consent(token, KEY, START)
    with pytest.raises(StatementKeyError, match="private"):
        sign_statement(statement(), PUBLIC)


TOKEN = signed(GOOD)


@given(st.data())
def test_any_changed_character_fails(data: st.DataObject) -> None:
    token = TOKEN
    at = data.draw(st.integers(0, len(token) - 1))
    other = data.draw(st.sampled_from("ABab09-_.=+ \n").filter(lambda char: char != token[at]))
    with pytest.raises(StatementError):
        verify_consent(token[:at] + other + token[at + 1 :], PUBLIC, START)


def test_the_last_character_has_one_spelling() -> None:
    """The unused bits of base64url's last character are zero, so one signature is one text."""
    for other in set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_") - {TOKEN[-1]}:
        with pytest.raises(StatementError):
            verify_consent(TOKEN[:-1] + other, PUBLIC, START)


COMPACT = r"[A-Za-z0-9_-]{2,40}\.[A-Za-z0-9_-]{2,40}\.[A-Za-z0-9_-]{86}"


@given(st.text(max_size=200) | st.from_regex(COMPACT, fullmatch=True))
def test_the_parser_raises_only_our_errors(token: str) -> None:
    with pytest.raises(StatementError):
        verify_consent(token, PUBLIC, START)


def test_payloads_that_are_not_canonical() -> None:
    doubled = canonical_json(GOOD).replace(b'"epoch":0', b'"epoch":0,"epoch":0')
    for payload in (json.dumps(GOOD).encode(), doubled, b"[]", b"null", b"{}", b"\xff", b"", b"[" * 5000):
        with pytest.raises(StatementMalformedError):
            verify_consent(signed(payload), PUBLIC, START)


WRONG_FIELDS: list[dict[str, Any]] = [
    {"v": 2}, {"v": "1"}, {"type": "placet-revocation"}, {"extra": 1}, {"subject_id": None},
    {"subject_id": "аlice"}, {"subject_id": ""}, {"subject_id": "a" * 200}, {"subject_id": 5}, {"grantee_org": "a b"},
    {"grantee_client": "x\n"}, {"purposes": []}, {"purposes": ["https://w3id.org/dpv#Marketing"]}, {"purposes": "x"},
    {"purposes": [PURPOSE_RESEARCH] * 2}, {"purposes": [1]}, {"purposes": ["x" * 20_000]}, {"portraits": []},
    {"portraits": ["AB" * 32]}, {"portraits": ["ab"]}, {"portraits": ["0" * 64] * 2},
    {"portraits": [f"{n:064x}" for n in range(65)]}, {"controls": ["*", "seed"]}, {"controls": ["Seed"]},
    {"controls": [None]}, {"not_before": 1.5}, {"not_before": "1"}, {"not_before": True}, {"not_before": -1},
    {"expires_at": START - 200}, {"expires_at": 2**53 - 1}, {"expires_at": START + 3 * 366 * 86_400}, {"max_uses": 0},
    {"max_uses": -1}, {"max_uses": 10**9}, {"epoch": -1}, {"epoch": 2**40}, {"text_version": ""},
    {"text_version": "x y"}, {"language": "English"}, {"language": "e"}, {"record_id": "1"}, {"record_id": "G" * 32},
]  # fmt: skip


@pytest.mark.parametrize("change", WRONG_FIELDS, ids=lambda change: str(change)[:50])
def test_fields_out_of_form_or_range(change: dict[str, Any]) -> None:
    with pytest.raises(StatementMalformedError) as caught:
        verify_consent(signed(GOOD | change), PUBLIC, START)
    assert len(caught.value.sentence) < 300, "long input is not echoed"


@pytest.mark.parametrize("name", sorted(GOOD))
def test_missing_fields(name: str) -> None:
    with pytest.raises(StatementMalformedError):
        verify_consent(signed({key: value for key, value in GOOD.items() if key != name}), PUBLIC, START)


def test_a_consent_that_is_over() -> None:
    token = sign_statement(statement(), KEY)
    verify_consent(token, PUBLIC, START + 999)
    with pytest.raises(StatementTimeError, match="expired"):
        verify_consent(token, PUBLIC, START + 1000)


def test_a_statement_too_long_to_be_one() -> None:
    with pytest.raises(StatementMalformedError):
        verify_consent("a" * 40_000, PUBLIC, START)


def test_every_purpose_has_words() -> None:
    assert PURPOSE_EVALUATION in PURPOSES and all(text.endswith(".") for text in PURPOSES.values())


# ------------------------------------------------------------------------------------------------------ revocation


def test_revocations() -> None:
    consent = verify_consent(sign_statement(statement(), KEY), PUBLIC, START)
    for target, epoch in ((consent.sha256, 0), (EVERYTHING, 1)):
        given = RevocationStatement("alice", target, epoch, START)
        assert verify_revocation(sign_statement(given, KEY), PUBLIC, START).statement == given
    old = sign_statement(RevocationStatement("alice", EVERYTHING, 1, 0), KEY)
    assert verify_revocation(old, PUBLIC, START).statement.revoked_at == 0
    with pytest.raises(StatementTimeError):
        verify_revocation(sign_statement(RevocationStatement("alice", EVERYTHING, 1, START + 301), KEY), PUBLIC, START)
    with pytest.raises(StatementTypeError):
        verify_revocation(sign_statement(statement(), KEY), PUBLIC, START)
    with pytest.raises(StatementTypeError):
        verify_consent(old, PUBLIC, START)
    with pytest.raises(StatementMalformedError):
        RevocationStatement("alice", "all", 1, START)


# ------------------------------------------------------------------------------------------------------- enrolment

NONCE = new_nonce()


def enrolment(**changes: Any) -> EnrolmentStatement:
    values: dict[str, Any] = {
        "subject_id": "alice", "subject_class": "adult", "portraits": (hex_of(PORTRAIT),), "nonce": NONCE,
        "key_thumbprint": key_thumbprint(KEY), "adult_attested": True, "rights_basis": "", "issued_at": START,
        "text_version": "2026-11", "language": "de-CH",
    }  # fmt: skip
    return EnrolmentStatement(**values | changes)


def test_enrolments() -> None:
    enrolled = verify_enrolment(sign_statement(enrolment(), KEY), PUBLIC, START + 60, nonce=NONCE)
    assert enrolled.statement.subject_class == "adult"
    assert enrolled.public_jwk == PUBLIC and "d" not in enrolled.public_jwk
    persona = enrolment(subject_class="persona", adult_attested=False, rights_basis="Made from a parametric head.")
    assert verify_enrolment(sign_statement(persona, KEY), PUBLIC, START, nonce=NONCE).statement == persona


def test_enrolments_that_are_refused() -> None:
    with pytest.raises(StatementNonceError):
        verify_enrolment(sign_statement(enrolment(), KEY), PUBLIC, START, nonce=new_nonce())
    for now in (START - 301, START + 301):
        with pytest.raises(StatementTimeError):
            verify_enrolment(sign_statement(enrolment(), KEY), PUBLIC, now, nonce=NONCE)
    with pytest.raises(StatementMalformedError, match="thumbprint"):
        other = enrolment(key_thumbprint=key_thumbprint(new_subject_key()))
        verify_enrolment(sign_statement(other, KEY), PUBLIC, START, nonce=NONCE)
    with pytest.raises(StatementSignatureError):
        verify_enrolment(sign_statement(enrolment(), new_subject_key()), PUBLIC, START, nonce=NONCE)


def test_classes_and_attestations() -> None:
    with pytest.raises(MinorRefusedError):
        enrolment(subject_class="minor")
    with pytest.raises(AttestationError):
        enrolment(adult_attested=False)
    for kind in ("persona", "artwork"):
        with pytest.raises(AttestationError):
            enrolment(subject_class=kind, rights_basis=" ")
    for change in ({"subject_class": "ghost"}, {"adult_attested": 1}, {"rights_basis": "x" * 501}, {"nonce": "1"}):
        with pytest.raises(StatementMalformedError):
            enrolment(**change)
