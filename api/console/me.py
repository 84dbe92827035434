"""/me: what a depicted person has allowed, every use of their face, their passkeys and their data."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response

from api.console.consent_view import consent_views
from api.console.i18n import language_of
from api.console.pages import render, translator_of
from api.console.session import (
    FromOurScript,
    Session,
    SignedIn,
    at_named_origin,
    clear_session_cookie,
    session_cookie_name,
)
from api.console.site import Fetched
from api.console.statements import paragraphs, signed_of, to_sign
from api.console.uses import TONES, proofs, uses_page
from api.deps import ServiceDep
from api.errors import NotFoundError
from api.routes import myself
from policy.consent import ErasureStatement
from policy.identity import SCOPE_SUBJECT_SELF, Actor
from policy.purposes import PURPOSES_BY_LANGUAGE
from policy.texts import CURRENT_VERSION, control_words, shown_text

router = APIRouter(include_in_schema=False, dependencies=[Depends(at_named_origin)])

Me = Annotated[Session, Depends(SignedIn("subject"))]
Index = Annotated[int | None, Query(ge=0, lt=1 << 53)]

_MAX_PROOFS = 200


@router.get("/me", response_class=HTMLResponse)
def overview(request: Request, service: ServiceDep, me: Me, before: Index = None) -> HTMLResponse:
    subject, portraits = service.enrolment.find(me.account_id)
    language = language_of(request)
    consents = consent_views(service, me.account_id)
    return render(
        request,
        "me/overview.html",
        subject=subject,
        portraits=portraits,
        in_force=[each for each in consents if each.is_open],
        ended=[each for each in consents if not each.is_open],
        uses=uses_page(service, me.account_id, before),
        is_newest=before is None,
        tones=TONES,
        purposes=PURPOSES_BY_LANGUAGE[language],
        control_words=control_words(language),
        passkeys=service.passkeys.of_account(me.account_id),
        erasure=shown_text(_erasure(request, service, me)),
        paragraphs=paragraphs,
        done=_done(request),
    )


@router.get("/me/portraits/{sha256}")
def portrait(service: ServiceDep, me: Me, sha256: str) -> Response:
    _, portraits = service.enrolment.find(me.account_id)
    for each in portraits:
        if each.sha256 == sha256:
            return Response(service.enrolment.open_portrait(each), media_type="image/png")
    raise NotFoundError("You have enrolled no such picture.")


@router.get("/me/proofs")
def proofs_of(
    service: ServiceDep,
    me: Me,
    entries: Annotated[str, Query(max_length=4000)] = "",
    since: Annotated[int, Query(ge=0, lt=1 << 53)] = 0,
) -> JSONResponse:
    indices = [int(part) for part in entries.split(",") if part.isdecimal()][:_MAX_PROOFS]
    return JSONResponse(proofs(service, me.account_id, indices, since))


@router.get("/me/everything.zip")
def download(service: ServiceDep, me: Me) -> Response:
    """The same file that the API gives to whoever holds a token of theirs."""
    return myself.export(service, Actor(me.account_id, "subject", frozenset({SCOPE_SUBJECT_SELF}), frozenset()))


# -- passkeys


@router.post("/me/passkeys/begin", dependencies=[FromOurScript])
def begin_passkey(service: ServiceDep, me: Me) -> JSONResponse:
    return JSONResponse({"options": service.passkeys.begin_registration(me.account_id, me.account_id)})


@router.post("/me/passkeys", dependencies=[FromOurScript])
def finish_passkey(service: ServiceDep, me: Me, body: Fetched) -> JSONResponse:
    service.passkeys.finish_registration(me.account_id, body.get("credential"))
    return JSONResponse({"next": "/me?done=passkey#passkeys"})


# -- erasure


@router.post("/me/erasure/begin", dependencies=[FromOurScript])
def begin_erasure(request: Request, service: ServiceDep, me: Me) -> JSONResponse:
    return JSONResponse(to_sign(service, me.account_id, _erasure(request, service, me)))


@router.post("/me/erasure", dependencies=[FromOurScript])
def erase(request: Request, service: ServiceDep, me: Me, body: Fetched) -> JSONResponse:
    service.erasure.erase(me.account_id, signed_of(body))
    service.sessions.close(request.cookies.get(session_cookie_name(request), ""))
    answer = JSONResponse({"next": "/me/erased"})
    clear_session_cookie(request, answer)
    return answer


@router.get("/me/erased", response_class=HTMLResponse)
def erased(request: Request) -> Response:
    return render(request, "me/erased.html")


def _erasure(request: Request, service: ServiceDep, me: Session) -> ErasureStatement:
    subject, _ = service.enrolment.find(me.account_id)
    return ErasureStatement(
        subject_id=me.account_id,
        epoch=subject.epoch,
        issued_at=int(service.now()),
        text_version=CURRENT_VERSION,
        language=language_of(request),
    )


def _done(request: Request) -> str:
    """What has just been done, in words: pages redirect here with `?done=…`."""
    t = translator_of(request)
    what, index = request.query_params.get("done", ""), request.query_params.get("entry", "")
    return t.maybe(f"me.done.{what}", "").replace("{index}", index if index.isdecimal() else "")
