"""What a depicted person sees of the log: every use of their face, request by request, and the proofs of entries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import select

from api.service import Service
from api.storage.models import Client, Portrait, Render, Use
from policy.errors import LogError

PAGE_NUM_ENTRIES: Final = 60
"""Log entries on one page of uses; a request has two as a rule, decision and delivery."""

TONES: Final = {
    "decision.allowed": "quiet",
    "decision.refused": "bad",
    "delivery": "good",
    "render.refused": "bad",
    "render.failed": "warn",
    "render.interrupted": "warn",
    "audit.reveal": "warn",
}
"""How the kinds of entries are coloured."""


@dataclass
class Request:
    """One request to show the person's face, and every log entry about it, oldest first.

    Attributes:
        state: kind of the last entry.
        reasons: codes of why it was refused.
        portrait_sha256: the picture that was asked for, where it is (still) known.
    """

    by: str
    org: str
    purpose: str
    entries: list[Use] = field(default_factory=list)
    portrait_sha256: str | None = None
    duration_s: float | None = None
    reasons: list[str] = field(default_factory=list)

    @property
    def state(self) -> str:
        return self.entries[-1].kind

    @property
    def log_index(self) -> int:
        return self.entries[0].log_index


@dataclass(frozen=True)
class UsesPage:
    """A stretch of uses, newest first; `before` leads to the next one."""

    requests: list[Request]
    log_indices: list[int]
    before: int | None


def uses_page(service: Service, subject_id: str, before: int | None = None) -> UsesPage:
    """The newest uses of a face, or those older than log entry `before`."""
    with service.database.read() as db:
        found = select(Use).where(Use.subject_id == subject_id)
        if before is not None:
            found = found.where(Use.log_index < before)
        newest_first = db.scalars(found.order_by(Use.log_index.desc()).limit(PAGE_NUM_ENTRIES + 1)).all()
        shown = newest_first[:PAGE_NUM_ENTRIES]
        render_ids = {use.render_id for use in shown if use.render_id}
        renders = {each.render_id: each for each in db.scalars(select(Render).where(Render.render_id.in_(render_ids)))}
        asked = select(Client).where(Client.client_id.in_({use.client_id for use in shown}))
        names = {client.client_id: client.name for client in db.scalars(asked)}
        own = set(db.scalars(select(Portrait.sha256).where(Portrait.subject_id == subject_id)))
    requests: dict[str, Request] = {}
    for use in shown:
        render = renders.get(use.render_id or "")
        key = use.render_id or f"entry {use.log_index}"
        if key not in requests:
            requests[key] = Request(
                by=names.get(use.client_id, ""),
                org=use.org,
                purpose=use.purpose,
                portrait_sha256=render.portrait_sha256 if render and render.portrait_sha256 in own else None,
                duration_s=render.duration_s if render else None,
            )
        requests[key].entries.insert(0, use)
        if use.kind == "decision.refused":
            requests[key].reasons = list(service.log.entry(use.log_index)["body"].get("reasons", ()))
    is_whole = len(newest_first) <= PAGE_NUM_ENTRIES
    return UsesPage(
        requests=list(requests.values()),
        log_indices=[use.log_index for use in shown],
        before=None if is_whole else shown[-1].log_index,
    )


def proofs(service: Service, subject_id: str, indices: Sequence[int], since: int) -> dict[str, Any]:
    """What a browser needs to check entries itself: each entry with its inclusion proof, all under one checkpoint.

    Args:
        indices: log entries; those that do not concern the subject are left out.
        since: size of the log that the browser remembers; 0 for none. Answered with a consistency proof.
    """
    with service.database.read() as db:
        ours = set(
            db.scalars(select(Use.log_index).where(Use.subject_id == subject_id, Use.log_index.in_(list(indices))))
        )
    checkpoint = service.log.checkpoint()
    size = int(checkpoint.split("\n", 2)[1])
    try:
        consistency = [node.hex() for node in service.log.consistency_proof(since, size)] if since else []
    except LogError:
        consistency = []
    return {
        "checkpoint": checkpoint,
        "key": service.log.verifier_key,
        "consistency": consistency,
        "entries": [
            {
                "entry": service.log.entry(index),
                "inclusion_proof": [node.hex() for node in service.log.inclusion_proof(index, size)],
            }
            for index in sorted(ours)
            if index < size
        ],
    }
