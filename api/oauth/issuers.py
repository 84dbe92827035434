"""Outside issuers whose access tokens are accepted: by configuration, for vetted clients, and nothing else by default.

    token ─▶ iss configured? ─▶ keys of that issuer (discovery, JWKS; cached, fetched again for an unknown kid)
          ─▶ RFC 9068 checks (api.oauth.resource) ─▶ client on record here? ─▶ scopes: what it says ∩ what was vetted

An issuer says who somebody is. What they may do here stays an operator's decision: a client that no operator has put on
record (`external` in `POST /v1/operators/clients`) gets nothing, whatever its token says.

What is fetched comes from another machine: over https (or from this machine), without following redirects, up to a
size, within seconds, parsed with care, and at most every half minute however many strange tokens arrive.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

import httpx
from joserfc.jwk import ECKey, Key, KeySet, OKPKey, RSAKey, import_key

from api.errors import ApiError, TokenError
from api.oauth.jwts import JWT_FAULTS
from api.oauth.resource import Holder
from api.oauth.trust import ExternalIssuer, fetch_fault, is_loopback

logger = logging.getLogger("placet.issuers")

MAX_DOCUMENT_BYTES: Final = 256 * 1024
MAX_KEYS: Final = 50
FETCH_TIMEOUT_S: Final = 5.0
REFRESH_S: Final = 30.0
KEYS_FRESH_S: Final = 3600.0
KEYS_USABLE_S: Final = 24 * 3600.0
_WELL_KNOWN: Final = ("openid-configuration", "oauth-authorization-server")


class IssuerFetchError(ApiError):
    """A document of an outside issuer could not be had, or is not what it should be."""

    code = "token.issuer_unreachable"


class Fetch(Protocol):
    """Gets a JSON document over HTTP."""

    def __call__(self, url: str, /) -> dict[str, Any]:
        """Raises: IssuerFetchError."""


def fetch_json(url: str) -> dict[str, Any]:
    """A JSON object from another machine, within limits: see the head of this module. Raises: IssuerFetchError."""
    if fault := fetch_fault(url):
        raise IssuerFetchError(f"The issuer's address {fault}.")
    give_up_at_s = time.monotonic() + 2 * FETCH_TIMEOUT_S
    content = bytearray()
    try:
        with (
            httpx.Client(follow_redirects=False, timeout=FETCH_TIMEOUT_S, trust_env=False) as client,
            client.stream("GET", url, headers={"Accept": "application/json"}) as answer,
        ):
            if answer.status_code != 200:
                raise IssuerFetchError(f"The issuer answered {answer.status_code}.")
            for chunk in answer.iter_bytes(16_384):
                content += chunk
                if len(content) > MAX_DOCUMENT_BYTES or time.monotonic() > give_up_at_s:
                    raise IssuerFetchError("The issuer's answer is too large or too slow.")
        document = json.loads(bytes(content))
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, RecursionError) as exc:
        raise IssuerFetchError("The issuer does not answer with JSON.") from exc
    if not isinstance(document, dict):
        raise IssuerFetchError("The issuer does not answer with a JSON object.")
    return document


class OutsideIssuer:
    """One configured issuer, as `AccessTokenValidator` wants it.

    Args:
        config: what the operator said about it.
        own_issuer: our base URL, for audiences.
        find_client: local name of its client, or None (`ClientDirectory.external_client`).
        vetted: scopes and organisation of a local client.
        fetch: gets documents.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        config: ExternalIssuer,
        *,
        own_issuer: str,
        find_client: Callable[[str, str], str | None],
        vetted: Callable[[str], tuple[frozenset[str], str]],
        fetch: Fetch = fetch_json,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config = config
        self._own_issuer = own_issuer
        self._find_client = find_client
        self._vetted = vetted
        self._fetch = fetch
        self._clock = clock
        self._lock = threading.Lock()
        self._keys: KeySet | None = None
        self._fetched_at_s = 0.0
        self._tried_at_s: float | None = None

    @property
    def issuer(self) -> str:
        """Its name, exactly as in `iss`."""
        return self._config.issuer

    @property
    def algorithms(self) -> Sequence[str]:
        """That it may sign with."""
        return self._config.algorithms

    def audience(self, path: str) -> str:
        """What `aud` of its tokens for an endpoint must be."""
        return self._config.audience or self._own_issuer + path

    def holder(self, claims: Mapping[str, Any]) -> Holder:
        """The local client that a token speaks for, with the scopes that both its issuer and our operator gave it.

        Raises: TokenError: no client, none that is on record, or one of another organisation.
        """
        outside_id = claims.get(self._config.client_claim)
        if not isinstance(outside_id, str) or not outside_id or not isinstance(claims.get("sub"), str):
            raise TokenError("token.claims", "The access token lacks its client, sub or jti.")
        client_id = self._find_client(self.issuer, outside_id)
        if client_id is None:
            raise TokenError("token.client", "No operator has let this client in: apply for access first.")
        vetted_scopes, org = self._vetted(client_id)
        if self._config.org_claim and claims.get(self._config.org_claim) != org:
            raise TokenError("token.org", "The access token names another organisation than the one on record.")
        return Holder(client_id, client_id, self._scopes(claims) & vetted_scopes)

    def key_set(self, kid: str) -> KeySet:
        """Its public keys. Fetches them if there are none, if they are old, or if `kid` is strange.

        Raises: IssuerFetchError: there are none, and none can be had.
        """
        keys, age_s = self._keys, self._clock() - self._fetched_at_s
        if keys is not None and age_s < KEYS_FRESH_S and (not kid or any(key.kid == kid for key in keys.keys)):
            return keys
        with self._lock:
            if self._keys is keys and self._may_try():
                self._refresh()
            keys, age_s = self._keys, self._clock() - self._fetched_at_s
        if keys is None or age_s > KEYS_USABLE_S:
            raise IssuerFetchError("The keys of the token's issuer cannot be had right now: try again in a minute.")
        return keys

    def _may_try(self) -> bool:
        return self._tried_at_s is None or self._clock() - self._tried_at_s >= REFRESH_S

    def _refresh(self) -> None:
        """Fetch the keys; what was there before stays if that fails."""
        self._tried_at_s = self._clock()
        try:
            document = self._fetch(self._config.jwks_uri or self._discovered_jwks_uri())
            self._keys = usable_keys(document, self.algorithms)
            self._fetched_at_s = self._clock()
        except IssuerFetchError as error:
            logger.warning("keys of %s could not be fetched: %s", self.issuer, error)

    def _discovered_jwks_uri(self) -> str:
        """RFC 8414 §3.1 and OpenID Connect Discovery §4. Raises: IssuerFetchError."""
        parts = urlsplit(self.issuer)
        path = parts.path.rstrip("/")
        addresses = (
            f"{parts.scheme}://{parts.netloc}{path}/.well-known/{_WELL_KNOWN[0]}",
            f"{parts.scheme}://{parts.netloc}/.well-known/{_WELL_KNOWN[1]}{path}",
        )
        failure = IssuerFetchError("The issuer has no metadata.")
        for address in addresses:
            try:
                metadata = self._fetch(address)
            except IssuerFetchError as error:
                failure = error
                continue
            # the document must be about this issuer, by its exact name (RFC 8414 §3.3)
            if metadata.get("issuer") != self.issuer:
                raise IssuerFetchError("The metadata of the issuer names another issuer.")
            jwks_uri = metadata.get("jwks_uri")
            if not isinstance(jwks_uri, str) or fetch_fault(jwks_uri):
                raise IssuerFetchError("The metadata of the issuer names no safe jwks_uri.")
            if is_loopback(urlsplit(jwks_uri).hostname or "") and not is_loopback(parts.hostname or ""):
                raise IssuerFetchError("The metadata of the issuer points to this machine.")
            return jwks_uri
        raise failure

    def _scopes(self, claims: Mapping[str, Any]) -> frozenset[str]:
        said = claims.get(self._config.scope_claim, "")
        names = said.split() if isinstance(said, str) else said if isinstance(said, list) else []
        texts = [name for name in names if isinstance(name, str)]
        if not self._config.scopes:
            return frozenset(texts)
        return frozenset(self._config.scopes[name] for name in texts if name in self._config.scopes)


def usable_keys(document: Mapping[str, Any], algorithms: Sequence[str]) -> KeySet:
    """The keys of a JWK Set that can verify signatures of these algorithms; others are skipped, not an error.

    Raises: IssuerFetchError: not a JWK Set, or no key of use in it.
    """
    unverified = document.get("keys")
    if not isinstance(unverified, list) or len(unverified) > MAX_KEYS:
        raise IssuerFetchError("The issuer's keys are not a JWK Set of reasonable size.")
    keys: list[Key] = []
    for each in unverified:
        if not isinstance(each, dict) or each.get("use", "sig") != "sig":
            continue
        if each.get("alg", algorithms[0]) not in algorithms:
            continue
        members = {name: each[name] for name in ("kty", "crv", "x", "y", "n", "e", "kid") if name in each}
        try:
            key = import_key(members)  # type: ignore[call-overload]
            if isinstance(key, ECKey | OKPKey | RSAKey) and isinstance(each.get("kid", ""), str):
                key.get_op_key("verify")
                keys.append(key)
        except JWT_FAULTS:
            continue
    if not keys:
        raise IssuerFetchError("The issuer has no key of use.")
    return KeySet(keys)
