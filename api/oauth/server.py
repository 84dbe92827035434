"""The embedded authorization server: Authlib inside FastAPI, for the default install.

One grant (client credentials), one way to authenticate (`private_key_jwt`, RFC 7523), one kind of token (RFC 9068,
ES256). Where Authlib's defaults are laxer than RFC 9700 and FAPI 2.0 they are overridden here, each override marked.
Another grant or token type is one more `register_*` call.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any, cast

from authlib.oauth2 import AuthorizationServer, OAuth2Error, OAuth2Request
from authlib.oauth2.rfc6749 import (
    ClientMixin,
    InvalidClientError,
    InvalidRequestError,
    InvalidScopeError,
    OAuth2Payload,
    grants,
)
from authlib.oauth2.rfc7523 import JWTBearerClientAssertion
from authlib.oauth2.rfc9068 import JWTBearerTokenGenerator
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, KeySet
from starlette.datastructures import FormData, Headers
from starlette.responses import Response

from api.oauth.scopes import AUDIENCE_PATH_BY_SCOPE, audience_of
from api.storage.spent import AlreadySpentError, SpentIds

ASSERTION_ALGORITHMS = ["ES256", "EdDSA", "Ed25519"]
MAX_ASSERTION_LIFETIME_S = 300


class OAuthClient(ClientMixin):
    """What the authorization server may know about a client."""

    def __init__(self, client_id: str, scopes: frozenset[str], jwks: Mapping[str, Any]) -> None:
        self.client_id = client_id
        self.scopes = scopes
        self.jwks = KeySet.import_key_set(cast(Any, dict(jwks)))

    def get_client_id(self) -> str:
        return self.client_id

    def get_allowed_scope(self, scope: str) -> str:
        return " ".join(name for name in (scope or "").split() if name in self.scopes)

    def check_endpoint_auth_method(self, method: str, endpoint: str) -> bool:
        return method == "private_key_jwt"

    def check_grant_type(self, grant_type: str) -> bool:
        return grant_type == "client_credentials"

    def check_client_secret(self, client_secret: str) -> bool:
        return False

    def check_redirect_uri(self, redirect_uri: str) -> bool:
        return False

    def check_response_type(self, response_type: str) -> bool:
        return False


class _Payload(OAuth2Payload):
    """A form, as Authlib wants to see it."""

    def __init__(self, form: FormData) -> None:
        self._values = {name: value for name, value in form.multi_items() if isinstance(value, str)}
        self._lists: defaultdict[str, list[str]] = defaultdict(list)
        for name, value in form.multi_items():
            if isinstance(value, str):
                self._lists[name].append(value)

    @property
    def data(self) -> dict[str, str]:
        return self._values

    @property
    def datalist(self) -> defaultdict[str, list[str]]:
        return self._lists


class TokenRequest(OAuth2Request):
    """One call of the token or revocation endpoint, body already read.

    Authlib refuses plain http unless an environment variable says otherwise. Whether the outer connection is safe is
    decided once, by the issuer in the settings (https, or this machine), so the request is named by https here.
    """

    def __init__(self, path: str, headers: Headers, form: FormData) -> None:
        super().__init__("POST", f"https://placet{path}", headers=headers)
        self._form = form
        self.payload = _Payload(form)

    @property
    def form(self) -> FormData:
        return self._form

    @property
    def args(self) -> dict[str, str]:
        return {}

    @property
    def unverified_client_id(self) -> str:
        """What the caller says it is called; for the log, as a pseudonym."""
        return str(getattr(self.client, "client_id", None) or self.payload.client_id or "")


class _PrivateKeyJwt(JWTBearerClientAssertion):
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
        return cast(OAuthClient, client).jwks

    def process_assertion_claims(self, assertion: str, resolve_key: Any) -> Any:
        # Override: an algorithm allow-list, and every odd shape of claim is the caller's error.
        try:
            token = jwt.decode(assertion, resolve_key, algorithms=ASSERTION_ALGORITHMS)
            self.verify_claims(token.claims)
        except (JoseError, ValueError, TypeError, KeyError) as exc:
            raise InvalidClientError(description="The client assertion does not verify.", status_code=401) from exc
        return token.claims

    def verify_claims(self, claims: Any) -> None:
        # Override: a short life, so that the replay store stays small and a stolen assertion is soon worthless.
        if not isinstance(claims.get("exp"), int | float) or claims["exp"] > self._now() + MAX_ASSERTION_LIFETIME_S:
            raise InvalidClientError(description=f"exp must be at most {MAX_ASSERTION_LIFETIME_S} seconds ahead.")
        super().verify_claims(claims)

    def validate_jti(self, claims: Any, jti: Any) -> bool:
        if not isinstance(jti, str) or not 8 <= len(jti) <= 128:
            return False
        try:
            self._spent.spend(f"assertion:{claims['sub']}", jti, claims["exp"] + self.leeway)
        except AlreadySpentError:
            return False
        return True


class _AccessTokens(JWTBearerTokenGenerator):
    """RFC 9068 access tokens."""

    def __init__(self, issuer: str, key: ECKey, lifetime_s: int) -> None:
        # Override: Authlib gives client-credentials tokens ten days.
        super().__init__(issuer, alg="ES256", expires_generator=lambda client, grant_type: lifetime_s)
        self._keys = KeySet([key])

    def get_jwks(self) -> KeySet:
        return self._keys

    def get_audiences(self, client: Any, user: Any, scope: str) -> str:
        return audience_of(scope.split(), self.issuer)


class _ClientCredentials(grants.ClientCredentialsGrant):
    """RFC 6749 §4.4, authenticated by a key."""

    TOKEN_ENDPOINT_AUTH_METHODS = ("private_key_jwt",)

    def validate_requested_scope(self) -> None:
        # Override: Authlib answers an unheld scope with a token of empty scope.
        asked = frozenset((self.request.payload.scope or "").split())
        if not asked or asked - self.request.client.scopes:
            raise InvalidScopeError(description="The client does not hold every scope that it asks for.")
        server = cast(EmbeddedServer, self.server)
        audience_of(asked, server.issuer, self.request.payload.datalist["resource"])


class EmbeddedServer(AuthorizationServer):
    """The authorization server.

    Args:
        issuer: its own base URL.
        key: P-256 key that signs access tokens; must have a `kid`.
        find_client: a live (approved, in term) client, or None.
        on_rejection: told an OAuth error code, a one-line reason and the unverified client id; answers a log index.
    """

    def __init__(
        self,
        *,
        issuer: str,
        key: ECKey,
        find_client: Callable[[str], OAuthClient | None],
        spent: SpentIds,
        on_rejection: Callable[[str, str, str], int],
        now: Callable[[], float],
        lifetime_s: int,
        leeway_s: int,
    ) -> None:
        super().__init__(scopes_supported=sorted(AUDIENCE_PATH_BY_SCOPE))
        self.issuer = issuer
        self.keys = KeySet([key])
        self._find_client = find_client
        self._spent = spent
        self._on_rejection = on_rejection
        self._now = now
        self._lifetime_s = lifetime_s
        self.register_client_auth_method("private_key_jwt", _PrivateKeyJwt(issuer, spent, now, leeway_s))
        self.register_token_generator("default", _AccessTokens(issuer, key, lifetime_s))
        self.register_grant(_ClientCredentials)

    def metadata(self) -> dict[str, Any]:
        """RFC 8414 authorization server metadata."""
        return {
            "issuer": self.issuer,
            "token_endpoint": f"{self.issuer}/oauth/token",
            "revocation_endpoint": f"{self.issuer}/oauth/revoke",
            "jwks_uri": f"{self.issuer}/oauth/jwks",
            "scopes_supported": self.scopes_supported,
            "response_types_supported": [],
            "grant_types_supported": ["client_credentials"],
            "token_endpoint_auth_methods_supported": ["private_key_jwt"],
            "token_endpoint_auth_signing_alg_values_supported": ASSERTION_ALGORITHMS,
            "revocation_endpoint_auth_methods_supported": ["private_key_jwt"],
        }

    def jwks(self) -> dict[str, Any]:
        """Public keys of access tokens (RFC 7517)."""
        return cast(dict[str, Any], self.keys.as_dict(private=False))

    def revoke(self, request: TokenRequest) -> Response:
        """RFC 7009: deny one of the caller's own access tokens. (Authlib cannot revoke JWTs; a denylist can.)"""
        try:
            client = self.authenticate_client(request, ["private_key_jwt"], "revocation")
            unverified_token = request.payload.data.get("token")
            if not unverified_token:
                raise InvalidRequestError(description="The token parameter is missing.")
        except OAuth2Error as error:
            return cast(Response, self.handle_error_response(request, error))
        try:
            claims = jwt.decode(unverified_token, self.keys, algorithms=["ES256"]).claims
            if claims["client_id"] == client.get_client_id():
                self._spent.spend("access-token", str(claims["jti"]), self._now() + self._lifetime_s)
        except (JoseError, ValueError, TypeError, KeyError, AlreadySpentError):
            return Response(status_code=200)  # §2.2: an invalid token is as good as revoked
        return Response(status_code=200)

    # -- what Authlib asks of an integration

    def create_oauth2_request(self, request: Any) -> OAuth2Request:
        return cast(OAuth2Request, request)

    def query_client(self, client_id: str) -> OAuthClient | None:
        return self._find_client(client_id)

    def save_token(self, token: Any, request: Any) -> None:
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
        log_index = self._on_rejection(code, reason, request.unverified_client_id)
        document = {
            **fields,
            "type": f"urn:placet:problem:{code}",
            "title": fields["error"].replace("_", " ").capitalize(),
            "status": status,
            "code": code,
            "detail": reason,
            "instance": "/oauth/token",
            "log_index": log_index,
        }
        return Response(json.dumps(document), status, dict(headers))
