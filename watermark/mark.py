"""The one door out: rendered frames become a marked, signed video file, or nothing at all.

Frames come in as `UnmarkedFrames`, which nothing outside the renderer makes and nothing but `produce` opens. Whatever
goes wrong (also Ctrl-C, a full disk, an expired certificate), no file is left that looks whole: the work is done under
names that end in `.partial`, and only a file that verifies is renamed to its final name, in one step.

T frame  H,W pixel  C colour channel (R,G,B)
"""

from __future__ import annotations

import hashlib
import itertools
import os
import secrets
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import final

import numpy as np
from numpy.typing import NDArray

from watermark.audio_mark import MIN_RATE_HZ, AudioEmbedder
from watermark.colour import encoder_planes
from watermark.credentials import SOFT_BINDING_ALGORITHMS, ManifestSpec, SigningAuthority, read_credentials, sign
from watermark.embed import Embedder
from watermark.encoding import VideoCoding, VideoEncoder
from watermark.errors import EmptyOutputError, InconsistentFramesError, InvalidManifestSpecError
from watermark.fingerprint import Fingerprints, FingerprintTaker
from watermark.labels import Labels, check_regimes, container_metadata, disclosure
from watermark.media import SPEECH_RATE_HZ, Sound
from watermark.payload import MarkId


@final
class UnmarkedFrames:
    """Rendered frames on their way to `produce`; opaque on purpose.

    Args:
        frames_THWC: sRGB, uint8, at least one frame.
    """

    __slots__ = ("__frames_THWC",)

    def __init__(self, frames_THWC: NDArray[np.uint8]) -> None:
        if frames_THWC.dtype != np.uint8 or frames_THWC.ndim != 4 or frames_THWC.shape[-1] != 3:
            raise InconsistentFramesError("Rendered frames must be uint8 of shape (T, H, W, 3).")
        self.__frames_THWC = frames_THWC

    def __len__(self) -> int:
        return len(self.__frames_THWC)

    def __repr__(self) -> str:
        return f"<{len(self)} unmarked frames>"

    def __reduce__(self) -> str:
        raise TypeError("unmarked frames do not leave the process")

    @staticmethod
    def _frames(unmarked: UnmarkedFrames) -> NDArray[np.uint8]:
        """The pixels. For `produce` alone; the architecture test looks for other callers."""
        return unmarked.__frames_THWC


@dataclass(frozen=True)
class Produced:
    """A delivered file.

    Attributes:
        path: where it lies.
        sha256: of the whole file, in hexadecimal.
        manifest_store: the C2PA manifest store, for the resolver.
        manifest_id: label of its active manifest.
        mark_id: what the frames carry.
        num_frames, duration_s: of the picture.
    """

    path: Path
    sha256: str
    manifest_store: bytes
    manifest_id: str
    mark_id: MarkId
    num_frames: int
    duration_s: float


def produce(
    frames: Iterable[UnmarkedFrames],
    speech: Sound,
    *,
    rate_hz: float,
    mark_id: MarkId,
    key: bytes,
    spec: ManifestSpec,
    authority: SigningAuthority,
    dst: Path,
    coding: VideoCoding | None = None,
    labels: Collection[str] = (),
    progress: Callable[[int], None] | None = None,
) -> Produced:
    """Mark picture and sound, encode, take fingerprints, sign and deliver one video.

    Args:
        frames: batches in order, taken as they come; memory does not grow with the length.
        speech: what is said, starting with the first frame.
        rate_hz: frames per second.
        mark_id: the id hidden in every frame and in the sound; the same as in `spec`.
        key: the watermark key, 32 bytes.
        spec: what the manifest claims; the fingerprints of what was encoded are added to it.
        authority: signs it.
        dst: the file to deliver; its directory exists. Replaced only by a complete file.
        coding: codec and quality of the picture.
        labels: regimes whose visible labels are drawn (see `watermark.labels`); the others cost nothing and are always
            there.
        progress: is told the number of frames written so far, after each batch.
    Raises: EmptyOutputError, InconsistentFramesError, FrameTooSmallError, EncodingError, SigningError,
        InvalidManifestSpecError, and whatever `frames` raises. Nothing is delivered then.
    """
    # (1) refuse what cannot be signed before the costly part
    if spec.mark_id != mark_id:
        raise InvalidManifestSpecError("The manifest names another mark id than the frames are to carry.")
    authority.check_can_sign()
    check_regimes(labels)
    if spec.disclosure is None:
        spec = replace(spec, disclosure=disclosure(mark_id, spec.software_version, authority.now()))
    unsigned, signed = partial_names(dst)
    try:
        # (2) mark and encode
        num_frames, fingerprints = _encode_marked(
            frames,
            speech,
            unsigned,
            rate_hz=rate_hz,
            mark_id=mark_id,
            key=key,
            coding=coding,
            labels=labels,
            progress=progress,
        )
        # (3) sign, (4) to disk, and only then under its name
        spec = replace(spec, fingerprints=fingerprints.to_json(), soft_bindings=SOFT_BINDING_ALGORITHMS)
        return seal(unsigned, signed, dst, spec, authority, num_frames=num_frames, duration_s=num_frames / rate_hz)
    finally:
        unsigned.unlink(missing_ok=True)
        signed.unlink(missing_ok=True)


def seal(
    unsigned: Path,
    signed: Path,
    dst: Path,
    spec: ManifestSpec,
    authority: SigningAuthority,
    *,
    num_frames: int,
    duration_s: float,
) -> Produced:
    """Sign a file of marked frames and give it its name, in one step; see `produce`.

    Args:
        unsigned: the file; `signed`: where the signed one may lie meanwhile. The caller removes both.
    Raises: SigningError, TimeStampError, InvalidManifestSpecError.
    """
    # (1) sign; this verifies the result too
    store = sign(unsigned, signed, spec, authority)
    reading = read_credentials(signed, "video/mp4", authority.root_pem)
    # (2) to disk, and only then under its name
    with signed.open("rb") as file:
        os.fsync(file.fileno())
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    signed.replace(dst)
    _sync_directory(dst.parent)
    return Produced(
        path=dst,
        sha256=sha256,
        manifest_store=store,
        manifest_id=reading.manifest_id or "",
        mark_id=spec.mark_id,
        num_frames=num_frames,
        duration_s=duration_s,
    )


def _encode_marked(
    frames: Iterable[UnmarkedFrames],
    speech: Sound,
    dst: Path,
    *,
    rate_hz: float,
    mark_id: MarkId,
    key: bytes,
    coding: VideoCoding | None,
    labels: Collection[str],
    progress: Callable[[int], None] | None,
) -> tuple[int, Fingerprints]:
    """Write the marked, unsigned file. Returns the number of frames, and what they and the sound are like."""
    batches: Iterator[UnmarkedFrames] = (batch for batch in frames if len(batch))
    head = list(itertools.islice(batches, 1))
    if not head:
        raise EmptyOutputError("The renderer gave no frame, so there is nothing to deliver.")
    height, width = (side & ~1 for side in UnmarkedFrames._frames(head[0]).shape[1:3])
    embedder = Embedder(key, mark_id, width, height, rate_hz)
    drawing = Labels(labels, width, height)
    taker = FingerprintTaker(width, height)
    sound = _marked_sound(speech, key, mark_id)
    with VideoEncoder(
        dst,
        width=width,
        height=height,
        rate_hz=rate_hz,
        sound=sound,
        coding=coding,
        metadata=container_metadata(mark_id),
    ) as encoder:
        for batch in _rejoined(head, batches):
            for frame_HWC in UnmarkedFrames._frames(batch):
                planes = encoder_planes(drawing.drawn(frame_HWC, encoder.num_frames / rate_hz))
                embedder.mark_planes(planes, encoder.num_frames)
                taker.add(planes.luma_HW, encoder.num_frames / rate_hz)
                encoder.write_planes(planes)
            if progress is not None:
                progress(encoder.num_frames)
    return encoder.num_frames, taker.finish(sound)


def _marked_sound(speech: Sound, key: bytes, mark_id: MarkId) -> Sound:
    """The sound with the same id as the frames; one too narrow for the mark is first brought to the rate of speech."""
    sound = speech if speech.rate_hz >= MIN_RATE_HZ else speech.resampled(SPEECH_RATE_HZ)
    return Sound(AudioEmbedder(key, mark_id, sound.rate_hz).apply(sound.samples_N), sound.rate_hz)


def _rejoined(head: list[UnmarkedFrames], tail: Iterator[UnmarkedFrames]) -> Iterator[UnmarkedFrames]:
    """All batches in order, each let go as soon as it is written."""
    while head:
        yield head.pop(0)
    yield from tail


def partial_names(dst: Path) -> tuple[Path, Path]:
    """Names beside `dst` for what is not whole yet: unsigned, and signed."""
    name = f".{dst.name}.{secrets.token_hex(4)}"
    return dst.with_name(f"{name}.u.partial"), dst.with_name(f"{name}.s.partial")


def _sync_directory(directory: Path) -> None:
    """Make the rename itself durable."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
