"""The baked head: its file, its anatomy, and what its facial actions do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save

from generator.actions import ACTION_INDEX
from generator.errors import WeightsError
from generator.head import CONTACT_LOOP, HEAD_FILE, NUM_LIP_COLUMNS, Head, default_head
from generator.perception import CHIN, EYE_LEFT_UPPER, EYE_RIGHT_UPPER, FOREHEAD_TOP, LIPS_INNER_LOWER, LIPS_INNER_UPPER
from generator.sealed import write_weights


@pytest.fixture(scope="module")
def head() -> Head:
    return default_head()


def _actions(**strengths: float) -> np.ndarray:
    actions = np.zeros(52, np.float32)
    for name, strength in strengths.items():
        actions[ACTION_INDEX[name]] = strength
    return actions


def test_the_file_is_small_and_without_surprises() -> None:
    assert HEAD_FILE.stat().st_size <= 6_000_000
    assert all(np.isfinite(tensor.astype(np.float64)).all() for tensor in load_file(HEAD_FILE).values())


def test_anatomy(head: Head) -> None:
    at = head.at_landmarks(head.mean_V3)
    assert 0.14 < at[CHIN, 1] - at[FOREHEAD_TOP, 1] < 0.22
    assert at[list(EYE_LEFT_UPPER), 0].min() > 0 > at[list(EYE_RIGHT_UPPER), 0].max()
    assert (at[1, 2] < at[[33, 263, CHIN, FOREHEAD_TOP], 2]).all(), "the nose is nearest to the camera"
    mirrored = head.mean_V3[head.lip_loops_JC] * np.array([-1, 1, 1])
    again = np.roll(mirrored[:, ::-1], 1, axis=1)
    np.testing.assert_allclose(again, head.mean_V3[head.lip_loops_JC], atol=0.002)


def test_neutral_lips_touch_along_the_contact_ring(head: Head) -> None:
    at = head.at_landmarks(head.mean_V3)
    gap = at[list(LIPS_INNER_LOWER), 1] - at[list(LIPS_INNER_UPPER), 1]
    assert np.abs(gap).max() < 0.0015


def test_jaw_open_parts_the_lips_and_mouth_close_undoes_it(head: Head) -> None:
    ring = head.lip_loops_JC[CONTACT_LOOP]
    middle = ring[[0, NUM_LIP_COLUMNS // 2]]

    def gap(**strengths: float) -> float:
        upper, lower = head.vertices(np.zeros(1), _actions(**strengths))[middle, 1]
        return float(lower - upper)

    assert gap(jawOpen=1.0) > 0.025
    assert abs(gap(jawOpen=0.6, mouthClose=0.6) - gap()) < 0.001


def test_identity_coefficients_may_be_fewer_than_components(head: Head) -> None:
    few = head.vertices(np.array([1.0, -0.5]), _actions())
    all_of_them = head.vertices(np.array([1.0, -0.5] + [0.0] * (head.num_identity - 2)), _actions())
    np.testing.assert_allclose(few, all_of_them, atol=1e-6)


def test_damaged_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / HEAD_FILE.name
    with pytest.raises(WeightsError, match="placet train head"):
        Head.load(path)
    path.write_bytes(HEAD_FILE.read_bytes()[:1000])
    with pytest.raises(WeightsError, match="damaged"):
        Head.load(path)
    tensors = load_file(HEAD_FILE)
    write_weights(path, HEAD_FILE.read_bytes()[:1000])
    with pytest.raises(WeightsError, match="cannot be read"):
        Head.load(path)
    write_weights(path, save({k: v for k, v in tensors.items() if k != "identity"}))
    with pytest.raises(WeightsError, match="identity"):
        Head.load(path)
    write_weights(path, save(tensors | {"action_fields": tensors["action_fields"][:51]}))
    with pytest.raises(WeightsError, match="action_fields"):
        Head.load(path)
