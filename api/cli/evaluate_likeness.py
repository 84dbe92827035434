"""`placet evaluate likeness`: how often the face match errs, on a folder of portraits."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from api.cli.evaluate import app
from api.cli.output import Json, emit, progress_bar, reporting
from api.errors import InvalidFieldError

__all__ = ["app"]

_PICTURES = {".jpg", ".jpeg", ".png", ".webp"}
_CLIPS = {".mpg", ".mp4", ".avi", ".mov", ".mkv", ".webm"}


@app.command("likeness")
def evaluate_likeness(
    portraits: Annotated[Path, typer.Option(exists=True, file_okay=False, help="One picture per person.")],
    clips: Annotated[Path | None, typer.Option(exists=True, file_okay=False, help="One person per clip.")] = None,
    every: Annotated[int, typer.Option(min=1, help="Alter one portrait in so many.")] = 8,
    as_json: Json = False,
) -> None:
    """False matches over all pairs of a folder, false non-matches over altered copies and frames. Nothing is kept."""
    with reporting(as_json):
        from generator.likeness import PROTECTED_FACE_DISTANCE, SAME_FACE_DISTANCE
        from generator.likeness_measure import measure_likeness

        pictures = sorted(path for path in portraits.rglob("*") if path.suffix.lower() in _PICTURES)
        films = sorted(path for path in clips.rglob("*") if path.suffix.lower() in _CLIPS) if clips else []
        if len(pictures) < 2:
            raise InvalidFieldError("There must be at least two portraits in the folder: give another --portraits.")
        with progress_bar("comparing faces") as told:
            report = measure_likeness(pictures, films, every=every, progress=told)
        result = {
            "evaluate": "likeness",
            "protected_distance": PROTECTED_FACE_DISTANCE,
            "same_distance": SAME_FACE_DISTANCE,
            **report.to_json(),
        }
        lines = [
            f"{report.num_pictures} pictures, {report.num_without_face} without a face, "
            f"{report.num_impostor_pairs:,} pairs of different people",
            f"nearest of them {', '.join(f'{each:.3f}' for each in report.nearest_impostors)}",
        ]
        for at, match in report.false_match.items():
            missed = report.false_non_match[at]
            lines.append(
                f"distance {at}: false match {match['errors']} (at most {match['at_most']:.1e}), "
                f"false non-match {missed['errors']} of altered copies (at most {missed['at_most']:.1e})"
            )
        lines.append(f"{report.cpu_s_per_face:.3f} s of processor time per face")
        emit(as_json, result, "\n".join(lines))
