"""The photographer: sets the sitter under the lights and takes the picture with Cycles."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bpy
import numpy as np

from generator.personas.studio import eyes, groom, wardrobe
from generator.personas.studio.blender import (
    Material,
    add_curves,
    add_image,
    add_mesh,
    clear,
    look_at,
    place,
    read_mesh,
    set_uv,
    set_vertices,
    subdivide,
)
from generator.personas.studio.recipe import Recipe
from generator.personas.studio.skin import Maps
from generator.personas.studio.surface import Cylinder, Floats, Ints, Skin

CHIN, NOSE_TIP, FOREHEAD_TOP = 152, 1, 10


@dataclass(frozen=True)
class Sitter:
    """The head model's output: vertices_V3, quads by group, landmarks on the skin (NaN where there is none)."""

    vertices_V3: Floats
    quads: dict[str, Ints]
    landmarks_L3: Floats
    cylinder: Cylinder

    @property
    def crown_z(self) -> float:
        return float(self.vertices_V3[np.unique(self.quads["body"]), 2].max())

    def part(self, group: str) -> Floats:
        return self.vertices_V3[np.unique(self.quads[group])]

    def body_below(self, top_z: float, bottom_z: float) -> tuple[Floats, Ints]:
        """Vertices and quads of the body between two heights."""
        quads = self.quads["body"]
        heights = self.vertices_V3[quads, 2]
        used, faces = np.unique(quads[(heights.min(1) > bottom_z) & (heights.max(1) < top_z)], return_inverse=True)
        return self.vertices_V3[used], faces.reshape(-1, 4)


def load_sitter(path: Path) -> Sitter:
    """Read what `make.py model` wrote."""
    with np.load(path) as data:
        quads = {name[6:]: data[name] for name in data.files if name.startswith("quads_")}
        axis_y, bottom_z, top_z = (float(v) for v in data["cylinder"])
        return Sitter(data["vertices"], quads, data["landmarks"], Cylinder(axis_y, bottom_z, top_z))


def _skin_material(maps: Maps) -> Any:
    m = Material.new("skin")
    albedo = m.node("TexImage", image=add_image("albedo", maps.albedo_AW3, is_colour=True), extension="EXTEND")
    relief = m.node("TexImage", image=add_image("relief", maps.relief_AW, is_colour=False), extension="EXTEND")
    rough = m.node("TexImage", image=add_image("roughness", maps.roughness_AW, is_colour=False), extension="EXTEND")
    for texture in (albedo, relief):
        texture.interpolation = "Cubic"
    at = m.node("NewGeometry").outputs["Position"]
    pores = m.node("TexVoronoi", {"Vector": at, "Scale": 1100.0, "Randomness": 1.0}).outputs["Distance"]
    lines = m.node("TexNoise", {"Vector": at, "Scale": 420.0, "Detail": 4.0, "Roughness": 0.65}).outputs["Fac"]
    bump = m.node("Bump", {"Strength": 0.14, "Distance": 0.0006, "Height": pores})
    bump = m.node("Bump", {"Strength": 0.22, "Distance": 0.0010, "Height": lines, "Normal": bump.outputs[0]})
    bump = m.node(
        "Bump", {"Strength": 0.35, "Distance": 0.0016, "Height": relief.outputs["Color"], "Normal": bump.outputs[0]}
    )
    blotches = m.node("TexNoise", {"Vector": at, "Scale": 55.0, "Detail": 5.0, "Roughness": 0.6}).outputs["Fac"]
    gain = m.node("MapRange", {"Value": blotches, "From Min": 0.3, "From Max": 0.7, "To Min": 0.93, "To Max": 1.06})
    colour = m.node("VectorMath", {0: albedo.outputs["Color"], 1: gain.outputs["Result"]}, operation="MULTIPLY")
    return m.finish(
        m.node(
            "BsdfPrincipled",
            {
                "Base Color": colour.outputs[0],
                "Roughness": rough.outputs["Color"],
                "Subsurface Weight": 1.0,
                "Subsurface Radius": (1.0, 0.36, 0.2),
                "Subsurface Scale": 0.0022,
                "Specular IOR Level": 0.42,
                "IOR": 1.4,
                "Coat Weight": 0.04,
                "Coat Roughness": 0.3,
                "Normal": bump.outputs[0],
            },
        )
    )


def _wet_material() -> Any:
    m = Material.new("wet")
    share = m.node("Fresnel", {"IOR": 1.38}).outputs[0]
    clear_, mirror = m.node("BsdfTransparent"), m.node("BsdfGlossy", {"Roughness": 0.035})
    return m.finish(m.node("MixShader", {0: share, 1: clear_.outputs[0], 2: mirror.outputs[0]}))


def _eye_material(picture: Floats) -> Any:
    m = Material.new("eye")
    encoded = np.where(picture <= 0.0031308, picture * 12.92, 1.055 * np.clip(picture, 0, None) ** (1 / 2.4) - 0.055)
    texture = m.node("TexImage", image=add_image("eye", encoded, is_colour=True), interpolation="Cubic")
    return m.finish(
        m.node(
            "BsdfPrincipled",
            {
                "Base Color": texture.outputs["Color"],
                "Roughness": 0.35,
                "Subsurface Weight": 0.25,
                "Subsurface Radius": (1.0, 0.5, 0.4),
                "Subsurface Scale": 0.0015,
                "Specular IOR Level": 0.25,
            },
        )
    )


def _hair_material(name: str, melanin: float, redness: float) -> Any:
    m = Material.new(name)
    hair = m.node("BsdfHairPrincipled", parametrization="MELANIN")
    for key, value in {
        "Melanin": melanin,
        "Melanin Redness": redness,
        "Roughness": 0.28,
        "Radial Roughness": 0.4,
        "Random Color": 0.12,
        "Random Roughness": 0.2,
    }.items():
        hair.inputs[key].default_value = value
    return m.finish(hair)


def _cloth_material(name: str, rgb: tuple[float, float, float], *, is_ribbed: bool) -> Any:
    m = Material.new(name)
    at = m.node("NewGeometry").outputs["Position"]
    if is_ribbed:
        wave = m.node("TexWave", {"Vector": m.node("UVMap").outputs[0], "Scale": 0.314, "Distortion": 0.3})
        weave = m.node("Bump", {"Strength": 0.6, "Distance": 0.0012, "Height": wave.outputs["Fac"]})
    else:
        noise = m.node("TexNoise", {"Vector": at, "Scale": 900.0, "Detail": 3.0})
        weave = m.node("Bump", {"Strength": 0.5, "Distance": 0.0008, "Height": noise.outputs["Fac"]})
    folds = m.node("TexNoise", {"Vector": at, "Scale": 24.0, "Detail": 3.0, "Distortion": 0.6}).outputs["Fac"]
    bump = m.node("Bump", {"Strength": 0.5, "Distance": 0.006, "Height": folds, "Normal": weave.outputs[0]})
    return m.finish(
        m.node(
            "BsdfPrincipled",
            {
                "Base Color": (*rgb, 1.0),
                "Roughness": 0.9,
                "Sheen Weight": 0.12,
                "Sheen Roughness": 0.4,
                "Specular IOR Level": 0.2,
                "Normal": bump.outputs[0],
            },
        )
    )


def _backdrop_material() -> Any:
    m = Material.new("backdrop")
    at = m.node("TexCoord").outputs["Object"]
    glow = m.node("TexGradient", {"Vector": at}, gradient_type="SPHERICAL").outputs["Fac"]
    ramp = m.node("ValToRGB", {"Fac": glow})
    ramp.color_ramp.elements[0].color = (0.035, 0.038, 0.043, 1)
    ramp.color_ramp.elements[1].color = (0.17, 0.18, 0.19, 1)
    cloud = m.node("TexNoise", {"Vector": at, "Scale": 2.2, "Detail": 2.0}).outputs["Fac"]
    gain = m.node("MapRange", {"Value": cloud, "To Min": 0.75, "To Max": 1.3}).outputs["Result"]
    colour = m.node("VectorMath", {0: ramp.outputs[0], 1: gain}, operation="MULTIPLY")
    return m.finish(m.node("Emission", {"Color": colour.outputs[0], "Strength": 1.4}))


def _dress(sitter: Sitter, skin: Skin, recipe: Recipe) -> None:
    neckline = wardrobe.Neckline(sitter.landmarks_L3[CHIN], recipe.collar_drop_m, recipe.collar_slope)
    vertices, faces, uv = wardrobe.collar(skin, neckline)
    band = add_mesh("collar", vertices, faces, uv)
    band.data.materials.append(_cloth_material("rib", recipe.cloth_rgb, is_ribbed=True))
    cut = sitter.body_below(neckline.front_z + 0.11, sitter.crown_z - 0.75)
    cloth = subdivide(add_mesh("jersey", *cut), 3)
    body, normals, _ = read_mesh(cloth)
    set_vertices(cloth, wardrobe.jersey(body, normals, neckline))
    above = body[:, 2] > neckline.height(body) - 0.006
    mesh = cloth.data
    corners = np.zeros(len(mesh.loops), np.int32)
    mesh.loops.foreach_get("vertex_index", corners)
    hung, _, _ = read_mesh(cloth)
    kept = corners.reshape(-1, 4).astype(np.int64)
    kept = kept[~above[kept].any(1)]
    bpy.data.objects.remove(cloth)
    add_mesh("jersey", hung, kept).data.materials.append(_cloth_material("jersey", recipe.cloth_rgb, is_ribbed=False))


def _eyes(sitter: Sitter, recipe: Recipe, camera_at: Floats) -> list[Floats]:
    wet = _wet_material()
    centres = []
    for side in "lr":
        shell = sitter.part(f"helper-{side}-eye")
        centre = (shell.min(0) + shell.max(0)) / 2
        radius = float(np.ptp(shell, axis=0)[[0, 2]].mean() / 2)
        iris = recipe.iris_radius_m
        vertices, faces, uv = eyes.eyeball(radius, iris)
        ball = add_mesh(f"eye {side}", vertices, faces, uv)
        inner, outer = np.array(recipe.iris_inner_rgb), np.array(recipe.iris_outer_rgb)
        ball.data.materials.append(
            _eye_material(eyes.paint(1024, iris / radius, inner, outer, recipe.seed + ord(side)))
        )
        shell_vertices, shell_faces = eyes.cornea(radius, iris)
        cover = add_mesh(f"cornea {side}", shell_vertices, shell_faces)
        cover.data.materials.append(wet)
        for thing in (ball, cover):
            look_at(thing, centre, camera_at, "-Y", "Z")
        centres.append(centre)
    return centres


def _hair(sitter: Sitter, skin: Skin, maps: Maps, recipe: Recipe, share: float) -> None:
    rng = np.random.default_rng(recipe.seed)
    crown, cylinder = sitter.crown_z, sitter.cylinder
    growths = groom.scalp_hair(skin, cylinder, crown, recipe.hair, rng, share)
    growths.append(groom.brows(skin, cylinder, maps.brow_AW, recipe.num_brow_hairs, rng))
    growths.append(groom.stubble(skin, cylinder, maps.beard_AW, int(recipe.num_stubble_hairs * share), rng))
    for side, sign in (("l", 1.0), ("r", -1.0)):
        shell = sitter.part(f"helper-{side}-eye")
        centre = (shell.min(0) + shell.max(0)) / 2
        for row, is_upper, count in (("2", True, 130), ("1", False, 70)):
            strip = sitter.part(f"helper-{side}-eyelashes-{row}")
            growths.append(groom.lashes(strip, centre, sign, is_upper=is_upper, num_hairs=count, rng=rng))
    dyes = {name: _hair_material(name, *dye) for name, dye in recipe.dyes.items()}
    for growth in growths:
        add_curves(growth.name, growth.points_SK3, growth.radii_SK, dyes[growth.dye])


def _lamp(name: str, at: Floats, to: Floats, size: tuple[float, float], power_w: float, rgb: tuple[float, ...]) -> None:
    lamp = bpy.data.lights.new(name, "AREA")
    lamp.shape, lamp.size, lamp.size_y = "RECTANGLE", *size
    lamp.energy, lamp.color = power_w, rgb
    look_at(place(bpy.data.objects.new(name, lamp)), at, to)


def _light(scene: Any, face: Floats) -> None:
    """A large soft key from the picture's left, a weak cool fill, two strips from behind, a dim room."""
    _lamp("key", face + np.array([-0.75, -1.0, 0.62]), face, (0.75, 0.95), 19, (1, 0.965, 0.92))
    _lamp("fill", face + np.array([1.1, -1.0, 0.05]), face, (1.2, 1.2), 7.5, (0.92, 0.96, 1))
    _lamp(
        "rim left",
        face + np.array([0.75, 0.75, 0.55]),
        face + np.array([0, 0.08, 0.03]),
        (0.35, 0.9),
        6.5,
        (0.95, 0.97, 1),
    )
    _lamp("rim right", face + np.array([-0.8, 0.8, 0.35]), face + np.array([0, 0.08, 0]), (0.3, 0.9), 4, (1, 0.95, 0.9))
    world = bpy.data.worlds.new("room")
    scene.world = world
    if world.node_tree is None:
        world.use_nodes = True
    background = next(node for node in world.node_tree.nodes if node.type == "BACKGROUND")
    background.inputs[0].default_value, background.inputs[1].default_value = (0.16, 0.17, 0.19, 1), 0.7
    corners = np.array([[-1, 0, -1], [1, 0, -1], [1, 0, 1], [-1, 0, 1]], float)
    wall = add_mesh("backdrop", corners, [(0, 1, 2, 3)])
    wall.scale, wall.location = (1.1, 1, 1.1), tuple(face + np.array([0.12, 2.0, 0.0]))
    wall.data.materials.append(_backdrop_material())
    wall.visible_diffuse = wall.visible_glossy = False


def _camera(scene: Any, recipe: Recipe, face: Floats) -> tuple[Any, Floats]:
    picture = recipe.picture
    lens = bpy.data.cameras.new("camera")
    lens.lens, lens.sensor_width = picture.lens_mm, 36.0
    camera = place(bpy.data.objects.new("camera", lens))
    at = face + np.array([0.0, -picture.lens_mm / 36.0 * picture.frame_m, 0.012])
    look_at(camera, at, face - np.array([0.0, 0.0, 0.006]))
    scene.camera = camera
    return lens, at


def shoot(
    sitter: Sitter,
    maps: Maps,
    recipe: Recipe,
    dst: Path,
    *,
    size_px: int,
    samples: int,
    hair_share: float = 1.0,
    num_threads: int = 2,
    window: tuple[float, float, float, float] | None = None,
) -> None:
    """Render the portrait to `dst` (PNG).

    Args:
        size_px, samples: of this take; lower than the recipe's for a preview.
        hair_share: grow only this share of the scalp hair (previews).
        window: render only this part of the picture: left, top, right, bottom, each 0..1.
    """
    scene = clear()
    vertices, faces = sitter.body_below(np.inf, sitter.crown_z - 0.62)
    body = subdivide(add_mesh("skin", vertices, faces), 2)
    points, normals, triangles = read_mesh(body)
    set_uv(body, sitter.cylinder.uv(points))
    body.data.materials.append(_skin_material(maps))
    skin = Skin(points, normals, triangles)
    chin, nose, brow = (sitter.landmarks_L3[i] for i in (CHIN, NOSE_TIP, FOREHEAD_TOP))
    face = np.array([0.0, nose[1], (brow[2] + chin[2]) / 2 + 0.001])
    lens, camera_at = _camera(scene, recipe, face)
    centres = _eyes(sitter, recipe, camera_at)
    lens.dof.use_dof, lens.dof.aperture_fstop = True, recipe.picture.aperture_fstop
    lens.dof.focus_distance = float(np.linalg.norm(centres[0] - (0, 0.015, 0) - camera_at))
    _hair(sitter, skin, maps, recipe, hair_share)
    _dress(sitter, skin, recipe)
    _light(scene, face)
    render, cycles = scene.render, scene.cycles
    render.engine = "CYCLES"
    cycles.samples, cycles.seed = samples, recipe.seed
    cycles.use_adaptive_sampling, cycles.adaptive_threshold = True, 0.02
    cycles.use_denoising, cycles.denoiser = True, "OPENIMAGEDENOISE"
    cycles.max_bounces, cycles.transparent_max_bounces = 8, 16
    cycles.caustics_reflective = cycles.caustics_refractive = False
    render.threads_mode, render.threads = "FIXED", num_threads
    render.resolution_x = render.resolution_y = size_px
    if window is not None:
        left, top, right, bottom = window
        render.use_border = render.use_crop_to_border = True
        render.border_min_x, render.border_max_x = left, right
        render.border_min_y, render.border_max_y = 1 - bottom, 1 - top
    scene.view_settings.view_transform, scene.view_settings.look = "AgX", "AgX - Medium High Contrast"
    scene.view_settings.exposure = recipe.picture.exposure_ev
    render.image_settings.file_format, render.filepath = "PNG", str(dst)
    bpy.ops.render.render(write_still=True)
