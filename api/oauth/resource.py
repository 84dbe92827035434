"""Validates access tokens for the endpoints (RFC 9068 §4), whoever issued them.

Two questions, each with its own small protocol: who issued it (`TrustedIssuer`: the embedded server, or an external one
that the operator configured), and may whoever presents it do so (`Scheme`: Bearer, DPoP).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from joserfc.jwk import KeySet

from api.errors import ScopeError, TokenError
from api.oauth.dpop import ProofBook, ProofError
from api.oauth.jwts import UnreadableJwtError, numeric_date, unverified_jwt, verified_claims
from api.oauth.keys import TokenKeys
from api.oauth.scopes import requires_proof
from api.storage.spent import AlreadySpentError, SpentIds

TOKEN_TYPES = frozenset({"at+jwt", "application/at+jwt"})
MAX_TOKEN_LIFETIME_S = 3600


@dataclass(frozen=True)
class Presentation:
    """How a token came in.

    Attributes:
        authorization: every Authorization header of the request.
        method, url: of the request as the client sees it, for proofs that bind them.
        headers: the others, for schemes that carry a proof in a header.
    """

    authorization: tuple[str, ...]
    method: str
    url: str
    headers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Holder:
    """For whom a token was issued.

    Attributes:
        client_id: the program that got it, by its local name.
        account_id: for whom it acts: itself, or whoever agreed to it.
    """

    client_id: str
    account_id: str
    scopes: frozenset[str]


@dataclass(frozen=True)
class VerifiedToken:
    """A token that passed every check."""

    client_id: str
    account_id: str
    scopes: frozenset[str]
    jti: str
    expires_at: float


class TrustedIssuer(Protocol):
    """Somebody whose tokens are accepted."""

    @property
    def issuer(self) -> str:
        """Its name, exactly as in `iss`."""
        ...

    @property
    def algorithms(self) -> Sequence[str]:
        """That it may sign with."""
        ...

    def key_set(self, kid: str) -> KeySet:
        """Its public keys; looks for new ones if it does not know `kid`. Raises: TokenError."""
        ...

    def audience(self, path: str) -> str:
        """What `aud` of its tokens for an endpoint must be."""
        ...

    def holder(self, claims: Mapping[str, Any]) -> Holder:
        """Whom a token speaks for here. Raises: TokenError."""
        ...


class OwnIssuer:
    """The embedded authorization server, as an issuer.

    Args:
        issuer: its base URL.
    """

    algorithms = ("ES256",)

    def __init__(self, issuer: str, keys: TokenKeys) -> None:
        self.issuer = issuer
        self._keys = keys

    def key_set(self, kid: str) -> KeySet:
        return self._keys.key_set(kid)

    def audience(self, path: str) -> str:
        return self.issuer + path

    def holder(self, claims: Mapping[str, Any]) -> Holder:
        client_id, account_id = claims.get("client_id"), claims.get("sub")
        if not isinstance(client_id, str) or not isinstance(account_id, str):
            raise TokenError("token.claims", "The access token lacks client_id, sub or jti.")
        return Holder(client_id, account_id, frozenset(str(claims.get("scope", "")).split()))


class Scheme(Protocol):
    """One way to present a token."""

    name: str

    def verify(self, presentation: Presentation, token: str, claims: Mapping[str, Any]) -> None:
        """Check that whoever presents the token may. Raises TokenError."""


class BearerScheme:
    """RFC 6750: whoever holds it may use it, unless the token is bound to a key."""

    name = "Bearer"

    def verify(self, presentation: Presentation, token: str, claims: Mapping[str, Any]) -> None:
        """A key-bound token must not be used as a bearer token (RFC 9449 §7.2)."""
        if "cnf" in claims:
            raise TokenError("token.bound", "This token is bound to a key: present it with a proof of that key.")


class DPoPScheme:
    """RFC 9449 §7.1: only who holds the key that the token is bound to may use it, with a new proof each time."""

    name = "DPoP"

    def __init__(self, proofs: ProofBook) -> None:
        self._proofs = proofs

    def verify(self, presentation: Presentation, token: str, claims: Mapping[str, Any]) -> None:
        """The token names a key, and the request carries a proof by that key for exactly this request."""
        confirmation = claims.get("cnf")
        thumbprint = confirmation.get("jkt") if isinstance(confirmation, dict) else None
        if not isinstance(thumbprint, str):
            raise ProofError("token.unbound", "This token is bound to no key: ask for one with a DPoP proof.")
        self._proofs.accept(
            presentation.headers.get("dpop", ()),
            method=presentation.method,
            url=presentation.url,
            access_token=token,
            thumbprint=thumbprint,
        )


class AccessTokenValidator:
    """The resource server's half of OAuth.

    Args:
        issuers: whose tokens are accepted; the first is the embedded server.
        spent: denylist of withdrawn tokens.
        is_live: whether a client is (still) approved and in term.
        now: clock, seconds since the epoch.
        leeway_s: clock difference tolerated.
        schemes: how tokens may be presented.
    """

    def __init__(
        self,
        *,
        issuers: Sequence[TrustedIssuer],
        spent: SpentIds,
        is_live: Callable[[str], bool],
        now: Callable[[], float],
        leeway_s: int,
        schemes: tuple[Scheme, ...],
    ) -> None:
        self._issuers = {issuer.issuer: issuer for issuer in issuers}
        self._own = issuers[0]
        self._spent = spent
        self._is_live = is_live
        self._now = now
        self._leeway_s = leeway_s
        self._schemes = {scheme.name.lower(): scheme for scheme in schemes}

    def verify(self, presentation: Presentation, *, path: str, scope: str) -> VerifiedToken:
        """Check a token for one endpoint.

        Args:
            path: of the group of endpoints, see `api.oauth.scopes`.
        Raises:
            TokenError: 401; its code names the check that failed.
            ScopeError: 403; the token is good but not for this.
        """
        challenge = "DPoP" if requires_proof(scope) else "Bearer"
        try:
            return self._verify(presentation, path, scope)
        except (TokenError, ScopeError) as error:
            is_proof = isinstance(error, ProofError) or getattr(error, "code", "") == "token.bound"
            error.challenge("DPoP" if is_proof else challenge)
            raise

    def _verify(self, presentation: Presentation, path: str, scope: str) -> VerifiedToken:
        # (1) exactly one Authorization header, with a scheme that we speak
        if not presentation.authorization:
            raise TokenError("token.missing", "Send an access token in the Authorization header.")
        if len(presentation.authorization) > 1:
            raise TokenError("token.several", "Send exactly one Authorization header.")
        scheme_name, _, token = presentation.authorization[0].partition(" ")
        scheme = self._schemes.get(scheme_name.lower())
        token = token.strip()
        if scheme is None or not token:
            names = " or ".join(f"“Authorization: {each.name} …”" for each in self._schemes.values())
            raise TokenError("token.scheme", f"Send the access token as {names}.")

        # (2) to (6) the token itself
        issuer, claims = self._claims(token)
        audiences = claims.get("aud")
        if (audiences if isinstance(audiences, list) else [audiences]) != [issuer.audience(path)]:
            raise TokenError("token.aud", "The access token was issued for another endpoint: ask for one for this one.")
        holder = self._holder(issuer, claims)

        # (7) scope, before the proof: a proof counts once, and should not be wasted
        if scope not in holder.scopes:
            raise ScopeError(scope)

        # (8) what the scheme adds, such as proof of possession
        if isinstance(scheme, BearerScheme) and requires_proof(scope) and "cnf" not in claims:
            raise TokenError("token.unbound", "This endpoint takes tokens that are bound to a key (DPoP) only.")
        scheme.verify(presentation, token, claims)
        return VerifiedToken(
            holder.client_id, holder.account_id, holder.scopes, str(claims["jti"]), float(claims["exp"])
        )

    def inspect(self, token: str) -> Mapping[str, Any] | None:
        """The claims of one of our own tokens, if it would be accepted now; for introspection (RFC 7662)."""
        try:
            issuer, claims = self._claims(token)
            if issuer is not self._own:
                return None
            self._holder(issuer, claims)
        except TokenError:
            return None
        return claims

    def _claims(self, token: str) -> tuple[TrustedIssuer, dict[str, Any]]:
        # (2) type and algorithm before any signature work, RFC 9068 §2.1, §4; RFC 8725 §3.1
        try:
            header, unverified_claims = unverified_jwt(token)
        except UnreadableJwtError as exc:
            raise TokenError("token.malformed", "The access token is not a JWT: ask for a new one.") from exc
        issuer = self._issuers.get(str(unverified_claims.get("iss")))
        if header.get("alg") not in (issuer or self._own).algorithms:
            raise TokenError("token.alg", "The access token is signed with an algorithm that is not accepted here.")
        if str(header.get("typ", "")).lower() not in TOKEN_TYPES:
            raise TokenError("token.typ", "This is a JWT, but not an access token.")

        # (3) an issuer that is trusted here, by its exact name
        if issuer is None:
            raise TokenError("token.iss", "The access token comes from an issuer that is not trusted here.")

        # (4) signed by a key of that issuer; keys named inside the token (jwk, jku, x5c) are never looked at
        try:
            claims = verified_claims(token, issuer.key_set(str(header.get("kid", ""))), issuer.algorithms)
        except UnreadableJwtError as exc:
            raise TokenError("token.signature", "The access token's signature does not verify.") from exc

        # (5) time: not expired, not from the future, not for ever
        now = self._now()
        expires_at, issued_at, not_before = (numeric_date(claims, name) for name in ("exp", "iat", "nbf"))
        if expires_at is None or expires_at + self._leeway_s <= now:
            raise TokenError("token.expired", "The access token has expired: ask for a new one.")
        if issued_at is None or issued_at - self._leeway_s > now:
            raise TokenError("token.iat", "The access token was issued in the future: check the clocks.")
        if "nbf" in claims and (not_before is None or not_before - self._leeway_s > now):
            raise TokenError("token.nbf", "The access token is not valid yet: check the clocks.")
        if expires_at - issued_at > MAX_TOKEN_LIFETIME_S:
            raise TokenError("token.lifetime", "The access token lives too long: at most an hour is accepted here.")
        if not isinstance(claims.get("jti"), str):
            raise TokenError("token.claims", "The access token lacks client_id, sub or jti.")
        return issuer, claims

    def _holder(self, issuer: TrustedIssuer, claims: Mapping[str, Any]) -> Holder:
        # (6) whose token: a client that is still approved, and a token that was not withdrawn
        holder = issuer.holder(claims)
        space = "access-token" if issuer is self._own else f"access-token:{issuer.issuer}"
        try:
            self._spent.check(space, str(claims["jti"]))
        except AlreadySpentError as exc:
            raise TokenError("token.withdrawn", "The access token was withdrawn: ask for a new one.") from exc
        for name in {holder.client_id, holder.account_id}:
            if not self._is_live(name):
                raise TokenError("token.client", "The client is suspended or its term is over: talk to the operator.")
        return holder


def unverified_client_id(authorization: tuple[str, ...]) -> str:
    """The client that a rejected token claims to be of; for the log, as a pseudonym. Empty where there is none."""
    token = authorization[0].partition(" ")[2].strip() if authorization else ""
    try:
        _, claims = unverified_jwt(token)
    except UnreadableJwtError:
        return ""
    return str(claims.get("client_id", ""))[:128]
