"""Manifests are signed with a key that the render worker does not have.

The worker builds the claim, and asks the gateway for the signature while it works on a job. So the key stays where the
key service has it, a file or a hardware token, and whoever takes over the process that handles media gains no key. The
gateway signs only for a job that it has handed out, and only as often as one job needs.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from cryptography.hazmat.primitives.asymmetric import ec

from api.engine.wire import Message
from api.errors import EngineError
from api.settings import Settings
from policy.kms import SigningKey, public_kid
from watermark.authority import SigningAuthority, load_certificate
from watermark.errors import SigningError
from watermark.tsa import TimeStampAuthority, TimeStampServer

EMBEDDED = "embedded"
SIGN = "sign"
_MAX_SIGNATURES_PER_JOB = 4
_HAND_OVER_S = 5.0

Ask = Callable[[dict[str, str], dict[str, bytes]], Message]


class SignatureRefusedError(EngineError):
    """The worker asked for a signature that its job does not need."""

    code = "engine.signature_refused"


# -- gateway side


class ClaimSigner:
    """Answers one job's requests for signatures.

    Args:
        key: of the claim signer, wherever it is.
    """

    def __init__(self, key: SigningKey) -> None:
        self._key = key
        self._left = _MAX_SIGNATURES_PER_JOB

    def __call__(self, request: Message) -> Message:
        """Sign what the worker sends. Raises: SignatureRefusedError, SigningError."""
        # (1) nothing but signatures, and not without end
        if request.header.get("op") != SIGN or self._left <= 0:
            raise SignatureRefusedError("The worker asked for more than its job needs: restart the service.")
        self._left -= 1
        # (2) with the key that the worker's certificate is about; in a rotation the other one comes in a moment
        deadline = time.monotonic() + _HAND_OVER_S
        while self._key.kid != request.header.get("kid"):
            if time.monotonic() > deadline:
                raise SigningError(
                    "The signing certificate is not over the key that the key service has: nothing is delivered. "
                    "Run `placet keys rotate c2pa`."
                )
            time.sleep(0.05)
        return Message({}, {"signature": self._key.sign(request.attachments["claim"])})


class TimeStamping:
    """Where time stamps come from, after the settings; the embedded authority starts when it is first needed."""

    def __init__(self, settings: Settings, pki: Path) -> None:
        self._settings, self._pki = settings, pki
        self._server: TimeStampServer | None = None
        self._starting = threading.Lock()

    @property
    def url(self) -> str:
        """To be asked for stamps; "" for none. Raises: AuthorityError."""
        if self._settings.tsa_url != EMBEDDED:
            return self._settings.tsa_url
        with self._starting:
            if self._server is None:
                self._server = TimeStampServer(TimeStampAuthority.load(self._pki)).start()
            return self._server.url

    @property
    def roots_pem(self) -> str:
        """Further certificates under which stamps are believed."""
        return self._settings.tsa_roots.read_text() if self._settings.tsa_roots is not None else ""

    def close(self) -> None:
        """Answer no more."""
        with self._starting:
            if self._server is not None:
                self._server.stop()
                self._server = None


def check_can_sign(pki: Path) -> None:
    """Refuse work whose result could not be signed. Raises: SigningError, AuthorityError."""
    leaf = load_certificate(pki / "leaf.pem")
    if not leaf.not_valid_before_utc.timestamp() <= time.time() < leaf.not_valid_after_utc.timestamp():
        raise SigningError(
            f"The signing certificate is in force until {leaf.not_valid_after_utc:%Y-%m-%d} only. The operator has to "
            "renew it (`placet keys rotate c2pa`); nothing is delivered until then."
        )


# -- worker side


class GatewayKey:
    """The claim signer's key, seen from the worker: a `policy.kms.SigningKey` whose private half is elsewhere.

    Attributes:
        ask: how to reach the gateway; set for each job.
    """

    algorithm: Literal["Ed25519", "ES256"] = "ES256"

    def __init__(self, pki: Path) -> None:
        self._pki = pki
        self.ask: Ask | None = None

    @property
    def public_key(self) -> ec.EllipticCurvePublicKey:
        """Of the certificate in force."""
        key = load_certificate(self._pki / "leaf.pem").public_key()
        assert isinstance(key, ec.EllipticCurvePublicKey)  # `SigningAuthority` issues no other
        return key

    @property
    def kid(self) -> str:
        """Name of `public_key`."""
        return public_kid(self.public_key)

    def sign(self, message: bytes) -> bytes:
        """Have the gateway sign. Raises: SigningError: there is no job."""
        if self.ask is None:
            raise SigningError("Nothing is signed outside a job.")
        return self.ask({"op": SIGN, "kid": self.kid}, {"claim": message}).attachments["signature"]


def worker_authority(pki: Path, key: GatewayKey, tsa_url: str, tsa_roots_pem: str) -> SigningAuthority:
    """The instance's authority as the worker uses it. Raises: AuthorityError."""
    return SigningAuthority.load(pki, key=key).with_time_stamps(tsa_url, tsa_roots_pem)
