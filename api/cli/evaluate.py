"""`placet evaluate`: how good it is, on the shipped persona or on anybody's files. Heavy imports stay inside commands.

What makes a picture move goes through the gate like everything else (see `api.evaluation`); there is no other way.
"""

from __future__ import annotations

import json
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from api.cli.lab import Attest, machine
from api.cli.output import Json, emit, progress_bar, reporting, stop_negative
from api.cli.places import Home, settings_for
from api.errors import InvalidFieldError
from watermark.payload import MarkId

app = typer.Typer(help="How good it is. Renders pass the gate, are logged and marked.", no_args_is_help=True)

_PORTRAIT_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp"})
_SPEECH_SUFFIXES = frozenset({".wav", ".flac", ".opus", ".ogg", ".mp3", ".m4a"})


@app.command("generator")
def evaluate_generator(
    out: Annotated[Path, typer.Option(file_okay=False, help="Where to keep clips and contact sheets.")] = Path(
        "evaluation"
    ),
    portraits: Annotated[
        Path | None, typer.Option(exists=True, help="A picture or a folder of them; by default the shipped personas.")
    ] = None,
    speech: Annotated[
        Path | None,
        typer.Option(exists=True, help="A recording or a folder; NAME.json beside NAME.wav holds its phoneme times."),
    ] = None,
    attest: Attest = "synthetic",
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Render every portrait with every recording as the operator, and measure what came out.

    Per clip: lips against the phoneme times (closure recall on p b m, lag, correlation, stillness in silence), and
    whether mark and manifest read back. Status 1 if a mark or manifest does not.
    """
    import cv2

    from api.evaluation import evaluate_render, laboratory
    from generator.coarticulation import phones_from_json
    from generator.evaluate import LipMeasures, measure_lips, seen_apertures
    from generator.personas import list_personas, sample_paths
    from watermark.contact_sheet import contact_sheet
    from watermark.credentials import read_credentials
    from watermark.extract import read_mark
    from watermark.media import decode_clip

    with reporting(as_json), laboratory(settings_for(home)) as service, progress_bar("rendering") as tell:
        pictures = (
            [(each.name, each.portrait()) for each in list_personas()]
            if portraits is None
            else [(path.stem, path.read_bytes()) for path in _files(portraits, _PORTRAIT_SUFFIXES)]
        )
        voices = list(sample_paths()) if speech is None else _files(speech, _SPEECH_SUFFIXES)
        out.mkdir(parents=True, exist_ok=True)
        rows: list[dict[str, Any]] = []
        lips: list[LipMeasures] = []
        for name, picture in pictures:
            for voice in voices:
                target = out / f"{name}__{voice.stem}.mp4"
                made = evaluate_render(
                    service, portrait=picture, speech=voice.read_bytes(), attested_class=attest, out=target
                )
                clip, expected = decode_clip(target), made.render.mark_id
                reading = read_mark(
                    clip,
                    service.keys.watermark_key,
                    lambda mark, expected=expected: mark.hex == expected,  # type: ignore[misc]
                    num_registered=1,
                )
                manifest = read_credentials(target, "video/mp4", service.trust_roots_pem.decode())
                row = {**made.to_json(), "mark": reading.state, "manifest": manifest.state}
                transcription = voice.with_suffix(".json")
                if transcription.is_file():
                    phones = phones_from_json(json.loads(transcription.read_text())["phones"])
                    lips.append(measure_lips(seen_apertures(clip), clip.rate_hz, phones))
                    row["lips"] = lips[-1].to_json()
                sheet = contact_sheet(clip.frames_THWC, rate_hz=clip.rate_hz)
                cv2.imwrite(str(target.with_suffix(".png")), sheet[..., ::-1])
                rows.append(row)
                tell(len(rows) / (len(pictures) * len(voices)))
        result = {"clips": rows, "lips": _lips_over_all(lips), **machine()}
        text = "\n".join(_row_text(row) for row in rows)
        if lips:
            found = result["lips"]
            text += f"\nall: closures {found['num_closed']} of {found['num_closures']}, lag {found['lag_ms']:+.0f} ms"
        if any(row["mark"] != "detected" or row["manifest"] != "trusted" for row in rows):
            stop_negative(as_json, result, text)
        emit(as_json, result, text)


def _lips_over_all(lips: Sequence[Any]) -> dict[str, Any] | None:
    if not lips:
        return None
    num_closures, num_closed = sum(each.num_closures for each in lips), sum(each.num_closed for each in lips)
    return {
        "num_closures": num_closures,
        "num_closed": num_closed,
        "closure_recall": num_closed / max(num_closures, 1),
        "lag_ms": statistics.median(each.lag_ms for each in lips),
        "largest_lag_ms": max((each.lag_ms for each in lips), key=abs),
        "correlation": statistics.median(each.correlation for each in lips),
    }


def _row_text(row: dict[str, Any]) -> str:
    text = f"{row['file']}: {row['duration_s']:.1f} s in {row['render_s']:.1f} s, mark {row['mark']}"
    text += f", manifest {row['manifest']}"
    if lips := row.get("lips"):
        text += f", closures {lips['num_closed']} of {lips['num_closures']}, lag {lips['lag_ms']:+.0f} ms"
    return text


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

    with reporting(as_json):
        with progress_bar("scoring") as tell:
            report = evaluate_folders(
                authentic,
                synthetic,
                plots_dir=plots,
                with_attacks=attacks,
                progress=lambda done, total: tell(done / total),
            )
        if plots is not None:
            (plots / "detector.md").write_text(detector_table(report))
        emit(as_json, report, detector_table(report))


def _files(place: Path, suffixes: frozenset[str]) -> list[Path]:
    """A file, or the files with these endings in a folder. Raises InvalidFieldError where there are none."""
    found = [place] if place.is_file() else sorted(p for p in place.iterdir() if p.suffix.lower() in suffixes)
    if not found:
        raise InvalidFieldError(f"{place} holds no file ending in {', '.join(sorted(suffixes))}.")
    return found
