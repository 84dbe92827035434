"""Driving clips: somebody's recorded movement moves another face, if both have agreed.

The clip is looked at in the intake process and never leaves it: what is kept for the job is the movement, in memory,
and what the decision needs to know of whoever moved. The driver sees each use of their movement as each person shown
does, under a log entry of its own.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy.orm import Session

from api.engine.facts import candidates, consent_facts, num_uses_by_consent
from api.faces import Bystanders, FaceGallery, Likeness
from api.storage.models import Consent, Subject
from policy.canonical import sha256_hex
from policy.decision import ACTION_EVALUATE, DriverFacts, RenderRequest, choose_driver_consent
from policy.facts import BESIDE_PROTECTED, FACE_DIFFERS, FACE_MATCH, FACE_UNKNOWN

DRIVER_USE_KIND = "driver.use"
"""Kind of the log entries that tell a driver what was done with their movement."""


@dataclass(frozen=True)
class Driving:
    """A driving clip as it was taken in.

    Attributes:
        driver_id: who is said to move in it; None for nobody who has enrolled.
        movement: what was seen of it, in the form of `generator.driving.Movement`.
        clip_sha256: of the file.
        templates: of the driver's face in several frames.
        bystanders: who else was seen.
    """

    driver_id: str | None
    movement: bytes
    clip_sha256: str
    templates: tuple[bytes, ...]
    bystanders: Bystanders

    @classmethod
    def of(cls, driver_id: str | None, movement: bytes, seen: Mapping[str, Any]) -> Driving:
        """Out of what the intake saw in a clip."""
        templates = tuple(base64.b64decode(each) for each in seen["templates"])
        return cls(driver_id, movement, str(seen["sha256"]), templates, Bystanders.of(seen))

    @property
    def sha256(self) -> str:
        """Of the movement: what request and permit name."""
        return sha256_hex(self.movement)


def driver_facts(
    session: Session,
    faces: FaceGallery,
    request: RenderRequest,
    driving: Driving,
    *,
    now: float,
    besides: str = "",
) -> tuple[DriverFacts, Consent | None]:
    """What is known about the driver, and the consent of theirs that is put forward; as `api.engine.facts.gather`."""
    likeness = _likeness(session, faces, driving)
    facts = DriverFacts(face_match=likeness.face_match, matches_other_subject=likeness.matches_other_subject)
    subject = session.get(Subject, driving.driver_id) if driving.driver_id else None
    if subject is None:
        return facts, None
    facts = replace(
        facts,
        subject_class=subject.subject_class,
        subject_erased=subject.erased_at is not None,
        subject_epoch=subject.epoch,
    )
    if subject.erased_at is not None or request.action == ACTION_EVALUATE:
        return facts, None
    on_record = {consent.sha256: consent for consent in candidates(session, subject.subject_id, request, now)}
    uses = num_uses_by_consent(session, [each.consent_id for each in on_record.values()], besides)
    known = [consent_facts(consent, uses.get(consent.consent_id, 0)) for consent in on_record.values()]
    chosen = choose_driver_consent(known, request, facts, int(now))
    if chosen is None:
        return facts, None
    return replace(facts, consent=chosen), on_record[chosen.sha256]


def _likeness(session: Session, faces: FaceGallery, driving: Driving) -> Likeness:
    """The driver's face over all frames that were compared: one that differs is enough to differ."""
    seen = [faces.look(session, each, driving.driver_id, driving.bystanders) for each in driving.templates]
    matches = {each.face_match for each in seen} or {FACE_UNKNOWN}
    match = next(each for each in (FACE_DIFFERS, FACE_UNKNOWN, FACE_MATCH) if each in matches)
    shows_another = any(each.matches_other_subject or each.beside == BESIDE_PROTECTED for each in seen)
    return Likeness(match, shows_another)
