"""How organisations are let in, kept within terms, shut out; how often anybody may ask; what refusals cost the log."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from api.client import Credentials, Enrolled, PlacetClient, ProblemError
from api.errors import RateError
from api.limits import MAX_ADDRESSES, MAX_KEYS, RateLimiter, RejectionLog, network_of
from policy.consent import PURPOSE_RESEARCH, new_subject_key
from policy.identity import SCOPE_AUDIT_READ, SCOPE_RENDER_CREATE, SCOPE_RENDER_READ
from tests.api.conftest import Running, serving, vetted
from tests.api.test_gate import allowed_job, consent_to


def application(key: Any, **changes: Any) -> dict[str, Any]:
    return {
        "kind": "researcher",
        "name": "Speech lab",
        "org": "university",
        "contact": "lab@university.example",
        "project": "Do faces help hearing?",
        "ethics_reference": "2026-17",
        "scopes": [SCOPE_RENDER_CREATE, SCOPE_RENDER_READ],
        "jwks": Credentials("", key).public_jwks,
        "term_days": 90,
        "budget_s_per_day": 120,
    } | changes


def test_from_application_to_access(server: Running, operator: PlacetClient) -> None:
    key, size = new_subject_key(), server.service.log.size
    with PlacetClient(server.url) as applicant:
        made = applicant.apply(**application(key))
        assert (made["status"], made["client_id"]) == ("open", None)
        waiting = operator.applications("open")
        assert [each["contact"] for each in waiting if each["application_id"] == made["application_id"]]
        client = operator.approve(made["application_id"], budget_s_per_day=60, max_concurrent=1)
        assert (client["budget_s_per_day"], client["max_concurrent"]) == (60, 1)
        done = applicant.application(made["application_id"])
    assert (done["status"], done["client_id"]) == ("approved", client["client_id"])
    assert PlacetClient(server.url, Credentials(done["client_id"], key)).token(SCOPE_RENDER_READ)
    assert server.kinds_since(size) == ["application.received", "client.registered", "application.approved"]
    received = server.service.log.entry(made["log_index"])
    assert "lab@university.example" not in str(received) and "university" not in str(received)


def test_a_refusal_says_why_and_is_final(server: Running, operator: PlacetClient) -> None:
    with PlacetClient(server.url) as applicant:
        made = applicant.apply(**application(new_subject_key()))
        operator.refuse(made["application_id"], "No ethics approval for minors.")
        done = applicant.application(made["application_id"])
    assert (done["status"], done["reason"]) == ("refused", "No ethics approval for minors.")
    assert server.service.log.entry(done["closing_index"])["kind"] == "application.refused"
    for answer in (operator.approve, operator.refuse):
        with pytest.raises(ProblemError) as twice:
            answer(made["application_id"])
        assert twice.value.status == 409


BAD_APPLICATIONS: dict[str, tuple[dict[str, Any], int]] = {
    "wants to be an operator": ({"kind": "operator", "scopes": ["operator:admin"]}, 400),
    "wants more than its kind may": ({"scopes": [SCOPE_AUDIT_READ]}, 400),
    "wants nothing": ({"scopes": []}, 400),
    "wants it for ever": ({"term_days": 100_000}, 400),
    "sends no key": ({"jwks": {}}, 400),
    "sends a private key": ({"jwks": {"keys": [new_subject_key()]}}, 400),
    "sends a novel": ({"project": "x" * 2001}, 400),
    "has a homoglyph in its name": ({"org": "univеrsity"}, 422),
    "says more than it is asked": ({"is_operator": True}, 400),
}


@pytest.mark.parametrize("name", BAD_APPLICATIONS)
def test_a_bad_application_is_refused(name: str, server: Running) -> None:
    changes, status = BAD_APPLICATIONS[name]
    with PlacetClient(server.url) as applicant, pytest.raises(ProblemError) as refused:
        applicant.apply(**application(new_subject_key(), **changes))
    assert refused.value.status == status, refused.value.problem


def test_terms_can_change_and_suspension_is_immediate(server: Running, operator: PlacetClient) -> None:
    client = vetted(server, operator, "auditor")
    assert client.credentials is not None
    name, size = client.credentials.client_id, server.service.log.size
    assert client.entries(0, 1)
    assert operator.suspend_client(name, "under review")["status_reason"] == "under review"
    with pytest.raises(ProblemError) as refused:
        client.entries(0, 1)
    assert refused.value.code == "token.client"
    assert operator.resume_client(name)["status"] == "approved"
    assert client.entries(0, 1)
    assert operator.amend_client(name, term_expires_at="2020-01-01T00:00:00Z")["term_expires_at"].startswith("2020")
    with pytest.raises(ProblemError) as refused:
        client.entries(0, 1)
    assert refused.value.code == "token.client"
    kinds = [kind for kind in server.kinds_since(size) if kind.startswith("client.")]
    assert kinds == ["client.suspended", "client.resumed", "client.amended"]
    assert "under review" not in str(server.service.log.entries(size, 100))


@pytest.mark.parametrize(
    ("terms", "reason"), [({"budget_s_per_day": 1}, "budget.exceeded"), ({"max_concurrent": 0}, "streams.exceeded")]
)
def test_budgets_are_enforced_with_a_named_reason(
    terms: dict[str, float],
    reason: str,
    server: Running,
    operator: PlacetClient,
    subject: tuple[PlacetClient, Enrolled],
    speech: bytes,
) -> None:
    client = vetted(server, operator, "researcher")
    assert client.credentials is not None
    name = client.credentials.client_id
    subject[0].consent(grantee_org="university", grantee_client=name, purposes=[PURPOSE_RESEARCH])
    operator.amend_client(name, **terms)
    with pytest.raises(ProblemError) as refused:
        client.render(
            subject_id=subject[1].subject_id,
            portrait_sha256=subject[1].portrait_sha256,
            speech=speech,
            purpose=PURPOSE_RESEARCH,
        )
    assert refused.value.status == 403 and reason in refused.value.reasons, refused.value.problem


def test_suspension_stops_what_is_under_way(
    server: Running,
    operator: PlacetClient,
    subject: tuple[PlacetClient, Enrolled],
    portrait: bytes,
    speech: bytes,
) -> None:
    service, client = server.service, vetted(server, operator, "researcher")
    given = consent_to(subject[0], client)
    png, _ = service.intake.portrait(portrait)
    wav, _ = service.intake.speech(speech)
    job = allowed_job(server, client, subject[1], png, wav)
    assert client.credentials is not None
    operator.suspend_client(client.credentials.client_id)
    service.renders.run(job)
    operator.resume_client(client.credentials.client_id)
    state = client.render_status(job.render_id)
    assert (state["status"], state["failure"]["code"]) == ("refused", "render.client_suspended")
    assert server.service.log.entry(state["closing_index"])["kind"] == "render.refused"
    subject[0].revoke(given["consent_id"])


def test_an_operator_cannot_vet_subjects(
    server: Running, operator: PlacetClient, subject: tuple[PlacetClient, Enrolled]
) -> None:
    for act in (operator.suspend_client, operator.resume_client, operator.amend_client):
        with pytest.raises(ProblemError) as refused:
            act(subject[1].subject_id)
        assert refused.value.status == 404


# -- limits


def test_a_bucket_empties_and_fills() -> None:
    clock = [0.0]
    limiter = RateLimiter({"asks": 6}, lambda: clock[0])
    for _ in range(6):
        limiter.take("asks", "a")
    with pytest.raises(RateError) as refused:
        limiter.take("asks", "a")
    assert refused.value.headers["Retry-After"] == "10"
    limiter.take("asks", "b")
    limiter.take("something else", "a")
    clock[0] += 10
    limiter.take("asks", "a")
    with pytest.raises(RateError):
        limiter.take("asks", "a")


def test_the_limiter_remembers_a_bounded_number() -> None:
    limiter = RateLimiter({"asks": 1}, lambda: 0.0)
    for number in range(MAX_KEYS + 100):
        limiter.take("asks", str(number))
    assert len(limiter._buckets) == MAX_KEYS


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3::4", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::", "2001:db8:1:2::/64"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("fe80::1%eth0", "fe80::/64"),
        ("testclient", ""),
        ("", ""),
    ],
)
def test_one_caller_is_one_network(address: str, network: str) -> None:
    assert network_of(address) == network


class Entries:
    """What a rejection log wrote."""

    def __init__(self) -> None:
        self.entries: list[tuple[str, dict[str, Any]]] = []

    def __call__(self, kind: str, body: dict[str, Any]) -> int:
        self.entries.append((kind, body))
        return len(self.entries) - 1


def test_a_stranger_fills_a_minute_with_a_few_entries() -> None:
    written, clock = Entries(), [0.0]
    log = RejectionLog(written, kind="token.rejected", num_single=5, num_single_total=8, clock=lambda: clock[0])

    def note(address: str, code: str = "token.malformed") -> int | None:
        return log.note(code, client=None, endpoint="/v1/audit", address=address)

    indices = [note("a", "token.expired" if number % 2 else "token.malformed") for number in range(1000)]
    assert indices == [0, 1, 2, 3, 4] + [None] * 995
    clock[0] += 60
    assert note("b") == 6, "first the counted ones, then the new one"
    kind, body = written.entries[5]
    assert (kind, body["num"]) == ("token.rejected.counted", 995)
    assert {each["code"]: each["num"] for each in body["codes"]} == {"token.expired": 498, "token.malformed": 497}
    log.close()


def test_many_addresses_are_no_way_around_it() -> None:
    written = Entries()
    log = RejectionLog(written, kind="token.rejected", num_single=5, num_single_total=8, clock=lambda: 0.0)
    for number in range(3 * MAX_ADDRESSES):
        log.note("token.malformed", client=None, endpoint="/v1/audit", address=str(number))
    assert len(written.entries) == 8 and len(log._windows) <= MAX_ADDRESSES + 1
    log.close()
    assert sum(body["num"] for kind, body in written.entries[8:]) == 3 * MAX_ADDRESSES - 8


def test_limits_over_http(tmp_path: Path) -> None:
    limits = {"applications_per_minute": 3, "enrolments_per_minute": 2, "token_requests_per_minute": 4}
    with serving(tmp_path / "home", **limits, rejections_logged_per_minute=2) as server:
        for path, limit in (("/v1/applications", 3), ("/v1/subjects/challenges", 2), ("/oauth/token", 4)):
            kind: dict[str, Any] = {"data": {"grant_type": "x"}} if path == "/oauth/token" else {"json": {}}
            answers = [httpx.post(server.url + path, **kind) for _ in range(limit + 1)]
            assert [answer.status_code == 429 for answer in answers] == [False] * limit + [True], path
            assert answers[-1].json()["code"] == "rate.limited" and int(answers[-1].headers["retry-after"]) >= 1
        size = server.service.log.size
        refused = [httpx.get(f"{server.url}/v1/audit/entries") for _ in range(30)]
        assert {answer.status_code for answer in refused} == {401}
        assert server.service.log.size == size, "its two entries went to the token endpoint"
        assert refused[-1].json()["log_index"] is None
        log = server.service.log
    counted = [entry["body"] for entry in log.entries(0, 100) if entry["kind"] == "token.rejected.counted"]
    assert [body["num"] for body in counted] == [32], "written when the service stops at the latest"
