"""/audit in a real browser: six days of a log with a witness, read, searched, replayed, compared, doubted, exported."""

from __future__ import annotations

import random
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
import uvicorn
from playwright.sync_api import Route, expect

from api.app import create_app
from api.service import Service
from api.settings import Settings
from api.setup import create_instance
from api.storage.models import Client, Use
from api.witness import create_witness_app
from policy.canonical import sha256_hex
from policy.consent import PURPOSE_EDUCATION, PURPOSE_RESEARCH
from policy.decision import DEFAULT_DIRECTORY, POLICY_FILE, ConsentFacts, Facts, RenderRequest
from policy.fsck import verify_bundle
from policy.identity import SCOPE_RENDER_CREATE, Actor
from policy.instance import Instance
from policy.note import sign_checkpoint
from policy.witness import Witness
from tests.console.conftest import Look, MakeVisitor, Site, Visitor

pytestmark = pytest.mark.needs("chromium")

RESEARCHER, SUBJECT = "res_5ab1e0c4d2f37788", "sub_9d0e4a17c65b2f83"
NUM_REQUESTS = 70


@dataclass
class Clock:
    """The time, seen from some days ago."""

    offset_s: float = 0.0

    def __call__(self) -> float:
        return time.time() + self.offset_s


def write_history(home: Path, clock: Clock, rng: random.Random, house_rules: Path) -> None:
    """Requests by a few clients about a few people: allowed and delivered, refused for this and that, over six days."""
    instance = Instance.open(home, policies=house_rules, now=clock)
    days = 6.0
    clock.offset_s = -days * 86_400
    for nth in range(NUM_REQUESTS):
        clock.offset_s = -days * 86_400 * (1 - (nth + rng.random()) / NUM_REQUESTS) - 5
        if nth == NUM_REQUESTS * 2 // 3:  # the operator takes a house rule back
            instance = Instance.open(home, now=clock)
        if rng.random() < 0.2:
            client = instance.gate.pseudonym("client", rng.choice((RESEARCHER, "res_unknown")))
            body = {
                "code": rng.choice(("token.expired", "token.replayed")),
                "client": client,
                "endpoint": "/v1/renders",
            }
            instance.gate.record("token.rejected", body)
            continue
        _request(instance, clock, rng, is_known=rng.random() < 0.85)


def _request(instance: Instance, clock: Clock, rng: random.Random, *, is_known: bool) -> None:
    now, gate = int(clock()), instance.gate
    subject = rng.choice((SUBJECT, "sub_b", "sub_c")) if is_known else "sub_unknown"
    portrait = sha256_hex(subject.encode())
    purpose = rng.choice((PURPOSE_RESEARCH, PURPOSE_RESEARCH, PURPOSE_EDUCATION))
    actor = Actor(RESEARCHER, "university", frozenset({SCOPE_RENDER_CREATE}))
    request = RenderRequest.of(
        actor,
        subject_id=subject,
        portrait_sha256=portrait,
        speech_sha256=sha256_hex(rng.randbytes(8)),
        controls={"seed": 7, "intensity": 0.5},
        purpose=purpose,
        duration_s=rng.uniform(2, 12),
    )
    consent = ConsentFacts(
        sha256=sha256_hex(b"consent" + subject.encode()),
        grantee_org="university",
        grantee_client=RESEARCHER,
        purposes=(PURPOSE_RESEARCH,),
        portraits=(portrait,),
        controls=("intensity", "seed"),
        not_before=now - 1000,
        expires_at=now + rng.choice((-500, 86_400, 86_400, 86_400)),
        max_uses=200,
        uses=rng.randrange(100),
        epoch=0,
        revoked=False,
    )
    facts = Facts(
        subject_class="adult" if is_known else "unknown",
        face_match="match" if is_known else "unknown",
        consent=consent if is_known else None,
        vetting="approved",
        vetting_expires_at=now + 86_400,
        budget_ms=600_000,
        budget_used_ms=rng.randrange(500_000),
        max_streams=4,
        max_duration_ms=60_000,
    )
    ruling = gate.rule(request, facts)
    if ruling.decision.allowed:
        video = sha256_hex(rng.randbytes(8))
        gate.record("delivery", {"decision_index": ruling.evidence.index, "video_sha256": video, "num_frames": 100})


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A server with a past: an older policy set, a witness, and people and clients on record."""
    folder, clock = tmp_path_factory.mktemp("audit"), Clock(-6.01 * 86_400)
    house_rules = folder / "house-rules"
    shutil.copytree(DEFAULT_DIRECTORY, house_rules)
    rules = house_rules / POLICY_FILE
    closed = (
        '\n@id("house.night")\n@says("This house renders by day only; ask again in the morning.")\n'
        "forbid (principal, action, resource) when { context.durationMs > 11500 };\n"
    )
    rules.write_text(rules.read_text() + closed)
    home = folder / "home"
    create_instance(Settings(home=home), "example", now=clock)
    write_history(home, clock, random.Random(7), house_rules)
    clock.offset_s = 0.0
    witness = Witness.create(folder / "witness", "witness.example/w1", time.time)
    witness.watch(Instance.open(home).log.verifier_key)
    with ExitStack() as stack:
        witness_url = stack.enter_context(_serving(create_witness_app(witness), socket.create_server(("127.0.0.1", 0))))
        listener = socket.create_server(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        settings = Settings(
            home=home,
            issuer=f"http://localhost:{port}",
            port=port,
            prewarm=False,
            witnesses=(f"{witness.key.text} {witness_url}",),
            witness_interval_s=0.2,
        )
        app = create_app(settings)
        stack.enter_context(_serving(app, listener))
        service: Service = app.state.service
        with service.database.write() as session:
            session.add(
                Client(
                    client_id=RESEARCHER,
                    kind="researcher",
                    name="Speech lab",
                    org="university",
                    jwks={"keys": []},
                    scopes=[SCOPE_RENDER_CREATE],
                    roles=["researcher"],
                    created_at=time.time(),
                    log_index=1,
                )
            )
        yield Site(settings.base_url, settings, service)


class _serving:
    """An application on a socket, for as long as the context lasts."""

    def __init__(self, app: object, listener: socket.socket) -> None:
        self._listener = listener
        self._server = uvicorn.Server(uvicorn.Config(app, log_level="error"))  # type: ignore[arg-type]
        self._thread = threading.Thread(target=self._server.run, args=([listener],), daemon=True)

    def __enter__(self) -> str:
        self._thread.start()
        while not self._server.started:
            assert self._thread.is_alive(), "the server did not start"
            time.sleep(0.02)
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def __exit__(self, *_exc: object) -> None:
        self._server.should_exit = True
        self._thread.join(20)


@pytest.fixture
def auditor(visitor: Visitor) -> Visitor:
    """Somebody signed in as an auditor."""
    visitor.sign_in_as_staff("auditor", "Robin Example")
    return visitor


def cosigned(site: Site) -> None:
    """Wait until the witness has seen everything."""
    deadline = time.monotonic() + 20
    while site.service.witnessing.lag_entries and time.monotonic() < deadline:
        time.sleep(0.05)


def decision(site: Site, *, allowed: bool) -> int:
    """The newest decision with that outcome."""
    from policy.index import Query

    return site.service.audit.index.search(Query(kind="decision", allowed=allowed), 1).indices[0]


def test_search_with_filters_in_the_address(auditor: Visitor, look: Look) -> None:
    page = auditor.open("/audit")
    expect(page.get_by_role("heading", level=1)).to_have_text("Audit log")
    expect(page.get_by_role("img", name="Timeline of")).to_be_visible()
    look("audit", auditor)
    page.get_by_label("Decision", exact=True).select_option("refused")
    page.get_by_role("button", name="Search").click()
    page.wait_for_url("**/audit?*decision=refused*")
    rows = page.locator("table.entries tbody tr")
    assert rows.count() > 3 and page.locator("tbody .badge.good").count() == 0
    page.locator("a.name").first.click()
    page.wait_for_url("**/audit?who=*")
    expect(page.get_by_label("Pseudonym of a person")).not_to_have_value("")
    page = auditor.open("/audit?kind=nothing")
    expect(page.get_by_text("No entry fits.")).to_be_visible()
    page = auditor.open("/audit?since=yesterday")
    expect(page.get_by_text("A date cannot be read")).to_be_visible()
    page = auditor.open("/audit")
    first = page.locator("table.entries tbody th").first.inner_text()
    page.get_by_role("link", name="Older entries").click()
    page.wait_for_url("**before=*")
    assert page.locator("table.entries tbody th").first.inner_text() != first


def test_a_refused_decision_explains_itself_and_is_repeated(site: Site, auditor: Visitor, look: Look) -> None:
    cosigned(site)
    index = decision(site, allowed=False)
    page = auditor.open(f"/audit/entries/{index}")
    body = site.service.log.entry(index)["body"]
    expect(page.get_by_role("heading", name="Why it was refused")).to_be_visible()
    for code in body["reasons"]:
        expect(page.locator("details.rule summary", has_text=code)).to_be_visible()
    expect(page.locator("details.rule pre").first).to_contain_text(f'@id("{body["reasons"][0]}")')
    page.get_by_role("button", name="Replay the decision").click()
    page.wait_for_url("**replay=1**")
    expect(page.get_by_text("It comes out the same.")).to_be_visible()
    expect(page.get_by_role("img", name=f"Path from entry {index}")).to_be_visible()
    expect(page.locator(".proving .timeline")).to_contain_text("witness.example/w1")
    expect(page.locator("#checked.good")).to_contain_text("1 of them by witnesses")
    look("audit-entry", auditor)


def lying(true: str, false: str) -> Callable[[Route], None]:
    """Hands on a page with one word of its claim exchanged."""

    def hand_on(route: Route) -> None:
        answer = route.fetch()
        text = answer.text()
        at = text.index('data-claim="')
        assert true in text[at:]
        route.fulfill(response=answer, body=text[:at] + text[at:].replace(true, false, 1))

    return hand_on


def test_the_browser_finds_out_what_was_changed(site: Site, auditor: Visitor) -> None:
    """The page's own check, against pages that lie."""
    cosigned(site)
    page = auditor.page
    address = f"**/audit/entries/{decision(site, allowed=False)}"
    lies = {
        "the outcome": ("&#34;allowed&#34;: false", "&#34;allowed&#34;: true"),
        "the root": ("&#34;root_hash&#34;: &#34;", "&#34;root_hash&#34;: &#34;0"),
        "the witness's time": ("witness.example/w1 ", "witness.example/w1 A"),
    }
    for lie, words in lies.items():
        page.route(address, lying(*words))
        page.goto(site.url + address.removeprefix("**"))
        expect(page.locator("#checked.bad"), lie).to_be_visible()
        page.unroute(address)
    page.reload()
    expect(page.locator("#checked.good")).to_be_visible()


def test_an_allowed_decision_and_its_delivery(site: Site, auditor: Visitor) -> None:
    index = decision(site, allowed=True)
    page = auditor.open(f"/audit/entries/{index}")
    expect(page.get_by_role("heading", name="Which rules permit it")).to_be_visible()
    assert page.locator("details.rule").count() >= 1
    page = auditor.open(f"/audit/entries/{index + 1}")
    page.get_by_role("link", name="Its decision").click()
    page.wait_for_url(f"**/audit/entries/{index}")
    page = auditor.open("/audit/entries/99999999")
    expect(page.get_by_role("heading", level=1)).to_be_visible()
    expect(page.locator("main")).to_contain_text("log.not_found")


def test_looking_behind_a_pseudonym_needs_a_reason_and_leaves_a_trace(site: Site, auditor: Visitor, look: Look) -> None:
    page = auditor.open(f"/audit/entries/{decision(site, allowed=True)}")
    name = site.service.gate.pseudonym("client", RESEARCHER)
    page.get_by_role("button", name=f"Look behind: {name}").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("This is logged under your name")
    look("audit-reveal", auditor, with_phone=False)
    size = site.service.log.size
    dialog.get_by_role("button", name="Log my reason").click()  # the browser asks for the reason first
    assert "audit.reveal" not in site.kinds_since(size)
    dialog.get_by_label("Reason").fill("Complaint 2026/114 about renders at night")
    dialog.get_by_role("button", name="Log my reason").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Who is behind it")
    expect(page.get_by_text("Speech lab")).to_be_visible()
    assert site.kinds_since(size).count("audit.reveal") == 1
    assert RESEARCHER not in page.url
    # nobody on record: said, and logged too
    page = auditor.open(f"/audit/entries/{decision(site, allowed=True)}")
    other = next(
        each.get_attribute("aria-label") or ""
        for each in page.get_by_role("button", name="Look behind: subject:").all()
    )
    page.get_by_role("button", name=other).click()
    page.get_by_role("dialog").get_by_label("Reason").fill("Complaint 2026/115, the same again")
    page.get_by_role("dialog").get_by_role("button", name="Log my reason").click()
    expect(page.locator("main")).to_contain_text("on record")
    assert site.kinds_since(size).count("audit.reveal") == 2
    with site.service.database.read() as session:
        assert session.query(Use).count() == 0, "only people see looks behind their own pseudonym"


def test_what_changed_between_two_policies(auditor: Visitor, look: Look) -> None:
    page = auditor.open("/audit/policies")
    assert page.locator("table.list tbody tr").count() == 2
    page.get_by_role("button", name="Compare").click()
    page.wait_for_url("**old=**")
    expect(page.get_by_text("house.night").first).to_be_visible()
    assert page.locator(".diff .del").count() > 3 and page.locator(".diff .add").count() == 0
    look("audit-policies", auditor)
    page.locator("table.list tbody a").first.click()
    expect(page.locator("pre").first).to_contain_text("@says(")


def test_alarms_and_a_checkpoint_of_another_history(site: Site, auditor: Visitor, look: Look) -> None:
    cosigned(site)
    page = auditor.open("/audit/alarms")
    expect(page.get_by_role("heading", name="witness.example/w1")).to_be_visible()
    page.get_by_label("Checkpoint").fill(site.service.log.checkpoint())
    page.get_by_role("button", name="Compare with this log").click()
    expect(page.get_by_text("The same history")).to_be_visible()
    forged = sign_checkpoint(site.service.log.origin, 40, bytes(32), site.service.keys.log_key)
    page.get_by_label("Checkpoint").fill(forged)
    page.get_by_role("button", name="Compare with this log").click()
    expect(page.get_by_text("Another history", exact=True)).to_be_visible()
    cosigned(site)
    page = auditor.open("/audit/alarms")
    expect(page.get_by_text("Two histories")).to_be_visible()
    look("audit-alarms", auditor)
    page = auditor.open("/audit")
    expect(page.get_by_role("alert")).to_contain_text("Two histories")


def test_the_export_is_checked_elsewhere(site: Site, auditor: Visitor, look: Look, tmp_path: Path) -> None:
    page = auditor.open("/audit/export")
    look("audit-export", auditor, with_dark=False)
    cosigned(site)
    with page.expect_download() as downloading:
        page.get_by_role("link", name="Download").click()
    bundle = tmp_path / "bundle.tar"
    downloading.value.save_as(bundle)
    witnesses = site.service.witnessing.keys
    report = verify_bundle(bundle, site.service.keys.log_publics, witnesses=witnesses)
    assert report.is_clean and report.cosigned_by == ("witness.example/w1",)


def test_german_and_without_a_script(site: Site, visitors: MakeVisitor) -> None:
    visitor = visitors(locale="de-DE")
    visitor.sign_in_as_staff("auditor", "Robin Beispiel")
    page = visitor.open(f"/audit/entries/{decision(site, allowed=False)}")
    expect(page.get_by_role("heading", name="Warum es abgelehnt wurde")).to_be_visible()
    state = visitor.context.storage_state()
    plain = visitors(java_script_enabled=False, storage_state=state)
    page = plain.open("/audit?decision=refused")
    assert page.locator("table.entries tbody tr").count() > 3


def test_nobody_else_gets_in(visitor: Visitor, site: Site) -> None:
    page = visitor.open("/audit")
    page.wait_for_url("**/sign-in?*")
    page = visitor.open("/audit/entries/1")
    page.wait_for_url("**/sign-in?*")
    assert "/audit/export" not in page.content()
