"""`placet bench live`: one live stream, as a client over loopback sees it, and what it costs both cores.

A server of its own in a temporary home, a shipped persona, its sample spoken again and again in pieces of 20 ms, as a
microphone would. Latency is from the moment in which the piece with a frame's instant was sent to the moment in which
that frame was received, so it holds the 0.16 s that the lips look ahead. Drift is how far the lag between lips and
sound, both measured in what was received, moves from the beginning of the stream to its end.
"""

from __future__ import annotations

import bisect
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Final

import numpy as np
import typer
from numpy.typing import NDArray

from api.cli.lab import machine
from api.cli.live import RATE_HZ, pcm_of, speak
from api.cli.output import Json, emit, progress_bar, reporting
from api.client import Credentials, Enrolled, PlacetClient
from api.live.client import LiveEndedError, placet_live

_LONGEST_LAG_S: Final = 0.4
_WINDOW_S: Final = 12.0
_WITH_SETTINGS: Final = ("/usr/bin/env", "PLACET_THREADS=1", "PLACET_MAX_LIVE_S=7200")
_TICKS: Final = os.sysconf("SC_CLK_TCK")


@dataclass
class _Seen:
    """What a client saw of one session."""

    sent_at: list[tuple[int, float]] = field(default_factory=list)  # samples before the piece, and when it was sent
    received_at: list[tuple[int, float]] = field(default_factory=list)  # frames with this segment, and when
    stream: bytearray = field(default_factory=bytearray)

    @property
    def num_frames(self) -> int:
        return self.received_at[-1][0] if self.received_at else 0

    def latencies_ms(self, rate_hz: int) -> list[float]:
        """Of every frame: from the piece of sound with its instant to its arrival."""
        starts = [samples for samples, _ in self.sent_at]
        found, first = [], 0
        for num_frames, received_at in self.received_at:
            for frame in range(first, num_frames):
                piece = bisect.bisect_right(starts, frame * RATE_HZ // rate_hz) - 1
                found.append(1000 * (received_at - self.sent_at[piece][1]))
            first = num_frames
        return found


def bench_live(
    minutes: Annotated[float, typer.Option(min=0.05, help="How long the stream runs.")] = 1.0,
    fps: Annotated[int, typer.Option(help="Frames per second: 25 or 40.")] = 25,
    frames_per_segment: Annotated[int, typer.Option(min=1, max=5, help="Frames per segment.")] = 1,
    pace: Annotated[str, typer.Option(help="realtime; or free: as fast as it goes, for drift on a busy machine.")] = (
        "realtime"
    ),
    as_json: Json = False,
) -> None:
    """Frames per second, latency, drift and processor time of a live stream; and how soon a revocation ends one."""
    with reporting(as_json), _server() as (url, pid, home), _cast(url, home) as (researcher, subject, enrolled):
        request = {
            "subject_id": enrolled.subject_id,
            "portrait_sha256": enrolled.portrait_sha256,
            "purpose": "https://w3id.org/dpv#ScientificResearch",
            "rate_hz": fps,
            "frames_per_segment": frames_per_segment,
            "pace": pace,
        }
        _live(researcher, request, 3.0)  # to warm up: the worker is there, the portrait analysed, code compiled
        used: list[tuple[float, float]] = []
        with progress_bar("speaking") as tell:

            def each_segment(fraction: float) -> None:
                tell(fraction)
                if not used:
                    used.append(_cpu_s(pid))

            seen, ended = _live(researcher, request, 60 * minutes, each_segment)
        cpu_s = _minus(_cpu_s(pid), used[0])
        latencies = sorted(seen.latencies_ms(fps))
        received_s = seen.received_at[-1][1] - seen.received_at[0][1]
        num_cores = os.cpu_count() or 1
        result: dict[str, Any] = {
            "bench": "live",
            "minutes": minutes,
            "rate_hz": fps,
            "frames_per_segment": frames_per_segment,
            "pace": pace,
            "fps": round((seen.num_frames - 1) / received_s, 2) if received_s else 0.0,
            "latency_p50_ms": round(statistics.median(latencies), 1),
            "latency_p95_ms": round(latencies[int(0.95 * (len(latencies) - 1))], 1),
            "latency_max_ms": round(latencies[-1], 1),
            "first_frame_ms": round(1000 * (seen.received_at[0][1] - seen.sent_at[0][1]), 1),
            "av_drift_ms": _drift_ms(bytes(seen.stream), fps),
            "cores_share": round(sum(cpu_s) / received_s / num_cores, 4),
            "cpu_ms_per_frame": round(1000 * sum(cpu_s) / max(1, seen.num_frames), 2),
            "gateway_cpu_ms_per_frame": round(1000 * cpu_s[0] / max(1, seen.num_frames), 2),
            "cores_share_at_full_rate": round(sum(cpu_s) / max(1, seen.num_frames) * fps / num_cores, 4),
            "num_gaps": ended.get("num_gaps"),
            "num_repeated": ended.get("num_repeated"),
            "kbit_per_s": round(8 * len(seen.stream) / (seen.num_frames / fps) / 1000),
            "segments_after_revocation": _revoked(researcher, subject, request | {"pace": "realtime"}),
            **machine(),
        }
        emit(
            as_json,
            result,
            f"{result['fps']} frames/s, latency {result['latency_p50_ms']} ms (p95 {result['latency_p95_ms']} ms), "
            f"first frame after {result['first_frame_ms']} ms, drift {result['av_drift_ms']} ms\n"
            f"{100 * result['cores_share']:.0f} % of {num_cores} cores; {result['cpu_ms_per_frame']} ms of processor "
            f"time per frame, {result['gateway_cpu_ms_per_frame']} of them in the gateway\n"
            f"{result['segments_after_revocation']} segments after a revocation was answered",
        )


def _live(
    client: PlacetClient, request: dict[str, Any], duration_s: float, tell: Any = lambda _fraction: None
) -> tuple[_Seen, dict[str, Any]]:
    """One session over the sample of the persona, as a microphone would send it."""
    seen, pcm = _Seen(), _sample(duration_s)
    with placet_live(client, **request, max_duration_s=duration_s + 10.0) as connection:

        def say() -> None:
            note = seen.sent_at.append
            is_timed = request["pace"] == "realtime"
            speak(connection, pcm, realtime=is_timed, on_chunk=lambda samples: note((samples, time.monotonic())))

        speaking = threading.Thread(target=say)
        speaking.start()
        seen.stream += connection.init_segment
        most, per = round(duration_s * request["rate_hz"]), request["frames_per_segment"]
        for segment in connection.segments():
            # the last ones hold what is left of the sound, and the signed end
            num_frames = min(most, connection.num_segments * per)
            if num_frames > seen.num_frames:
                seen.received_at.append((num_frames, time.monotonic()))
            seen.stream += segment
            tell(num_frames / most)
        speaking.join()
        return seen, connection.ended or {}


def _revoked(researcher: PlacetClient, subject: PlacetClient, request: dict[str, Any]) -> int:
    """How many segments still arrive after a revocation was answered, besides the signed end."""
    consent_id = str(subject.consents()[0]["consent_id"])
    with placet_live(researcher, **request, max_duration_s=60.0) as connection:
        pcm, arrived, revoked_at = _sample(30.0), [], []

        def say() -> None:
            try:
                speak(connection, pcm, realtime=True)
            except LiveEndedError:
                return

        def revoke() -> None:
            time.sleep(3.0)
            subject.revoke(consent_id)
            revoked_at.append(time.monotonic())

        threads = [threading.Thread(target=each) for each in (say, revoke)]
        for thread in threads:
            thread.start()
        for _ in connection.segments():
            arrived.append(time.monotonic())
        for thread in threads:
            thread.join()
    return max(0, sum(at > revoked_at[0] for at in arrived) - 1)


def _sample(duration_s: float) -> bytes:
    """The sample of a shipped persona, as often as it takes."""
    from generator.personas import list_personas

    path = next(each.sample_path for each in list_personas() if each.sample_path is not None)
    pcm = pcm_of(path.read_bytes())
    num_bytes = 2 * round(duration_s * RATE_HZ)
    return (pcm * (num_bytes // len(pcm) + 1))[:num_bytes]


# -- drift


def _drift_ms(stream: bytes, rate_hz: int) -> float:
    """How far the lag of the lips behind the sound moves from the first seconds of a stream to its last ones."""
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "stream.mp4"
        path.write_bytes(stream)
        lags = [_lag_s(*part, rate_hz) for part in _ends(path, rate_hz)]
    return round(1000 * abs(lags[-1] - lags[0]), 1)


def _ends(path: Path, rate_hz: int) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.float32]]]:
    """Frames and sound of the first and of the last seconds, each cut at its own time stamps."""
    import av

    from watermark.media import CLIP_LIMITS, decode_sound_track

    sound = decode_sound_track(path, replace(CLIP_LIMITS, max_duration_s=86_400.0, max_bytes=4 * 2**30))
    assert sound is not None
    num_window = round(min(_WINDOW_S, sound.duration_s / 2) * rate_hz)
    first: list[tuple[float, Any]] = []
    last: deque[tuple[float, Any]] = deque(maxlen=num_window)
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            if len(first) < num_window:
                first.append((float(frame.time), frame))
            last.append((float(frame.time), frame))
    for shown in (first, list(last)):
        begin = round(shown[0][0] * sound.rate_hz)
        pictures_THWC = np.stack([frame.to_ndarray(format="rgb24") for _, frame in shown])
        yield pictures_THWC, sound.samples_N[begin : begin + round(len(shown) / rate_hz * sound.rate_hz)]


def _lag_s(frames_THWC: NDArray[np.uint8], samples_N: NDArray[np.float32], rate_hz: int) -> float:
    """How late the lips are behind the loudness of the sound, by the peak of their correlation."""
    from generator.evaluate import seen_apertures
    from watermark.media import Clip

    aperture_T = seen_apertures(Clip(frames_THWC, float(rate_hz)))
    per_frame = RATE_HZ // rate_hz
    padded = np.pad(samples_N, (0, max(0, len(frames_THWC) * per_frame - len(samples_N))))
    loud_T = np.sqrt(np.square(padded[: len(frames_THWC) * per_frame].reshape(-1, per_frame)).mean(axis=1))
    most = round(_LONGEST_LAG_S * rate_hz)

    def agreement(shift: int) -> float:
        lips = aperture_T[max(0, shift) : len(aperture_T) + min(0, shift)]
        voice = loud_T[max(0, -shift) : len(loud_T) - max(0, shift)]
        return float(np.corrcoef(lips, voice)[0, 1])

    by_shift = [agreement(shift) for shift in range(-most, most + 1)]
    best = int(np.argmax(by_shift))
    offset = 0.0
    if 0 < best < len(by_shift) - 1:
        before, at, after = by_shift[best - 1 : best + 2]
        offset = 0.5 * (before - after) / min(before - 2 * at + after, -1e-9)
    return (best - most + offset) / rate_hz


# -- the server and who is on it


@contextmanager
def _server() -> Iterator[tuple[str, int, Path]]:
    """A server in a process of its own, in a new home: its address, its process, its home."""
    command = [*_WITH_SETTINGS, sys.executable, "-m", "api.cli"]
    with tempfile.TemporaryDirectory(prefix="placet-bench-") as scratch:
        home = Path(scratch) / "home"
        subprocess.run([*command, "init", "--home", str(home), "--json"], check=True, stdout=subprocess.DEVNULL)
        serve = [*command, "serve", "--home", str(home), "--port", "0", "--json"]
        with subprocess.Popen(serve, stdout=subprocess.PIPE, text=True) as server:
            try:
                assert server.stdout is not None
                ready = json.loads(server.stdout.readline())
                yield str(ready["url"]), server.pid, home
            finally:
                server.terminate()


@contextmanager
def _cast(url: str, home: Path) -> Iterator[tuple[PlacetClient, PlacetClient, Enrolled]]:
    """A researcher, and a persona that has consented to them."""
    from generator.personas import list_personas
    from policy.consent import PURPOSE_RESEARCH, new_subject_key

    key = new_subject_key()
    with PlacetClient(url, Credentials.load(home / "operator.jwk")) as operator:
        made = operator.register_client(
            kind="researcher",
            name="bench",
            org="bench",
            scopes=["live:create", "render:read"],
            jwks=Credentials("", key).public_jwks,
            budget_s_per_day=86_400.0,
        )
    with PlacetClient(url, Credentials(made["client_id"], key)) as researcher, PlacetClient(url) as subject:
        enrolled = subject.enrol(
            list_personas()[0].portrait(), subject_class="persona", rights_basis="made for this project"
        )
        subject.consent(
            grantee_org="bench",
            grantee_client=made["client_id"],
            purposes=[PURPOSE_RESEARCH],
            controls=["*"],
        )
        yield researcher, subject, enrolled


def _cpu_s(pid: int) -> tuple[float, float]:
    """Processor time of the gateway, and of all processes below it (Linux)."""
    own, below = 0.0, 0.0
    parents: dict[int, int] = {}
    used_s: dict[int, float] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            parents[int(entry.name)] = int(fields[1])
            used_s[int(entry.name)] = (int(fields[11]) + int(fields[12])) / _TICKS
    for each, seconds in used_s.items():
        if each == pid:
            own = seconds
        elif _is_below(each, pid, parents):
            below += seconds
    return own, below


def _is_below(process: int, ancestor: int, parents: dict[int, int]) -> bool:
    while (process := parents.get(process, 0)) > 1:
        if process == ancestor:
            return True
    return False


def _minus(after: tuple[float, float], before: tuple[float, float]) -> tuple[float, float]:
    return after[0] - before[0], after[1] - before[1]
