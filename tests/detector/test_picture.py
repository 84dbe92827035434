"""Pictures of every kind become upright sRGB; everything else gets one of our errors."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from detector.errors import (
    EmptyPictureError,
    NotAPictureError,
    PictureError,
    PictureTooLargeError,
    UnreadablePictureError,
)
from detector.picture import PictureLimits, read_picture


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


GREY = Image.new("RGB", (40, 30), (10, 120, 240))


@pytest.mark.parametrize(
    "image",
    [
        GREY,
        GREY.convert("L"),
        GREY.convert("CMYK"),
        GREY.convert("RGBA"),
        GREY.convert("P"),
        GREY.convert("1"),
        Image.fromarray(np.linspace(0, 65535, 1200).reshape(30, 40).astype(np.uint16)),
    ],
    ids=lambda image: image.mode,
)
def test_every_mode_becomes_rgb(image: Image.Image) -> None:
    pixels_HWC = read_picture(encoded(image, "TIFF"))
    assert pixels_HWC.shape == (30, 40, 3)
    assert pixels_HWC.dtype == np.uint8


def test_orientation_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    assert read_picture(encoded(GREY, "JPEG", exif=exif)).shape == (40, 30, 3)


def test_size_is_refused_from_the_header() -> None:
    bomb = b"\x89PNG\r\n\x1a\n"
    for chunk in (b"IHDR" + struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0), b"IDAT" + zlib.compress(b"")):
        bomb += struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
    with pytest.raises(PictureTooLargeError):
        read_picture(bomb)
    with pytest.raises(PictureTooLargeError) as refused:
        read_picture(encoded(GREY, "PNG"), PictureLimits(max_bytes=10))
    assert refused.value.quantity == "bytes"


def test_bad_pictures_are_named() -> None:
    with pytest.raises(EmptyPictureError):
        read_picture(b"")
    with pytest.raises(NotAPictureError):
        read_picture(b"%PDF-1.7 and so on")
    with pytest.raises(UnreadablePictureError):
        read_picture(encoded(Image.effect_noise((90, 90), 50), "JPEG")[:600])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, 10_000), st.integers(0, 255))
def test_no_damaged_byte_raises_a_foreign_error(position: int, value: int) -> None:
    data = bytearray(encoded(Image.effect_noise((24, 24), 60), "PNG"))
    data[position % len(data)] = value
    try:
        assert read_picture(bytes(data)).ndim == 3
    except PictureError as error:
        assert error.code.startswith("detector.picture")
