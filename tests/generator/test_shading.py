"""Shading: nothing at rest, bounded on expressions, and a light that is found again."""

from __future__ import annotations

import numpy as np
import pytest

from generator.actions import ACTION_INDEX
from generator.portrait import Portrait
from generator.renderer import Rig, build_rig
from generator.shading import light_slope


@pytest.fixture(scope="module")
def rig(portrait: Portrait) -> Rig:
    return build_rig(portrait)


def _shaded(rig: Rig, **strengths: float) -> np.ndarray:
    change = np.zeros(52, np.float32)
    for action, index in ACTION_INDEX.items():
        change[index] = strengths.get(action.removesuffix("Left").removesuffix("Right"), 0.0)
    return rig.shading.ratio(rig.sheet.rest_V3 + (change @ rig.sheet.fields_AV3.reshape(52, -1)).reshape(-1, 3))


def test_a_face_at_rest_keeps_its_light(rig: Rig) -> None:
    np.testing.assert_allclose(_shaded(rig), 1.0, atol=1e-6)


def test_expressions_lighten_and_darken_within_bounds(rig: Rig) -> None:
    for expression in ({"mouthSmile": 0.8, "cheekSquint": 0.6}, {"browDown": 0.9}, {"browInnerUp": 0.8}):
        ratio = _shaded(rig, **expression)
        assert 0.75 <= ratio.min() < 0.97 and 1.01 < ratio.max() <= 1.25
        assert np.abs(ratio - 1).mean() < 0.05, "most of the picture keeps its light"


def test_lips_are_not_shaded(rig: Rig) -> None:
    lips = rig.shading.weight_V[rig.sheet.mouth_start + 5 * 38 :]
    assert np.abs(lips).max() == 0.0


def test_the_light_is_found_in_the_picture() -> None:
    rng = np.random.default_rng(3)
    normal = rng.normal([0, 0, -1.5], 0.5, (800, 3))
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    from_the_left = np.array([-0.5, -0.2, -0.4])
    luma = 120 * (1 + (normal - normal.mean(0)) @ from_the_left)
    luma[:100] = 20  # a beard
    found = light_slope(normal.astype(np.float32), luma)
    np.testing.assert_allclose(found, from_the_left, atol=0.12)
