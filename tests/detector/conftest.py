"""What the tests of the detector share: the parts that look, and one small detector trained on drawn faces."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from detector.data import Material, Quotas
from detector.fitting import Teaching
from detector.observation import Observer
from detector.score import Detector
from detector.train import TrainingReport, train
from tests.detector.drawing import draw_face

QUOTAS = Quotas(
    train=0.5, calibrate=0.25, protected_train=0.5, protected_calibrate=0.25, blended_share=1.0, trials=0, num_frames=16
)
TEACHING = Teaching(num_members=1, num_hidden=8, num_steps=60)


@dataclass(frozen=True)
class SmallTraining:
    """A training on a few drawn faces, as they are and self-blended."""

    report: TrainingReport
    detector: Detector
    material: Material
    scratch: Path


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Tests share cores with other tests: threads that wait for each other would be slower than one."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)


@pytest.fixture(scope="session")
def observer() -> Observer:
    return Observer.load()


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20261122)


@pytest.fixture(scope="session")
def small_training(tmp_path_factory: pytest.TempPathFactory) -> SmallTraining:
    folder = tmp_path_factory.mktemp("drawn")
    for seed in range(8):
        cv2.imwrite(str(folder / f"face{seed}.png"), draw_face(seed)[..., ::-1])
    material = Material(tuple(sorted(folder.glob("*.png"))), (), (), ())
    scratch = tmp_path_factory.mktemp("scratch")
    report = train(
        material,
        scratch=scratch,
        weights=tmp_path_factory.mktemp("weights") / "detector.safetensors",
        quotas=QUOTAS,
        teaching=TEACHING,
        seed=7,
    )
    return SmallTraining(report, Detector.load(report.weights), material, scratch)
