"""Marks of before a rotation: read under the key of their time, and no looser for it."""

from __future__ import annotations

import numpy as np
import pytest

from detector.exhibit import take_in
from detector.marks import Marks, read_marks_under_any
from tests.detector.drawing import draw_face
from tests.detector.test_report import mp4
from watermark.credentials import CredentialReading
from watermark.embed import Embedder
from watermark.media import CLIP_LIMITS
from watermark.payload import MarkId

OLD, NEW = bytes(range(32)), bytes(range(1, 33))
MARK_ID = MarkId(0x0123456789ABCDEF)


@pytest.fixture(scope="module")
def marked(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    frames_THWC = np.stack([draw_face(31, 320)] * 75)
    return mp4(tmp_path_factory.mktemp("marked"), Embedder(OLD, MARK_ID, 320, 320, 25.0).apply(frames_THWC))


def read(data: bytes, *keys: bytes) -> Marks:
    return read_marks_under_any(
        take_in(data, "video/mp4", CLIP_LIMITS),
        keys,
        lambda mark_id: mark_id == MARK_ID,
        lambda _: None,
        CredentialReading("absent"),
        num_registered=100,
    )


@pytest.mark.heavy
def test_a_mark_of_before_the_rotation_is_read(marked: bytes) -> None:
    marks = read(marked, NEW, OLD)
    assert marks.state == "detected" and marks.picture is not None and marks.picture.mark_id == MARK_ID
    assert read(marked, NEW).state == "not_detected"
