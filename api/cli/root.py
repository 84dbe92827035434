"""The top of the command tree: instance, server, story, verification."""

from __future__ import annotations

import importlib
import socket
import sys
from typing import Annotated

import typer

from api import software_version
from api.cli import (
    audit,
    bench_consent,
    bench_detections,
    bench_generator,
    bench_live,
    bench_tokens,
    credentials,
    evaluate_generator,
    evaluate_likeness,
    evaluate_states,
    fingerprints,
    keys,
    lab,
    live,
    people,
    policy,
    sound,
    staff,
    train_renderer,
    verify,
    vetting,
    witness,
)
from api.cli.output import UNUSABLE, Json, emit, reporting
from api.cli.places import Home, settings_for
from api.settings import Settings

app = typer.Typer(
    name="placet",
    help="Responsible release of a talking-face generator: consent, decision, log, mark, detection.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(people.subjects, name="subjects")
app.add_typer(people.consent, name="consent")
app.add_typer(vetting.operators, name="operators")
app.add_typer(people.personas, name="personas")
app.add_typer(audit.app, name="audit")
app.add_typer(witness.app, name="witness")
app.add_typer(keys.app, name="keys")
app.add_typer(credentials.tsa, name="tsa")
app.add_typer(credentials.pki, name="pki")
app.add_typer(policy.app, name="policy")
app.add_typer(lab.models, name="models")
app.add_typer(evaluate_likeness.app, name="evaluate")
app.add_typer(bench_consent.bench, name="bench")
app.add_typer(lab.train, name="train")
lab.train.command("renderer")(train_renderer.train_renderer)
evaluate_likeness.app.command("generator")(evaluate_generator.evaluate_generator)
evaluate_likeness.app.command("motion")(evaluate_generator.evaluate_motion)
bench_consent.bench.command("generator")(bench_generator.bench_generator)
evaluate_likeness.app.command("contact-sheet")(evaluate_states.evaluate_contact_sheet)
evaluate_likeness.app.command("sound-mark")(sound.evaluate_sound_mark)
evaluate_likeness.app.command("fingerprints")(fingerprints.evaluate_fingerprints)
bench_consent.bench.command("sound-mark")(sound.bench_sound_mark)
bench_consent.bench.command("tokens")(bench_tokens.bench_tokens)
vetting.operators.command("invite")(staff.invite)
app.command("render")(people.render)
app.command("live")(live.live)
bench_consent.bench.command("live")(bench_live.bench_live)
app.command("verify")(verify.verify)
bench_consent.bench.command("detections")(bench_detections.bench_detections)


def main() -> None:
    """Entry point of the distribution."""
    app()


@app.command()
def version(as_json: Json = False) -> None:
    """Say which version this is."""
    emit(as_json, {"version": software_version()}, software_version())


@app.command()
def init(
    home: Home = None,
    name: Annotated[str, typer.Option(help="Name of the instance: lower-case letters, digits, hyphens.")] = "local",
    as_json: Json = False,
) -> None:
    """Make an instance: keys, private CA, log, database, and the local operator's client."""
    from api.setup import create_instance

    with reporting(as_json):
        made = create_instance(settings_for(home), name)
        emit(
            as_json,
            {
                "home": made.home,
                "name": made.name,
                "operator_client_id": made.operator_client_id,
                "operator_key": made.operator_key_path,
                "log_key": made.log_verifier_key,
            },
            f"Instance “{made.name}” in {made.home}\n"
            f"operator   {made.operator_client_id}, key in {made.operator_key_path}\n"
            f"log key    {made.log_verifier_key}  (give it to whoever checks your log)\n"
            f"next       placet serve --home {made.home}",
        )


@app.command()
def migrate(home: Home = None, as_json: Json = False) -> None:
    """Bring the database of an older version up to date. Stop every server and make a backup first."""
    from api.storage.database import Database

    with reporting(as_json):
        before, after = Database.migrate(settings_for(home).addresses.database)
        text = f"The database has schema {after} already." if before == after else f"Schema {before} is now {after}."
        emit(as_json, {"before": before, "after": after}, text)


@app.command()
def serve(
    home: Home = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port; 0 takes a free one.")] = None,
    as_json: Json = False,
) -> None:
    """Run the service until it is interrupted. When it is ready it says where."""
    from api.cli.server import run_server

    with reporting(as_json):
        settings = settings_for(home)
        listener = listen(host or settings.host, settings.port if port is None else port, settings.send_buffer_bytes)
        bound = {"host": host or settings.host, "port": int(listener.getsockname()[1])}
        settings = Settings(**{**settings.model_dump(), **bound})
        if not run_server(settings, listener, as_json):
            raise typer.Exit(UNUSABLE)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def demo(context: typer.Context) -> None:
    """Play the whole story over HTTP against a server of its own."""
    story = importlib.import_module("api.demo")
    sys.argv = ["placet demo", *context.args]
    raise typer.Exit(story.main() or 0)


def listen(host: str, port: int, send_buffer_bytes: int) -> socket.socket:
    """A bound socket for the server; what a connection may hold back on its way out is bounded."""
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer_bytes)  # connections inherit it
    listener.bind((host, port))
    return listener
