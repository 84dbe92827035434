"""How a client proves who it is: a JWT signed with its registered key (`private_key_jwt`, RFC 7523 §3), used once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, cast

from authlib.oauth2.rfc6749 import InvalidClientError
from authlib.oauth2.rfc7523 import JWTBearerClientAssertion
from joserfc.jwk import KeySet

from api.oauth.jwts import UnreadableJwtError, numeric_date, unverified_jwt, verified_claims
from api.storage.spent import AlreadySpentError, SpentIds

ASSERTION_ALGORITHMS: Final = ("ES256", "EdDSA", "Ed25519")
MAX_ASSERTION_LIFETIME_S: Final = 300


class PrivateKeyJwt(JWTBearerClientAssertion):
    """RFC 7523 §3 client authentication, single use."""

    CLIENT_AUTH_METHOD = "private_key_jwt"

    def __init__(self, issuer: str, spent: SpentIds, now: Callable[[], float], leeway_s: int) -> None:
        super().__init__(leeway=leeway_s)
        self._issuer = issuer
        self._spent = spent
        self._now = now

    def get_audiences(self) -> list[str]:
        # Override: the issuer alone, not the token endpoint (FAPI 2.0 §5.3.2.1, audience injection).
        return [self._issuer]

    def resolve_client_public_key(self, client: Any) -> KeySet:
        return cast(KeySet, client.jwks)

    def extract_assertion(self, assertion: str) -> tuple[dict[str, Any], dict[str, Any]]:
        # Override: our own parser, whose errors are known.
        try:
            return unverified_jwt(assertion)
        except UnreadableJwtError as exc:
            raise InvalidClientError(description="The client assertion is not a JWT.", status_code=401) from exc

    def process_assertion_claims(self, assertion: str, resolve_key: Any) -> Any:
        # Override: an algorithm allow-list, and every odd shape of claim is the caller's error.
        try:
            claims = verified_claims(assertion, resolve_key, ASSERTION_ALGORITHMS)
        except UnreadableJwtError as exc:
            raise InvalidClientError(description="The client assertion does not verify.", status_code=401) from exc
        self.verify_claims(claims)
        return claims

    def verify_claims(self, claims: Any) -> None:
        # Override: numbered here, with the clock of the service, instead of joserfc's registry with its own.
        now, leeway_s = self._now(), self.leeway
        # (1) the client speaks for itself (RFC 7523 §3 (1), (2))
        if not isinstance(claims.get("iss"), str) or claims["iss"] != claims.get("sub"):
            raise _refusal("iss and sub must both be the client id.")
        # (2) to this server (§3 (3))
        audiences = claims.get("aud")
        if (audiences if isinstance(audiences, list) else [audiences]) != [self._issuer]:
            raise _refusal("aud must be the issuer, and nobody else.")
        # (3) now (§3 (4)–(6)); a short life, so that the replay store stays small and what is stolen is soon worthless
        expires_at, issued_at, not_before = (numeric_date(claims, name) for name in ("exp", "iat", "nbf"))
        if expires_at is None or not now - leeway_s < expires_at <= now + MAX_ASSERTION_LIFETIME_S + leeway_s:
            raise _refusal(f"exp must be in the future, at most {MAX_ASSERTION_LIFETIME_S} seconds ahead.")
        if ("iat" in claims and (issued_at is None or issued_at > now + leeway_s)) or (
            "nbf" in claims and (not_before is None or not_before > now + leeway_s)
        ):
            raise _refusal("The client assertion is from the future: check the clocks.")
        # (4) for the first time (§3 (7))
        jti = claims.get("jti")
        if not isinstance(jti, str) or not 8 <= len(jti) <= 128:
            raise _refusal("jti must be text of 8 to 128 characters.")
        try:
            self._spent.spend(f"assertion:{claims['sub']}", jti, expires_at + leeway_s)
        except AlreadySpentError as exc:
            raise _refusal("This client assertion was used before: make one per request.") from exc


def _refusal(description: str) -> InvalidClientError:
    return InvalidClientError(description=description, status_code=401)
