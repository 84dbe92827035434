"""The behaviour room: what a face does besides speaking. Blinks, gaze, head, brows: seeded, causal, never a loop.

A `Behaviour` is stepped once per video frame with what is heard, and answers with what the face does. Each kind of
movement has random numbers of its own, so that turning one off leaves the others exactly as they were.

What the numbers rest on:

- Blinks: 15 to 26 a minute in conversation, intervals skewed to the right (Bentivoglio et al. 1997, "Analysis of blink
  rate patterns in normal subjects"); the lid falls in about 75 ms and rises in about twice that (VanderWerf et al.
  2003, "Eyelid movements"); blinks come with gaze shifts and at the ends of phrases (Nakano & Kitazawa 2010).
- Saccades: duration 21 ms + 2.2 ms per degree (Carpenter, "Movements of the eyes", 1988); the eyes keep their target
  while the head moves (vestibulo-ocular reflex).
- Head: accents go with nods (Graf et al. 2002, "Visual prosody"), most of the power lies below 0.5 Hz.
- How much of everything: distributions of head pose, speed, spectrum, blinks, gaze shifts, brows and smiles measured on
  published talking faces (`NOTES.md`, "Natural motion").
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from generator.emotion import EMOTIONS, bearing
from generator.manner import USUAL, Manner

# Bounds of the head's own turning at `head_motion` up to 1, and of that together with what is asked for, in degrees:
# yaw, pitch, roll.
POSE_LIMITS_DEG: Final = (17.0, 11.0, 10.0)
TOTAL_LIMITS_DEG: Final = (20.0, 13.0, 13.0)
_POSE_SPREAD_DEG: Final = (9.0, 5.4, 4.6)
_POSTURE_PACE_PER_S: Final = 5.5
# While speaking, a smaller and quicker movement rides on the postures.
_STIR_SHARE: Final = 0.5
_STIR_PACE_PER_S: Final = 12.0
_OFFSET_SPREAD: Final = 0.006  # head-heights
EYE_LIMITS_DEG: Final = (25.0, 18.0)
_TOLD_GAZE_DEG, _TOLD_CALM = 6.0, 0.8
_BLINK_SPREAD: Final = 0.75
_DOUBLE_BLINKS: Final = 0.12
# Passing expressions: how often none, how strong otherwise, how long.
_SMILE_NONE, _SMILE_RANGE, _SMILE_STAY_S = 0.4, (0.3, 0.9), (0.8, 3.0)
_BROW_NONE, _BROW_RANGE, _BROW_STAY_S = 0.45, (0.3, 0.7), (0.5, 2.2)


@dataclass(frozen=True)
class Wish:
    """What is asked of the face in one video frame.

    Attributes:
        head_motion: scale of the head's own movement, 0 (still) .. 1.5.
        expressiveness: scale of brows and passing smiles, 0 .. 1.5.
        blink_rate_per_min: mean rate; 0 means never.
        gaze_2: where the eyes look when they look nowhere else: yaw, pitch in degrees; 0, 0 is the camera.
        pose_3: yaw, pitch, roll to be added to the head's own movement, degrees.
        follows_track: the head has no movement of its own, only `pose_3`.
        mood_E: amounts of the basic emotions.
    """

    head_motion: float = 1.0
    expressiveness: float = 1.0
    blink_rate_per_min: float = 32.0
    gaze_2: tuple[float, float] = (0.0, 0.0)
    pose_3: tuple[float, float, float] = (0.0, 0.0, 0.0)
    follows_track: bool = False
    mood_E: tuple[float, ...] = (0.0,) * len(EMOTIONS)


@dataclass(frozen=True)
class HeardFrame:
    """What is heard around one video frame.

    Attributes:
        speech: 0..1, somebody speaks.
        strength: 0..1, how loud, relative to the speaker's own level.
    """

    speech: float
    strength: float


@dataclass(frozen=True)
class BehaviourFrame:
    """What the face does in one video frame.

    Attributes:
        pose_6: yaw, pitch, roll in degrees (positive: to the picture's right, chin up, clockwise in the picture), then
            x, y, z offsets in head-heights (to the picture's right, down, away from the camera).
        gaze_2: yaw, pitch of the eyes relative to the head, degrees, same signs.
        blink: 0 open .. 1 shut.
        brow_inner, brow_outer: 0..1, raised.
        smile: 0..1, passing.
    """

    pose_6: NDArray[np.float64]
    gaze_2: NDArray[np.float64]
    blink: float
    brow_inner: float
    brow_outer: float
    smile: float


class _Accents:
    """Finds accents in the strength of speech: a fast mean that climbs clear of a slow one. Causal."""

    def __init__(self, frame_s: float) -> None:
        self._fast_share = 1.0 - np.exp(-frame_s / 0.06)
        self._slow_share = 1.0 - np.exp(-frame_s / 0.7)
        self._fast = self._slow = 0.0
        self._was_rising = False
        self._last_s = -9.0

    def hear(self, heard: HeardFrame, time_s: float) -> float:
        """Return how strong an accent begins in this frame, 0 (none) .. 1."""
        before = self._fast
        self._fast += self._fast_share * (heard.strength * heard.speech - self._fast)
        self._slow += self._slow_share * (heard.strength * heard.speech - self._slow)
        excess = self._fast - self._slow
        rising = self._fast > before
        begins = self._was_rising and not rising and excess > 0.12 and time_s - self._last_s > 0.35
        self._was_rising = rising
        if not begins:
            return 0.0
        self._last_s = time_s
        return float(min(1.0, excess / 0.4))


class _Blinks:
    """When the lids fall, and their course: down in about 80 ms, shut for 50 ms, up in about 170 ms."""

    def __init__(self, rng: np.random.Generator, frame_s: float, manner: Manner) -> None:
        self._rng, self._manner = rng, manner
        self._frame_s = frame_s
        self._due = 0.6 * self._interval() + 0.15  # in mean intervals: how many must still pass
        self._start_s = -9.0
        self._course_s = (0.08, 0.05, 0.17)

    def _interval(self) -> float:
        # The rate asked for includes double blinks and those that an event brought forward.
        return float(1.15 * np.exp(_BLINK_SPREAD * self._rng.standard_normal() - _BLINK_SPREAD**2 / 2))

    def step(self, time_s: float, prompted: bool, rate_per_min: float) -> float:
        """Return how far the lids are shut, 0..1; `prompted` by a gaze shift or the end of a phrase."""
        draw = self._rng.random()
        rate_per_min *= self._manner.blinks
        mean_s = 60.0 / max(rate_per_min, 1e-9)
        self._due -= self._frame_s / mean_s
        if prompted and draw < 0.5 and self._due * mean_s < 1.5 and rate_per_min > 0:
            self._due = min(self._due, 0.0)
        if self._due <= 0.0 and time_s - self._start_s > sum(self._course_s):
            self._start_s = time_s
            pace = float(np.clip(np.exp(0.12 * self._rng.standard_normal()), 0.8, 1.3))
            self._course_s = (0.08 * pace, 0.05, 0.17 * pace)
            double = self._rng.random() < _DOUBLE_BLINKS
            self._due = self._rng.uniform(0.35, 0.6) / mean_s if double else max(0.45 / mean_s, self._interval())
        fall_s, shut_s, rise_s = self._course_s
        since_s = time_s - self._start_s
        if since_s < fall_s:
            return float(np.sin(0.5 * np.pi * since_s / fall_s) ** 2)
        if since_s < fall_s + shut_s:
            return 1.0
        if since_s < fall_s + shut_s + rise_s:
            return float(np.cos(0.5 * np.pi * (since_s - fall_s - shut_s) / rise_s) ** 2)
        return 0.0


class _Gaze:
    """Where the eyes look in the world: mostly at the camera, sometimes aside, jumping as eyes do."""

    def __init__(self, rng: np.random.Generator, frame_s: float, manner: Manner) -> None:
        self._rng, self._manner = rng, manner
        self._frame_s = frame_s
        self._from_2 = self._to_2 = np.zeros(2)
        self._jump_s = -9.0
        self._next_s = float(rng.uniform(0.6, 1.6))
        self._aside = False

    def step(self, time_s: float, speech: float) -> tuple[NDArray[np.float64], float]:
        """Return the direction (yaw, pitch, degrees) and the size of a jump that begins in this frame, in degrees."""
        size_deg = 0.0
        if time_s >= self._next_s:
            rng = self._rng
            aside = rng.random() < (0.3 if speech > 0.5 else 0.2) and not self._aside
            if aside:
                to_2 = np.array([rng.choice((-1.0, 1.0)) * rng.uniform(4.0, 12.0), rng.uniform(-10.0, 5.0)])
                stay_s = rng.uniform(0.35, 1.1)
            else:
                # Eye contact still wanders between the viewer's eyes and mouth.
                to_2 = rng.normal(0.0, (2.2, 2.4))
                stay_s = float(np.clip(rng.lognormal(-0.35, 0.6), 0.2, 2.5))
            to_2 = self._manner.gaze * to_2
            self._aside, self._from_2, self._to_2 = aside, self._to_2, to_2
            self._jump_s, self._next_s = time_s, time_s + stay_s * self._manner.gaze_stay
            size_deg = float(np.linalg.norm(to_2 - self._from_2))
        length_s = 0.021 + 0.0022 * float(np.linalg.norm(self._to_2 - self._from_2))
        # A frame shows the middle of its own exposure: half of the jump is seen in the frame in which it begins.
        share = float(np.clip((time_s - self._jump_s + 0.5 * self._frame_s) / max(length_s, 1e-6), 0.0, 1.0))
        eased = share**3 * (10.0 - 15.0 * share + 6.0 * share**2)
        return self._from_2 + eased * (self._to_2 - self._from_2), size_deg


class _Spring:
    """A critically damped spring that pulls six coordinates towards a target."""

    def __init__(self, pace_per_s: float) -> None:
        self._pace_per_s = pace_per_s
        self.target_6, self.place_6, self._speed_6 = np.zeros(6), np.zeros(6), np.zeros(6)

    def step(self, frame_s: float) -> NDArray[np.float64]:
        # Two half steps: stable at any frame rate in use.
        for _ in range(2):
            dt = 0.5 * frame_s
            pull_6 = self._pace_per_s**2 * (self.target_6 - self.place_6) - 2.0 * self._pace_per_s * self._speed_6
            self._speed_6 = self._speed_6 + dt * pull_6
            self.place_6 = self.place_6 + dt * self._speed_6
        return self.place_6


class _Head:
    """Drift between postures, new ones at phrase ends, small stirring while speaking, and nods on accents."""

    def __init__(self, rng: np.random.Generator, frame_s: float, manner: Manner) -> None:
        self._rng, self._manner = rng, manner
        self._frame_s = frame_s
        spread_3 = np.array(_POSE_SPREAD_DEG) * (manner.yaw, manner.pitch, manner.roll)
        self._spread_6 = np.array([*spread_3, *(_OFFSET_SPREAD * np.array([1.0, 0.7, 1.0]))])
        self._posture, self._stir = _Spring(_POSTURE_PACE_PER_S * manner.pace), _Spring(_STIR_PACE_PER_S)
        self._next_posture_s = float(rng.uniform(0.2, 0.8))
        self._next_stir_s = 0.0
        self._nods: list[tuple[float, float, NDArray[np.float64]]] = []

    def step(
        self, time_s: float, speech: float, phrase_ends: bool, accent: float, amount: float
    ) -> NDArray[np.float64]:
        """Return yaw, pitch, roll in degrees and x, y, z in head-heights."""
        rng = self._rng
        if time_s >= self._next_posture_s or (phrase_ends and rng.random() < 0.6):
            # Postures pull back to the middle, so that a long take does not drift away.
            before_6 = self._posture.target_6
            self._posture.target_6 = 0.25 * before_6 + self._spread_6 * np.clip(rng.standard_normal(6), -2.0, 2.0)
            self._next_posture_s = time_s + float(rng.uniform(0.8, 2.6))
        if time_s >= self._next_stir_s:
            share = _STIR_SHARE * self._manner.stir * speech
            self._stir.target_6 = share * self._spread_6 * np.clip(rng.standard_normal(6), -2.0, 2.0)
            self._next_stir_s = time_s + float(rng.uniform(0.2, 0.6))
        if accent > 0.0:
            length_s, size_deg, side_deg = rng.uniform(0.3, 0.5), rng.uniform(1.6, 4.2), rng.normal(0.0, 1.5)
            if rng.random() < 0.35 + 0.5 * accent:
                nod_deg = -size_deg * (0.5 + 0.5 * accent)
                self._nods.append((time_s, length_s, np.array([0.5 * side_deg, nod_deg, 0.3 * side_deg])))
        pose_6 = self._posture.step(self._frame_s) + self._stir.step(self._frame_s)
        self._nods = [nod for nod in self._nods if time_s - nod[0] < nod[1]]
        for start_s, length_s, turn_3 in self._nods:
            pose_6[:3] += turn_3 * np.sin(np.pi * (time_s - start_s) / length_s) ** 2
        pose_6 = pose_6 * amount
        limits_3 = np.array(POSE_LIMITS_DEG) * max(1.0, amount)
        pose_6[:3] = limits_3 * np.tanh(pose_6[:3] / limits_3)
        return pose_6


class _Brows:
    """Raised on some accents: up in 120 ms, held, and down more slowly."""

    def __init__(self, rng: np.random.Generator, frame_s: float) -> None:
        self._rng = rng
        self._rise_share = 1.0 - np.exp(-frame_s / 0.06)
        self._fall_share = 1.0 - np.exp(-frame_s / 0.22)
        self._target = self._height = 0.0
        self._until_s = -9.0

    def step(self, time_s: float, accent: float) -> float:
        draw, height, hold_s = self._rng.random(), self._rng.uniform(0.15, 0.5), self._rng.uniform(0.15, 0.6)
        if accent > 0.0 and draw < 0.2 + 0.4 * accent:
            self._target, self._until_s = height * (0.6 + 0.4 * accent), time_s + hold_s
        wanted = self._target if time_s < self._until_s else 0.0
        self._height += (self._rise_share if wanted > self._height else self._fall_share) * (wanted - self._height)
        return self._height


class _Expression:
    """One passing expression, a smile or raised brows: comes with speech, stays a while, and goes slowly in silence."""

    def __init__(
        self,
        rng: np.random.Generator,
        frame_s: float,
        none: float,
        strength: tuple[float, float],
        stay_s: tuple[float, float],
    ) -> None:
        self._rng, self._frame_s = rng, frame_s
        self._none, self._strength, self._stay_s = none, strength, stay_s
        self._target = self._place = self._speed = 0.0
        self._next_s = float(rng.uniform(0.3, 1.2))

    def step(self, time_s: float, speech: float) -> float:
        draw, strength = self._rng.random(), self._rng.uniform(*self._strength)
        stay_s = self._rng.uniform(*self._stay_s)
        speaking = speech > 0.5
        if speaking and time_s >= self._next_s:
            self._target = 0.0 if draw < self._none else strength
            self._next_s = time_s + stay_s
        target, pace_per_s = (self._target, 7.0) if speaking else (0.0, 1.2)
        self._speed += self._frame_s * (pace_per_s**2 * (target - self._place) - 2 * pace_per_s * self._speed)
        self._place += self._frame_s * self._speed
        return float(np.clip(self._place, 0.0, 1.0))


class Behaviour:
    """The face's own life, one video frame after another.

    Without wishes the first frame is the portrait's own: facing as it faced, eyes open, looking at the camera.

    Args:
        seed: the same seed, sound and wishes give the same movements.
        rate_hz: frames per second.
        manner: how much of everything; see `generator.manner`.
    """

    def __init__(self, seed: int, rate_hz: float = 25.0, manner: Manner = USUAL) -> None:
        frame_s = 1.0 / rate_hz
        blink_rng, gaze_rng, head_rng, brow_rng, smile_rng, raise_rng = (
            np.random.default_rng([seed, kind]) for kind in range(1, 7)
        )
        self._frame_s = frame_s
        self._num_frames = 0
        self._accents = _Accents(frame_s)
        self._blinks = _Blinks(blink_rng, frame_s, manner)
        self._gaze = _Gaze(gaze_rng, frame_s, manner)
        self._head = _Head(head_rng, frame_s, manner)
        self._brows = _Brows(brow_rng, frame_s)
        self._smiles = _Expression(smile_rng, frame_s, _SMILE_NONE, _SMILE_RANGE, _SMILE_STAY_S)
        self._raises = _Expression(raise_rng, frame_s, _BROW_NONE, _BROW_RANGE, _BROW_STAY_S)
        self._was_speaking = False

    def step(self, heard: HeardFrame, wish: Wish | None = None) -> BehaviourFrame:
        """Advance by one frame."""
        wish = wish or Wish()
        time_s = self._num_frames * self._frame_s
        self._num_frames += 1
        speaking = heard.speech > 0.5
        phrase_ends = self._was_speaking and not speaking
        self._was_speaking = speaking
        accent = self._accents.hear(heard, time_s)
        mood_pitch_deg, mood_roll_deg, mood_gaze_deg, lively = bearing(np.array(wish.mood_E))
        world_2, jump_deg = self._gaze.step(time_s, heard.speech)
        pose_6 = self._head.step(time_s, heard.speech, phrase_ends, accent, wish.head_motion * lively)
        if wish.follows_track:
            pose_6 = np.zeros(6)
        else:
            pose_6[:3] += np.array([0.0, mood_pitch_deg, mood_roll_deg]) * min(wish.head_motion, 1.0)
        pose_6[:3] = np.clip(pose_6[:3] + np.array(wish.pose_3), -np.array(TOTAL_LIMITS_DEG), TOTAL_LIMITS_DEG)
        # Who is told where to look looks there: the eyes wander less the further they are from the camera.
        told = min(1.0, float(np.linalg.norm(wish.gaze_2)) / _TOLD_GAZE_DEG)
        aim_2 = (1.0 - _TOLD_CALM * told) * world_2 + np.array(wish.gaze_2) + np.array([0.0, mood_gaze_deg])
        blink = self._blinks.step(time_s, phrase_ends or jump_deg > 4.0, wish.blink_rate_per_min)
        raised = self._raises.step(time_s, heard.speech)
        brow = max(self._brows.step(time_s, accent), raised) * wish.expressiveness
        in_no_mood = 1.0 - min(1.0, 1.5 * sum(wish.mood_E))
        smile = self._smiles.step(time_s, heard.speech) * wish.expressiveness * in_no_mood
        return BehaviourFrame(
            pose_6=pose_6,
            gaze_2=np.clip(aim_2 - pose_6[:2], -np.array(EYE_LIMITS_DEG), EYE_LIMITS_DEG),
            blink=blink,
            brow_inner=min(1.0, brow * (0.3 + 0.7 * in_no_mood)),
            brow_outer=min(1.0, 0.8 * brow * (0.3 + 0.7 * in_no_mood)),
            smile=min(1.0, smile),
        )
