"""Moving pictures and sounds made from nothing: head-like blobs that nod and speak, noise that sounds like speech."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from watermark.media import Clip, Sound


def speechlike(duration_s: float, rate_hz: int = 16_000, seed: int = 0) -> Sound:
    """A voiced hum with syllables and hiss: broad enough for a sharp cross-correlation."""
    rng = np.random.default_rng(seed)
    times = np.arange(round(duration_s * rate_hz)) / rate_hz
    syllables = np.clip(np.sin(2 * np.pi * 3.1 * times + np.sin(2 * np.pi * 0.7 * times)), 0, 1)
    voice = sum(np.sin(2 * np.pi * pitch * times * (1 + 0.01 * np.sin(9 * times))) for pitch in (130, 260, 390, 910))
    samples = 0.12 * syllables * voice + 0.03 * rng.standard_normal(len(times)) * (1 - syllables)
    return Sound(samples.astype(np.float32), rate_hz)


def talking(width: int = 512, height: int = 512, duration_s: float = 3.0, rate_hz: float = 25.0, seed: int = 0) -> Clip:
    """A textured oval that nods and opens a mouth, before a still, softly lit wall; with the grain of a camera."""
    rng = np.random.default_rng(seed)
    unit = min(width, height) / 512
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    wall = rng.normal(0, 1, (9, 9, 3)).astype(np.float32)
    wall = cv2.resize(wall, (width, height), interpolation=cv2.INTER_CUBIC) * 18 + rng.uniform(90, 170, 3)
    skin = cv2.GaussianBlur(rng.normal(0, 1, (height, width, 3)).astype(np.float32), (0, 0), 5 * unit)
    skin = skin / skin.std() * 9 + np.array([205, 160, 135])
    centre_x, centre_y = width / 2, height * 0.52
    frames = []
    for index in range(round(duration_s * rate_hz)):
        time_s = index / rate_hz
        dx = 7 * unit * np.sin(2 * np.pi * 0.31 * time_s + seed)
        dy = 5 * unit * np.sin(2 * np.pi * 0.23 * time_s + 1)
        opening = 16 * unit * max(0.0, np.sin(2 * np.pi * 3.3 * time_s) * np.sin(2 * np.pi * 0.9 * time_s + 0.4))
        head = ((columns - centre_x - dx) / (130 * unit)) ** 2 + ((rows - centre_y - dy) / (175 * unit)) ** 2
        mask = np.clip((1 - head) * 12, 0, 1)[..., None]
        moved = cv2.warpAffine(
            skin, np.float32([[1, 0, dx], [0, 1, dy]]), (width, height), borderMode=cv2.BORDER_REFLECT
        )
        frame = wall * (1 - mask) + moved * mask
        for side in (-1, 1):
            eye = ((columns - centre_x - dx - side * 48 * unit) / (20 * unit)) ** 2
            eye = eye + ((rows - centre_y - dy + 45 * unit) / (9 * unit)) ** 2
            frame[eye < 1] = (40, 30, 30)
        mouth = ((columns - centre_x - dx) / (45 * unit)) ** 2
        mouth = mouth + ((rows - centre_y - dy - 85 * unit) / (3 * unit + opening)) ** 2
        frame[mouth < 1] = (110, 30, 40)
        frame = frame + rng.normal(0, 1.2, frame.shape)
        frames.append(np.clip(np.rint(frame), 0, 255).astype(np.uint8))
    return Clip(np.stack(frames), rate_hz, speechlike(duration_s, seed=seed))


def lag_s(heard: NDArray[np.floating], said: NDArray[np.floating], rate_hz: int) -> float:
    """How late `heard` is against `said`, by the peak of their cross-correlation."""
    size = 1 << int(np.ceil(np.log2(len(heard) + len(said))))
    correlation = np.fft.irfft(np.fft.rfft(heard, size) * np.conj(np.fft.rfft(said, size)), size)
    peak = int(np.abs(correlation).argmax())
    return (peak if peak < size // 2 else peak - size) / rate_hz
