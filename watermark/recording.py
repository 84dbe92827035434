"""A recording: what has left of a live stream, as one signed MP4 that plays anywhere. Nothing is coded anew.

The frames in it are those of the stream, marked as they left, and so is the sound; only the boxes around them are
others. Its manifest is a new one: it names the manifest of the stream, and the log entries of the session.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import av.error
import numpy as np

from watermark.authority import SigningAuthority
from watermark.credentials import SOFT_BINDING_ALGORITHMS
from watermark.encoding import encode_sound_wav
from watermark.errors import EmptyOutputError, EncodingError
from watermark.fingerprint import FingerprintTaker
from watermark.labels import container_metadata, disclosure
from watermark.manifest import Ingredient, ManifestSpec
from watermark.mark import Produced, partial_names, seal
from watermark.media import CLIP_LIMITS, SPEECH_RATE_HZ, MediaLimits, Sound, decode_sound_track

VOICE_TITLE = "Voice of a live session"
_NOTHING_SAID = Sound(np.zeros(SPEECH_RATE_HZ, np.float32), SPEECH_RATE_HZ)


def record(
    stream: Path,
    dst: Path,
    spec: ManifestSpec,
    authority: SigningAuthority,
    fingerprints: FingerprintTaker,
    *,
    limits: MediaLimits = CLIP_LIMITS,
) -> Produced:
    """Make the recording of a stream.

    Args:
        stream: its init segment and the segments that have left, one behind the other.
        dst: the file to deliver; its directory exists. Replaced only by a complete file.
        spec: what the manifest claims; sound and fingerprints are added to it.
        authority: signs it.
        fingerprints: has seen the frames.
        limits: bounds on the length of the stream.
    Raises: EmptyOutputError: no frame has left. EncodingError, SigningError, TimeStampError.
    """
    authority.check_can_sign()
    unsigned, signed = partial_names(dst)
    try:
        # (1) other boxes around the same frames
        num_frames, duration_s = _rewrap(stream, unsigned, container_metadata(spec.mark_id))
        if num_frames == 0:
            raise EmptyOutputError("No frame of this session has left, so there is nothing to record.")
        # (2) what was said, as ingredient and for the fingerprints
        sound = decode_sound_track(unsigned, limits)
        voice = Ingredient(encode_sound_wav(sound or _NOTHING_SAID), "audio/wav", VOICE_TITLE)
        claimed = replace(
            spec,
            speech=voice,
            fingerprints=fingerprints.finish(sound).to_json(),
            soft_bindings=SOFT_BINDING_ALGORITHMS,
            disclosure=disclosure(spec.mark_id, spec.software_version, authority.now()),
        )
        # (3) sign, and give it its name
        return seal(unsigned, signed, dst, claimed, authority, num_frames=num_frames, duration_s=duration_s)
    finally:
        unsigned.unlink(missing_ok=True)
        signed.unlink(missing_ok=True)


def _rewrap(source: Path, target: Path, metadata: dict[str, str]) -> tuple[int, float]:
    """Copy all packets into a file that plays at once. Returns number of frames and duration of the picture."""
    num_frames, end_s = 0, 0.0
    try:
        with (
            av.open(str(source)) as read,
            av.open(str(target), "w", format="mp4", options={"movflags": "+faststart+use_metadata_tags"}) as written,
        ):
            written.metadata.update(metadata)
            copies: dict[int, Any] = {each.index: written.add_stream_from_template(each) for each in read.streams}
            for packet in read.demux():
                if packet.dts is None:  # the end of a track
                    continue
                if packet.stream.type == "video" and packet.pts is not None:
                    num_frames += 1
                    end_s = float((packet.pts + (packet.duration or 0)) * packet.time_base)
                packet.stream = copies[packet.stream.index]
                written.mux(packet)
    except (av.error.FFmpegError, OSError) as exc:
        raise EncodingError(f"The recording could not be written ({type(exc).__name__}).") from exc
    return num_frames, end_s
