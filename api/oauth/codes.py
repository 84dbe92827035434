"""Authorization codes (RFC 6749 §4.1) with PKCE: who may ask for one, what it is bound to, and that it is good once.

A code is bound to the client, the exact redirect URI, the S256 challenge and, if the client said so, its DPoP key. It
lives a minute. Only its SHA-256 is stored. Presented a second time, it kills the token that it was good for.
"""

from __future__ import annotations

import hmac
import re
import secrets
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlencode, urlsplit

from sqlalchemy import delete

from api.errors import ApiError
from api.oauth.jwts import sha256_base64url
from api.oauth.scopes import audience_of
from api.storage.database import Database
from api.storage.models import AuthorizationCodeRow
from api.storage.spent import AlreadySpentError, SpentIds

CODE_LIFETIME_S: Final = 60
MAX_STATE_CHARS: Final = 512
_CHALLENGE = re.compile(r"[A-Za-z0-9_-]{43}")
_VERIFIER = re.compile(r"[A-Za-z0-9._~-]{43,128}")
_LOOPBACK: Final = ("127.0.0.1", "::1")


class CodeError(ApiError):
    """The authorization code cannot be redeemed."""

    code = "oauth.invalid_grant"


class AuthorizationError(ApiError):
    """The authorization request cannot be granted. Told to the client by redirect if that is safe, else to the person.

    Attributes:
        error: the code of RFC 6749 §4.1.2.1.
        location: where to send the browser; empty if the redirect URI itself cannot be trusted.
    """

    code = "oauth.authorization"

    def __init__(self, error: str, sentence: str, location: str = "") -> None:
        super().__init__(sentence)
        self.error = error
        self.location = location


@dataclass(frozen=True)
class AuthorizationRequest:
    """A request for a code that passed every check; what is left is that the person agrees."""

    client_id: str
    redirect_uri: str
    scopes: frozenset[str]
    state: str
    code_challenge: str
    dpop_thumbprint: str
    issuer: str

    def location(self, **answer: str) -> str:
        """The redirect URI with an answer: state back unchanged, and who answers (`iss`, RFC 9207 §2)."""
        joiner = "&" if urlsplit(self.redirect_uri).query else "?"
        state = {"state": self.state} if self.state else {}
        return f"{self.redirect_uri}{joiner}{urlencode({**answer, **state, 'iss': self.issuer})}"


@dataclass(frozen=True)
class GrantedCode:
    """What a code stands for."""

    client_id: str
    account_id: str
    scopes: frozenset[str]
    token_jti: str


def authorization_request(
    params: Sequence[tuple[str, str]],
    *,
    redirect_uris_of: Callable[[str], tuple[Sequence[str], frozenset[str]] | None],
    issuer: str,
) -> AuthorizationRequest:
    """Check the parameters of `GET /oauth/authorize`.

    Args:
        params: the query, in order, repetitions included.
        redirect_uris_of: redirect URIs and scopes of a live client; None for any other.
        issuer: base URL of this server.
    Raises: AuthorizationError.
    """
    values: dict[str, str] = {}
    repeated = ""
    for name, value in params:
        if name in values and name != "resource":
            repeated = name
        values.setdefault(name, value)

    # (1) the client, and a redirect URI of its own: until both are known, nothing is sent anywhere
    if repeated in ("client_id", "redirect_uri"):
        raise AuthorizationError("invalid_request", f"The parameter {repeated} is there twice.")
    known = redirect_uris_of(values.get("client_id", ""))
    if known is None:
        raise AuthorizationError("invalid_client", "The program that sent you here is not known to this service.")
    redirect_uris, client_scopes = known
    redirect_uri = values.get("redirect_uri", "")
    if not any(is_redirect_match(registered, redirect_uri) for registered in redirect_uris):
        raise AuthorizationError(
            "invalid_request", "The program that sent you here gave an address that is not on record."
        )
    state = values.get("state", "")
    request = AuthorizationRequest(
        client_id=values["client_id"],
        redirect_uri=redirect_uri,
        scopes=frozenset(values.get("scope", "").split()),
        state=state[:MAX_STATE_CHARS],
        code_challenge=values.get("code_challenge", ""),
        dpop_thumbprint=values.get("dpop_jkt", ""),
        issuer=issuer,
    )

    def refuse(error: str, sentence: str) -> AuthorizationError:
        return AuthorizationError(error, sentence, request.location(error=error, error_description=sentence))

    # (2) from here on the client hears about it (RFC 6749 §4.1.2.1)
    if repeated:
        raise refuse("invalid_request", f"The parameter {repeated[:32]} is there twice.")
    if len(state) > MAX_STATE_CHARS:
        raise refuse("invalid_request", f"state may have {MAX_STATE_CHARS} characters.")
    if values.get("response_type") != "code":
        raise refuse("unsupported_response_type", "The response type is code.")
    if values.get("response_mode", "query") != "query":
        raise refuse("invalid_request", "The response mode is query.")

    # (3) PKCE, required of everybody, S256 only (RFC 9700 §2.1.1)
    if values.get("code_challenge_method") != "S256" or not _CHALLENGE.fullmatch(request.code_challenge):
        raise refuse("invalid_request", "PKCE is required: send a code_challenge with code_challenge_method S256.")
    if request.dpop_thumbprint and not _CHALLENGE.fullmatch(request.dpop_thumbprint):
        raise refuse("invalid_request", "dpop_jkt must be the SHA-256 thumbprint of a key.")

    # (4) scopes that the client may ask for, of one endpoint
    if not request.scopes or request.scopes - client_scopes:
        raise refuse("invalid_scope", "The client may not ask for every one of these scopes.")
    try:
        audience_of(request.scopes, issuer, [value for name, value in params if name == "resource"])
    except Exception as exc:
        error = getattr(exc, "error", None)
        if error is None:
            raise
        raise refuse(str(error), str(getattr(exc, "description", error))) from exc
    return request


def is_redirect_match(registered: str, asked: str) -> bool:
    """Whether two redirect URIs are the same text (RFC 9700 §4.1.3); on a loopback address the port may be any
    (RFC 8252 §7.3)."""
    if asked == registered:
        return True
    try:
        one, other = urlsplit(registered), urlsplit(asked)
        if one.scheme != "http" or one.hostname not in _LOOPBACK or one.port is not None or other.port is None:
            return False
        host = f"[{one.hostname}]" if ":" in (one.hostname or "") else one.hostname
    except ValueError:
        return False
    return asked == registered.replace(f"//{host}", f"//{host}:{other.port}", 1)


class CodeBook:
    """Codes that were given out, and what became of them."""

    def __init__(self, database: Database, spent: SpentIds, now: Callable[[], float], *, token_lifetime_s: int) -> None:
        self._database = database
        self._spent = spent
        self._now = now
        self._token_lifetime_s = token_lifetime_s

    def give(self, request: AuthorizationRequest, account_id: str) -> str:
        """A fresh code for a request that `account_id` agreed to."""
        code = secrets.token_urlsafe(32)
        now = self._now()
        with self._database.write() as session:
            # a code stays on record for as long as the token that it was good for, so that its reuse is noticed
            session.execute(
                delete(AuthorizationCodeRow).where(AuthorizationCodeRow.expires_at < now - self._token_lifetime_s)
            )
            session.add(
                AuthorizationCodeRow(
                    code_sha256=sha256_base64url(code),
                    client_id=request.client_id,
                    account_id=account_id,
                    redirect_uri=request.redirect_uri,
                    scope=" ".join(sorted(request.scopes)),
                    code_challenge=request.code_challenge,
                    dpop_thumbprint=request.dpop_thumbprint,
                    token_jti=secrets.token_urlsafe(16),
                    expires_at=now + CODE_LIFETIME_S,
                )
            )
        return code

    def redeemable(self, code: str, *, client_id: str) -> GrantedCode:
        """What a code is good for, if this client may redeem it now. A second use revokes. Raises CodeError."""
        with self._database.read() as session:
            row = session.get(AuthorizationCodeRow, sha256_base64url(code))
        # (1) given to this client
        if row is None or row.client_id != client_id:
            raise CodeError("The code is not one of this client: start again at the authorization endpoint.")
        # (2) for the first time; otherwise somebody has a copy (RFC 6749 §4.1.2)
        if row.redeemed_at is not None:
            with suppress(AlreadySpentError):  # its token is dead already
                self._spent.spend("access-token", row.token_jti, self._now() + self._token_lifetime_s)
            raise CodeError("The code was used before; the token that it was used for is withdrawn.")
        # (3) in time
        if self._now() >= row.expires_at:
            raise CodeError(f"The code is older than {CODE_LIFETIME_S} seconds: start again.")
        return GrantedCode(row.client_id, row.account_id, frozenset(row.scope.split()), row.token_jti)

    def redeem(
        self, code: str, *, client_id: str, redirect_uri: str, verifier: str, thumbprint: str | None
    ) -> GrantedCode:
        """Use a code up. Whatever is wrong from here on, the code is used up too. Raises CodeError."""
        granted = self.redeemable(code, client_id=client_id)
        with self._database.write() as session:
            row = session.get_one(AuthorizationCodeRow, sha256_base64url(code))
            was_redeemed = row.redeemed_at is not None
            row.redeemed_at = self._now()
            binding = row.redirect_uri, row.code_challenge, row.dpop_thumbprint
        # (4) nobody was faster
        if was_redeemed:
            self.redeemable(code, client_id=client_id)
        # (5) by whoever started: same redirect URI, verifier of the challenge (RFC 7636 §4.6), same key (RFC 9449 §10)
        if redirect_uri != binding[0]:
            raise CodeError("The redirect_uri is not the one that the code was sent to.")
        if not _VERIFIER.fullmatch(verifier) or not hmac.compare_digest(sha256_base64url(verifier), binding[1]):
            raise CodeError("The code_verifier does not belong to the code_challenge.")
        if binding[2] and binding[2] != thumbprint:
            raise CodeError("The code is bound to another DPoP key.")
        return granted


def redirect_uri_fault(uri: str) -> str:
    """Why a redirect URI cannot be registered; empty if it can (RFC 9700 §2.1, §4.1)."""
    try:
        parts = urlsplit(uri)
        host = parts.hostname or ""
    except ValueError:
        return "is not an address"
    if len(uri) > 400 or not uri.isascii() or any(character <= " " or character in '"<>\\^`{|}' for character in uri):
        return "holds characters that do not belong into an address"
    if not host or parts.fragment or "#" in uri or "@" in parts.netloc or "*" in uri:
        return "must be a whole address without fragment, user or wildcard"
    if parts.scheme == "https" or (parts.scheme == "http" and host in _LOOPBACK):
        return ""
    return "must begin with https://, or be http on 127.0.0.1 or [::1]"
