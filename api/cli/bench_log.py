"""`placet bench log`: durable appends, proofs from a large log, and how long it takes to re-read and export it.

Every figure is taken in a new log in a temporary directory, together with what the disk beneath it can do: the latency
of one small write made durable is the floor under a commit, which takes three of them.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from api.cli.lab import bench, machine
from api.cli.output import Json, emit, progress_bar, reporting
from policy.bundle import export_bundle
from policy.evidence import verify_evidence
from policy.files import fsync_data, write_all
from policy.fsck import fsck
from policy.log import Log

ORIGIN = "bench.placet.local/log"
NUM_WRITERS = 64
_SYNCS = 200
_PROOFS = 2000
_CHUNK = 255 * 8


@bench.command("log")
def bench_log(
    entries: Annotated[int, typer.Option(min=1, help="Size of the log that proofs are taken from.")] = 20_000,
    seconds: Annotated[float, typer.Option(min=0.2, help="How long each kind of writing is measured.")] = 3.0,
    processes: Annotated[int, typer.Option(min=1, max=64, help="Processes in the run with several.")] = 4,
    directory: Annotated[
        Path | None, typer.Option(exists=True, file_okay=False, help="Disk to measure; by default the temporary one.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the entries that are drawn.")] = 20261122,
    as_json: Json = False,
) -> None:
    """Durable appends per second; proof, fsck and export of a log of --entries (1000000 for the full figure)."""
    with reporting(as_json), tempfile.TemporaryDirectory(dir=directory, prefix="placet-bench-") as scratch:
        place = Path(scratch)
        result: dict[str, Any] = {"bench": "log", "fsync_ms": spread_ms(sync_times_s(place))}
        key = Ed25519PrivateKey.generate()
        log = Log.create(place / "appends", key, ORIGIN)
        result["one_writer"] = _rate(log, 1, seconds)
        result["writers"] = {"threads": NUM_WRITERS, **_rate(log, NUM_WRITERS, seconds)}
        result["several_processes"] = {
            "processes": processes,
            "threads": NUM_WRITERS,
            **_rate_of_processes(place / "shared", key, processes, NUM_WRITERS // processes or 1, seconds),
        }
        result["large_log"] = _large_log(place, key, entries, seed)
        emit(as_json, {**result, **machine()}, _text(result))


# -- appends


def _rate(log: Log, num_threads: int, seconds: float) -> dict[str, Any]:
    """Durable entries per second of wall-clock and of processor time, and the latency that one caller sees."""
    for number in range(5):
        log.append("bench", {"warm_up": number})
    latencies: list[list[float]] = [[] for _ in range(num_threads)]
    stop_at = time.perf_counter() + seconds

    def write(mine: list[float]) -> None:
        while (started_s := time.perf_counter()) < stop_at:
            log.append("bench", {"number": len(mine), "client": "client:00112233445566778899aabbccddeeff"})
            mine.append(time.perf_counter() - started_s)

    wall_s, cpu_s = time.perf_counter(), time.process_time()
    threads = [threading.Thread(target=write, args=(mine,)) for mine in latencies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wall_s, cpu_s = time.perf_counter() - wall_s, time.process_time() - cpu_s
    times_s = [each for mine in latencies for each in mine]
    return {
        "entries": len(times_s),
        "per_s": round(len(times_s) / wall_s),
        "per_cpu_s": round(len(times_s) / cpu_s),
        "latency_ms": spread_ms(times_s),
    }


def _rate_of_processes(
    directory: Path, key: Ed25519PrivateKey, num_processes: int, num_threads: int, seconds: float
) -> dict[str, Any]:
    """The same with the writers spread over processes that share one log by its file lock."""
    Log.create(directory, key, ORIGIN)
    context = multiprocessing.get_context("spawn")
    barrier, answers = context.Barrier(num_processes), context.SimpleQueue()
    raw_key = key.private_bytes_raw()
    children = [
        context.Process(target=_process, args=(directory, raw_key, num_threads, seconds, barrier, answers))
        for _ in range(num_processes)
    ]
    for child in children:
        child.start()
    found = [answers.get() for _ in children]
    for child in children:
        child.join()
    return {
        "entries": sum(each["entries"] for each in found),
        "per_s": sum(each["per_s"] for each in found),
        "latency_p99_ms": max(each["latency_ms"]["p99"] for each in found),
    }


def _process(directory: Path, raw_key: bytes, num_threads: int, seconds: float, barrier: Any, answers: Any) -> None:
    log = Log.open(directory, Ed25519PrivateKey.from_private_bytes(raw_key), ORIGIN)
    barrier.wait()
    answers.put(_rate(log, num_threads, seconds))


# -- a large log


def _large_log(place: Path, key: Ed25519PrivateKey, num_entries: int, seed: int) -> dict[str, Any]:
    """Build a log, prove random entries of it, re-read it, export it."""
    log = Log.create(place / "large", key, ORIGIN)
    built_s, cpu_s = time.perf_counter(), time.process_time()
    with progress_bar(f"building {num_entries:,} entries") as tell:
        while (size := log.size) < num_entries:
            numbers = range(size, min(size + _CHUNK, num_entries))
            log.append_many([("bench", {"number": number}) for number in numbers])
            tell(numbers.stop / num_entries)
    built_s, cpu_s = time.perf_counter() - built_s, time.process_time() - cpu_s
    log = Log.open(place / "large", key, ORIGIN)  # as a restarted server finds it, nothing cached
    rng = random.Random(seed)  # noqa: S311
    drawn = [rng.randrange(num_entries) for _ in range(_PROOFS)]
    evidence, times_s, cpu_times_s = [], [], []
    for index in drawn:
        started_s, started_cpu_s = time.perf_counter(), time.process_time()
        evidence.append(log.evidence(index))
        times_s.append(time.perf_counter() - started_s)
        cpu_times_s.append(time.process_time() - started_cpu_s)
    for each in evidence:
        verify_evidence(each, log.public_key, origin=ORIGIN)
    bundle = place / "bundle.tar"
    with progress_bar("re-reading"):
        fsck_s = _seconds(lambda: fsck(place / "large", log.public_key).require_clean())
    with progress_bar("exporting"):
        export_s = _seconds(lambda: export_bundle(log, bundle))
    return {
        "entries": num_entries,
        "build_s": round(built_s, 2),
        "build_per_cpu_s": round(num_entries / cpu_s),
        "proofs": len(drawn),
        "proof_ms": spread_ms(times_s),
        "proof_cpu_ms": spread_ms(cpu_times_s),
        "fsck_s": round(fsck_s, 2),
        "export_s": round(export_s, 2),
        "export_num_bytes": bundle.stat().st_size,
    }


# -- shared


def sync_times_s(place: Path) -> list[float]:
    """Seconds of one small append made durable, over and over."""
    descriptor = os.open(place / "sync", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def write() -> None:
        write_all(descriptor, bytes(200))
        fsync_data(descriptor)

    try:
        return [_seconds(write) for _ in range(_SYNCS)]
    finally:
        os.close(descriptor)


def _seconds(job: Callable[[], object]) -> float:
    started_s = time.perf_counter()
    job()
    return time.perf_counter() - started_s


def spread_ms(times_s: Sequence[float]) -> dict[str, float]:
    """Median and tail, milliseconds."""
    ordered = sorted(times_s)
    return {
        "median": round(1000 * statistics.median(ordered), 3),
        "p99": round(1000 * ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))], 3),
        "max": round(1000 * ordered[-1], 3),
    }


def _text(result: dict[str, Any]) -> str:
    large = result["large_log"]
    return "\n".join(
        (
            f"disk       {result['fsync_ms']['median']} ms for one durable write (p99 {result['fsync_ms']['p99']})",
            f"1 writer   {result['one_writer']['per_s']:,} durable entries/s",
            f"{NUM_WRITERS} threads {result['writers']['per_s']:,} durable entries/s",
            f"{result['several_processes']['processes']} procs    "
            f"{result['several_processes']['per_s']:,} durable entries/s with {NUM_WRITERS} threads in all",
            f"proof      {large['proof_ms']['median']} ms median, {large['proof_ms']['p99']} ms p99, "
            f"any of {large['entries']:,} entries",
            f"fsck       {large['fsck_s']} s; export {large['export_s']} s, {large['export_num_bytes']:,} bytes",
        )
    )
