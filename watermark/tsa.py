"""A small time-stamp authority after RFC 3161: for the embedded default and for tests.

A signature with a time stamp outlives its certificate: a reader sees that the certificate was in force at the time that
the stamp names. The embedded authority belongs to the instance, so its stamps are worth what the instance is worth; set
the URL of an authority of somebody else to prove the time to people who do not trust the operator.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import secrets
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from asn1crypto import algos, cms, core, tsp
from asn1crypto import x509 as asn1_x509
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from watermark.authority import Clock, load_certificate, load_private_key, utc_now
from watermark.errors import AuthorityError

CONTENT_TYPE_QUERY: Final = "application/timestamp-query"
CONTENT_TYPE_REPLY: Final = "application/timestamp-reply"
_POLICY: Final = "1.3.6.1.4.1.62558.9.1"
_DIGEST_NUM_BYTES: Final = {"sha256": 32, "sha384": 48, "sha512": 64}
_MAX_REQUEST_BYTES: Final = 16 * 1024


class TimeStampAnswer(core.Sequence):  # type: ignore[misc]
    """TimeStampResp of RFC 3161 §2.4.2, in which a rejection has no token."""

    _fields = [  # noqa: RUF012 (asn1crypto wants a list)
        ("status", tsp.PKIStatusInfo),
        ("time_stamp_token", cms.ContentInfo, {"optional": True}),
    ]


class TimeStampAuthority:
    """Answers time-stamp queries.

    Args:
        certificate: its only extended key usage is time stamping, and that is critical (RFC 3161 §2.3).
        key: of the certificate.
        chain: further certificates to send along.
        now: clock.
        draw_serial: number of the next stamp.
    """

    def __init__(
        self,
        certificate: x509.Certificate,
        key: ec.EllipticCurvePrivateKey,
        chain: tuple[x509.Certificate, ...] = (),
        *,
        now: Clock = utc_now,
        draw_serial: Callable[[], int] = lambda: secrets.randbits(63),
    ) -> None:
        if key.public_key() != certificate.public_key():
            raise AuthorityError("The time stamper's key does not belong to its certificate.")
        certificates = [each.public_bytes(Encoding.DER) for each in (certificate, *chain)]
        self._certificates = [asn1_x509.Certificate.load(each) for each in certificates]
        self._certificate_sha256 = hashlib.sha256(certificates[0]).digest()
        self._key, self._now, self._draw_serial = key, now, draw_serial

    @classmethod
    def load(cls, directory: Path, *, now: Clock = utc_now) -> TimeStampAuthority:
        """The one below an instance's PKI directory. Raises: AuthorityError."""
        root = load_certificate(directory / "root.pem")
        return cls(load_certificate(directory / "tsa.pem"), load_private_key(directory / "tsa.key"), (root,), now=now)

    def reply(self, query: bytes) -> bytes:
        """The DER answer to a DER query; to a bad query, a rejection that says why (RFC 3161 §2.4.2)."""
        # (1) read all of it before anything is signed
        try:
            request = tsp.TimeStampReq.load(query, strict=True)
            imprint = request["message_imprint"]
            algorithm, digest = imprint["hash_algorithm"]["algorithm"].native, imprint["hashed_message"].native
            nonce, version = request["nonce"].native, request["version"].native
            wants_certificates, extensions = bool(request["cert_req"].native), request["extensions"].native
        except (ValueError, TypeError, KeyError):
            return _rejection("bad_data_format", "The query is not a TimeStampReq.")
        # (2) what is not understood is refused, §2.4.1
        if version != "v1" or extensions:
            return _rejection("unaccepted_extensions", "Only version 1 without extensions is answered here.")
        if len(digest) != _DIGEST_NUM_BYTES.get(algorithm, 0):
            return _rejection("bad_alg", "Only digests by SHA-256, SHA-384 and SHA-512 are stamped.")
        # (3) the stamp
        info = {
            "version": 1,
            "policy": _POLICY,
            "message_imprint": imprint,
            "serial_number": self._draw_serial(),
            "gen_time": self._now().replace(microsecond=0),
            "accuracy": {"seconds": 1},
        } | ({} if nonce is None else {"nonce": nonce})
        token = self._token(tsp.TSTInfo(info).dump(), wants_certificates)
        return TimeStampAnswer({"status": {"status": "granted"}, "time_stamp_token": token}).dump()  # type: ignore[no-any-return]

    def _token(self, info: bytes, wants_certificates: bool) -> cms.ContentInfo:
        """CMS signed data over the stamp (RFC 5652 §5), bound to our certificate (RFC 5816)."""
        signing_certificate = tsp.SigningCertificateV2({"certs": [{"cert_hash": self._certificate_sha256}]})
        attributes = cms.CMSAttributes(
            [
                cms.CMSAttribute({"type": "content_type", "values": ["tst_info"]}),
                cms.CMSAttribute({"type": "message_digest", "values": [hashlib.sha256(info).digest()]}),
                cms.CMSAttribute({"type": "signing_certificate_v2", "values": [signing_certificate]}),
            ]
        )
        own = self._certificates[0]
        signer = cms.SignerInfo(
            {
                "version": "v1",
                "sid": cms.SignerIdentifier(
                    {
                        "issuer_and_serial_number": cms.IssuerAndSerialNumber(
                            {"issuer": own.issuer, "serial_number": own.serial_number}
                        )
                    }
                ),
                "digest_algorithm": algos.DigestAlgorithm({"algorithm": "sha256"}),
                "signed_attrs": attributes,
                "signature_algorithm": algos.SignedDigestAlgorithm({"algorithm": "sha256_ecdsa"}),
                "signature": self._key.sign(attributes.untag().dump(), ec.ECDSA(hashes.SHA256())),
            }
        )
        signed: dict[str, Any] = {
            "version": "v3",
            "digest_algorithms": [{"algorithm": "sha256"}],
            "encap_content_info": {"content_type": "tst_info", "content": core.ParsableOctetString(info)},
            "signer_infos": [signer],
        }
        if wants_certificates:
            signed["certificates"] = self._certificates
        return cms.ContentInfo({"content_type": "signed_data", "content": cms.SignedData(signed)})


def _rejection(failure: str, sentence: str) -> bytes:
    status = {"status": "rejection", "status_string": [sentence], "fail_info": {failure}}
    return TimeStampAnswer({"status": tsp.PKIStatusInfo(status)}).dump()  # type: ignore[no-any-return]


class TimeStampServer:
    """A time-stamp authority over HTTP (RFC 3161 §3.4). Use as a context manager, or `start` and `stop` it.

    Args:
        authority: gives the answers.
        host, port: to listen on; by default loopback and a free port.
    Attributes:
        url: to be set as `tsa_url`.
    """

    def __init__(self, authority: TimeStampAuthority, *, host: str = "127.0.0.1", port: int = 0) -> None:
        handler = type("Handler", (_Handler,), {"authority": authority})
        self._server = ThreadingHTTPServer((host, port), handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, name="time stamps", daemon=True)
        self.url = f"http://{host}:{self._server.server_address[1]}/"

    def start(self) -> Self:
        """Answer from now on."""
        self._thread.start()
        return self

    def stop(self) -> None:
        """Answer no more."""
        self._server.shutdown()
        self._server.server_close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def wait(self) -> None:
        """Until another thread stops it."""
        self._thread.join()


class _Handler(BaseHTTPRequestHandler):
    """One query per request."""

    authority: TimeStampAuthority
    timeout = 10

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "")
        if not length.isdigit() or not 0 < int(length) <= _MAX_REQUEST_BYTES:
            self.send_error(413)
            return
        if self.headers.get_content_type() != CONTENT_TYPE_QUERY:
            self.send_error(415)
            return
        answer = self.authority.reply(self.rfile.read(int(length)))
        self.send_response(200)
        self.send_header("Content-Type", CONTENT_TYPE_REPLY)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: what is stamped is nobody's business."""
        return


def stamped_at(token: bytes) -> dt.datetime:
    """The time in a granted answer, unverified; for people. Raises: AuthorityError."""
    try:
        response = TimeStampAnswer.load(token, strict=True)
        info = response["time_stamp_token"]["content"]["encap_content_info"]["content"].parsed
        return info["gen_time"].native  # type: ignore[no-any-return]
    except (ValueError, TypeError, KeyError, AttributeError) as exc:
        raise AuthorityError("The answer of the time-stamp authority holds no stamp.") from exc
