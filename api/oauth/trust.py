"""Which outside issuers are trusted, as the operator configures it. Light: the settings import it."""

from __future__ import annotations

import ipaddress
from typing import Final
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator

ALGORITHMS: Final = ("ES256", "EdDSA", "Ed25519", "PS256", "ES384")
"""That an issuer may be configured with. No RS256 (RFC 9700 asks for better), no shared secrets, no none."""


class ExternalIssuer(BaseModel):
    """What the operator configures about one outside issuer."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    issuer: str = Field(description="Exactly as in `iss` of its tokens.")
    audience: str = Field("", description="`aud` of its tokens; empty: one per endpoint, as our own tokens have.")
    algorithms: tuple[str, ...] = Field(("ES256", "EdDSA"), description="That it may sign with.")
    client_claim: str = Field("client_id", description="Claim that names the client, for example azp.")
    scope_claim: str = Field("scope", description="Claim with scopes: text with spaces, or a list.")
    scopes: dict[str, str] = Field(default_factory=dict, description="Its scopes -> ours; empty: the same names.")
    org_claim: str = Field("", description="Claim that must equal the organisation on record; empty: not looked at.")
    jwks_uri: str = Field("", description="Where its keys are; empty: found by discovery.")

    @field_validator("issuer", "jwks_uri")
    @classmethod
    def _is_safe(cls, value: str) -> str:
        if value and (fault := fetch_fault(value)):
            raise ValueError(fault)
        return value

    @field_validator("algorithms")
    @classmethod
    def _are_known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value or set(value) - set(ALGORITHMS):
            raise ValueError(f"algorithms must be some of {', '.join(ALGORITHMS)}")
        return value


def fetch_fault(url: str) -> str:
    """Why nothing is fetched from an address; empty if it may be: https, or plain http on this machine."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        _ = parts.port
    except ValueError:
        return "is not an address"
    if not host or parts.fragment or "@" in parts.netloc:
        return "must be a whole address without user and fragment"
    if parts.scheme == "https" or (parts.scheme == "http" and is_loopback(host)):
        return ""
    return "must use https unless it is on this machine"


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
