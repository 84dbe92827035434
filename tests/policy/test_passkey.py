"""Passkeys: what is accepted, and each way to be refused."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import cbor2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policy.errors import (
    PasskeyAlgorithmError,
    PasskeyChallengeError,
    PasskeyCounterError,
    PasskeyError,
    PasskeyMalformedError,
    PasskeyOriginError,
    PasskeyPresenceError,
    PasskeyRelyingPartyError,
    PasskeySignatureError,
)
from policy.passkey import (
    Passkey,
    assertion_options,
    credential_id_of,
    registration_options,
    verify_assertion,
    verify_registration,
)
from tests.authenticator import BE, BS, UP, UV, Authenticator, b64

CHALLENGE = bytes(range(32))
SITE = {"rp_id": "localhost", "origin": "http://localhost:8470"}


def register(key: Authenticator, response: Any = None) -> Passkey:
    return verify_registration(response or key.register(CHALLENGE), challenge=CHALLENGE, **SITE)


def check(key: Authenticator, response: Any, *, challenge: bytes = CHALLENGE, sign_count: int = 0) -> int:
    evidence = verify_assertion(response, challenge=challenge, public_jwk=key.jwk, sign_count=sign_count, **SITE)
    return evidence.sign_count


@pytest.mark.parametrize("kind", ["ES256", "Ed25519"])
def test_a_passkey_is_registered_and_used(kind: Any) -> None:
    key = Authenticator(kind=kind, counts=True, flags=UP | UV | BE | BS)
    passkey = register(key)
    assert passkey.credential_id == key.credential_id == credential_id_of(key.answer(CHALLENGE))
    assert passkey.public_jwk == key.jwk and passkey.backed_up
    assert check(key, key.answer(CHALLENGE), sign_count=passkey.sign_count) == 2


def test_options_ask_for_what_is_checked() -> None:
    create = registration_options(
        rp_id="localhost", rp_name="Placet", user_id=b"u", user_name="sub_1", challenge=CHALLENGE,
        known_credential_ids=[b"k"],
    )  # fmt: skip
    assert [each["alg"] for each in create["pubKeyCredParams"]] == [-7, -8]
    assert create["authenticatorSelection"]["userVerification"] == "required"
    assert create["challenge"] == b64(CHALLENGE) and create["attestation"] == "none"
    get = assertion_options(rp_id="localhost", challenge=CHALLENGE, credential_ids=[b"k"])
    assert get["userVerification"] == "required" and get["allowCredentials"][0]["id"] == b64(b"k")


def flipped(response: dict[str, Any], member: str, at: int = -1) -> dict[str, Any]:
    changed = copy.deepcopy(response)
    text = changed["response"][member]
    changed["response"][member] = text[:at] + ("A" if text[at] != "A" else "Q") + text[at:][1:]
    return changed


REFUSED: dict[str, tuple[Callable[[Authenticator], Any], type[PasskeyError]]] = {
    "another challenge": (lambda key: key.answer(bytes(32)), PasskeyChallengeError),
    "a prefix of the challenge": (lambda key: key.answer(CHALLENGE[:31]), PasskeyChallengeError),
    "another origin": (lambda key: key.answer(CHALLENGE, origin="http://localhost:8471"), PasskeyOriginError),
    "a longer origin": (lambda key: key.answer(CHALLENGE, origin="http://localhost:8470.x.test"), PasskeyOriginError),
    "no origin": (lambda key: key.answer(CHALLENGE, origin=None), PasskeyOriginError),
    "inside another page": (lambda key: key.answer(CHALLENGE, crossOrigin=True), PasskeyOriginError),
    "with a page on top": (lambda key: key.answer(CHALLENGE, topOrigin="https://x.test"), PasskeyOriginError),
    "a registration as assertion": (lambda key: key.answer(CHALLENGE, type="webauthn.create"), PasskeyMalformedError),
    "another key": (
        lambda key: Authenticator(credential_id=key.credential_id).answer(CHALLENGE),
        PasskeySignatureError,
    ),
    "not base64": (lambda key: flipped(key.answer(CHALLENGE), "signature", 0) | {"rawId": "?"}, PasskeyMalformedError),
    "no response": (lambda key: {**key.answer(CHALLENGE), "response": None}, PasskeyMalformedError),
    "another type": (lambda key: {**key.answer(CHALLENGE), "type": "password"}, PasskeyMalformedError),
    "id and rawId differ": (lambda key: {**key.answer(CHALLENGE), "id": b64(b"x")}, PasskeyMalformedError),
    "a list": (lambda key: [key.answer(CHALLENGE)], PasskeyMalformedError),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_assertions_that_are_refused(name: str) -> None:
    key = Authenticator()
    make, error = REFUSED[name]
    with pytest.raises(error) as caught:
        check(key, make(key))
    assert caught.value.code.startswith("passkey.")


def test_the_person_must_be_verified_on_this_site() -> None:
    for flags in (UP, UV, 0):
        key = Authenticator(flags=flags)
        for response in (key.answer(CHALLENGE),):
            with pytest.raises(PasskeyPresenceError):
                check(key, response)
        with pytest.raises(PasskeyPresenceError):
            register(key)
    key = Authenticator(flags=UP | UV | BS)
    with pytest.raises(PasskeyMalformedError):
        check(key, key.answer(CHALLENGE))
    key = Authenticator(rp_id="localhost.evil.test")
    for act in (lambda: check(key, key.answer(CHALLENGE)), lambda: register(key)):
        with pytest.raises(PasskeyRelyingPartyError):
            act()


def test_a_counter_must_move_on() -> None:
    key = Authenticator(counts=True, counter=4)
    answer = key.answer(CHALLENGE)
    assert check(key, answer, sign_count=4) == 5
    for on_record in (5, 6):
        with pytest.raises(PasskeyCounterError):
            check(key, answer, sign_count=on_record)
    key = Authenticator()
    assert check(key, key.answer(CHALLENGE)) == 0, "a synchronised passkey does not count"
    with pytest.raises(PasskeyCounterError):
        check(key, key.answer(CHALLENGE), sign_count=1)


def test_registrations_that_are_refused() -> None:
    key = Authenticator()
    for cose in ({1: 3, 3: -257, -1: b"\x01" * 256, -2: b"\x01\x00\x01"}, {**key.cose, 3: -35}, {**key.cose, -1: 2},
                 {**key.cose, -3: bytes(32)}, {**key.cose, 3: -47, -1: 8}, {}):  # fmt: skip
        attested = bytes(16) + len(key.credential_id).to_bytes(2, "big") + key.credential_id + cbor2.dumps(cose)
        data = key.authenticator_data(attested)
        response = key.register(CHALLENGE)
        response["response"]["attestationObject"] = b64(cbor2.dumps({"fmt": "none", "attStmt": {}, "authData": data}))
        with pytest.raises((PasskeyAlgorithmError, PasskeyMalformedError)):
            register(key, response)
    for statement in ({"fmt": "tpm", "attStmt": {}}, {"fmt": "none", "attStmt": {"sig": b"1"}}, {"fmt": [1]}):
        attested = bytes(16) + b"\0\x20" + key.credential_id + cbor2.dumps(key.cose)
        response = key.register(CHALLENGE)
        whole = {"attStmt": {}, "authData": key.authenticator_data(attested)} | statement
        response["response"]["attestationObject"] = b64(cbor2.dumps(whole))
        with pytest.raises((PasskeyMalformedError, PasskeySignatureError)):
            register(key, response)
    other = key.register(CHALLENGE) | {"id": b64(b"other"), "rawId": b64(b"other")}
    with pytest.raises(PasskeyMalformedError):
        register(key, other)


KEY = Authenticator()
ANSWER, REGISTRATION = KEY.answer(CHALLENGE), KEY.register(CHALLENGE)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_changed_character_fails(data: st.DataObject) -> None:
    member = data.draw(st.sampled_from(["clientDataJSON", "authenticatorData", "signature"]))
    at = data.draw(st.integers(0, len(ANSWER["response"][member]) - 1))
    with pytest.raises(PasskeyError):
        check(KEY, flipped(ANSWER, member, at))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=30) | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_the_parsers_raise_only_our_errors(data: st.DataObject) -> None:
    base = data.draw(st.sampled_from([ANSWER, REGISTRATION]))
    response = copy.deepcopy(base)
    for _ in range(data.draw(st.integers(0, 2))):
        where = data.draw(st.sampled_from([response, response["response"]]))
        if isinstance(where, dict):
            name = data.draw(st.sampled_from(sorted(where)))
            if name == "response":
                continue
            where[name] = data.draw(JSON | st.binary(max_size=120).map(b64))
    as_assertion = data.draw(st.booleans())
    try:
        if as_assertion:
            check(KEY, response)
        else:
            register(KEY, response)
    except PasskeyError:
        pass
    with pytest.raises(PasskeyError):
        verify_registration(data.draw(JSON), challenge=CHALLENGE, **SITE)


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=300) | JSON.map(lambda value: cbor2.dumps(value)))
def test_any_attestation_object_is_refused_with_our_errors(data: bytes) -> None:
    response = copy.deepcopy(REGISTRATION)
    response["response"]["attestationObject"] = b64(data) or "AA"
    with pytest.raises(PasskeyError):
        register(KEY, response)
