"""Commands for timing and making: models, bench, train. Heavy imports happen inside each command.

What makes a picture move goes through the gate like everything else (see `api.evaluation`); there is no other way.
"""

from __future__ import annotations

import hashlib
import os
import platform
from pathlib import Path
from typing import Annotated, Any

import typer

from api.cli.output import Json, emit, progress_bar, reporting
from api.cli.places import Home, settings_for

models = typer.Typer(help="Weights that ship with the project.", no_args_is_help=True)
bench = typer.Typer(help="How fast it is: warm-up, median, one JSON line.", no_args_is_help=True)
train = typer.Typer(help="Make the shipped weights again.", no_args_is_help=True)

PACKAGES = ("generator", "detector")
Attest = Annotated[str, typer.Option(help="What the portrait is, on the operator's word: synthetic or artwork.")]
Portrait = Annotated[Path | None, typer.Option(exists=True, dir_okay=False, help="By default a shipped persona.")]
Speech = Annotated[Path | None, typer.Option(exists=True, dir_okay=False, help="By default the persona's sample.")]


# -- models


@models.command("list")
def list_models(as_json: Json = False) -> None:
    """Every weights file: size, hash, and whether it has its model card."""
    with reporting(as_json):
        root = Path(__file__).parents[2]
        files = sorted(path for package in PACKAGES for path in (root / package).glob("weights/*.safetensors"))
        found = [
            {
                "file": str(path.relative_to(root)),
                "num_bytes": path.stat().st_size,
                "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
                "has_card": path.with_suffix(".md").is_file(),
            }
            for path in files
        ]
        lines = [f"{each['file']:<40} {each['num_bytes']:>10,}  {str(each['sha256'])[:16]}" for each in found]
        emit(as_json, {"models": found}, "\n".join(lines))


# -- bench


@bench.command("watermark")
def bench_watermark(
    file: Annotated[
        Path | None, typer.Argument(exists=True, dir_okay=False, help="A video of any kind; by default a made-up one.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Time on one thread to mark a frame as it is coded, and to read 3 s of video: marked, unmarked, and one still."""
    from watermark.bench import bench_mark

    with reporting(as_json):
        with progress_bar("marking and reading") as tell:
            measured = bench_mark(None if file is None else file.read_bytes(), progress=tell)
        text = "\n".join(f"{name:<34} {value}" for name, value in measured.items())
        emit(as_json, {"bench": "watermark", **measured, **machine()}, text)


# -- train


@train.command("head")
def train_head(
    out: Annotated[Path | None, typer.Option(help="Where to write; by default the shipped file.")] = None,
    as_json: Json = False,
) -> None:
    """Bake the head model (needs the extra “head”)."""
    from generator.train.head import HEAD_FILE, bake_head

    with reporting(as_json):
        with progress_bar("baking") as tell:
            report = bake_head(out=out or HEAD_FILE, progress=lambda _step, fraction: tell(fraction))
        emit(as_json, {"file": str(out or HEAD_FILE), "report": str(report)}, str(report))


@train.command("motion")
def train_motion(
    scratch: Annotated[Path, typer.Option(file_okay=False, help="Where to keep features and checkpoints.")],
    out: Annotated[Path, typer.Option(help="Weights file to write; with --video a small JSON file.")],
    data: Annotated[
        Path | None, typer.Option(exists=True, file_okay=False, help="Corpus folder with an index.jsonl.")
    ] = None,
    video: Annotated[
        Path | None, typer.Option(exists=True, file_okay=False, help="Instead: folder of licensed video of faces.")
    ] = None,
    licence: Annotated[str, typer.Option(help="With --video: by what right; stands in the model card.")] = "",
    minutes: Annotated[float, typer.Option(min=0.1, help="How long to train.")] = 20.0,
    seed: Annotated[int, typer.Option(help="Of everything drawn by chance.")] = 20261122,
    learning_rate: Annotated[float, typer.Option(min=1e-6, max=0.1, help="At the start; falls to zero.")] = 2e-3,
    start: Annotated[Path | None, typer.Option(exists=True, dir_okay=False, help="Weights to go on from.")] = None,
    as_json: Json = False,
) -> None:
    """Train the speech-to-lips network; or learn from video how a face moves besides speaking."""
    if (data is None) == (video is None):
        raise typer.BadParameter("give --data for the lips, or --video for head, gaze and blinks")
    if video is not None:
        _train_manner(video, scratch, out, licence, seed, as_json)
        return
    from generator.train.motion import TrainingPlan
    from generator.train.motion import train as train_network

    with reporting(as_json):
        assert data is not None
        plan = TrainingPlan(minutes=minutes, seed=seed, learning_rate=learning_rate)
        report = train_network(data, scratch, out, plan=plan, start=start, say=lambda line: typer.echo(line, err=True))
        emit(as_json, report.to_json(), f"{report.weights}: {report.num_steps} steps, sha256 {report.sha256}")


def _train_manner(video: Path, scratch: Path, out: Path, licence: str, seed: int, as_json: bool) -> None:
    from generator.train.manner import train as train_manner

    with reporting(as_json):
        if not licence.strip():
            raise typer.BadParameter("--licence says by what right people are learned from, such as “GRID, CC BY 4.0”")
        with progress_bar("following faces") as tell:
            report = train_manner(
                video, scratch, out, licence=licence, seed=seed, progress=lambda done, total: tell(done / total),
                say=lambda line: typer.echo(line, err=True),
            )  # fmt: skip
        text = (
            f"{report.file}: {report.num_clips} clips, {report.video_s:.0f} s; curve {report.curve}, card {report.card}"
        )
        emit(as_json, report.to_json(), text)


@train.command("detector")
def train_detector(
    data: Annotated[Path, typer.Option(exists=True, file_okay=False, help="Folder of authentic and synthetic media.")],
    scratch: Annotated[Path, typer.Option(file_okay=False, help="Keeps renders and examples; goes on there.")],
    out: Annotated[Path, typer.Option(help="Weights file to write.")],
    takes: Annotated[int, typer.Option(min=0, help="Renders to make; 0: those that are there.")] = 84,
    held_out: Annotated[int, typer.Option(min=0, help="Renders more, of the variant that only measures.")] = 16,
    earlier: Annotated[
        Path | None, typer.Option(exists=True, file_okay=False, help="Renders of earlier versions: they only teach.")
    ] = None,
    protected: Annotated[int, typer.Option(min=0, help="Protected portraits to use, at most.")] = 160,
    trials: Annotated[int, typer.Option(min=0, help="Renders of the test split that go through every trial.")] = 10,
    as_is: Annotated[bool, typer.Option("--as-is", help="Make no more examples: teach on those there are.")] = False,
    note: Annotated[str, typer.Option(help="For the card: from which state of the code.")] = "",
    seed: Annotated[int, typer.Option(help="Of everything drawn by chance.")] = 0,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Render synthetic identities through the gate, teach the detector on them, and write weights, card and plots.

    May be stopped at any time: renders and examples that are there are not made again.
    """
    from api.evaluation import laboratory
    from api.training import INDEX, render_takes
    from detector.data import Quotas
    from detector.train import cast_from, material_in
    from detector.train import train as train_heads
    from policy.keys import KeyRing

    with reporting(as_json):
        settings, renders = settings_for(home), scratch / "renders"
        if takes:
            with laboratory(settings) as service, progress_bar("rendering") as tell:
                cast = cast_from(data, num_takes=takes, num_held_out=held_out, seed=seed)
                render_takes(service, cast, renders, progress=lambda done, total: tell(done / max(total, 1)))
        has_renders = (renders / INDEX).is_file()
        key = KeyRing.load(settings.home / "keys", settings.key_access).watermark_key if has_renders else None
        with progress_bar("training") as tell:
            report = train_heads(
                material_in(data, renders if has_renders else None, key, earlier=earlier),
                scratch=scratch,
                weights=out,
                quotas=Quotas(protected=protected, trials=trials),
                seed=seed,
                command=f"placet train detector --takes {takes} --held-out {held_out} --protected {protected} "
                f"--trials {trials} --seed {seed}"
                + (" --earlier DIR" if earlier else "")
                + (" --as-is" if as_is else "")
                + (f" ({note})" if note else ""),
                make_missing=not as_is,
                progress=lambda _stage, done, total: tell(done / max(total, 1)),
            )
        result = {"model_version": report.model_version, "weights": str(report.weights), "figures": report.figures}
        emit(as_json, result, f"{report.weights}: {report.model_version}")


# -- shared


def material(portrait: Path | None, speech: Path | None) -> tuple[bytes, bytes]:
    """The files asked for, or a shipped persona and its sample."""
    from generator.personas import list_personas

    personas = list_personas() if portrait is None or speech is None else []
    if (portrait is None and not personas) or (speech is None and not any(each.sample_path for each in personas)):
        raise typer.BadParameter("no persona ships with this installation: give --portrait and --speech")
    picture = portrait.read_bytes() if portrait is not None else personas[0].portrait()
    if speech is not None:
        return picture, speech.read_bytes()
    sample = next(each.sample_path for each in personas if each.sample_path is not None)
    return picture, sample.read_bytes()


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    return {
        "machine": {"processor": platform.machine(), "num_cores": os.cpu_count(), "python": platform.python_version()}
    }
