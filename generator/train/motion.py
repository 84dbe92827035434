"""Train the lip network: `placet train motion`.

The teacher is the coarticulation model on the corpus' phoneme timings; the pupil hears sound alone. Training is seeded
and resumable: every few minutes the state goes to a scratch folder, and a second call goes on from there. At the end
the voices and the language that were held out are measured, and weights and model card are written.

    B batch   T articulation instant (20 ms)   C articulator
"""

from __future__ import annotations

import hashlib
import json
import math
import subprocess
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

from generator.coarticulation import ARTICULATOR_INDEX, ARTICULATORS, Phone, lip_aperture
from generator.evaluate import LipMeasures, measure_lips
from generator.lips import LipNetwork, LipNetworkConfig, at_video_frames, hear_articulation, num_video_frames
from generator.motion import WEIGHTS_FORMAT, MotionModel
from generator.sealed import expected_hashes, write_weights
from generator.speech import log_mel, loudness
from generator.train.speech_corpus import (
    TRANSCRIPT_LAG_S,
    UNHEARD_LANGUAGES,
    UNHEARD_VOICES,
    Corpus,
    Recording,
    batches,
    heard_phones,
    read_index,
    read_samples,
)

# What is seen most weighs most.
_LOSS_WEIGHTS: Final[dict[str, float]] = {"jaw": 4.0, "closure": 3.0, "tuck": 1.5, "speech": 0.7}
_CONTACTS: Final = ("closure", "tuck", "speech")


@dataclass(frozen=True)
class TrainingPlan:
    """Everything that decides what comes out, apart from the data.

    Attributes:
        minutes: wall-clock time to train for; the learning rate falls to zero over it.
        crop_frames: acoustic frames (10 ms) per training example.
        num_check_clips: held-out clips measured at the end, per slice.
    """

    minutes: float = 20.0
    seed: int = 20261122
    batch_size: int = 24
    crop_frames: int = 320
    learning_rate: float = 2e-3
    num_threads: int = 1
    num_check_clips: int = 110
    network: LipNetworkConfig = field(default_factory=LipNetworkConfig)


@dataclass(frozen=True)
class TrainingReport:
    """What was made, and how good it is on voices and a language never heard in training."""

    weights: Path
    sha256: str
    num_steps: int
    num_parameters: int
    last_loss: float
    metrics: dict[str, dict[str, Any]]

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "weights": str(self.weights)}


def lip_loss(logits_BTC: Tensor, target_BTC: Tensor) -> Tensor:
    """Squared error per articulator, plus cross-entropy on contacts and speech, which have to be decided."""
    weights_C = torch.tensor([_LOSS_WEIGHTS.get(name, 1.0) for name in ARTICULATORS])
    squared = (((torch.sigmoid(logits_BTC) - target_BTC) ** 2) * weights_C).mean()
    contacts = [ARTICULATOR_INDEX[name] for name in _CONTACTS]
    decided = torch.nn.functional.binary_cross_entropy_with_logits(logits_BTC[..., contacts], target_BTC[..., contacts])
    return squared + 0.08 * decided


def measure_recordings(
    network: LipNetwork, folder: Path, recordings: list[Recording], seed: int, *, noise_db: float | None = None
) -> list[LipMeasures]:
    """Let the network hear recordings and measure its lips at 25 fps against the corpus' own times."""
    rng = np.random.default_rng(seed)
    measures = []
    for recording in recordings:
        samples_N = read_samples(folder, recording)
        phones = heard_phones(recording.phones, loudness(log_mel(samples_N)))
        if noise_db is not None:
            rms = float(np.sqrt((samples_N**2).mean()))
            samples_N = samples_N + rng.standard_normal(len(samples_N)).astype(np.float32) * rms * 10 ** (
                -noise_db / 20
            )
        measures.append(measure_samples(network, samples_N, phones))
    return measures


def measure_samples(network: LipNetwork, samples_N: np.ndarray, phones: tuple[Phone, ...]) -> LipMeasures:
    """Measure one recording at 25 fps."""
    curves_TC = hear_articulation(network, samples_N)
    return measure_lips(lip_aperture(at_video_frames(curves_TC, num_video_frames(len(samples_N)))), 25.0, phones)


def summarise(measures: list[LipMeasures], seed: int) -> dict[str, Any]:
    """Pool the clips; intervals are 95 % bootstrap intervals over clips."""
    rng = np.random.default_rng(seed)
    draws = rng.integers(0, len(measures), (1000, len(measures)))

    def interval(values_D: np.ndarray) -> list[float]:
        return [round(float(v), 4) for v in np.percentile(values_D, [2.5, 97.5])]

    def pooled(part: list[int], whole: list[int]) -> dict[str, Any]:
        part_S, whole_S = np.array(part), np.array(whole)
        resampled_D = part_S[draws].sum(1) / np.maximum(whole_S[draws].sum(1), 1)
        return {"value": round(float(part_S.sum() / max(whole_S.sum(), 1)), 4), "interval95": interval(resampled_D)}

    def mean(values: list[float]) -> dict[str, Any]:
        values_S = np.array(values)
        return {"value": round(float(values_S.mean()), 4), "interval95": interval(values_S[draws].mean(1))}

    quiet = [m.silence_motion for m in measures if m.silence_motion is not None]
    return {
        "num_clips": len(measures),
        "num_closures": sum(m.num_closures for m in measures),
        "closure_recall": pooled([m.num_closed for m in measures], [m.num_closures for m in measures]),
        "false_closure_rate": pooled([m.num_false_closures for m in measures], [m.num_open_frames for m in measures]),
        "aperture_correlation": mean([m.correlation for m in measures]),
        "lag_ms": mean([m.lag_ms for m in measures]),
        "silence_motion": round(float(np.mean(quiet)), 4) if quiet else None,
    }


def pack_weights(network: LipNetwork) -> bytes:
    """Return the network as an fp16 safetensors file; its shape and format stand in the header."""
    tensors = {name: tensor.detach().half().contiguous() for name, tensor in network.state_dict().items()}
    return save(tensors, {"format": WEIGHTS_FORMAT, "config": json.dumps(asdict(network.config)), "made_for": "lips"})


def _commit() -> str:
    try:
        found = subprocess.run(["git", "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=True)  # noqa: S607
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return found.stdout.strip()


def _choose(recordings: list[Recording], count: int, seed: int) -> list[Recording]:
    order = np.random.default_rng(seed).permutation(len(recordings))
    return [recordings[i] for i in order[:count]]


def _corpus(
    data: Path, scratch: Path, heard: list[Recording], plan: TrainingPlan, say: Callable[[str], None]
) -> Corpus:
    names = "\n".join(r.file for r in heard)
    key = hashlib.sha256(f"{names}\n{plan.seed}\n{TRANSCRIPT_LAG_S}\n4".encode()).hexdigest()[:16]
    path = scratch / f"corpus-{key}.npz"
    if not path.exists():

        def progress(done: int, total: int) -> None:
            if done % 200 == 0 or done == total:
                say(f"listened to {done} of {total} recordings")

        Corpus.build(data, heard, np.random.default_rng(plan.seed), progress).save(path)
    return Corpus.load(path)


def train(
    data: Path,
    scratch: Path,
    weights: Path,
    *,
    plan: TrainingPlan | None = None,
    start: Path | None = None,
    command: str = "placet train motion",
    say: Callable[[str], None] = print,
    now: Callable[[], float] = time.monotonic,
) -> TrainingReport:
    """Train the lip network and write its weights and model card.

    Args:
        data: a corpus folder with an `index.jsonl` (see `speech_corpus`).
        scratch: where features and checkpoints are kept between calls; may be deleted afterwards.
        weights: the safetensors file to write; the model card goes beside it as `.md`.
        plan: how to train; a checkpoint made under another plan is not resumed.
        start: sealed weights to go on from, of the size that the plan names; None starts from nothing.
        command: for the model card.
        say: told one line of progress at a time.
        now: a clock in seconds.
    Raises: FileNotFoundError, ValueError: the corpus is missing or not as described.
    """
    plan = plan or TrainingPlan()
    torch.set_num_threads(plan.num_threads)
    torch.manual_seed(plan.seed)
    scratch.mkdir(parents=True, exist_ok=True)
    recordings = read_index(data)
    corpus = _corpus(data, scratch, [r for r in recordings if not r.is_unheard], plan, say)
    say(f"{corpus.num_clips} training clips, {len(corpus.heard_FM) / 360_000:.2f} h")

    network = LipNetwork(plan.network)
    if start is not None:
        network.load_state_dict(MotionModel.load(start.parent).network.state_dict())
        command += f" --start {start.name} (sha256 {expected_hashes(start.parent)[start.name][:16]}…)"
    else:
        mean_M, deviation_M = corpus.band_statistics()
        network.mean_M.copy_(torch.from_numpy(mean_M))
        network.scale_M.copy_(torch.from_numpy(1.0 / np.maximum(deviation_M, 0.1)))
    optimiser = torch.optim.AdamW(network.parameters(), plan.learning_rate, weight_decay=0.01)
    fingerprint = f"{json.dumps(asdict(plan), sort_keys=True)} {command}"
    checkpoint = scratch / "lips.checkpoint.pt"
    step, spent_s, smooth_loss = 0, 0.0, float("nan")
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        if state["plan"] == fingerprint:
            network.load_state_dict(state["network"])
            optimiser.load_state_dict(state["optimiser"])
            step, spent_s, smooth_loss = state["step"], state["spent_s"], state["loss"]
            say(f"going on from step {step}")

    def keep() -> None:
        unfinished = checkpoint.with_suffix(".unfinished")
        torch.save(
            {
                "plan": fingerprint,
                "network": network.state_dict(),
                "optimiser": optimiser.state_dict(),
                "step": step,
                "spent_s": spent_s,
                "loss": smooth_loss,
            },
            unfinished,
        )
        unfinished.replace(checkpoint)

    # A resumed run draws other batches than an uninterrupted one; both are fixed by the seed and the step.
    source = batches(
        corpus, np.random.default_rng([plan.seed, step]), batch_size=plan.batch_size, crop_frames=plan.crop_frames
    )
    started_s, kept_s = now() - spent_s, now()
    network.train()
    while (spent_s := now() - started_s) < plan.minutes * 60:
        share = spent_s / (plan.minutes * 60)
        rate = plan.learning_rate * min(1.0, (step + 1) / 50) * 0.5 * (1.0 + math.cos(math.pi * share)) + 1e-6
        for group in optimiser.param_groups:
            group["lr"] = rate
        heard_BFM, articulation_BTC = next(source)
        with torch.autocast("cpu", torch.bfloat16):
            logits_BTC = network(torch.from_numpy(heard_BFM))
        loss = lip_loss(logits_BTC.float(), torch.from_numpy(articulation_BTC))
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        step += 1
        smooth_loss = loss.item() if step == 1 else 0.98 * smooth_loss + 0.02 * loss.item()
        if step % 100 == 0:
            say(f"step {step}: loss {smooth_loss:.4f}, {spent_s / 60:.1f} of {plan.minutes:.0f} min")
        if now() - kept_s > 120:
            keep()
            kept_s = now()
    keep()

    network.eval()
    packed = pack_weights(network)
    network = network.half().float()  # measure what ships
    metrics = _measure_unheard(network, data, recordings, plan)
    num_parameters = sum(p.numel() for p in network.parameters())
    sha256 = write_weights(weights, packed)
    report = TrainingReport(weights, sha256, step, num_parameters, round(smooth_loss, 4), metrics)
    weights.with_suffix(".md").write_text(model_card(report, plan, recordings, command), encoding="utf-8")
    say(json.dumps(report.to_json()))
    return report


def _measure_unheard(
    network: LipNetwork, data: Path, recordings: list[Recording], plan: TrainingPlan
) -> dict[str, dict[str, Any]]:
    voices = [r for r in recordings if r.voice in UNHEARD_VOICES and r.lang not in UNHEARD_LANGUAGES]
    languages = [r for r in recordings if r.lang in UNHEARD_LANGUAGES]
    chosen = _choose(voices, plan.num_check_clips, plan.seed)
    return {
        "unheard voices": summarise(measure_recordings(network, data, chosen, plan.seed), plan.seed),
        "unheard voices, noise 20 dB below": summarise(
            measure_recordings(network, data, chosen[: (len(chosen) + 1) // 2], plan.seed, noise_db=20.0), plan.seed
        ),
        "unheard language": summarise(
            measure_recordings(network, data, _choose(languages, plan.num_check_clips, plan.seed), plan.seed), plan.seed
        ),
    }


def model_card(report: TrainingReport, plan: TrainingPlan, recordings: list[Recording], command: str) -> str:
    """Write down what the weights are, what they saw, how good they are and where they end."""
    heard = [r for r in recordings if not r.is_unheard]
    rows = "\n".join(
        "| {} | {} | {} | {:.3f} {} | {:.4f} {} | {:.3f} {} | {:.0f} {} | {} |".format(
            name,
            m["num_clips"],
            m["num_closures"],
            *(
                x
                for key in ("closure_recall", "false_closure_rate", "aperture_correlation", "lag_ms")
                for x in (m[key]["value"], m[key]["interval95"])
            ),
            m["silence_motion"],
        )
        for name, m in report.metrics.items()
    )
    return f"""# Model card: {report.weights.name}

Hears speech, says what lips, jaw and tongue do: {report.num_parameters / 1e6:.2f} M parameters, causal gated
convolutions, 120 ms look-ahead, fp16 safetensors, format `{WEIGHTS_FORMAT}`. Loaded by `generator.motion.MotionModel`.

| | |
|---|---|
| sha256 | `{report.sha256}` |
| made with | `{command}` at commit `{_commit()}`, seed {plan.seed}, {plan.minutes:g} min, {report.num_steps} steps |
| plan | `{json.dumps(asdict(plan))}` |
| last training loss | {report.last_loss} |
| licence | Apache-2.0, as the project |

## Data
`data/speech/kokoro`: {len(heard)} recordings of {len({r.voice for r in heard})} synthetic voices in
{len({r.lang for r in heard})} languages ({", ".join(sorted({r.lang for r in heard}))}), synthesised with Kokoro-82M
(Apache-2.0) from espeak-ng phonemes. No recording of a real person. Never heard: the voices
{", ".join(sorted(UNHEARD_VOICES))} and the language {", ".join(sorted(UNHEARD_LANGUAGES))}. The curves to learn come
from `generator/coarticulation.py`, not from measured faces. Roughened with gain, tilt, vocal-tract length, tempo and
pitch, room, telephone band, noise and babble.

## Measured
At 25 fps on clips never heard, against the times stated by the corpus less the silence in long phonemes; 95 %
bootstrap intervals over clips. Recall: lips within 12 % of rest, within 60 ms, on p b m. False closures: share of vowel
frames, 100 ms off any lip contact, in which the lips meet. Correlation and lag: aperture against the staircase of
openings that the phonemes ask for. Silence: movement in silence over movement in speech.

| slice | clips | closures | closure recall | false closures | correlation | lag ms | silence |
|---|---|---|---|---|---|---|---|
{rows}

## Limits
Synthetic read speech taught it; singing, shouting, laughter, strong accents, music and several speakers at once
were not measured. The curves are a model of articulation, not one person's habit: everybody mouths alike. The corpus
states a sound about 45 ms after it is heard; the network aims 25 ms before the stated times.
"""
