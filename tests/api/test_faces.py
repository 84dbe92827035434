"""Protected faces over HTTP: a face is enrolled once and by nobody else, and is animated under no other name."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import pytest

from api.client import Credentials, Enrolled, PlacetClient, ProblemError
from api.engine.renders import Submission
from api.errors import RefusedError
from policy.canonical import sha256_hex
from policy.consent import PURPOSE_EVALUATION, PURPOSE_RESEARCH
from policy.decision import ACTION_EVALUATE
from policy.identity import SCOPE_OPERATOR_ADMIN, Actor
from tests.api.conftest import Running
from tests.api.test_gate import consent_to, refused
from tests.faces import another_face, same_face


@pytest.fixture(scope="module")
def nora(server: Running, portrait: bytes) -> Iterator[tuple[PlacetClient, Enrolled]]:
    """An adult with a face of her own."""
    with PlacetClient(server.url) as client:
        yield client, client.enrol(another_face(portrait, 11), subject_class="adult", adult_attested=True)


@pytest.mark.parametrize("subject_class", ["adult", "persona"])
def test_nobody_else_enrols_a_protected_face(
    subject_class: str, server: Running, portrait: bytes, nora: tuple[PlacetClient, Enrolled]
) -> None:
    num_blobs, size = len(set(server.service.blobs.names())), server.service.log.size
    with PlacetClient(server.url) as thief, pytest.raises(ProblemError) as caught:
        thief.enrol(
            same_face(another_face(portrait, 11), 3), subject_class=subject_class, adult_attested=True,
            rights_basis="mine" if subject_class != "adult" else "",
        )  # fmt: skip
    assert (caught.value.status, caught.value.code) == (403, "enrolment.face_protected")
    entries = server.service.log.entries(size, 10)
    assert entries[-1]["kind"] == "enrolment.refused" and entries[-1]["index"] == caught.value.log_index
    assert len(set(server.service.blobs.names())) == num_blobs, "nothing of the refused picture is kept"


def test_a_face_is_animated_under_no_other_name(
    server: Running, researcher: PlacetClient, portrait: bytes, speech: bytes, nora: tuple[PlacetClient, Enrolled],
    subject: tuple[PlacetClient, Enrolled],
) -> None:  # fmt: skip
    """A request for the persona, with a picture of Nora."""
    problem = refused(
        server, researcher, subject_id=subject[1].subject_id, portrait=same_face(another_face(portrait, 11), 5),
        speech=speech, purpose=PURPOSE_RESEARCH,
    )  # fmt: skip
    assert "face.of_another" in problem.reasons
    facts = server.service.log.entry(problem.log_index or 0)["body"]["facts"]
    assert (facts["face_match"], facts["matches_other_subject"]) == ("differs", True)


def test_another_picture_of_the_same_person_is_recognised(
    server: Running, researcher: PlacetClient, portrait: bytes, speech: bytes, nora: tuple[PlacetClient, Enrolled]
) -> None:
    client, enrolled = nora
    consent = consent_to(client, researcher)
    request: dict[str, Any] = {"subject_id": enrolled.subject_id, "speech": speech, "purpose": PURPOSE_RESEARCH}
    other = refused(server, researcher, portrait=same_face(another_face(portrait, 11), 7), **request)
    assert other.reasons == ("consent.portrait",), "the face is hers, the picture is not the one that she agreed to"
    stranger = refused(server, researcher, portrait=another_face(portrait, 17), **request)
    assert set(stranger.reasons) == {"face.differs", "consent.portrait"}
    by_hash = refused(server, researcher, portrait_sha256="0" * 64, **request)
    assert set(by_hash.reasons) == {"face.unknown", "consent.portrait"}
    client.revoke(consent["consent_id"])


def test_an_evaluation_does_not_get_past_a_protected_face(
    server: Running, portrait: bytes, speech: bytes, nora: tuple[PlacetClient, Enrolled]
) -> None:
    service = server.service
    png, seen = service.intake.portrait(same_face(another_face(portrait, 11), 9))
    wav, speech_s = service.intake.speech(speech)
    operator = Credentials.load(server.settings.operator_key_path)
    actor = Actor(operator.client_id, "operator", frozenset({SCOPE_OPERATOR_ADMIN}))
    submission = Submission(
        subject_id=service.enrolment.subject_of(sha256_hex(png)), portrait=png, portrait_sha256=sha256_hex(png),
        speech=wav, speech_s=speech_s, purpose=PURPOSE_EVALUATION, controls={}, action=ACTION_EVALUATE,
        attested_class="synthetic", template=base64.b64decode(seen["template"]),
    )  # fmt: skip
    with pytest.raises(RefusedError) as caught:
        service.renders.decide(actor, submission)
    assert "face.of_another" in [reason["code"] for reason in caught.value.extras["reasons"]]


def test_templates_at_rest_are_sealed(server: Running, nora: tuple[PlacetClient, Enrolled]) -> None:
    service, enrolled = server.service, nora[1]
    template = service.faces.templates_of(enrolled.subject_id)[enrolled.portrait_sha256]
    raw = template.values_D.astype("<f4").tobytes()
    on_disk = b"".join(path.read_bytes() for path in server.settings.home.glob("placet.sqlite3*"))
    assert raw[:64] not in on_disk and raw[64:128] not in on_disk
