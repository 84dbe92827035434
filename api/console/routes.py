"""Every router of the pages, in one place: `api.app` includes them all."""

from __future__ import annotations

from typing import Final

from fastapi import APIRouter

from api.console import audit, authorize, check, invitations, me, me_consents, me_enrol, operate, site, studio

ROUTERS: Final[tuple[APIRouter, ...]] = (
    site.router,
    check.router,
    me.router,
    me_consents.router,
    me_enrol.router,
    audit.router,
    operate.router,
    studio.router,
    authorize.router,
    invitations.router,
    invitations.api_router,
)
