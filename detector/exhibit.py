"""What was sent to be examined, decoded as far as it can be: a picture, a clip, a sound, or something damaged.

What is no medium at all, empty or over a limit is refused with an error. What is a medium but damaged is still
examined: each layer then says whether it could be looked at.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import UInt8

from detector.picture import PictureLimits, read_picture
from watermark.colour import ColourTrack
from watermark.errors import InputTooLongError, MediaError, NoVideoTrackError, UnreadableMediaError
from watermark.fingerprint import COMPARED_S, FoundContent
from watermark.media import (
    Clip,
    MediaLimits,
    Sound,
    decode_clip,
    decode_colour_track,
    decode_sound_track,
    probe,
    sniff_container,
)

WINDOW_S = 10.0
"""How much of a clip the detector looks at, from its start; the marks are looked for everywhere."""
FIT_WITHIN_PX = 960
"""Larger frames are shrunk for the detector, to the sizes that its error rates were measured on."""
_CONTENT_PX = 128

Kind = Literal["picture", "clip", "sound", "unreadable"]

_SOUND_MIMES = {"wav": "audio/wav", "mp3": "audio/mpeg", "flac": "audio/flac", "mov": "audio/mp4"}
_CLIP_MIMES = {"mov": "video/mp4", "avi": "video/x-msvideo"}


@dataclass(frozen=True)
class Exhibit:
    """A medium, ready to be looked at.

    Attributes:
        data: the whole file.
        kind: "unreadable": a medium of a known kind, of which neither picture nor sound could be decoded.
        mime: what it is, for the reader of manifests.
        shown: the picture, or the beginning of the clip; None where nothing can be seen.
        bits_per_pixel: of the file; None if unknown.
        is_cut: whether `shown` leaves out the rest of a longer clip.
        sound: the whole first sound track, or None.
        problem: what is wrong with the part that could not be decoded; empty if nothing is.
        limits: bounds on what is decoded.
    """

    data: bytes
    kind: Kind
    mime: str
    shown: Clip | UInt8[np.ndarray, "h w 3"] | None
    bits_per_pixel: float | None
    is_cut: bool
    sound: Sound | None
    problem: str
    limits: MediaLimits

    def track(self) -> Clip | ColourTrack:
        """The input of the reader of the picture's mark: all of a clip in small, or the one frame of a picture.

        Raises: MediaError: the clip is damaged, or nothing can be seen.
        """
        if isinstance(self.shown, Clip):
            return decode_colour_track(self.data, self.limits)
        if self.shown is None:
            raise UnreadableMediaError(self.problem or "There is no picture.")
        return Clip(self.shown[None], 25.0)

    def content(self) -> FoundContent | None:
        """What fingerprints are compared with: the first minute, in small. None if nothing can be compared."""
        if isinstance(self.shown, Clip):
            small = decode_clip(self.data, self.limits, fit_within_px=_CONTENT_PX, stop_after_s=COMPARED_S)
            return FoundContent.of_clip(small)
        return FoundContent.of_sound(self.sound) if self.sound is not None else None


def take_in(data: bytes, mime: str, limits: MediaLimits) -> Exhibit:
    """Decode what was sent.

    Args:
        data: the whole file.
        mime: its media type; "application/octet-stream" lets the first bytes decide.
        limits: bounds on what is decoded.
    Raises: PictureError, EmptyInputError, UnsupportedMediaError, InputTooLargeError, InputTooLongError.
    """
    container = sniff_container(data[:512])
    if container is None and not mime.startswith(("video/", "audio/")):
        picture_HWC = read_picture(data, PictureLimits(max_bytes=limits.max_bytes))
        known = mime if mime.startswith("image/") else _picture_mime(data)
        return Exhibit(data, "picture", known, picture_HWC, None, False, None, "", limits)
    problem, shown, bits_per_pixel, is_cut = "", None, None, False
    has_picture = False
    try:
        info = probe(data, limits)
        has_picture = info.video is not None
        seconds = info.unverified_duration_s
        if seconds is not None and seconds > limits.max_duration_s:
            raise InputTooLongError(seconds, limits.max_duration_s)
        shown = decode_clip(data, limits, fit_within_px=FIT_WITHIN_PX, stop_after_s=WINDOW_S)
        if info.video is not None and seconds:
            _, width, height, rate_hz = info.video
            bits_per_pixel = 8 * len(data) / max(1.0, seconds * (rate_hz or shown.rate_hz) * width * height)
        is_cut = seconds is not None and seconds > WINDOW_S + 0.5
    except NoVideoTrackError:
        problem = "There is no moving picture in this file."
    except UnreadableMediaError as error:
        problem = str(error)
    sound, sound_problem = _sound(data, limits)
    kind: Kind = "clip" if shown is not None else "sound" if sound is not None else "unreadable"
    mimes = _CLIP_MIMES if has_picture or kind != "sound" else _SOUND_MIMES
    known = mime if mime.startswith(("video/", "audio/")) else mimes.get(container or "", "application/octet-stream")
    return Exhibit(data, kind, known, shown, bits_per_pixel, is_cut, sound, problem or sound_problem, limits)


def _sound(data: bytes, limits: MediaLimits) -> tuple[Sound | None, str]:
    try:
        return decode_sound_track(data, limits), ""
    except InputTooLongError:
        raise
    except MediaError as error:  # what can be seen is examined all the same
        return None, str(error)


def _picture_mime(data: bytes) -> str:
    if data[:4] == b"\x89PNG":
        return "image/png"
    if data[:4] == b"RIFF":
        return "image/webp"
    return "image/tiff" if data[:2] in (b"II", b"MM") else "image/jpeg"
