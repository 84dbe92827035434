"""Pictures of several people, over HTTP: one face is chosen and moves, all others are looked up among the protected.

The consent and the likeness check bind the person who is animated; somebody protected who merely stands beside them is
not shown in a made-up video either.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from api.client import Enrolled, PlacetClient, ProblemError
from policy.consent import PURPOSE_RESEARCH
from policy.facts import BESIDE_UNKNOWN
from policy.identity import SCOPE_RENDER_CREATE
from tests.api.conftest import Running, make_wav, vetted
from tests.api.test_gate import consent_to, refused
from tests.faces import another_face
from watermark.media import decode_clip

ADA, EVE, BOB = 25, 5, 8  # faces that no other test of the service enrols


def side_by_side(*pictures: bytes, sizes: tuple[int, ...] = ()) -> bytes:
    """One picture that shows these faces from left to right."""
    images = [Image.open(io.BytesIO(each)).convert("RGB") for each in pictures]
    images = [each.resize((size, size)) for each, size in zip(images, sizes or (512,) * len(images), strict=True)]
    group = Image.new("RGB", (sum(each.width for each in images), max(each.height for each in images)), (90, 95, 100))
    left = 0
    for image in images:
        group.paste(image, (left, 0))
        left += image.width
    out = io.BytesIO()
    group.save(out, "PNG")
    return out.getvalue()


@pytest.fixture(scope="module")
def faces(portrait: bytes) -> dict[int, bytes]:
    return {number: another_face(portrait, number) for number in (ADA, EVE, BOB)}


@pytest.fixture(scope="module")
def ada(server: Running, faces: dict[int, bytes]) -> Iterator[tuple[PlacetClient, Enrolled]]:
    """Enrolled with a picture that shows her on the right, beside a stranger."""
    with PlacetClient(server.url) as client:
        group = side_by_side(faces[EVE], faces[ADA])
        yield client, client.enrol(group, subject_class="adult", adult_attested=True, face=1)


@pytest.fixture(scope="module")
def asking(server: Running, operator: PlacetClient, ada: tuple[PlacetClient, Enrolled]) -> PlacetClient:
    """The researcher to whom she has consented, choice of the face included."""
    client = vetted(server, operator, "researcher")
    consent_to(ada[0], client, controls=("face", "seed"), max_uses=5)
    return client


def request_for(ada: tuple[PlacetClient, Enrolled], **more: Any) -> dict[str, Any]:
    common = {"subject_id": ada[1].subject_id, "speech": make_wav(0.6), "purpose": PURPOSE_RESEARCH}
    return common | ({} if "portrait" in more else {"portrait_sha256": ada[1].portrait_sha256}) | more


def test_without_a_choice_several_faces_are_refused_and_counted(
    server: Running, faces: dict[int, bytes], asking: PlacetClient
) -> None:
    size = server.service.log.size
    answer = httpx.post(
        f"{server.url}/v1/renders",
        auth=asking.auth(SCOPE_RENDER_CREATE),
        data={"subject_id": "sub_x", "purpose": PURPOSE_RESEARCH},
        files={"portrait": side_by_side(*faces.values()), "speech": make_wav(0.5)},
        timeout=120,
    )
    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (422, "portrait.several_faces")
    assert "3 faces" in problem["detail"] and "0 to 2" in problem["detail"] and "largest" in problem["detail"]
    assert "decision" not in server.kinds_since(size)


def test_there_is_no_face_beyond_the_last(ada: tuple[PlacetClient, Enrolled], asking: PlacetClient) -> None:
    for face, code in ((2, "portrait.no_such_face"), (16, "control"), ("left", "control")):
        with pytest.raises(ProblemError) as caught:
            asking.render(**request_for(ada, controls={"face": face}))
        assert (caught.value.status, caught.value.code) == (422, code), face
        assert "from the left" in str(caught.value)


def test_the_face_that_was_chosen_moves_and_its_consent_counts(
    server: Running, ada: tuple[PlacetClient, Enrolled], asking: PlacetClient, faces: dict[int, bytes]
) -> None:
    done = asking.wait(asking.render(**request_for(ada, controls={"face": 1, "seed": 3})), timeout_s=300)
    body = server.service.log.entry(done["decision_index"])["body"]
    assert body["facts"]["beside"] == "strangers" and body["facts"]["face_match"] == "match"
    assert body["request"]["controls"] == ["face", "seed"]
    frames = decode_clip(asking.video(done["render_id"])).frames_THWC
    shown = np.array(Image.open(io.BytesIO(faces[ADA])).resize((512, 512))).astype(np.float32)
    other = np.array(Image.open(io.BytesIO(faces[EVE])).resize((512, 512))).astype(np.float32)
    middle = np.s_[180:320, 180:320]

    def unlike(picture: np.ndarray) -> float:
        return float(np.abs(picture[middle].mean((0, 1)) - frames[0][middle].mean((0, 1))).mean())

    assert unlike(shown) < unlike(other), "it is her face that is in the middle of the frame"


def test_the_other_face_of_the_picture_is_not_hers_to_consent_for(
    server: Running, ada: tuple[PlacetClient, Enrolled], asking: PlacetClient
) -> None:
    problem = refused(server, asking, **request_for(ada, controls={"face": 0}))
    assert problem.reasons == ("face.differs",)


def test_choosing_is_a_control_that_must_have_been_agreed_to(
    server: Running, operator: PlacetClient, ada: tuple[PlacetClient, Enrolled]
) -> None:
    client = vetted(server, operator, "researcher")
    consent_to(ada[0], client, controls=("seed",))
    assert refused(server, client, **request_for(ada, controls={"face": 1})).reasons == ("consent.controls",)


def test_a_personas_consent_does_not_move_whoever_stands_beside(
    server: Running, operator: PlacetClient, faces: dict[int, bytes]
) -> None:
    """For a persona alone in a picture no match is asked for; in a group it is."""
    client = vetted(server, operator, "researcher")
    group = side_by_side(faces[BOB], faces[EVE])
    with PlacetClient(server.url) as persona:
        enrolled = persona.enrol(group, subject_class="persona", rights_basis="made for a test", face="0")
        consent_to(persona, client, controls=("*",))
        problem = refused(server, client, **request_for((persona, enrolled), controls={"face": 1}))
        assert problem.reasons == ("face.not_chosen",)
        persona.erase()


def test_a_protected_person_beside_is_a_reason_to_refuse(
    server: Running, ada: tuple[PlacetClient, Enrolled], asking: PlacetClient, faces: dict[int, bytes]
) -> None:
    with PlacetClient(server.url) as bob:
        bob.enrol(faces[BOB], subject_class="adult", adult_attested=True)
        group = side_by_side(faces[ADA], faces[BOB])
        problem = refused(server, asking, **request_for(ada, portrait=group, controls={"face": "largest"}))
        by_name = refused(server, asking, **request_for(ada, portrait=group, controls={"face": 0}))
        small = side_by_side(faces[ADA], faces[BOB], sizes=(640, 190))
        passing = refused(server, asking, **request_for(ada, portrait=small))
        for each in (problem, by_name, passing):
            assert "face.beside_protected" in each.reasons and "consent.portrait" in each.reasons
            facts = server.service.log.entry(each.log_index or 0)["body"]["facts"]
            assert (facts["face_match"], facts["beside"]) == ("match", "protected")
        with PlacetClient(server.url) as eve, pytest.raises(ProblemError) as caught:
            eve.enrol(side_by_side(faces[EVE], faces[BOB]), subject_class="adult", adult_attested=True, face=0)
        assert (caught.value.status, caught.value.code) == (403, "enrolment.face_protected")
        bob.erase()


def test_a_crowd_that_nobody_can_look_through_is_refused(
    server: Running, ada: tuple[PlacetClient, Enrolled], asking: PlacetClient, faces: dict[int, bytes]
) -> None:
    row = side_by_side(faces[ADA], *[faces[EVE]] * 3)
    image = Image.open(io.BytesIO(row))
    crowd = Image.new("RGB", (image.width, image.height * 5))
    for line in range(5):
        crowd.paste(image, (0, image.height * line))
    out = io.BytesIO()
    crowd.save(out, "PNG")
    problem = refused(server, asking, **request_for(ada, portrait=out.getvalue(), controls={"face": 0}))
    assert "face.beside_unknown" in problem.reasons
    assert server.service.log.entry(problem.log_index or 0)["body"]["facts"]["beside"] == BESIDE_UNKNOWN
