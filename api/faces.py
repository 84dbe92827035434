"""Protected faces: the templates of everybody who has enrolled, and which of them a portrait is like.

At rest each template is sealed under its subject's key. While the service runs, the opened ones are held in memory, as
comparing needs all of them; what has been erased is dropped with the next look. Nothing here says who somebody is: the
answers are "yours", "not yours", "somebody else's".
"""

from __future__ import annotations

import base64
import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy import ndarray
from sqlalchemy import select
from sqlalchemy.orm import Session

from api.storage.database import Database
from api.storage.models import Subject, Template
from api.storage.sealing import seal, unseal
from generator.likeness import PROTECTED_FACE_DISTANCE, SAME_FACE_DISTANCE, FaceTemplate
from policy.facts import (
    BESIDE_NOBODY,
    BESIDE_PROTECTED,
    BESIDE_STRANGERS,
    BESIDE_UNKNOWN,
    FACE_DIFFERS,
    FACE_MATCH,
    FACE_UNKNOWN,
)
from policy.keys import KeyRing


@dataclass(frozen=True)
class Likeness:
    """Facts about the face in a portrait.

    Attributes:
        face_match: match, differs or unknown: beside the face that the subject enrolled.
        matches_other_subject: like a face that somebody else has enrolled.
        beside: who else is in the picture: nobody, strangers, protected or unknown.
    """

    face_match: str = FACE_UNKNOWN
    matches_other_subject: bool = False
    beside: str = BESIDE_NOBODY


@dataclass(frozen=True)
class Bystanders:
    """The other faces of a picture, which nobody is going to animate.

    Attributes:
        templates: of those that can be recognised; held while the request is decided on, never kept.
        num_unknown: how many could not be compared.
    """

    templates: tuple[bytes, ...] = ()
    num_unknown: int = 0

    @classmethod
    def of(cls, seen: Mapping[str, Any]) -> Bystanders:
        """Out of what the intake saw in a portrait."""
        return cls(tuple(base64.b64decode(each) for each in seen["beside"]), int(seen["num_unknown"]))


NOBODY_ELSE: Final = Bystanders()


class FaceGallery:
    """The templates of an instance."""

    def __init__(self, database: Database, keys: KeyRing) -> None:
        self._database = database
        self._keys = keys
        self._lock = threading.Lock()
        self._opened: dict[str, tuple[str, ndarray]] = {}

    def add(self, session: Session, subject: Subject, portrait_sha256: str, template: bytes) -> None:
        """Keep the template of an enrolled portrait, inside the caller's transaction."""
        assert subject.wrapped_key is not None
        sealed = seal(
            template,
            subject_id=subject.subject_id,
            wrapped_key=subject.wrapped_key,
            keys=self._keys.service,
        )
        session.add(Template(portrait_sha256=portrait_sha256, subject_id=subject.subject_id, sealed=sealed))

    def templates_of(self, subject_id: str) -> dict[str, FaceTemplate]:
        """The templates of one subject, by portrait: what they may download."""
        with self._database.read() as session:
            opened = self._current(session)
        return {name: FaceTemplate(values_D) for name, (owner, values_D) in opened.items() if owner == subject_id}

    def look(
        self,
        session: Session,
        template: bytes | None,
        subject_id: str | None,
        bystanders: Bystanders = NOBODY_ELSE,
    ) -> Likeness:
        """What a portrait's face is like.

        Args:
            session: sees the enrolments that count.
            template: of the portrait; None where it is not known, or no face was found.
            subject_id: whom it is said to show; None for nobody who has enrolled.
            bystanders: who else the picture shows.
        Raises: SealError; RemoteError's `template` code for a damaged template.
        """
        if template is None:
            return Likeness()
        asked_D = FaceTemplate.from_bytes(template).values_D
        opened = self._current(session)
        own = [values_D for owner, values_D in opened.values() if owner == subject_id]
        others = [values_D for owner, values_D in opened.values() if owner != subject_id]
        likeness = Likeness()
        if own:
            is_same = _nearest(asked_D, own) <= SAME_FACE_DISTANCE
            likeness = replace(likeness, face_match=FACE_MATCH if is_same else FACE_DIFFERS)
        if others:
            likeness = replace(likeness, matches_other_subject=_nearest(asked_D, others) <= PROTECTED_FACE_DISTANCE)
        return replace(likeness, beside=_beside(bystanders, others))

    def of_portrait(self, session: Session, portrait_sha256: str) -> bytes | None:
        """The template of an enrolled portrait, if there is one."""
        opened = self._current(session).get(portrait_sha256)
        return None if opened is None else FaceTemplate(opened[1]).to_bytes()

    def _current(self, session: Session) -> dict[str, tuple[str, ndarray]]:
        """All templates, opened; only those that are new since the last look cost anything."""
        on_record = session.execute(select(Template.portrait_sha256, Template.subject_id)).all()
        with self._lock:
            known = self._opened
            fresh = [name for name, owner in on_record if name not in known or known[name][0] != owner]
            opened = {name: known[name] for name, _ in on_record if name in known and name not in fresh}
            for name in fresh:
                row = session.get_one(Template, name)
                subject = session.get_one(Subject, row.subject_id)
                if subject.wrapped_key is None:
                    continue
                data = unseal(
                    row.sealed,
                    subject_id=subject.subject_id,
                    wrapped_key=subject.wrapped_key,
                    keys=self._keys.service,
                )
                opened[name] = (subject.subject_id, FaceTemplate.from_bytes(data).values_D)
            self._opened = opened
            return dict(opened)


def _beside(bystanders: Bystanders, protected: list[ndarray]) -> str:
    """Who the others are; what cannot be told counts more than what can, and a protected face most."""
    shown = [FaceTemplate.from_bytes(each).values_D for each in bystanders.templates]
    if protected and any(_nearest(values_D, protected) <= PROTECTED_FACE_DISTANCE for values_D in shown):
        return BESIDE_PROTECTED
    if bystanders.num_unknown:
        return BESIDE_UNKNOWN
    return BESIDE_STRANGERS if shown else BESIDE_NOBODY


def _nearest(asked_D: ndarray, templates: list[ndarray]) -> float:
    return float(np.linalg.norm(np.stack(templates) - asked_D, axis=1).min())
