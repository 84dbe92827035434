"""The face match: the same face in another picture, other faces, templates that are none, and its weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import generator.likeness as likeness
from generator.errors import TemplateError, WeightsError
from generator.likeness import PROTECTED_FACE_DISTANCE, SAME_FACE_DISTANCE, FaceTemplate, face_template
from generator.likeness_measure import measure_likeness
from generator.personas import list_personas
from generator.portrait import decode_portrait, locate_face, normalise_portrait
from tests.faces import NUM_FACES, another_face, same_face


def template_of(picture: bytes) -> FaceTemplate:
    image_HW3 = decode_portrait(normalise_portrait(picture))
    return face_template(image_HW3, locate_face(image_HW3))


@pytest.fixture(scope="module")
def portrait() -> bytes:
    return list_personas()[0].portrait()


def test_the_same_face_and_others(portrait: bytes) -> None:
    persona = template_of(portrait)
    assert persona.distance_to(persona) == 0
    assert persona.distance_to(template_of(same_face(portrait, 1))) < 0.2 < PROTECTED_FACE_DISTANCE
    others = [template_of(another_face(portrait, number)) for number in range(0, NUM_FACES, 11)]
    assert all(persona.distance_to(other) > PROTECTED_FACE_DISTANCE for other in others)
    assert all(a.distance_to(b) > PROTECTED_FACE_DISTANCE for n, a in enumerate(others) for b in others[:n])
    assert PROTECTED_FACE_DISTANCE < SAME_FACE_DISTANCE


def test_a_template_travels_as_bytes(portrait: bytes) -> None:
    template = template_of(portrait)
    data = template.to_bytes()
    assert len(data) == len(likeness.TEMPLATE_VERSION) + 512
    assert FaceTemplate.from_bytes(data).distance_to(template) == 0
    not_a_number = np.full(128, np.nan, np.float32)
    for wrong in (b"", data[:-1], data + b"0", b"dlib-resnet-0\n" + data[14:], FaceTemplate(not_a_number).to_bytes()):
        with pytest.raises(TemplateError):
            FaceTemplate.from_bytes(wrong)


@given(st.binary(max_size=600))
def test_the_parser_raises_only_our_errors(data: bytes) -> None:
    with pytest.raises(TemplateError):
        FaceTemplate.from_bytes(data)


def test_only_the_weights_that_were_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(likeness._SHA256_BY_FILE, likeness._FIVE_POINTS, "0" * 64)
    with pytest.raises(WeightsError, match="measured"):
        likeness._model_file(likeness._FIVE_POINTS)
    monkeypatch.setattr(likeness, "MODEL_PACKAGE", "no_such_package")
    with pytest.raises(WeightsError, match="missing"):
        likeness._model_file(likeness._RESNET)
    assert not any("68" in name for name in likeness._SHA256_BY_FILE)


def test_error_rates_of_a_folder(tmp_path: Path, portrait: bytes) -> None:
    pictures = {"a.jpg": same_face(portrait, 1), "b.png": another_face(portrait, 0), "c.png": another_face(portrait, 5)}
    for name, data in pictures.items():
        (tmp_path / name).write_bytes(data)
    report = measure_likeness([tmp_path / name for name in pictures], every=3)
    assert (report.num_pictures, report.num_without_face, report.num_impostor_pairs) == (3, 0, 3)
    assert report.false_match["0.45"]["errors"] == 0 and 0 < report.false_match["0.45"]["at_most"] < 1
    assert all(each["pictures"] + each["no_face"] == 1 for each in report.altered.values())
    assert report.to_json()["false_non_match"]["0.50"]["errors"] == 0
