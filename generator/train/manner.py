"""Learning a manner of moving from video: `placet train motion --video DIR`.

Clips of people who have agreed to it are followed with the project's own perception (`generator.sighting`); what is
kept of each is a handful of statistics, no picture. Then the factors of `Manner` are moved until the stochastic model
moves as they do on the average: the method of simulated moments, a step in the logarithm of each factor per round.

    clips ──► watch ──► statistics of each (kept beside, so that it goes on where it stopped) ──► mean
    Manner ──► simulated behaviour, many seeds ──► the same statistics ──► ratio ──► next Manner
"""

# T frame

from __future__ import annotations

import csv
import hashlib
import json
import platform
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from generator.behaviour import Behaviour, HeardFrame, Wish
from generator.driving import WATCHED_SIDE_PX, frame_of_rest
from generator.errors import DrivingTooShortError, GeneratorError
from generator.manner import USUAL, Manner
from generator.sighting import watch
from watermark.errors import MediaError
from watermark.media import MediaLimits, decode_clip

SUFFIXES: Final = (".mp4", ".mpg", ".mpeg", ".mov", ".mkv", ".webm", ".avi")
RATE_HZ: Final = 25.0
_NUM_ROUNDS: Final = 12
_NUM_SEEDS: Final = 12
_STEP: Final = 0.6  # of the logarithm of a ratio, per round
_SHUT: Final = 0.6  # of an open eye's opening
_SHIFT_DEG: Final = 1.5  # within one frame: a gaze shift
_STEADY_S: Final = 0.15
_LEAST: Final = 1e-3
# Which factor answers for which statistic; a rate of shifts falls as the stay grows, hence the sign.
_ANSWERS: Final = {
    "yaw_deg": ("yaw", 1.0), "pitch_deg": ("pitch", 1.0), "roll_deg": ("roll", 1.0), "quickness": ("pace", 1.0),
    "blinks_per_min": ("blinks", 1.0), "gaze_deg": ("gaze", 1.0), "gaze_shifts_per_min": ("gaze_stay", -1.0),
}  # fmt: skip


@dataclass(frozen=True)
class MannerStatistics:
    """How much somebody moves, in a clip or a simulation.

    Attributes:
        yaw_deg, pitch_deg, roll_deg: spread of the head's angles.
        quickness: median angular speed over that spread, per second.
        blinks_per_min, gaze_shifts_per_min: how often.
        gaze_deg: spread of the gaze.
    """

    yaw_deg: float
    pitch_deg: float
    roll_deg: float
    quickness: float
    blinks_per_min: float
    gaze_deg: float
    gaze_shifts_per_min: float

    @classmethod
    def of(
        cls, pose_T3: NDArray[np.floating], gaze_T2: NDArray[np.floating], shut_T: NDArray[np.floating], rate_hz: float
    ) -> MannerStatistics:
        """From angles in degrees, gaze in degrees, and how far the eyes are shut (0..1) per frame."""
        pose_T3 = gaussian_filter1d(pose_T3, _STEADY_S * rate_hz, axis=0)  # what the landmarks' noise adds is no speed
        spread_3 = pose_T3.std(0)
        speed_T = np.linalg.norm(np.diff(pose_T3, axis=0), axis=1) * rate_hz
        minutes = len(pose_T3) / rate_hz / 60.0
        shut = shut_T > 0.5
        num_blinks = int((shut[1:] & ~shut[:-1]).sum())
        jump_T = np.linalg.norm(np.diff(gaze_T2, axis=0), axis=1)
        shifts = (jump_T > _SHIFT_DEG) & ~shut[1:] & ~shut[:-1]
        num_shifts = int((shifts[1:] & ~shifts[:-1]).sum()) + int(shifts[:1].sum())
        yaw_deg, pitch_deg, roll_deg = (float(each) for each in spread_3)
        return cls(
            yaw_deg=yaw_deg,
            pitch_deg=pitch_deg,
            roll_deg=roll_deg,
            quickness=float(np.median(speed_T) / max(float(np.linalg.norm(spread_3)), _LEAST)),
            blinks_per_min=num_blinks / minutes,
            gaze_deg=float(np.linalg.norm(gaze_T2[~shut].std(0))) if (~shut).any() else 0.0,
            gaze_shifts_per_min=num_shifts / minutes,
        )

    @classmethod
    def mean(cls, of: Sequence[MannerStatistics], weights_s: Sequence[float]) -> MannerStatistics:
        """Over clips, by their length."""
        return cls(*(float(np.average([getattr(e, each.name) for e in of], weights=weights_s)) for each in fields(cls)))


@dataclass(frozen=True)
class MannerReport:
    """What came out.

    Attributes:
        file, curve, card: what was written.
        seen, reached: statistics of the video, and of the model after the last round.
        num_clips, num_refused: clips that were followed, and that could not be.
    """

    file: Path
    curve: Path
    card: Path
    manner: Manner
    seen: MannerStatistics
    reached: MannerStatistics
    num_clips: int
    num_refused: int
    video_s: float

    def to_json(self) -> dict[str, Any]:
        """For the command line."""
        return {
            name: asdict(value) if hasattr(value, "__dataclass_fields__") else value
            for name, value in vars(self).items()
        }


def train(
    videos: Path,
    scratch: Path,
    out: Path,
    *,
    licence: str,
    seed: int = 20261122,
    progress: Callable[[int, int], None] | None = None,
    say: Callable[[str], None] = lambda _line: None,
) -> MannerReport:
    """Learn a manner from every clip below a folder.

    Args:
        scratch: statistics of clips that were followed are kept there; a second run goes on from them.
        out: the manner file; a curve (.csv) and a card (.md) are written beside it.
        licence: by what right the people in the video are learned from; stands in the card.
    Raises: GeneratorError: not one clip could be followed.
    """
    files = sorted(path for path in videos.rglob("*") if path.suffix.lower() in SUFFIXES)
    scratch.mkdir(parents=True, exist_ok=True)
    found: list[tuple[str, MannerStatistics, float]] = []
    for index, path in enumerate(files):
        try:
            found.append(_statistics_of(path, scratch))
        except (GeneratorError, MediaError) as error:
            say(f"{path.name} left out: {error}")
        if progress is not None:
            progress(index + 1, len(files))
    if not found:
        raise DrivingTooShortError(
            f"No clip below {videos} shows a face that could be followed: {len(files)} were tried."
        )
    lengths_s = [length_s for _, _, length_s in found]
    seen = MannerStatistics.mean([statistics for _, statistics, _ in found], lengths_s)
    manner, rounds = fit_manner(seen, float(np.mean(lengths_s)), seed)
    reached = rounds[-1][1]
    curve, card = out.with_suffix(".csv"), out.with_suffix(".md")
    _write_curve(curve, seen, rounds)
    learned_from = {
        "num_clips": len(found), "video_s": round(sum(lengths_s), 1), "licence": licence, "seed": seed,
        "clips_sha256": [name for name, _, _ in found],
    }  # fmt: skip
    manner.save(out, learned_from)
    report = MannerReport(out, curve, card, manner, seen, reached, len(found), len(files) - len(found), sum(lengths_s))
    card.write_text(_card(report, learned_from))
    return report


def fit_manner(
    seen: MannerStatistics, clip_s: float, seed: int
) -> tuple[Manner, list[tuple[Manner, MannerStatistics]]]:
    """The manner whose simulation has these statistics, and every round on the way. Pure.

    Args:
        clip_s: length of the clips: spreads over a few seconds are smaller than over a minute.
    """
    manner, rounds = USUAL, []
    for _ in range(_NUM_ROUNDS):
        reached = simulated(manner, clip_s, seed)
        rounds.append((manner, reached))
        factors = {}
        for statistic, (factor, sign) in _ANSWERS.items():
            ratio = max(getattr(seen, statistic), _LEAST) / max(getattr(reached, statistic), _LEAST)
            factors[factor] = float(np.clip(ratio, 0.25, 4.0) ** (sign * _STEP))
        manner = manner.scaled(factors)
    rounds.append((manner, simulated(manner, clip_s, seed)))
    best = min(rounds, key=lambda each: mismatch(seen, each[1]))
    return best[0], [*rounds, best]


def mismatch(seen: MannerStatistics, reached: MannerStatistics) -> float:
    """Root mean square of the logarithms of the ratios."""
    ratios = [max(getattr(seen, name), _LEAST) / max(getattr(reached, name), _LEAST) for name in _ANSWERS]
    return float(np.sqrt(np.mean(np.clip(np.log(ratios), -3.0, 3.0) ** 2)))


def simulated(manner: Manner, clip_s: float, seed: int) -> MannerStatistics:
    """Statistics of the model itself, talking all the time, over many seeds."""
    num_frames = max(round(clip_s * RATE_HZ), 25)
    heard = HeardFrame(1.0, 0.5)
    each = []
    for number in range(_NUM_SEEDS):
        behaviour = Behaviour(seed + number, RATE_HZ, manner)
        frames = [behaviour.step(heard, Wish()) for _ in range(num_frames + 25)][25:]
        each.append(
            MannerStatistics.of(
                np.array([frame.pose_6[:3] for frame in frames]),
                np.array([frame.gaze_2 for frame in frames]),
                np.array([frame.blink for frame in frames]),
                RATE_HZ,
            )
        )
    return MannerStatistics.mean(each, [1.0] * len(each))


def _statistics_of(path: Path, scratch: Path) -> tuple[str, MannerStatistics, float]:
    """Hash, statistics and length of one clip, followed unless it was before."""
    data = path.read_bytes()
    name = hashlib.sha256(data).hexdigest()
    kept = scratch / f"{name}.json"
    if kept.is_file():
        content = json.loads(kept.read_text())
        return name, MannerStatistics(**content["statistics"]), float(content["length_s"])
    clip = decode_clip(data, MediaLimits(), fit_within_px=WATCHED_SIDE_PX)
    if len(clip.frames_THWC) < RATE_HZ:
        raise DrivingTooShortError(f"{path.name} is shorter than a second.")
    first = watch(clip.frames_THWC, clip.rate_hz)
    pose_T3 = first.pose_T3 - first.pose_T3[frame_of_rest(first)]
    open_eye = max(float(np.percentile(first.opening_T, 80)), 1e-6)
    shut_T = np.clip((1.0 - first.opening_T / open_eye) / (2.0 * (1.0 - _SHUT)), 0.0, 1.0)
    statistics = MannerStatistics.of(pose_T3, first.gaze_T2, shut_T, clip.rate_hz)
    draft = kept.with_suffix(".partial")
    draft.write_text(json.dumps({"statistics": asdict(statistics), "length_s": clip.duration_s}))
    draft.replace(kept)
    return name, statistics, clip.duration_s


def _write_curve(path: Path, seen: MannerStatistics, rounds: list[tuple[Manner, MannerStatistics]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        names = list(_ANSWERS)
        writer.writerow(["round", "mismatch", *names, *(f"factor_{each.name}" for each in fields(Manner))])
        for number, (manner, reached) in enumerate(rounds[:-1]):
            values = [round(getattr(reached, name), 4) for name in names]
            factors = [round(value, 4) for value in asdict(manner).values()]
            writer.writerow([number, round(mismatch(seen, reached), 5), *values, *factors])
        writer.writerow(["video", 0, *(round(getattr(seen, name), 4) for name in names), *[""] * len(fields(Manner))])


def _card(report: MannerReport, learned_from: dict[str, Any]) -> str:
    rows = "\n".join(
        f"| {name} | {getattr(report.seen, name):.2f} | {getattr(report.reached, name):.2f} "
        f"| {_ANSWERS[name][0]} {getattr(report.manner, _ANSWERS[name][0]):.2f} |"
        for name in _ANSWERS
    )
    return f"""# {report.file.name}: a manner of moving

Factors on the stochastic model of head, gaze and blinks (`generator/behaviour.py`), learned from video by
`placet train motion --video`. Use: `PLACET_MANNER={report.file.name}`, or `MotionModel.load(manner=Manner.load(path))`.

| statistic | video | model | factor |
|---|---|---|---|
{rows}

Data: {learned_from["num_clips"]} clips, {learned_from["video_s"]} s; {report.num_refused} could not be followed.
Licence or consent: {learned_from["licence"]}. Seed {learned_from["seed"]}, Python {platform.python_version()}.
Root mean square of the logarithms of the ratios: {mismatch(report.seen, report.reached):.3f} (rounds:
{report.curve.name}).

Limits. Blinks and gaze shifts of short clips are few, so their rates are rough. What the landmarks' own noise adds is
mostly smoothed away, not all of it. A factor at a limit (0.05 or 5) says that the model cannot move like that. Nothing
of anybody's looks, voice or lips is in these numbers.
"""
