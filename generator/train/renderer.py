"""Train a neural completion of the mouth's inside: `placet train renderer`, and say whether it beats the plain paint.

Self-supervision from stills: of every portrait whose lips are parted, the inside of the mouth is cut out, and a small
U-Net has to give it back from what surrounds it and from what `mouth.py` paints there (the guidance that it also has at
run time). Portraits that are held out, by the hash of their bytes, decide: the network is worth shipping only where it
beats the paint that it starts from. Training is seeded and resumable; the curve is a CSV.

Only portraits of nobody may be in the folder. Nothing here animates: what is painted is the inside of the mouth as the
photo itself shows it.
"""

# N portrait  B batch  C channel  H,W pixel of the patch

from __future__ import annotations

import csv
import hashlib
import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from generator.errors import PortraitError
from generator.fit import rotation
from generator.perception import LIPS_INNER_LOWER, LIPS_INNER_UPPER, detect_faces, face_landmarks, lip_aperture
from generator.portrait import decode_portrait, normalise_portrait, prepare
from generator.renderer import build_rig
from generator.sheet import HeadPose

PATCH_PX: Final = 96
WEIGHTS: Final = "renderer.safetensors"
_PICTURES: Final = frozenset({".png", ".jpg", ".jpeg", ".webp"})
_PARTED: Final = 0.035  # aperture over the distance of the eye corners
_LEAST_OPEN_PX: Final = 60
_HELD_OUT_SHARE: Final = 5  # one portrait in so many is never trained on
_WINDOW: Final = 1.5  # side of the patch in widths of the mouth
_LIT: Final = (0.85, 1.15)


@dataclass(frozen=True)
class RendererPlan:
    """Everything that decides what comes out, apart from the data.

    Attributes:
        minutes: processor time to train for, in all calls together; the learning rate falls to zero over it.
        width: channels of the first level.
    """

    minutes: float = 10.0
    seed: int = 20261122
    batch_size: int = 12
    learning_rate: float = 2e-3
    width: int = 24


@dataclass(frozen=True, eq=False)
class Patches:
    """Mouths that the photos show open.

    Attributes:
        photo_NCHW: 0..1, three channels.
        paint_NCHW: the same with the inside of the mouth as `mouth.py` paints it.
        inside_NCHW: 0..1, one channel: where the mouth is open.
        names: of the portraits.
        is_held_out_N: never trained on.
    """

    photo_NCHW: Tensor
    paint_NCHW: Tensor
    inside_NCHW: Tensor
    names: list[str]
    is_held_out_N: Tensor

    def part(self, held_out: bool) -> Patches:
        rows = torch.nonzero(self.is_held_out_N == held_out)[:, 0]
        return Patches(
            self.photo_NCHW[rows],
            self.paint_NCHW[rows],
            self.inside_NCHW[rows],
            [self.names[int(row)] for row in rows],
            self.is_held_out_N[rows],
        )


@dataclass(frozen=True)
class RendererReport:
    """What was made, and whether it is of use.

    Attributes:
        paint, network: errors inside the mouth on held-out portraits.
        wins: the network is better in every one of them.
    """

    weights: Path
    num_parameters: int
    num_steps: int
    num_trained_on: int
    num_held_out: int
    paint: dict[str, float]
    network: dict[str, float]
    ms_per_patch: float

    @property
    def wins(self) -> bool:
        better = self.network["l1"] < self.paint["l1"] and self.network["gradient"] < self.paint["gradient"]
        return better and self.network["ssim"] > self.paint["ssim"]

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "weights": str(self.weights), "wins": self.wins}


class Completion(nn.Module):
    """A U-Net over three scales that corrects what is painted inside the mouth, and leaves everything else."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        sizes = (width, 2 * width, 3 * width)

        def block(given: int, made: int) -> nn.Module:
            return nn.Sequential(
                nn.Conv2d(given, made, 3, padding=1), nn.SiLU(), nn.Conv2d(made, made, 3, padding=1), nn.SiLU()
            )

        self.down = nn.ModuleList([block(7, sizes[0]), block(sizes[0], sizes[1]), block(sizes[1], sizes[2])])
        self.up = nn.ModuleList([block(sizes[2] + sizes[1], sizes[1]), block(sizes[1] + sizes[0], sizes[0])])
        self.last = nn.Conv2d(sizes[0], 3, 1)
        nn.init.zeros_(self.last.weight)  # before training it is the paint
        nn.init.zeros_(self.last.bias)  # type: ignore[arg-type]

    def forward(self, around_BCHW: Tensor, paint_BCHW: Tensor, inside_BCHW: Tensor) -> Tensor:
        """The patch with the inside of the mouth completed.

        Args:
            around_BCHW: the photo; what lies inside is not looked at.
        """
        outside = around_BCHW * (1 - inside_BCHW)
        level = torch.cat([outside, paint_BCHW, inside_BCHW], 1)
        kept = []
        for step, block in enumerate(self.down):
            level = block(level if step == 0 else F.avg_pool2d(level, 2))
            kept.append(level)
        for block, beside in zip(self.up, kept[-2::-1], strict=True):
            level = block(torch.cat([F.interpolate(level, scale_factor=2, mode="bilinear"), beside], 1))
        return outside + inside_BCHW * (paint_BCHW + self.last(level))


def read_patches(portraits: Path, cache: Path, tell: Callable[[float], None] = lambda _: None) -> Patches:
    """Cut the open mouths out of a folder of portraits; what was cut is kept in `cache`, a folder.

    A portrait that cannot be used (no face, closed lips) is passed over.
    """
    files = sorted(path for path in portraits.rglob("*") if path.suffix.lower() in _PICTURES)
    cache.mkdir(parents=True, exist_ok=True)
    found: list[tuple[str, np.ndarray]] = []
    for done, path in enumerate(files):
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        kept = cache / f"{digest[:24]}.npy"
        if not kept.exists():
            patch = _cut(path.read_bytes())
            np.save(kept, np.zeros(0, np.float32) if patch is None else patch)
        patch = np.load(kept)
        if patch.size:
            found.append((digest, patch))
        tell((done + 1) / len(files))
    if not found:
        raise PortraitError(f"No portrait in {portraits} shows an open mouth; give a folder with smiling ones.")
    stack = torch.from_numpy(np.stack([patch for _, patch in found]).transpose(0, 3, 1, 2).copy())
    held_out = torch.tensor([int(digest[:8], 16) % _HELD_OUT_SHARE == 0 for digest, _ in found])
    return Patches(stack[:, :3], stack[:, 3:6], stack[:, 6:7], [digest[:12] for digest, _ in found], held_out)


def _cut(data: bytes) -> np.ndarray | None:
    """(H, W, 7): the photo around an open mouth, the same painted, and where it is open; None if it cannot be used."""
    try:
        png = normalise_portrait(data)
        image = decode_portrait(png)
        faces = detect_faces(image)
        if not faces or lip_aperture(face_landmarks(image, faces[0]).points_L2) < _PARTED:
            return None
        portrait = prepare(png)
    except PortraitError:
        return None
    rig = build_rig(portrait)
    stage = rig.stage
    points = stage.points(portrait.landmarks.points_L2)
    ring = np.concatenate([points[list(LIPS_INNER_UPPER)], points[list(LIPS_INNER_LOWER)][::-1]])
    side = round(_WINDOW * float(np.ptp(points[[61, 291], 0])))
    x0, y0 = (round(float(v) - side / 2) for v in points[[61, 291, 0, 17]].mean(0))
    margin = stage.margin_px
    if min(x0, y0) < margin or max(x0, y0) + side > stage.side_px - margin:
        return None
    inside: np.ndarray = np.zeros((side, side), np.float32)
    cv2.fillPoly(inside, [np.round((ring - [x0, y0]) * 16).astype(np.int32)], 1.0, cv2.LINE_AA, 4)
    if inside.sum() < _LEAST_OPEN_PX:
        return None
    mouth = replace(rig.mouth, shows_teeth=False)  # the photo's own teeth are what has to be found
    pose = HeadPose(rotation(0, 0, 0).astype(np.float32), np.zeros(3, np.float32))
    window = (x0 - margin, y0 - margin, x0 - margin + side, y0 - margin + side)
    painted = mouth.painted(rig.sheet, stage, rig.sheet.fit.actions_A.astype(np.float32), pose, window, inside)
    photo = stage.image_SS3[y0 : y0 + side, x0 : x0 + side].astype(np.float32)
    layers = (photo, photo + (painted - photo) * inside[..., None], inside * 255)
    size = (PATCH_PX, PATCH_PX)
    patch = np.dstack([cv2.resize(layer, size, interpolation=cv2.INTER_AREA) for layer in layers])
    return np.clip(patch / 255, 0, 1).astype(np.float32)


def train(
    portraits: Path,
    out: Path,
    plan: RendererPlan,
    tell: Callable[[float], None] = lambda _: None,
    *,
    clock: Callable[[], float] = time.process_time,
) -> RendererReport:
    """Train, or go on training; measure on held-out portraits; write weights, card, curve and a picture to `out`.

    Args:
        clock: seconds of processor time.
    """
    torch.manual_seed(plan.seed)
    torch.set_num_threads(1)
    patches = read_patches(portraits, out / "patches", lambda share: tell(0.3 * share))
    seen, unseen = patches.part(False), patches.part(True)
    if not seen.names or not unseen.names:
        raise PortraitError("Too few portraits with an open mouth: some must be held out, and some trained on.")
    network = Completion(plan.width)
    optimiser = torch.optim.AdamW(network.parameters(), plan.learning_rate)
    step, spent_s = 0, 0.0
    checkpoint = out / "renderer.checkpoint"
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        if state["plan"] == asdict(plan):
            network.load_state_dict(state["network"])
            optimiser.load_state_dict(state["optimiser"])
            step, spent_s = int(state["step"]), float(state["spent_s"])
    generator = torch.Generator().manual_seed(plan.seed + step)
    started_s, kept_s, least = clock() - spent_s, spent_s, math.inf
    with (out / "curve.csv").open("a" if step else "w", newline="") as file:
        curve = csv.writer(file)
        if not step:
            curve.writerow(["step", "processor_s", "loss", "held_out_l1", "held_out_gradient", "held_out_ssim"])
        while spent_s < plan.minutes * 60:
            share = spent_s / (plan.minutes * 60)
            for group in optimiser.param_groups:
                group["lr"] = plan.learning_rate * min(1.0, (step + 1) / 30) * 0.5 * (1 + math.cos(math.pi * share))
            loss = completion_loss(network, *_drawn(seen, plan.batch_size, generator))
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            step += 1
            spent_s = clock() - started_s
            tell(0.3 + 0.7 * min(share, 1.0))
            if spent_s - kept_s > 20:
                kept_s = spent_s
                errors = measure(network, unseen)
                curve.writerow([step, round(spent_s, 1), round(loss.item(), 5), *(errors[k] for k in _MEASURES)])
                file.flush()
                if errors["l1"] < least:  # the best so far is kept: there are few portraits to learn from
                    least = errors["l1"]
                    torch.save(network.state_dict(), out / "renderer.best")
                state = {"plan": asdict(plan), "network": network.state_dict(), "optimiser": optimiser.state_dict()}
                torch.save({**state, "step": step, "spent_s": spent_s}, checkpoint)
    if (out / "renderer.best").exists():
        network.load_state_dict(torch.load(out / "renderer.best", weights_only=True))
    network.eval()
    save_file({name: value.half() for name, value in network.state_dict().items()}, out / WEIGHTS)
    before_s = clock()
    with torch.no_grad():
        for _ in range(10):
            network(unseen.photo_NCHW[:1], unseen.paint_NCHW[:1], unseen.inside_NCHW[:1])
    ms_per_patch = round((clock() - before_s) * 100, 1)
    report = RendererReport(
        weights=out / WEIGHTS,
        num_parameters=sum(p.numel() for p in network.parameters()),
        num_steps=step,
        num_trained_on=len(seen.names),
        num_held_out=len(unseen.names),
        paint=measure(None, unseen),
        network=measure(network, unseen),
        ms_per_patch=ms_per_patch,
    )
    cv2.imwrite(str(out / "held-out.jpg"), _side_by_side(network, unseen)[..., ::-1])
    (out / "renderer.md").write_text(_card(report, plan), encoding="utf-8")
    return report


def _drawn(patches: Patches, num: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """A batch: mirrored, lit and shifted at random."""
    rows = torch.randint(len(patches.names), (num,), generator=generator)
    stack = torch.cat([patches.photo_NCHW, patches.paint_NCHW, patches.inside_NCHW], 1)[rows]
    for index in range(num):
        draw = torch.rand(6, generator=generator)
        patch = stack[index].flip(-1) if draw[0] < 0.5 else stack[index]
        shift = [int(v) for v in (draw[1:3] * 13 - 6).round()]
        patch = torch.roll(patch, shift, (1, 2))
        light = _LIT[0] + (_LIT[1] - _LIT[0]) * draw[3:6]
        stack[index] = torch.cat([(patch[:6] * torch.cat([light, light])[:, None, None]).clamp(0, 1), patch[6:]])
    return stack[:, :3], stack[:, 3:6], stack[:, 6:7]


def _gradients(image_BCHW: Tensor) -> tuple[Tensor, Tensor]:
    return image_BCHW[..., :, 1:] - image_BCHW[..., :, :-1], image_BCHW[..., 1:, :] - image_BCHW[..., :-1, :]


def completion_loss(network: Completion, photo: Tensor, paint: Tensor, inside: Tensor) -> Tensor:
    """Absolute error inside the mouth, of colours and of their gradients."""
    made = network(photo, paint, inside)
    area = inside.sum() * 3 + 1e-6
    colour = ((made - photo).abs() * inside).sum() / area
    edges = zip(_gradients(made), _gradients(photo), (inside[..., :, 1:], inside[..., 1:, :]), strict=True)
    return colour + 0.5 * sum(((a - b).abs() * m).sum() / area for a, b, m in edges)


_MEASURES: Final = ("l1", "gradient", "ssim")


@torch.no_grad()
def measure(network: Completion | None, patches: Patches) -> dict[str, float]:
    """Errors inside the mouth, of the network or of the plain paint.

    Returns: l1: mean absolute error of colours, 0..1; gradient: the same of their gradients; ssim: structural
        similarity of brightness (7 × 7 windows), mean over the inside.
    """
    photo, paint, inside = patches.photo_NCHW, patches.paint_NCHW, patches.inside_NCHW
    made = paint if network is None else network(photo, paint, inside).clamp(0, 1)
    area = float(inside.sum())
    l1 = float(((made - photo).abs().mean(1, keepdim=True) * inside).sum()) / area
    gradient = 0.0
    for a, b, m in zip(_gradients(made), _gradients(photo), (inside[..., :, 1:], inside[..., 1:, :]), strict=True):
        gradient += float(((a - b).abs().mean(1, keepdim=True) * m).sum()) / area / 2
    x, y = made.mean(1, keepdim=True), photo.mean(1, keepdim=True)
    mean_x, mean_y = (F.avg_pool2d(v, 7, 1, 3) for v in (x, y))
    var_x, var_y = (F.avg_pool2d(v * v, 7, 1, 3) - m * m for v, m in ((x, mean_x), (y, mean_y)))
    both = F.avg_pool2d(x * y, 7, 1, 3) - mean_x * mean_y
    c1, c2 = 0.01**2, 0.03**2
    ssim = (2 * mean_x * mean_y + c1) * (2 * both + c2) / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))
    return {
        "l1": round(l1, 5),
        "gradient": round(gradient, 5),
        "ssim": round(float((ssim * inside).sum()) / area, 4),
    }


@torch.no_grad()
def _side_by_side(network: Completion, patches: Patches, most: int = 12) -> np.ndarray:
    """Rows of photo, paint and network, as one picture."""
    photo, paint, inside = patches.photo_NCHW[:most], patches.paint_NCHW[:most], patches.inside_NCHW[:most]
    made = network(photo, paint, inside).clamp(0, 1)
    columns = [torch.cat(list(each), 2) for each in (photo, paint, made)]
    picture = (torch.cat(columns, 1).permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    return cv2.resize(picture, None, fx=1.6, fy=1.6, interpolation=cv2.INTER_CUBIC)


def _card(report: RendererReport, plan: RendererPlan) -> str:
    def row(name: str, errors: dict[str, float]) -> str:
        return f"| {name} | " + " | ".join(str(errors[key]) for key in _MEASURES) + " |"

    verdict = "beats" if report.wins else "does not beat"
    return f"""# Model card: {report.weights.name}

Completes the inside of an open mouth from its surroundings and from what `generator/mouth.py` paints:
{report.num_parameters / 1e6:.2f} M parameters, a U-Net over {PATCH_PX} × {PATCH_PX} pixels, fp16 safetensors.
On held-out portraits it {verdict} the paint.

| inside the mouth, {report.num_held_out} held-out portraits | mean absolute error | of gradients | SSIM |
|---|---|---|---|
{row("plain paint", report.paint)}
{row("network", report.network)}

Trained on {report.num_trained_on} portraits with parted lips, {report.num_steps} steps,
plan `{json.dumps(asdict(plan))}`. {report.ms_per_patch} ms of processor time per patch on one thread.

Limits: portraits that smile; wide open mouths, tongues and speech are not in such data. Held out by picture, not by
identity. The step with the smallest held-out error is kept, which flatters the figures a little.
"""
