"""Files that are made to break whoever verifies them: cut short, hollow, overgrown, nested, signed by a stranger."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import c2pa
import cv2
import numpy as np

from watermark.authority import SigningAuthority
from watermark.encoding import encode_clip, encode_sound_wav
from watermark.media import Clip

_JPEG = "image/jpeg"


def jpeg(side_px: int = 64, seed: int = 0) -> bytes:
    """A small picture."""
    pixels = np.random.default_rng(seed).integers(0, 255, (side_px // 8, side_px // 8, 3), np.uint8)
    enlarged = cv2.resize(pixels, (side_px, side_px), interpolation=cv2.INTER_CUBIC)
    return bytes(cv2.imencode(".jpg", enlarged)[1])


def mp4(clip: Clip, folder: Path) -> bytes:
    """An unsigned clip."""
    path = folder / "unsigned.mp4"
    encode_clip(clip, path)
    return path.read_bytes()


def one_frame(clip: Clip, folder: Path) -> bytes:
    """A video of a single frame."""
    return mp4(Clip(clip.frames_THWC[:1], clip.rate_hz), folder)


def audio_only(clip: Clip) -> bytes:
    """The sound of a clip as WAV."""
    assert clip.sound is not None
    return encode_sound_wav(clip.sound)


def sparse(path: Path, num_bytes: int = 4 * 2**30) -> Path:
    """A file that begins like an MP4 and is hollow: gigabytes that take no room on the disk."""
    with path.open("wb") as file:
        file.write(b"\0\0\0\x18ftypisom\0\0\x02\0isomiso2\0\0\0\x01mdat" + (num_bytes - 40).to_bytes(8, "big"))
        file.truncate(num_bytes)
    return path


class Stranger:
    """Somebody else with a certificate, who signs whatever it likes."""

    def __init__(self, authority: SigningAuthority) -> None:
        self._authority = authority

    def signed(
        self, asset: bytes, mime: str, *, ingredients: list[tuple[bytes, str]] | None = None, padding: int = 0
    ) -> bytes:
        """`asset` with a manifest: ingredients with their own manifests inside, and `padding` bytes of nothing."""
        assertions: list[dict[str, Any]] = [
            {
                "label": "c2pa.actions.v2",
                "data": {
                    "actions": [
                        {
                            "action": "c2pa.created",
                            "digitalSourceType": "http://cv.iptc.org/newscodes/digitalsourcetype/digitalCapture",
                        }
                    ]
                },
            }
        ]
        definition: dict[str, Any] = {
            "claim_generator_info": [{"name": "stranger", "version": "1"}],
            "assertions": assertions,
        }
        if padding:
            definition["thumbnail"] = {"format": "image/jpeg", "identifier": "padding"}
        builder = c2pa.Builder.from_json(json.dumps(definition), context=c2pa.Context.from_dict(_settings()))
        if padding:
            builder.add_resource("padding", io.BytesIO(jpeg() + bytes(padding)))
        for data, kind in ingredients or []:
            builder.add_ingredient({"title": "before", "relationship": "componentOf"}, kind, io.BytesIO(data))
        authority = self._authority
        signer = c2pa.Signer.from_callback(authority.sign_bytes, c2pa.C2paSigningAlg.ES256, authority.chain_pem, None)
        target = io.BytesIO()
        builder.sign(signer, mime, io.BytesIO(asset), target)
        return target.getvalue()

    def nested(self, depth: int) -> bytes:
        """A picture whose manifest has an ingredient whose manifest has an ingredient, and so on."""
        picture = jpeg()
        current = self.signed(picture, _JPEG)
        for _ in range(depth - 1):
            current = self.signed(picture, _JPEG, ingredients=[(current, _JPEG)])
        return current


def _settings() -> dict[str, Any]:
    return {
        "version": 1,
        "builder": {"thumbnail": {"enabled": False}},
        "verify": {"verify_after_sign": False, "verify_trust": False, "remote_manifest_fetch": False},
    }


def corrupted(signed: bytes) -> bytes:
    """A signed file whose manifest store is damaged in the middle of its claim."""
    at = signed.index(b"c2pa.claim") + 60
    return signed[:at] + bytes(byte ^ 0x5A for byte in signed[at : at + 64]) + signed[at + 64 :]
