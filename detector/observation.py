"""What the network gets to see of a clip or a picture: pairs of consecutive frames, cropped to the main face, as cells.

Training, evaluation and service look through this one window, so that a figure measured on one holds for the others.

T frame looked at  C channel  G cell of the grid  H,W pixel
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float16, UInt8

from detector.face import FaceBox, FaceFinder, crop_face
from detector.model import Features

NUM_PAIRS = 8
"""Pairs of consecutive frames that the service looks at: 16 frames, spread evenly over the clip."""
_RATE_HZ = 25.0


@dataclass(frozen=True)
class Observation:
    """The main face of a clip, seen in pairs of consecutive frames.

    Attributes:
        cells_TCGG: the cells of each frame looked at; T is twice the number of pairs, or 1 for a picture.
        frame_indices: which frames of the clip these are.
        num_faces: how many faces the fullest of them shows.
        face_px: side of the main face, median, in pixels of the clip.
    """

    cells_TCGG: Float16[np.ndarray, "t c 14 14"]
    frame_indices: tuple[int, ...]
    num_faces: int
    face_px: float


@dataclass
class Observer:
    """The parts that looking needs, loaded once. Not safe to share between threads."""

    finder: FaceFinder
    features: Features

    @classmethod
    def load(cls) -> Observer:
        """Raises: BackboneError."""
        return cls(FaceFinder(), Features())

    def observe(
        self, frames_THWC: UInt8[np.ndarray, "n h w 3"], rate_hz: float, *, num_pairs: int = NUM_PAIRS
    ) -> Observation | None:
        """Look at a clip, or at a single frame.

        A pair in which no face is found is passed over. Both frames of a pair are cut by one box, so that what changes
        between them is the picture and not the finder's mind.

        Args:
            frames_THWC: the whole clip, sRGB, 0..255.
            rate_hz: its frames per second. A pair lies about a 25th of a second apart, so that faces in clips of
                higher rates move as far as they did in training.
            num_pairs: how many pairs to look at, at most.
        Returns: None where no face is found in any frame looked at.
        """
        if len(frames_THWC) == 1:
            faces = self.finder.find(frames_THWC[0])
            if not faces:
                return None
            cells_CGG = self.features.of(crop_face(frames_THWC[0], faces[0]))
            return Observation(cells_CGG[None].astype(np.float16), (0,), len(faces), faces[0].side_px)
        gap = min(max(1, round(rate_hz / _RATE_HZ)), len(frames_THWC) - 1)
        starts = pair_starts(len(frames_THWC), num_pairs, gap)
        boxes, num_faces = self.finder.track([frames_THWC[start] for start in starts])
        seen: list[tuple[int, FaceBox]] = [(s, box) for s, box in zip(starts, boxes, strict=True) if box is not None]
        if not seen:
            return None
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
        )


def pair_starts(num_frames: int, num_pairs: int, gap: int = 1) -> list[int]:
    """First frames of pairs `gap` apart, spread over a clip of more than `gap` frames; at gap 1 they do not overlap."""
    last = num_frames - 1 - gap
    most = min(num_pairs, num_frames // 2)
    return sorted({int(start) for start in np.linspace(0, last, most)}) if most > 1 else [0]
