"""The personas that ship: attested, decodable, and a face in the eyes of the project's own perception."""

from __future__ import annotations

import hashlib
import itertools
import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from generator import personas
from generator.likeness import face_template
from generator.perception import detect_faces, face_landmarks, is_face, lip_aperture
from generator.personas import (
    DEFAULT_NAME,
    ROOT_FILE,
    SYNTHETIC_SOURCE_TYPE,
    DamagedPersonaError,
    Persona,
    UnknownPersonaError,
    list_personas,
    load_persona,
    without_manifest,
)
from generator.personas.sign import PERSONA_LABEL, sign_portrait
from generator.portrait import decode_portrait
from watermark.credentials import SigningAuthority, read_credentials

EYE_CORNERS = ((33, 133), (362, 263))
LIDS = ((159, 145), (386, 374))
LIGHT_LOWER_LIPS = ("kofi", "samuel")
"""Closed to the eye; the landmarks take light on the lower lip for a gap (see the package's notes)."""


@pytest.fixture(scope="module", params=[persona.name for persona in list_personas()])
def persona(request: pytest.FixtureRequest) -> Persona:
    return load_persona(request.param)


@pytest.fixture(scope="module")
def picture_HW3(persona: Persona) -> np.ndarray:
    bgr = cv2.imdecode(np.frombuffer(persona.portrait(), np.uint8), cv2.IMREAD_COLOR)
    assert bgr is not None
    return np.ascontiguousarray(bgr[:, :, ::-1])


def test_eight_personas_ship_the_default_one_first() -> None:
    names = [persona.name for persona in list_personas()]
    assert len(names) == 8
    assert names[0] == DEFAULT_NAME
    assert names[1:] == sorted(names[1:])


def test_all_of_them_together_stay_small() -> None:
    folders = [persona.portrait_path.parent for persona in list_personas()]
    assert sum(path.stat().st_size for folder in folders for path in folder.iterdir()) < 8e6


def test_ages_and_looks_vary() -> None:
    ages = [np.mean(persona.apparent_age_years) for persona in list_personas()]
    assert min(ages) < 30
    assert max(ages) > 65
    assert len({persona.description for persona in list_personas()}) == len(ages)


def test_persona_is_attested_as_a_synthetic_adult(persona: Persona) -> None:
    assert persona.subject_class == "persona"
    assert "synthetic" in persona.attestation
    assert "adult" in persona.attestation
    assert min(persona.apparent_age_years) >= 18
    assert persona.licence in {"CC0-1.0", "Apache-2.0"}
    assert persona.sample_path is None or persona.sample_path.is_file()


def test_portrait_is_a_small_square_png_of_useful_size(persona: Persona, picture_HW3: np.ndarray) -> None:
    assert persona.portrait().startswith(b"\x89PNG")
    assert len(persona.portrait()) <= 2 * 2**20
    height, width = picture_HW3.shape[:2]
    assert height == width >= 768


def test_exactly_one_large_face_is_found_eyes_open_lips_closed(persona: Persona, picture_HW3: np.ndarray) -> None:
    faces = detect_faces(picture_HW3)
    assert len(faces) == 1
    assert faces[0].size_px >= 0.25 * picture_HW3.shape[0]
    landmarks = face_landmarks(picture_HW3, faces[0])
    assert is_face(landmarks)
    points = landmarks.points_L2
    for (outer, inner), (upper, lower) in zip(EYE_CORNERS, LIDS, strict=True):
        opening = np.linalg.norm(points[upper] - points[lower]) / np.linalg.norm(points[outer] - points[inner])
        assert opening > 0.18, "the eyes are open"
    limit = 0.2 if persona.name in LIGHT_LOWER_LIPS else 0.05
    assert lip_aperture(points) < limit, "the lips are closed"
    level_rad = np.arctan2(*(points[263] - points[33])[::-1])
    assert abs(np.rad2deg(level_rad)) < 3, "the head is level"


def test_manifest_says_that_the_picture_is_synthetic(persona: Persona) -> None:
    reading = persona.credentials()
    assert reading.state == "trusted"
    assert reading.manifest is not None
    claimed = {each["label"]: each["data"] for each in reading.manifest["assertions"]}[PERSONA_LABEL]
    assert claimed["attestation"]["statement"] == persona.attestation
    assert reading.signed_at is not None


def test_who_does_not_know_the_root_reads_an_untouched_picture_by_an_unknown_signer(persona: Persona) -> None:
    assert read_credentials(persona.portrait(), "image/png", "").digital_source_type == SYNTHETIC_SOURCE_TYPE


def test_a_changed_picture_is_not_vouched_for() -> None:
    png = bytearray(load_persona(DEFAULT_NAME).portrait())
    png[-100] ^= 1
    assert read_credentials(bytes(png), "image/png", ROOT_FILE.read_text()).state == "invalid"


def test_signing_changes_nothing_but_the_manifest(tmp_path: Path) -> None:
    shipped = load_persona(DEFAULT_NAME)
    folder = tmp_path / shipped.name
    folder.mkdir()
    for path in (shipped.portrait_path, shipped.portrait_path.parent / "persona.json"):
        shutil.copy(path, folder)
    authority = SigningAuthority.create(tmp_path / "pki", "Test")
    sign_portrait(folder, authority, "0.1.0")
    again = (folder / "portrait.png").read_bytes()
    assert again != shipped.portrait()
    assert without_manifest(again) == without_manifest(shipped.portrait())
    assert read_credentials(again, "image/png", authority.root_pem).state == "trusted"
    record = json.loads((folder / "persona.json").read_text())
    assert record["portrait"]["sha256"] == hashlib.sha256(again).hexdigest()


def test_record_names_the_picture_without_its_manifest(persona: Persona) -> None:
    record = json.loads((persona.portrait_path.parent / "persona.json").read_text())
    bare = without_manifest(persona.portrait())
    assert hashlib.sha256(bare).hexdigest() == record["portrait"]["unsigned_sha256"]


def test_no_private_key_ships() -> None:
    for path in ROOT_FILE.parent.rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            assert b"PRIVATE" + b" KEY" not in path.read_bytes(), path.name


def test_each_face_was_measured_against_those_that_it_could_resemble(persona: Persona) -> None:
    record = json.loads((persona.portrait_path.parent / "persona.json").read_text())
    nearest = record["likeness"]["nearest"]
    assert sum(each["num_faces"] for each in nearest.values()) > 700
    assert min(each["distance"] for each in nearest.values()) >= 0.55


def test_no_two_personas_share_a_face() -> None:
    templates = []
    for persona in list_personas():
        rgb_HW3 = decode_portrait(persona.portrait())
        templates.append(face_template(rgb_HW3, detect_faces(rgb_HW3)[0]))
    for first, second in itertools.combinations(templates, 2):
        assert first.distance_to(second) >= 0.6


def test_unknown_names_are_answered_with_the_known_ones() -> None:
    with pytest.raises(UnknownPersonaError, match="ilias") as caught:
        load_persona("nobody")
    assert caught.value.code == "persona.unknown"


def test_a_swapped_portrait_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(load_persona("ilias").portrait_path.parent, tmp_path / "ilias")
    portrait = tmp_path / "ilias" / "portrait.png"
    portrait.write_bytes(portrait.read_bytes() + b"\0")
    monkeypatch.setattr(personas, "_HOME", tmp_path)
    with pytest.raises(DamagedPersonaError, match="not the attested file"):
        load_persona("ilias").portrait()


def test_a_damaged_record_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "ilias"
    folder.mkdir()
    (folder / "portrait.png").write_bytes(b"")
    (folder / "persona.json").write_text(json.dumps({"name": "ilias"}))
    monkeypatch.setattr(personas, "_HOME", tmp_path)
    with pytest.raises(DamagedPersonaError, match="unreadable"):
        list_personas()
