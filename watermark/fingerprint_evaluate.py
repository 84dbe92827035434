"""How often fingerprints know a clip again after what happens to videos and sounds, and how often they err on others.

True copies go the way that they go in a detection: the mark is read first, and what it tells (scale, mirror image,
tempo, pitch) is undone; a copy whose mark is not read is not compared. Different clips and recordings are compared in
every ordered pair, as a pasted mark would have it: with no change to undo.

T frame  H,W pixel  C colour channel (R,G,B)
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from watermark.attacks import SUITE, Attack
from watermark.audio_mark import AudioEmbedder, read_audio_mark
from watermark.colour import encoder_planes
from watermark.embed import Embedder
from watermark.extract import read_mark
from watermark.fingerprint import (
    LEAST_SIGNS,
    Feature,
    FingerprintReading,
    Fingerprints,
    FingerprintTaker,
    FoundContent,
    compare,
    sound_signs,
    views,
)
from watermark.media import Clip, Sound, decode_clip, decode_sound
from watermark.payload import MarkId
from watermark.sound_attacks import SOUND_SUITE, SoundAttack

Progress = Callable[[int, int, str], None]
"""Is told steps done, steps in all, and what comes next."""

PICTURE_ATTACKS: dict[str, Attack] = {
    name: SUITE[name]
    for name in (
        "none",
        "H.264 CRF 30",
        "H.264 CRF 36",
        "HEVC CRF 30",
        "JPEG 30",
        "resize 50 %",
        "resize 25 %",
        "blur σ 2",
        "noise σ 10",
        "grey",
        "brightness ×0.5",
        "contrast ×0.5",
        "15 Hz",
        "30 % of frames lost",
        "sticker",
        "flip",
        "crop 71 %",
        "crop 70 %, rescaled, + CRF 30",
        "rotate 5°",
        "perspective 4 %",
        "screen recording",
    )
}
SOUND_ATTACKS: dict[str, SoundAttack] = {
    name: SOUND_SUITE[name]
    for name in (
        "none",
        "MP3 64 kb/s",
        "AAC 48 kb/s",
        "Opus 32 kb/s",
        "Opus 16 kb/s",
        "noise 20 dB",
        "noise 15 dB",
        "speed +10 %",
        "speed -10 %",
        "8 kHz",
        "telephone 300-3400 Hz",
        "gain +12 dB, clipped",
        "echo 80 ms",
        "late start 0.377 s",
    )
}


def evaluate_fingerprints(
    clips: Sequence[Path],
    recordings: Sequence[Path],
    *,
    num_attacked: int = 12,
    clip_s: float = 3.0,
    recording_s: float = 5.0,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Compare true copies after every attack, and different clips in every ordered pair.

    Args:
        clips: video files; their own sound is left out, so that the picture speaks for itself.
        recordings: sound files.
        num_attacked: how many clips, and how many recordings, are copied and attacked, the first ones; the pairs are
            made of all.
        clip_s, recording_s: how much of each is used, from its start.
        seed: determines key and ids.
        progress: see `Progress`.
    Returns: a report that JSON can hold: for `picture` and `sound`, `copies` by attack and `different`, each a number
        of "match", "differs", "not_comparable" (and, of copies, "unread": the mark was not read), with the lowest
        share of agreeing signs among copies and the highest among different ones, where there were enough of them.
    """
    key = hashlib.sha256(b"placet fingerprint evaluation %d" % seed).digest()
    rng = np.random.default_rng(seed)
    num_steps, done = len(clips) + len(recordings) + 2, 0

    def tell(what: str) -> None:
        nonlocal done
        if progress is not None:
            progress(done, num_steps, what)
        done += 1

    picture, sound = _Tally(("motion", "appearance")), _Tally(("sound",))
    signed_clips: list[tuple[Fingerprints, FoundContent]] = []
    for path in clips:
        tell(path.name)
        decoded = decode_clip(path, stop_after_s=clip_s)
        clip = Clip(decoded.frames_THWC, decoded.rate_hz, None, decoded.times_T)
        signed_clips.append((_taken(clip), FoundContent.of_clip(clip)))
        if len(signed_clips) <= num_attacked:
            for name, reading in _copies_of_clip(clip, key, MarkId.random(rng.bytes)):
                picture.add(name, reading)
    tell("different clips")
    picture.add_different(signed_clips)
    signed_sounds: list[tuple[Fingerprints, FoundContent]] = []
    for path in recordings:
        tell(path.name)
        whole = decode_sound(path.read_bytes())
        recording = Sound(whole.samples_N[: round(recording_s * whole.rate_hz)], whole.rate_hz)
        signed_sounds.append((_of_sound(recording), FoundContent.of_sound(recording)))
        if len(signed_sounds) <= num_attacked:
            for name, reading in _copies_of_sound(recording, key, MarkId.random(rng.bytes)):
                sound.add(name, reading)
    tell("different recordings")
    sound.add_different(signed_sounds)
    return {
        "num_clips": len(clips),
        "num_recordings": len(recordings),
        "picture": picture.report(list(PICTURE_ATTACKS)),
        "sound": sound.report(list(SOUND_ATTACKS)),
    }


def _taken(clip: Clip) -> Fingerprints:
    """As `mark.produce` takes them of the picture."""
    height, width = clip.frames_THWC.shape[1:3]
    taker = FingerprintTaker(width, height)
    for frame_HWC, time_s in zip(clip.frames_THWC, clip.times_T, strict=True):
        taker.add(encoder_planes(frame_HWC).luma_HW, float(time_s))
    return taker.finish(None)


def _of_sound(sound: Sound) -> Fingerprints:
    empty = FingerprintTaker(2, 1).finish(None)
    return Fingerprints(empty.appearance_SF, empty.motion_SF, sound_signs(sound, phases=1)[0], empty.aspect)


def _copies_of_clip(clip: Clip, key: bytes, mark_id: MarkId) -> list[tuple[str, FingerprintReading | None]]:
    height, width = clip.frames_THWC.shape[1:3]
    embedder = Embedder(key, mark_id, width, height, clip.rate_hz)
    marked = Clip(embedder.apply(clip.frames_THWC), clip.rate_hz, None, clip.times_T)
    signed = _taken(marked)  # of what is delivered, as `mark.produce` does it
    readings: list[tuple[str, FingerprintReading | None]] = []
    for name, attack in PICTURE_ATTACKS.items():
        attacked = attack(marked)
        read = read_mark(attacked, key, mark_id.__eq__, num_registered=1)
        compared = None
        if read.mark_id is not None:
            found = FoundContent.of_clip(attacked)
            candidates = views(read.scale, read.is_mirrored, found.aspect, signed.aspect)
            compared = compare(signed, found, candidates=candidates)
        readings.append((name, compared))
    return readings


def _copies_of_sound(recording: Sound, key: bytes, mark_id: MarkId) -> list[tuple[str, FingerprintReading | None]]:
    embedder = AudioEmbedder(key, mark_id, recording.rate_hz)
    marked = Sound(embedder.apply(recording.samples_N), recording.rate_hz)
    signed = _of_sound(marked)
    readings: list[tuple[str, FingerprintReading | None]] = []
    for name, attack in SOUND_ATTACKS.items():
        attacked = attack(marked)
        heard = read_audio_mark(attacked, key, mark_id.__eq__, num_registered=1)
        compared = None
        if heard.mark_id is not None:
            compared = compare(
                signed, FoundContent.of_sound(attacked), tempo=heard.tempo or 1.0, pitch=heard.pitch or 1.0
            )
        readings.append((name, compared))
    return readings


class _Tally:
    """Counts how comparisons came out, and keeps the shares of agreeing signs.

    Args:
        features: of which the shares are kept.
    """

    def __init__(self, features: Sequence[Feature]) -> None:
        self._features = features
        self._copies: dict[str, list[FingerprintReading | None]] = {}
        self._different: list[FingerprintReading] = []

    def add(self, attack: str, reading: FingerprintReading | None) -> None:
        self._copies.setdefault(attack, []).append(reading)

    def add_different(self, items: Sequence[tuple[Fingerprints, FoundContent]]) -> None:
        """Every one of `items` against the fingerprints of every other."""
        self._different += [
            compare(signed, found)
            for place, (signed, _) in enumerate(items)
            for other, (_, found) in enumerate(items)
            if place != other
        ]

    def report(self, attacks: Sequence[str]) -> dict[str, Any]:
        return {
            "copies": {name: self._counted(self._copies[name], min) for name in attacks if name in self._copies},
            "different": self._counted(self._different, max),
        }

    def _counted(
        self, readings: Sequence[FingerprintReading | None], extreme: Callable[[list[float]], float]
    ) -> dict[str, Any]:
        states = Counter("unread" if each is None else each.state for each in readings)
        shares: dict[str, float | None] = {}
        for feature in self._features:
            found = [each.features[feature] for each in readings if each is not None and feature in each.features]
            known = [each.share for each in found if each.share is not None and each.num_signs >= LEAST_SIGNS[feature]]
            shares[feature] = round(extreme(known), 3) if known else None
        names = ("match", "not_comparable", "differs", "unread")
        return {"num": len(readings), **{name: states[name] for name in names}, "extreme_share": shares}


def table(report: Mapping[str, Any]) -> str:
    """The report as two Markdown tables."""
    lines: list[str] = []
    for part, what in (("picture", "clips"), ("sound", "recordings")):
        found = report[part]
        features = list(found["different"]["extreme_share"])
        if not found["different"]["num"] and not found["copies"]:
            continue
        heads = [f"share of signs, {feature}" for feature in features]
        lines += [
            f"| {what} | match | not decided | differs | mark not read | {' | '.join(heads)} |",
            "|---|" + "---|" * (4 + len(features)),
        ]
        rows = {f"copy: {name}": (row, "≥") for name, row in found["copies"].items()}
        rows[f"**different {what}**"] = (found["different"], "≤")
        for name, (row, sign) in rows.items():
            cells = [f"{row[state]} of {row['num']}" for state in ("match", "not_comparable", "differs", "unread")]
            extremes = [row["extreme_share"][feature] for feature in features]
            cells += ["–" if share is None else f"{sign} {100 * share:.0f} %" for share in extremes]
            lines.append(f"| {name} | {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines)
