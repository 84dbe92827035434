"""`placet evaluate fingerprints`: whether signed fingerprints know a clip again, and tell others from it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from api.cli.lab import machine
from api.cli.output import Json, emit, progress_bar, reporting, stop_negative
from api.errors import InvalidFieldError


def evaluate_fingerprints(
    clips: Annotated[Path | None, typer.Option(exists=True, help="A folder with video files, two or more.")] = None,
    speech: Annotated[
        Path | None, typer.Option(exists=True, help="A folder with recordings; by default the personas' samples.")
    ] = None,
    most: Annotated[int, typer.Option(min=2, help="Clips, and recordings, to use, evenly spread.")] = 24,
    attacked: Annotated[int, typer.Option(min=0, help="How many of these are attacked; pairs are made of all.")] = 12,
    out: Annotated[Path | None, typer.Option(file_okay=False, help="Where to write report and tables.")] = None,
    as_json: Json = False,
) -> None:
    """Mark and attack clips and recordings, compare what is left with fingerprints of the whole, and others with them.

    Status 1 if something different matches, or a copy is said to differ.
    """
    from generator.personas import sample_paths
    from watermark import fingerprint_evaluate
    from watermark.evaluate import clips_below
    from watermark.sound_evaluate import sounds_below

    with reporting(as_json):
        videos = [] if clips is None else _spread(clips_below(clips), most)
        recordings = _spread(list(sample_paths()) if speech is None else sounds_below(speech), most)
        if (clips is not None and len(videos) < 2) or len(recordings) < 2:
            raise InvalidFieldError("Two clips, and two recordings, are the least: they are compared with each other.")
        with progress_bar("comparing") as tell:
            report = fingerprint_evaluate.evaluate_fingerprints(
                videos,
                recordings,
                num_attacked=attacked,
                progress=lambda done, total, _what: tell(done / total),
            )
        text = fingerprint_evaluate.table(report)
        if out is not None:
            out.mkdir(parents=True, exist_ok=True)
            (out / "fingerprints.json").write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")
            (out / "fingerprints.md").write_text(text)
        result = {**report, **machine()}
        parts = [report["picture"], report["sound"]]
        has_false_match = any(part["different"]["match"] for part in parts)
        if has_false_match or any(row["differs"] for part in parts for row in part["copies"].values()):
            stop_negative(as_json, result, text)
        emit(as_json, result, text)


def _spread(files: list[Path], most: int) -> list[Path]:
    """At most `most` of the files, evenly spread."""
    return files[:: max(1, len(files) // most)][:most]
