"""What happens to a video on its way through the world, as functions from clip to clip: the suite marks are judged by.

Attacks are seeded: two runs differ by an encoder's last bits at most. `SUITE` is the whole list, with the video attacks
of Omni Seal Bench in it, and `PROMISED` says for which of them how many clips must keep their id. The sound is left
alone: these are attacks on the picture.

T frame  H,W pixel  C colour channel (R,G,B)
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from functools import reduce
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from watermark.encoding import VideoCoding, encode_clip
from watermark.media import Clip, decode_clip

Attack = Callable[[Clip], Clip]


def _with_frames(clip: Clip, frames_THWC: NDArray[np.uint8]) -> Clip:
    return Clip(frames_THWC, clip.rate_hz, clip.sound, clip.times_T)


def _each(change: Callable[[NDArray[np.uint8]], NDArray[np.uint8]]) -> Attack:
    return lambda clip: _with_frames(clip, np.stack([change(frame_HWC) for frame_HWC in clip.frames_THWC]))


def _to_uint8(image: NDArray[np.floating]) -> NDArray[np.uint8]:
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def none() -> Attack:
    """The clip as it is."""
    return lambda clip: clip


def chain(*attacks: Attack) -> Attack:
    """One attack after another."""
    return lambda clip: reduce(lambda attacked, attack: attack(attacked), attacks, clip)


def recode(coding: VideoCoding) -> Attack:
    """Through a real encoder and decoder, metadata stripped."""

    def attack(clip: Clip) -> Clip:
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory) / "clip.mp4"
            encode_clip(Clip(clip.frames_THWC, clip.rate_hz, None, clip.times_T), path, coding)
            return decode_clip(path)

    return attack


def h264(crf: int) -> Attack:
    return recode(VideoCoding("libx264", crf))


def hevc(crf: int) -> Attack:
    return recode(VideoCoding("libx265", crf, "superfast"))


def vp9(crf: int) -> Attack:
    return recode(VideoCoding("libvpx-vp9", crf))


def av1(crf: int) -> Attack:
    os.putenv("SVT_LOG", "1")  # or the encoder tells its settings on stderr each time
    return recode(VideoCoding("libsvtav1", crf))


def resize(scale: float) -> Attack:
    """Shrink or enlarge; the frame size changes."""

    def change(frame_HWC: NDArray[np.uint8]) -> NDArray[np.uint8]:
        height, width = frame_HWC.shape[:2]
        size = (round(width * scale), round(height * scale))
        return np.asarray(cv2.resize(frame_HWC, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC))

    return _each(change)


def crop(side: float, *, x: float = 0.55, y: float = 0.4) -> Attack:
    """Keep `side` of width and height, off centre (`x`, `y`: where the spare part is cut, 0..1)."""

    def attack(clip: Clip) -> Clip:
        height, width = clip.frames_THWC.shape[1:3]
        kept_height, kept_width = round(height * side), round(width * side)
        top, left = int((height - kept_height) * y), int((width - kept_width) * x)
        return _with_frames(clip, clip.frames_THWC[:, top : top + kept_height, left : left + kept_width].copy())

    return attack


def rotate(angle_deg: float) -> Attack:
    """Turn about the centre within the same frame; corners turn black."""

    def change(frame_HWC: NDArray[np.uint8]) -> NDArray[np.uint8]:
        height, width = frame_HWC.shape[:2]
        matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), angle_deg, 1.0)
        return np.asarray(cv2.warpAffine(frame_HWC, matrix, (width, height), flags=cv2.INTER_LINEAR))

    return _each(change)


def flip() -> Attack:
    """Mirror left and right."""
    return _each(lambda frame_HWC: np.ascontiguousarray(frame_HWC[:, ::-1]))


def perspective(strength: float) -> Attack:
    """Move each corner by up to `strength` of the frame's side."""

    def change(frame_HWC: NDArray[np.uint8]) -> NDArray[np.uint8]:
        height, width = frame_HWC.shape[:2]
        corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
        shift = np.random.default_rng(3).uniform(-strength, strength, (4, 2)) * [width, height]
        matrix = cv2.getPerspectiveTransform(corners, (corners + shift).astype(np.float32))
        return np.asarray(cv2.warpPerspective(frame_HWC, matrix, (width, height)))

    return _each(change)


def perspective_inwards(distortion: float) -> Attack:
    """Pull each corner inwards by up to `distortion` of half the frame, as torchvision's RandomPerspective does."""

    def change(frame_HWC: NDArray[np.uint8]) -> NDArray[np.uint8]:
        height, width = frame_HWC.shape[:2]
        corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
        inwards = np.array([[1, 1], [-1, 1], [-1, -1], [1, -1]]) * [width / 2, height / 2]
        pulled = corners + inwards * np.random.default_rng(5).uniform(0, distortion, (4, 2))
        matrix = cv2.getPerspectiveTransform(corners, pulled.astype(np.float32))
        return np.asarray(cv2.warpPerspective(frame_HWC, matrix, (width, height)))

    return _each(change)


def quarter_turn() -> Attack:
    """Turn by 90° anticlockwise; width and height change places."""
    return _each(lambda frame_HWC: np.ascontiguousarray(np.rot90(frame_HWC)))


def median(size_px: int) -> Attack:
    return _each(lambda frame_HWC: np.asarray(cv2.medianBlur(frame_HWC, size_px), np.uint8))


def kernel_blur(size_px: int) -> Attack:
    """A Gaussian kernel of this many pixels, with the width that goes with it by OpenCV's rule."""
    return _each(lambda frame_HWC: np.asarray(cv2.GaussianBlur(frame_HWC, (size_px, size_px), 0), np.uint8))


def brightness(factor: float) -> Attack:
    return _each(lambda frame_HWC: _to_uint8(frame_HWC.astype(np.float32) * factor))


def contrast(factor: float) -> Attack:
    return _each(lambda frame_HWC: _to_uint8((frame_HWC.astype(np.float32) - 128) * factor + 128))


def saturation(factor: float) -> Attack:
    """0 is grey."""

    def change(frame_HWC: NDArray[np.uint8]) -> NDArray[np.uint8]:
        grey = frame_HWC.astype(np.float32).mean(2, keepdims=True)
        return _to_uint8(grey * (1 - factor) + frame_HWC * np.float32(factor))

    return _each(change)


def hue(turn: float) -> Attack:
    """Turn the colour circle by `turn` of a full turn."""

    def change(frame_HWC: NDArray[np.uint8]) -> NDArray[np.uint8]:
        hsv = cv2.cvtColor(frame_HWC, cv2.COLOR_RGB2HSV)
        hsv[..., 0] = (hsv[..., 0].astype(int) + round(turn * 180)) % 180
        return np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB), np.uint8)

    return _each(change)


def blur(sigma_px: float) -> Attack:
    return _each(lambda frame_HWC: np.asarray(cv2.GaussianBlur(frame_HWC, (0, 0), sigma_px), np.uint8))


def noise(sigma: float) -> Attack:
    def attack(clip: Clip) -> Clip:
        rng = np.random.default_rng(0)
        return _each(lambda frame_HWC: _to_uint8(frame_HWC + rng.normal(0, sigma, frame_HWC.shape)))(clip)

    return attack


def jpeg(quality: int) -> Attack:
    """Every frame a JPEG."""

    def change(frame_HWC: NDArray[np.uint8]) -> NDArray[np.uint8]:
        _, data = cv2.imencode(".jpg", frame_HWC[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
        return np.ascontiguousarray(np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)[..., ::-1])

    return _each(change)


def sticker() -> Attack:
    """A caption bar and a moving disc over the picture."""

    def attack(clip: Clip) -> Clip:
        frames_THWC = clip.frames_THWC.copy()
        height, width = frames_THWC.shape[1:3]
        unit = min(height, width) / 512
        for i, frame_HWC in enumerate(frames_THWC):
            centre = (round((140 + i % 10) * unit), round(height - 130 * unit))
            cv2.circle(frame_HWC, centre, round(85 * unit), (255, 200, 0), -1)
            cv2.rectangle(frame_HWC, (0, round(10 * unit)), (width, round(70 * unit)), (20, 20, 20), -1)
        return _with_frames(clip, frames_THWC)

    return attack


def rate(rate_hz: float) -> Attack:
    """Show the nearest earlier frame at another rate."""

    def attack(clip: Clip) -> Clip:
        times_T = np.arange(0, clip.times_T[-1], 1 / rate_hz)
        indices = np.searchsorted(clip.times_T, times_T + 1e-6, side="right") - 1
        return Clip(clip.frames_THWC[indices], rate_hz, clip.sound, times_T)

    return attack


def drop(share: float) -> Attack:
    """Leave out frames at random; the others keep their times."""

    def attack(clip: Clip) -> Clip:
        kept = np.random.default_rng(1).random(len(clip.frames_THWC)) > share
        times_T = clip.times_T[kept]
        return Clip(clip.frames_THWC[kept], clip.rate_hz * (1 - share), clip.sound, times_T - times_T[0])

    return attack


def trim(start_s: float, end_s: float) -> Attack:
    """Keep what shows between two times."""

    def attack(clip: Clip) -> Clip:
        kept = (clip.times_T >= start_s) & (clip.times_T < end_s)
        return Clip(clip.frames_THWC[kept], clip.rate_hz, None, clip.times_T[kept] - clip.times_T[kept][0])

    return attack


def pillarbox(aspect: float) -> Attack:
    """Put the picture in the middle of a wider (or, below its own aspect, taller) black frame."""

    def attack(clip: Clip) -> Clip:
        height, width = clip.frames_THWC.shape[1:3]
        across, down = max(width, round(height * aspect)), max(height, round(width / aspect))
        left, top = (across - width) // 2, (down - height) // 2
        margins = ((0, 0), (top, down - height - top), (left, across - width - left), (0, 0))
        return _with_frames(clip, np.pad(clip.frames_THWC, margins))

    return attack


def screen_recording() -> Attack:
    """Uploaded, shown large, filmed off the screen at another rate, uploaded again."""
    return chain(h264(26), resize(1.75), blur(1.0), noise(4), resize(1 / 1.75), perspective(0.015), rate(30), h264(28))


def _restored(*attacks: Attack) -> Attack:
    """Attack, then bring the frames back to the size they had."""

    def attack(clip: Clip) -> Clip:
        height, width = clip.frames_THWC.shape[1:3]
        attacked = chain(*attacks)(clip)
        return _each(
            lambda frame_HWC: np.asarray(cv2.resize(frame_HWC, (width, height), interpolation=cv2.INTER_CUBIC))
        )(attacked)

    return attack


ISSUED: dict[str, Attack] = {
    "none": none(),
    "H.264 CRF 30": h264(30),
    "resize 50 %": resize(0.5),
    "crop 70 %": crop(0.7),
    "rotate 5°": rotate(5),
    "resize 50 % + CRF 30": chain(resize(0.5), h264(30)),
    "crop 70 %, rescaled, + CRF 30": chain(_restored(crop(0.7)), h264(30)),
    "rotate 5° + CRF 30": chain(rotate(5), h264(30)),
}
"""The attacks that were issued first; a quick look."""

_FIRM: dict[str, Attack] = ISSUED | {
    "H.264 CRF 23": h264(23),
    "H.264 CRF 36": h264(36),
    "H.264 CRF 23, twice": chain(h264(23), h264(23)),
    "HEVC CRF 23": hevc(23),
    "HEVC CRF 30": hevc(30),
    "VP9 CRF 40": vp9(40),
    "AV1 CRF 35": av1(35),
    "resize 71 %": resize(0.71),
    "resize 55 %": resize(0.55),
    "resize 25 %": resize(0.25),
    "crop 71 %": crop(0.71),
    "crop 60 %": crop(0.6),
    "rotate 10°": rotate(10),
    "rotate 90°": quarter_turn(),
    "flip": flip(),
    "perspective 4 %": perspective(0.04),
    "pillarbox 16:9": pillarbox(16 / 9),
    "brightness ×0.5": brightness(0.5),
    "brightness ×1.5": brightness(1.5),
    "brightness ×0.5 + CRF 30": chain(brightness(0.5), h264(30)),
    "contrast ×0.5": contrast(0.5),
    "contrast ×1.5": contrast(1.5),
    "saturation ×0.5": saturation(0.5),
    "saturation ×1.5": saturation(1.5),
    "hue +0.1": hue(0.1),
    "hue +0.25": hue(0.25),
    "blur σ 2": blur(2),
    "blur 9": kernel_blur(9),
    "median 9": median(9),
    "noise σ 10": noise(10),
    "JPEG 75": jpeg(75),
    "JPEG 40": jpeg(40),
    "JPEG 30": jpeg(30),
    "15 Hz": rate(15),
    "30 % of frames lost": drop(0.3),
    "late start": trim(0.28, 1e9),
    "sticker": sticker(),
    "Omni: CRF 30 + crop 71 % + ×0.5": chain(h264(30), crop(0.71), brightness(0.5)),
    "screen recording": screen_recording(),
}
_LIKELY: dict[str, Attack] = {
    "crop 50 %": crop(0.5),
    "HEVC CRF 36": hevc(36),
    "grey": saturation(0.0),
}
_HARD: dict[str, Attack] = {
    "H.264 CRF 42": h264(42),
    "grey + CRF 30": chain(saturation(0.0), h264(30)),
}
_BEYOND: dict[str, Attack] = {
    "crop 55 %": crop(0.55),
    "crop 50 %, rescaled, + CRF 30": chain(_restored(crop(0.5)), h264(30)),
    "H.264 CRF 40": h264(40),
    "H.264 CRF 50": h264(50),
    "HEVC CRF 40": hevc(40),
    "HEVC CRF 50": hevc(50),
    "perspective 0.5": perspective_inwards(0.5),
}
PROMISED: dict[str, float] = (
    dict.fromkeys(_FIRM, 1.0) | dict.fromkeys(_LIKELY, 0.95) | dict.fromkeys(_HARD, 0.6) | dict.fromkeys(_BEYOND, 0.0)
)
"""Of which share of clips the whole id must come back within 3 s."""
SUITE: dict[str, Attack] = _FIRM | _LIKELY | _HARD | _BEYOND
"""The whole suite."""
QUICK = (*ISSUED, "JPEG 75", "H.264 CRF 36", "crop 50 %", "HEVC CRF 36", "grey", "H.264 CRF 42", "grey + CRF 30")
"""Names of a small part of the suite, in which every promise occurs."""
