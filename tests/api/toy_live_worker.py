"""A live worker that draws instead of rendering, for the tests of sessions: everything else about it is real.

Permits are redeemed, frames and sound marked, segments signed, recordings made, in a process of its own that
speaks the real wire. Only the pictures are no faces, and small.
"""

from __future__ import annotations

import base64
import os
import queue
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from api.engine.child import Handler, Progress, connect, serve
from api.engine.signing import GatewayKey, worker_authority
from api.engine.wire import Message
from api.engine.worker import PREPARE
from api.live.worker import live
from generator.errors import ControlError
from generator.live_terms import LiveTerms
from policy.permit import PermitLedger, PermitVerifier
from watermark.audio_mark import AudioEmbedder
from watermark.embed import Embedder
from watermark.encoding import VideoCoding
from watermark.fingerprint import FingerprintTaker
from watermark.live import LiveSigner
from watermark.manifest import SOFT_BINDING_ALGORITHMS, Ingredient, ManifestSpec
from watermark.mark import UnmarkedFrames
from watermark.media import Sound
from watermark.payload import MarkId
from watermark.recording import record
from watermark.segments import LiveProducer, SegmentEncoder

SIDE_PX = 128
DIE_AT = 90
"""A `blink_rate` of this number kills the worker; it is above what a control may be."""


class ToyStream:
    """As `generator.live.LiveStream`, with a moving gradient for a face."""

    def __init__(self, producer: LiveProducer, terms: LiveTerms, controls: dict[str, Any], recorder: Any) -> None:
        self._producer, self._terms, self._controls, self._recorder = producer, terms, controls, recorder
        self._heard: queue.SimpleQueue[np.ndarray | None] = queue.SimpleQueue()
        self._parts: list[bytes] = [producer.init_segment]
        self._samples_left = terms.max_duration_ms * terms.sound_rate_hz // 1000
        self.is_expired = False
        self.init_segment, self.manifest_id = producer.init_segment, producer.manifest_id

    def __enter__(self) -> ToyStream:
        return self

    def __exit__(self, *_: object) -> None:
        return

    def hear(self, samples_N: np.ndarray) -> None:
        if self.is_expired:
            return
        self._heard.put(samples_N[: self._samples_left])
        self._samples_left -= len(samples_N)
        if self._samples_left <= 0:
            self.is_expired = True
            self.finish()

    def change(self, controls: dict[str, Any]) -> None:
        if controls.get("blink_rate") == DIE_AT:
            os._exit(3)
        if controls.get("blink_rate") == DIE_AT + 1:
            time.sleep(3600)
        if unknown := set(controls) - set(self._controls):
            raise ControlError(min(unknown), f"{min(unknown)!r} may not be changed in this session.")

    def finish(self) -> None:
        self._heard.put(None)

    def abort(self, _error: BaseException | None = None) -> None:
        self._heard.put(None)

    def segments(self) -> Iterator[Any]:
        from generator.live_terms import SOUND_RATES_HZ

        times = SOUND_RATES_HZ[1] // self._terms.sound_rate_hz
        per_frame, waiting, number, frame = SOUND_RATES_HZ[1] // self._terms.rate_hz, np.zeros(0, np.float32), 0, 0
        while (samples_N := self._heard.get()) is not None:
            waiting = np.concatenate([waiting, np.repeat(samples_N, times)])
            while len(waiting) >= per_frame:
                picture = np.add.outer(np.arange(SIDE_PX), np.arange(SIDE_PX) + frame) % 200
                frames = UnmarkedFrames(np.repeat(picture.astype(np.uint8)[None, ..., None], 3, axis=-1))
                frame += 1
                for each in self._producer.write_segments(frames, Sound(waiting[:per_frame], SOUND_RATES_HZ[1])):
                    number += 1
                    yield self._numbered(each, number)
                waiting = waiting[per_frame:]
        for each in self._producer.finish_segments():
            number += 1
            yield self._numbered(each, number)

    def _numbered(self, segment: Any, number: int) -> Any:
        from types import SimpleNamespace

        self._parts.append(segment.data)
        return SimpleNamespace(data=segment.data, number=number, num_frames=segment.num_frames, num_repeated=0)

    def record(self, num_segments: int, dst: Path, session: dict[str, Any]) -> Any:
        spool = dst.with_suffix(".stream")
        spool.write_bytes(b"".join(self._parts[: num_segments + 1]))
        return self._recorder(spool, dst, session)


class ToyWorker:
    """As `generator.session.RenderWorker`, for live sessions alone."""

    def __init__(self, hello: Message, authority: Any) -> None:
        public = Ed25519PublicKey.from_public_bytes(base64.b64decode(hello.header["permit_public"]))
        ledger = PermitLedger(Path(hello.header["ledger"]))
        self._verifier = PermitVerifier(public, hello.header["name"], ledger, time.time)
        self._key, self._authority = hello.attachments["watermark_key"], authority

    def open_live(self, permit_token: str, **job: Any) -> ToyStream:
        grant = self._verifier.redeem(
            permit_token, portrait=job["portrait"], speech=job["terms"], controls=job["controls"]
        )
        terms, mark_id = LiveTerms.from_bytes(job["terms"]), MarkId.from_hex(grant.permit.mark_id)
        spec = ManifestSpec(
            title="Toy",
            portrait=Ingredient(job["portrait"], "image/png", "Portrait"),
            speech=Ingredient(job["terms"], "audio/L16", "Voice"),
            mark_id=mark_id,
            consent=job["consent"],
            log=job["evidence"],
            software_version="toy",
            soft_bindings=SOFT_BINDING_ALGORITHMS,
        )
        fingerprints = FingerprintTaker(SIDE_PX, SIDE_PX)
        producer = LiveProducer(
            SegmentEncoder(
                width=SIDE_PX, height=SIDE_PX, rate_hz=terms.rate_hz, key_frame_s=1.0,
                segment_s=terms.frames_per_segment / terms.rate_hz, coding=VideoCoding(num_threads=1),
            ),
            Embedder(self._key, mark_id, SIDE_PX, SIDE_PX, terms.rate_hz),
            LiveSigner(self._authority, spec, further_keys=[job["end_key"]]),
            sound_embedder=AudioEmbedder(self._key, mark_id, 48_000),
            fingerprints=fingerprints,
        )  # fmt: skip

        def recorded(stream: Path, dst: Path, session: dict[str, Any]) -> Any:
            return record(stream, dst, replace(spec, session=session), self._authority, fingerprints)

        return ToyStream(producer, terms, job["controls"], recorded)


def prepare(hello: Message) -> Handler:
    """The keys and certificates of the greeting; no models."""
    pki = Path(hello.header["pki"])
    claim_key = GatewayKey(pki)
    authority = worker_authority(pki, claim_key, hello.header["tsa_url"], hello.header["tsa_roots_pem"])
    worker: Any = ToyWorker(hello, authority)

    def handle(job: Message, progress: Progress) -> Message:
        if job.header["op"] == PREPARE:
            return Message({"summary": {}})
        claim_key.ask = progress.ask
        return live(worker, job, progress)

    return handle


if __name__ == "__main__":
    serve(connect(sys.argv), prepare)
