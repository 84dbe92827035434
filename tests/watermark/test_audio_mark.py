"""The mark in the sound: found after what happens to sounds, silent where there is silence, absent where nobody put it.

Speech is the samples that ship with the personas.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy.stats import chi2

from generator.personas import sample_paths
from tests.watermark.clips import speechlike
from watermark.audio_mark import MIN_RATE_HZ, AudioEmbedder, read_audio_mark
from watermark.errors import InvalidMarkKeyError
from watermark.media import Sound, decode_sound
from watermark.payload import MarkId
from watermark.sound_attacks import SOUND_ISSUED, SOUND_SUITE, SoundAttack, chain, gain, late_start
from watermark.sound_grid import NUM_BANDS, PERIOD_CELLS, PILOT, Plan

RATE_HZ = 16_000
IDS = [MarkId.from_hex(text) for text in ("0123456789abcdef", "fedcba9876543210")]


def first_seconds(sound: Sound, seconds: float = 5.0) -> Sound:
    return Sound(sound.samples_N[: round(seconds * sound.rate_hz)], sound.rate_hz)


@pytest.fixture(scope="module")
def speech() -> list[Sound]:
    return [decode_sound(path.read_bytes()) for path in sorted(sample_paths())[:2]]


@pytest.fixture(scope="module")
def marked(speech: list[Sound], key: bytes) -> list[Sound]:
    return [
        Sound(AudioEmbedder(key, mark_id, RATE_HZ).apply(sound.samples_N), RATE_HZ)
        for sound, mark_id in zip(speech, IDS, strict=True)
    ]


@pytest.mark.parametrize("name", [*SOUND_ISSUED, "Opus 32 kb/s", "8 kHz", "speed -7 % + AAC 48", "gain -20 dB"])
def test_the_id_survives_from_five_seconds(name: str, marked: list[Sound], key: bytes) -> None:
    for sound, mark_id in zip(marked, IDS, strict=True):
        reading = read_audio_mark(
            first_seconds(SOUND_SUITE[name](sound)), key, frozenset(IDS).__contains__, num_registered=2
        )
        assert (reading.state, reading.mark_id) == ("detected", mark_id)
        assert 0 < reading.null_fpr < 1e-15


@pytest.mark.parametrize(
    ("attack", "tempo", "pitch"),
    [(SOUND_SUITE["speed +10 %"], 1.1, 1.1), (SOUND_SUITE["speed -10 %"], 0.9, 0.9), (late_start(0.4567), 1.0, None)],
)
def test_the_reading_says_how_the_sound_was_changed(
    attack: SoundAttack, tempo: float, pitch: float | None, marked: list[Sound], key: bytes
) -> None:
    reading = read_audio_mark(attack(marked[0]), key, IDS.__contains__, num_registered=2)
    assert reading.tempo == pytest.approx(tempo, abs=0.003)
    assert pitch is None or reading.pitch == pytest.approx(pitch, abs=0.01)


def test_silence_stays_silent_and_loud_sounds_do_not_clip(speech: list[Sound], key: bytes) -> None:
    embedder = AudioEmbedder(key, IDS[0], RATE_HZ)
    assert not embedder.apply(np.zeros(3 * RATE_HZ, np.float32)).any()
    with_pause = speech[0].samples_N.copy()
    with_pause[RATE_HZ : 2 * RATE_HZ] = 0
    marked = embedder.apply(with_pause)
    assert not marked[RATE_HZ + 512 : 2 * RATE_HZ - 512].any()
    loud = speech[0].samples_N / np.abs(speech[0].samples_N).max()
    assert np.abs(embedder.apply(loud)).max() <= 1.0


def test_the_change_stays_far_below_the_speech(speech: list[Sound], marked: list[Sound]) -> None:
    for before, after in zip(speech, marked, strict=True):
        assert len(before.samples_N) == len(after.samples_N)
        change = after.samples_N - before.samples_N
        assert 10 * np.log10(np.sum(before.samples_N**2) / np.sum(change**2)) > 11


@pytest.mark.parametrize(("rate_hz", "seed"), [(16_000, 0), (22_050, 1), (18_900, 2), (48_000, 3)])
def test_a_sound_in_pieces_is_marked_like_the_whole(rate_hz: int, seed: int, speech: list[Sound], key: bytes) -> None:
    """Bit for bit, whatever the pieces, and never later than promised."""
    rng = np.random.default_rng(seed)
    samples_N = speech[0].resampled(rate_hz).samples_N[: round(2.5 * rate_hz) + int(rng.integers(1000))]
    embedder = AudioEmbedder(key, IDS[0], rate_hz)
    stream, parts, num_in = embedder.stream(), [], 0
    while num_in < len(samples_N):
        piece_N = samples_N[num_in : num_in + int(rng.choice([0, 1, 7, 160, 1920, 30_000]))]
        num_in += len(piece_N)
        parts.append(stream.write(piece_N))
        assert num_in - sum(map(len, parts)) <= embedder.latency_s * rate_hz
    parts.append(stream.finish())
    assert np.array_equal(np.concatenate(parts), embedder.apply(samples_N))


@pytest.mark.parametrize("num_samples", [0, 1, 100, 2047, 2048, 2049])
def test_the_shortest_sounds_keep_their_length(num_samples: int, key: bytes) -> None:
    samples_N = np.full(num_samples, 0.5, np.float32)
    marked_N = AudioEmbedder(key, IDS[0], RATE_HZ).apply(samples_N)
    assert marked_N.dtype == np.float32 and len(marked_N) == num_samples and np.abs(marked_N).max(initial=0.0) <= 1.0


@pytest.mark.parametrize("rate_hz", [24_000, 44_100, 48_000])
def test_other_rates(rate_hz: int, speech: list[Sound], key: bytes) -> None:
    sound = speech[0].resampled(rate_hz)
    marked = Sound(AudioEmbedder(key, IDS[0], rate_hz).apply(sound.samples_N), rate_hz)
    assert read_audio_mark(first_seconds(marked), key, IDS.__contains__, num_registered=2).mark_id == IDS[0]


def test_nothing_is_found_where_nothing_is(speech: list[Sound], marked: list[Sound], key: bytes) -> None:
    noise = Sound(np.random.default_rng(5).normal(0, 0.1, 6 * RATE_HZ).astype(np.float32), RATE_HZ)
    for sound, with_key in [(speech[0], key), (marked[0], bytes(32)), (noise, key), (speechlike(6.0), key)]:
        reading = read_audio_mark(sound, with_key, lambda _: False, num_registered=10**6)
        assert reading.state == "not_detected" and reading.mark_id is None
        assert 0 < reading.null_fpr < 1e-10


def test_a_mark_that_the_registry_does_not_know_is_inconclusive(marked: list[Sound], key: bytes) -> None:
    reading = read_audio_mark(marked[0], key, lambda _: False, num_registered=1)
    assert reading.state == "inconclusive" and reading.num_attempts > 0


@pytest.mark.parametrize("samples_N", [np.zeros(0), np.zeros(100), np.zeros(6 * RATE_HZ), np.ones(RATE_HZ)])
def test_too_little_to_tell(samples_N: np.ndarray, key: bytes) -> None:
    reading = read_audio_mark(Sound(samples_N.astype(np.float32), RATE_HZ), key, lambda _: True, num_registered=1)
    assert reading.state == "inconclusive" and reading.null_fpr == 0.0


def test_a_long_sound_is_read_from_any_part(speech: list[Sound], key: bytes) -> None:
    """Half a minute of which only the last third is marked."""
    foreign = np.concatenate([sound.samples_N for sound in speech])[: 10 * RATE_HZ]
    own = AudioEmbedder(key, IDS[1], RATE_HZ).apply(np.concatenate([sound.samples_N for sound in speech]))
    sound = Sound(np.concatenate([foreign, own]), RATE_HZ)
    reading = read_audio_mark(chain(gain(-6.0))(sound), key, IDS.__contains__, num_registered=2)
    assert reading.mark_id == IDS[1] and reading.start_s is not None and reading.start_s > 3


def test_every_symbol_has_a_cell_in_each_quarter_of_the_bands(key: bytes) -> None:
    plan = Plan.of_key(key)
    for quarter in range(4):
        symbols = plan.symbols_CB[:, quarter * NUM_BANDS // 4 : (quarter + 1) * NUM_BANDS // 4]
        assert sorted(symbols[symbols != PILOT].ravel()) == list(range(PILOT))
    assert plan.signs_CB.shape == (PERIOD_CELLS, NUM_BANDS) and set(plan.signs_CB.ravel()) == {-1.0, 1.0}
    assert not np.array_equal(Plan.of_key(bytes(32)).symbols_CB, plan.symbols_CB)


def test_keys_and_rates_are_checked(key: bytes) -> None:
    with pytest.raises(InvalidMarkKeyError):
        AudioEmbedder(b"short", IDS[0], RATE_HZ)
    with pytest.raises(ValueError):
        AudioEmbedder(key, IDS[0], MIN_RATE_HZ - 1)


@pytest.mark.heavy
def test_null_words_are_uniform(speech: list[Sound], key: bytes, words_of: Callable[..., list[int]]) -> None:
    """The bits of words read from unmarked speech under many keys: no id is likelier than another."""
    values = words_of(speech, 40)
    ones = [sum(value >> bit & 1 for value in values) for bit in range(64)]
    expected = len(values) / 2
    statistic = sum((count - expected) ** 2 / (expected / 2) for count in ones)
    assert statistic < chi2.isf(1e-6, 64)  # an honest reader fails this once in a million seeds
    assert len(set(values)) == len(values)


@pytest.fixture(scope="module")
def words_of() -> Callable[[list[Sound], int], list[int]]:
    """The first id that is looked up for each sound under a number of keys."""

    def words(sounds: list[Sound], num_keys: int) -> list[int]:
        seen: list[int] = []
        for number in range(num_keys):
            for sound in sounds:
                tried: list[int] = []
                read_audio_mark(
                    sound,
                    number.to_bytes(32, "big"),
                    lambda mark, tried=tried: bool(tried.append(mark.value)),  # type: ignore[misc]
                    num_registered=1,
                )
                seen += tried[:1]  # those of one list are neighbours of each other
        return seen

    return words
