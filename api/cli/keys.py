"""`placet keys`: which keys there are, and rotation without a pause. `placet models seal`: weights at rest."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from api.cli.lab import models
from api.cli.output import Json, emit, reporting, stop_negative
from api.cli.places import Home, settings_for
from policy.instance import Instance
from policy.kms import KEY_NAMES, UNROTATED, WRAPPING_KEYS

app = typer.Typer(help="The keys of the instance: list, rotate, forget.", no_args_is_help=True)

_ROTATED = ", ".join(name for name in KEY_NAMES if name not in UNROTATED)


@app.command("list")
def list_keys(home: Home = None, as_json: Json = False) -> None:
    """Every key: what it is for, its name (kid), and those before it. Nothing secret is shown."""
    with reporting(as_json):
        settings = settings_for(home)
        found = Instance.open(settings.home, access=settings.key_access).keys.service.describe()
        lines = [
            f"{info.name:<14} {info.algorithm:<13} {info.kid}"
            + (f"   retired: {', '.join(kid[:8] for kid in info.retired)}" if info.retired else "")
            for info in found
        ]
        emit(as_json, {"kms": settings.kms, "keys": [asdict(info) for info in found]}, "\n".join(lines))


@app.command("rotate")
def rotate_one(
    name: Annotated[str, typer.Argument(help=f"One of {_ROTATED}.")],
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Replace one key while everything goes on: old permits live out their minute, old marks stay readable."""
    from api.keyring import rotate

    with reporting(as_json):
        turn = rotate(settings_for(home), name)
        rotation = turn.rotated.rotation
        result = asdict(rotation) | {"log_index": turn.rotated.log_index, "num_rewrapped": turn.num_rewrapped}
        text = f"{name}: {rotation.old_kid} → {rotation.new_kid}, log entry {turn.rotated.log_index}"
        if name in WRAPPING_KEYS:
            text += f"\n{turn.num_rewrapped} keys wrapped anew; end the old one in a minute: placet keys forget {name}"
        emit(as_json, result, text)


@app.command("forget")
def forget_retired(
    name: Annotated[str, typer.Argument(help=f"One of {', '.join(WRAPPING_KEYS)}.")],
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Destroy the retired forms of a wrapping key, once nothing is wrapped under them any more."""
    from api.keyring import forget

    with reporting(as_json):
        gone = forget(settings_for(home), name)
        emit(as_json, {"name": name, "forgotten": list(gone)}, f"{name}: {len(gone)} retired keys destroyed")


@models.command("seal")
def seal(home: Home = None, as_json: Json = False) -> None:
    """Seal the generator's weights for this instance; with PLACET_WEIGHTS=sealed nothing else is read."""
    from generator.sealing import seal_weights

    with reporting(as_json):
        settings = settings_for(home)
        instance = Instance.open(settings.home, access=settings.key_access)
        made = seal_weights(instance.keys.service, settings.sealed_weights_dir)
        instance.log.append("weights.sealed", {"files": [asdict(each) for each in made]})
        lines = [f"{each.name:<24} {each.num_bytes:>10,}  {each.sha256[:16]}" for each in made]
        emit(as_json, {"sealed": [asdict(each) for each in made]}, "\n".join(lines))


@models.command("unseal-check")
def unseal_check(home: Home = None, as_json: Json = False) -> None:
    """Open every sealed weights file in memory and compare it with what this version was shipped with."""
    from generator.sealing import check_sealed

    with reporting(as_json):
        settings = settings_for(home)
        keys = Instance.open(settings.home, access=settings.key_access).keys.service
        states = check_sealed(keys, settings.sealed_weights_dir)
        text = "\n".join(f"{name:<24} {state or 'opens'}" for name, state in states.items())
        if any(states.values()):
            stop_negative(as_json, {"weights": states, "is_sound": False}, text)
        emit(as_json, {"weights": states, "is_sound": True}, text)
