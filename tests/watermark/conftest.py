"""What the tests of the watermark package share: a key, an authority, a short talking clip."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import cv2
import pytest

from tests.watermark.clips import talking
from watermark.credentials import Ingredient, ManifestSpec, SigningAuthority
from watermark.encoding import encode_sound_wav
from watermark.media import Clip
from watermark.payload import MarkId

SHARED_DATA = Path(__file__).resolve().parents[3] / "shared" / "data"


@pytest.fixture(scope="session")
def key() -> bytes:
    return hashlib.sha256(b"tests of the watermark").digest()


@pytest.fixture(scope="session")
def mark_id() -> MarkId:
    return MarkId.from_hex("0123456789abcdef")


@pytest.fixture(scope="session")
def clip() -> Clip:
    return talking()


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> SigningAuthority:
    return SigningAuthority.create(tmp_path_factory.mktemp("pki") / "pki", "Placet local instance (tests)")


@pytest.fixture(scope="session")
def make_spec(clip: Clip) -> Callable[[MarkId], ManifestSpec]:
    """Builds the claim for an output made from the first frame and the sound of `clip`."""
    assert clip.sound is not None
    portrait = cv2.imencode(".png", clip.frames_THWC[0][::4, ::4, ::-1])[1].tobytes()
    speech = encode_sound_wav(clip.sound)

    def make(mark_id: MarkId) -> ManifestSpec:
        return ManifestSpec(
            title="Talking portrait",
            portrait=Ingredient(portrait, "image/png", "Portrait"),
            speech=Ingredient(speech, "audio/wav", "Speech"),
            mark_id=mark_id,
            consent={"sha256": "5e" * 32, "purpose": "https://w3id.org/dpv#ResearchAndDevelopment"},
            log={"index": 7, "inclusion_proof": ["ab" * 32], "checkpoint": "placet.test/log\n8\n"},
            software_version="0.1.0",
        )

    return make


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The shared data folder, which lies beside the repository where there is one."""
    if not SHARED_DATA.is_dir():
        pytest.skip("the shared data folder is not beside this checkout")
    return SHARED_DATA
