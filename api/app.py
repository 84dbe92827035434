"""The web application: middleware, error shape, routes, and the service behind them."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi.concurrency import run_in_threadpool
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api import software_version
from api.console.routes import ROUTERS
from api.metrics import Metrics
from api.openapi import install_document
from api.problems import install_error_handlers
from api.routes import (
    applications,
    audit,
    consents,
    detections,
    docs,
    health,
    live,
    myself,
    oauth,
    operators,
    pki,
    renders,
    softbinding,
    subjects,
    texts,
    tlog,
)
from api.schemas import Problem
from api.service import Service
from api.settings import Settings
from api.uploads import BodyGuard

DESCRIPTION = """\
Talking-face video, released only with the signed consent of the person shown: marked in every frame, signed, logged.

Get a token at `/oauth/token` (client credentials with `private_key_jwt`); a token is good for one group of endpoints.
Errors are `application/problem+json` with a stable `code`; a refusal carries every reason and its log index.
"""


def create_app(settings: Settings, now: Callable[[], float] = time.time) -> FastAPI:
    """The application for one instance.

    Args:
        settings: see `api.settings`; `settings.home` must hold an instance made by `placet init`.
        now: clock, seconds since the epoch.
    """
    logging.getLogger("placet").setLevel(logging.INFO)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        service = await run_in_threadpool(Service, settings, now)
        await run_in_threadpool(service.start)
        app.state.service = service
        try:
            yield
        finally:
            await run_in_threadpool(service.close)

    app = FastAPI(
        title="Placet",
        version=software_version(),
        description=DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        responses={"default": {"description": "A problem document (RFC 9457)", "model": Problem}},
    )
    install_error_handlers(app)
    for module in (
        oauth,
        applications,
        texts,
        subjects,
        myself,
        consents,
        renders,
        live,
        detections,
        softbinding,
        pki,
        audit,
        tlog,
        operators,
        health,
        docs,
    ):
        app.include_router(module.router)
    for router in ROUTERS:
        app.include_router(router)
    install_document(app)
    app.add_middleware(BodyGuard, max_json_bytes=settings.max_json_bytes)
    app.add_middleware(RequestObserver)
    return app


class RequestObserver:
    """ASGI middleware: counts requests, and sets the headers that every answer carries."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def observing_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = message.setdefault("headers", [])
                present = {name.lower() for name, _ in headers}
                for name, value in _SECURITY_HEADERS:
                    if name not in present:
                        headers.append((name, value))
                route = getattr(scope.get("route"), "path", "unmatched")
                metrics: Metrics = scope["app"].state.service.metrics
                metrics.count(
                    "placet_http_requests_total", method=scope["method"], route=route, status=str(message["status"])
                )
            await send(message)

        await self._app(scope, receive, observing_send)


_SECURITY_HEADERS = (
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"content-security-policy", b"default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"),
)
