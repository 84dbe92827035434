"""The yardstick room of the generator: do the lips say what the voice says?

Lips are measured by their aperture (how far they are apart), against the phonemes of a timed transcription: whether
they meet on p, b and m, whether they stay apart elsewhere, how late they are, how well the opening follows the
vowels, and whether they rest in silence. The aperture may come from the motion network's own curves or from landmarks
found in rendered pictures; the formulas are the same.

    T measured frame
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from generator.coarticulation import BILABIALS, VISEMES, Phone, speech_spans
from generator.perception import lip_aperture
from generator.sighting import follow_face, refuse_lost
from watermark.media import Clip, decode_clip

# A closure counts when the aperture comes within this share of the clip's own range (5th to 95th percentile) of rest.
CLOSED_SHARE: Final = 0.12
_CLOSURE_SLACK_S: Final = 0.06
_LARGEST_LAG_S: Final = 0.24


@dataclass(frozen=True)
class LipMeasures:
    """How well the lips of one clip follow its phonemes.

    Attributes:
        num_closures: p, b, m in the clip.
        num_closed: those on which the lips met within 60 ms of the sound.
        num_open_frames: frames of vowels, at least 100 ms away from any p b m f v and inside speech.
        num_false_closures: those of them in which the lips met all the same.
        correlation: of the aperture with the opening that the phonemes ask for, at the best lag.
        correlation_at_zero: the same without shifting.
        lag_ms: how much later than the sound the lips are; negative if they are early.
        silence_motion: mean movement in silence over mean movement in speech; None if there is no silence.
    """

    num_closures: int
    num_closed: int
    num_open_frames: int
    num_false_closures: int
    correlation: float
    correlation_at_zero: float
    lag_ms: float
    silence_motion: float | None

    @property
    def closure_recall(self) -> float:
        return self.num_closed / max(self.num_closures, 1)

    @property
    def false_closure_rate(self) -> float:
        return self.num_false_closures / max(self.num_open_frames, 1)

    def to_json(self) -> dict[str, object]:
        return {**asdict(self), "closure_recall": self.closure_recall, "false_closure_rate": self.false_closure_rate}


def _asked_opening(phones: Sequence[Phone], times_T: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the plain staircase of openings that the phonemes ask for, without any coarticulation."""
    opening_T = np.zeros(len(times_T))
    held = 0.0
    for phone in phones:
        if phone.symbol not in "ːˈˌ":
            viseme = VISEMES.get(phone.symbol)
            asked = 0.0 if viseme is None else viseme.targets["jaw"]
            held = 0.15 if viseme is not None and viseme.insistence < 0.8 else asked
        opening_T[(times_T >= phone.start_s) & (times_T < phone.end_s)] = held
    return opening_T


def _correlation(left_T: NDArray, right_T: NDArray) -> float:
    if len(left_T) < 3 or left_T.std() < 1e-9 or right_T.std() < 1e-9:
        return 0.0
    return float(np.corrcoef(left_T, right_T)[0, 1])


def measure_lips(aperture_T: NDArray[np.floating], rate_hz: float, phones: Sequence[Phone]) -> LipMeasures:
    """Measure lips against a timed transcription.

    Args:
        aperture_T: how far the lips are apart in each frame, any unit; frame k is what is seen at k / rate_hz.
        phones: with times in seconds from the same zero.
    """
    aperture_T = np.asarray(aperture_T, np.float64)
    times_T = np.arange(len(aperture_T)) / rate_hz
    rest, wide = np.percentile(aperture_T, 5), np.percentile(aperture_T, 95)
    shut_T = aperture_T <= rest + CLOSED_SHARE * (wide - rest)

    # (1) closures: each p b m must be seen
    near_contact_T = np.zeros(len(times_T), bool)
    num_closures = num_closed = 0
    for phone in phones:
        if phone.symbol in BILABIALS or phone.symbol in "fv":
            near_contact_T |= (times_T > phone.start_s - 0.1) & (times_T < phone.end_s + 0.1)
        if phone.symbol in BILABIALS and phone.end_s < times_T[-1]:
            seen_T = (times_T >= phone.start_s - _CLOSURE_SLACK_S) & (times_T <= phone.end_s + _CLOSURE_SLACK_S)
            num_closures += 1
            num_closed += bool(shut_T[seen_T].any())

    # (2) and nothing but them: lips that meet in the middle of a vowel are wrong
    vowel_T = np.zeros(len(times_T), bool)
    for phone in phones:
        viseme = VISEMES.get(phone.symbol)
        if viseme is not None and viseme.insistence >= 0.8 and viseme.targets["jaw"] >= 0.25:
            # The end of a long vowel may be a pause that the transcription does not know of.
            vowel_T |= (times_T >= phone.start_s) & (times_T < min(phone.end_s, phone.start_s + 0.12))
    open_T = vowel_T & ~near_contact_T

    # (3) opening and lag: the staircase, smoothed as a camera would, against the aperture at every shift
    asked_T = np.convolve(_asked_opening(phones, times_T), [0.25, 0.5, 0.25], "same")
    largest = min(round(_LARGEST_LAG_S * rate_hz), max(len(times_T) - 4, 0))
    shifts = [int(s) for s in range(-largest, largest + 1)]
    by_shift = np.array(
        [
            _correlation(
                aperture_T[max(0, s) : len(times_T) + min(0, s)], asked_T[max(0, -s) : len(times_T) - max(0, s)]
            )
            for s in shifts
        ]
    )
    best = int(by_shift.argmax())
    offset = 0.0
    if 0 < best < len(shifts) - 1:
        before, at, after = by_shift[best - 1 : best + 2]
        curvature = before - 2 * at + after
        offset = float(np.clip(0.5 * (before - after) / curvature, -0.5, 0.5)) if curvature < 0 else 0.0

    # (4) silence: nothing moves
    movement_T = np.abs(np.diff(aperture_T))
    speaking_T = np.zeros(max(len(times_T) - 1, 0), bool)
    for start_s, end_s in speech_spans(phones):
        speaking_T |= (times_T[:-1] >= start_s - 0.1) & (times_T[:-1] < end_s + 0.15)
    silence_motion = None
    if (~speaking_T).any() and speaking_T.any():
        silence_motion = float(movement_T[~speaking_T].mean() / max(movement_T[speaking_T].mean(), 1e-9))

    return LipMeasures(
        num_closures=num_closures,
        num_closed=num_closed,
        num_open_frames=int(open_T.sum()),
        num_false_closures=int((open_T & shut_T).sum()),
        correlation=float(by_shift[best]),
        correlation_at_zero=float(by_shift[largest]),
        lag_ms=float((shifts[best] + offset) / rate_hz * 1000.0),
        silence_motion=silence_motion,
    )


def seen_apertures(clip: Clip, progress: Callable[[int, int], None] | None = None) -> NDArray[np.float64]:
    """Measure in pictures how far the lips are apart, as a fraction of the distance between the outer eye corners.

    The face is detected once and then followed; a frame in which it is lost takes its neighbours' value.

    Returns: shape (T,).
    Raises: NoFaceError: no face in more than a tenth of the frames.
    """
    apertures_T = np.full(len(clip.frames_THWC), np.nan)
    for index, landmarks in enumerate(follow_face(clip.frames_THWC)):
        if landmarks is not None:
            apertures_T[index] = lip_aperture(landmarks.points_L2)
        if progress is not None:
            progress(index + 1, len(apertures_T))
    lost_T = np.isnan(apertures_T)
    refuse_lost(lost_T)
    apertures_T[lost_T] = np.interp(np.flatnonzero(lost_T), np.flatnonzero(~lost_T), apertures_T[~lost_T])
    return apertures_T


def evaluate_lips(
    source: bytes | Path, phones: Sequence[Phone], progress: Callable[[int, int], None] | None = None
) -> LipMeasures:
    """Measure the lips of a rendered clip against the phonemes of its speech, on the pixels.

    Args:
        source: the clip as it was delivered.
        phones: the transcription of its sound, times from its start.
        progress: told how many frames of how many are done.
    Raises: the media room's errors; NoFaceError.
    """
    clip = decode_clip(source)
    return measure_lips(seen_apertures(clip, progress), clip.rate_hz, phones)
