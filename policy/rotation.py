"""Rotation of an instance's keys, with its entries in the log.

    key.rotating   before anything happens: which key, and its kid
    key.rotated    old and new kid, and the SHA-256 of the new public half

    key.current    of the log's key: the first entry under the new key alone

Of the log's own key the second entry stands under a checkpoint that both keys have signed. That note is kept beside the
keys (`handover/NEW_KID.note`) for whoever knows the old key and wants to follow to the new one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from policy.canonical import sha256_hex
from policy.errors import KeyRingError
from policy.files import write_atomically
from policy.instance import Instance
from policy.keyfiles import check_rotatable
from policy.kms import SIGNING_KEYS, Rotation, SigningKey, public_der
from policy.note import verify_note

ROTATING_KIND: Final = "key.rotating"
ROTATED_KIND: Final = "key.rotated"
CURRENT_KIND: Final = "key.current"
HANDOVER_FOLDER: Final = "handover"


@dataclass(frozen=True)
class RotatedKey:
    """What a rotation did, and the log entry that says so."""

    rotation: Rotation
    log_index: int


def rotate_key(
    instance: Instance, name: str, *, on_hand_over: Callable[[SigningKey], object] | None = None
) -> RotatedKey:
    """Replace one key of a running or resting instance.

    Args:
        on_hand_over: for a signing key: called with the new key before it is current, e.g. to have it certified. What
            it raises stops the rotation.
    Raises: KeyRingError: no such key, or not one that rotates. LogError: no entry, no rotation.
    """
    check_rotatable(name)
    kid = next(info.kid for info in instance.keys.service.describe() if info.name == name)
    instance.log.append(ROTATING_KIND, {"key": name, "kid": kid})
    indices: list[int] = []

    def hand_over(old: SigningKey, new: SigningKey) -> None:
        if on_hand_over is not None:
            on_hand_over(new)
        body = _body(name, old.kid, new.kid) | {"public_sha256": sha256_hex(public_der(new.public_key))}
        if name != "log":
            indices.append(instance.log.append(ROTATED_KIND, body).index)
            return
        evidence = instance.log.hand_over(old, new, ROTATED_KIND, body)
        folder = instance.home / "keys" / HANDOVER_FOLDER
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
            write_atomically(folder / f"{new.kid}.note", evidence.checkpoint.encode(), mode=0o600)
        except OSError as exc:
            raise KeyRingError(f"The key directory cannot be written ({exc.strerror}).") from exc
        indices.append(evidence.index)

    if name in SIGNING_KEYS:
        rotation = instance.keys.service.rotate(name, hand_over=hand_over)
        if name == "log":  # others may have appended under the old key meanwhile; from here on the new one stands
            instance.log.append(CURRENT_KIND, {"key": name, "kid": rotation.new_kid})
        return RotatedKey(rotation, indices[-1])
    rotation = instance.keys.service.rotate(name)
    return RotatedKey(
        rotation, instance.log.append(ROTATED_KIND, _body(name, rotation.old_kid, rotation.new_kid)).index
    )


def hand_over_notes(instance: Instance) -> tuple[str, ...]:
    """The checkpoints that two log keys in succession have signed, oldest first, each verified by both.

    Raises: CheckpointError: one was changed.
    """
    folder = instance.home / "keys" / HANDOVER_FOLDER
    keys = tuple(reversed(instance.keys.log_publics))
    notes = [path.read_bytes() for path in sorted(folder.glob("*.note"), key=lambda path: path.stat().st_mtime_ns)]
    for note, old, new in zip(notes, keys, keys[1:], strict=False):
        verify_note(note, instance.origin, old)
        verify_note(note, instance.origin, new)
    return tuple(note.decode() for note in notes)


def _body(name: str, old_kid: str, new_kid: str) -> dict[str, Any]:
    return {"key": name, "old_kid": old_kid, "new_kid": new_kid}
