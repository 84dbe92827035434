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
_BLOCK_CELLS, _AHEAD_CELLS, _HISTORY_CELLS = 8, 1, 250
"""Cells that are decided at a time; how many after them must be known; how many count as the recent past (4 s)."""
_FILTER_FRAME_S = 0.016


class AudioEmbedder:
    """Hides one mark in sounds.

    `apply` takes a whole sound; `stream` gives an object that takes it in pieces as they come, and whose output is the
    same to the last bit, whatever the pieces.

    Args:
        key: 32 secret bytes, the same as for the picture.
        mark_id: what to hide.
        rate_hz: of the sounds to come; at 12 kHz and above the whole band of the mark fits.
        mean_db: strength, see `MEAN_DB`.
    Attributes:
        latency_s: how much later than its input the output of a stream comes, at most: 0.176 s.
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
        self.latency_s = (_BLOCK_CELLS + _AHEAD_CELLS + 2) * CELL_S

    def apply(self, samples_N: NDArray[np.floating]) -> NDArray[np.float32]:
        """A marked copy of a sound: float32, as long, in −1..1 (turned down where the mark would clip it)."""
        stream = self.stream()
        return np.concatenate([stream.write(samples_N), stream.finish()])

    def stream(self) -> AudioStream:
        """A new sound, to be marked piece by piece."""
        return AudioStream(self._symbols_CB, self._signs_CB, self.rate_hz, self._strength)


class AudioStream:
    """One sound on its way, marked as it comes: `AudioEmbedder.stream` makes it.

    What is written comes back marked, in order and complete, but later, by `AudioEmbedder.latency_s` at most: a block
    of cells is decided when it is there with what follows closely, by what was heard in the last seconds. Nothing
    depends on how the sound was cut into pieces: joined, the output is that of `AudioEmbedder.apply`.

    (1) From the energies of cells and the word, factors for a block of cells; (2) the sound filtered by them; (3)
    turned down where it would exceed full scale.
    """

    def __init__(
        self, symbols_CB: NDArray[np.int64], signs_CB: NDArray[np.float64], rate_hz: int, strength: float
    ) -> None:
        self._symbols_CB, self._signs_CB, self._rate_hz, self._strength = symbols_CB, signs_CB, rate_hz, strength
        self._input = _Window()
        common = math.gcd(GRID_RATE_HZ, rate_hz)
        self._ratio = GRID_RATE_HZ // common, rate_hz // common
        # How many samples to either side matter to one at the grid's rate (`scipy.signal.resample_poly`)
        self._reach = math.ceil(10 * max(1.0, rate_hz / GRID_RATE_HZ)) + 1
        self._num_in = self._num_out = 0
        self._next_block = 0
        # (1) what was heard: energies of the last cells, and what a reader will have made of them
        self._power_CB = np.zeros((0, NUM_BANDS))
        self._heard_K, self._unit_K = np.zeros((2, NUM_SYMBOLS + _NUM_PILOT_GROUPS))
        # (2) the filter: frames, of which three quarters overlap, and what they have added up to so far
        self._frame = 4 * round(_FILTER_FRAME_S * rate_hz / 4)
        self._hop = self._frame // 4
        self._window = np.sqrt(np.hanning(self._frame + 1)[:-1]).astype(np.float32)
        bands = np.searchsorted(BAND_EDGES_HZ, np.arange(self._frame // 2 + 1) * rate_hz / self._frame) - 1
        self._inside = (bands >= 0) & (bands < NUM_BANDS)
        self._bands = bands[self._inside]
        self._next_frame = 0
        self._sum = np.zeros(self._frame - self._hop, np.float32)
        # (3) the limiter
        self._waiting = np.zeros(0, np.float32)
        self._level = 1.0

    def write(self, samples_N: NDArray[np.floating]) -> NDArray[np.float32]:
        """Take the next samples, however many; returns what of the sound is ready: float32, in −1..1."""
        samples_N = np.asarray(samples_N, np.float32)
        self._num_in += len(samples_N)
        self._input.append(samples_N)
        return self._marked(lambda: self._end_of_block() <= self._num_in)

    def finish(self) -> NDArray[np.float32]:
        """Returns all that has not been returned yet. The stream is used up."""
        return self._marked(lambda: self._num_out < self._num_in)

    def _marked(self, is_ready: Callable[[], bool]) -> NDArray[np.float32]:
        parts = [np.zeros(0, np.float32)]
        while is_ready():
            part = self._limited(self._filtered(self._factors_CB()))
            parts.append(part[: self._num_in - self._num_out])
            self._num_out += len(parts[-1])
            self._next_block += 1
        return np.concatenate(parts)

    def _end_of_block(self) -> int:
        """How many samples must be there to decide the next block, and to filter it."""
        cells = (self._next_block + 1) * _BLOCK_CELLS + _AHEAD_CELLS + 1
        return math.ceil(cells * CELL_S * self._rate_hz) + self._reach

    # ---- (1) how much louder or softer each cell becomes

    def _factors_CB(self) -> NDArray[np.float32]:
        """Amplitude factors of the cells of the next block: (C, B)."""
        begin = self._next_block * _BLOCK_CELLS
        first = begin + _AHEAD_CELLS if begin else 0
        new_CB = self._energies(first, begin + _BLOCK_CELLS + _AHEAD_CELLS)
        self._power_CB = np.concatenate([self._power_CB, new_CB])[-(_HISTORY_CELLS + _AHEAD_CELLS) :]
        now = slice(-_BLOCK_CELLS - _AHEAD_CELLS, -_AHEAD_CELLS)
        host_CB, weights_CB = evidence(self._power_CB, phases=1)
        noisy_host_CB, noisy_weights_CB = evidence(self._power_CB + _feared_noise_B(self._power_CB), phases=1)
        rows = np.arange(begin, begin + _BLOCK_CELLS) % PERIOD_CELLS
        signs, symbols = self._signs_CB[rows].ravel(), self._symbols_CB[rows].ravel()
        host = ((1 - _FEAR) * host_CB[now] + _FEAR * noisy_host_CB[now]).ravel()
        weights = ((1 - _FEAR) * weights_CB[now] + _FEAR * noisy_weights_CB[now]).ravel()
        # What a reader of the last few periods will have heard of each symbol, against what it should hear.
        num_symbols, memory = len(self._heard_K), _MEMORY ** (_BLOCK_CELLS / PERIOD_CELLS)
        self._heard_K = memory * self._heard_K + np.bincount(symbols, host * signs, num_symbols)
        now_K = np.bincount(symbols, weights * _RESPONSE_PER_DB, num_symbols)
        self._unit_K = memory * self._unit_K + now_K
        wanted_K = (MEAN_DB * self._unit_K - self._heard_K) / np.maximum(now_K, 1e-6)
        gain_K = np.where(now_K > 1e-3, np.clip(wanted_K, LEAST_DB, MOST_DB), MEAN_DB)
        self._heard_K += now_K * gain_K
        gains_db = self._strength * (gain_K[symbols] * signs).reshape(_BLOCK_CELLS, NUM_BANDS)
        return (10.0 ** (gains_db / 20)).astype(np.float32)

    def _energies(self, first: int, end: int) -> NDArray[np.float64]:
        """Energies of the cells `first` to `end`: (C, B). Where the sound has ended there is silence."""
        cell = round(CELL_S * GRID_RATE_HZ)
        # One more cell on either side, for the spectrogram's frames; whole periods of the two rates' ratio.
        grid_begin, grid_end = cell * (first - 1), cell * (end + 1)
        up, down = self._ratio
        begin = (grid_begin * down // up - self._reach) // down * down
        stretch_N = self._input.between(begin, -(-grid_end * down // up) + self._reach)
        at_grid_rate_N = Sound(stretch_N, self._rate_hz).resampled(GRID_RATE_HZ).samples_N
        skipped = grid_begin - begin // down * up
        spectrogram = Spectrogram(at_grid_rate_N[skipped : skipped + grid_end - grid_begin])
        return spectrogram.band_power().cells(phases=1)[1 : 1 + end - first]

    # ---- (2) weighted overlap-add: square-root Hann frames of 16 ms, three quarters overlapping

    def _filtered(self, factors_CB: NDArray[np.float32]) -> NDArray[np.float32]:
        """The next samples of the sound, filtered by the factors of the next block: as far as no later cell matters."""
        frame, hop, begin = self._frame, self._hop, self._next_block * _BLOCK_CELLS
        # Frame m begins at sample m·hop − frame, so the first one lies wholly before the sound.
        end_s = (begin + _BLOCK_CELLS) * CELL_S - 1e-9
        end_frame = math.ceil((end_s * self._rate_hz + frame / 2) / hop)
        numbers_M = np.arange(self._next_frame, end_frame)
        cells_M = ((numbers_M * hop - frame / 2) / self._rate_hz / CELL_S + 1e-9).astype(int)
        stretch_N = self._input.between(self._next_frame * hop - frame, (end_frame - 1) * hop)
        frames_MN = np.lib.stride_tricks.sliding_window_view(stretch_N, frame)[::hop]
        spectrum = np.fft.rfft(frames_MN * self._window, axis=1)
        spectrum[:, self._inside] *= factors_CB[np.maximum(cells_M - begin, 0)][:, self._bands]
        parts_MN = np.fft.irfft(spectrum, frame, axis=1).astype(np.float32) * self._window
        total = np.concatenate([self._sum, np.zeros(len(parts_MN) * hop, np.float32)])
        for index, part in enumerate(parts_MN):
            total[index * hop : index * hop + frame] += part
        ready, self._sum = np.split(total, [len(parts_MN) * hop])
        ready /= float(np.sum(self._window**2)) / hop
        if self._next_frame == 0:
            ready = ready[frame:]
        self._next_frame = end_frame
        self._input.forget(end_frame * hop - 2 * frame - self._ratio[1] - self._reach)
        return ready

    # ---- (3) nothing that did not clip before does so now

    def _limited(self, samples_N: NDArray[np.float32]) -> NDArray[np.float32]:
        """Turns down, over a few milliseconds, where the mark would go beyond full scale."""
        waiting_N = np.concatenate([self._waiting, samples_N])
        hop = self._hop
        num_hops = len(waiting_N) // hop - 1
        peaks_M = np.abs(waiting_N[: (num_hops + 1) * hop].reshape(-1, hop)).max(axis=1)
        levels_M = 1.0 / np.maximum(peaks_M, 1.0)
        at_ends_M = np.minimum(levels_M[:-1], levels_M[1:])
        at_edges = np.concatenate([[self._level], at_ends_M])
        ready, self._waiting = np.split(waiting_N, [num_hops * hop])
        if at_edges.min() < 1.0:
            places = np.arange(1, len(ready) + 1) / hop
            ready = (ready * np.interp(places, np.arange(len(at_edges)), at_edges)).astype(np.float32)
        self._level = float(at_ends_M[-1])
        return ready


class _Window:
    """The last stretch of a sound that comes in pieces; silence before it begins and after it ends."""

    def __init__(self) -> None:
        self._kept = np.zeros(0, np.float32)
        self._begin = 0

    def append(self, samples_N: NDArray[np.float32]) -> None:
        self._kept = np.concatenate([self._kept, samples_N])

    def between(self, begin: int, end: int) -> NDArray[np.float32]:
        """Samples `begin` to `end` of the sound."""
        assert begin >= self._begin or self._begin == 0
        low, high = (min(max(place - self._begin, 0), len(self._kept)) for place in (begin, end))
        before = max(0, min(0, end) - begin)
        return np.pad(self._kept[low:high], (before, end - begin - before - (high - low)))

    def forget(self, before: int) -> None:
        """Samples before this place are not asked for any more."""
        if before > self._begin:
            self._kept = self._kept[before - self._begin :]
            self._begin = before


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
