"""/check in a real browser: dropped, chosen, pasted; how far it is; the verdict in words; nobody else's report."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import httpx
import pytest
from playwright.sync_api import Page, expect

from api.console.check_view import BANDS, shown
from api.console.i18n import translator
from api.engine.process import EngineProcess
from detector.bands import coarse
from tests.console import toy_examiner
from tests.console.conftest import Look, MakeVisitor, Site, Visitor

pytestmark = pytest.mark.needs("chromium")


@pytest.fixture(scope="module", autouse=True)
def _made_up_reports(site: Site) -> Iterator[None]:
    """The service with an examiner that needs no models."""
    examiner = site.service.examiner
    genuine = examiner._idle.get()
    toy = EngineProcess("tests.console.toy_examiner", lambda: genuine._hello())
    examiner._idle.put(toy)
    yield
    examiner._idle.get()
    toy.close()
    examiner._idle.put(genuine)


def choose(page: Page, content: str) -> None:
    page.get_by_label("File", exact=True).or_(page.get_by_label("Datei", exact=True)).set_input_files(
        {"name": "clip.mp4", "mimeType": "video/mp4", "buffer": content.encode()}
    )


def test_a_clip_is_checked_without_an_account(visitor: Visitor, look: Look) -> None:
    page = visitor.open("/")
    page.get_by_role("link", name="Check a file").first.click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Check a file")
    look("check", visitor)
    choose(page, "animated")
    page.get_by_role("button", name="Check it").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("A face in it is probably animated")
    plot = page.get_by_role("img", name=re.compile("Timeline: 3 of 8"))
    expect(plot).to_be_visible()
    page.get_by_text("The same as a table").click()
    expect(page.get_by_role("table").get_by_role("row")).to_have_count(9)
    text = page.inner_text("main")
    assert "Probability" not in text and "0.97" not in page.content(), "the public tier gets bands"
    assert page.locator(".heat img").count() == 0
    look("check-public", visitor)


def test_progress_is_told_layer_by_layer(visitor: Visitor, look: Look) -> None:
    page = visitor.open("/check")
    choose(page, "generated slow")
    page.get_by_role("button", name="Check it").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Looking at it")
    expect(page.get_by_role("listitem").filter(has_text="Signed manifest")).to_contain_text("done")
    look("check-waiting", visitor, with_dark=False)
    expect(page.get_by_role("heading", level=1)).to_have_text("This was generated here")
    tree = page.locator(".manifests")
    expect(tree).to_contain_text("portrait.jpg")
    expect(tree).to_contain_text("signed by Example Camera")
    expect(page.get_by_text("so it was not asked")).to_be_visible()
    look("check-generated", visitor)


def test_staff_see_scores_and_heatmap(visitor: Visitor, look: Look) -> None:
    visitor.sign_in_as_staff("auditor")
    page = visitor.open("/check")
    expect(page.get_by_text("signed in as staff")).to_be_visible()
    choose(page, "animated")
    page.get_by_role("button", name="Check it").click()
    expect(page.get_by_text("0.97").first).to_be_attached()
    image = page.get_by_role("img", name=re.compile("Red areas"))
    expect(image).to_be_visible()
    assert image.evaluate("image => image.complete && image.naturalWidth === 320")
    copy = page.get_by_role("button", name=re.compile("JSON"))
    copy.click()
    assert '"verdict": "likely_manipulated"' in page.evaluate("navigator.clipboard.readText()")


def test_in_german_by_keyboard_alone(visitors: MakeVisitor, look: Look) -> None:
    visitor = visitors(locale="de-DE")
    page = visitor.open("/check")
    choose(page, "nothing")
    page.get_by_role("button", name="Prüfen").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("Es lässt sich nichts sagen")
    expect(page.get_by_text("kein Gesicht gefunden")).to_be_visible()
    look("check-german", visitor, with_dark=False)


def test_a_file_can_be_dropped_and_pasted(visitor: Visitor) -> None:
    page = visitor.open("/check")
    send = """kind => {
      const data = new DataTransfer();
      data.items.add(new File(["generated"], "clip.mp4", {type: "video/mp4"}));
      const place = kind === "drop" ? document.getElementById("ask") : document.body;
      const event = kind === "drop"
        ? new DragEvent("drop", {dataTransfer: data, bubbles: true, cancelable: true})
        : new ClipboardEvent("paste", {clipboardData: data, bubbles: true});
      place.dispatchEvent(event);
    }"""
    for kind in ("drop", "paste"):
        page = visitor.open("/check")
        page.wait_for_load_state("networkidle")
        page.evaluate(send, kind)
        expect(page.get_by_role("heading", level=1)).to_have_text("This was generated here")


def test_it_works_without_javascript(visitors: MakeVisitor) -> None:
    page = visitors(java_script_enabled=False).open("/check")
    choose(page, "generated")
    page.get_by_role("button", name="Check it").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("This was generated here")


def test_a_report_is_for_the_browser_that_asked(visitors: MakeVisitor, visitor: Visitor) -> None:
    page = visitor.open("/check")
    choose(page, "generated")
    page.get_by_role("button", name="Check it").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("This was generated here")
    stranger = visitors()
    answer = stranger.page.goto(page.url)
    assert answer is not None and answer.status == 404


def test_another_site_cannot_send_the_form(site: Site) -> None:
    files = {"media": ("x", b"generated")}
    answer = httpx.post(
        f"{site.url}/check", files=files, data={"csrf": "x"}, headers={"Origin": "https://evil.example"}
    )
    assert (answer.status_code, answer.json()["code"]) == (403, "session.form")
    assert site.service.detections.room.taken_bytes == 0


@pytest.mark.parametrize("language", ["en", "de"])
@pytest.mark.parametrize("made", [toy_examiner._generated, toy_examiner._animated, toy_examiner._nothing])
def test_every_state_has_words(language: str, made: Callable[[], dict]) -> None:
    t = translator(language)
    for report in (made(), coarse(made())):
        view = shown(report)
        for key in (
            f"check.verdict.{view.verdict}",
            f"check.reason.{view.reason}",
            f"check.c2pa.{view.c2pa['state']}.means",
            f"check.detector.{view.detector['state']}.means",
            *(f"check.mark.{mark['state']}.means" for _, mark, _ in view.marks),
            *(f"check.abstain.{code}" for code in view.abstain),
        ):
            assert t(key)
        assert all(t(f"check.limit.{key}", **values) for key, values in view.limits)
        assert all(t(f"check.band.{band}") for band in BANDS)
