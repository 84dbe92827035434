"""How manifests and live streams are judged: here, and by a second validator that shares no code with ours.

Three parts: the public test files of the C2PA, each held against what its name says; our own outputs; and a live stream
under attack. The second validator is the PyPI package `encypher-c2pa`; without it those columns stay empty.

H,W pixel  C colour channel (R,G,B)
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from watermark.authority import SigningAuthority
from watermark.boxes import cut
from watermark.credentials import Ingredient, ManifestSpec, read_credentials, sign
from watermark.embed import Embedder
from watermark.encoding import VideoCoding
from watermark.errors import LiveError
from watermark.live import ENCYPHER, SPECIFICATION, Dialect, LiveSigner, LiveVerifier, verify_stream
from watermark.mark import UnmarkedFrames, produce
from watermark.media import Sound
from watermark.payload import MarkId
from watermark.segments import LiveProducer, SegmentEncoder
from watermark.tsa import TimeStampAuthority, TimeStampServer

_MIME_BY_SUFFIX = {".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".png": "image/png", ".mp4": "video/mp4"}
_CODE_BY_FLAW = {
    "E-clm": "ingredient.manifest.missing",
    "E-dat": "assertion.dataHash.mismatch",
    "E-sig": "claimSignature.mismatch",
    "E-uri": "assertion.hashedURI.mismatch",
    "X": "assertion.dataHash.mismatch",
}
"""What the letters in a file's name say is wrong with it, and the status code of C2PA §15.2 for it."""
_SIDE_PX, _RATE_HZ, _SOUND_HZ = 256, 25.0, 48_000


@dataclass(frozen=True)
class Row:
    """One judgement.

    Attributes:
        subject: file, output or attack.
        expected: state, or state and status code.
        found: ours.
        is_as_expected: of ours.
        second: the second validator's word; "" where it is not installed or was not asked.
        second_agrees: None where it was not asked.
    """

    subject: str
    expected: str
    found: str
    is_as_expected: bool
    second: str = ""
    second_agrees: bool | None = None


# ---- the second validator --------------------------------------------------------------------------------------------


def second_validator() -> Any | None:
    """The module `encypher_c2pa`, where it is installed."""
    try:
        return importlib.import_module("encypher_c2pa")
    except ImportError:
        return None


def _second_state(data: bytes, mime: str, root_pem: str) -> str:
    """Its verdict in our words."""
    second = second_validator()
    if second is None:
        return ""
    report = second.verify(data, mime, trust_pem=root_pem or None, tsa_trust_pem=root_pem or None, telemetry=False)
    return {"Trusted": "trusted", "Valid": "valid", "None": "absent"}.get(str(report["validation_state"]), "invalid")


# ---- the public test files -------------------------------------------------------------------------------------------


def expectation(name: str) -> tuple[str, str]:
    """State and status code that the name of a public test file promises, e.g. `adobe-20220124-E-sig-CA.jpg`."""
    letters = re.sub(r"^.*?-\d{8}-", "", Path(name).stem)
    for flaw, code in _CODE_BY_FLAW.items():
        if letters.startswith(flaw):
            return "invalid", code
    return ("valid", "") if "C" in letters else ("absent", "")


def judge_files(files: Sequence[Path]) -> list[Row]:
    """Every file held against its name. Their signers are on no list of ours: good ones are valid, not trusted."""
    rows = []
    for path in files:
        mime = _MIME_BY_SUFFIX[path.suffix.lower()]
        state, code = expectation(path.name)
        reading = read_credentials(path, mime, "")
        codes = {problem.code for problem in reading.problems}
        second = _second_state(path.read_bytes(), mime, "")
        rows.append(
            Row(
                subject=path.name,
                expected=f"{state} {code}".strip(),
                found=" ".join([reading.state, *sorted(codes)]),
                is_as_expected=reading.state == state and (not code or code in codes),
                second=second,
                second_agrees=second == state if second else None,
            )
        )
    return rows


# ---- our own outputs -------------------------------------------------------------------------------------------------


def judge_outputs(folder: Path) -> list[Row]:
    """A delivery, a picture and a stream made for the purpose, with and without their bytes changed.

    Args:
        folder: to work in; empty.
    """
    SigningAuthority.create(folder / "pki", "Conformance")
    with TimeStampServer(TimeStampAuthority.load(folder / "pki")) as stamps:
        authority = SigningAuthority.load(folder / "pki").with_time_stamps(stamps.url)
        frames_THWC, sound = scene(50)
        picture = cv2.imencode(".png", frames_THWC[0])[1].tobytes()
        spec = pattern_spec(picture)
        produce(
            [UnmarkedFrames(frames_THWC)],
            sound,
            rate_hz=_RATE_HZ,
            mark_id=spec.mark_id,
            key=bytes(32),
            spec=spec,
            authority=authority,
            dst=folder / "delivery.mp4",
        )
        (folder / "in.png").write_bytes(picture)
        sign(folder / "in.png", folder / "picture.png", spec, authority, mime="image/png")
    rows = []
    for name in ("delivery.mp4", "picture.png"):
        data = (folder / name).read_bytes()
        changed = data[:-200] + bytes([data[-200] ^ 1]) + data[-199:]
        for subject, content, state in ((name, data, "trusted"), (f"{name}, one bit flipped", changed, "invalid")):
            mime = _MIME_BY_SUFFIX[Path(name).suffix]
            found = read_credentials(content, mime, authority.root_pem)
            second = _second_state(content, mime, authority.root_pem)
            is_stamped = found.signed_at is not None or state == "invalid"
            is_expected, agrees = found.state == state and is_stamped, second == state if second else None
            rows.append(Row(subject, state, found.state, is_expected, second, agrees))
    return rows


# ---- live streams ----------------------------------------------------------------------------------------------------


def judge_live(folder: Path) -> list[Row]:
    """A stream as it should be and under each attack, in the specification's dialect and in the second validator's."""
    authority = SigningAuthority.create(folder / "pki-live", "Conformance")
    mine = _stream(authority, SPECIFICATION)
    foreign = _stream(authority, SPECIFICATION)
    theirs, their_foreign = _stream(authority, ENCYPHER), _stream(authority, ENCYPHER)
    rows = []
    for name, attack, codes, is_visible in _ATTACKS:
        found = _live_code(mine[0], attack(mine[1], foreign[1]), authority.root_pem)
        second = _second_live(theirs[0], attack(theirs[1], their_foreign[1]), authority.root_pem)
        rows.append(
            Row(
                subject=f"live: {name}",
                expected=" or ".join(codes),
                found=found,
                is_as_expected=found in codes,
                second=second,
                second_agrees=(second == "refused") is is_visible if second else None,
            )
        )
    return rows


Segments = Sequence[bytes]
Attack = Callable[[Segments, Segments], Segments]


def _flipped(segment: bytes, place: int) -> bytes:
    return segment[:place] + bytes([segment[place] ^ 1]) + segment[place + 1 :]


def _stripped(segment: bytes) -> bytes:
    return b"".join(box.data for box in cut(segment) if box.kind != b"emsg")


_ATTACKS: tuple[tuple[str, Attack, tuple[str, ...], bool], ...] = (
    ("as it is", lambda mine, _: mine, ("verified",), False),
    ("tampered picture", lambda mine, _: [mine[0], _flipped(mine[1], -99), *mine[2:]], ("live.tampered",), True),
    ("segment cut short", lambda mine, _: [mine[0], mine[1][:-500], *mine[2:]], ("live.tampered",), True),
    ("segment dropped", lambda mine, _: [mine[0], *mine[2:]], ("live.gap",), True),
    ("segments reordered", lambda mine, _: [mine[0], mine[2], mine[1], *mine[3:]], ("live.gap",), True),
    ("segment replayed", lambda mine, _: [mine[0], mine[1], mine[1], *mine[2:]], ("live.replayed",), True),
    ("foreign segment", lambda mine, other: [mine[0], other[1], *mine[2:]], ("live.foreign",), True),
    ("signed info stripped", lambda mine, _: [mine[0], _stripped(mine[1]), *mine[2:]], ("live.unsigned",), True),
    # Only our signed end shows it; a validator of the standard alone cannot know that there was more.
    ("tail cut off", lambda mine, _: mine[:-1], ("live.truncated",), False),
)
"""Name, what arrives, how it is refused, and whether the standard lets a validator see it at all."""


def _live_code(init: bytes, segments: Segments, root_pem: str) -> str:
    try:
        verify_stream(init, segments, root_pem)
    except LiveError as error:
        return error.code
    return "verified"


def _second_live(init: bytes, segments: Segments, root_pem: str) -> str:
    second = second_validator()
    if second is None:
        return ""
    try:
        report = second.verify_stream(
            init, list(segments), "video/mp4", encapsulation="fMP4", trust_pem=root_pem, telemetry=False
        )
    except ValueError:  # its way to refuse what does not consist of whole boxes
        return "refused"
    return "verified" if report["integrity"] == "valid" else "refused"


def _stream(authority: SigningAuthority, dialect: Dialect) -> tuple[bytes, list[bytes]]:
    frames_THWC, sound = scene(100)
    spec = pattern_spec(b"")
    producer = LiveProducer(
        SegmentEncoder(width=_SIDE_PX, height=_SIDE_PX, rate_hz=_RATE_HZ, coding=VideoCoding(num_threads=1)),
        Embedder(bytes(32), spec.mark_id, _SIDE_PX, _SIDE_PX, _RATE_HZ),
        LiveSigner(authority, spec, dialect=dialect),
    )
    segments = producer.write(UnmarkedFrames(frames_THWC), sound)
    segments += producer.finish()
    LiveVerifier(producer.init_segment, authority.root_pem)
    return producer.init_segment, segments


# ---- material --------------------------------------------------------------------------------------------------------


def scene(num_frames: int, side_px: int = _SIDE_PX) -> tuple[NDArray[np.uint8], Sound]:
    """A soft pattern that drifts, and a hum: enough for every part, and nobody's face."""
    rng = np.random.default_rng(2026)
    canvas = cv2.GaussianBlur(rng.normal(0, 1, (side_px + num_frames, side_px + num_frames, 3)), (0, 0), 9)
    canvas_HWC = np.clip(120 + canvas / canvas.std() * 25, 0, 255).astype(np.uint8)
    frames_THWC = np.stack([canvas_HWC[t : t + side_px, t : t + side_px] for t in range(num_frames)])
    times = np.arange(round(num_frames / _RATE_HZ * _SOUND_HZ)) / _SOUND_HZ
    samples_N = 0.1 * np.sin(2 * np.pi * 180 * times) * np.sin(2 * np.pi * 2 * times) + rng.normal(0, 0.01, len(times))
    return frames_THWC, Sound(samples_N.astype(np.float32), _SOUND_HZ)


def pattern_spec(picture: bytes) -> ManifestSpec:
    """A claim about such a scene."""
    part = Ingredient(picture, "image/png", "Pattern")
    return ManifestSpec("Conformance", part, part, MarkId.from_hex("c0f0c0f0c0f0c0f0"), None, {"index": 0}, "0")


# ---- all of it -------------------------------------------------------------------------------------------------------


def report(files: Sequence[Path], folder: Path) -> dict[str, Any]:
    """Everything, JSON-able.

    Args:
        files: public test files; may be empty.
        folder: to work in; empty.
    """
    parts = {"files": judge_files(files), "outputs": judge_outputs(folder), "live": judge_live(folder)}
    rows = [row for part in parts.values() for row in part]
    return {
        **{name: [asdict(row) for row in part] for name, part in parts.items()},
        "num_as_expected": sum(row.is_as_expected for row in rows),
        "num_judged": len(rows),
        "second_validator": "encypher-c2pa" if second_validator() is not None else None,
        "num_second_disagrees": sum(row.second_agrees is False for row in rows),
    }


def table(found: dict[str, Any]) -> str:
    """The report for people."""
    lines = [f"{'subject':<38} {'expected':<36} {'ours':<48} second"]
    for part in ("files", "outputs", "live"):
        for row in found[part]:
            flag = " " if row["is_as_expected"] else "!"
            second = row["second"] + ("" if row["second_agrees"] is not False else "  (differs)")
            lines.append(f"{row['subject']:<38} {row['expected']:<36} {row['found']:<48}{flag}{second}")
    lines.append(
        f"{found['num_as_expected']} of {found['num_judged']} as expected; "
        f"the second validator differs on {found['num_second_disagrees']}"
    )
    return "\n".join(lines)
