"""A call of the OAuth endpoints, as Authlib wants to see it: body already read, nothing trusted."""

from __future__ import annotations

from collections import defaultdict

from authlib.oauth2 import OAuth2Request
from authlib.oauth2.rfc6749 import OAuth2Payload
from starlette.datastructures import FormData, Headers

from api.oauth.dpop import Proof


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
    """One call of the token, introspection or revocation endpoint.

    Authlib refuses plain http unless an environment variable says otherwise. Whether the outer connection is safe is
    decided once, by the issuer in the settings (https, or this machine), so the request is named by https here.

    Attributes:
        path: which endpoint was called.
        address: of the caller; empty if it is not known.
        proofs: every DPoP header, not yet verified.
        proof: the verified proof of possession that came along, if any.
    """

    def __init__(self, path: str, headers: Headers, form: FormData, address: str = "") -> None:
        super().__init__("POST", f"https://placet{path}", headers=headers)
        self._form = form
        self.payload = _Payload(form)
        self.path = path
        self.address = address
        self.proofs = tuple(headers.getlist("dpop"))
        self.proof: Proof | None = None

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
