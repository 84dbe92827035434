"""The casting room: fit the parametric head to photographs of synthetic faces through their landmarks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch

from generator.personas.studio.head import Correspondence, HeadModel, HeadShape, crown_z, vertex_normals
from generator.personas.studio.raster import rasterise
from generator.personas.studio.surface import Floats

NUM_STEPS = 220
FOCAL_IN_WIDTHS = 2.4


@dataclass(frozen=True)
class PhotoFit:
    """A photograph explained: the identity, and where every vertex lands in it (x, y in pixels, depth in metres)."""

    shape: HeadShape
    projected_V3: Floats
    normals_V3: Floats
    predicted_L2: Floats
    observed_L2: Floats


class Landmarker:
    """MediaPipe Face Landmarker: 478 points in pixels."""

    def __init__(self, model: Path) -> None:
        from mediapipe.tasks.python import BaseOptions, vision

        options = vision.FaceLandmarkerOptions(base_options=BaseOptions(model_asset_path=str(model)), num_faces=1)
        self._landmarker = vision.FaceLandmarker.create_from_options(options)

    def __call__(self, bgr_HW3: np.ndarray) -> Floats:
        import mediapipe

        height, width = bgr_HW3.shape[:2]
        rgb = np.ascontiguousarray(bgr_HW3[:, :, ::-1])
        found = self._landmarker.detect(mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=rgb))
        if not found.face_landmarks:
            raise ValueError("no face was found in this picture; choose a frontal one")
        return np.array([[p.x * width, p.y * height] for p in found.face_landmarks[0]])


def _to_camera(vertices_V3: Floats, top_z: float) -> Floats:
    shifted = vertices_V3 - np.array([0.0, 0.0, top_z - 0.14])
    return np.stack([shifted[:, 0], -shifted[:, 2], shifted[:, 1]], 1)


def find_correspondence(model: HeadModel, landmarker: Landmarker) -> Correspondence:
    """Render the average head, run the landmarker on the render, look up what lies under each landmark."""
    rest = model.vertices(AVERAGE)
    topology = model.topology
    camera = _to_camera(rest, crown_z(rest, topology))
    body = topology.triangles("body")
    body = body[camera[body, 1].max(1) < 0.2]
    eyes = topology.triangles("helper-l-eye", "helper-r-eye")
    triangles = np.concatenate([body, eyes])
    size, distance = 1024, 1.5
    focal = size * 1.5 / 0.30 * 0.85
    depth = camera[:, 2] + distance
    projected = np.stack([camera[:, 0] / depth * focal + size / 2, camera[:, 1] / depth * focal + size / 2, depth], 1)
    triangle_HW, weights_HW3, _ = rasterise(projected, triangles, size, size)
    hit = triangle_HW >= 0
    corners = triangles[triangle_HW[hit]]
    weights = weights_HW3[hit][..., None]
    normal = (vertex_normals(camera, triangles)[corners] * weights).sum(1)
    normal /= np.linalg.norm(normal, axis=1, keepdims=True) + 1e-9
    light = np.array([0.35, -0.45, -0.82])
    facing = normal @ (light / np.linalg.norm(light))
    if np.median(normal[:, 2]) > 0:
        facing = -facing
    colour = np.tile(np.array([120.0, 150.0, 200.0]), (len(facing), 1))
    is_eye = triangle_HW[hit] >= len(body)
    colour[is_eye] = 235.0
    position = (camera[corners] * weights).sum(1)
    for group in ("helper-l-eye", "helper-r-eye"):
        eye = camera[np.unique(topology.quads(group))]
        radius = np.ptp(eye[:, 0]) / 2
        away = np.hypot(*(position[:, :2] - eye.mean(0)[:2]).T)
        colour[is_eye & (away < radius * 0.48)] = (60, 90, 110)
        colour[is_eye & (away < radius * 0.2)] = 5
    image = np.full((size, size, 3), 120.0)
    image[hit] = colour * np.clip(np.clip(facing, 0, 1) * 0.75 + 0.3, 0, 1.1)[:, None]
    points = landmarker(np.clip(image, 0, 255).astype(np.uint8))
    found = []
    for index, (x, y) in enumerate(points):
        column, row = round(float(x)), round(float(y))
        triangle = int(triangle_HW[row, column])
        if 0 <= triangle < len(body):
            found.append((index, body[triangle], weights_HW3[row, column]))
    return Correspondence(
        np.array([f[0] for f in found]), np.array([f[1] for f in found]), np.array([f[2] for f in found])
    )


AVERAGE = HeadShape({"african": 0.33, "asian": 0.33, "caucasian": 0.34, "age": 0.55})


def fit_photo(model: HeadModel, match: Correspondence, landmarks_478: Floats, size_px: int) -> PhotoFit:
    """Adam on identity, facial actions, pose, distance; a similarity start and a robust loss keep it from diverging."""
    import roma

    start = model.vertices(AVERAGE)
    origin = torch.tensor([0.0, 0.0, crown_z(start, model.topology) - 0.14], dtype=torch.float32)
    target = torch.tensor(landmarks_478[match.landmark_L], dtype=torch.float32)
    triples = torch.tensor(match.vertices_L3)
    weights = torch.tensor(match.weights_L3, dtype=torch.float32)
    focal = FOCAL_IN_WIDTHS * size_px
    phenotype_logit = torch.zeros(len(model.phenotype_names), requires_grad=True)
    change_raw = torch.zeros(len(model.change_names), requires_grad=True)
    action_logit = torch.full((len(model.action_names),), -3.0, requires_grad=True)
    rotation = torch.zeros(3, requires_grad=True)
    shift = torch.zeros(2, requires_grad=True)
    log_distance = torch.tensor(float(np.log(FOCAL_IN_WIDTHS * 0.30 / 0.62)), requires_grad=True)

    def vertices() -> torch.Tensor:
        phenotypes = {n: torch.sigmoid(phenotype_logit[i])[None] for i, n in enumerate(model.phenotype_names)}
        changes = {n: torch.tanh(change_raw[i])[None] for i, n in enumerate(model.change_names)}
        actions = {n: torch.sigmoid(action_logit[i])[None] for i, n in enumerate(model.action_names)}
        return model.forward(phenotypes, changes, actions)

    def project(points: torch.Tensor) -> torch.Tensor:
        moved = points - origin
        camera = torch.stack([moved[:, 0], -moved[:, 2], moved[:, 1]], 1)
        camera = camera @ roma.rotvec_to_rotmat(rotation).T
        depth = camera[:, 2] + torch.exp(log_distance)
        x = (camera[:, 0] + shift[0]) / depth * focal + size_px / 2
        y = (camera[:, 1] + shift[1]) / depth * focal + size_px / 2
        return torch.stack([x, y, depth], 1)

    def predict() -> torch.Tensor:
        return (project(vertices())[triples][:, :, :2] * weights[:, :, None]).sum(1)

    with torch.no_grad():
        for _ in range(3):
            now = predict()
            log_distance += torch.log((now - now.mean(0)).norm() / (target - target.mean(0)).norm())
            shift += (target.mean(0) - predict().mean(0)) * torch.exp(log_distance) / focal
    optimiser = torch.optim.Adam(
        [
            {"params": [rotation, shift, log_distance], "lr": 0.002},
            {"params": [phenotype_logit, change_raw], "lr": 0.08},
            {"params": [action_logit], "lr": 0.1},
        ]
    )
    for _ in range(NUM_STEPS):
        error = ((predict() - target) / size_px * 100).norm(dim=1)
        loss = torch.nn.functional.huber_loss(error, torch.zeros_like(error), delta=2.0) * 2
        loss = loss + 0.02 * (phenotype_logit**2).mean() + 0.05 * (torch.tanh(change_raw) ** 2).mean()
        loss = loss + 0.15 * torch.sigmoid(action_logit).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        points = vertices()
        projected = project(points)
        predicted = (projected[triples][:, :, :2] * weights[:, :, None]).sum(1).double().numpy()
        phenotypes = torch.sigmoid(phenotype_logit).tolist()
        changes = torch.tanh(change_raw).tolist()
        moved = (points - origin).double().numpy()
        camera = np.stack([moved[:, 0], -moved[:, 2], moved[:, 1]], 1)
        camera = camera @ roma.rotvec_to_rotmat(rotation).double().numpy().T
    shape = HeadShape(
        dict(zip(model.phenotype_names, phenotypes, strict=True)), dict(zip(model.change_names, changes, strict=True))
    )
    normals = vertex_normals(camera, model.topology.triangles("body"))
    observed = landmarks_478[match.landmark_L]
    print(
        f"  mean landmark error {np.linalg.norm(predicted - observed, axis=1).mean():.2f} px of {size_px}", flush=True
    )
    return PhotoFit(shape, projected.double().numpy(), normals, predicted, observed)


def blend_shapes(shapes: list[HeadShape], weights: list[float]) -> HeadShape:
    """The mixture of several identities: weighted mean of every slider."""
    total = sum(weights)
    names = {n for s in shapes for n in s.phenotypes}, {n for s in shapes for n in s.local_changes}
    mean = [
        {
            name: sum(w * getattr(s, kind).get(name, default) for s, w in zip(shapes, weights, strict=True)) / total
            for name in sorted(group)
        }
        for kind, default, group in (("phenotypes", 0.5, names[0]), ("local_changes", 0.0, names[1]))
    ]
    return HeadShape(mean[0], mean[1])


def read_square(path: Path) -> np.ndarray:
    """A picture as BGR, cut to a square."""
    image = cv2.imread(str(path))
    if image is None:
        raise FileNotFoundError(f"{path} is not a readable picture")
    side = min(image.shape[:2])
    return image[:side, :side]
