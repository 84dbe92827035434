"""Interoperation with peers that others wrote: `oidc-provider` as an outside issuer, `oauth4webapi` as a client."""

from __future__ import annotations

import json
import re
import subprocess
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, import_key

from api.client import Credentials, PlacetClient
from api.clients import Vetting, external_name
from policy.consent import new_subject_key
from policy.identity import SCOPE_AUDIT_READ, SCOPE_DETECT_CREATE, SCOPE_RENDER_CREATE, SCOPE_RENDER_READ
from tests.api.conftest import Running, serving, vetted
from tests.api.test_oauth import TYPE
from tests.conftest import NODE_MODULES

pytestmark = pytest.mark.needs("node")
NODE = NODE_MODULES.parent
CALLBACK = "http://127.0.0.1:50002/cb"


# -- an outside issuer


class Issuer:
    """`issuer.mjs`, running: an OpenID provider with clients of its own."""

    def __init__(self, audiences: dict[str, str], clients: dict[str, ECKey]) -> None:
        self._clients = clients
        self.key = ECKey.generate_key("P-256", {"kid": "first", "alg": "ES256", "use": "sig"})
        config = {
            "audiences": audiences,
            "keys": [self.key.as_dict(private=True)],
            "clients": [
                {"client_id": name, "jwks": {"keys": [key.as_dict(private=False)]}} for name, key in clients.items()
            ],
        }
        self._process = subprocess.Popen(
            ["node", NODE / "issuer.mjs", json.dumps(config)],
            cwd=NODE,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.url = str(self._answer()["issuer"])
        metadata = httpx.get(f"{self.url}/.well-known/openid-configuration").json()
        self._token_endpoint = metadata["token_endpoint"]

    def token(self, client_id: str, *, scope: str, resource: str, proof: str = "") -> str:
        """An access token for one of its clients, as its token endpoint gives it."""
        key, now = self._clients[client_id], int(time.time())
        claims = {"iss": client_id, "sub": client_id, "aud": self.url, "iat": now, "exp": now + 60}
        assertion = jwt.encode({"alg": "ES256", "kid": key.kid}, {**claims, "jti": uuid.uuid4().hex}, key)
        form = {
            "grant_type": "client_credentials",
            "scope": scope,
            "resource": resource,
            "client_assertion_type": TYPE,
            "client_assertion": assertion,
        }
        answer = httpx.post(self._token_endpoint, data=form, headers={"DPoP": proof} if proof else {})
        assert answer.status_code == 200, answer.text
        return str(answer.json()["access_token"])

    @property
    def token_endpoint(self) -> str:
        return str(self._token_endpoint)

    def rotate(self) -> None:
        """Sign with a new key from now on."""
        assert self._process.stdin is not None
        new = ECKey.generate_key("P-256", {"kid": uuid.uuid4().hex, "alg": "ES256", "use": "sig"})
        self._process.stdin.write(json.dumps(new.as_dict(private=True)) + "\n")
        self._process.stdin.flush()
        assert new.kid in self._answer()["kids"]

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(10)

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        # the provider says on stdout, too, what it thinks of its configuration
        line = next(line for line in self._process.stdout if line.startswith("{"))
        return dict(json.loads(line))


@dataclass(frozen=True)
class Federation:
    """Our server, and an outside issuer that it trusts."""

    server: Running
    issuer: Issuer


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    # the issuer must know our addresses and we must know its name: audiences are names, so fixed ones will do
    audiences = {
        f"https://placet.example{path}": scope
        for path, scope in {
            "/v1/audit": SCOPE_AUDIT_READ,
            "/v1/renders": f"{SCOPE_RENDER_CREATE} {SCOPE_RENDER_READ}",
            "/v1/detections": SCOPE_DETECT_CREATE,
        }.items()
    }
    names = ("their-auditor", "their-researcher", "their-intern")
    issuer = Issuer(audiences, {name: ECKey.generate_key("P-256", {"kid": name}) for name in names})
    home = tmp_path_factory.mktemp("federation") / "home"
    try:
        with serving(home, issuer="https://placet.example", external_issuers=[{"issuer": issuer.url}]) as server:
            yield Federation(server, issuer)
    finally:
        issuer.close()


@pytest.fixture(scope="module")
def let_in(federation: Federation) -> dict[str, str]:
    """Two of its three clients, let in by our operator. Returns their local names."""
    made = {}
    for kind, name in (("auditor", "their-auditor"), ("researcher", "their-researcher")):
        scopes = {"auditor": [SCOPE_AUDIT_READ], "researcher": [SCOPE_RENDER_READ]}[kind]
        vetting = Vetting(
            kind=kind,
            name=name,
            org="university",
            project="",
            ethics_reference="",
            scopes=frozenset(scopes),
            term_expires_at=None,
            budget_s_per_day=60,
            external=external_name(federation.issuer.url, name),
        )
        made[name] = federation.server.service.clients.register(vetting, {}).client_id
    return made


def entries(federation: Federation, token: str) -> httpx.Response:
    url = f"http://127.0.0.1:{federation.server.settings.port}/v1/audit/entries"
    return httpx.get(url, headers={"Authorization": f"Bearer {token}"})


AUDIT = "https://placet.example/v1/audit"
RENDERS = "https://placet.example/v1/renders"


def test_its_tokens_open_what_our_operator_allowed(federation: Federation, let_in: dict[str, str]) -> None:
    token = federation.issuer.token("their-auditor", scope=SCOPE_AUDIT_READ, resource=AUDIT)
    found = entries(federation, token)
    assert found.status_code == 200 and found.json()["entries"], found.text


def test_its_tokens_open_nothing_for_strangers(federation: Federation, let_in: dict[str, str]) -> None:
    size = federation.server.service.log.size
    token = federation.issuer.token("their-intern", scope=SCOPE_AUDIT_READ, resource=AUDIT)
    refused = entries(federation, token)
    assert (refused.status_code, refused.json()["code"]) == (401, "token.client")
    elsewhere = federation.issuer.token(
        "their-auditor", scope=SCOPE_DETECT_CREATE, resource="https://placet.example/v1/detections"
    )
    assert entries(federation, elsewhere).json()["code"] == "token.aud"
    assert federation.server.kinds_since(size) == ["token.rejected"] * 2


def test_it_rotates_its_key_and_we_follow(
    federation: Federation, let_in: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.oauth.issuers.REFRESH_S", 0.0)
    old = federation.issuer.token("their-auditor", scope=SCOPE_AUDIT_READ, resource=AUDIT)
    assert entries(federation, old).status_code == 200
    federation.issuer.rotate()
    new = federation.issuer.token("their-auditor", scope=SCOPE_AUDIT_READ, resource=AUDIT)
    assert entries(federation, new).status_code == 200
    assert entries(federation, old).status_code == 200, "the old key is still published"


def test_its_bound_tokens_need_our_proofs(federation: Federation, let_in: dict[str, str]) -> None:
    researcher = PlacetClient(federation.server.url, Credentials("unused", new_subject_key()))
    proof = researcher.proof("POST", federation.issuer.token_endpoint)
    token = federation.issuer.token("their-researcher", scope=SCOPE_RENDER_READ, resource=RENDERS, proof=proof)
    address = f"http://127.0.0.1:{federation.server.settings.port}/v1/renders/ren_0"

    def read(**headers: str) -> tuple[int, str]:
        answer = httpx.get(address, headers=headers)
        return answer.status_code, answer.json()["code"]

    assert read(Authorization=f"Bearer {token}") == (401, "token.bound")
    once = researcher.proof("GET", f"{RENDERS}/ren_0", token)
    assert read(Authorization=f"DPoP {token}", DPoP=once) == (404, "not_found")
    assert read(Authorization=f"DPoP {token}", DPoP=once) == (401, "token.proof_replayed")
    unbound = federation.issuer.token("their-researcher", scope=SCOPE_RENDER_READ, resource=RENDERS)
    assert read(Authorization=f"Bearer {unbound}") == (401, "token.unbound")


def test_suspension_here_outweighs_its_word(federation: Federation, let_in: dict[str, str]) -> None:
    token = federation.issuer.token("their-auditor", scope=SCOPE_AUDIT_READ, resource=AUDIT)
    federation.server.service.clients.suspend(let_in["their-auditor"])
    assert entries(federation, token).json()["code"] == "token.client"
    federation.server.service.clients.resume(let_in["their-auditor"])
    assert entries(federation, token).status_code == 200


# -- a client of others


def run(step: str, **parameters: Any) -> dict[str, Any]:
    """One step of `client.mjs`."""
    ran = subprocess.run(
        ["node", NODE / "client.mjs", step, json.dumps(parameters)],
        cwd=NODE,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.stdout, ran.stderr
    return dict(json.loads(ran.stdout.splitlines()[-1]))


def identity(client: PlacetClient) -> dict[str, Any]:
    """Client id and private key, as Web Crypto wants to see it."""
    assert client.credentials is not None
    key = import_key(dict(client.credentials.key))  # type: ignore[arg-type]
    members = key.as_dict(private=True)
    private = {name: members[name] for name in ("kty", "crv", "x", "y", "d")}
    named = {**private, "kid": key.thumbprint()}
    return {"issuer": client.base_url, "client_id": client.credentials.client_id, "key": named}


def test_it_discovers_us(server: Running) -> None:
    found = run("discovery", issuer=server.url, client_id="x")
    assert found["issuer"] == server.url and found["code_challenge_methods_supported"] == ["S256"]


def test_it_gets_in_with_its_key(server: Running, auditor: PlacetClient) -> None:
    found = run("credentials", **identity(auditor), scope=SCOPE_AUDIT_READ, resource=f"{server.url}/v1/audit/entries")
    assert (found["status"], found["token_type"]) == (200, "bearer"), found


def test_it_proves_possession(server: Running, researcher: PlacetClient) -> None:
    asked = {**identity(researcher), "scope": SCOPE_RENDER_READ, "resource": f"{server.url}/v1/renders/ren_0"}
    found = run("credentials", **asked, dpop=True)
    assert (found["status"], found["token_type"], found["body"]["code"]) == (404, "dpop", "not_found"), found
    assert run("credentials", **asked)["error"] == "invalid_dpop_proof"


def test_our_tokens_are_valid_in_its_eyes(server: Running, researcher: PlacetClient) -> None:
    found = run(
        "validated",
        **identity(researcher),
        scope=SCOPE_RENDER_READ,
        audience=f"{server.url}/v1/renders",
        resource=f"{server.url}/v1/renders/ren_0",
    )
    assert found["claims"]["scope"] == SCOPE_RENDER_READ and found["claims"]["cnf"]["jkt"], found


def test_it_introspects_and_revokes(server: Running, operator: PlacetClient) -> None:
    found = run("lifecycle", **identity(vetted(server, operator, "platform")), scope=SCOPE_DETECT_CREATE)
    assert found["before"]["active"] is True and found["before"]["scope"] == SCOPE_DETECT_CREATE
    assert found["after"] == {"active": False}


@pytest.mark.parametrize(
    ("scope", "path"), [(SCOPE_AUDIT_READ, "/v1/audit/entries"), (SCOPE_RENDER_READ, "/v1/renders/ren_0")]
)
def test_a_person_lets_it_act_for_them(
    scope: str, path: str, server: Running, operator: PlacetClient, auditor: PlacetClient, researcher: PlacetClient
) -> None:
    person = auditor if scope == SCOPE_AUDIT_READ else researcher
    tool = operator.register_client(
        kind="tool", name="reader", org="university", scopes=[scope], redirect_uris=[CALLBACK]
    )["client_id"]
    begun = run("begin", issuer=server.url, client_id=tool, redirect_uri=CALLBACK, scope=scope)

    assert person.credentials is not None
    cookie, session = server.service.sessions.open(person.credentials.client_id)
    origin = server.settings.browser_origin
    with httpx.Client(base_url=origin, headers={"Accept": "text/html"}, follow_redirects=True) as browser:
        browser.cookies.set("placet-session", cookie)
        page = browser.get(begun["url"])
        query = re.search(r'name="query" value="([^"]+)"', page.text)
        assert page.status_code == 200 and query is not None, page.text
        form = {"csrf": session.csrf, "query": query[1].replace("&amp;", "&"), "decision": "allow"}
        answer = browser.post("/oauth/authorize", data=form, headers={"Origin": origin}, follow_redirects=False)
    callback = answer.headers["location"]
    assert parse_qs(urlsplit(callback).query)["iss"] == [server.url]

    common = {"issuer": server.url, "client_id": tool, "redirect_uri": CALLBACK, "resource": server.url + path}
    binds = scope.startswith("render:")
    found = run("finish", **common, callback=callback, state=begun["state"], verifier=begun["verifier"], dpop=binds)
    assert found["status"] == (404 if binds else 200) and found["scope"] == scope, found
    again = run("finish", **common, callback=callback, state=begun["state"], verifier=begun["verifier"], dpop=binds)
    assert again["error"] == "invalid_grant"
    mixed_up = callback.replace(server.url.replace(":", "%3A").replace("/", "%2F"), "https%3A%2F%2Fevil.example")
    refused = run("finish", **common, callback=mixed_up, state=begun["state"], verifier=begun["verifier"], dpop=binds)
    assert "iss" in refused["message"], "it notices a mix-up by our iss"


def test_the_peers_are_the_real_ones() -> None:
    lock = json.loads((Path(NODE) / "package-lock.json").read_text())
    assert {"node_modules/oidc-provider", "node_modules/oauth4webapi"} <= set(lock["packages"])
