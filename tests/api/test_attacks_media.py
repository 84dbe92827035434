"""The attack table, second half: bad media, injection, a log that is down. See `test_attacks` for the whole table."""

from __future__ import annotations

import gzip
import http.server
import io
import json
import socket
import struct
import threading
import wave
import zlib
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urlencode

import httpx
import pytest
from joserfc.jwk import ECKey
from PIL import Image

from policy.errors import LogUnavailableError
from policy.identity import SCOPE_DETECT_CREATE, SCOPE_RENDER_CREATE
from tests.api.arena import Act, Arena, Row, check
from tests.api.test_oauth import forged

ROGUE = ECKey.generate_key("P-256")


@pytest.fixture(autouse=True)
def _nothing_is_delivered_and_the_service_stays_up(arena: Arena) -> Iterator[None]:
    before = arena.num_delivered
    yield
    assert arena.num_delivered == before
    assert arena.get("/healthz").status_code == 200


# -- media: 413, 415 or 422, an entry, and a service that stays up


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png_bomb(side: int) -> bytes:
    """A valid PNG of a few hundred kilobytes that unpacks to gigabytes."""
    packer = zlib.compressobj(9)
    rows = b"".join(packer.compress(bytes(1 + 3 * side)) for _ in range(min(side, 2000))) + packer.flush()
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def text_bomb() -> bytes:
    """A PNG whose compressed comment unpacks to 64 MiB."""
    out = io.BytesIO()
    Image.new("RGB", (64, 64)).save(out, "PNG")
    picture = out.getvalue()
    comment = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(64 * 1024 * 1024), 9))
    return picture[:33] + comment + picture[33:]


def wav_that_lies() -> bytes:
    """A WAV whose header promises four gigabytes."""
    form = struct.pack("<IHHIIHH", 16, 1, 1, 16_000, 32_000, 2, 16)
    return b"RIFF\xff\xff\xff\xffWAVEfmt " + form + b"data\xff\xff\xff\xff"


def wav_of_many_channels() -> bytes:
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(255)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(bytes(255 * 2 * 160))
    return out.getvalue()


def examine(media: bytes, kind: str = "application/octet-stream") -> Act:
    def send(arena: Arena) -> httpx.Response:
        headers = {"Content-Type": kind}
        auth = arena.researcher.auth(SCOPE_DETECT_CREATE)
        return httpx.post(f"{arena.url}/v1/detections", auth=auth, headers=headers, content=media, timeout=180)

    return send


def challenge(portrait: bytes) -> Act:
    return lambda arena: httpx.post(
        f"{arena.url}/v1/subjects/challenges", files={"portrait": ("portrait", portrait)}, timeout=180
    )


SVG = b'<?xml version="1.0"?><!DOCTYPE svg [<!ENTITY x SYSTEM "file:///etc/passwd">]><svg>&x;</svg>'
PLAYLIST = b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nhttp://127.0.0.1:9/secret.ts\n#EXT-X-ENDLIST\n"
CONCAT = b"ffconcat version 1.0\nfile '/etc/passwd'\n"

MEDIA: dict[str, Row] = {
    "a portrait of zero bytes": (lambda a: a.render(portrait=b""), 415, "portrait.not_an_image"),
    "a portrait that is text": (lambda a: a.render(portrait=b"hello"), 415, "portrait.not_an_image"),
    "a portrait that is a drawing with entities": (lambda a: a.render(portrait=SVG), 415, "portrait.not_an_image"),
    "a portrait that is a torn PNG": (
        lambda a: a.render(portrait=a.portrait[: len(a.portrait) // 2]),
        422,
        "portrait.unreadable",
    ),
    "a portrait that unpacks to gigabytes": (lambda a: a.render(portrait=png_bomb(30_000)), 413, "portrait.too_large"),
    "a portrait larger than may be": (lambda a: a.render(portrait=bytes(5 * 1024 * 1024)), 413, "request.too_large"),
    "an enrolment that unpacks to gigabytes": (challenge(png_bomb(30_000)), 413, "portrait.too_large"),
    "an enrolment with a comment that unpacks": (challenge(text_bomb()), 415, "portrait.not_an_image"),
    "speech of zero bytes": (lambda a: a.render(speech=b""), 422, "media.empty"),
    "speech that is text": (lambda a: a.render(speech=b"hello"), 415, "media.unsupported"),
    "speech that is a playlist": (lambda a: a.render(speech=PLAYLIST), 415, "media.unsupported"),
    "speech that is a list of files": (lambda a: a.render(speech=CONCAT), 415, "media.unsupported"),
    "speech that is gzip": (lambda a: a.render(speech=gzip.compress(bytes(10_000_000))), 415, "media.unsupported"),
    "speech that promises four gigabytes": (lambda a: a.render(speech=wav_that_lies()), 422, "media.empty"),
    "speech of 255 channels": (lambda a: a.render(speech=wav_of_many_channels()), 413, "media.too_large"),
    "speech larger than may be": (lambda a: a.render(speech=bytes(11 * 1024 * 1024)), 413, "request.too_large"),
    "controls that nobody knows": (lambda a: a.render(controls='{"url": "/etc/passwd"}'), 422, "control"),
    "nothing to examine": (examine(b""), 422, "detector.picture_empty"),
    "text to examine": (examine(b"hello"), 415, "detector.picture_unsupported"),
    "a playlist to examine": (examine(PLAYLIST, "video/mp4"), 415, "media.unsupported"),
}


@pytest.mark.parametrize("name", MEDIA)
def test_bad_media_is_refused_and_counted(name: str, arena: Arena) -> None:
    problem = check(arena, MEDIA[name], "input.refused")
    body = arena.server.service.log.entry(problem["log_index"])["body"]
    assert body["code"] == problem["code"] and body["address"].startswith("address:")


# -- injection: inert

MARK = "INJECTED"


class Bait(http.server.BaseHTTPRequestHandler):
    """Notes whoever comes."""

    visits: list[str]

    def do_GET(self) -> None:
        self.visits.append(self.path)
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_args: Any) -> None:
        """Quiet."""


@pytest.fixture
def bait() -> Iterator[tuple[str, list[str]]]:
    """A server inside the house that nobody must be made to call."""
    visits: list[str] = []
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Bait,), {"visits": visits}))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/", visits
    server.shutdown()


def test_nobody_makes_the_service_call_an_address(arena: Arena, bait: tuple[str, list[str]]) -> None:
    url, visits = bait
    playlist = PLAYLIST.replace(b"http://127.0.0.1:9/", url.encode())
    svg = SVG.replace(b"file:///etc/passwd", url.encode())
    out = io.BytesIO()
    xmp = f'<x:xmpmeta xmlns:x="adobe:ns:meta/" xmlns:dcterms="http://purl.org/dc/terms/" dcterms:provenance="{url}"/>'
    Image.open(io.BytesIO(arena.portrait)).convert("RGB").save(out, "JPEG", xmp=xmp.encode())
    attempts = [
        arena.render(speech=playlist),
        arena.render(speech=url.encode()),
        arena.render(portrait=svg),
        arena.render(portrait_sha256=url),
        arena.render(controls=json.dumps({"portrait_url": url})),
        arena.render(subject_id=url),
        examine(playlist)(arena),
        examine(out.getvalue(), "image/jpeg")(arena),
        arena.bearer(forged(arena.server, {}, {"jku": url, "x5u": url}, ROGUE)),
        arena.bearer(forged(arena.server, {"iss": url.rstrip("/")}, {})),
        arena.get(f"/oauth/authorize?client_id=x&redirect_uri={url}&response_type=code"),
        httpx.post(f"{arena.url}/v1/applications", json={"jwks": {"jwks_uri": url}}),
    ]
    assert visits == []
    assert {answer.status_code // 100 for answer in attempts} <= {2, 3, 4}


TRAVERSALS = (
    "/v1/renders/../../etc/passwd",
    "/v1/renders/..%2f..%2f..%2fetc%2fpasswd",
    "/v1/renders/%2e%2e/%2e%2e/keys/oauth.pem",
    "/v1/renders/ren_0%00/video",
    "/v1/audit/tile/../../keys/log.pem",
    "/tlog/tile/entries/..%2f..%2f..%2fkeys%2flog.pem",
    "/static/0/../../session.py",
    "/static/0/..%2f..%2fsession.py",
    "/static/0/%2e%2e/%2e%2e/session.py",
    "/static/0//etc/passwd",
    "/static/0/C:%5cwindows%5cwin.ini",
)


@pytest.mark.parametrize("path", TRAVERSALS)
def test_no_path_leads_out(path: str, arena: Arena) -> None:
    port = arena.server.settings.port
    with socket.create_connection(("127.0.0.1", port), timeout=30) as wire:  # a client would tidy the path up
        # where pages are found; elsewhere they only say so
        wire.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost:{port}\r\nConnection: close\r\n\r\n".encode())
        answer = b"".join(iter(lambda: wire.recv(65536), b""))
    status = int(answer.split(b" ", 2)[1])
    assert status in (400, 401, 403, 404), answer[:300]
    assert b"PRIVATE KEY" not in answer and b"root:" not in answer and b"import" not in answer


def test_names_of_files_mean_nothing(arena: Arena) -> None:
    before = {path for path in arena.server.settings.home.rglob("*") if MARK in path.name}
    answer = arena.render(speech=arena.speech, filename=f"../../{MARK}.wav")
    assert answer.status_code == 403 and answer.json()["code"] == "render.refused"
    assert before == {path for path in arena.server.settings.home.rglob("*") if MARK in path.name} == set()


NASTY = f"x\r\nSet-Cookie: {MARK}=1\r\n\r\n\x1b[2J\u202e{MARK}"


def test_no_header_and_no_log_line_is_injected(arena: Arena, caplog: pytest.LogCaptureFixture) -> None:
    size = arena.server.service.log.size
    claims = {"client_id": NASTY, "sub": NASTY, "scope": NASTY, "jti": NASTY}
    query = urlencode({"client_id": NASTY, "redirect_uri": NASTY, "state": NASTY, "response_type": "code"})
    with caplog.at_level("DEBUG"):
        answers = [
            arena.bearer(forged(arena.server, claims, {})),
            arena.bearer(forged(arena.server, claims, {"kid": NASTY}, ROGUE)),
            arena.render(purpose=NASTY),
            arena.render(subject_id=NASTY),
            arena.render(controls=json.dumps({NASTY: 1})),
            arena.get(f"/oauth/authorize?{query}"),
            arena.get(f"/sign-in?next={quote(NASTY)}"),
            arena.get(f"/v1/renders/{quote(NASTY, safe='')}"),
            httpx.post(f"{arena.url}/oauth/token", data={"grant_type": NASTY, "client_id": NASTY, "scope": NASTY}),
            httpx.post(f"{arena.url}/v1/applications", json={"org": NASTY, "name": NASTY}),
        ]
    for answer in answers:
        assert answer.status_code < 500, answer.text
        assert MARK not in answer.headers.get("set-cookie", "")
        assert all(value.isprintable() and value.isascii() for value in answer.headers.values())
    ours = [record for record in caplog.records if record.name.startswith(("placet", "uvicorn"))]
    assert not [record for record in ours if MARK in record.getMessage()]
    entries = json.dumps(arena.server.service.log.entries(size, 1000))
    assert MARK not in entries, "the audit log holds pseudonyms and codes"


# -- the log cannot be written: fail closed


class FullDisk:
    """A log on a full disk."""

    def __call__(self, *_args: Any, **_options: Any) -> Any:
        raise LogUnavailableError("The log cannot be written: free some space.")


LOG_DOWN: dict[str, Act] = {
    "a render": lambda a: a.render(),
    "a refused token": lambda a: a.bearer("garbage"),
    "an application": lambda a: httpx.post(
        f"{a.url}/v1/applications",
        json={
            "name": "lab",
            "org": "lab",
            "contact": "a@b.example",
            "project": "x",
            "scopes": [SCOPE_DETECT_CREATE],
            "jwks": a.researcher.credentials.public_jwks,  # type: ignore[union-attr]
        },
    ),
    "a suspension": lambda a: httpx.post(
        f"{a.url}/v1/operators/clients/{a.stranger.credentials.client_id}/suspension",  # type: ignore[union-attr]
        auth=a.operator.auth("operator:admin"),
    ),
}


@pytest.mark.parametrize("name", LOG_DOWN)
def test_without_a_log_nothing_happens(name: str, arena: Arena, monkeypatch: pytest.MonkeyPatch) -> None:
    for client, scope in ((arena.researcher, SCOPE_RENDER_CREATE), (arena.operator, "operator:admin")):
        client.token(scope)
    size = arena.server.service.log.size
    monkeypatch.setattr(arena.server.service.log, "append", FullDisk())
    answer = LOG_DOWN[name](arena)
    assert (answer.status_code, answer.json()["code"]) == (503, LogUnavailableError.code), answer.text
    monkeypatch.undo()
    assert arena.server.service.log.size == size
    assert arena.stranger.token(SCOPE_DETECT_CREATE), "not suspended after all"
