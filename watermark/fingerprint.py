"""Fingerprints: what a delivered clip looks and sounds like, second by second, in the signed manifest.

A mark can be copied onto other content. Whoever finds one therefore compares: the fingerprints that were signed with
the mark, against what the found clip shows and says. Three features, each a sign that stays the same when a clip is
re-encoded, made smaller, darker or noisier, and says nothing where it would be uncertain:

- *appearance*: in each second, which of two neighbouring squares of an 8 × 8 grid is the brighter (56 signs);
- *motion*: eight times a second, which squares of a 4 × 4 grid grow brighter, which darker (128 signs per second). The
  same portrait that says something else moves otherwise;
- *sound*: eight times a second, how the balance of neighbouring bands changes (120 signs per second), as in Haitsma
  and Kalker, "A highly robust audio fingerprinting system", ISMIR 2002.

A comparison finds the place of the found clip in the signed one by itself, and undoes the changes of size, place,
speed and pitch that reading the mark has told (`View`, `tempo`, `pitch`).

Fingerprints are no proof: they are similarity, with rates of error that README.md states.

WIRE FORMAT: grids, order of signs, `FORMAT` and the packing. Append, never edit.

T frame  S slot of 1/8 s  F feature  h,w sample of a thumbnail
"""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from watermark.errors import InvalidManifestSpecError
from watermark.media import Clip, Sound
from watermark.sound_grid import GRID_RATE_HZ, NUM_BANDS, Spectrogram

FORMAT = "org.placet.fingerprints.1"
SLOTS_PER_S = 8
SLOT_S = 1 / SLOTS_PER_S
PHASES_PER_SLOT = 4
THUMB_PX = 64
_COARSE, _FINE = 4, 8
_NUM_MOTION = _COARSE * _COARSE
_NUM_APPEARANCE = _FINE * (_FINE - 1)
_NUM_SOUND = NUM_BANDS - 1
_LEAST_MOTION, _LEAST_CONTRAST, _LEAST_BALANCE_DB = 0.2, 2.5, 1.5
_LOUDNESS_RANGE_DB = 35.0

Signs = NDArray[np.int8]
"""−1, +1, or 0 where the feature is too weak to be relied on."""


@dataclass(frozen=True)
class Fingerprints:
    """Signs of one clip, from its start.

    Attributes:
        appearance_SF: one row per second.
        motion_SF, sound_SF: one row per 1/8 s. A clip without a sound has no rows there.
        aspect: width of the frames in units of their height.
    """

    appearance_SF: Signs
    motion_SF: Signs
    sound_SF: Signs
    aspect: float

    def to_json(self) -> dict[str, Any]:
        """For the assertion: two bits per sign, 96 bytes for each second in all."""
        return {
            "format": FORMAT,
            "aspect": round(self.aspect, 4),
            "seconds": len(self.appearance_SF),
            "appearance": _packed(self.appearance_SF),
            "motion": _packed(self.motion_SF),
            "sound": _packed(self.sound_SF),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Fingerprints:
        """Read an assertion. Raises: InvalidManifestSpecError: it is of another format, or damaged."""
        try:
            if data["format"] != FORMAT:
                raise InvalidManifestSpecError(f"Fingerprints of the format {data['format']!r} are not read here.")
            aspect = float(data["aspect"])
            if not 0.01 < aspect < 100:
                raise InvalidManifestSpecError("The fingerprints name an impossible frame shape.")
            return cls(
                _unpacked(data["appearance"], _NUM_APPEARANCE),
                _unpacked(data["motion"], _NUM_MOTION),
                _unpacked(data["sound"], _NUM_SOUND),
                aspect,
            )
        except (KeyError, TypeError, ValueError, binascii.Error) as exc:
            raise InvalidManifestSpecError(f"The fingerprints are damaged ({type(exc).__name__}).") from exc


def _packed(signs_SF: Signs) -> str:
    bits = np.stack([signs_SF != 0, signs_SF > 0], axis=-1).astype(np.uint8)
    return base64.b64encode(np.packbits(bits.reshape(len(signs_SF), 2 * signs_SF.shape[1]), axis=1).tobytes()).decode()


def _unpacked(text: str, num_features: int) -> Signs:
    packed = np.frombuffer(base64.b64decode(text, validate=True), np.uint8).reshape(-1, -(-2 * num_features // 8))
    bits = np.unpackbits(packed, axis=1)[:, : 2 * num_features].reshape(len(packed), num_features, 2)
    return np.where(bits[..., 0] == 1, np.where(bits[..., 1] == 1, 1, -1), 0).astype(np.int8)


def _signs(values: NDArray[np.floating], least: float | NDArray[np.floating]) -> Signs:
    return np.where(np.abs(values) >= least, np.sign(values), 0).astype(np.int8)


# ---- taking ----------------------------------------------------------------------------------------------------------


def thumbnail(luma_HW: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The 64 × 64 picture that all visual features are made from, of any frame's luma."""
    return np.asarray(cv2.resize(luma_HW, (THUMB_PX, THUMB_PX), interpolation=cv2.INTER_AREA))


class FingerprintTaker:
    """Takes fingerprints while a clip is written, frame by frame; memory grows by 100 bytes a second.

    Args:
        width, height: of the frames.
    """

    def __init__(self, width: int, height: int) -> None:
        self._aspect = width / height
        self._motion = _Means(_COARSE)
        self._appearance = _Means(_FINE)

    def add(self, luma_HW: NDArray[np.uint8], time_s: float) -> None:
        """Take in the next frame (0.1 ms for 512²)."""
        small_hw = thumbnail(luma_HW).astype(np.float32)
        self._motion.add(small_hw, int(time_s * SLOTS_PER_S + 1e-6))
        self._appearance.add(small_hw, int(time_s + 1e-6))

    def finish(self, sound: Sound | None) -> Fingerprints:
        """All fingerprints, with those of the whole sound."""
        return Fingerprints(
            _appearance_signs(self._appearance.means()),
            _motion_signs(self._motion.means()),
            sound_signs(sound, phases=1)[0] if sound is not None else np.zeros((0, _NUM_SOUND), np.int8),
            self._aspect,
        )


class _Means:
    """Mean brightness of the squares of a grid, slot by slot."""

    def __init__(self, side: int) -> None:
        self._side, self._sums, self._counts = side, [np.zeros(side * side)], [0]

    def add(self, small_hw: NDArray[np.float32], slot: int) -> None:
        while len(self._sums) <= slot:
            self._sums.append(np.zeros(self._side * self._side))
            self._counts.append(0)
        step = THUMB_PX // self._side
        self._sums[slot] += small_hw.reshape(self._side, step, self._side, step).mean(axis=(1, 3)).ravel()
        self._counts[slot] += 1

    def means(self) -> NDArray[np.float64]:
        """One row per slot; NaN where there was no frame."""
        counts = np.array(self._counts, np.float64)[:, None]
        return np.stack(self._sums) / np.where(counts > 0, counts, np.nan)


def _motion_signs(means_SF: NDArray[np.float64]) -> Signs:
    change_SF = np.diff(means_SF, axis=0, prepend=means_SF[:1])
    return _signs(np.nan_to_num(change_SF), _LEAST_MOTION)


def _appearance_signs(means_SF: NDArray[np.float64]) -> Signs:
    grid = means_SF.reshape(-1, _FINE, _FINE)
    return _signs(np.nan_to_num(np.diff(grid, axis=2)).reshape(len(grid), _NUM_APPEARANCE), _LEAST_CONTRAST)


def sound_signs(sound: Sound, *, phases: int, tempo: float = 1.0, pitch: float = 1.0) -> list[Signs]:
    """Signs of a sound, for slots that begin at each of `phases` places within 1/8 s."""
    samples_N = sound.resampled(GRID_RATE_HZ).samples_N
    power_UB = Spectrogram(samples_N).band_power(pitch).cells(tempo, phases, cell_s=SLOT_S)
    if not len(power_UB):
        return [np.zeros((0, _NUM_SOUND), np.int8)] * phases
    loud_B = power_UB.max(axis=0)
    floor_B = loud_B * 10 ** (-_LOUDNESS_RANGE_DB / 10) + 1e-9
    level_UB = 10 * np.log10(power_UB + floor_B)
    balance_UF = np.diff(level_UB, axis=1)
    all_signs = []
    for phase in range(phases):
        rows = balance_UF[phase::phases]
        all_signs.append(_signs(np.diff(rows, axis=0, prepend=rows[:1]), _LEAST_BALANCE_DB))
    return all_signs


# ---- comparing -------------------------------------------------------------------------------------------------------

COMPARED_S = 60.0
"""How much of a found clip is compared, from its start."""
MATCH_SHARE = {"appearance": 0.90, "motion": 0.84, "sound": 0.80}
DIFFER_SHARE = {"appearance": 0.75, "motion": 0.77, "sound": 0.72}
"""Share of agreeing signs from which a feature matches, and below which it differs; chosen by the measured rates of
error (README.md). Between them it is not decided."""
LEAST_SIGNS = {"appearance": 30, "motion": 40, "sound": 100}
"""With fewer signs than these, nothing is decided."""

Feature = Literal["appearance", "motion", "sound"]
FeatureState = Literal["match", "differs", "not_comparable"]


@dataclass(frozen=True)
class View:
    """Which part of the marked frame a found picture shows, in units of the marked frame's width and height.

    Attributes:
        left, top: of the part shown; negative where the found picture shows more than the frame.
        width, height: of the part shown.
        is_mirrored: flipped left to right.
    """

    left: float = 0.0
    top: float = 0.0
    width: float = 1.0
    height: float = 1.0
    is_mirrored: bool = False

    def weights(self, side: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """How to add up the thumbnail's samples to squares of the marked frame: (64·64, side²), and which it shows."""
        rows, shown_rows = _overlaps(self.top, self.height, side)
        columns, shown_columns = _overlaps(self.left, self.width, side)
        if self.is_mirrored:
            columns = columns[:, ::-1]
        squares = np.einsum("ah,bw->habw", rows, columns).transpose(0, 3, 1, 2)
        return squares.reshape(THUMB_PX**2, side * side).astype(np.float32), np.outer(shown_rows, shown_columns).ravel()


def _overlaps(start: float, length: float, side: int) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """For each square of the frame along one side, the share of each thumbnail sample in it: (side, 64)."""
    edges = start + length * np.arange(THUMB_PX + 1) / THUMB_PX
    low, high = np.arange(side)[:, None] / side, (np.arange(side)[:, None] + 1) / side
    covered = np.clip(np.minimum(high, edges[1:]) - np.maximum(low, edges[:-1]), 0, None)
    total = covered.sum(axis=1, keepdims=True)
    return covered / np.maximum(total, 1e-9), total[:, 0] >= 0.9 / side


WHOLE = View()


def views(
    scale: float | None, is_mirrored: bool | None, aspect: float, marked_aspect: float, steps: int = 5
) -> list[View]:
    """The views to try when the mark was read at `scale` (see `MarkReading`): which part is shown is not known.

    Args:
        scale: the marked frame's shorter side in units of the found picture's shorter side; None: undistorted.
        is_mirrored: as the mark was read.
        aspect: width of the found frames in units of their height.
        marked_aspect: the same of the marked frames.
        steps: positions to try along each side.
    """
    if scale is None or (abs(scale - 1) < 0.04 and abs(aspect / marked_aspect - 1) < 0.03):
        return [View(is_mirrored=bool(is_mirrored))]
    # in units of the marked frame's shorter side
    width, height = max(1.0, aspect) / scale, max(1.0, 1 / aspect) / scale
    width, height = width / max(1.0, marked_aspect), height / max(1.0, 1 / marked_aspect)
    return [
        View(float(left), float(top), width, height, bool(is_mirrored))
        for left in _positions(width, steps)
        for top in _positions(height, steps)
    ]


def _positions(length: float, steps: int) -> NDArray[np.float64]:
    slack = 1.0 - length
    return np.array([slack / 2]) if abs(slack) < 0.04 else np.linspace(0.0, slack, steps)


@dataclass
class FoundContent:
    """What a found clip shows and says, small, ready to be compared.

    Attributes:
        thumbs_Thw: uint8, 64 × 64 each.
        times_T: seconds from the first frame.
        sound: or None.
        aspect: width of the frames in units of their height.
    """

    thumbs_Thw: NDArray[np.uint8]
    times_T: NDArray[np.float64]
    sound: Sound | None
    aspect: float

    @classmethod
    def of_clip(cls, clip: Clip) -> FoundContent:
        """What a decoded clip holds; small frames are enough."""
        height, width = clip.frames_THWC.shape[1:3]
        thumbs = [thumbnail(cv2.cvtColor(frame_HWC, cv2.COLOR_RGB2GRAY)) for frame_HWC in clip.frames_THWC]
        return cls(np.stack(thumbs), clip.times_T, clip.sound, width / height)

    @classmethod
    def of_sound(cls, sound: Sound) -> FoundContent:
        """A sound without a picture."""
        return cls(np.zeros((0, THUMB_PX, THUMB_PX), np.uint8), np.empty(0), sound, 1.0)

    def visual_signs(self, view: View, phase: int) -> tuple[Signs, Signs]:
        """Motion per 1/8 s, and appearance per second, for slots that begin `phase` quarter slots later."""
        times_T = self.times_T - phase * SLOT_S / PHASES_PER_SLOT
        inside = times_T >= -1e-6
        flat = self.thumbs_Thw[inside].reshape(-1, THUMB_PX**2).astype(np.float32)
        slots = (times_T[inside] * SLOTS_PER_S + 1e-6).astype(int)
        coarse, coarse_shown = view.weights(_COARSE)
        fine, fine_shown = view.weights(_FINE)
        motion = _motion_signs(_slot_means(flat @ coarse, slots))
        motion[:, ~coarse_shown] = 0
        # an eighth of a second stands for the second that it begins
        appearance = _appearance_signs(_slot_means(flat @ fine, slots))
        shown = fine_shown.reshape(_FINE, _FINE)
        appearance[:, ~(shown[:, 1:] & shown[:, :-1]).ravel()] = 0
        return motion, appearance


def _slot_means(values_TF: NDArray[np.floating], slots_T: NDArray[np.int64]) -> NDArray[np.float64]:
    num_slots = int(slots_T.max()) + 1 if len(slots_T) else 0
    sums = np.zeros((num_slots, values_TF.shape[1]))
    np.add.at(sums, slots_T, values_TF)
    counts = np.bincount(slots_T, minlength=num_slots)[:, None].astype(np.float64)
    return np.asarray(sums / np.where(counts > 0, counts, np.nan))


@dataclass(frozen=True)
class FeatureReading:
    """How one feature of a found clip compares.

    Attributes:
        state: "match", "differs", or "not_comparable": absent, too short, or between the thresholds.
        share: of the signs that agree, at the best place; None if there was nothing to compare.
        num_signs: compared.
        offset_s: where the found clip begins in the signed one; None for `appearance`, which takes that of `motion`.
    """

    state: FeatureState
    share: float | None = None
    num_signs: int = 0
    offset_s: float | None = None


@dataclass(frozen=True)
class FingerprintReading:
    """Whether a found clip has the content that was signed.

    Attributes:
        state: "differs" as soon as one feature differs; "match" if none does and motion or sound match;
            "not_comparable" otherwise.
        features: by name.
        reason: a sentence for people.
    """

    state: FeatureState
    features: Mapping[Feature, FeatureReading] = field(default_factory=dict)
    reason: str = ""


def compare(
    signed: Fingerprints,
    found: FoundContent,
    *,
    candidates: list[View] | None = None,
    tempo: float = 1.0,
    pitch: float = 1.0,
) -> FingerprintReading:
    """Compare a found clip with signed fingerprints.

    Args:
        signed: from a manifest whose signature holds.
        found: what the found clip shows and says.
        candidates: the views to try; by default the whole frame.
        tempo, pitch: how much faster and higher the found sound is, as its mark told.
    """
    features: dict[Feature, FeatureReading] = {"sound": _compare_sound(signed, found, tempo, pitch)}
    features["motion"], features["appearance"] = _compare_picture(signed, found, candidates or [WHOLE], tempo)
    states = {reading.state for reading in features.values()}
    differing = [name for name in ("appearance", "motion", "sound") if features[name].state == "differs"]
    if differing:
        words = {"appearance": "the picture", "motion": "the movement", "sound": "the sound"}
        named = " and ".join(words[name] for name in differing)
        return FingerprintReading("differs", features, f"The content is not what was signed: {named} differs.")
    if "match" in (features["motion"].state, features["sound"].state):
        return FingerprintReading("match", features, "The content is what was signed, as far as it could be compared.")
    reason = "There is too little to compare." if states == {"not_comparable"} else "Only the appearance matches."
    return FingerprintReading("not_comparable", features, reason)


def _compare_sound(signed: Fingerprints, found: FoundContent, tempo: float, pitch: float) -> FeatureReading:
    if found.sound is None or not len(signed.sound_SF):
        return FeatureReading("not_comparable")
    heard = Sound(found.sound.samples_N[: round(COMPARED_S * found.sound.rate_hz)], found.sound.rate_hz)
    return _judged("sound", signed.sound_SF, sound_signs(heard, phases=PHASES_PER_SLOT, tempo=tempo, pitch=pitch))


def _compare_picture(
    signed: Fingerprints, found: FoundContent, candidates: list[View], tempo: float
) -> tuple[FeatureReading, FeatureReading]:
    """Motion and appearance at the view that fits best."""
    if not len(found.times_T):
        return FeatureReading("not_comparable"), FeatureReading("not_comparable")
    times_T = found.times_T * tempo
    seen = FoundContent(found.thumbs_Thw[times_T < COMPARED_S], times_T[times_T < COMPARED_S], None, found.aspect)
    # (1) the views whose appearance fits best anywhere; (2) of those, the one whose motion does
    likely = sorted(candidates, key=lambda view: -_likeness(signed, seen, view))[:3]
    best: tuple[FeatureReading, View] | None = None
    for view in likely:
        phases = [seen.visual_signs(view, phase)[0] for phase in range(PHASES_PER_SLOT)]
        reading = _judged("motion", signed.motion_SF, phases)
        if best is None or (reading.share or 0.0) > (best[0].share or 0.0):
            best = reading, view
    assert best is not None
    motion, view = best
    return motion, _compare_appearance(signed, seen, view, motion.offset_s)


def _likeness(signed: Fingerprints, seen: FoundContent, view: View) -> float:
    """The share of agreeing signs of appearance, against any second of the signed clip."""
    one_per_s = max(1, len(seen.times_T) // max(1, math.ceil(float(seen.times_T[-1]) + 1e-6)))
    thumbs_Thw = seen.thumbs_Thw[::one_per_s][:20]
    sample = FoundContent(thumbs_Thw, np.arange(len(thumbs_Thw), dtype=np.float64) * SLOT_S, None, seen.aspect)
    signs = sample.visual_signs(view, 0)[1].astype(np.int32)
    agreeing = signs @ signed.appearance_SF.astype(np.int32).T
    compared = np.abs(signs) @ np.abs(signed.appearance_SF.astype(np.int32)).T
    return float(np.max((agreeing + 0.0) / np.maximum(compared, 12), initial=-1.0))


def _compare_appearance(signed: Fingerprints, seen: FoundContent, view: View, offset_s: float | None) -> FeatureReading:
    """Each eighth of a second against the signed second in which it shows."""
    _, signs_SF = seen.visual_signs(view, 0)
    seconds = ((np.arange(len(signs_SF)) + 0.5) * SLOT_S + (offset_s or 0.0)).astype(int)
    known = (seconds >= 0) & (seconds < len(signed.appearance_SF))
    expected = signed.appearance_SF[seconds[known]].astype(np.int32)
    products = signs_SF[known] * expected
    num_signs = int(np.count_nonzero(products)) // SLOTS_PER_S  # eighths of one second are no news
    share = float((products > 0).sum() / max(1, np.count_nonzero(products)))
    return FeatureReading(_state("appearance", share, num_signs), share if num_signs else None, num_signs)


def _state(feature: Feature, share: float, num_signs: int) -> FeatureState:
    if num_signs < LEAST_SIGNS[feature]:
        return "not_comparable"
    if share >= MATCH_SHARE[feature]:
        return "match"
    return "differs" if share < DIFFER_SHARE[feature] else "not_comparable"


def _judged(feature: Feature, signed_SF: Signs, found_phases: list[Signs]) -> FeatureReading:
    """The best place of the found signs in the signed ones, at a resolution of a quarter slot."""
    best: tuple[float, float, int, float] | None = None  # clearness, share, signs, offset
    for phase, found_SF in enumerate(found_phases):
        if not len(found_SF) or not len(signed_SF):
            continue
        agreeing, compared = _correlated(signed_SF, found_SF)
        most = compared.max()
        enough = compared >= max(LEAST_SIGNS[feature] / 2, 0.4 * most)
        clearness = np.where(enough, agreeing / np.sqrt(np.maximum(compared, 1)), -np.inf)
        place = int(clearness.argmax())
        if best is None or clearness[place] > best[0]:
            share = 0.5 * (1 + agreeing[place] / max(compared[place], 1))
            offset_s = (place - (len(found_SF) - 1)) * SLOT_S - phase * SLOT_S / PHASES_PER_SLOT
            best = float(clearness[place]), float(share), round(float(compared[place])), offset_s
    if best is None or best[2] == 0:
        return FeatureReading("not_comparable")
    _, share, num_signs, offset_s = best
    return FeatureReading(_state(feature, share, num_signs), share, num_signs, offset_s)


def _correlated(signed_SF: Signs, found_SF: Signs) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Agreeing minus disagreeing signs, and signs compared, for every offset from −(found − 1) slots on."""
    size = 1 << math.ceil(math.log2(len(signed_SF) + len(found_SF)))

    def summed(a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.float64]:
        product = np.fft.rfft(a.astype(np.float32), size, axis=0) * np.fft.rfft(
            b[::-1].astype(np.float32), size, axis=0
        )
        return np.rint(np.fft.irfft(product.sum(axis=1), size)[: len(a) + len(b) - 1])

    return summed(signed_SF, found_SF), summed(np.abs(signed_SF), np.abs(found_SF))
