"""Make a persona: cast its shape, mix its skin, set the model, take the portrait. Build time only.

    python -m generator.personas.make landmarks --landmarker FILE                    # -> studio/landmarks.json
    python -m generator.personas.make cast   NAME --textures DIR --landmarker FILE   # shape -> NAME/persona.json
    python -m generator.personas.make skin   NAME --textures DIR --landmarker FILE   # -> NAME/albedo.jpg
    python -m generator.personas.make model  NAME --build DIR                        # -> DIR/NAME.npz
    python -m generator.personas.make render NAME --build DIR                        # -> NAME/portrait.png, its digest

All but the last need the head model, the last one Blender, and the two want different versions of NumPy: README.md
names both environments. The shape in `persona.json` and the skin in `albedo.jpg` ship with the project, so taking the
picture again needs `model` and `render` only, and none of the pictures that lent the skin. `--textures DIR` is the
folder to which the recipe's sources are relative.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from generator.personas.studio.recipe import Recipe, read_recipe
from generator.personas.studio.skin import Face, derive_maps, mix, to_linear, to_srgb
from generator.personas.studio.surface import Floats

if TYPE_CHECKING:
    from generator.personas.studio.fit import PhotoFit
    from generator.personas.studio.head import HeadModel
    from generator.personas.studio.scene import Sitter

HOME = Path(__file__).parent
HEAD_PARTS = ("body", *(f"helper-{side}-{part}" for side in "lr" for part in ("eye", "eyelashes-1", "eyelashes-2")))
# How much of a fitted asymmetry a persona keeps: the fits exaggerate what light and pose pretend.
KEPT_ASYMMETRY = 0.15


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    steps = parser.add_subparsers(dest="step", required=True)
    command = steps.add_parser("landmarks")
    command.add_argument("--landmarker", type=Path, required=True, help="face_landmarker.task")
    for step in ("cast", "skin"):
        command = steps.add_parser(step)
        command.add_argument("name")
        command.add_argument("--textures", type=Path, required=True, help="folder with the synthetic portraits")
        command.add_argument("--landmarker", type=Path, required=True, help="face_landmarker.task")
    command = steps.add_parser("model")
    command.add_argument("name")
    command.add_argument("--build", type=Path, required=True, help="folder for intermediate files")
    command = steps.add_parser("render")
    command.add_argument("name")
    command.add_argument("--build", type=Path, required=True)
    command.add_argument("--preview", type=Path, help="write a small, quick picture here instead")
    command.add_argument("--threads", type=int, default=2)
    asked = parser.parse_args()
    if asked.step == "landmarks":
        find_landmarks(asked.landmarker)
        return
    folder = HOME / asked.name
    recipe = read_recipe(folder / "persona.json")
    if asked.step == "cast":
        cast(folder, recipe, asked.textures, asked.landmarker)
    elif asked.step == "skin":
        mix_skin(folder, recipe, asked.textures, asked.landmarker)
    elif asked.step == "model":
        save_model(recipe, asked.build / f"{recipe.name}.npz")
    else:
        render(folder, recipe, asked.build / f"{recipe.name}.npz", asked.preview, asked.threads)


def find_landmarks(landmarker: Path) -> None:
    """Where the landmarker's points lie on the head model; only needed anew when either of them changes."""
    from generator.personas.studio.fit import Landmarker, find_correspondence
    from generator.personas.studio.head import CORRESPONDENCE_FILE, HeadModel

    find_correspondence(HeadModel(), Landmarker(landmarker)).save(CORRESPONDENCE_FILE)


def _fit_sources(model: HeadModel, recipe: Recipe, textures: Path, landmarker: Path) -> dict[str, tuple[PhotoFit, Any]]:
    from generator.personas.studio.fit import Landmarker, fit_photo, read_square
    from generator.personas.studio.head import load_correspondence

    find, match = Landmarker(landmarker), load_correspondence()
    fits = {}
    for source in recipe.skin["sources"]:
        picture = read_square(textures / source["file"])
        fits[source["file"]] = fit_photo(model, match, find(picture), picture.shape[0]), picture
    return fits


def cast(folder: Path, recipe: Recipe, textures: Path, landmarker: Path) -> None:
    """Mix the fitted identities into one that is none of them, and write it into the recipe, over changes by hand."""
    from generator.personas.studio.fit import blend_shapes
    from generator.personas.studio.head import HeadModel

    fits = _fit_sources(HeadModel(), recipe, textures, landmarker)
    weights = [float(source["shape_weight"]) for source in recipe.skin["sources"]]
    shape = blend_shapes([fits[source["file"]][0].shape for source in recipe.skin["sources"]], weights)
    changes = dict(shape.local_changes)
    for name in shape.local_changes:
        twin = "r-" + name[2:]
        if name.startswith("l-") and twin in changes:
            middle = (changes[name] + changes[twin]) / 2
            changes[name] = middle + KEPT_ASYMMETRY * (changes[name] - middle)
            changes[twin] = middle + KEPT_ASYMMETRY * (changes[twin] - middle)
        elif name == "head-angle-out" or (name.endswith("trans-out") and not name.startswith(("l-", "r-"))):
            changes[name] *= KEPT_ASYMMETRY
    record = json.loads((folder / "persona.json").read_text(encoding="utf-8"))
    record["recipe"]["local_changes"] = {n: round(v, 4) for n, v in sorted(changes.items()) if abs(v) >= 0.005}
    write_record(folder, record)


def mix_skin(folder: Path, recipe: Recipe, textures: Path, landmarker: Path) -> None:
    """Unwrap the sources onto the sitter and mix them."""
    from generator.personas.studio.atlas import map_atlas, unwrap
    from generator.personas.studio.head import HeadModel, HeadShape, cylinder_of, head_triangles, load_correspondence

    model = HeadModel()
    vertices = model.vertices(HeadShape(recipe.phenotypes, recipe.local_changes), recipe.arms_down_deg, recipe.actions)
    cylinder, head = cylinder_of(vertices, model.topology), head_triangles(vertices, model.topology)
    size_px = int(recipe.skin["size_px"])
    atlas = map_atlas(vertices, head, cylinder, size_px)
    fits = _fit_sources(model, recipe, textures, landmarker)
    sheets = {name: unwrap(fit, picture, head, atlas) for name, (fit, picture) in fits.items()}
    albedo = mix(sheets, recipe.skin, Face(load_correspondence().on(vertices), cylinder, size_px))
    bgr = np.round(to_srgb(albedo)[:, :, ::-1] * 255).astype(np.uint8)
    cv2.imwrite(str(folder / "albedo.jpg"), bgr, [cv2.IMWRITE_JPEG_QUALITY, 92])


def save_model(recipe: Recipe, dst: Path) -> None:
    """Everything of the head model that the render needs, as arrays."""
    from generator.personas.studio.head import HeadModel, HeadShape, cylinder_of, load_correspondence

    model = HeadModel()
    vertices = model.vertices(HeadShape(recipe.phenotypes, recipe.local_changes), recipe.arms_down_deg, recipe.actions)
    cylinder = cylinder_of(vertices, model.topology)
    dst.parent.mkdir(parents=True, exist_ok=True)
    parts: dict[str, Any] = {f"quads_{part}": model.topology.quads(part) for part in HEAD_PARTS}
    np.savez(
        dst,
        vertices=vertices,
        landmarks=load_correspondence().on(vertices),
        cylinder=np.array([cylinder.axis_y, cylinder.bottom_z, cylinder.top_z]),
        **parts,
    )


def render(folder: Path, recipe: Recipe, model: Path, preview: Path | None, num_threads: int) -> None:
    """Take the portrait, add grain, and write its digest into the record; or take a preview and change nothing."""
    from generator.personas.studio.scene import load_sitter, shoot

    sitter: Sitter = load_sitter(model)
    albedo = to_linear(read_picture(folder / "albedo.jpg")[:, :, ::-1] / 255)
    face = Face(sitter.landmarks_L3, sitter.cylinder, len(albedo))
    maps = derive_maps(albedo, face, recipe.hair, sitter.cylinder)
    if preview is not None:
        shoot(sitter, maps, recipe, preview, size_px=384, samples=12, hair_share=0.5, num_threads=num_threads)
        return
    take = model.with_suffix(".png")
    picture = recipe.picture
    shoot(sitter, maps, recipe, take, size_px=picture.size_px, samples=picture.samples, num_threads=num_threads)
    add_grain(take, folder / "portrait.png", picture.grain, recipe.seed)
    record = json.loads((folder / "persona.json").read_text(encoding="utf-8"))
    note_portrait(folder, record)


def note_portrait(folder: Path, record: dict[str, Any]) -> None:
    """Write the digest of a portrait that is not signed yet into its record."""
    digest = hashlib.sha256((folder / "portrait.png").read_bytes()).hexdigest()
    record["portrait"]["sha256"] = record["portrait"]["unsigned_sha256"] = digest
    write_record(folder, record)


def read_picture(path: Path) -> Floats:
    """A picture as BGR, 0..255."""
    bgr = cv2.imread(str(path))
    if bgr is None:
        raise FileNotFoundError(f"{path} is not a readable picture; run the step that makes it first")
    return np.asarray(bgr, np.float64)


def add_grain(src: Path, dst: Path, amount: float, seed: int) -> None:
    """Film grain, strongest in the middle tones; `amount` is its standard deviation of full scale."""
    bgr = read_picture(src) / 255
    rng = np.random.default_rng(seed)
    grain = cv2.GaussianBlur(rng.normal(size=bgr.shape[:2]), (0, 0), 0.7)
    grain *= amount / grain.std()
    lightness = bgr.mean(-1)
    bgr += (grain * (1 - 0.6 * np.abs(2 * lightness - 1)))[..., None] + rng.normal(0, amount / 5, bgr.shape)
    cv2.imwrite(str(dst), np.round(np.clip(bgr, 0, 1) * 255).astype(np.uint8), [cv2.IMWRITE_PNG_COMPRESSION, 9])


def write_record(folder: Path, record: dict[str, Any]) -> None:
    """Keep a persona's record, in the one form that diffs well."""
    text = json.dumps(record, indent=1, ensure_ascii=False) + "\n"
    (folder / "persona.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
