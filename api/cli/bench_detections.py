"""`placet bench detections`: how long one examination takes, how many pictures go through in a second, and what happens
when many upload at once.
"""

from __future__ import annotations

import io
import resource
import socket
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from api.cli.lab import machine
from api.cli.output import Json, emit, progress_bar, reporting
from api.settings import Settings

if TYPE_CHECKING:
    from api.client import PlacetClient
    from api.service import Service

_CLIP_S: Final = 10.0
_SIDE_PX: Final = 512
_NO_LIMIT: Final = 1_000_000_000
_START_S: Final = 900.0
"""Patience with the detection processes, on a machine that does other things."""


def bench_detections(
    file: Annotated[
        Path | None, typer.Argument(exists=True, dir_okay=False, help="A clip; by default a made-up one of 10 s.")
    ] = None,
    parallel: Annotated[int, typer.Option(min=0, max=500, help="Upload so many clips at once to a server.")] = 0,
    clip_s: Annotated[float, typer.Option(min=1, max=60, help="Length of the made-up clip.")] = _CLIP_S,
    processes: Annotated[int, typer.Option(min=1, max=64, help="Detection processes for pictures and load.")] = 2,
    pictures: Annotated[int, typer.Option(min=0, help="Pictures in the batch.")] = 40,
    runs: Annotated[int, typer.Option(min=1, help="Measured runs, after one to warm up.")] = 3,
    as_json: Json = False,
) -> None:
    """Time of one clip with all layers and by stage, with and without the network; pictures a second; load.

    Uses an instance of its own in a temporary folder.
    """
    with reporting(as_json), tempfile.TemporaryDirectory() as scratch, progress_bar("examining") as tell:
        data = file.read_bytes() if file is not None else made_up_clip(clip_s)
        home = Path(scratch) / "home"
        result: dict[str, Any] = {"bench": "detections", "clip_bytes": len(data), **machine()}
        if parallel:
            result["load"] = _load(home, data, parallel, processes, tell)
        else:
            result["clip"] = _latency(home, data, runs, tell)
            if pictures:
                result["pictures"] = _pictures(home, pictures, processes)
        lines = [f"{name:<24} {value}" for group in ("clip", "pictures", "load") for name, value in
                 result.get(group, {}).items()]  # fmt: skip
        emit(as_json, result, "\n".join(lines))


# -- what is looked at


def made_up_clip(clip_s: float, *, seed: int = 0) -> bytes:
    """A shipped persona before an unsteady camera, with the persona's speech: nothing of it is animated or marked."""
    import numpy as np

    from generator.personas import list_personas
    from watermark.encoding import VideoCoding, VideoEncoder
    from watermark.media import Sound, decode_sound

    persona = list_personas()[seed % len(list_personas())]
    still_HWC = _still(persona.portrait(), _SIDE_PX)
    rng = np.random.default_rng(seed)
    sound = None
    if persona.sample_path is not None:
        speech = decode_sound(persona.sample_path.read_bytes())
        length = round(clip_s * speech.rate_hz)
        repeated_N = np.tile(speech.samples_N, 1 + length // len(speech.samples_N))[:length]
        sound = Sound(repeated_N, speech.rate_hz)
    target = io.BytesIO()
    with VideoEncoder(
        target, width=_SIDE_PX, height=_SIDE_PX, rate_hz=25.0, sound=sound, coding=VideoCoding(crf=23)
    ) as encoder:
        for nth in range(round(clip_s * 25)):
            shift = (round(4 * np.sin(nth / 7 + seed)), round(6 * np.sin(nth / 11)))
            noise_HWC = rng.integers(-3, 4, still_HWC.shape, np.int16)
            frame_HWC = np.roll(still_HWC, shift, (0, 1)).astype(np.int16) + noise_HWC
            encoder.write(np.clip(frame_HWC, 0, 255).astype(np.uint8))
    return target.getvalue()


def _still(portrait: bytes, side_px: int) -> Any:
    import numpy as np
    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(portrait)).convert("RGB").resize((side_px, side_px)))


def _picture(seed: int) -> bytes:
    """A portrait, moved a little, as JPEG."""
    import numpy as np
    from PIL import Image

    from generator.personas import list_personas

    personas = list_personas()
    still_HWC = np.roll(_still(personas[seed % len(personas)].portrait(), _SIDE_PX), seed, 1)
    out = io.BytesIO()
    Image.fromarray(still_HWC).save(out, "JPEG", quality=90)
    return out.getvalue()


# -- one clip


def _latency(home: Path, data: bytes, runs: int, tell: Any) -> dict[str, Any]:
    from api.engine.examiner import ExamineJob

    with _instance(home, examiners=1) as service:
        walls, stages = [], []
        for run in range(runs + 1):
            seen: dict[str, float] = {}
            started_s = time.monotonic()

            def heard(news: Mapping[str, Any], seen: dict[str, float] = seen, since_s: float = started_s) -> None:
                seen[str(news.get("stage", news["what"]))] = time.monotonic() - since_s

            report = service.examiner.inspect(data, ExamineJob("application/octet-stream"), heard).report
            walls.append(time.monotonic() - started_s)
            stages.append(seen)
            tell((run + 1) / (runs + 2))
        measured = stages[1:]
        at = {name: statistics.median(each[name] for each in measured) for name in measured[0]}
    return {
        "clip_s": report["media"]["duration_s"],
        "verdict": report["verdict"],
        "warm_up_s": round(walls[0], 3),
        "median_s": round(statistics.median(walls[1:]), 3),
        "runs": runs,
        "opened_s": round(at["opened"], 3),
        "c2pa_s": round(at["c2pa"] - at["opened"], 3),
        "marks_s": round(at["watermark"] - at["c2pa"], 3),
        "detector_s": round(at["detector"] - at["watermark"], 3),
        "saved_where_mark_decides_s": round(at["detector"] - at["watermark"], 3),
        "processor_s": round(_children_cpu_s() / (runs + 1), 3),
        "processor_s_includes": "a share of loading the models",
    }


def _pictures(home: Path, count: int, processes: int) -> dict[str, Any]:
    from api.engine.examiner import ExamineJob

    data = [_picture(seed) for seed in range(count)]
    with _instance(home, examiners=processes) as service, ThreadPoolExecutor(processes) as pool:
        job = ExamineJob("image/jpeg")
        list(pool.map(lambda each: service.examiner.inspect(each, job), data[:processes]))  # load the models
        started_s = time.monotonic()
        reports = list(pool.map(lambda each: service.examiner.inspect(each, job).report, data))
        wall_s = time.monotonic() - started_s
    return {
        "pictures": len(reports),
        "side_px": _SIDE_PX,
        "processes": processes,
        "pictures_per_s": round(len(reports) / wall_s, 2),
    }


# -- many at once


def _load(home: Path, data: bytes, parallel: int, processes: int, tell: Any) -> dict[str, Any]:
    """Uploads from so many callers at once, over HTTP, each waited or polled for to its end."""
    variants = [data + b"\0\0\0\x08free" * nth for nth in range(parallel)]  # other bytes, the same clip
    with _server(home, examiners=processes) as (service, client):
        client.detect(data)  # load the models
        most_taken, is_over = 0, threading.Event()

        def watch() -> None:
            nonlocal most_taken
            while not is_over.wait(0.05):
                most_taken = max(most_taken, service.detections.room.taken_bytes)

        watching = threading.Thread(target=watch, daemon=True)
        watching.start()
        done: list[float] = []

        def one(body: bytes) -> str:
            started_s = time.monotonic()
            report = client.detect(body)
            done.append(time.monotonic() - started_s)
            tell(len(done) / parallel)
            return str(report["verdict"])

        started_s = time.monotonic()
        with ThreadPoolExecutor(parallel) as pool:
            verdicts = list(pool.map(one, variants))
        wall_s = time.monotonic() - started_s
        is_over.set()
        watching.join()
        left_bytes = service.detections.room.taken_bytes
    ordered = sorted(done)
    return {
        "parallel": parallel,
        "processes": processes,
        "answered": len(verdicts),
        "lost": parallel - len(verdicts),
        "different_verdicts": len(set(verdicts)) - 1,
        "wall_s": round(wall_s, 2),
        "p50_s": round(ordered[len(ordered) // 2], 2),
        "p95_s": round(ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))], 2),
        "max_s": round(ordered[-1], 2),
        "uploads_most_mib": round(most_taken / 2**20, 1),
        "uploads_left_bytes": left_bytes,
        "gateway_peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "largest_process_peak_mib": round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024),
    }


def _children_cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _settings(home: Path, examiners: int, port: int = 0) -> Settings:
    from api.setup import create_instance

    settings = Settings(
        home=home,
        port=port,
        issuer="",
        examiners=examiners,
        prewarm=False,
        detections_per_minute=_NO_LIMIT,
        detections_per_day=_NO_LIMIT,
        near_duplicates_per_hour=_NO_LIMIT,
        token_requests_per_minute=_NO_LIMIT,
        detection_wait_s=3600.0,
    )
    if not home.exists():
        create_instance(settings, "bench")
    return settings


def _load_models(service: Service) -> None:
    for process in service.examiner.processes:
        process.start(_START_S)


@contextmanager
def _instance(home: Path, *, examiners: int) -> Iterator[Service]:
    from api.service import Service

    service = Service(_settings(home, examiners))
    try:
        _load_models(service)
        yield service
    finally:
        service.close()


@contextmanager
def _server(home: Path, *, examiners: int) -> Iterator[tuple[Service, PlacetClient]]:
    """A server on a free port, and its operator as a client."""
    import uvicorn

    from api.app import create_app
    from api.client import Credentials, PlacetClient

    listener = socket.create_server(("127.0.0.1", 0))
    settings = _settings(home, examiners, listener.getsockname()[1])
    app = create_app(settings)
    running = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
    thread = threading.Thread(target=running.run, args=([listener],), daemon=True)
    thread.start()
    while not running.started and thread.is_alive():
        time.sleep(0.02)
    try:
        _load_models(app.state.service)
        with PlacetClient(settings.base_url, Credentials.load(settings.operator_key_path), timeout_s=3600) as client:
            yield app.state.service, client
    finally:
        running.should_exit = True
        thread.join(30)
