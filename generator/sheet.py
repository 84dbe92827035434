"""Sheet: the portrait as one watertight surface that head pose and facial actions move.

A regular grid over the crop takes its depth and its facial-action fields from the fitted head and continues smoothly
into hair, neck and background; around the mouth the head's own rings of vertices replace it, cut open along the line
where the lips touch. Because it is a single surface there is no seam between face and surroundings; because every
vertex is anchored at a photo pixel, a motion of zero gives the photo back exactly.
"""

# S side of the crop  V vertex of the sheet  A facial action (52)  C column of the lip line

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from jaxtyping import Bool, Float32, Int32
from numpy import ndarray
from scipy.spatial import Delaunay

from generator.actions import ACTION_INDEX, FACIAL_ACTIONS
from generator.fit import HeadFit, residual_field
from generator.head import CONTACT_LOOP, NUM_LIP_COLUMNS, Head
from generator.matte import fill_smoothly
from generator.perception import CHIN, FACE_OVAL
from generator.portrait import Stage
from generator.raster import identify

_CELLS: Final = 104
_YIELD_CELLS: Final = 4.5
_NUM_MOUTH_LOOPS: Final = 11
_NECK_CENTRE_BELOW_CHIN_M: Final = 0.058
_NECK_SOFTNESS_M: Final = 0.013
_PIVOT_Y_ABOVE_CHIN_M: Final = 0.012
_PIVOT_Z: Final = 0.55  # of the way from the face's front to the back of the head
_SHOULDER_FROM_M, _SHOULDER_FALL_M = 0.095, 0.045
_BOTTOM_FADE: Final = 0.13
_HELD: Final = 0.14
_BORDER: Final = 0.07
_MARGIN_BORDER: Final = 0.045  # in the margin, out of sight: the surface's own edge never comes into the frame
# How the lips meet: the lower lip, with the jaw, does most of the way.
_LOWER_SHARE: Final = 0.72
_UPPER_PLATEAU_M, _UPPER_FALL_M = 0.008, 0.008
_LOWER_PLATEAU_M, _LOWER_FALL_M = 0.012, 0.016
_PRESS_M: Final = 0.0008
_LARGEST_TURN_GAIN: Final = 1.5
# The head's brows rise by 3 to 5 mm at most; a person's by twice that.
_BROW_GAIN: Final = 1.7
_EDGE_LOOPS: Final = np.array([-3, -2, -1, 0]) * NUM_LIP_COLUMNS  # any of these rings may be a lip's visible edge
_LID_ACTIONS: Final = tuple(n for n in FACIAL_ACTIONS if n.startswith(("eyeBlink", "eyeLook", "eyeWide", "eyeSquint")))
_RAISING_ACTIONS: Final = ("browInnerUp", "browOuterUpLeft", "browOuterUpRight")
_STILL_ACTIONS: Final = tuple(n for n in FACIAL_ACTIONS if n.startswith(("eyeBlink", "eyeLook")))


@dataclass(frozen=True, eq=False)
class HeadPose:
    """Where the head is, relative to the photo.

    Attributes:
        rotation_33: about the pivot in the neck, in head axes.
        offset_m: in head axes, metres.
        distance: from the camera, as a factor of the photo's; the head keeps its place in the picture.
    """

    rotation_33: Float32[ndarray, "3 3"]
    offset_m: Float32[ndarray, " 3"]
    distance: float = 1.0


@dataclass(frozen=True, eq=False)
class Sheet:
    """The surface of one portrait at one size.

    Attributes:
        rest_V3: vertices in head axes (metres), as the photo shows them.
        source_V2: where in the crop each vertex takes its colour, in pixels.
        faces_F3: triangles.
        fields_AV3: displacement per facial action.
        head_share_V: 0..1, how much of the head's motion the vertex follows.
        lean_share_V: 0..1, how much of a change of the head's distance it follows: the body leans along.
        border_V: 0..1, fades all motion out at the crop's edge.
        shade_V: brightness of the vertex, below one inside the lips.
        rest_pixels_V2: projection of `rest_V3`.
        lip_upper_C, lip_lower_C2: vertex of each lip-line column on the upper lip; the two vertices beside the same
            place on the lower lip.
        lip_lower_weight_C2: their weights.
        lip_effect_VC: how much each vertex moves down per metre of gap added at each column.
        lip_model_gap_AC: gap that each facial action opens on this head, in metres.
        turn_gain: what yaw and pitch are multiplied by, so that the landmarks turn by what is asked.
    """

    fit: HeadFit
    size_px: int
    rest_V3: Float32[ndarray, "v 3"]
    source_V2: Float32[ndarray, "v 2"]
    faces_F3: Int32[ndarray, "f 3"]
    fields_AV3: Float32[ndarray, "52 v 3"]
    head_share_V: Float32[ndarray, " v"]
    lean_share_V: Float32[ndarray, " v"]
    border_V: Float32[ndarray, " v"]
    shade_V: Float32[ndarray, " v"]
    rest_pixels_V2: Float32[ndarray, "v 2"]
    lip_upper_C: Int32[ndarray, " c"]
    lip_lower_C2: Int32[ndarray, "c 2"]
    lip_lower_weight_C2: Float32[ndarray, "c 2"]
    lip_effect_VC: Float32[ndarray, "v c"]
    lip_effect_rows: Int32[ndarray, " r"]
    lip_model_gap_AC: Float32[ndarray, "52 c"]
    pivot_3: Float32[ndarray, " 3"]
    head_height_m: float
    mouth_start: int
    rest_gap_m: float
    turn_gain: float = 1.0

    def shaped(self, change_A: ndarray, speech_A: ndarray) -> Float32[ndarray, "v 3"]:
        """Vertices after facial actions, before the head moves, with lips that meet exactly.

        Args:
            change_A: actions minus those that the photo shows.
            speech_A: the actions that decide how far the lips are apart.
        """
        points = self.rest_V3 + (change_A.astype(np.float32) @ self.fields_AV3.reshape(52, -1)).reshape(-1, 3)
        upper = points[self.lip_upper_C[:, None] + _EDGE_LOOPS, 1].max(1)
        beside = points[self.lip_lower_C2[..., None] + _EDGE_LOOPS, 1].min(2)
        lower = (beside * self.lip_lower_weight_C2).sum(1)
        wanted = speech_A.astype(np.float32) @ self.lip_model_gap_AC
        wanted = _rounded(np.maximum(wanted, 0))
        wanted = np.where(wanted < _PRESS_M, -_PRESS_M, wanted)
        wanted[[0, -1]] = 0.0
        correction = wanted - (lower - upper)
        points[self.lip_effect_rows, 1] += self.lip_effect_VC @ correction
        return points

    def posed(self, shaped_V3: ndarray, pose: HeadPose) -> Float32[ndarray, "v 3"]:
        """Project to (x, y pixels, z metres) after the head has moved."""
        moved = (shaped_V3 - self.pivot_3) @ self._turned(pose).T + self.pivot_3 + pose.offset_m
        share = self.head_share_V[:, None]
        camera = self.fit.to_camera(shaped_V3 + (moved - shaped_V3) * share)
        if pose.distance != 1.0:
            camera = camera + self.lean_share_V[:, None] * self._further(pose.distance)
        out = self.fit.project_camera(camera).astype(np.float32)
        out[:, :2] = self.rest_pixels_V2 + (out[:, :2] - self.rest_pixels_V2) * self.border_V[:, None]
        return out

    def _turned(self, pose: HeadPose) -> Float32[ndarray, "3 3"]:
        """The rotation that makes this surface look turned as asked: it is flatter than the head it stands for."""
        vector_3 = cv2.Rodrigues(pose.rotation_33.astype(np.float64))[0].ravel() * (self.turn_gain, self.turn_gain, 1.0)
        return cv2.Rodrigues(vector_3)[0].astype(np.float32)

    def _further(self, distance: float) -> Float32[ndarray, " 3"]:
        """Translation in camera axes that brings the head there without moving its place in the picture."""
        return (self.fit.to_camera(self.pivot_3[None])[0] * (distance - 1.0)).astype(np.float32)

    def rigid(self, points_V3: ndarray, pose: HeadPose) -> Float32[ndarray, "v 3"]:
        """Project points that belong to the skull."""
        moved = (points_V3 - self.pivot_3) @ self._turned(pose).T + self.pivot_3 + pose.offset_m
        return self.fit.project_camera(self.fit.to_camera(moved) + self._further(pose.distance)).astype(np.float32)


def _rounded(gap_C: ndarray) -> ndarray:
    """An opening without spikes: smoothed along the lips; a closed mouth stays closed."""
    kernel = np.array([0.06, 0.24, 0.4, 0.24, 0.06], np.float32)
    return np.convolve(np.pad(gap_C, 2), kernel, "valid")


def build_sheet(
    head: Head,
    stage: Stage,
    eye_openings_SS: Float32[ndarray, "s s"],
    rigid_SS: Float32[ndarray, "s s"] | None = None,
) -> Sheet:
    """Make the surface of a portrait.

    Args:
        eye_openings_SS: 0..1, soft mask of both eye openings; facial actions do not move what lies inside.
        rigid_SS: 0..1, what facial actions leave as it is: spectacles.
    """
    fit, matte, size_px = stage.fit, stage.matte, stage.side_px
    vertices = head.vertices(fit.identity_K, fit.actions_A)
    projected = fit.project(vertices)
    projected[:, :2] += residual_field(head, fit)
    faces = np.concatenate([head.skin_F3, head.eye_F3])
    depth, face, weight = identify(projected.astype(np.float32), faces, size_px, size_px)
    hit = face >= 0
    on_skin = hit & (face < len(head.skin_F3))

    # (1) grid positions and the map pixels they look at
    axis = np.linspace(0, size_px, _CELLS + 1)
    grid_x, grid_y = (a.ravel() for a in np.meshgrid(axis, axis))
    column, row = (np.clip(v.astype(int), 0, size_px - 1) for v in (grid_x, grid_y))
    shape = (_CELLS + 1, _CELLS + 1)

    # (2) depth: the mesh where it is seen, continued smoothly outside
    grid_depth = _grid_depth(depth, hit, shape)

    # (3) facial actions: from the skin, filled in under the eyeballs and outside, where they fade
    grid_hit = on_skin[row, column].reshape(shape)
    triangle = faces[np.maximum(face[row, column], 0)]
    bary = weight[row, column] * grid_hit.reshape(-1, 1)
    fields = np.stack([np.einsum("nw,nwc->nc", bary, field[triangle]) for field in head.actions_AV3])
    fields[[ACTION_INDEX[n] for n in _STILL_ACTIONS]] = 0.0
    fields[[ACTION_INDEX[n] for n in _RAISING_ACTIONS]] *= _BROW_GAIN
    fields = _filled(fields.reshape(52, *shape, 3), grid_hit)
    oval = head.at_landmarks(projected)[list(FACE_OVAL), :2] * ((_CELLS + 1) / size_px)
    fields = _yielding_outside(fields, oval)
    outside_px = cv2.distanceTransform((~hit).astype(np.uint8), cv2.DIST_L2, 5)[row, column]
    fade = np.exp(-((outside_px / (0.035 * size_px)) ** 2))
    eyes = eye_openings_SS[row, column]
    fields = fields.reshape(52, -1, 3) * (fade * (1 - eyes))[:, None]
    around_eyes = np.clip(cv2.GaussianBlur(eye_openings_SS, (0, 0), 0.012 * size_px) * 3.0, 0, 1)[row, column]
    for name in _LID_ACTIONS:
        fields[ACTION_INDEX[name]] *= (1 - around_eyes)[:, None]
    if rigid_SS is not None:
        fields *= (1 - rigid_SS[row, column])[:, None]
    canonical = np.einsum("nw,nwc->nc", bary, head.mean_V3[triangle])
    canonical[~grid_hit.ravel()] = 9.0

    # (4) the head's rings around the mouth take over inside their outermost ring
    loops = head.lip_loops_JC[:_NUM_MOUTH_LOOPS]
    ring_pixels = projected[loops, :2]
    outer = ring_pixels[0].astype(np.float32)
    spacing = float(np.linalg.norm(np.diff(outer, axis=0), axis=1).max())
    places = zip(grid_x.tolist(), grid_y.tolist(), strict=True)
    signed = np.array([cv2.pointPolygonTest(outer, place, True) for place in places])
    kept = signed < -0.55 * spacing
    kept |= (signed < 0) & (np.abs(signed) > size_px / _CELLS)
    grid_points = np.stack([grid_x, grid_y], 1)[kept]
    num_grid = len(grid_points)
    triangles = Delaunay(np.concatenate([grid_points, outer])).simplices
    centre = np.concatenate([grid_points, outer])[triangles].mean(1)
    inside = np.array([cv2.pointPolygonTest(outer, (float(x), float(y)), False) > 0 for x, y in centre])
    next_column = np.roll(np.arange(NUM_LIP_COLUMNS), -1)
    rings = []
    for k in range(_NUM_MOUTH_LOOPS - 1):
        a = num_grid + k * NUM_LIP_COLUMNS + np.arange(NUM_LIP_COLUMNS)
        b = num_grid + k * NUM_LIP_COLUMNS + next_column
        c, d = a + NUM_LIP_COLUMNS, b + NUM_LIP_COLUMNS
        rings += [np.stack([a, b, c], 1), np.stack([b, d, c], 1)]
    all_faces = np.concatenate([triangles[~inside], *rings]).astype(np.int32)

    mouth_fields = head.actions_AV3[:, loops.ravel()].copy()
    mouth_fields[[ACTION_INDEX[n] for n in _LID_ACTIONS]] = 0.0
    half = NUM_LIP_COLUMNS // 2
    parted_px = float(np.linalg.norm(ring_pixels[CONTACT_LOOP, 0] - ring_pixels[CONTACT_LOOP, half]))
    source = np.concatenate([grid_points, _lip_sources(ring_pixels, parted_px / size_px).reshape(-1, 2)])
    pixels = np.concatenate([grid_points, ring_pixels.reshape(-1, 2)])
    depths = np.concatenate([grid_depth.ravel()[kept], projected[loops.ravel(), 2]])
    rest = fit.unproject(pixels, depths)
    num_mouth = loops.size

    # (5) what moves with the head
    chin_y = float((head.landmark_weight_L3[CHIN] @ vertices[head.landmark_V_L3[CHIN]])[1])
    skin = vertices[np.unique(head.skin_F3)]
    top_y, front_z, back_z = float(skin[:, 1].min()), float(skin[:, 2].min()), float(skin[:, 2].max())
    person = (hit | (matte.alpha_HW > 0.5)) if matte.is_reliable else hit
    beyond_px = cv2.distanceTransform((~person).astype(np.uint8), cv2.DIST_L2, 5)[row, column][kept]
    reach = 0.10 if matte.is_reliable else 0.16
    neck = 1 / (
        1 + np.exp(np.clip((rest[:num_grid, 1] - chin_y - _NECK_CENTRE_BELOW_CHIN_M) / _NECK_SOFTNESS_M, -50, 50))
    )
    aside = np.exp(-((np.maximum(np.abs(rest[:num_grid, 0]) - _SHOULDER_FROM_M, 0) / _SHOULDER_FALL_M) ** 2))
    low = np.clip((rest[:num_grid, 1] - chin_y + 0.03) / 0.06, 0, 1)
    share = neck * np.exp(-((beyond_px / (reach * size_px)) ** 2)) * (1 - low * (1 - aside))
    above_bottom = (stage.photo_box_px[3] - pixels[:num_grid, 1]) / (_BOTTOM_FADE * size_px)
    share *= _eased(np.clip(above_bottom + np.clip((chin_y - rest[:num_grid, 1]) / 0.02, 0, 2), 0, 1))
    chin_px = float(fit.project(np.array([[0.0, chin_y, front_z]]))[0, 1])
    lean = _eased(np.clip((stage.photo_box_px[3] - pixels[:num_grid, 1]) / (stage.photo_box_px[3] - chin_px), 0, 1))
    lean *= np.exp(-((beyond_px / (reach * size_px)) ** 2))
    held = _held_by_edges(stage)[row, column][kept]
    share = np.concatenate([share * held, np.ones(num_mouth)])
    lean = np.concatenate([lean * held, np.ones(num_mouth)])
    edge_px = np.minimum.reduce([pixels[:, 0], pixels[:, 1], size_px - pixels[:, 0], size_px - pixels[:, 1]])
    t = np.clip(edge_px / ((_BORDER if stage.margin_px == 0 else _MARGIN_BORDER) * size_px), 0, 1)

    canonical_all = np.concatenate([canonical[kept], head.mean_V3[loops.ravel()]])
    lips = _lip_columns(head.mean_V3[loops[CONTACT_LOOP]], num_grid + CONTACT_LOOP * NUM_LIP_COLUMNS)
    effect = _lip_effect(canonical_all, head.mean_V3[loops[CONTACT_LOOP]], num_grid)
    rows = np.flatnonzero(np.abs(effect).sum(1) > 1e-4)
    action_y = head.actions_AV3[:, loops[CONTACT_LOOP], 1]
    local = num_grid + CONTACT_LOOP * NUM_LIP_COLUMNS
    model_gap = (action_y[:, lips[1] - local] * lips[2]).sum(2) - action_y[:, lips[0] - local]
    shade = np.ones(len(rest))
    shade[num_grid:] = np.repeat(np.interp(np.arange(_NUM_MOUTH_LOOPS), [6, 8, 9, 10], [1.0, 0.9, 0.55, 0.25]), 38)
    upper_y = rest[lips[0], 1]
    lower_y = (rest[lips[1], 1] * lips[2]).sum(1)
    f32 = np.float32
    return Sheet(
        fit=fit,
        size_px=size_px,
        rest_V3=rest.astype(f32),
        source_V2=source.astype(f32),
        faces_F3=all_faces,
        fields_AV3=np.concatenate([fields[:, kept], mouth_fields], 1).astype(f32),
        head_share_V=share.astype(f32),
        lean_share_V=lean.astype(f32),
        border_V=_eased(t).astype(f32),
        shade_V=shade.astype(f32),
        rest_pixels_V2=pixels.astype(f32),
        lip_upper_C=lips[0].astype(np.int32),
        lip_lower_C2=lips[1].astype(np.int32),
        lip_lower_weight_C2=lips[2].astype(f32),
        lip_effect_VC=effect[rows].astype(f32),
        lip_effect_rows=rows.astype(np.int32),
        lip_model_gap_AC=model_gap.astype(f32),
        pivot_3=np.array([0.0, chin_y - _PIVOT_Y_ABOVE_CHIN_M, front_z + _PIVOT_Z * (back_z - front_z)], f32),
        head_height_m=chin_y - top_y,
        mouth_start=num_grid,
        rest_gap_m=float((lower_y - upper_y)[len(upper_y) // 2 - 3 : len(upper_y) // 2 + 4].mean()),
        turn_gain=_turn_gain(head.at_landmarks(projected), grid_depth, size_px, head.landmark_trust_L),
    )


def _eased(t: ndarray) -> ndarray:
    return t * t * (3 - 2 * t)


def _held_by_edges(stage: Stage) -> Float32[ndarray, "s s"]:
    """0 where the person is cut off by the photo's left or right edge, rising to 1 away from it.

    What lies beyond is not known, so there the surface stretches instead of coming into the picture.
    """
    left, top, right, bottom = stage.photo_box_px
    side = stage.side_px
    free: ndarray = np.ones((side, side), np.uint8)
    cut = (stage.matte.alpha_HW > 0.5) if stage.matte.is_reliable else np.zeros((side, side), bool)
    last = side - 1
    for edge, inner in ((left, left + 1), (right, right - 2)):
        if 0 < edge < side:
            free[top:bottom, min(edge, last)] = ~cut[top:bottom, inner]
    if free.all():
        return np.ones((side, side), np.float32)
    distance = cv2.distanceTransform(free, cv2.DIST_L2, 5)
    return _eased(np.clip(distance / (_HELD * side), 0, 1)).astype(np.float32)


def _grid_depth(depth_SS: ndarray, hit_SS: Bool[ndarray, "s s"], shape: tuple[int, int]) -> ndarray:
    """Depth at the grid's corners: near the mesh's own inside it, ever smoother outside."""
    size = shape[::-1]
    known = cv2.erode(hit_SS.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(np.float32)
    value = np.where(hit_SS, depth_SS, 0).astype(np.float32)
    small_known = cv2.resize(known, size, interpolation=cv2.INTER_AREA)
    small = cv2.resize(value * known, size, interpolation=cv2.INTER_AREA) / np.maximum(small_known, 1e-6)
    filled = fill_smoothly(small[..., None], (small_known > 0.5).astype(np.float32))[..., 0]
    smooth = cv2.GaussianBlur(filled, (0, 0), 7)
    inside = cv2.GaussianBlur(cv2.erode((small_known > 0.5).astype(np.float32), np.ones((3, 3))), (0, 0), 2.0)
    return cv2.GaussianBlur(filled, (0, 0), 1.0) * inside + smooth * (1 - inside)


def _turn_gain(
    landmarks_L3: ndarray, grid_depth_GG: Float32[ndarray, "g g"], size_px: int, trust_L: Float32[ndarray, " 468"]
) -> float:
    """How much further than asked the surface must turn to look turned as asked.

    What tells a turn is how far points of different depth move against each other; on the surface, whose border is
    smoothed into hair and background, depths differ less than on the head.

    Args:
        landmarks_L3: of the fitted head: pixels, and metres from the camera.
    """
    places = (landmarks_L3[:, :2] * (_CELLS / size_px)).astype(np.float32)
    found = cv2.remap(grid_depth_GG, places[None, :, 0], places[None, :, 1], cv2.INTER_LINEAR)[0]
    on_head = landmarks_L3[:, 2] - np.average(landmarks_L3[:, 2], weights=trust_L)
    on_sheet = found - np.average(found, weights=trust_L)
    flatness = float((trust_L * on_head * on_sheet).sum() / (trust_L * on_head**2).sum())
    return float(np.clip(1.0 / max(flatness, 1e-3), 1.0, _LARGEST_TURN_GAIN))


def _yielding_outside(fields_AHW3: ndarray, oval_N2: ndarray) -> ndarray:
    """Let the skin around the face give way over a distance: a dropping chin compresses the neck and does not cut."""
    inside: ndarray = np.zeros(fields_AHW3.shape[1:3], np.float32)
    cv2.fillPoly(inside, [np.round(oval_N2).astype(np.int32)], 1.0)
    inside = cv2.GaussianBlur(inside, (0, 0), 1.0)[..., None]
    out = np.empty_like(fields_AHW3)
    for index, field in enumerate(fields_AHW3):
        if not np.abs(field).max() > 0:
            out[index] = field
            continue
        out[index] = field * inside + cv2.GaussianBlur(field, (0, 0), _YIELD_CELLS) * (1 - inside)
    return out


def _filled(fields_AHW3: ndarray, known_HW: ndarray) -> ndarray:
    out = np.empty_like(fields_AHW3)
    known = known_HW.astype(np.float32)
    for index, field in enumerate(fields_AHW3):
        if not np.abs(field).max() > 0:
            out[index] = 0
            continue
        out[index] = cv2.GaussianBlur(fill_smoothly(field.astype(np.float32), known), (0, 0), 0.6)
    return out


def _lip_sources(ring_pixels_JC2: ndarray, parted: float) -> ndarray:
    """Texture of the inside of the lips: mirrored from the outside across the line where they touch.

    Where the photo's mouth is open, that line itself is fetched from a little further out: beyond it are teeth.
    """
    source = ring_pixels_JC2.copy()
    outwards = ring_pixels_JC2[CONTACT_LOOP - 1] - ring_pixels_JC2[CONTACT_LOOP]
    source[CONTACT_LOOP] += outwards * float(np.clip((parted - 0.004) / 0.006, 0, 1)) * 0.8
    for k in range(CONTACT_LOOP + 1, _NUM_MOUTH_LOOPS):
        source[k] = ring_pixels_JC2[max(2 * CONTACT_LOOP - k - 1, 0)]
    return source


def _lip_columns(contact_38_3: ndarray, first: int) -> tuple[ndarray, ndarray, ndarray]:
    """Pair the lips along the contact ring, from the picture's left corner to the right one."""
    corner = int(np.argmax(contact_38_3[:, 0]))
    upper = np.concatenate([np.arange(-corner, 0) + NUM_LIP_COLUMNS, np.arange(corner + 1)])
    lower = np.arange(corner, NUM_LIP_COLUMNS - corner + 1)[::-1]
    upper_x = np.maximum.accumulate(contact_38_3[upper, 0])
    lower_x = np.maximum.accumulate(contact_38_3[lower, 0])
    right = np.clip(np.searchsorted(lower_x, upper_x), 1, len(lower) - 1)
    t = np.clip((upper_x - lower_x[right - 1]) / np.maximum(lower_x[right] - lower_x[right - 1], 1e-9), 0, 1)
    return first + upper, first + np.stack([lower[right - 1], lower[right]], 1), np.stack([1 - t, t], 1)


def _lip_effect(canonical_V3: ndarray, contact_38_3: ndarray, num_grid: int) -> ndarray:
    """(V, C): vertical motion of each vertex per unit of gap at each lip column, on the mean head."""
    corner = int(np.argmax(contact_38_3[:, 0]))
    columns = np.concatenate([np.arange(-corner, 0) + NUM_LIP_COLUMNS, np.arange(corner + 1)])
    node_x = np.maximum.accumulate(contact_38_3[columns, 0]) + np.arange(len(columns)) * 1e-7
    node_y = contact_38_3[columns, 1]
    x, y = canonical_V3[:, 0], canonical_V3[:, 1]
    right = np.clip(np.searchsorted(node_x, x), 1, len(node_x) - 1)
    t = np.clip((x - node_x[right - 1]) / (node_x[right] - node_x[right - 1]), 0, 1)
    below = y - np.interp(x, node_x, node_y)
    # On the rings the side is known, however the lips overlap.
    column = np.arange(len(canonical_V3) - num_grid) % NUM_LIP_COLUMNS
    on_lower = (column > corner) & (column < NUM_LIP_COLUMNS - corner)
    below[num_grid:] = np.where(on_lower, np.maximum(below[num_grid:], 0), np.minimum(below[num_grid:], -1e-9))
    at_corner = (column == corner) | (column == NUM_LIP_COLUMNS - corner)
    upper = np.exp(-((np.maximum(-below - _UPPER_PLATEAU_M, 0) / _UPPER_FALL_M) ** 2)) * -(1 - _LOWER_SHARE)
    lower = np.exp(-((np.maximum(below - _LOWER_PLATEAU_M, 0) / _LOWER_FALL_M) ** 2)) * _LOWER_SHARE
    amount = np.where(below < 0, upper, lower)
    amount[num_grid:][at_corner] = 0
    effect = np.zeros((len(canonical_V3), len(node_x)))
    index = np.arange(len(canonical_V3))
    effect[index, right - 1] = amount * (1 - t)
    effect[index, right] += amount * t
    return effect
