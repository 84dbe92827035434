"""Commands for vetting: organisations apply, operators approve, refuse, amend, suspend. Part of `placet operators`."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from api.cli.output import Json, emit, reporting
from api.cli.people import operators
from api.cli.places import Home, Url, operator_client, service_url
from api.client import Credentials, PlacetClient
from api.setup import write_private_json
from policy.consent import new_subject_key

_DAY_S = 86_400
ApplicationId = Annotated[str, typer.Argument(help="See `placet operators applications`.")]
ClientId = Annotated[str, typer.Argument(help="See `placet operators list`.")]
Days = Annotated[int | None, typer.Option(min=1, help="Term in days; by default as asked for.")]
Budget = Annotated[float | None, typer.Option(min=0, help="Seconds of video per day; by default as asked for.")]
Concurrent = Annotated[int | None, typer.Option(min=0, help="Renders and streams open at a time.")]
Reason = Annotated[str, typer.Option(help="For the people whom it concerns; kept beside the record, not in the log.")]


@operators.command("apply")
def apply(
    key: Annotated[Path, typer.Option("--key", help="Your key file; made if there is none yet.", dir_okay=False)],
    org: Annotated[str, typer.Option(help="Short identifier of your organisation.")],
    name: Annotated[str, typer.Option(help="Your group or product.")],
    contact: Annotated[str, typer.Option(help="How to reach a person there.")],
    project: Annotated[str, typer.Option(help="What for.")],
    ethics: Annotated[str, typer.Option(help="Ethics reference.")] = "",
    kind: Annotated[str, typer.Option(help="researcher, platform or auditor.")] = "researcher",
    scope: Annotated[list[str] | None, typer.Option(help="Scope; by default all that the kind may hold.")] = None,
    days: Annotated[int, typer.Option(min=1, help="For how long.")] = 365,
    budget: Annotated[float, typer.Option(min=0, help="Seconds of video per day.")] = 600.0,
    home: Home = None,
    url: Url = "",
    as_json: Json = False,
) -> None:
    """Apply for access, as an organisation. Only the public half of the key is sent."""
    from api.clients import SCOPES_BY_KIND

    with reporting(as_json), PlacetClient(service_url(home, url)) as placet:
        if not key.exists():
            write_private_json(key, {"client_id": "", "key": new_subject_key()})
        made = placet.apply(
            kind=kind,
            name=name,
            org=org,
            contact=contact,
            project=project,
            ethics_reference=ethics,
            scopes=scope or sorted(SCOPES_BY_KIND.get(kind, frozenset())),
            jwks=Credentials.load(key).public_jwks,
            term_days=days,
            budget_s_per_day=budget,
        )
        emit(as_json, made, f"{made['application_id']} waits for an operator (log entry {made['log_index']})")


@operators.command("applied")
def applied(
    application_id: ApplicationId,
    key: Annotated[Path | None, typer.Option("--key", help="Key file to put the client id into.")] = None,
    home: Home = None,
    url: Url = "",
    as_json: Json = False,
) -> None:
    """Ask what became of your application; once it is approved, the key file becomes credentials."""
    with reporting(as_json), PlacetClient(service_url(home, url)) as placet:
        found = placet.application(application_id)
        if found["status"] == "approved" and key is not None:
            credentials = Credentials(found["client_id"], Credentials.load(key).key)
            key.unlink()
            write_private_json(key, credentials.to_json())
        text = {
            "open": "not answered yet",
            "approved": f"approved: client {found['client_id']}",
            "refused": f"refused: {found['reason']}",
        }[found["status"]]
        emit(as_json, found, f"{application_id}: {text}")


@operators.command("applications")
def applications(
    status: Annotated[str, typer.Option(help="open, approved or refused; empty for all.")] = "open",
    home: Home = None,
    url: Url = "",
    as_json: Json = False,
) -> None:
    """Applications of organisations, newest first."""
    with reporting(as_json), operator_client(home, url) as placet:
        found = placet.applications(status)
        lines = [
            f"{each['application_id']}  {each['status']:<8} {each['kind']:<10} {each['org']}  {each['name']}: "
            f"{each['project']} ({each['term_days']} days, {each['budget_s_per_day']:.0f} s per day)"
            for each in found
        ]
        emit(as_json, {"applications": found}, "\n".join(lines) or "No applications.")


@operators.command("approve")
def approve(
    application_id: ApplicationId,
    days: Days = None,
    budget: Budget = None,
    concurrent: Concurrent = None,
    home: Home = None,
    url: Url = "",
    as_json: Json = False,
) -> None:
    """Let an applicant in, for a term and within budgets."""
    with reporting(as_json), operator_client(home, url) as placet:
        grant = _given(term_days=days, budget_s_per_day=budget, max_concurrent=concurrent)
        made = placet.approve(application_id, **grant)
        emit(as_json, made, f"{made['client_id']} approved until {made['term_expires_at']}")


@operators.command("refuse")
def refuse(
    application_id: ApplicationId, reason: Reason = "", home: Home = None, url: Url = "", as_json: Json = False
) -> None:
    """Turn an applicant down."""
    with reporting(as_json), operator_client(home, url) as placet:
        emit(as_json, placet.refuse(application_id, reason), f"{application_id} refused")


@operators.command("amend")
def amend(
    client_id: ClientId,
    days: Annotated[float | None, typer.Option(help="New term in days from now; 0 ends it.")] = None,
    budget: Budget = None,
    concurrent: Concurrent = None,
    home: Home = None,
    url: Url = "",
    as_json: Json = False,
) -> None:
    """Give a client another term or other budgets."""
    with reporting(as_json), operator_client(home, url) as placet:
        until = None if days is None else datetime.fromtimestamp(time.time() + days * _DAY_S, UTC).isoformat()
        terms = _given(term_expires_at=until, budget_s_per_day=budget, max_concurrent=concurrent)
        changed = placet.amend_client(client_id, **terms)
        text = (
            f"{client_id}: until {changed['term_expires_at']}, {changed['budget_s_per_day']:.0f} s per day, "
            f"{changed['max_concurrent']} at a time"
        )
        emit(as_json, changed, text)


@operators.command("suspend")
def suspend(client_id: ClientId, reason: Reason = "", home: Home = None, url: Url = "", as_json: Json = False) -> None:
    """End a client's approval at once."""
    with reporting(as_json), operator_client(home, url) as placet:
        emit(as_json, placet.suspend_client(client_id, reason), f"{client_id} suspended")


@operators.command("resume")
def resume(client_id: ClientId, reason: Reason = "", home: Home = None, url: Url = "", as_json: Json = False) -> None:
    """Lift a suspension."""
    with reporting(as_json), operator_client(home, url) as placet:
        emit(as_json, placet.resume_client(client_id, reason), f"{client_id} approved again")


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
