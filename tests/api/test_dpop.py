"""Proofs of possession: what a proof must say, that each counts once, and that a bound token is worth nothing alone."""

from __future__ import annotations

import json
import uuid
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from joserfc import jws, jwt
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey

from api.client import PlacetClient, ProblemError
from api.oauth.dpop import ProofBook, ProofError, normalised_address, verify_proof
from api.oauth.jwts import base64url, sha256_base64url
from api.storage.database import Database
from api.storage.spent import SpentIds
from policy.identity import SCOPE_DETECT_CREATE, SCOPE_RENDER_READ
from tests.api.conftest import Running
from tests.api.test_oauth import TYPE, ask, assertion

URL = "https://placet.example/v1/renders"
NOW = 1_800_000_000.0
KEY = ECKey.generate_key("P-256")
TOKEN = "an.access.token"


def proof(key: Any = KEY, *, header: dict[str, Any] | None = None, **changes: Any) -> str:
    """A proof for POST to URL with TOKEN, with changes; None takes a claim or header member away."""
    claims = {"htm": "POST", "htu": URL, "iat": int(NOW), "jti": uuid.uuid4().hex, "ath": sha256_base64url(TOKEN)}
    protected = {"typ": "dpop+jwt", "alg": "ES256", "jwk": key.as_dict(private=False)} | (header or {})
    return jwt.encode(
        {name: value for name, value in protected.items() if value is not None},
        {name: value for name, value in (claims | changes).items() if value is not None},
        key,
        algorithms=[str(protected["alg"])],
    )


def unsigned(**header: Any) -> str:
    """A proof that says what it likes in its header."""
    return f"{base64url(json.dumps({'typ': 'dpop+jwt', **header}).encode())}.e30.x"


def verify(*unverified: str, **changes: Any) -> Any:
    asked: dict[str, Any] = {
        "method": "POST",
        "url": URL,
        "now": NOW,
        "lifetime_s": 60,
        "leeway_s": 5,
        "access_token": TOKEN,
    }
    return verify_proof(unverified, **(asked | changes))


def test_a_good_proof_names_its_key() -> None:
    assert verify(proof()).thumbprint == KEY.thumbprint()
    other = OKPKey.generate_key("Ed25519")
    assert verify(proof(other, header={"alg": "EdDSA"})).thumbprint == other.thumbprint()


_RSA = RSAKey.generate_key(2048)
_P384 = ECKey.generate_key("P-384")
_OCT = OctKey.generate_key(256)
REFUSED: dict[str, tuple[tuple[str, ...], str]] = {
    "none": ((), "token.proof_missing"),
    "two": ((proof(), proof()), "token.proof_several"),
    "garbage": (("x",), "token.proof_malformed"),
    "nested beyond reason": ((f"{'W1tb' * 900}.e30.x",), "token.proof_malformed"),
    "another typ": ((proof(header={"typ": "JWT"}),), "token.proof_typ"),
    "no typ": ((proof(header={"typ": None}),), "token.proof_typ"),
    "unsigned": ((unsigned(alg="none"),), "token.proof_alg"),
    "RSA": ((proof(_RSA, header={"alg": "PS256"}),), "token.proof_alg"),
    "a secret": ((proof(_OCT, header={"alg": "HS256", "jwk": _OCT.as_dict(private=True)}),), "token.proof_alg"),
    "another curve": ((proof(header={"jwk": _P384.as_dict(private=False)}),), "token.proof_jwk"),
    "the private key": ((proof(header={"jwk": KEY.as_dict(private=True)}),), "token.proof_jwk"),
    "no key": ((proof(header={"jwk": None}),), "token.proof_jwk"),
    "a key that is text": ((unsigned(alg="ES256", jwk="key"),), "token.proof_jwk"),
    "extensions": ((unsigned(alg="ES256", crit=["b64"], b64=False),), "token.proof_malformed"),
    "a point that is not on the curve": (
        (proof(header={"jwk": KEY.as_dict(private=False) | {"x": KEY.as_dict(private=False)["y"]}}),),
        "token.proof_jwk",
    ),
    "another key than signed": (
        (proof(header={"jwk": ECKey.generate_key("P-256").as_dict(private=False)}),),
        "token.proof_signature",
    ),
    "another method": ((proof(htm="GET"),), "token.proof_htm"),
    "another path": ((proof(htu=URL + "/x"),), "token.proof_htu"),
    "another host": ((proof(htu=URL.replace("example", "evil")),), "token.proof_htu"),
    "another scheme": ((proof(htu=URL.replace("https", "http")),), "token.proof_htu"),
    "an address with a user": ((proof(htu=URL.replace("//", "//u@")),), "token.proof_htu"),
    "an address that is none": ((proof(htu="http://[::1"),), "token.proof_htu"),
    "no address": ((proof(htu=None),), "token.proof_htu"),
    "too old": ((proof(iat=int(NOW) - 61),), "token.proof_iat"),
    "from the future": ((proof(iat=int(NOW) + 6),), "token.proof_iat"),
    "iat is text": ((proof(iat="now"),), "token.proof_iat"),
    "iat is true": ((proof(iat=True),), "token.proof_iat"),
    "iat is beyond numbers": ((proof(iat=10**400),), "token.proof_iat"),
    "no jti": ((proof(jti=None),), "token.proof_jti"),
    "jti is a list": ((proof(jti=["x"]),), "token.proof_jti"),
    "jti is a novel": ((proof(jti="x" * 257),), "token.proof_jti"),
    "another token": ((proof(ath=sha256_base64url("another")),), "token.proof_ath"),
    "no token": ((proof(ath=None),), "token.proof_ath"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_proof_is_refused_by_name(name: str) -> None:
    unverified, code = REFUSED[name]
    with pytest.raises(ProofError) as refused:
        verify(*unverified)
    assert refused.value.code == code
    assert 'error="invalid_dpop_proof"' in refused.value.headers["WWW-Authenticate"]


@pytest.mark.parametrize(
    "same",
    [URL.upper().replace("/V1/RENDERS", "/v1/renders"), URL.replace(".example", ".example:443"), URL + "?q=1#x"],
)
def test_an_address_is_compared_in_normal_form(same: str) -> None:
    assert verify(proof(htu=same))
    assert normalised_address("http://h/%7ea%2fb") == "http://h/~a%2Fb"


def test_a_proof_counts_once_across_workers(tmp_path: Any) -> None:
    path = tmp_path / "spent.sqlite3"
    Database.create(path).close()
    workers = [
        ProofBook(SpentIds(Database.open(path), lambda: NOW), lambda: NOW, lifetime_s=60, leeway_s=5) for _ in range(2)
    ]
    once = (proof(),)
    workers[0].accept(once, method="POST", url=URL, access_token=TOKEN, thumbprint=KEY.thumbprint())
    for worker in workers:
        with pytest.raises(ProofError) as refused:
            worker.accept(once, method="POST", url=URL, access_token=TOKEN)
        assert refused.value.code == "token.proof_replayed"
    with pytest.raises(ProofError) as refused:
        workers[1].accept((proof(),), method="POST", url=URL, access_token=TOKEN, thumbprint="another key")
    assert refused.value.code == "token.proof_key"


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_flipped_character_is_refused_as_ours(data: st.DataObject) -> None:
    good = proof()
    place = data.draw(st.integers(0, len(good) - 1))
    changed = data.draw(st.characters(min_codepoint=0x21, max_codepoint=0xFF))
    bad = good[:place] + changed + good[place + 1 :]
    try:
        assert verify(bad).thumbprint == KEY.thumbprint()  # unused bits of base64url, the key member's order, …
        assert jws.extract_compact(bad.encode()).payload == jws.extract_compact(good.encode()).payload
    except ProofError:
        pass


@settings(max_examples=200, deadline=None)
@given(text=st.text(max_size=200) | st.binary(max_size=200).map(lambda raw: raw.decode("latin-1")))
def test_whatever_comes_is_refused_as_ours(text: str) -> None:
    with pytest.raises(ProofError):
        verify(text)


# -- over HTTP


def test_render_tokens_are_bound_or_not_issued(server: Running, researcher: PlacetClient) -> None:
    form = {
        "grant_type": "client_credentials",
        "scope": SCOPE_RENDER_READ,
        "client_assertion_type": TYPE,
        "client_assertion": assertion(researcher),
    }
    unbound = httpx.post(f"{server.url}/oauth/token", data=form)
    assert (unbound.status_code, unbound.json()["error"]) == (400, "invalid_dpop_proof")
    token = ask(server, researcher, SCOPE_RENDER_READ).json()["access_token"]
    claims = json.loads(jws.extract_compact(token.encode()).payload)
    assert claims["cnf"] == {"jkt": researcher._proof_key.thumbprint()}


def refused_read(server: Running, headers: Any) -> str:
    """The code with which reading a render is refused; the entry is in the log."""
    response = httpx.get(f"{server.url}/v1/renders/ren_0", headers=headers)
    problem = response.json()
    assert response.status_code == 401, problem
    assert response.headers["www-authenticate"].startswith("DPoP ") and "algs=" in response.headers["www-authenticate"]
    assert server.service.log.entry(problem["log_index"])["body"]["code"] == problem["code"]
    return str(problem["code"])


def test_a_stolen_token_opens_nothing(server: Running, researcher: PlacetClient, stranger: PlacetClient) -> None:
    url = f"{server.url}/v1/renders/ren_0"
    token = researcher.token(SCOPE_RENDER_READ)
    bound = {"Authorization": f"DPoP {token}"}
    assert refused_read(server, {"Authorization": f"Bearer {token}"}) == "token.bound"
    assert refused_read(server, bound) == "token.proof_missing"
    assert refused_read(server, bound | {"DPoP": stranger.proof("GET", url, token)}) == "token.proof_key"
    assert refused_read(server, bound | {"DPoP": researcher.proof("POST", url, token)}) == "token.proof_htm"
    assert refused_read(server, bound | {"DPoP": researcher.proof("GET", url + "/video", token)}) == "token.proof_htu"
    assert refused_read(server, bound | {"DPoP": researcher.proof("GET", url)}) == "token.proof_ath"
    once = bound | {"DPoP": researcher.proof("GET", url, token)}
    assert httpx.get(url, headers=once).status_code == 404
    assert refused_read(server, once) == "token.proof_replayed"
    twice = [*bound.items(), *(("DPoP", researcher.proof("GET", url, token)) for _ in range(2))]
    assert refused_read(server, twice) == "token.proof_several"


def test_a_client_that_is_unbound_elsewhere_may_bind_there_too(server: Running, researcher: PlacetClient) -> None:
    url = f"{server.url}/oauth/token"
    form = {
        "grant_type": "client_credentials",
        "scope": SCOPE_DETECT_CREATE,
        "client_assertion_type": TYPE,
        "client_assertion": assertion(researcher),
    }
    answer = httpx.post(url, data=form, headers={"DPoP": researcher.proof("POST", url)}).json()
    assert answer["token_type"] == "DPoP"
    stolen = httpx.post(f"{server.url}/v1/detections", headers={"Authorization": f"Bearer {answer['access_token']}"})
    assert stolen.json()["code"] == "token.bound"


def test_the_client_sends_proofs_by_itself(researcher: PlacetClient) -> None:
    with pytest.raises(ProblemError) as missing:
        researcher.render_status("ren_0")
    assert missing.value.status == 404
