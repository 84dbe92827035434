"""A live stream in a file, or in a folder: cut into the segments that were sent, and checked as they were to be.

A file is the init segment and all segments, one behind the other, as a client receives them; a folder holds
`init.mp4` and the segments in the order of their names. Read piece by piece, whatever the length.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from watermark.boxes import cut, is_manifest_store
from watermark.errors import UnreadableMediaError
from watermark.live import LiveVerifier, SegmentEvidence

INIT_NAME: Final = "init.mp4"
MAX_BOX_BYTES: Final = 64 * 2**20
_STARTS_SEGMENT: Final = b"styp"
_HEADER: Final = 8


@dataclass(frozen=True)
class StreamVerdict:
    """What a stream that verifies proves.

    Attributes:
        manifest_id: of its manifest; `mark_id`: what its frames carry.
        num_segments: with media.
        end: why it ends.
    """

    manifest_id: str
    mark_id: str
    num_segments: int
    first_signed_at: str
    last_signed_at: str
    end: str


def is_stream(path: Path) -> bool:
    """Whether a file or folder looks like a live stream: an init segment with a manifest, and segments."""
    try:
        parts = stream_parts(path)
        init, first = next(parts), next(parts)
        return any(is_manifest_store(box) for box in cut(init)) and cut(first)[0].kind == _STARTS_SEGMENT
    except (StopIteration, UnreadableMediaError, IndexError, OSError):
        return False


def stream_parts(path: Path) -> Iterator[bytes]:
    """The init segment, then segment after segment. Raises: UnreadableMediaError, OSError."""
    if path.is_dir():
        yield (path / INIT_NAME).read_bytes()
        for each in sorted(path.iterdir()):
            if each.name != INIT_NAME and each.is_file():
                yield each.read_bytes()
        return
    with path.open("rb") as file:
        part = b""
        for kind, data in _boxes(file):
            if kind == _STARTS_SEGMENT and part:
                yield part
                part = b""
            part += data
        if part:
            yield part


def verify_stream_files(path: Path, trust_roots_pem: str) -> StreamVerdict:
    """Check a stream from its first segment to its signed end.

    Raises: LiveError: the first thing wrong. UnreadableMediaError: not a stream.
    """
    parts = stream_parts(path)
    verifier = LiveVerifier(next(parts, b""), trust_roots_pem)
    first: SegmentEvidence | None = None
    last: SegmentEvidence | None = None
    for part in parts:
        last = verifier.verify(part)
        first = first or last
    verifier.finish()
    assert first is not None and last is not None and last.end is not None  # `finish` has seen the end
    return StreamVerdict(
        manifest_id=verifier.reading.manifest_id or "",
        mark_id=str(verifier.reading.mark_id or ""),
        num_segments=last.number - 1,
        first_signed_at=first.signed_at.isoformat(),
        last_signed_at=last.signed_at.isoformat(),
        end=last.end,
    )


def _boxes(file: BinaryIO) -> Iterator[tuple[bytes, bytes]]:
    """The boxes of a file, by kind (ISO/IEC 14496-12 §4.2)."""
    while header := file.read(_HEADER):
        size = int.from_bytes(header[:4], "big")
        if len(header) < _HEADER or not _HEADER <= size <= MAX_BOX_BYTES:
            raise UnreadableMediaError("The file does not consist of whole boxes of a reasonable size.")
        body = file.read(size - _HEADER)
        if len(body) < size - _HEADER:
            raise UnreadableMediaError("The file ends within a box.")
        yield header[4:], header + body
