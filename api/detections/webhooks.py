"""Telling a platform that its detection is done: one registered https address per client, signed, tried a few times.

Nothing inside the operator's network can be reached this way: the name is resolved here, every address it has must be
a public one, and the connection goes to exactly the address that was checked, with the name in the TLS handshake. No
redirect is followed, no proxy of the environment is used, and what comes back is not read beyond its status.
"""

from __future__ import annotations

import heapq
import ipaddress
import itertools
import json
import logging
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

import httpx

from api.detections.signatures import signed_headers
from api.errors import NotFoundError, RequestError
from api.storage.database import Database
from api.storage.models import Webhook
from policy.gate import Gate
from policy.kms import SigningKey

logger = logging.getLogger("placet.webhooks")

BACKOFF_S: Final = (0.0, 2.0, 10.0, 60.0, 300.0)
"""Waits before each attempt; after the last one the result can only be fetched."""
MAX_WAITING: Final = 1_000
TIMEOUT_S: Final = 10.0
_MAX_URL_CHARS: Final = 400
_PLAIN_URL = re.compile(r"[!-~]+")  # printable ASCII without spaces
_HOST = re.compile(r"[a-z0-9.:-]{1,253}")

Resolve = Callable[[str, int], Sequence[str]]


class WebhookAddressError(RequestError):
    """An address that nothing is sent to."""

    code = "request.webhook"


def check_url(url: str) -> str:
    """The address itself, if its form is one that is registered. Raises: WebhookAddressError."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as exc:
        raise WebhookAddressError("The address cannot be read: write https://host/path.") from exc
    is_plain = _PLAIN_URL.fullmatch(url) and _HOST.fullmatch(parts.hostname or "")
    if parts.scheme != "https" or not is_plain or len(url) > _MAX_URL_CHARS:
        raise WebhookAddressError("A webhook needs an https:// address of at most 400 ASCII characters.")
    if parts.username or parts.password or parts.fragment or port not in (None, 443, 8443):
        raise WebhookAddressError("A webhook has no user, no fragment, and port 443 or 8443.")
    try:
        ipaddress.ip_address(str(parts.hostname))
    except ValueError:
        return url
    raise WebhookAddressError("A webhook needs the name of a host, not a number.")


def resolved(host: str, port: int) -> list[str]:
    """Every address of a host."""
    return sorted({str(found[4][0]) for found in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)})


def is_public(address: str) -> bool:
    """Whether an address is one of the public internet, and not of this machine or any private network."""
    parsed = ipaddress.ip_address(address.partition("%")[0])
    mapped = getattr(parsed, "ipv4_mapped", None) or getattr(parsed, "sixtofour", None)
    return parsed.is_global and not parsed.is_multicast and (mapped is None or mapped.is_global)


class WebhookBook:
    """Who wants to be told, and where. Entering and leaving are log entries."""

    def __init__(self, database: Database, gate: Gate, now: Callable[[], float]) -> None:
        self._database, self._gate, self._now = database, gate, now

    def enter(self, client_id: str, url: str) -> Webhook:
        """Register the address of a client, in the place of another. Raises: WebhookAddressError."""
        check_url(url)
        with self._database.write() as session:
            evidence = self._gate.record(
                "webhook.registered", {"client": self._gate.pseudonym("client", client_id), "host": _host(url)}
            )
            row = session.get(Webhook, client_id) or Webhook(client_id=client_id)
            row.url, row.created_at, row.log_index = url, self._now(), evidence.index
            session.add(row)
        return row

    def find(self, client_id: str) -> Webhook | None:
        """The address of a client."""
        with self._database.read() as session:
            return session.get(Webhook, client_id)

    def leave(self, client_id: str) -> None:
        """Forget the address of a client. Raises: NotFoundError."""
        with self._database.write() as session:
            row = session.get(Webhook, client_id)
            if row is None:
                raise NotFoundError("No webhook is registered for this client.")
            self._gate.record("webhook.removed", {"client": self._gate.pseudonym("client", client_id)})
            session.delete(row)


@dataclass(order=True)
class _Parcel:
    due_s: float
    rank: int
    url: str = field(compare=False)
    body: bytes = field(compare=False)
    attempt: int = field(compare=False, default=0)


class WebhookSender:
    """Sends messages one after the other; those that fail wait and are tried again, a bounded number of times.

    Args:
        key: what signs them.
        now: Unix seconds.
        resolve, may_reach: name to addresses, and which of these are allowed.
        tls: whose certificates are believed; by default those of the system.
        backoff_s: waits before each attempt.
    """

    def __init__(
        self,
        key: Callable[[], SigningKey],
        now: Callable[[], float] = time.time,
        *,
        resolve: Resolve = resolved,
        may_reach: Callable[[str], bool] = is_public,
        tls: ssl.SSLContext | None = None,
        backoff_s: Sequence[float] = BACKOFF_S,
    ) -> None:
        self._key, self._now = key, now
        self._resolve, self._may_reach = resolve, may_reach
        self._tls = tls
        self._backoff_s = tuple(backoff_s)
        self._waiting: list[_Parcel] = []
        self._ranks = itertools.count()
        self._changed = threading.Condition()
        self._is_closed = False
        self._thread: threading.Thread | None = None
        self.num_sent = self.num_given_up = 0

    def send(self, url: str, content: Mapping[str, Any]) -> None:
        """Have a message sent as soon as possible. Where too many wait already, it is dropped, and the log says so."""
        body = json.dumps(content, separators=(",", ":")).encode()
        with self._changed:
            if self._is_closed or len(self._waiting) >= MAX_WAITING:
                self.num_given_up += 1
                logger.warning("a webhook was dropped: too many are waiting")
                return
            heapq.heappush(self._waiting, _Parcel(time.monotonic() + self._backoff_s[0], next(self._ranks), url, body))
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="webhooks", daemon=True)
                self._thread.start()
            self._changed.notify()

    def close(self) -> None:
        """Stop; what still waits is not sent any more."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._is_closed and (not self._waiting or self._waiting[0].due_s > time.monotonic()):
                    self._changed.wait(self._waiting[0].due_s - time.monotonic() if self._waiting else None)
                if self._is_closed:
                    return
                parcel = heapq.heappop(self._waiting)
            try:
                self._deliver(parcel)
                self.num_sent += 1
            except (httpx.HTTPError, WebhookAddressError, OSError) as error:
                self._again(parcel, error)

    def _again(self, parcel: _Parcel, error: Exception) -> None:
        parcel.attempt += 1
        if parcel.attempt >= len(self._backoff_s):
            self.num_given_up += 1
            logger.warning("a webhook to %s was given up: %s", _host(parcel.url), type(error).__name__)
            return
        parcel.due_s = time.monotonic() + self._backoff_s[parcel.attempt]
        with self._changed:
            heapq.heappush(self._waiting, parcel)

    def _deliver(self, parcel: _Parcel) -> None:
        """One attempt. Raises: httpx.HTTPError, OSError, WebhookAddressError."""
        parts = urlsplit(parcel.url)
        host, port = str(parts.hostname), parts.port or 443
        # (1) every address of the name is allowed; (2) and the one that was checked is the one that is reached
        addresses = self._resolve(host, port)
        if not addresses or not all(self._may_reach(address) for address in addresses):
            raise WebhookAddressError("The host of this webhook is not on the public internet.")
        address = f"[{addresses[0]}]" if ":" in addresses[0] else addresses[0]
        query = f"?{parts.query}" if parts.query else ""
        headers = signed_headers(self._key(), parcel.url, parcel.body, created_s=int(self._now()))
        with (
            httpx.Client(verify=self._tls or True, trust_env=False, timeout=TIMEOUT_S) as http,
            http.stream(
                "POST",
                f"https://{address}:{port}{parts.path or '/'}{query}",
                content=parcel.body,
                headers={**headers, "host": parts.netloc, "user-agent": "placet-webhook"},
                extensions={"sni_hostname": host},
            ) as response,
        ):
            response.raise_for_status()
            if not response.is_success:
                raise WebhookAddressError("The webhook answers with a redirect, which is not followed.")


def _host(url: str) -> str:
    return str(urlsplit(url).hostname)
