"""Fit: from the 468 landmarks of a portrait to a posed, expressive head that explains them.

Pure linear algebra on the baked basis. A similarity start, then Levenberg–Marquardt with Huber weights over pose,
identity and the 52 facial actions (kept within 0..1 by freezing what would leave), a prior for what landmarks
cannot tell,
and at the end a smooth field in the picture that brings the landmarks' remaining error to zero.
"""

# L landmark  V vertex  K identity component  A facial action (52)  P parameter

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from jaxtyping import Float
from numpy import ndarray

from generator.actions import ACTION_INDEX, FACIAL_ACTIONS
from generator.head import Head
from generator.perception import CHIN, FOREHEAD_TOP

_FACE_HEIGHT_M: Final = 0.178
_CAMERA_DISTANCE_M: Final = 1.1
_NUM_POSE_STEPS: Final = 8
_NUM_STEPS: Final = 14
_HUBER: Final = 1.2  # in hundredths of the face's height
_IDENTITY_PRIOR: Final = 0.6
_ACTION_PRIOR: Final = 4.0
_HIDDEN_ACTION_PRIOR: Final = 400.0
# Actions that points on the skin cannot tell, or that the picture of an eye tells better.
_HIDDEN: Final = frozenset(
    ["tongueOut", "cheekPuff", "jawForward", "mouthClose", "mouthRollLower", "mouthRollUpper"]
    + [name for name in FACIAL_ACTIONS if name.startswith("eyeLook")]
)
_JAW_APART: Final = 0.6  # opens the mouth of the residual's domain, so that upper and lower lip are apart in it


@dataclass(frozen=True, eq=False)
class HeadFit:
    """A head in front of a pinhole camera.

    Attributes:
        identity_K: coefficients in standard deviations.
        actions_A: the expression that the portrait shows, 0..1.
        rotation_33, translation_3: head axes to camera axes, metres.
        focal_px: focal length.
        centre_xy: principal point in pixels.
        landmark_error: mean distance of projected landmarks, as a fraction of the face's height, before the residual.
        residual_L2: what to add to the projected landmarks to meet the observed ones, in pixels.
    """

    identity_K: Float[ndarray, " k"]
    actions_A: Float[ndarray, " 52"]
    rotation_33: Float[ndarray, "3 3"]
    translation_3: Float[ndarray, " 3"]
    focal_px: float
    centre_xy: Float[ndarray, " 2"]
    landmark_error: float
    residual_L2: Float[ndarray, "468 2"]

    def to_camera(self, points_V3: ndarray) -> ndarray:
        return points_V3 @ self.rotation_33.T + self.translation_3

    def project(self, points_V3: ndarray) -> ndarray:
        """Head points (metres) to (x, y in pixels, z in metres from the camera)."""
        return self.project_camera(self.to_camera(points_V3))

    def project_camera(self, camera_V3: ndarray) -> ndarray:
        xy = camera_V3[..., :2] / camera_V3[..., 2:] * self.focal_px + self.centre_xy
        return np.concatenate([xy, camera_V3[..., 2:]], -1)

    def unproject(self, pixels_V2: ndarray, depth_V: ndarray) -> ndarray:
        """Pixels at given distances from the camera to head points."""
        xy = (pixels_V2 - self.centre_xy) / self.focal_px * depth_V[..., None]
        camera = np.concatenate([xy, depth_V[..., None]], -1)
        return (camera - self.translation_3) @ self.rotation_33

    @property
    def yaw_pitch_roll_deg(self) -> tuple[float, float, float]:
        """Pose: yaw > 0 towards the picture's right, pitch > 0 chin up, roll > 0 clockwise in the picture."""
        return angles_deg(self.rotation_33)

    def scaled(self, factor: float, offset_xy: tuple[float, float] = (0.0, 0.0)) -> HeadFit:
        """The same head in a picture that was cropped at `offset_xy` and then resized by `factor`."""
        return HeadFit(
            self.identity_K,
            self.actions_A,
            self.rotation_33,
            self.translation_3,
            self.focal_px * factor,
            (self.centre_xy - np.asarray(offset_xy)) * factor,
            self.landmark_error,
            self.residual_L2 * factor,
        )


def rotation(yaw_deg: float, pitch_deg: float, roll_deg: float) -> Float[ndarray, "3 3"]:
    """Head rotation in head axes (x right, y down, z away): roll · yaw · pitch, signs as in `yaw_pitch_roll_deg`."""
    yaw, pitch, roll = np.radians([-yaw_deg, pitch_deg, roll_deg])
    cy, sy, cp, sp, cr, sr = np.cos(yaw), np.sin(yaw), np.cos(pitch), np.sin(pitch), np.cos(roll), np.sin(roll)
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_x = np.array([[1, 0, 0], [0, cp, sp], [0, -sp, cp]])
    about_z = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    return about_z @ about_y @ about_x


def angles_deg(rotation_33: ndarray) -> tuple[float, float, float]:
    """Inverse of `rotation`."""
    yaw = np.degrees(np.arcsin(np.clip(rotation_33[2, 0], -1, 1)))
    roll = np.degrees(np.arctan2(rotation_33[1, 0], rotation_33[0, 0]))
    pitch = np.degrees(np.arctan2(-rotation_33[2, 1], rotation_33[2, 2]))
    return float(yaw), float(pitch), float(roll)


def fit_head(head: Head, landmarks_L2: Float[ndarray, "468 2"], centre_xy: tuple[float, float]) -> HeadFit:
    """Explain landmarks by a head.

    Args:
        landmarks_L2: pixels.
        centre_xy: principal point, usually the middle of the uncropped picture.
    """
    target = np.asarray(landmarks_L2, np.float64)
    centre = np.asarray(centre_xy, np.float64)
    mean_L3 = head.at_landmarks(head.mean_V3).astype(np.float64)
    basis_PL3 = np.concatenate([head.at_landmarks(head.identity_KV3), head.at_landmarks(head.actions_AV3)]).astype(
        np.float64
    )
    num_identity = head.num_identity
    face_px = float(np.linalg.norm(target[FOREHEAD_TOP] - target[CHIN]))
    face_px = max(face_px, float(np.linalg.norm(target[33] - target[263])) * 1.2)
    unit_px = face_px / 100.0
    focal = face_px / _FACE_HEIGHT_M * _CAMERA_DISTANCE_M

    rotation_33, translation = _similarity_start(mean_L3, target - centre, head.landmark_trust_L, focal)
    prior_P = np.concatenate([np.full(num_identity, _IDENTITY_PRIOR), np.full(52, _ACTION_PRIOR)])
    for name in _HIDDEN:
        prior_P[num_identity + ACTION_INDEX[name]] = _HIDDEN_ACTION_PRIOR
    shape_P = np.zeros(len(prior_P))
    damping = 1e-2

    def residual(rot: ndarray, tra: ndarray, shape: ndarray) -> tuple[ndarray, ndarray]:
        points = mean_L3 + np.tensordot(shape, basis_PL3, 1)
        camera = points @ rot.T + tra
        return (camera[:, :2] / camera[:, 2:] * focal + centre - target) / unit_px, camera

    def cost(error_L2: ndarray, shape: ndarray) -> float:
        r = np.linalg.norm(error_L2, axis=1)
        huber = np.where(r < _HUBER, r**2, 2 * _HUBER * r - _HUBER**2)
        return float((head.landmark_trust_L * huber).sum() + (prior_P * shape**2).sum())

    error, camera = residual(rotation_33, translation, shape_P)
    current = cost(error, shape_P)
    for step in range(_NUM_POSE_STEPS + _NUM_STEPS):
        with_shape = step >= _NUM_POSE_STEPS
        r = np.linalg.norm(error, axis=1)
        weight_L = head.landmark_trust_L * np.minimum(1.0, _HUBER / np.maximum(r, 1e-9))
        jacobian = _jacobian(camera, translation, focal / unit_px, rotation_33, basis_PL3 if with_shape else None)
        free = np.ones(jacobian.shape[-1], bool)
        prior = np.zeros(jacobian.shape[-1])
        gradient_prior = np.zeros(jacobian.shape[-1])
        if with_shape:
            prior[6:], gradient_prior[6:] = prior_P, prior_P * shape_P
        weighted = jacobian * weight_L[:, None, None]
        gradient = np.einsum("lcp,lc->p", weighted, error) + gradient_prior
        if with_shape:  # actions at a bound that the gradient would push beyond it stay there
            actions = shape_P[num_identity:]
            pushed = gradient[6 + num_identity :]
            free[6 + num_identity :] = ~(((actions <= 0) & (pushed > 0)) | ((actions >= 1) & (pushed < 0)))
        flat, flat_weighted = jacobian.reshape(-1, len(free))[:, free], weighted.reshape(-1, len(free))[:, free]
        normal = flat_weighted.T @ flat + np.diag(prior[free])
        for _ in range(5):
            delta = np.zeros(len(free))
            damped = normal + np.diag(damping * np.diag(normal) + 1e-9)
            delta[free] = -np.linalg.solve(damped, gradient[free])
            new_rotation = cv2.Rodrigues(delta[:3])[0] @ rotation_33
            new_translation = translation + delta[3:6]
            new_shape = shape_P + delta[6:] if with_shape else shape_P
            if with_shape:
                new_shape[num_identity:] = np.clip(new_shape[num_identity:], 0, 1)
            new_error, new_camera = residual(new_rotation, new_translation, new_shape)
            attempt = cost(new_error, new_shape)
            if attempt < current:
                damping = max(damping * 0.3, 1e-6)
                rotation_33, translation, shape_P = new_rotation, new_translation, new_shape
                error, camera, current = new_error, new_camera, attempt
                break
            damping *= 6.0
    seen = head.landmark_trust_L > 0.05
    return HeadFit(
        identity_K=shape_P[:num_identity],
        actions_A=shape_P[num_identity:],
        rotation_33=rotation_33,
        translation_3=translation,
        focal_px=focal,
        centre_xy=centre,
        landmark_error=float(np.linalg.norm(error[seen], axis=1).mean()) / 100.0,
        residual_L2=-error * unit_px,
    )


def _similarity_start(
    points_L3: ndarray, target_L2: ndarray, trust_L: ndarray, focal_px: float
) -> tuple[ndarray, ndarray]:
    """Rotation and translation from the best affine camera, its rows made orthonormal."""
    w = trust_L / trust_L.sum()
    mean_point, mean_target = w @ points_L3, w @ target_L2
    a = (points_L3 - mean_point) * np.sqrt(w)[:, None]
    b = (target_L2 - mean_target) * np.sqrt(w)[:, None]
    affine = np.linalg.lstsq(a, b, rcond=None)[0].T
    u, s, vt = np.linalg.svd(affine, full_matrices=False)
    rows = u @ vt
    matrix = np.vstack([rows, np.cross(rows[0], rows[1])])
    depth = focal_px / float(s.mean())
    in_camera = matrix @ mean_point
    return matrix, np.array([*(mean_target / focal_px * depth), depth]) - in_camera


def _jacobian(
    camera_L3: ndarray, translation: ndarray, focal: float, rotation_33: ndarray, basis_PL3: ndarray | None
) -> ndarray:
    """(L, 2, 6 + P): derivative of the projection by rotation, translation and, if given, the basis."""
    x, y, z = camera_L3.T
    zero = np.zeros_like(z)
    by_point = np.stack(
        [np.stack([focal / z, zero, -focal * x / z**2], -1), np.stack([zero, focal / z, -focal * y / z**2], -1)], 1
    )
    turned = camera_L3 - translation
    cross = np.zeros((len(z), 3, 3))
    cross[:, 0, 1], cross[:, 0, 2] = turned[:, 2], -turned[:, 1]
    cross[:, 1, 0], cross[:, 1, 2] = -turned[:, 2], turned[:, 0]
    cross[:, 2, 0], cross[:, 2, 1] = turned[:, 1], -turned[:, 0]
    columns = [by_point @ cross, by_point]
    if basis_PL3 is not None:
        in_camera = basis_PL3 @ rotation_33.T
        columns.append(np.einsum("lij,plj->lip", by_point, in_camera))
    return np.concatenate(columns, -1)


def residual_field(head: Head, fit: HeadFit) -> Float[ndarray, "v 2"]:
    """Spread the landmarks' residual smoothly over all vertices, in pixels.

    Interpolates with a polyharmonic spline on the mean head with its mouth held open (so that the two lips, which touch
    in the picture, are apart and may move apart), and fades out away from the face.
    """
    open_mouth = (head.mean_V3 + _JAW_APART * head.actions_AV3[ACTION_INDEX["jawOpen"]]).astype(np.float64)
    knots = head.at_landmarks(open_mouth) * np.array([1.0, 1.0, 0.5])
    seen = head.landmark_trust_L > 0.02
    knots, values = knots[seen], fit.residual_L2[seen]
    distance = np.linalg.norm(knots[:, None] - knots[None], axis=2)
    ridge = np.diag(2e-4 + 2e-3 * (1 - head.landmark_trust_L[seen]) ** 2)
    kernel = distance + 0.0
    coefficients = np.linalg.lstsq(
        np.block([[kernel - ridge, np.ones((len(knots), 1))], [np.ones((1, len(knots))), np.zeros((1, 1))]]),
        np.concatenate([values, np.zeros((1, 2))]),
        rcond=None,
    )[0]
    places = open_mouth * np.array([1.0, 1.0, 0.5])
    to_knots = np.linalg.norm(places[:, None] - knots[None], axis=2)
    field = to_knots @ coefficients[:-1] + coefficients[-1]
    near = to_knots.min(1)
    return field * np.exp(-((np.maximum(near - 0.012, 0) / 0.03) ** 2))[:, None]
