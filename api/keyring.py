"""Rotation as an operator means it: the key itself, and everything that hangs on it.

`policy.rotation` makes the new key and its log entries. What follows is here: the certificate for a new claim signer,
subjects' keys and sealed weights wrapped anew. A server that is running follows by itself: the gate and the token
endpoint look at the key service with every use, the worker is started anew before its next job.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import select

from api.settings import Settings
from api.storage.database import Database
from api.storage.models import Subject
from api.storage.sealing import rewrapped
from generator.sealing import rewrap_data_keys
from policy.errors import KeyRingError
from policy.instance import Instance
from policy.kms import WRAPPING_KEYS
from policy.rotation import RotatedKey, rotate_key
from watermark.authority import SigningAuthority

REWRAPPED_KIND = "key.rewrapped"
FORGOTTEN_KIND = "key.forgotten"


@dataclass(frozen=True)
class Turn:
    """What a rotation did: the key, and how many keys below it were wrapped anew."""

    rotated: RotatedKey
    num_rewrapped: int


def rotate(settings: Settings, name: str) -> Turn:
    """Rotate one key of the instance and see to what hangs on it.

    Raises: KeyRingError: no such key, or one that does not rotate. LogError: without entries there is no rotation.
    """
    instance = Instance.open(settings.home, access=settings.key_access)
    if name == "c2pa":
        certified = rotate_key(instance, name, on_hand_over=lambda new: SigningAuthority.renew(instance.pki, key=new))
        return Turn(certified, 0)
    rotated = rotate_key(instance, name)
    return Turn(rotated, rewrap(settings, instance, name) if name in WRAPPING_KEYS else 0)


def rewrap(settings: Settings, instance: Instance, name: str) -> int:
    """Wrap everything under `name` with its current key; the retired ones still open what was missed."""
    num = 0
    if name == "subject-wrap":
        database = Database.open(settings.addresses.database)
        try:
            with database.write() as session:
                for subject in session.scalars(select(Subject).where(Subject.wrapped_key.is_not(None))):
                    assert subject.wrapped_key is not None
                    subject.wrapped_key = rewrapped(subject.wrapped_key, subject.subject_id, instance.keys.service)
                    num += 1
        finally:
            database.close()
    elif name == "weights-wrap":
        num = rewrap_data_keys(instance.keys.service, settings.sealed_weights_dir)
    instance.log.append(REWRAPPED_KIND, {"key": name, "num": num})
    return num


def forget(settings: Settings, name: str) -> tuple[str, ...]:
    """Destroy the retired forms of a wrapping key, after wrapping anew whatever a running server added meanwhile.

    Returns: kids of the keys that are gone.
    Raises: KeyRingError: not a wrapping key.
    """
    if name not in WRAPPING_KEYS:
        raise KeyRingError(f"Only wrapping keys are forgotten: {', '.join(WRAPPING_KEYS)}.")
    instance = Instance.open(settings.home, access=settings.key_access)
    rewrap(settings, instance, name)
    gone = instance.keys.service.forget(name)
    instance.log.append(FORGOTTEN_KIND, {"key": name, "kids": list(gone)})
    return gone
