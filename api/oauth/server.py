"""The embedded authorization server: Authlib inside FastAPI, for the default install.

Two grants (client credentials; authorization code with PKCE), one way for a client with a key to authenticate
(`private_key_jwt`, RFC 7523), one kind of token (RFC 9068), bound to a key (DPoP, RFC 9449) where it makes faces move.
Where Authlib's defaults are laxer than RFC 9700 and FAPI 2.0 they are overridden, each override marked. Another grant
is one more `register_grant`.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Mapping
from typing import Any, cast

from authlib.oauth2 import AuthorizationServer, OAuth2Error, OAuth2Request
from authlib.oauth2.rfc6749 import ClientMixin, InvalidRequestError
from joserfc.jwk import KeySet
from starlette.responses import Response

from api.oauth.assertions import ASSERTION_ALGORITHMS, PrivateKeyJwt
from api.oauth.codes import CodeBook
from api.oauth.dpop import PROOF_ALGORITHMS, Proof, ProofBook
from api.oauth.grants import AuthorizationCode, ClientCredentials
from api.oauth.jwts import UnreadableJwtError, signed_jwt, verified_claims
from api.oauth.keys import TokenKeys
from api.oauth.requests import TokenRequest
from api.oauth.scopes import AUDIENCE_PATH_BY_SCOPE, audience_of
from api.storage.spent import AlreadySpentError, SpentIds

TOKEN_ALGORITHMS = ("ES256",)
_ONE_GRANT_PARAMETERS = ("grant_type", "scope", "client_id", "code", "redirect_uri", "client_assertion", "token")


class OAuthClient(ClientMixin):
    """What the authorization server may know about a client.

    A client with keys authenticates with them. One without keys is a program on somebody's machine: public, and good
    for authorization codes only.
    """

    def __init__(
        self, client_id: str, scopes: frozenset[str], jwks: Mapping[str, Any], redirect_uris: tuple[str, ...] = ()
    ) -> None:
        self.client_id = client_id
        self.scopes = scopes
        self.redirect_uris = redirect_uris
        self.has_keys = bool(jwks.get("keys"))
        self.jwks = KeySet.import_key_set(cast(Any, dict(jwks))) if self.has_keys else KeySet([])

    def get_client_id(self) -> str:
        return self.client_id

    def get_allowed_scope(self, scope: str) -> str:
        return " ".join(name for name in (scope or "").split() if name in self.scopes)

    def check_endpoint_auth_method(self, method: str, endpoint: str) -> bool:
        return method == ("private_key_jwt" if self.has_keys else "none")

    def check_grant_type(self, grant_type: str) -> bool:
        if grant_type == ClientCredentials.GRANT_TYPE:
            return self.has_keys
        return grant_type == AuthorizationCode.GRANT_TYPE and bool(self.redirect_uris)

    def check_client_secret(self, client_secret: str) -> bool:
        return False

    def check_redirect_uri(self, redirect_uri: str) -> bool:
        return False  # the authorization endpoint is ours, see `api.oauth.codes`

    def check_response_type(self, response_type: str) -> bool:
        return False


class EmbeddedServer(AuthorizationServer):
    """The authorization server.

    Args:
        issuer: its own base URL.
        keys: that access tokens are signed with.
        find_client: a live (approved, in term) client, or None.
        proofs: accepts proofs of possession.
        codes: authorization codes.
        introspect: what an access token is worth: its claims, or None (see `AccessTokenValidator.inspect`).
        may_introspect: whether a client may ask about tokens of others.
        on_rejection: told an OAuth error code, the request, and the unverified client id; answers a log index, or None.
        now: clock, seconds since the epoch.
    """

    def __init__(
        self,
        *,
        issuer: str,
        keys: TokenKeys,
        find_client: Callable[[str], OAuthClient | None],
        spent: SpentIds,
        proofs: ProofBook,
        codes: CodeBook,
        introspect: Callable[[str], Mapping[str, Any] | None],
        may_introspect: Callable[[str], bool],
        on_rejection: Callable[[str, TokenRequest], int | None],
        now: Callable[[], float],
        lifetime_s: int,
        leeway_s: int,
    ) -> None:
        super().__init__(scopes_supported=sorted(AUDIENCE_PATH_BY_SCOPE))
        self.issuer = issuer
        self.keys = keys
        self.proofs = proofs
        self.codes = codes
        self._find_client = find_client
        self._spent = spent
        self._introspect = introspect
        self._may_introspect = may_introspect
        self._on_rejection = on_rejection
        self._now = now
        self._lifetime_s = lifetime_s
        self.register_client_auth_method("private_key_jwt", PrivateKeyJwt(issuer, spent, now, leeway_s))
        self.register_grant(ClientCredentials)
        self.register_grant(AuthorizationCode)

    def metadata(self) -> dict[str, Any]:
        """RFC 8414 authorization server metadata."""
        return {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.issuer}/oauth/authorize",
            "token_endpoint": f"{self.issuer}/oauth/token",
            "introspection_endpoint": f"{self.issuer}/oauth/introspect",
            "revocation_endpoint": f"{self.issuer}/oauth/revoke",
            "jwks_uri": f"{self.issuer}/oauth/jwks",
            "scopes_supported": self.scopes_supported,
            "response_types_supported": ["code"],
            "response_modes_supported": ["query"],
            "grant_types_supported": ["client_credentials", "authorization_code"],
            "code_challenge_methods_supported": ["S256"],
            "authorization_response_iss_parameter_supported": True,
            "token_endpoint_auth_methods_supported": ["private_key_jwt", "none"],
            "token_endpoint_auth_signing_alg_values_supported": list(ASSERTION_ALGORITHMS),
            "introspection_endpoint_auth_methods_supported": ["private_key_jwt"],
            "introspection_endpoint_auth_signing_alg_values_supported": list(ASSERTION_ALGORITHMS),
            "revocation_endpoint_auth_methods_supported": ["private_key_jwt", "none"],
            "revocation_endpoint_auth_signing_alg_values_supported": list(ASSERTION_ALGORITHMS),
            "dpop_signing_alg_values_supported": list(PROOF_ALGORITHMS),
        }

    def jwks(self) -> dict[str, Any]:
        """Public keys of access tokens, the current one and the one before (RFC 7517)."""
        return self.keys.jwks()

    def issue(
        self,
        *,
        client_id: str,
        account_id: str,
        scopes: frozenset[str],
        proof: Proof | None,
        jti: str = "",
    ) -> dict[str, Any]:
        """A token response (RFC 6749 §5.1) with an RFC 9068 access token.

        Args:
            account_id: for whom; the client itself, or whoever agreed at the authorization endpoint.
            proof: of the key that the token is bound to.
            jti: the token's identifier, if it was promised before.
        """
        now = int(self._now())
        scope = " ".join(sorted(scopes))
        claims: dict[str, Any] = {
            "iss": self.issuer,
            "sub": account_id,
            "aud": audience_of(scopes, self.issuer),
            "client_id": client_id,
            "scope": scope,
            "iat": now,
            "exp": now + self._lifetime_s,  # Override: Authlib gives client-credentials tokens ten days.
            "jti": jti or secrets.token_urlsafe(16),
        }
        if proof is not None:
            claims["cnf"] = {"jkt": proof.thumbprint}  # RFC 9449 §6.1
        return {
            "access_token": signed_jwt({"typ": "at+jwt"}, claims, self.keys.signer()),
            "token_type": "Bearer" if proof is None else "DPoP",
            "expires_in": self._lifetime_s,
            "scope": scope,
        }

    def answer(self, request: TokenRequest) -> Response:
        """The token endpoint."""
        if fault := _repeated(request):
            return self.handle_error_response(request, fault)
        return cast(Response, self.create_token_response(request))

    def revoke(self, request: TokenRequest) -> Response:
        """RFC 7009: deny one of the caller's own access tokens. (Authlib cannot revoke JWTs; a denylist can.)"""
        try:
            client, unverified_token = self._asked_about(request, ["private_key_jwt", "none"], "revocation")
        except OAuth2Error as error:
            return self.handle_error_response(request, error)
        try:
            claims = verified_claims(unverified_token, self.keys.key_set(), TOKEN_ALGORITHMS)
            if claims["client_id"] == client.client_id:
                self._spent.spend("access-token", str(claims["jti"]), self._now() + self._lifetime_s)
        except (UnreadableJwtError, KeyError, AlreadySpentError):
            return Response(status_code=200)  # §2.2: an invalid token is as good as revoked
        return Response(status_code=200)

    def introspect(self, request: TokenRequest) -> Response:
        """RFC 7662: what a token is worth, told to its own client or to an operator; to others it is worth nothing."""
        try:
            client, unverified_token = self._asked_about(request, ["private_key_jwt"], "introspection")
        except OAuth2Error as error:
            return self.handle_error_response(request, error)
        claims = self._introspect(unverified_token)
        if claims is None or (claims["client_id"] != client.client_id and not self._may_introspect(client.client_id)):
            return self.handle_response(200, {"active": False}, _JSON)
        known = ("iss", "sub", "aud", "client_id", "scope", "iat", "exp", "jti", "cnf")
        answer = {"active": True, **{name: claims[name] for name in known if name in claims}}
        answer["token_type"] = "DPoP" if "cnf" in claims else "Bearer"
        return self.handle_response(200, answer, _JSON)

    def _asked_about(self, request: TokenRequest, methods: list[str], endpoint: str) -> tuple[OAuthClient, str]:
        """The authenticated client, and the token that it asks about."""
        if fault := _repeated(request):
            raise fault
        client = cast(OAuthClient, self.authenticate_client(request, methods, endpoint))
        token = request.payload.data.get("token")
        if not token:
            raise InvalidRequestError(description="The token parameter is missing.")
        return client, token

    # -- what Authlib asks of an integration

    def create_oauth2_request(self, request: Any) -> OAuth2Request:
        return cast(OAuth2Request, request)

    def query_client(self, client_id: str) -> OAuthClient | None:
        return self._find_client(client_id)

    def save_token(self, token: Any, request: Any = None) -> None:
        """Access tokens are not stored: they prove themselves and live five minutes."""

    def send_signal(self, name: str, *args: Any, **kwargs: Any) -> None:
        """No framework signals here."""

    def handle_response(self, status: int, body: Any, headers: Any) -> Response:
        content = json.dumps(body) if isinstance(body, dict) else body
        return Response(content, status, dict(headers))

    def handle_error_response(self, request: Any, error: OAuth2Error) -> Response:
        """RFC 6749 §5.2 error that is a problem document too, after the rejection was logged."""
        status, body, headers = error(self.get_error_uri(request, error))
        fields = dict(body)
        code = f"oauth.{fields['error']}"
        reason = fields.get("error_description") or fields["error"].replace("_", " ")
        log_index = self._on_rejection(code, request)
        document = {
            **fields,
            "type": f"urn:placet:problem:{code}",
            "title": fields["error"].replace("_", " ").capitalize(),
            "status": status,
            "code": code,
            "detail": reason,
            "instance": request.path,
            "log_index": log_index,
        }
        return Response(json.dumps(document), status, dict(headers))


_JSON = {"Content-Type": "application/json"}


def _repeated(request: TokenRequest) -> InvalidRequestError | None:
    """RFC 6749 §3.2: parameters must not be there more than once."""
    lists = request.payload.datalist
    twice = next((name for name in _ONE_GRANT_PARAMETERS if len(lists.get(name, ())) > 1), "")
    return InvalidRequestError(description=f"The parameter {twice} is there twice.") if twice else None
