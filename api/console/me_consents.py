"""/me/consents: choose what to allow, read it in plain words, sign it with a passkey, narrow it, take it back."""

from __future__ import annotations

import math
import secrets
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import HTMLResponse, JSONResponse

from api.console.consent_view import ConsentView, consent_view
from api.console.i18n import language_of
from api.console.me import Me
from api.console.pages import render
from api.console.session import FromOurScript, at_named_origin
from api.console.site import Fetched
from api.console.statements import paragraphs, signed_of, to_sign
from api.deps import ServiceDep
from api.errors import ConflictError
from api.service import Service
from api.storage.models import Client, Portrait
from policy.consent import ANY_CONTROL, EVERYTHING, MAX_TERM_S, MAX_USES, ConsentStatement, RevocationStatement
from policy.identity import SCOPE_RENDER_CREATE
from policy.purposes import PURPOSES_BY_LANGUAGE
from policy.texts import CURRENT_VERSION, control_words

router = APIRouter(prefix="/me/consents", include_in_schema=False, dependencies=[Depends(at_named_origin)])

_DAY_S: Final = 86_400

Texts = Annotated[list[str], Query(max_length=64)]


@router.get("/new", response_class=HTMLResponse)
def new(
    request: Request,
    service: ServiceDep,
    me: Me,
    narrow: str = "",
    client: str = "",
    purpose: Annotated[Texts | None, Query()] = None,
    days: int = 90,
    uses: int = 10,
) -> HTMLResponse:
    """The form. Whoever asks for a consent can give out a link to it with the fields filled in."""
    old = consent_view(service, me.account_id, narrow) if narrow else None
    grantees = [old.consent.grantee_client] if old else [each.client_id for each in askers(service)]
    if old:
        days = max(1, math.ceil((old.consent.expires_at - service.now()) / _DAY_S))
        uses = old.uses_left
    return render(
        request,
        "me/new.html",
        old=old,
        askers=[each for each in askers(service) if each.client_id in grantees],
        client=client,
        purposes=PURPOSES_BY_LANGUAGE[language_of(request)],
        offered_purposes=old.consent.statement["purposes"] if old else list(PURPOSES_BY_LANGUAGE["en"]),
        chosen_purposes=old.consent.statement["purposes"] if old else purpose or [],
        portraits=_portraits(service, me.account_id, old),
        controls=_offered_controls(old),
        control_words=control_words(language_of(request)),
        days=days,
        uses=uses,
        max_uses=old.uses_left if old else MAX_USES,
        max_days=days if old else MAX_TERM_S // _DAY_S,
        is_incomplete="incomplete" in request.query_params,
    )


@router.get("/review", response_class=HTMLResponse)
def review(
    request: Request,
    service: ServiceDep,
    me: Me,
    client: str = "",
    purpose: Annotated[Texts | None, Query()] = None,
    portrait: Annotated[Texts | None, Query()] = None,
    controls: str = "none",
    control: Annotated[Texts | None, Query()] = None,
    days: Annotated[int, Query(ge=1, le=MAX_TERM_S // _DAY_S)] = 90,
    uses: Annotated[int, Query(ge=1, le=MAX_USES)] = 10,
    narrow: str = "",
) -> HTMLResponse:
    """The whole text, and exactly what would be signed."""
    grantee = next((each for each in askers(service) if each.client_id == client), None)
    if grantee is None or not purpose or not portrait:
        return new(request, service, me, narrow, client, purpose, days, uses)
    old = consent_view(service, me.account_id, narrow) if narrow else None
    subject, _ = service.enrolment.find(me.account_id)
    now = int(service.now())
    allowed = {"any": (ANY_CONTROL,), "some": tuple(each for each in control_words("en") if each in (control or []))}
    statement = ConsentStatement(
        subject_id=me.account_id,
        grantee_org=grantee.org,
        grantee_client=grantee.client_id,
        purposes=tuple(purpose),
        portraits=tuple(portrait),
        controls=allowed.get(controls, ()),
        not_before=now,
        expires_at=min(now + days * _DAY_S, old.consent.expires_at if old else now + MAX_TERM_S),
        max_uses=uses,
        epoch=subject.epoch,
        text_version=CURRENT_VERSION,
        language=language_of(request),
        record_id=secrets.token_hex(16),
        supersedes=old.consent.sha256 if old else "",
    )
    draft = service.consents.draft(statement)
    return render(
        request,
        "me/review.html",
        statement=statement.to_json(),
        who=grantee.name or grantee.org,
        purposes=PURPOSES_BY_LANGUAGE[language_of(request)],
        control_words=control_words(language_of(request)),
        text=draft.text,
        paragraphs=paragraphs,
        sha256=draft.sha256,
        to_sign={"statement": statement.to_json(), "options": draft.passkey_options},
        back=f"/me/consents/new?{request.url.query}",
    )


@router.post("", dependencies=[FromOurScript])
def give(service: ServiceDep, me: Me, body: Fetched) -> JSONResponse:
    consent = service.consents.give(me.account_id, signed_of(body))
    return JSONResponse({"next": f"/me?done=consent&entry={consent.log_index}"})


# -- taking back


@router.post("/{consent_id}/revocation/begin", dependencies=[FromOurScript])
def begin_revocation(service: ServiceDep, me: Me, consent_id: str) -> JSONResponse:
    consent, _ = service.consents.find(me.account_id, consent_id)
    subject, _ = service.enrolment.find(me.account_id)
    return JSONResponse(
        to_sign(service, me.account_id, _revocation(service, me.account_id, consent.sha256, subject.epoch))
    )


@router.post("/{consent_id}/revocation", dependencies=[FromOurScript])
def revoke(service: ServiceDep, me: Me, consent_id: str, body: Fetched) -> JSONResponse:
    revocation, _ = service.consents.revoke(me.account_id, consent_id, signed_of(body))
    return JSONResponse({"next": f"/me?done=revoked&entry={revocation.log_index}"})


@router.post("/revocation/begin", dependencies=[FromOurScript])
def begin_revocation_of_all(service: ServiceDep, me: Me) -> JSONResponse:
    subject, _ = service.enrolment.find(me.account_id)
    return JSONResponse(
        to_sign(service, me.account_id, _revocation(service, me.account_id, EVERYTHING, subject.epoch + 1))
    )


@router.post("/revocation", dependencies=[FromOurScript])
def revoke_all(service: ServiceDep, me: Me, body: Fetched) -> JSONResponse:
    consents = service.consents.all(me.account_id)
    if not consents:
        raise ConflictError("You have given no consent that could be revoked.")
    revocation, _ = service.consents.revoke(me.account_id, consents[0][0].consent_id, signed_of(body))
    return JSONResponse({"next": f"/me?done=revoked&entry={revocation.log_index}"})


def askers(service: Service) -> list[Client]:
    """Who may ask for videos at present, by name."""
    live = [
        each
        for each in service.clients.all()
        if SCOPE_RENDER_CREATE in each.scopes and service.clients.is_live(each.client_id)
    ]
    return sorted(live, key=lambda client: (client.name.casefold(), client.client_id))


def _portraits(service: Service, subject_id: str, old: ConsentView | None) -> list[Portrait]:
    _, portraits = service.enrolment.find(subject_id)
    return [each for each in portraits if old is None or each.sha256 in old.consent.statement["portraits"]]


def _offered_controls(old: ConsentView | None) -> list[str]:
    if old is None or old.allows_any_control:
        return list(control_words("en"))
    return list(old.consent.statement["controls"])


def _revocation(service: Service, subject_id: str, consent_sha256: str, epoch: int) -> RevocationStatement:
    return RevocationStatement(
        subject_id=subject_id, consent_sha256=consent_sha256, epoch=epoch, revoked_at=int(service.now())
    )
