"""`placet bench generator`: how fast portraits speak, where the time goes, how soon, and what a long take needs."""

from __future__ import annotations

import os
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from api.cli.lab import Attest, Portrait, Speech, machine, material
from api.cli.output import Json, emit, progress_bar, reporting
from api.cli.places import Home, settings_for

if TYPE_CHECKING:
    from api.service import Service
    from generator.motion import MotionRow
    from policy.permit import Grant

_STAGE_FRAMES = 100
_SAMPLE_S = 0.5


def bench_generator(
    portrait: Portrait = None,
    speech: Speech = None,
    attest: Attest = "synthetic",
    runs: Annotated[int, typer.Option(min=1, help="Measured renders, after one to warm up.")] = 3,
    minutes: Annotated[
        float, typer.Option(min=0.0, max=10.0, help="Length of a long take: its memory, and whether it drifts.")
    ] = 0.0,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Frames per second end to end (movement, pixels, mark, H.264, sound, signature), milliseconds per stage, time from
    a voice to its first signed frame, and memory over a long take. Times are wall-clock; `cpu_` is processor time.
    """
    from api.evaluation import evaluate_render, laboratory

    with reporting(as_json), laboratory(settings_for(home)) as service, tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        picture, sound = material(portrait, speech)
        made, cpu_s = [], []
        with progress_bar("rendering") as tell:
            for run in range(runs + 1):
                before = _cpu_s(service.worker.process.pid)
                made.append(
                    evaluate_render(
                        service, portrait=picture, speech=sound, attested_class=attest, out=folder / f"{run}.mp4"
                    )
                )
                cpu_s.append(_cpu_s(service.worker.process.pid) - before)
                tell((run + 1) / (runs + 2))
            result: dict[str, Any] = {
                "bench": "generator",
                **_speed([each.render_s for each in made], cpu_s, made[0].render.num_frames or 0),
                **_stages(service, picture, sound, attest, folder),
                **_first_frame(service, picture, sound, attest),
            }
        if minutes:
            result["long_take"] = _long_take(service, picture, sound, attest, folder, minutes)
        result |= {"runs": runs, **machine()}
        emit(as_json, result, _text(result))


def _speed(render_s: list[float], cpu_s: list[float], num_frames: int) -> dict[str, Any]:
    median_s = statistics.median(render_s[1:])
    return {
        "num_frames": num_frames,
        "warm_up_s": round(render_s[0], 3),
        "median_s": round(median_s, 3),
        "fps": round(num_frames / median_s, 2),
        "cpu_ms_per_frame": round(1000 * statistics.median(cpu_s[1:]) / num_frames, 2),
        "real_time_factor": round(num_frames / 25 / median_s, 3),
    }


@contextmanager
def _granted(service: Service, picture: bytes, sound: bytes, attest: str) -> Iterator[tuple[bytes, bytes, Grant, str]]:
    """A grant for this process, by the same gate, log and permit as for any worker: portrait, speech, grant, mark."""
    from api.evaluation import permitted
    from policy.permit import PermitLedger, PermitVerifier

    job, _ = permitted(service, portrait=picture, speech=sound, attested_class=attest)
    request = job.ruling.request
    permit = service.gate.permit(
        job.ruling,
        worker="bench",
        portrait_sha256=request.portrait_sha256,
        speech_sha256=request.speech_sha256,
        controls=job.controls,
        mark_id=job.mark_id,
    )
    with tempfile.TemporaryDirectory() as ledger:
        verifier = PermitVerifier(
            service.keys.permit_public, "bench", PermitLedger(Path(ledger) / "ledger.sqlite3"), time.time
        )
        assert job.portrait is not None
        grant = verifier.redeem(permit, portrait=job.portrait, speech=job.speech, controls=job.controls)
        yield job.portrait, job.speech, grant, job.mark_id


def _stages(service: Service, picture: bytes, sound: bytes, attest: str, folder: Path) -> dict[str, Any]:
    """Each part of the pipeline by itself, on one thread, in milliseconds per frame."""
    from generator.controls import MotionControls
    from generator.motion import MotionModel
    from generator.portrait import prepare
    from generator.renderer import CHUNK_FRAMES, Renderer
    from watermark.authority import SigningAuthority
    from watermark.credentials import Ingredient, ManifestSpec
    from watermark.mark import produce
    from watermark.media import Sound, decode_sound
    from watermark.payload import MarkId

    with _granted(service, picture, sound, attest) as (png, wav, grant, mark_id):
        voice = decode_sound(wav)
        model = MotionModel.load()
        began = _clock()
        prepared = prepare(png)
        prepared.square_stage()
        analysed = _since(began)
        samples_N = voice.samples_N[: _STAGE_FRAMES * voice.rate_hz // 25]
        began = _clock()
        rows = list(model.rows(samples_N, MotionControls()))
        moved = _since(began, len(rows))
        renderer = Renderer(prepared, grant)
        began = _clock()
        frames = list(renderer.stream(rows, batch=CHUNK_FRAMES))
        rendered = _since(began, len(rows))
        mark = MarkId.from_hex(mark_id)
        began = _clock()
        produce(
            frames,
            Sound(samples_N, voice.rate_hz),
            rate_hz=25.0,
            mark_id=mark,
            key=service.keys.watermark_key,
            spec=ManifestSpec(
                title="Bench",
                portrait=Ingredient(png, "image/png", "Portrait"),
                speech=Ingredient(wav, "audio/wav", "Speech"),
                mark_id=mark,
                consent=None,
                log={},
                software_version="bench",
            ),
            authority=SigningAuthority.load(service.instance.pki, key=service.keys.c2pa_key),
            dst=folder / "stages.mp4",
        )
        return {
            "analysis_ms": analysed,
            "stages_ms_per_frame": {"motion": moved, "render": rendered, "mark_encode_sign": _since(began, len(rows))},
        }


def _first_frame(service: Service, picture: bytes, sound: bytes, attest: str) -> dict[str, Any]:
    """From the sound that decides a frame to its marked, coded, signed segment; a voice in pieces of 40 ms."""
    from generator.controls import MotionControls
    from generator.lips import LOOKAHEAD_S
    from generator.live import CODING, KEY_FRAME_S
    from generator.motion import MotionModel
    from generator.portrait import FRAME_PX, prepare
    from generator.renderer import Renderer
    from watermark.authority import SigningAuthority
    from watermark.credentials import Ingredient, ManifestSpec
    from watermark.embed import Embedder
    from watermark.live import LiveSigner
    from watermark.media import decode_sound
    from watermark.payload import MarkId
    from watermark.segments import LiveProducer, SegmentEncoder

    with _granted(service, picture, sound, attest) as (png, wav, grant, mark_id):
        mark, voice = MarkId.from_hex(mark_id), decode_sound(wav)
        prepared = prepare(png)
        prepared.square_stage()
        spec = ManifestSpec(
            title="Bench",
            portrait=Ingredient(png, "image/png", "Portrait"),
            speech=Ingredient(wav, "audio/wav", "Speech"),
            mark_id=mark,
            consent=None,
            log={},
            software_version="bench",
        )
        encoder = SegmentEncoder(
            width=FRAME_PX, height=FRAME_PX, rate_hz=25.0, has_sound=False, segment_s=0.04, key_frame_s=KEY_FRAME_S,
            coding=CODING,
        )  # fmt: skip
        producer = LiveProducer(
            encoder,
            Embedder(service.keys.watermark_key, mark, FRAME_PX, FRAME_PX, 25.0),
            LiveSigner(SigningAuthority.load(service.instance.pki, key=service.keys.c2pa_key), spec),
        )
        stream = MotionModel.load().stream(MotionControls())
        waiting: list[MotionRow] = []

        def as_heard() -> Iterator[MotionRow]:
            while waiting:
                yield waiting.pop(0)
                if not waiting:
                    waiting.extend(more())

        pieces = iter(voice.samples_N[k : k + 640] for k in range(0, len(voice.samples_N) - 640, 640))
        heard_s: list[float] = []

        def more() -> list[MotionRow]:
            for piece in pieces:
                began_s = time.perf_counter()
                if rows := stream.hear(piece):
                    heard_s.append(began_s)
                    return rows
            return []

        # one silent piece first: the rig is built, nothing of the voice has been heard
        waiting.append(_at_rest())
        frames = Renderer(prepared, grant).stream(as_heard())
        producer.write(next(frames), None)
        took_ms: list[float] = []
        for frame in frames:
            producer.write(frame, None)
            took_ms.append(1000 * (time.perf_counter() - heard_s[len(took_ms)]))
            if len(took_ms) >= _STAGE_FRAMES:
                break
        look_ahead_ms = 1000 * LOOKAHEAD_S
        return {
            "first_frame_ms": round(look_ahead_ms + took_ms[0], 1),
            "later_frames_ms": round(look_ahead_ms + statistics.median(took_ms[1:]), 1),
            "look_ahead_ms": look_ahead_ms,
        }


def _at_rest() -> MotionRow:
    """A row of no movement: the portrait as it is."""
    import numpy as np

    from generator.motion import MotionRow

    return MotionRow(np.zeros(52, np.float32), np.zeros(6, np.float32), np.zeros(2, np.float32), 1.0)


def _long_take(
    service: Service, picture: bytes, sound: bytes, attest: str, folder: Path, minutes: float
) -> dict[str, Any]:
    """Resident memory of the worker over a long render, and what has changed at its end."""
    from api.trials import Bench

    memory_mib: list[float] = []
    done = threading.Event()

    def watch() -> None:
        while not done.wait(_SAMPLE_S):
            memory_mib.append(_resident_mib(service.worker.process.pid))

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    began_s = time.monotonic()
    try:
        drift = Bench(service, folder, attest).drift("long", picture, sound, minutes)
    finally:
        done.set()
        watcher.join()
    tenths = [memory_mib[k * len(memory_mib) // 10] for k in range(10)] if len(memory_mib) >= 10 else memory_mib
    return {
        "minutes": minutes,
        "wall_s": round(time.monotonic() - began_s, 1),
        "peak_mib": round(max(memory_mib, default=0.0), 1),
        "mib_at_tenths": [round(each, 1) for each in tenths],
        "drift": vars(drift),
        "drift_is_measurable": drift.is_measurable,
    }


def _clock() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def _since(began: tuple[float, float], num: int = 1) -> dict[str, float]:
    wall_s, cpu_s = time.perf_counter() - began[0], time.process_time() - began[1]
    return {"wall": round(1000 * wall_s / num, 2), "cpu": round(1000 * cpu_s / num, 2)}


def _cpu_s(pid: int | None) -> float:
    """Processor time of a process so far (Linux); 0 before it is there."""
    if pid is None:
        return 0.0
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _resident_mib(pid: int | None) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0


def _text(result: dict[str, Any]) -> str:
    stages = result["stages_ms_per_frame"]
    text = (
        f"{result['fps']} frames/s end to end ({result['cpu_ms_per_frame']} ms of processor time per frame)\n"
        + ", ".join(f"{name} {each['wall']} ms ({each['cpu']} ms cpu)" for name, each in stages.items())
        + f"\nfirst frame {result['first_frame_ms']} ms after its sound, later ones {result['later_frames_ms']} ms"
    )
    if take := result.get("long_take"):
        text += f"\n{take['minutes']:g} minutes: {take['peak_mib']} MiB at most, drift {take['drift']}"
    return text
