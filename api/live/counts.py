"""What a live session has come to, in numbers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Counts:
    """What a session has come to."""

    num_segments: int = 0
    num_frames: int = 0
    num_repeated: int = 0
    num_gaps: int = 0
    num_changes: int = 0
    num_faults: int = 0
