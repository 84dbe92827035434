"""Motion controls on the command line: `--emotion joy:0.6 --gaze 10,0`, or a JSON file for what changes over time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import typer

SEED = typer.Option(help="Seed of blinks, gaze and head movement; the same seed gives the same movement.")
INTENSITY = typer.Option(help="How strongly lips and brows move, 0 to 1.5.")
HEAD_MOTION = typer.Option(help="How much the head moves by itself, 0 to 1.5.")
BLINK_RATE = typer.Option(help="Blinks per minute, 0 to 60.")
GAZE = typer.Option(metavar="YAW,PITCH", help="Where the eyes look, degrees: ±20 to the right, ±15 up.")
HEAD_POSE = typer.Option(metavar="YAW,PITCH,ROLL", help="Turn of the head, degrees: ±15, ±10, ±10.")
HEAD_DISTANCE = typer.Option(help="Distance of the head as a factor of the portrait's, 0.8 (nearer) to 1.25.")
EMOTION = typer.Option(
    metavar="NAME[:AMOUNT]|VALENCE,AROUSAL",
    help="neutral, joy, sadness, anger, surprise, fear or disgust, with an amount 0 to 1; or a point, each ±1.",
)
FRAMING = typer.Option(help="square: 512 × 512 around the face; full: the whole picture.")
FACE = typer.Option(
    metavar="largest|NUMBER",
    help="Which face of a picture with several: the largest, or counted from the left, from 0.",
)
CONTROLS = typer.Option(
    exists=True, dir_okay=False, help="JSON file of controls, with keyframes where wanted; options go before it."
)


def read_controls(file: Path | None, **options: Any) -> dict[str, Any]:
    """The controls as the service takes them; their ranges are checked there.

    Args:
        file: a JSON object of controls.
        options: as typed; None where nothing was said. They go before the file.
    Raises: typer.BadParameter: not numbers where numbers are expected, or the file holds no JSON object.
    """
    controls: dict[str, Any] = {}
    if file is not None:
        try:
            controls = json.loads(file.read_bytes())
        except ValueError as exc:
            raise typer.BadParameter(f"{file} is not JSON: {exc}") from exc
        if not isinstance(controls, dict):
            raise typer.BadParameter(f"{file} must hold a JSON object of controls.")
    for name, text in options.items():
        if text is None:
            continue
        if name in ("gaze", "head_pose"):
            controls[name] = _numbers(name, text, 2 if name == "gaze" else 3)
        elif name == "emotion":
            controls[name] = _emotion(text)
        elif name == "face":
            controls[name] = int(text) if text.isascii() and text.isdigit() else text
        else:
            controls[name] = text
    return controls


def _emotion(text: str) -> dict[str, Any]:
    if "," in text:
        valence, arousal = _numbers("emotion", text, 2)
        return {"valence": valence, "arousal": arousal}
    preset, _, amount = text.partition(":")
    return {"preset": preset, "amount": _numbers("emotion", amount, 1)[0] if amount else 1.0}


def _numbers(name: str, text: str, count: int) -> list[float]:
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError as exc:
        raise typer.BadParameter(f"--{name.replace('_', '-')} takes numbers, separated by commas.") from exc
    if len(found) != count:
        raise typer.BadParameter(f"--{name.replace('_', '-')} takes {count} numbers, separated by commas.")
    return found
