"""`placet audit`: read the log where it lies, check every byte of it, hand it to others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from api.cli.output import Json, emit, reporting, stop_negative
from api.cli.places import Home, settings_for
from policy.bundle import export_bundle
from policy.fsck import fsck, verify_bundle
from policy.instance import Instance
from policy.keys import KeyRing
from policy.note import parse_verifier_key

app = typer.Typer(help="The audit log: read, verify, export.", no_args_is_help=True)


@app.command()
def tail(
    num: Annotated[int, typer.Option("-n", min=1, max=1000, help="How many entries.")] = 10,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """The newest entries."""
    with reporting(as_json):
        log = Instance.open(settings_for(home).home).log
        found = log.entries(max(0, log.size - num), num)
        lines = [
            f"{entry['index']:>6}  {entry['time']}  {entry['kind']:<20} {json.dumps(entry['body'])[:90]}"
            for entry in found
        ]
        emit(as_json, {"entries": found, "size": log.size}, "\n".join(lines))


@app.command()
def show(
    index: Annotated[int, typer.Argument(min=0, help="Number of the entry.")],
    home: Home = None,
    as_json: Json = False,
) -> None:
    """One entry with its inclusion proof."""
    with reporting(as_json):
        log = Instance.open(settings_for(home).home).log
        result = {"entry": log.entry(index), "evidence": log.evidence(index).to_json()}
        emit(as_json, result, json.dumps(result, indent=2))


@app.command()
def verify(
    bundle: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="An exported bundle, instead of this home's log.")
    ] = None,
    log_key: Annotated[str, typer.Option(help="With --bundle: the log's key, from elsewhere than the bundle.")] = "",
    checkpoint: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="A checkpoint that was kept from earlier.")
    ] = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Read everything again. Status 1 if any byte is not what was signed; the first bad entry is named."""
    with reporting(as_json):
        earlier = checkpoint.read_bytes() if checkpoint is not None else None
        if bundle is not None:
            key = parse_verifier_key(log_key)[1] if log_key else _own_key(home)
            report = verify_bundle(bundle, key, earlier_checkpoint=earlier)
        else:
            report = fsck(settings_for(home).home / "log", _own_key(home), earlier_checkpoint=earlier)
        result = {**report.to_json(), "clean": report.is_clean}
        if not report.is_clean:
            stop_negative(as_json, result, "\n".join(problem.sentence for problem in report.problems))
        emit(as_json, result, f"{report.size} entries, every byte as signed; root {report.root_hash}")


@app.command()
def export(
    out: Annotated[Path, typer.Argument(help="Where to write the bundle.")],
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Write everything that an outsider needs to verify the log into one file."""
    with reporting(as_json):
        instance = Instance.open(settings_for(home).home)
        checkpoint = export_bundle(instance.log, out)
        result = {"file": out, "size": checkpoint.size, "log_key": instance.log.verifier_key}
        emit(as_json, result, f"{out}: {checkpoint.size} entries; key {instance.log.verifier_key}")


def _own_key(home: Path | None) -> Ed25519PublicKey:
    return KeyRing.load(settings_for(home).home / "keys").log_public
