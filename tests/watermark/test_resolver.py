"""Soft bindings to manifests: values, answers, and what a manifest store proves without its file."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from watermark.authority import SigningAuthority
from watermark.boxes import cut, parse_superbox
from watermark.credentials import Ingredient, ManifestSpec, read_store, sign
from watermark.errors import InvalidSoftBindingError, UnreadableMediaError, WatermarkError
from watermark.manifest import AUDIO_SOFT_BINDING_ALGORITHM, SOFT_BINDING_ALGORITHM
from watermark.payload import MarkId
from watermark.resolver import (
    Match,
    active_manifest,
    check_manifest_id,
    mark_id_of,
    query_result,
    supported_algorithms,
    value_of,
)


@pytest.fixture(scope="module")
def spec(make_spec: Callable[[MarkId], ManifestSpec], mark_id: MarkId) -> ManifestSpec:
    return make_spec(mark_id)


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("picture") / "in.png"
    path.write_bytes(cv2.imencode(".png", np.full((64, 64, 3), 80, np.uint8))[1].tobytes())
    return path


@pytest.fixture(scope="module")
def nested_store(
    picture: Path, spec: ManifestSpec, authority: SigningAuthority, tmp_path_factory: pytest.TempPathFactory
) -> bytes:
    """A store of two manifests: the portrait has one of its own."""
    folder = tmp_path_factory.mktemp("nested")
    sign(picture, folder / "portrait.png", spec, authority, mime="image/png")
    portrait = Ingredient((folder / "portrait.png").read_bytes(), "image/png", "Portrait")
    outer = ManifestSpec(spec.title, portrait, spec.speech, spec.mark_id, None, spec.log, spec.software_version)
    return sign(picture, folder / "out.png", outer, authority, mime="image/png")


# ---- values ----------------------------------------------------------------------------------------------------------


@given(st.integers(0, 2**64 - 1))
def test_a_value_leads_back_to_its_mark(number: int) -> None:
    mark_id = MarkId(number)
    for algorithm in (SOFT_BINDING_ALGORITHM, AUDIO_SOFT_BINDING_ALGORITHM):
        assert mark_id_of(value_of(mark_id), algorithm) == mark_id
    assert mark_id_of(value_of(mark_id).rstrip("="), SOFT_BINDING_ALGORITHM) == mark_id


def test_the_value_is_base64_of_what_the_manifest_says(mark_id: MarkId) -> None:
    assert base64.b64decode(value_of(mark_id)) == b"0123456789abcdef"


@given(st.text(max_size=60))
def test_any_other_value_is_refused_by_name(text: str) -> None:
    try:
        mark_id_of(text, SOFT_BINDING_ALGORITHM)
    except InvalidSoftBindingError:
        return


@pytest.mark.parametrize("value", ["", "====", "AAAA", base64.b64encode(b"0123456789abcdeg").decode(), "ü"])
def test_bad_values(value: str) -> None:
    with pytest.raises(InvalidSoftBindingError):
        mark_id_of(value, SOFT_BINDING_ALGORITHM)


def test_an_unknown_algorithm_is_refused_with_the_known_ones(mark_id: MarkId) -> None:
    with pytest.raises(InvalidSoftBindingError, match=SOFT_BINDING_ALGORITHM):
        mark_id_of(value_of(mark_id), "com.example.other.1")
    assert {"alg": SOFT_BINDING_ALGORITHM} in supported_algorithms()["watermarks"]


@pytest.mark.parametrize("manifest_id", ["", "urn:c2pa:", "xurn:c2pa:1", "urn:c2pa:" + "1" * 300, "urn:c2pa:a/b"])
def test_bad_manifest_ids(manifest_id: str) -> None:
    with pytest.raises(InvalidSoftBindingError):
        check_manifest_id(manifest_id)


def test_answers_are_ordered_and_cut() -> None:
    matches = [Match("urn:c2pa:b", 50, "revoked"), Match("urn:c2pa:a", 100, "in_force")]
    assert query_result(matches, 1) == {
        "matches": [{"manifestId": "urn:c2pa:a", "similarityScore": 100, "org.placet.consent": "in_force"}]
    }
    assert len(query_result(matches, 10)["matches"]) == 2
    assert query_result([], 10) == {"matches": []}


# ---- stores ----------------------------------------------------------------------------------------------------------


def test_a_store_proves_its_signature_without_the_file(nested_store: bytes, authority: SigningAuthority) -> None:
    reading = read_store(nested_store, authority.root_pem)
    assert (reading.state, reading.problems) == ("trusted", ())
    assert read_store(nested_store, "").state == "valid"


def test_no_byte_of_a_store_can_be_changed_and_stay_trusted(nested_store: bytes, authority: SigningAuthority) -> None:
    rng = np.random.default_rng(3)
    for place in rng.integers(0, len(nested_store), 60):
        changed = bytearray(nested_store)
        changed[place] ^= 1 << int(rng.integers(8))
        try:
            reading = read_store(bytes(changed), authority.root_pem)
        except WatermarkError:
            continue
        original = read_store(nested_store, authority.root_pem)
        assert reading.state != "trusted" or reading == original


def test_the_active_manifest_comes_alone(nested_store: bytes, authority: SigningAuthority) -> None:
    both = parse_superbox(cut(nested_store)[0])
    alone = parse_superbox(cut(active_manifest(nested_store))[0])
    assert (len(both.superboxes), len(alone.superboxes)) == (2, 1)
    assert alone.superboxes[0] == both.superboxes[-1]
    assert alone.superboxes[0].label == read_store(nested_store, authority.root_pem).manifest_id


@pytest.mark.parametrize("data", [b"", b"nothing", bytes(64)])
def test_what_is_no_store_is_refused(data: bytes) -> None:
    with pytest.raises(UnreadableMediaError):
        active_manifest(data)
