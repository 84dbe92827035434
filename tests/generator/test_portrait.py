"""Intake of portraits: every kind of bad input has its own named error, every kind of good one the same upright RGB."""

from __future__ import annotations

import io
import struct
import zlib
from hashlib import sha256

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from generator.errors import (
    AnimatedImageError,
    FaceTooSmallError,
    ImageTooLargeError,
    NoFaceError,
    NotAnImageError,
    PortraitError,
    SeveralFacesError,
    UnreadableImageError,
)
from generator.portrait import (
    FRAME_PX,
    MIN_FACE_PX,
    Portrait,
    PortraitLimits,
    decode_portrait,
    locate_face,
    normalise_portrait,
    prepare,
)


def _bytes(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def _gradient(width: int = 60, height: int = 40) -> Image.Image:
    y, x = np.mgrid[:height, :width]
    return Image.fromarray(np.stack([x * 4, y * 6, x + y], -1).astype(np.uint8))


def _png_header(width: int, height: int) -> bytes:
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    head = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    return head + b"\0\0\0\0IDAT"


# --- what is refused


def test_no_bytes_and_no_image() -> None:
    for data in (b"", b"hello", b"\x89PNG\r\n", b"RIFF....WAVE" * 9):
        with pytest.raises(NotAnImageError):
            normalise_portrait(data)


def test_huge_pictures_are_refused_from_their_header_alone() -> None:
    for width, height in ((30_000, 30_000), (13_000, 10), (2**31 - 1, 2**31 - 1)):
        with pytest.raises(ImageTooLargeError):
            normalise_portrait(_png_header(width, height))


def test_too_many_bytes_are_refused_unread() -> None:
    with pytest.raises(ImageTooLargeError, match="at most 10 are"):
        normalise_portrait(b"x" * 11, PortraitLimits(max_bytes=10))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_truncated_pictures(kind: str) -> None:
    noise = Image.fromarray(np.random.default_rng(1).integers(0, 256, (80, 80, 3), np.uint8))
    data = _bytes(noise, kind)
    with pytest.raises((UnreadableImageError, NotAnImageError)):
        normalise_portrait(data[: len(data) // 2])


def test_animations() -> None:
    frames = [Image.new("RGB", (30, 30), colour) for colour in ("red", "blue")]
    for kind in ("GIF", "WEBP", "PNG"):
        data = _bytes(frames[0], kind, save_all=True, append_images=frames[1:])
        with pytest.raises(AnimatedImageError):
            normalise_portrait(data)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_damage_raises_our_errors_or_still_decodes(data: st.DataObject) -> None:
    good = bytearray(_bytes(_gradient(), data.draw(st.sampled_from(["PNG", "JPEG", "GIF", "BMP"]))))
    for _ in range(data.draw(st.integers(1, 4))):
        good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    try:
        normalise_portrait(bytes(good), PortraitLimits(max_pixels=1_000_000))
    except PortraitError:
        return


# --- what is accepted


def test_exif_rotation_is_applied_and_metadata_dropped() -> None:
    image = _gradient()
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying on its side
    exif[0x010E] = "a secret"
    png = normalise_portrait(_bytes(image, "PNG", exif=exif))
    assert decode_portrait(png).shape == (60, 40, 3)
    assert b"secret" not in png
    np.testing.assert_array_equal(decode_portrait(png), np.rot90(np.asarray(image), -1))


def test_other_modes_become_rgb() -> None:
    rgb = _gradient()
    half = rgb.convert("RGBA")
    half.putalpha(0)
    grey16 = Image.fromarray(np.arange(2400, dtype=np.uint16).reshape(40, 60) * 27)
    cases = {
        "CMYK": _bytes(rgb.convert("CMYK"), "JPEG"),
        "L": _bytes(rgb.convert("L")),
        "P": _bytes(rgb.convert("P"), "GIF"),
        "1": _bytes(rgb.convert("1")),
        "I;16": _bytes(grey16),
    }
    for mode, data in cases.items():
        assert decode_portrait(normalise_portrait(data)).shape == (40, 60, 3), mode
    assert (decode_portrait(normalise_portrait(_bytes(half))) == 255).all(), "transparent becomes white"
    sixteen = decode_portrait(normalise_portrait(cases["I;16"]))
    assert 240 < sixteen.max() <= 255
    assert sixteen.min() == 0


def test_normalising_again_changes_nothing(portrait_png: bytes) -> None:
    assert normalise_portrait(portrait_png) == portrait_png


# --- faces


def test_no_face() -> None:
    with pytest.raises(NoFaceError):
        locate_face(np.asarray(_gradient(400, 400)))


def test_several_faces_are_counted(portrait: Portrait) -> None:
    with pytest.raises(SeveralFacesError) as caught:
        locate_face(np.concatenate([portrait.photo_HW3, portrait.photo_HW3], 1))
    assert caught.value.num_faces == 2


def test_a_tiny_face(portrait: Portrait) -> None:
    factor = 0.8 * MIN_FACE_PX / portrait.face_px
    size = tuple(round(side * factor) for side in portrait.photo_HW3.shape[1::-1])
    with pytest.raises(FaceTooSmallError) as caught:
        prepare(_bytes(Image.fromarray(portrait.photo_HW3).resize(size)))  # type: ignore[arg-type]
    assert caught.value.face_px < MIN_FACE_PX


def test_prepared_portrait_is_a_function_of_the_bytes(portrait: Portrait, portrait_png: bytes) -> None:
    assert portrait.sha256 == sha256(portrait_png).hexdigest()
    again = prepare(portrait_png)
    assert again.crop == portrait.crop
    np.testing.assert_array_equal(again.fit.identity_K, portrait.fit.identity_K)


def test_the_stage_holds_the_crop_in_its_middle_and_splits_it_without_loss(portrait: Portrait) -> None:
    stage = portrait.square_stage()
    np.testing.assert_array_equal(stage.frame_of(stage.image_SS3), portrait.cropped(FRAME_PX))
    matte = stage.matte
    joined = matte.foreground_HW3 * matte.alpha_HW[..., None] + matte.plate_HW3 * (1 - matte.alpha_HW[..., None])
    assert np.abs(stage.frame_of(joined) - portrait.cropped(FRAME_PX)).mean() < 1.5
    nose = stage.points(portrait.landmarks.points_L2)[1].astype(int)
    assert matte.alpha_HW[nose[1], nose[0]] == 1.0
    assert matte.is_reliable


def test_a_smaller_photo_keeps_the_geometry(portrait: Portrait) -> None:
    small = portrait.shrunk_to(400)
    assert max(small.photo_HW3.shape[:2]) == 400
    factor = 400 / max(portrait.photo_HW3.shape[:2])
    assert abs(small.face_px - portrait.face_px * factor) < 1e-6
    assert small.crop.x0 + small.crop.side <= small.photo_HW3.shape[1]
    assert portrait.shrunk_to(100_000) is portrait
