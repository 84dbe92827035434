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
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from threadpoolctl import threadpool_limits

from generator.controls import MotionControls
from generator.driving import Movement, driven_rows
from generator.errors import ControlError, GrantMismatchError
from generator.faces import FaceChoice
from generator.lips import num_video_frames
from generator.listening import VIDEO_RATE_HZ
from generator.live import CODING, KEY_FRAME_S, LiveStream
from generator.live_terms import LiveTerms, set_controls
from generator.manner import USUAL, Manner
from generator.motion import MotionModel
from generator.pipeline import Belt
from generator.portrait import FRAME_PX, Portrait, prepare
from generator.renderer import CHUNK_FRAMES, Renderer
from policy.evidence import LogEvidence, verify_evidence
from policy.facts import ACTION_LIVE
from policy.kms import Retirement
from policy.permit import Permit, PermitLedger, PermitVerifier
from watermark.audio_mark import AudioEmbedder
from watermark.credentials import SOFT_BINDING_ALGORITHMS, Ingredient, ManifestSpec, SigningAuthority
from watermark.embed import Embedder
from watermark.encoding import DELIVERY_SOUND_RATE_HZ
from watermark.fingerprint import FingerprintTaker
from watermark.labels import Labels, disclosure
from watermark.live import LiveSigner
from watermark.mark import Produced, produce
from watermark.media import CLIP_LIMITS, decode_sound
from watermark.payload import MarkId
from watermark.recording import VOICE_TITLE, record
from watermark.segments import LiveProducer, SegmentEncoder

_CACHED_PORTRAITS: Final = 4
_CHUNKS_AHEAD: Final = 2  # rendered before the one that is being marked is done
_MAX_RECORDING: Final = 4 * 1024**3  # bytes
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
        warnings: what may look wrong, as keys of `generator.obstacles.WARNINGS`.
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
    warnings: tuple[str, ...]


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
        manner: how faces move besides speaking.
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
        manner: Manner = USUAL,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._verifier = PermitVerifier(permit_public, name, PermitLedger(ledger_path), now, retired=permit_retired)
        self._watermark_key = watermark_key
        self._authority = authority
        self._log_publics = log_publics
        self._labels = labels
        self._motion = MotionModel.load(manner=manner)
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
            warnings=portrait.obstacles.warnings,
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
        driving: bytes | None = None,
        driver_consent: dict[str, Any] | None = None,
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
            driving: a recorded movement that moves the face, in the form of `generator.driving.Movement`.
            driver_consent: what the manifest says of the driver's consent; its hash must be the permit's.
            progress: told the fraction done.
        Raises: ProofError, PermitError, GrantMismatchError, ControlError, PortraitError, and what
            `watermark.mark.produce` raises.
        """
        # (1) the decision is in the log
        proof = LogEvidence.from_json(evidence)
        verify_evidence(proof, self._log_publics)
        # (2) the permit is genuine, ours, fresh, for these inputs, and spent from here on
        grant = self._verifier.redeem(
            permit_token, portrait=portrait, speech=speech, controls=controls, driving=driving
        )
        # (3) it speaks of that decision and of those consents
        _check_agreement(grant.permit, proof, consent, driver_consent)
        wishes = MotionControls.from_json(controls)
        movement = None if driving is None else Movement.from_bytes(driving)
        # (4) move and render on one thread, mark and encode on this one, sign
        with threadpool_limits(1, user_api="blas"):
            sound = decode_sound(speech)
            num_frames = num_video_frames(len(sound.samples_N))
            rows = self._motion.rows(sound.samples_N, wishes)
            if movement is not None:
                rows = driven_rows(rows, movement, wishes)
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
                        driving=None if movement is None else _stated_driving(grant.permit, movement, wishes),
                        voice=None if wishes.voice is None else wishes.voice.stated(),
                    ),
                    authority=self._authority,
                    dst=dst,
                    labels=self._labels,
                    progress=None if progress is None else lambda done: progress(min(done / num_frames, 1.0)),
                )

    def open_live(
        self,
        permit_token: str,
        *,
        portrait: bytes,
        terms: bytes,
        controls: dict[str, Any],
        consent: dict[str, Any] | None,
        evidence: dict[str, Any],
        end_key: bytes,
        spool: Path,
        may_repeat: bool,
    ) -> LiveStream:
        """Open the live session that a permit allows, once.

        Args:
            terms: what the permit is bound to in place of the speech; see `generator.live_terms`.
            controls: those of the permit; null for one that may be set later.
            end_key: of whoever signs the end of the stream (`watermark.live.EndSigner.entry`).
            spool: where the stream is kept for a recording, if the terms ask for one; must not exist.
            may_repeat: see `LiveStream`.
        Raises: as `render`; LiveTermsError.
        """
        # (1) to (3) as for a render; the permit is for a live session
        proof = LogEvidence.from_json(evidence)
        verify_evidence(proof, self._log_publics)
        grant = self._verifier.redeem(permit_token, portrait=portrait, speech=terms, controls=controls)
        _check_agreement(grant.permit, proof, consent)
        if grant.permit.action != ACTION_LIVE:
            raise GrantMismatchError("This permit is not for a live session: ask for one that is.")
        given = LiveTerms.from_bytes(terms)
        wishes = MotionControls.from_json(set_controls(controls))
        if wishes.framing != "square":
            raise ControlError("framing", "framing must be square in a live session.")
        # (4) everything that marks and signs, before there is a frame
        mark_id = MarkId.from_hex(grant.permit.mark_id)
        version = _software_version()
        spec = ManifestSpec(
            title=_TITLE,
            portrait=Ingredient(portrait, "image/png", "Portrait"),
            speech=Ingredient(terms, "audio/L16", VOICE_TITLE),
            mark_id=mark_id,
            consent=consent,
            log=evidence,
            software_version=version,
            soft_bindings=SOFT_BINDING_ALGORITHMS,
            disclosure=disclosure(mark_id, version, self._authority.now()),
        )
        fingerprints = FingerprintTaker(FRAME_PX, FRAME_PX) if given.record else None
        producer = LiveProducer(
            SegmentEncoder(
                width=FRAME_PX,
                height=FRAME_PX,
                rate_hz=given.rate_hz,
                segment_s=given.frames_per_segment / given.rate_hz,
                key_frame_s=KEY_FRAME_S,
                coding=CODING,
            ),
            Embedder(self._watermark_key, mark_id, FRAME_PX, FRAME_PX, given.rate_hz),
            LiveSigner(self._authority, spec, further_keys=[end_key]),
            sound_embedder=AudioEmbedder(self._watermark_key, mark_id, DELIVERY_SOUND_RATE_HZ),
            labels=Labels(self._labels, FRAME_PX, FRAME_PX) if self._labels else None,
            fingerprints=fingerprints,
        )

        def recorded(stream: Path, dst: Path, session: dict[str, Any]) -> Produced:
            assert fingerprints is not None  # `LiveStream` asks only where the terms do
            limits = replace(CLIP_LIMITS, max_duration_s=given.max_duration_ms / 1000 + 60, max_bytes=_MAX_RECORDING)
            return record(stream, dst, replace(spec, session=session), self._authority, fingerprints, limits=limits)

        return LiveStream(
            Renderer(self._prepared(portrait, wishes.face), grant),
            self._motion.stream(wishes),
            producer,
            given,
            controls,
            wishes,
            spool=spool if given.record else None,
            recorder=recorded,
            may_repeat=may_repeat,
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


def _stated_driving(permit: Permit, movement: Movement, wishes: MotionControls) -> dict[str, Any]:
    """What the manifest says of a driving clip: hashes, no picture and no name."""
    stated: dict[str, Any] = {"clip_sha256": movement.clip_sha256, "movement_sha256": permit.driving_sha256}
    if permit.driver_consent_sha256 is not None:
        stated["consent_sha256"] = permit.driver_consent_sha256
    return stated | {"lips": wishes.driving}


def _check_agreement(
    permit: Permit, proof: LogEvidence, consent: dict[str, Any] | None, driver_consent: dict[str, Any] | None = None
) -> None:
    if proof.index != permit.decision_index:
        raise GrantMismatchError("The log evidence is of another decision than the permit's; send the permit's own.")
    for given, permitted in ((consent, permit.consent_sha256), (driver_consent, permit.driver_consent_sha256)):
        if (None if given is None else given.get("sha256")) != permitted:
            raise GrantMismatchError("The consent to be stated is not the one that the permit rests on.")


def _software_version() -> str:
    try:
        return version("placet")
    except PackageNotFoundError:
        return "0+source"
