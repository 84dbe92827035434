"""Validates access tokens for the endpoints (RFC 9068 §4), whoever issued them.

A scheme is one class: `Bearer` today. A sender-constrained scheme (DPoP, RFC 9449) is a second class with the same
`verify`, added to `AccessTokenValidator.schemes`; it gets the method, address and headers it needs in `Presentation`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from joserfc import jws, jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from api.errors import ScopeError, TokenError
from api.storage.spent import AlreadySpentError, SpentIds

ALGORITHMS = ["ES256"]


@dataclass(frozen=True)
class Presentation:
    """How a token came in.

    Attributes:
        authorization: every Authorization header of the request.
        method, url: of the request, for proofs that bind them.
        headers: the others, for schemes that carry a proof in a header.
    """

    authorization: tuple[str, ...]
    method: str
    url: str
    headers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class VerifiedToken:
    """A token that passed every check."""

    client_id: str
    scopes: frozenset[str]
    jti: str
    expires_at: float


class Scheme(Protocol):
    """One way to present a token."""

    name: str

    def verify(self, presentation: Presentation, token: str, claims: Mapping[str, Any]) -> None:
        """Check that whoever presents the token may. Raises TokenError."""


class BearerScheme:
    """RFC 6750: whoever holds it may use it, unless the token is bound to a key."""

    name = "bearer"

    def verify(self, presentation: Presentation, token: str, claims: Mapping[str, Any]) -> None:
        """A key-bound token must not be used as a bearer token (RFC 9449 §7.2)."""
        if "cnf" in claims:
            raise TokenError("token.bound", "This token is bound to a key: present it with a proof of that key.")


class AccessTokenValidator:
    """The resource server's half of OAuth.

    Args:
        issuer: whose tokens are accepted.
        keys: the issuer's public keys.
        spent: denylist of withdrawn tokens.
        is_live: whether a client is (still) approved and in term.
        now: clock, seconds since the epoch.
        leeway_s: clock difference tolerated.
    """

    def __init__(
        self,
        *,
        issuer: str,
        keys: KeySet,
        spent: SpentIds,
        is_live: Callable[[str], bool],
        now: Callable[[], float],
        leeway_s: int,
        schemes: tuple[Scheme, ...] = (BearerScheme(),),
    ) -> None:
        self._issuer = issuer
        self._keys = keys
        self._spent = spent
        self._is_live = is_live
        self._now = now
        self._leeway_s = leeway_s
        self._schemes = {scheme.name: scheme for scheme in schemes}

    def verify(self, presentation: Presentation, *, audience: str, scope: str) -> VerifiedToken:
        """Check a token for one endpoint.

        Raises:
            TokenError: 401; its code names the check that failed.
            ScopeError: 403; the token is good but not for this.
        """
        # (1) exactly one Authorization header, with a scheme that we speak
        if not presentation.authorization:
            raise TokenError("token.missing", "Send an access token: “Authorization: Bearer …”.")
        if len(presentation.authorization) > 1:
            raise TokenError("token.several", "Send exactly one Authorization header.")
        scheme_name, _, token = presentation.authorization[0].partition(" ")
        scheme = self._schemes.get(scheme_name.lower())
        token = token.strip()
        if scheme is None or not token:
            raise TokenError("token.scheme", "Send the access token as “Authorization: Bearer …”.")

        # (2) header: type and algorithm before any signature work, RFC 9068 §2.1, §4; RFC 8725 §3.1
        try:
            header = jws.extract_compact(token.encode()).headers()
        except (JoseError, ValueError) as exc:
            raise TokenError("token.malformed", "The access token is not a JWT: ask for a new one.") from exc
        if header.get("alg") not in ALGORITHMS:
            raise TokenError("token.alg", "The access token is signed with an algorithm that is not accepted here.")
        if str(header.get("typ", "")).lower() not in {"at+jwt", "application/at+jwt"}:
            raise TokenError("token.typ", "This is a JWT, but not an access token.")

        # (3) signature by a key that we trust; keys named inside the token (jwk, jku, x5c) are never looked at
        try:
            claims: dict[str, Any] = jwt.decode(token, self._keys, algorithms=ALGORITHMS).claims
        except (JoseError, ValueError, TypeError) as exc:
            raise TokenError("token.signature", "The access token's signature does not verify.") from exc

        # (4) issuer and audience, RFC 9068 §4
        if claims.get("iss") != self._issuer:
            raise TokenError("token.iss", "The access token comes from another issuer.")
        audiences = claims.get("aud")
        if audience not in (audiences if isinstance(audiences, list) else [audiences]):
            raise TokenError("token.aud", "The access token was issued for another endpoint: ask for one for this one.")

        # (5) time: not expired, not from the future
        now, expires_at, issued_at = self._now(), claims.get("exp"), claims.get("iat")
        if not isinstance(expires_at, int | float) or expires_at + self._leeway_s <= now:
            raise TokenError("token.expired", "The access token has expired: ask for a new one.")
        if not isinstance(issued_at, int | float) or issued_at - self._leeway_s > now:
            raise TokenError("token.iat", "The access token was issued in the future: check the clocks.")

        # (6) whose token: a client that is still approved, and a token that was not withdrawn
        client_id, jti = claims.get("client_id"), claims.get("jti")
        if not isinstance(client_id, str) or not isinstance(jti, str):
            raise TokenError("token.claims", "The access token lacks client_id or jti.")
        try:
            self._spent.check("access-token", jti)
        except AlreadySpentError as exc:
            raise TokenError("token.withdrawn", "The access token was withdrawn: ask for a new one.") from exc
        if not self._is_live(client_id):
            raise TokenError("token.client", "The client is suspended or its term is over: talk to the operator.")

        # (7) what the scheme adds, such as proof of possession
        scheme.verify(presentation, token, claims)

        # (8) scope
        scopes = frozenset(str(claims.get("scope", "")).split())
        if scope not in scopes:
            raise ScopeError(scope)
        return VerifiedToken(client_id, scopes, jti, float(expires_at))


def unverified_client_id(authorization: tuple[str, ...]) -> str:
    """The client that a rejected token claims to be of; for the log, as a pseudonym. Empty where there is none."""
    token = authorization[0].partition(" ")[2].strip() if authorization else ""
    try:
        claims = json.loads(jws.extract_compact(token.encode()).payload)
    except (JoseError, ValueError):
        return ""
    return str(claims.get("client_id", "")) if isinstance(claims, dict) else ""
