"""What was sent to be examined, decoded as far as it can be: a picture, a clip, a sound, or something damaged.

What is no medium at all, empty or over a limit is refused with an error. What is a medium but damaged is still
examined: each layer then says whether it could be looked at. A clip is decoded once: the reader of the mark gets all of
it in small, and the frames that the detector will ask for are picked out as they go by.

T frame  H,W pixel
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import UInt8

from detector.observation import FramesByIndex, frames_looked_at
from detector.picture import PictureLimits, read_picture
from watermark.colour import ColourTrack, FrameViewer
from watermark.errors import MediaError, NoVideoTrackError, UnreadableMediaError
from watermark.fingerprint import COMPARED_S, FoundContent
from watermark.media import (
    Clip,
    MediaLimits,
    Sound,
    decode_clip,
    decode_colour_track,
    decode_sound_track,
    frame_times,
    probe,
    sniff_container,
)

WINDOW_S = 10.0
"""How much of a clip the detector looks at, from its start; the marks are looked for everywhere that is examined."""
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
        shown: the picture, or the beginning of the clip (perhaps only the frames that will be looked at); None where
            nothing can be seen.
        colour: all of the clip that is examined, in small; None for pictures, sounds, and clips that break off.
        bits_per_pixel: of the file; None if unknown.
        duration_s: as the file says; None if it does not.
        sound: the first sound track as far as it is examined, or None.
        problem: what is wrong with the part that could not be decoded; empty if nothing is.
        limits: bounds on what is decoded.
    """

    data: bytes
    kind: Kind
    mime: str
    shown: Clip | UInt8[np.ndarray, "h w 3"] | None
    colour: ColourTrack | None
    bits_per_pixel: float | None
    duration_s: float | None
    sound: Sound | None
    problem: str
    limits: MediaLimits

    @property
    def is_cut(self) -> bool:
        """Whether `shown` leaves out the rest of a longer clip."""
        return isinstance(self.shown, Clip) and self.duration_s is not None and self.duration_s > WINDOW_S + 0.5

    @property
    def is_partly_examined(self) -> bool:
        """Whether the file is longer than what any layer looks at."""
        return self.duration_s is not None and self.duration_s > self.limits.max_duration_s + 0.5

    @property
    def first_frame(self) -> UInt8[np.ndarray, "h w 3"] | None:
        """The picture, or the first frame of the clip."""
        return self.shown.frames_THWC[0] if isinstance(self.shown, Clip) else self.shown

    def track(self) -> Clip | ColourTrack:
        """The input of the reader of the picture's mark: the clip in small, or the one frame of a picture.

        Raises: MediaError: the clip is damaged, or nothing can be seen.
        """
        if self.colour is not None:
            return self.colour
        if self.shown is None or isinstance(self.shown, Clip):
            raise UnreadableMediaError(self.problem or "There is no picture.")
        return Clip(self.shown[None], 25.0)

    def content(self) -> FoundContent | None:
        """What fingerprints are compared with: the first minute, in small. None if nothing can be compared."""
        if isinstance(self.shown, Clip):
            small = decode_clip(self.data, self.limits, fit_within_px=_CONTENT_PX, stop_after_s=COMPARED_S)
            return FoundContent.of_clip(small)
        return FoundContent.of_sound(self.sound) if self.sound is not None else None


def take_in(data: bytes, mime: str, limits: MediaLimits) -> Exhibit:
    """Decode what was sent; of what is longer than `limits.max_duration_s`, the beginning.

    Args:
        data: the whole file.
        mime: its media type; "application/octet-stream" lets the first bytes decide.
        limits: bounds on what is decoded.
    Raises: PictureError, EmptyInputError, UnsupportedMediaError, InputTooLargeError.
    """
    container = sniff_container(data[:512])
    if container is None and not mime.startswith(("video/", "audio/")):
        picture_HWC = read_picture(data, PictureLimits(max_bytes=limits.max_bytes))
        known = mime if mime.startswith("image/") else _picture_mime(data)
        return Exhibit(data, "picture", known, picture_HWC, None, None, None, None, "", limits)
    exhibit = Exhibit(data, "unreadable", mime, None, None, None, None, None, "", limits)
    has_picture = False
    try:
        info = probe(data, limits)
        has_picture = info.video is not None
        exhibit = replace(exhibit, duration_s=info.unverified_duration_s)
        exhibit = _seen(exhibit)
        if info.video is not None and info.unverified_duration_s and isinstance(exhibit.shown, Clip):
            _, width, height, rate_hz = info.video
            num_pixels = info.unverified_duration_s * (rate_hz or exhibit.shown.rate_hz) * width * height
            exhibit = replace(exhibit, bits_per_pixel=8 * len(data) / max(1.0, num_pixels))
    except NoVideoTrackError:
        exhibit = replace(exhibit, problem="There is no moving picture in this file.")
    except UnreadableMediaError as error:
        exhibit = replace(exhibit, problem=str(error))
    sound, sound_problem = _sound(data, limits)
    kind: Kind = "clip" if exhibit.shown is not None else "sound" if sound is not None else "unreadable"
    mimes = _CLIP_MIMES if has_picture or kind != "sound" else _SOUND_MIMES
    known = mime if mime.startswith(("video/", "audio/")) else mimes.get(container or "", "application/octet-stream")
    return replace(exhibit, kind=kind, mime=known, sound=sound, problem=exhibit.problem or sound_problem)


def _seen(exhibit: Exhibit) -> Exhibit:
    """The picture of a clip, decoded once. Raises as `decode_clip` does."""
    data, limits = exhibit.data, exhibit.limits
    # (1) which frames the detector will ask for, from the times in the packets
    times_T = frame_times(data, limits, stop_after_s=WINDOW_S)
    rate_hz = (len(times_T) - 1) / float(times_T[-1]) if len(times_T) > 1 and times_T[-1] > 0 else 25.0
    wanted = frozenset(frames_looked_at(len(times_T), rate_hz)) if len(times_T) else frozenset[int]()
    kept: dict[int, UInt8[np.ndarray, "h w 3"]] = {}
    # (2) all of it in small, those frames as they are
    problem = ""
    colour: ColourTrack | None = None
    try:
        colour = decode_colour_track(
            data,
            limits,
            stop_after_s=limits.max_duration_s,
            viewer=FrameViewer(wanted, FIT_WITHIN_PX, kept.__setitem__),
        )
    except UnreadableMediaError as error:  # cut short: its beginning may be whole
        problem = str(error)
    if wanted and wanted <= kept.keys():
        shown = Clip(FramesByIndex(len(times_T), kept), rate_hz, None, times_T)  # type: ignore[arg-type]
    else:
        # (3) packets without times, or fewer frames than packets: the beginning once more, frame by frame
        shown = decode_clip(data, limits, fit_within_px=FIT_WITHIN_PX, stop_after_s=WINDOW_S)
    return replace(exhibit, shown=shown, colour=colour, problem=problem)


def _sound(data: bytes, limits: MediaLimits) -> tuple[Sound | None, str]:
    # a sound that is cut off at the limit must not reach it
    roomy = replace(limits, max_duration_s=limits.max_duration_s + 60.0)
    try:
        return decode_sound_track(data, roomy, stop_after_s=limits.max_duration_s), ""
    except MediaError as error:  # what can be seen is examined all the same
        return None, str(error)


def _picture_mime(data: bytes) -> str:
    if data[:4] == b"\x89PNG":
        return "image/png"
    if data[:4] == b"RIFF":
        return "image/webp"
    return "image/tiff" if data[:2] in (b"II", b"MM") else "image/jpeg"
