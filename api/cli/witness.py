"""`placet witness`: a witness of its own, in a directory of its own. It needs nothing of any instance but log keys."""

from __future__ import annotations

import json
import logging
import socket
import time
from pathlib import Path
from typing import Annotated, Any

import typer
import uvicorn

from api.cli.output import Json, emit, reporting
from api.witness import create_witness_app
from policy.errors import WitnessStateError
from policy.witness import Witness

app = typer.Typer(help="A witness: cosigns a log's checkpoints as long as they tell one history.", no_args_is_help=True)

Directory = Annotated[Path, typer.Argument(help="Directory of the witness.", file_okay=False)]
Logs = Annotated[list[str] | None, typer.Option("--log", help="Verifier key of a log to watch; may be repeated.")]


@app.command()
def init(
    directory: Directory,
    name: Annotated[str, typer.Option(help="Name for the world, such as witness.example/w1.")] = "witness.local/w1",
    logs: Logs = None,
    as_json: Json = False,
) -> None:
    """Make a witness, or let the one that is there watch further logs."""
    with reporting(as_json):
        is_new = not directory.is_dir() or not any(directory.iterdir())
        witness = Witness.create(directory, name, time.time) if is_new else Witness.open(directory, time.time)
        if not is_new and not logs:
            raise WitnessStateError("There is a witness here already; give --log to let it watch a further log.")
        for log in logs or []:
            witness.watch(log)
        emit(as_json, _about(witness), _text(witness))


@app.command()
def show(directory: Directory, as_json: Json = False) -> None:
    """What a witness watches, and the last checkpoint that it cosigned of each log."""
    with reporting(as_json):
        witness = Witness.open(directory, time.time)
        emit(as_json, _about(witness), _text(witness))


@app.command()
def serve(
    directory: Directory,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 8471,
    as_json: Json = False,
) -> None:
    """Cosign until interrupted. When it is ready it says where."""
    with reporting(as_json):
        witness = Witness.open(directory, time.time)
        listener = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
        url = f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}"
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
        ready = {"url": url, "verifier_key": witness.key.text, "setting": f"{witness.key.text} {url}"}
        text = f"{witness.key.name} is at {url}\nsetting    PLACET_WITNESSES='{json.dumps([ready['setting']])}'"
        typer.echo(json.dumps(ready) if as_json else text)  # the socket is bound: whoever asks now waits, and is served
        config = uvicorn.Config(create_witness_app(witness), log_level="warning", server_header=False)
        uvicorn.Server(config).run(sockets=[listener])


def _about(witness: Witness) -> dict[str, Any]:
    return {
        "directory": witness.directory,
        "name": witness.key.name,
        "verifier_key": witness.key.text,
        "logs": [
            {
                "origin": each.origin,
                "verifier_keys": list(each.verifier_keys),
                "size": each.latest.size if each.latest else 0,
                "checkpoint": each.latest_note,
            }
            for each in witness.watched()
        ],
        "num_refused": witness.num_refused(),
    }


def _text(witness: Witness) -> str:
    lines = [f"witness    {witness.key.name}", f"key        {witness.key.text}"]
    for each in witness.watched():
        seen = f"{each.latest.size} entries cosigned" if each.latest else "nothing cosigned yet"
        lines.append(f"watches    {each.origin}: {seen}")
    if refused := witness.num_refused():
        lines.append(f"refused    {refused} requests that contradict what was cosigned, kept in refused/")
    return "\n".join(lines)
