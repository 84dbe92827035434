"""How well the mark survives, how little it shows, and how seldom it is seen where there is none.

`placet evaluate watermark --clips DIR` (or `python -m watermark.evaluate`) marks every clip of a folder as
`mark.produce` does, attacks it, and reads it back blindly from one frame, 1, 1.5 and 3 seconds; it ends with one JSON
line. With an output folder every attack is kept as soon as it is done: a run that was cut short goes on where it was.

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
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from watermark.attacks import PROMISED, QUICK, SUITE, Attack, h264
from watermark.colour import encoder_planes
from watermark.embed import AMPLITUDE, LUMA_AMPLITUDE, Embedder
from watermark.encoding import VideoCoding, VideoEncoder
from watermark.extract import read_mark, receive
from watermark.media import Clip, decode_clip
from watermark.nulls import null_report
from watermark.payload import NUM_ID_BITS, MarkId
from watermark.survival import write_survival
from watermark.tile import TILE_GAIN
from watermark.visibility import visibility

Progress = Callable[[int, int, str], None]
"""Is told steps done, steps in all, and what comes next."""

CLIP_SUFFIXES = (".mp4", ".mov", ".webm", ".mkv", ".avi", ".mpg")
DURATIONS_S: dict[str, float] = {"1_frame": 0.0, "1s": 1.0, "1_5s": 1.5, "3s": 3.0}
"""From how much of an attacked clip the id is read."""
CLIP_S = 3.0
_VISIBILITY_FRAMES = 25
_VERSION = 1
"""Of what is kept between runs; a change makes old pieces count no more."""


def clips_below(directory: Path) -> list[Path]:
    """The video files in a folder and below, in a fixed order."""
    return sorted(path for path in directory.rglob("*") if path.suffix.lower() in CLIP_SUFFIXES)


def evaluate(
    clips: Sequence[Path],
    *,
    attacks: Mapping[str, Attack] | None = None,
    seed: int = 0,
    measure_visibility: bool = True,
    null_windows: int = 0,
    keep_in: Path | None = None,
    progress: Progress | None = None,
    carried: tuple[bytes, MarkId] | None = None,
) -> dict[str, Any]:
    """Mark, attack and read `clips`; 3 s of each, one clip in memory at a time.

    Args:
        clips: video files, without a mark of the key that `seed` gives.
        attacks: by name; the whole suite by default.
        seed: determines key and ids.
        measure_visibility: also run ColorVideoVDP, which takes about a second per frame on one core.
        null_windows: how many unmarked or wrongly keyed windows to read beside (see `nulls`).
        keep_in: a folder for finished pieces; what is found there is not done again.
        progress: see `Progress`.
        carried: key and id of the mark that the clips carry already, being deliveries; that one is attacked and read,
            instead of a second one above it. Visibility and time are those of a mark with the evaluation's own key.
    Returns: a report that JSON can hold: `jod_median`, `jod_worst`, `psnr_db`, `ssim` (medians), `attacks` (recovery
        and bit accuracy of each), `false_positives`, `speed`, `clips`.
    """
    attacks = SUITE if attacks is None else attacks
    steps_per_clip = len(attacks) + 2
    num_steps, done = len(clips) * steps_per_clip + (1 if null_windows else 0), 0
    records: list[dict[str, Any]] = []
    for number, path in enumerate(clips):

        def tell(step: int, label: str, path: Path = path, number: int = number) -> None:
            if progress is not None:
                progress(number * steps_per_clip + step, num_steps, f"{path.name}: {label}")

        kept = None if keep_in is None else keep_in / f"{path.stem}-{_fingerprint(path, seed, carried)}.json"
        records.append(_evaluate_clip(path, attacks, seed, measure_visibility, kept, tell, carried))
        done += steps_per_clip
    nulls = None
    if null_windows:
        if progress is not None:
            progress(done, num_steps, "false positives")
        nulls = null_report(clips, null_windows, seed=seed)
    if progress is not None:
        progress(num_steps, num_steps, "done")
    return _report(records, list(attacks), nulls)


def _fingerprint(path: Path, seed: int, carried: tuple[bytes, MarkId] | None) -> str:
    settings = (_VERSION, AMPLITUDE, LUMA_AMPLITUDE, TILE_GAIN, seed) + (("carried",) if carried else ())
    return hashlib.sha256(path.read_bytes() + repr(settings).encode()).hexdigest()[:12]


def _evaluate_clip(
    path: Path,
    attacks: Mapping[str, Attack],
    seed: int,
    measure_visibility: bool,
    kept: Path | None,
    tell: Callable[[int, str], None],
    carried: tuple[bytes, MarkId] | None,
) -> dict[str, Any]:
    record: dict[str, Any] = {"clip": path.name, "attacks": {}}
    if kept is not None and kept.is_file():
        record = json.loads(kept.read_text())

    def keep() -> None:
        if kept is not None:
            kept.parent.mkdir(parents=True, exist_ok=True)
            unfinished = kept.with_suffix(".partial")
            unfinished.write_text(json.dumps(record, ensure_ascii=False))
            unfinished.replace(kept)

    key, wrong_key = (hashlib.sha256(b"placet evaluation %d %s" % (seed, part)).digest() for part in (b"a", b"b"))
    mark_id = MarkId.random(np.random.default_rng([seed, len(path.name), *path.name.encode()]).bytes)
    tell(0, "marking")
    original = decode_clip(path, stop_after_s=CLIP_S)
    delivered, embed_ms = _delivered(original, key, mark_id)
    record.setdefault("embed_ms", embed_ms)
    attacked, with_its_key, with_its_id = (original, *carried) if carried else (delivered, key, mark_id)
    for step, (name, attack) in enumerate(attacks.items()):
        tell(1 + step, name)
        if name not in record["attacks"]:
            record["attacks"][name] = _survival(attack(attacked), with_its_key, with_its_id)
            keep()
    tell(1 + len(attacks), "visibility and false positives")
    if "nulls" not in record:
        readings = [
            read_mark(clip, with_key, {mark_id}.__contains__, num_registered=1)
            for clip, with_key in ((original, key), (h264(30)(original), key), (delivered, wrong_key))
        ]
        record["nulls"] = [
            {"state": each.state, "attempts": each.num_attempts, "correlation": each.correlation} for each in readings
        ]
    if "visibility" not in record or (measure_visibility and record["visibility"]["jod"] is None):
        frames_THWC = original.frames_THWC[:_VISIBILITY_FRAMES]
        height, width = frames_THWC.shape[1:3]
        marked_THWC = Embedder(key, mark_id, width, height, original.rate_hz).apply(frames_THWC)
        record["visibility"] = asdict(
            visibility(marked_THWC, frames_THWC, original.rate_hz, with_jod=measure_visibility)
        )
    keep()
    return record


def _delivered(original: Clip, key: bytes, mark_id: MarkId) -> tuple[Clip, float]:
    """Through the encoder as `mark.produce` does it. Returns the decoded file and the median time to mark one frame,
    in ms."""
    height, width = (side & ~1 for side in original.frames_THWC.shape[1:3])
    embedder = Embedder(key, mark_id, width, height, original.rate_hz)
    times_ms = []
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "clip.mp4"
        with VideoEncoder(
            path, width=width, height=height, rate_hz=original.rate_hz, sound=None, coding=VideoCoding()
        ) as encoder:
            for index, frame_HWC in enumerate(original.frames_THWC):
                planes = encoder_planes(frame_HWC)
                started_at_s = time.perf_counter()
                embedder.mark_planes(planes, index)
                times_ms.append(1e3 * (time.perf_counter() - started_at_s))
                encoder.write_planes(planes)
        return decode_clip(path), statistics.median(times_ms)


def _survival(attacked: Clip, key: bytes, mark_id: MarkId) -> dict[str, Any]:
    """What is read from how much of a clip: recovered or not; the share of right bits, and the time it took, at 3 s."""
    result: dict[str, Any] = {}
    for name, duration_s in DURATIONS_S.items():
        started_at_s = time.perf_counter()
        best, recovered = None, False
        for received in receive(_excerpt(attacked, duration_s), key):
            if best is None or received.nearest[0].correlation > best.correlation:
                best = received.nearest[0]
            recovered = any(each.mark_id == mark_id for each in received.nearest)
            if recovered:
                break
        result[name] = recovered
        wrong = NUM_ID_BITS if best is None else (best.mark_id.value ^ mark_id.value).bit_count()
        result["bit_accuracy"] = 1.0 if recovered else 1.0 - wrong / NUM_ID_BITS
        result["read_s"] = time.perf_counter() - started_at_s
    return result


def _excerpt(clip: Clip, duration_s: float) -> Clip:
    """The first `duration_s` of a clip, or, for 0, the frame in its middle."""
    if duration_s == 0.0:
        middle = len(clip.frames_THWC) // 2
        return Clip(clip.frames_THWC[middle : middle + 1], clip.rate_hz)
    num_frames = int(np.searchsorted(clip.times_T, duration_s - 1e-6))
    return Clip(clip.frames_THWC[:num_frames], clip.rate_hz, None, clip.times_T[:num_frames])


def _report(records: Sequence[Mapping[str, Any]], names: Sequence[str], nulls: dict[str, Any] | None) -> dict[str, Any]:
    def over_clips(name: str, what: str) -> float:
        return float(np.mean([record["attacks"][name][what] for record in records])) if records else 0.0

    def median(values: list[Any], digits: int) -> float | None:
        return round(statistics.median(values), digits) if values and None not in values else None

    attacks = {
        name: {f"recovery_{what}": round(over_clips(name, what), 4) for what in DURATIONS_S}
        | {"bit_accuracy": round(over_clips(name, "bit_accuracy"), 4), "promised": PROMISED.get(name, 0.0)}
        for name in names
    }
    shown = [record["visibility"] for record in records]
    jods = [each["jod"] for each in shown]
    readings = [null for record in records for null in record["nulls"]]
    return {
        "num_clips": len(records),
        "amplitudes": {"colour": AMPLITUDE, "luma": LUMA_AMPLITUDE, "tile": TILE_GAIN},
        "jod_median": median(jods, 3),
        "jod_worst": round(min(jods), 3) if jods and None not in jods else None,
        "psnr_db": median([each["psnr_db"] for each in shown], 2),
        "ssim": median([each["ssim"] for each in shown], 5),
        "attacks": attacks,
        "promises_kept": all(each["recovery_3s"] >= each["promised"] for each in attacks.values()),
        "false_positives": {
            "readings": len(readings),
            "words_tried": sum(null["attempts"] for null in readings),
            "detected": sum(null["state"] == "detected" for null in readings),
            "taken_for_unregistered": sum(null["state"] == "inconclusive" for null in readings),
            "max_correlation": round(max((null["correlation"] for null in readings), default=0.0), 3),
            "null_windows": nulls,
        },
        "speed": {
            "embed_ms_per_frame": median([record["embed_ms"] for record in records], 3),
            "read_3s_s": median([record["attacks"][name]["read_s"] for record in records for name in names], 2),
        },
        "clips": [{"clip": record["clip"], **record["visibility"]} for record in records],
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line. Returns 0, or 1 when a promise is broken or something false was found."""
    parser = argparse.ArgumentParser(prog="watermark.evaluate", description=__doc__)
    parser.add_argument("--clips", type=Path, required=True, help="folder with video files")
    parser.add_argument("--out", type=Path, help="folder for report.json, table and plot; what is in it is not redone")
    parser.add_argument("--quick", action="store_true", help="a small part of the suite, without ColorVideoVDP")
    parser.add_argument("--null-windows", type=int, default=0, help="unmarked windows to read beside")
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
        attacks={name: SUITE[name] for name in QUICK} if options.quick else SUITE,
        measure_visibility=not (options.no_jod or options.quick),
        null_windows=options.null_windows,
        keep_in=None if options.out is None else options.out / "pieces",
        progress=show,
    )
    if options.out is not None:
        write_survival(report, options.out)
    print(json.dumps(report, ensure_ascii=False))
    return 0 if report["promises_kept"] and report["false_positives"]["detected"] == 0 else 1


if __name__ == "__main__":
    raise SystemExit(main())
