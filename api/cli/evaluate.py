"""`placet evaluate`: how good it is, on the shipped persona or on anybody's files. Heavy imports stay inside commands.

What makes a picture move goes through the gate like everything else (see `api.evaluation`); there is no other way.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from api.cli.lab import machine
from api.cli.output import Json, emit, progress_bar, reporting, stop_negative
from api.cli.places import Home, settings_for
from api.errors import InvalidFieldError
from watermark.payload import MarkId

app = typer.Typer(help="How good it is. Renders pass the gate, are logged and marked.", no_args_is_help=True)


@app.command("watermark")
def evaluate_watermark(
    clips: Annotated[
        Path | None, typer.Option(exists=True, help="A clip or a folder of them; by default a render of the persona.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(file_okay=False, help="Where to keep pieces, report, table and plot; goes on there.")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="A small part of the suite, without ColorVideoVDP.")] = False,
    null_windows: Annotated[int, typer.Option(min=0, help="Unmarked windows to read beside.")] = 0,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Mark clips with a key of this evaluation, attack them, read them back blindly, and measure how visible it is.

    Without --clips a delivery of the persona is attacked, with the mark that it carries.
    Visibility (ColorVideoVDP, 10 = no difference) needs the extra “quality”. Status 1 if a promise is broken.
    """
    from watermark.attacks import QUICK, SUITE
    from watermark.evaluate import clips_below, evaluate
    from watermark.survival import table, write_survival

    with reporting(as_json), tempfile.TemporaryDirectory() as scratch, progress_bar("attacking") as tell:
        carried = None
        if clips is None:
            delivery, carried = _persona_delivery(Path(scratch), home)
            files = [delivery]
        else:
            files = [clips] if clips.is_file() else clips_below(clips)
        if not files:
            raise InvalidFieldError(f"There is no video file in {clips}.")
        report = evaluate(
            files,
            attacks={name: SUITE[name] for name in QUICK} if quick else SUITE,
            measure_visibility=not quick,
            null_windows=null_windows,
            keep_in=None if out is None else out / "pieces",
            progress=lambda done, total, _what: tell(done / total),
            carried=carried,
        )
        if out is not None:
            write_survival(report, out)
        text = table(report) + (
            f"\nColorVideoVDP: median {report['jod_median']}, worst {report['jod_worst']} (10 is invisible)"
            f"\nPSNR {report['psnr_db']} dB, SSIM {report['ssim']}; false positives {report['false_positives']}"
        )
        result = {**report, **machine()}
        if not report["promises_kept"] or report["false_positives"]["detected"]:
            stop_negative(as_json, result, text)
        emit(as_json, result, text)


def _persona_delivery(folder: Path, home: Path | None) -> tuple[Path, tuple[bytes, MarkId]]:
    """A render of the first persona with its own sample, through the gate; key and id of the mark that it carries."""
    from api.evaluation import evaluate_render, laboratory
    from generator.personas import list_personas, sample_paths

    with laboratory(settings_for(home)) as service:
        persona, voice = list_personas()[0], next(iter(sample_paths()))
        made = evaluate_render(
            service,
            portrait=persona.portrait(),
            speech=(persona.sample_path or voice).read_bytes(),
            attested_class="synthetic",
            out=folder / "persona.mp4",
        )
        return made.file, (service.keys.watermark_key, MarkId.from_hex(made.render.mark_id))


@app.command("detector")
def evaluate_detector(
    authentic: Annotated[Path, typer.Option(exists=True, file_okay=False, help="Folder of recordings.")],
    synthetic: Annotated[Path, typer.Option(exists=True, file_okay=False, help="Folder of generated media.")],
    plots: Annotated[
        Path | None, typer.Option(file_okay=False, help="Where to write plots, and the figures as detector.md.")
    ] = None,
    attacks: Annotated[bool, typer.Option("--attacks", help="Also after coding, resizing, blur, filming.")] = False,
    as_json: Json = False,
) -> None:
    """How well the detector tells two folders apart, with bootstrap intervals."""
    from detector.evaluate import evaluate as evaluate_folders
    from detector.evaluate import table as detector_table
    from detector.trials import ATTACKS

    with reporting(as_json):
        with progress_bar("scoring") as tell:
            report = evaluate_folders(
                authentic,
                synthetic,
                plots_dir=plots,
                attacks=ATTACKS if attacks else None,
                progress=lambda done, total: tell(done / total),
            )
        if plots is not None:
            (plots / "detector.md").write_text(detector_table(report))
        emit(as_json, report, detector_table(report))
