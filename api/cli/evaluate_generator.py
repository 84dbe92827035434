"""`placet evaluate generator` and `placet evaluate motion`: every row of docs/generator.md, on anybody's files too."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from api.cli.lab import Attest, machine
from api.cli.output import Json, emit, progress_bar, reporting, stop_negative
from api.cli.places import Home, settings_for
from api.errors import InvalidFieldError

if TYPE_CHECKING:
    from generator.scorecard import ScoreRow

_PORTRAIT_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp"})
_SPEECH_SUFFIXES = frozenset({".wav", ".flac", ".opus", ".ogg", ".mp3", ".m4a"})
_CLIP_SUFFIXES = frozenset({".mp4", ".mov", ".webm", ".mkv", ".avi", ".mpg"})


def evaluate_generator(
    out: Annotated[
        Path, typer.Option(file_okay=False, help="Where to keep clips, figures, sheets; goes on there.")
    ] = Path("evaluation"),
    portraits: Annotated[
        Path | None, typer.Option(exists=True, help="A picture or a folder of them; by default the shipped personas.")
    ] = None,
    speech: Annotated[
        Path | None,
        typer.Option(exists=True, help="A recording or a folder; NAME.json beside NAME.wav holds its phoneme times."),
    ] = None,
    max_clips: Annotated[
        int | None, typer.Option(min=1, help="Not every portrait with every recording, but so many pairs of them.")
    ] = None,
    trials: Annotated[
        int, typer.Option(min=0, help="Portraits to take through every control and through bad input.")
    ] = 3,
    long_minutes: Annotated[
        float, typer.Option(min=0.0, max=10.0, help="Length of a clip on which drift is measured; 0 leaves it out.")
    ] = 0.0,
    attest: Attest = "synthetic",
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Render portraits with recordings as the operator, and measure every property that has an aim.

    Clips are `PORTRAIT__SPEECH.mp4` with a contact sheet and figures beside each; what is there already is not rendered
    again. Status 1 if a mark or manifest does not read back; an aim that is missed is only said.
    """
    from api.evaluation import laboratory
    from api.trials import Bench, bad_inputs
    from generator.naturalness import natural_rows
    from generator.personas import list_personas, sample_paths
    from generator.scorecard import as_table, scorecard

    with reporting(as_json), laboratory(settings_for(home)) as service, progress_bar("rendering") as tell:
        pictures = (
            {each.name: each.portrait() for each in list_personas()}
            if portraits is None
            else {path.stem: path.read_bytes() for path in _files(portraits, _PORTRAIT_SUFFIXES)}
        )
        voices = list(sample_paths()) if speech is None else _files(speech, _SPEECH_SUFFIXES)
        pairs = _pairs(list(pictures), voices, max_clips)
        chosen = list(pictures)[:trials]
        num_steps = len(pairs) + 3 * len(chosen) + (long_minutes > 0)
        bench = Bench(service, out, attest)
        measured = []
        for name, voice in pairs:
            clip = bench.talking(
                f"{name}__{voice.stem}", pictures[name], voice.read_bytes(), voice.with_suffix(".json")
            )
            measured.append((name, clip))
            tell(len(measured) / num_steps)
        trial_figures, paste_back, failures = [], [], {}
        for step, name in enumerate(chosen):
            spoken = [clip.seen for of, clip in measured if of == name]
            trial_figures.append(bench.trial(name, pictures[name], spoken)[0])
            agreement = bench.paste_back_db(name, pictures[name])
            if agreement is not None:
                paste_back.append(agreement)
            if step == 0:
                failures = {kind: bench.failure(bad) for kind, bad in bad_inputs(pictures[name]).items()}
            tell((len(measured) + 3 * (step + 1)) / num_steps)
        drifted = None
        if long_minutes > 0:
            name, voice = pairs[0]
            drifted = bench.drift(name, pictures[name], voice.read_bytes(), long_minutes)
        natural = natural_rows([clip.seen for _, clip in measured])
        rows = scorecard(
            [clip.figures for _, clip in measured],
            trial_figures,
            natural,
            drift=drifted,
            drift_minutes=long_minutes,
            paste_back_db=paste_back,
            failures=failures,
        )
        result: dict[str, Any] = {
            "evaluate": "generator",
            "num_clips": len(measured),
            "num_portraits": len({name for name, _ in pairs}),
            "clips": [clip.row for _, clip in measured],
            "trials": [each.to_json() for each in trial_figures],
            "rows": [vars(row) for row in rows],
            "natural_motion": [{**vars(row), "is_natural": row.is_natural} for row in natural],
            **machine(),
        }
        (out / "table.md").write_text(as_table(rows) + "\n", "utf-8")
        text = _text(rows)
        if any(clip.row["mark"] != "detected" or clip.row["manifest"] != "trusted" for _, clip in measured):
            stop_negative(as_json, result, text)
        emit(as_json, result, text)


def evaluate_motion(
    clips: Annotated[Path, typer.Argument(exists=True, help="A video or a folder of them, of any kind.")],
    every: Annotated[int, typer.Option(min=1, help="Take one clip of so many.")] = 1,
    as_json: Json = False,
) -> None:
    """Statistics of head, lips and blinks in any clips, beside those of published talking faces. Renders nothing."""
    from generator.naturalness import natural_rows, pose_variation_deg
    from generator.sighting import watch
    from watermark.media import decode_clip

    with reporting(as_json), progress_bar("watching") as tell:
        files = _files(clips, _CLIP_SUFFIXES)[::every]
        seen = []
        for number, path in enumerate(files):
            clip = decode_clip(path)
            seen.append(watch(clip.frames_THWC, clip.rate_hz))
            tell((number + 1) / len(files))
        rows = natural_rows(seen)
        num_natural = sum(row.is_natural for row in rows)
        lines = [
            f"{row.name:<28} {row.median:8.4f}   {row.band[0]:8.4f} .. {row.band[2]:8.4f}"
            f"{'' if row.is_natural else '   outside'}"
            for row in rows
        ]
        variation = sum(pose_variation_deg(each.pose_T3) for each in seen) / len(seen)
        result = {
            "evaluate": "motion",
            "num_clips": len(seen),
            "pose_variation_deg": round(variation, 3),
            "num_natural": num_natural,
            "num_rows": len(rows),
            "rows": [{**vars(row), "is_natural": row.is_natural} for row in rows],
        }
        text = "\n".join([*lines, f"{num_natural} of {len(rows)} rows within the reference, ΔP {variation:.2f}°"])
        emit(as_json, result, text)


def _pairs(names: list[str], voices: list[Path], most: int | None) -> list[tuple[str, Path]]:
    """Every portrait with every recording; or so many pairs, in which each comes as often as the others."""
    if most is None or most >= len(names) * len(voices):
        return [(name, voice) for name in names for voice in voices]
    # along the diagonals of the table, one after the other
    every = [
        (name, voices[(row + turn) % len(voices)]) for turn in range(len(voices)) for row, name in enumerate(names)
    ]
    return every[:most]


def _text(rows: list[ScoreRow]) -> str:
    width = max(len(row.name) for row in rows)
    return "\n".join(f"{row.name:<{width}}  {row.status:<12}  {row.figure}  (aim {row.aim})" for row in rows)


def _files(place: Path, suffixes: frozenset[str]) -> list[Path]:
    """A file, or the files with these endings in a folder. Raises InvalidFieldError where there are none."""
    found = [place] if place.is_file() else sorted(p for p in place.iterdir() if p.suffix.lower() in suffixes)
    if not found:
        raise InvalidFieldError(f"{place} holds no file ending in {', '.join(sorted(suffixes))}.")
    return found
