"""Does what was agreed still stand? Asked before a render begins, before its delivery, and while it is handed out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy.orm import Session

from api.errors import ApiError, RefusedError
from api.storage.models import Client, Consent, Render, Subject
from policy.facts import CONTROL_DRIVER


class ConsentWithdrawnError(ApiError):
    """The consent ended between the decision and the delivery."""

    code = "consent.revoked"


class ClientSuspendedError(RefusedError):
    """The client was suspended between the decision and the delivery."""

    code = "render.client_suspended"


def check_client(session: Session, render: Render) -> None:
    """Raises ClientSuspendedError if the operator has suspended the client that asked for a render."""
    if session.get_one(Client, render.client_id).status != "approved":
        raise ClientSuspendedError("The client was suspended: nothing that it asked for is made or given out any more.")


def check_consent(session: Session, render: Render) -> None:
    """Hold a render to what the person shown, and the driver where there is one, allow now.

    A consent that was narrowed is judged by the one in its place: what that still covers goes on, the rest ends.

    Raises: ConsentWithdrawnError: revoked, withdrawn with everything of that epoch, erased, or narrowed.
    """

    def shows(allowed: Mapping[str, Any]) -> bool:
        controls = set(allowed["controls"])
        agreed = "*" in controls or set(render.controls) <= controls
        return agreed and render.purpose in allowed["purposes"] and render.portrait_sha256 in allowed["portraits"]

    def drives(allowed: Mapping[str, Any]) -> bool:
        return render.purpose in allowed["purposes"] and CONTROL_DRIVER in allowed["controls"]

    _check_stands(session, render.consent_id, render.consent_epoch, shows, "person shown")
    _check_stands(session, render.driver_consent_id, render.driver_consent_epoch, drives, "driver")


def _check_stands(
    session: Session, consent_id: str | None, epoch: int, covers: Callable[[Mapping[str, Any]], bool], whose: str
) -> None:
    if consent_id is None:
        return
    consent = session.get_one(Consent, consent_id)
    subject = session.get_one(Subject, consent.subject_id)
    if consent.revoked_at is not None or subject.epoch != epoch or subject.erased_at is not None:
        raise ConsentWithdrawnError(f"The {whose} has revoked their consent: nothing of it is given out any more.")
    while consent.superseded_by is not None:
        consent = session.get_one(Consent, consent.superseded_by)
        if consent.revoked_at is not None or not covers(consent.statement):
            raise ConsentWithdrawnError(f"The {whose} has narrowed their consent: it does not cover this any more.")
