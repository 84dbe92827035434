"""Labels: what is drawn, for how long, and what stands in metadata and manifest."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest

from watermark.authority import SigningAuthority
from watermark.credentials import ManifestSpec, read_credentials
from watermark.errors import InvalidManifestSpecError
from watermark.extract import read_mark
from watermark.labels import CN_LABEL_S, REGIMES, Labels, check_regimes, container_metadata, disclosure
from watermark.mark import UnmarkedFrames, produce
from watermark.media import Clip, decode_clip
from watermark.payload import MarkId

GREY = np.full((512, 512, 3), 120, np.uint8)


def changed_box(regimes: tuple[str, ...], time_s: float = 0.0, frame: np.ndarray = GREY) -> tuple[slice, slice] | None:
    """Rows and columns in which something is drawn."""
    changed = (Labels(regimes, frame.shape[1], frame.shape[0]).drawn(frame, time_s) != frame).any(axis=-1)
    if not changed.any():
        return None
    rows, columns = np.nonzero(changed.any(axis=1))[0], np.nonzero(changed.any(axis=0))[0]
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


def test_nothing_is_drawn_where_nothing_is_asked() -> None:
    assert changed_box(()) is None and changed_box(("us-ca",)) is None
    assert Labels((), 512, 512).drawn(GREY, 0.0) is GREY


def test_the_icon_is_there_from_the_first_frame_to_the_last() -> None:
    for time_s in (0.0, 3.0, 500.0):
        box = changed_box(("eu",), time_s)
        assert box is not None
        rows, columns = box
        assert rows.stop < 512 * 0.15 and columns.start > 512 * 0.85


def test_the_words_stay_for_the_first_seconds() -> None:
    assert CN_LABEL_S >= 2.0
    assert changed_box(("cn",), CN_LABEL_S) is None
    box = changed_box(("cn",), CN_LABEL_S - 0.01)
    assert box is not None and box[0].stop < 512 * 0.15 and box[1].stop < 512 * 0.4


@pytest.mark.parametrize(("width", "height"), [(512, 512), (128, 256), (640, 360)])
def test_the_words_are_high_enough_and_can_be_told_from_any_ground(width: int, height: int) -> None:
    for level in (0, 120, 255):
        frame = np.full((height, width, 3), level, np.uint8)
        drawn = Labels(("cn",), width, height).drawn(frame, 0.0)
        box = changed_box(("cn",), 0.0, frame)
        assert box is not None and int(drawn[box].max()) - int(drawn[box].min()) > 120
    letters = np.nonzero((Labels(("cn",), width, height).drawn(frame * 0, 0.0) > 100).any(axis=(1, 2)))[0]
    assert letters[-1] - letters[0] + 1 >= 0.05 * min(width, height)


def test_frames_are_left_unmodified() -> None:
    before = GREY.copy()
    Labels(REGIMES, 512, 512).drawn(GREY, 0.0)
    assert (before == GREY).all()


def test_unknown_regimes_are_refused() -> None:
    with pytest.raises(InvalidManifestSpecError, match="us-ca"):
        check_regimes(("mars",))


def test_the_disclosure_says_who_what_when_and_which(mark_id: MarkId) -> None:
    made = disclosure(mark_id, "1.2.3", dt.datetime(2026, 11, 22, 10, tzinfo=dt.UTC))
    assert made == {
        "provider": "Placet",
        "system": "Placet talking portrait",
        "version": "1.2.3",
        "created": "2026-11-22T10:00:00Z",
        "id": mark_id.hex,
    }


def test_a_labelled_delivery_carries_all_of_it(
    clip: Clip,
    key: bytes,
    mark_id: MarkId,
    make_spec: Callable[[MarkId], ManifestSpec],
    authority: SigningAuthority,
    tmp_path: Path,
) -> None:
    assert clip.sound is not None
    frames = clip.frames_THWC[:, ::2, ::2]
    out = tmp_path / "out.mp4"
    produce(
        [UnmarkedFrames(frames)],
        clip.sound,
        rate_hz=25.0,
        mark_id=mark_id,
        key=key,
        spec=make_spec(mark_id),
        authority=authority,
        dst=out,
        labels=REGIMES,
    )
    with av.open(str(out)) as container:
        assert json.loads(container.metadata["AIGC"]) == json.loads(container_metadata(mark_id)["AIGC"])
    reading = read_credentials(out, "video/mp4", authority.root_pem)
    assert reading.state == "trusted" and reading.disclosure is not None
    assert set(reading.disclosure) == {"provider", "system", "version", "created", "id"}
    played = decode_clip(out)
    assert np.abs(played.frames_THWC[0].astype(int) - frames[0]).mean() < 12
    assert (played.frames_THWC[0, 8:30, 225:248].min(axis=-1) > 200).any(), "the icon is in the picture"
    found = read_mark(played, key, lambda found: found == mark_id, num_registered=1)
    assert found.state == "detected", "labels do not disturb the mark"


def test_without_visible_labels_metadata_is_there_all_the_same(mark_id: MarkId) -> None:
    label = json.loads(container_metadata(mark_id)["AIGC"])
    assert (label["Label"], label["ProduceID"]) == ("1", mark_id.hex)
