"""Revocation: who asks gets a signed answer about every leaf that was ever issued, and about no other."""

from __future__ import annotations

import datetime as dt
import shutil
import subprocess
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from watermark.authority import SigningAuthority, ocsp_url_of
from watermark.errors import AuthorityError
from watermark.ocsp import OcspResponder, issued, revocations, revoke


@pytest.fixture
def pki(tmp_path: Path) -> Path:
    SigningAuthority.create(tmp_path / "pki", "Placet", ocsp_url="https://placet.example/pki/ocsp")
    return tmp_path / "pki"


def request_about(certificate: x509.Certificate, pki: Path) -> bytes:
    issuer = x509.load_pem_x509_certificate((pki / "intermediate.pem").read_bytes())
    builder = ocsp.OCSPRequestBuilder().add_certificate(certificate, issuer, hashes.SHA1())  # what clients send
    return builder.build().public_bytes(Encoding.DER)


def answer_about(certificate: x509.Certificate, pki: Path) -> ocsp.OCSPResponse:
    response = ocsp.load_der_ocsp_response(OcspResponder(pki).reply(request_about(certificate, pki)))
    (responder,) = response.certificates
    key = responder.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    key.verify(response.signature, response.tbs_response_bytes, ec.ECDSA(hashes.SHA256()))
    responder.verify_directly_issued_by(x509.load_pem_x509_certificate((pki / "intermediate.pem").read_bytes()))
    return response


def test_the_leaf_names_the_responder_and_is_good(pki: Path) -> None:
    leaf = SigningAuthority.load(pki).leaf
    assert ocsp_url_of(leaf) == "https://placet.example/pki/ocsp"
    assert answer_about(leaf, pki).certificate_status == ocsp.OCSPCertStatus.GOOD


def test_a_rotation_keeps_the_address_and_the_memory_of_old_leaves(pki: Path) -> None:
    old = SigningAuthority.load(pki).leaf
    new = SigningAuthority.renew(pki).leaf
    assert ocsp_url_of(new) == ocsp_url_of(old)
    assert issued(pki) == [old, new]
    assert answer_about(old, pki).certificate_status == ocsp.OCSPCertStatus.GOOD


def test_a_revoked_leaf_is_called_revoked_at_once(pki: Path) -> None:
    leaf = SigningAuthority.load(pki).leaf
    moment = dt.datetime(2031, 1, 2, tzinfo=dt.UTC)
    revoke(pki, leaf.serial_number, "keyCompromise", now=lambda: moment)
    revoke(pki, leaf.serial_number, "superseded", now=lambda: moment + dt.timedelta(days=1))
    answer = answer_about(leaf, pki)
    assert answer.certificate_status == ocsp.OCSPCertStatus.REVOKED
    assert (answer.revocation_time_utc, answer.revocation_reason) == (moment, x509.ReasonFlags.key_compromise)
    assert len(revocations(pki)) == 1


def test_only_what_was_issued_can_be_revoked_and_only_for_a_reason(pki: Path) -> None:
    with pytest.raises(AuthorityError, match="serial"):
        revoke(pki, 1, "keyCompromise")
    with pytest.raises(AuthorityError, match="reason"):
        revoke(pki, SigningAuthority.load(pki).leaf.serial_number, "boredom")
    (pki / "revoked.json").write_text("[]")
    with pytest.raises(AuthorityError, match="damaged"):
        revocations(pki)


def test_strangers_are_not_answered_for(pki: Path, tmp_path: Path) -> None:
    other = SigningAuthority.create(tmp_path / "other", "Other")
    reply = OcspResponder(pki).reply(request_about(other.leaf, tmp_path / "other"))
    assert ocsp.load_der_ocsp_response(reply).response_status == ocsp.OCSPResponseStatus.UNAUTHORIZED
    ours = ocsp.load_der_ocsp_request(request_about(SigningAuthority.load(pki).leaf, pki))
    query = ocsp.OCSPRequestBuilder().add_certificate_by_hash(
        ours.issuer_name_hash, ours.issuer_key_hash, 12345, ours.hash_algorithm
    )
    reply = OcspResponder(pki).reply(query.build().public_bytes(Encoding.DER))
    unknown = ocsp.load_der_ocsp_response(reply)
    assert unknown.certificate_status == ocsp.OCSPCertStatus.UNKNOWN


def test_a_hash_that_nobody_knows_gets_a_refusal(pki: Path) -> None:
    request = request_about(SigningAuthority.load(pki).leaf, pki)
    sha1 = bytes.fromhex("2b0e03021a")
    answer = ocsp.load_der_ocsp_response(OcspResponder(pki).reply(request.replace(sha1, sha1[:-1] + b"\x7f")))
    assert answer.response_status == ocsp.OCSPResponseStatus.MALFORMED_REQUEST


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=200))
def test_any_bytes_get_a_refusal(pki: Path, data: bytes) -> None:
    answer = ocsp.load_der_ocsp_response(OcspResponder(pki).reply(data))
    assert answer.response_status != ocsp.OCSPResponseStatus.SUCCESSFUL


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_openssl_accepts_the_answer(pki: Path) -> None:
    leaf = SigningAuthority.load(pki).leaf
    (pki / "answer.der").write_bytes(OcspResponder(pki).reply(request_about(leaf, pki)))
    command = "openssl ocsp -respin answer.der -issuer intermediate.pem -cert leaf.pem -CAfile root.pem"
    done = subprocess.run(
        [*command.split(), "-verify_other", "intermediate.pem"], cwd=pki, capture_output=True, text=True
    )
    assert "Response verify OK" in done.stderr and "leaf.pem: good" in done.stdout, done.stderr + done.stdout
