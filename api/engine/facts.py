"""Gathers what the policy needs to know about a request. Reads the database, decides nothing.

Called inside the same write transaction that records the outcome, so that two requests cannot both take the last use
of a consent or the last seconds of a budget.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import Select, func, or_, select
from sqlalchemy.orm import Session

from api.faces import Likeness
from api.storage.models import Client, Consent, Render, Subject
from policy.decision import ACTION_EVALUATE, ConsentFacts, Facts, RenderRequest, choose_consent

COUNTED = ("queued", "running", "delivered")
"""Renders in these states use up consents and budgets."""

NO_TERM = 253402300799  # 9999-12-31: an approval without an end
_DAY_S = 86400
_MOST_OF_CLIENT = 200
_MOST_OF_OTHERS = 16


def gather(
    session: Session,
    request: RenderRequest,
    *,
    now: float,
    max_duration_s: float,
    likeness: Likeness,
    attested_class: str = "",
    besides: str = "",
) -> tuple[Facts, Consent | None]:
    """Facts for a decision, and the consent on record that they put forward.

    Args:
        likeness: what `api.faces` says about the face in the portrait.
        besides: a render that does not count as a use: the one that is being decided on again.
    """
    client = session.get_one(Client, request.client_id)
    subject = session.get(Subject, request.subject_id) if request.subject_id else None
    facts = Facts(
        vetting=client.status,
        vetting_expires_at=NO_TERM if client.term_expires_at is None else int(client.term_expires_at),
        budget_ms=round(client.budget_s_per_day * 1000),
        budget_used_ms=_budget_used_ms(session, client.client_id, now, besides),
        streams=_num_streams(session, client.client_id, besides),
        max_streams=client.max_concurrent,
        max_duration_ms=round(max_duration_s * 1000),
        attested_class=attested_class,
        face_match=likeness.face_match,
        matches_other_subject=likeness.matches_other_subject,
        beside=likeness.beside,
        now=int(now),
    )
    if subject is None:
        return facts, None
    facts = replace(
        facts,
        subject_class=subject.subject_class,
        subject_erased=subject.erased_at is not None,
        subject_epoch=subject.epoch,
    )
    if subject.erased_at is not None:  # what their consents said is gone
        return facts, None
    if request.action == ACTION_EVALUATE:  # rests on the operator's word, whatever the subject has signed for others
        return facts, None
    on_record = {consent.sha256: consent for consent in candidates(session, subject.subject_id, request, now)}
    uses = num_uses_by_consent(session, [each.consent_id for each in on_record.values()], besides)
    known = [consent_facts(consent, uses.get(consent.consent_id, 0)) for consent in on_record.values()]
    chosen = choose_consent(known, request, facts)
    if chosen is None:
        return facts, None
    return replace(facts, consent=chosen), on_record[chosen.sha256]


def candidates(session: Session, subject_id: str, request: RenderRequest, now: float) -> Sequence[Consent]:
    """The consents that a decision may have to look at: a bounded number, however many were ever given.

    What was said to this client comes first: "you have been revoked" helps more than "somebody else may". Of the live
    ones of a client there are never more than `_MOST_OF_CLIENT` (see `api.consents`), so none is left out; dead ones
    and those of others only serve to name the reason.
    """
    of_subject = select(Consent).where(Consent.subject_id == subject_id, Consent.superseded_by.is_(None))
    own = of_subject.where(Consent.grantee_client == request.client_id, Consent.grantee_org == request.org)
    live = (Consent.revoked_at.is_(None), Consent.expires_at > now)
    for among, most in ((own.where(*live), _MOST_OF_CLIENT), (own, _MOST_OF_OTHERS), (of_subject, _MOST_OF_OTHERS)):
        found = session.scalars(among.order_by(Consent.expires_at.desc()).limit(most)).all()
        if found:
            return found
    return []


def consent_facts(consent: Consent, uses: int) -> ConsentFacts:
    """A consent on record, and what has happened to it since it was signed."""
    statement = consent.statement
    return ConsentFacts(
        sha256=consent.sha256,
        grantee_org=statement["grantee_org"],
        grantee_client=statement["grantee_client"],
        purposes=tuple(statement["purposes"]),
        portraits=tuple(statement["portraits"]),
        controls=tuple(statement["controls"]),
        not_before=int(statement["not_before"]),
        expires_at=int(statement["expires_at"]),
        max_uses=int(statement["max_uses"]),
        uses=uses,
        epoch=consent.epoch,
        revoked=consent.revoked_at is not None,
    )


def num_uses(session: Session, consent_id: str, besides: str = "") -> int:
    """Renders that were permitted under a consent and have not failed, whether it showed the person or drove."""
    counted = select(func.count()).where(
        or_(Render.consent_id == consent_id, Render.driver_consent_id == consent_id),
        Render.status.in_(COUNTED),
        Render.render_id != besides,
    )
    return session.scalar(counted) or 0


def num_uses_by_consent(
    session: Session, consent_ids: Sequence[str] | Select[Any], besides: str = ""
) -> dict[str, int]:
    """The same for many consents with one query; those without a use are left out."""
    alive = Render.status.in_(COUNTED), Render.render_id != besides
    shown = select(Render.consent_id, func.count()).where(Render.consent_id.in_(consent_ids), *alive)
    drove = select(Render.driver_consent_id, func.count()).where(
        Render.driver_consent_id.in_(consent_ids),
        or_(Render.consent_id.is_(None), Render.consent_id != Render.driver_consent_id),
        *alive,
    )
    uses: dict[str, int] = {}
    for counted in (shown.group_by(Render.consent_id), drove.group_by(Render.driver_consent_id)):
        for consent_id, count in session.execute(counted):
            uses[str(consent_id)] = uses.get(str(consent_id), 0) + count
    return uses


def _num_streams(session: Session, client_id: str, besides: str) -> int:
    """Renders of the client that wait or run: each holds a place that others cannot have."""
    open_now = select(func.count()).where(
        Render.client_id == client_id, Render.status.in_(("queued", "running")), Render.render_id != besides
    )
    return session.scalar(open_now) or 0


def _budget_used_ms(session: Session, client_id: str, now: float, besides: str) -> int:
    """Output that the client has made, or is making, since midnight UTC."""
    midnight = now - now % _DAY_S
    used = (
        select(func.sum(Render.speech_s))
        .where(Render.client_id == client_id, Render.created_at >= midnight, Render.status.in_(COUNTED))
        .where(Render.render_id != besides)
    )
    return round((session.scalar(used) or 0.0) * 1000)
