"""Consents as a person sees them: who, what for, until when, how often, and whether they still hold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from api.service import Service
from api.storage.models import Consent
from policy.consent import ANY_CONTROL

State = Literal["live", "not_yet", "expired", "used_up", "revoked", "superseded"]

TONE_BY_STATE: Final[dict[State, str]] = {
    "live": "good",
    "not_yet": "quiet",
    "expired": "quiet",
    "used_up": "quiet",
    "revoked": "bad",
    "superseded": "quiet",
}


@dataclass(frozen=True)
class ConsentView:
    """One consent on a page."""

    consent: Consent
    state: State
    who: str
    num_uses: int

    @property
    def is_open(self) -> bool:
        """Whether it allows something, now or later."""
        return self.state in ("live", "not_yet")

    @property
    def tone(self) -> str:
        return TONE_BY_STATE[self.state]

    @property
    def uses_left(self) -> int:
        return max(0, int(self.consent.statement["max_uses"]) - self.num_uses)

    @property
    def allows_any_control(self) -> bool:
        return list(self.consent.statement["controls"]) == [ANY_CONTROL]


def consent_views(service: Service, subject_id: str) -> list[ConsentView]:
    """Every consent of a subject, newest first."""
    epoch = service.enrolment.find(subject_id)[0].epoch
    return [_view(service, consent, num_uses, epoch) for consent, num_uses in service.consents.all(subject_id)]


def consent_view(service: Service, subject_id: str, consent_id: str) -> ConsentView:
    """One of them. Raises: NotFoundError."""
    consent, num_uses = service.consents.find(subject_id, consent_id)
    return _view(service, consent, num_uses, service.enrolment.find(subject_id)[0].epoch)


def _view(service: Service, consent: Consent, num_uses: int, epoch: int) -> ConsentView:
    who = service.clients.display_name(consent.grantee_client) or consent.grantee_org
    return ConsentView(consent, _state(consent, num_uses, epoch, service.now()), who, num_uses)


def _state(consent: Consent, num_uses: int, epoch: int, now: float) -> State:
    statement = consent.statement
    if consent.revoked_at is not None or consent.epoch != epoch:
        return "revoked"
    if consent.superseded_by is not None:
        return "superseded"
    if now >= statement["expires_at"]:
        return "expired"
    if num_uses >= statement["max_uses"]:
        return "used_up"
    return "not_yet" if now < statement["not_before"] else "live"
