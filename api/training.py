"""Renders to train the detector on, by the operator, through the same gate as everyone's.

Action `evaluate`, purpose training, and the operator's word that the portraits show synthetic faces. Outputs are
marked, signed, registered and logged like any other; what a take was is written to the `index.jsonl` beside them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

from api.errors import ApiError
from api.evaluation import evaluate_render
from api.service import Service
from detector.casting import HELD_OUT, Take
from policy.consent import PURPOSE_TRAINING

INDEX = "index.jsonl"
_GENERATOR = Path(__file__).parents[1] / "generator"


def render_takes(
    service: Service,
    takes: Sequence[Take],
    folder: Path,
    *,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> int:
    """Render what is not in the folder yet; may be stopped at any time and called again.

    Args:
        service: a laboratory, see `api.evaluation`.
        takes: the cast.
        folder: gets one file per take, and the index.
        progress: called with takes done and takes in all.
    Returns: how many takes the gate or the generator turned down; they have a line with the reason's code instead of
        a file, and are not tried again.
    Raises: OSError: the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    index = folder / INDEX
    lines = [json.loads(line) for line in index.read_text().splitlines()] if index.is_file() else []
    known = {line["name"] for line in lines}
    generator = generator_fingerprint()
    num_turned_down = sum("turned_down" in line for line in lines)
    for position, take in enumerate(takes):
        progress(position, len(takes))
        if take.name in known:
            continue
        line = {
            "name": take.name,
            "identity": take.identity,
            "voice": take.voice,
            "split": take.split,
            "variant": take.variant,
            "is_held_out": take.variant == HELD_OUT,
            "controls": take.controls,
            "generator": generator,
        }
        path = folder / f"{take.name}.mp4"
        try:
            made = evaluate_render(
                service,
                portrait=take.portrait.read_bytes(),
                speech=take.speech.read_bytes(),
                attested_class="synthetic",
                purpose=PURPOSE_TRAINING,
                out=path,
                controls=take.controls,
            )
        except ApiError as refused:
            line["turned_down"] = refused.code
            num_turned_down += 1
        else:
            line |= {"file": path.name, "mark_id": made.render.mark_id}
        with index.open("a") as file:
            file.write(json.dumps(line) + "\n")
    progress(len(takes), len(takes))
    return num_turned_down


def generator_fingerprint() -> str:
    """The state of the generator that renders: a digest of its code and weights, 12 hexadecimal digits."""
    digest = hashlib.sha256()
    files = [*_GENERATOR.glob("*.py"), *(_GENERATOR / "weights").glob("*.safetensors")]
    for path in sorted(files):
        digest.update(path.name.encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:12]
