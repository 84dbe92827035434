"""`placet evaluate contact-sheet`: portraits × states as one picture, to look at with open eyes."""

from __future__ import annotations

import io
import tempfile
import wave
from pathlib import Path
from typing import Annotated, Any

import typer

from api.cli.lab import Attest, machine
from api.cli.output import Json, emit, progress_bar, reporting, stop_negative
from api.cli.places import Home, settings_for
from api.errors import InvalidFieldError, RemoteError

_PICTURES = frozenset({".png", ".jpg", ".jpeg", ".webp"})
_DRAWING_S = 1.6


def evaluate_contact_sheet(
    out: Annotated[Path, typer.Option(file_okay=False, help="Where to keep the sheet and the clips.")],
    portraits: Annotated[
        Path | None, typer.Option(exists=True, help="A picture or a folder of them; by default the shipped personas.")
    ] = None,
    speech: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="A recording of five seconds; by default a sample.")
    ] = None,
    tile: Annotated[int, typer.Option(min=64, max=512, help="Side of one picture in pixels.")] = 320,
    attest: Attest = "synthetic",
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Render every portrait through speech, joy, sadness, gaze, turn, blink and closed lips, and as a drawing.

    One clip per portrait, and one of the portrait as a drawing; the pictures are taken from the delivered files. Status
    1 if a portrait could not be rendered; the sheet then says why in its place.
    """
    import cv2

    from api.evaluation import evaluate_render, laboratory
    from generator.controls import MotionControls
    from generator.motion import MotionModel
    from generator.personas import list_personas, sample_paths
    from generator.portrait import decode_portrait
    from generator.states import (
        DRAWING,
        STATES,
        StateRow,
        as_drawing,
        state_controls,
        state_moments,
        state_sheet,
        widest_moment,
    )
    from watermark.media import decode_clip, decode_sound

    with (
        reporting(as_json),
        laboratory(settings_for(home)) as service,
        tempfile.TemporaryDirectory() as scratch,
        progress_bar("rendering") as tell,
    ):
        pictures = _pictures(portraits) if portraits is not None else {}
        pictures = pictures or {each.name: each.portrait() for each in list_personas()}
        wav, duration_s = service.intake.speech((speech or next(iter(sample_paths()))).read_bytes())
        brief = _beginning(wav, _DRAWING_S)
        model = MotionModel.load()
        controls = state_controls(duration_s)
        moments = state_moments(model.plan(decode_sound(wav).samples_N, MotionControls.from_json(controls)))
        spoken = widest_moment(model.plan(decode_sound(brief).samples_N, MotionControls.from_json({"seed": 7})))
        jobs: dict[str, tuple[bytes, dict[str, Any], dict[str, int]]] = {
            "": (wav, controls, moments),
            DRAWING: (brief, {"seed": 7}, {DRAWING: spoken}),
        }
        out.mkdir(parents=True, exist_ok=True)
        rows: list[StateRow] = []
        clips: list[dict[str, Any]] = []
        for name, picture in pictures.items():
            found: dict[str, Any] = {}
            reasons: dict[str, str] = {}
            for kind, (sound, wishes, frames) in jobs.items():
                target = out / f"{name}{'__' + kind if kind else ''}.mp4"
                try:
                    source = picture
                    if kind == DRAWING:
                        drawn = Path(scratch) / "drawing.png"
                        image = decode_portrait(service.intake.portrait(picture)[0])
                        cv2.imwrite(str(drawn), as_drawing(image)[..., ::-1])
                        source = drawn.read_bytes()
                    made = evaluate_render(
                        service, portrait=source, speech=sound, attested_class=attest, out=target, controls=wishes
                    )
                except RemoteError as error:
                    reasons |= dict.fromkeys(frames, error.code)
                else:
                    shown = decode_clip(target).frames_THWC
                    found |= {state: shown[min(index, len(shown) - 1)] for state, index in frames.items()}
                    clips.append(made.to_json())
            rows.append(StateRow(name, found, reasons))
            tell(len(rows) / len(pictures))
        file = out / "states.jpg"
        sheet = state_sheet(rows, (*STATES, DRAWING), tile)
        cv2.imwrite(str(file), sheet[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 92])
        missing = [
            {"portrait": row.name, "state": state, "code": code} for row in rows for state, code in row.reasons.items()
        ]
        result = {"sheet": str(file), "clips": clips, "missing": missing, "moments": moments, **machine()}
        text = f"{file}: {len(rows)} portraits × {len(STATES) + 1} states"
        if missing:
            lines = [f"{each['portrait']}, {each['state']}: {each['code']}" for each in missing]
            stop_negative(as_json, result, "\n".join([text, *lines]))
        emit(as_json, result, text)


def _pictures(place: Path) -> dict[str, bytes]:
    """The pictures by name. Raises InvalidFieldError where there are none."""
    files = [place] if place.is_file() else sorted(p for p in place.iterdir() if p.suffix.lower() in _PICTURES)
    if not files:
        raise InvalidFieldError(f"{place} holds no file ending in {', '.join(sorted(_PICTURES))}.")
    return {path.stem: path.read_bytes() for path in files}


def _beginning(wav: bytes, duration_s: float) -> bytes:
    """The first seconds of a normalised recording."""
    out = io.BytesIO()
    with wave.open(io.BytesIO(wav)) as source, wave.open(out, "wb") as target:
        target.setparams(source.getparams())
        target.writeframes(source.readframes(round(duration_s * source.getframerate())))
    return out.getvalue()
