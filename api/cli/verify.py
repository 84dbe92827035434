"""`placet verify`: what is known about a file, or about every file of a folder, layer by layer, without a server."""

from __future__ import annotations

import hashlib
import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from api.cli.live import stream_verdict
from api.cli.output import UNUSABLE, Json, emit, progress_bar, reporting, stop_negative
from api.cli.places import Home, settings_for
from api.errors import ApiError
from api.settings import Settings
from watermark.errors import LiveError, UnreadableMediaError
from watermark.stream_files import is_stream

if TYPE_CHECKING:
    from api.service import Service

_CLIENT: Final = "local-operator"
_PASSING: Final = ("engine.", "storage.", "log.")
"""Codes that begin like this say something about this machine at that moment, not about the file: tried again."""

_LAYER_NAMES: Final = {
    "c2pa": "C2PA",
    "watermark": "mark in the picture",
    "watermark_audio": "mark in the sound",
    "fingerprints": "content",
    "detector": "detector",
}


def verify(
    path: Annotated[Path, typer.Argument(exists=True, help="Image, clip or sound; or a folder of them.")],
    jsonl: Annotated[
        Path | None, typer.Option(dir_okay=False, help="For a folder: file of reports, one line each; gone on with.")
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, max=64, help="Files looked at side by side.")] = 1,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Say what is known about a file, layer by layer. Status 0 if it is proven to come from here, or says AI made it.

    Works on the instance's home without a running server. Damaged files and files that are too large get a report,
    too: it says which layers could not be looked at, and why.

    A live stream, as it was received in a file or as a folder of `init.mp4` and segments, is checked segment by
    segment to its signed end.

    Of a folder every file gets a line in --jsonl, those that are no media a line with an error. Files that have a line
    there already, with the same hash, are passed over, so that an interrupted run can be gone on with. Status 1 if some
    could not be examined.
    """
    with reporting(as_json):
        settings = settings_for(home)
        if is_stream(path):
            _verify_stream(path, settings, as_json)
        elif path.is_dir():
            if jsonl is None:
                raise typer.BadParameter("a folder needs --jsonl FILE for its reports")
            _verify_folder(path, jsonl, Settings(**{**settings.model_dump(), "examiners": jobs}), as_json)
        else:
            _verify_file(path, settings, as_json)


def _verify_stream(path: Path, settings: Settings, as_json: bool) -> None:
    from api.service import trust_roots_pem

    roots = trust_roots_pem(settings.home / "pki", settings).decode()
    try:
        result, text = stream_verdict(path, roots)
    except (LiveError, UnreadableMediaError) as error:
        failed = {"verdict": "not_verified", "kind": "live_stream", "error": error.code, "detail": str(error)}
        stop_negative(as_json, failed, f"verdict              not verified: {error} [{error.code}]")
    emit(as_json, result, text)


def _verify_file(file: Path, settings: Settings, as_json: bool) -> None:
    from api.engine.examiner import examine_file_and_log
    from api.service import Service

    service = Service(settings)
    try:
        with progress_bar("looking"):
            report = examine_file_and_log(service, _CLIENT, file)
    finally:
        service.close()
    text = _verdict_text(report)
    differs = report["layers"]["fingerprints"]["state"] == "differs"
    if report["verdict"] not in ("generated_here", "ai_signed") or differs:
        stop_negative(as_json, report, text)
    emit(as_json, report, text)


def _verdict_text(report: dict[str, Any]) -> str:
    lines = [f"{'verdict':<20} {report['verdict']}: {report.get('reason', {}).get('sentence', '')}"]
    for name, shown in _LAYER_NAMES.items():
        layer = report["layers"][name]
        line = f"{shown:<20} {layer['state'].replace('_', ' ')}"
        if layer.get("p") is not None:
            line += f", p = {layer['p']}"
        lines.append(line + (f" ({layer['reason']})" if layer.get("reason") else ""))
    return "\n".join(lines)


# -- folders


@dataclass(frozen=True)
class FolderSummary:
    """What a run over a folder came to.

    Attributes:
        num_examined: files that got a report in this run.
        num_skipped: files that had a line already.
        num_errors: files that got an error in this run.
        verdicts: how often each verdict came out in this run.
    """

    num_examined: int
    num_skipped: int
    num_errors: int
    verdicts: dict[str, int]


def _verify_folder(folder: Path, out: Path, settings: Settings, as_json: bool) -> None:
    from api.service import Service

    service = Service(settings)
    try:
        with progress_bar("looking") as tell:
            summary = examine_folder(service, folder, out, jobs=settings.examiners, on_progress=tell)
    finally:
        service.close()
    result = {
        "folder": str(folder),
        "reports": str(out),
        "examined": summary.num_examined,
        "skipped": summary.num_skipped,
        "errors": summary.num_errors,
        "verdicts": summary.verdicts,
    }
    counts = ", ".join(f"{count} {verdict}" for verdict, count in sorted(summary.verdicts.items()))
    text = (
        f"{summary.num_examined} examined ({counts or 'none'}), {summary.num_skipped} known already, "
        f"{summary.num_errors} that could not be; reports in {out}"
    )
    if summary.num_errors:
        stop_negative(as_json, result, text)
    emit(as_json, result, text)


def examine_folder(
    service: Service, folder: Path, out: Path, *, jobs: int = 1, on_progress: Callable[[float], None] = lambda _: None
) -> FolderSummary:
    """Examine every file below a folder and append a line for each to `out`.

    A line has `file` (relative to the folder), `sha256` (empty for a file over the limit, which is not read),
    `num_bytes`, and `report`, or `error` and `detail`.

    Args:
        out: JSON lines; a last line that was cut off is taken away, files that it knows are not examined again.
        jobs: files at a time; more than `settings.examiners` wait for each other.
        on_progress: is told the share of files that are done.
    """
    known = _known(out)
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.resolve() != out.resolve()]
    writing, verdicts, num_errors, num_skipped = threading.Lock(), Counter[str](), 0, 0
    with out.open("a", encoding="utf-8") as lines, ThreadPoolExecutor(jobs, "verify") as pool:

        def one(path: Path) -> dict[str, Any] | None:
            line = _line_for(service, path, path.relative_to(folder).as_posix(), known)
            if line is not None:
                with writing:
                    lines.write(json.dumps(line, sort_keys=True) + "\n")
                    lines.flush()
            return line

        for nth, done in enumerate(as_completed(pool.submit(one, path) for path in files)):
            line = done.result()
            if line is None:
                num_skipped += 1
            elif "error" in line:
                num_errors += 1
            else:
                verdicts[line["report"]["verdict"]] += 1
            on_progress((nth + 1) / len(files))
    return FolderSummary(verdicts.total(), num_skipped, num_errors, dict(verdicts))


def _line_for(service: Service, path: Path, name: str, known: dict[str, tuple[str, int]]) -> dict[str, Any] | None:
    """The line of one file; None for one that is known."""
    from api.engine.examiner import examine_file_and_log

    line: dict[str, Any] = {"file": name, "sha256": "", "num_bytes": 0}
    try:
        num_bytes = path.stat().st_size
        if num_bytes <= service.settings.max_detection_bytes:
            with path.open("rb") as file:
                line["sha256"] = hashlib.file_digest(file, "sha256").hexdigest()
        line["num_bytes"] = num_bytes
        if known.get(name) == (line["sha256"], num_bytes):
            return None
        return {**line, "report": examine_file_and_log(service, _CLIENT, path)}
    except ApiError as error:
        return {**line, "error": error.code, "detail": str(error)}
    except OSError as error:
        return {**line, "error": "storage.file", "detail": error.strerror or "The file cannot be read."}


def _known(out: Path) -> dict[str, tuple[str, int]]:
    """Files that have a line, with hash and size. A last line without its end is cut off the file."""
    if not out.exists():
        return {}
    content = out.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):
        with out.open("r+b") as file:
            file.truncate(len(whole))
    return {
        str(line["file"]): (str(line["sha256"]), int(line["num_bytes"]))
        for line in _lines(whole, out)
        if not str(line.get("error", "")).startswith(_PASSING)
    }


def _lines(content: bytes, out: Path) -> Iterator[dict[str, Any]]:
    for number, text in enumerate(content.decode("utf-8", "replace").splitlines(), 1):
        try:
            line = json.loads(text)
            line["file"], line["sha256"], line["num_bytes"]
        except (ValueError, TypeError, KeyError) as exc:
            typer.echo(f"placet: {out}, line {number}, is no line of reports: choose another file.", err=True)
            raise typer.Exit(UNUSABLE) from exc
        yield line
