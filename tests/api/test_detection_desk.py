"""The detection endpoint as platforms use it: waiting and polling, pieces, webhooks, budgets, hooks; nothing stays."""

from __future__ import annotations

import asyncio
import io
import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from cryptography.hazmat.primitives import serialization
from PIL import Image

from api.client import PlacetClient
from api.detections.budgets import DAY_S, WINDOW_S, DailyBudget, NearDuplicateError, NearDuplicates
from api.detections.hooks import BlockedError, HashHook, HookSilentError
from api.detections.room import Room
from api.detections.signatures import MessageSignatureError, signed_headers, verify
from api.detections.webhooks import WebhookAddressError, WebhookSender, check_url, is_public
from api.errors import BusyError, InvalidFieldError, RateError
from detector.perceptual import perceptual_hash
from policy.identity import SCOPE_DETECT_CREATE
from policy.keys import KeyRing
from tests.api.conftest import Running, vetted
from tests.detector.drawing import draw_face
from tests.tls import self_signed
from watermark.encoding import encode_clip
from watermark.media import Clip


def png(seed: int) -> bytes:
    """A small picture without a face; different seeds do not look alike."""
    pixels = np.random.default_rng(seed).integers(0, 255, (8, 8, 3), np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).resize((96, 96)).save(out, "PNG")
    return out.getvalue()


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A second of a drawn face that sways."""
    face_HWC = draw_face(30, 192)
    frames_THWC = np.stack([np.roll(face_HWC, round(3 * np.sin(i / 4)), axis=1) for i in range(25)])
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    encode_clip(Clip(frames_THWC, 25.0), path)
    return path.read_bytes()


@pytest.fixture(scope="module")
def long_clip(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Twelve seconds of next to nothing."""
    path = tmp_path_factory.mktemp("clip") / "long.mp4"
    encode_clip(Clip(np.full((24, 64, 64, 3), 99, np.uint8), 2.0), path)
    return path.read_bytes()


class Platform:
    """A vetted platform, at the wire."""

    def __init__(self, server: Running, client: PlacetClient) -> None:
        self.server, self.client = server, client
        self._http = httpx.Client(base_url=server.url, timeout=300)

    def call(self, method: str, path: str = "", **options: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.client.token(SCOPE_DETECT_CREATE)}", **options.pop("headers", {})}
        return self._http.request(method, f"/v1/detections{path}", headers=headers, **options)

    def detect(self, data: bytes, path: str = "", **headers: str) -> httpx.Response:
        kind = {"Content-Type": "application/octet-stream"}
        return self.call("POST", path, content=data, headers=kind | headers)

    def finished(self, location: str) -> dict[str, Any]:
        """Poll to the end."""
        for _ in range(600):
            state: dict[str, Any] = self.call("GET", location.removeprefix("/v1/detections")).json()
            if state["status"] in ("done", "failed"):
                return state
            time.sleep(0.1)
        raise AssertionError("the detection did not end")


@pytest.fixture(scope="module")
def platform(server: Running, operator: PlacetClient) -> Platform:
    return Platform(server, vetted(server, operator, "platform", org="platform"))


# -- waiting, polling, keys


def test_a_short_clip_is_answered_at_once_and_can_be_fetched_and_forgotten(platform: Platform, clip: bytes) -> None:
    answer = platform.detect(clip, "?overlay=png")
    assert answer.status_code == 200, answer.text
    report = answer.json()
    assert report["tier"] == "vetted" and report["layers"]["detector"]["band"] is not None
    heatmap = report["layers"]["detector"]["heatmap_url"]
    picture = platform.call("GET", heatmap.removeprefix("/v1/detections"))
    assert picture.headers["content-type"] == "image/png"
    assert Image.open(io.BytesIO(picture.content)).size[0] == 192
    state = platform.call("GET", f"/{report['id']}").json()
    assert state["status"] == "done" and state["report"]["id"] == report["id"] and state["progress"] == 1.0
    assert platform.call("DELETE", f"/{report['id']}").status_code == 204
    assert platform.call("GET", f"/{report['id']}").status_code == 404
    assert platform.call("GET", f"/{report['id']}/heatmap.png").status_code == 404


def test_a_long_clip_is_polled(platform: Platform, long_clip: bytes) -> None:
    answer = platform.detect(long_clip)
    assert answer.status_code == 202 and int(answer.headers["retry-after"]) >= 1
    state = platform.finished(answer.headers["location"])
    assert state["status"] == "done" and set(state["layers_done"]) == {"opened", "c2pa", "watermark", "detector"}
    assert state["report"]["media"]["duration_s"] == pytest.approx(12.0, abs=0.1)


def test_whoever_prefers_not_to_wait_does_not(platform: Platform) -> None:
    answer = platform.detect(png(1), Prefer="respond-async")
    assert answer.status_code == 202 and answer.headers["preference-applied"] == "respond-async"
    assert platform.finished(answer.headers["location"])["report"]["media"]["kind"] == "picture"


def test_what_is_no_medium_is_an_error_for_who_waits_and_who_polls(platform: Platform) -> None:
    answer = platform.detect(b"<html>not a video</html>" * 20)
    assert (answer.status_code, answer.json()["code"]) == (415, "detector.picture_unsupported")
    later = platform.detect(b"<html>not a video</html>" * 21, Prefer="respond-async")
    state = platform.finished(later.headers["location"])
    assert state["status"] == "failed" and state["problem"]["code"] == "detector.picture_unsupported"


def test_an_idempotency_key_names_one_detection(platform: Platform) -> None:
    first = platform.detect(png(2), **{"Idempotency-Key": "a"}).json()
    again = platform.detect(png(2), **{"Idempotency-Key": "a"}).json()
    assert first["id"] == again["id"] and first["log_index"] == again["log_index"]
    assert platform.detect(png(2)).json()["id"] != first["id"]
    for other in (platform.detect(png(3), **{"Idempotency-Key": "a"}),
                  platform.detect(png(2), "?thorough=true", **{"Idempotency-Key": "a"})):  # fmt: skip
        assert (other.status_code, other.json()["code"]) == (409, "conflict.idempotency_key")


def test_a_detection_is_nobody_elses(server: Running, operator: PlacetClient, platform: Platform) -> None:
    report = platform.detect(png(4)).json()
    other = Platform(server, vetted(server, operator, "platform", org="other"))
    for method, path in (("GET", ""), ("DELETE", ""), ("GET", "/heatmap.png")):
        assert other.call(method, f"/{report['id']}{path}").status_code == 404


def test_nothing_of_the_medium_stays(platform: Platform, clip: bytes) -> None:
    platform.detect(clip)
    desk = platform.server.service.detections
    assert all(each.data is None for each in desk._kept.values() if each.is_over)
    assert desk.room.taken_bytes == 0 and desk.num_unfinished == 0
    home = platform.server.settings.home
    found = [path for path in home.rglob("*") if path.is_file() and clip[1000:1064] in path.read_bytes()]
    assert not found, "the upload is on disk"


# -- in pieces


def test_an_upload_in_pieces_goes_on_where_it_broke_off(platform: Platform, clip: bytes) -> None:
    begun = platform.call("POST", "/uploads", headers={"Upload-Length": str(len(clip))})
    assert begun.status_code == 201 and begun.headers["tus-resumable"] == "1.0.0"
    path = begun.headers["location"].removeprefix("/v1/detections")

    def piece(offset: int, data: bytes) -> httpx.Response:
        kind = {"Content-Type": "application/offset+octet-stream", "Upload-Offset": str(offset)}
        return platform.call("PATCH", path, content=data, headers=kind)

    assert piece(0, clip[:1000]).headers["upload-offset"] == "1000"
    upload = begun.json()["upload"]
    early = platform.call("POST", json={"upload": upload})
    assert (early.status_code, early.json()["code"]) == (409, "conflict.incomplete")
    wrong = piece(10, clip[10:20])
    assert (wrong.status_code, wrong.json()["code"]) == (409, "conflict.offset")
    asked = platform.call("HEAD", path)
    assert asked.headers["upload-offset"] == "1000" and asked.headers["upload-length"] == str(len(clip))
    assert piece(1000, clip[1000:] + b"x").status_code == 413
    asked_again = int(platform.call("HEAD", path).headers["upload-offset"])
    assert piece(asked_again, clip[asked_again:]).status_code == 204
    report = platform.call("POST", json={"upload": upload})
    assert report.status_code == 200 and report.json()["media"]["kind"] == "clip"
    assert platform.call("HEAD", path).status_code == 404
    assert platform.server.service.detections.room.taken_bytes == 0


def test_uploads_are_bounded_and_can_be_given_up(platform: Platform) -> None:
    begun = [platform.call("POST", "/uploads", headers={"Upload-Length": "1000"}) for _ in range(5)]
    assert [each.status_code for each in begun] == [201] * 4 + [409]
    for each in begun[:4]:
        path = each.headers["location"].removeprefix("/v1/detections")
        assert platform.call("DELETE", path).status_code == 204
    assert platform.server.service.detections.room.taken_bytes == 0
    assert platform.call("POST", "/uploads", headers={"Upload-Length": str(10**12)}).status_code == 413


# -- what the detector is


def test_card_and_limits_are_public(server: Running) -> None:
    card = httpx.get(f"{server.url}/v1/detections/model-card")
    assert card.headers["content-type"].startswith("text/markdown") and "limit" in card.text.lower()
    limits = httpx.get(f"{server.url}/v1/detections/limits").json()
    assert limits["max_bytes"] == server.settings.max_detection_bytes and limits["honest_limits"]


# -- budgets


def test_queries_that_look_alike_are_counted() -> None:
    now = [0.0]
    book = NearDuplicates(lambda: now[0])
    for number in range(3):
        book.admit("a", f"{number:064x}", (0b1111 << number,), per_hour=3)
    book.admit("a", f"{1:064x}", (0b1111,), per_hour=3)  # the same bytes again tell nothing new
    with pytest.raises(NearDuplicateError) as caught:
        book.admit("a", "f" * 64, (0b111,), per_hour=3)
    assert int(caught.value.headers["Retry-After"]) == WINDOW_S
    book.admit("a", "e" * 64, ((1 << 40) - 1,), per_hour=3)
    book.admit("b", "f" * 64, (0b111,), per_hour=3)
    now[0] = WINDOW_S
    book.admit("a", "f" * 64, (0b111,), per_hour=3)


def test_a_day_has_a_budget() -> None:
    now = [0.0]
    book = DailyBudget(lambda: now[0])
    assert [book.take("a", per_day=2) for _ in range(2)] == [1, 0]
    with pytest.raises(RateError) as caught:
        book.take("a", per_day=2)
    assert int(caught.value.headers["Retry-After"]) == DAY_S
    now[0] = DAY_S
    assert book.take("a", per_day=2) == 1


def test_a_picture_changed_a_little_again_and_again_is_refused(server: Running, operator: PlacetClient) -> None:
    seeker = Platform(server, vetted(server, operator, "platform", org="seeker"))
    assert seeker.client.credentials is not None
    likeness = (perceptual_hash(np.asarray(Image.open(io.BytesIO(png(5))))),)
    allowed = server.settings.near_duplicates_per_hour
    for number in range(allowed):
        server.service.detections._near_duplicates.admit(
            seeker.client.credentials.client_id, f"{number:064x}", likeness, per_hour=allowed
        )
    answer = seeker.detect(png(5))
    assert (answer.status_code, answer.json()["code"]) == (429, "rate.near_duplicate")
    assert int(answer.headers["retry-after"]) > 0
    assert seeker.detect(png(6)).status_code == 200


def test_whoever_comes_when_it_is_full_waits_and_is_not_lost() -> None:
    room = Room(100)

    async def visit(num_bytes: int) -> None:
        await room.take(num_bytes, 5.0)
        assert room.taken_bytes <= 100
        await asyncio.sleep(0.001)
        room.give_back(num_bytes)

    async def crowd() -> None:
        await asyncio.gather(*(visit(30 + n) for n in range(50)))
        await room.take(100, 1.0)
        with pytest.raises(BusyError):
            await room.take(1, 0.01)
        room.give_back(100)
        await room.take(1, 0.01)
        room.give_back(1)

    asyncio.run(crowd())
    assert room.taken_bytes == 0


# -- the hook


def test_the_hook_fails_closed() -> None:
    HashHook(None).check("a")
    HashHook(lambda _sha256, _likeness: None).check("a")
    with pytest.raises(BlockedError) as caught:
        HashHook(lambda _sha256, _likeness: "some-list").check("a")
    assert caught.value.extras == {"list_code": "some-list"}

    def broken(_sha256: str, _likeness: tuple[int, ...]) -> str | None:
        raise RuntimeError("no connection")

    for hook in (HashHook(broken), HashHook(lambda *_: time.sleep(1), wait_s=0.05)):  # type: ignore[arg-type, func-returns-value]
        with pytest.raises(HookSilentError):
            hook.check("a")
    with pytest.raises(InvalidFieldError):
        HashHook.named("no.such.module:function")


def test_a_listed_file_is_not_looked_at(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, int]] = []

    def listed(sha256: str, likeness: tuple[int, ...]) -> str | None:
        asked.append((sha256, len(likeness)))
        return "list-1" if likeness else None

    monkeypatch.setattr(platform.server.service.detections, "_hook", HashHook(listed))
    size = platform.server.service.log.size
    answer = platform.detect(png(7))
    assert (answer.status_code, answer.json()["code"], answer.json()["list_code"]) == (403, "access.blocked", "list-1")
    assert [count for _, count in asked] == [0, 1], "asked before decoding, and before any layer looks"
    assert "detection.failed" in platform.server.kinds_since(size)


# -- webhooks


@pytest.mark.parametrize(
    "url",
    [
        "http://platform.example/x",
        "https://127.0.0.1/x",
        "https://[::1]/x",
        "https://user:" + "pass@platform.example/",
        "https://platform.example:22/",
        "https://platform.example/#x",
        "https:///x",
        "ftp://platform.example",
        "https://platform.example:x/",
        "https://plat form.example/",
        "https://platform.example/\r\nx",
        "https://plätform.example/",
    ],
)
def test_addresses_that_are_not_registered(url: str, platform: Platform) -> None:
    with pytest.raises(WebhookAddressError):
        check_url(url)
    answer = platform.call("PUT", "/webhook", json={"url": url})
    assert (answer.status_code, answer.json()["code"]) == (400, "request.webhook")


@pytest.mark.parametrize(
    ("address", "allowed"),
    [
        ("93.184.216.34", True),
        ("2606:2800:220:1::1", True),
        ("10.0.0.1", False),
        ("127.0.0.1", False),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("::1", False),
        ("fe80::1%eth0", False),
        ("fd00::1", False),
        ("::ffff:10.0.0.1", False),
        ("224.0.0.1", False),
        ("0.0.0.0", False),
    ],
)
def test_only_public_addresses_are_reached(address: str, allowed: bool) -> None:
    assert is_public(address) is allowed


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[tuple[int, ssl.SSLContext, list[tuple[str, dict[str, str], bytes]]]]:
    """An https server that refuses the first message it gets."""
    received: list[tuple[str, dict[str, str], bytes]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            received.append((self.path, {name.lower(): value for name, value in self.headers.items()}, body))
            self.send_response(503 if len(received) == 1 else 204)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    certificate, key = self_signed("platform.example")
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    path = tmp_path / "tls.pem"
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + pem
    )
    theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    theirs.load_cert_chain(path)
    http = HTTPServer(("127.0.0.1", 0), Handler)
    http.socket = theirs.wrap_socket(http.socket, server_side=True)
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    yield http.server_port, ssl.create_default_context(cadata=pem.decode()), received
    http.shutdown()
    http.server_close()


def wait_for(condition: Callable[[], bool]) -> None:
    for _ in range(400):
        if condition():
            return
        time.sleep(0.02)
    raise AssertionError("it did not happen")


def test_a_webhook_is_signed_and_tried_again(
    receiver: tuple[int, ssl.SSLContext, list[tuple[str, dict[str, str], bytes]]],
    server: Running,
    operator: PlacetClient,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    port, tls, received = receiver
    service = server.service
    sender = WebhookSender(
        lambda: service.keys.oauth_signer,
        resolve=lambda _host, _port: ["127.0.0.1"],
        may_reach=lambda _address: True,
        tls=tls,
        backoff_s=(0.0, 0.01, 0.01),
    )
    monkeypatch.setattr(service, "webhook_sender", sender)
    platform = Platform(server, vetted(server, operator, "platform", org="hooked"))
    assert platform.detect(png(8), "?webhook=true").status_code == 400
    # the port of the receiver is not one that can be registered, so it is put on record from inside
    registered = platform.call("PUT", "/webhook", json={"url": "https://platform.example/told?x=1"})
    assert registered.status_code == 200 and platform.call("GET", "/webhook").json()["url"] == registered.json()["url"]
    url = f"https://platform.example:{port}/told?x=1"
    monkeypatch.setattr("api.detections.webhooks.check_url", lambda url: url)
    service.webhooks.enter(platform.client.credentials.client_id, url)  # type: ignore[union-attr]
    answer = platform.detect(png(8), "?webhook=true")
    assert answer.status_code == 202
    wait_for(lambda: sender.num_sent == 1)
    assert len(received) == 2, "refused once, then taken"
    path, headers, body = received[-1]
    jwks = httpx.get(f"{server.url}/oauth/jwks").json()
    content = verify(headers, url, body, jwks, now_s=time.time())
    assert path == "/told?x=1" and headers["host"] == f"platform.example:{port}"
    assert content["id"] == answer.json()["id"] and content["report"]["media"]["kind"] == "picture"
    assert platform.call("DELETE", "/webhook").status_code == 204
    assert "webhook.removed" in server.kinds_since(0)
    sender.close()


def test_a_webhook_never_reaches_the_inside_and_is_given_up(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    keys = KeyRing.create(tmp_path / "keys")
    sender = WebhookSender(
        lambda: keys.oauth_signer, resolve=lambda _host, _port: ["93.184.216.34", "10.0.0.1"], backoff_s=(0.0, 0.0)
    )
    sender.send("https://platform.example/", {"a": 1})
    wait_for(lambda: sender.num_given_up == 1)
    assert sender.num_sent == 0
    sender.close()


def test_a_changed_message_does_not_verify(tmp_path: Path) -> None:
    key = KeyRing.create(tmp_path / "keys").oauth_signer
    from api.oauth.keys import _jwk

    jwks = {"keys": [_jwk(key.public_key).as_dict(private=False)]}
    url, body = "https://platform.example/x", json.dumps({"id": "det_1"}).encode()
    headers = signed_headers(key, url, body, created_s=1000)
    assert verify(headers, url, body, jwks, now_s=1010) == {"id": "det_1"}
    for changed, where, content, now_s in (
        (headers, url, body + b" ", 1010),
        (headers, url + "y", body, 1010),
        (headers, url, body, 2000),
        (headers, url, body, 0),
        ({**headers, "signature": headers["signature"][:20] + "A" + headers["signature"][21:]}, url, body, 1010),
        ({**headers, "signature-input": headers["signature-input"].replace("1000", "1001")}, url, body, 1010),
        ({**headers, "signature-input": ""}, url, body, 1010),
    ):
        with pytest.raises(MessageSignatureError):
            verify(changed, where, content, jwks, now_s=now_s)
    with pytest.raises(MessageSignatureError):
        verify(headers, url, body, {"keys": []}, now_s=1010)
