"""Boxes of the ISO base media file format (ISO/IEC 14496-12) and JUMBF superboxes (ISO 19566-5): cut, made, hashed.

Pure functions of bytes. Whatever is malformed raises UnreadableMediaError; every walk is bounded.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from watermark.errors import UnreadableMediaError

C2PA_UUID = bytes.fromhex("d8fec3d61b0e483c92975828877ec481")
"""Type of the `uuid` box that holds a manifest store, C2PA §A.5.1."""
MAX_BOXES = 4096
_MAX_DEPTH = 16
_JUMBF_TAIL = bytes.fromhex("00110010800000AA00389B71")
"""What follows four letters in the type of a JUMBF content, ISO 19566-5 §A."""


@dataclass(frozen=True)
class Box:
    """One box in a file.

    Attributes:
        kind: four letters.
        offset: of its first byte in what was cut.
        data: the whole box with its header.
        header_size: 8, or 16 with a 64-bit size.
    """

    kind: bytes
    offset: int
    data: bytes
    header_size: int

    @property
    def body(self) -> bytes:
        """What follows the header."""
        return self.data[self.header_size :]


def cut(data: bytes, offset: int = 0) -> list[Box]:
    """The boxes that `data` from `offset` on consists of, end to end. Raises: UnreadableMediaError."""
    found: list[Box] = []
    while offset < len(data):
        if len(found) >= MAX_BOXES:
            raise UnreadableMediaError("The file consists of more boxes than any real one.")
        header = data[offset : offset + 16]
        if len(header) < 8:
            raise UnreadableMediaError("The file ends within the header of a box.")
        size, kind = struct.unpack(">I4s", header[:8])
        header_size = 8
        if size == 1 and len(header) == 16:
            header_size, size = 16, int.from_bytes(header[8:], "big")
        elif size == 0:
            size = len(data) - offset
        if size < header_size or offset + size > len(data):
            raise UnreadableMediaError("A box is longer than the file, or shorter than its own header.")
        found.append(Box(kind, offset, data[offset : offset + size], header_size))
        offset += size
    return found


def child(box: Box, *path: bytes) -> Box | None:
    """The first box at `path` below `box`, e.g. b"mdia", b"mdhd". Raises: UnreadableMediaError."""
    for kind in path:
        inner = next((each for each in cut(box.body) if each.kind == kind), None)
        if inner is None:
            return None
        box = inner
    return box


def make(kind: bytes, body: bytes) -> bytes:
    """A box around `body`."""
    return struct.pack(">I4s", 8 + len(body), kind) + body


def bmff_hash(data: bytes, is_excluded: Callable[[Box], bool]) -> bytes:
    """SHA-256 of version 3 of the BMFF hash (C2PA §18.6.2): every top-level box, behind its offset in eight bytes."""
    digest = hashlib.sha256()
    for box in cut(data):
        if not is_excluded(box):
            digest.update(struct.pack(">Q", box.offset))
            digest.update(box.data)
    return digest.digest()


# ---- JUMBF -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Superbox:
    """A labelled JUMBF superbox.

    Attributes:
        kind: four letters of its content type: "c2pa", "c2ma", "c2as", "c2cl", "c2cs", "cbor" and so on.
        label: its name.
        superboxes: further ones within, in order.
        contents: other boxes within, in order.
        body: all of it without the outer header; what a hashed URI covers (C2PA §8.4.2.3).
    """

    kind: str
    label: str
    superboxes: tuple[Superbox, ...]
    contents: tuple[Box, ...]
    body: bytes

    def find(self, label: str) -> Superbox | None:
        """The first superbox within that has this label."""
        return next((each for each in self.superboxes if each.label == label), None)


def make_superbox(kind: bytes, label: str, *inside: bytes) -> bytes:
    """A superbox of content type `kind` that may be requested by its label."""
    description = make(b"jumd", kind + _JUMBF_TAIL + b"\x03" + label.encode() + b"\0")
    return make(b"jumb", description + b"".join(inside))


def parse_superbox(box: Box, depth: int = 0) -> Superbox:
    """Read a `jumb` box. Raises: UnreadableMediaError."""
    if box.kind != b"jumb" or depth > _MAX_DEPTH:
        raise UnreadableMediaError("The manifest store is not built of JUMBF boxes, or too deep.")
    description, *inside = cut(box.body) or [box]
    label, end, _ = description.body[17:].partition(b"\0")
    if description.kind != b"jumd" or len(description.body) < 17 or not end:
        raise UnreadableMediaError("A box of the manifest store has no label.")
    try:
        kind, name = description.body[:4].decode("ascii"), label.decode()
    except UnicodeDecodeError as exc:
        raise UnreadableMediaError("A box of the manifest store has an unreadable label.") from exc
    return Superbox(
        kind=kind,
        label=name,
        superboxes=tuple(parse_superbox(each, depth + 1) for each in inside if each.kind == b"jumb"),
        contents=tuple(each for each in inside if each.kind != b"jumb"),
        body=box.body,
    )


def is_manifest_store(box: Box) -> bool:
    """Whether this is the `uuid` box of a C2PA manifest store."""
    return box.kind == b"uuid" and box.body[:16] == C2PA_UUID


def manifest_store(data: bytes) -> Superbox | None:
    """The manifest store embedded in an MP4 file, or None. Raises: UnreadableMediaError."""
    store = embedded_store(data)
    return None if store is None else parse_superbox(next(_boxes(store)))


def embedded_store(data: bytes) -> bytes | None:
    """The same as bytes. Raises: UnreadableMediaError."""
    found = [box for box in cut(data) if is_manifest_store(box)]
    if not found:
        return None
    # C2PA §A.5.1: type, version and flags, purpose with a final zero, offset of a Merkle box, the store
    purpose, end, rest = found[0].body[20:].partition(b"\0")
    if len(found) > 1 or purpose != b"manifest" or not end:
        raise UnreadableMediaError("The file does not hold exactly one manifest store.")
    return next(_boxes(rest[8:])).data


def make_manifest_box(store: bytes) -> bytes:
    """The `uuid` box that embeds a manifest store in an MP4 file, C2PA §A.5.1."""
    return make(b"uuid", C2PA_UUID + bytes(4) + b"manifest\0" + bytes(8) + store)


def _boxes(data: bytes) -> Iterator[Box]:
    found = cut(data)
    if not found:
        raise UnreadableMediaError("The manifest store is empty.")
    return iter(found)
