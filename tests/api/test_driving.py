"""Driving clips over HTTP: the movement of one face moves another, if both people have agreed, and not otherwise.

The driver is a persona, and the clip one of our own marked renders of it: nobody's face is in these tests.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from api.client import Enrolled, PlacetClient, ProblemError
from policy.consent import PURPOSE_RESEARCH
from policy.decision import PolicyEngine, replay
from tests.api.conftest import Running, make_wav, vetted
from tests.api.test_gate import consent_to, refused
from tests.faces import another_face
from watermark.credentials import read_credentials
from watermark.encoding import encode_clip
from watermark.media import Clip, Sound, decode_clip

SHOWN, OTHER = 13, 19  # faces that no other test of the service enrols
NODS = {
    "keyframes": [
        {"at_s": 0, "value": [0, 0, 0]},
        {"at_s": 0.5, "value": [12, 0, 0]},
        {"at_s": 1.1, "value": [-8, 0, 0]},
    ]
}


@pytest.fixture(scope="module")
def driver(server: Running, subject: tuple[PlacetClient, Enrolled]) -> tuple[PlacetClient, Enrolled]:
    """The shipped persona, who moves in the clip."""
    return subject


@pytest.fixture(scope="module")
def clip(server: Running, operator: PlacetClient, driver: tuple[PlacetClient, Enrolled]) -> bytes:
    """A marked render of the driver, who turns the head as we know."""
    maker = vetted(server, operator, "researcher")
    consent_to(driver[0], maker, controls=("head_pose", "head_motion", "seed"))
    asked = maker.render(
        subject_id=driver[1].subject_id,
        portrait_sha256=driver[1].portrait_sha256,
        speech=make_wav(1.2),
        purpose=PURPOSE_RESEARCH,
        controls={"head_pose": NODS | {"mode": "track"}, "head_motion": 0, "seed": 4},
    )
    return maker.video(maker.wait(asked, timeout_s=300)["render_id"])


@pytest.fixture(scope="module")
def shown(server: Running, portrait: bytes) -> Iterator[tuple[PlacetClient, Enrolled]]:
    """Whoever is to be moved."""
    with PlacetClient(server.url) as client:
        yield client, client.enrol(another_face(portrait, SHOWN), subject_class="adult", adult_attested=True)


@pytest.fixture(scope="module")
def asking(
    server: Running, operator: PlacetClient, shown: tuple[PlacetClient, Enrolled], driver: tuple[PlacetClient, Enrolled]
) -> PlacetClient:
    """A researcher to whom both have agreed."""
    client = vetted(server, operator, "researcher")
    consent_to(shown[0], client, controls=("driving", "seed"), max_uses=9)
    consent_to(driver[0], client, controls=("driver",), max_uses=3)
    return client


def request_for(
    shown: tuple[PlacetClient, Enrolled], driver: tuple[PlacetClient, Enrolled], clip: bytes
) -> dict[str, Any]:
    return {
        "subject_id": shown[1].subject_id,
        "portrait_sha256": shown[1].portrait_sha256,
        "driver_id": driver[1].subject_id,
        "driving": clip,
        "purpose": PURPOSE_RESEARCH,
    }


@pytest.fixture(scope="module")
def driven(
    asking: PlacetClient, shown: tuple[PlacetClient, Enrolled], driver: tuple[PlacetClient, Enrolled], clip: bytes
) -> tuple[dict[str, Any], bytes]:
    """A render that follows the clip, sound and all."""
    done = asking.wait(asking.render(**request_for(shown, driver, clip)), timeout_s=300)
    return done, asking.video(done["render_id"])


def test_the_face_follows_the_clip(driven: tuple[dict[str, Any], bytes], clip: bytes) -> None:
    from generator.driving import track_movement

    done, video = driven
    assert done["controls"] == {"driving": {"lips": "clip"}}
    source, result = decode_clip(clip), decode_clip(video)
    assert abs(len(source.frames_THWC) - len(result.frames_THWC)) <= 1
    asked, seen = (track_movement(each.frames_THWC, each.times_T, b"") for each in (source, result))
    length = min(asked.num_frames, seen.num_frames)
    yaw = np.corrcoef(asked.pose_T3[:length, 0], seen.pose_T3[:length, 0])[0, 1]
    assert yaw > 0.9 and np.ptp(seen.pose_T3[:, 0]) > 8, (yaw, np.ptp(seen.pose_T3[:, 0]))


def test_the_manifest_names_clip_and_consent_by_hash_alone(
    server: Running, driven: tuple[dict[str, Any], bytes], clip: bytes
) -> None:
    reading = read_credentials(driven[1], "video/mp4", server.service.trust_roots_pem.decode())
    assert reading.state == "trusted" and reading.manifest is not None
    (stated,) = [
        each["data"] for each in reading.manifest["assertions"] if each["label"].startswith("org.placet.driving")
    ]
    facts = server.service.log.entry(driven[0]["decision_index"])["body"]["facts"]
    assert stated["clip_sha256"] == hashlib.sha256(clip).hexdigest() and stated["lips"] == "clip"
    assert stated["consent_sha256"] == facts["driver"]["consent"]["sha256"]
    ingredients = {each["title"]: each for each in reading.manifest["ingredients"]}
    assert set(ingredients) == {"Portrait", "Speech", "Driving clip"}
    assert stated["clip_sha256"] in str(ingredients["Driving clip"]["instance_id"])
    assert "thumbnail" not in ingredients["Driving clip"]


def test_decision_and_uses_are_on_record_for_the_driver_too(
    server: Running, driven: tuple[dict[str, Any], bytes], driver: tuple[PlacetClient, Enrolled]
) -> None:
    done = driven[0]
    entry = server.service.log.entry(done["decision_index"])
    assert entry["body"]["facts"]["driver"]["face_match"] == "match"
    assert replay(entry, PolicyEngine.load()).allowed
    text = str(entry)
    assert driver[1].subject_id not in text
    mine = {use["entry"]["body"].get("of"): use for use in driver[0].uses() if use["entry"]["kind"] == "driver.use"}
    assert mine[done["decision_index"]]["kind"] == "decision.allowed"
    assert mine[done["delivery_index"]]["kind"] == "delivery"


@pytest.mark.heavy
def test_speech_moves_the_lips_and_the_clip_the_head(
    asking: PlacetClient, shown: tuple[PlacetClient, Enrolled], driver: tuple[PlacetClient, Enrolled], clip: bytes
) -> None:
    asked = asking.render(**request_for(shown, driver, clip), speech=make_wav(2.0), controls={"seed": 2})
    done = asking.wait(asked, timeout_s=300)
    assert done["controls"] == {"driving": {"lips": "speech"}, "seed": 2}
    assert done["duration_s"] == pytest.approx(2.0, abs=0.1), "as long as the speech; at its end the face rests"


_AT_LENGTH = {"nobody who has enrolled", "a consent that does not say driver"}
REFUSALS: dict[str, tuple[dict[str, Any], set[str]]] = {
    "no consent of the driver": ({"asker": "stranger to the driver"}, {"driver.consent_missing"}),
    "a consent that does not say driver": ({"asker": "any control"}, {"driver.consent_control"}),
    "nobody who has enrolled": ({"driver_id": "sub_nobody"}, {"driver.unknown"}),
    "not the person in the clip": ({"driver": "shown"}, {"driver.face", "driver.of_another"}),
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.heavy if name in _AT_LENGTH else ()) for name in REFUSALS]
)
def test_without_the_drivers_consent_nothing_moves(
    name: str, server: Running, operator: PlacetClient, asking: PlacetClient, clip: bytes,
    shown: tuple[PlacetClient, Enrolled], driver: tuple[PlacetClient, Enrolled],
) -> None:  # fmt: skip
    change, expected = REFUSALS[name]
    request = request_for(shown, driver, clip)
    request |= {"driver_id": change["driver_id"]} if "driver_id" in change else {}
    request |= {"driver_id": shown[1].subject_id} if change.get("driver") == "shown" else {}
    asker = asking
    if "asker" in change:
        asker = vetted(server, operator, "researcher")
        consent_to(shown[0], asker, controls=("driving",))
        if change["asker"] == "any control":
            consent_to(driver[0], asker, controls=("*",))
    problem = refused(server, asker, **request)
    # a driver who has consented to others is known by those consents: none of them fits
    assert expected <= set(problem.reasons) or {"driver.consent_grantee"} <= set(problem.reasons), problem.reasons
    assert all(reason.startswith("driver.") for reason in problem.reasons), problem.reasons


@pytest.mark.heavy
def test_the_person_shown_must_have_agreed_to_be_driven(
    server: Running, operator: PlacetClient, clip: bytes,
    shown: tuple[PlacetClient, Enrolled], driver: tuple[PlacetClient, Enrolled],
) -> None:  # fmt: skip
    asker = vetted(server, operator, "researcher")
    consent_to(shown[0], asker, controls=("seed",))
    consent_to(driver[0], asker, controls=("driver",))
    assert refused(server, asker, **request_for(shown, driver, clip)).reasons == ("consent.controls",)


def video_of(frames_THWC: np.ndarray, folder: Path, *, has_sound: bool = True) -> bytes:
    """Any frames as a file, with a tone or without a sound."""
    tone = Sound(np.sin(np.arange(16_000)).astype(np.float32), 16_000) if has_sound else None
    encode_clip(Clip(frames_THWC, 25.0, tone), folder / "clip.mp4")
    return (folder / "clip.mp4").read_bytes()


@pytest.mark.parametrize("name", ["two people", "nobody", "no sound", "a picture", "one frame", "control alone"])
def test_a_bad_clip_is_refused_with_a_name(
    name: str, server: Running, asking: PlacetClient, shown: tuple[PlacetClient, Enrolled],
    driver: tuple[PlacetClient, Enrolled], clip: bytes, portrait: bytes, tmp_path: Path,
) -> None:  # fmt: skip
    request, size = request_for(shown, driver, clip), server.service.log.size
    face = np.array(Image.open(io.BytesIO(portrait)).convert("RGB").resize((320, 320)))
    match name:
        case "two people":
            request["driving"] = video_of(np.repeat(np.concatenate([face, face], 1)[None], 20, 0), tmp_path)
            expected = "driving.several_faces"
        case "nobody":
            request["driving"] = video_of(np.full((20, 320, 320, 3), 90, np.uint8), tmp_path)
            expected = "driving.face"
        case "no sound":
            request["driving"] = video_of(np.repeat(face[None], 20, 0), tmp_path, has_sound=False)
            expected = "driving.no_sound"
        case "a picture":
            request["driving"], expected = portrait, "media.unsupported"
        case "one frame":
            request["driving"], expected = video_of(face[None].repeat(2, 0), tmp_path), "driving.too_short"
        case _:
            request.pop("driving")
            expected = "request.field_invalid"
    with pytest.raises(ProblemError) as caught:
        asking.render(**request)
    assert caught.value.code == expected and caught.value.status in (400, 415, 422)
    assert "decision" not in server.kinds_since(size)


def test_when_the_driver_revokes_the_video_is_withheld(
    asking: PlacetClient, driver: tuple[PlacetClient, Enrolled], driven: tuple[dict[str, Any], bytes]
) -> None:
    """Last in this file: it takes the driver's consent back."""
    consents = [each for each in driver[0].consents() if each["statement"]["controls"] == ["driver"]]
    for each in consents:
        if each["state"] == "live":
            driver[0].revoke(each["consent_id"])
    with pytest.raises(ProblemError) as caught:
        asking.video(driven[0]["render_id"])
    assert (caught.value.status, caught.value.code) == (403, "consent.revoked")
    assert "driver" in str(caught.value)
