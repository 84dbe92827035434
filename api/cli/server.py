"""Runs the web server on a socket that is already bound, and says where it is once it is ready."""

from __future__ import annotations

import json
import logging
import os
import socket

import uvicorn

from api.app import create_app
from api.cli.places import write_service_file
from api.live.messages import MAX_MESSAGE_BYTES
from api.settings import Settings


def run_server(settings: Settings, listener: socket.socket, as_json: bool) -> bool:
    """Serve until interrupted. Returns whether it ever came up."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    config = uvicorn.Config(
        create_app(settings),
        log_level="warning",
        server_header=False,
        # live sessions: no message is larger than a second of sound; half-open connections are noticed within 25 s;
        # video does not get smaller by deflating it
        ws_max_size=MAX_MESSAGE_BYTES,
        ws_ping_interval=5.0,
        ws_ping_timeout=20.0,
        ws_per_message_deflate=False,
        timeout_graceful_shutdown=5,
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=settings.trusted_proxies or None,
    )
    server = _Server(config, settings, as_json)
    server.run(sockets=[listener])
    return server.started


class _Server(uvicorn.Server):
    """Leaves word in the home, for the other commands, where it listens."""

    def __init__(self, config: uvicorn.Config, settings: Settings, as_json: bool) -> None:
        super().__init__(config)
        self._settings = settings
        self._as_json = as_json

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        if self.started:
            ready = {"url": self._settings.base_url, "pid": os.getpid()}
            write_service_file(self._settings, ready)
            text = json.dumps(ready) if self._as_json else f"Placet is at {ready['url']} (documentation at /docs)"
            print(text, flush=True)
