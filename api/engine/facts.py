"""Gathers what the policy needs to know about a request. Reads the database, decides nothing.

Called inside the same write transaction that records the outcome, so that two requests cannot both take the last use
of a consent or the last seconds of a budget.
"""

from __future__ import annotations

from dataclasses import replace

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from api.storage.models import Client, Consent, Portrait, Render, Subject
from policy.decision import ConsentFacts, Facts, RenderRequest, choose_consent
from policy.facts import FACE_MATCH, FACE_UNKNOWN

COUNTED = ("queued", "running", "delivered")
"""Renders in these states use up consents and budgets."""

NO_TERM = 253402300799  # 9999-12-31: an approval without an end
_DAY_S = 86400


def gather(
    session: Session,
    request: RenderRequest,
    *,
    now: float,
    max_duration_s: float,
    attested_class: str = "",
    besides: str = "",
) -> tuple[Facts, Consent | None]:
    """Facts for a decision, and the consent on record that they put forward.

    Args:
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
        now=int(now),
    )
    portrait = session.get(Portrait, request.portrait_sha256)
    is_of_another = portrait is not None and portrait.subject_id != request.subject_id
    facts = replace(
        facts,
        face_match=FACE_UNKNOWN if portrait is None or is_of_another else FACE_MATCH,
        matches_other_subject=is_of_another and portrait is not None and portrait.subject.subject_class == "adult",
    )
    if subject is None:
        return facts, None
    facts = replace(
        facts,
        subject_class=subject.subject_class,
        subject_erased=subject.erased_at is not None,
        subject_epoch=subject.epoch,
    )
    on_record = {
        consent.sha256: consent
        for consent in session.scalars(select(Consent).where(Consent.subject_id == subject.subject_id))
    }
    candidates = [consent_facts(session, consent, besides) for consent in on_record.values()]
    # what was said to this client comes first: “you have been revoked” helps more than “somebody else may”
    own = [each for each in candidates if (each.grantee_org, each.grantee_client) == (request.org, request.client_id)]
    chosen = choose_consent(own or candidates, request, facts)
    if chosen is None:
        return facts, None
    return replace(facts, consent=chosen), on_record[chosen.sha256]


def consent_facts(session: Session, consent: Consent, besides: str = "") -> ConsentFacts:
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
        uses=num_uses(session, consent.consent_id, besides),
        epoch=consent.epoch,
        revoked=consent.revoked_at is not None,
    )


def num_uses(session: Session, consent_id: str, besides: str = "") -> int:
    """Renders that were permitted under a consent and have not failed."""
    counted = select(func.count()).where(
        Render.consent_id == consent_id, Render.status.in_(COUNTED), Render.render_id != besides
    )
    return session.scalar(counted) or 0


def _num_streams(session: Session, client_id: str, besides: str) -> int:
    """Renders of the client that run now."""
    running = select(func.count()).where(
        Render.client_id == client_id, Render.status == "running", Render.render_id != besides
    )
    return session.scalar(running) or 0


def _budget_used_ms(session: Session, client_id: str, now: float, besides: str) -> int:
    """Output that the client has made, or is making, since midnight UTC."""
    midnight = now - now % _DAY_S
    used = (
        select(func.sum(Render.speech_s))
        .where(Render.client_id == client_id, Render.created_at >= midnight, Render.status.in_(COUNTED))
        .where(Render.render_id != besides)
    )
    return round((session.scalar(used) or 0.0) * 1000)
