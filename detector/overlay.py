"""Pictures that go with a report: where in the faces the evidence lies, and when. Drawn on request, kept nowhere.

Red speaks for synthetic, blue against it; how deep the colour is says how much the place contributes to the detector's
logit, on one scale for all pictures. Below the picture runs the timeline, with the operating point drawn in.

T frame  H,W pixel  G cell of the face's grid
"""

from __future__ import annotations

import io
from typing import Final

import cv2
import numpy as np
from jaxtyping import UInt8

from detector.exhibit import WINDOW_S, Exhibit
from detector.observation import FramesByIndex
from detector.score import DetectorScore, HeatPatch
from watermark.encoding import VideoCoding, VideoEncoder
from watermark.media import Clip, decode_clip

VIDEO_WITHIN_PX: Final = 480
_STRIP_PX: Final = 72
_FULL_HEAT: Final = 0.05
"""Contribution of one cell to the logit at which the colour is deepest."""
_MOST_COVER: Final = 0.65
_HOT, _COLD = np.array([214, 40, 40], np.float32), np.array([38, 84, 214], np.float32)
_PAPER, _INK, _LINE, _ALARM = (250, 250, 248), (60, 60, 60), (30, 90, 160), (190, 60, 40)


def heat_png(exhibit: Exhibit, score: DetectorScore, threshold: float) -> bytes | None:
    """The moment that speaks most for synthetic, with heat and timeline, as PNG. None where no face was scored."""
    if not score.heat or not isinstance(exhibit.shown, Clip):
        return None
    main = [part for part in score.timeline if part.face == 0]
    peak = max(main, key=lambda part: part.p)
    frame_HWC = _frame_at(exhibit.shown, (peak.start_s + peak.end_s) / 2)
    picture_HWC = _with_heat(frame_HWC, _patches_at(score.heat, peak.start_s), 1.0)
    strip_HWC = _strip(score, threshold, picture_HWC.shape[1], (peak.start_s + peak.end_s) / 2)
    whole_HWC = np.concatenate([picture_HWC, strip_HWC])
    return bytes(cv2.imencode(".png", cv2.cvtColor(whole_HWC, cv2.COLOR_RGB2BGR))[1])


def heat_mp4(exhibit: Exhibit, score: DetectorScore, threshold: float) -> bytes | None:
    """All that the detector looked at, with heat and timeline, as silent MP4. None where no face was scored."""
    if not score.heat or not isinstance(exhibit.shown, Clip):
        return None
    clip = decode_clip(exhibit.data, exhibit.limits, fit_within_px=VIDEO_WITHIN_PX, stop_after_s=WINDOW_S)
    height, width = clip.frames_THWC.shape[1:3]
    seen_HWC = _frame_at(exhibit.shown, 0.0)
    scale = max(height, width) / max(seen_HWC.shape[:2])
    target = io.BytesIO()
    with VideoEncoder(
        target,
        width=width,
        height=height + _STRIP_PX,
        rate_hz=clip.rate_hz,
        sound=None,
        coding=VideoCoding(crf=26, num_threads=1),
    ) as encoder:
        for time_s, frame_HWC in zip(clip.times_T, clip.frames_THWC, strict=True):
            picture_HWC = _with_heat(frame_HWC, _patches_at(score.heat, float(time_s)), scale)
            encoder.write(np.concatenate([picture_HWC, _strip(score, threshold, width, float(time_s))]))
    return target.getvalue()


def _frame_at(clip: Clip, time_s: float) -> UInt8[np.ndarray, "h w 3"]:
    frames = clip.frames_THWC
    indices = frames.indices if isinstance(frames, FramesByIndex) else range(len(frames))
    nearest = min(indices, key=lambda index: abs(float(clip.times_T[index]) - time_s))
    return np.asarray(frames[nearest])


def _patches_at(heat: tuple[HeatPatch, ...], time_s: float) -> list[HeatPatch]:
    return [patch for patch in heat if patch.start_s <= time_s < patch.end_s]


def _with_heat(
    frame_HWC: UInt8[np.ndarray, "h w 3"], patches: list[HeatPatch], scale: float
) -> UInt8[np.ndarray, "h w 3"]:
    """`frame_HWC` with the patches laid over it; `scale`: its pixels per pixel of the patches."""
    height, width = frame_HWC.shape[:2]
    heat_HW = np.zeros((height, width), np.float32)
    for patch in patches:
        side = max(8, round(patch.side * scale))
        drawn_HW = cv2.resize(np.asarray(patch.heat_GG, np.float32), (side, side), interpolation=cv2.INTER_CUBIC)
        left, top = round(patch.left * scale), round(patch.top * scale)
        rows = slice(max(0, top), min(height, top + side))
        columns = slice(max(0, left), min(width, left + side))
        if rows.stop > rows.start and columns.stop > columns.start:
            inner = drawn_HW[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
            heat_HW[rows, columns] = inner
    cover_HW1 = (np.clip(np.abs(heat_HW) / _FULL_HEAT, 0, 1) * _MOST_COVER)[..., None]
    colour_HWC = np.where(heat_HW[..., None] > 0, _HOT, _COLD)
    return np.asarray(frame_HWC * (1 - cover_HW1) + colour_HWC * cover_HW1 + 0.5, np.uint8)


def _strip(score: DetectorScore, threshold: float, width: int, now_s: float) -> UInt8[np.ndarray, "h w 3"]:
    """The timeline of the main face as a strip `width` pixels wide: steps, the operating point, the moment shown."""
    strip_HWC = np.full((_STRIP_PX, width, 3), _PAPER, np.uint8)
    main = [part for part in score.timeline if part.face == 0]
    end_s = max((part.end_s for part in main), default=1.0)
    margin = 6

    def place(time_s: float, p: float) -> tuple[int, int]:
        across = margin + (width - 2 * margin) * min(time_s / end_s, 1.0)
        return round(across), round(_STRIP_PX - margin - (_STRIP_PX - 2 * margin) * p)

    for x in range(margin, width - margin, 8):
        y = place(0.0, threshold)[1]
        cv2.line(strip_HWC, (x, y), (x + 4, y), _ALARM, 1)
    points = [place(time_s, part.p) for part in main for time_s in (part.start_s, part.end_s)]
    cv2.polylines(strip_HWC, [np.array(points, np.int32)], False, _LINE, 2, cv2.LINE_AA)
    cv2.line(strip_HWC, place(now_s, 0.0), place(now_s, 1.0), _INK, 1)
    return strip_HWC
