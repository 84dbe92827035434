"""The gate over HTTP: who is let through, who is not and why, and that every answer has its entry in the log."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from api.client import Credentials, Enrolled, PlacetClient, ProblemError
from api.engine.renders import RenderJob, Submission
from api.errors import RefusedError, RemoteError
from generator.personas import list_personas
from policy.canonical import sha256_hex
from policy.consent import PURPOSE_EDUCATION, PURPOSE_EVALUATION, PURPOSE_RESEARCH, ConsentStatement, sign_statement
from policy.decision import ACTION_EVALUATE, PolicyEngine, replay
from policy.evidence import LogEvidence, verify_evidence
from policy.identity import SCOPE_OPERATOR_ADMIN, SCOPE_RENDER_CREATE, SCOPE_SUBJECT_SELF, Actor
from tests.api.conftest import Running, make_wav, vetted
from tests.faces import another_face


def refused(server: Running, client: PlacetClient, **request: Any) -> ProblemError:
    """Ask for a render that must be refused; the decision must be in the log and come out again when replayed."""
    size = server.service.log.size
    with pytest.raises(ProblemError) as caught:
        client.render(**request)
    problem = caught.value
    assert (problem.status, problem.code) == (403, "render.refused"), problem.problem
    assert problem.log_index is not None and problem.log_index >= size
    entry = server.service.log.entry(problem.log_index)
    assert entry["kind"] == "decision" and entry["body"]["allowed"] is False
    assert entry["body"]["reasons"] == list(problem.reasons)
    assert replay(entry, PolicyEngine.load()).codes == problem.reasons
    return problem


@pytest.fixture(scope="module")
def portrait() -> bytes:
    """A face that is nobody's in the other tests: what they consent to and revoke does not count here."""
    return another_face(list_personas()[0].portrait(), 21)


@pytest.fixture(scope="module")
def subject(server: Running, portrait: bytes) -> Iterator[tuple[PlacetClient, Enrolled]]:
    """That face, enrolled."""
    with PlacetClient(server.url) as client:
        yield client, client.enrol(portrait, subject_class="persona", rights_basis="made for a test")


@pytest.fixture(scope="module")
def request_for(subject: tuple[PlacetClient, Enrolled], speech: bytes) -> dict[str, Any]:
    """A request for the enrolled persona."""
    enrolled = subject[1]
    return {
        "subject_id": enrolled.subject_id,
        "portrait_sha256": enrolled.portrait_sha256,
        "speech": speech,
        "purpose": PURPOSE_RESEARCH,
    }


def consent_to(subject: PlacetClient, client: PlacetClient, org: str = "university", **terms: Any) -> dict[str, Any]:
    """A consent for one client."""
    assert client.credentials is not None
    terms = {"purposes": [PURPOSE_RESEARCH], **terms}
    return subject.consent(grantee_org=org, grantee_client=client.credentials.client_id, **terms)


def test_without_consent_there_is_no_render(
    server: Running, stranger: PlacetClient, request_for: dict[str, Any]
) -> None:
    assert refused(server, stranger, **request_for).reasons == ("consent.missing",)


def test_somebody_who_is_not_enrolled_cannot_be_shown(
    server: Running, stranger: PlacetClient, request_for: dict[str, Any], portrait: bytes
) -> None:
    unknown = {**request_for, "subject_id": "sub_nobody"}
    reasons = {"subject.unknown", "consent.missing", "face.of_another"}
    assert set(refused(server, stranger, **unknown).reasons) == reasons
    unknown = {**unknown, "portrait": portrait, "portrait_sha256": ""}
    reasons = {"subject.unknown", "consent.missing", "face.of_another"}
    assert set(refused(server, stranger, **unknown).reasons) == reasons


def test_all_reasons_come_at_once(
    server: Running,
    operator: PlacetClient,
    subject: tuple[PlacetClient, Enrolled],
    stranger: PlacetClient,
    request_for: dict[str, Any],
) -> None:
    granted = vetted(server, operator, "researcher")
    given = consent_to(subject[0], granted)
    mistaken = {**request_for, "purpose": PURPOSE_EDUCATION, "controls": {"seed": 1}}
    problem = refused(server, stranger, **mistaken)
    assert set(problem.reasons) == {
        "consent.grantee_org",
        "consent.grantee_client",
        "consent.purpose",
        "consent.controls",
    }
    assert all(len(reason["sentence"].split()) > 5 for reason in problem.problem["reasons"])
    subject[0].revoke(given["consent_id"])


def test_another_portrait_than_the_one_agreed_to_is_refused(
    server: Running,
    operator: PlacetClient,
    subject: tuple[PlacetClient, Enrolled],
    request_for: dict[str, Any],
    portrait: bytes,
) -> None:
    client = vetted(server, operator, "researcher")
    given = consent_to(subject[0], client)
    swapped = {**request_for, "portrait": another_face(list_personas()[0].portrait(), 22), "portrait_sha256": ""}
    assert refused(server, client, **swapped).reasons == ("consent.portrait",)
    subject[0].revoke(given["consent_id"])


def test_a_revoked_consent_refuses_from_then_on(
    server: Running,
    operator: PlacetClient,
    subject: tuple[PlacetClient, Enrolled],
    request_for: dict[str, Any],
) -> None:
    client = vetted(server, operator, "researcher")
    given = consent_to(subject[0], client)
    size = server.service.log.size
    revoked = subject[0].revoke(given["consent_id"])
    assert server.service.log.entry(revoked["log_index"])["kind"] == "consent.revoked"
    assert revoked["log_index"] >= size
    assert refused(server, client, **request_for).reasons == ("consent.revoked",)
    states = {each["consent_id"]: each["state"] for each in subject[0].consents()}
    assert states[given["consent_id"]] == "revoked"


def test_a_budget_and_a_term_are_limits(
    server: Running,
    operator: PlacetClient,
    subject: tuple[PlacetClient, Enrolled],
    request_for: dict[str, Any],
) -> None:
    client = vetted(server, operator, "researcher", budget_s_per_day=1.0)
    given = consent_to(subject[0], client)
    assert refused(server, client, **request_for).reasons == ("budget.exceeded",)
    subject[0].revoke(given["consent_id"])


def test_speech_beyond_the_limit_of_the_service_is_refused(
    server: Running, stranger: PlacetClient, request_for: dict[str, Any]
) -> None:
    long = {**request_for, "speech": make_wav(31.0)}
    assert "duration.limit" in refused(server, stranger, **long).reasons


@pytest.mark.parametrize("attested", ["", "adult"])
def test_the_operator_must_say_what_is_evaluated(attested: str, server: Running, speech: bytes) -> None:
    operator = Credentials.load(server.settings.operator_key_path)
    actor = Actor(operator.client_id, "local-operator", frozenset({SCOPE_OPERATOR_ADMIN}))
    submission = Submission(
        subject_id=None,
        portrait=b"png",
        portrait_sha256="0" * 64,
        speech=speech,
        speech_s=1.6,
        purpose=PURPOSE_EVALUATION,
        controls={},
        action=ACTION_EVALUATE,
        attested_class=attested,
    )
    with pytest.raises(RefusedError) as caught:
        server.service.renders.decide(actor, submission)
    assert [reason["code"] for reason in caught.value.extras["reasons"]] == ["attestation.missing"]


# -- statements


def test_a_consent_must_be_signed_by_the_subject(
    server: Running, subject: tuple[PlacetClient, Enrolled], researcher: PlacetClient
) -> None:
    client, enrolled = subject
    now = int(time.time())
    statement = ConsentStatement(
        subject_id=enrolled.subject_id,
        grantee_org="university",
        grantee_client="res_x",
        purposes=(PURPOSE_RESEARCH,),
        portraits=(enrolled.portrait_sha256,),
        controls=(),
        not_before=now,
        expires_at=now + 3600,
        max_uses=1,
        epoch=client.profile()["epoch"],
        text_version="2026-11",
        language="en",
    )
    assert researcher.credentials is not None
    body = {"statement": sign_statement(statement, researcher.credentials.key)}
    with pytest.raises(ProblemError) as caught:
        client._json("POST", "/v1/consents", SCOPE_SUBJECT_SELF, json=body)
    assert (caught.value.status, caught.value.code) == (403, "statement.signature")
    # somebody else's token does not reach the endpoint at all
    with pytest.raises(ProblemError) as caught:
        researcher._json("POST", "/v1/consents", SCOPE_RENDER_CREATE, json=body)
    assert (caught.value.status, caught.value.code) == (401, "token.aud")


def test_the_same_statement_is_taken_once_and_of_another_epoch_never(
    subject: tuple[PlacetClient, Enrolled], researcher: PlacetClient
) -> None:
    client, enrolled = subject
    assert client.credentials is not None and researcher.credentials is not None
    now = int(time.time())

    def statement(epoch: int) -> dict[str, str]:
        signed = ConsentStatement(
            subject_id=enrolled.subject_id,
            grantee_org="university",
            grantee_client="res_nobody",
            purposes=(PURPOSE_RESEARCH,),
            portraits=(enrolled.portrait_sha256,),
            controls=(),
            not_before=now,
            expires_at=now + 3600,
            max_uses=1,
            epoch=epoch,
            text_version="2026-11",
            language="en",
        )
        return {"statement": sign_statement(signed, client.credentials.key)}  # type: ignore[union-attr]

    epoch = client.profile()["epoch"]
    with pytest.raises(ProblemError) as caught:
        client._json("POST", "/v1/consents", SCOPE_SUBJECT_SELF, json=statement(epoch + 1))
    assert (caught.value.status, caught.value.code) == (409, "consent.epoch")
    body = statement(epoch)
    given = client._json("POST", "/v1/consents", SCOPE_SUBJECT_SELF, json=body)
    with pytest.raises(ProblemError) as caught:
        client._json("POST", "/v1/consents", SCOPE_SUBJECT_SELF, json=body)
    assert (caught.value.status, caught.value.code) == (409, "conflict")
    client.revoke(given["consent_id"])


def test_an_enrolment_challenge_is_good_once_and_minors_are_refused(server: Running, portrait: bytes) -> None:
    size = server.service.log.size
    with PlacetClient(server.url) as client, pytest.raises(ProblemError) as caught:
        client.enrol(portrait, subject_class="persona", rights_basis="made for this project")
    assert (caught.value.status, caught.value.code) == (409, "conflict")  # somebody has enrolled it already
    with PlacetClient(server.url) as client, pytest.raises(Exception, match=r"[Mm]inor") as refusal:
        client.enrol(portrait, subject_class="minor")
    assert refusal.value.code == "enrolment.minor"  # type: ignore[attr-defined]
    assert "subject.enrolled" not in server.kinds_since(size)


# -- permits


def allowed_job(
    server: Running, client: PlacetClient, enrolled: Enrolled, portrait_png: bytes, speech_wav: bytes
) -> RenderJob:
    """A job that the gate has allowed, not handed to the worker yet."""
    assert client.credentials is not None
    actor = Actor(client.credentials.client_id, "university", frozenset({SCOPE_RENDER_CREATE}))
    return server.service.renders.decide(
        actor,
        Submission(
            subject_id=enrolled.subject_id,
            portrait=portrait_png,
            portrait_sha256=sha256_hex(portrait_png),
            speech=speech_wav,
            speech_s=1.6,
            purpose=PURPOSE_RESEARCH,
            controls={},
        ),
    )


@pytest.mark.parametrize("what", ["portrait", "speech", "controls"])
def test_the_worker_refuses_inputs_that_were_swapped_after_the_decision(
    what: str,
    server: Running,
    operator: PlacetClient,
    subject: tuple[PlacetClient, Enrolled],
    portrait: bytes,
    speech: bytes,
) -> None:
    service = server.service
    client = vetted(server, operator, "researcher")
    given = consent_to(subject[0], client, controls=("*",))
    png, _ = service.intake.portrait(portrait)
    wav, _ = service.intake.speech(speech)
    job = allowed_job(server, client, subject[1], png, wav)
    swapped = {"portrait": png, "speech": wav, "controls": dict(job.controls)}
    swapped[what] = {"portrait": png + b"\0", "speech": wav + b"\0\0", "controls": {"seed": 9}}[what]

    def authorise() -> tuple[str, dict[str, Any]]:
        permit = service.gate.permit(
            job.ruling,
            worker=service.worker.name,
            portrait_sha256=job.ruling.request.portrait_sha256,
            speech_sha256=job.ruling.request.speech_sha256,
            controls=job.controls,
            mark_id=job.mark_id,
        )
        return permit, job.ruling.evidence.to_json()

    dst = server.settings.staging_dir / "swapped.mp4"
    with pytest.raises(RemoteError) as caught:
        service.worker.render(authorise, **swapped, consent=job.consent, dst=dst)  # type: ignore[arg-type]
    assert caught.value.code == f"permit.{what}_mismatch"
    assert not dst.exists()
    subject[0].revoke(given["consent_id"])


def test_a_swapped_portrait_ends_the_render_with_a_log_entry(
    server: Running,
    operator: PlacetClient,
    subject: tuple[PlacetClient, Enrolled],
    portrait: bytes,
    speech: bytes,
) -> None:
    service = server.service
    client = vetted(server, operator, "researcher")
    given = consent_to(subject[0], client)
    png, _ = service.intake.portrait(portrait)
    wav, _ = service.intake.speech(speech)
    job = allowed_job(server, client, subject[1], png, wav)
    service.renders.run(replace(job, portrait=png + b"\0"))
    state = client.render_status(job.render_id)
    assert (state["status"], state["failure"]["code"]) == ("failed", "permit.portrait_mismatch")
    entry = service.log.entry(state["closing_index"])
    assert entry["kind"] == "render.failed" and entry["body"]["code"] == "permit.portrait_mismatch"
    with pytest.raises(ProblemError) as caught:
        client.video(job.render_id)
    assert caught.value.status == 404
    subject[0].revoke(given["consent_id"])


def test_every_use_is_listed_with_a_proof_that_verifies(
    server: Running, subject: tuple[PlacetClient, Enrolled], stranger: PlacetClient, request_for: dict[str, Any]
) -> None:
    index = refused(server, stranger, **request_for).log_index
    uses = subject[0].uses()
    assert uses[-1]["log_index"] == index and uses[-1]["kind"] == "decision.refused"
    assert uses[-1]["org"] == "elsewhere"
    for use in uses:
        evidence = LogEvidence.from_json(use["evidence"])
        verify_evidence(evidence, server.service.keys.log_public, origin=server.service.log.origin)
        assert evidence.index == use["log_index"]
