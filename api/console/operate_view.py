"""What the operator's pages show, gathered from the running service: health in words, clients, keys and their age."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import func, select

from api.clients import VETTED_KINDS
from api.storage.models import Client, Render
from policy.errors import PolicyError
from policy.index import Query
from policy.kms import UNROTATED, KeyInfo
from policy.rotation import ROTATED_KIND

if TYPE_CHECKING:
    from api.service import Service

OLD_KEY_DAYS: Final = 365
LOW_DISK_SHARE: Final = 0.05
LATE_WITNESS_S: Final = 300.0
_DAY_S: Final = 86_400
_MAX_ROTATIONS: Final = 500


@dataclass(frozen=True)
class Sign:
    """One thing about the service, in a word and a sentence.

    Attributes:
        name: what it is about: log, witness, worker, queue, storage, keys, alarms, applications.
        tone: good, warn, bad or quiet.
        state: which sentence, `operate.sign.<name>.<state>` in the texts.
        values: for the placeholders of the sentence.
        share: how full something is, 0..1, if that is a meaning that it has.
    """

    name: str
    tone: str
    state: str
    values: Mapping[str, Any]
    share: float | None = None
    link: str = ""


@dataclass(frozen=True)
class ClientLine:
    """A client, and what it has made today."""

    client: Client
    used_s: float
    num_open: int
    is_over: bool

    @property
    def share(self) -> float:
        """Of today's budget."""
        return min(1.0, self.used_s / self.client.budget_s_per_day) if self.client.budget_s_per_day else 0.0


@dataclass(frozen=True)
class KeyLine:
    """A key: its names, and since when it has been the current one (Unix seconds)."""

    info: KeyInfo
    since_s: float
    age_days: int
    is_old: bool
    rotates: bool


def signs(service: Service) -> list[Sign]:
    """The state of everything, the most pressing first."""
    found = [
        _alarms(service),
        _log(service),
        _witness(service),
        _worker(service),
        _queue(service),
        _storage(service),
        _keys(service),
        _applications(service),
    ]
    order = {"bad": 0, "warn": 1, "good": 2, "quiet": 2}
    return sorted(found, key=lambda sign: order[sign.tone])


def overall(found: Iterable[Sign]) -> str:
    """good, warn or bad: the worst of all."""
    tones = {sign.tone for sign in found}
    return "bad" if "bad" in tones else "warn" if "warn" in tones else "good"


def _alarms(service: Service) -> Sign:
    found = service.audit.alarms()
    num = sum(1 for each in found if each.severity == "alarm")
    if num:
        return Sign("alarms", "bad", "some", {"count": num}, link="/audit/alarms")
    if found:
        return Sign("alarms", "warn", "warnings", {"count": len(found)}, link="/audit/alarms")
    return Sign("alarms", "good", "none", {}, link="/audit/alarms")


def _log(service: Service) -> Sign:
    try:
        size = service.log.size
        last = service.log.entry(size - 1) if size else None
    except PolicyError as error:
        return Sign("log", "bad", "down", {"code": error.code})
    at_s = datetime.fromisoformat(str(last["time"])).timestamp() if last is not None else 0.0
    return Sign("log", "good", "good", {"size": size, "at": at_s}, link="/audit")


def _witness(service: Service) -> Sign:
    witnessing = service.witnessing
    if not witnessing.is_configured:
        return Sign("witness", "quiet", "none", {})
    states = witnessing.states()
    if any(each.contradicts for each in states):
        return Sign("witness", "bad", "contradicts", {}, link="/audit/alarms")
    try:
        lag, lag_s = witnessing.lag_entries, witnessing.lag_s
    except PolicyError as error:
        return Sign("witness", "bad", "down", {"code": error.code})
    values = {"lag": lag, "seconds": round(lag_s), "count": len(states)}
    if lag_s > LATE_WITNESS_S or any(each.problem for each in states):
        return Sign("witness", "warn", "late", values, link="/audit/alarms")
    return Sign("witness", "good", "good", values)


def _worker(service: Service) -> Sign:
    process = service.worker.process
    values = {"starts": process.num_starts, "name": service.worker.name}
    if process.is_ready:
        return Sign("worker", "good", "ready", values)
    return Sign(
        "worker", "warn" if process.is_running else "quiet", "starting" if process.is_running else "idle", values
    )


def _queue(service: Service) -> Sign:
    waiting, limit = service.renders.num_waiting, service.settings.render_queue
    share = waiting / limit
    tone = "bad" if share >= 1 else "warn" if share >= 0.75 else "good"
    state = "full" if share >= 1 else "busy" if waiting else "empty"
    return Sign("queue", tone, state, {"waiting": waiting, "limit": limit}, share)


def _storage(service: Service) -> Sign:
    disk = shutil.disk_usage(service.settings.home)
    share = 1 - disk.free / disk.total
    database = service.database.num_bytes()
    values = {"free_gb": round(disk.free / 1e9, 1), "database_mb": round(database / 1e6, 1)}
    is_low = disk.free / disk.total < LOW_DISK_SHARE
    return Sign("storage", "bad" if is_low else "good", "low" if is_low else "good", values, share)


def _keys(service: Service) -> Sign:
    old = [line.info.name for line in key_lines(service) if line.is_old]
    if old:
        return Sign("keys", "warn", "old", {"names": ", ".join(old), "days": OLD_KEY_DAYS}, link="/operate/keys")
    return Sign("keys", "good", "good", {"days": OLD_KEY_DAYS}, link="/operate/keys")


def _applications(service: Service) -> Sign:
    num = len(service.applications.all("open"))
    state = "some" if num else "none"
    return Sign("applications", "warn" if num else "good", state, {"count": num}, link="/operate/applications")


def client_lines(service: Service) -> list[ClientLine]:
    """Every vetted client: those that are approved first, each with what it made today."""
    now = service.now()
    midnight = now - now % _DAY_S
    with service.database.read() as session:
        clients = session.scalars(select(Client).where(Client.kind.in_(VETTED_KINDS))).all()
        made = select(Render.client_id, func.sum(Render.speech_s)).where(
            Render.created_at >= midnight, Render.status.in_(("queued", "running", "delivered"))
        )
        used = {client_id: float(seconds) for client_id, seconds in session.execute(made.group_by(Render.client_id))}
        opened = select(Render.client_id, func.count()).where(Render.status.in_(("queued", "running")))
        num_open = {client_id: int(num) for client_id, num in session.execute(opened.group_by(Render.client_id))}
    lines = [
        ClientLine(
            client,
            used.get(client.client_id, 0.0),
            num_open.get(client.client_id, 0),
            client.term_expires_at is not None and client.term_expires_at <= now,
        )
        for client in clients
    ]
    return sorted(lines, key=lambda line: (line.client.status != "approved", line.is_over, -line.client.created_at))


def key_lines(service: Service) -> list[KeyLine]:
    """Every key of the instance. Nothing in it is secret."""
    now = service.now()
    made_at_s = datetime.fromisoformat(str(service.log.entry(0)["time"])).timestamp() if service.log.size else now
    rotated: dict[str, float] = {}
    _, entries = service.audit.search(Query(kind=ROTATED_KIND), _MAX_ROTATIONS)
    for entry in entries:
        at_s = datetime.fromisoformat(str(entry["time"])).timestamp()
        name = str(entry["body"].get("key"))
        rotated[name] = max(at_s, rotated.get(name, 0.0))
    lines = []
    for info in service.keys.service.describe():
        since_s = rotated.get(info.name, made_at_s)
        age_days = int(max(0.0, now - since_s) // _DAY_S)
        rotates = info.name not in UNROTATED
        lines.append(KeyLine(info, since_s, age_days, rotates and age_days >= OLD_KEY_DAYS, rotates))
    return lines
