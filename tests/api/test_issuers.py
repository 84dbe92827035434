"""Outside issuers: nothing trusted by default, keys fetched with care, clients vetted here whatever they bring."""

from __future__ import annotations

import http.server
import json
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey
from pydantic import ValidationError

from api.errors import ScopeError, TokenError
from api.oauth.dpop import ProofBook
from api.oauth.issuers import REFRESH_S, IssuerFetchError, OutsideIssuer, fetch_json, usable_keys
from api.oauth.keys import TokenKeys
from api.oauth.resource import AccessTokenValidator, BearerScheme, DPoPScheme, OwnIssuer, Presentation
from api.oauth.trust import ExternalIssuer
from api.storage.database import Database
from api.storage.spent import SpentIds
from policy.identity import SCOPE_AUDIT_READ, SCOPE_DETECT_CREATE
from policy.keyfiles import FileKeyService

OURS = "https://placet.example"
THEIRS = "https://id.example"
KEY = ECKey.generate_key("P-256", {"kid": "one", "alg": "ES256", "use": "sig"})
NEW_KEY = ECKey.generate_key("P-256", {"kid": "two", "alg": "ES256", "use": "sig"})


class Web:
    """The documents of the issuer; counts how often each is asked for."""

    def __init__(self) -> None:
        self.documents: dict[str, Any] = {
            f"{THEIRS}/.well-known/openid-configuration": {"issuer": THEIRS, "jwks_uri": f"{THEIRS}/jwks"},
            f"{THEIRS}/jwks": {"keys": [KEY.as_dict(private=False)]},
        }
        self.asked: list[str] = []

    def __call__(self, url: str, /) -> dict[str, Any]:
        self.asked.append(url)
        if url not in self.documents:
            raise IssuerFetchError("not there")
        return dict(self.documents[url])


@pytest.fixture
def web() -> Web:
    return Web()


@pytest.fixture
def clock() -> list[float]:
    return [1000.0]


MakeIssuer = Callable[..., OutsideIssuer]


@pytest.fixture
def issuer_of(web: Web, clock: list[float]) -> MakeIssuer:
    def make(**config: Any) -> OutsideIssuer:
        return OutsideIssuer(
            ExternalIssuer(**({"issuer": THEIRS} | config)),
            own_issuer=OURS,
            find_client=lambda issuer, name: "aud_1" if (issuer, name) == (THEIRS, "their-auditor") else None,
            vetted=lambda _client_id: (frozenset({SCOPE_AUDIT_READ}), "university"),
            fetch=web,
            clock=lambda: clock[0],
        )

    return make


@pytest.fixture
def verify(tmp_path: Any, issuer_of: MakeIssuer) -> Callable[..., Any]:
    """Verifies a token of the outside issuer for the audit endpoint."""
    database = Database.create(tmp_path / "spent.sqlite3")
    spent = SpentIds(database, time.time)
    keys = TokenKeys(FileKeyService.create(tmp_path / "keys"))

    def check(token: str, *, scope: str = SCOPE_AUDIT_READ, path: str = "/v1/audit", **config: Any) -> Any:
        validator = AccessTokenValidator(
            issuers=(OwnIssuer(OURS, keys), issuer_of(**config)),
            spent=spent,
            is_live=lambda client_id: client_id == "aud_1",
            now=time.time,
            leeway_s=5,
            schemes=(BearerScheme(), DPoPScheme(ProofBook(spent, time.time, lifetime_s=60, leeway_s=5))),
        )
        return validator.verify(Presentation((f"Bearer {token}",), "GET", OURS + path), path=path, scope=scope)

    return check


def token(key: Any = KEY, header: dict[str, Any] | None = None, **changes: Any) -> str:
    """An access token of the outside issuer, with changes."""
    now = int(time.time())
    claims = {
        "iss": THEIRS,
        "sub": "their-auditor",
        "aud": f"{OURS}/v1/audit",
        "client_id": "their-auditor",
        "scope": SCOPE_AUDIT_READ,
        "iat": now,
        "exp": now + 300,
        "jti": uuid.uuid4().hex,
    } | changes
    protected = {"typ": "at+jwt", "alg": "ES256", "kid": key.kid} | (header or {})
    kept = {name: value for name, value in claims.items() if value is not None}
    return jwt.encode(protected, kept, key, algorithms=[str(protected["alg"])])


def test_a_vetted_client_of_a_trusted_issuer_gets_in(verify: Callable[..., Any]) -> None:
    found = verify(token())
    assert (found.client_id, found.account_id, found.scopes) == ("aud_1", "aud_1", {SCOPE_AUDIT_READ})


_RSA = RSAKey.generate_key(2048, {"kid": "one"})
REFUSED: dict[str, tuple[Callable[[], str], dict[str, Any], str]] = {
    "an issuer that nobody configured": (lambda: token(iss="https://other.example"), {}, "token.iss"),
    "its name with a slash": (lambda: token(iss=THEIRS + "/"), {}, "token.iss"),
    "another audience": (lambda: token(aud=f"{OURS}/v1/renders"), {}, "token.aud"),
    "several audiences": (lambda: token(aud=[f"{OURS}/v1/audit", "https://x.example"]), {}, "token.aud"),
    "not the configured audience": (lambda: token(), {"audience": "placet"}, "token.aud"),
    "an ID token": (lambda: token(header={"typ": "JWT"}), {}, "token.typ"),
    "an algorithm that is not configured": (lambda: token(_RSA, {"alg": "PS256"}), {}, "token.alg"),
    "RS256": (lambda: token(_RSA, {"alg": "RS256"}), {}, "token.alg"),
    "a rogue key under a known kid": (
        lambda: token(ECKey.generate_key("P-256", {"kid": "one"})),
        {},
        "token.signature",
    ),
    "expired": (lambda: token(exp=int(time.time()) - 6), {}, "token.expired"),
    "issued tomorrow": (lambda: token(iat=int(time.time()) + 86_400), {}, "token.iat"),
    "valid tomorrow": (lambda: token(nbf=int(time.time()) + 86_400), {}, "token.nbf"),
    "nbf is text": (lambda: token(nbf="now"), {}, "token.nbf"),
    "valid for a year": (lambda: token(exp=int(time.time()) + 31_536_000), {}, "token.lifetime"),
    "no jti": (lambda: token(jti=None), {}, "token.claims"),
    "no sub": (lambda: token(sub=None), {}, "token.claims"),
    "no client": (lambda: token(client_id=None), {}, "token.claims"),
    "a client that nobody let in": (lambda: token(client_id="their-intern"), {}, "token.client"),
    "another organisation": (lambda: token(org="elsewhere"), {"org_claim": "org"}, "token.org"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_token_is_refused_by_name(name: str, verify: Callable[..., Any]) -> None:
    make, config, code = REFUSED[name]
    with pytest.raises(TokenError) as refused:
        verify(make(), **config)
    assert refused.value.code == code


def test_scopes_are_what_both_sides_gave(verify: Callable[..., Any]) -> None:
    with pytest.raises(ScopeError):
        detects = token(scope=SCOPE_DETECT_CREATE, aud=f"{OURS}/v1/detections")
        verify(detects, scope=SCOPE_DETECT_CREATE, path="/v1/detections")
    names = {"Audit.Read": SCOPE_AUDIT_READ}
    mapped = verify(token(scope=None, roles=["Audit.Read", 3]), scope_claim="roles", scopes=names)
    assert mapped.scopes == {SCOPE_AUDIT_READ}
    assert verify(token(azp="their-auditor", client_id=None), client_claim="azp").client_id == "aud_1"


def test_a_strange_kid_makes_it_look_again_but_not_too_often(
    issuer_of: MakeIssuer, web: Web, clock: list[float]
) -> None:
    issuer = issuer_of()
    assert [key.kid for key in issuer.key_set("one").keys] == ["one"]
    num_asked = len(web.asked)
    for _ in range(50):
        issuer.key_set("two")
        issuer.key_set(uuid.uuid4().hex)
    assert len(web.asked) == num_asked, "a flood of strange tokens makes no flood of requests"
    web.documents[f"{THEIRS}/jwks"] = {"keys": [KEY.as_dict(private=False), NEW_KEY.as_dict(private=False)]}
    clock[0] += REFRESH_S
    assert {key.kid for key in issuer.key_set("two").keys} == {"one", "two"}


def test_known_keys_outlive_an_outage_for_a_day(issuer_of: MakeIssuer, web: Web, clock: list[float]) -> None:
    issuer = issuer_of()
    issuer.key_set("one")
    web.documents.clear()
    clock[0] += 23 * 3600
    assert issuer.key_set("one")
    clock[0] += 2 * 3600
    with pytest.raises(IssuerFetchError):
        issuer.key_set("one")


@pytest.mark.parametrize(
    "metadata",
    [
        {"issuer": "https://evil.example", "jwks_uri": f"{THEIRS}/jwks"},
        {"issuer": THEIRS, "jwks_uri": "http://id.example/jwks"},
        {"issuer": THEIRS, "jwks_uri": "https://127.0.0.1/jwks"},
        {"issuer": THEIRS, "jwks_uri": "file:///etc/passwd"},
        {"issuer": THEIRS, "jwks_uri": ["x"]},
        {"issuer": THEIRS},
    ],
)
def test_metadata_that_leads_astray_is_refused(metadata: dict[str, Any], issuer_of: MakeIssuer, web: Web) -> None:
    web.documents[f"{THEIRS}/.well-known/openid-configuration"] = metadata
    with pytest.raises(IssuerFetchError):
        issuer_of().key_set("one")
    assert web.asked == [f"{THEIRS}/.well-known/openid-configuration"]


def test_oauth_metadata_serves_as_well(issuer_of: MakeIssuer, web: Web) -> None:
    document = web.documents.pop(f"{THEIRS}/.well-known/openid-configuration")
    web.documents[f"{THEIRS}/.well-known/oauth-authorization-server"] = document
    assert issuer_of().key_set("one")


@pytest.mark.parametrize("keys", [None, "x", [], ["x"], [{"kty": "oct", "k": "AAAA"}], [{"kty": "EC"}], [{}] * 51])
def test_a_useless_key_set_is_refused(keys: Any) -> None:
    with pytest.raises(IssuerFetchError):
        usable_keys({"keys": keys}, ["ES256"])


def test_keys_for_other_uses_are_left_out() -> None:
    published = [
        KEY.as_dict(private=False),
        {**NEW_KEY.as_dict(private=False), "use": "enc"},
        {**NEW_KEY.as_dict(private=False), "alg": "ECDH-ES"},
    ]
    assert [key.kid for key in usable_keys({"keys": published}, ["ES256"]).keys] == ["one"]


@pytest.mark.parametrize(
    "config",
    [
        {"issuer": "http://id.example"},
        {"issuer": "https://u@id.example"},
        {"issuer": "https://id.example#x"},
        {"issuer": "id.example"},
        {"issuer": THEIRS, "jwks_uri": "http://id.example/jwks"},
        {"issuer": THEIRS, "algorithms": ["none"]},
        {"issuer": THEIRS, "algorithms": ["RS256"]},
        {"issuer": THEIRS, "algorithms": []},
        {"issuer": THEIRS, "typo": 1},
    ],
)
def test_an_unsafe_configuration_is_refused(config: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ExternalIssuer(**config)


# -- the fetcher, against a real server on this machine


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers each path in its own bad way."""

    def do_GET(self) -> None:
        if self.path == "/redirect":
            self.send_response(302)
            self.send_header("Location", "/good")
            self.end_headers()
            return
        content = {
            "/good": b'{"keys": []}',
            "/list": b"[]",
            "/text": b"hello",
            "/deep": b"[" * 100_000,
            "/huge": json.dumps({"keys": "x" * 300_000}).encode(),
        }.get(self.path, b"")
        self.send_response(200 if content else 404)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_args: Any) -> None:
        """Quiet."""


@pytest.fixture(scope="module")
def machine() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()


def test_a_document_is_fetched(machine: str) -> None:
    assert fetch_json(f"{machine}/good") == {"keys": []}


@pytest.mark.parametrize("path", ["/redirect", "/list", "/text", "/deep", "/huge", "/missing"])
def test_a_bad_answer_is_ours(path: str, machine: str) -> None:
    with pytest.raises(IssuerFetchError):
        fetch_json(machine + path)


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/", "http://id.example/", "ftp://127.0.0.1/", "https://[::1", ""])
def test_nothing_unsafe_is_fetched(url: str) -> None:
    with pytest.raises(IssuerFetchError):
        fetch_json(url)
