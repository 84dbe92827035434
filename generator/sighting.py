"""The lookout: what can be seen of a face in the frames of a clip, measured with the landmark model alone.

Comes in: frames of any clip. Goes out: a `Sighting`, per frame where 468 points lie, how the head is turned, how far
away it is, where the eyes look, how far lips, lids and brows are. Nothing here knows what was asked of the renderer, so
that what was asked can be compared with what is seen.

The head's pose is that of a rigid set of points (brow to nose, eye corners, temples) whose depth comes from a head
fitted to one frame of rest; angles and distance are relative to that frame.
"""

# T frame  L landmark  H,W pixel  P rigid point

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8
from numpy import ndarray

from generator.errors import NoFaceError
from generator.fit import HeadFit, angles_deg, fit_head
from generator.head import Head, default_head
from generator.perception import (
    EYE_LEFT_LOWER,
    EYE_LEFT_UPPER,
    EYE_RIGHT_LOWER,
    EYE_RIGHT_UPPER,
    FaceBox,
    FaceLandmarks,
    box_of,
    detect_faces,
    face_landmarks,
    is_face,
    lip_aperture,
)

LARGEST_LOST_SHARE: Final = 0.1
_OUTER_EYE_CORNERS: Final = (33, 263)
_MOUTH_CORNERS: Final = (78, 308)
_INNER_BROWS: Final = (55, 285)
_INNER_EYE_CORNERS: Final = (133, 362)
# Points that no expression moves much: bridge and root of the nose, eye corners, temples, forehead.
# fmt: off
_RIGID: Final = (
    6, 197, 195, 168, 8, 9, 151, 10, 33, 133, 362, 263, 127, 356, 234, 454, 162, 389, 21, 251, 54, 284, 103, 332, 67,
    297, 109, 338, 93, 323, 198, 420, 236, 456, 174, 399, 188, 412, 122, 351, 245, 465, 128, 357,
)
# fmt: on
# From the eye's centre of rotation to its pupil, in radii of the iris (5.9 mm): about 10 mm.
_PUPIL_REACH_RADII: Final = 1.75


@dataclass(frozen=True, eq=False)
class Sighting:
    """What is seen of one face in a clip; where it was lost for a moment, its neighbours' values.

    Attributes:
        points_TL3: landmarks in pixels.
        pose_T3: yaw, pitch, roll in degrees relative to the frame of rest (positive: towards the picture's right, chin
            up, clockwise in the picture).
        distance_T: from the camera, as a factor of that in the frame of rest.
        gaze_T2: yaw, pitch of the eyes in degrees relative to the head, and to the frame of rest.
        opening_T: height of the eye openings over their width.
        lost_T: frames in which no face was found.
        rate_hz: frames per second.
    """

    points_TL3: Float[ndarray, "t 468 3"]
    pose_T3: Float[ndarray, "t 3"]
    distance_T: Float[ndarray, " t"]
    gaze_T2: Float[ndarray, "t 2"]
    opening_T: Float[ndarray, " t"]
    lost_T: Bool[ndarray, " t"]
    rate_hz: float

    @property
    def aperture_T(self) -> Float[ndarray, " t"]:
        """How far the lips are apart, as a fraction of the distance between the outer eye corners."""
        return np.array([lip_aperture(points[:, :2]) for points in self.points_TL3])

    @property
    def mouth_width_T(self) -> Float[ndarray, " t"]:
        """Distance of the corners of the mouth, in the same unit; in three dimensions, so turns do not count."""
        return self._distance(_MOUTH_CORNERS) / self._distance(_OUTER_EYE_CORNERS)

    @property
    def brow_height_T(self) -> Float[ndarray, " t"]:
        """From the inner eye corners to the inner brows, in the same unit."""
        sides = [self._distance(pair) for pair in zip(_INNER_BROWS, _INNER_EYE_CORNERS, strict=True)]
        return np.mean(sides, 0) / self._distance(_OUTER_EYE_CORNERS)

    def _distance(self, pair: tuple[int, int]) -> ndarray:
        return np.linalg.norm(self.points_TL3[:, pair[0]] - self.points_TL3[:, pair[1]], axis=1)

    def part(self, chosen: slice) -> Sighting:
        """Some of the frames."""
        return Sighting(
            self.points_TL3[chosen], self.pose_T3[chosen], self.distance_T[chosen], self.gaze_T2[chosen],
            self.opening_T[chosen], self.lost_T[chosen], self.rate_hz,
        )  # fmt: skip


def follow_face(frames: Sequence[UInt8[ndarray, "h w 3"]] | ndarray) -> Iterator[FaceLandmarks | None]:
    """The largest face, frame by frame: detected once and then followed; None where it is lost."""
    followed: FaceBox | None = None
    for frame_HW3 in frames:
        if followed is None:
            found = detect_faces(frame_HW3)
            followed = max(found, key=lambda face: face.size_px) if found else None
        landmarks = face_landmarks(frame_HW3, followed) if followed is not None else None
        if landmarks is not None and is_face(landmarks):
            followed = box_of(landmarks)
            yield landmarks
        else:
            followed = None
            yield None


def refuse_lost(lost_T: Bool[ndarray, " t"]) -> None:
    """Raises: NoFaceError: no face in more than a tenth of the frames."""
    if lost_T.mean() > LARGEST_LOST_SHARE:
        raise NoFaceError(f"No face was found in {lost_T.sum()} of {len(lost_T)} frames; nothing can be measured.")


def watch(
    frames_THWC: UInt8[ndarray, "t h w 3"],
    rate_hz: float,
    *,
    rest: slice = slice(0, 1),
    head: Head | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Sighting:
    """Follow the largest face through a clip.

    Args:
        frames_THWC: sRGB.
        rest: frames in which the face is at rest: poses, distances and gaze are relative to their mean.
        head: whose proportions are assumed before it is fitted; the one that ships unless given.
        progress: told how many frames of how many are done.
    Raises: NoFaceError: no face in more than a tenth of the frames, or in none of the frames of rest.
    """
    found: list[FaceLandmarks | None] = []
    for landmarks in follow_face(frames_THWC):
        found.append(landmarks)
        if progress is not None:
            progress(len(found), len(frames_THWC))
    lost_T = np.array([landmarks is None for landmarks in found])
    refuse_lost(lost_T)
    seen = np.flatnonzero(~lost_T)
    nearest = seen[np.abs(np.arange(len(found))[:, None] - seen[None]).argmin(1)]
    faces = [each for index in nearest if (each := found[index]) is not None]
    points_TL3 = np.stack([face.points_L3 for face in faces])
    at_rest = points_TL3[rest].mean(0)
    if not len(points_TL3[rest]):
        raise NoFaceError("There is no frame in which the face is at rest.")
    height, width = frames_THWC.shape[1:3]
    pose_T3, distance_T = _poses(points_TL3[..., :2], at_rest[:, :2], (width / 2, height / 2), head or default_head())
    gaze_T2 = np.array([_gaze(face) for face in faces])
    return Sighting(
        points_TL3=points_TL3,
        pose_T3=pose_T3 - pose_T3[rest].mean(0),
        distance_T=distance_T / distance_T[rest].mean(),
        gaze_T2=_in_degrees(gaze_T2 - gaze_T2[rest].mean(0)),
        opening_T=np.array([_opening(face.points_L2) for face in faces]),
        lost_T=lost_T,
        rate_hz=rate_hz,
    )


def _poses(
    points_TL2: ndarray, at_rest_L2: ndarray, centre_xy: tuple[float, float], head: Head
) -> tuple[ndarray, ndarray]:
    """Angles in degrees and distances in metres of the rigid points, by perspective n-point."""
    fit = fit_head(head, at_rest_L2, centre_xy)
    model_P3 = _rigid_model(fit, head, at_rest_L2)
    camera_33 = np.array([[fit.focal_px, 0, centre_xy[0]], [0, fit.focal_px, centre_xy[1]], [0, 0, 1]])
    turn, shift = cv2.Rodrigues(fit.rotation_33)[0], fit.translation_3.reshape(3, 1).copy()
    start = fit.rotation_33
    angles, distances = [], []
    for points_L2 in points_TL2:
        seen_P2 = points_L2[list(_RIGID)].astype(np.float64)
        # from the last frame's pose on: a face moves little within 40 ms
        _, turn, shift = cv2.solvePnP(
            model_P3, seen_P2, camera_33, None, turn, shift, useExtrinsicGuess=True, flags=cv2.SOLVEPNP_ITERATIVE
        )
        # relative to the head's own axes at rest, as the renderer turns it
        angles.append(angles_deg(start.T @ cv2.Rodrigues(turn)[0]))
        distances.append(float(shift[2, 0]))
    return np.array(angles), np.array(distances)


def _rigid_model(fit: HeadFit, head: Head, at_rest_L2: ndarray) -> Float[ndarray, "p 3"]:
    """The rigid points in head axes: exactly where they were seen at rest, as deep as on the fitted head."""
    vertices = head.vertices(fit.identity_K, fit.actions_A)
    depth_L = fit.project(head.at_landmarks(vertices).astype(np.float64))[:, 2]
    return np.ascontiguousarray(fit.unproject(at_rest_L2, depth_L)[list(_RIGID)], np.float64)


def _gaze(face: FaceLandmarks) -> Float[ndarray, " 2"]:
    """Where the irises lie between the corners of the eyes: right, up, in distances from pupil to centre of rotation.

    The eye's own axes are used, so a rolled head does not count.
    """
    offsets = []
    for eye in (face.eye_image_left, face.eye_image_right):
        left, right = eye.upper_92[0], eye.upper_92[-1]
        along = (right - left) / max(float(np.linalg.norm(right - left)), 1e-6)
        across = np.array([along[1], -along[0]])  # up in the picture
        offset = eye.iris_xy - (left + right) / 2
        reach = _PUPIL_REACH_RADII * max(eye.iris_radius_px, 1e-6)
        offsets.append(np.array([offset @ along, offset @ across]) / reach)
    return np.mean(offsets, 0)


def _in_degrees(offset_T2: ndarray) -> ndarray:
    return np.degrees(np.arcsin(np.clip(offset_T2, -0.95, 0.95)))


def _opening(points_L2: ndarray) -> float:
    eyes = ((EYE_RIGHT_UPPER, EYE_RIGHT_LOWER), (EYE_LEFT_UPPER, EYE_LEFT_LOWER))
    return float(
        np.mean(
            [
                np.linalg.norm(points_L2[upper[4]] - points_L2[lower[4]])
                / np.linalg.norm(points_L2[upper[0]] - points_L2[upper[-1]])
                for upper, lower in eyes
            ]
        )
    )
