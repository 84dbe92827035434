"""From a voice to a plan of movement, with the weights that ship."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import generator
from generator.actions import ACTION_INDEX, FACIAL_ACTIONS
from generator.behaviour import POSE_LIMITS_DEG
from generator.coarticulation import (
    ARTICULATOR_INDEX,
    ARTICULATORS,
    Phone,
    articulate,
    lip_aperture,
    phones_from_json,
)
from generator.controls import MotionControls
from generator.errors import WeightsError
from generator.evaluate import measure_lips
from generator.lips import LOOKAHEAD_S, LOOKAHEAD_STEPS, LipNetwork, LipNetworkConfig, hear_articulation
from generator.motion import WEIGHTS_NAME, MotionModel, MotionTrack, facial_actions
from generator.sealed import WEIGHTS_FOLDER, expected_hashes, write_weights
from generator.speech import SPEECH_RATE_HZ, levelled, log_mel
from generator.train.motion import TrainingPlan, lip_loss, train
from watermark.media import decode_sound

SAMPLES = Path(generator.__file__).parent / "personas" / "samples"
NAMES = ("persona", "publish", "friday", "prova")


@dataclass(frozen=True)
class Sample:
    samples_N: np.ndarray
    phones: tuple[Phone, ...]


@cache
def sample(name: str) -> Sample:
    described = json.loads((SAMPLES / f"{name}.json").read_text(encoding="utf-8"))
    return Sample(decode_sound((SAMPLES / f"{name}.wav").read_bytes()).samples_N, phones_from_json(described["phones"]))


@cache
def model() -> MotionModel:
    torch.set_num_threads(1)
    return MotionModel.load()


@cache
def plan(name: str, seed: int = 0) -> MotionTrack:
    return model().plan(sample(name).samples_N, MotionControls(seed=seed))


def lips(track: MotionTrack) -> np.ndarray:
    """Every column with which the mouth speaks; passing smiles are not speech."""
    names = [
        n for n in FACIAL_ACTIONS if n.startswith(("mouth", "jaw", "tongue")) and n[5:10] not in ("Smile", "Dimpl")
    ]
    return track.actions_T52[:, [ACTION_INDEX[n] for n in names]]


# ---- the plan --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_a_plan_covers_the_speech_and_keeps_its_ranges(name: str) -> None:
    track = plan(name)
    assert track.num_frames == np.ceil(len(sample(name).samples_N) / SPEECH_RATE_HZ * 25)
    assert track.actions_T52.shape == (track.num_frames, 52)
    assert track.actions_T52.dtype == track.head_pose_T6.dtype == track.gaze_T2.dtype == np.float32
    assert track.actions_T52.min() >= 0.0
    assert track.actions_T52.max() <= 1.0
    assert (np.abs(track.head_pose_T6[:, :3]) <= POSE_LIMITS_DEG).all()
    assert not track.actions_T52[:, [i for n, i in ACTION_INDEX.items() if n.startswith("eyeLook")]].any()


def test_equal_seeds_give_equal_plans_and_lips_do_not_depend_on_the_seed() -> None:
    again = model().plan(sample("persona").samples_N, MotionControls(seed=0))
    other = plan("persona", seed=1)
    assert np.array_equal(plan("persona").actions_T52, again.actions_T52)
    assert np.array_equal(plan("persona").head_pose_T6, again.head_pose_T6)
    assert not np.allclose(plan("persona").head_pose_T6, other.head_pose_T6)
    assert np.array_equal(lips(plan("persona")), lips(other))


@pytest.mark.parametrize("num_samples", [0, 1, 159, 320, 641])
def test_the_shortest_sounds_have_a_plan(num_samples: int) -> None:
    track = model().plan(np.full(num_samples, 0.1, np.float32), MotionControls())
    assert track.num_frames == max(1, -(-num_samples // 640))


# ---- lips against the phonemes, on voices the network has never heard ------------------------------------------------


@cache
def pooled_measures() -> list[Any]:
    found = []
    for name in NAMES:
        curves_TC = model().articulation(sample(name).samples_N)
        found.append(measure_lips(lip_aperture(curves_TC), 25.0, sample(name).phones))
    return found


def test_lips_close_on_p_b_m_and_stay_apart_in_vowels() -> None:
    measures = pooled_measures()
    recall = sum(m.num_closed for m in measures) / sum(m.num_closures for m in measures)
    assert sum(m.num_closures for m in measures) >= 30
    assert recall >= 0.8
    assert sum(m.num_false_closures for m in measures) / sum(m.num_open_frames for m in measures) <= 0.05


def test_lips_follow_the_vowels_in_time() -> None:
    measures = pooled_measures()
    assert np.mean([m.correlation for m in measures]) >= 0.55
    assert np.abs([m.lag_ms for m in measures]).max() <= 60.0
    assert abs(np.mean([m.lag_ms for m in measures])) <= 40.0


def test_closures_reach_the_facial_actions() -> None:
    """`mouthClose` undoes `jawOpen` on the head: at a closure they are equal and nothing else parts the lips."""
    curves_TC = np.zeros((1, len(ARTICULATORS)), np.float32)
    curves_TC[0, [ARTICULATOR_INDEX[n] for n in ("jaw", "closure", "upper", "lower", "funnel", "speech")]] = 1.0
    actions_52 = facial_actions(curves_TC)[0]
    assert actions_52[ACTION_INDEX["jawOpen"]] > 0.1
    assert actions_52[ACTION_INDEX["mouthClose"]] == pytest.approx(actions_52[ACTION_INDEX["jawOpen"]])
    assert actions_52[ACTION_INDEX["mouthFunnel"]] == 0.0
    assert actions_52[ACTION_INDEX["mouthLowerDownLeft"]] == 0.0


def test_intensity_opens_the_mouth_further_and_keeps_closures() -> None:
    samples_N = sample("publish").samples_N
    soft, strong = (
        model().plan(samples_N, MotionControls.from_json({"intensity": value})).actions_T52 for value in (0.5, 1.4)
    )
    jaw, close = ACTION_INDEX["jawOpen"], ACTION_INDEX["mouthClose"]
    assert strong[:, jaw].mean() > 2.0 * soft[:, jaw].mean()
    gap_T = strong[:, jaw] - strong[:, close]
    assert (gap_T[strong[:, close] > 0.1].min()) < 0.02
    still = model().plan(samples_N, MotionControls.from_json({"intensity": 0})).actions_T52
    assert still[:, jaw].max() == 0.0


# ---- silence, level, noise -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hiss_db", [-np.inf, -75.0, -65.0])
def test_lips_are_still_in_silence_and_room_noise(hiss_db: float) -> None:
    hiss_N = np.random.default_rng(0).standard_normal(4 * SPEECH_RATE_HZ).astype(np.float32) * 10 ** (hiss_db / 20)
    track = model().plan(hiss_N.astype(np.float32), MotionControls(seed=1))
    assert np.abs(lips(track)).max() == 0.0
    assert track.actions_T52[:, ACTION_INDEX["eyeBlinkLeft"]].max() > 0.9


def test_lips_rest_in_a_pause_between_sentences() -> None:
    voice_N = sample("publish").samples_N
    pause_N = np.zeros(2 * SPEECH_RATE_HZ, np.float32)
    track = model().plan(np.concatenate([voice_N, pause_N, voice_N]), MotionControls())
    end_s = len(voice_N) / SPEECH_RATE_HZ
    quiet = lips(track)[int((end_s + 0.2) * 25) : int((end_s + 1.8) * 25)]
    assert np.abs(quiet).max() == 0.0


@pytest.mark.parametrize("gain_db", [-24.0, -12.0, 5.0])
def test_level_does_not_change_the_lips(gain_db: float) -> None:
    samples_N = sample("friday").samples_N
    louder_N = np.clip(samples_N * 10 ** (gain_db / 20), -1, 1).astype(np.float32)
    plain, louder = (lip_aperture(model().articulation(x)) for x in (samples_N, louder_N))
    assert np.corrcoef(plain, louder)[0, 1] > 0.9


def test_noise_20_db_below_the_voice_leaves_the_closures() -> None:
    rng, closed, closures = np.random.default_rng(5), 0, 0
    for name in NAMES:
        samples_N = sample(name).samples_N
        noise_N = rng.standard_normal(len(samples_N)) * np.sqrt((samples_N**2).mean()) * 0.1
        noisy_TC = model().articulation((samples_N + noise_N).astype(np.float32))
        measures = measure_lips(lip_aperture(noisy_TC), 25.0, sample(name).phones)
        closed, closures = closed + measures.num_closed, closures + measures.num_closures
    assert closed / closures >= 0.7


# ---- causality -------------------------------------------------------------------------------------------------------


def test_what_is_said_later_than_the_look_ahead_changes_nothing() -> None:
    samples_N = sample("persona").samples_N
    cut_s = 2.4
    cut = int(cut_s * SPEECH_RATE_HZ)
    other_N = np.concatenate([samples_N[:cut], sample("publish").samples_N[:20_000]])
    first, second = (model().plan(x, MotionControls(seed=2)) for x in (samples_N, other_N))
    num_settled = int((cut_s - LOOKAHEAD_S) * 25)
    for before, after in (
        (first.actions_T52, second.actions_T52),
        (first.head_pose_T6, second.head_pose_T6),
        (first.gaze_T2, second.gaze_T2),
    ):
        assert np.allclose(before[:num_settled], after[:num_settled], atol=1e-5)
    assert not np.allclose(first.actions_T52[num_settled + 5 : 70], second.actions_T52[num_settled + 5 : 70], atol=0.05)


def test_a_look_ahead_of_120_ms_is_used_and_no_more() -> None:
    torch.manual_seed(0)
    network = LipNetwork(LipNetworkConfig(16, (1, 2))).eval()
    samples_N = np.random.default_rng(1).standard_normal(SPEECH_RATE_HZ).astype(np.float32) * 0.1
    changed_N = samples_N.copy()
    changed_N[8_000:] *= 0.2
    with torch.inference_mode():
        before, after = (
            network(torch.from_numpy(levelled(log_mel(x)[None])))[0].numpy() for x in (samples_N, changed_N)
        )
    differs_T = np.abs(before - after).max(1) > 1e-6
    first_s = int(np.argmax(differs_T)) / 50
    assert 0.5 - LOOKAHEAD_S - 0.001 <= first_s <= 0.5 - LOOKAHEAD_S + 0.025
    assert len(before) == 50 - LOOKAHEAD_STEPS


# ---- weights ---------------------------------------------------------------------------------------------------------


def test_shipped_weights_are_small_and_sealed() -> None:
    assert (WEIGHTS_FOLDER / WEIGHTS_NAME).stat().st_size <= 4 * 2**20
    assert len(expected_hashes()[WEIGHTS_NAME]) == 64
    assert expected_hashes()[WEIGHTS_NAME] in (WEIGHTS_FOLDER / "motion.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("damage", ["missing", "truncated", "flipped"])
def test_missing_or_damaged_weights_are_named_with_hash_and_remedy(tmp_path: Path, damage: str) -> None:
    shutil.copy(WEIGHTS_FOLDER / "hashes.json", tmp_path)
    whole = (WEIGHTS_FOLDER / WEIGHTS_NAME).read_bytes()
    if damage == "truncated":
        (tmp_path / WEIGHTS_NAME).write_bytes(whole[:-100])
    elif damage == "flipped":
        (tmp_path / WEIGHTS_NAME).write_bytes(whole[:5000] + bytes([whole[5000] ^ 1]) + whole[5001:])
    with pytest.raises(WeightsError) as caught:
        MotionModel.load(tmp_path)
    sentence = str(caught.value)
    for part in (WEIGHTS_NAME, expected_hashes()[WEIGHTS_NAME], "placet train motion", "placet models list"):
        assert part in sentence


def test_sealed_weights_of_another_kind_are_refused(tmp_path: Path) -> None:
    write_weights(tmp_path / WEIGHTS_NAME, b"not a network")
    with pytest.raises(WeightsError, match="placet train motion"):
        MotionModel.load(tmp_path)


# ---- training --------------------------------------------------------------------------------------------------------


def test_the_network_can_learn_one_clip() -> None:
    torch.manual_seed(1)
    voice = sample("publish")
    samples_N = voice.samples_N[: 5 * SPEECH_RATE_HZ // 2]
    heard_FM = log_mel(samples_N)
    network = LipNetwork(LipNetworkConfig(32, (1, 2, 4, 8)))
    features = torch.from_numpy(levelled(heard_FM[None]))
    network.mean_M.copy_(features[0].mean(0))
    network.scale_M.copy_(1.0 / features[0].std(0))
    num_instants = network(features).shape[1]
    target = torch.from_numpy(articulate(voice.phones, np.arange(num_instants) / 50.0)[None])
    optimiser = torch.optim.AdamW(network.parameters(), 1e-2)
    losses = []
    for _ in range(60):
        loss = lip_loss(network(features), target)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.35 * losses[0]
    curves_TC = hear_articulation(network.eval(), samples_N)
    closure, taught = (c[:, ARTICULATOR_INDEX["closure"]] for c in (curves_TC, target[0].numpy()))
    assert np.corrcoef(closure[: len(taught)], taught[: len(closure)])[0, 1] > 0.9


def test_training_writes_sealed_weights_with_a_card_and_resumes(tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    lines = []
    for voice, lang, name in (
        ("test_a", "en-us", "persona"),
        ("test_b", "en-gb", "friday"),
        ("af_heart", "en-us", "publish"),
        ("test_c", "it", "prova"),
    ):
        described = json.loads((SAMPLES / f"{name}.json").read_text(encoding="utf-8"))
        shutil.copy(SAMPLES / f"{name}.wav", corpus)
        lines.append(json.dumps(described | {"file": f"{name}.wav", "voice": voice, "lang": lang}))
    (corpus / "index.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    told: list[str] = []
    small = TrainingPlan(
        minutes=0.04, batch_size=2, crop_frames=120, num_check_clips=2, network=LipNetworkConfig(16, (1, 2))
    )
    clock = iter(np.arange(0.0, 100.0, 0.2))
    report = train(
        corpus,
        tmp_path / "scratch",
        tmp_path / "weights" / WEIGHTS_NAME,
        plan=small,
        say=told.append,
        now=lambda: float(next(clock)),
    )
    assert report.num_steps >= 3
    assert MotionModel.load(tmp_path / "weights").network.config == small.network
    card = (tmp_path / "weights" / "motion.md").read_text(encoding="utf-8")
    assert report.sha256 in card
    assert "unheard voices" in card
    train(corpus, tmp_path / "scratch", tmp_path / "weights" / WEIGHTS_NAME, plan=small, say=told.append)
    assert any(line.startswith(f"going on from step {report.num_steps}") for line in told)
