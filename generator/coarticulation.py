"""The coarticulation room: phonemes with their times become smooth curves of what lips, jaw and tongue do.

This is the teacher of the motion network and the measure of its lips. Each phoneme has targets for a handful of
articulators and a strength with which it insists on each of them; neighbours blend by overlapping dominance functions
(Cohen & Massaro, "Modeling coarticulation in synthetic visual speech", 1993). What a listener would see as an error is
not left to blending: bilabials close, labiodentals tuck the lower lip, and silence leaves the lips at rest.

    T instant   S segment (one phoneme)   C articulator
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

import numpy as np
from numpy.typing import NDArray

# What the network predicts, each 0..1. Weights files store outputs in this order: append, never reorder.
ARTICULATORS: Final[tuple[str, ...]] = (
    "jaw",  # how far the mouth opens for the sound
    "closure",  # upper and lower lip meet: p b m
    "tuck",  # lower lip under the upper teeth: f v
    "pucker",  # lips pushed forward to a small ring: u w
    "funnel",  # lips forward and open: o ɔ ʃ
    "spread",  # corners drawn apart: i e s
    "upper",  # upper lip lifted beyond what the jaw does
    "lower",  # lower lip drawn down beyond what the jaw does
    "teeth",  # teeth nearly meet while the lips are apart: s z ʃ ʒ
    "tongue",  # tongue tip at or between the teeth: θ ð l t d n
    "press",  # lips pressed against each other: p b, less m
    "speech",  # somebody speaks; at 0 every other articulator rests
)
ARTICULATOR_INDEX: Final[dict[str, int]] = {name: index for index, name in enumerate(ARTICULATORS)}

BILABIALS: Final = frozenset("pbm")
LABIODENTALS: Final = frozenset("fv")
_LENGTHENERS: Final = frozenset("ː̃ʲʰ̩")
_STRESS_MARKS: Final = frozenset("ˈˌ")
_EDGES: Final = frozenset("^$")
_PUNCTUATION: Final = frozenset(".,;:!?…—")

# A gap between words shorter than this is no pause: the mouth goes straight to the next sound.
SHORTEST_PAUSE_S: Final = 0.13
# How long before its sound a mouth may begin to move, and how long it takes to come to rest.
_ANTICIPATION_S: Final = 0.06
_RELEASE_S: Final = 0.09
# A closure holds at least this long, so that one frame of 25 fps video shows it wherever the frames fall.
_SHORTEST_HOLD_S: Final = 0.045


@dataclass(frozen=True)
class Phone:
    """One entry of a timed transcription: an IPA symbol, or ^ start, $ end, space, ˈˌ stress, ː length."""

    symbol: str
    start_s: float
    end_s: float


@dataclass(frozen=True)
class Viseme:
    """What one phoneme asks of the mouth.

    Attributes:
        targets: articulator → 0..1; articulators left out are asked to rest, weakly.
        insistence: how strongly the jaw target is meant, 0..1 (a vowel 1, an alveolar 0.5, an h nearly 0).
    """

    targets: Mapping[str, float]
    insistence: float = 0.6


def _viseme(jaw: float, insistence: float = 0.6, **targets: float) -> Viseme:
    return Viseme(MappingProxyType({"jaw": jaw, **targets}), insistence)


VISEMES: Final[Mapping[str, Viseme]] = MappingProxyType(
    {
        # open and front vowels
        "ɑ": _viseme(1.0, 1.0, upper=0.15),
        "a": _viseme(1.0, 1.0, upper=0.2, spread=0.1),
        "æ": _viseme(0.9, 1.0, upper=0.25, spread=0.35, lower=0.1),
        "ʌ": _viseme(0.7, 1.0),
        "ɐ": _viseme(0.7, 1.0),
        "ɛ": _viseme(0.65, 1.0, spread=0.3, upper=0.1),
        "e": _viseme(0.55, 1.0, spread=0.5, upper=0.1),
        "ɪ": _viseme(0.40, 0.9, spread=0.4, upper=0.1),
        "ᵻ": _viseme(0.38, 0.8, spread=0.3),
        "i": _viseme(0.30, 0.9, spread=0.75, upper=0.15),
        "ə": _viseme(0.45, 0.8),
        "ɚ": _viseme(0.45, 0.9, funnel=0.2, pucker=0.1),
        "ɜ": _viseme(0.50, 1.0, funnel=0.2),
        # rounded vowels
        "ɒ": _viseme(0.75, 1.0, funnel=0.4),
        "ɔ": _viseme(0.70, 1.0, funnel=0.55, pucker=0.2),
        "o": _viseme(0.55, 1.0, funnel=0.5, pucker=0.5),
        "ʊ": _viseme(0.35, 0.9, funnel=0.2, pucker=0.6),
        "u": _viseme(0.25, 0.9, funnel=0.15, pucker=0.85),
        "y": _viseme(0.25, 0.9, funnel=0.1, pucker=0.85),
        "ø": _viseme(0.45, 1.0, funnel=0.3, pucker=0.6),
        "œ": _viseme(0.55, 1.0, funnel=0.45, pucker=0.35),
        # lips
        "p": _viseme(0.0, 1.0, press=0.8),
        "b": _viseme(0.0, 1.0, press=0.7),
        "m": _viseme(0.0, 1.0, press=0.5),
        "f": _viseme(0.06, 0.9, upper=0.25),
        "v": _viseme(0.06, 0.9, upper=0.2),
        "β": _viseme(0.08, 0.8, press=0.1),
        "w": _viseme(0.14, 0.8, pucker=0.95, funnel=0.1),
        # teeth and tongue
        "s": _viseme(0.12, 0.7, teeth=1.0, spread=0.35, upper=0.15, lower=0.25),
        "z": _viseme(0.12, 0.7, teeth=1.0, spread=0.35, upper=0.15, lower=0.25),
        "ʃ": _viseme(0.14, 0.7, teeth=0.9, funnel=0.5, pucker=0.35, upper=0.2, lower=0.25),
        "ʒ": _viseme(0.14, 0.7, teeth=0.9, funnel=0.5, pucker=0.35, upper=0.2, lower=0.25),
        "ç": _viseme(0.18, 0.5, teeth=0.4, spread=0.4),
        "θ": _viseme(0.18, 0.6, tongue=1.0, lower=0.15),
        "ð": _viseme(0.18, 0.6, tongue=0.9, lower=0.15),
        "t": _viseme(0.15, 0.5, tongue=0.4, teeth=0.5, lower=0.1),
        "d": _viseme(0.15, 0.5, tongue=0.4, teeth=0.4, lower=0.1),
        "n": _viseme(0.16, 0.5, tongue=0.45),
        "l": _viseme(0.20, 0.5, tongue=0.7),
        "ʎ": _viseme(0.20, 0.5, tongue=0.5, spread=0.3),
        "ɲ": _viseme(0.18, 0.5, tongue=0.4, spread=0.3),
        "ɾ": _viseme(0.18, 0.4, tongue=0.4),
        "r": _viseme(0.20, 0.4, tongue=0.4),
        "ɹ": _viseme(0.20, 0.5, funnel=0.3, pucker=0.3),
        # back of the mouth: the lips mostly follow their neighbours
        "ʁ": _viseme(0.22, 0.4),
        "x": _viseme(0.22, 0.4),
        "ɣ": _viseme(0.22, 0.4),
        "k": _viseme(0.20, 0.4),
        "ɡ": _viseme(0.20, 0.4),
        "ŋ": _viseme(0.20, 0.4),
        "j": _viseme(0.20, 0.5, spread=0.5),
        "ʝ": _viseme(0.20, 0.5, spread=0.4),
        "h": _viseme(0.30, 0.1),
        "ʔ": _viseme(0.25, 0.1),
    }
)
_UNKNOWN: Final = _viseme(0.2, 0.3)
# Between two words the jaw gives way a little, without a pause.
_WORD_GAP: Final = _viseme(0.12, 0.4)

# How far each articulator's influence reaches beyond its segment, in seconds, forward (anticipation) and back.
_REACH_S: Final[Mapping[str, tuple[float, float]]] = MappingProxyType(
    {
        "jaw": (0.030, 0.030),
        "pucker": (0.075, 0.055),
        "funnel": (0.070, 0.055),
        "spread": (0.055, 0.050),
        "upper": (0.045, 0.045),
        "lower": (0.040, 0.040),
        "teeth": (0.030, 0.025),
        "tongue": (0.030, 0.025),
        "press": (0.025, 0.020),
    }
)


@dataclass(frozen=True)
class _Segment:
    symbol: str
    start_s: float
    end_s: float
    stressed: bool = False
    viseme: Viseme = field(default=_UNKNOWN)


def phones_from_json(rows: Sequence[Sequence[object]]) -> tuple[Phone, ...]:
    """Read `[[symbol, start, end], …]`, the form in which timed transcriptions are kept.

    Raises: ValueError: a row of another shape, or times that run backwards.
    """
    phones: list[Phone] = []
    for row in rows:
        if len(row) != 3 or not isinstance(row[0], str) or not all(isinstance(t, int | float) for t in row[1:]):
            raise ValueError(f"a phone is [symbol, start_s, end_s], not {row!r}")
        phone = Phone(row[0], float(row[1]), float(row[2]))  # type: ignore[arg-type]
        if phone.end_s < phone.start_s or (phones and phone.start_s < phones[-1].start_s):
            raise ValueError(f"the times of phone {row!r} run backwards")
        phones.append(phone)
    return tuple(phones)


def _is_gap(phone: Phone) -> bool:
    return not phone.symbol.strip() or phone.symbol in _PUNCTUATION


def speech_spans(phones: Sequence[Phone]) -> list[tuple[float, float]]:
    """Return the stretches of speech as (start_s, end_s): the phonemes, joined over gaps too short to be a pause."""
    spans: list[tuple[float, float]] = []
    for phone in phones:
        if phone.symbol in _EDGES or _is_gap(phone):
            continue
        if spans and phone.start_s - spans[-1][1] < SHORTEST_PAUSE_S:
            spans[-1] = (spans[-1][0], max(spans[-1][1], phone.end_s))
        else:
            spans.append((phone.start_s, phone.end_s))
    return spans


def _segments(phones: Sequence[Phone]) -> list[_Segment]:
    """Drop marks and pauses: length marks lengthen what they follow, stress marks make the next vowel larger."""
    segments: list[_Segment] = []
    stressed = False
    for phone in phones:
        if phone.symbol in _STRESS_MARKS:
            stressed = True
        elif phone.symbol in _LENGTHENERS and segments:
            last = segments[-1]
            segments[-1] = _Segment(last.symbol, last.start_s, phone.end_s, last.stressed, last.viseme)
        elif _is_gap(phone):
            if phone.end_s - phone.start_s < SHORTEST_PAUSE_S:
                segments.append(_Segment(" ", phone.start_s, phone.end_s, viseme=_WORD_GAP))
        elif phone.symbol not in _EDGES:
            viseme = VISEMES.get(phone.symbol, _UNKNOWN)
            is_vowel = viseme.insistence >= 0.8 and viseme.targets["jaw"] >= 0.25
            segments.append(_Segment(phone.symbol, phone.start_s, phone.end_s, stressed and is_vowel, viseme))
            stressed = stressed and not is_vowel
    return segments


def _outside_s(times_T: NDArray[np.float64], start_s: float, end_s: float) -> NDArray[np.float64]:
    """Signed time outside of [start, end]: negative before it, 0 inside, positive after."""
    return np.minimum(times_T - start_s, 0.0) + np.maximum(times_T - end_s, 0.0)


def _plateau(times_T: NDArray[np.float64], start_s: float, end_s: float, rise_s: float, fall_s: float) -> NDArray:
    """1 inside [start, end], raised-cosine flanks of `rise_s` before and `fall_s` after."""
    outside = _outside_s(times_T, start_s, end_s)
    flank = np.where(outside < 0.0, -outside / rise_s, outside / fall_s)
    return 0.5 + 0.5 * np.cos(np.pi * np.clip(flank, 0.0, 1.0))


def speech_activity(phones: Sequence[Phone], times_T: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return 1 where somebody speaks, 0 in silence, with short smooth flanks; shape (T,)."""
    active_T = np.zeros(len(times_T))
    for start_s, end_s in speech_spans(phones):
        active_T = np.maximum(active_T, _plateau(times_T, start_s, end_s, _ANTICIPATION_S, _RELEASE_S))
    return active_T


def articulate(phones: Sequence[Phone], times_T: NDArray[np.float64]) -> NDArray[np.float32]:
    """Tell what the mouth does at each instant of a timed transcription.

    Args:
        phones: in order of time.
        times_T: instants in seconds, any spacing.
    Returns: shape (T, 12), 0..1, in the order of `ARTICULATORS`; all zero in silence.
    """
    curves_TC = np.zeros((len(times_T), len(ARTICULATORS)))
    segments = _segments(phones)
    if not segments or not len(times_T):
        return curves_TC.astype(np.float32)
    outside_ST = np.stack([_outside_s(times_T, s.start_s, s.end_s) for s in segments])
    for name, (before_s, after_s) in _REACH_S.items():
        reach_S1 = np.where(outside_ST < 0.0, before_s, after_s)
        # A phoneme that asks nothing of an articulator still pulls it to rest, but weakly, so that rounding carries
        # through a cluster of consonants.
        target_S = np.array([s.viseme.targets.get(name, 0.0) * (1.12 if s.stressed else 1.0) for s in segments])
        if name == "jaw":
            strength_S = np.array([s.viseme.insistence for s in segments])
        else:
            strength_S = np.array([1.0 if name in s.viseme.targets else 0.35 for s in segments])
        dominance_ST = strength_S[:, None] * np.exp(-(np.abs(outside_ST / reach_S1) ** 1.5)) + 1e-9
        curves_TC[:, ARTICULATOR_INDEX[name]] = (target_S[:, None] * dominance_ST).sum(0) / dominance_ST.sum(0)
    curves_TC = np.clip(curves_TC, 0.0, 1.0)

    for segment in segments:
        lengthen_s = max(0.0, _SHORTEST_HOLD_S - (segment.end_s - segment.start_s)) / 2
        start_s, end_s = segment.start_s - lengthen_s, segment.end_s + lengthen_s
        if segment.symbol in BILABIALS:
            contact_T = _plateau(times_T, start_s, end_s, 0.045, 0.04)
            column = ARTICULATOR_INDEX["closure"]
        elif segment.symbol in LABIODENTALS:
            contact_T = _plateau(times_T, start_s, end_s, 0.05, 0.045)
            column = ARTICULATOR_INDEX["tuck"]
        else:
            continue
        curves_TC[:, column] = np.maximum(curves_TC[:, column], contact_T)

    active_T = speech_activity(phones, times_T)
    curves_TC *= active_T[:, None]
    curves_TC[:, ARTICULATOR_INDEX["speech"]] = active_T
    return curves_TC.astype(np.float32)


def lip_aperture(curves_TC: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return how far the lips are apart, 0 (they meet) .. 1, at each instant; shape (T,).

    A closure shuts the lips whatever the jaw does, a tucked lower lip leaves a slit, a pucker narrows the opening.
    """
    jaw_T, closure_T, tuck_T, pucker_T, upper_T, lower_T = (
        curves_TC[..., ARTICULATOR_INDEX[name]] for name in ("jaw", "closure", "tuck", "pucker", "upper", "lower")
    )
    opening_T = (0.8 * jaw_T + 0.1 * upper_T + 0.2 * lower_T) * (1.0 - 0.25 * pucker_T)
    return np.clip(opening_T * (1.0 - closure_T) * (1.0 - 0.7 * tuck_T), 0.0, 1.0)
