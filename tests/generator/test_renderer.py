"""The renderer: who may use it, and what frames must hold, re-measured with the landmark model."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest

from generator.actions import ACTION_INDEX
from generator.errors import GrantMismatchError
from generator.fit import rotation
from generator.motion import MotionRow
from generator.perception import FaceLandmarks, detect_faces, face_landmarks, lip_aperture
from generator.portrait import FRAME_PX, Portrait
from generator.renderer import Renderer, build_rig
from generator.sheet import HeadPose
from tests.generator.conftest import Gatekeeper, Track
from watermark.mark import UnmarkedFrames

Render = Callable[..., np.ndarray]


def _actions(**strengths: float) -> np.ndarray:
    actions = np.zeros(52, np.float32)
    for name, strength in strengths.items():
        for index, action in enumerate(ACTION_INDEX):
            if action in (name, f"{name}Left", f"{name}Right"):
                actions[index] = strength
    return actions


def _seen(frame: np.ndarray) -> FaceLandmarks:
    return face_landmarks(frame, detect_faces(frame)[0], num_views=4)


def _eye_opening(landmarks: FaceLandmarks) -> float:
    eyes = (landmarks.eye_image_left, landmarks.eye_image_right)
    return float(np.mean([np.linalg.norm(eye.upper_92[4] - eye.lower_92[4]) for eye in eyes]))


# --- who may


def test_no_grant_no_frames(portrait: Portrait) -> None:
    for pretender in (None, object(), "grant"):
        with pytest.raises(GrantMismatchError):
            Renderer(portrait, pretender)  # type: ignore[arg-type]


def test_a_grant_is_for_one_portrait_and_one_use(
    portrait: Portrait, portrait_png: bytes, gatekeeper: Gatekeeper
) -> None:
    with pytest.raises(GrantMismatchError):
        Renderer(portrait, gatekeeper.grant(b"another portrait"))
    renderer = Renderer(portrait, gatekeeper.grant(portrait_png, b"once"))
    renderer.frames(Track.of(_actions()))  # type: ignore[arg-type]
    with pytest.raises(GrantMismatchError):
        renderer.frames(Track.of(_actions()))  # type: ignore[arg-type]


# --- what is seen


def test_at_rest_the_photo_comes_back(portrait: Portrait, render: Render) -> None:
    frame = render(Track.of(_actions()))[0]
    photo = portrait.cropped(FRAME_PX)
    difference = np.abs(frame.astype(int) - photo)
    assert difference.mean() < 1.5
    eyes = portrait.square_stage().points(portrait.landmarks.points_L2)[[33, 263]] - portrait.square_stage().margin_px
    for x, y in eyes.astype(int):
        assert difference[y - 8 : y + 8, x - 8 : x + 8].mean() < 2


def test_lips_open_close_and_close_over_an_open_jaw(render: Render) -> None:
    rest, half, wide, closed = render(
        Track.of(
            _actions(),
            _actions(jawOpen=0.2),
            _actions(jawOpen=0.45),
            _actions(jawOpen=0.3, mouthClose=0.3),
        )
    )
    aperture = [lip_aperture(_seen(frame).points_L2) for frame in (rest, half, wide, closed)]
    assert aperture[2] > aperture[1] > aperture[0] + 0.02
    assert aperture[2] > 0.10
    assert aperture[3] < aperture[0] + 0.03, "p, b and m close"


def test_eyes_close_completely_and_brows_rise(render: Render) -> None:
    rest, blink, brows = render(Track.of(_actions(), _actions(eyeBlink=1.0), _actions(browInnerUp=1, browOuterUp=1)))
    at_rest, closed, raised = _seen(rest), _seen(blink), _seen(brows)
    # the iris model imagines a slit even on closed lids
    assert _eye_opening(closed) < 0.65 * _eye_opening(at_rest)
    brow = [105, 334]
    assert (at_rest.points_L2[brow, 1] - raised.points_L2[brow, 1]).mean() > 2


@pytest.mark.parametrize(
    "pose", [(6.0, 0.0, 0.0), (-6.0, 0.0, 0.0), (0.0, 4.0, 0.0), (0.0, -4.0, 0.0), (0.0, 0.0, 4.0)]
)
def test_the_head_turns_as_commanded(portrait: Portrait, render: Render, pose: tuple[float, ...]) -> None:
    still, turned = render(Track.of(_actions())), render(Track.of(_actions(), pose=(*pose, 0, 0, 0)))
    sheet, head = build_rig(portrait).sheet, portrait.head
    trusted = head.landmark_trust_L > 0.4
    at = head.at_landmarks(head.vertices(sheet.fit.identity_K, sheet.fit.actions_A))[trusted]
    wanted = (
        sheet.rigid(at, HeadPose(rotation(*pose).astype(np.float32), np.zeros(3, np.float32)))[:, :2]
        - sheet.fit.project(at)[:, :2]
    )
    seen = (_seen(turned[0]).points_L2 - _seen(still[0]).points_L2)[trusted]
    np.testing.assert_allclose(seen.mean(0), wanted.mean(0), atol=2.0)
    # parallax within the face, which the landmark model itself damps
    wanted_inner, seen_inner = wanted - wanted.mean(0), seen - seen.mean(0)
    assert (wanted_inner * seen_inner).sum() > 0.55 * (wanted_inner**2).sum()


def test_gaze_moves_the_iris_and_nothing_else(render: Render) -> None:
    still, looking = render(Track.of(_actions()))[0], render(Track.of(_actions(), gaze=(-15.0, 0.0)))[0]
    before, after = _seen(still), _seen(looking)
    shift = after.eye_image_left.iris_xy[0] - before.eye_image_left.iris_xy[0]
    assert shift < -0.04 * np.linalg.norm(before.points_L2[33] - before.points_L2[133])
    below = int(before.points_L2[1, 1])
    np.testing.assert_array_equal(still[below:], looking[below:])


def test_skin_stays_as_sharp_as_the_photo(portrait: Portrait, render: Render) -> None:
    frame = render(Track.of(_actions(jawOpen=0.15), pose=(4.0, 2.0, 1.0, 0, 0, 0)))[0]
    x0, y0 = _seen(frame).points_L2.min(0).astype(int)
    x1, y1 = _seen(frame).points_L2.max(0).astype(int)
    photo = portrait.cropped(FRAME_PX)

    def energy(image: np.ndarray) -> float:
        luma = image[y0:y1, x0:x1].astype(float).mean(-1)
        return float(np.hypot(*np.gradient(luma)).mean())

    assert energy(frame) > 0.9 * energy(photo)


def test_no_tear_at_the_ends_of_the_range(render: Render) -> None:
    for pose in ((8.0, 5.0, 5.0), (-8.0, -5.0, -5.0)):
        frame = render(Track.of(_actions(jawOpen=0.4), pose=(*pose, 0.01, 0.01, 0.01)))[0]
        seen = _seen(frame)
        assert seen.presence > 5
        low, high = seen.points_L2.min(0).astype(int), seen.points_L2.max(0).astype(int)
        face = frame[low[1] : high[1], low[0] : high[0]]
        assert (face.max(-1) < 4).mean() < 0.01, "no black cracks"


def test_the_doubled_picture_holds_the_original(portrait: Portrait) -> None:
    rig = build_rig(portrait)
    np.testing.assert_array_equal(rig.person_DD4[::2, ::2], rig.person_SS4)
    between = rig.person_DD4[100:500:2, 101:500:2].astype(int)
    linear = (rig.person_SS4[50:250, 50:250].astype(int) + rig.person_SS4[50:250, 51:251]) // 2
    assert np.abs(between - linear).mean() < 2


def test_full_framing_changes_nothing_outside_the_crop(portrait: Portrait, render: Render) -> None:
    photo = portrait.shrunk_to(1920).photo_HW3
    frame = render(Track.of(_actions(jawOpen=0.4), pose=(5.0, 2.0, 0, 0, 0, 0)), "full")[0]
    height, width = frame.shape[:2]
    assert height % 2 == width % 2 == 0
    assert abs(height - photo.shape[0]) <= 1
    crop = portrait.shrunk_to(1920).crop
    changed = np.abs(frame.astype(int) - photo[:height, :width]).max(-1) > 0
    assert changed.any()
    changed[crop.y0 : crop.y0 + crop.side, crop.x0 : crop.x0 + crop.side] = False
    assert not changed.any()


def test_a_stream_of_rows_gives_the_frames_of_the_track(
    portrait: Portrait, portrait_png: bytes, gatekeeper: Gatekeeper
) -> None:
    track = Track.of(*[_actions(jawOpen=0.1 * k) for k in range(4)])
    rows = [
        MotionRow(*row)
        for row in zip(track.actions_T52, track.head_pose_T6, track.gaze_T2, track.distance_T, strict=True)
    ]
    asked: list[int] = []

    def as_spoken() -> Iterator[MotionRow]:
        for index, row in enumerate(rows):
            asked.append(index)
            yield row

    whole = Renderer(portrait, gatekeeper.grant(portrait_png, b"whole")).frames(track)  # type: ignore[arg-type]
    stream = Renderer(portrait, gatekeeper.grant(portrait_png, b"stream")).stream(as_spoken())
    first = next(stream)
    assert asked == [0]
    pieces = [UnmarkedFrames._frames(batch) for batch in (first, *stream)]
    assert [len(piece) for piece in pieces] == [1] * 4
    assert np.array_equal(np.concatenate(pieces), np.concatenate([UnmarkedFrames._frames(chunk) for chunk in whole]))


def test_chunks_are_bounded_and_complete(portrait: Portrait, portrait_png: bytes, gatekeeper: Gatekeeper) -> None:
    track = Track.of(*[_actions(jawOpen=0.01 * k) for k in range(57)])
    chunks = Renderer(portrait, gatekeeper.grant(portrait_png, b"chunks")).frames(track)  # type: ignore[arg-type]
    assert [len(chunk) for chunk in chunks] == [8] * 7 + [1]
