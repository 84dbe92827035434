"""What outside readers ask without an account: the root certificate, and whether a leaf is revoked."""

from __future__ import annotations

import base64

import httpx
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp

from tests.api.conftest import Running
from watermark.authority import load_certificate, ocsp_url_of


def test_the_root_is_public(server: Running) -> None:
    answer = httpx.get(f"{server.url}/pki/root.pem")
    assert x509.load_pem_x509_certificate(answer.content) == load_certificate(server.service.instance.pki / "root.pem")


def test_the_leaf_names_an_address_that_answers(server: Running) -> None:
    pki = server.service.instance.pki
    leaf, issuer = load_certificate(pki / "leaf.pem"), load_certificate(pki / "intermediate.pem")
    request = ocsp.OCSPRequestBuilder().add_certificate(leaf, issuer, hashes.SHA1()).build()  # what clients send
    der = request.public_bytes(Encoding.DER)
    url = ocsp_url_of(leaf)
    assert url == f"{server.url}/pki/ocsp"
    kind = {"Content-Type": "application/ocsp-request"}
    for answer in (
        httpx.post(url, content=der, headers=kind),
        httpx.get(f"{url}/{base64.b64encode(der).decode()}"),
    ):
        assert (answer.status_code, answer.headers["content-type"]) == (200, "application/ocsp-response")
        assert ocsp.load_der_ocsp_response(answer.content).certificate_status == ocsp.OCSPCertStatus.GOOD


def test_what_is_no_request_is_refused(server: Running) -> None:
    answer = httpx.post(f"{server.url}/pki/ocsp", content=b"who are you")
    found = ocsp.load_der_ocsp_response(answer.content)
    assert found.response_status == ocsp.OCSPResponseStatus.MALFORMED_REQUEST
    assert httpx.get(f"{server.url}/pki/ocsp/!!!").status_code == 400
    assert httpx.post(f"{server.url}/pki/ocsp", content=bytes(10_000)).status_code == 413
