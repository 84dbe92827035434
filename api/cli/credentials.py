"""`placet evaluate credentials`, `placet bench credentials`, `placet tsa`: manifests, live streams and time stamps."""

from __future__ import annotations

import statistics
import struct
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer
from numpy.typing import NDArray

from api.cli.evaluate import app as evaluate
from api.cli.lab import bench, machine
from api.cli.output import Json, emit, progress_bar, reporting, stop_negative
from api.cli.places import Home, settings_for

if TYPE_CHECKING:
    from watermark.media import Sound

pki = typer.Typer(help="Certificates of the claim signer: list, revoke.", no_args_is_help=True)
tsa = typer.Typer(help="The instance's own time-stamp authority (RFC 3161).", no_args_is_help=True)

_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".mp4"})


@evaluate.command("credentials")
def evaluate_credentials(
    files: Annotated[
        Path | None, typer.Option(exists=True, file_okay=False, help="Folder of C2PA public test files.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Judge the C2PA's test files by their names, our own outputs, and a live stream under attack.

    A second, independent validator (the package encypher-c2pa) judges them too, where it is installed. Status 1 if
    anything is judged otherwise than it should be.
    """
    from watermark.conformance import report, table

    with reporting(as_json), tempfile.TemporaryDirectory() as scratch, progress_bar("judging"):
        found = sorted(path for path in files.iterdir() if path.suffix.lower() in _SUFFIXES) if files else []
        result = report(found, Path(scratch))
        if result["num_as_expected"] != result["num_judged"]:
            stop_negative(as_json, result, table(result))
        emit(as_json, result, table(result))


@bench.command("credentials")
def bench_credentials(
    runs: Annotated[int, typer.Option(min=3, help="Measured runs, after one to warm up.")] = 15,
    as_json: Json = False,
) -> None:
    """Time to sign ten seconds of MP4, with and without a time stamp, and to sign and verify a live segment.

    The limits are 40 ms for the file (without the stamp, whose price is the network's) and 1 ms for the segment.
    Medians by the wall clock; on a busy machine look at the processor's share.
    """
    from watermark.authority import SigningAuthority
    from watermark.conformance import pattern_spec, scene
    from watermark.credentials import read_credentials, sign
    from watermark.encoding import encode_clip, encode_sound_wav
    from watermark.live import LiveSigner, LiveVerifier
    from watermark.media import Clip
    from watermark.tsa import TimeStampAuthority, TimeStampServer

    with reporting(as_json), tempfile.TemporaryDirectory() as scratch, progress_bar("signing"):
        folder = Path(scratch)
        authority = SigningAuthority.create(folder / "pki", "Bench")
        frames_THWC, sound = scene(250, 512)
        encode_clip(Clip(frames_THWC, 25.0, sound), folder / "in.mp4")
        spec = pattern_spec(encode_sound_wav(sound))
        spec = replace(
            spec, portrait=replace(spec.portrait, mime="audio/wav"), speech=replace(spec.speech, mime="audio/wav")
        )
        out = folder / "out.mp4"

        def signing(by: SigningAuthority) -> Callable[[], object]:
            return lambda: sign(folder / "in.mp4", out, spec, by)

        with TimeStampServer(TimeStampAuthority.load(folder / "pki")) as stamps:
            plain = _measured(signing(authority), runs)
            stamped = _measured(signing(authority.with_time_stamps(stamps.url)), runs)
        reading = _measured(lambda: read_credentials(out, "video/mp4", authority.root_pem), runs)
        init, segment = _segment(frames_THWC, sound)
        signer = LiveSigner(authority, spec)
        verifier = LiveVerifier(signer.sign_init(init), authority.root_pem)
        numbered = iter(_renumbered(segment, number + 1) for number in range(20 * runs + 1))
        signed: list[bytes] = []
        live = _measured(lambda: signed.append(signer.sign_segment(next(numbered), 1.0)), 20 * runs)
        arriving = iter(signed)
        checking = _measured(lambda: verifier.verify(next(arriving)), 20 * runs)
        result = {
            "bench": "credentials",
            "num_bytes": (folder / "in.mp4").stat().st_size,
            "sign_10_s_mp4": plain,
            "sign_10_s_mp4_with_time_stamp": stamped,
            "read_10_s_mp4": reading,
            "segment_num_bytes": len(segment),
            "segment_info_num_bytes": len(signed[0]) - len(segment),
            "sign_live_segment": live,
            "verify_live_segment": checking,
            "limits_ms": {"sign_10_s_mp4": 40.0, "sign_live_segment": 1.0},
            "limits_kept": plain["median_ms"] <= 40.0 and live["median_ms"] <= 1.0,
            **machine(),
        }
        text = (
            f"sign 10 s of MP4: {plain['median_ms']} ms ({stamped['median_ms']} ms with a time stamp), "
            f"read {reading['median_ms']} ms\n"
            f"live segment: sign {live['median_ms']} ms, verify {checking['median_ms']} ms, "
            f"+{result['segment_info_num_bytes']} bytes"
        )
        emit(as_json, result, text)


def _measured(job: Callable[[], object], runs: int) -> dict[str, float]:
    """Medians after one run to warm up, and the processor's share."""
    job()
    walls_s, cpu_s = [], time.process_time()
    for _ in range(runs):
        started_at_s = time.perf_counter()
        job()
        walls_s.append(time.perf_counter() - started_at_s)
    cpu_s = (time.process_time() - cpu_s) / runs
    return {"median_ms": round(statistics.median(walls_s) * 1e3, 3), "mean_cpu_ms": round(cpu_s * 1e3, 3)}


def _segment(frames_THWC: NDArray[np.uint8], sound: Sound) -> tuple[bytes, bytes]:
    """Init segment and the first second."""
    from watermark.colour import encoder_planes
    from watermark.segments import SegmentEncoder

    height, width = frames_THWC.shape[1:3]
    encoder = SegmentEncoder(width=width, height=height, rate_hz=25.0)
    step = sound.rate_hz // 25
    for index, frame_HWC in enumerate(frames_THWC):
        part = replace(sound, samples_N=sound.samples_N[index * step : (index + 1) * step])
        if found := encoder.write(encoder_planes(frame_HWC), part):
            return encoder.init_segment, found[0].data
    raise AssertionError("ten seconds hold more than one segment")


def _renumbered(segment: bytes, number: int) -> bytes:
    """The same segment as the fragment `number` of its stream."""
    place = segment.index(b"mfhd") + 8
    return segment[:place] + struct.pack(">I", number) + segment[place + 4 :]


@tsa.command("serve")
def serve_time_stamps(
    home: Home = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 8471,
    as_json: Json = False,
) -> None:
    """Stamp for others what they have signed, with the instance's time-stamp certificate, until interrupted."""
    from policy.instance import Instance
    from watermark.tsa import TimeStampAuthority, TimeStampServer

    with reporting(as_json):
        settings = settings_for(home)
        pki = Instance.open(settings.home, access=settings.key_access).pki
        with TimeStampServer(TimeStampAuthority.load(pki), host=host, port=port) as server:
            emit(as_json, {"url": server.url, "root": str(pki / "root.pem")}, f"time stamps at {server.url}")
            with suppress(KeyboardInterrupt):
                server.wait()


@pki.command("list")
def list_certificates(home: Home = None, as_json: Json = False) -> None:
    """Every leaf that was ever issued: serial number, key, term, and whether it is in force or revoked."""
    from policy.instance import Instance
    from policy.kms import public_kid
    from watermark.authority import load_certificate
    from watermark.ocsp import issued, revocations

    with reporting(as_json):
        settings = settings_for(home)
        directory = Instance.open(settings.home, access=settings.key_access).pki
        in_force, revoked = load_certificate(directory / "leaf.pem"), revocations(directory)
        found = [
            {
                "serial": f"{leaf.serial_number:x}",
                "kid": public_kid(leaf.public_key()),  # type: ignore[arg-type]
                "not_before": leaf.not_valid_before_utc.isoformat(),
                "not_after": leaf.not_valid_after_utc.isoformat(),
                "in_force": leaf == in_force,
                "revoked": revoked[leaf.serial_number].reason if leaf.serial_number in revoked else None,
            }
            for leaf in issued(directory)
        ]
        lines = [
            f"{each['serial']}  until {each['not_after']}  {'in force' if each['in_force'] else 'replaced'}"
            + (f", revoked ({each['revoked']})" if each["revoked"] else "")
            for each in found
        ]
        emit(as_json, {"certificates": found}, "\n".join(lines))


@pki.command("revoke")
def revoke_certificate(
    serial: Annotated[str, typer.Argument(help="Serial number as `placet pki list` shows it.")],
    reason: Annotated[str, typer.Option(help="Of RFC 5280: keyCompromise, superseded, cessationOfOperation …")],
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Declare a leaf bad, in the log and to whoever asks /pki/ocsp. Rotate first: placet keys rotate c2pa."""
    from api.errors import InvalidFieldError
    from policy.instance import Instance
    from watermark.ocsp import revoke

    with reporting(as_json):
        settings = settings_for(home)
        instance = Instance.open(settings.home, access=settings.key_access)
        try:
            number = int(serial, 16)
        except ValueError as exc:
            raise InvalidFieldError("A serial number is hexadecimal: see placet pki list.") from exc
        revocation = revoke(instance.pki, number, reason)
        body = {"serial": f"{number:x}", "reason": revocation.reason, "at": int(revocation.at.timestamp())}
        index = instance.log.append("certificate.revoked", body).index
        emit(as_json, body | {"log_index": index}, f"{number:x}: revoked ({revocation.reason}), log entry {index}")
