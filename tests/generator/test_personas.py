"""The personas that ship: attested, decodable, and a face in the eyes of the project's own perception."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from generator import personas
from generator.perception import detect_faces, face_landmarks, is_face, lip_aperture
from generator.personas import DamagedPersonaError, Persona, UnknownPersonaError, list_personas, load_persona

EYE_CORNERS = ((33, 133), (362, 263))
LIDS = ((159, 145), (386, 374))


@pytest.fixture(scope="module", params=[persona.name for persona in list_personas()])
def persona(request: pytest.FixtureRequest) -> Persona:
    return load_persona(request.param)


@pytest.fixture(scope="module")
def picture_HW3(persona: Persona) -> np.ndarray:
    bgr = cv2.imdecode(np.frombuffer(persona.portrait(), np.uint8), cv2.IMREAD_COLOR)
    assert bgr is not None
    return np.ascontiguousarray(bgr[:, :, ::-1])


def test_at_least_one_persona_ships() -> None:
    assert "ilias" in [persona.name for persona in list_personas()]


def test_persona_is_attested_as_a_synthetic_adult(persona: Persona) -> None:
    assert persona.subject_class == "persona"
    assert "synthetic" in persona.attestation
    assert "adult" in persona.attestation
    assert persona.licence in {"CC0-1.0", "Apache-2.0"}
    assert persona.sample_path is None or persona.sample_path.is_file()


def test_portrait_is_a_small_square_png_of_useful_size(persona: Persona, picture_HW3: np.ndarray) -> None:
    assert persona.portrait().startswith(b"\x89PNG")
    assert len(persona.portrait()) <= 2 * 2**20
    height, width = picture_HW3.shape[:2]
    assert height == width >= 768


def test_exactly_one_large_face_is_found_eyes_open_lips_closed(picture_HW3: np.ndarray) -> None:
    faces = detect_faces(picture_HW3)
    assert len(faces) == 1
    assert faces[0].size_px >= 0.25 * picture_HW3.shape[0]
    landmarks = face_landmarks(picture_HW3, faces[0])
    assert is_face(landmarks)
    points = landmarks.points_L2
    for (outer, inner), (upper, lower) in zip(EYE_CORNERS, LIDS, strict=True):
        opening = np.linalg.norm(points[upper] - points[lower]) / np.linalg.norm(points[outer] - points[inner])
        assert opening > 0.18, "the eyes are open"
    assert lip_aperture(points) < 0.05, "the lips are closed"
    level_rad = np.arctan2(*(points[263] - points[33])[::-1])
    assert abs(np.rad2deg(level_rad)) < 3, "the head is level"


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
