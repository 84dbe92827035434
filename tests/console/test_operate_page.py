"""/operate in a real browser: health, an application answered, a client suspended and let in again, a key replaced."""

from __future__ import annotations

import re
from typing import Any

import pytest
from playwright.sync_api import expect

from api.client import Credentials, PlacetClient, ProblemError
from policy.consent import new_subject_key
from policy.identity import SCOPE_DETECT_CREATE, SCOPE_RENDER_CREATE, SCOPE_RENDER_READ
from tests.console.conftest import Look, MakeVisitor, Site, Visitor

pytestmark = pytest.mark.needs("chromium")


def apply(site: Site, name: str, project: str, **more: object) -> tuple[str, Any]:
    """An organisation applies. Returns the application's id and the applicant's key."""
    key = new_subject_key()
    with PlacetClient(site.url) as applicant:
        wish: dict[str, Any] = {
            "name": name,
            "org": "university",
            "contact": "lab@university.example",
            "project": project,
            "ethics_reference": "2026-17",
            "scopes": [SCOPE_RENDER_CREATE, SCOPE_RENDER_READ],
            "jwks": Credentials("", key).public_jwks,
            "term_days": 180,
            "budget_s_per_day": 300,
        }
        made = applicant.apply(**(wish | more))
    return str(made["application_id"]), key


def test_only_operators_come_in(site: Site, visitor: Visitor) -> None:
    visitor.open("/operate")
    expect(visitor.page).to_have_url(re.compile(r"/sign-in\?next=%2Foperate$"))
    visitor.sign_in_as_staff("auditor")
    visitor.open("/operate/keys")
    expect(visitor.page.get_by_role("heading", level=1)).to_have_text("Not allowed")


def test_health_in_words(site: Site, visitor: Visitor, look: Look) -> None:
    visitor.sign_in_as_staff("operator")
    page = visitor.open("/operate")
    expect(page.get_by_role("heading", name="Audit log")).to_be_visible()
    expect(page.get_by_text(re.compile(r"\d+ entries, each durable"))).to_be_visible()
    expect(page.get_by_text("Nobody is waiting; 16 may.")).to_be_visible()
    expect(page.get_by_role("meter", name="Storage")).to_have_attribute("aria-valuenow", re.compile(r"\d+"))
    look("operate", visitor)


def test_an_application_is_answered(site: Site, visitor: Visitor, look: Look) -> None:
    wanted, key = apply(site, "Speech lab", "Does seeing a face help people who are hard of hearing?")
    apply(site, "Ad agency", "Celebrities who praise our shampoo.", ethics_reference="", budget_s_per_day=86_400)
    size = site.service.log.size
    visitor.sign_in_as_staff("operator")
    page = visitor.open("/operate/applications")
    look("operate-applications", visitor)

    lab = page.get_by_role("article", name="Speech lab")
    lab.get_by_label("Seconds of video per day").fill("120")
    lab.get_by_role("button", name="Approve").click()
    expect(page.get_by_text("Approved. The applicant can get tokens now.")).to_be_visible()
    with PlacetClient(site.url) as applicant:
        client_id = applicant.application(wanted)["client_id"]
    client = site.service.clients.find(client_id)
    assert (client.budget_s_per_day, client.max_concurrent) == (120, 4)
    assert PlacetClient(site.url, Credentials(client_id, key)).token(SCOPE_RENDER_READ)

    agency = page.get_by_role("article", name="Ad agency")
    agency.get_by_role("button", name="Refuse …").click()
    dialog = page.get_by_role("dialog", name="Refuse Ad agency?")
    dialog.get_by_label("Reason").fill("No consent of those shown.")
    look("operate-refuse", visitor, with_dark=False, with_phone=False, whole=False)
    dialog.get_by_role("button", name="Refuse").click()
    expect(page.get_by_text("No consent of those shown.")).to_be_visible()
    answers = [kind for kind in site.kinds_since(size) if kind.startswith("application.")]
    assert answers == ["application.approved", "application.refused"]


def test_a_client_is_suspended_and_let_in_again(
    site: Site, visitor: Visitor, operator_api: PlacetClient, look: Look
) -> None:
    key = new_subject_key()
    made = operator_api.register_client(
        kind="platform",
        name="Newsroom",
        org="gazette",
        scopes=[SCOPE_DETECT_CREATE],
        jwks=Credentials("", key).public_jwks,
        term_expires_at="2027-11-22T00:00:00Z",
    )
    newsroom = PlacetClient(site.url, Credentials(made["client_id"], key))
    assert newsroom.token(SCOPE_DETECT_CREATE)
    visitor.sign_in_as_staff("operator")
    page = visitor.open("/operate/clients")
    look("operate-clients", visitor)
    page.get_by_role("article", name="Newsroom").get_by_role("button", name="Suspend …").click()
    dialog = page.get_by_role("dialog", name="Suspend Newsroom?")
    dialog.get_by_label("Reason").fill("Key found on a public server.")
    look("operate-suspend", visitor, with_phone=False, whole=False)
    dialog.get_by_role("button", name="Suspend").click()
    expect(page.get_by_text("Its tokens are refused from now on.")).to_be_visible()
    with pytest.raises(ProblemError, match="client"):
        PlacetClient(site.url, newsroom.credentials).token(SCOPE_DETECT_CREATE)

    page.get_by_role("article", name="Newsroom").get_by_role("button", name="Lift suspension …").click()
    page.get_by_role("dialog").get_by_role("button", name="Lift suspension").click()
    expect(page.get_by_text("The suspension is lifted.")).to_be_visible()
    assert PlacetClient(site.url, newsroom.credentials).token(SCOPE_DETECT_CREATE)

    page.get_by_role("article", name="Newsroom").get_by_role("button", name="Change terms …").click()
    page.get_by_role("dialog").get_by_label("Videos and streams at a time").fill("1")
    page.get_by_role("dialog").get_by_role("button", name="Change terms").click()
    expect(page.get_by_text("The new terms hold from now on.")).to_be_visible()
    assert site.service.clients.find(made["client_id"]).max_concurrent == 1


def test_a_key_is_replaced(site: Site, visitor: Visitor, look: Look) -> None:
    visitor.sign_in_as_staff("operator")
    page = visitor.open("/operate/keys")
    look("operate-keys", visitor)
    old, size = site.service.keys.service.signing_key("permit").kid, site.service.log.size
    page.get_by_role("article", name="Permits").get_by_role("button", name="Replace …").click()
    dialog = page.get_by_role("dialog", name="Replace the key: Permits?")
    expect(dialog).to_contain_text("This cannot be undone")
    dialog.get_by_role("button", name="Replace").click()
    expect(page.get_by_text("There is a new key. Nothing had to stop.")).to_be_visible()
    assert site.service.keys.service.signing_key("permit").kid != old
    assert "key.rotated" in site.kinds_since(size)


def test_in_german(site: Site, visitors: MakeVisitor, look: Look) -> None:
    visitor = visitors(locale="de-DE")
    visitor.sign_in_as_staff("operator")
    page = visitor.open("/operate/keys")
    expect(page.get_by_role("heading", level=1)).to_have_text("Schlüssel")
    page.get_by_role("link", name="Zustand").click()
    expect(page.get_by_role("heading", name="Warteschlange")).to_be_visible()
    look("operate-german", visitor, with_dark=False)


@pytest.mark.parametrize("path", ["/operate/keys/permit/rotate", "/operate/clients/op_1/suspend"])
def test_another_site_cannot_press_the_buttons(site: Site, visitor: Visitor, path: str) -> None:
    visitor.sign_in_as_staff("operator")
    old = site.service.keys.service.signing_key("permit").kid
    answer = visitor.context.request.post(
        site.url + path, form={"csrf": "x"}, headers={"Origin": "https://evil.example"}
    )
    assert answer.status == 403
    assert site.service.keys.service.signing_key("permit").kid == old
