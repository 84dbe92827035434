"""What covers a face: painted on the persona's portrait, it is named or refused before anything is rendered."""

from __future__ import annotations

import io

import cv2
import numpy as np
import pytest
from PIL import Image

from generator.actions import ACTION_INDEX
from generator.errors import MouthHiddenError
from generator.obstacles import EYES_HIDDEN, MOUTH_UNCLEAR, SPECTACLES, WARNINGS, find_obstacles, spectacles_mask
from generator.perception import detect_faces, face_landmarks
from generator.portrait import Portrait, prepare
from generator.renderer import build_rig

_EYES = ((33, 133), (362, 263))


def _png(image: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(image).save(out, "PNG")
    return out.getvalue()


def _place(portrait: Portrait, *landmarks: int) -> tuple[int, int]:
    x, y = portrait.landmarks.points_L2[list(landmarks)].mean(0)
    return round(float(x)), round(float(y))


def _eye_width(portrait: Portrait) -> float:
    points = portrait.landmarks.points_L2
    return float(np.linalg.norm(points[33] - points[133]))


def _masked(portrait: Portrait, colour: tuple[int, int, int]) -> np.ndarray:
    """A medical mask from the nose to below the chin."""
    image = portrait.photo_HW3.copy()
    outline = portrait.landmarks.points_L2[[93, 5, 323, 361, 397, 152, 172, 132]]
    cv2.fillPoly(image, [outline.astype(np.int32)], colour)
    return image


def _spectacled(portrait: Portrait, thickness_px: int, colour: tuple[int, int, int] = (25, 25, 25)) -> np.ndarray:
    """Two lenses and a bridge; a negative thickness fills the lenses."""
    image, width = portrait.photo_HW3.copy(), _eye_width(portrait)
    for corners in _EYES:
        x, y = _place(portrait, *corners)
        size = (round(0.85 * width), round(0.65 * width))
        cv2.ellipse(image, (x, round(y + 0.1 * width)), size, 0, 0, 360, colour, thickness_px, cv2.LINE_AA)
    inner = [_place(portrait, 133), _place(portrait, 362)]
    cv2.line(image, inner[0], inner[1], colour, max(2, abs(thickness_px)), cv2.LINE_AA)
    return image


def _obstacles(image: np.ndarray):  # type: ignore[no-untyped-def]
    return find_obstacles(image, face_landmarks(image, detect_faces(image)[0]).points_L2)


def test_a_plain_face_has_none(portrait: Portrait) -> None:
    assert portrait.obstacles.warnings == () and not portrait.obstacles.mouth_is_hidden
    grey = np.repeat(portrait.photo_HW3.mean(-1, keepdims=True).astype(np.uint8), 3, -1)
    assert _obstacles(grey).warnings == (), "a picture without colour is not a hidden mouth"


@pytest.mark.parametrize("colour", [(170, 200, 220), (30, 30, 30), (240, 240, 240)])
def test_a_mask_over_the_mouth_is_refused(portrait: Portrait, colour: tuple[int, int, int]) -> None:
    with pytest.raises(MouthHiddenError) as refused:
        prepare(_png(_masked(portrait, colour)))
    assert refused.value.code == "portrait.mouth_hidden"


def test_a_hand_before_the_lips_is_refused_or_named(portrait: Portrait) -> None:
    image, skin = portrait.photo_HW3.copy(), portrait.photo_HW3[_place(portrait, 50)[::-1]].tolist()
    width = _eye_width(portrait)
    size = (round(1.3 * width), round(0.75 * width))
    cv2.ellipse(image, _place(portrait, 13, 14), size, 5, 0, 360, skin, -1)
    found = _obstacles(image)
    assert found.mouth_is_hidden or MOUTH_UNCLEAR in found.warnings


def test_spectacles_are_named_and_do_not_bend(portrait: Portrait) -> None:
    worn = prepare(_png(_spectacled(portrait, max(3, round(0.07 * _eye_width(portrait))))))
    assert worn.obstacles.warnings == (SPECTACLES,) and worn.obstacles.spectacles == 1.0
    bare, rig = build_rig(portrait), build_rig(worn)
    mask = spectacles_mask(rig.stage.points(worn.landmarks.points_L2), rig.stage.side_px)
    squint = ACTION_INDEX["cheekSquintLeft"]

    def largest(sheet, within: bool) -> float:  # type: ignore[no-untyped-def]
        x, y = np.clip(sheet.rest_pixels_V2.astype(int), 0, len(mask) - 1).T
        chosen = (mask[y, x] > 0.97) == within
        return float(np.abs(sheet.fields_AV3[squint][chosen]).max())

    assert largest(rig.sheet, within=True) < 0.05 * largest(bare.sheet, within=True)


def test_eyes_behind_dark_glasses_are_left_alone(portrait: Portrait) -> None:
    hidden = prepare(_png(_spectacled(portrait, -1, (22, 22, 26))))
    assert EYES_HIDDEN in hidden.obstacles.warnings
    assert build_rig(hidden).eyes == ()


def test_every_warning_has_its_sentence(portrait: Portrait) -> None:
    assert set(WARNINGS) == {EYES_HIDDEN, MOUTH_UNCLEAR, SPECTACLES}
    assert all(sentence.endswith(".") for sentence in WARNINGS.values())
