"""The token endpoint and the checks on every access token: what must be refused, is, by name and with a log entry."""

from __future__ import annotations

import base64
import json
import time
import uuid
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives import serialization
from joserfc import jws, jwt
from joserfc.jwk import ECKey, OctKey, import_key

from api.client import PlacetClient, ProblemError
from api.oauth.keys import KEY_NAME
from policy.identity import SCOPE_AUDIT_READ, SCOPE_DETECT_CREATE, SCOPE_RENDER_CREATE, SCOPE_RENDER_READ
from tests.api.conftest import Running, vetted

TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


def assertion(client: PlacetClient, *, key: Any = None, header: dict[str, Any] | None = None, **changes: Any) -> str:
    """A client assertion, with changes."""
    assert client.credentials is not None
    signing = key or import_key(dict(client.credentials.key))
    now = int(time.time())
    name = client.credentials.client_id
    claims = {"iss": name, "sub": name, "aud": client.base_url, "iat": now, "exp": now + 60, "jti": uuid.uuid4().hex}
    claims |= changes
    return jwt.encode({"alg": "ES256"} | (header or {}), {k: v for k, v in claims.items() if v is not None}, signing)


def ask(server: Running, client: PlacetClient, scope: str = SCOPE_RENDER_CREATE, **changes: Any) -> httpx.Response:
    """One call of the token endpoint."""
    form = {
        "grant_type": "client_credentials",
        "scope": scope,
        "client_assertion_type": TYPE,
        "client_assertion": assertion(client),
    }
    form |= changes
    url = f"{server.url}/oauth/token"
    headers = {"DPoP": client.proof("POST", url)} if str(form["scope"]).startswith("render:") else {}
    return httpx.post(url, headers=headers, data={k: v for k, v in form.items() if v is not None})


def test_a_token_is_an_rfc_9068_token_for_one_endpoint_and_five_minutes(
    server: Running, researcher: PlacetClient
) -> None:
    answer = ask(server, researcher).json()
    assert answer["token_type"] == "DPoP" and answer["expires_in"] == 300
    assert answer["scope"] == SCOPE_RENDER_CREATE
    unverified = jws.extract_compact(answer["access_token"].encode())
    assert unverified.headers()["typ"] == "at+jwt" and unverified.headers()["alg"] == "ES256"
    claims = json.loads(unverified.payload)
    assert claims["aud"] == f"{server.url}/v1/renders" and claims["iss"] == server.url
    assert claims["exp"] - claims["iat"] == 300
    assert {"jti", "client_id", "sub", "scope"} <= set(claims)


def test_metadata_and_keys_are_published_without_private_parts(server: Running) -> None:
    metadata = httpx.get(f"{server.url}/.well-known/oauth-authorization-server").json()
    assert metadata["issuer"] == server.url
    assert metadata["token_endpoint_auth_methods_supported"] == ["private_key_jwt", "none"]
    keys = httpx.get(metadata["jwks_uri"]).json()["keys"]
    assert len(keys) == 1 and keys[0]["crv"] == "P-256" and "d" not in keys[0] and keys[0]["kid"]


REFUSED_REQUESTS: dict[str, tuple[Callable[[PlacetClient], dict[str, Any]], str]] = {
    "no authentication": (
        lambda c: {"client_assertion": None, "client_assertion_type": None},
        "oauth.invalid_client",
    ),
    "garbage": (lambda c: {"client_assertion": "a.b.c"}, "oauth.invalid_client"),
    "expired": (lambda c: {"client_assertion": assertion(c, exp=1)}, "oauth.invalid_client"),
    "lives for a day": (
        lambda c: {"client_assertion": assertion(c, exp=int(time.time()) + 86_400)},
        "oauth.invalid_client",
    ),
    "for the token endpoint instead of the issuer": (
        lambda c: {"client_assertion": assertion(c, aud=f"{c.base_url}/oauth/token")},
        "oauth.invalid_client",
    ),
    "for another server": (lambda c: {"client_assertion": assertion(c, aud="https://x")}, "oauth.invalid_client"),
    "no aud": (lambda c: {"client_assertion": assertion(c, aud=None)}, "oauth.invalid_client"),
    "no jti": (lambda c: {"client_assertion": assertion(c, jti=None)}, "oauth.invalid_client"),
    "jti is an object": (lambda c: {"client_assertion": assertion(c, jti={"a": 1})}, "oauth.invalid_client"),
    "exp is text": (lambda c: {"client_assertion": assertion(c, exp="later")}, "oauth.invalid_client"),
    "iss is somebody else": (lambda c: {"client_assertion": assertion(c, iss="x")}, "oauth.invalid_client"),
    "unknown client": (lambda c: {"client_assertion": assertion(c, iss="x", sub="x")}, "oauth.invalid_client"),
    "sub is a list": (lambda c: {"client_assertion": assertion(c, sub=["x"])}, "oauth.invalid_client"),
    "rogue key": (
        lambda c: {"client_assertion": assertion(c, key=ECKey.generate_key("P-256"))},
        "oauth.invalid_client",
    ),
    "a scope that the client does not hold": (lambda c: {"scope": SCOPE_AUDIT_READ}, "oauth.invalid_scope"),
    "a held and an unheld scope": (
        lambda c: {"scope": f"{SCOPE_RENDER_CREATE} {SCOPE_AUDIT_READ}"},
        "oauth.invalid_scope",
    ),
    "scopes of two endpoints": (
        lambda c: {"scope": f"{SCOPE_RENDER_CREATE} {SCOPE_DETECT_CREATE}"},
        "oauth.invalid_scope",
    ),
    "no scope": (lambda c: {"scope": None}, "oauth.invalid_scope"),
    "unknown scope": (lambda c: {"scope": "everything"}, "oauth.invalid_scope"),
    "the resource of another endpoint": (
        lambda c: {"resource": f"{c.base_url}/v1/audit"},
        "oauth.invalid_target",
    ),
    "another grant": (lambda c: {"grant_type": "password"}, "oauth.unsupported_grant_type"),
}


@pytest.mark.parametrize("name", REFUSED_REQUESTS)
def test_a_token_request_is_refused(name: str, server: Running, researcher: PlacetClient) -> None:
    make, code = REFUSED_REQUESTS[name]
    size = server.service.log.size
    response = ask(server, researcher, **make(researcher))
    problem = response.json()
    assert response.status_code in (400, 401), problem
    assert problem["code"] == code and problem["error"] == code.removeprefix("oauth.")
    entry = server.service.log.entry(problem["log_index"])
    assert problem["log_index"] >= size and entry["kind"] == "token.rejected" and entry["body"]["code"] == code


def test_an_assertion_is_good_once(server: Running, researcher: PlacetClient) -> None:
    again = assertion(researcher)
    assert ask(server, researcher, client_assertion=again).status_code == 200
    replayed = ask(server, researcher, client_assertion=again)
    assert replayed.status_code in (400, 401) and replayed.json()["error"] == "invalid_client"


def test_scopes_of_one_endpoint_come_together(server: Running, researcher: PlacetClient) -> None:
    response = ask(server, researcher, scope=f"{SCOPE_RENDER_CREATE} {SCOPE_RENDER_READ}")
    assert response.status_code == 200


def signing_key(server: Running) -> ECKey:
    """The private key of the authorization server, as only the server itself can have it."""
    key = server.service.keys.oauth_key
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return ECKey.import_key(pem, {"kid": server.service.keys.service.signing_key(KEY_NAME).kid})


def forged(server: Running, changes: dict[str, Any], header: dict[str, Any], key: Any = None) -> str:
    """An access token as the server would sign it, with changes."""
    own = signing_key(server)
    now = int(time.time())
    claims = {
        "iss": server.url,
        "aud": f"{server.url}/v1/audit",
        "exp": now + 300,
        "iat": now,
        "jti": uuid.uuid4().hex,
        "client_id": "nobody",
        "sub": "nobody",
        "scope": SCOPE_AUDIT_READ,
    } | changes
    kept = {name: value for name, value in claims.items() if value is not None}
    protected = {"alg": "ES256", "typ": "at+jwt", "kid": own.kid} | header
    return jwt.encode(protected, kept, key or own, algorithms=[protected["alg"]])


def _unsigned(server: Running, alg: str) -> str:
    def encode(value: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    claims = json.loads(jws.extract_compact(forged(server, {}, {}).encode()).payload)
    return f"{encode({'alg': alg, 'typ': 'at+jwt'})}.{encode(claims)}."


REFUSED_TOKENS: dict[str, tuple[Callable[[Running], str], str]] = {
    "garbage": (lambda s: "x", "token.malformed"),
    "three dots": (lambda s: "..", "token.malformed"),
    "alg none": (lambda s: _unsigned(s, "none"), "token.alg"),
    "alg NONE": (lambda s: _unsigned(s, "NONE"), "token.alg"),
    "signed with the public key as a secret": (
        lambda s: forged(
            s, {}, {"alg": "HS256"}, OctKey.import_key(json.dumps(s.service.oauth.jwks()["keys"][0]).encode())
        ),
        "token.alg",
    ),
    "an ID token": (lambda s: forged(s, {}, {"typ": "JWT"}), "token.typ"),
    "no typ": (lambda s: forged(s, {}, {"typ": ""}), "token.typ"),
    "rogue key": (lambda s: forged(s, {}, {}, ECKey.generate_key("P-256")), "token.signature"),
    "rogue key that brings its own jku": (
        lambda s: forged(s, {}, {"jku": "https://evil.example/jwks", "kid": "x"}, ECKey.generate_key("P-256")),
        "token.signature",
    ),
    "unknown kid": (lambda s: forged(s, {}, {"kid": "zz"}), "token.signature"),
    "wrong issuer": (lambda s: forged(s, {"iss": "https://x"}, {}), "token.iss"),
    "wrong audience": (lambda s: forged(s, {"aud": f"{s.url}/v1/renders"}, {}), "token.aud"),
    "no audience": (lambda s: forged(s, {"aud": None}, {}), "token.aud"),
    "expired": (lambda s: forged(s, {"exp": int(time.time()) - 10}, {}), "token.expired"),
    "no expiry": (lambda s: forged(s, {"exp": None}, {}), "token.expired"),
    "issued in the future": (lambda s: forged(s, {"iat": int(time.time()) + 600}, {}), "token.iat"),
    "no client": (lambda s: forged(s, {"client_id": None}, {}), "token.claims"),
    "of a client that does not exist": (lambda s: forged(s, {}, {}), "token.client"),
}


@pytest.mark.parametrize("name", REFUSED_TOKENS)
def test_an_access_token_is_refused(name: str, server: Running) -> None:
    make, code = REFUSED_TOKENS[name]
    token = make(server)
    size = server.service.log.size
    response = httpx.get(f"{server.url}/v1/audit/entries", headers={"Authorization": f"Bearer {token}"})
    problem = response.json()
    assert (response.status_code, problem["code"]) == (401, code), problem
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["www-authenticate"].startswith("Bearer ")
    entry = server.service.log.entry(problem["log_index"])
    assert problem["log_index"] >= size and entry["body"]["code"] == code
    assert len(token) < 8 or token not in json.dumps(entry)


@pytest.mark.parametrize("header", [None, "Basic eDp5", "Bearer"])
def test_without_a_bearer_token_nothing_opens(header: str | None, server: Running) -> None:
    response = httpx.get(f"{server.url}/v1/audit/entries", headers={"Authorization": header} if header else {})
    assert response.status_code == 401 and response.json()["code"] in ("token.missing", "token.scheme")
    assert server.service.log.entry(response.json()["log_index"])["kind"] == "token.rejected"


def test_a_token_for_one_endpoint_does_not_open_another(server: Running, researcher: PlacetClient) -> None:
    headers = {"Authorization": f"Bearer {researcher.token(SCOPE_DETECT_CREATE)}"}
    for path in ("/v1/audit/entries", "/v1/operators/clients", "/v1/subjects/me", "/v1/renders/ren_x"):
        response = httpx.get(server.url + path, headers=headers)
        assert (response.status_code, response.json()["code"]) == (401, "token.aud")


def test_reading_does_not_allow_making(server: Running, researcher: PlacetClient) -> None:
    auth = researcher.auth(SCOPE_RENDER_READ)
    response = httpx.post(f"{server.url}/v1/renders", auth=auth, files={"speech": b"x"})
    assert (response.status_code, response.json()["code"]) == (403, "token.scope")
    assert "insufficient_scope" in response.headers["www-authenticate"]
    assert server.service.log.entry(response.json()["log_index"])["body"]["code"] == "token.scope"


def test_a_withdrawn_token_is_dead(server: Running, auditor: PlacetClient) -> None:
    token = ask(server, auditor, scope=SCOPE_AUDIT_READ).json()["access_token"]
    headers = {"Authorization": f"Bearer {token}"}
    assert httpx.get(f"{server.url}/v1/audit/entries", headers=headers).status_code == 200
    form = {"token": token, "client_assertion_type": TYPE, "client_assertion": assertion(auditor)}
    assert httpx.post(f"{server.url}/oauth/revoke", data=form).status_code == 200
    response = httpx.get(f"{server.url}/v1/audit/entries", headers=headers)
    assert (response.status_code, response.json()["code"]) == (401, "token.withdrawn")


def test_suspension_and_the_end_of_the_term_kill_tokens_at_once(server: Running, operator: PlacetClient) -> None:
    client = vetted(server, operator, "auditor")
    assert client.entries(0, 1)
    assert client.credentials is not None
    operator.suspend_client(client.credentials.client_id)
    with pytest.raises(ProblemError) as refused:
        client.entries(0, 1)
    assert refused.value.code == "token.client"
    with pytest.raises(ProblemError) as refused:
        PlacetClient(server.url, client.credentials).token(SCOPE_AUDIT_READ)
    assert refused.value.code == "oauth.invalid_client"
    over = vetted(server, operator, "auditor", term_expires_at="2020-01-01T00:00:00Z")
    with pytest.raises(ProblemError):
        over.entries(0, 1)
