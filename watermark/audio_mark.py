"""The mark in the sound: hiding the registry id in speech, and reading it again, blind.

Each cell of a time–frequency grid (`sound_grid`) is made louder or softer by a few decibels, by the sign that key and
code word give it. Multiplication keeps silence silent and puts the change where the speech itself masks it. The
embedder knows the speech: a symbol that the speech speaks against is pushed harder than one that it happens to support.

Reading: (1) a spectrogram; (2) for every playback speed, time stretch and pitch within ±12 %, cells, how each deviates
from its neighbours, all periods laid on top of each other, and the pilot at every phase at once; (3) the best places
refined, over a longer stretch; (4) 210 soft symbols, Viterbi; (5) the registry. As for the picture, only the registry
gives an id meaning: with N ids and A words looked up, unmarked sound is called marked with probability A · N / 2⁶⁴.

N sample  M frame of the spectrogram  U place in time, four per cell  C cell in time  B band  K symbol
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from watermark.extract import ReadingState
from watermark.media import Sound
from watermark.payload import NUM_ID_BITS, NUM_SYMBOLS, Decoded, MarkId, decode_list, encode
from watermark.sound_grid import (
    BAND_EDGES_HZ,
    CELL_S,
    GRID_RATE_HZ,
    HOP_SAMPLES,
    NUM_BANDS,
    PERIOD_CELLS,
    PHASES_PER_CELL,
    PILOT,
    BandPower,
    Plan,
    Spectrogram,
    evidence,
)

# ---- hiding ----------------------------------------------------------------------------------------------------------

MEAN_DB, LEAST_DB, MOST_DB = 2.3, 0.7, 3.6
"""How far a cell is raised or lowered: on the average, where the speech already agrees, where it disagrees."""
_RESPONSE_PER_DB = 0.19  # what one decibel adds to the evidence of a cell; measured
_MEMORY = 0.85  # per period: a reader hears about six periods
_NUM_PILOT_GROUPS = 30
_FEARED_NOISE_DB, _FEAR = 20.0, 0.7
"""The embedder steers mostly by what a reader hears through white noise of this level."""
MIN_RATE_HZ = 12_000


class AudioEmbedder:
    """Hides one mark in one sound.

    Args:
        key: 32 secret bytes, the same as for the picture.
        mark_id: what to hide.
        rate_hz: of the sounds to come; at 12 kHz and above the whole band of the mark fits.
        mean_db: strength, see `MEAN_DB`.
    Raises: InvalidMarkKeyError.
    """

    def __init__(self, key: bytes, mark_id: MarkId, rate_hz: int, *, mean_db: float = MEAN_DB) -> None:
        if rate_hz < MIN_RATE_HZ:
            raise ValueError(f"a sound of {rate_hz} Hz is too narrow for the mark; {MIN_RATE_HZ} Hz is the least")
        self.mark_id, self.rate_hz = mark_id, rate_hz
        plan = Plan.of_key(key)
        # The pilot is steered in groups of the size of a symbol.
        symbols_CB = plan.symbols_CB.copy()
        is_pilot = symbols_CB == PILOT
        symbols_CB[is_pilot] += np.arange(int(is_pilot.sum())) % _NUM_PILOT_GROUPS
        word = np.concatenate([encode(mark_id), np.ones(_NUM_PILOT_GROUPS)])
        self._symbols_CB, self._signs_CB = symbols_CB, plan.signs_CB * word[symbols_CB]
        self._strength = mean_db / MEAN_DB
        self._frame = 4 * round(0.016 * rate_hz / 4)

    def apply(self, samples_N: NDArray[np.floating]) -> NDArray[np.float32]:
        """A marked copy of a sound: float32, as long, in −1..1 (turned down where the mark would clip it)."""
        samples_N = np.asarray(samples_N, np.float32)
        if len(samples_N) < self._frame:
            return samples_N.copy()
        marked_N = self._filtered(samples_N, self._gains_db(samples_N))
        peak = float(np.abs(marked_N).max())
        return marked_N / np.float32(peak) if peak > 1.0 >= float(np.abs(samples_N).max()) else marked_N

    def _gains_db(self, samples_N: NDArray[np.float32]) -> NDArray[np.float64]:
        """What is done to each cell: (C, B)."""
        at_grid_rate_N = Sound(samples_N, self.rate_hz).resampled(GRID_RATE_HZ).samples_N
        power_CB = Spectrogram(at_grid_rate_N).band_power().cells(phases=1)
        host_CB, weights_CB = evidence(power_CB, phases=1)
        if power_CB.size:
            noisy_host_CB, noisy_weights_CB = evidence(power_CB + _feared_noise_B(power_CB), phases=1)
            host_CB = (1 - _FEAR) * host_CB + _FEAR * noisy_host_CB
            weights_CB = (1 - _FEAR) * weights_CB + _FEAR * noisy_weights_CB
        gains_CB = np.zeros((len(host_CB), NUM_BANDS))
        num_symbols = NUM_SYMBOLS + _NUM_PILOT_GROUPS
        heard_K, unit_K = np.zeros(num_symbols), np.zeros(num_symbols)
        for start in range(0, len(host_CB), PERIOD_CELLS):
            host = host_CB[start : start + PERIOD_CELLS]
            weights = weights_CB[start : start + PERIOD_CELLS]
            signs, symbols = self._signs_CB[: len(host)].ravel(), self._symbols_CB[: len(host)].ravel()
            # What a reader of the last few periods will have heard of each symbol, against what it should hear.
            heard_K = _MEMORY * heard_K + np.bincount(symbols, host.ravel() * signs, num_symbols)
            now_K = np.bincount(symbols, weights.ravel() * _RESPONSE_PER_DB, num_symbols)
            unit_K = _MEMORY * unit_K + now_K
            wanted_K = (MEAN_DB * unit_K - heard_K) / np.maximum(now_K, 1e-6)
            gain_K = np.where(now_K > 1e-3, np.clip(wanted_K, LEAST_DB, MOST_DB), MEAN_DB)
            heard_K += now_K * gain_K
            gains_CB[start : start + len(host)] = (gain_K[symbols] * signs).reshape(len(host), NUM_BANDS)
        return self._strength * gains_CB

    def _filtered(self, samples_N: NDArray[np.float32], gains_CB: NDArray[np.float64]) -> NDArray[np.float32]:
        """Weighted overlap-add: square-root Hann frames of 16 ms, three quarters overlapping."""
        frame, hop = self._frame, self._frame // 4
        window = np.sqrt(np.hanning(frame + 1)[:-1]).astype(np.float32)
        bands = np.searchsorted(BAND_EDGES_HZ, np.arange(frame // 2 + 1) * self.rate_hz / frame) - 1
        inside = (bands >= 0) & (bands < NUM_BANDS)
        factors_CB = (10.0 ** (gains_CB / 20)).astype(np.float32)
        padded = np.pad(samples_N, (frame, frame + hop))
        out = np.zeros(len(padded), np.float32)
        frames_MN = np.lib.stride_tricks.sliding_window_view(padded, frame)[::hop]
        centres_s = (np.arange(len(frames_MN)) * hop - frame / 2) / self.rate_hz
        cells_M = np.clip((centres_s / CELL_S + 1e-9).astype(int), 0, len(gains_CB) - 1)
        for start in range(0, len(frames_MN), 1024):
            spectrum = np.fft.rfft(frames_MN[start : start + 1024] * window, axis=1)
            spectrum[:, inside] *= factors_CB[cells_M[start : start + 1024]][:, bands[inside]]
            for index, part in enumerate(np.fft.irfft(spectrum, frame, axis=1).astype(np.float32), start):
                out[index * hop : index * hop + frame] += part * window
        out /= float(np.sum(window**2)) / hop
        return out[frame : frame + len(samples_N)]


def _feared_noise_B(power_CB: NDArray[np.float64]) -> NDArray[np.float64]:
    """Power per band of white noise at the feared level below the mean power of a sound."""
    share_B = np.diff(BAND_EDGES_HZ) / (GRID_RATE_HZ / 2)
    return np.asarray(power_CB.mean(axis=0).sum() * 10 ** (-_FEARED_NOISE_DB / 10) * share_B)


# ---- reading ---------------------------------------------------------------------------------------------------------

WINDOW_S, LONG_WINDOW_S = 6.0, 12.0
MIN_DURATION_S = 2.0
LARGEST_CHANGE = 0.12
"""Playback speeds, tempos and pitches within ±12 % are searched."""
_STEP = 0.004
_NUM_CANDIDATES = 12
_NUM_REFINED = 6
_LIST_LENGTH = 32
_HOPEFUL_CORRELATION = 0.57
"""Below this, only the nearest word is looked up: half of all noise is nearer to some word."""
_SURE_CORRELATION = 0.72


@dataclass(frozen=True)
class AudioMarkReading:
    """What a sound says about its mark.

    Attributes:
        state: "detected": a registered id; "inconclusive": too short or silent, or a mark of this key whose id the
            registry does not know; "not_detected", which proves nothing.
        mark_id: the id, when detected.
        null_fpr: the probability of "detected" for an unmarked sound.
        num_attempts: words looked up.
        correlation: of the best word with what was received, 0..1.
        tempo: how many times faster than the original the sound plays, when detected.
        pitch: how many times higher it sounds, when detected; equal to `tempo` for a changed playback speed.
        start_s: where the window begins in which the id was found.
        reason: a sentence for people.
    """

    state: ReadingState
    mark_id: MarkId | None
    null_fpr: float
    num_attempts: int
    correlation: float
    tempo: float | None
    pitch: float | None
    start_s: float | None
    reason: str


@dataclass(frozen=True)
class _Place:
    """A hypothesis: how the sound was changed, where the period begins, and how clearly the pilot is heard there."""

    tempo: float
    pitch: float
    phase: int
    strength: float


def read_audio_mark(
    sound: Sound,
    key: bytes,
    is_registered: Callable[[MarkId], bool],
    *,
    num_registered: int,
    max_windows: int = 6,
) -> AudioMarkReading:
    """Look for a mark of `key` in a sound.

    Args:
        sound: at any rate.
        key: the watermark key, 32 bytes.
        is_registered: says whether an id was ever given out.
        num_registered: how many were, for the false-positive rate.
        max_windows: windows of 6 s to search in a long sound, evenly spread.
    Raises: InvalidMarkKeyError.
    """
    reader = _Reader(Plan.of_key(key))
    if sound.duration_s < MIN_DURATION_S or not np.any(sound.samples_N):
        reason = f"The sound is silent or shorter than {MIN_DURATION_S:g} s, too short for its mark."
        return AudioMarkReading("inconclusive", None, 0.0, 0, 0.0, None, None, None, reason)
    spectrogram = Spectrogram(sound.resampled(GRID_RATE_HZ).samples_N)
    num_attempts, best = 0, 0.0
    for first in _window_starts(len(spectrogram), max_windows):
        for decoded, place in reader.words(spectrogram, first):
            num_attempts += 1
            best = max(best, decoded.correlation)
            if is_registered(decoded.mark_id):
                return AudioMarkReading(
                    state="detected",
                    mark_id=decoded.mark_id,
                    null_fpr=num_attempts * num_registered / 2.0**NUM_ID_BITS,
                    num_attempts=num_attempts,
                    correlation=decoded.correlation,
                    tempo=place.tempo,
                    pitch=place.pitch,
                    start_s=first * HOP_SAMPLES / GRID_RATE_HZ,
                    reason="The sound carries a registered mark. A mark can be copied: compare the content, too.",
                )
    null_fpr = num_attempts * num_registered / 2.0**NUM_ID_BITS
    if best >= _SURE_CORRELATION:
        state: ReadingState = "inconclusive"
        reason = "The sound carries a mark of this key whose id is not in the registry."
    else:
        state, reason = "not_detected", "No registered mark was found. That proves nothing about the sound's origin."
    return AudioMarkReading(state, None, null_fpr, num_attempts, best, None, None, None, reason)


def _frames(duration_s: float) -> int:
    return round(duration_s * GRID_RATE_HZ / HOP_SAMPLES)


def _window_starts(num_frames: int, max_windows: int) -> list[int]:
    """First frames of the windows to search."""
    window = _frames(WINDOW_S)
    if num_frames <= 1.2 * window:
        return [0]
    count = min(max_windows, math.ceil(num_frames / window))
    return [int(start) for start in np.linspace(0, num_frames - window, count)]


class _Reader:
    """One key, ready to read."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        num_places = PERIOD_CELLS * PHASES_PER_CELL
        pilot_UB = np.zeros((num_places, NUM_BANDS))
        pilot_UB[::PHASES_PER_CELL] = np.where(plan.symbols_CB == PILOT, plan.signs_CB, 0.0)
        self._pilot = np.conj(np.fft.rfft(pilot_UB, axis=0))
        self._pilot_squared = np.conj(np.fft.rfft(np.abs(pilot_UB), axis=0))

    def words(self, spectrogram: Spectrogram, first: int) -> Iterator[tuple[Decoded, _Place]]:
        """Code words found in the window that begins at frame `first`, the likeliest first."""
        window = _frames(WINDOW_S)
        found = self._search(spectrogram, first, first + round(1.2 * window))
        long_first = max(0, min(first - window // 2, len(spectrogram) - _frames(LONG_WINDOW_S)))
        for rank, place in enumerate(found[:_NUM_CANDIDATES]):
            if rank < _NUM_REFINED:
                symbols, refined = self._refined(spectrogram, long_first, long_first + _frames(LONG_WINDOW_S), place)
                for decoded in _nearest(symbols):
                    yield decoded, refined
            cells = evidence(spectrogram.band_power(place.pitch, first, first + round(1.2 * window)).cells(place.tempo))
            for decoded in _nearest(self._symbols(cells[0], place.phase)):
                yield decoded, place

    def _search(self, spectrogram: Spectrogram, first: int, end: int) -> list[_Place]:
        """Where the pilot is heard best: along unchanged pitch, unchanged tempo, and both changed alike."""
        num_steps = round(LARGEST_CHANGE / _STEP)
        factors = [1.0 + step * _STEP for step in range(-num_steps, num_steps + 1)]
        unchanged = spectrogram.band_power(1.0, first, end)
        found: list[_Place] = []
        for factor in factors:
            changed = spectrogram.band_power(factor, first, end)
            found += self._heard(changed, factor, factor, 2)
            if factor != 1.0:
                found += self._heard(unchanged, factor, 1.0, 2)
                found += self._heard(changed, 1.0, factor, 2)
        return sorted(found, key=lambda place: -place.strength)

    def _heard(self, power: BandPower, tempo: float, pitch: float, count: int) -> list[_Place]:
        """The `count` phases at which the pilot is heard best."""
        evidence_UB, _ = evidence(power.cells(tempo))
        strengths_U = self._pilot_strengths(evidence_UB)
        places = []
        for _ in range(count):
            phase = int(strengths_U.argmax())
            places.append(_Place(tempo, pitch, phase, float(strengths_U[phase])))
            near = np.arange(phase - PHASES_PER_CELL + 1, phase + PHASES_PER_CELL) % len(strengths_U)
            strengths_U[near] = -np.inf
        return places

    def _pilot_strengths(self, evidence_UB: NDArray[np.float64]) -> NDArray[np.float64]:
        """Correlation with the pilot, in standard deviations of chance, for every phase of the period."""
        size = PERIOD_CELLS * PHASES_PER_CELL
        folded, squared = _folded(evidence_UB, size), _folded(evidence_UB**2, size)
        heard = np.fft.irfft((np.fft.rfft(folded, axis=0) * self._pilot).sum(axis=1), size)
        power = np.fft.irfft((np.fft.rfft(squared, axis=0) * self._pilot_squared).sum(axis=1), size)
        return np.asarray(heard / np.sqrt(np.maximum(power, 1e-9)))

    def _refined(
        self, spectrogram: Spectrogram, first: int, end: int, place: _Place
    ) -> tuple[NDArray[np.float64], _Place]:
        """Soft symbols of the same change, more exactly, over a longer stretch of the sound."""
        power = spectrogram.band_power(place.pitch, first, end)
        best, best_UB = place, None
        for step in (-0.75, -0.5, -0.25, 0.0, 0.25, 0.5, 0.75):
            tempo = place.tempo + step * _STEP
            evidence_UB, _ = evidence(power.cells(tempo))
            strengths_U = self._pilot_strengths(evidence_UB)
            phase = int(strengths_U.argmax())
            if best_UB is None or strengths_U[phase] > best.strength:
                best, best_UB = _Place(tempo, place.pitch, phase, float(strengths_U[phase])), evidence_UB
        assert best_UB is not None
        return self._symbols(best_UB, best.phase), best

    def _symbols(self, evidence_UB: NDArray[np.float64], phase: int) -> NDArray[np.float64]:
        """Soft symbols, if the period begins at place `phase`."""
        cells_CB = evidence_UB[phase % PHASES_PER_CELL :: PHASES_PER_CELL]
        rows = (np.arange(len(cells_CB)) - phase // PHASES_PER_CELL) % PERIOD_CELLS
        symbols = self._plan.symbols_CB[rows].ravel()
        heard_K = np.bincount(symbols, (cells_CB * self._plan.signs_CB[rows]).ravel(), PILOT + 1)[:PILOT]
        power_K = np.bincount(symbols, (cells_CB**2).ravel(), PILOT + 1)[:PILOT]
        return np.asarray(heard_K / np.sqrt(power_K + 0.3 * power_K.mean() + 1e-12))


def _nearest(symbols_K: NDArray[np.float64]) -> list[Decoded]:
    """The nearest words, of which the registry can tell which is meant; only one where there is little hope."""
    nearest = decode_list(symbols_K, _LIST_LENGTH)
    return nearest if nearest[0].correlation >= _HOPEFUL_CORRELATION else nearest[:1]


def _folded(values_UB: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    """All periods laid on top of each other: (size, B)."""
    whole = -(-len(values_UB) // size) * size
    padded = np.pad(values_UB, ((0, whole - len(values_UB)), (0, 0)))
    return np.asarray(padded.reshape(-1, size, values_UB.shape[1]).sum(axis=0))
