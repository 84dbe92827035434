"""Live in the worker: what a permit opens, that frames follow the voice, that nothing leaves unmarked or unsigned."""

from __future__ import annotations

import threading
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from generator.controls import MotionControls
from generator.errors import ControlError, GrantMismatchError
from generator.live import FrameRate, LiveStream, Rates, eased
from generator.live_terms import LiveTerms, LiveTermsError, pcm16
from generator.motion import MotionRow
from generator.session import RenderWorker
from policy.consent import PURPOSE_RESEARCH
from policy.errors import PermitReusedError, PermitSpeechError
from policy.facts import ACTION_LIVE, ConsentFacts, Facts, RenderRequest
from policy.gate import Ruling
from policy.identity import SCOPE_LIVE_CREATE, Actor
from tests.generator.conftest import WORKER, Gatekeeper
from tests.watermark.clips import lag_s
from watermark.authority import SigningAuthority
from watermark.credentials import read_credentials
from watermark.extract import read_mark
from watermark.live import EndSigner, verify_stream
from watermark.media import Clip, decode_clip
from watermark.payload import MarkId

MARK_ID = "00c0ffee00c0ffee"
CONTROLS: dict[str, Any] = {"seed": 3, "head_pose": None, "gaze": [0, 0]}
Open = Callable[..., LiveStream]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> SigningAuthority:
    return SigningAuthority.create(tmp_path_factory.mktemp("pki") / "pki", "Tests")


@pytest.fixture(scope="module")
def worker(gatekeeper: Gatekeeper, authority: SigningAuthority) -> RenderWorker:
    keys = gatekeeper.instance.keys
    return RenderWorker(
        WORKER, keys.permit_public, gatekeeper.instance.ledger_path, keys.watermark_key, authority, keys.log_public
    )


@pytest.fixture(scope="module")
def end(authority: SigningAuthority) -> EndSigner:
    return EndSigner(authority.chain_der[0])


def rule(gatekeeper: Gatekeeper, portrait: bytes, terms: bytes) -> Ruling:
    """A live session of a persona, to which somebody has consented."""
    portrait_sha256 = sha256(portrait).hexdigest()
    actor = Actor("lab", "university", frozenset({SCOPE_LIVE_CREATE}))
    request = RenderRequest.of(
        actor, subject_id="nobody", portrait_sha256=portrait_sha256, speech_sha256=sha256(terms).hexdigest(),
        controls=CONTROLS, purpose=PURPOSE_RESEARCH, duration_s=5.0, action=ACTION_LIVE,
    )  # fmt: skip
    now = int(gatekeeper.instance.gate._now())
    consent = ConsentFacts(
        "d" * 64, "university", "lab", (PURPOSE_RESEARCH,), (portrait_sha256,), ("*",), 0, now + 900, 9, 0, 0, False
    )
    facts = Facts(
        subject_class="persona", consent=consent, vetting="approved", vetting_expires_at=now + 900, budget_ms=60_000,
        max_streams=4, max_duration_ms=60_000,
    )  # fmt: skip
    ruling = gatekeeper.instance.gate.rule(request, facts)
    assert ruling.decision.allowed, ruling.decision.codes
    return ruling


@pytest.fixture(scope="module")
def order(gatekeeper: Gatekeeper, portrait_png: bytes) -> Callable[[bytes], dict[str, Any]]:
    """A permit and what has to be shown with it."""

    def ordered(terms: bytes) -> dict[str, Any]:
        ruling = rule(gatekeeper, portrait_png, terms)
        permit = gatekeeper.instance.gate.permit(
            ruling,
            worker=WORKER,
            portrait_sha256=ruling.request.portrait_sha256,
            speech_sha256=ruling.request.speech_sha256,
            controls=CONTROLS,
            mark_id=MARK_ID,
        )
        return {
            "permit_token": permit,
            "portrait": portrait_png,
            "terms": terms,
            "controls": CONTROLS,
            "consent": {"sha256": "d" * 64},
            "evidence": ruling.evidence.to_json(),
        }

    return ordered


@pytest.fixture
def open_live(worker: RenderWorker, order: Callable[[bytes], dict[str, Any]], end: EndSigner, tmp_path: Path) -> Open:
    def opened(terms: LiveTerms, **changes: Any) -> LiveStream:
        asked = order(terms.to_bytes()) | {"end_key": end.entry, "spool": tmp_path / "spool", "may_repeat": False}
        return worker.open_live(**(asked | changes))

    return opened


def hum(duration_s: float, rate_hz: int = 16_000) -> np.ndarray:
    """Syllables of a hum."""
    times_N = np.arange(round(duration_s * rate_hz)) / rate_hz
    return np.float32(0.4 * np.sin(2 * np.pi * 140 * times_N) * np.sin(2 * np.pi * 2.5 * times_N) ** 2)


def test_a_voice_in_pieces_becomes_a_stream_that_verifies_and_a_recording(
    open_live: Open, end: EndSigner, authority: SigningAuthority, gatekeeper: Gatekeeper, tmp_path: Path
) -> None:
    voice_N = hum(3.3)
    with open_live(LiveTerms(max_duration_ms=5_000, frames_per_segment=2)) as stream:

        def speak() -> None:
            for start in range(0, len(voice_N), 333):
                stream.hear(voice_N[start : start + 333])
            stream.finish()

        feeder = threading.Thread(target=speak)
        feeder.start()
        made = list(stream.segments())
        feeder.join()
        assert [each.number for each in made] == list(range(1, len(made) + 1))
        assert sum(each.num_frames for each in made) == 83 and not stream.is_expired
        sent = [each.data for each in made]
        closed = [*sent, end.end(stream.manifest_id, len(sent), "complete")]
        # (1) the stream verifies, plays, says the same at the same time, and carries the mark
        assert verify_stream(stream.init_segment, closed, authority.root_pem)[-1].end == "complete"
        played = decode_clip(stream.init_segment + b"".join(closed))
        assert len(played.frames_THWC) == 83 and played.sound is not None
        assert abs(lag_s(played.sound.resampled(16_000).samples_N, voice_N, 16_000)) < 0.02
        assert reads(played, gatekeeper)
        # (2) half of it left: the recording is that half, signed, with the session in its manifest
        produced = stream.record(30, tmp_path / "recording.mp4", {"stream_manifest_id": stream.manifest_id})
        assert produced is not None and produced.num_frames == 60
        reading = read_credentials(produced.path, "video/mp4", authority.root_pem)
        assert reading.state == "trusted" and str(reading.mark_id) == MARK_ID
        assert stream.manifest_id in str(reading.manifest)
        assert len(decode_clip(produced.path).frames_THWC) == 60


def reads(clip: Clip, gatekeeper: Gatekeeper) -> bool:
    """Whether the clip carries our mark."""
    key = gatekeeper.instance.keys.watermark_key
    return read_mark(clip, key, MarkId.from_hex(MARK_ID).__eq__, num_registered=1).state == "detected"


@pytest.mark.heavy
def test_what_is_beyond_the_terms_is_cut_off(open_live: Open) -> None:
    with open_live(LiveTerms(max_duration_ms=400, record=False)) as stream:
        stream.hear(hum(1.0))
        assert stream.is_expired
        assert sum(each.num_frames for each in stream.segments()) == 10


@pytest.mark.heavy
def test_forty_frames_a_second_and_48_khz(open_live: Open) -> None:
    with open_live(LiveTerms(5_000, rate_hz=40, sound_rate_hz=48_000, frames_per_segment=5, record=False)) as stream:
        stream.hear(hum(0.5, 48_000))
        stream.finish()
        made = list(stream.segments())
    assert [each.num_frames for each in made if each.num_frames] == [5, 5, 5, 5]


def test_a_permit_opens_one_session_on_its_own_terms(
    worker: RenderWorker, order: Callable[[bytes], dict[str, Any]], end: EndSigner, tmp_path: Path
) -> None:
    asked = order(LiveTerms(1_000).to_bytes())
    rest = {"end_key": end.entry, "spool": tmp_path / "spool", "may_repeat": False}
    with pytest.raises(PermitSpeechError):
        worker.open_live(**(asked | {"terms": LiveTerms(60_000).to_bytes()}), **rest)
    worker.open_live(**asked, **rest)
    with pytest.raises(PermitReusedError):
        worker.open_live(**asked, **(rest | {"spool": tmp_path / "other"}))


def test_a_permit_for_a_render_opens_no_session(
    worker: RenderWorker, gatekeeper: Gatekeeper, portrait_png: bytes, end: EndSigner, tmp_path: Path
) -> None:
    terms = LiveTerms(1_000).to_bytes()
    token, ruling = gatekeeper.permit(portrait_png, terms, {})
    with pytest.raises(GrantMismatchError):
        worker.open_live(
            token, portrait=portrait_png, terms=terms, controls={}, consent=None, evidence=ruling.evidence.to_json(),
            end_key=end.entry, spool=tmp_path / "spool", may_repeat=False,
        )  # fmt: skip


@pytest.mark.heavy
def test_only_permitted_controls_change(open_live: Open) -> None:
    with open_live(LiveTerms(1_000, record=False)) as stream:
        stream.change({"head_pose": {"yaw_deg": 10}})
        for refused in ({"emotion": "joy"}, {"seed": 4}, {"gaze": [90, 0]}):
            with pytest.raises(ControlError):
                stream.change(refused)
        stream.abort()


def test_a_changed_control_is_reached_gently() -> None:
    before, after = MotionControls(), MotionControls.from_json({"gaze": [10, 0]})
    curve = eased(before, after, "gaze", 2.0)
    at = curve.at(np.array([0.0, 2.0, 2.15, 2.3, 9.0]))[:, 0]
    assert at[0] == at[1] == 0 and 0 < at[2] < 10 and at[3] == at[4] == 10


@pytest.mark.parametrize("rate_hz", [16_000, 48_000])
def test_both_rates_come_out_whatever_the_pieces(rate_hz: int) -> None:
    sound_N = hum(0.5, rate_hz)
    whole = Rates(rate_hz).both(sound_N)
    pieces, parts = Rates(rate_hz), []
    rng = np.random.default_rng(5)
    while len(sound_N):
        size = int(rng.integers(0, 700))
        parts.append(pieces.both(sound_N[:size]))
        sound_N = sound_N[size:]
    for index, expected in enumerate((8_000, 24_000)):
        joined = np.concatenate([part[index] for part in parts])
        assert len(whole[index]) == len(joined) == expected
        np.testing.assert_allclose(joined, whole[index], atol=1e-6)
    assert abs(lag_s(np.repeat(whole[0], 3), whole[1], 48_000)) < 0.002


def test_rows_in_between() -> None:
    def row(value: float) -> MotionRow:
        return MotionRow(np.full(52, value, np.float32), np.zeros(6, np.float32), np.zeros(2, np.float32), 1.0)

    rate = FrameRate(40)
    seen = [float(each.actions_52[0]) for number in range(6) for each in rate.rows(row(number))]
    np.testing.assert_allclose(seen, np.arange(9) * 0.625, atol=1e-6)
    assert len(rate.rest(12)) == 3 and rate.num_frames == 12


@pytest.mark.parametrize(
    "changes",
    [
        {"max_duration_ms": 0}, {"max_duration_ms": True}, {"rate_hz": 30}, {"sound_rate_hz": 44_100},
        {"frames_per_segment": 6}, {"record": 1}, {"max_duration_ms": 10**9},
    ],
)  # fmt: skip
def test_terms_that_cannot_be_kept(changes: dict[str, Any]) -> None:
    with pytest.raises(LiveTermsError) as caught:
        LiveTerms(**({"max_duration_ms": 1_000} | changes))
    assert caught.value.field == next(iter(changes))


def test_terms_come_back_as_they_were() -> None:
    terms = LiveTerms(1_000, rate_hz=40)
    assert LiveTerms.from_bytes(terms.to_bytes()) == terms
    for unverified in (b"", b"{}", terms.to_bytes() + b" ", terms.to_bytes().replace(b"live-1", b"live-2")):
        with pytest.raises(LiveTermsError):
            LiveTerms.from_bytes(unverified)


def test_pcm_of_an_odd_length() -> None:
    np.testing.assert_allclose(pcm16(b"\x00\x40\x00\xc0\x01"), [0.5, -0.5])
