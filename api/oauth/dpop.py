"""Proof of possession (DPoP, RFC 9449): a token that was stolen is worth nothing without the key it is bound to.

    client ── proof: “I hold key K; this is POST https://…/oauth/token, now, once” ──▶ token, bound to SHA-256 of K
    client ── token + proof: “… GET https://…/v1/renders/…, with this very token” ──▶ resource

`verify_proof` is pure: it says what a proof proves, or why it proves nothing. `ProofBook` adds that a proof counts
once, in whichever process it shows up first. No server nonces: proofs live a minute, each is good once across all
workers, and one round trip less is what a live session notices.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from api.errors import TokenError
from api.oauth.jwts import (
    UnreadableJwtError,
    numeric_date,
    public_key_of,
    sha256_base64url,
    unverified_jwt,
    verified_claims,
)
from api.storage.spent import AlreadySpentError, SpentIds

PROOF_ALGORITHMS: Final = ("ES256", "EdDSA", "Ed25519")
PROOF_TYPE: Final = "dpop+jwt"
MAX_JTI_CHARS: Final = 256

_CURVE_BY_ALGORITHM: Final = {"ES256": "P-256", "EdDSA": "Ed25519", "Ed25519": "Ed25519"}
_DEFAULT_PORTS: Final = {"https": ":443", "http": ":80"}
_ESCAPE = re.compile(r"%([0-9A-Fa-f]{2})")
_UNRESERVED = re.compile(r"[A-Za-z0-9._~-]")


class ProofError(TokenError):
    """The proof does not prove that the caller holds the key of the token. `code` names the check that failed."""

    error = "invalid_dpop_proof"


@dataclass(frozen=True)
class Proof:
    """What a verified proof says.

    Attributes:
        thumbprint: RFC 7638 SHA-256 thumbprint of the key that signed; `cnf.jkt` of tokens bound to it.
        jti: its identifier, to be spent.
        issued_at: Unix seconds.
    """

    thumbprint: str
    jti: str
    issued_at: float


def verify_proof(
    unverified_proofs: tuple[str, ...],
    *,
    method: str,
    url: str,
    now: float,
    lifetime_s: float,
    leeway_s: float,
    access_token: str | None = None,
) -> Proof:
    """Check the proof of one request, RFC 9449 §4.3.

    Args:
        unverified_proofs: every DPoP header of the request.
        method, url: of the request, as the client sees it.
        lifetime_s: how old a proof may be.
        leeway_s: how far ahead the client's clock may be.
        access_token: the token that comes with it; None at the token endpoint.
    Raises: ProofError: its code names the check that failed.
    """
    # (1) exactly one DPoP header
    if not unverified_proofs:
        raise ProofError("token.proof_missing", "Send a proof of possession (DPoP, RFC 9449) with this request.")
    if len(unverified_proofs) > 1:
        raise ProofError("token.proof_several", "Send exactly one DPoP header.")
    compact = unverified_proofs[0].strip()

    # (2), (3) a well-formed JWT with every claim that is needed
    try:
        header, _ = unverified_jwt(compact)
    except UnreadableJwtError as exc:
        raise ProofError("token.proof_malformed", "The DPoP header is not a JWT.") from exc

    # (4) of its own type, so that no other JWT can stand in for it
    if header.get("typ") != PROOF_TYPE:
        raise ProofError("token.proof_typ", f"The DPoP proof must have the type {PROOF_TYPE}.")

    # (5) with an asymmetric algorithm from the list
    algorithm = header.get("alg")
    if algorithm not in PROOF_ALGORITHMS:
        raise ProofError("token.proof_alg", "Sign the DPoP proof with ES256 or EdDSA.")

    # (6), (7) signed by the key that it brings along, which is public and of the algorithm's own kind
    try:
        key = public_key_of(header.get("jwk"))
    except UnreadableJwtError as exc:
        raise ProofError("token.proof_jwk", "The DPoP proof must bring a public P-256 or Ed25519 key.") from exc
    if key.curve_name != _CURVE_BY_ALGORITHM[algorithm]:
        raise ProofError("token.proof_jwk", "The key in the DPoP proof does not belong to its algorithm.")
    try:
        claims = verified_claims(compact, key, [algorithm])
    except UnreadableJwtError as exc:
        raise ProofError("token.proof_signature", "The signature of the DPoP proof does not verify.") from exc

    # (8), (9) for this request: the method, and the address without query and fragment
    if claims.get("htm") != method:
        raise ProofError("token.proof_htm", "The DPoP proof was made for another HTTP method.")
    if not _same_address(claims.get("htu"), url):
        raise ProofError("token.proof_htu", "The DPoP proof was made for another address: check the issuer URL.")

    # (11) made just now
    issued_at = numeric_date(claims, "iat")
    if issued_at is None or not now - lifetime_s <= issued_at <= now + leeway_s:
        raise ProofError("token.proof_iat", "The DPoP proof is too old or from the future: make one per request.")
    jti = claims.get("jti")
    if not isinstance(jti, str) or not 1 <= len(jti) <= MAX_JTI_CHARS:
        raise ProofError("token.proof_jti", f"The DPoP proof needs a jti of 1 to {MAX_JTI_CHARS} characters.")

    # (12a) for this access token
    if access_token is not None and claims.get("ath") != sha256_base64url(access_token):
        raise ProofError("token.proof_ath", "The DPoP proof was made for another access token.")
    return Proof(key.thumbprint(), jti, issued_at)


class ProofBook:
    """Accepts each proof once, across all processes that share the store.

    Args:
        spent: where used identifiers are kept until they could not be presented any more.
        now: clock, seconds since the epoch.
    """

    def __init__(self, spent: SpentIds, now: Callable[[], float], *, lifetime_s: float, leeway_s: float) -> None:
        self._spent = spent
        self._now = now
        self._lifetime_s = lifetime_s
        self._leeway_s = leeway_s

    def accept(
        self,
        unverified_proofs: tuple[str, ...],
        *,
        method: str,
        url: str,
        access_token: str | None = None,
        thumbprint: str | None = None,
    ) -> Proof:
        """Verify a proof and use it up.

        Args:
            thumbprint: of the key that it must be by: the one that the access token is bound to (RFC 9449 §4.3 (12b)).
        Raises: ProofError.
        """
        proof = verify_proof(
            unverified_proofs,
            method=method,
            url=url,
            now=self._now(),
            lifetime_s=self._lifetime_s,
            leeway_s=self._leeway_s,
            access_token=access_token,
        )
        if thumbprint is not None and proof.thumbprint != thumbprint:
            raise ProofError("token.proof_key", "The DPoP proof is by another key than the token is bound to.")
        try:
            expires_at = proof.issued_at + self._lifetime_s + self._leeway_s
            # not durable: what only a loss of power can forget has expired when the machine is back
            self._spent.spend(f"dpop:{proof.thumbprint}", sha256_base64url(proof.jti), expires_at, is_durable=False)
        except AlreadySpentError as exc:
            raise ProofError("token.proof_replayed", "This DPoP proof was used before: make one per request.") from exc
        return proof


def _same_address(unverified_htu: Any, url: str) -> bool:
    if not isinstance(unverified_htu, str):
        return False
    try:
        return normalised_address(unverified_htu) == normalised_address(url)
    except ValueError:
        return False


def normalised_address(url: str) -> str:
    """An http(s) address without query and fragment, in the normal form of RFC 3986 §6.2.2 and §6.2.3.

    Raises: ValueError: not an absolute http(s) address.
    """
    parts = urlsplit(url)
    scheme, host = parts.scheme.lower(), parts.netloc.lower()
    if scheme not in _DEFAULT_PORTS or not host or "@" in host:
        raise ValueError("not an absolute http(s) address")
    return f"{scheme}://{host.removesuffix(_DEFAULT_PORTS[scheme])}{_ESCAPE.sub(_decoded, parts.path) or '/'}"


def _decoded(escape: re.Match[str]) -> str:
    character = chr(int(escape[1], 16))
    return character if _UNRESERVED.fullmatch(character) else escape[0].upper()
