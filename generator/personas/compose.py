"""Compose a persona out of synthetic portraits: build time only, seconds on one core, no Blender.

    python -m generator.personas.compose average --portraits DIR                          # -> studio/average_face.json
    python -m generator.personas.compose portrait NAME --portraits DIR [--enlarged DIR]   # -> NAME/portrait.png
    python -m generator.personas.compose nearest --faces DIR [--faces DIR ...]            # -> */persona.json

`portrait` follows the plan in `NAME/persona.json` (see `studio/collage.py`); `--portraits` is the folder to which its
files are relative, and `--enlarged` one with larger versions of some of them (see `enlarge.py`). What comes out is not
signed yet: `python -m generator.personas.sign` does that for all personas together. `nearest` measures for all of them
how far the nearest face in each folder is.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from generator.likeness import FaceTemplate, face_template
from generator.perception import detect_faces, face_landmarks
from generator.personas import list_personas
from generator.personas.make import HOME, note_portrait, write_record
from generator.personas.studio.collage import Collage, Print, compose, lay_over, read_collage
from generator.personas.studio.surface import Floats

Picture = NDArray[np.uint8]
AVERAGE_FILE = Path(__file__).parent / "studio" / "average_face.json"
PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png")
_NUM_VIEWS = 4
_NUM_AVERAGINGS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    steps = parser.add_subparsers(dest="step", required=True)
    command = steps.add_parser("average")
    command.add_argument("--portraits", type=Path, required=True, help="folder with synthetic portraits")
    command = steps.add_parser("portrait")
    command.add_argument("name")
    command.add_argument("--portraits", type=Path, required=True, help="folder with the synthetic portraits")
    command.add_argument("--enlarged", type=Path, help="folder with enlarged versions, NAME.png for NAME.jpg")
    command.add_argument("--preview", type=Path, help="write the picture here and change nothing")
    command = steps.add_parser("nearest")
    command.add_argument("--faces", type=Path, required=True, action="append", help="folder with faces to compare with")
    asked = parser.parse_args()
    if asked.step == "average":
        average_shape(asked.portraits)
    elif asked.step == "portrait":
        take(asked.name, asked.portraits, asked.enlarged, asked.preview)
    else:
        note_nearest({folder.name: templates_in(folder) for folder in asked.faces})


def read_picture(path: Path) -> Picture:
    """A picture as sRGB, cut to a square from its top. Raises: FileNotFoundError."""
    bgr = cv2.imread(str(path))
    if bgr is None:
        raise FileNotFoundError(f"{path} is not a readable picture; name the folder that the recipe's files are in")
    side = min(bgr.shape[:2])
    return np.ascontiguousarray(bgr[:side, :side, ::-1]).astype(np.uint8)


def read_print(path: Path) -> Print:
    """A portrait with its landmarks. Raises: ValueError: no face in it."""
    rgb_HW3 = read_picture(path)
    faces = detect_faces(rgb_HW3)
    if not faces:
        raise ValueError(f"there is no face in {path.name}; choose a frontal portrait")
    landmarks = face_landmarks(rgb_HW3, max(faces, key=lambda face: face.size_px), num_views=_NUM_VIEWS)
    return Print(rgb_HW3.astype(np.float64) / 255, landmarks.points_L3.astype(np.float64))


def average_shape(portraits: Path) -> None:
    """Write the mean face of a folder, after laying all over each other, one face's width wide."""
    shapes = [read_print(path).points_L3 for path in _pictures(portraits)]
    mean = shapes[0]
    for _ in range(_NUM_AVERAGINGS):
        mean = np.mean([lay_over(shape, mean) for shape in shapes], axis=0)
    mean = (mean - mean.mean(0)) / np.ptp(mean[:, 0])
    rows = ",\n".join(json.dumps(row) for row in mean.round(4).tolist())
    AVERAGE_FILE.write_text(f"[\n{rows}\n]\n", encoding="utf-8")


def _pictures(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.rglob("*")) if path.suffix.lower() in PICTURE_SUFFIXES]


def _read_record(name: str) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((HOME / name / "persona.json").read_text(encoding="utf-8"))
    return record


def _find(name: str, portraits: Path, enlarged: Path | None) -> Path:
    larger = enlarged / Path(name).with_suffix(".png").name if enlarged is not None else None
    return larger if larger is not None and larger.is_file() else portraits / name


def take(name: str, portraits: Path, enlarged: Path | None, preview: Path | None) -> None:
    """Compose one persona's portrait and write it with its digest, or write a preview and change nothing."""
    record = _read_record(name)
    recipe = record["recipe"]
    plan: Collage = read_collage(recipe["collage"])
    prints = {source: read_print(_find(source, portraits, enlarged)) for source in plan.sources}
    average_L3 = np.array(json.loads(AVERAGE_FILE.read_text(encoding="utf-8")))
    rgb_HW3 = compose(plan, prints, average_L3, int(recipe["size_px"]))[0]
    rgb_HW3 = finish(rgb_HW3, recipe["finish"], int(recipe["seed"]))
    bgr = np.round(rgb_HW3[:, :, ::-1] * 255).astype(np.uint8)
    png = cv2.imencode(".png", bgr, [cv2.IMWRITE_PNG_COMPRESSION, 9])[1].tobytes()
    if preview is not None:
        preview.write_bytes(png)
    else:
        (HOME / name / record["portrait"]["file"]).write_bytes(png)
        note_portrait(HOME / name, record)


def finish(rgb_HW3: Floats, wishes: dict[str, Any], seed: int) -> Floats:
    """Crop, exposure and a little grain.

    Args:
        wishes: `crop` (left, top, side as shares of the picture), `exposure_ev`, `white` (gains of red, green, blue),
            `grain` (standard deviation of full scale).
    """
    size_px = len(rgb_HW3)
    left, top, side = (float(share) * size_px for share in wishes.get("crop", (0, 0, 1)))
    matrix = np.array([[size_px / side, 0, -left * size_px / side], [0, size_px / side, -top * size_px / side]])
    cut = cv2.warpAffine(rgb_HW3, matrix, (size_px, size_px), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)
    gain = 2.0 ** float(wishes.get("exposure_ev", 0.0)) * np.array(wishes.get("white", (1.0, 1.0, 1.0)))
    cut = np.clip(cut, 0, 1) * gain ** (1 / 2.2)
    grain = np.random.default_rng(seed).normal(0, float(wishes.get("grain", 0.0)), cut.shape[:2])
    return np.clip(cut + grain[..., None], 0, 1)


def template_of(picture: Picture) -> FaceTemplate | None:
    """The template of the largest face, if there is one."""
    faces = detect_faces(picture)
    return face_template(picture, max(faces, key=lambda face: face.size_px)) if faces else None


def templates_in(folder: Path) -> list[FaceTemplate]:
    """One template for every picture with a face, in the folder and below."""
    found = (template_of(read_picture(path)) for path in _pictures(folder))
    return [template for template in found if template is not None]


def note_nearest(faces: Mapping[str, Sequence[FaceTemplate]]) -> None:
    """Write into every persona's record how far the nearest face of each collection is."""
    for persona in list_personas():
        own = template_of(read_picture(persona.portrait_path))
        if own is None:
            raise ValueError(f"there is no face in the portrait of {persona.name!r}; compose it again")
        nearest = {
            name: {"num_faces": len(templates), "distance": round(min(map(own.distance_to, templates)), 3)}
            for name, templates in faces.items()
        }
        print(persona.name, nearest, flush=True)
        record = _read_record(persona.name)
        record["likeness"] = {"measure": "distance of face templates (dlib's ResNet)", "nearest": nearest}
        write_record(HOME / persona.name, record)


if __name__ == "__main__":
    main()
