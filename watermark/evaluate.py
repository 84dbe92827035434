"""How well the mark survives, how little it shows, and how seldom it is seen where there is none.

`python -m watermark.evaluate --clips DIR --out DIR` marks every clip of a folder as `mark.produce` does, attacks it,
and reads it back blindly; it ends with one JSON line. Visibility is ColorVideoVDP (Mantiuk et al. 2024; 10 = no
difference), measured when the optional package `cvvdp` is installed.

T frame  H,W pixel  C colour channel (R,G,B)
"""

from __future__ import annotations

import argparse
import hashlib
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from watermark.attacks import ISSUED, SUITE, Attack, h264
from watermark.embed import AMPLITUDE, Embedder
from watermark.extract import MarkReading, read_mark
from watermark.media import (
    Clip,
    VideoCoding,
    VideoEncoder,
    decode_clip,
    encoder_planes,
)
from watermark.payload import MarkId

Progress = Callable[[int, int, str], None]
"""Is told steps done, steps in all, and what comes next."""

CLIP_SUFFIXES = (".mp4", ".mov", ".webm", ".mkv", ".avi", ".mpg")
_VISIBILITY_FRAMES = 50


@dataclass(frozen=True)
class _Trial:
    attack: str
    recovered: bool
    correlation: float
    read_s: float


def clips_below(directory: Path) -> list[Path]:
    """The video files in a folder and below, in a fixed order."""
    return sorted(path for path in directory.rglob("*") if path.suffix.lower() in CLIP_SUFFIXES)


def evaluate(
    clips: Sequence[Path],
    *,
    attacks: Mapping[str, Attack] | None = None,
    amplitude: float = AMPLITUDE,
    seed: int = 0,
    max_duration_s: float = 10.0,
    measure_visibility: bool = True,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Mark, attack and read `clips`.

    Args:
        clips: video files, without a mark of the key that `seed` gives.
        attacks: by name; the whole suite by default.
        amplitude: of the mark, as in `Embedder`.
        seed: determines key and ids.
        max_duration_s: how much of each clip is used.
        measure_visibility: also run ColorVideoVDP, which takes about a second per frame on one core.
        progress: see `Progress`.
    Returns: a report that JSON can hold: `attacks` (recovered ids of each), `visibility`, `false_positives`, `speed`.
    """
    attacks = SUITE if attacks is None else attacks
    key, wrong_key = (hashlib.sha256(b"placet evaluation %d %s" % (seed, part)).digest() for part in (b"a", b"b"))
    rng = np.random.default_rng(seed)
    ids = [MarkId.random(rng.bytes) for _ in clips]
    registry = frozenset(ids)
    trials: list[_Trial] = []
    nulls: list[MarkReading] = []
    visibility: list[dict[str, Any]] = []
    embed_ms: list[float] = []
    num_steps, done = len(clips) * (len(attacks) + 2), 0

    def report(label: str) -> None:
        if progress is not None:
            progress(done, num_steps, label)

    def read(clip: Clip, with_key: bytes) -> MarkReading:
        return read_mark(clip, with_key, registry.__contains__, num_registered=len(registry))

    for path, mark_id in zip(clips, ids, strict=True):
        report(f"{path.name}: visibility")
        original = decode_clip(path, stop_after_s=max_duration_s)
        visibility.append(_visibility(path.name, original, key, mark_id, amplitude, measure_visibility))
        done += 1
        delivered, per_frame_ms = _delivered(original, key, mark_id, amplitude)
        embed_ms.append(per_frame_ms)
        for name, attack in attacks.items():
            report(f"{path.name}: {name}")
            attacked = attack(delivered)
            started = time.perf_counter()
            reading = read(attacked, key)
            trials.append(_Trial(name, reading.mark_id == mark_id, reading.correlation, time.perf_counter() - started))
            done += 1
        report(f"{path.name}: false positives")
        nulls += [read(original, key), read(h264(30)(original), key), read(delivered, wrong_key)]
        done += 1
    report("done")
    return {
        "num_clips": len(clips),
        "amplitude": amplitude,
        "attacks": {name: _summary([trial for trial in trials if trial.attack == name]) for name in attacks},
        "issued_all_recovered": all(trial.recovered for trial in trials if trial.attack in ISSUED),
        "visibility": visibility,
        "min_jod": min((entry["jod"] for entry in visibility if entry["jod"] is not None), default=None),
        "false_positives": {
            "readings": len(nulls),
            "words_tried": sum(reading.num_attempts for reading in nulls),
            "detected": sum(reading.state == "detected" for reading in nulls),
            "taken_for_unregistered": sum(reading.state == "inconclusive" for reading in nulls),
            "max_correlation": round(max((reading.correlation for reading in nulls), default=0.0), 3),
        },
        "speed": {
            "embed_ms_per_frame": round(statistics.median(embed_ms), 3) if embed_ms else None,
            "read_s": round(statistics.median(trial.read_s for trial in trials), 2) if trials else None,
        },
    }


def _summary(trials: Sequence[_Trial]) -> dict[str, Any]:
    return {
        "recovered": sum(trial.recovered for trial in trials),
        "tried": len(trials),
        "min_correlation": round(min((trial.correlation for trial in trials), default=0.0), 3),
    }


def _delivered(original: Clip, key: bytes, mark_id: MarkId, amplitude: float) -> tuple[Clip, float]:
    """Through the encoder as `mark.produce` does it. Returns the decoded file and the time to mark, per frame in ms."""
    height, width = (side & ~1 for side in original.frames_THWC.shape[1:3])
    embedder = Embedder(key, mark_id, width, height, original.rate_hz, amplitude=amplitude)
    marking_s = 0.0
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "clip.mp4"
        with VideoEncoder(
            path, width=width, height=height, rate_hz=original.rate_hz, sound=None, coding=VideoCoding()
        ) as encoder:
            for index, frame_HWC in enumerate(original.frames_THWC):
                planes = encoder_planes(frame_HWC)
                started = time.perf_counter()
                embedder.mark_planes(planes, index)
                marking_s += time.perf_counter() - started
                encoder.write_planes(planes)
        return decode_clip(path), 1e3 * marking_s / len(original.frames_THWC)


def _visibility(
    name: str, original: Clip, key: bytes, mark_id: MarkId, amplitude: float, with_jod: bool
) -> dict[str, Any]:
    """What the mark alone does to the frames, before any encoder."""
    frames_THWC = original.frames_THWC[:_VISIBILITY_FRAMES]
    height, width = frames_THWC.shape[1:3]
    embedder = Embedder(key, mark_id, width, height, original.rate_hz, amplitude=amplitude)
    marked_THWC = embedder.apply(frames_THWC)
    error = float(np.mean([(m.astype(np.float32) - f) ** 2 for m, f in zip(marked_THWC, frames_THWC, strict=True)]))
    jod = visibility_jod(marked_THWC, frames_THWC, original.rate_hz) if with_jod else None
    return {
        "clip": name,
        "jod": None if jod is None else round(jod, 3),
        "psnr_db": round(10 * np.log10(255**2 / max(error, 1e-9)), 2),
    }


def visibility_jod(test_THWC: NDArray[np.uint8], reference_THWC: NDArray[np.uint8], rate_hz: float) -> float | None:
    """ColorVideoVDP on a full-HD display at desk distance: 10 is no visible difference. None if not installed."""
    try:
        import pycvvdp
        import torch
    except ImportError:
        return None
    metric = pycvvdp.cvvdp(display_name="standard_fhd", device=torch.device("cpu"), quiet=True)
    jod, _ = metric.predict(
        test_THWC.transpose(1, 2, 3, 0),
        reference_THWC.transpose(1, 2, 3, 0),
        dim_order="HWCF",
        frames_per_second=rate_hz,
    )
    return float(jod)


def plot(report: Mapping[str, Any], path: Path) -> None:
    """Draw a report: recovered share and weakest reception per attack, as PNG or SVG."""
    from matplotlib.figure import Figure

    names = list(report["attacks"])
    shares = [report["attacks"][name]["recovered"] / max(1, report["attacks"][name]["tried"]) for name in names]
    weakest = [report["attacks"][name]["min_correlation"] for name in names]
    figure = Figure(figsize=(8, 1.4 + 0.26 * len(names)), layout="constrained")
    axes = figure.subplots()
    rows = np.arange(len(names))
    axes.barh(rows, shares, color="#2a78b5", height=0.62, label="ids recovered (share of clips)")
    axes.plot(weakest, rows, "o", color="#e0792b", markersize=5, label="weakest reception (cosine)")
    axes.axvline(report["false_positives"]["max_correlation"], color="#777", linewidth=1, linestyle="--")
    axes.text(report["false_positives"]["max_correlation"], -1.1, "noise", color="#555", ha="center", fontsize=8)
    axes.set_yticks(rows, names, fontsize=8)
    axes.set_xlim(0, 1.02)
    axes.set_ylim(len(names) - 0.4, -1.6)
    figure.legend(loc="outside lower center", ncols=2, fontsize=8, frameon=False)
    jod = report["min_jod"]
    axes.set_title(
        f"{report['num_clips']} clips, amplitude {report['amplitude']}"
        + (f", ColorVideoVDP ≥ {jod:.2f} JOD" if jod is not None else ""),
        fontsize=10,
    )
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    figure.savefig(path, dpi=150)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line. Returns 0, or 1 when an id that must survive was lost or something false was found."""
    parser = argparse.ArgumentParser(prog="watermark.evaluate", description=__doc__)
    parser.add_argument("--clips", type=Path, required=True, help="folder with video files")
    parser.add_argument("--out", type=Path, help="folder for report.json and report.png")
    parser.add_argument("--issued-only", action="store_true", help="only the attacks that must always be survived")
    parser.add_argument("--amplitude", type=float, default=AMPLITUDE)
    parser.add_argument("--no-jod", action="store_true", help="skip ColorVideoVDP, which is slow")
    parser.add_argument("--json", action="store_true", help="print nothing but the JSON line")
    options = parser.parse_args(arguments)
    clips = clips_below(options.clips)
    if not clips:
        parser.error(f"there is no video file in {options.clips}")

    def show(done: int, total: int, label: str) -> None:
        if not options.json:
            print(f"[{done}/{total}] {label}", flush=True)

    report = evaluate(
        clips,
        attacks=ISSUED if options.issued_only else SUITE,
        amplitude=options.amplitude,
        measure_visibility=not options.no_jod,
        progress=show,
    )
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "report.json").write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n")
        plot(report, options.out / "report.png")
    print(json.dumps(report, ensure_ascii=False))
    return 0 if report["issued_all_recovered"] and report["false_positives"]["detected"] == 0 else 1


if __name__ == "__main__":
    raise SystemExit(main())
