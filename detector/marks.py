"""The marks of picture and sound, and whether the content is the one that was signed with them.

A mark can be copied onto other content; a registered mark therefore asks for a comparison with the fingerprints in its
signed manifest. Answers are coarse, three states each: a finer one would help whoever tries to remove the mark.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Literal

from detector.exhibit import Exhibit
from watermark.audio_mark import AudioMarkReading, read_audio_mark
from watermark.credentials import CredentialReading
from watermark.errors import InvalidManifestSpecError, MediaError
from watermark.extract import MarkReading, read_mark
from watermark.fingerprint import FingerprintReading, Fingerprints, FoundContent, compare, views
from watermark.payload import MarkId

Resolve = Callable[[MarkId], Mapping[str, Any] | None]
MarkState = Literal["detected", "foreign", "not_detected", "inconclusive"]
_FEATURES = ("appearance", "motion", "sound")


@dataclass(frozen=True)
class Marks:
    """What the marks say.

    Attributes:
        picture, sound: the readings; None where there was nothing to read.
        picture_problem, sound_problem: why there was nothing, in words.
        picture_record, sound_record: what the register knows of the ids, without the fingerprints.
        content: the comparison with the signed fingerprints; None where it was not made.
        content_problem: why it was not made, in words.
    """

    picture: MarkReading | None
    sound: AudioMarkReading | None
    picture_problem: str
    sound_problem: str
    picture_record: Mapping[str, Any] | None
    sound_record: Mapping[str, Any] | None
    content: FingerprintReading | None
    content_problem: str

    @property
    def readings(self) -> list[MarkReading | AudioMarkReading]:
        return [reading for reading in (self.picture, self.sound) if reading is not None]

    @property
    def state(self) -> MarkState:
        """Both marks together: the strongest statement of the two."""
        states = {reading.state for reading in self.readings}
        if "detected" in states:
            return "detected"
        if any(reading.state == "inconclusive" and reading.num_attempts > 0 for reading in self.readings):
            return "foreign"
        return "not_detected" if "not_detected" in states else "inconclusive"

    @property
    def content_state(self) -> Literal["match", "differs", "not_comparable"]:
        return self.content.state if self.content is not None else "not_comparable"

    @property
    def are_two(self) -> bool:
        """Whether picture and sound carry different registered marks."""
        ids = {reading.mark_id for reading in self.readings if reading.mark_id is not None}
        return len(ids) > 1

    def layers(self) -> dict[str, dict[str, Any]]:
        """The layers `watermark`, `watermark_audio` and `fingerprints` of the report."""
        return {
            "watermark": self._mark_layer(self.picture, self.picture_problem, self.picture_record),
            "watermark_audio": self._mark_layer(self.sound, self.sound_problem, self.sound_record),
            "fingerprints": self._content_layer(),
        }

    def _mark_layer(
        self, reading: MarkReading | AudioMarkReading | None, problem: str, record: Mapping[str, Any] | None
    ) -> dict[str, Any]:
        if reading is None:
            return {"state": "not_examined", "null_fpr": 0.0, "reason": problem}
        layer: dict[str, Any] = {"state": reading.state, "null_fpr": reading.null_fpr}
        if reading.mark_id is not None:
            state = self.content_state
            layer["mark_id"] = reading.mark_id.hex
            layer["content"] = "not compared" if state == "not_comparable" else state
            layer["record"] = dict(record) if record is not None else None
        return layer

    def _content_layer(self) -> dict[str, Any]:
        if self.content is None:
            return {"state": "not_examined", "reason": self.content_problem}
        features = self.content.features
        states = {name: features[name].state for name in _FEATURES if name in features}  # type: ignore[index]
        return {"state": self.content.state, "reason": self.content.reason, "features": states}


def read_marks_under_any(
    exhibit: Exhibit,
    keys: Sequence[bytes],
    is_registered: Callable[[MarkId], bool],
    resolve: Resolve,
    credentials: CredentialReading,
    *,
    num_registered: int,
) -> Marks:
    """Read both marks under the current key; where nothing is detected, under those before it.

    Args:
        keys: the current key of the instance, then the retired ones, newest first.
        num_registered: how many ids were given out; every further key is a further look, and counts like so many more.
    """
    found: Marks | None = None
    for key in keys:
        marks = read_marks(exhibit, key, is_registered, resolve, credentials, num_registered=num_registered * len(keys))
        if found is None or marks.state == "detected":
            found = marks
        if found.state == "detected":
            break
    assert found is not None, "an instance has a key"
    return found


def read_marks(
    exhibit: Exhibit,
    key: bytes,
    is_registered: Callable[[MarkId], bool],
    resolve: Resolve,
    credentials: CredentialReading,
    *,
    num_registered: int,
) -> Marks:
    """Read both marks; where one is registered, compare the content with what was signed.

    Args:
        exhibit: what was sent.
        key: the instance's 32 bytes.
        is_registered: whether a mark id was ever given out.
        resolve: what the register knows of an id, or None; `fingerprints` in it are those of its verified manifest.
        credentials: of the file's own manifest.
        num_registered: how many ids were given out.
    """
    # Both readers compute outside the interpreter for most of their time: on two cores, neither waits for the other.
    with ThreadPoolExecutor(1, "sound-mark") as beside:
        listening = beside.submit(_read_sound, exhibit, key, is_registered, num_registered)
        picture, picture_problem = _read_picture(exhibit, key, is_registered, num_registered)
        sound, sound_problem = listening.result()
    picture_record = _record(picture, resolve)
    sound_record = picture_record if _same_id(picture, sound) else _record(sound, resolve)
    marks = Marks(
        picture, sound, picture_problem, sound_problem, _shown(picture_record), _shown(sound_record), None, ""
    )
    if marks.state != "detected":
        return replace(marks, content_problem="Content is compared where a registered mark was found; there is none.")
    own = credentials.fingerprints if credentials.state == "trusted" else None
    found_id = next(reading.mark_id for reading in marks.readings if reading.mark_id is not None)
    if own is not None and credentials.mark_id != found_id:
        own = None
    try:
        content = _compared(exhibit, picture, sound, picture_record, sound_record, own)
    except (MediaError, InvalidManifestSpecError) as error:
        return replace(marks, content_problem=str(error))
    if content is None:
        return replace(marks, content_problem="No fingerprints were signed with this mark.")
    return replace(marks, content=content)


def _read_picture(
    exhibit: Exhibit, key: bytes, is_registered: Callable[[MarkId], bool], num_registered: int
) -> tuple[MarkReading | None, str]:
    try:
        return read_mark(exhibit.track(), key, is_registered, num_registered=num_registered), ""
    except MediaError as error:
        return None, str(error)


def _read_sound(
    exhibit: Exhibit, key: bytes, is_registered: Callable[[MarkId], bool], num_registered: int
) -> tuple[AudioMarkReading | None, str]:
    if exhibit.sound is None:
        return None, exhibit.problem or "There is no sound."
    return read_audio_mark(exhibit.sound, key, is_registered, num_registered=num_registered), ""


def _record(reading: MarkReading | AudioMarkReading | None, resolve: Resolve) -> Mapping[str, Any] | None:
    return resolve(reading.mark_id) if reading is not None and reading.mark_id is not None else None


def _shown(record: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    return None if record is None else {name: value for name, value in record.items() if name != "fingerprints"}


def _same_id(picture: MarkReading | None, sound: AudioMarkReading | None) -> bool:
    return picture is not None and sound is not None and picture.mark_id == sound.mark_id


def _compared(
    exhibit: Exhibit,
    picture: MarkReading | None,
    sound: AudioMarkReading | None,
    picture_record: Mapping[str, Any] | None,
    sound_record: Mapping[str, Any] | None,
    own: Mapping[str, Any] | None,
) -> FingerprintReading | None:
    """The content against what was signed with the picture's mark, or with the sound's where only that was found."""
    leading = picture_record if picture is not None and picture.mark_id is not None else sound_record
    signed_json = (leading or {}).get("fingerprints") or own
    found: FoundContent | None = exhibit.content() if signed_json is not None else None
    if signed_json is None or found is None:
        return None
    signed = Fingerprints.from_json(signed_json)
    read = picture if picture is not None and picture.mark_id is not None else None
    candidates = views(read.scale, read.is_mirrored, found.aspect, signed.aspect) if read is not None else None
    is_heard = sound is not None and sound.mark_id is not None
    tempo = sound.tempo if sound is not None and is_heard and sound.tempo is not None else 1.0
    pitch = sound.pitch if sound is not None and is_heard and sound.pitch is not None else 1.0
    return compare(signed, found, candidates=candidates, tempo=tempo, pitch=pitch)
