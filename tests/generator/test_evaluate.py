"""The yardstick measures what it says: known faults give known figures."""

from __future__ import annotations

import numpy as np
import pytest

from generator.coarticulation import Phone, articulate, lip_aperture
from generator.errors import NoFaceError
from generator.evaluate import measure_lips, seen_apertures
from watermark.media import Clip

WORDS = "tama pobi fame suba mota"


def spoken() -> tuple[Phone, ...]:
    time_s, phones = 0.4, [Phone("^", 0.0, 0.4)]
    for symbol in WORDS:
        length_s = 0.1 if symbol in "aoeiu" else 0.06
        phones.append(Phone(symbol, time_s, time_s + length_s))
        time_s += length_s
    return (*phones, Phone("$", time_s, time_s + 0.8))


def apertures(delay_s: float = 0.0) -> np.ndarray:
    num_frames = int(spoken()[-1].end_s * 25)
    return lip_aperture(articulate(spoken(), np.arange(num_frames) / 25 - delay_s))


def test_the_teacher_measures_well() -> None:
    measures = measure_lips(apertures(), 25.0, spoken())
    assert measures.num_closures == sum(WORDS.count(c) for c in "pbm")
    assert measures.closure_recall == 1.0
    assert measures.false_closure_rate == 0.0
    assert measures.correlation > 0.75
    assert abs(measures.lag_ms) < 20.0
    assert measures.silence_motion is not None
    assert measures.silence_motion < 0.02


@pytest.mark.parametrize("delay_s", [-0.12, -0.08, 0.08, 0.16])
def test_a_delay_is_found_with_its_sign(delay_s: float) -> None:
    zero = measure_lips(apertures(), 25.0, spoken()).lag_ms
    assert measure_lips(apertures(delay_s), 25.0, spoken()).lag_ms - zero == pytest.approx(delay_s * 1000, abs=15.0)


def test_lips_that_never_close_have_no_recall_and_a_shut_mouth_only_false_closures() -> None:
    open_T = np.maximum(apertures(), 0.3)
    open_T[:5] = 0.0
    assert measure_lips(open_T, 25.0, spoken()).closure_recall < 0.3
    shut_T = np.zeros_like(open_T)
    shut_T[::20] = 1.0
    assert measure_lips(shut_T, 25.0, spoken()).false_closure_rate > 0.7


def test_the_unit_of_the_aperture_does_not_matter() -> None:
    first, second = (measure_lips(apertures() * scale + offset, 25.0, spoken()) for scale, offset in ((1, 0), (90, 4)))
    assert first.to_json() == pytest.approx(second.to_json())


def test_movement_in_silence_is_counted() -> None:
    restless_T = apertures()
    restless_T[:6:2] += 0.2
    quiet = measure_lips(restless_T, 25.0, spoken()).silence_motion
    assert quiet is not None
    assert quiet > 0.2


def test_a_still_mouth_has_no_correlation() -> None:
    measures = measure_lips(np.zeros(60), 25.0, spoken())
    assert measures.correlation == 0.0
    assert np.isfinite(measures.lag_ms)


def test_pictures_without_a_face_cannot_be_measured() -> None:
    grey = np.full((5, 128, 128, 3), 128, np.uint8)
    with pytest.raises(NoFaceError, match="5 of 5"):
        seen_apertures(Clip(grey, 25.0, None))
