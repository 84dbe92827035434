"""Tokens and client assertions made up by hypothesis: whatever comes, the answer is an error of ours, and never yes."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from authlib.oauth2 import OAuth2Error
from cryptography.hazmat.primitives import serialization
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from joserfc.jwk import ECKey, KeySet

from api.errors import ScopeError, TokenError
from api.oauth.assertions import PrivateKeyJwt
from api.oauth.dpop import ProofBook
from api.oauth.jwts import (
    UnreadableJwtError,
    base64url,
    numeric_date,
    public_key_of,
    signed_jwt,
    unverified_jwt,
    verified_claims,
)
from api.oauth.keys import TokenKeys
from api.oauth.resource import AccessTokenValidator, BearerScheme, DPoPScheme, OwnIssuer, Presentation
from api.storage.database import Database
from api.storage.spent import SpentIds
from policy.identity import SCOPE_AUDIT_READ
from policy.keyfiles import FileKeyService
from policy.kms import as_signing_key, new_private_key

ISSUER = "https://placet.example"
CLIENT_KEY = as_signing_key(new_private_key("ES256"))
MANY = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
CLAIMS = st.fixed_dictionaries(
    {},
    optional={name: JSON for name in ("iss", "sub", "aud", "client_id", "scope", "exp", "iat", "nbf", "jti", "cnf")},
)
HEADER = st.fixed_dictionaries({}, optional={name: JSON for name in ("alg", "typ", "kid", "jwk", "jku", "crit", "b64")})


class Desk:
    """A validator, and the keys that it trusts."""

    def __init__(self, keys: TokenKeys, validator: AccessTokenValidator, assertions: PrivateKeyJwt) -> None:
        self.keys = keys
        self.validator = validator
        self.assertions = assertions

    def verify(self, token: str) -> Any:
        given = Presentation((f"Bearer {token}",), "GET", f"{ISSUER}/v1/audit/entries")
        return self.validator.verify(given, path="/v1/audit", scope=SCOPE_AUDIT_READ)


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    folder = tmp_path_factory.mktemp("desk")
    database = Database.create(folder / "spent.sqlite3")
    spent, keys = SpentIds(database, time.time), TokenKeys(FileKeyService.create(folder / "keys"))
    schemes = (BearerScheme(), DPoPScheme(ProofBook(spent, time.time, lifetime_s=60, leeway_s=5)))
    validator = AccessTokenValidator(
        issuers=(OwnIssuer(ISSUER, keys),),
        spent=spent,
        is_live=lambda client_id: client_id == "aud_1",
        now=time.time,
        leeway_s=5,
        schemes=schemes,
    )
    yield Desk(keys, validator, PrivateKeyJwt(ISSUER, spent, time.time, 5))
    database.close()


def encoded(value: Any) -> str:
    return base64url(json.dumps(value).encode())


@MANY
@given(text=st.text(max_size=300) | st.binary(max_size=300).map(lambda raw: raw.decode("latin-1")))
def test_any_text(text: str, desk: Desk) -> None:
    with pytest.raises(TokenError):
        desk.verify(text)
    with pytest.raises(OAuth2Error):
        desk.assertions.extract_assertion(text)
        desk.assertions.process_assertion_claims(text, KeySet([]))


@MANY
@given(header=HEADER, claims=CLAIMS | JSON)
def test_any_header_and_claims_without_a_signature(header: Any, claims: Any, desk: Desk) -> None:
    with pytest.raises(TokenError):
        desk.verify(f"{encoded(header)}.{encoded(claims)}.x")


@MANY
@given(changes=CLAIMS, typ=st.sampled_from(["at+jwt", "application/at+jwt", "JWT", "dpop+jwt"]))
def test_any_claims_under_our_own_signature(changes: dict[str, Any], typ: str, desk: Desk) -> None:
    """Only exactly right claims pass: even we could not issue anything else by mistake."""
    now = int(time.time())
    good = {"iss": ISSUER, "sub": "aud_1", "aud": f"{ISSUER}/v1/audit", "client_id": "aud_1", "scope": SCOPE_AUDIT_READ}
    claims = {**good, "iat": now, "exp": now + 300, "jti": "x", **changes}
    token = signed_jwt({"typ": typ}, claims, desk.keys.signer())
    try:
        found = desk.verify(token)
    except (TokenError, ScopeError):
        return
    assert typ != "JWT" and found.client_id == "aud_1"
    assert all(claims[name] == value or claims[name] == [value] for name, value in good.items() if name != "scope")
    assert SCOPE_AUDIT_READ in str(claims["scope"]).split() and "cnf" not in claims


@MANY
@given(changes=CLAIMS)
def test_any_assertion_under_the_clients_own_signature(changes: dict[str, Any], desk: Desk) -> None:
    now = int(time.time())
    good = {"iss": "res_1", "sub": "res_1", "aud": ISSUER}
    claims = {**good, "iat": now, "exp": now + 60, "jti": f"{time.perf_counter_ns():016}", **changes}
    assertion = signed_jwt({}, claims, CLIENT_KEY)
    public = ECKey.import_key(public_pem(), {"kid": CLIENT_KEY.kid})
    try:
        desk.assertions.process_assertion_claims(assertion, KeySet([public]))
    except OAuth2Error:
        return
    assert all(claims[name] == value or claims[name] == [value] for name, value in good.items() if name == "aud")
    assert claims["iss"] == claims["sub"] and now - 5 < claims["exp"] <= now + 310


def public_pem() -> bytes:
    return CLIENT_KEY.public_key.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


@MANY
@given(value=JSON)
def test_any_key(value: Any) -> None:
    with pytest.raises(UnreadableJwtError):
        public_key_of(value)
    with pytest.raises(UnreadableJwtError):
        public_key_of({"kty": "EC", "crv": "P-256", "x": value, "y": value})


@MANY
@given(value=JSON)
def test_any_date(value: Any) -> None:
    date = numeric_date({"exp": value}, "exp")
    assert date is None or date == float(value)


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "..",
        "...",
        f"{encoded({})}.{encoded([])}.",
        f"{encoded({'crit': []})}.{encoded({})}.",
        "a" * 9000,
        f"{base64url(b'[' * 5000)}.{encoded({})}.",
        f"{base64url(b'{')}.e30.",
        "e30.e30.e30.e30",
        "é.é.é",
    ],
)
def test_what_is_no_jwt(text: str) -> None:
    with pytest.raises(UnreadableJwtError):
        unverified_jwt(text)
    with pytest.raises(UnreadableJwtError):
        verified_claims(text, KeySet([]), ["ES256"])
