"""The frame of every page: start page, language, sign-in and -out, staff invitations, errors in words, headers."""

from __future__ import annotations

import json
import re

import httpx
import pytest
from playwright.sync_api import expect
from typer.testing import CliRunner

from api.cli.root import app
from tests.console.conftest import Look, MakeVisitor, Site, Visitor

pytestmark = pytest.mark.needs("chromium")


def test_the_start_page_says_what_this_is_and_how_to_check_it(visitor: Visitor, look: Look) -> None:
    page = visitor.open("/")
    expect(page).to_have_title(re.compile("Placet"))
    expect(page.get_by_role("heading", level=1)).to_have_text("Nobody is shown without having said yes")
    look("home", visitor)


def test_an_auditor_makes_a_passkey_once_and_signs_in_with_it(visitor: Visitor, look: Look) -> None:
    size = visitor.site.service.log.size
    where = ["--home", str(visitor.site.settings.home), "--url", visitor.site.url, "--json"]
    ran = CliRunner().invoke(app, ["operators", "invite", "--role", "auditor", "--name", "Kim Example", *where])
    link = json.loads(ran.stdout.splitlines()[-1])["url"].removeprefix(visitor.site.url)
    page = visitor.open(link)
    look("invitation", visitor, with_dark=False, with_phone=False)
    page.get_by_role("button", name="Make a passkey").click()
    page.wait_for_url("**/audit")
    assert len(visitor.passkeys()) == 1
    assert visitor.site.kinds_since(size) == [
        "staff.invited",
        "passkey.registered",
        "client.registered",
        "session.opened",
    ]

    page = visitor.open(link)
    expect(page.get_by_role("heading", level=1)).to_have_text("This link does not work any more")

    page.get_by_role("button", name="Sign out").click()
    page.wait_for_url("**/sign-in?signed_out")
    expect(page.get_by_text("You are signed out.")).to_be_visible()
    look("sign-in", visitor)
    page.get_by_role("button", name="Sign in with a passkey").click()
    page.wait_for_url("**/audit")


def test_a_device_that_does_not_confirm_signs_nobody_in(visitor: Visitor) -> None:
    visitor.sign_in_as_staff("operator")
    visitor.page.get_by_role("button", name="Sign out").click()
    visitor.refuse()
    visitor.page.get_by_role("button", name="Sign in with a passkey").click()
    expect(visitor.page.get_by_text("Your device did not confirm.")).to_be_visible()


def test_errors_are_pages_for_people_and_problems_for_programs(visitor: Visitor, look: Look) -> None:
    page = visitor.open("/nowhere")
    expect(page.get_by_role("heading", level=1)).to_have_text("There is nothing here")
    look("not-found", visitor, with_dark=False, with_phone=False)
    for headers in ({}, {"Accept": "application/json"}, {"Accept": "*/*"}):
        answer = httpx.get(f"{visitor.site.url}/nowhere", headers=headers)
        assert answer.headers["content-type"] == "application/problem+json" and answer.json()["code"] == "not_found"


def test_the_language_is_the_browsers_until_another_is_chosen(visitors: MakeVisitor, look: Look) -> None:
    german = visitors(locale="de-AT")
    page = german.open("/")
    expect(page.get_by_role("heading", level=1)).to_have_text("Niemand wird gezeigt, der nicht ja gesagt hat")
    assert page.evaluate("document.documentElement.lang") == "de"
    page.get_by_role("link", name="English").click()
    german.open("/sign-in")
    expect(page.get_by_role("heading", level=1)).to_have_text("Sign in")
    page.get_by_role("link", name="Deutsch").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Anmelden")


def test_a_page_for_another_role_says_so(visitor: Visitor) -> None:
    page = visitor.open("/me")
    page.wait_for_url("**/sign-in?next=%2Fme")
    visitor.sign_in_as_staff("auditor")
    page = visitor.open("/me")
    expect(page.get_by_text("This page is for another role. You are signed in as auditor.")).to_be_visible()


def test_forms_of_other_sites_and_old_forms_do_nothing(site: Site) -> None:
    with httpx.Client(base_url=site.url) as browser:
        csrf = re.search(r'data-csrf="([^"]+)"', browser.get("/sign-in").text)
        assert csrf is not None
        good = {"Origin": site.settings.browser_origin, "X-CSRF-Token": csrf[1]}
        assert browser.post("/sign-in/begin", headers=good).status_code == 200
        for bad in (
            {**good, "Origin": "https://elsewhere.example"},
            {**good, "Origin": "null"},
            {**good, "X-CSRF-Token": "0" * 64},
            {"X-CSRF-Token": csrf[1]},
            {"Origin": site.settings.browser_origin},
        ):
            refused = browser.post("/sign-in/begin", headers=bad)
            assert (refused.status_code, refused.json()["code"]) == (403, "session.form"), bad
    stranger = httpx.post(f"{site.url}/sign-in/begin", headers=good)
    assert stranger.json()["code"] == "session.form"


def test_headers_forbid_what_pages_do_not_need(site: Site) -> None:
    headers = httpx.get(f"{site.url}/").headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and "frame-ancestors 'none'" in policy
    assert headers["referrer-policy"] == "same-origin" and headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-store"
    assert "<script>" not in httpx.get(f"{site.url}/sign-in").text
    cookie = httpx.get(f"{site.url}/sign-in").headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=strict" in cookie


def test_static_files_are_kept_by_their_version_and_nothing_else_is_served(site: Site) -> None:
    link = re.search(r'href="(/static/[^"]+css)"', httpx.get(f"{site.url}/").text)
    assert link is not None
    sheet = httpx.get(site.url + link[1])
    assert "immutable" in sheet.headers["cache-control"] and sheet.headers["content-type"].startswith("text/css")
    for path in ("/static/x/../pages.py", "/static/x/%2e%2e/pages.py", "/static/x/../../settings.py", "/static/x/"):
        assert httpx.get(site.url + path, follow_redirects=True).status_code == 404, path


def test_pages_at_the_address_of_this_machine_move_to_its_name(site: Site) -> None:
    answer = httpx.get(f"http://127.0.0.1:{site.settings.port}/sign-in?next=%2Fme")
    assert answer.status_code == 307
    assert answer.headers["location"] == f"{site.settings.browser_origin}/sign-in?next=%2Fme"
