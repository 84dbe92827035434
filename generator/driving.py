"""Driving: how a face in a clip moves becomes a movement for another face.

Comes in: what was seen of the driver, frame by frame. Goes out: a `Movement` at 25 Hz, relative to the driver's own
face at rest: the 52 facial actions, the head's turn and distance, the gaze. It holds no picture of the driver, and how
the driver looks cannot be read from it; it is still theirs, and their consent is asked for (see `policy.facts`).

    clip ──► watch (landmarks, gaze, lids) ──► frame of rest ──► head fitted once ──► pose and actions per frame ──►
    smoothed, at 25 Hz, within limits ──► Movement ──► MotionRow, with lips of the clip or of a voice

The fit per frame is a Gauss–Newton step or two from the frame before, with the identity held: Huber weights, a prior
that keeps actions small, and one that keeps them near the last frame's.
"""

# T frame  L landmark  A facial action (52)  P parameter

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from jaxtyping import Float, Float32, UInt8
from numpy import ndarray
from scipy.ndimage import gaussian_filter1d

from generator.actions import ACTION_INDEX, FACIAL_ACTIONS
from generator.behaviour import EYE_LIMITS_DEG, TOTAL_LIMITS_DEG
from generator.controls import LIPS_OF_SPEECH, MotionControls
from generator.errors import DriverFaceError, DrivingTooShortError, MovementError, NoFaceError, SeveralDriversError
from generator.faces import FacesFound, faces_in
from generator.fit import HeadFit, angles_deg, fit_head
from generator.head import Head, default_head
from generator.listening import VIDEO_RATE_HZ
from generator.motion import MotionRow
from generator.perception import FaceBox
from generator.sighting import Sighting, watch

MIN_DRIVER_PX: Final = 64
MIN_DRIVING_S: Final = 0.4
WATCHED_SIDE_PX: Final = 640
"""Frames are shrunk to this before they are looked at: more pixels do not make the movement better."""
NUM_TEMPLATE_FRAMES: Final = 5
_MAGIC: Final = b"placet-movement-1\n"
_NUM_COLUMNS: Final = 52 + 3 + 2 + 1
_MAX_FRAMES: Final = 15_000
_DISTANCE_LIMITS: Final = (0.8, 1.25)
_HUBER: Final = 1.2  # in hundredths of the face's height
_ACTION_PRIOR: Final = 5.0
_STEADY_PRIOR: Final = 10.0
_HIDDEN_PRIOR: Final = 500.0
_NUM_STEPS: Final = 3
_POSE_SMOOTH_S: Final = 0.05
_ACTION_SMOOTH_S: Final = 0.03
_MOOD_SMOOTH_S: Final = 0.5
_EYES_SHUT: Final = 0.35  # opening of a shut eye as a share of an open one, as the landmarks see it
_LEAVE_S: Final = 0.8  # at the end of a movement that is shorter than the speech
# Actions that landmarks cannot tell, and those that are told better by the picture of the eyes.
_HIDDEN: Final = tuple(
    ACTION_INDEX[name]
    for name in FACIAL_ACTIONS
    if name.startswith(("eye", "tongue", "cheekPuff")) or name in ("jawForward", "mouthRollLower", "mouthRollUpper")
)
_LIPS: Final = np.array([name.startswith(("jaw", "mouth", "tongue")) for name in FACIAL_ACTIONS])
_MOOD: Final = tuple(ACTION_INDEX[f"mouth{kind}{side}"] for kind in ("Smile", "Frown") for side in ("Left", "Right"))
_BLINKS: Final = [ACTION_INDEX["eyeBlinkLeft"], ACTION_INDEX["eyeBlinkRight"]]


@dataclass(frozen=True, eq=False)
class Movement:
    """How a face moved, relative to itself at rest, 25 times a second.

    Attributes:
        clip_sha256: of the clip that it was seen in, as uploaded.
        actions_T52: facial actions, 0..1.
        pose_T3: yaw, pitch, roll in degrees, signs as in `MotionTrack`.
        gaze_T2: yaw, pitch of the eyes relative to the head, in degrees.
        distance_T: of the head, as a factor.
    """

    clip_sha256: str
    actions_T52: Float32[ndarray, "t 52"]
    pose_T3: Float32[ndarray, "t 3"]
    gaze_T2: Float32[ndarray, "t 2"]
    distance_T: Float32[ndarray, " t"]

    @property
    def num_frames(self) -> int:
        return len(self.distance_T)

    def to_bytes(self) -> bytes:
        """The one form under which a movement is hashed, permitted and handed on: magic, clip hash, float32 rows."""
        rows = np.concatenate([self.actions_T52, self.pose_T3, self.gaze_T2, self.distance_T[:, None]], 1)
        return _MAGIC + bytes.fromhex(self.clip_sha256) + rows.astype("<f4").tobytes()

    @classmethod
    def from_bytes(cls, data: bytes) -> Movement:
        """Read `to_bytes`'s form. Raises: MovementError: not of that form, or a value outside of its range."""
        start = len(_MAGIC) + 32
        num_frames, rest = divmod(len(data) - start, 4 * _NUM_COLUMNS)
        if not data.startswith(_MAGIC) or rest or not 1 <= num_frames <= _MAX_FRAMES:
            raise MovementError("This is not a recorded movement; send the driving clip again.")
        rows = np.frombuffer(data, "<f4", offset=start).reshape(num_frames, _NUM_COLUMNS).astype(np.float32)
        low, high = _limits()
        if not np.isfinite(rows).all() or (rows < low - 1e-4).any() or (rows > high + 1e-4).any():
            raise MovementError("This movement has values that no face can take; send the driving clip again.")
        clip_sha256 = data[len(_MAGIC) : start].hex()
        return cls(clip_sha256, rows[:, :52], rows[:, 52:55], rows[:, 55:57], rows[:, 57])


def _limits() -> tuple[ndarray, ndarray]:
    """Lowest and highest value of each column."""
    angles = np.array([*TOTAL_LIMITS_DEG, *EYE_LIMITS_DEG])
    low = np.concatenate([np.zeros(52), -angles, _DISTANCE_LIMITS[:1]])
    return low, np.concatenate([np.ones(52), angles, _DISTANCE_LIMITS[1:]])


# ---- who moves -------------------------------------------------------------------------------------------------------


def drivers_in(
    frames_THWC: UInt8[ndarray, "t h w 3"],
) -> list[tuple[UInt8[ndarray, "h w 3"], FaceBox, tuple[FaceBox, ...]]]:
    """The driver's face in a few frames spread over a clip, and who else is in them.

    Returns: frame, face, other faces.
    Raises: DriverFaceError: no face, or too small a one. SeveralDriversError.
    """
    found = []
    for index in np.unique(np.linspace(0, len(frames_THWC) - 1, NUM_TEMPLATE_FRAMES).round().astype(int)):
        faces: FacesFound = faces_in(frames_THWC[index])
        if len(faces.counted) > 1:
            raise SeveralDriversError(len(faces.counted))
        if not faces.counted:
            raise DriverFaceError("No face is seen all through the driving clip; send one that shows it throughout.")
        (face,) = faces.counted
        if face.size_px < MIN_DRIVER_PX:
            raise DriverFaceError(
                f"The face in the driving clip is {face.size_px:.0f} pixels tall when the clip is shrunk to "
                f"{WATCHED_SIDE_PX}; at least {MIN_DRIVER_PX} are needed. Please crop the clip around it."
            )
        found.append((frames_THWC[index], face, faces.beside(face)))
    return found


# ---- how they move ---------------------------------------------------------------------------------------------------


def track_movement(
    frames_THWC: UInt8[ndarray, "t h w 3"],
    times_T: Float[ndarray, " t"],
    clip: bytes,
    *,
    head: Head | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Movement:
    """Follow the one face of a clip.

    Args:
        frames_THWC: sRGB, shrunk to about `WATCHED_SIDE_PX`.
        times_T: when each shows, in seconds.
        clip: the file itself, for its hash.
        head: the head model; the one that ships unless given.
    Raises: DrivingTooShortError; DriverFaceError: the face is lost in more than a tenth of the frames.
    """
    if len(frames_THWC) < 3 or float(times_T[-1] - times_T[0]) < MIN_DRIVING_S:
        raise DrivingTooShortError(f"The driving clip is too short; send at least {MIN_DRIVING_S:g} seconds.")
    rate_hz = (len(times_T) - 1) / float(times_T[-1] - times_T[0])
    try:
        seen = watch(frames_THWC, rate_hz, head=head, progress=progress)
    except NoFaceError as exc:
        raise DriverFaceError(f"The driver's face is not seen well enough. {exc}") from exc
    centre = (frames_THWC.shape[2] / 2, frames_THWC.shape[1] / 2)
    return movement_of(seen, times_T - times_T[0], centre, hashlib.sha256(clip).hexdigest(), head or default_head())


def movement_of(
    seen: Sighting, times_T: Float[ndarray, " t"], centre_xy: tuple[float, float], clip_sha256: str, head: Head
) -> Movement:
    """What was seen of a face, as a movement relative to its frame of rest. Pure."""
    rest = frame_of_rest(seen)
    fit = fit_head(head, seen.points_TL3[rest, :, :2], centre_xy)
    actions_T52, pose_T3, distance_T = _follow(head, fit, seen.points_TL3[..., :2], rest)
    # the eyes, as their own picture tells
    open_eye = max(float(np.percentile(seen.opening_T, 80)), 1e-6)
    blink_T = np.clip((1.0 - seen.opening_T / open_eye) / (1.0 - _EYES_SHUT), 0.0, 1.0)
    blink_T = np.clip((blink_T - 0.25) / 0.65, 0.0, 1.0)  # lids that follow the gaze are not blinks
    gaze_T2 = seen.gaze_T2 - np.median(seen.gaze_T2, 0)

    def at_25_hz(values: ndarray, smooth_s: float) -> ndarray:
        if smooth_s:
            values = gaussian_filter1d(values, smooth_s * seen.rate_hz, axis=0, mode="nearest")
        at_s = np.arange(max(1, math.ceil(float(times_T[-1]) * VIDEO_RATE_HZ + 1e-6))) / VIDEO_RATE_HZ
        columns = values.reshape(len(values), -1).T
        return np.stack([np.interp(at_s, times_T, column) for column in columns], 1)

    actions = at_25_hz(np.clip(actions_T52 - actions_T52[rest], 0.0, 1.0), _ACTION_SMOOTH_S)
    actions[:, _BLINKS] = at_25_hz(blink_T, 0.0)
    limits_3, eyes_2 = np.array(TOTAL_LIMITS_DEG), np.array(EYE_LIMITS_DEG)
    pose = limits_3 * np.tanh(at_25_hz(pose_T3, _POSE_SMOOTH_S) / limits_3)
    rows = np.concatenate(
        [
            actions,
            pose,
            eyes_2 * np.tanh(at_25_hz(gaze_T2, 0.0) / eyes_2),
            np.clip(at_25_hz(distance_T, _POSE_SMOOTH_S), *_DISTANCE_LIMITS),
        ],
        1,
    )
    rows = np.clip(rows, *_limits()).astype(np.float32)
    return Movement(clip_sha256, rows[:, :52], rows[:, 52:55], rows[:, 55:57], rows[:, 57])


def frame_of_rest(seen: Sighting) -> int:
    """The frame in which the face does least: lips together, eyes open, head where it mostly is."""
    aperture, pose = seen.aperture_T, seen.pose_T3 - np.median(seen.pose_T3, 0)
    width = np.abs(seen.mouth_width_T / np.median(seen.mouth_width_T) - 1.0)
    brows = np.abs(seen.brow_height_T / np.median(seen.brow_height_T) - 1.0)
    shut = np.clip(1.0 - seen.opening_T / max(float(np.percentile(seen.opening_T, 80)), 1e-6), 0.0, 1.0)
    effort = aperture / 0.1 + np.linalg.norm(pose, axis=1) / 10.0 + 4.0 * width + 2.0 * brows + 3.0 * shut
    return int(np.argmin(np.where(seen.lost_T, np.inf, effort)))


def _follow(head: Head, fit: HeadFit, points_TL2: ndarray, rest: int) -> tuple[ndarray, ndarray, ndarray]:
    """Actions, pose relative to `fit` and distance per frame, from the frame of rest outwards to both ends."""
    identity_V3 = head.mean_V3 + np.tensordot(fit.identity_K, head.identity_KV3, 1)
    still_L3 = head.at_landmarks(identity_V3.astype(np.float32)).astype(np.float64)
    basis_AL3 = head.at_landmarks(head.actions_AV3).astype(np.float64)
    face_px = float(np.ptp(points_TL2[rest, :, 1]))
    unit_px = face_px / 100.0
    prior_A = np.full(52, _ACTION_PRIOR)
    prior_A[list(_HIDDEN)] = _HIDDEN_PRIOR
    num_frames = len(points_TL2)
    actions_T52, pose_T3, distance_T = np.zeros((num_frames, 52)), np.zeros((num_frames, 3)), np.ones(num_frames)
    for frames in (range(rest, num_frames), range(rest - 1, -1, -1)):
        rotation, translation, actions = fit.rotation_33, fit.translation_3.copy(), fit.actions_A.copy()
        for index in frames:
            before = actions
            for _ in range(_NUM_STEPS):
                turned_L3 = (still_L3 + np.tensordot(actions, basis_AL3, 1)) @ rotation.T
                camera = turned_L3 + translation
                size = fit.translation_3[2] / translation[2]
                projected = camera[:, :2] / camera[:, 2:] * fit.focal_px + fit.centre_xy + fit.residual_L2 * size
                error_L2 = (projected - points_TL2[index]) / unit_px
                weight_L = head.landmark_trust_L * np.minimum(
                    1.0, _HUBER / np.maximum(np.linalg.norm(error_L2, axis=1), 1e-9)
                )
                jacobian_L2P = _jacobian(camera, turned_L3, fit.focal_px / unit_px, basis_AL3 @ rotation.T)
                weighted = (jacobian_L2P * weight_L[:, None, None]).reshape(-1, 58)
                normal = weighted.T @ jacobian_L2P.reshape(-1, 58)
                gradient = weighted.T @ error_L2.reshape(-1)
                prior = np.concatenate([np.zeros(6), prior_A + _STEADY_PRIOR])
                pull = np.concatenate([np.zeros(6), prior_A * actions + _STEADY_PRIOR * (actions - before)])
                step = np.linalg.solve(normal + np.diag(prior + 1e-6 * np.diag(normal)), -(gradient + pull))
                rotation = cv2.Rodrigues(step[:3])[0] @ rotation
                translation = translation + step[3:6]
                actions = np.clip(actions + step[6:], 0.0, 1.0)
            actions_T52[index] = actions
            pose_T3[index] = angles_deg(fit.rotation_33.T @ rotation)
            distance_T[index] = translation[2] / fit.translation_3[2]
    return actions_T52, pose_T3, distance_T


def _jacobian(camera_L3: ndarray, turned_L3: ndarray, focal: float, basis_AL3: ndarray) -> Float[ndarray, "l 2 58"]:
    """Derivative of the projection by a turn about the head's origin, a shift, and the 52 actions."""
    x, y, z = camera_L3.T
    zero = np.zeros_like(z)
    by_point = np.stack(
        [np.stack([focal / z, zero, -focal * x / z**2], -1), np.stack([zero, focal / z, -focal * y / z**2], -1)], 1
    )
    turn_L33 = np.zeros((len(z), 3, 3))
    turn_L33[:, 0, 1], turn_L33[:, 0, 2] = turned_L3[:, 2], -turned_L3[:, 1]
    turn_L33[:, 1, 0], turn_L33[:, 1, 2] = -turned_L3[:, 2], turned_L3[:, 0]
    turn_L33[:, 2, 0], turn_L33[:, 2, 1] = turned_L3[:, 1], -turned_L3[:, 0]
    by_action = np.matmul(by_point, basis_AL3.transpose(1, 2, 0))
    return np.concatenate([by_point @ turn_L33, by_point, by_action], -1)


# ---- moving another face ---------------------------------------------------------------------------------------------


def driven_rows(planned: Iterator[MotionRow], movement: Movement, controls: MotionControls) -> Iterator[MotionRow]:
    """The rows of a movement, one for each row that was planned from the speech.

    Of a plan only the lips are taken, where `controls.driving` says so; smiles are still the driver's. Gaze, pose and
    distance that were asked for are added, and `intensity` scales the expression. Where the movement ends before the
    speech does, the face comes to rest.

    Args:
        planned: what `MotionModel.rows` makes of the same speech and controls.
    """
    mood_TA = gaussian_filter1d(
        movement.actions_T52[:, list(_MOOD)], _MOOD_SMOOTH_S * VIDEO_RATE_HZ, axis=0, mode="nearest"
    )
    num_leaving = round(_LEAVE_S * VIDEO_RATE_HZ)
    last = movement.num_frames - 1
    for index, plan in enumerate(planned):
        at = min(index, last)
        stays = float(np.clip(1.0 - (index - last) / num_leaving, 0.0, 1.0))
        time_1 = np.array([index / VIDEO_RATE_HZ])
        intensity = float(controls.intensity.at(time_1)[0, 0])
        actions = movement.actions_T52[at].astype(np.float64)
        actions[_BLINKS] /= max(intensity, 1e-6)  # eyes that are shut are shut
        actions *= intensity * stays
        if controls.driving == LIPS_OF_SPEECH:
            actions[_LIPS] = plan.actions_52[_LIPS]
            smiling = mood_TA[at] * intensity * stays
            actions[list(_MOOD)] = np.maximum(actions[list(_MOOD)], smiling)
        pose = movement.pose_T3[at] * stays + controls.head_pose.at(time_1)[0]
        gaze = movement.gaze_T2[at] * stays + controls.gaze.at(time_1)[0]
        distance = 1.0 + (float(movement.distance_T[at]) - 1.0) * stays
        yield MotionRow(
            np.clip(actions, 0.0, 1.0).astype(np.float32),
            np.concatenate([np.clip(pose, -np.array(TOTAL_LIMITS_DEG), TOTAL_LIMITS_DEG), np.zeros(3)]).astype(
                np.float32
            ),
            np.clip(gaze, -np.array(EYE_LIMITS_DEG), EYE_LIMITS_DEG).astype(np.float32),
            float(np.clip(distance * controls.head_distance.at(time_1)[0, 0], *_DISTANCE_LIMITS)),
        )
