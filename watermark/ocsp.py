"""Whether a leaf certificate is still good: a small OCSP responder (RFC 6960) for the address that leaves name.

It signs with a certificate of its own that the intermediate has delegated to it and that is sent along (§4.2.2.2):
c2pa-rs ignores answers without one. What was revoked stands in `revoked.json` beside the certificates.
"""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509 import ocsp

from watermark.authority import ISSUED, Clock, load_certificate, load_private_key, utc_now, write_private
from watermark.errors import AuthorityError

CONTENT_TYPE_REQUEST: Final = "application/ocsp-request"
CONTENT_TYPE_RESPONSE: Final = "application/ocsp-response"
MAX_REQUEST_BYTES: Final = 4096
_REVOKED: Final = "revoked.json"
_GOOD_FOR: Final = dt.timedelta(hours=24)


@dataclass(frozen=True)
class Revocation:
    """A leaf that counts no more.

    Attributes:
        at: since when; what was time-stamped before that stays trusted.
        reason: of RFC 5280 §5.3.1, e.g. "keyCompromise", "superseded".
    """

    at: dt.datetime
    reason: str


def issued(pki: Path) -> list[x509.Certificate]:
    """Every leaf that was ever issued here, oldest first. Raises: AuthorityError."""
    try:
        return x509.load_pem_x509_certificates((pki / ISSUED).read_bytes())
    except (OSError, ValueError) as exc:
        raise AuthorityError(f"The list of issued certificates ({ISSUED}) cannot be read. Restore it.") from exc


def revocations(pki: Path) -> dict[int, Revocation]:
    """What is revoked, by serial number. Raises: AuthorityError."""
    try:
        entries = json.loads((pki / _REVOKED).read_bytes())
        return {
            int(serial, 16): Revocation(dt.datetime.fromisoformat(entry["at"]), x509.ReasonFlags(entry["reason"]).value)
            for serial, entry in entries.items()
        }
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as exc:
        raise AuthorityError(f"The list of revoked certificates ({_REVOKED}) is damaged. Restore it.") from exc


def revoke(pki: Path, serial: int, reason: str, *, now: Clock = utc_now) -> Revocation:
    """Declare a leaf bad from now on; a second time changes nothing. Raises: AuthorityError: not issued here."""
    if serial not in {certificate.serial_number for certificate in issued(pki)}:
        raise AuthorityError("No certificate with this serial number was issued here.")
    try:
        checked = x509.ReasonFlags(reason).value
    except ValueError as exc:
        raise AuthorityError("A reason is one of RFC 5280 §5.3.1, e.g. keyCompromise or superseded.") from exc
    known = revocations(pki)
    revocation = known.setdefault(serial, Revocation(now().replace(microsecond=0), checked))
    content = {f"{each:x}": {"at": known[each].at.isoformat(), "reason": known[each].reason} for each in known}
    write_private(pki / _REVOKED, json.dumps(content, indent=1).encode())
    return revocation


class OcspResponder:
    """Answers for the leaves of one intermediate.

    Args:
        pki: directory of the authority; read anew for every answer, so that a revocation counts at once.
        now: clock.
    """

    def __init__(self, pki: Path, *, now: Clock = utc_now) -> None:
        self._pki, self._now = pki, now
        self._issuer = load_certificate(pki / "intermediate.pem")
        self._certificate, self._key = load_certificate(pki / "ocsp.pem"), load_private_key(pki / "ocsp.key")

    def reply(self, request: bytes) -> bytes:
        """The DER answer to a DER request; to what is no request of one certificate, an unsigned refusal (§2.3)."""
        # (1) a request about one certificate
        try:
            query = ocsp.load_der_ocsp_request(request)
            algorithm, serial = query.hash_algorithm, query.serial_number
            issuer = (query.issuer_name_hash, query.issuer_key_hash)
        except (ValueError, UnsupportedAlgorithm, NotImplementedError):  # the last: about several certificates
            return _refusal(ocsp.OCSPResponseStatus.MALFORMED_REQUEST)
        # (2) by the intermediate that we answer for
        if issuer != _issuer_hashes(self._issuer, algorithm):
            return _refusal(ocsp.OCSPResponseStatus.UNAUTHORIZED)
        # (3) what is known of it
        revocation = revocations(self._pki).get(serial)
        is_known = serial in {certificate.serial_number for certificate in issued(self._pki)}
        status = ocsp.OCSPCertStatus.GOOD if is_known else ocsp.OCSPCertStatus.UNKNOWN
        now = self._now().replace(microsecond=0)
        builder = ocsp.OCSPResponseBuilder().add_response_by_hash(
            issuer_name_hash=issuer[0],
            issuer_key_hash=issuer[1],
            serial_number=serial,
            algorithm=algorithm,
            cert_status=ocsp.OCSPCertStatus.REVOKED if revocation else status,
            this_update=now,
            next_update=now + _GOOD_FOR,
            revocation_time=revocation.at if revocation else None,
            revocation_reason=x509.ReasonFlags(revocation.reason) if revocation else None,
        )
        builder = builder.responder_id(ocsp.OCSPResponderEncoding.HASH, self._certificate)
        return builder.certificates([self._certificate]).sign(self._key, hashes.SHA256()).public_bytes(Encoding.DER)


def _issuer_hashes(issuer: x509.Certificate, algorithm: hashes.HashAlgorithm) -> tuple[bytes, bytes]:
    """Name and key of the issuer as a request names them, RFC 6960 §4.1.1."""
    public_key = issuer.public_key()
    assert isinstance(public_key, ec.EllipticCurvePublicKey)  # `SigningAuthority` makes no other
    digests = []
    for part in (
        issuer.subject.public_bytes(),
        public_key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint),
    ):
        digest = hashes.Hash(algorithm)
        digest.update(part)
        digests.append(digest.finalize())
    return digests[0], digests[1]


def _refusal(status: ocsp.OCSPResponseStatus) -> bytes:
    return ocsp.OCSPResponseBuilder.build_unsuccessful(status).public_bytes(Encoding.DER)
