"""Session: the one public way from a permit to a delivered video.

A worker trusts nobody, its own gateway included: it checks for itself that the decision is in the log and that the
permit is genuine, fresh, unspent, and given for exactly these inputs, before it plans any movement; and what leaves it
is marked and signed.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from threadpoolctl import threadpool_limits

from generator.controls import MotionControls
from generator.errors import GrantMismatchError
from generator.faces import FaceChoice
from generator.lips import num_video_frames
from generator.listening import VIDEO_RATE_HZ
from generator.motion import MotionModel
from generator.pipeline import Belt
from generator.portrait import Portrait, prepare
from generator.renderer import CHUNK_FRAMES, Renderer
from policy.evidence import LogEvidence, verify_evidence
from policy.kms import Retirement
from policy.permit import Permit, PermitLedger, PermitVerifier
from watermark.credentials import Ingredient, ManifestSpec, SigningAuthority
from watermark.mark import Produced, produce
from watermark.media import decode_sound
from watermark.payload import MarkId

_CACHED_PORTRAITS: Final = 4
_CHUNKS_AHEAD: Final = 2  # rendered before the one that is being marked is done
_TITLE: Final = "Talking portrait"


@dataclass(frozen=True)
class PortraitSummary:
    """What the analysis of a portrait found; nothing here allows to animate it.

    Attributes:
        sha256: of the normalised picture.
        width, height: in pixels.
        face_px: height of the face.
        yaw_deg, pitch_deg, roll_deg: pose of the head (towards the picture's right, chin up, clockwise).
        fit_error: mean distance between observed and modelled landmarks, as a fraction of the face's height.
        is_background_separated: whether person and background could be told apart; if not, the background near the
            head moves a little with it.
    """

    sha256: str
    width: int
    height: int
    face_px: float
    yaw_deg: float
    pitch_deg: float
    roll_deg: float
    fit_error: float
    is_background_separated: bool


class RenderWorker:
    """A worker: prepares portraits, redeems permits, delivers marked and signed videos.

    Args:
        name: permits must be made out to it.
        permit_public: the gateway's permit key; `permit_retired`: those before it, which count for a minute.
        ledger_path: the durable memory of redeemed permits.
        watermark_key: 32 bytes.
        authority: signs the manifests.
        log_publics: keys of the log in which decisions must be: the current one and those before it.
        labels: regimes whose visible labels are drawn; see `watermark.labels`.
        now: Unix time in seconds.
    """

    def __init__(
        self,
        name: str,
        permit_public: Ed25519PublicKey,
        ledger_path: Path,
        watermark_key: bytes,
        authority: SigningAuthority,
        log_publics: Ed25519PublicKey | Sequence[Ed25519PublicKey],
        *,
        permit_retired: Sequence[Retirement] = (),
        labels: Sequence[str] = (),
        now: Callable[[], float] = time.time,
    ) -> None:
        self._verifier = PermitVerifier(permit_public, name, PermitLedger(ledger_path), now, retired=permit_retired)
        self._watermark_key = watermark_key
        self._authority = authority
        self._log_publics = log_publics
        self._labels = labels
        self._motion = MotionModel.load()
        self._portraits: OrderedDict[tuple[bytes, FaceChoice], Portrait] = OrderedDict()
        self._lock = threading.Lock()

    def prepare(self, portrait_png: bytes, face: FaceChoice = None) -> PortraitSummary:
        """Analyse a normalised portrait, and keep the analysis for a render that may follow.

        Args:
            face: which one of several, see `generator.faces`.
        Raises: NoFaceError, SeveralFacesError, NoSuchFaceError, FaceTooSmallError, FaceTurnedAwayError,
            UnreadableImageError.
        """
        portrait = self._prepared(portrait_png, face)
        yaw, pitch, roll = portrait.fit.yaw_pitch_roll_deg
        height, width = portrait.photo_HW3.shape[:2]
        return PortraitSummary(
            sha256=portrait.sha256,
            width=width,
            height=height,
            face_px=round(portrait.face_px, 1),
            yaw_deg=round(yaw, 2),
            pitch_deg=round(pitch, 2),
            roll_deg=round(roll, 2),
            fit_error=round(portrait.fit.landmark_error, 5),
            is_background_separated=portrait.square_stage().matte.is_reliable,
        )

    def render(
        self,
        permit_token: str,
        *,
        portrait: bytes,
        speech: bytes,
        controls: dict[str, Any],
        consent: dict[str, Any] | None,
        evidence: dict[str, Any],
        dst: Path,
        progress: Callable[[float], None] | None = None,
    ) -> Produced:
        """Render what a permit allows, once.

        Args:
            portrait: normalised PNG.
            speech: normalised WAV.
            controls: as the client sent them and the permit names them.
            consent: what the manifest says of the consent; its hash must be the permit's. None for personas and art.
            evidence: that the decision is in the log.
            dst: the file to deliver; it appears complete and signed, or not at all.
            progress: told the fraction done.
        Raises: ProofError, PermitError, GrantMismatchError, ControlError, PortraitError, and what
            `watermark.mark.produce` raises.
        """
        # (1) the decision is in the log
        proof = LogEvidence.from_json(evidence)
        verify_evidence(proof, self._log_publics)
        # (2) the permit is genuine, ours, fresh, for these inputs, and spent from here on
        grant = self._verifier.redeem(permit_token, portrait=portrait, speech=speech, controls=controls)
        # (3) it speaks of that decision and of that consent
        _check_agreement(grant.permit, proof, consent)
        wishes = MotionControls.from_json(controls)
        # (4) move and render on one thread, mark and encode on this one, sign
        with threadpool_limits(1, user_api="blas"):
            sound = decode_sound(speech)
            num_frames = num_video_frames(len(sound.samples_N))
            rows = self._motion.rows(sound.samples_N, wishes)
            frames = Renderer(self._prepared(portrait, wishes.face), grant).stream(
                rows, wishes.framing, batch=CHUNK_FRAMES
            )
            mark_id = MarkId.from_hex(grant.permit.mark_id)
            with Belt(frames, _CHUNKS_AHEAD) as rendered:
                return produce(
                    rendered,
                    sound,
                    rate_hz=VIDEO_RATE_HZ,
                    mark_id=mark_id,
                    key=self._watermark_key,
                    spec=ManifestSpec(
                        title=_TITLE,
                        portrait=Ingredient(portrait, "image/png", "Portrait"),
                        speech=Ingredient(speech, "audio/wav", "Speech"),
                        mark_id=mark_id,
                        consent=consent,
                        log=evidence,
                        software_version=_software_version(),
                    ),
                    authority=self._authority,
                    dst=dst,
                    labels=self._labels,
                    progress=None if progress is None else lambda done: progress(min(done / num_frames, 1.0)),
                )

    def _prepared(self, portrait_png: bytes, face: FaceChoice) -> Portrait:
        key = portrait_png, face
        with self._lock:
            found = self._portraits.get(key)
            if found is None:
                with threadpool_limits(1, user_api="blas"):
                    found = prepare(portrait_png, face=face)
                    found.square_stage()
                self._portraits[key] = found
                while len(self._portraits) > _CACHED_PORTRAITS:
                    self._portraits.popitem(last=False)
            self._portraits.move_to_end(key)
            return found


def _check_agreement(permit: Permit, proof: LogEvidence, consent: dict[str, Any] | None) -> None:
    if proof.index != permit.decision_index:
        raise GrantMismatchError("The log evidence is of another decision than the permit's; send the permit's own.")
    stated = None if consent is None else consent.get("sha256")
    if stated != permit.consent_sha256:
        raise GrantMismatchError("The consent to be stated is not the one that the permit rests on.")


def _software_version() -> str:
    try:
        return version("placet")
    except PackageNotFoundError:
        return "0+source"
