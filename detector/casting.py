"""Who is rendered for training: which synthetic face speaks what, how it moves, on which side of the split it stands.

A cast is a plan. Nothing is rendered here: `api.training` sends each take through the gate, like anybody's request.
Faces are split first, then voices; a take joins a face and a voice of one split, so that neither leaks into another.
The last variant of the list is kept out of training: its takes only show the faces and voices of the test split.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from detector.data import Split, splits_of
from detector.errors import EmptyCorpusError

_SHORTEST_S, _LONGEST_S = 2.4, 4.2
_EMOTIONS: Final = ("joy", "sadness", "anger", "surprise", "fear", "disgust")

Controls = dict[str, Any]


class Recording(NamedTuple):
    """A recording of a synthetic voice."""

    path: Path
    voice: str
    duration_s: float


@dataclass(frozen=True)
class Take:
    """One render to be made.

    Attributes:
        name: of the file, without its ending.
        identity: the portrait's folder and stem.
        portrait, speech: the inputs.
        voice: who speaks.
        split: of identity and voice.
        variant: which manner of movement; a key of `VARIANTS`.
        controls: as a client would send them.
    """

    name: str
    identity: str
    portrait: Path
    speech: Path
    voice: str
    split: Split
    variant: str
    controls: Controls


def _plain(rng: np.random.Generator) -> Controls:
    return {}


def _lively(rng: np.random.Generator) -> Controls:
    return {"intensity": _between(rng, 1.1, 1.5), "head_motion": _between(rng, 1.1, 1.5)}


def _subdued(rng: np.random.Generator) -> Controls:
    return {"intensity": _between(rng, 0.4, 0.8), "head_motion": _between(rng, 0.2, 0.6)}


def _emotional(rng: np.random.Generator) -> Controls:
    return {"emotion": {"preset": str(rng.choice(_EMOTIONS)), "amount": _between(rng, 0.5, 1.0)}}


def _posed(rng: np.random.Generator) -> Controls:
    return {
        "head_pose": [_between(rng, -12, 12), _between(rng, -8, 8), _between(rng, -8, 8)],
        "gaze": [_between(rng, -15, 15), _between(rng, -10, 10)],
        "head_distance": _between(rng, 0.85, 1.2),
    }


def _like_the_first_version(rng: np.random.Generator) -> Controls:
    """As the generator was before it had a life of its own: lips alone, in a head that hardly moves."""
    return {"head_motion": _between(rng, 0.0, 0.2), "blink_rate": 0.0, "gaze": [0.0, 0.0]}


def _full_frame(rng: np.random.Generator) -> Controls:
    """The whole photograph, the face pasted back into it, led along a path of poses instead of its own movement."""
    path = [
        {"at_s": float(second), "value": [_between(rng, -10, 10), _between(rng, -6, 6), _between(rng, -5, 5)]}
        for second in range(4)
    ]
    return {"framing": "full", "head_pose": {"keyframes": path}, "head_motion": _between(rng, 0.3, 1.0)}


VARIANTS: Final[Mapping[str, Callable[[np.random.Generator], Controls]]] = {
    "plain": _plain,
    "lively": _lively,
    "emotional": _emotional,
    "posed": _posed,
    "subdued": _subdued,
    "first_version": _like_the_first_version,
    "full_frame": _full_frame,
}
HELD_OUT: Final = "full_frame"
"""The variant that no training and no calibration sees."""


def recordings_in(folder: Path) -> list[Recording]:
    """The recordings that a corpus's `index.jsonl` lists, of a length that fits."""
    entries = [json.loads(line) for line in (folder / "index.jsonl").read_text().splitlines() if line.strip()]
    return [
        Recording(folder / entry["file"], str(entry["voice"]), float(entry["duration_s"]))
        for entry in entries
        if _SHORTEST_S <= entry["duration_s"] <= _LONGEST_S
    ]


def cast(
    portraits: Sequence[Path],
    recordings: Sequence[Recording],
    *,
    num_takes: int,
    num_held_out: int,
    shares: tuple[float, float],
    seed: int,
) -> list[Take]:
    """Cast one take per synthetic face, and a second one of the held-out variant for some of the test split.

    The takes come in an order in which every beginning of the list is a fair sample: what was rendered of it can be
    trained on, however far it got.

    Args:
        portraits: of synthetic identities.
        recordings: of synthetic voices.
        num_takes: takes of the variants that are trained on; at most one per portrait.
        num_held_out: takes of the held-out variant.
        shares: of the identities, and of the voices, to train and to calibrate on; the rest is for testing.
        seed: of everything drawn by chance.
    Raises: EmptyCorpusError: no portraits, or too few voices to give each split its own.
    """
    chosen = sorted(portraits, key=lambda path: _digest(f"{seed}/{_identity(path)}"))[:num_takes]
    splits = splits_of(map(_identity, chosen), *shares)
    voices = splits_of({recording.voice for recording in recordings}, *shares)
    by_split: dict[Split, list[Recording]] = {
        split: [recording for recording in recordings if voices[recording.voice] == split]
        for split in ("train", "calibrate", "test")
    }
    if not chosen or any(not by_split[split] for split in splits.values()):
        raise EmptyCorpusError("Casting needs synthetic portraits, and for each split a voice of its own.")
    usual = [name for name in VARIANTS if name != HELD_OUT]
    wanted = [(path, usual[position % len(usual)]) for position, path in enumerate(chosen)]
    tested = [path for path in chosen if splits[_identity(path)] == "test"][:num_held_out]
    wanted = _interleaved(wanted, [(path, HELD_OUT) for path in tested])
    return [_take(path, variant, splits[_identity(path)], by_split, seed) for path, variant in wanted]


def _take(portrait: Path, variant: str, split: Split, by_split: Mapping[Split, Sequence[Recording]], seed: int) -> Take:
    identity = _identity(portrait)
    rng = np.random.default_rng(_digest(f"{seed}/{identity}/{variant}"))
    voice = str(rng.choice(sorted({recording.voice for recording in by_split[split]})))
    spoken = [recording for recording in by_split[split] if recording.voice == voice]
    controls = {"seed": int(rng.integers(2**31)), **VARIANTS[variant](rng)}
    return Take(
        name=f"{identity.replace('/', '-')}-{variant}",
        identity=identity,
        portrait=portrait,
        speech=spoken[int(rng.integers(len(spoken)))].path,
        voice=voice,
        split=split,
        variant=variant,
        controls=controls,
    )


def _interleaved(many: list[tuple[Path, str]], few: list[tuple[Path, str]]) -> list[tuple[Path, str]]:
    placed = [((position + 0.5) / len(group), each) for group in (many, few) for position, each in enumerate(group)]
    return [each for _, each in sorted(placed, key=lambda entry: entry[0])]


def _between(rng: np.random.Generator, low: float, high: float) -> float:
    return round(float(rng.uniform(low, high)), 3)


def _identity(path: Path) -> str:
    return f"{path.parent.name}/{path.stem}"


def _digest(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") >> 1
