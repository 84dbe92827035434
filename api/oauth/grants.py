"""The two ways to a token: a client for itself (client credentials), and a person through a client (code and PKCE).

Both end in `EmbeddedServer.issue`. A token for `render:*` or `live:*` is bound to a key (DPoP), or is not issued.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, cast

from authlib.oauth2 import OAuth2Error
from authlib.oauth2.rfc6749 import (
    InvalidGrantError,
    InvalidRequestError,
    InvalidScopeError,
    UnauthorizedClientError,
    grants,
)
from authlib.oauth2.rfc6749.grants.base import BaseGrant, TokenEndpointMixin

from api.oauth.codes import CodeError
from api.oauth.dpop import ProofError
from api.oauth.requests import TokenRequest
from api.oauth.scopes import audience_of, requires_proof

if TYPE_CHECKING:
    from api.oauth.server import EmbeddedServer


class InvalidProofError(OAuth2Error):
    """RFC 9449 §5: the DPoP proof is missing where it must be there, or does not verify."""

    error = "invalid_dpop_proof"


class ClientCredentials(grants.ClientCredentialsGrant):
    """RFC 6749 §4.4, authenticated by a key."""

    TOKEN_ENDPOINT_AUTH_METHODS = ("private_key_jwt",)

    def validate_requested_scope(self) -> None:
        # Override: Authlib answers an unheld scope with a token of empty scope.
        asked = frozenset((self.request.payload.scope or "").split())
        if not asked or asked - self.request.client.scopes:
            raise InvalidScopeError(description="The client does not hold every scope that it asks for.")
        server = cast("EmbeddedServer", self.server)
        audience_of(asked, server.issuer, self.request.payload.datalist["resource"])
        accept_proof(server, self.request, asked)

    def generate_token(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        # Override: our own tokens, bound to the key of the proof.
        client_id = self.request.client.client_id
        scopes = frozenset(self.request.payload.scope.split())
        server = cast("EmbeddedServer", self.server)
        return server.issue(client_id=client_id, account_id=client_id, scopes=scopes, proof=self.request.proof)


class AuthorizationCode(BaseGrant, TokenEndpointMixin):
    """RFC 6749 §4.1.3 with PKCE (RFC 7636), S256 only; a code is good once, and a second use revokes its token."""

    GRANT_TYPE = "authorization_code"
    TOKEN_ENDPOINT_AUTH_METHODS: ClassVar[tuple[str, ...]] = ("private_key_jwt", "none")

    def validate_token_request(self) -> None:
        """Everything but the code itself. Raises OAuth2Error."""
        client = self.authenticate_token_endpoint_client()
        if not client.check_grant_type(self.GRANT_TYPE):
            raise UnauthorizedClientError(description="The client has no redirect URI on record: it cannot use codes.")
        self.request.client = client
        for name in ("code", "redirect_uri", "code_verifier"):
            if not self.request.payload.data.get(name):
                raise InvalidRequestError(description=f"The parameter {name} is missing.")

    def create_token_response(self) -> tuple[int, dict[str, Any], list[tuple[str, str]]]:
        """Redeem the code. Raises OAuth2Error."""
        server = cast("EmbeddedServer", self.server)
        data = self.request.payload.data
        try:
            granted = server.codes.redeemable(data["code"], client_id=self.request.client.client_id)
            accept_proof(server, self.request, granted.scopes)
            granted = server.codes.redeem(
                data["code"],
                client_id=self.request.client.client_id,
                redirect_uri=data["redirect_uri"],
                verifier=data["code_verifier"],
                thumbprint=self.request.proof.thumbprint if self.request.proof is not None else None,
            )
        except CodeError as exc:
            raise InvalidGrantError(description=exc.sentence) from exc
        token = server.issue(
            client_id=granted.client_id,
            account_id=granted.account_id,
            scopes=granted.scopes,
            proof=self.request.proof,
            jti=granted.token_jti,
        )
        return 200, token, self.TOKEN_RESPONSE_HEADER


def accept_proof(server: EmbeddedServer, request: TokenRequest, scopes: frozenset[str]) -> None:
    """Verify the proof that came along, or see that none is needed (RFC 9449 §5). Raises InvalidProofError."""
    if not request.proofs and not any(requires_proof(scope) for scope in scopes):
        return
    try:
        request.proof = server.proofs.accept(request.proofs, method="POST", url=f"{server.issuer}{request.path}")
    except ProofError as exc:
        raise InvalidProofError(description=exc.sentence) from exc
