"""The keyed fields that carry the mark: smooth ones that sway in time, and a fine still one.

Most of a mark is a faint, smooth pattern in Cb and Cr that sways with a period of 0.4 s: eyes are weak there, and video
codecs generous. A weaker one in luma sways with it, for copies without colour. The pattern is periodic: it is drawn on
a square torus whose side is laid over the *shorter* side of the frame and repeated along the longer one, so every frame
carries every field, whatever its size and shape, and a reader needs to find no more than a scale, a turn and a shift.

The pattern is a sum of 211 orthonormal random fields that only the key determines: one *pilot*, always sent, by which
the reader finds the geometry; and one carrier for each of the 210 symbols of the code word. Luma has 211 fields of its
own on the same torus.

What stands still is the *tile*: a finer pattern of luma, again a pilot and 210 carriers, repeated four times along the
shorter side of the frame. A single picture carries it.

WIRE FORMAT: the order of frequencies, the derivation from the key and the constants below. A change gets a new name in
`credentials.SOFT_BINDING_ALGORITHM`.

K field (0 pilot, 1.. carriers)  D degree of freedom  C channel (Cb, Cr)  n torus or tile samples along one side
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache, lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from watermark.errors import InvalidMarkKeyError
from watermark.payload import NUM_SYMBOLS, MarkId, encode

WAVE_HZ = 2.5
"""Frequency of the sway, in cycles per second."""
MIN_CYCLES, MAX_CYCLES = 2.0, 10.0
"""Spatial frequencies of the fields, in cycles per torus side (0.004 to 0.020 cycles per pixel at 512)."""
PILOT_ENERGY = 0.35
"""Share of the pilot in the energy of the whole colour pattern."""
LUMA_PILOT_ENERGY = 0.2
"""The same in the swaying luma pattern, which has half the freedoms."""
TILE_MIN_CYCLES, TILE_MAX_CYCLES = 8.0, 26.0
"""Spatial frequencies of the tile, in cycles per tile side (0.06 to 0.20 cycles per pixel at 512)."""
TILE_PILOT_ENERGY = 0.16
"""Share of the pilot in the energy of the tile."""
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


@cache
def band(min_cycles: float, max_cycles: float) -> NDArray[np.int64]:
    """The (row, column) frequencies between two radii, one of each conjugate pair, in a fixed order."""
    reach = int(max_cycles)
    return np.array(
        [
            (row, column)
            for row in range(-reach, reach + 1)
            for column in range(reach + 1)
            if (column > 0 or row > 0) and min_cycles <= np.hypot(row, column) <= max_cycles
        ]
    )


def _keyed_normals(key: bytes, label: bytes, count: int) -> NDArray[np.float64]:
    """Standard normal numbers from SHAKE-256 (FIPS 202) by the Box–Muller transform: the same on every machine."""
    num_pairs = (count + 1) // 2
    stream = hashlib.shake_256(b"placet.watermark.chroma.1\0" + label + b"\0" + key).digest(num_pairs * 16)
    uniform = (np.frombuffer(stream, ">u8").astype(np.float64) + 1.0) / 2.0**64
    radius, angle = np.sqrt(-2.0 * np.log(uniform[::2])), 2 * np.pi * uniform[1::2]
    return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:count]


def _band() -> NDArray[np.int64]:
    return band(MIN_CYCLES, MAX_CYCLES)


def _placed(values: NDArray[np.complexfloating], frequencies: NDArray[np.int64], n: int) -> NDArray[np.complex128]:
    """Fourier values at their places in numpy's `rfft2` layout, (n, n//2+1)."""
    spectrum = np.zeros((n, n // 2 + 1), np.complex128)
    spectrum[frequencies[:, 0] % n, frequencies[:, 1]] = values
    on_axis = frequencies[:, 1] == 0  # rfft2 keeps both conjugates of column 0
    spectrum[-frequencies[on_axis, 0] % n, 0] = np.conj(values[on_axis])
    return spectrum


def _orthonormal(key: bytes, label: bytes, num_freedoms: int) -> NDArray[np.float64]:
    """211 orthonormal rows that `key` determines."""
    num_fields = NUM_SYMBOLS + 1
    normals = _keyed_normals(key, label, num_fields * num_freedoms).reshape(num_fields, num_freedoms)
    orthonormal, upper = np.linalg.qr(normals.T)
    # Gram–Schmidt signs, so that the result does not depend on how a LAPACK build reflects.
    return np.ascontiguousarray((orthonormal * np.sign(np.diag(upper))).T)


def _word_weights(mark_id: MarkId, pilot_energy: float) -> NDArray[np.float64]:
    """How strongly each field is sent; the squares sum to 1."""
    carriers = encode(mark_id) * np.sqrt((1 - pilot_energy) / NUM_SYMBOLS)
    return np.concatenate([[np.sqrt(pilot_energy)], carriers])


@dataclass(frozen=True)
class Carriers:
    """All fields of one key.

    Attributes:
        coefficients_KD: orthonormal rows in the real Fourier basis of the band (cosines, then sines, of violet–lime,
            then of orange–teal).
        luma_KD: the same for the luma that sways along (cosines, then sines).
    """

    coefficients_KD: NDArray[np.float64]
    luma_KD: NDArray[np.float64]

    @classmethod
    def of_key(cls, key: bytes) -> Carriers:
        """The fields that `key` (32 secret bytes) determines. Raises: InvalidMarkKeyError."""
        _check_key(key)
        return _carriers(hashlib.sha256(key).digest(), key)

    def spectrum(self, weights_K: NDArray[np.floating], n: int) -> NDArray[np.complex128]:
        """The Fourier transform (numpy `rfft2` layout, (2, n, n//2+1)) of a weighted sum of the fields.

        A single field with weight 1 has a mean square of about 1 over both channels.
        """
        frequencies = _band()
        parts = (weights_K @ self.coefficients_KD).reshape(2, 2, len(frequencies))  # channel, cosine|sine, frequency
        values = COLOUR_MIX @ (parts[:, 0] - 1j * parts[:, 1]) * (n * n)
        return np.stack([_placed(channel, frequencies, n) for channel in values])

    def field(self, weights_K: NDArray[np.floating], n: int) -> NDArray[np.float32]:
        """A weighted sum of the fields on an n × n torus: (2, n, n) float32."""
        return np.fft.irfft2(self.spectrum(weights_K, n), s=(n, n)).astype(np.float32)

    def fields(self, n: int) -> NDArray[np.float32]:
        """Every field by itself on an n × n torus: (211, 2, n, n) float32. Computed once per key and size."""
        return _fields(self.coefficients_KD.tobytes(), n)

    def pattern(self, mark_id: MarkId, n: int) -> NDArray[np.float32]:
        """The whole pattern of one mark, (2, n, n), with a mean square of about 1 over both channels."""
        return self.field(_word_weights(mark_id, PILOT_ENERGY), n)

    def luma_field(self, weights_K: NDArray[np.floating], n: int) -> NDArray[np.float32]:
        """A weighted sum of the swaying luma fields on an n × n torus, with a mean square of about Σ weights²."""
        frequencies = _band()
        cosines, sines = (weights_K @ self.luma_KD).reshape(2, -1)
        spectrum = _placed((cosines - 1j * sines) * (n * n) / np.sqrt(2), frequencies, n)
        return np.fft.irfft2(spectrum, s=(n, n)).astype(np.float32)

    def luma_fields(self, n: int) -> NDArray[np.float32]:
        """Every swaying luma field by itself, (211, n, n) float32. Computed once per key and size."""
        return _luma_fields(self.luma_KD.tobytes(), n)

    def luma_pattern(self, mark_id: MarkId, n: int) -> NDArray[np.float32]:
        """The whole swaying luma pattern of one mark, (n, n), with a mean square of about 1."""
        return self.luma_field(_word_weights(mark_id, LUMA_PILOT_ENERGY), n)


@dataclass(frozen=True)
class TileCarriers:
    """The fields of the tile of one key.

    Attributes:
        coefficients_KD: orthonormal rows in the real Fourier basis of the tile's band (cosines, then sines).
    """

    coefficients_KD: NDArray[np.float32]

    @classmethod
    def of_key(cls, key: bytes) -> TileCarriers:
        """The fields that `key` (32 secret bytes) determines. Raises: InvalidMarkKeyError."""
        _check_key(key)
        return _tile_carriers(hashlib.sha256(key).digest(), key)

    @staticmethod
    def weights(mark_id: MarkId) -> NDArray[np.float32]:
        """How strongly each field is sent, (211,); the squares sum to 1."""
        return _word_weights(mark_id, TILE_PILOT_ENERGY).astype(np.float32)

    def field(self, weights_K: NDArray[np.floating], n: int) -> NDArray[np.float32]:
        """A weighted sum of the fields, (n, n), with a mean square of about Σ weights². n is above 52."""
        cosines, sines = (weights_K.astype(np.float32) @ self.coefficients_KD).reshape(2, -1)
        values = (cosines - 1j * sines) * np.float32(n * n / np.sqrt(2))
        places, on_axis, conjugate_places = _tile_places(n)
        half_nm = np.zeros((n, int(TILE_MAX_CYCLES) + 1), np.complex64)  # the columns beyond are empty
        half_nm.reshape(-1)[places] = values
        half_nm.reshape(-1)[conjugate_places] = np.conj(values[on_axis])
        return np.asarray(fft.irfft(fft.ifft(half_nm, axis=0, overwrite_x=True), n, axis=1), np.float32)

    @staticmethod
    def freedoms(folded_nn: NDArray[np.float32]) -> NDArray[np.float32]:
        """The coordinates (D,) of a tile in the basis of `coefficients_KD`, in which `field` has Σ weights² too."""
        frequencies = tile_band()
        values = fft.rfft2(folded_nn)[frequencies[:, 0] % len(folded_nn), frequencies[:, 1]]
        return np.concatenate([values.real, -values.imag]).astype(np.float32) * np.float32(np.sqrt(2) / folded_nn.size)


def tile_band() -> NDArray[np.int64]:
    """The frequencies of the tile."""
    return band(TILE_MIN_CYCLES, TILE_MAX_CYCLES)


@lru_cache(maxsize=16)
def _tile_places(n: int) -> tuple[NDArray[np.int64], NDArray[np.bool_], NDArray[np.int64]]:
    """Where the tile's frequencies lie in the filled columns of an (n, n//2+1) transform, flat; which of them are in
    column 0, and where the conjugates of those lie."""
    frequencies, num_columns = tile_band(), int(TILE_MAX_CYCLES) + 1
    on_axis = frequencies[:, 1] == 0
    places = frequencies[:, 0] % n * num_columns + frequencies[:, 1]
    return places, on_axis, -frequencies[on_axis, 0] % n * num_columns


@lru_cache(maxsize=4)
def _carriers(_digest: bytes, key: bytes) -> Carriers:
    num_frequencies = len(_band())
    return Carriers(
        _orthonormal(key, b"fields", 4 * num_frequencies), _orthonormal(key, b"luma fields", 2 * num_frequencies)
    )


@lru_cache(maxsize=4)
def _tile_carriers(_digest: bytes, key: bytes) -> TileCarriers:
    return TileCarriers(_orthonormal(key, b"tile fields", 2 * len(tile_band())).astype(np.float32))


@lru_cache(maxsize=4)
def _fields(coefficients: bytes, n: int) -> NDArray[np.float32]:
    coefficients_KD = np.frombuffer(coefficients).reshape(NUM_SYMBOLS + 1, -1)
    carriers = Carriers(coefficients_KD, np.empty((0, 0)))
    fields = np.stack([carriers.field(row, n) for row in np.eye(NUM_SYMBOLS + 1)])
    fields.setflags(write=False)
    return fields


@lru_cache(maxsize=4)
def _luma_fields(coefficients: bytes, n: int) -> NDArray[np.float32]:
    carriers = Carriers(np.empty((0, 0)), np.frombuffer(coefficients).reshape(NUM_SYMBOLS + 1, -1))
    fields = np.stack([carriers.luma_field(row, n) for row in np.eye(NUM_SYMBOLS + 1)])
    fields.setflags(write=False)
    return fields


def wave(times_s: NDArray[np.floating] | float) -> NDArray[np.float64]:
    """The sway at given times: a sine with a mean square of 1."""
    return np.sqrt(2.0) * np.sin(2 * np.pi * WAVE_HZ * np.asarray(times_s, np.float64))
