"""The order sheet: everything that decides how a persona looks, as `persona.json` keeps it under `recipe`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from generator.personas.studio.groom import Cut


@dataclass(frozen=True)
class Picture:
    """How the portrait is taken."""

    size_px: int
    samples: int
    lens_mm: float
    frame_m: float
    aperture_fstop: float
    exposure_ev: float
    grain: float


@dataclass(frozen=True)
class Recipe:
    """One persona.

    Attributes:
        seed: of everything that is drawn at random.
        phenotypes, local_changes: the identity, as sliders of the head model.
        actions: facial actions at rest, 0..1: nobody's face is symmetrical.
        skin: which synthetic portraits lend which part of the skin (see `skin.py`).
    """

    name: str
    seed: int
    phenotypes: dict[str, float]
    local_changes: dict[str, float]
    actions: dict[str, float]
    arms_down_deg: float
    skin: dict[str, Any]
    iris_radius_m: float
    iris_inner_rgb: tuple[float, float, float]
    iris_outer_rgb: tuple[float, float, float]
    hair: Cut
    dyes: dict[str, tuple[float, float]]
    num_brow_hairs: int
    num_stubble_hairs: int
    cloth_rgb: tuple[float, float, float]
    collar_drop_m: float
    collar_slope: float
    picture: Picture


def read_recipe(persona_json: Path) -> Recipe:
    """The recipe inside a persona's record."""
    stated = json.loads(persona_json.read_text(encoding="utf-8"))
    fields = dict(stated["recipe"])
    hair = dict(fields.pop("hair"))
    cut = Cut(hairline=tuple((float(x), float(y)) for x, y in hair.pop("hairline")), **hair)
    picture = Picture(**fields.pop("picture"))
    dyes = {name: (float(dye[0]), float(dye[1])) for name, dye in fields.pop("dyes").items()}
    return Recipe(name=stated["name"], hair=cut, picture=picture, dyes=dyes, **fields)
