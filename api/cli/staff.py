"""Invitations of staff: how the first auditor or operator gets a passkey."""

from __future__ import annotations

from typing import Annotated

import typer

from api.cli.output import Json, emit, reporting
from api.cli.places import Home, Url, operator_client


def invite(
    role: Annotated[str, typer.Option(help="operator, auditor or researcher.")],
    name: Annotated[str, typer.Option(help="Whom the link is for.")],
    org: Annotated[str, typer.Option(help="Short identifier of the organisation.")] = "local-operator",
    home: Home = None,
    url: Url = "",
    as_json: Json = False,
) -> None:
    """Print a one-time link with which a member of staff makes a passkey and signs in (as the local operator)."""
    with reporting(as_json), operator_client(home, url) as placet:
        made = placet.invite(role=role, name=name, org=org)
        text = f"{made['url']}\nfor {name} only; works once, until {made['expires_at']} (log entry {made['log_index']})"
        emit(as_json, made, text)
