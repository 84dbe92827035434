"""What the network gets to see of a clip or a picture: pairs of consecutive frames, cropped to a face, as cells, and
how the face moves within each pair and over the half second after it.

Training, evaluation and service look through this one window, so that a figure measured on one holds for the others.

T frame looked at  P pair of consecutive frames (T = 2 P)  C channel  G cell of the grid  M measurement  H,W pixel
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float16, Float32, UInt8

from detector.face import FaceBox, FaceFinder, crop_face
from detector.kinematics import NUM_MEASURES, Kinematics
from detector.model import Features

NUM_PAIRS = 8
"""Pairs of consecutive frames that the service looks at, spread evenly over the clip."""
LATER = (6, 12)
"""Movement is followed from the first frame of a pair to the second, to the frame six 25ths of a second after it, and
from there to the frame after as many again: three measurements for each pair."""
NUM_MOVES = (1 + len(LATER)) * NUM_MEASURES
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
        moves_PM: how it moves, see `detector.kinematics`; none of a picture.
        num_looked_at: frames that any of this was taken from.
    """

    cells_TCGG: Float16[np.ndarray, "t c 14 14"]
    frame_indices: tuple[int, ...]
    num_faces: int
    face_px: float
    boxes: tuple[FaceBox, ...] = ()
    moves_PM: Float32[np.ndarray, "p m"] = field(default_factory=lambda: np.zeros((0, NUM_MOVES), np.float32))
    num_looked_at: int = 1


@dataclass
class Observer:
    """The parts that looking needs, loaded once. Not safe to share between threads."""

    finder: FaceFinder
    features: Features
    kinematics: Kinematics

    @classmethod
    def load(cls) -> Observer:
        """Raises: BackboneError."""
        return cls(FaceFinder(), Features(), Kinematics())

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
        steps = _steps(len(frames_THWC), rate_hz)
        starts = _starts(len(frames_THWC), num_pairs, steps)
        tracks, num_faces = self.finder.tracks([frames_THWC[start] for start in starts], max_faces)
        return [
            self._followed(frames_THWC, starts, steps, boxes, num_faces)
            for rank, boxes in enumerate(tracks)
            if rank == 0 or sum(box is not None for box in boxes) >= _LEAST_PAIRS_SEEN
        ]

    def _followed(
        self,
        frames_THWC: Frames,
        starts: list[int],
        steps: tuple[int, ...],
        boxes: list[FaceBox | None],
        num_faces: int,
    ) -> Observation:
        seen: list[tuple[int, FaceBox]] = [(s, box) for s, box in zip(starts, boxes, strict=True) if box is not None]
        gap = steps[0]
        cells = [
            self.features.of(crop_face(frames_THWC[index], box))
            for start, box in seen
            for index in (start, start + gap)
        ]
        looked_at = [_looked_at(start, steps, len(frames_THWC)) for start, _ in seen]
        moves = [
            self._moves([frames_THWC[index] for index in indices], box)
            for indices, (_, box) in zip(looked_at, seen, strict=True)
        ]
        return Observation(
            np.stack(cells).astype(np.float16),
            tuple(index for start, _ in seen for index in (start, start + gap)),
            num_faces,
            float(np.median([box.side_px for _, box in seen])),
            tuple(box for _, box in seen),
            np.stack(moves),
            len({index for indices in looked_at for index in indices}),
        )

    def _moves(self, frames: list[UInt8[np.ndarray, "h w 3"]], box: FaceBox) -> Float32[np.ndarray, " m"]:
        """From the first of four frames to the second, from the first to the third, from there to the fourth."""
        first, second, later, last = (self.kinematics.look(frame_HWC, box) for frame_HWC in frames)
        measured = [self.kinematics.measure(*looks) for looks in ((first, second), (first, later), (later, last))]
        return np.concatenate(measured)


def frames_looked_at(num_frames: int, rate_hz: float, num_pairs: int = NUM_PAIRS) -> tuple[int, ...]:
    """Numbers of the frames that `Observer` asks a clip for."""
    if num_frames == 1:
        return (0,)
    steps = _steps(num_frames, rate_hz)
    starts = _starts(num_frames, num_pairs, steps)
    return tuple(sorted({index for start in starts for index in _looked_at(start, steps, num_frames)}))


def _steps(num_frames: int, rate_hz: float) -> tuple[int, ...]:
    """How many frames after the first of a pair the others lie: its second, and the two `LATER` ones."""
    pace = rate_hz / _RATE_HZ
    return tuple(min(max(1, round(step * pace)), num_frames - 1) for step in (1, *LATER))


def _starts(num_frames: int, num_pairs: int, steps: tuple[int, ...]) -> list[int]:
    """First frames of the pairs: so that all that is to follow them is within the clip, if the clip is long enough."""
    return pair_starts(num_frames, num_pairs, steps[-1] if num_frames > steps[-1] + 1 else steps[0])


def _looked_at(start: int, steps: tuple[int, ...], num_frames: int) -> list[int]:
    return [min(start + step, num_frames - 1) for step in (0, *steps)]


def pair_starts(num_frames: int, num_pairs: int, gap: int = 1) -> list[int]:
    """First frames of pairs `gap` apart, spread over a clip of more than `gap` frames; at gap 1 they do not overlap."""
    last = num_frames - 1 - gap
    most = min(num_pairs, num_frames // 2)
    return sorted({int(start) for start in np.linspace(0, last, most)}) if most > 1 else [0]
