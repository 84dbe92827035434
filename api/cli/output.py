"""How commands speak: text for people, one JSON object as the last line for programs, and an exit status.

Status 0: done, and the answer is good. 1: done, and the answer is negative (refused, not verified). 2: could not be
done (usage, input, service not there), with one line that says why.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

console = Console(stderr=True)

NEGATIVE, UNUSABLE = 1, 2

Json = Annotated[bool, typer.Option("--json", help="End with one JSON object on the last line of stdout.")]


def emit(as_json: bool, result: Mapping[str, Any], text: str = "") -> None:
    """Say what came out: `text` for people, `result` for programs."""
    if text and not as_json:
        typer.echo(text)
    if as_json:
        typer.echo(json.dumps(result, sort_keys=True, default=str))


def stop_negative(as_json: bool, result: Mapping[str, Any], text: str) -> NoReturn:
    """End with a negative result."""
    emit(as_json, result, text)
    raise typer.Exit(NEGATIVE)


@contextmanager
def reporting(as_json: bool) -> Iterator[None]:
    """Turn our errors into one line and status 2; refusals of the gate into status 1. Others are defects and pass."""
    try:
        yield
    except typer.Exit:
        raise
    except Exception as error:
        code = getattr(error, "code", None)
        if isinstance(error, OSError):
            code, sentence = "file", f"{error.strerror or error}: {error.filename or ''}".rstrip(": ")
        elif isinstance(code, str):
            sentence = str(error)
        else:
            raise
        status = NEGATIVE if getattr(error, "is_refusal", False) or code == "render.refused" else UNUSABLE
        extras = getattr(error, "extras", {})
        if as_json:
            typer.echo(json.dumps({"error": code, "detail": sentence, **extras}, sort_keys=True, default=str))
        typer.echo(f"placet: {sentence} [{code}]", err=True)
        raise typer.Exit(status) from error


@contextmanager
def progress_bar(what: str) -> Iterator[Callable[[float], None]]:
    """A bar on a terminal, nothing elsewhere; yields a function that takes the fraction done."""
    if not sys.stderr.isatty():
        yield lambda _fraction: None
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(what, total=1.0)
        yield lambda fraction: progress.update(task, completed=fraction)
