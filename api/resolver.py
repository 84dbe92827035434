"""From a mark or a manifest id to the manifest that was signed at delivery, and to what its consent is worth today."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.exc import NoResultFound
from sqlalchemy.orm import Session

from api.engine.renders import ConsentWithdrawnError, check_consent
from api.errors import NotFoundError
from api.storage.blobs import BlobStore
from api.storage.database import Database
from api.storage.models import Mark, Render
from policy.decision import ACTION_LIVE
from watermark.credentials import read_store
from watermark.resolver import SCORE_EXACT, ConsentState, Match

RECOVERED = "manifest signature valid, content matched by watermark"


@dataclass(frozen=True)
class Resolution:
    """What was delivered under a mark. Hashes and indices only: never whose face it is.

    Attributes:
        manifest_sha256: name of the manifest store in the blob store.
        video_sha256: of the file; empty for a live session of which there is none.
        consent: see `watermark.resolver.Match`.
    """

    mark_id: str
    manifest_id: str
    manifest_sha256: str
    video_sha256: str
    decision_index: int
    delivery_index: int | None
    consent: ConsentState

    @property
    def is_revoked(self) -> bool:
        """Whether the person shown has taken the consent back since."""
        return self.consent == "revoked"

    def match(self, score: int = SCORE_EXACT) -> Match:
        """As an answer of the resolution API."""
        return Match(self.manifest_id, score, self.consent)


class ManifestRepository:
    """The manifest stores of everything that was ever delivered; they outlive the files' own metadata."""

    def __init__(self, database: Database, blobs: BlobStore, trust_roots_pem: str) -> None:
        self._database, self._blobs, self._trust_roots_pem = database, blobs, trust_roots_pem

    def by_mark(self, mark_id: str) -> Resolution | None:
        """What was delivered with this mark; None for an id that was never given out, or never delivered."""
        with self._database.read() as session:
            mark = session.get(Mark, mark_id)
            render = session.get(Render, mark.render_id) if mark is not None else None
            return _resolution(session, render)

    def by_manifest_id(self, manifest_id: str) -> Resolution:
        """What was delivered under this manifest. Raises: NotFoundError."""
        with self._database.read() as session:
            found = _resolution(session, session.scalar(select(Render).where(Render.manifest_id == manifest_id)))
        if found is None:
            raise NotFoundError("There is no manifest with this id here.")
        return found

    def store(self, resolution: Resolution) -> bytes:
        """The manifest store as it was signed. Raises: BlobMissingError, BlobDamagedError."""
        return self._blobs.get(resolution.manifest_sha256)

    def resolve(self, mark_id: str) -> tuple[bytes, bool] | None:
        """The manifest store behind a mark, and whether its consent was revoked; None for an unknown mark."""
        found = self.by_mark(mark_id)
        return None if found is None else (self.store(found), found.is_revoked)

    def recovered(self, mark_id: str) -> dict[str, Any] | None:
        """What the manifest says that a mark leads back to, for a file that has lost its own.

        The store never matches re-encoded bytes; so its signature is verified, and the content only by the mark.
        """
        found = self.by_mark(mark_id)
        if found is None:
            return None
        reading = read_store(self.store(found), self._trust_roots_pem)
        return {
            "mark_id": found.mark_id,
            "manifest_id": found.manifest_id,
            "manifest_sha256": found.manifest_sha256,
            "video_sha256": found.video_sha256,
            "decision_index": found.decision_index,
            "delivery_index": found.delivery_index,
            "consent": found.consent,
            "manifest_state": reading.state,
            "signed_at": reading.signed_at.isoformat() if reading.signed_at else None,
            "fingerprints": reading.fingerprints if reading.state in ("trusted", "valid") else None,
            "statement": RECOVERED if reading.state in ("trusted", "valid") else "manifest not valid",
        }


def _resolution(session: Session, render: Render | None) -> Resolution | None:
    if render is None or not (render.manifest_id and render.manifest_sha256):
        return None
    if not render.video_sha256 and render.action != ACTION_LIVE:  # a stream has a manifest before there is a file
        return None
    return Resolution(
        mark_id=render.mark_id,
        manifest_id=render.manifest_id,
        manifest_sha256=render.manifest_sha256,
        video_sha256=render.video_sha256 or "",
        decision_index=render.decision_index,
        delivery_index=render.delivery_index,
        consent=_consent_state(session, render),
    )


def _consent_state(session: Session, render: Render) -> ConsentState:
    """Whatever stops a delivery today also shows here; see `check_consent`."""
    if render.consent_id is None:
        return "not_needed"
    try:
        check_consent(session, render)
    except (ConsentWithdrawnError, NoResultFound):
        return "revoked"
    return "in_force"
