"""Portrait: from uploaded bytes to everything about a face that rendering needs, computed once per picture.

`normalise_portrait` is the only place where untrusted image bytes are decoded: caps on bytes and, read from the header,
on pixels come first; what leaves is an upright 8-bit sRGB PNG without metadata. `prepare` finds the one face, fits the
head to it and takes the picture apart into person and background.
"""

# H,W pixel of the photo  S side of the square crop

from __future__ import annotations

import hashlib
import io
import warnings
from dataclasses import dataclass, field
from typing import Final

import cv2
import numpy as np
from jaxtyping import Float32, UInt8
from numpy import ndarray
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from generator.errors import (
    AnimatedImageError,
    FaceTooSmallError,
    FaceTurnedAwayError,
    ImageTooLargeError,
    MouthHiddenError,
    NotAnImageError,
    UnreadableImageError,
)
from generator.faces import MIN_FACE_PX, FaceChoice, faces_in
from generator.fit import HeadFit, fit_head
from generator.head import Head, default_head
from generator.matte import Matte, separate
from generator.obstacles import Obstacles, find_obstacles
from generator.perception import CHIN, FOREHEAD_TOP, FaceBox, FaceLandmarks, face_landmarks
from generator.raster import identify

MAX_PORTRAIT_BYTES: Final = 25 * 1024 * 1024
MAX_PORTRAIT_PIXELS: Final = 40_000_000
MAX_SIDE_PX: Final = 12_000
MAX_TURN_DEG: Final = 45.0
FRAME_PX: Final = 512
MARGIN_PX: Final = 64
READ_FORMATS: Final = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM")

_CROP_FACE_HEIGHTS: Final = 1.9
_CROP_CENTRE_UP: Final = 0.06
_LANDMARK_VIEWS: Final = 6
_MAX_CROWN: Final = 0.04


@dataclass(frozen=True)
class PortraitLimits:
    """What is refused before decoding."""

    max_bytes: int = MAX_PORTRAIT_BYTES
    max_pixels: int = MAX_PORTRAIT_PIXELS
    max_side_px: int = MAX_SIDE_PX


@dataclass(frozen=True)
class Crop:
    """The square of the photo that is animated, in whole pixels."""

    x0: int
    y0: int
    side: int

    def cut(self, image: ndarray) -> ndarray:
        return image[self.y0 : self.y0 + self.side, self.x0 : self.x0 + self.side]


@dataclass(frozen=True, eq=False)
class Portrait:
    """One analysed portrait; everything here is a function of its bytes.

    Attributes:
        sha256: of the normalised PNG; the identity under which consents and permits know the picture.
        photo_HW3: sRGB.
        crop: the square that is animated; also the paste-back transform (a translation and a scale).
        landmarks: in pixels of the photo.
        fit: the head, in pixels of the photo.
        obstacles: spectacles and what else covers the face.
        head: the model that `fit` refers to.
    """

    sha256: str
    photo_HW3: UInt8[ndarray, "h w 3"]
    crop: Crop
    landmarks: FaceLandmarks
    fit: HeadFit
    obstacles: Obstacles
    head: Head
    _stages: dict[tuple[int, int], Stage] = field(default_factory=dict, repr=False)

    @property
    def face_px(self) -> float:
        """Height of the face, forehead to chin, in pixels of the photo."""
        points = self.landmarks.points_L2
        return float(np.linalg.norm(points[FOREHEAD_TOP] - points[CHIN]))

    def cropped(self, side_px: int) -> UInt8[ndarray, "s s 3"]:
        """The crop, resized."""
        cut = self.crop.cut(self.photo_HW3)
        if side_px == self.crop.side:
            return np.ascontiguousarray(cut)
        shrink = side_px < self.crop.side
        return cv2.resize(cut, (side_px, side_px), interpolation=cv2.INTER_AREA if shrink else cv2.INTER_CUBIC)

    def points_in_crop(self, points: ndarray, side_px: int) -> ndarray:
        return (points - np.array([self.crop.x0, self.crop.y0])) * (side_px / self.crop.side)

    def shrunk_to(self, longest_px: int) -> Portrait:
        """The same portrait with a smaller photo; itself where it is small enough."""
        height, width = self.photo_HW3.shape[:2]
        factor = longest_px / max(height, width)
        if factor >= 1:
            return self
        size = (max(2, round(width * factor)), max(2, round(height * factor)))
        side = min(round(self.crop.side * factor), *size)
        x0, y0 = (
            min(round(v * factor), most - side) for v, most in zip((self.crop.x0, self.crop.y0), size, strict=True)
        )
        return Portrait(
            sha256=self.sha256,
            photo_HW3=cv2.resize(self.photo_HW3, size, interpolation=cv2.INTER_AREA),
            crop=Crop(x0, y0, side),
            landmarks=self.landmarks.scaled(factor),
            fit=self.fit.scaled(factor),
            obstacles=self.obstacles,
            head=self.head,
        )

    def stage(self, frame_px: int, margin_px: int) -> Stage:
        """The crop at this size with a margin around it, taken apart; kept for the next caller."""
        key = (frame_px, margin_px)
        if key not in self._stages:
            self._stages[key] = _build_stage(self, frame_px, margin_px)
        return self._stages[key]

    def square_stage(self) -> Stage:
        """The stage of the 512×512 frame."""
        return self.stage(FRAME_PX, MARGIN_PX)


@dataclass(frozen=True, eq=False)
class Stage:
    """The crop resized for rendering, with a margin from which motion can bring in what lies beyond the frame.

    Attributes:
        frame_px: side of the frame that is rendered, in pixels of the stage.
        margin_px: width of the margin on each side of it.
        image_SS3: sRGB; beyond the photo's edge, its mirror image.
        matte: person and background; beyond the photo's edge the person goes on as at the edge.
        fit: the head, in pixels of the stage.
        photo_box_px: where the photo ends to the left, above, to the right and below, in pixels of the stage.
    """

    frame_px: int
    margin_px: int
    image_SS3: UInt8[ndarray, "s s 3"]
    matte: Matte
    fit: HeadFit
    crop: Crop
    photo_box_px: tuple[int, int, int, int]

    @property
    def side_px(self) -> int:
        return self.frame_px + 2 * self.margin_px

    @property
    def scale(self) -> float:
        """Stage pixels per photo pixel."""
        return self.frame_px / self.crop.side

    def points(self, photo_points: ndarray) -> ndarray:
        """Photo pixels to stage pixels."""
        return (photo_points - np.array([self.crop.x0, self.crop.y0])) * self.scale + self.margin_px

    def frame_of(self, stage_map: ndarray) -> ndarray:
        """The part of a stage-sized map that the frame shows."""
        m = self.margin_px
        return np.ascontiguousarray(stage_map[m : m + self.frame_px, m : m + self.frame_px])


def _build_stage(portrait: Portrait, frame_px: int, margin_px: int) -> Stage:
    crop, photo = portrait.crop, portrait.photo_HW3
    scale = frame_px / crop.side
    fit = portrait.fit.scaled(scale, (crop.x0 - margin_px / scale, crop.y0 - margin_px / scale))
    frame = portrait.cropped(frame_px)
    # (1) as much of the photo around the frame as there is, up to the margin
    left, top = (min(margin_px, int(edge * scale)) for edge in (crop.x0, crop.y0))
    right = min(margin_px, int((photo.shape[1] - crop.x0 - crop.side) * scale))
    bottom = min(margin_px, int((photo.shape[0] - crop.y0 - crop.side) * scale))
    around = [round(v / scale) for v in (left, top, right, bottom)]
    wide = photo[
        crop.y0 - around[1] : crop.y0 + crop.side + around[3], crop.x0 - around[0] : crop.x0 + crop.side + around[2]
    ]
    size = (left + frame_px + right, top + frame_px + bottom)
    shown = cv2.resize(wide, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    shown[top : top + frame_px, left : left + frame_px] = frame
    # (2) person and background, seen with that context
    side = frame_px + 2 * margin_px
    cover = _head_cover(portrait.head, fit, side)
    inset = (slice(margin_px - top, side - margin_px + bottom), slice(margin_px - left, side - margin_px + right))
    matte = separate(shown, np.ascontiguousarray(cover[inset]))
    # (3) beyond the photo's edge
    borders = (margin_px - top, margin_px - bottom, margin_px - left, margin_px - right)

    def grown(values: ndarray, mode: int) -> ndarray:
        return cv2.copyMakeBorder(values, *borders, mode)

    alpha = grown(_broad_at_edges(matte.alpha_HW, round(0.06 * side)), cv2.BORDER_REPLICATE)
    alpha[: borders[0]] = _crown_above(matte.alpha_HW, borders[0], borders[2], side)
    alpha[inset] = matte.alpha_HW
    mirrored_alpha = grown(matte.alpha_HW, cv2.BORDER_REFLECT_101)
    foreground = np.where(
        mirrored_alpha[..., None] > 0.5,
        grown(matte.foreground_HW3, cv2.BORDER_REFLECT_101),
        grown(matte.foreground_HW3, cv2.BORDER_REPLICATE),
    )
    plate = grown(matte.plate_HW3, cv2.BORDER_REFLECT_101)
    full = Matte(alpha, foreground, plate, matte.unsure)
    return Stage(
        frame_px,
        margin_px,
        grown(shown, cv2.BORDER_REFLECT_101),
        full,
        fit,
        crop,
        (margin_px - left, margin_px - top, margin_px + frame_px + right, margin_px + frame_px + bottom),
    )


def _broad_at_edges(alpha_HW: ndarray, least_px: int) -> ndarray:
    """Forget narrow contacts of the person with the picture's edge: a lock of hair does not go on beyond it."""
    out = alpha_HW.copy()
    for edge in (np.s_[0, :], np.s_[-1, :], np.s_[:, 0], np.s_[:, -1]):
        out[edge] = cv2.morphologyEx(out[edge].reshape(1, -1), cv2.MORPH_OPEN, np.ones((1, least_px), np.uint8)).ravel()
    return out


def _crown_above(alpha_HW: ndarray, height_px: int, left_px: int, side_px: int) -> Float32[ndarray, "m s"]:
    """Round off hair that the photo's upper edge cuts: a circular segment on the cut, as wide as the head below it."""
    out = np.zeros((height_px, side_px), np.float32)
    cut = np.flatnonzero(alpha_HW[0] > 0.5)
    if height_px == 0 or len(cut) == 0:
        return out
    below = np.flatnonzero(alpha_HW[min(round(0.16 * side_px), len(alpha_HW) - 1)] > 0.5)
    half = (cut[-1] - cut[0] + 1) / 2
    radius = max(1.15 * half, (below[-1] - below[0]) / 2 if len(below) else 0.0)
    across = np.arange(side_px) - (left_px + (cut[0] + cut[-1]) / 2)
    inside = np.abs(across) < half
    rise = np.sqrt(np.maximum(radius**2 - across**2, 0)) - np.sqrt(radius**2 - half**2)
    rise *= min(
        1.0, _MAX_CROWN * side_px / max(float(rise.max()), 1e-6)
    )  # further up the mirror image shows a forehead
    above = height_px - 0.5 - np.arange(height_px)
    return np.where(inside, np.clip((rise - above[:, None]) / 2.0 + 0.5, 0, 1), out).astype(np.float32)


def _head_cover(head: Head, fit: HeadFit, side_px: int) -> Float32[ndarray, "s s"]:
    """1 where the fitted head certainly covers the picture: its silhouette, shrunk."""
    vertices = head.vertices(fit.identity_K, fit.actions_A)
    _, face, _ = identify(fit.project(vertices).astype(np.float32), head.skin_F3, side_px, side_px)
    cover: ndarray = (face >= 0).astype(np.uint8)
    margin = max(3, round(side_px * 0.02)) | 1
    cover = cv2.erode(cover, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (margin, margin)))
    return cv2.GaussianBlur(cover.astype(np.float32), (0, 0), margin / 4) * cover


def normalise_portrait(data: bytes, limits: PortraitLimits | None = None) -> bytes:
    """Decode an uploaded picture safely and return it as an upright 8-bit sRGB PNG without metadata.

    EXIF rotation is applied; CMYK, grey, palette, 16-bit and transparent pictures become RGB (transparency on white);
    an embedded colour profile is converted to sRGB.

    Raises: NotAnImageError, ImageTooLargeError, UnreadableImageError, AnimatedImageError.
    """
    limits = limits or PortraitLimits()
    if len(data) > limits.max_bytes:
        raise ImageTooLargeError(
            f"The file has {len(data):,} bytes; at most {limits.max_bytes:,} are accepted. Please send a smaller one."
        )
    if not data:
        raise NotAnImageError("The file is empty; please send a PNG, JPEG or WebP picture.")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns where we refuse
        try:
            image = Image.open(io.BytesIO(data), formats=READ_FORMATS)
        except Image.DecompressionBombError as exc:
            raise ImageTooLargeError(
                f"The picture has more than {limits.max_pixels:,} pixels; please send a smaller one."
            ) from exc
        except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as exc:
            raise NotAnImageError("This is not a picture that can be read; please send PNG, JPEG or WebP.") from exc
        with image:
            width, height = image.size
            if width * height > limits.max_pixels or max(width, height) > limits.max_side_px:
                raise ImageTooLargeError(
                    f"The picture is {width} × {height} pixels; at most {limits.max_pixels:,} pixels and "
                    f"{limits.max_side_px:,} along a side are accepted. Please send a smaller one."
                )
            if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":
                raise AnimatedImageError("The picture is animated; please send a single still frame.")
            try:
                image.load()
                rgb = _to_srgb(ImageOps.exif_transpose(image))
            except (OSError, SyntaxError, ValueError, EOFError, MemoryError, Image.DecompressionBombError) as exc:
                raise UnreadableImageError("The picture is damaged or cut short; please send it again.") from exc
    out = io.BytesIO()
    rgb.save(out, "PNG", compress_level=4)
    return out.getvalue()


def _to_srgb(image: Image.Image) -> Image.Image:
    profile = image.info.get("icc_profile")
    if image.mode.startswith("I") or image.mode == "F":
        values = np.asarray(image, np.float64)
        image = Image.fromarray(np.clip(values / 257.0, 0, 255).astype(np.uint8))
    if profile and image.mode in ("RGB", "CMYK", "L"):
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            converted = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
            if converted is not None:
                image = converted
        except (ImageCms.PyCMSError, OSError, ValueError):
            profile = None  # a broken profile: the pixels are then read as they are
    if image.mode in ("RGBA", "LA", "PA", "P"):
        layer = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layer.size, (255, 255, 255, 255)), layer)
    return image.convert("RGB") if image.mode != "RGB" else image.copy()


def decode_portrait(portrait_png: bytes) -> UInt8[ndarray, "h w 3"]:
    """Pixels of a picture that `normalise_portrait` returned."""
    try:
        with Image.open(io.BytesIO(portrait_png), formats=("PNG",)) as image:
            return np.array(image.convert("RGB"))
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as exc:
        raise UnreadableImageError("The portrait is not a normalised PNG; normalise it first.") from exc


def locate_face(image_HW3: UInt8[ndarray, "h w 3"], face: FaceChoice = None) -> FaceBox:
    """The face of the picture that is meant; by default it must be the only one.

    Raises: NoFaceError, SeveralFacesError, NoSuchFaceError, FaceTooSmallError.
    """
    return faces_in(image_HW3).chosen(face)


def prepare(portrait_png: bytes, head: Head | None = None, face: FaceChoice = None) -> Portrait:
    """Analyse a portrait; nothing is animated here.

    Args:
        portrait_png: from `normalise_portrait`.
        head: the head model; the one that ships with the product unless given.
        face: which one of several, see `generator.faces`.
    Raises: NoFaceError, SeveralFacesError, NoSuchFaceError, FaceTooSmallError, FaceTurnedAwayError,
        MouthHiddenError.
    """
    head = head or default_head()
    photo = decode_portrait(portrait_png)
    landmarks = face_landmarks(photo, locate_face(photo, face), num_views=_LANDMARK_VIEWS)
    points = landmarks.points_L2
    face_px = float(np.linalg.norm(points[FOREHEAD_TOP] - points[CHIN]))
    if face_px < MIN_FACE_PX:
        raise FaceTooSmallError(round(face_px), MIN_FACE_PX)
    obstacles = find_obstacles(photo, points)
    if obstacles.mouth_is_hidden:
        raise MouthHiddenError
    fit = fit_head(head, points, (photo.shape[1] / 2, photo.shape[0] / 2))
    yaw, pitch, _ = fit.yaw_pitch_roll_deg
    if max(abs(yaw), abs(pitch)) > MAX_TURN_DEG:
        raise FaceTurnedAwayError(yaw, pitch, MAX_TURN_DEG)
    return Portrait(
        sha256=hashlib.sha256(portrait_png).hexdigest(),
        photo_HW3=photo,
        crop=_crop_around(points, face_px, photo.shape[0], photo.shape[1]),
        landmarks=landmarks,
        fit=fit,
        obstacles=obstacles,
        head=head,
    )


def _crop_around(points_L2: ndarray, face_px: float, height: int, width: int) -> Crop:
    """A square of about twice the face's height with the face a little above its middle, inside the photo."""
    side = min(round(face_px * _CROP_FACE_HEIGHTS), height, width)
    centre_x = (points_L2[:, 0].min() + points_L2[:, 0].max()) / 2
    centre_y = (points_L2[FOREHEAD_TOP, 1] + points_L2[CHIN, 1]) / 2 - _CROP_CENTRE_UP * face_px
    x0 = int(np.clip(round(centre_x - side / 2), 0, width - side))
    y0 = int(np.clip(round(centre_y - side / 2), 0, height - side))
    return Crop(x0, y0, side)
