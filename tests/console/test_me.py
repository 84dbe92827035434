"""The depicted person's way through the pages: enrol, consent, watch, check, narrow, revoke, erase."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, Route, expect

from api.client import Credentials, PlacetClient, ProblemError
from api.clients import SCOPES_BY_KIND
from policy.consent import PURPOSE_EDUCATION, PURPOSE_RESEARCH, new_subject_key
from tests.api.conftest import altered, make_wav
from tests.console.conftest import Look, MakeVisitor, Site, Visitor

pytestmark = pytest.mark.needs("chromium")

Portrait = Callable[[], Path]


@pytest.fixture(scope="session")
def researcher(site: Site, operator_api: PlacetClient) -> PlacetClient:
    """Somebody who may ask for videos."""
    key = new_subject_key()
    made = operator_api.register_client(
        kind="researcher",
        name="Speech and Hearing Lab",
        org="university",
        scopes=sorted(SCOPES_BY_KIND["researcher"]),
        jwks=Credentials("", key).public_jwks,
    )
    return PlacetClient(site.url, Credentials(made["client_id"], key))


@pytest.fixture(scope="session")
def speech() -> bytes:
    return make_wav(1.6)


@pytest.fixture(scope="session")
def portrait(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped persona's picture as a file."""
    from generator.personas import list_personas

    path = tmp_path_factory.mktemp("portrait") / "portrait.png"
    path.write_bytes(list_personas()[0].portrait())
    return path


def enrol(visitor: Visitor, portrait: Path) -> str:
    """Through all three steps; returns the subject id."""
    page = visitor.open("/me/enrol")
    page.get_by_label("A synthetic persona that resembles nobody").check()
    page.get_by_label("Origin or rights").fill("made for this project, resembles nobody")
    page.get_by_label("Picture file").set_input_files(portrait)
    page.get_by_role("button", name="Check the picture").click()
    page.get_by_role("button", name="Make a passkey").click()
    page.get_by_role("button", name="Sign and enrol").click()
    page.wait_for_url("**/me?done=enrolled")
    return str(page.locator("[data-copy^=sub_]").get_attribute("data-copy"))


def allow(page: Page, *, uses: int = 3) -> None:
    """Give a consent for research to the only researcher there is."""
    page.get_by_role("link", name="Give a consent").click()
    page.get_by_label("Scientific research").check()
    page.get_by_label("How many videos").fill(str(uses))
    page.get_by_role("button", name="Read what you would sign").click()
    page.get_by_role("button", name="Sign with my passkey").click()
    page.wait_for_url("**/me?done=consent*")


def ask(
    researcher: PlacetClient, subject_id: str, portrait: Path, speech: bytes, purpose: str = PURPOSE_RESEARCH
) -> str:
    """Have a video made over the API; returns the render id."""
    asked = researcher.render(subject_id=subject_id, portrait=portrait.read_bytes(), speech=speech, purpose=purpose)
    return str(researcher.wait(asked)["render_id"])


@pytest.mark.needs("axe")
def test_from_enrolment_to_erasure(
    visitor: Visitor, portrait: Path, researcher: PlacetClient, speech: bytes, look: Look
) -> None:
    # enrol: picture, passkey, signature
    page = visitor.open("/me/enrol")
    look("enrol", visitor)
    page.get_by_label("A synthetic persona that resembles nobody").check()
    page.get_by_label("Origin or rights").fill("made for this project, resembles nobody")
    page.get_by_label("Picture file").set_input_files(portrait)
    expect(page.get_by_alt_text("The picture that would be enrolled")).to_be_visible()
    page.get_by_role("button", name="Check the picture").click()
    expect(page.locator("#nonce")).to_have_text(re_hex(32))
    look("enrol-passkey", visitor, with_dark=False, with_phone=False)
    page.get_by_role("button", name="Make a passkey").click()
    expect(page.get_by_text("That the face is synthetic and shows nobody.")).to_be_visible()
    look("enrol-sign", visitor, with_dark=False, with_phone=False)
    page.get_by_role("button", name="Sign and enrol").click()
    page.wait_for_url("**/me?done=enrolled")
    assert len(visitor.passkeys()) == 1
    expect(page.get_by_text("You have allowed nothing")).to_be_visible()
    expect(page.get_by_text("Nobody has asked for your face")).to_be_visible()
    look("me-empty", visitor, with_dark=False, with_phone=False)
    subject_id = str(page.locator("[data-copy^=sub_]").get_attribute("data-copy"))

    # nobody may do anything yet, and the refusal is there to see
    with pytest.raises(ProblemError) as refused:
        ask(researcher, subject_id, portrait, speech)
    assert "consent.missing" in refused.value.reasons

    # choose, read, sign
    page = visitor.open("/me")
    page.get_by_role("link", name="Give a consent").click()
    page.get_by_label("Scientific research").check()
    page.get_by_label("How many videos").fill("3")
    look("consent-new", visitor, with_dark=False)
    page.get_by_role("button", name="Read what you would sign").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Consent to animate your portrait")
    page.get_by_text("Exactly what is signed").click()
    statement = json.loads(page.locator("#canonical").inner_text())
    assert statement["max_uses"] == 3 and statement["purposes"] == [PURPOSE_RESEARCH]
    look("consent-review", visitor)
    page.get_by_role("button", name="Sign with my passkey").click()
    page.wait_for_url("**/me?done=consent*")

    # used, and the use is proven to this browser
    ask(researcher, subject_id, portrait, speech)
    with pytest.raises(ProblemError):
        ask(researcher, subject_id, portrait, speech, PURPOSE_EDUCATION)
    page = visitor.open("/me")
    expect(page.locator(".proof.good").first).to_have_text("proof checked in your browser")
    expect(page.locator(".proof:not(.good)")).to_have_count(0)
    expect(page.locator(".use")).to_have_count(3)
    expect(page.get_by_text("1 of 3 used")).to_be_visible()
    look("me", visitor)

    # an auditor who looks behind the pseudonym is seen doing it
    service = visitor.site.service
    pseudonym = service.gate.pseudonym("subject", subject_id)
    service.audit.reveal(pseudonym, "The person asked what is known here.", by="aud_1", by_org="supervision")
    page = visitor.open("/me")
    expect(page.get_by_text("Stated reason: The person asked what is known here.")).to_be_visible()
    expect(page.locator(".proof:not(.good)")).to_have_count(0)

    # narrowed: the old one ends with the new
    page.get_by_role("link", name="Narrow").click()
    page.get_by_label("How many videos").fill("1")
    page.get_by_role("button", name="Read what you would sign").click()
    page.get_by_role("button", name="Sign with my passkey").click()
    page.wait_for_url("**/me?done=consent*")
    expect(page.get_by_text("0 of 1 used")).to_be_visible()
    expect(page.locator(".consent")).to_have_count(1)

    # revoked: named first, then in force at once
    page.get_by_role("button", name="Revoke", exact=True).click()
    expect(page.get_by_role("dialog")).to_contain_text("Speech and Hearing Lab may make no more videos of you.")
    look("me-revoke", visitor, whole=False)
    page.get_by_role("button", name="Revoke with my passkey").click()
    page.wait_for_url("**/me?done=revoked*")
    expect(page.get_by_text("You have allowed nothing")).to_be_visible()
    with pytest.raises(ProblemError) as refused:
        ask(researcher, subject_id, portrait, speech)
    assert "consent.revoked" in refused.value.reasons

    # everything can be taken away
    with page.expect_download() as download:
        page.get_by_role("link", name="Download everything").click()
    names = zipfile.ZipFile(io.BytesIO(Path(download.value.path()).read_bytes())).namelist()
    assert {"profile.json", "uses.json", "log-key.txt"} <= set(names)
    assert sum(name.startswith("consents/") for name in names) == 2

    # and erased
    page.get_by_role("button", name="Erase everything", exact=True).click()
    look("me-erase", visitor, with_dark=False, with_phone=False, whole=False)
    page.get_by_role("button", name="Erase everything with my passkey").click()
    page.wait_for_url("**/me/erased")
    look("erased", visitor, with_dark=False, with_phone=False)
    page = visitor.open("/me")
    page.wait_for_url("**/sign-in?next=%2Fme")


def re_hex(num_chars: int) -> object:
    import re

    return re.compile(rf"[0-9a-f]{{{num_chars}}}")


def tampering(change: Callable[[dict], None]) -> Callable[[Route], None]:
    """A service that answers something else than the truth."""

    def handle(route: Route) -> None:
        answer = route.fetch()
        content = answer.json()
        change(content)
        route.fulfill(response=answer, json=content)

    return handle


def test_a_proof_that_is_false_is_seen(
    visitor: Visitor, portrait: Path, researcher: PlacetClient, speech: bytes, look: Look, tmp_path: Path
) -> None:
    own = tmp_path / "own.png"
    own.write_bytes(altered(portrait.read_bytes(), 7))
    subject_id = enrol(visitor, own)
    allow(visitor.page)
    ask(researcher, subject_id, own, speech)
    page = visitor.open("/me")
    expect(page.locator(".proof.good")).to_have_count(2)

    def other_entry(content: dict) -> None:
        content["entries"][0]["entry"]["time"] = "2020-01-01T00:00:00.000Z"

    def no_entry(content: dict) -> None:
        content["entries"].pop()

    def smaller_log(content: dict) -> None:
        origin, size, rest = content["checkpoint"].split("\n", 2)
        content["checkpoint"] = f"{origin}\n{int(size) - 1}\n{rest}"

    for change, num_bad in ((other_entry, 1), (no_entry, 1), (smaller_log, 2)):
        page.unroute_all()
        page.route("**/me/proofs*", tampering(change))
        visitor.open("/me")
        expect(page.locator(".proof.bad")).to_have_count(num_bad)
        expect(page.locator("#log-state")).to_contain_text("tell an auditor")
    look("me-false-proof", visitor, with_dark=False, with_phone=False)

    # a service without an answer is not called false
    page.unroute_all()
    page.route("**/me/proofs*", lambda route: route.abort())
    visitor.open("/me")
    expect(page.locator(".proof.bad")).to_have_count(0)
    expect(page.locator(".proof", has_text="could not be fetched")).to_have_count(2)


def test_the_service_cannot_have_something_else_signed(
    visitor: Visitor, portrait: Path, researcher: PlacetClient, tmp_path: Path
) -> None:
    own = tmp_path / "own.png"
    own.write_bytes(altered(portrait.read_bytes(), 11))
    enrol(visitor, own)
    page = visitor.page

    def other_statement(route: Route) -> None:
        # the page shows ten uses, the statement behind it says a million
        answer = route.fetch()
        shown, behind = "&#34;max_uses&#34;: 10,", "&#34;max_uses&#34;: 1000000,"
        assert shown in answer.text()
        route.fulfill(response=answer, body=answer.text().replace(shown, behind))

    page.route("**/me/consents/review?*", other_statement)
    page.get_by_role("link", name="Give a consent").click()
    page.get_by_label("Scientific research").check()
    page.get_by_role("button", name="Read what you would sign").click()
    page.get_by_role("button", name="Sign with my passkey").click()
    expect(page.get_by_text("says something else than what would be signed")).to_be_visible()


@pytest.mark.heavy
def test_by_keyboard_alone(visitor: Visitor, portrait: Path, tmp_path: Path, researcher: PlacetClient) -> None:
    own = tmp_path / "own.png"
    own.write_bytes(altered(portrait.read_bytes(), 13))
    enrol(visitor, own)
    page = visitor.open("/me")
    press = page.keyboard.press

    def tab_to(name: str, limit: int = 40) -> None:
        for _ in range(limit):
            press("Tab")
            if page.evaluate("document.activeElement.innerText || document.activeElement.value").strip() == name:
                return
        raise AssertionError(f"the keyboard does not reach “{name}”")

    press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    press("Enter")
    tab_to("Give a consent")
    press("Enter")
    page.wait_for_url("**/me/consents/new")
    page.get_by_label("Scientific research").focus()
    press("Space")
    tab_to("Read what you would sign")
    press("Enter")
    page.wait_for_url("**/me/consents/review?*")
    tab_to("Sign with my passkey")
    press("Enter")
    page.wait_for_url("**/me?done=consent*")
    tab_to("Revoke")
    press("Enter")
    expect(page.get_by_role("dialog")).to_be_visible()
    press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)


@pytest.mark.heavy
def test_a_device_that_refuses_signs_nothing(visitor: Visitor, portrait: Path, tmp_path: Path) -> None:
    own = tmp_path / "own.png"
    own.write_bytes(altered(portrait.read_bytes(), 17))
    enrol(visitor, own)
    page = visitor.open("/me")
    size = visitor.site.service.log.size
    visitor.refuse()
    page.get_by_role("button", name="Erase everything", exact=True).click()
    page.get_by_role("button", name="Erase everything with my passkey").click()
    expect(page.get_by_role("dialog")).to_contain_text("Nothing was signed.")
    assert visitor.site.service.log.size == size


@pytest.mark.heavy
def test_in_german_on_a_dark_phone(visitors: MakeVisitor, portrait: Path, tmp_path: Path, look: Look) -> None:
    own = tmp_path / "own.png"
    own.write_bytes(altered(portrait.read_bytes(), 19))
    german = visitors(locale="de-DE", color_scheme="dark", viewport={"width": 360, "height": 740})
    page = german.open("/me/enrol")
    page.get_by_label("Eine künstliche Person").check()
    page.get_by_label("Herkunft oder Rechte").fill("für dieses Projekt gemacht, gleicht niemandem")
    page.get_by_label("Bilddatei").set_input_files(own)
    page.get_by_role("button", name="Bild prüfen").click()
    page.get_by_role("button", name="Passkey anlegen").click()
    expect(page.get_by_text("Mit Ihrer Unterschrift stellen Sie dieses Porträt unter den Schutz")).to_be_visible()
    page.get_by_role("button", name="Unterschreiben und aufnehmen").click()
    page.wait_for_url("**/me?done=enrolled")
    expect(page.get_by_role("heading", level=1)).to_have_text("Mein Gesicht")
    look("me-german", german, with_dark=False)


@pytest.mark.heavy
def test_without_scripts_pages_are_readable_and_say_what_needs_them(
    visitors: MakeVisitor, visitor: Visitor, portrait: Path, tmp_path: Path, researcher: PlacetClient
) -> None:
    own = tmp_path / "own.png"
    own.write_bytes(altered(portrait.read_bytes(), 23))
    enrol(visitor, own)
    plain = visitors(java_script_enabled=False)
    plain.context.add_cookies(visitor.context.cookies())
    page = plain.open("/me")
    expect(page.get_by_text("This page needs JavaScript for passkeys and for checking proofs")).to_be_visible()
    expect(page.get_by_text("You have allowed nothing")).to_be_visible()
    expect(page.locator("time").first).to_contain_text("UTC")
    page.get_by_role("link", name="Give a consent").click()
    page.get_by_label("Scientific research").check()
    page.get_by_role("button", name="Read what you would sign").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Consent to animate your portrait")
    expect(page.get_by_text("and nobody else. This consent cannot be passed on.")).to_be_visible()


@pytest.mark.heavy
def test_a_picture_from_the_camera(visitors: MakeVisitor) -> None:
    visitor = visitors(permissions=["camera"])
    page = visitor.open("/me/enrol")
    page.get_by_role("button", name="Use the camera").click()
    page.get_by_role("button", name="Take the picture").click()
    expect(page.get_by_alt_text("The picture that would be enrolled")).to_be_visible()
    # the test camera shows no face, and the page says so
    page.get_by_role("button", name="Check the picture").click()
    expect(page.locator("#outcome .error")).to_contain_text("face")
