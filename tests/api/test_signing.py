"""The claim key stays with the gateway: what it signs, what it refuses, and that a rotation stops nobody."""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from api.engine.process import EngineProcess
from api.engine.signing import (
    ClaimSigner,
    GatewayKey,
    SignatureRefusedError,
    TimeStamping,
    check_can_sign,
    worker_authority,
)
from api.engine.wire import Message
from api.errors import RemoteError, status_of
from api.settings import Settings
from policy.kms import SigningKey, as_signing_key, new_private_key
from watermark.authority import SigningAuthority
from watermark.credentials import Ingredient, ManifestSpec, read_credentials, sign
from watermark.errors import SigningError
from watermark.payload import MarkId


class Holder:
    """A key service with one key that can be exchanged."""

    algorithm = "ES256"

    def __init__(self) -> None:
        self.key: SigningKey = as_signing_key(new_private_key("ES256"))

    @property
    def kid(self) -> str:
        return self.key.kid

    @property
    def public_key(self) -> object:
        return self.key.public_key

    def sign(self, message: bytes) -> bytes:
        return self.key.sign(message)


@pytest.fixture
def holder() -> Holder:
    return Holder()


@pytest.fixture
def pki(holder: Holder, tmp_path: Path) -> Path:
    SigningAuthority.create(tmp_path / "pki", "Placet", key=holder)  # type: ignore[arg-type]
    return tmp_path / "pki"


@pytest.fixture
def claim(tmp_path: Path) -> Callable[[SigningAuthority, str], Path]:
    """Signs a small picture under a name."""
    picture = cv2.imencode(".png", np.full((32, 32, 3), 90, np.uint8))[1].tobytes()
    (tmp_path / "in.png").write_bytes(picture)
    part = Ingredient(picture, "image/png", "Portrait")
    spec = ManifestSpec("Talking portrait", part, part, MarkId(7), None, {"index": 0}, "0")

    def claim(authority: SigningAuthority, name: str) -> Path:
        sign(tmp_path / "in.png", tmp_path / name, spec, authority, mime="image/png")
        return tmp_path / name

    return claim


def state_of(path: Path, pki: Path) -> str:
    return read_credentials(path, "image/png", (pki / "root.pem").read_text()).state


def worker_side(pki: Path, holder: Holder) -> SigningAuthority:
    """The worker's authority, with the gateway a function call away."""
    key = GatewayKey(pki)
    signer = ClaimSigner(holder)  # type: ignore[arg-type]
    key.ask = lambda header, attachments: signer(Message(dict(header), attachments))
    return worker_authority(pki, key, "", "")


def test_no_claim_key_lies_in_the_pki_directory(pki: Path) -> None:
    assert not list(pki.glob("leaf-*.key"))


def test_the_worker_signs_with_a_key_that_it_does_not_have(
    pki: Path, holder: Holder, claim: Callable[[SigningAuthority, str], Path]
) -> None:
    assert state_of(claim(worker_side(pki, holder), "out.png"), pki) == "trusted"


def test_nothing_is_signed_outside_a_job(pki: Path, claim: Callable[[SigningAuthority, str], Path]) -> None:
    with pytest.raises(SigningError):
        claim(worker_authority(pki, GatewayKey(pki), "", ""), "out.png")


def test_a_job_gets_a_few_signatures_and_nothing_else(holder: Holder) -> None:
    signer = ClaimSigner(holder)  # type: ignore[arg-type]
    request = Message({"op": "sign", "kid": holder.kid}, {"claim": b"claim"})
    for _ in range(4):
        assert len(signer(request).attachments["signature"]) == 64
    with pytest.raises(SignatureRefusedError):
        signer(request)
    with pytest.raises(SignatureRefusedError):
        ClaimSigner(holder)(Message({"op": "export"}))  # type: ignore[arg-type]


def test_a_rotation_stops_nobody(pki: Path, holder: Holder, claim: Callable[[SigningAuthority, str], Path]) -> None:
    authority = worker_side(pki, holder)
    before = claim(authority, "before.png")
    new = as_signing_key(new_private_key("ES256"))
    SigningAuthority.renew(pki, key=new)
    # The certificate is there first; the key follows while a signature is already wanted.
    threading.Timer(0.3, lambda: setattr(holder, "key", new)).start()
    after = claim(authority, "after.png")
    assert (state_of(before, pki), state_of(after, pki)) == ("trusted", "trusted")


def test_a_certificate_over_another_key_signs_nothing(
    pki: Path,
    holder: Holder,
    claim: Callable[[SigningAuthority, str], Path],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr("api.engine.signing._HAND_OVER_S", 0.1)
    authority = worker_side(pki, holder)
    holder.key = as_signing_key(new_private_key("ES256"))
    with pytest.raises(SigningError):
        claim(authority, "out.png")
    assert not (tmp_path / "out.png").exists()


def test_expired_work_is_refused_at_the_door(holder: Holder, tmp_path: Path) -> None:
    past = dt.datetime.now(dt.UTC) - dt.timedelta(days=400)
    SigningAuthority.create(tmp_path / "old", "Placet", now=lambda: past, key=holder)  # type: ignore[arg-type]
    with pytest.raises(SigningError, match="keys rotate c2pa") as caught:
        check_can_sign(tmp_path / "old")
    assert status_of(caught.value.code) == 503
    SigningAuthority.renew(tmp_path / "old", key=holder)  # type: ignore[arg-type]
    check_can_sign(tmp_path / "old")


def test_where_stamps_come_from_is_a_setting(pki: Path, tmp_path: Path) -> None:
    assert TimeStamping(Settings(home=tmp_path, tsa_url=""), pki).url == ""
    assert TimeStamping(Settings(home=tmp_path, tsa_url="https://tsa.example"), pki).url == "https://tsa.example"
    embedded = TimeStamping(Settings(home=tmp_path), pki)
    assert embedded.url.startswith("http://127.0.0.1:") and embedded.url == embedded.url
    embedded.close()
    with pytest.raises(ValueError, match="tsa_url"):
        Settings(home=tmp_path, tsa_url="ftp://nowhere")
    (tmp_path / "roots.pem").write_text("PEM")
    assert TimeStamping(Settings(home=tmp_path, tsa_roots=tmp_path / "roots.pem"), pki).roots_pem == "PEM"


def test_questions_are_answered_in_the_middle_of_a_job() -> None:
    process = EngineProcess("tests.api.toy_engine", lambda: Message({}))

    def answer(question: Message) -> Message:
        if question.header["what"] == "forbidden":
            raise SigningError("No.")
        return Message({"echo": question.header["what"]}, question.attachments)

    try:
        done = process.call({"do": "ask", "what": "time"}, {"data": b"x"}, wall_s=60, on_question=answer)
        assert (done.header["answer"], done.attachments) == ("time", {"data": b"x"})
        with pytest.raises(RemoteError) as caught:
            process.call({"do": "ask", "what": "forbidden"}, {"data": b"x"}, wall_s=60, on_question=answer)
        assert caught.value.code == "credentials.signing"
        done = process.call({"do": "ask", "what": "again"}, {"data": b"y"}, wall_s=60, on_question=answer)
        assert done.header["answer"] == "again"
    finally:
        process.close()
