"""Evaluating the generator: what is rendered for it, through the gate like everything else, and what is measured.

Every clip stays in the output folder beside what was measured on it, under the hash of everything that it was made of,
so that an evaluation which was cut short goes on where it stopped.

    PORTRAIT__SPEECH.mp4    .json figures    .png contact sheet
    trials/PORTRAIT.mp4     every control in turn, on silence
    trials/PORTRAIT__full.mp4   the whole photo, for what lies around the face
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from api import software_version
from api.errors import RemoteError
from api.evaluation import Evaluation, evaluate_render
from api.service import Service
from generator.appearance import (
    Drift,
    drift,
    face_area,
    flicker,
    likeness_distances,
    psnr_outside,
    seam_energy,
    sharpness,
)
from generator.coarticulation import phones_from_json
from generator.controls import LARGEST_SEED, MotionControls
from generator.evaluate import measure_lips
from generator.listening import VIDEO_RATE_HZ
from generator.motion import MotionModel
from generator.naturalness import pose_variation_deg
from generator.perception import detect_faces, face_landmarks
from generator.portrait import Portrait, decode_portrait, normalise_portrait, prepare
from generator.scorecard import ClipFigures, TrialFigures
from generator.sighting import Sighting, watch
from generator.trials import (
    control_errors,
    disentanglement,
    expression_ranges,
    holds,
    rest_frames,
    trial_controls,
    trial_speech,
)
from watermark.contact_sheet import contact_sheet
from watermark.credentials import read_credentials
from watermark.encoding import encode_sound_wav
from watermark.extract import read_mark
from watermark.media import SPEECH_RATE_HZ, Clip, Sound, decode_clip, decode_sound

TRIALS: Final = "trials"
_LIKENESS_FRAMES: Final = 6  # 0.13 s each
_SHARPNESS_STRIDE: Final = 5
_FULL_S: Final = 0.6
_DRIFT_FRAMES: Final = 200


@dataclass(frozen=True, eq=False)
class MeasuredClip:
    """A talking clip and what was measured on it.

    Attributes:
        row: for the report: file, ids, times, whether mark and manifest read back, figures.
        figures: of its quality.
        seen: the face in it.
    """

    row: dict[str, Any]
    figures: ClipFigures
    seen: Sighting


class Bench:
    """Renders and measures for one evaluation.

    Args:
        service: an open laboratory.
        out: where clips and figures stay.
        attested_class: the operator's word on what the portraits are: synthetic or artwork.
    """

    def __init__(self, service: Service, out: Path, attested_class: str) -> None:
        self._service, self._out, self._class = service, out, attested_class
        (out / TRIALS).mkdir(parents=True, exist_ok=True)

    def talking(self, name: str, picture: bytes, speech: bytes, transcription: Path) -> MeasuredClip:
        """One portrait with one recording, controls as they come: lips, likeness, sharpness, movement, flicker."""
        target = self._out / f"{name}.mp4"
        # a movement of its own for every clip, the same whenever it is made again
        controls = {"seed": zlib.crc32(name.encode()) & LARGEST_SEED}
        stated, row = self._rendered(target, picture, speech, controls)
        clip = decode_clip(target)
        seen = watch(clip.frames_THWC, clip.rate_hz)
        if not stated or "figures" not in row:
            portrait = self._prepared(picture)
            phones = None
            if transcription.is_file():
                phones = phones_from_json(json.loads(transcription.read_text(encoding="utf-8"))["phones"])
            figures = ClipFigures(
                lips=None if phones is None else measure_lips(seen.aperture_T, clip.rate_hz, phones),
                likeness=tuple(likeness_distances(portrait.cropped(clip.frames_THWC.shape[1]), _some(clip))),
                sharpness=_sharpness(portrait, clip, seen),
                pose_variation_deg=pose_variation_deg(seen.pose_T3),
                flicker=flicker(clip.frames_THWC, clip.rate_hz),
            )
            row["figures"] = figures.to_json()
            row |= self._marks(target, clip, str(row["mark_id"]))
            sheet = contact_sheet(clip.frames_THWC, rate_hz=clip.rate_hz)
            cv2.imwrite(str(target.with_suffix(".png")), sheet[..., ::-1])
            self._keep(target, row)
        return MeasuredClip(row, ClipFigures.from_json(row["figures"]), seen)

    def trial(self, name: str, picture: bytes, talking: list[Sighting]) -> tuple[TrialFigures, dict[str, Any]]:
        """One portrait through every control in turn: what is seen of it, what moved unasked, what tore.

        Args:
            talking: clips of the same portrait, which tell how far an expression moves; the trial's own count as well.
        """
        target = self._out / TRIALS / f"{name}.mp4"
        speech, controls = trial_speech(), trial_controls()
        _, row = self._rendered(target, picture, speech, controls)
        clip = decode_clip(target)
        seen = watch(clip.frames_THWC, clip.rate_hz, rest=rest_frames(clip.rate_hz))
        wav, _ = self._service.intake.speech(speech)
        asked = MotionModel.load().plan(decode_sound(wav).samples_N, MotionControls.from_json(controls))
        figures = TrialFigures(
            control_errors=control_errors(seen, asked.gaze_T2.astype(np.float64)),
            disentanglement=disentanglement(seen, expression_ranges([seen, *talking])),
            seam_ratio=_seam_ratio(clip, seen),
        )
        pictures = np.stack([clip.frames_THWC[_middle(hold.frames(clip.rate_hz))] for hold in holds()])
        sheet = contact_sheet(pictures, rate_hz=1.0, columns=7, rows=3, tile=200)
        cv2.imwrite(str(target.with_suffix(".png")), sheet[..., ::-1])
        self._keep(target, row)
        return figures, row

    def paste_back_db(self, name: str, picture: bytes) -> float | None:
        """Agreement with the photo outside the face region of a short clip of the whole photo; None where the face
        fills the photo."""
        portrait = self._prepared(picture)
        shrunk = portrait.shrunk_to(1920)
        crop, photo = shrunk.crop, shrunk.photo_HW3
        if crop.side >= min(photo.shape[:2]):
            return None
        target = self._out / TRIALS / f"{name}__full.mp4"
        silence = decode_sound(trial_speech()).samples_N[: round(_FULL_S * SPEECH_RATE_HZ)]
        speech = encode_sound_wav(Sound(silence, SPEECH_RATE_HZ))
        _, row = self._rendered(target, picture, speech, {"framing": "full"})
        clip = decode_clip(target)
        height, width = clip.frames_THWC.shape[1:3]
        self._keep(target, row)
        box = (crop.x0, crop.y0, crop.x0 + crop.side, crop.y0 + crop.side)
        return psnr_outside(clip.frames_THWC, photo[:height, :width], box)

    def drift(self, name: str, picture: bytes, speech: bytes, minutes: float) -> Drift:
        """What changes over a long clip: the recording, again and again."""
        target = self._out / TRIALS / f"{name}__{minutes:g}min.mp4"
        wav, _ = self._service.intake.speech(speech)
        samples_N = decode_sound(wav).samples_N
        num = round(minutes * 60 * SPEECH_RATE_HZ)
        _, row = self._rendered(target, picture, encode_sound_wav(Sound(np.resize(samples_N, num), SPEECH_RATE_HZ)), {})
        self._keep(target, row)
        clip = decode_clip(target, every=max(1, round(minutes * 60 * VIDEO_RATE_HZ / _DRIFT_FRAMES)))
        return drift(clip.frames_THWC, watch(clip.frames_THWC, clip.rate_hz))

    def failure(self, picture: bytes) -> str | None:
        """The code of the error with which a bad portrait is turned away before any render; None if it is taken."""
        try:
            png, _ = self._service.intake.portrait(picture)
            self._service.worker.prepare(png)
        except RemoteError as error:
            return error.code
        return None

    # -- between

    def _prepared(self, picture: bytes) -> Portrait:
        png, _ = self._service.intake.portrait(picture)
        return prepare(png)

    def _rendered(
        self, target: Path, picture: bytes, speech: bytes, controls: Mapping[str, Any]
    ) -> tuple[bool, dict[str, Any]]:
        """Render unless the file is there, made of the same; what was written about it."""
        made_of = hashlib.sha256()
        for part in (picture, speech, json.dumps(controls, sort_keys=True).encode(), software_version().encode()):
            made_of.update(hashlib.sha256(part).digest())
        record = target.with_suffix(".json")
        if target.is_file() and record.is_file():
            known: dict[str, Any] = json.loads(record.read_text(encoding="utf-8"))
            if known.get("made_of") == made_of.hexdigest():
                return True, known
        made: Evaluation = evaluate_render(
            self._service,
            portrait=picture,
            speech=speech,
            attested_class=self._class,
            out=target,
            controls=dict(controls),
        )
        return False, {**made.to_json(), "made_of": made_of.hexdigest()}

    def _marks(self, target: Path, clip: Clip, expected: str) -> dict[str, str]:
        """Whether mark and manifest of a delivery read back."""
        reading = read_mark(clip, self._service.keys.watermark_key, lambda mark: mark.hex == expected, num_registered=1)
        manifest = read_credentials(target, "video/mp4", self._service.trust_roots_pem.decode())
        return {"mark": reading.state, "manifest": manifest.state}

    @staticmethod
    def _keep(target: Path, row: Mapping[str, Any]) -> None:
        target.with_suffix(".json").write_text(json.dumps(row, indent=1, sort_keys=True, default=str), "utf-8")


def _some(clip: Clip) -> list[NDArray[np.uint8]]:
    chosen = np.linspace(0, len(clip.frames_THWC) - 1, min(_LIKENESS_FRAMES, len(clip.frames_THWC)))
    return [clip.frames_THWC[int(index)] for index in chosen.round()]


def _middle(frames: slice) -> int:
    return (int(frames.start) + int(frames.stop)) // 2


def _sharpness(portrait: Portrait, clip: Clip, seen: Sighting) -> float:
    side = clip.frames_THWC.shape[1]
    return sharpness(
        portrait.cropped(side),
        portrait.points_in_crop(portrait.landmarks.points_L2, side),
        list(clip.frames_THWC[::_SHARPNESS_STRIDE]),
        list(seen.points_TL3[::_SHARPNESS_STRIDE, :, :2]),
    )


def _seam_ratio(clip: Clip, seen: Sighting) -> float:
    """The strongest thin structure around a turned face, over that at rest."""
    height, width = clip.frames_THWC.shape[1:3]

    def energy(index: int) -> float:
        area = face_area(seen.points_TL3[index, :, :2], height, width).astype(np.uint8)
        grown = cv2.dilate(area, np.ones((61, 61), np.uint8))
        return seam_energy(clip.frames_THWC[index], grown.astype(bool))

    at_rest = energy(_middle(rest_frames(clip.rate_hz)))
    turned = [energy(_middle(hold.frames(clip.rate_hz))) for hold in holds() if hold.kind == "pose"]
    return max(turned) / max(at_rest, 1e-9)


def bad_inputs(picture: bytes) -> dict[str, bytes]:
    """Pictures that nothing may be rendered from, made from a good one: no face, several, too small, half hidden."""
    image = decode_portrait(normalise_portrait(picture))
    height = len(image)
    small = cv2.resize(image, None, fx=70 / height, fy=70 / height, interpolation=cv2.INTER_AREA)
    canvas = np.full((512, 512, 3), 200, np.uint8)
    canvas[200 : 200 + small.shape[0], 200 : 200 + small.shape[1]] = small
    hidden = image.copy()
    face = max(detect_faces(image), key=lambda found: found.size_px)
    points = face_landmarks(image, face).points_L2
    skin = image[tuple(points[[205]].astype(int)[0, ::-1])].tolist()
    centre, reach = points[[13, 14]].mean(0), 0.28 * face.size_px
    cv2.ellipse(hidden, centre.astype(int).tolist(), [round(1.3 * reach), round(0.8 * reach)], 0, 0, 360, skin, -1)
    pictures = {
        "no face": np.full((512, 512, 3), 128, np.uint8),
        "several faces": np.concatenate([image, image], 1),
        "face too small": canvas,
        "mouth hidden": hidden,
    }
    return {name: cv2.imencode(".png", each[..., ::-1])[1].tobytes() for name, each in pictures.items()}
