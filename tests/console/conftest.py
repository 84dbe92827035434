"""Pages in a real headless Chromium, with a virtual authenticator, against a running server on localhost.

For tests of a page::

    @pytest.mark.needs("chromium")
    def test_something(site: Site, visitor: Visitor, look: Look) -> None:
        visitor.sign_in_as_staff("auditor")               # or visitor.open("/…") without signing in
        visitor.page.get_by_role("link", name="Audit").click()
        look("audit", visitor)                            # axe-core finds nothing serious; a picture if asked for

`pytest tests/console --screenshots` writes the pictures of docs/console.md; a normal run leaves the tree clean.
"""

from __future__ import annotations

import io
import json
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from PIL import Image
from playwright.sync_api import Browser, BrowserContext, CDPSession, Page, expect, sync_playwright

from api.app import create_app
from api.client import Credentials, PlacetClient
from api.engine.process import EngineProcess
from api.invitations import StaffKind
from api.service import Service
from api.settings import Settings
from api.setup import create_instance
from tests.conftest import NODE_MODULES, PRESENT

PICTURES = Path(__file__).parents[2] / "docs" / "pictures" / "console"
CHROMIUM_FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
)
PHONE = {"width": 390, "height": 844}
DESK = {"width": 1180, "height": 800}
PATIENCE_MS = 20_000
"""For a machine that does other things as well; nothing waits that long where nothing is wrong."""
expect.set_options(timeout=PATIENCE_MS)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--screenshots", action="store_true", help="write docs/pictures/console/*.png")


@dataclass(frozen=True)
class Site:
    """A server that is up, seen from outside (`url`) and from inside (`service`)."""

    url: str
    settings: Settings
    service: Service

    def invite(self, kind: StaffKind, name: str = "Kim Example") -> str:
        """Path of a fresh invitation."""
        made = self.service.invitations.invite(kind, name=name, org="local-operator", invited_by="op_test")
        return f"/invitations/{made.token}"

    def kinds_since(self, size: int) -> list[str]:
        """Kinds of the log entries from number `size` on."""
        return [entry["kind"] for entry in self.service.log.entries(size, 1000)]


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The server that all page tests share: real in everything but the pictures that it makes."""
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    settings = Settings(
        home=tmp_path_factory.mktemp("console") / "home",
        issuer=f"http://localhost:{port}",
        port=port,
        threads=1,
        prewarm=False,
        enrolments_per_minute=10_000,
        sign_ins_per_minute=10_000,
        public_detections_per_minute=10_000,
        public_detections_per_day=10_000,
    )
    create_instance(settings, "example")
    app = create_app(settings)
    running = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
    thread = threading.Thread(target=running.run, args=([listener],), daemon=True)
    thread.start()
    while not running.started:
        assert thread.is_alive(), "the server did not start"
        time.sleep(0.02)
    service: Service = app.state.service
    service.worker.process = EngineProcess("tests.console.toy_worker", service.worker._hello)
    threading.Thread(target=service.intake.process.start, daemon=True).start()  # while the browser starts
    yield Site(settings.base_url, settings, service)
    running.should_exit = True
    thread.join(20)


@pytest.fixture(scope="session")
def operator_api(site: Site) -> Iterator[PlacetClient]:
    """The local operator, over the API."""
    with PlacetClient(site.url, Credentials.load(site.settings.operator_key_path)) as client:
        yield client


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """One browser process for all tests; every visitor has a profile of their own in it."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=list(CHROMIUM_FLAGS))
        yield browser
        browser.close()


class Visitor:
    """Somebody with a browser profile and a passkey device of their own."""

    def __init__(self, site: Site, context: BrowserContext) -> None:
        self.site = site
        self.context = context
        self.page: Page = context.new_page()
        self.page.set_default_timeout(PATIENCE_MS)
        self.problems: list[str] = []
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.on("console", self._heard)
        self.cdp: CDPSession = context.new_cdp_session(self.page)
        self.cdp.send("WebAuthn.enable")
        self.authenticator_id: str = self.cdp.send(
            "WebAuthn.addVirtualAuthenticator",
            {
                "options": {
                    "protocol": "ctap2",
                    "transport": "internal",
                    "hasResidentKey": True,
                    "hasUserVerification": True,
                    "isUserVerified": True,
                    "automaticPresenceSimulation": True,
                }
            },
        )["authenticatorId"]

    def _heard(self, message: Any) -> None:
        # what the network says about 4xx answers is no fault of the page
        if message.type == "error" and "Failed to load resource" not in message.text:
            self.problems.append(message.text)

    def open(self, path: str) -> Page:
        """Go to a page of the site."""
        self.page.goto(self.site.url + path)
        return self.page

    def refuse(self, refuses: bool = True) -> None:
        """Let the passkey device say no from now on (or yes again)."""
        self.cdp.send(
            "WebAuthn.setUserVerified", {"authenticatorId": self.authenticator_id, "isUserVerified": not refuses}
        )

    def passkeys(self) -> list[dict[str, Any]]:
        """What the passkey device holds."""
        found = self.cdp.send("WebAuthn.getCredentials", {"authenticatorId": self.authenticator_id})
        return list(found["credentials"])

    def sign_in_as_staff(self, kind: StaffKind, name: str = "Kim Example") -> None:
        """Accept an invitation: make a passkey and be signed in with it."""
        self.open(self.site.invite(kind, name))
        self.page.locator("#make-passkey").click()
        self.page.wait_for_url(lambda url: "/invitations/" not in url)

    def close(self) -> None:
        """End; nothing may have gone wrong in the page's scripts meanwhile."""
        self.context.close()
        assert not self.problems, self.problems


MakeVisitor = Callable[..., Visitor]


@pytest.fixture
def visitors(site: Site, chromium: Browser) -> Iterator[MakeVisitor]:
    """Makes visitors; keyword arguments are those of a Playwright context (`locale`, `color_scheme`, `viewport` …)."""
    made: list[Visitor] = []

    def make(**options: Any) -> Visitor:
        defaults: dict[str, Any] = {
            "locale": "en-GB",
            "timezone_id": "Europe/Berlin",
            "color_scheme": "light",
            "viewport": DESK,
            "reduced_motion": "reduce",
            "permissions": ["clipboard-read", "clipboard-write"],
        }
        made.append(Visitor(site, chromium.new_context(**(defaults | options))))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def visitor(visitors: MakeVisitor) -> Visitor:
    """One visitor at a desk, in English and light."""
    return visitors()


Look = Callable[..., None]


@pytest.fixture
def look(request: pytest.FixtureRequest) -> Look:
    """Looks at a page as it stands: axe-core, no sideways scrolling; with --screenshots also a picture of each form.

    `look("me", visitor)` writes me.png, me.dark.png and me.phone.png; `whole=False` only what the window shows, for
    dialogs.
    """
    with_pictures = bool(request.config.getoption("--screenshots", default=False))

    def look_at(
        name: str, visitor: Visitor, *, with_dark: bool = True, with_phone: bool = True, whole: bool = True
    ) -> None:
        page = visitor.page
        page.wait_for_load_state("networkidle")
        check_accessibility(visitor, name)
        forms: list[tuple[str, dict[str, int], str]] = [("", DESK, "light")]
        forms += [(".dark", DESK, "dark")] if with_dark else []
        forms += [(".phone", PHONE, "light")] if with_phone else []
        before = page.viewport_size
        for suffix, size, scheme in forms:
            page.set_viewport_size(size)  # type: ignore[arg-type]
            page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
            if suffix == ".dark":
                check_accessibility(visitor, name + suffix)
            width = page.evaluate("document.documentElement.scrollWidth")
            assert width <= size["width"], f"{name}{suffix} is {width} px wide in a window of {size['width']}"
            if with_pictures:
                save_picture(page.screenshot(full_page=whole, animations="disabled"), f"{name}{suffix}")
        page.set_viewport_size(before or DESK)  # type: ignore[arg-type]
        page.emulate_media(color_scheme="light")

    return look_at


def save_picture(png: bytes, name: str) -> None:
    """Keep a picture for the documentation, in 256 colours: a third of the size, and nobody sees it."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    Image.open(io.BytesIO(png)).convert("RGB").quantize(256).save(PICTURES / f"{name}.png", optimize=True)


def check_accessibility(visitor: Visitor, name: str) -> None:
    """axe-core finds nothing serious or critical. It runs in a world of its own, so the page keeps its strict CSP."""
    if not PRESENT["axe"]():
        return
    frame = visitor.cdp.send("Page.getFrameTree")["frameTree"]["frame"]["id"]
    world = visitor.cdp.send("Page.createIsolatedWorld", {"frameId": frame, "worldName": "axe"})["executionContextId"]
    source = (NODE_MODULES / "axe-core" / "axe.min.js").read_text()
    visitor.cdp.send("Runtime.evaluate", {"expression": source, "contextId": world})
    ran = visitor.cdp.send(
        "Runtime.evaluate",
        {
            "expression": "axe.run(document, {resultTypes: ['violations']}).then((found) => JSON.stringify("
            "found.violations.map(({id, impact, nodes}) => ({id, impact, where: nodes.map((node) => node.html)}))))",
            "contextId": world,
            "awaitPromise": True,
        },
    )
    found = json.loads(ran["result"]["value"])
    grave = [each for each in found if each["impact"] in ("serious", "critical")]
    assert not grave, f"{name}: {json.dumps(grave, indent=1)}"
