"""`placet live`: speak, from a file or a microphone, and keep the stream that comes back."""

from __future__ import annotations

import shutil
import subprocess
import threading
import time
import wave
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Annotated, Any, Final

import typer

from api.cli import wishes
from api.cli.output import Json, emit, progress_bar, reporting
from api.cli.places import Home, KeyFile, Url, client_for
from api.errors import MissingFieldError
from api.live.client import LiveConnection, placet_live
from policy.consent import PURPOSE_RESEARCH

RATE_HZ: Final = 16_000
CHUNK_S: Final = 0.02
_CHUNK_BYTES: Final = 2 * round(CHUNK_S * RATE_HZ)
_RECORDER: Final = ("arecord", "-q", "-t", "raw", "-f", "S16_LE", "-c", "1", "-r", str(RATE_HZ))


def live(
    key: KeyFile,
    subject: Annotated[str, typer.Option(help="Subject id.")],
    portrait_sha256: Annotated[str, typer.Option(help="Hash of the enrolled portrait.")],
    out: Annotated[Path, typer.Option(help="Where to write the stream; it plays, and `placet verify` checks it.")],
    wav: Annotated[Path | None, typer.Option(exists=True, dir_okay=False, help="Sound file to speak from.")] = None,
    mic: Annotated[bool, typer.Option("--mic", help="Speak into the microphone (needs `arecord`).")] = False,
    seconds: Annotated[float, typer.Option(min=1, help="How long the microphone listens.")] = 30.0,
    realtime: Annotated[bool, typer.Option("--realtime", help="Send a file as it would be spoken.")] = False,
    fps: Annotated[int, typer.Option(help="Frames per second: 25 or 40.")] = 25,
    frames_per_segment: Annotated[int, typer.Option(min=1, max=5, help="Frames per segment.")] = 1,
    recording: Annotated[Path | None, typer.Option(help="Where to write the signed recording, too.")] = None,
    purpose: Annotated[str, typer.Option(help="Purpose IRI.")] = PURPOSE_RESEARCH,
    seed: Annotated[int | None, wishes.SEED] = None,
    gaze: Annotated[str | None, wishes.GAZE] = None,
    head_pose: Annotated[str | None, wishes.HEAD_POSE] = None,
    head_distance: Annotated[float | None, wishes.HEAD_DISTANCE] = None,
    emotion: Annotated[str | None, wishes.EMOTION] = None,
    controls: Annotated[Path | None, wishes.CONTROLS] = None,
    home: Home = None,
    url: Url = "",
    as_json: Json = False,
) -> None:
    """Live through a session as a vetted client, and write the stream. Status 1 if the gate refuses."""
    with reporting(as_json), client_for(home, url, key) as placet:
        if (wav is None) == (not mic):
            raise MissingFieldError("--wav or --mic")
        wanted = wishes.read_controls(
            controls, seed=seed, gaze=gaze, head_pose=head_pose, head_distance=head_distance, emotion=emotion
        )
        pcm = b"" if wav is None else pcm_of(wav.read_bytes())
        duration_s = seconds if wav is None else len(pcm) / 2 / RATE_HZ
        with (
            placet_live(
                placet,
                subject_id=subject,
                portrait_sha256=portrait_sha256,
                purpose=purpose,
                controls=wanted,
                max_duration_s=duration_s + 5.0,
                rate_hz=fps,
                frames_per_segment=frames_per_segment,
                record=recording is not None,
                pace="realtime" if mic or realtime else "free",
            ) as connection,
            progress_bar("speaking") as tell,
        ):
            if wav is not None:
                speaking = threading.Thread(target=speak, args=(connection, pcm), kwargs={"realtime": realtime})
            else:
                speaking = threading.Thread(target=listen, args=(connection, seconds))
            speaking.start()
            num_bytes = write_stream(connection, out, lambda num: tell(min(1.0, num / (duration_s * fps))))
            speaking.join()
        ended = connection.ended or {}
        result = {"file": out, "num_bytes": num_bytes, "notes": connection.notes, **ended}
        if recording is not None and ended.get("render_id"):
            done = placet.wait(str(ended["render_id"]))
            recording.write_bytes(placet.video(done["render_id"]))
            result["recording"] = recording
        emit(
            as_json,
            result,
            f"{out}: {ended.get('num_segments')} segments, {ended.get('reason')}, log entry {ended.get('log_index')}"
            + (f"\n{recording}: the recording, signed" if "recording" in result else ""),
        )


def speak(
    connection: LiveConnection,
    pcm: bytes,
    *,
    realtime: bool,
    on_chunk: Callable[[int], None] = lambda _num_samples: None,
) -> None:
    """Send a whole recording, then say that all is said.

    Args:
        on_chunk: told, right before each chunk is sent, how many samples were sent before it.
    """
    started_at = time.monotonic()
    for begin in range(0, len(pcm), _CHUNK_BYTES):
        if realtime:
            # a microphone has a chunk when its last sample was heard
            due_s = (begin + _CHUNK_BYTES) / 2 / RATE_HZ
            time.sleep(max(0.0, started_at + due_s - time.monotonic()))
        on_chunk(begin // 2)
        connection.say(pcm[begin : begin + _CHUNK_BYTES])
    connection.finish()


def listen(connection: LiveConnection, seconds: float) -> None:
    """Send what the microphone hears, for so long."""
    with _microphone() as heard:
        for _ in range(round(seconds / CHUNK_S)):
            if not (chunk := heard.read(_CHUNK_BYTES)):
                break
            connection.say(chunk)
    connection.finish()


def write_stream(connection: LiveConnection, out: Path, on_segment: Callable[[int], None]) -> int:
    """Write a stream as it comes. Returns its size in bytes."""
    with out.open("wb") as file:
        file.write(connection.init_segment)
        for segment in connection.segments():
            file.write(segment)
            on_segment(connection.num_segments)
        return file.tell()


def pcm_of(sound: bytes) -> bytes:
    """16-bit mono PCM at 16 kHz of any sound file. Raises: MediaError."""
    import io

    from generator.speech import normalise_speech

    with wave.open(io.BytesIO(normalise_speech(sound))) as opened:
        return opened.readframes(opened.getnframes())


@contextmanager
def _microphone() -> Iterator[IO[bytes]]:
    program = shutil.which(_RECORDER[0])
    if program is None:
        raise typer.BadParameter("--mic needs the program arecord (Debian: alsa-utils); or give a file with --wav")
    with subprocess.Popen([program, *_RECORDER[1:]], stdout=subprocess.PIPE) as recorder:
        assert recorder.stdout is not None
        try:
            yield recorder.stdout
        finally:
            recorder.terminate()


def stream_verdict(path: Path, trust_roots_pem: str) -> tuple[dict[str, Any], str]:
    """What is known about a live stream in a file or folder, for programs and for people. Raises: LiveError."""
    from watermark.stream_files import verify_stream_files

    found = verify_stream_files(path, trust_roots_pem)
    result = {"verdict": "generated_here", "kind": "live_stream", **vars(found)}
    text = (
        f"verdict              generated_here: a live stream of {found.num_segments} segments, each signed, none "
        f"missing\nmanifest             {found.manifest_id}\nmark                 {found.mark_id}\n"
        f"signed               {found.first_signed_at} to {found.last_signed_at}\nend                  {found.end}"
    )
    return result, text
