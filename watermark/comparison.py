"""Our mark beside RivaGAN and dwtDctSvd, on the same clips, through the same attacks, in one run.

`python -m watermark.comparison --clips DIR --peers DIR`. The peers come from the package `invisible-watermark` (PyPI),
which is put into the folder `--peers` by itself, without what it drags in: `pip install --no-deps --target` with
`comparison-requirements.txt`, once. It runs in a process of its own that sees that folder.

A peer's bits are voted on over the frames of the clip; its payload (32 and 64 bits) counts as recovered when every bit
is right. Peers know nothing of geometry: they get the attacked frames as they are. With `--out`, what each method
did on each clip is kept as soon as it is done: a run that was cut short goes on where it was.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from watermark.attacks import SUITE
from watermark.colour import encoder_planes
from watermark.embed import AMPLITUDE, LUMA_AMPLITUDE, Embedder
from watermark.evaluate import clips_below
from watermark.extract import receive
from watermark.media import Clip, decode_clip
from watermark.payload import NUM_ID_BITS, MarkId
from watermark.tile import TILE_GAIN
from watermark.visibility import visibility

ATTACKS = (
    "none",
    "JPEG 75",
    "JPEG 40",
    "H.264 CRF 23",
    "H.264 CRF 30",
    "H.264 CRF 36",
    "HEVC CRF 30",
    "crop 71 %",
    "rotate 5°",
    "resize 50 %",
    "brightness ×0.5",
    "grey",
    "Omni: CRF 30 + crop 71 % + ×0.5",
)
_SIDE_PX = 512
_READ_EVERY = 8
"""Frames from one to the next that a peer reads: it takes up to a second for each."""


@dataclass(frozen=True)
class Peer:
    """A method of `invisible-watermark`, and how many bytes it carries."""

    method: str
    num_bytes: int


PEERS = (Peer("rivaGan", 4), Peer("dwtDctSvd", 8))


def compare(
    clips: Sequence[Path],
    peers_folder: Path,
    *,
    duration_s: float = 1.0,
    with_jod: bool = True,
    keep_in: Path | None = None,
) -> dict[str, Any]:
    """Mark, attack and read with every method.

    Args:
        clips: video files; brought to a width of 512 at most.
        peers_folder: where `invisible-watermark` is, or is put.
        duration_s: how much of each clip is used.
        with_jod: also run ColorVideoVDP where it is installed.
        keep_in: a folder for finished pieces; what is found there is not done again.
    Returns: for every method its visibility, its processor time per frame, and for every attack the share of clips
        recovered and of right bits.
    """
    _install(peers_folder)
    rows: dict[str, list[dict[str, Any]]] = {"placet": [], **{peer.method: [] for peer in PEERS}}
    for number, path in enumerate(clips):
        original = decode_clip(path, stop_after_s=duration_s, fit_within_px=_SIDE_PX)
        payload = hashlib.sha256(b"comparison %d" % number).digest()

        def ours(_folder: Path, original: Clip = original, payload: bytes = payload) -> dict[str, Any]:
            return _ours(original, payload, with_jod)

        rows["placet"].append(_kept(ours, path, "placet", (duration_s, with_jod, number, *_STRENGTHS), keep_in))
        for peer in PEERS:

            def theirs(
                folder: Path, original: Clip = original, payload: bytes = payload, peer: Peer = peer
            ) -> dict[str, Any]:
                return _theirs(original, payload, peer, peers_folder, with_jod, folder)

            rows[peer.method].append(_kept(theirs, path, peer.method, (duration_s, with_jod, number), keep_in))
    return {
        "num_clips": len(clips),
        "duration_s": duration_s,
        "methods": {method: _over_clips(found) for method, found in rows.items()},
    }


_STRENGTHS = (AMPLITUDE, LUMA_AMPLITUDE, TILE_GAIN)


def _kept(
    measure: Callable[[Path], dict[str, Any]],
    path: Path,
    method: str,
    settings: tuple[float, ...],
    folder: Path | None,
) -> dict[str, Any]:
    """What `measure` gives, or gave in an earlier run with the same settings. It gets a folder for its steps."""
    if folder is None:
        with tempfile.TemporaryDirectory() as scratch:
            return measure(Path(scratch))
    digest = hashlib.sha256(path.read_bytes() + repr((settings, ATTACKS)).encode()).hexdigest()[:12]
    piece = folder / f"{path.stem}-{method}-{digest}.json"
    if piece.is_file():
        return dict(json.loads(piece.read_text()))
    steps = piece.with_suffix(".steps")
    steps.mkdir(parents=True, exist_ok=True)
    found = measure(steps)
    unfinished = piece.with_suffix(".partial")
    unfinished.write_text(json.dumps(found))
    unfinished.replace(piece)
    shutil.rmtree(steps)
    return found


def _over_clips(found: list[dict[str, Any]]) -> dict[str, Any]:
    def mean(values: list[Any]) -> float | None:
        return None if not values or None in values else round(float(np.mean(values)), 4)

    return {
        "num_bits": found[0]["num_bits"] if found else None,
        **{what: mean([each[what] for each in found]) for what in ("jod", "psnr_db", "ssim", "embed_ms_per_frame")},
        "attacks": {
            name: {
                "recovery": mean([each["attacks"][name][0] for each in found]),
                "bit_accuracy": mean([each["attacks"][name][1] for each in found]),
            }
            for name in ATTACKS
        },
    }


def _seen(marked_THWC: NDArray[np.uint8], original: Clip, with_jod: bool) -> dict[str, Any]:
    found = visibility(marked_THWC, original.frames_THWC, original.rate_hz, with_jod=with_jod)
    return {"jod": found.jod, "psnr_db": found.psnr_db, "ssim": found.ssim}


def _ours(original: Clip, payload: bytes, with_jod: bool) -> dict[str, Any]:
    key, mark_id = hashlib.sha256(b"comparison").digest(), MarkId(int.from_bytes(payload[:8], "big"))
    height, width = original.frames_THWC.shape[1:3]
    embedder = Embedder(key, mark_id, width, height, original.rate_hz)
    marked_THWC = embedder.apply(original.frames_THWC)
    times_ms = []
    for index, frame_HWC in enumerate(original.frames_THWC):
        planes = encoder_planes(frame_HWC)
        started_at_s = time.process_time()
        embedder.mark_planes(planes, index)
        times_ms.append(1e3 * (time.process_time() - started_at_s))
    results: dict[str, tuple[bool, float]] = {}
    for name in ATTACKS:
        best, recovered = None, False
        for received in receive(SUITE[name](Clip(marked_THWC, original.rate_hz)), key):
            if best is None or received.nearest[0].correlation > best.correlation:
                best = received.nearest[0]
            recovered = any(each.mark_id == mark_id for each in received.nearest)
            if recovered:
                break
        wrong = NUM_ID_BITS if best is None else (best.mark_id.value ^ mark_id.value).bit_count()
        results[name] = (recovered, 1.0 if recovered else 1.0 - wrong / NUM_ID_BITS)
    return {
        "num_bits": NUM_ID_BITS,
        "embed_ms_per_frame": statistics.median(times_ms),
        **_seen(marked_THWC, original, with_jod),
        "attacks": results,
    }


def _theirs(
    original: Clip, payload: bytes, peer: Peer, peers_folder: Path, with_jod: bool, steps: Path
) -> dict[str, Any]:
    bits = np.unpackbits(np.frombuffer(payload[: peer.num_bytes], np.uint8))
    call = [peer.method, payload[: peer.num_bytes].hex()]
    source, target, embedding = steps / "frames.npy", steps / "marked.npy", steps / "embedding.json"
    if not embedding.is_file():
        np.save(source, np.ascontiguousarray(original.frames_THWC[..., ::-1]))
        for line in _lines_of_peer(peers_folder, ["embed", *call, str(source), str(target)]):
            embedding.write_text(line)
    marked_THWC = np.ascontiguousarray(np.load(target)[..., ::-1])
    missing = [number for number in range(len(ATTACKS)) if not (steps / f"{number}.json").is_file()]
    for number in missing:
        attacked = SUITE[ATTACKS[number]](Clip(marked_THWC, original.rate_hz))
        np.save(steps / f"{number}.npy", np.ascontiguousarray(attacked.frames_THWC[::_READ_EVERY, ..., ::-1]))
    if missing:
        files = [str(steps / f"{number}.npy") for number in missing]
        for number, line in zip(missing, _lines_of_peer(peers_folder, ["decode", *call, *files]), strict=True):
            (steps / f"{number}.json").write_text(line)
    results = {}
    for number, name in enumerate(ATTACKS):
        right = (np.array(json.loads((steps / f"{number}.json").read_text())["shares"]) > 0.5) == bits
        results[name] = (bool(right.all()), float(right.mean()))
    return {
        "num_bits": len(bits),
        "embed_ms_per_frame": json.loads(embedding.read_text())["per_frame_ms"],
        **_seen(marked_THWC, original, with_jod),
        "attacks": results,
    }


def _install(folder: Path) -> None:
    if not (folder / "imwatermark").is_dir():
        requirements = Path(__file__).with_name("comparison-requirements.txt")
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder)]
        subprocess.run([*command, "-r", str(requirements)], check=True)


def _lines_of_peer(folder: Path, arguments: list[str]) -> Iterator[str]:
    """What the peer's program prints, line by line as it comes."""
    paths = os.pathsep.join([str(folder), *(path for path in sys.path if path.endswith("site-packages"))])
    command = [sys.executable, str(Path(__file__).with_name("comparison_peer.py")), *arguments]
    environment = {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        yield from program.stdout
    if program.returncode:
        raise subprocess.CalledProcessError(program.returncode, command)


def table(report: dict[str, Any]) -> str:
    """The comparison as a Markdown table: clips recovered, and right bits."""
    methods = report["methods"]
    lines = [
        "| | " + " | ".join(f"{method} ({found['num_bits']} bits)" for method, found in methods.items()) + " |",
        "|---|" + "---|" * len(methods),
    ]
    for what, label, decimals in (
        ("jod", "ColorVideoVDP", 2),
        ("psnr_db", "PSNR, dB", 1),
        ("ssim", "SSIM", 3),
        ("embed_ms_per_frame", "marking one frame, ms of processor time", 1),
    ):
        cells = ["–" if found[what] is None else f"{found[what]:.{decimals}f}" for found in methods.values()]
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    for name in ATTACKS:
        attacked = [found["attacks"][name] for found in methods.values()]
        cells = [f"{100 * each['recovery']:.0f} % ({each['bit_accuracy']:.2f})" for each in attacked]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; ends with one JSON line."""
    parser = argparse.ArgumentParser(prog="watermark.comparison", description=__doc__)
    parser.add_argument("--clips", type=Path, required=True, help="folder with video files")
    parser.add_argument("--peers", type=Path, required=True, help="folder for the package invisible-watermark")
    parser.add_argument("--out", type=Path, help="folder for comparison.json and comparison.md")
    parser.add_argument("--seconds", type=float, default=1.0, help="of each clip")
    parser.add_argument("--max-clips", type=int, default=1000, help="use no more than this many")
    parser.add_argument("--no-jod", action="store_true", help="skip ColorVideoVDP, which is slow")
    options = parser.parse_args(arguments)
    cv2.setNumThreads(1)
    clips = clips_below(options.clips)[: options.max_clips]
    if not clips:
        parser.error(f"there is no video file in {options.clips}")
    report = compare(
        clips,
        options.peers,
        duration_s=options.seconds,
        with_jod=not options.no_jod,
        keep_in=None if options.out is None else options.out / "pieces",
    )
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "comparison.json").write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n")
        (options.out / "comparison.md").write_text(table(report))
    print(json.dumps(report, ensure_ascii=False))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
