"""/studio in a real Chromium with a fake microphone: choose, speak, move, watch, and see every segment checked.

The worker of the default test draws instead of rendering; with `-m heavy` a persona speaks.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest
from playwright.sync_api import expect

from api.client import Enrolled, PlacetClient
from api.engine.process import EngineProcess
from generator.personas import list_personas
from policy.consent import PURPOSE_RESEARCH
from tests.api.conftest import make_wav
from tests.console.conftest import Look, Site, Visitor
from tests.faces import another_face

pytestmark = pytest.mark.needs("chromium")
SLOW_MS = 240_000
"""A first session waits for its worker to start."""


@pytest.fixture(scope="module")
def persona(site: Site) -> Iterator[tuple[PlacetClient, Enrolled]]:
    """A face that nobody else in these tests has enrolled."""
    with PlacetClient(site.url) as client:
        picture = another_face(list_personas()[0].portrait(), 44)
        yield client, client.enrol(picture, subject_class="persona", rights_basis="made for a test")


@pytest.fixture
def drawing(site: Site) -> Iterator[None]:
    """Live workers that draw instead of rendering."""
    for worker in site.service.live.workers:
        worker.process = EngineProcess("tests.api.toy_live_worker", worker._hello)
    yield
    for worker in site.service.live.workers:
        worker.process.close()


@pytest.fixture
def rendering(site: Site) -> Iterator[None]:
    """The real ones."""
    for worker in site.service.live.workers:
        worker.process = EngineProcess("api.engine.worker", worker._hello)
    yield
    for worker in site.service.live.workers:
        worker.process.close()


def sign_in(
    visitor: Visitor, persona: tuple[PlacetClient, Enrolled] | None, controls: tuple[str, ...] = ("*",)
) -> None:
    """Become a researcher, whom the persona has agreed to."""
    made = visitor.site.service.invitations.invite("researcher", name="Kim Example", org="lab", invited_by="op_test")
    visitor.open(f"/invitations/{made.token}")
    visitor.page.locator("#make-passkey").click()
    visitor.page.wait_for_url("**/studio")
    if persona is not None:
        persona[0].consent(
            grantee_org="lab", grantee_client=made.client_id, purposes=[PURPOSE_RESEARCH], controls=controls
        )
        visitor.open("/studio")


def test_who_may_show_nobody_is_told_so(visitor: Visitor, look: Look) -> None:
    sign_in(visitor, None)
    expect(visitor.page.get_by_text("Nobody has agreed yet")).to_be_visible()
    look("studio-empty", visitor, with_dark=False, with_phone=False)


def test_speaking_moving_watching(
    site: Site, visitor: Visitor, persona: tuple[PlacetClient, Enrolled], drawing: None
) -> None:
    size = site.service.log.size
    speak_and_watch(visitor, persona)
    kinds = site.kinds_since(size)
    assert kinds.count("live.opened") == kinds.count("live.closed") == 1


@pytest.mark.heavy
def test_a_persona_speaks(
    visitor: Visitor, persona: tuple[PlacetClient, Enrolled], rendering: None, look: Look
) -> None:
    speak_and_watch(visitor, persona, look)


def has_played(visitor: Visitor, until_s: float) -> None:
    """Wait until the video has got so far; the page lets no string be evaluated, not even for a waiting test."""
    give_up_at = time.monotonic() + SLOW_MS / 1000
    while visitor.page.evaluate("() => document.querySelector('#video').currentTime") < until_s:
        assert time.monotonic() < give_up_at
        visitor.page.wait_for_timeout(100)


def speak_and_watch(visitor: Visitor, persona: tuple[PlacetClient, Enrolled], look: Look | None = None) -> None:
    """A session with the microphone, from the first click to the signed end."""
    sign_in(visitor, persona)
    page = visitor.page
    page.locator("#speak").click()
    badge = page.locator("#badge")
    expect(badge).to_contain_text("each signed", timeout=SLOW_MS)
    has_played(visitor, 0.4)
    assert page.evaluate("() => document.querySelector('#video').videoWidth") >= 128
    # moved by keyboard, while it speaks
    slider = page.locator("#gaze-yaw")
    slider.focus()
    for _ in range(6):
        page.keyboard.press("ArrowRight")
    expect(page.locator("output[for='gaze-yaw']")).to_have_text("6")
    page.locator("#emotion").select_option("joy")
    has_played(visitor, 1.2)
    if look is not None:
        look("studio", visitor)
    page.locator("#stop").click()
    expect(page.locator("#outcome")).to_contain_text("All said", timeout=SLOW_MS)
    expect(badge).to_contain_text("none missing")
    expect(page.locator("#proof")).to_contain_text("urn:c2pa:")


@pytest.mark.heavy
def test_a_file_speaks_and_a_revocation_ends_it(
    visitor: Visitor, persona: tuple[PlacetClient, Enrolled], drawing: None, look: Look
) -> None:
    sign_in(visitor, persona, ("gaze",))
    page = visitor.page
    expect(page.locator("#emotion")).to_be_disabled()  # to that nobody has agreed
    page.locator("#sound").set_input_files({"name": "a.wav", "mimeType": "audio/wav", "buffer": make_wav(20.0)})
    page.locator("#play").click()
    expect(page.locator("#badge")).to_contain_text("each signed", timeout=SLOW_MS)
    persona[0].revoke(persona[0].consents()[0]["consent_id"])  # the newest one
    expect(page.locator("#outcome")).to_contain_text("taken their consent back", timeout=SLOW_MS)
    expect(page.locator("#badge")).to_contain_text("none missing")
    look("studio-revoked", visitor, with_dark=False, with_phone=False)


def test_the_page_allows_the_microphone_and_nothing_inline(visitor: Visitor) -> None:
    sign_in(visitor, None)
    answer = visitor.page.request.get(visitor.site.url + "/studio", headers={"accept": "text/html"})
    assert "microphone=(self)" in answer.headers["permissions-policy"]
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy
    elsewhere = visitor.page.request.get(visitor.site.url + "/check", headers={"accept": "text/html"})
    assert "microphone=()" in elsewhere.headers["permissions-policy"]


def test_a_changed_segment_is_seen_by_the_browser(visitor: Visitor) -> None:
    """The check in the page says no to what `watermark.live` says no to."""
    from tests.console.streams import small_stream

    stream = small_stream()
    visitor.open("/check")
    source = """async ([init, segments, id]) => {
        const { StreamCheck } = await import(ADDRESS);
        const bytes = (text) => Uint8Array.from(atob(text), (char) => char.charCodeAt(0));
        const check = await StreamCheck.of(bytes(init), id);
        for (const segment of segments) {
            try { await check.verify(bytes(segment)); } catch (error) { return error.message; }
        }
        return check.end;
    }"""
    from api.console.pages import asset

    source = source.replace("ADDRESS", json.dumps(asset("segments.js")))
    init, segments, manifest_id = stream
    assert visitor.page.evaluate(source, [init, segments, manifest_id]) == "complete"
    assert visitor.page.evaluate(source, [init, segments[1:], manifest_id]) == "a segment is missing"
    assert visitor.page.evaluate(source, [init, segments, manifest_id + "x"]) == "a segment is of another stream"
    import base64

    changed = bytearray(base64.b64decode(segments[0]))
    changed[-5] ^= 1
    flipped = [base64.b64encode(bytes(changed)).decode(), *segments[1:]]
    assert visitor.page.evaluate(source, [init, flipped, manifest_id]) == "a segment was changed"
