"""The keyed colour fields that carry the mark, and the wave in time that carries the fields.

A mark is a faint, smooth pattern in Cb and Cr that sways with a period of 0.4 s: eyes are weak there, and video codecs
generous. The pattern is periodic: it is drawn on a square torus whose side is laid over the *shorter* side of the
frame and repeated along the longer one, so every frame carries every field, whatever its size and shape, and a reader
needs to find no more than a scale, a turn and a shift.

The pattern is a sum of 211 orthonormal random fields that only the key determines: one *pilot*, always sent, by which
the reader finds the geometry; and one carrier for each of the 210 symbols of the code word.

WIRE FORMAT: the order of frequencies, the derivation from the key and the constants below. A change gets a new name in
`credentials.SOFT_BINDING_ALGORITHM`.

K field (0 pilot, 1.. carriers)  D degree of freedom  C channel (Cb, Cr)  n torus samples along one side
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from watermark.errors import InvalidMarkKeyError
from watermark.payload import NUM_SYMBOLS, MarkId, encode

WAVE_HZ = 2.5
"""Frequency of the sway, in cycles per second."""
MIN_CYCLES, MAX_CYCLES = 2.0, 10.0
"""Spatial frequencies of the fields, in cycles per torus side (0.004 to 0.020 cycles per pixel at 512)."""
PILOT_ENERGY = 0.35
"""Share of the pilot in the energy of the whole pattern."""
_VIOLET_DEG = 50.0
_GAINS = (1.25, 0.67)
COLOUR_MIX = np.array(
    [
        [np.cos(np.radians(_VIOLET_DEG)), -np.sin(np.radians(_VIOLET_DEG))],
        [np.sin(np.radians(_VIOLET_DEG)), np.cos(np.radians(_VIOLET_DEG))],
    ]
) @ np.diag(_GAINS)
"""From (violet–lime, orange–teal) to (Cb, Cr). Along violet–lime only the sparse short-wave cones see a change, so that
axis carries 3.5 times the energy of the other; the mean square over both channels stays 1."""


def _check_key(key: bytes) -> None:
    if len(key) != 32:
        raise InvalidMarkKeyError("The watermark key must be 32 bytes.")


def _band() -> NDArray[np.int64]:
    """The (row, column) frequencies in use, one of each conjugate pair, in a fixed order."""
    reach = int(MAX_CYCLES)
    return np.array(
        [
            (row, column)
            for row in range(-reach, reach + 1)
            for column in range(reach + 1)
            if (column > 0 or row > 0) and MIN_CYCLES <= np.hypot(row, column) <= MAX_CYCLES
        ]
    )


def _keyed_normals(key: bytes, label: bytes, count: int) -> NDArray[np.float64]:
    """Standard normal numbers from SHAKE-256 (FIPS 202) by the Box–Muller transform: the same on every machine."""
    num_pairs = (count + 1) // 2
    stream = hashlib.shake_256(b"placet.watermark.chroma.1\0" + label + b"\0" + key).digest(num_pairs * 16)
    uniform = (np.frombuffer(stream, ">u8").astype(np.float64) + 1.0) / 2.0**64
    radius, angle = np.sqrt(-2.0 * np.log(uniform[::2])), 2 * np.pi * uniform[1::2]
    return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:count]


@dataclass(frozen=True)
class Carriers:
    """All fields of one key.

    Attributes:
        coefficients_KD: orthonormal rows in the real Fourier basis of the band (cosines, then sines, of violet–lime,
            then of orange–teal).
    """

    coefficients_KD: NDArray[np.float64]

    @classmethod
    def of_key(cls, key: bytes) -> Carriers:
        """The fields that `key` (32 secret bytes) determines. Raises: InvalidMarkKeyError."""
        _check_key(key)
        return _carriers(hashlib.sha256(key).digest(), key)

    def spectrum(self, weights_K: NDArray[np.floating], n: int) -> NDArray[np.complex128]:
        """The Fourier transform (numpy `rfft2` layout, (2, n, n//2+1)) of a weighted sum of the fields.

        A single field with weight 1 has a mean square of about 1 over both channels.
        """
        band = _band()
        parts = (weights_K @ self.coefficients_KD).reshape(2, 2, len(band))  # channel, cosine|sine, frequency
        values = COLOUR_MIX @ (parts[:, 0] - 1j * parts[:, 1]) * (n * n)
        spectrum = np.zeros((2, n, n // 2 + 1), np.complex128)
        for channel in range(2):
            spectrum[channel, band[:, 0] % n, band[:, 1]] = values[channel]
            on_axis = band[:, 1] == 0  # rfft2 keeps both conjugates of column 0
            spectrum[channel, -band[on_axis, 0] % n, 0] = np.conj(values[channel, on_axis])
        return spectrum

    def field(self, weights_K: NDArray[np.floating], n: int) -> NDArray[np.float32]:
        """A weighted sum of the fields on an n × n torus: (2, n, n) float32."""
        return np.fft.irfft2(self.spectrum(weights_K, n), s=(n, n)).astype(np.float32)

    def fields(self, n: int) -> NDArray[np.float32]:
        """Every field by itself on an n × n torus: (211, 2, n, n) float32. Computed once per key and size."""
        return _fields(self.coefficients_KD.tobytes(), n)

    def pattern(self, mark_id: MarkId, n: int) -> NDArray[np.float32]:
        """The whole pattern of one mark, (2, n, n), with a mean square of about 1 over both channels."""
        weights_K = np.concatenate(
            [[np.sqrt(PILOT_ENERGY)], encode(mark_id) * np.sqrt((1 - PILOT_ENERGY) / NUM_SYMBOLS)]
        )
        return self.field(weights_K, n)


@lru_cache(maxsize=4)
def _carriers(_digest: bytes, key: bytes) -> Carriers:
    num_fields, num_freedoms = NUM_SYMBOLS + 1, 4 * len(_band())
    normals = _keyed_normals(key, b"fields", num_fields * num_freedoms).reshape(num_fields, num_freedoms)
    orthonormal, upper = np.linalg.qr(normals.T)
    # Gram–Schmidt signs, so that the result does not depend on how a LAPACK build reflects.
    return Carriers(np.ascontiguousarray((orthonormal * np.sign(np.diag(upper))).T))


@lru_cache(maxsize=4)
def _fields(coefficients: bytes, n: int) -> NDArray[np.float32]:
    coefficients_KD = np.frombuffer(coefficients).reshape(NUM_SYMBOLS + 1, -1)
    carriers = Carriers(coefficients_KD)
    fields = np.stack([carriers.field(row, n) for row in np.eye(NUM_SYMBOLS + 1)])
    fields.setflags(write=False)
    return fields


def wave(times_s: NDArray[np.floating] | float) -> NDArray[np.float64]:
    """The sway at given times: a sine with a mean square of 1."""
    return np.sqrt(2.0) * np.sin(2 * np.pi * WAVE_HZ * np.asarray(times_s, np.float64))
