"""Which face is meant: order, counting, and who else is looked at."""

from __future__ import annotations

import numpy as np
import pytest

from generator.controls import MotionControls
from generator.errors import ControlError, FaceTooSmallError, NoFaceError, NoSuchFaceError, SeveralFacesError
from generator.faces import FacesFound, faces_in
from generator.perception import FaceBox
from generator.portrait import Portrait, locate_face


def box(x0: float, size: float) -> FaceBox:
    return FaceBox(x0, 0.0, x0 + size, size, 0.9, np.zeros((2, 2)))


LEFT, MIDDLE, RIGHT, FAR, SPECK = box(0, 100), box(200, 300), box(600, 120), box(800, 60), box(900, 20)
GROUP = FacesFound((LEFT, MIDDLE, RIGHT), (FAR, SPECK))


def test_from_the_left_or_the_largest() -> None:
    assert [GROUP.chosen(number) for number in range(3)] == [LEFT, MIDDLE, RIGHT]
    assert GROUP.chosen("largest") is MIDDLE
    assert FacesFound((RIGHT,), (FAR,)).chosen() is RIGHT, "passers-by do not make a portrait a group"


def test_every_other_face_that_can_be_recognised_is_looked_at() -> None:
    assert GROUP.beside(MIDDLE) == (LEFT, RIGHT, FAR)
    assert FacesFound((LEFT,)).beside(LEFT) == ()


def test_what_cannot_be_chosen() -> None:
    with pytest.raises(SeveralFacesError, match=r"3 faces.*0 to 2.*largest"):
        GROUP.chosen()
    with pytest.raises(NoSuchFaceError, match="shows 3, so face must be 0 to 2"):
        GROUP.chosen(3)
    with pytest.raises(NoFaceError):
        FacesFound(()).chosen("largest")
    with pytest.raises(FaceTooSmallError):
        FacesFound((FAR, MIDDLE)).chosen(0)


@pytest.mark.parametrize("face", [-1, 16, 1.0, True, "left", "Largest", [], {"keyframes": []}])
def test_controls_that_name_no_face(face: object) -> None:
    with pytest.raises(ControlError, match='"largest" or a whole number from 0 to 15'):
        MotionControls.from_json({"face": face})
    assert MotionControls.from_json({"face": "largest"}).face == "largest"


def test_in_a_picture(portrait: Portrait) -> None:
    one = portrait.cropped(320)
    two = np.concatenate([one, portrait.cropped(320)], 1)
    found = faces_in(two)
    assert len(found.counted) == 2 and found.counted[0].x0 < 320 < found.counted[1].x1
    right = locate_face(two, 1)
    assert right.x0 > 320 and found.beside(found.counted[1]) == (found.counted[0],)
