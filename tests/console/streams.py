"""A small live stream, signed like any other, for checks in the browser."""

from __future__ import annotations

import base64
import tempfile
from pathlib import Path

import numpy as np

from watermark.authority import SigningAuthority
from watermark.embed import Embedder
from watermark.encoding import VideoCoding
from watermark.live import EndSigner, LiveSigner
from watermark.manifest import Ingredient, ManifestSpec
from watermark.mark import UnmarkedFrames
from watermark.payload import MarkId
from watermark.segments import LiveProducer, SegmentEncoder

SIDE_PX = 96


def small_stream() -> tuple[str, list[str], str]:
    """Init segment and segments in base64, and the id of the manifest; three segments and the signed end."""
    mark_id = MarkId.from_hex("00c0ffee00c0ffee")
    with tempfile.TemporaryDirectory() as scratch:
        authority = SigningAuthority.create(Path(scratch) / "pki", "Tests")
    end = EndSigner(authority.chain_der[0])
    spec = ManifestSpec(
        title="Stream",
        portrait=Ingredient(b"", "image/png", "Portrait"),
        speech=Ingredient(b"", "audio/L16", "Voice"),
        mark_id=mark_id,
        consent=None,
        log={"index": 1},
        software_version="0",
    )
    encoder = SegmentEncoder(
        width=SIDE_PX, height=SIDE_PX, rate_hz=25.0, has_sound=False, segment_s=0.04, coding=VideoCoding(num_threads=1)
    )
    signer = LiveSigner(authority, spec, further_keys=[end.entry])
    producer = LiveProducer(encoder, Embedder(b"k" * 32, mark_id, SIDE_PX, SIDE_PX, 25.0), signer)
    frames = np.full((3, SIDE_PX, SIDE_PX, 3), 128, np.uint8)
    segments = producer.write(UnmarkedFrames(frames), None)
    segments += [segment.data for segment in producer.finish_segments()]
    segments.append(end.end(producer.manifest_id, len(segments), "complete"))
    return _text(producer.init_segment), [_text(segment) for segment in segments], producer.manifest_id


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
