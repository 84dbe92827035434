"""Hearing a stream: the same as hearing the whole, however the sound is cut, and 120 ms behind it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from generator.controls import MotionControls
from generator.lips import at_video_frames, hear_articulation, num_video_frames
from generator.listening import BLOCK_SAMPLES, Listener
from generator.motion import MotionTrack
from tests.generator.test_motion import model, sample


def test_listening_agrees_with_the_network_run_over_the_whole_recording() -> None:
    samples_N = sample("publish").samples_N
    whole_KC = at_video_frames(hear_articulation(model().network, samples_N), num_video_frames(len(samples_N)))
    assert model().articulation(samples_N) == pytest.approx(whole_KC, abs=2e-3)


@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_a_stream_gives_the_plan_to_the_last_bit_however_it_is_cut(seed: int) -> None:
    rng = np.random.default_rng(seed)
    samples_N = sample("persona").samples_N[: int(rng.integers(1, 40_000))]
    controls = MotionControls.from_json({"seed": 4, "emotion": {"valence": 0.5, "arousal": 0.5}})
    stream, rows, start = model().stream(controls), [], 0
    while start < len(samples_N):
        end = start + int(rng.choice([1, 159, 160, 640, 1000, 9000]))
        rows += stream.hear(samples_N[start:end])
        start = end
    streamed, planned = MotionTrack.of(rows + stream.finish()), model().plan(samples_N, controls)
    for name in ("actions_T52", "head_pose_T6", "gaze_T2", "distance_T"):
        assert np.array_equal(getattr(streamed, name), getattr(planned, name)), name


def test_a_frame_is_decided_120_ms_after_its_sound() -> None:
    listener = Listener(model().network)
    decided = [len(listener.hear(np.zeros(BLOCK_SAMPLES, np.float32))) for _ in range(6)]
    assert decided == [0, 0, 1, 1, 1, 1]  # the block of frame k ends at 40 (k + 1) ms; two more are heard


def test_controls_may_change_while_the_stream_runs() -> None:
    stream = model().stream(MotionControls.from_json({"head_motion": 0}))
    before = stream.hear(np.zeros(10 * BLOCK_SAMPLES, np.float32))
    stream.change(MotionControls.from_json({"head_motion": 0, "head_pose": [9, 0, 0]}))
    after = stream.hear(np.zeros(10 * BLOCK_SAMPLES, np.float32))
    assert all(row.head_pose_6[0] == 0.0 for row in before)
    assert all(row.head_pose_6[0] == 9.0 for row in after)
