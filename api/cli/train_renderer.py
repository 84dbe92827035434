"""`placet train renderer`: the neural completion of the mouth's inside, and whether it beats the plain paint."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from api.cli.output import Json, emit, progress_bar, reporting


def train_renderer(
    portraits: Annotated[
        Path, typer.Option(exists=True, file_okay=False, help="Folder of portraits of nobody, some with parted lips.")
    ],
    out: Annotated[Path, typer.Option(file_okay=False, help="Where to write; a second call goes on there.")],
    minutes: Annotated[float, typer.Option(min=0.05, help="Processor time to train for, in all calls together.")] = 10,
    seed: Annotated[int, typer.Option(help="Of everything drawn by chance.")] = 20261122,
    as_json: Json = False,
) -> None:
    """Train the completion of the mouth's inside and measure it on held-out portraits against the plain paint."""
    from generator.train.renderer import RendererPlan, train

    with reporting(as_json):
        with progress_bar("training") as tell:
            report = train(portraits, out, RendererPlan(minutes=minutes, seed=seed), tell)
        verdict = "beats the paint" if report.wins else "does not beat the paint"
        text = f"{report.weights}: {verdict}; paint {report.paint}, network {report.network}"
        emit(as_json, report.to_json(), text)
