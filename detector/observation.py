"""What the network gets to see of a clip or a picture: pairs of consecutive frames, cropped to the main face, as cells.

Training, evaluation and service look through this one window, so that a figure measured on one holds for the others.

T frame looked at  C channel  G cell of the grid  H,W pixel
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float16, UInt8

from detector.face import FaceBox, FaceFinder, crop_face
from detector.model import Features

NUM_PAIRS = 8
"""Pairs of consecutive frames that the service looks at: 16 frames, spread evenly over the clip."""
MAX_FACES = 4
"""Faces of a clip that are followed, the largest first; more are only counted."""
_RATE_HZ = 25.0
_LEAST_PAIRS_SEEN = 2


class FramesByIndex:
    """A clip of which only the frames that will be looked at are there: the others need neither time nor memory.

    Args:
        num_frames: of the whole clip.
        kept: those that are there, by their number.
    """

    def __init__(self, num_frames: int, kept: Mapping[int, UInt8[np.ndarray, "h w 3"]]) -> None:
        self._num_frames, self._kept = num_frames, dict(kept)

    def __len__(self) -> int:
        return self._num_frames

    def __getitem__(self, index: int) -> UInt8[np.ndarray, "h w 3"]:
        return self._kept[index]

    @property
    def indices(self) -> tuple[int, ...]:
        """Numbers of the frames that are there."""
        return tuple(sorted(self._kept))


Frames = UInt8[np.ndarray, "n h w 3"] | FramesByIndex


@dataclass(frozen=True)
class Observation:
    """One face of a clip, seen in pairs of consecutive frames.

    Attributes:
        cells_TCGG: the cells of each frame looked at; T is twice the number of pairs, or 1 for a picture.
        frame_indices: which frames of the clip these are.
        num_faces: how many faces the fullest of them shows.
        face_px: side of the face, median, in pixels of the clip.
        boxes: where the face is, one box for each pair (one for a picture).
    """

    cells_TCGG: Float16[np.ndarray, "t c 14 14"]
    frame_indices: tuple[int, ...]
    num_faces: int
    face_px: float
    boxes: tuple[FaceBox, ...] = ()


@dataclass
class Observer:
    """The parts that looking needs, loaded once. Not safe to share between threads."""

    finder: FaceFinder
    features: Features

    @classmethod
    def load(cls) -> Observer:
        """Raises: BackboneError."""
        return cls(FaceFinder(), Features())

    def observe(self, frames_THWC: Frames, rate_hz: float, *, num_pairs: int = NUM_PAIRS) -> Observation | None:
        """Look at the main face of a clip, or of a single frame; `observe_faces` looks at the others, too."""
        seen = self.observe_faces(frames_THWC, rate_hz, num_pairs=num_pairs, max_faces=1)
        return seen[0] if seen else None

    def observe_faces(
        self, frames_THWC: Frames, rate_hz: float, *, num_pairs: int = NUM_PAIRS, max_faces: int = MAX_FACES
    ) -> list[Observation]:
        """Look at the faces of a clip, or of a single frame.

        A pair in which no face is found is passed over. Both frames of a pair are cut by one box, so that what changes
        between them is the picture and not the finder's mind.

        Args:
            frames_THWC: the whole clip, sRGB, 0..255.
            rate_hz: its frames per second. A pair lies about a 25th of a second apart, so that faces in clips of
                higher rates move as far as they did in training.
            num_pairs: how many pairs to look at, at most.
            max_faces: how many faces to look at, at most.
        Returns: the main face first, then the others that are seen in two pairs at least; nothing where no face is
            found in any frame looked at.
        """
        if len(frames_THWC) == 1:
            faces = self.finder.find(frames_THWC[0])
            return [
                Observation(
                    self.features.of(crop_face(frames_THWC[0], face))[None].astype(np.float16),
                    (0,),
                    len(faces),
                    face.side_px,
                    (face,),
                )
                for face in faces[:max_faces]
            ]
        gap = _gap(len(frames_THWC), rate_hz)
        starts = pair_starts(len(frames_THWC), num_pairs, gap)
        tracks, num_faces = self.finder.tracks([frames_THWC[start] for start in starts], max_faces)
        return [
            self._followed(frames_THWC, starts, gap, boxes, num_faces)
            for rank, boxes in enumerate(tracks)
            if rank == 0 or sum(box is not None for box in boxes) >= _LEAST_PAIRS_SEEN
        ]

    def _followed(
        self, frames_THWC: Frames, starts: list[int], gap: int, boxes: list[FaceBox | None], num_faces: int
    ) -> Observation:
        seen: list[tuple[int, FaceBox]] = [(s, box) for s, box in zip(starts, boxes, strict=True) if box is not None]
        cells = [
            self.features.of(crop_face(frames_THWC[index], box))
            for start, box in seen
            for index in (start, start + gap)
        ]
        return Observation(
            np.stack(cells).astype(np.float16),
            tuple(index for start, _ in seen for index in (start, start + gap)),
            num_faces,
            float(np.median([box.side_px for _, box in seen])),
            tuple(box for _, box in seen),
        )


def frames_looked_at(num_frames: int, rate_hz: float, num_pairs: int = NUM_PAIRS) -> tuple[int, ...]:
    """Numbers of the frames that `Observer` asks a clip for."""
    if num_frames == 1:
        return (0,)
    gap = _gap(num_frames, rate_hz)
    return tuple(sorted({i for s in pair_starts(num_frames, num_pairs, gap) for i in (s, s + gap)}))


def _gap(num_frames: int, rate_hz: float) -> int:
    """Frames between the two of a pair."""
    return min(max(1, round(rate_hz / _RATE_HZ)), num_frames - 1)


def pair_starts(num_frames: int, num_pairs: int, gap: int = 1) -> list[int]:
    """First frames of pairs `gap` apart, spread over a clip of more than `gap` frames; at gap 1 they do not overlap."""
    last = num_frames - 1 - gap
    most = min(num_pairs, num_frames // 2)
    return sorted({int(start) for start in np.linspace(0, last, most)}) if most > 1 else [0]
