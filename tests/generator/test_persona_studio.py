"""The studio's pure parts: recipe, atlas, strands, skin mixing, painted eyes. Blender itself is not needed."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from generator import personas
from generator.head import default_head
from generator.personas.make import add_grain
from generator.personas.studio import eyes, groom
from generator.personas.studio.head import load_correspondence
from generator.personas.studio.recipe import read_recipe
from generator.personas.studio.skin import Face, Sheet, derive_maps, mix, to_linear, to_srgb
from generator.personas.studio.surface import Cylinder, Skin

FOLDER = Path(personas.__file__).parent / "ilias"
RADIUS_M = 0.1
CYLINDER = Cylinder(axis_y=0.0, bottom_z=-0.2, top_z=0.11)


def ball() -> Skin:
    """A head as physicists know it: a sphere of 10 cm."""
    height, turn = np.meshgrid(np.linspace(0.02, np.pi - 0.02, 60), np.linspace(0, 2 * np.pi, 90), indexing="ij")
    normals = np.stack([np.sin(height) * np.sin(turn), -np.sin(height) * np.cos(turn), np.cos(height)], -1)
    normals = normals.reshape(-1, 3)
    index = np.arange(60 * 90).reshape(60, 90)
    a, b, c, d = index[:-1, :-1], index[1:, :-1], index[1:, 1:], index[:-1, 1:]
    triangles = np.concatenate([np.stack([a, b, c], -1).reshape(-1, 3), np.stack([a, c, d], -1).reshape(-1, 3)])
    return Skin(normals * RADIUS_M, normals, triangles)


def landmarks_of_the_mean_head() -> np.ndarray:
    """The product's own mean head, turned from its axes (y down, z away) into the studio's (y away, z up)."""
    head = default_head()
    points = head.at_landmarks(head.mean_V3)
    return np.stack([points[:, 0], points[:, 2], -points[:, 1]], 1).astype(float)


def test_recipe_is_complete_and_its_skin_ships() -> None:
    recipe = read_recipe(FOLDER / "persona.json")
    assert recipe.name == "ilias"
    assert set(recipe.dyes) == {"hair", "brow", "lash", "stubble"}
    albedo = cv2.imread(str(FOLDER / "albedo.jpg"))
    assert albedo is not None and albedo.shape == (recipe.skin["size_px"], recipe.skin["size_px"], 3)
    assert (FOLDER / "albedo.jpg").stat().st_size < 2 * 2**20


def test_no_single_portrait_makes_the_face() -> None:
    sources = read_recipe(FOLDER / "persona.json").skin["sources"]
    for lent in ("tone", "features"):
        shares = np.array([source[lent].get("face", 0.0) for source in sources])
        assert shares.max() / shares.sum() < 0.6
    shapes = np.array([source["shape_weight"] for source in sources])
    assert shapes.max() / shapes.sum() < 0.3


def test_landmarks_have_weights_that_sum_to_one() -> None:
    match = load_correspondence()
    assert len(match.landmark_L) > 440
    np.testing.assert_allclose(match.weights_L3.sum(1), 1, atol=1e-3)


def test_the_middle_of_the_atlas_is_straight_ahead() -> None:
    uv = CYLINDER.uv(np.array([[0.0, -0.1, 0.11], [0.0, -0.1, -0.2], [0.1, 0.0, 0.0]]))
    np.testing.assert_allclose(uv[0], (0.5, 1.0))
    np.testing.assert_allclose(uv[1], (0.5, 0.0), atol=1e-12)
    assert uv[2, 0] > 0.5, "the sitter's left is on the right of the atlas"


def test_strands_that_aim_at_the_skin_slide_along_it() -> None:
    skin = ball()
    roots, normals = skin.draw_roots(np.ones(len(skin.triangles_F3)), 200, np.random.default_rng(2))
    lengths = np.full(200, 0.02)
    strands = groom.grow(skin, roots, normals, -normals, lengths, 9, curl=0.05, seed=1, clearance_m=0.001)
    assert np.linalg.norm(strands, axis=2).min() > 0.995 * RADIUS_M


def test_a_cut_repeats_for_a_seed() -> None:
    skin, cut = ball(), groom.Cut(hairline=((0, 300), (2000, 300)), num_strands=400)
    grown = [groom.scalp_hair(skin, CYLINDER, RADIUS_M, cut, np.random.default_rng(3)) for _ in range(2)]
    hair = grown[0][0]
    assert hair.points_SK3.shape == (400, 9, 3)
    assert (np.diff(hair.radii_SK, axis=1) <= 0).all(), "strands taper"
    np.testing.assert_array_equal(hair.points_SK3, grown[1][0].points_SK3)


def test_skin_mixing_meets_the_tone_and_fills_what_nobody_showed() -> None:
    rng, landmarks = np.random.default_rng(1), landmarks_of_the_mean_head()
    cylinder = Cylinder(float(landmarks[:, 1].max()), landmarks[152, 2] - 0.1, landmarks[10, 2] + 0.07)
    face = Face(landmarks, cylinder, 256)
    sheets = {
        name: Sheet(shade * np.exp(rng.normal(0, 0.05, (256, 256, 3))), face.front())
        for name, shade in (("a", 0.2), ("b", 0.5))
    }
    share = {"face": 1.0}
    source = {"tone": share, "features": share, "fine": share, "pores": share}
    plan = {"tone_rgb": [0.5, 0.3, 0.2], "sources": [{"file": "a", **source}, {"file": "b", **source}]}
    albedo = mix(sheets, plan, face)
    assert np.isfinite(albedo).all()
    np.testing.assert_allclose(np.median(albedo[60:200, 90:166], (0, 1)), plan["tone_rgb"], rtol=0.25)
    maps = derive_maps(albedo, face, groom.Cut(hairline=((0, 60), (2000, 60))), cylinder)
    for picture in (maps.albedo_AW3, maps.relief_AW, maps.roughness_AW, maps.brow_AW, maps.beard_AW):
        assert picture.min() >= 0 and picture.max() <= 1


def test_srgb_goes_there_and_back() -> None:
    values = np.linspace(0, 1, 101)
    np.testing.assert_allclose(to_srgb(to_linear(values)), values, atol=1e-6)


def test_painted_eye_has_a_dark_pupil_a_coloured_iris_and_a_light_white() -> None:
    picture = eyes.paint(256, 0.38, np.array([0.10, 0.07, 0.03]), np.array([0.06, 0.06, 0.045]), seed=1)
    pupil, iris, white = picture[128, 128].mean(), picture[150, 155].mean(), picture[150, 215].mean()
    assert pupil < 0.5 * iris < 0.5 * white


def test_eyeball_faces_the_camera_and_lies_inside_its_cornea() -> None:
    ball_V3, _, uv = eyes.eyeball(0.015, 0.0059)
    shell_V3, _ = eyes.cornea(0.015, 0.0059)
    np.testing.assert_allclose(uv[0], 0.5, atol=1e-6)
    assert shell_V3[:, 1].min() < ball_V3[:, 1].min() < 0
    assert np.linalg.norm(ball_V3, axis=1).max() < np.linalg.norm(shell_V3, axis=1).min()


def test_grain_is_seeded(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "take.png"), np.full((64, 64, 3), 128, np.uint8))
    for name in ("a", "b"):
        add_grain(tmp_path / "take.png", tmp_path / f"{name}.png", 0.01, seed=5)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert 1.5 < cv2.imread(str(tmp_path / "a.png")).std() < 4


@pytest.mark.parametrize("missing", ["albedo.jpg"])
def test_a_missing_picture_is_named(tmp_path: Path, missing: str) -> None:
    from generator.personas.make import read_picture

    with pytest.raises(FileNotFoundError, match=missing):
        read_picture(tmp_path / missing)
