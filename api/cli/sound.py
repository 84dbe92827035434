"""`placet evaluate sound-mark` and `placet bench sound-mark`: the mark in the sound, on anybody's recordings."""

from __future__ import annotations

import json
import statistics
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from api.cli.lab import machine
from api.cli.output import Json, emit, progress_bar, reporting, stop_negative
from api.errors import InvalidFieldError


def evaluate_sound_mark(
    speech: Annotated[
        Path | None, typer.Option(exists=True, help="A recording or a folder; by default the personas' samples.")
    ] = None,
    most: Annotated[int, typer.Option(min=1, help="Recordings to use, evenly spread over the folder.")] = 40,
    least_s: Annotated[float, typer.Option(min=2.0, help="Shorter recordings are left out.")] = 5.6,
    issued_only: Annotated[bool, typer.Option("--issued-only", help="Only what must always be survived.")] = False,
    null_keys: Annotated[int, typer.Option(min=0, help="Keys under which each unmarked recording is read.")] = 4,
    out: Annotated[
        Path | None, typer.Option(file_okay=False, help="Where to keep pieces, report and table; goes on there.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Mark speech with a key of this evaluation, attack it, read it back blindly, and measure how audible the mark is.

    Status 1 if an attack that must be survived loses an id, or something false is found.
    """
    from watermark.media import decode_sound
    from watermark.sound_attacks import SOUND_ISSUED, SOUND_SUITE
    from watermark.sound_evaluate import evaluate_sound, sounds_below, table

    with reporting(as_json):
        files = _files(speech, sounds_below)
        stride = max(1, len(files) // (3 * most))
        long_enough = [path for path in files[::stride] if decode_sound(path.read_bytes()).duration_s >= least_s]
        chosen = long_enough[:: max(1, len(long_enough) // most)][:most]
        if not chosen:
            raise InvalidFieldError(f"No recording lasts {least_s:g} s or longer.")
        with progress_bar("attacking") as tell:
            report = evaluate_sound(
                chosen,
                attacks=SOUND_ISSUED if issued_only else SOUND_SUITE,
                num_null_keys=null_keys,
                keep_in=None if out is None else out / "pieces",
                progress=lambda done, total, _what: tell(done / total),
            )
        text = table(report)
        if out is not None:
            out.mkdir(parents=True, exist_ok=True)
            (out / "sound-mark.json").write_text(json.dumps(report, indent=1) + "\n")
            (out / "sound-mark.md").write_text(text + "\n")
        result = {**report, **machine()}
        text += f"\naudibility {report['audibility']}\nfalse positives {report['false_positives']}"
        if not report["issued_all_recovered"] or report["false_positives"]["detected"]:
            stop_negative(as_json, result, text)
        emit(as_json, result, text)


def bench_sound_mark(
    speech: Annotated[Path | None, typer.Option(exists=True, dir_okay=False, help="By default a persona's.")] = None,
    runs: Annotated[int, typer.Option(min=1, help="Measured runs, after one to warm up.")] = 5,
    as_json: Json = False,
) -> None:
    """Time to mark a sound, to read its mark, to look for one in vain, and to take and compare fingerprints."""
    import numpy as np

    from watermark.audio_mark import AudioEmbedder, read_audio_mark
    from watermark.fingerprint import Fingerprints, FingerprintTaker, FoundContent, compare, sound_signs
    from watermark.media import Sound, decode_sound
    from watermark.payload import MarkId
    from watermark.sound_evaluate import sounds_below

    with reporting(as_json):
        sound = decode_sound(_files(speech, sounds_below)[0].read_bytes())
        key, mark_id = bytes(32), MarkId(1)
        embedder = AudioEmbedder(key, mark_id, sound.rate_hz)
        marked = Sound(embedder.apply(sound.samples_N), sound.rate_hz)
        luma_HW = np.random.default_rng(0).integers(0, 255, (512, 512), np.uint8)
        signed = FingerprintTaker(512, 512).finish(sound)
        found = FoundContent.of_sound(marked)

        def frames() -> Fingerprints:
            taker = FingerprintTaker(512, 512)
            for index in range(100):
                taker.add(luma_HW, index / 25)
            return taker.finish(None)

        jobs: dict[str, tuple[Any, float]] = {
            "mark_ms_per_s": (lambda: embedder.apply(sound.samples_N), sound.duration_s),
            "read_ms_per_s": (lambda: read_audio_mark(marked, key, mark_id.__eq__, num_registered=1), sound.duration_s),
            "read_in_vain_ms_per_s": (
                lambda: read_audio_mark(sound, key, lambda _: False, num_registered=1),
                sound.duration_s,
            ),
            "fingerprint_sound_ms_per_s": (lambda: sound_signs(sound, phases=1), sound.duration_s),
            "fingerprint_ms_per_frame_512": (frames, 100.0),
            "compare_sound_ms": (lambda: compare(signed, found), 1.0),
        }
        result: dict[str, Any] = {"bench": "sound-mark", "sound_s": round(sound.duration_s, 2), "runs": runs}
        for name, (job, unit) in jobs.items():
            result[name] = round(1e3 * _median_cpu_s(job, runs) / unit, 3)
        result |= {"what": "median processor time", **machine()}
        emit(as_json, result, "\n".join(f"{name:<30} {result[name]}" for name in jobs))


def _median_cpu_s(job: Any, runs: int) -> float:
    """Median processor time, after one run to warm up; wall-clock time would measure the neighbours."""
    job()
    times_s = []
    for _ in range(runs):
        started_at_s = time.process_time()
        job()
        times_s.append(time.process_time() - started_at_s)
    return statistics.median(times_s)


def _files(speech: Path | None, sounds_below: Any) -> list[Path]:
    from generator.personas import sample_paths

    if speech is None:
        return list(sample_paths())
    found = [speech] if speech.is_file() else sounds_below(speech)
    if not found:
        raise InvalidFieldError(f"There is no sound file in {speech}.")
    return list(found)
