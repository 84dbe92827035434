"""The grid that the sound mark is written on: energies of short, narrow cells, and the plan that the key makes of them.

Speech codecs keep how loud each band is at each moment, whatever else they throw away; so the mark lives in that. A
cell lasts 16 ms and is one of 16 bands wide. 60 cells in time make one *period* of 0.96 s, which repeats as long as
there is sound: a reader may start anywhere. A copy that plays faster has shorter cells in higher bands; the reader
measures cells of any length, in bands at any pitch, from one spectrogram by sums of sums.

WIRE FORMAT: rate, frame, cells, bands, period and the derivation of the plan from the key. A change gets a new name in
`SOUND_ALGORITHM`.

N sample  M frame of the spectrogram  U place in time, four per cell  C cell in time  B band  K symbol
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from watermark.errors import InvalidMarkKeyError
from watermark.payload import NUM_SYMBOLS

SOUND_ALGORITHM = "org.placet.watermark.speech.1"
"""Name of the sound mark in soft-binding assertions."""
GRID_RATE_HZ = 16_000
FRAME_SAMPLES, HOP_SAMPLES = 256, 64
CELL_S = 0.016
NUM_BANDS = 16
PERIOD_CELLS = 60
PERIOD_S = PERIOD_CELLS * CELL_S
PHASES_PER_CELL = 4
_LOW_HZ, _HIGH_HZ, _BEND_HZ = 200.0, 5500.0, 700.0
_NUM_GROUPS = 4
PILOT = NUM_SYMBOLS
"""The number that cells of the pilot carry in a plan, after the 210 symbols of the code word."""

BAND_EDGES_HZ: NDArray[np.float64] = _BEND_HZ * np.sinh(
    np.linspace(np.arcsinh(_LOW_HZ / _BEND_HZ), np.arcsinh(_HIGH_HZ / _BEND_HZ), NUM_BANDS + 1)
)
"""Even steps below the bend, even ratios above it, as the ear has them: from 130 to 900 Hz wide."""


@dataclass(frozen=True)
class Plan:
    """Which symbol each cell of a period carries, and with which sign.

    Every symbol has one cell in each quarter of the bands, so that what is lost in one part of the spectrum (a
    telephone, white noise) is lost evenly; what is left over, an eighth of all cells, is the pilot.

    Attributes:
        symbols_CB: 0..209, or `PILOT`.
        signs_CB: ±1.
    """

    symbols_CB: NDArray[np.int64]
    signs_CB: NDArray[np.float64]

    @classmethod
    def of_key(cls, key: bytes) -> Plan:
        """The plan that `key` (32 secret bytes) determines. Raises: InvalidMarkKeyError."""
        if len(key) != 32:
            raise InvalidMarkKeyError("The watermark key must be 32 bytes.")
        return _plan(hashlib.sha256(key).digest(), key)


@lru_cache(maxsize=4)
def _plan(_digest: bytes, key: bytes) -> Plan:
    num_cells = PERIOD_CELLS * NUM_BANDS
    stream = hashlib.shake_256(b"placet.watermark.speech.1\0" + key).digest(num_cells * 9)
    order = np.frombuffer(stream[: num_cells * 8], ">u8").reshape(_NUM_GROUPS, -1).argsort(axis=1, kind="stable")
    signs = 1.0 - 2.0 * (np.frombuffer(stream[num_cells * 8 :], np.uint8) & 1)
    width = NUM_BANDS // _NUM_GROUPS
    symbols_CB = np.full((PERIOD_CELLS, NUM_BANDS), PILOT, np.int64)
    for group in range(_NUM_GROUPS):
        block = np.full(PERIOD_CELLS * width, PILOT, np.int64)
        block[order[group, :NUM_SYMBOLS]] = np.arange(NUM_SYMBOLS)
        symbols_CB[:, group * width : (group + 1) * width] = block.reshape(PERIOD_CELLS, width)
    return Plan(symbols_CB, np.asarray(signs.reshape(PERIOD_CELLS, NUM_BANDS), np.float64))


# ---- energies --------------------------------------------------------------------------------------------------------


class Spectrogram:
    """Power of a sound at 16 kHz, summed up along frequency so that any band is one subtraction.

    Args:
        samples_N: mono, at 16 kHz.
    """

    def __init__(self, samples_N: NDArray[np.floating]) -> None:
        window = np.hanning(FRAME_SAMPLES + 1)[:-1].astype(np.float32)
        padded = np.pad(samples_N.astype(np.float32), FRAME_SAMPLES // 2)
        frames_MN = np.lib.stride_tricks.sliding_window_view(padded, FRAME_SAMPLES)[::HOP_SAMPLES]
        num_bins = FRAME_SAMPLES // 2 + 1
        self._sums = np.zeros((len(frames_MN), num_bins + 1))
        for start in range(0, len(frames_MN), 4096):  # flat in memory
            spectrum = np.fft.rfft(frames_MN[start : start + 4096] * window, axis=1)
            np.cumsum(spectrum.real**2 + spectrum.imag**2, axis=1, out=self._sums[start : start + 4096, 1:])

    def __len__(self) -> int:
        return len(self._sums)

    def band_power(self, pitch: float = 1.0, first: int = 0, end: int | None = None) -> BandPower:
        """Power in the bands of a sound whose frequencies were multiplied by `pitch`; of frames `first` to `end`."""
        edges = BAND_EDGES_HZ * pitch * FRAME_SAMPLES / GRID_RATE_HZ + 0.5  # bin k reaches from k−½ to k+½
        below = edges.astype(int)
        part = edges - below
        sums = self._sums[first:end]
        at_edges = sums[:, below] * (1 - part) + sums[:, below + 1] * part
        return BandPower(np.diff(at_edges, axis=1))


class BandPower:
    """Power per frame and band, ready to be summed over cells of any length."""

    def __init__(self, power_MB: NDArray[np.float64]) -> None:
        self._num_frames = len(power_MB)
        self._sums = np.concatenate([np.zeros((1, NUM_BANDS)), np.cumsum(power_MB, axis=0)])

    def cells(
        self, tempo: float = 1.0, phases: int = PHASES_PER_CELL, *, cell_s: float = CELL_S
    ) -> NDArray[np.float64]:
        """Mean power of a cell beginning at each place in time, `phases` places per cell: (U, B).

        Args:
            tempo: how many times faster than the original the sound plays.
            phases: places per cell.
            cell_s: how long a cell lasts in the original.
        """
        length = cell_s * GRID_RATE_HZ / HOP_SAMPLES / tempo  # in frames
        num_places = max(0, int((self._num_frames - length) / length * phases) + 1)
        begins = np.arange(num_places, dtype=np.float64) * (length / phases)
        return np.asarray((self._upto(begins + length) - self._upto(begins)) / length)

    def _upto(self, places: NDArray[np.floating]) -> NDArray[np.float64]:
        """Sum of all frames before a place that need not be whole; frame m reaches from m−½ to m+½."""
        shifted = np.clip(places + 0.5, 0, self._num_frames)
        below = np.minimum(shifted.astype(int), self._num_frames - 1)
        part = (shifted - below)[:, None]
        return np.asarray(self._sums[below] * (1 - part) + self._sums[below + 1] * part)


# ---- what a cell says ------------------------------------------------------------------------------------------------

# Inverse of the covariance of log energies of neighbouring cells (0, ±1, ±2 in time; 0..±3 bands), measured on
# synthetic speech in 16 voices: what speech lets one expect of a cell is subtracted from it.
_WHITENER = np.array(
    [
        [1.0, -0.317, -0.067, -0.070],
        [-0.413, 0.076, 0.060, 0.039],
        [-0.022, 0.039, -0.013, -0.005],
    ]
)
_CLIP = 2.0
_RANGE = 1e-4  # 40 dB below the loud moments of a band, nothing is heard


def _mixings() -> NDArray[np.float64]:
    """The whitener as one matrix over bands for each distance in time: (3, B, B); edges are mirrored."""
    mixings = np.zeros((3, NUM_BANDS, NUM_BANDS))
    for target in range(NUM_BANDS):
        for reach in range(-3, 4):
            source = target + reach
            source = -source - 1 if source < 0 else 2 * NUM_BANDS - 1 - source if source >= NUM_BANDS else source
            mixings[:, source, target] += _WHITENER[:, abs(reach)]
    return mixings


_MIXINGS = _mixings()


def evidence(
    power_UB: NDArray[np.float64], phases: int = PHASES_PER_CELL
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """How much louder or softer each cell is than its neighbours would have it, and how far it can be believed.

    Args:
        power_UB: from `BandPower.cells`.
        phases: places per cell in it.
    Returns: the deviation of every cell, clipped, in standard deviations, times its weight; and the weights, 0..1: near
        0 where a band is silent or sunk in a steady noise.
    """
    if len(power_UB) < 5 * phases:
        return np.zeros_like(power_UB), np.zeros_like(power_UB)
    sampled = power_UB[:: max(1, phases // 2)]
    loud_B = np.quantile(sampled, 0.95, axis=0)
    noise_B = np.minimum(np.quantile(sampled, 0.10, axis=0), 0.2 * loud_B)
    floor_B = _RANGE * loud_B + noise_B + 1e-12
    log_UB = np.log(power_UB + floor_B)
    log_UB -= log_UB.mean(axis=0)
    padded = np.pad(log_UB, ((2 * phases, 2 * phases), (0, 0)), mode="edge")
    num = len(log_UB)

    def at(cells: int) -> NDArray[np.float64]:
        start = (2 + cells) * phases
        return padded[start : start + num]

    deviation_UB = log_UB @ _MIXINGS[0] + (at(-1) + at(1)) @ _MIXINGS[1] + (at(-2) + at(2)) @ _MIXINGS[2]
    above_noise_UB = np.clip(1.0 - noise_B / (power_UB + 1e-12), 0.0, 1.0)
    weights_UB = above_noise_UB * power_UB / (power_UB + 10 * _RANGE * loud_B + 1e-12)
    believed = np.abs(deviation_UB[:: max(1, phases // 2)])[weights_UB[:: max(1, phases // 2)] > 0.3]
    spread = 1.48 * float(np.median(believed)) if believed.size else 1.0
    return np.clip(deviation_UB / max(spread, 1e-6), -_CLIP, _CLIP) * weights_UB, weights_UB
