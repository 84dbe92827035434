"""Reading still pictures that somebody sent: nothing is decoded before its header says that it is small enough.

H,W pixel  C colour
"""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps, UnidentifiedImageError

from detector.errors import EmptyPictureError, NotAPictureError, PictureTooLargeError, UnreadablePictureError

_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")


@dataclass(frozen=True)
class PictureLimits:
    """The most that is taken in as a picture."""

    max_bytes: int = 32 * 2**20
    max_pixels: int = 40_000_000


def read_picture(data: bytes, limits: PictureLimits | None = None) -> UInt8[np.ndarray, "h w 3"]:
    """Decode a still picture, upright, as sRGB, 0..255; of an animation the first frame.

    Raises: EmptyPictureError, PictureTooLargeError, NotAPictureError, UnreadablePictureError.
    """
    limits = limits or PictureLimits()
    if not data:
        raise EmptyPictureError("The file is empty; please send a picture or a video.")
    if len(data) > limits.max_bytes:
        raise PictureTooLargeError("bytes", len(data), limits.max_bytes)
    try:
        with warnings.catch_warnings():
            # Our own limit below is stricter than the one that Pillow warns about.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data), formats=_FORMATS) as opened:
                num_pixels = opened.width * opened.height
                if num_pixels > limits.max_pixels:
                    raise PictureTooLargeError("pixels", num_pixels, limits.max_pixels)
                return np.asarray(_as_rgb(ImageOps.exif_transpose(opened)))
    except UnidentifiedImageError as exc:
        raise NotAPictureError("This is no JPEG, PNG, WebP, BMP, TIFF or GIF; please send one of these.") from exc
    except Image.DecompressionBombError as exc:
        raise PictureTooLargeError("pixels", limits.max_pixels + 1, limits.max_pixels) from exc
    except (OSError, ValueError, SyntaxError, EOFError, IndexError, KeyError, TypeError, OverflowError) as exc:
        raise UnreadablePictureError("The picture is damaged or cut short; please send it again.") from exc


def _as_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith(("I", "F")):  # 16-bit grey and float pictures: by their own range
        values = np.asarray(image, np.float64)
        span = float(values.max() - values.min()) or 1.0
        return Image.fromarray(np.uint8(255 * (values - values.min()) / span)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        opaque = Image.new("RGBA", image.size, "white")
        opaque.alpha_composite(image.convert("RGBA"))
        return opaque.convert("RGB")
    return image.convert("RGB")
