"""Renderer: a prepared portrait and a track of motion in, frames out, for holders of a grant only.

Per frame: facial actions and pose bend the sheet; its raster is a dense backward flow; the person's pixels (eyes
edited in place) are fetched along it and laid over the background; what the lips uncover is painted. The fetch is
bilinear from a copy at twice the resolution, made once by a longer filter: as sharp as a cubic fetch, at a fifth of its
cost. At rest every pixel of the photo comes back as it was.
"""

# T frame  S side of the stage  D twice that  F side of the frame  A facial action (52)

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, Literal, Protocol

import cv2
import numba
import numpy as np
from jaxtyping import Float32, UInt8
from numpy import ndarray

from generator.actions import ACTION_INDEX
from generator.errors import GrantMismatchError
from generator.eyes import EyeMotion, EyePatch, build_eye
from generator.fit import rotation
from generator.head import CONTACT_LOOP, NUM_LIP_COLUMNS
from generator.matte import fill_smoothly
from generator.mouth import MouthInterior, build_mouth
from generator.obstacles import spectacles_mask
from generator.perception import BROW_LEFT_EDGE, BROW_RIGHT_EDGE, FACE_OVAL, LIPS_INNER_LOWER, LIPS_INNER_UPPER, Eye
from generator.portrait import FRAME_PX, MARGIN_PX, Portrait, Stage
from generator.raster import FAR, paint
from generator.shading import Shading, build_shading
from generator.sheet import HeadPose, Sheet, build_sheet
from policy.permit import Grant
from watermark.mark import UnmarkedFrames

MAX_FULL_PX: Final = 1920
MAX_FACE_PX: Final = 1024
CHUNK_FRAMES: Final = 8
CHUNK_BYTES: Final = 64 * 1024 * 1024
Framing = Literal["square", "full"]

_PARTED_M: Final = (0.0020, 0.0040)  # lips in the photo: closed below, open above
_OPENING: Final = (
    "jawOpen", "jawForward", "jawLeft", "jawRight", "mouthClose", "mouthFunnel", "mouthLowerDownLeft",
    "mouthLowerDownRight", "mouthUpperUpLeft", "mouthUpperUpRight", "mouthShrugUpper", "mouthShrugLower",
    "mouthRollLower", "mouthRollUpper", "mouthPucker", "mouthStretchLeft", "mouthStretchRight",
)  # fmt: skip
_SMILING: Final = ("mouthSmileLeft", "mouthSmileRight", "mouthDimpleLeft", "mouthDimpleRight")
_SMILE_KEPT: Final = 0.6
_FLOW_JUMP_PX: Final = 3.8  # of the doubled picture
_HALFWAY: Final = np.array([1, -5, 20, 20, -5, 1], np.float32) / 32  # half-sample filter of ITU-T H.264, 8.4.2.2.1
_REACH_PX: Final = 3  # of that filter
_CLOSED_BLINK: Final = 0.9  # a blink of this strength closes the eye


class MotionTrackLike(Protocol):
    """What the renderer reads of a motion track (see `generator.motion.MotionTrack`)."""

    @property
    def actions_T52(self) -> ndarray: ...
    @property
    def head_pose_T6(self) -> ndarray: ...
    @property
    def gaze_T2(self) -> ndarray: ...
    @property
    def distance_T(self) -> ndarray: ...


class MotionRowLike(Protocol):
    """What the renderer reads of one row (see `generator.motion.MotionRow`)."""

    @property
    def actions_52(self) -> ndarray: ...
    @property
    def head_pose_6(self) -> ndarray: ...
    @property
    def gaze_2(self) -> ndarray: ...
    @property
    def distance(self) -> float: ...


_Row = tuple[ndarray, ndarray, ndarray, float]


@dataclass(frozen=True, eq=False)
class Rig:
    """Everything about a portrait at one size that stays the same from frame to frame."""

    stage: Stage
    sheet: Sheet
    mouth: MouthInterior
    shading: Shading
    eyes: tuple[EyePatch, EyePatch] | tuple[()]
    person_SS4: UInt8[ndarray, "s s 4"]
    person_DD4: UInt8[ndarray, "d d 4"]
    plate_FF3: UInt8[ndarray, "f f 3"]
    kept_A: Float32[ndarray, " 52"]
    shown_A: Float32[ndarray, " 52"]


def build_rig(portrait: Portrait, size_px: int = FRAME_PX, margin_px: int = MARGIN_PX) -> Rig:
    """Prepare a portrait for rendering at one size.

    Args:
        margin_px: how much beyond the frame to have ready; with none, motion fades out towards the frame's edge.
    """
    stage = portrait.stage(size_px, margin_px)
    matte, image = stage.matte, stage.image_SS3
    marks = portrait.landmarks
    points = stage.points(marks.points_L2)
    eyes = [
        build_eye(image, _eye_on_stage(stage, eye), points[list(brow)].mean(0))
        for eye, brow in ((marks.eye_image_left, BROW_RIGHT_EDGE), (marks.eye_image_right, BROW_LEFT_EDGE))
    ]
    openings = np.zeros(image.shape[:2], np.float32)
    for eye in eyes:
        h, w = eye.opening_hw.shape
        place = openings[eye.y0 : eye.y0 + h, eye.x0 : eye.x0 + w]
        np.maximum(place, eye.opening_hw, out=place)
    worn = portrait.obstacles.spectacles
    rigid = spectacles_mask(points, stage.side_px) * np.float32(worn) if worn > 0 else None
    sheet = build_sheet(portrait.head, stage, cv2.GaussianBlur(openings, (0, 0), 0.004 * size_px), rigid)

    ring = np.concatenate([points[list(LIPS_INNER_UPPER)], points[list(LIPS_INNER_LOWER)][::-1]])
    parted = float(np.clip((sheet.rest_gap_m - _PARTED_M[0]) / (_PARTED_M[1] - _PARTED_M[0]), 0, 1))
    opening: ndarray = np.zeros(image.shape[:2], np.float32)
    if parted > 0:
        cv2.fillPoly(opening, [np.round(ring * 16).astype(np.int32)], 1.0, cv2.LINE_AA, 4)
        inset = max(1, round(0.004 * size_px))
        opening = cv2.erode(opening, np.ones((2 * inset + 1, 1), np.uint8))
        opening = cv2.GaussianBlur(opening, (0, 0), 0.8) * parted
    whites = np.minimum(np.mean([eye.white_rgb for eye in eyes], 0) * 1.12, 255)
    light = _plausible_light(whites, image, points)
    mouth = build_mouth(sheet, portrait.head, image, light, opening)

    shading = build_shading(sheet, matte.foreground_HW3, points[list(FACE_OVAL)], openings)

    shown = sheet.fit.actions_A.astype(np.float32)
    kept = shown.copy()
    for names, keep in ((_OPENING, 0.0), (_SMILING, _SMILE_KEPT)):
        for name in names:
            kept[ACTION_INDEX[name]] *= 1 - parted * (1 - keep)
    skin = _without_teeth(matte.foreground_HW3, ring, parted) if parted > 0 else matte.foreground_HW3
    person = np.ascontiguousarray(np.dstack([skin, np.round(matte.alpha_HW * 255).astype(np.uint8)]))
    return Rig(
        stage=stage,
        sheet=sheet,
        mouth=mouth,
        shading=shading,
        eyes=() if portrait.obstacles.eyes_are_hidden else (eyes[0], eyes[1]),
        person_SS4=person,
        person_DD4=_doubled(person),
        plate_FF3=stage.frame_of(matte.plate_HW3),
        kept_A=kept,
        shown_A=shown,
    )


def _without_teeth(image_SS3: ndarray, ring_N2: ndarray, parted: float) -> UInt8[ndarray, "s s 3"]:
    """The picture with the lips' colour where the mouth is open: closing lips bring no teeth along."""
    inner: ndarray = np.zeros(image_SS3.shape[:2], np.uint8)
    cv2.fillPoly(inner, [np.round(ring_N2).astype(np.int32)], 1)
    reach = max(1, round(0.004 * len(image_SS3)))
    inner = cv2.dilate(inner, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1)))
    filled = fill_smoothly(image_SS3.astype(np.float32), 1.0 - inner.astype(np.float32))
    share = cv2.GaussianBlur(inner.astype(np.float32), (0, 0), 0.7)[..., None] * parted
    return np.clip(image_SS3 + (filled - image_SS3) * share + 0.5, 0, 255).astype(np.uint8)


def _eye_on_stage(stage: Stage, eye: Eye) -> Eye:
    return Eye(
        stage.points(eye.upper_92),
        stage.points(eye.lower_92),
        stage.points(eye.iris_xy),
        eye.iris_radius_px * stage.scale,
    )


def _plausible_light(white_rgb: ndarray, image_SS3: ndarray, points_L2: ndarray) -> ndarray:
    """Keep the light that the eyes suggest within what the skin allows: teeth neither glow nor go out."""
    x, y = np.clip(points_L2[[50, 280, 205, 425, 151, 199]].astype(int), 0, image_SS3.shape[0] - 1).T
    skin = np.median(image_SS3[y, x].astype(np.float64), axis=0)
    luma = float(white_rgb.mean())
    wanted = float(np.clip(luma, min(1.35 * skin.mean(), 245), max(1.75 * skin.mean(), 80)))
    hue = white_rgb / max(luma, 1e-3)
    hue = 1 + (hue - 1) * 0.6
    return np.clip(hue * wanted, 0, 255)


class Renderer:
    """Renders what a grant permits, once.

    Args:
        portrait: from `prepare`.
        grant: redeemed for this portrait.
    Raises: GrantMismatchError: not a grant, or for another portrait.
    """

    def __init__(self, portrait: Portrait, grant: Grant) -> None:
        if type(grant) is not Grant:
            raise GrantMismatchError("Frames are rendered for a grant only: redeem a permit first.")
        if grant.permit.portrait_sha256 != portrait.sha256:
            raise GrantMismatchError("The grant was given for another portrait; redeem a permit for this one.")
        self._portrait = portrait
        self._is_used = False

    def frames(self, track: MotionTrackLike, framing: Framing = "square") -> Iterator[UnmarkedFrames]:
        """The frames of a track in order, in chunks; memory does not grow with the length.

        Args:
            track: one row per frame.
            framing: "square" for 512×512 around the face; "full" for the whole photo, at most 1,920 pixels along its
                longer side and without a last odd row or column, in which only the surroundings of the face change.
        Raises: GrantMismatchError: called a second time.
        """
        rows = zip(track.actions_T52, track.head_pose_T6, track.gaze_T2, track.distance_T, strict=True)
        return self._once(rows, framing, CHUNK_FRAMES)

    def stream(
        self, rows: Iterable[MotionRowLike], framing: Framing = "square", *, batch: int = 1
    ) -> Iterator[UnmarkedFrames]:
        """The frames of rows as they come: the same as `frames` makes of the whole track.

        Args:
            rows: may wait for the voice; asked for the next `batch` only when these are rendered.
            batch: how many frames to a batch.
        Raises: GrantMismatchError: this grant has been used.
        """
        plain = ((row.actions_52, row.head_pose_6, row.gaze_2, row.distance) for row in rows)
        return self._once(plain, framing, batch)

    def _once(self, rows: Iterator[_Row], framing: Framing, batch: int) -> Iterator[UnmarkedFrames]:
        if self._is_used:
            raise GrantMismatchError("This grant has been used; redeem another permit to render again.")
        self._is_used = True
        return self._square(rows, batch) if framing == "square" else self._full(rows, batch)

    def _square(self, rows: Iterator[_Row], batch: int) -> Iterator[UnmarkedFrames]:
        maker = _FrameMaker(build_rig(self._portrait))
        while chunk := list(itertools.islice(rows, batch)):
            yield UnmarkedFrames(np.stack([maker.frame(*row) for row in chunk]))

    def _full(self, rows: Iterator[_Row], batch: int) -> Iterator[UnmarkedFrames]:
        portrait = self._portrait.shrunk_to(MAX_FULL_PX)
        photo, crop = portrait.photo_HW3, portrait.crop
        maker = _FrameMaker(build_rig(portrait, min(crop.side, MAX_FACE_PX), 0))
        height, width = (size - size % 2 for size in photo.shape[:2])
        original = crop.cut(photo)
        feather = _feather(crop.side)[..., None]
        num_chunk = int(np.clip(CHUNK_BYTES // photo.nbytes, 1, batch))
        while chunk := list(itertools.islice(rows, num_chunk)):
            frames = []
            for row in chunk:
                face = maker.frame(*row)
                if face.shape[0] != crop.side:
                    face = cv2.resize(face, (crop.side, crop.side), interpolation=cv2.INTER_CUBIC)
                frame = photo.copy()
                mixed = original + (face.astype(np.float32) - original) * feather
                frame[crop.y0 : crop.y0 + crop.side, crop.x0 : crop.x0 + crop.side] = np.round(mixed)
                frames.append(frame[:height, :width])
            yield UnmarkedFrames(np.stack(frames))


def _feather(side_px: int) -> Float32[ndarray, "s s"]:
    """0 on the edge of the crop, 1 a little inside."""
    edge = np.minimum(np.arange(side_px), np.arange(side_px)[::-1]) / max(0.04 * side_px, 1.0)
    ramp = np.clip(edge, 0, 1).astype(np.float32)
    ramp = ramp * ramp * (3 - 2 * ramp)
    return np.minimum(ramp[:, None], ramp[None, :])


class _FrameMaker:
    """Frames of one rig; buffers are reused from frame to frame."""

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        size = rig.stage.frame_px
        half = size // 2
        self._depth = np.empty((half, half), np.float32)
        self._coarse = np.empty((half, half, 3), np.float32)
        self._values = np.concatenate([2 * (rig.sheet.source_V2 - 0.5), rig.sheet.shade_V[:, None]], 1)
        self._values = np.ascontiguousarray(self._values, np.float32)
        self._person_SS4, self._person_DD4 = rig.person_SS4.copy(), rig.person_DD4.copy()
        self._edited: list[EyePatch] = []
        columns, rows = np.meshgrid(np.arange(size, dtype=np.float32), np.arange(size, dtype=np.float32))
        margin = np.float32(rig.stage.margin_px)
        self._mouth_faces = _near_mouth(rig.sheet)
        self._identity = np.stack([2 * (columns + margin), 2 * (rows + margin), np.ones_like(rows)], -1)
        coarse = (np.arange(half, dtype=np.float32) + np.float32(0.5)) * np.float32(size / half) - np.float32(0.5)
        columns, rows = np.meshgrid(coarse + margin, coarse + margin)
        self._coarse_identity = np.stack([2 * columns, 2 * rows, np.ones_like(rows)], -1)

    def frame(
        self, actions_A: ndarray, pose_6: ndarray, gaze_2: ndarray, distance: float = 1.0
    ) -> UInt8[ndarray, "f f 3"]:
        """One frame.

        Args:
            actions_A: facial actions, 0..1.
            pose_6: yaw, pitch, roll in degrees (towards the picture's right, chin up, clockwise) and x, y, z in
                heights of a head (right, down, away), all relative to the photo.
            gaze_2: yaw (towards the picture's right), pitch (up) in degrees, relative to the photo.
            distance: of the head from the camera, as a factor of the photo's.
        """
        rig, sheet = self._rig, self._rig.sheet
        speech = np.clip(np.asarray(actions_A, np.float32), 0, 1)
        expression = rig.kept_A + speech * (1 - rig.kept_A)  # a smile on top of a smile is not twice as broad
        shaped = sheet.shaped(expression - rig.shown_A, speech)
        np.multiply(sheet.shade_V, rig.shading.ratio(shaped), out=self._values[:, 2])
        pose = HeadPose(
            rotation(*(float(v) for v in pose_6[:3])).astype(np.float32),
            np.asarray(pose_6[3:], np.float32) * np.float32(sheet.head_height_m),
            float(distance),
        )
        points = sheet.posed(shaped, pose)
        points[:, :2] -= np.float32(rig.stage.margin_px)

        self._move_eyes(speech, gaze_2)
        flow = self._flow(points)
        warped = _fetched(self._person_DD4, flow)
        out = np.empty_like(rig.plate_FF3)
        _lay_over(warped, flow, rig.plate_FF3, out)
        self._finish_mouth(out, points, expression, pose)
        return out

    def _flow(self, points: ndarray) -> Float32[ndarray, "f f 3"]:
        """Where each pixel of the frame comes from in the doubled picture, and its shade: rastered at half the
        resolution, for the sheet is smooth; where it is not, around the lips, `_finish_mouth` looks again."""
        size = len(self._identity)
        self._depth.fill(FAR)
        np.copyto(self._coarse, self._coarse_identity)
        halved = points * np.array([len(self._depth) / size, len(self._depth) / size, 1], np.float32)
        paint(halved, self._rig.sheet.faces_F3, self._values, self._depth, self._coarse)
        self._coarse -= self._coarse_identity
        flow = cv2.resize(self._coarse, (size, size), interpolation=cv2.INTER_LINEAR)
        flow += self._identity
        return flow

    def _finish_mouth(
        self,
        out_FF3: ndarray,
        points: ndarray,
        expression_A: ndarray,
        pose: HeadPose,
    ) -> None:
        """Draw lips and what they uncover, at twice the resolution where surfaces end, in place."""
        rig = self._rig
        window = self._mouth_window(points)
        x0, y0, x1, y1 = window
        height, width = y1 - y0, x1 - x0
        fine_points = points * np.array([2, 2, 1], np.float32)
        depth = np.full((2 * height, 2 * width), FAR, np.float32)
        flow = np.zeros((2 * height, 2 * width, 3), np.float32)
        paint(fine_points, self._mouth_faces, self._values, depth, flow, origin_xy=(2.0 * x0, 2.0 * y0))
        # (1) where a surface ends: holes, and jumps of the flow
        hole, ends = np.empty((height, width), np.float32), np.empty((height, width), np.uint8)
        _find_ends(depth, flow, hole, ends)
        if not ends.any():
            return
        near: ndarray = cv2.blur(cv2.dilate(ends, np.ones((7, 7), np.uint8)).astype(np.float32), (3, 3))
        # (2) the lips once more, finely, and between them the inside of the mouth
        is_open = bool(hole.any())
        if is_open:
            covered = (depth < FAR).astype(np.uint8)
            gap = cv2.GaussianBlur(1.0 - covered.astype(np.float32), (0, 0), 1.3)
            _extend(flow, covered)
            inside = rig.mouth.painted(rig.sheet, rig.stage, expression_A, pose, window, hole)
        else:
            gap, inside = depth, np.zeros((height, width, 3), np.float32)
        _lay_lips(_fetched(self._person_DD4, flow), flow, gap, inside, near, is_open, out_FF3[y0:y1, x0:x1])

    def _move_eyes(self, actions_A: ndarray, gaze_2: ndarray) -> None:
        """Edit both eyes in the person's pixels; the picture's left eye is the subject's right one."""
        rig = self._rig
        for patch in self._edited:
            place = _window(patch, 0)
            self._person_SS4[place] = rig.person_SS4[place]
            place = _window(patch, 0, scale=2)
            self._person_DD4[place] = rig.person_DD4[place]
        self._edited = []
        for patch, side in zip(rig.eyes, ("Right", "Left"), strict=False):
            blink = float(actions_A[ACTION_INDEX[f"eyeBlink{side}"]]) / _CLOSED_BLINK
            motion = EyeMotion(
                closed=min(blink, 1.0),
                squint=float(actions_A[ACTION_INDEX[f"eyeSquint{side}"]]),
                wide=float(actions_A[ACTION_INDEX[f"eyeWide{side}"]]),
                yaw_deg=float(gaze_2[0]),
                pitch_deg=float(gaze_2[1]),
            )
            if not motion.is_still:
                self._person_SS4[_window(patch, 0)][..., :3] = patch.edited(motion)
                self._edited.append(patch)
        for patch in self._edited:
            around = _window(patch, _REACH_PX)
            inner = tuple(slice(2 * (p.start - a.start), 2 * (p.stop - a.start))
                          for p, a in zip(_window(patch, 0), around, strict=True))  # fmt: skip
            self._person_DD4[_window(patch, 0, scale=2)] = _doubled(self._person_SS4[around])[inner]

    def _mouth_window(self, points: ndarray) -> tuple[int, int, int, int]:
        start = self._rig.sheet.mouth_start
        ring = points[start + 2 * NUM_LIP_COLUMNS : start + (CONTACT_LOOP + 1) * NUM_LIP_COLUMNS]
        x0, y0 = (int(v) - 4 for v in ring[:, :2].min(0))
        x1, y1 = (int(v) + 5 for v in ring[:, :2].max(0))
        size = self._rig.stage.frame_px
        x0, y0 = min(max(0, x0), size - 8), min(max(0, y0), size - 8)
        return x0, y0, max(min(size, x1), x0 + 8), max(min(size, y1), y0 + 8)


def _near_mouth(sheet: Sheet) -> ndarray:
    """The sheet's triangles that may come to lie around the lips."""
    ring = sheet.rest_pixels_V2[sheet.mouth_start :]
    low, high = ring.min(0), ring.max(0)
    reach = 0.6 * (high - low).max()
    near = ((sheet.rest_pixels_V2 > low - reach) & (sheet.rest_pixels_V2 < high + reach)).all(1)
    return np.ascontiguousarray(sheet.faces_F3[near[sheet.faces_F3].all(1)])


def _window(patch: EyePatch, around_px: int, scale: int = 1) -> tuple[slice, slice]:
    """Where an eye lies on the stage, or on the doubled stage, with so much around it."""
    h, w = patch.photo_hw3.shape[:2]
    return (
        slice(scale * max(patch.y0 - around_px, 0), scale * (patch.y0 + h + around_px)),
        slice(scale * max(patch.x0 - around_px, 0), scale * (patch.x0 + w + around_px)),
    )


def _doubled(image_HW4: UInt8[ndarray, "h w 4"]) -> UInt8[ndarray, "d e 4"]:
    """The picture at twice the resolution; every second pixel is the original's, those between by six taps."""
    height, width = image_HW4.shape[:2]
    out = np.empty((2 * height, 2 * width, 4), np.uint8)
    itself = np.ones(1, np.float32)
    for rows, columns in ((itself, itself), (itself, _HALFWAY), (_HALFWAY, itself), (_HALFWAY, _HALFWAY)):
        anchor = tuple(2 if len(kernel) > 1 else 0 for kernel in (columns, rows))
        part = cv2.sepFilter2D(image_HW4, cv2.CV_8U, columns, rows, anchor=anchor, borderType=cv2.BORDER_REPLICATE)
        out[len(rows) // 6 :: 2, len(columns) // 6 :: 2] = part
    return out


def _fetched(person_DD4: ndarray, flow_HW3: ndarray) -> ndarray:
    return cv2.remap(person_DD4, flow_HW3[..., 0], flow_HW3[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


@numba.njit(cache=True, nogil=True)
def _lay_over(person: ndarray, flow: ndarray, plate: ndarray, out: ndarray) -> None:
    """The person's pixels, times their shade, over the background."""
    height, width = out.shape[:2]
    for y in range(height):
        for x in range(width):
            alpha = np.int32(person[y, x, 3])
            if alpha == 0:
                for k in range(3):
                    out[y, x, k] = plate[y, x, k]
                continue
            shade = np.int32(flow[y, x, 2] * np.float32(256.0) + np.float32(0.5))
            for k in range(3):
                value = np.int32(person[y, x, k])
                if shade != 256:
                    # light that wanders under the skin keeps folds red
                    factor = 256 + (((shade - 256) * 180) >> 8) if k == 0 else shade
                    value = np.int32(min(int(value * factor + 128) >> 8, 255))
                if alpha != 255:
                    value = (value * alpha + np.int32(plate[y, x, k]) * (255 - alpha) + 127) // 255
                out[y, x, k] = value


@numba.njit(cache=True, nogil=True)
def _find_ends(depth: ndarray, flow: ndarray, hole: ndarray, ends: ndarray) -> None:
    """From maps at twice the resolution: how much of each pixel nothing covers, and whether a surface ends in it."""
    height, width = hole.shape
    for y in range(height):
        for x in range(width):
            num_open = 0
            low, high = flow[2 * y, 2 * x, 1], flow[2 * y, 2 * x, 1]
            for dy in range(2):
                for dx in range(2):
                    num_open += depth[2 * y + dy, 2 * x + dx] >= FAR
                    low = min(low, flow[2 * y + dy, 2 * x + dx, 1])
                    high = max(high, flow[2 * y + dy, 2 * x + dx, 1])
            hole[y, x] = num_open / 4
            ends[y, x] = num_open > 0 or high - low > _FLOW_JUMP_PX


@numba.njit(cache=True, nogil=True)
def _lay_lips(
    lips: ndarray, flow: ndarray, gap: ndarray, inside: ndarray, near: ndarray, is_open: bool, out: ndarray
) -> None:
    """Lips at twice the resolution over the inside of the mouth, averaged, where surfaces end."""
    for y in range(out.shape[0]):
        for x in range(out.shape[1]):
            share = near[y, x]
            if share <= 0:
                continue
            for k in range(3):
                value = np.float32(0)
                for dy in range(2):
                    for dx in range(2):
                        lip = lips[2 * y + dy, 2 * x + dx, k] * flow[2 * y + dy, 2 * x + dx, 2]
                        if is_open:
                            lip += (inside[y, x, k] - lip) * gap[2 * y + dy, 2 * x + dx]
                        value += lip
                value = out[y, x, k] + (value * np.float32(0.25) - out[y, x, k]) * share
                out[y, x, k] = np.uint8(min(max(value + np.float32(0.5), np.float32(0)), np.float32(255)))


@numba.njit(cache=True, nogil=True)
def _extend(flow: ndarray, known: ndarray) -> None:
    """Give pixels beside the known ones their neighbours' flow, a few pixels far, so that soft edges have colour."""
    height, width = known.shape
    for _ in range(3):
        fresh = np.zeros((height, width), np.uint8)
        for y in range(height):
            for x in range(width):
                if known[y, x]:
                    continue
                count = 0
                sums = np.zeros(3, np.float32)
                for dy in range(-1, 2):
                    for dx in range(-1, 2):
                        yy, xx = y + dy, x + dx
                        if 0 <= yy < height and 0 <= xx < width and known[yy, xx]:
                            count += 1
                            for k in range(3):
                                sums[k] += flow[yy, xx, k]
                if count:
                    for k in range(3):
                        flow[y, x, k] = sums[k] / count
                    fresh[y, x] = 1
        for y in range(height):
            for x in range(width):
                if fresh[y, x]:
                    known[y, x] = 1
