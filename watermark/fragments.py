"""Movie fragments (ISO/IEC 14496-12 §8.8): coded pictures and sound become `moof` and `mdat`, of any length.

A muxer closes a fragment when it sees the key frame after it, which in a live stream is a segment too late, and makes
every segment start with a key frame, which costs twice the bits. Written by hand a fragment may be one frame long, of
any kind, and leaves as soon as that frame is coded. Pure functions of values.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from watermark.boxes import child, cut, make
from watermark.errors import UnreadableMediaError

_START_CODE: Final = re.compile(rb"\x00*\x00\x00\x01")
_SYNC: Final = 0x02000000
_NOT_SYNC: Final = 0x01010000
"""Sample flags, §8.8.3.1: depends on no other sample; depends on others and is no point to start from."""


@dataclass(frozen=True)
class Track:
    """A track that the init segment describes.

    Attributes:
        handler: b"vide" or b"soun".
        timescale: ticks per second.
    """

    track_id: int
    handler: bytes
    timescale: int


@dataclass(frozen=True)
class Sample:
    """One coded frame of a track.

    Attributes:
        duration: in ticks of the track.
        is_sync: whether decoding may start here.
    """

    data: bytes
    duration: int
    is_sync: bool


@dataclass(frozen=True)
class Run:
    """Samples of one track, one after the other.

    Attributes:
        start: decode time of the first one, in ticks of the track.
    """

    track: Track
    start: int
    samples: Sequence[Sample]


def tracks(init_segment: bytes) -> list[Track]:
    """The tracks that an init segment describes. Raises: UnreadableMediaError."""
    found: list[Track] = []
    for movie in (box for box in cut(init_segment) if box.kind == b"moov"):
        for track in (box for box in cut(movie.body) if box.kind == b"trak"):
            header, media, handler = (
                child(track, *path) for path in ((b"tkhd",), (b"mdia", b"mdhd"), (b"mdia", b"hdlr"))
            )
            if header is None or media is None or handler is None:
                raise UnreadableMediaError("A track of the init segment lacks its headers.")
            # §8.3.2, §8.4.2: version 1 has 64-bit times before the number and the timescale
            number = header.body[20:24] if header.body[0] == 1 else header.body[12:16]
            timescale = media.body[20:24] if media.body[0] == 1 else media.body[12:16]
            found.append(Track(int.from_bytes(number, "big"), handler.body[8:12], int.from_bytes(timescale, "big")))
    if not found or any(track.timescale == 0 for track in found):
        raise UnreadableMediaError("The init segment describes no track.")
    return found


def fragment(number: int, runs: Sequence[Run]) -> bytes:
    """One movie fragment with its media: `moof`, then `mdat`.

    Args:
        number: of the fragment, from 1 (§8.8.5).
        runs: at most one for each track, none empty.
    """
    media = b"".join(sample.data for run in runs for sample in run.samples)
    draft = _fragment(number, runs, 0)
    return _fragment(number, runs, len(draft) + 8) + make(b"mdat", media)


def _fragment(number: int, runs: Sequence[Run], media_offset: int) -> bytes:
    parts = [make(b"mfhd", struct.pack(">II", 0, number))]
    for run in runs:
        # (1) track fragment header, §8.8.7: default-base-is-moof; decode time, §8.8.12, in 64 bits
        header = make(b"tfhd", struct.pack(">II", 0x020000, run.track.track_id))
        time = make(b"tfdt", struct.pack(">IQ", 0x01000000, run.start))
        # (2) run, §8.8.8: offset of the data, then duration, size and flags of each sample
        rows = b"".join(
            struct.pack(">III", sample.duration, len(sample.data), _SYNC if sample.is_sync else _NOT_SYNC)
            for sample in run.samples
        )
        table = make(b"trun", struct.pack(">IIi", 0x000701, len(run.samples), media_offset) + rows)
        parts.append(make(b"traf", header + time + table))
        media_offset += sum(len(sample.data) for sample in run.samples)
    return make(b"moof", b"".join(parts))


def length_prefixed(byte_stream: bytes) -> bytes:
    """H.264 as a file holds it, each unit behind its length (ISO/IEC 14496-15 §5.3), from the byte stream format.

    Args:
        byte_stream: units behind start codes, ITU-T H.264 Annex B.
    """
    units = _START_CODE.split(byte_stream)
    return b"".join(struct.pack(">I", len(unit)) + unit for unit in units if unit)


def codecs(init_segment: bytes) -> str:
    """The `codecs` parameter of the media type (RFC 6381 §3.3) of a stream of H.264 and, if it has sound, AAC.

    Raises: UnreadableMediaError: no H.264 is described.
    """
    place = init_segment.find(b"avcC")
    if place < 0:
        raise UnreadableMediaError("The init segment describes no H.264.")
    # configurationVersion, then profile, constraints and level, ISO/IEC 14496-15 §5.3.3.1
    video = "avc1." + init_segment[place + 5 : place + 8].hex().upper()
    has_sound = any(track.handler == b"soun" for track in tracks(init_segment))
    return f"{video}, mp4a.40.2" if has_sound else video
