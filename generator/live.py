"""Live: a voice comes in as it is spoken, marked and signed segments go out. The worker's half of a live session.

No clock in here: how late or silent a voice is, the gateway knows, and says so by feeding silence. Three threads share
the work, and each has its own core to wish for:

    hear, change ──► motion rows ──► renderer ──► belt ──► mark, encode, sign ──► segments
    (who feeds)                      (belt's thread)       (who takes the segments)

N sample
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray
from scipy.signal import firwin, lfilter

from generator.controls import Curve, MotionControls
from generator.errors import ControlError
from generator.listening import VIDEO_RATE_HZ
from generator.live_terms import FIXED_CONTROLS, LiveTerms, set_controls
from generator.motion import MotionRow, MotionStream
from generator.pipeline import Belt
from generator.renderer import Renderer
from generator.speech import SPEECH_RATE_HZ
from watermark.encoding import DELIVERY_SOUND_RATE_HZ, VideoCoding
from watermark.mark import Produced, UnmarkedFrames
from watermark.media import Sound
from watermark.segments import LiveProducer, Segment

KEY_FRAME_S: Final = 1.0
CODING: Final = VideoCoding(crf=20, preset="superfast", num_threads=1)
EASE_S: Final = 0.3
"""A control that is changed while somebody speaks gets to its new value in this time, as a head would."""
_MOST_WAITING: Final = 4
"""Rows that may wait for the renderer before frames are shown twice to catch up: 0.16 s."""
_AHEAD: Final = 2
_RATIO: Final = DELIVERY_SOUND_RATE_HZ // SPEECH_RATE_HZ
_TAPS_N: Final = firwin(97, 7_400, fs=DELIVERY_SOUND_RATE_HZ).astype(np.float32)


Recorder = Callable[[Path, Path, dict[str, Any]], Produced]


class Rates:
    """Sound at the rate of speech and at that of delivery, from either, as it comes; a millisecond late.

    Args:
        rate_hz: of what comes, 16 or 48 kHz.
    """

    def __init__(self, rate_hz: int) -> None:
        self._is_speech_rate = rate_hz == SPEECH_RATE_HZ
        self._state = np.zeros(len(_TAPS_N) - 1, np.float32)
        self._phase = 0

    def both(self, samples_N: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The next samples at 16 kHz and at 48 kHz."""
        if self._is_speech_rate:
            stuffed_N = np.zeros(_RATIO * len(samples_N), np.float32)
            stuffed_N[::_RATIO] = samples_N
            return samples_N, self._filtered(_RATIO * stuffed_N)
        kept_N = self._filtered(samples_N)[self._phase :: _RATIO]
        self._phase = (self._phase - len(samples_N)) % _RATIO
        return kept_N, samples_N

    def _filtered(self, samples_N: NDArray[np.float32]) -> NDArray[np.float32]:
        if not len(samples_N):
            return samples_N
        filtered_N, self._state = lfilter(_TAPS_N, np.float32(1), samples_N, zi=self._state)
        return filtered_N.astype(np.float32)


class FrameRate:
    """Rows at another rate than those of the plan: in between, in a straight line.

    Args:
        rate_hz: of the frames.
    """

    def __init__(self, rate_hz: float) -> None:
        self._step = VIDEO_RATE_HZ / rate_hz
        self._before: MotionRow | None = None
        self._num_rows = self.num_frames = 0

    def rows(self, row: MotionRow) -> list[MotionRow]:
        """The frames that are decided with the next row of the plan."""
        before, place = self._before or row, self._num_rows
        self._before, self._num_rows = row, place + 1
        found: list[MotionRow] = []
        while (at := self.num_frames * self._step) <= place + 1e-9:
            found.append(_between(before, row, 1.0 - (place - at)))
            self.num_frames += 1
        return found

    def rest(self, num_frames: int) -> list[MotionRow]:
        """The frames that remain to `num_frames`, at the end."""
        missing = max(0, num_frames - self.num_frames) if self._before is not None else 0
        self.num_frames += missing
        return [self._before] * missing if self._before is not None else []


def _between(before: MotionRow, after: MotionRow, share: float) -> MotionRow:
    if share >= 1.0 - 1e-9:
        return after
    keep, take = np.float32(1.0 - share), np.float32(share)
    return MotionRow(
        before.actions_52 * keep + after.actions_52 * take,
        before.head_pose_6 * keep + after.head_pose_6 * take,
        before.gaze_2 * keep + after.gaze_2 * take,
        before.distance * (1.0 - share) + after.distance * share,
    )


class _Rows(Iterator[MotionRow]):
    """Rows on their way to the renderer, and how often each frame is to be shown."""

    def __init__(self) -> None:
        self._rows: queue.SimpleQueue[MotionRow | BaseException | None] = queue.SimpleQueue()
        self._copies: deque[int] = deque()
        self._lock = threading.Lock()

    def put(self, row: MotionRow, copies: int = 1) -> None:
        with self._lock:
            self._copies.append(copies)
        self._rows.put(row)

    def repeat(self) -> bool:
        """Show the newest frame once more, where it has not been shown yet."""
        with self._lock:
            if not self._copies:
                return False
            self._copies[-1] += 1
            return True

    def taken(self) -> int:
        """How often the frame that has just been rendered is shown."""
        with self._lock:
            return self._copies.popleft()

    def end(self, error: BaseException | None = None) -> None:
        self._rows.put(error)

    @property
    def num_waiting(self) -> int:
        return self._rows.qsize()

    def __next__(self) -> MotionRow:
        row = self._rows.get()
        if isinstance(row, MotionRow):
            return row
        if row is None:
            raise StopIteration
        raise row


@dataclass(frozen=True)
class LiveSegment:
    """A segment that may leave.

    Attributes:
        number: its place in the stream, from 1.
        num_frames: in it.
        num_repeated: of them shown a second time, because rendering had fallen behind.
    """

    data: bytes
    number: int
    num_frames: int
    num_repeated: int


class LiveStream:
    """One live session in the worker, made by `RenderWorker.open_live` and by nothing else.

    Use as a context manager. `hear`, `change` and `finish` are called by who feeds, `segments` is iterated by another
    thread.

    Args:
        renderer: of the grant.
        motion: the plan of movement, as it comes.
        producer: marks, codes and signs.
        terms: what the permit is bound to.
        controls: those of the permit; only what they name may be changed.
        wishes: the same, parsed.
        spool: where the stream is kept for a recording; None where there is to be none.
        recorder: makes the recording of a stream that lies in a file.
        may_repeat: whether frames are shown twice to catch up with a voice that does not wait.
    """

    def __init__(
        self,
        renderer: Renderer,
        motion: MotionStream,
        producer: LiveProducer,
        terms: LiveTerms,
        controls: Mapping[str, Any],
        wishes: MotionControls,
        *,
        spool: Path | None,
        recorder: Recorder,
        may_repeat: bool,
    ) -> None:
        self._motion, self._producer, self._terms = motion, producer, terms
        self._given, self._wishes = dict(controls), wishes
        self._may_repeat = may_repeat
        self._rates, self._frame_rate = Rates(terms.sound_rate_hz), FrameRate(terms.rate_hz)
        self._samples_left = terms.max_duration_ms * SPEECH_RATE_HZ // 1000
        self._num_samples = self._num_plan_rows = 0
        self._per_frame = DELIVERY_SOUND_RATE_HZ // terms.rate_hz
        self._sound: deque[NDArray[np.float32]] = deque()
        self._left_over = np.zeros(0, np.float32)
        self._rows = _Rows()
        self._belt: Belt[UnmarkedFrames] = Belt(renderer.stream(self._rows, batch=1), _AHEAD)
        self._rendered: Iterator[UnmarkedFrames] = iter(())
        self._num_segments = 0
        self._recorder, self._spool_path = recorder, spool
        self._spool = None if spool is None else spool.open("xb")
        self._sizes: list[int] = []
        self._is_finished = False
        self.is_expired = False

    # -- who takes

    def __enter__(self) -> Self:
        """Get to where the first sound can be answered at once: one frame is rendered and thrown away."""
        self._rendered = self._belt.__enter__()
        still = MotionRow(np.zeros(52, np.float32), np.zeros(6, np.float32), np.zeros(2, np.float32), 1.0)
        self._rows.put(still, copies=0)
        next(self._rendered)
        self._rows.taken()
        self._keep(self._producer.init_segment)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._rows.end()
        self._belt.__exit__()
        if self._spool is not None:
            self._spool.close()

    @property
    def init_segment(self) -> bytes:
        """Signed; to be sent first."""
        return self._producer.init_segment

    @property
    def manifest_id(self) -> str:
        """Of the manifest in the init segment."""
        return self._producer.manifest_id

    def segments(self) -> Iterator[LiveSegment]:
        """The segments as they come, to the last one; not the signed end, which is for whoever lets them out."""
        repeated = 0
        for frames in self._rendered:
            copies = self._rows.taken()
            repeated += max(0, copies - 1)
            for _ in range(copies):
                for segment in self._producer.write_segments(frames, self._sound_of_a_frame()):
                    yield self._numbered(segment, repeated)
                    repeated = 0
        for segment in self._producer.finish_segments():
            yield self._numbered(segment, repeated)

    def _numbered(self, segment: Segment, repeated: int) -> LiveSegment:
        self._num_segments += 1
        self._keep(segment.data)
        return LiveSegment(segment.data, self._num_segments, segment.num_frames, repeated)

    def _keep(self, data: bytes) -> None:
        if self._spool is not None:
            self._spool.write(data)
            self._sizes.append(len(data))

    def record(self, num_segments: int, dst: Path, session: dict[str, Any]) -> Produced | None:
        """The recording of what has left, if the terms ask for one.

        Args:
            num_segments: the segments behind these have not left, and are not in it.
            session: for the manifest, see `ManifestSpec.session`.
        Raises: see `watermark.recording.record`.
        """
        if self._spool is None or self._spool_path is None:
            return None
        self._spool.truncate(sum(self._sizes[: num_segments + 1]))
        self._spool.flush()
        return self._recorder(self._spool_path, dst, session)

    def _sound_of_a_frame(self) -> Sound:
        parts, missing = [self._left_over], self._per_frame - len(self._left_over)
        while missing > 0 and self._sound:
            parts.append(self._sound.popleft())
            missing -= len(parts[-1])
        joined_N = np.concatenate(parts)
        frame_N, self._left_over = joined_N[: self._per_frame], joined_N[self._per_frame :]
        return Sound(np.pad(frame_N, (0, self._per_frame - len(frame_N))), DELIVERY_SOUND_RATE_HZ)

    # -- who feeds

    def hear(self, samples_N: NDArray[np.float32]) -> None:
        """Take the next stretch of sound, at the rate of the terms. What is beyond the terms is cut off."""
        if self._is_finished:
            return
        speech_N, delivered_N = self._rates.both(samples_N)
        if len(speech_N) >= self._samples_left:
            self.is_expired = True
            speech_N, delivered_N = speech_N[: self._samples_left], delivered_N[: _RATIO * self._samples_left]
        self._samples_left -= len(speech_N)
        self._num_samples += len(speech_N)
        self._sound.append(delivered_N)
        for row in self._motion.hear(speech_N):
            self._plan(row)
        if self.is_expired:
            self.finish()

    def change(self, controls: Mapping[str, Any]) -> None:
        """From the next frame on these controls hold; those that are left out stay as they are.

        Raises: ControlError: not one of those that were permitted, one that is fixed, or a value out of its range.
        """
        for name in controls:
            if name not in self._given or name in FIXED_CONTROLS:
                may = ", ".join(sorted(set(self._given) - FIXED_CONTROLS)) or "none"
                raise ControlError(str(name), f"{name!r} may not be changed in this session; these may: {may}.")
        given = self._given | dict(controls)
        parsed = MotionControls.from_json(set_controls(given))
        now_s = self._num_plan_rows / VIDEO_RATE_HZ
        changed: dict[str, Any] = {name: eased(self._wishes, parsed, name, now_s) for name in controls}
        self._given, self._wishes = given, replace(self._wishes, **changed, head_pose_mode=parsed.head_pose_mode)
        self._motion.change(self._wishes)

    def finish(self) -> None:
        """The voice is over: the frames that remain come, then `segments` ends."""
        if self._is_finished:
            return
        self._is_finished = True
        for row in self._motion.finish():
            self._plan(row)
        num_frames = -(-self._num_samples * self._terms.rate_hz // SPEECH_RATE_HZ)
        for row in self._frame_rate.rest(num_frames):
            self._rows.put(row)
        self._rows.end()

    def abort(self, error: BaseException | None = None) -> None:
        """No frame more: `segments` ends, or raises `error`."""
        self._is_finished = True
        self._rows.end(error)

    def _plan(self, row: MotionRow) -> None:
        self._num_plan_rows += 1
        for each in self._frame_rate.rows(row):
            is_behind = self._may_repeat and self._rows.num_waiting >= _MOST_WAITING
            if not (is_behind and self._rows.repeat()):
                self._rows.put(each)


def eased(before: MotionControls, after: MotionControls, name: str, now_s: float) -> Any:
    """The value of a control that changes now: a constant one is reached within `EASE_S`, a curve is taken as it is."""
    old, new = getattr(before, name), getattr(after, name)
    if not isinstance(new, Curve) or len(new.times_s) > 1:
        return new
    start = tuple(float(value) for value in old.at(np.array([now_s]))[0])
    return Curve((now_s, now_s + EASE_S), (start, new.values[0]))


CHANGEABLE: Final = tuple(sorted({each.name for each in fields(MotionControls)} - FIXED_CONTROLS - {"head_pose_mode"}))
"""Controls that may be changed while somebody speaks."""
