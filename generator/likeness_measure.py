"""How well faces are told apart: error rates of `generator.likeness` on pictures that the caller has.

Two rates per threshold. False match: pictures of different people that are called the same; from all pairs of a folder
with one picture per person. False non-match: pictures of one person that are called different; from altered copies of a
picture, and from frames of a clip. Altered copies and frames are easier than a picture of another day, so this rate is
a lower bound.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
from numpy import ndarray
from PIL import Image
from scipy.stats import beta

from generator.likeness import PROTECTED_FACE_DISTANCE, SAME_FACE_DISTANCE, face_template
from generator.perception import detect_faces

THRESHOLDS: Final = (0.4, PROTECTED_FACE_DISTANCE, SAME_FACE_DISTANCE, 0.55, 0.6)
_SAME_FILE_DISTANCE: Final = 0.02
_CONFIDENCE: Final = 0.95


def _jpeg(image_HW3: ndarray) -> ndarray:
    out = io.BytesIO()
    Image.fromarray(image_HW3).save(out, "JPEG", quality=20)
    return np.array(Image.open(out).convert("RGB"))


def _turned(image_HW3: ndarray) -> ndarray:
    height, width = image_HW3.shape[:2]
    matrix_23 = cv2.getRotationMatrix2D((width / 2, height / 2), 15, 1)
    return cv2.warpAffine(image_HW3, matrix_23, (width, height), borderMode=cv2.BORDER_REPLICATE)


def _noisy(image_HW3: ndarray) -> ndarray:
    noise_HW3 = np.random.default_rng(0).normal(0, 20, image_HW3.shape)
    return np.clip(image_HW3 + noise_HW3, 0, 255).astype(np.uint8)


def _scaled(image_HW3: ndarray, gain: float, offset: float) -> ndarray:
    return np.clip(image_HW3 * gain + offset, 0, 255).astype(np.uint8)


def _grey(image_HW3: ndarray) -> ndarray:
    return np.repeat(cv2.cvtColor(image_HW3, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2)


ALTERATIONS: Final[dict[str, Callable[[ndarray], ndarray]]] = {
    "jpeg, quality 20": _jpeg,
    "a third of the size": lambda image: cv2.resize(image, None, fx=1 / 3, fy=1 / 3, interpolation=cv2.INTER_AREA),
    "turned by 15 degrees": _turned,
    "mirrored": lambda image: np.ascontiguousarray(image[:, ::-1]),
    "half as bright": lambda image: _scaled(image, 0.5, 0),
    "overexposed": lambda image: _scaled(image, 1.4, 20),
    "grey": _grey,
    "blurred": lambda image: cv2.GaussianBlur(image, (0, 0), 3 * image.shape[0] / 640),
    "noise": _noisy,
    "15 % wider": lambda image: cv2.resize(image, None, fx=1.15, fy=1.0),
}


@dataclass(frozen=True)
class LikenessReport:
    """What was measured; `to_json` is what `placet evaluate likeness` prints."""

    num_pictures: int
    num_without_face: int
    num_doubles: int
    num_impostor_pairs: int
    nearest_impostors: tuple[float, ...]
    false_match: dict[str, dict[str, float]]
    false_non_match: dict[str, dict[str, float]]
    altered: dict[str, dict[str, float]]
    clips: dict[str, float]
    cpu_s_per_face: float

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return dict(vars(self)) | {"nearest_impostors": list(self.nearest_impostors)}


def measure_likeness(
    portraits: Sequence[Path],
    clips: Sequence[Path] = (),
    *,
    every: int = 8,
    progress: Callable[[float], None] = lambda _: None,
) -> LikenessReport:
    """Error rates over a folder of portraits, one picture per person, and clips, one person each.

    Args:
        every: one portrait in so many is altered in every way of `ALTERATIONS`.
        progress: told 0..1.
    """
    started_s, num_faces, templates, pictures = time.process_time(), 0, [], []
    altered: dict[str, list[float]] = {name: [] for name in ALTERATIONS}
    missed: dict[str, int] = dict.fromkeys(ALTERATIONS, 0)
    for number, path in enumerate(portraits):
        image_HW3 = np.array(Image.open(path).convert("RGB"))
        template_D = _template(image_HW3)
        num_faces += 1
        progress(0.9 * number / len(portraits))
        if template_D is None:
            continue
        templates.append(template_D)
        pictures.append(path)
        for name, alter in ALTERATIONS.items() if number % every == 0 else ():
            again_D = _template(alter(image_HW3))
            num_faces += 1
            if again_D is None:
                missed[name] += 1
            else:
                altered[name].append(float(np.linalg.norm(again_D - template_D)))
    cpu_s_per_face = (time.process_time() - started_s) / max(1, num_faces)
    impostors = _distances(np.array(templates))
    num_doubles = int((impostors < _SAME_FILE_DISTANCE).sum())
    impostors = np.sort(impostors[impostors >= _SAME_FILE_DISTANCE])
    genuine = np.array([each for distances in altered.values() for each in distances])
    return LikenessReport(
        num_pictures=len(portraits),
        num_without_face=len(portraits) - len(templates),
        num_doubles=num_doubles,
        num_impostor_pairs=len(impostors),
        nearest_impostors=tuple(round(float(each), 3) for each in impostors[:5]),
        false_match={f"{at:.2f}": _rate(int((impostors <= at).sum()), len(impostors)) for at in THRESHOLDS},
        false_non_match={f"{at:.2f}": _rate(int((genuine > at).sum()), len(genuine)) for at in THRESHOLDS},
        altered={
            name: {
                "pictures": len(distances),
                "no_face": missed[name],
                "mean": round(float(np.mean(distances)), 3) if distances else 0.0,
                "largest": round(max(distances, default=0.0), 3),
            }
            for name, distances in altered.items()
        },
        clips=_measure_clips(clips),
        cpu_s_per_face=round(cpu_s_per_face, 3),
    )


def _measure_clips(clips: Sequence[Path]) -> dict[str, float]:
    """Distances between frames of one clip, and between clips."""
    frames = [np.array([each for each in map(_template, _frames(path)) if each is not None]) for path in clips]
    frames = [each for each in frames if len(each) > 1]
    if not frames:
        return {}
    within = np.concatenate([_distances(each) for each in frames])
    between = [
        np.linalg.norm(one[:, None] - other[None], axis=2).ravel()
        for number, one in enumerate(frames)
        for other in frames[:number]
    ]
    report = {
        "clips": float(len(frames)),
        "pairs_within": float(len(within)),
        "mean_within": round(float(within.mean()), 3),
        "largest_within": round(float(within.max()), 3),
    }
    if between:
        report["nearest_between"] = round(float(np.concatenate(between).min()), 3)
    return report


def _frames(path: Path, step: int = 8) -> list[ndarray]:
    reader = cv2.VideoCapture(str(path))
    frames: list[ndarray] = []
    while True:
        is_there, frame_HW3 = reader.read()
        if not is_there:
            return frames[::step]
        frames.append(cv2.cvtColor(frame_HW3, cv2.COLOR_BGR2RGB))


def _template(image_HW3: ndarray) -> ndarray | None:
    faces = detect_faces(image_HW3)
    return face_template(image_HW3, faces[0]).values_D if faces else None


def _distances(templates_ND: ndarray) -> ndarray:
    """Of all pairs."""
    if len(templates_ND) < 2:
        return np.zeros(0)
    first, second = np.triu_indices(len(templates_ND), 1)
    return np.asarray(np.linalg.norm(templates_ND[first] - templates_ND[second], axis=1))


def _rate(num_errors: int, num_pairs: int) -> dict[str, float]:
    """A rate and its one-sided upper bound (Clopper and Pearson)."""
    if num_pairs == 0:
        return {"errors": 0, "rate": 0.0, "at_most": 1.0}
    at_most = 1.0 if num_errors == num_pairs else float(beta.ppf(_CONFIDENCE, num_errors + 1, num_pairs - num_errors))
    return {"errors": num_errors, "rate": round(num_errors / num_pairs, 6), "at_most": round(at_most, 6)}
