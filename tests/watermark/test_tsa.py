"""Time stamps: what they are for, and that nothing is delivered when they cannot be had."""

from __future__ import annotations

import datetime as dt
import hashlib
import http.server
import shutil
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import encypher_c2pa
import numpy as np
import pytest
from asn1crypto import tsp
from hypothesis import given, settings
from hypothesis import strategies as st

from watermark.authority import SigningAuthority
from watermark.credentials import ManifestSpec, read_credentials, sign
from watermark.errors import AuthorityError, SigningError, TimeStampError
from watermark.payload import MarkId
from watermark.tsa import CONTENT_TYPE_QUERY, TimeStampAnswer, TimeStampAuthority, TimeStampServer, stamped_at


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("tsa") / "pki"
    SigningAuthority.create(directory, "Placet")
    return directory


@pytest.fixture(scope="module")
def stamper(pki: Path) -> TimeStampAuthority:
    return TimeStampAuthority.load(pki)


@pytest.fixture(scope="module")
def server(stamper: TimeStampAuthority) -> Iterator[TimeStampServer]:
    with TimeStampServer(stamper) as running:
        yield running


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("picture") / "in.png"
    path.write_bytes(cv2.imencode(".png", np.full((64, 64, 3), 80, np.uint8))[1].tobytes())
    return path


@pytest.fixture(scope="module")
def spec(make_spec: Callable[[MarkId], ManifestSpec], mark_id: MarkId) -> ManifestSpec:
    return make_spec(mark_id)


def query(data: bytes = b"something", *, algorithm: str = "sha256", **fields: object) -> bytes:
    imprint = {"hash_algorithm": {"algorithm": algorithm}, "hashed_message": hashlib.new(algorithm, data).digest()}
    return tsp.TimeStampReq({"version": "v1", "message_imprint": imprint, **fields}).dump()


# ---- the protocol ----------------------------------------------------------------------------------------------------


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_openssl_accepts_a_stamp(stamper: TimeStampAuthority, pki: Path, tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(b"something")
    (tmp_path / "reply.tsr").write_bytes(stamper.reply(query(cert_req=True, nonce=77)))
    done = subprocess.run(
        ["openssl", "ts", "-verify", "-data", "data", "-in", "reply.tsr", "-CAfile", pki / "root.pem"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert "Verification: OK" in done.stdout + done.stderr, done.stderr


def test_nonce_and_time_come_back(pki: Path) -> None:
    moment = dt.datetime(2031, 5, 6, 7, 8, 9, 123456, tzinfo=dt.UTC)
    answer = TimeStampAuthority.load(pki, now=lambda: moment).reply(query(nonce=2**62))
    info = TimeStampAnswer.load(answer)["time_stamp_token"]["content"]["encap_content_info"]["content"].parsed
    assert info["nonce"].native == 2**62
    assert stamped_at(answer) == moment.replace(microsecond=0)


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (b"", "bad_data_format"),
        (b"\x30\x03\x02\x01\x01", "bad_data_format"),
        (query(algorithm="sha1"), "bad_alg"),
        (query() + b"more", "bad_data_format"),
    ],
)
def test_bad_queries_are_rejected_with_a_reason(bad: bytes, reason: str, stamper: TimeStampAuthority) -> None:
    answer = TimeStampAnswer.load(stamper.reply(bad))
    assert answer["status"]["status"].native == "rejection"
    assert answer["status"]["fail_info"].native == {reason}
    with pytest.raises(AuthorityError):
        stamped_at(stamper.reply(bad))


@settings(max_examples=100, deadline=None)
@given(st.one_of(st.binary(max_size=200), st.integers(0, 80).map(lambda cut: query()[:cut])))
def test_any_bytes_get_an_answer(stamper: TimeStampAuthority, data: bytes) -> None:
    assert TimeStampAnswer.load(stamper.reply(data))["status"]["status"].native in ("granted", "rejection")


@pytest.mark.parametrize(("kind", "status"), [("text/plain", 415), (CONTENT_TYPE_QUERY, 200)])
def test_over_http(server: TimeStampServer, kind: str, status: int) -> None:
    request = urllib.request.Request(server.url, data=query(), headers={"Content-Type": kind})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            assert (answer.status, status) == (200, 200)
    except urllib.error.HTTPError as error:
        assert error.code == status


def test_a_foreign_key_is_refused(pki: Path, tmp_path: Path) -> None:
    SigningAuthority.create(tmp_path / "other", "Other")
    (tmp_path / "other" / "tsa.pem").write_bytes((pki / "tsa.pem").read_bytes())
    with pytest.raises(AuthorityError, match="does not belong"):
        TimeStampAuthority.load(tmp_path / "other")


# ---- in manifests ----------------------------------------------------------------------------------------------------


def test_a_stamped_manifest_says_when(
    picture: Path, spec: ManifestSpec, pki: Path, server: TimeStampServer, tmp_path: Path
) -> None:
    authority = SigningAuthority.load(pki).with_time_stamps(server.url)
    sign(picture, tmp_path / "out.png", spec, authority, mime="image/png")
    reading = read_credentials(tmp_path / "out.png", "image/png", authority.root_pem)
    assert reading.state == "trusted" and reading.signed_at is not None
    assert abs((reading.signed_at - dt.datetime.now(dt.UTC)).total_seconds()) < 600
    verdict = encypher_c2pa.verify(
        (tmp_path / "out.png").read_bytes(),
        "image/png",
        trust_pem=authority.root_pem,
        tsa_trust_pem=authority.root_pem,
        telemetry=False,
    )
    assert verdict["validation_state"] == "Trusted"
    assert "timeStamp.trusted" in {each["code"] for each in verdict["validation_results"]["success"]}


def test_without_an_authority_no_time_is_claimed(picture: Path, spec: ManifestSpec, pki: Path, tmp_path: Path) -> None:
    sign(picture, tmp_path / "out.png", spec, SigningAuthority.load(pki), mime="image/png")
    root = (pki / "root.pem").read_text()
    assert read_credentials(tmp_path / "out.png", "image/png", root).signed_at is None


def test_a_stamp_outlives_the_certificate(picture: Path, spec: ManifestSpec, tmp_path: Path) -> None:
    """A leaf of a year that has seven seconds left: signed with and without a stamp, read after its end."""
    end = dt.datetime.now(dt.UTC).replace(microsecond=0) + dt.timedelta(seconds=7)
    made_at = end - dt.timedelta(days=365) + dt.timedelta(hours=1)
    SigningAuthority.create(tmp_path / "pki", "Placet", now=lambda: made_at)
    with TimeStampServer(TimeStampAuthority.load(tmp_path / "pki")) as server:
        plain = SigningAuthority.load(tmp_path / "pki")
        assert plain.expires_at == end
        sign(picture, tmp_path / "plain.png", spec, plain, mime="image/png")
        sign(picture, tmp_path / "stamped.png", spec, plain.with_time_stamps(server.url), mime="image/png")
        root = plain.root_pem
        for name in ("plain", "stamped"):
            assert read_credentials(tmp_path / f"{name}.png", "image/png", root).state == "trusted"
        time.sleep(max(0.0, (end - dt.datetime.now(dt.UTC)).total_seconds()) + 1.1)
        assert read_credentials(tmp_path / "stamped.png", "image/png", root).state == "trusted"
        late = read_credentials(tmp_path / "plain.png", "image/png", root)
        assert late.state == "invalid"
        assert "signingCredential.expired" in {problem.code for problem in late.problems}
        with pytest.raises(SigningError, match="Renew"):
            sign(picture, tmp_path / "late.png", spec, plain.with_time_stamps(server.url), mime="image/png")
    assert not (tmp_path / "late.png").exists()


def test_a_silent_authority_delivers_nothing(picture: Path, spec: ManifestSpec, pki: Path, tmp_path: Path) -> None:
    with TimeStampServer(TimeStampAuthority.load(pki)) as server:
        gone = server.url
    with pytest.raises(TimeStampError, match="nothing is delivered"):
        sign(picture, tmp_path / "out.png", spec, SigningAuthority.load(pki).with_time_stamps(gone), mime="image/png")
    assert not (tmp_path / "out.png").exists()


class _Nonsense(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Type", "application/timestamp-reply")
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"no")

    def log_message(self, format: str, *args: object) -> None:
        return


def test_an_authority_that_answers_nonsense_delivers_nothing(
    picture: Path, spec: ManifestSpec, pki: Path, tmp_path: Path
) -> None:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Nonsense)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        url = f"http://127.0.0.1:{server.server_address[1]}/"
        authority = SigningAuthority.load(pki).with_time_stamps(url)
        with pytest.raises(TimeStampError):
            sign(picture, tmp_path / "out.png", spec, authority, mime="image/png")
    finally:
        server.shutdown()
        server.server_close()
    assert not (tmp_path / "out.png").exists()


def test_a_stamp_by_a_stranger_is_not_enough(picture: Path, spec: ManifestSpec, pki: Path, tmp_path: Path) -> None:
    """An authority whose root nobody here knows: its time is not believed, so nothing is delivered on it."""
    stranger = SigningAuthority.create(tmp_path / "stranger", "Stranger")
    with TimeStampServer(TimeStampAuthority.load(tmp_path / "stranger")) as server:
        authority = SigningAuthority.load(pki).with_time_stamps(server.url)
        with pytest.raises(TimeStampError, match="tsa_roots"):
            sign(picture, tmp_path / "out.png", spec, authority, mime="image/png")
        assert not (tmp_path / "out.png").exists()
        known = authority.with_time_stamps(server.url, stranger.root_pem)
        sign(picture, tmp_path / "out.png", spec, known, mime="image/png")
    assert read_credentials(tmp_path / "out.png", "image/png", known.trust_pem).signed_at is not None
