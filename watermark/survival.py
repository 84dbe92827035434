"""The report of an evaluation as a table and as a plot."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

_COLUMNS = {"recovery_1_frame": "1 frame", "recovery_1s": "1 s", "recovery_1_5s": "1.5 s", "recovery_3s": "3 s"}


def write_survival(report: Mapping[str, Any], directory: Path) -> None:
    """Write report.json, table.md and report.png into `directory`."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "report.json").write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n")
    (directory / "table.md").write_text(table(report))
    plot(report, directory / "report.png")


def table(report: Mapping[str, Any]) -> str:
    """A report's attacks as a Markdown table: in how many of the clips the whole id came back, in per cent."""
    lines = [
        "| attack | " + " | ".join(_COLUMNS.values()) + " | right bits at 3 s | promised at 3 s |",
        "|---|" + "---|" * (len(_COLUMNS) + 2),
    ]
    for name, found in report["attacks"].items():
        shares = " | ".join(f"{100 * found[column]:.0f} %" for column in _COLUMNS)
        promised = f"{100 * found['promised']:.0f} %" if found["promised"] else "–"
        lines.append(f"| {name} | {shares} | {found['bit_accuracy']:.3f} | {promised} |")
    return "\n".join(lines) + "\n"


def plot(report: Mapping[str, Any], path: Path) -> None:
    """Draw the share of ids recovered per attack, from one frame to three seconds, as PNG or SVG."""
    from matplotlib.figure import Figure

    names = list(report["attacks"])
    figure = Figure(figsize=(8.5, 1.6 + 0.25 * len(names)), layout="constrained")
    axes = figure.subplots()
    rows = np.arange(len(names))
    promised = [report["attacks"][name]["promised"] for name in names]
    axes.barh(
        rows,
        [report["attacks"][name]["recovery_3s"] for name in names],
        color=["#2a78b5" if share else "#9db9cf" for share in promised],
        height=0.62,
        label="3 s",
    )
    for column, marker, colour in (
        ("recovery_1_5s", "o", "#123a5a"),
        ("recovery_1s", "d", "#e0792b"),
        ("recovery_1_frame", "|", "#8a1c4a"),
    ):
        found = [report["attacks"][name][column] for name in names]
        axes.plot(found, rows, marker, color=colour, markersize=6, label=_COLUMNS[column], linestyle="none")
    axes.set_yticks(rows, names, fontsize=8)
    axes.set_xlim(-0.02, 1.03)
    axes.set_ylim(len(names) - 0.4, -0.8)
    axes.set_xlabel("clips whose whole id came back", fontsize=9)
    figure.legend(loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    jod = report["jod_median"]
    visible = f", ColorVideoVDP {jod:.2f} (worst {report['jod_worst']:.2f})" if jod is not None else ""
    axes.set_title(f"{report['num_clips']} clips{visible}; pale: nothing is promised", fontsize=10)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    figure.savefig(path, dpi=140)
