"""What people send by mistake or on purpose: refused before any render, in one shape, with what to do about it.

After every case the service must still work; the last test of the file looks that nothing was rendered or kept.
"""

from __future__ import annotations

import io
import json
import struct
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from PIL import Image

from api.client import PlacetClient
from api.storage.models import Render
from policy.consent import PURPOSE_RESEARCH
from policy.identity import SCOPE_DETECT_CREATE, SCOPE_RENDER_CREATE
from tests.api.conftest import Running, make_wav


def check_problem(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The one error shape, with the expected status and code and a sentence."""
    assert response.headers["content-type"] == "application/problem+json", response.text
    problem: dict[str, Any] = response.json()
    assert (response.status_code, problem["status"], problem["code"]) == (status, status, code), problem
    assert set(problem) >= {"type", "title", "status", "code", "detail", "instance"}
    assert problem["type"] == f"urn:placet:problem:{code}"
    assert len(problem["detail"].split()) >= 4, problem["detail"]
    return problem


@pytest.fixture
def headers(researcher: PlacetClient) -> dict[str, str]:
    return researcher.authorization("POST", "/v1/renders", SCOPE_RENDER_CREATE)


@pytest.fixture(autouse=True)
def _service_stays_up(server: Running) -> Iterator[None]:
    yield
    assert httpx.get(f"{server.url}/healthz").status_code == 200


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A PNG that promises a size and holds almost nothing."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def animated_gif(portrait: bytes) -> bytes:
    frames = [Image.open(io.BytesIO(portrait)).convert("RGB").resize((128, 128)).rotate(turn) for turn in (0, 5)]
    return encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])


def two_faces(portrait: bytes) -> bytes:
    face = Image.open(io.BytesIO(portrait)).convert("RGB").resize((512, 512))
    both = Image.new("RGB", (1024, 512))
    both.paste(face, (0, 0))
    both.paste(face, (512, 0))
    return encoded(both, "PNG")


def tiny_face(portrait: bytes) -> bytes:
    face = Image.open(io.BytesIO(portrait)).convert("RGB").resize((96, 96))
    room = Image.new("RGB", (600, 600), (120, 130, 140))
    room.paste(face, (250, 250))
    return encoded(room, "PNG")


BAD_PORTRAITS: dict[str, tuple[Callable[[bytes], bytes], int, str]] = {
    "zero bytes": (lambda p: b"", 415, "portrait.not_an_image"),
    "text": (lambda p: b"this is not an image", 415, "portrait.not_an_image"),
    "sound": (lambda p: make_wav(0.2), 415, "portrait.not_an_image"),
    "truncated": (lambda p: p[: len(p) // 2], 422, "portrait.unreadable"),
    "30,000 × 30,000 by its header": (lambda p: png_header(30_000, 30_000), 413, "portrait.too_large"),
    "animated": (animated_gif, 422, "portrait.animated"),
    "no face": (lambda p: encoded(Image.effect_noise((512, 512), 40).convert("RGB"), "PNG"), 422, "portrait.no_face"),
    "two faces": (two_faces, 422, "portrait.several_faces"),
    "tiny face": (tiny_face, 422, "portrait.face_too_small"),
}


@pytest.mark.parametrize("name", BAD_PORTRAITS)
def test_a_bad_portrait_is_refused_before_enrolment(name: str, server: Running, portrait: bytes) -> None:
    make, status, code = BAD_PORTRAITS[name]
    files = {"portrait": ("portrait.png", make(portrait))}
    check_problem(httpx.post(f"{server.url}/v1/subjects/challenges", files=files, timeout=120), status, code)


@pytest.mark.parametrize("name", BAD_PORTRAITS)
def test_a_bad_portrait_is_refused_before_the_gate(
    name: str, server: Running, portrait: bytes, speech: bytes, headers: dict[str, str]
) -> None:
    make, status, code = BAD_PORTRAITS[name]
    size = server.service.log.size
    response = httpx.post(
        f"{server.url}/v1/renders",
        headers=headers,
        data={"subject_id": "sub_x", "purpose": PURPOSE_RESEARCH},
        files={"portrait": ("portrait.png", make(portrait)), "speech": ("speech.wav", speech)},
        timeout=120,
    )
    check_problem(response, status, code)
    assert "decision" not in server.kinds_since(size)


def cmyk(portrait: bytes) -> bytes:
    return encoded(Image.open(io.BytesIO(portrait)).convert("CMYK"), "JPEG")


def exif_rotated(portrait: bytes) -> bytes:
    image = Image.open(io.BytesIO(portrait)).convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(image.rotate(90, expand=True), "JPEG", exif=exif, quality=95)


@pytest.mark.parametrize("change", [cmyk, exif_rotated], ids=["CMYK", "EXIF-rotated"])
def test_an_unusual_portrait_is_taken(change: Callable[[bytes], bytes], server: Running, portrait: bytes) -> None:
    files = {"portrait": ("portrait.jpg", change(portrait))}
    response = httpx.post(f"{server.url}/v1/subjects/challenges", files=files, timeout=120)
    assert response.status_code == 201, response.text
    assert len(response.json()["portrait_sha256"]) == 64


BAD_SPEECH: dict[str, tuple[Callable[[], bytes], int, str]] = {
    "zero bytes": (lambda: b"", 422, "media.empty"),
    "text": (lambda: b"this is not a sound" * 10, 415, "media.unsupported"),
    "no samples": (lambda: make_wav(0.0), 422, "media.empty"),
    "silent": (lambda: make_wav(1.0, amplitude=0.0), 422, "media.silent"),
    "an image": (lambda: png_header(4, 4), 415, "media.unsupported"),
    "longer than one render may be": (lambda: make_wav(601.0, rate_hz=8000), 413, "media.too_long"),
}


@pytest.mark.parametrize("name", BAD_SPEECH)
def test_bad_speech_is_refused(name: str, server: Running, portrait: bytes, headers: dict[str, str]) -> None:
    make, status, code = BAD_SPEECH[name]
    response = httpx.post(
        f"{server.url}/v1/renders",
        headers=headers,
        data={"subject_id": "sub_x", "purpose": PURPOSE_RESEARCH, "portrait_sha256": "0" * 64},
        files={"speech": ("speech.wav", make())},
        timeout=120,
    )
    check_problem(response, status, code)


@pytest.mark.parametrize(("rate_hz", "num_channels"), [(8_000, 1), (44_100, 6), (48_000, 2)])
def test_unusual_speech_reaches_the_gate(
    rate_hz: int, num_channels: int, server: Running, headers: dict[str, str]
) -> None:
    response = httpx.post(
        f"{server.url}/v1/renders",
        headers=headers,
        data={"subject_id": "sub_nobody", "purpose": PURPOSE_RESEARCH, "portrait_sha256": "0" * 64},
        files={"speech": ("speech.wav", make_wav(1.2, rate_hz, num_channels))},
        timeout=120,
    )
    check_problem(response, 403, "render.refused")


BAD_FORMS: dict[str, tuple[dict[str, Any], int, str]] = {
    "JSON instead of a form": ({"json": {"subject_id": "x"}}, 415, "request.content_type"),
    "an unknown field": (
        {"data": {"subject_id": "x", "purpose": "p", "mood": "happy"}, "files": {"speech": b"x"}},
        400,
        "request.field_unknown",
    ),
    "no speech": (
        {"data": {"subject_id": "x", "purpose": "p", "portrait_sha256": "0" * 64}, "files": {"portrait": b""}},
        400,
        "request.field_invalid",
    ),
    "no subject": ({"data": {"purpose": "p"}, "files": {"speech": b"x"}}, 400, "request.field_missing"),
    "no portrait": (
        {"data": {"subject_id": "x", "purpose": "p"}, "files": {"speech": b"x"}},
        400,
        "request.field_missing",
    ),
    "speech as text": (
        {"data": {"subject_id": "x", "speech": "hello"}, "files": {"portrait": b"x"}},
        400,
        "request.field_invalid",
    ),
    "controls that are no JSON": (
        {"data": {"subject_id": "x", "purpose": "p", "controls": "{"}, "files": {"speech": b"x"}},
        400,
        "request.field_invalid",
    ),
    "controls that are a list": (
        {"data": {"subject_id": "x", "purpose": "p", "controls": "[]"}, "files": {"speech": b"x"}},
        400,
        "request.field_invalid",
    ),
    "a hash that is a path": (
        {"data": {"subject_id": "x", "purpose": "p", "portrait_sha256": "../../etc/passwd"}, "files": {"speech": b"x"}},
        400,
        "request.field_invalid",
    ),
    "no boundary": (
        {"content": b"x", "headers": {"Content-Type": "multipart/form-data"}},
        400,
        "request.malformed",
    ),
    "a torn form": (
        {"content": b"--b\r\nContent-Disp", "headers": {"Content-Type": "multipart/form-data; boundary=b"}},
        400,
        "request.malformed",
    ),
    "a speech file beyond the limit": (
        {"data": {"subject_id": "x"}, "files": {"speech": bytes(11 * 1024 * 1024)}},
        413,
        "request.too_large",
    ),
    "a body far beyond every limit": ({"files": {"speech": bytes(40 * 1024 * 1024)}}, 413, "request.too_large"),
}


@pytest.mark.parametrize("name", BAD_FORMS)
def test_a_bad_form_is_refused(name: str, server: Running, headers: dict[str, str]) -> None:
    options, status, code = BAD_FORMS[name]
    options = dict(options)
    sent = headers | options.pop("headers", {})
    check_problem(httpx.post(f"{server.url}/v1/renders", headers=sent, timeout=60, **options), status, code)


def test_unknown_controls_are_refused_by_name(server: Running, headers: dict[str, str], speech: bytes) -> None:
    response = httpx.post(
        f"{server.url}/v1/renders",
        headers=headers,
        data={
            "subject_id": "x",
            "purpose": PURPOSE_RESEARCH,
            "portrait_sha256": "0" * 64,
            "controls": json.dumps({"smile": 1}),
        },
        files={"speech": ("speech.wav", speech)},
        timeout=120,
    )
    assert "smile" in check_problem(response, 422, "control")["detail"]


def test_a_chunked_body_is_cut_off_while_it_streams_in(server: Running, headers: dict[str, str]) -> None:
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        yield b'--b\r\nContent-Disposition: form-data; name="speech"; filename="s"\r\n\r\n'
        for _ in range(64):
            sent += 1
            yield bytes(1024 * 1024)

    headers = headers | {"Content-Type": "multipart/form-data; boundary=b"}
    response = httpx.post(f"{server.url}/v1/renders", headers=headers, content=endless(), timeout=60)
    check_problem(response, 413, "request.too_large")


BAD_JSON: dict[str, tuple[dict[str, Any], int, str]] = {
    "not JSON": ({"content": b"{", "headers": {"Content-Type": "application/json"}}, 400, "request.malformed"),
    "empty": ({"content": b"", "headers": {"Content-Type": "application/json"}}, 400, "request.malformed"),
    "a list": ({"json": []}, 415, "request.content_type"),
    "text": ({"content": b"hello", "headers": {"Content-Type": "text/plain"}}, 415, "request.content_type"),
    "a form": ({"data": {"statement": "x"}}, 415, "request.content_type"),
    "no statement": ({"json": {}}, 400, "request.field_invalid"),  # a JWS, or statement and assertion
    "an unknown field": ({"json": {"statement": "x", "force": True}}, 400, "request.field_unknown"),
    "a number": ({"json": {"statement": 5}}, 400, "request.field_invalid"),
    "far too large": ({"json": {"statement": "x" * 400_000}}, 413, "request.too_large"),
    "not a statement": ({"json": {"statement": "a.b.c"}}, 422, "statement.malformed"),
}


@pytest.mark.parametrize("name", BAD_JSON)
def test_bad_json_is_refused(name: str, server: Running, subject: tuple[PlacetClient, Any]) -> None:
    options, status, code = BAD_JSON[name]
    options = dict(options)
    headers = {"Authorization": f"Bearer {subject[0].token('subject:self')}"} | options.pop("headers", {})
    check_problem(httpx.post(f"{server.url}/v1/consents", headers=headers, **options), status, code)


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/v1/nothing", 404), ("PUT", "/v1/renders", 405), ("GET", "/../etc", 404)]
)
def test_wrong_addresses_have_the_same_shape(method: str, path: str, status: int, server: Running) -> None:
    response = httpx.request(method, server.url + path)
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"


BAD_MEDIA: dict[str, tuple[bytes, str, int, str]] = {
    "zero bytes": (b"", "video/mp4", 422, "media.empty"),
    "text as video": (b"hello " * 50, "video/mp4", 415, "media.unsupported"),
    "wrong content type": (b"hello", "text/html", 415, "request.content_type"),
}


@pytest.mark.parametrize("name", BAD_MEDIA)
def test_bad_media_is_refused_by_detection(name: str, server: Running, researcher: PlacetClient) -> None:
    media, kind, status, code = BAD_MEDIA[name]
    headers = {"Authorization": f"Bearer {researcher.token(SCOPE_DETECT_CREATE)}", "Content-Type": kind}
    response = httpx.post(f"{server.url}/v1/detections", headers=headers, content=media, timeout=120)
    check_problem(response, status, code)


def test_an_unforeseen_error_is_an_incident_without_internals(
    server: Running, auditor: PlacetClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_index: int) -> None:
        raise RuntimeError("secret path /var/lib/placet")

    monkeypatch.setattr(server.service.log, "entry", broken)
    headers = {"Authorization": f"Bearer {auditor.token('audit:read')}"}
    response = httpx.get(f"{server.url}/v1/audit/entries/0", headers=headers)
    problem = check_problem(response, 500, "internal")
    assert problem["incident_id"] in problem["detail"]
    assert "secret" not in response.text and "RuntimeError" not in response.text


def test_nothing_of_all_this_was_rendered_or_kept(server: Running) -> None:
    with server.service.database.read() as session:
        assert session.query(Render).filter(Render.subject_id == "sub_x").count() == 0
    assert not [path for path in server.settings.staging_dir.iterdir() if path.suffix == ".mp4"]
