"""/v1/live: open a session (HTTP), then live through it (WebSocket). docs/live.md has the protocol."""

from __future__ import annotations

import asyncio
import logging
from typing import Final, cast

from fastapi import APIRouter, WebSocket
from fastapi.concurrency import run_in_threadpool
from starlette.websockets import WebSocketState

from api.deps import LiveCreator, ServiceDep
from api.live.connection import LostError
from api.live.desk import LiveRequest
from api.live.errors import OpeningError, StreamError
from api.live.messages import SUBPROTOCOL, opening_of
from api.live.schemas import LiveSessionIn, LiveSessionOut
from api.live.session import LiveSession
from api.service import Service
from generator.live_terms import LiveTerms

router = APIRouter(prefix="/v1/live", tags=["live"])
logger = logging.getLogger("placet.live")

_OPENING_S: Final = 5.0
_POLICY_VIOLATION: Final = 1008


@router.post("/sessions", status_code=201, summary="Open a live session; 403 with every reason if the gate refuses")
async def create(asked: LiveSessionIn, service: ServiceDep, actor: LiveCreator) -> LiveSessionOut:
    session = await service.live.open(actor, request_of(asked))
    return opened(service, session)


def request_of(asked: LiveSessionIn) -> LiveRequest:
    """What is asked for. Raises: LiveTermsError."""
    terms = LiveTerms(
        max_duration_ms=round(asked.max_duration_s * 1000),
        rate_hz=asked.rate_hz,
        sound_rate_hz=asked.sound_rate_hz,
        frames_per_segment=asked.frames_per_segment,
        record=asked.record,
    )
    return LiveRequest(asked.subject_id, asked.portrait_sha256, asked.purpose, terms, asked.controls, asked.pace)


def opened(service: Service, session: LiveSession) -> LiveSessionOut:
    """What the client needs to connect."""
    scheme, _, rest = service.issuer.partition("://")
    return LiveSessionOut(
        session_id=session.session_id,
        url=f"{'wss' if scheme == 'https' else 'ws'}://{rest}/v1/live",
        subprotocol=SUBPROTOCOL,
        ticket=session.ticket,
        ticket_expires_in_s=service.settings.live_ticket_s,
        render_id=session.session_id,
        mark_id=session.job.mark_id,
        decision_index=session.job.ruling.evidence.index,
    )


@router.websocket("")
async def live(websocket: WebSocket) -> None:
    """The ticket comes as the first message: addresses end up in logs, and browsers set no headers here."""
    service = cast(Service, websocket.app.state.service)
    offered = websocket.scope.get("subprotocols", [])
    await websocket.accept(subprotocol=SUBPROTOCOL if SUBPROTOCOL in offered else None)
    connection = _Socket(websocket)
    try:
        try:
            async with asyncio.timeout(_OPENING_S):
                first = await connection.receive()
        except TimeoutError:
            raise OpeningError("No opening message came in time.") from None
        opening = opening_of(first if isinstance(first, str) else None)
        session = service.live.admit(opening, connection)
    except LostError:
        return
    except StreamError as error:
        address = websocket.client.host if websocket.client is not None else ""
        await run_in_threadpool(service.record_rejection, error.code, "", "/v1/live", address)
        await connection.close(_POLICY_VIOLATION, error.code)
        return
    await session.serve(connection)


class _Socket:
    """A WebSocket of Starlette as a session wants it: whatever ends it is one error."""

    def __init__(self, websocket: WebSocket) -> None:
        self._websocket = websocket
        self.is_greeted = False

    async def send_bytes(self, data: bytes) -> None:
        """Raises: LostError."""
        await self._send({"type": "websocket.send", "bytes": data})

    async def send_text(self, text: str) -> None:
        """Raises: LostError."""
        await self._send({"type": "websocket.send", "text": text})

    async def receive(self) -> bytes | str:
        """The next message. Raises: LostError."""
        try:
            message = await self._websocket.receive()
        except RuntimeError as exc:  # after its disconnection
            raise LostError from exc
        if message["type"] != "websocket.receive":
            raise LostError
        data = message.get("bytes")
        return data if data is not None else str(message.get("text") or "")

    async def close(self, code: int, reason: str) -> None:
        """Say goodbye; does not raise."""
        try:
            await self._websocket.close(code, reason)
        except (RuntimeError, OSError):
            logger.debug("a connection was gone before it was closed")

    async def _send(self, message: dict[str, object]) -> None:
        if self._websocket.application_state is not WebSocketState.CONNECTED:
            raise LostError
        try:
            await self._websocket.send(message)
        except Exception as exc:  # each server has its own error for a peer that is gone
            raise LostError from exc
