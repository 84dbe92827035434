"""The detector as a whole: weights from one file, clips and pictures in, calibrated statements out.

T frame  H,W pixel  S sorted nonconformity
"""

from __future__ import annotations

import hashlib
import itertools
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from detector.calibration import (
    CLASSES,
    PRIOR,
    STRATA,
    Calibration,
    ClassName,
    OperatingPoint,
    Stratum,
    stratum_of,
)
from detector.errors import WeightsError
from detector.face import FaceBox, crop_square
from detector.heads import Heads, Judgement
from detector.movement import MovementHead
from detector.observation import Observation, Observer
from watermark.media import Clip

WEIGHTS = Path(__file__).with_name("weights") / "detector.safetensors"
MODEL_CARD = WEIGHTS.with_suffix(".md")

LEAST_FRAMES = 16
LEAST_FACE_PX = 64
_FORMAT = "placet-detector-2"
_HEAD_TENSORS = ("usual_F", "spread_F", "weight_F", "components_FD")
_MOVEMENT_TENSORS = ("usual_M", "spread_M", "hidden_EMH", "hidden_bias_EH", "out_EH", "out_bias_E")


@dataclass(frozen=True)
class Reason:
    """Why there is no opinion: a stable code, and a sentence for people."""

    code: str
    sentence: str


NO_FACE = Reason("no_face", "No face was found in the frames that were looked at.")
FACE_TOO_SMALL = Reason("face_too_small", f"The face is smaller than {LEAST_FACE_PX} pixels; send a larger copy.")
TOO_FEW_FRAMES = Reason(
    "too_few_frames", f"There are fewer than {LEAST_FRAMES} frames; the error rates were measured on clips."
)
OUT_OF_DISTRIBUTION = Reason(
    "out_of_distribution", "The face looks unlike everything that the error rates were measured on."
)
AMBIGUOUS = Reason("conformal_set_ambiguous", "At the stated error rate neither class can be excluded.")


@dataclass(frozen=True)
class Segment:
    """A stretch of the clip and its own probability.

    Attributes:
        start_s, end_s: from the first frame of the clip.
        face: number of the face; 0 is the main one.
        p: probability of synthetic, from the frames within; less certain than that of the whole.
    """

    start_s: float
    end_s: float
    face: int
    p: float


@dataclass(frozen=True)
class HeatPatch:
    """Which places of a face speak for synthetic (above 0) or against it, at one moment.

    Attributes:
        start_s, end_s: the moment, as in the timeline.
        face: number of the face; 0 is the main one.
        left, top, side: the square of the crop, in pixels of the clip as it was looked at.
        heat_GG: what each cell contributes to the logit.
    """

    start_s: float
    end_s: float
    face: int
    left: float
    top: float
    side: float
    heat_GG: np.ndarray


@dataclass(frozen=True)
class FaceScore:
    """What can be said of one face among several.

    Attributes:
        face: its number; 0 is the main one, on which the verdict rests.
        p: probability of synthetic at equal priors.
        num_frames: frames in which it was looked at.
        face_px: its side in pixels.
        box: left, top, right, bottom in shares of the frame, where it was seen first.
        abstain: why `p` is no basis for a verdict; empty where it is one.
    """

    face: int
    p: float
    num_frames: int
    face_px: float
    box: tuple[float, float, float, float]
    abstain: tuple[Reason, ...]


@dataclass(frozen=True)
class DetectorScore:
    """What the detector can say of one clip or picture.

    Attributes:
        p: probability of synthetic at equal priors; None where no face was seen, or only one frame of it.
        prior: the prior that `p` supposes.
        llr: natural logarithm of the likelihood ratio, synthetic over authentic.
        conformal_set: the classes that cannot be excluded at the stated error rate.
        ood: share of the calibration clips nearer to the known material than this one.
        timeline: the same over time.
        frames_used: frames looked at.
        num_faces: faces in the fullest of them.
        face_px: side of the main face in pixels; 0 where there is none.
        abstain: why this is no basis for a verdict; empty where it is one.
        faces: each face that was followed, the main one first; the fields above speak of the main one.
        heat: where in the faces the evidence lies, one patch per pair looked at.
    """

    p: float | None
    prior: float
    llr: float | None
    conformal_set: tuple[ClassName, ...]
    ood: float | None
    timeline: tuple[Segment, ...]
    frames_used: int
    num_faces: int
    face_px: float
    abstain: tuple[Reason, ...]
    faces: tuple[FaceScore, ...] = ()
    heat: tuple[HeatPatch, ...] = ()


@dataclass(frozen=True)
class DetectorWeights:
    """What is kept in the file: heads, calibration, operating point, and what they were made from."""

    heads: Heads
    calibration: Calibration
    operating_point: OperatingPoint
    calibrated_on: str


class Detector:
    """Loaded once, asked often. Not safe to share between threads."""

    def __init__(self, weights: DetectorWeights, model_version: str, observer: Observer) -> None:
        self.model_version = model_version
        self.operating_point = weights.operating_point
        self.calibrated_on = weights.calibrated_on
        self._heads = weights.heads
        self._calibration = weights.calibration
        self._observer = observer

    @classmethod
    def load(cls, path: Path = WEIGHTS) -> Detector:
        """Load the shipped detector, or another weights file. Raises: WeightsError, BackboneError."""
        weights, model_version = read_weights(path)
        return cls(weights, model_version, Observer.load())

    def score(self, clip: Clip | UInt8[np.ndarray, "h w 3"], *, bits_per_pixel: float | None = None) -> DetectorScore:
        """Look at a clip or a picture and say what can be said.

        Args:
            clip: a decoded clip, or one picture as sRGB 0..255.
            bits_per_pixel: of the file the clip came from; chooses the codec stratum of the conformal set.
        """
        frames_THWC = clip.frames_THWC if isinstance(clip, Clip) else clip[None]
        rate_hz = clip.rate_hz if isinstance(clip, Clip) else 25.0
        too_few = (TOO_FEW_FRAMES,) if len(frames_THWC) < LEAST_FRAMES else ()
        if len(frames_THWC) == 1:  # a picture: no score, so the network is not asked
            found = self._observer.finder.find(frames_THWC[0])
            if found:
                return DetectorScore(None, PRIOR, None, (), None, (), 1, len(found), found[0].side_px, too_few)
            return DetectorScore(None, PRIOR, None, (), None, (), 0, 0, 0.0, (NO_FACE, *too_few))
        observations = self._observer.observe_faces(frames_THWC, rate_hz)
        if not observations:
            return DetectorScore(None, PRIOR, None, (), None, (), 0, 0, 0.0, (NO_FACE, *too_few))
        stratum, num_frames = stratum_of(bits_per_pixel), len(frames_THWC)
        states = [
            self._state(observation, num_frames, rate_hz, stratum, too_few, face)
            for face, observation in enumerate(observations)
        ]
        height, width = frames_THWC[observations[0].frame_indices[0]].shape[:2]
        faces = tuple(
            FaceScore(
                face,
                state.p or 0.0,
                state.frames_used,
                state.face_px,
                _place(observation.boxes[0], width, height),
                state.abstain,
            )
            for face, (state, observation) in enumerate(zip(states, observations, strict=True))
        )
        return replace(
            states[0],
            faces=faces,
            timeline=tuple(part for state in states for part in state.timeline),
            heat=tuple(patch for state in states for patch in state.heat),
        )

    def _state(
        self,
        observation: Observation,
        num_frames: int,
        rate_hz: float,
        stratum: Stratum,
        too_few: tuple[Reason, ...],
        face: int = 0,
    ) -> DetectorScore:
        judged = self._heads.judge(observation.cells_TCGG, observation.moves_PM)
        logit = judged.logit
        conformal_set = self._calibration.conformal_set(logit, stratum)
        abstain = list(too_few)
        if observation.face_px < LEAST_FACE_PX:
            abstain.append(FACE_TOO_SMALL)
        if self._calibration.is_outlier(judged.sketch_D):
            abstain.append(OUT_OF_DISTRIBUTION)
        if len(conformal_set) == len(CLASSES):
            abstain.append(AMBIGUOUS)
        timeline = self._timeline(observation, judged, num_frames, rate_hz, face)
        return DetectorScore(
            p=self._calibration.probability(logit),
            prior=PRIOR,
            llr=self._calibration.log_likelihood_ratio(logit),
            conformal_set=conformal_set,
            ood=self._calibration.novelty(judged.sketch_D),
            timeline=timeline,
            frames_used=observation.num_looked_at,
            num_faces=observation.num_faces,
            face_px=observation.face_px,
            abstain=tuple(abstain),
            heat=tuple(
                HeatPatch(part.start_s, part.end_s, face, *crop_square(box), heat_GG)
                for part, box, heat_GG in zip(
                    timeline, observation.boxes, self._heads.heat(observation.cells_TCGG), strict=True
                )
            ),
        )

    def _timeline(
        self, observation: Observation, judged: Judgement, num_frames: int, rate_hz: float, face: int
    ) -> tuple[Segment, ...]:
        """One segment per pair looked at, reaching half-way to its neighbours."""
        middles_s = [
            (first + second + 1) / 2 / rate_hz
            for first, second in zip(observation.frame_indices[::2], observation.frame_indices[1::2], strict=True)
        ]
        edges_s = [0.0, *((a + b) / 2 for a, b in itertools.pairwise(middles_s)), num_frames / rate_hz]
        return tuple(
            Segment(round(start, 3), round(end, 3), face, self._calibration.probability(float(logit)))
            for (start, end), logit in zip(itertools.pairwise(edges_s), judged.pairs_P, strict=True)
        )


def _place(box: FaceBox, width: int, height: int) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of a face in shares of the frame."""
    half = box.side_px / 2
    edges = (
        (box.centre_x - half) / width,
        (box.centre_y - half) / height,
        (box.centre_x + half) / width,
        (box.centre_y + half) / height,
    )
    left, top, right, bottom = (round(min(max(edge, 0.0), 1.0), 4) for edge in edges)
    return left, top, right, bottom


def write_weights(path: Path, weights: DetectorWeights) -> str:
    """Write heads, calibration and operating point into one file; returns the model version."""
    calibration = weights.calibration
    tensors = {f"heads.{name}": getattr(weights.heads, name) for name in _HEAD_TENSORS}
    tensors |= {f"movement.{name}": getattr(weights.heads.movement, name) for name in _MOVEMENT_TENSORS}
    tensors |= {
        f"calibration.scores.{stratum}.{name}": scores_S.astype(np.float64)
        for (stratum, name), scores_S in calibration.scores.items()
    }
    tensors["calibration.centres_2D"] = np.ascontiguousarray(calibration.centres_2D, np.float64)
    tensors["calibration.whitening_DD"] = np.ascontiguousarray(calibration.whitening_DD, np.float64)
    tensors["calibration.distances_S"] = np.ascontiguousarray(calibration.distances_S, np.float64)
    about = {
        "format": _FORMAT,
        "bias": repr(weights.heads.bias),
        "curve": json.dumps([calibration.slope, calibration.offset]),
        "operating_point": json.dumps(asdict(weights.operating_point)),
        "calibrated_on": weights.calibrated_on,
    }
    tensors = {name: np.ascontiguousarray(value) for name, value in tensors.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_bytes(save(tensors, metadata=about))
    partial.replace(path)
    return _version_of(tensors, about)


def read_weights(path: Path) -> tuple[DetectorWeights, str]:
    """What `write_weights` wrote, and its model version. Raises: WeightsError."""
    try:
        with safe_open(path, framework="numpy") as file:
            about: dict[str, Any] = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if about.get("format") != _FORMAT:
            raise WeightsError(f"{path.name} is not in the form {_FORMAT}; reinstall, or train it again.")
        movement = MovementHead(**{name: tensors[f"movement.{name}"] for name in _MOVEMENT_TENSORS})
        parts = {name: tensors[f"heads.{name}"] for name in _HEAD_TENSORS}
        heads = Heads(**parts, bias=float(about["bias"]), movement=movement)
        slope, offset = json.loads(about["curve"])
        scores = {(s, c): tensors[f"calibration.scores.{s}.{c}"] for s in STRATA for c in CLASSES}
        calibration = Calibration(
            slope,
            offset,
            scores,
            tensors["calibration.centres_2D"],
            tensors["calibration.whitening_DD"],
            tensors["calibration.distances_S"],
        )
        point = json.loads(about["operating_point"])
        operating_point = OperatingPoint(**{**point, "fpr_ci95": tuple(point["fpr_ci95"])})
    except (OSError, SafetensorError, KeyError, ValueError, TypeError, RuntimeError) as exc:
        raise WeightsError(f"{path.name} cannot be read ({type(exc).__name__}); reinstall, or train it again.") from exc
    return DetectorWeights(heads, calibration, operating_point, about["calibrated_on"]), _version_of(tensors, about)


def _version_of(tensors: dict[str, np.ndarray], about: dict[str, str]) -> str:
    """The format and a digest of the content; the order of entries within the file does not count."""
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for name in sorted(tensors):
        digest.update(name.encode() + tensors[name].tobytes())
    return f"{_FORMAT}+{digest.hexdigest()[:12]}"
