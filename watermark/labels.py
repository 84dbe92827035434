"""What the law of a place wants people and machines to be told about a generated video, beside mark and manifest.

Each regime is a setting. What costs nothing is always there: the disclosure in the manifest, the metadata of the file.
What covers picture is drawn where a regime that wants it is set, before the invisible mark goes in.

    eu      Regulation (EU) 2024/1689 Art. 50 and its code of practice: an "AI" icon from the first frame on
    cn      GB 45438-2025: the words "AI生成" for the first seconds, at least 5 % of the shorter side high; metadata
            under the key `AIGC`
    us-ca   California Business and Professions Code § 22757.3 (SB 942): a latent disclosure with provider, system and
            version, time, and a unique id

These are engineering readings of secondary sources of autumn 2026, not legal advice; check them before relying on them.

H,W pixel  C colour channel (R,G,B)
"""

from __future__ import annotations

import datetime as dt
import json
import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from watermark.errors import InvalidManifestSpecError
from watermark.payload import MarkId

Regime = Literal["eu", "cn", "us-ca"]
REGIMES: Final[tuple[str, ...]] = get_args(Regime)

PROVIDER, SYSTEM = "Placet", "Placet talking portrait"
CN_LABEL = "AI生成"
CN_LABEL_S = 3.0
"""How long the words stay; the standard asks for two seconds at least."""
_CN_HEIGHT = 0.075  # of the shorter side; the standard asks for 0.05
_EU_HEIGHT = 0.09
_MARGIN = 0.03
_GROUND_ALPHA = np.float32(0.6)


@dataclass(frozen=True)
class _Overlay:
    """A picture to be laid over a place of every frame for a while.

    Attributes:
        white_HW1: float32, 0..255, multiplied by `alpha_HW1`: white letters on black.
        alpha_HW1: 0..1.
        top, left: where it goes.
        until_s: when it disappears.
    """

    white_HW1: NDArray[np.float32]
    alpha_HW1: NDArray[np.float32]
    top: int
    left: int
    until_s: float

    def laid_over(self, frame_HWC: NDArray[np.uint8]) -> None:
        """Draw, in place."""
        height, width = self.alpha_HW1.shape[:2]
        part = frame_HWC[self.top : self.top + height, self.left : self.left + width]
        part[:] = np.rint(part * (1 - self.alpha_HW1) + self.white_HW1)


class Labels:
    """The visible labels of one clip.

    Args:
        regimes: which of `REGIMES` are wanted.
        width, height: of the frames, in pixels.
    Raises: InvalidManifestSpecError: a regime that is unknown.
    """

    def __init__(self, regimes: Collection[str], width: int, height: int) -> None:
        check_regimes(regimes)
        side, self._overlays = min(width, height), []
        margin = round(_MARGIN * side)
        if "eu" in regimes:
            # A square in the upper right: the code of practice asks for the letters, not for a certain drawing.
            icon = _text("AI", round(_EU_HEIGHT * side), "sans", 800, is_square=True)
            self._overlays.append(_placed(icon, margin, width - icon[1].shape[1] - margin, math.inf))
        if "cn" in regimes:
            words = _text(CN_LABEL, round(_CN_HEIGHT * side), "uni", 400, is_square=False)
            self._overlays.append(_placed(words, margin, margin, CN_LABEL_S))

    def drawn(self, frame_HWC: NDArray[np.uint8], time_s: float) -> NDArray[np.uint8]:
        """The frame with its labels: itself where there are none, a copy otherwise."""
        shown = [overlay for overlay in self._overlays if time_s < overlay.until_s]
        if not shown:
            return frame_HWC
        frame_HWC = frame_HWC.copy()
        for overlay in shown:
            overlay.laid_over(frame_HWC)
        return frame_HWC


def check_regimes(regimes: Collection[str]) -> None:
    """Raises: InvalidManifestSpecError: one of them is unknown."""
    if unknown := set(regimes) - set(REGIMES):
        raise InvalidManifestSpecError(f"Unknown labels {sorted(unknown)}: known are {', '.join(REGIMES)}.")


def disclosure(mark_id: MarkId, software_version: str, now: dt.datetime) -> dict[str, Any]:
    """The latent disclosure, for the manifest's assertion `org.placet.disclosure`. WIRE FORMAT."""
    return {
        "provider": PROVIDER,
        "system": SYSTEM,
        "version": software_version,
        "created": now.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "id": mark_id.hex,
    }


def container_metadata(mark_id: MarkId) -> dict[str, str]:
    """Metadata of the file itself: the implicit label of GB 45438-2025, annex E, under the key `AIGC`.

    `Label` "1" means generated, beyond doubt. The reserved codes may secure the label; here the manifest does that.
    """
    label = {
        "Label": "1",
        "ContentProducer": PROVIDER,
        "ProduceID": mark_id.hex,
        "ReservedCode1": "",
        "ContentPropagator": "",
        "PropagateID": "",
        "ReservedCode2": "",
    }
    return {"AIGC": json.dumps(label, separators=(",", ":"))}


def _text(
    text: str, height: int, face: str, weight: int, *, is_square: bool
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """White letters, `height` pixels high with their ground, on a dark, see-through, rounded box: colour and alpha."""
    scale = 4  # drawn large and reduced, for clean edges
    size = round(0.62 * height * scale) if is_square else round(0.8 * height * scale)
    font: Any = cv2.FontFace(face)
    x, y, text_width, text_height = cv2.getTextSize(
        (height * scale * 8, height * scale * 2), text, (0, 0), font, size, weight
    )
    padding = round(0.22 * height * scale)
    box_height = height * scale
    box_width = box_height if is_square else text_width + 2 * padding
    ink = np.zeros((box_height, box_width, 3), np.uint8)
    origin = (round((box_width - text_width) / 2 - x), round((box_height - text_height) / 2 - y))
    ink = np.asarray(cv2.putText(ink, text, origin, (255, 255, 255), font, size, weight)[1], np.uint8)
    inked = np.nonzero(ink.any(axis=(1, 2)))[0]  # what the font calls its height is not what the eye sees
    ink = np.roll(ink, round((box_height - 1 - inked[0] - inked[-1]) / 2), axis=0)
    ground = np.zeros((box_height, box_width), np.uint8)
    radius = round(0.2 * box_height)
    cv2.rectangle(ground, (radius, 0), (box_width - 1 - radius, box_height - 1), 255, -1)
    cv2.rectangle(ground, (0, radius), (box_width - 1, box_height - 1 - radius), 255, -1)
    for corner in ((radius, radius), (box_width - 1 - radius, radius)):
        for mirrored in (corner, (corner[0], box_height - 1 - radius)):
            cv2.circle(ground, mirrored, radius, 255, -1, cv2.LINE_AA)
    reduced = (max(1, box_width // scale), height)
    ink_HW = cv2.resize(ink[..., 0], reduced, interpolation=cv2.INTER_AREA).astype(np.float32)[..., None] / 255
    ground_HW = cv2.resize(ground, reduced, interpolation=cv2.INTER_AREA).astype(np.float32)[..., None] / 255
    alpha_HW1 = np.maximum(ink_HW, ground_HW * _GROUND_ALPHA).astype(np.float32)
    return (ink_HW * 255).astype(np.float32), alpha_HW1


def _placed(picture: tuple[NDArray[np.float32], NDArray[np.float32]], top: int, left: int, until_s: float) -> _Overlay:
    return _Overlay(picture[0], picture[1], top, max(left, 0), until_s)
