"""Authorization codes with PKCE: asked for in a browser, redeemed once, by whoever started; introspection; rotation."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx
import pytest
from joserfc.jwk import ECKey

from api.client import PlacetClient
from api.oauth.codes import (
    AuthorizationError,
    AuthorizationRequest,
    CodeBook,
    CodeError,
    authorization_request,
    is_redirect_match,
    redirect_uri_fault,
)
from api.oauth.jwts import UnreadableJwtError, sha256_base64url, signed_jwt, unverified_jwt, verified_claims
from api.oauth.keys import TokenKeys
from api.storage.database import Database
from api.storage.spent import AlreadySpentError, SpentIds
from policy.identity import SCOPE_AUDIT_READ, SCOPE_DETECT_CREATE, SCOPE_OPERATOR_ADMIN, SCOPE_RENDER_READ
from policy.keyfiles import FileKeyService
from tests.api.conftest import Running, vetted
from tests.api.test_oauth import TYPE, ask, assertion

ISSUER = "https://placet.example"
CALLBACK = "https://tool.example/cb"
VERIFIER = "v" * 43
CHALLENGE = sha256_base64url(VERIFIER)
GOOD = {
    "response_type": "code",
    "client_id": "app_1",
    "redirect_uri": CALLBACK,
    "scope": SCOPE_AUDIT_READ,
    "state": "x y&z",
    "code_challenge": CHALLENGE,
    "code_challenge_method": "S256",
}


def checked(*more: tuple[str, str], **changes: str | None) -> AuthorizationRequest:
    params = [(name, value) for name, value in (GOOD | changes).items() if value is not None]
    clients = {"app_1": ((CALLBACK,), frozenset({SCOPE_AUDIT_READ, SCOPE_DETECT_CREATE}))}
    return authorization_request([*params, *more], redirect_uris_of=clients.get, issuer=ISSUER)


def test_a_good_request_is_answered_with_state_and_issuer() -> None:
    answer = urlsplit(checked().location(code="c"))
    assert f"{answer.scheme}://{answer.netloc}{answer.path}" == CALLBACK
    assert parse_qs(answer.query) == {"code": ["c"], "state": ["x y&z"], "iss": [ISSUER]}


REFUSED: dict[str, tuple[dict[str, str | None], list[tuple[str, str]], str, bool]] = {
    "unknown client": ({"client_id": "app_2"}, [], "invalid_client", False),
    "no client": ({"client_id": None}, [], "invalid_client", False),
    "two clients": ({}, [("client_id", "app_1")], "invalid_request", False),
    "no redirect URI": ({"redirect_uri": None}, [], "invalid_request", False),
    "two redirect URIs": ({}, [("redirect_uri", "https://evil.example")], "invalid_request", False),
    "another redirect URI": ({"redirect_uri": "https://evil.example/cb"}, [], "invalid_request", False),
    "a longer redirect URI": ({"redirect_uri": CALLBACK + "/x"}, [], "invalid_request", False),
    "one with a query": ({"redirect_uri": CALLBACK + "?x"}, [], "invalid_request", False),
    "one in capitals": ({"redirect_uri": CALLBACK.upper()}, [], "invalid_request", False),
    "one with a path traversal": ({"redirect_uri": CALLBACK + "/../cb"}, [], "invalid_request", False),
    "two scopes": ({}, [("scope", SCOPE_DETECT_CREATE)], "invalid_request", True),
    "implicit flow": ({"response_type": "token"}, [], "unsupported_response_type", True),
    "fragment": ({"response_mode": "fragment"}, [], "invalid_request", True),
    "no PKCE": ({"code_challenge": None, "code_challenge_method": None}, [], "invalid_request", True),
    "plain PKCE": ({"code_challenge": VERIFIER, "code_challenge_method": "plain"}, [], "invalid_request", True),
    "PKCE without a method": ({"code_challenge_method": None}, [], "invalid_request", True),
    "a challenge that is no SHA-256": ({"code_challenge": "x"}, [], "invalid_request", True),
    "a key that is no thumbprint": ({"dpop_jkt": "x"}, [], "invalid_request", True),
    "a scope that the client does not hold": ({"scope": SCOPE_OPERATOR_ADMIN}, [], "invalid_scope", True),
    "scopes of two endpoints": ({"scope": f"{SCOPE_AUDIT_READ} {SCOPE_DETECT_CREATE}"}, [], "invalid_scope", True),
    "no scope": ({"scope": None}, [], "invalid_scope", True),
    "another resource": ({}, [("resource", f"{ISSUER}/v1/renders")], "invalid_target", True),
    "a state that is a novel": ({"state": "s" * 513}, [], "invalid_request", True),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_bad_request_is_refused(name: str) -> None:
    changes, more, error, is_told = REFUSED[name]
    with pytest.raises(AuthorizationError) as refused:
        checked(*more, **changes)
    assert refused.value.error == error
    assert bool(refused.value.location) == is_told, "nothing goes to an address that was not checked"
    if is_told:
        answer = parse_qs(urlsplit(refused.value.location).query)
        assert answer["error"] == [error] and answer["iss"] == [ISSUER]


@pytest.mark.parametrize(
    ("registered", "asked", "is_match"),
    [
        ("http://127.0.0.1/cb", "http://127.0.0.1:51234/cb", True),
        ("http://[::1]/cb", "http://[::1]:51234/cb", True),
        ("http://127.0.0.1/cb", "http://127.0.0.1:51234/other", False),
        ("http://127.0.0.1:80/cb", "http://127.0.0.1:81/cb", False),
        ("http://127.0.0.1/cb", "http://127.0.0.1.evil.example:1/cb", False),
        ("http://127.0.0.1/cb", "http://127.0.0.1:1@evil.example/cb", False),
        ("http://127.0.0.1/cb", "http://127.0.0.1:99999/cb", False),
        ("https://tool.example/cb", "https://tool.example:8443/cb", False),
    ],
)
def test_only_the_port_of_a_loopback_address_may_differ(registered: str, asked: str, is_match: bool) -> None:
    assert is_redirect_match(registered, asked) is is_match


@pytest.mark.parametrize(
    "uri",
    [
        "http://tool.example/cb",
        "https://tool.example/#x",
        "javascript:alert(1)",
        "https://u@tool.example/",
        "https://*.x",
        "//tool.example",
        "https://",
        "https://tool.example/ x",
        "https://[::1",
        "myapp:/cb",
        "https://tool.example/\r\nX: y",
    ],
)
def test_an_unsafe_redirect_uri_cannot_be_registered(uri: str) -> None:
    assert redirect_uri_fault(uri)


@pytest.fixture
def clock() -> list[float]:
    return [1_800_000_000.0]


@pytest.fixture
def book(tmp_path: Any, clock: list[float]) -> tuple[CodeBook, SpentIds]:
    path = tmp_path / "codes.sqlite3"
    database = Database.create(path)
    spent = SpentIds(database, lambda: clock[0])
    return CodeBook(database, spent, lambda: clock[0], token_lifetime_s=300), spent


REDEMPTION: dict[str, Any] = {"client_id": "app_1", "redirect_uri": CALLBACK, "verifier": VERIFIER, "thumbprint": None}


def test_a_code_is_good_once_and_its_reuse_kills_the_token(book: tuple[CodeBook, SpentIds]) -> None:
    codes, spent = book
    code = codes.give(checked(), "aud_1")
    granted = codes.redeem(code, **REDEMPTION)
    assert granted.account_id == "aud_1" and granted.scopes == {SCOPE_AUDIT_READ}
    spent.check("access-token", granted.token_jti)
    for _ in range(2):
        with pytest.raises(CodeError, match="used before"):
            codes.redeem(code, **REDEMPTION)
    with pytest.raises(AlreadySpentError):
        spent.check("access-token", granted.token_jti)


@pytest.mark.parametrize(
    "changes",
    [
        {"verifier": "w" * 43},
        {"verifier": CHALLENGE},
        {"verifier": "v" * 42},
        {"redirect_uri": CALLBACK + "/"},
        {"client_id": "app_2"},
    ],
    ids=str,
)
def test_a_code_is_bound_to_who_asked(changes: dict[str, Any], book: tuple[CodeBook, SpentIds]) -> None:
    code = book[0].give(checked(), "aud_1")
    with pytest.raises(CodeError):
        book[0].redeem(code, **(REDEMPTION | changes))


def test_a_code_is_bound_to_the_key_that_was_named(book: tuple[CodeBook, SpentIds]) -> None:
    key = ECKey.generate_key("P-256").thumbprint()
    code = book[0].give(checked(dpop_jkt=key), "aud_1")
    with pytest.raises(CodeError, match="another DPoP key"):
        book[0].redeem(code, **REDEMPTION)
    code = book[0].give(checked(dpop_jkt=key), "aud_1")
    assert book[0].redeem(code, **(REDEMPTION | {"thumbprint": key}))


def test_a_code_lives_a_minute(book: tuple[CodeBook, SpentIds], clock: list[float]) -> None:
    code = book[0].give(checked(), "aud_1")
    clock[0] += 60
    with pytest.raises(CodeError, match="older"):
        book[0].redeem(code, **REDEMPTION)


# -- over HTTP


@pytest.fixture(scope="module")
def tool(server: Running, operator: PlacetClient) -> str:
    """A native program without a key."""
    made = operator.register_client(
        kind="tool",
        name="<b>Log reader</b>",
        org="university",
        scopes=[SCOPE_AUDIT_READ, SCOPE_RENDER_READ],
        redirect_uris=["http://127.0.0.1/cb"],
    )
    return str(made["client_id"])


SignedIn = Callable[[PlacetClient], httpx.Client]


@pytest.fixture
def signed_in(server: Running) -> SignedIn:
    """A browser in which the account of a client is signed in."""

    def sign_in(client: PlacetClient) -> httpx.Client:
        assert client.credentials is not None
        cookie, _ = server.service.sessions.open(client.credentials.client_id)
        browser = httpx.Client(base_url=server.settings.browser_origin, headers={"Accept": "text/html"})
        browser.cookies.set("placet-session", cookie)
        return browser

    return sign_in


def query(tool: str, **changes: str) -> str:
    return urlencode(GOOD | {"client_id": tool, "redirect_uri": "http://127.0.0.1:50001/cb"} | changes)


def decide(browser: httpx.Client, tool: str, decision: str, **changes: str) -> dict[str, list[str]]:
    """Open the page, press a button, and read the answer that the program gets."""
    page = browser.get(f"/oauth/authorize?{query(tool, **changes)}")
    assert page.status_code == 200, page.text
    csrf = re.search(r'name="csrf" value="([^"]+)"', page.text)
    assert csrf is not None
    form = {"csrf": csrf[1], "query": query(tool, **changes), "decision": decision}
    answer = browser.post("/oauth/authorize", data=form, headers={"Origin": str(browser.base_url).rstrip("/")})
    assert answer.status_code == 303, answer.text
    assert answer.headers["location"].startswith("http://127.0.0.1:50001/cb?")
    return parse_qs(urlsplit(answer.headers["location"]).query)


def redeem(server: Running, tool: str, code: str, headers: dict[str, str] | None = None) -> httpx.Response:
    form = {
        "grant_type": "authorization_code",
        "client_id": tool,
        "code": code,
        "redirect_uri": "http://127.0.0.1:50001/cb",
        "code_verifier": VERIFIER,
    }
    return httpx.post(f"{server.url}/oauth/token", data=form, headers=headers or {})


def test_from_the_page_to_the_log(server: Running, auditor: PlacetClient, tool: str, signed_in: SignedIn) -> None:
    size = server.service.log.size
    answer = decide(signed_in(auditor), tool, "allow")
    assert answer["state"] == [GOOD["state"]] and answer["iss"] == [server.url]
    token = redeem(server, tool, answer["code"][0]).json()
    assert token["scope"] == SCOPE_AUDIT_READ and token["token_type"] == "Bearer"
    bearer = {"Authorization": f"Bearer {token['access_token']}"}
    assert httpx.get(f"{server.url}/v1/audit/entries", headers=bearer).status_code == 200
    again = redeem(server, tool, answer["code"][0])
    assert (again.status_code, again.json()["error"]) == (400, "invalid_grant")
    dead = httpx.get(f"{server.url}/v1/audit/entries", headers=bearer)
    assert (dead.status_code, dead.json()["code"]) == (401, "token.withdrawn")
    kinds = server.kinds_since(size)
    assert "oauth.authorized" in kinds and kinds.count("token.rejected") == 2


def test_the_page_says_who_asks_and_escapes_it(auditor: PlacetClient, tool: str, signed_in: SignedIn) -> None:
    page = signed_in(auditor).get(f"/oauth/authorize?{query(tool)}")
    assert "&lt;b&gt;Log reader&lt;/b&gt;" in page.text and "<b>Log reader" not in page.text
    assert "form-action 'self' http://127.0.0.1:50001;" in page.headers["content-security-policy"] + ";"


def test_a_person_may_say_no(auditor: PlacetClient, tool: str, signed_in: SignedIn) -> None:
    assert decide(signed_in(auditor), tool, "deny")["error"] == ["access_denied"]


def test_nobody_hands_on_what_they_do_not_hold(
    researcher: PlacetClient, tool: str, signed_in: SignedIn, server: Running
) -> None:
    size = server.service.log.size
    answer = signed_in(researcher).get(f"/oauth/authorize?{query(tool)}")
    assert answer.status_code == 303
    assert parse_qs(urlsplit(answer.headers["location"]).query)["error"] == ["access_denied"]
    assert "token.rejected" in server.kinds_since(size)


def test_who_is_not_signed_in_signs_in_first(server: Running, tool: str) -> None:
    answer = httpx.get(
        f"{server.settings.browser_origin}/oauth/authorize?{query(tool)}", headers={"Accept": "text/html"}
    )
    assert answer.status_code == 303 and answer.headers["location"].startswith("/sign-in?next=%2Foauth%2Fauthorize%3F")


def test_an_unchecked_address_is_never_used(auditor: PlacetClient, tool: str, signed_in: SignedIn) -> None:
    answer = signed_in(auditor).get(f"/oauth/authorize?{query(tool, redirect_uri='https://evil.example/cb')}")
    assert answer.status_code == 400 and "location" not in answer.headers
    assert "//evil.example" not in answer.text


def test_another_site_cannot_press_the_button(auditor: PlacetClient, tool: str, signed_in: SignedIn) -> None:
    browser = signed_in(auditor)
    form = {"csrf": "x", "query": query(tool), "decision": "allow"}
    for origin in ("https://evil.example", str(browser.base_url).rstrip("/")):
        assert browser.post("/oauth/authorize", data=form, headers={"Origin": origin}).status_code == 403


def test_a_code_for_renders_needs_a_key(
    server: Running, researcher: PlacetClient, tool: str, signed_in: SignedIn
) -> None:
    code = decide(signed_in(researcher), tool, "allow", scope=SCOPE_RENDER_READ)["code"][0]
    assert redeem(server, tool, code).json()["error"] == "invalid_dpop_proof"
    code = decide(signed_in(researcher), tool, "allow", scope=SCOPE_RENDER_READ)["code"][0]
    proof = researcher.proof("POST", f"{server.url}/oauth/token")
    token = redeem(server, tool, code, {"DPoP": proof}).json()
    assert token["token_type"] == "DPoP"
    url = f"{server.url}/v1/renders/ren_0"
    proof = researcher.proof("GET", url, token["access_token"])
    found = httpx.get(url, headers={"Authorization": f"DPoP {token['access_token']}", "DPoP": proof})
    assert found.json()["code"] == "not_found", "acts for the researcher, who has no such render"


def test_a_program_without_a_key_has_no_other_grant(server: Running, tool: str) -> None:
    form = {"grant_type": "client_credentials", "client_id": tool, "scope": SCOPE_AUDIT_READ}
    refused = httpx.post(f"{server.url}/oauth/token", data=form)
    assert refused.status_code in (400, 401) and refused.json()["error"] == "invalid_client"


def test_a_parameter_that_is_there_twice_is_refused(server: Running, tool: str) -> None:
    body = f"grant_type=authorization_code&client_id={tool}&code=a&code=b"
    kind = {"Content-Type": "application/x-www-form-urlencoded"}
    refused = httpx.post(f"{server.url}/oauth/token", content=body, headers=kind)
    assert (refused.status_code, refused.json()["error"]) == (400, "invalid_request")


def introspect(server: Running, client: PlacetClient, token: str) -> dict[str, Any]:
    form = {"token": token, "client_assertion_type": TYPE, "client_assertion": assertion(client)}
    answer = httpx.post(f"{server.url}/oauth/introspect", data=form)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def test_introspection_tells_the_owner_and_the_operator_only(
    server: Running, operator: PlacetClient, researcher: PlacetClient, stranger: PlacetClient
) -> None:
    token = ask(server, researcher, SCOPE_RENDER_READ).json()["access_token"]
    assert researcher.credentials is not None
    found = introspect(server, researcher, token)
    assert found["active"] and found["client_id"] == researcher.credentials.client_id
    assert found["token_type"] == "DPoP" and found["cnf"] and found["exp"] > time.time()
    assert introspect(server, operator, token) == found
    assert introspect(server, stranger, token) == {"active": False}
    assert introspect(server, researcher, "garbage") == {"active": False}
    assert introspect(server, researcher, secrets.token_urlsafe()) == {"active": False}


def test_introspection_knows_withdrawal_and_suspension(server: Running, operator: PlacetClient) -> None:
    client = vetted(server, operator, "platform")
    assert client.credentials is not None
    first, second = (ask(server, client, SCOPE_DETECT_CREATE).json()["access_token"] for _ in range(2))
    form = {"token": first, "client_assertion_type": TYPE, "client_assertion": assertion(client)}
    assert httpx.post(f"{server.url}/oauth/revoke", data=form).status_code == 200
    assert introspect(server, operator, first) == {"active": False}
    assert introspect(server, operator, second)["active"]
    operator.suspend_client(client.credentials.client_id)
    assert introspect(server, operator, second) == {"active": False}


def test_introspection_needs_authentication(server: Running, tool: str) -> None:
    refused = httpx.post(f"{server.url}/oauth/introspect", data={"token": "x", "client_id": tool})
    assert refused.status_code in (400, 401) and refused.json()["error"] == "invalid_client"


def test_keys_rotate_without_downtime(tmp_path: Any) -> None:
    service = FileKeyService.create(tmp_path / "keys")
    clock = [0.0]
    keys = TokenKeys(service, lambda: clock[0])

    def token() -> str:
        return signed_jwt({"typ": "at+jwt"}, {"sub": "x"}, keys.signer())

    def verifies(compact: str) -> bool:
        kid = unverified_jwt(compact)[0]["kid"]
        try:
            return bool(verified_claims(compact, keys.key_set(kid), ["ES256"]))
        except UnreadableJwtError:
            return False

    first = token()
    assert verifies(first) and len(keys.jwks()["keys"]) == 1
    service.rotate("oauth")
    clock[0] += 1  # a strange kid makes it look again
    second = token()
    assert verifies(second) and verifies(first) and len(keys.jwks()["keys"]) == 2
    service.rotate("oauth")
    clock[0] += 10
    assert verifies(token()) and verifies(second)
    assert not verifies(first), "two rotations put a stolen key out of use"
