"""Subjects and what they sign: enrolment against its attacks, and the two ways to take consent back."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from api.client import Enrolled, PlacetClient, ProblemError
from policy.consent import (
    PURPOSE_RESEARCH,
    EnrolmentStatement,
    key_thumbprint,
    new_nonce,
    new_subject_key,
    public_jwk,
    sign_statement,
)
from policy.identity import SCOPE_SUBJECT_SELF
from tests.api.conftest import Running, altered
from tests.api.test_bad_input import check_problem


def enrol(
    server: Running, portrait: bytes, *, sign_with: dict[str, Any] | None = None, jwk: Any = None, **changes: Any
) -> httpx.Response:
    """An enrolment by hand, with changes to what is signed."""
    challenge = httpx.post(f"{server.url}/v1/subjects/challenges").json()
    key = new_subject_key()
    fields = {
        "subject_id": challenge["subject_id"],
        "subject_class": "persona",
        "portraits": ("0" * 64,),
        "nonce": challenge["nonce"],
        "key_thumbprint": key_thumbprint(key),
        "adult_attested": False,
        "rights_basis": "made for a test",
        "issued_at": int(time.time()),
        "text_version": "2026-11",
        "language": "en",
    } | changes
    form = {
        "enrolment": sign_statement(EnrolmentStatement(**fields), sign_with or key),
        "public_jwk": json.dumps(public_jwk(key) if jwk is None else jwk(key)),
    }
    return httpx.post(f"{server.url}/v1/subjects", data=form, files={"portrait": ("p", portrait)}, timeout=120)


ATTACKS: dict[str, tuple[Callable[[], dict[str, Any]], int, str]] = {
    "signed by another key": (lambda: {"sign_with": new_subject_key()}, 403, "statement.signature"),
    "a challenge that was never given": (lambda: {"nonce": new_nonce()}, 409, "enrolment.challenge"),
    "a pseudonym of one's own choice": (lambda: {"subject_id": "sub_mine"}, 409, "enrolment.challenge"),
    "signed long ago": (lambda: {"issued_at": int(time.time()) - 86_400}, 422, "statement.time"),
    "for another key": (lambda: {"key_thumbprint": key_thumbprint(new_subject_key())}, 422, "statement.malformed"),
    "for another portrait": (lambda: {}, 400, "request.field_invalid"),
    "with the private key": (lambda: {"jwk": lambda key: key}, 422, "statement.key"),
    "with a symmetric key": (lambda: {"jwk": lambda key: {"kty": "oct", "k": "AAAA"}}, 422, "statement.key"),
    "with a list as key": (lambda: {"jwk": lambda key: [1]}, 400, "request.field_invalid"),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_an_enrolment_is_refused(name: str, server: Running, portrait: bytes) -> None:
    make, status, code = ATTACKS[name]
    size = server.service.log.size
    check_problem(enrol(server, portrait, **make()), status, code)
    kinds = server.kinds_since(size)
    assert "subject.enrolled" not in kinds
    if code.startswith(("statement.signature", "statement.time")):
        assert "enrolment.refused" in kinds


def test_a_challenge_is_used_up_by_a_failed_attempt(server: Running, portrait: bytes) -> None:
    challenge = httpx.post(f"{server.url}/v1/subjects/challenges").json()
    same = {"nonce": challenge["nonce"], "subject_id": challenge["subject_id"]}
    check_problem(enrol(server, portrait, sign_with=new_subject_key(), **same), 403, "statement.signature")
    check_problem(enrol(server, portrait, **same), 409, "enrolment.challenge")


def test_a_subject_sees_what_is_kept(server: Running, subject: tuple[PlacetClient, Enrolled]) -> None:
    client, enrolled = subject
    profile = client.profile()
    assert profile["subject_id"] == enrolled.subject_id and profile["subject_class"] == "persona"
    assert [each["portrait_sha256"] for each in profile["portraits"]] == [enrolled.portrait_sha256]
    assert enrolled.summary["sha256"] == enrolled.portrait_sha256
    entry = server.service.log.entry(enrolled.log_index)
    assert entry["kind"] == "subject.enrolled"
    assert enrolled.subject_id not in json.dumps(entry) and enrolled.portrait_sha256 not in json.dumps(entry)


def test_the_portrait_at_rest_is_sealed(server: Running, subject: tuple[PlacetClient, Enrolled]) -> None:
    stored = [server.service.blobs.get(name) for name in server.service.blobs.names()]
    assert stored and not any(b"\x89PNG" in data[:64] for data in stored)
    _, portraits = server.service.enrolment.find(subject[1].subject_id)
    assert server.service.enrolment.open_portrait(portraits[0]).startswith(b"\x89PNG")


def test_everything_can_be_taken_back_at_once(server: Running, portrait: bytes) -> None:
    client = PlacetClient(server.url)
    client.enrol(altered(portrait, 77), subject_class="persona", rights_basis="made for a test")
    terms: dict[str, Any] = {"grantee_org": "university", "purposes": [PURPOSE_RESEARCH]}
    given = [client.consent(grantee_client=f"res_{number}", **terms) for number in range(2)]
    epoch = client.profile()["epoch"]
    revoked = client.revoke(given[0]["consent_id"], everything=True)
    assert revoked["epoch"] == client.profile()["epoch"] == epoch + 1
    states = {each["consent_id"]: each["state"] for each in client.consents()}
    assert all(states[each["consent_id"]] == "revoked" for each in given)
    # a new consent speaks of the new epoch, and is live
    assert client.consent(grantee_client="res_new", **terms)["state"] == "live"


def test_one_subject_cannot_see_or_revoke_for_another(
    server: Running, subject: tuple[PlacetClient, Enrolled], researcher: PlacetClient
) -> None:
    with pytest.raises(ProblemError) as caught:
        subject[0]._json("GET", "/v1/consents/con_unknown", SCOPE_SUBJECT_SELF)
    assert caught.value.status == 404
    with pytest.raises(ProblemError) as caught:
        researcher.profile()
    assert caught.value.code == "oauth.invalid_scope"
