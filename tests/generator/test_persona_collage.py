"""The cutting table: faces laid over each other, smooth warps, parts pasted where they were asked for."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from generator import personas
from generator.personas import list_personas
from generator.personas.compose import AVERAGE_FILE, finish
from generator.personas.studio.collage import (
    BANDS,
    CANVAS,
    Change,
    Collage,
    Print,
    compose,
    lay_over,
    mix_shape,
    read_collage,
    warp_map,
)

SIZE_PX = 192
ALL_OF_IT = {band: {"face": 1.0} for band in BANDS}
COMPOSED = [
    each.portrait_path.parent / "persona.json"
    for each in list_personas()
    if "collage" in json.loads((each.portrait_path.parent / "persona.json").read_text())["recipe"]
]


@pytest.fixture(scope="module")
def average_L3() -> np.ndarray:
    return np.array(json.loads(AVERAGE_FILE.read_text()))


def a_print(average_L3: np.ndarray, red: float, seed: int = 0) -> Print:
    """A face-shaped patch of skin with soft blotches."""
    rng = np.random.default_rng(seed)
    points = average_L3 * 90 + (SIZE_PX / 2, SIZE_PX / 2, 0)
    blotches = cv2.GaussianBlur(rng.normal(size=(SIZE_PX, SIZE_PX, 3)), (0, 0), 2)
    return Print(np.clip((red, 0.45, 0.35) + 0.2 * blotches, 0, 1), points)


def test_laying_over_undoes_turning_moving_and_scaling(average_L3: np.ndarray) -> None:
    turned = average_L3 @ Rotation.from_euler("xyz", (10, -20, 5), degrees=True).as_matrix().T * 3.0 + (5, 6, 7)
    assert np.allclose(lay_over(turned, average_L3), average_L3, atol=1e-9)


def test_a_warp_onto_itself_moves_nothing(average_L3: np.ndarray) -> None:
    points = a_print(average_L3, 0.6).points_L3[:, :2]
    where = warp_map(points, points, SIZE_PX, smoothing=0.1, pinned=True)
    rows, columns = np.mgrid[:SIZE_PX, :SIZE_PX]
    assert np.abs(where - np.stack([columns, rows], -1)).max() < 1e-3


def test_a_canvas_that_lends_itself_everything_comes_back(average_L3: np.ndarray) -> None:
    canvas = a_print(average_L3, 0.6)
    plan = Collage("a.jpg", {"a.jpg": 1.0}, {CANVAS: ALL_OF_IT})
    rgb, shape = compose(plan, {"a.jpg": canvas}, average_L3, SIZE_PX)
    assert np.abs(rgb - canvas.rgb_HW3).max() < 0.02
    assert np.allclose(shape, canvas.points_L3[:, :2])


def test_lenders_fill_the_face_in_the_canvas_light_and_leave_the_rest(average_L3: np.ndarray) -> None:
    prints = {"a.jpg": a_print(average_L3, 0.6), "b.jpg": a_print(average_L3, 0.3, seed=1)}
    plan = Collage("a.jpg", {"a.jpg": 1.0}, {"b.jpg": ALL_OF_IT}, chroma=1.0)
    rgb, _ = compose(plan, prints, average_L3, SIZE_PX)
    canvas = prints["a.jpg"].rgb_HW3
    assert np.abs(rgb - canvas)[:12].max() < 0.02, "the border is the canvas'"
    middle = (slice(80, 112), slice(80, 112))
    assert abs(rgb[middle][..., 0].mean() - canvas[middle][..., 0].mean()) < 0.08, "relit"
    detail = [np.diff(picture[middle][..., 1], axis=0).ravel() for picture in (rgb, prints["b.jpg"].rgb_HW3, canvas)]
    assert np.corrcoef(detail[0], detail[1])[0, 1] > 0.9
    assert abs(np.corrcoef(detail[0], detail[2])[0, 1]) < 0.3


def test_changes_by_hand_stay_where_they_were_asked_for(average_L3: np.ndarray) -> None:
    canvas = a_print(average_L3, 0.6)
    plan = Collage("a.jpg", {"a.jpg": 1.0}, {}, {"nose": Change(1.2, 1.0)})
    shape = mix_shape(plan, {"a.jpg": canvas}, average_L3, canvas.points_L3)
    moved = np.linalg.norm(shape - canvas.points_L3, axis=1)
    wider = np.ptp(shape[[49, 279], 0]) / np.ptp(canvas.points_L3[[49, 279], 0])
    assert wider == pytest.approx(1.2, abs=0.04)
    assert moved[[152, 10, 234, 454]].max() < 0.05, "chin, forehead and cheeks stay"


def test_exaggeration_leads_away_from_the_average(average_L3: np.ndarray) -> None:
    canvas = a_print(average_L3 * (1.0, 1.15, 1.0), 0.6)
    plan = Collage("a.jpg", {"a.jpg": 1.0}, {}, exaggerate=0.5)
    shape = mix_shape(plan, {"a.jpg": canvas}, average_L3, canvas.points_L3)
    assert np.ptp(shape[:, 1]) / np.ptp(shape[:, 0]) > np.ptp(canvas.points_L3[:, 1]) / np.ptp(canvas.points_L3[:, 0])


@pytest.mark.parametrize("record", COMPOSED, ids=lambda path: path.parent.name)
def test_no_single_portrait_makes_a_composed_face(record: Path) -> None:
    plan = read_collage(json.loads(record.read_text())["recipe"]["collage"])
    assert len(plan.sources) >= 5
    assert max(plan.shape.values()) / sum(plan.shape.values()) < 0.6
    lenders = {
        region: {name for name, bands in plan.lend.items() if bands.get("features", {}).get(region, 0) > 0}
        for region in ("eyes", "nose", "mouth", "face")
    }
    assert len(set.union(*lenders.values())) >= 3
    assert not Path(personas.__file__).parent.joinpath(plan.canvas).exists(), "sources do not ship"


def test_finish_crops_and_adds_the_same_grain_for_a_seed() -> None:
    picture = np.full((64, 64, 3), 0.5)
    once, again = (finish(picture, {"crop": (0.1, 0.1, 0.8), "grain": 0.01}, 7) for _ in range(2))
    assert np.array_equal(once, again)
    assert once.std() == pytest.approx(0.01, rel=0.2)
