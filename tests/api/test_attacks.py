"""The attack table, against a running server: what must happen happens, and each attempt leaves its entry in the log.

    row                                                       here                      elsewhere (see ELSEWHERE)
    tokens: missing, expired, alg=none, confused, replayed …  STOLEN_OR_FORGED          test_dpop, test_issuers
    scope escalation, other grantee or purpose, deputy        OVERREACHING
    portrait or audio swapped after the decision              PERMITS                   test_gate
    revocation during a live session                                                    live sessions, chunked delivery
    permit reused, expired, forged, for another worker        PERMITS                   tests/policy/test_permit
    bombs, malformed or huge media, wrong types, zero bytes   test_attacks_media        test_bad_input, test_engine
    SSRF, path traversal, header and log injection            test_attacks_media
    log rewritten, truncated, forked                                                    fsck, witness, outside verifier
    kill -9, disk full, log, witness or TSA down              test_attacks_media        crash tests
    clock moved                                                                         permits, alarms

Each attack is one line of a table; a new one is one more line.
"""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from joserfc.jwk import ECKey, OctKey
from sqlalchemy import select

from api.oauth.jwts import base64url
from api.storage.models import Render
from policy.consent import PURPOSE_EDUCATION
from policy.identity import SCOPE_AUDIT_READ, SCOPE_DETECT_CREATE, SCOPE_RENDER_READ
from policy.permit import PermitLedger, issue_permit, read_permit
from tests.api.arena import Act, Arena, Row, check
from tests.api.conftest import altered, vetted
from tests.api.test_gate import allowed_job, consent_to
from tests.api.test_oauth import _unsigned as unsigned
from tests.api.test_oauth import ask, assertion, forged


@pytest.fixture(autouse=True)
def _nothing_is_delivered_and_the_service_stays_up(arena: Arena) -> Iterator[None]:
    before = arena.num_delivered
    yield
    assert arena.num_delivered == before
    assert arena.get("/healthz").status_code == 200


# -- tokens: 401 and an entry

ROGUE = ECKey.generate_key("P-256")


def published_key_as_secret(arena: Arena) -> str:
    public = json.dumps(arena.server.service.oauth.jwks()["keys"][0]).encode()
    return forged(arena.server, {}, {"alg": "HS256"}, OctKey.import_key(public))


def replayed_assertion(arena: Arena) -> httpx.Response:
    once = assertion(arena.auditor)
    assert ask(arena.server, arena.auditor, SCOPE_AUDIT_READ, client_assertion=once).status_code == 200
    return ask(arena.server, arena.auditor, SCOPE_AUDIT_READ, client_assertion=once)


def replayed_proof(arena: Arena) -> httpx.Response:
    token = arena.token()
    proof = arena.proof(token)
    assert arena.dpop(token, proof).status_code == 404
    return arena.dpop(token, proof)


OTHER_WORKER = """
import sys, time
from pathlib import Path
from api.oauth.dpop import ProofBook
from api.storage.database import Database
from api.storage.spent import SpentIds
path, proof, url, token = sys.argv[1:]
database = Database.open(path if "://" in path else Path(path))
book = ProofBook(SpentIds(database, time.time), time.time, lifetime_s=60, leeway_s=5)
book.accept((proof,), method="GET", url=url, access_token=token)
"""


def replayed_proof_across_workers(arena: Arena) -> httpx.Response:
    """Another process on the same store accepts the proof first."""
    token = arena.token()
    proof = arena.proof(token)
    database = str(arena.server.settings.addresses.database)  # a file, or a URL
    command = [sys.executable, "-c", OTHER_WORKER, database, proof, f"{arena.url}/v1/renders/ren_0", token]
    subprocess.run(command, check=True, timeout=120)
    return arena.dpop(token, proof)


def second_use_of_a_withdrawn_token(arena: Arena) -> httpx.Response:
    token = ask(arena.server, arena.auditor, SCOPE_AUDIT_READ).json()["access_token"]
    kind = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
    form = {"token": token, "client_assertion_type": kind, "client_assertion": assertion(arena.auditor)}
    assert httpx.post(f"{arena.url}/oauth/revoke", data=form).status_code == 200
    return arena.bearer(token)


def token_of_somebody_suspended(arena: Arena) -> httpx.Response:
    client = vetted(arena.server, arena.operator, "auditor")
    assert client.credentials is not None
    token = client.token(SCOPE_AUDIT_READ)
    arena.operator.suspend_client(client.credentials.client_id)
    return arena.bearer(token)


def in_an_hour() -> int:
    return int(time.time()) + 3600


def flipped(text: str) -> str:
    middle = text.rindex(".") + 10
    return text[:middle] + ("A" if text[middle] != "A" else "B") + text[middle + 1 :]


STOLEN_OR_FORGED: dict[str, Row] = {
    "missing": (lambda a: a.get("/v1/audit/entries"), 401, "token.missing"),
    "of another scheme": (lambda a: a.get("/v1/audit/entries", Authorization="Basic eDp5"), 401, "token.scheme"),
    "garbage": (lambda a: a.bearer("garbage"), 401, "token.malformed"),
    "expired": (lambda a: a.bearer(forged(a.server, {"exp": 1}, {})), 401, "token.expired"),
    "expires never": (lambda a: a.bearer(forged(a.server, {"exp": None}, {})), 401, "token.expired"),
    "expires at NaN": (lambda a: a.bearer(forged(a.server, {"exp": float("nan")}, {})), 401, "token.expired"),
    "lives for a year": (
        lambda a: a.bearer(forged(a.server, {"exp": in_an_hour() * 2}, {})),
        401,
        "token.lifetime",
    ),
    "alg=none": (lambda a: a.bearer(unsigned(a.server, "none")), 401, "token.alg"),
    "alg=NONE": (lambda a: a.bearer(unsigned(a.server, "NONE")), 401, "token.alg"),
    "HS256 with the published key": (lambda a: a.bearer(published_key_as_secret(a)), 401, "token.alg"),
    "wrong aud": (lambda a: a.bearer(forged(a.server, {"aud": f"{a.url}/v1/renders"}, {})), 401, "token.aud"),
    "two audiences": (
        lambda a: a.bearer(forged(a.server, {"aud": [f"{a.url}/v1/audit", f"{a.url}/v1/renders"]}, {})),
        401,
        "token.aud",
    ),
    "wrong iss": (lambda a: a.bearer(forged(a.server, {"iss": "https://evil.example"}, {})), 401, "token.iss"),
    "wrong typ": (lambda a: a.bearer(forged(a.server, {}, {"typ": "JWT"})), 401, "token.typ"),
    "a client assertion as a token": (lambda a: a.bearer(assertion(a.auditor)), 401, "token.typ"),
    "rogue key": (lambda a: a.bearer(forged(a.server, {}, {}, ROGUE)), 401, "token.signature"),
    "rogue key with its jwk": (
        lambda a: a.bearer(forged(a.server, {}, {"jwk": ROGUE.as_dict(private=False)}, ROGUE)),
        401,
        "token.signature",
    ),
    "rogue key with its jku": (
        lambda a: a.bearer(forged(a.server, {}, {"jku": "https://evil.example/jwks"}, ROGUE)),
        401,
        "token.signature",
    ),
    "kid that is a path": (
        lambda a: a.bearer(forged(a.server, {}, {"kid": "../../../../dev/null"}, ROGUE)),
        401,
        "token.signature",
    ),
    "one character changed": (
        lambda a: a.bearer(flipped(a.auditor.token(SCOPE_AUDIT_READ))),
        401,
        "token.signature",
    ),
    "future iat": (
        lambda a: a.bearer(forged(a.server, {"iat": in_an_hour(), "exp": in_an_hour() + 60}, {})),
        401,
        "token.iat",
    ),
    "withdrawn": (second_use_of_a_withdrawn_token, 401, "token.withdrawn"),
    "of somebody suspended": (token_of_somebody_suspended, 401, "token.client"),
    "assertion replayed": (replayed_assertion, 401, "oauth.invalid_client"),
    "bound token without proof": (
        lambda a: a.get("/v1/renders/ren_0", Authorization=f"DPoP {a.token()}"),
        401,
        "token.proof_missing",
    ),
    "bound token as bearer": (
        lambda a: a.bearer(a.token(), "/v1/renders/ren_0"),
        401,
        "token.bound",
    ),
    "bound token with the proof of a thief": (
        lambda a: a.dpop(a.token(), a.proof(a.token(), by=a.stranger)),
        401,
        "token.proof_key",
    ),
    "proof for another address": (
        lambda a: a.dpop(a.token(), a.proof(a.token(), path="/x")),
        401,
        "token.proof_htu",
    ),
    "proof for no token": (lambda a: a.dpop(a.token(), a.proof()), 401, "token.proof_ath"),
    "proof replayed": (replayed_proof, 401, "token.proof_replayed"),
    "proof replayed across workers": (replayed_proof_across_workers, 401, "token.proof_replayed"),
    "render token that is bound to nothing": (
        lambda a: a.bearer(
            forged(
                a.server,
                {
                    "aud": f"{a.url}/v1/renders",
                    "scope": SCOPE_RENDER_READ,
                    "client_id": a.researcher.credentials.client_id,  # type: ignore[union-attr]
                    "sub": a.researcher.credentials.client_id,  # type: ignore[union-attr]
                },
                {},
            ),
            "/v1/renders/ren_0",
        ),
        401,
        "token.unbound",
    ),
}


@pytest.mark.parametrize("name", STOLEN_OR_FORGED)
def test_a_stolen_or_forged_token_opens_nothing(name: str, arena: Arena) -> None:
    problem = check(arena, STOLEN_OR_FORGED[name], "token.rejected")
    body = arena.server.service.log.entry(problem["log_index"])["body"]
    assert body["code"] == problem["code"] and body["address"].startswith("address:")
    assert "127.0.0.1" not in json.dumps(body) and "eyJ" not in json.dumps(body), "neither address nor token"


# -- rights: 403 with the named reasons


def with_consent(arena: Arena, ask_for: Act, **terms: Any) -> httpx.Response:
    """The researcher holds a consent; then they ask for more than it says."""
    given = consent_to(arena.subject, arena.researcher, **terms)
    try:
        return ask_for(arena)
    finally:
        arena.subject.revoke(given["consent_id"])


def after_revocation(arena: Arena) -> httpx.Response:
    arena.subject.revoke(consent_to(arena.subject, arena.researcher)["consent_id"])
    return arena.render()


REASONS: dict[str, tuple[Act, set[str]]] = {
    "nobody agreed": (lambda a: a.render(a.stranger), {"consent.missing"}),
    "a consent for somebody else": (
        lambda a: with_consent(a, lambda b: b.render(b.stranger)),
        {"consent.grantee_client", "consent.grantee_org"},
    ),
    "a colleague of the grantee": (
        lambda a: with_consent(a, lambda b: b.render(vetted(b.server, b.operator, "researcher"))),
        {"consent.grantee_client"},
    ),
    "another purpose": (
        lambda a: with_consent(a, lambda b: b.render(purpose=PURPOSE_EDUCATION)),
        {"consent.purpose"},
    ),
    "controls that were not allowed": (
        lambda a: with_consent(a, lambda b: b.render(controls='{"seed": 1}')),
        {"consent.controls"},
    ),
    "another portrait of them": (
        lambda a: with_consent(a, lambda b: b.render(portrait=altered(b.portrait, 77))),
        {"consent.portrait"},
    ),
    "revoked": (after_revocation, {"consent.revoked"}),
    "everything at once": (
        lambda a: with_consent(a, lambda b: b.render(b.stranger, purpose=PURPOSE_EDUCATION, controls='{"seed": 1}')),
        {"consent.grantee_client", "consent.grantee_org", "consent.purpose", "consent.controls"},
    ),
}


@pytest.mark.parametrize("name", REASONS)
def test_asking_for_more_than_was_agreed_to(name: str, arena: Arena) -> None:
    act, reasons = REASONS[name]
    problem = check(arena, (act, 403, "render.refused"), "decision")
    found = {reason["code"] for reason in problem["reasons"]}
    assert reasons <= found, found
    entry = arena.server.service.log.entry(problem["log_index"])
    assert entry["body"]["allowed"] is False and set(entry["body"]["reasons"]) == found


def token_with_more_scopes(arena: Arena) -> httpx.Response:
    return ask(arena.server, arena.researcher, f"{SCOPE_RENDER_READ} {SCOPE_AUDIT_READ}")


def confused_deputy(arena: Arena) -> httpx.Response:
    """A detection platform is made to present its own token where videos are made."""
    platform = vetted(arena.server, arena.operator, "platform")
    return arena.bearer(platform.token(SCOPE_DETECT_CREATE), "/v1/renders/ren_0")


OVERREACHING: dict[str, Row] = {
    "reads with it, so writes with it": (
        lambda a: httpx.post(f"{a.url}/v1/renders", auth=a.researcher.auth(SCOPE_RENDER_READ), files={"speech": b"x"}),
        403,
        "token.scope",
    ),
    "asks for a scope that it does not hold": (token_with_more_scopes, 400, "oauth.invalid_scope"),
    "confused deputy": (confused_deputy, 401, "token.aud"),
    "an operator's token at the gate": (
        lambda a: a.bearer(a.operator.token("operator:admin"), "/v1/renders/ren_0"),
        401,
        "token.aud",
    ),
}


@pytest.mark.parametrize("name", OVERREACHING)
def test_overreaching(name: str, arena: Arena) -> None:
    check(arena, OVERREACHING[name], "token.rejected")


def test_the_render_of_another_is_not_there(arena: Arena) -> None:
    """An identifier that was guessed or seen opens nothing: not even whether there is such a render."""
    with arena.server.service.database.read() as session:
        of_others = session.scalar(select(Render.render_id).limit(1)) or "ren_0"
    for path in (f"/v1/renders/{of_others}", f"/v1/renders/{of_others}/video", f"/v1/renders/{of_others}/manifest"):
        answer = httpx.get(arena.url + path, auth=arena.stranger.auth(SCOPE_RENDER_READ))
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


# -- permits: the worker verifies by itself

Forge = Callable[[Arena, str], str]


def rewritten(arena: Arena, permit: str, **changes: Any) -> str:
    """A permit with other fields, signed with the gateway's own key: what only a bug of ours could issue."""
    read = read_permit(permit, arena.server.service.keys.permit_public)
    return issue_permit(replace(read, **changes), arena.server.service.keys.permit_key)


def signed_by_somebody_else(permit: str) -> str:
    read = permit.split(".")
    return f"{read[0]}.{read[1]}.{base64url(Ed25519PrivateKey.generate().sign('.'.join(read[:2]).encode()))}"


def unsigned_permit(permit: str) -> str:
    header = base64url(json.dumps({"alg": "none", "typ": "placet-permit+jws"}).encode())
    return f"{header}.{permit.split('.')[1]}."


def spent_before(arena: Arena, permit: str) -> str:
    """Another worker process of the same name was faster."""
    ledger = PermitLedger(arena.server.service.instance.ledger_path)
    ledger.spend(read_permit(permit, arena.server.service.keys.permit_public), time.time())
    ledger.close()
    return permit


def now() -> int:
    return int(time.time())


PERMITS: dict[str, tuple[Forge, str]] = {
    "garbage": (lambda a, p: "garbage", "permit.malformed"),
    "alg=none": (lambda a, p: unsigned_permit(p), "permit.malformed"),
    "one character changed": (lambda a, p: flipped(p), "permit.signature"),
    "signed by somebody else": (lambda a, p: signed_by_somebody_else(p), "permit.signature"),
    "for another worker": (lambda a, p: rewritten(a, p, worker="worker-elsewhere"), "permit.worker"),
    "expired": (lambda a, p: rewritten(a, p, issued_at=now() - 61, expires_at=now() - 1), "permit.expired"),
    "from the future": (
        lambda a, p: rewritten(a, p, issued_at=now() + 60, expires_at=now() + 90),
        "permit.not_yet_valid",
    ),
    "for another portrait": (lambda a, p: rewritten(a, p, portrait_sha256="0" * 64), "permit.portrait_mismatch"),
    "for another speech": (lambda a, p: rewritten(a, p, speech_sha256="0" * 64), "permit.speech_mismatch"),
    "for other controls": (lambda a, p: rewritten(a, p, controls_sha256="0" * 64), "permit.controls_mismatch"),
    "used before": (spent_before, "permit.reused"),
}


@pytest.mark.parametrize("name", PERMITS)
def test_a_permit_in_wrong_hands_is_worth_nothing(name: str, arena: Arena, monkeypatch: pytest.MonkeyPatch) -> None:
    """The render ends as failed, by the name of what was wrong, with an entry in the log, and there is no video."""
    forge, code = PERMITS[name]
    service = arena.server.service
    client = vetted(arena.server, arena.operator, "researcher")
    given = consent_to(arena.subject, client)
    png, _ = service.intake.portrait(arena.portrait)
    wav, _ = service.intake.speech(arena.speech)
    job = allowed_job(arena.server, client, arena.enrolled, png, wav)
    issue = service.gate.permit
    monkeypatch.setattr(service.gate, "permit", lambda *args, **options: forge(arena, issue(*args, **options)))
    service.renders.run(job)
    arena.subject.revoke(given["consent_id"])
    state = client.render_status(job.render_id)
    entry = service.log.entry(state["closing_index"])
    assert (state["status"], state["failure"]["code"]) == ("failed", code)
    assert (entry["kind"], entry["body"]["code"]) == ("render.failed", code)
    video = httpx.get(f"{arena.url}/v1/renders/{job.render_id}/video", auth=client.auth(SCOPE_RENDER_READ))
    assert video.status_code == 404


# -- rows whose tests live with what they attack

ELSEWHERE: dict[str, tuple[str, ...]] = {
    "swapped between decision and render": (
        "tests.api.test_gate:test_the_worker_refuses_inputs_that_were_swapped_after_the_decision",
        "tests.api.test_gate:test_a_swapped_portrait_ends_the_render_with_a_log_entry",
    ),
    "revocation while a video is made": (
        "tests.api.test_renders:test_a_revocation_while_the_video_is_being_made_stops_its_delivery",
        "tests.api.test_renders:test_after_the_revocation_the_video_is_withheld_and_nothing_new_is_made",
    ),
    "permits": (
        "tests.policy.test_permit:test_a_permit_is_redeemed_once",
        "tests.policy.test_permit:test_a_race_has_one_winner",
        "tests.policy.test_permit:test_every_flipped_bit_is_refused",
    ),
    "process limits": ("tests.api.test_engine:test_decoding_may_take_so_much_memory_and_time_and_no_more",),
    "log rewritten, truncated, forked": (
        "tests.policy.test_fsck:test_every_flipped_byte_is_named",
        "tests.policy.test_fsck:test_missing_truncated_and_extended_files",
        "tests.policy.test_fsck:test_history_rewritten_without_the_key",
        "tests.policy.test_fsck:test_a_forked_log",
        "tests.policy.test_witness:test_what_is_refused_and_why",
        "tests.policy.test_outside_verifier:test_go_refuses_what_was_changed",
    ),
    "kill -9": (
        "tests.api.test_crash:test_after_kill_9_nothing_is_lost_and_nothing_is_left",
        "tests.api.test_crash_under_load:test_kill_dash_nine_under_load",
        "tests.policy.test_log_crash:test_kill_dash_nine",
        "tests.policy.test_log_crash:test_a_crash_at_every_step",
    ),
    "disk full": (
        "tests.policy.test_log:test_a_full_disk_costs_only_what_was_refused",
        "tests.policy.test_witness:test_a_full_disk_gives_no_cosignature",
    ),
    "witness down": ("tests.api.test_witnessing:test_a_service_that_requires_its_witness",),
    "TSA down": (
        "tests.watermark.test_tsa:test_a_silent_authority_delivers_nothing",
        "tests.watermark.test_tsa:test_an_authority_that_answers_nonsense_delivers_nothing",
    ),
    "clock moved": (
        "tests.policy.test_permit:test_a_clock_set_back_brings_nothing_to_life",
        "tests.api.test_audit_desk:test_a_clock_that_was_moved_raises_alarms_and_moves_no_epoch",
        "tests.api.test_consents:test_a_clock_that_is_ten_minutes_off",
    ),
}


@pytest.mark.parametrize("row", ELSEWHERE)
def test_the_rest_of_the_table_is_where_it_says(row: str) -> None:
    for place in ELSEWHERE[row]:
        module, _, name = place.partition(":")
        assert callable(getattr(importlib.import_module(module), name)), place
