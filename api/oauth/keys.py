"""The keys that access tokens are signed with: one signs, the one before it still verifies, all are published.

A rotation needs no downtime: tokens signed just before it stay good for the rest of their five minutes. Only the last
retired key verifies; after a theft, rotate twice and nothing that the thief signs is accepted any more.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, Final, cast

from cryptography.hazmat.primitives import serialization
from joserfc.jwk import ECKey, KeySet

from policy.kms import KeyService, PublicKey, SigningKey, public_kid

KEY_NAME: Final = "oauth"
_NUM_RETIRED: Final = 1
_LOOK_AGAIN_S: Final = 5.0


class TokenKeys:
    """The `oauth` keys of a key service.

    Args:
        clock: monotonic seconds; how long the public keys may be kept before looking for a rotation again.
    """

    def __init__(self, service: KeyService, clock: Callable[[], float] = time.monotonic) -> None:
        self._service = service
        self._clock = clock
        self._lock = threading.Lock()
        self._key_set: KeySet | None = None
        self._looked_at_s = 0.0

    def signer(self) -> SigningKey:
        """The key that signs now."""
        return self._service.signing_key(KEY_NAME)

    def key_set(self, kid: str = "") -> KeySet:
        """Public keys that tokens may be signed with. Looks again at once for a `kid` that it does not know."""
        with self._lock:
            known = self._key_set
            age_s = self._clock() - self._looked_at_s
            is_strange = bool(kid) and known is not None and all(key.kid != kid for key in known.keys)
            if known is None or age_s > _LOOK_AGAIN_S or (is_strange and age_s > _LOOK_AGAIN_S / 10):
                publics = (self.signer().public_key, *self._service.retired(KEY_NAME)[:_NUM_RETIRED])
                known = KeySet([_jwk(public) for public in publics])
                self._key_set, self._looked_at_s = known, self._clock()
            return known

    def jwks(self) -> dict[str, Any]:
        """The same as a JWK Set (RFC 7517 §5)."""
        return cast(dict[str, Any], self.key_set().as_dict(private=False))


def _jwk(public: PublicKey) -> ECKey:
    pem = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return ECKey.import_key(pem, {"use": "sig", "alg": "ES256", "kid": public_kid(public)})
