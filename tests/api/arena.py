"""Where attacks are tried: the running server, everybody who is around, and what every attack must end in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx
from sqlalchemy import func, select

from api.client import Enrolled, PlacetClient
from api.storage.models import Render
from policy.consent import PURPOSE_RESEARCH
from policy.identity import SCOPE_RENDER_CREATE, SCOPE_RENDER_READ
from tests.api.conftest import Running


@dataclass(frozen=True)
class Arena:
    """The server, and everybody who is around."""

    server: Running
    operator: PlacetClient
    researcher: PlacetClient
    stranger: PlacetClient
    auditor: PlacetClient
    subject: PlacetClient
    enrolled: Enrolled
    portrait: bytes
    speech: bytes

    @property
    def url(self) -> str:
        return self.server.url

    def get(self, path: str, **headers: str) -> httpx.Response:
        return httpx.get(self.url + path, headers=headers, timeout=60)

    def bearer(self, token: str, path: str = "/v1/audit/entries") -> httpx.Response:
        return self.get(path, Authorization=f"Bearer {token}")

    def dpop(self, token: str, proof: str, path: str = "/v1/renders/ren_0") -> httpx.Response:
        return self.get(path, Authorization=f"DPoP {token}", DPoP=proof)

    def token(self) -> str:
        """The researcher's own, bound to their key."""
        return self.researcher.token(SCOPE_RENDER_READ)

    def proof(
        self, token: str | None = None, *, by: PlacetClient | None = None, path: str = "/v1/renders/ren_0"
    ) -> str:
        return (by or self.researcher).proof("GET", self.url + path, token)

    def render(self, by: PlacetClient | None = None, **changes: Any) -> httpx.Response:
        """Ask for a video over HTTP."""
        client = by or self.researcher
        fields = {
            "subject_id": self.enrolled.subject_id,
            "purpose": PURPOSE_RESEARCH,
            "portrait_sha256": self.enrolled.portrait_sha256,
        }
        files = {"speech": ("speech", self.speech)}
        for name in set(changes) & {"speech", "portrait"}:
            files[name] = (changes.pop("filename", name), changes.pop(name))
            fields.pop("portrait_sha256" if name == "portrait" else "", None)
        given = {name: value for name, value in (fields | changes).items() if value is not None}
        auth = client.auth(SCOPE_RENDER_CREATE)
        return httpx.post(f"{self.url}/v1/renders", auth=auth, data=given, files=files, timeout=120)

    @property
    def num_delivered(self) -> int:
        """Videos that ever left."""
        with self.server.service.database.read() as session:
            delivered = select(func.count()).select_from(Render).where(Render.status == "delivered")
            return session.scalar(delivered) or 0


Act = Callable[[Arena], httpx.Response]
Row = tuple[Act, int, str]


def check(arena: Arena, row: Row, kind: str) -> dict[str, Any]:
    """Attack; the answer must be the required one, and its entry in the log. Returns the problem."""
    act, status, code = row
    size = arena.server.service.log.size
    answer = act(arena)
    problem: dict[str, Any] = answer.json()
    assert (answer.status_code, problem["code"]) == (status, code), problem
    assert len(problem["detail"].split()) >= 4, "a sentence that helps"
    assert problem["log_index"] is not None and problem["log_index"] >= size, problem
    entry = arena.server.service.log.entry(problem["log_index"])
    assert entry["kind"] == kind, entry
    return problem
