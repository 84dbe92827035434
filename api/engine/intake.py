"""Where untrusted bytes are decoded: every upload in a child process of its own, with limits that hold.

This process imports the decoders once and then forks for each upload. The fork may take so much address space,
processor time and wall-clock time, may write no file, and is thrown away afterwards, whatever the bytes did to it.

    gateway --job--> intake process --fork--> limited child --normalised bytes or error--> intake process --> gateway
"""

from __future__ import annotations

import base64
import contextlib
import ctypes
import hashlib
import io
import json
import os
import resource
import select
import signal
import socket
import sys
import time
import wave
from dataclasses import asdict
from pathlib import Path
from typing import Any

from api.engine.child import connect, describe
from api.engine.process import EngineProcess
from api.engine.wire import ConnectionLostError, Message, ProtocolError, receive, send
from api.errors import IntakeError
from api.settings import Settings

PORTRAIT = "portrait"
SPEECH = "speech"
CONTROLS = "controls"
DRIVING = "driving"
TEXT = "text"


class IntakeCrashedError(IntakeError):
    """The decoder died on these bytes, or took more memory or time than it may."""

    code = "intake.limits"


# -- gateway side


class Intake:
    """Hands uploads to the intake process."""

    def __init__(self, settings: Settings, process: EngineProcess | None = None) -> None:
        self._settings = settings
        self.process = process or EngineProcess("api.engine.intake", lambda: Message({}))

    def portrait(self, data: bytes, face: object = None) -> tuple[bytes, dict[str, Any]]:
        """Normalised PNG and what was seen in it.

        Args:
            face: the control of that name: which of several faces is meant.
        Returns: the PNG; `sha256`; the `template` of the face that is meant, in base64; `num_faces` that could have
            been meant; `beside`: the templates of all others; `num_unknown`: how many could not be compared.
        Raises: RemoteError with a `portrait.*`, `control` or `intake.*` code.
        """
        answer = self._call(PORTRAIT, data, face=face)
        return answer.attachments["data"], answer.header["summary"]

    def speech(self, data: bytes) -> tuple[bytes, float]:
        """16 kHz mono PCM16 WAV and its duration in seconds. Raises RemoteError with a `speech.*`/`media.*` code."""
        answer = self._call(SPEECH, data)
        return answer.attachments["data"], float(answer.header["summary"]["duration_s"])

    def driving(self, data: bytes, *, with_sound: bool) -> tuple[bytes, bytes | None, dict[str, Any]]:
        """The movement in a driving clip.

        Args:
            with_sound: the clip is its own speech.
        Returns: movement; normalised speech, if asked for; `sha256` of the clip, `duration_s`, and `templates`,
            `beside` and `num_unknown` of the faces seen.
        Raises: RemoteError with a `driving.*`, `media.*`, `speech.*` or `intake.*` code.
        """
        answer = self._call(DRIVING, data, with_sound=with_sound, max_s=self._settings.max_driving_s)
        return answer.attachments["data"], answer.attachments.get("speech"), answer.header["summary"]

    def spoken(self, text: str, language: str, voice: str) -> tuple[bytes, float, dict[str, str]]:
        """A text as normalised speech, its duration in seconds, and what the control `voice` says of it.

        Raises: RemoteError with a `voice.*` code.
        """
        answer = self._call(TEXT, text.encode(), language=language, voice=voice)
        summary = answer.header["summary"]
        return answer.attachments["data"], float(summary["duration_s"]), dict(summary["voice"])

    def controls(self, controls: dict[str, Any]) -> None:
        """Check motion controls. Raises RemoteError with a `controls.*` code."""
        self._call(CONTROLS, json.dumps(controls).encode())

    def _call(self, kind: str, data: bytes, **wanted: Any) -> Message:
        settings = self._settings
        longer = settings.driving_effort if kind == DRIVING else 1.0
        limits = {
            "memory_bytes": settings.intake_memory_bytes,
            "cpu_s": settings.intake_cpu_s * longer,
            "wall_s": settings.intake_wall_s * longer,
        }
        wall_s = limits["wall_s"] + 10.0  # the intake process itself watches the limit
        return self.process.call({"kind": kind, "limits": limits, "wanted": wanted}, {"data": data}, wall_s=wall_s)


# -- intake process


def main() -> None:
    """Loop of the intake process: read a job, fork, watch, answer."""
    connection = connect(sys.argv)
    receive(connection)  # the greeting
    _import_decoders()
    send(connection, {"type": "ready"})
    while True:
        try:
            job = receive(connection)
        except ConnectionLostError:
            return
        if job.header["kind"] in (CONTROLS, DRIVING):
            import generator.driving  # noqa: F401  heavy, so only once it is needed, and before the fork
        answer = _in_child(job, job.header["limits"], connection)
        send(connection, answer.header, answer.attachments)


def _import_decoders() -> None:
    import generator.likeness
    import generator.portrait
    import generator.speech

    generator.likeness.load_models()  # read once, shared by all forks


def _in_child(job: Message, limits: dict[str, Any], gateway: socket.socket) -> Message:
    """Fork, run the job in the fork under limits, and return its answer, or what became of it."""
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            ours.close()
            gateway.close()
            _limit(limits)
            try:
                header, made = _decode(str(job.header["kind"]), job.attachments["data"], job.header["wanted"])
                attachments = made if isinstance(made, dict) else {"data": made}
                send(theirs, {"type": "result", "summary": header}, attachments)
            except MemoryError:
                send(theirs, describe(_crashed("needs more memory than it may take")))
            except Exception as error:
                send(theirs, describe(error))
            status = 0
        finally:
            os._exit(status)
    theirs.close()
    with ours:
        answer = _await_answer(ours, gateway, pid, time.monotonic() + float(limits["wall_s"]))
    os.waitpid(pid, 0)
    return answer


def _await_answer(ours: socket.socket, gateway: socket.socket, pid: int, deadline_s: float) -> Message:
    try:
        while True:
            remaining_s = deadline_s - time.monotonic()
            if remaining_s <= 0:
                raise TimeoutError
            readable, _, _ = select.select([ours, gateway], [], [], remaining_s)
            if ours in readable:
                ours.settimeout(max(0.1, remaining_s))
                return receive(ours)
            if gateway in readable and not gateway.recv(1, socket.MSG_PEEK):
                os.kill(pid, signal.SIGKILL)
                os._exit(0)
    except TimeoutError:
        return Message(dict(describe(_crashed("takes longer than it may"))))
    except (ConnectionLostError, ProtocolError):
        return Message(dict(describe(_crashed("needs more memory or time than it may take, or breaks the decoder"))))
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _crashed(what: str) -> IntakeCrashedError:
    return IntakeCrashedError(f"Decoding this file {what}: send a smaller file in a common format.")


def _limit(limits: dict[str, Any]) -> None:
    """Take from this process what decoding does not need."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: die with the intake process
    address_space = _address_space_bytes() + int(limits["memory_bytes"])
    cpu_s = int(time.process_time() + float(limits["cpu_s"])) + 1
    for name, value in (
        (resource.RLIMIT_AS, address_space),
        (resource.RLIMIT_CPU, cpu_s),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(name, (value, value))


def _address_space_bytes() -> int:
    """What the idle process has mapped already; 0 where the system does not say."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    except OSError:
        return 0


def _decode(kind: str, data: bytes, wanted: dict[str, Any]) -> tuple[dict[str, Any], bytes | dict[str, bytes]]:
    match kind:
        case "portrait":
            return _decode_portrait(data, wanted["face"])
        case "speech":
            return _decode_speech(data)
        case "controls":
            from generator.motion import MotionControls

            MotionControls.from_json(json.loads(data))
            return {}, b""
        case "text":
            return _speak(data, **wanted)
        case "driving":
            return _track_driving(data, **wanted)
    raise ProtocolError("Unknown kind of upload.")


def _decode_portrait(data: bytes, choice: Any) -> tuple[dict[str, Any], bytes]:
    from generator.controls import MotionControls
    from generator.faces import faces_in
    from generator.likeness import face_template
    from generator.portrait import decode_portrait, normalise_portrait

    png = normalise_portrait(data)
    image_HW3 = decode_portrait(png)
    meant = MotionControls.from_json({} if choice is None else {"face": choice}).face
    found = faces_in(image_HW3)
    face = found.chosen(meant)  # raises unless it is clear which one is meant, and it is large enough

    def template(of: Any) -> str:
        return base64.b64encode(face_template(image_HW3, of).to_bytes()).decode()

    return {
        "sha256": hashlib.sha256(png).hexdigest(),
        "template": template(face),
        "num_faces": len(found.counted),
        "beside": [template(other) for other in found.beside(face)],
        "num_unknown": found.num_more,
    }, png


def _track_driving(data: bytes, *, with_sound: bool, max_s: float) -> tuple[dict[str, Any], dict[str, bytes]]:
    from generator.driving import WATCHED_SIDE_PX, drivers_in, track_movement
    from generator.errors import DrivingSilentError
    from generator.likeness import face_template
    from generator.speech import normalise_speech
    from watermark.encoding import encode_sound_wav
    from watermark.media import MediaLimits, decode_clip

    clip = decode_clip(data, MediaLimits(max_duration_s=max_s), fit_within_px=WATCHED_SIDE_PX)
    if with_sound and (clip.sound is None or not clip.sound.samples_N.any()):
        raise DrivingSilentError("The driving clip has no sound to speak with: send speech or text as well.")
    templates, beside = [], []
    for frame_HW3, face, others in drivers_in(clip.frames_THWC):
        templates.append(face_template(frame_HW3, face))
        beside += [face_template(frame_HW3, other) for other in others]
    made = {"data": track_movement(clip.frames_THWC, clip.times_T, data).to_bytes()}
    if with_sound and clip.sound is not None:
        made["speech"] = normalise_speech(encode_sound_wav(clip.sound))
    summary = {
        "sha256": hashlib.sha256(data).hexdigest(),
        "duration_s": clip.duration_s,
        "templates": [base64.b64encode(each.to_bytes()).decode() for each in templates],
        "beside": [base64.b64encode(each.to_bytes()).decode() for each in beside],
        "num_unknown": 0,
    }
    return summary, made


def _speak(data: bytes, *, language: str, voice: str) -> tuple[dict[str, Any], bytes]:
    from generator.voice import speak

    spoken = speak(data.decode(), language, voice)
    summary, wav = _decode_speech(spoken.wav)
    return summary | {"voice": asdict(spoken.voice)}, wav


def _decode_speech(data: bytes) -> tuple[dict[str, Any], bytes]:
    from generator.speech import normalise_speech

    wav = normalise_speech(data)
    with wave.open(io.BytesIO(wav)) as opened:
        duration_s = opened.getnframes() / opened.getframerate()
    return {"duration_s": duration_s}, wav


if __name__ == "__main__":
    main()
