"""Live streams: each segment stands for itself, and nothing can be changed, left out, moved, repeated or cut off."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import encypher_c2pa
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.watermark.clips import lag_s
from watermark.audio_mark import AudioEmbedder
from watermark.authority import SigningAuthority
from watermark.boxes import Box, cut, make
from watermark.credentials import Ingredient, ManifestSpec, read_credentials
from watermark.embed import Embedder
from watermark.encoding import VideoCoding
from watermark.errors import (
    ForeignSegmentError,
    InitSegmentError,
    LiveError,
    SegmentGapError,
    SegmentReorderedError,
    SegmentReplayedError,
    SegmentSignatureError,
    SegmentTamperedError,
    SessionExpiredError,
    SigningError,
    StreamEndedError,
    StreamTruncatedError,
    UnreadableMediaError,
    UnsignedSegmentError,
)
from watermark.extract import read_mark
from watermark.fragments import codecs, length_prefixed
from watermark.live import (
    DIALECTS,
    ENCYPHER,
    SPECIFICATION,
    Dialect,
    EndSigner,
    LiveSigner,
    LiveVerifier,
    verify_stream,
)
from watermark.mark import UnmarkedFrames
from watermark.media import Clip, Sound, decode_clip
from watermark.payload import MarkId
from watermark.segments import LiveProducer, SegmentEncoder

SIDE_PX = 256


@dataclass(frozen=True)
class Stream:
    init: bytes
    segments: tuple[bytes, ...]

    def whole(self) -> bytes:
        return self.init + b"".join(self.segments)


Produce = Callable[..., Stream]


@pytest.fixture(scope="module")
def produce(clip: Clip, key: bytes, mark_id: MarkId, authority: SigningAuthority, live_spec: ManifestSpec) -> Produce:
    assert clip.sound is not None
    sound = clip.sound.resampled(48_000)

    def produce(dialect: Dialect = SPECIFICATION, has_sound: bool = True, num_frames: int = 74) -> Stream:
        encoder = SegmentEncoder(
            width=SIDE_PX, height=SIDE_PX, rate_hz=25.0, has_sound=has_sound, coding=VideoCoding(num_threads=1)
        )
        embedder = Embedder(key, mark_id, SIDE_PX, SIDE_PX, 25.0)
        producer = LiveProducer(encoder, embedder, LiveSigner(authority, live_spec, dialect=dialect))
        segments: list[bytes] = []
        for start in range(0, num_frames, 15):
            end = min(start + 15, num_frames)
            part = Sound(sound.samples_N[start * 1920 : end * 1920], 48_000)
            frames = UnmarkedFrames(clip.frames_THWC[start:end, ::2, ::2])
            segments += producer.write(frames, part if has_sound else None)
        return Stream(producer.init_segment, (*segments, *producer.finish()))

    return produce


@pytest.fixture(scope="module")
def live_spec(make_spec: Callable[[MarkId], ManifestSpec], mark_id: MarkId) -> ManifestSpec:
    return make_spec(mark_id)


@pytest.fixture(scope="module")
def stream(produce: Produce) -> Stream:
    return produce()


@pytest.fixture(scope="module")
def other_stream(produce: Produce) -> Stream:
    return produce()


@pytest.fixture(scope="module", params=[True, False], ids=["with sound", "picture alone"])
def independent_stream(produce: Produce, request: pytest.FixtureRequest) -> tuple[Stream, str]:
    """In the dialect of the independent validator, with the encapsulation that it is to be told."""
    return produce(ENCYPHER, request.param), "fMP4" if request.param else "CMAF"


def info_of(segment: bytes) -> Box:
    (found,) = (box for box in cut(segment) if box.kind == b"emsg")
    return found


def without(segment: bytes, kind: bytes) -> bytes:
    return b"".join(box.data for box in cut(segment) if box.kind != kind)


# ---- as it should be -------------------------------------------------------------------------------------------------


def test_a_whole_stream_verifies(stream: Stream, authority: SigningAuthority) -> None:
    evidence = verify_stream(stream.init, stream.segments, authority.root_pem)
    assert [each.number for each in evidence] == [1, 2, 3, 4]
    assert [each.end for each in evidence] == [None, None, None, "complete"]
    assert abs((evidence[0].signed_at - dt.datetime.now(dt.UTC)).total_seconds()) < 600


def test_a_segment_is_one_fragment_with_its_info_behind_styp(stream: Stream) -> None:
    for segment in stream.segments[:-1]:
        assert [box.kind for box in cut(segment)] == [b"styp", b"emsg", b"moof", b"mdat"]
        assert len(info_of(segment).data) < 600
    assert [box.kind for box in cut(stream.segments[-1])] == [b"styp", b"emsg"]


def test_the_init_segment_reads_as_trusted(
    stream: Stream, authority: SigningAuthority, live_spec: ManifestSpec
) -> None:
    reading = read_credentials(stream.init, "video/mp4", authority.root_pem)
    assert (reading.state, reading.problems) == ("trusted", ())
    assert (reading.mark_id, reading.consent, reading.log) == (live_spec.mark_id, live_spec.consent, live_spec.log)
    assert reading.manifest is not None and len(reading.manifest["ingredients"]) == 2
    assert read_credentials(stream.init, "video/mp4", "").state == "valid"


def test_every_frame_carries_the_mark_and_the_sound_is_in_time(
    stream: Stream, clip: Clip, key: bytes, mark_id: MarkId
) -> None:
    played = decode_clip(stream.whole())
    assert len(played.frames_THWC) == 74
    assert played.rate_hz == pytest.approx(25.0)
    found = read_mark(played, key, lambda found: found == mark_id, num_registered=1)
    assert (found.state, found.mark_id) == ("detected", mark_id)
    assert played.sound is not None and clip.sound is not None
    heard = played.sound.resampled(16_000).samples_N[:40_000]
    assert abs(lag_s(heard, clip.sound.samples_N[:40_000], 16_000)) < 0.002


def test_whoever_joins_late_needs_the_init_segment_only(stream: Stream, authority: SigningAuthority) -> None:
    verifier = LiveVerifier(stream.init, authority.root_pem, first_number=None)
    assert verifier.verify(stream.segments[2]).number == 3


def test_the_independent_validator_accepts_the_stream(
    independent_stream: tuple[Stream, str], authority: SigningAuthority
) -> None:
    stream, encapsulation = independent_stream
    report = independently(stream.init, stream.segments, encapsulation, authority)
    assert (report["integrity"], report["stream"]["validation_state"]) == ("valid", "Trusted")
    verify_stream(stream.init, stream.segments, authority.root_pem)


def independently(init: bytes, segments: tuple[bytes, ...], encapsulation: str, authority: SigningAuthority) -> dict:
    return dict(
        encypher_c2pa.verify_stream(
            init,
            list(segments),
            "video/mp4",
            encapsulation=encapsulation,
            method="verifiable-segment-info",
            trust_pem=authority.root_pem,
            telemetry=False,
        )
    )


# ---- attacks, refused by name ----------------------------------------------------------------------------------------


def flipped(data: bytes, place: int) -> bytes:
    changed = bytearray(data)
    changed[place] ^= 1
    return bytes(changed)


def attacks(mine: tuple[bytes, ...], foreign: tuple[bytes, ...]) -> Iterator[tuple[str, tuple[bytes, ...], type]]:
    """Name, what arrives instead of `mine`, and how it is refused. A cut tail has a test of its own."""
    one, two, three, end = mine
    yield "tamper", (one, flipped(two, len(two) - 100), three, end), SegmentTamperedError
    yield "tamper with the fragment", (one, flipped(two, len(two) // 8 + 600), three, end), SegmentTamperedError
    yield "cut a segment short", (one, two[:-500], three, end), SegmentTamperedError
    yield "drop", (one, three, end), SegmentGapError
    yield "reorder", (one, three, two, end), SegmentGapError
    yield "replay", (one, two, two, three, end), SegmentReplayedError
    yield "foreign", (one, foreign[1], three, end), ForeignSegmentError
    yield "stripped", (one, without(two, b"emsg"), three, end), UnsignedSegmentError
    other = cut(one)
    swapped = b"".join(box.data if box.kind != b"emsg" else info_of(two).data for box in other)
    yield "another segment's info", (swapped, two, three, end), SegmentTamperedError
    yield "two infos", (one, two[: len(cut(two)[0].data)] + info_of(two).data * 2 + three, end), UnsignedSegmentError


ATTACKS = [
    "tamper",
    "tamper with the fragment",
    "cut a segment short",
    "drop",
    "reorder",
    "replay",
    "foreign",
    "stripped",
    "another segment's info",
    "two infos",
]


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_is_refused_by_name(
    name: str, stream: Stream, other_stream: Stream, authority: SigningAuthority
) -> None:
    by_name = {found: (arriving, error) for found, arriving, error in attacks(stream.segments, other_stream.segments)}
    assert list(by_name) == ATTACKS
    arriving, error = by_name[name]
    with pytest.raises(error):
        verify_stream(stream.init, arriving, authority.root_pem)


@pytest.fixture(scope="module")
def independent_pair(produce: Produce) -> tuple[Stream, Stream]:
    return produce(ENCYPHER, False), produce(ENCYPHER, False)


@pytest.mark.parametrize("name", [name for name in ATTACKS if name != "two infos"])
def test_the_independent_validator_refuses_it_too(
    name: str, independent_pair: tuple[Stream, Stream], authority: SigningAuthority
) -> None:
    mine, foreign = independent_pair
    arriving = next(arriving for found, arriving, _ in attacks(mine.segments, foreign.segments) if found == name)
    try:
        assert independently(mine.init, arriving, "CMAF", authority)["integrity"] == "invalid"
    except ValueError as exc:  # its way to refuse what does not consist of whole boxes
        assert "unexpected end of data" in str(exc)


def test_a_late_segment_is_called_reordered_and_the_rest_goes_on(stream: Stream, authority: SigningAuthority) -> None:
    one, two, three, end = stream.segments
    verifier = LiveVerifier(stream.init, authority.root_pem)
    verifier.verify(one)
    with pytest.raises(SegmentGapError):
        verifier.verify(three)
    with pytest.raises(SegmentReorderedError):
        verifier.verify(two)
    with pytest.raises(SegmentReplayedError):
        verifier.verify(two)
    assert verifier.verify(end).end == "complete"


def test_a_cut_tail_is_seen(stream: Stream, authority: SigningAuthority) -> None:
    with pytest.raises(StreamTruncatedError):
        verify_stream(stream.init, stream.segments[:-1], authority.root_pem)
    with pytest.raises(SegmentGapError):
        verify_stream(stream.init, (*stream.segments[:2], stream.segments[3]), authority.root_pem)


def test_nothing_follows_the_end(
    clip: Clip, authority: SigningAuthority, live_spec: ManifestSpec, stream: Stream
) -> None:
    signer = LiveSigner(authority, live_spec)
    init = signer.sign_init(cut_init(stream.init))
    end = signer.end("revoked")
    with pytest.raises(SigningError):
        signer.end()
    verifier = LiveVerifier(init, authority.root_pem)
    assert verifier.verify(end).end == "revoked"
    verifier.finish()
    with pytest.raises(SegmentReplayedError):
        verifier.verify(end)
    # Only a signer that breaks its own rules gets here.
    signer._has_ended = False
    with pytest.raises(StreamEndedError):
        verifier.verify(signer.end())


def cut_init(signed: bytes) -> bytes:
    """The init segment as it was before it was signed."""
    return without(signed, b"uuid")


def test_the_signature_is_by_the_session_key(stream: Stream, authority: SigningAuthority) -> None:
    info = info_of(stream.segments[0])
    place = stream.segments[0].index(info.data) + len(info.data) - 5
    with pytest.raises(SegmentSignatureError):
        LiveVerifier(stream.init, authority.root_pem).verify(flipped(stream.segments[0], place))


def test_a_session_key_is_good_for_its_time_only(
    live_spec: ManifestSpec, authority: SigningAuthority, stream: Stream
) -> None:
    times = [dt.datetime.now(dt.UTC)]
    clocked = SigningAuthority(
        root_pem=authority.root_pem,
        chain_pem=authority.chain_pem,
        leaf_key=authority._leaf_key,
        now=lambda: times[-1],
    )
    signer = LiveSigner(clocked, live_spec, validity_s=60)
    init = signer.sign_init(cut_init(stream.init))
    segment = without(stream.segments[0], b"emsg")
    times.append(times[0] + dt.timedelta(seconds=3600))
    with pytest.raises(SigningError, match="expired"):
        signer.sign_segment(segment, 1.0)
    # A signer that does so nevertheless is found out.
    signer._validity_s = 10_000
    with pytest.raises(SessionExpiredError):
        LiveVerifier(init, authority.root_pem).verify(signer.sign_segment(segment, 1.0))


def test_a_key_bound_to_another_signer_is_refused(
    stream: Stream, live_spec: ManifestSpec, authority: SigningAuthority, tmp_path: Path
) -> None:
    other = SigningAuthority.create(tmp_path / "pki", "Another instance")
    signer = LiveSigner(authority, live_spec)
    signer._session_key = lambda: LiveSigner(other, live_spec)._session_key()  # type: ignore[method-assign]
    init = signer.sign_init(cut_init(stream.init))
    with pytest.raises(InitSegmentError, match="does not verify"):
        LiveVerifier(init, authority.root_pem)


def test_an_unknown_signer_is_refused_unless_allowed(stream: Stream, authority: SigningAuthority) -> None:
    with pytest.raises(InitSegmentError, match="valid"):
        LiveVerifier(stream.init, "")
    assert len(verify_stream(stream.init, stream.segments, "", must_be_trusted=False)) == 4


def test_an_init_segment_is_signed_once_and_holds_no_media(
    stream: Stream, live_spec: ManifestSpec, authority: SigningAuthority
) -> None:
    signer = LiveSigner(authority, live_spec)
    with pytest.raises(SigningError):
        signer.sign_init(stream.init)
    with pytest.raises(SigningError):
        signer.sign_init(cut_init(stream.init) + make(b"mdat", b"picture"))
    with pytest.raises(UnreadableMediaError):
        signer.sign_init(stream.segments[0])
    with pytest.raises(InitSegmentError):
        LiveVerifier(cut_init(stream.init), authority.root_pem)


def test_segments_are_signed_in_order(stream: Stream, live_spec: ManifestSpec, authority: SigningAuthority) -> None:
    signer = LiveSigner(authority, live_spec)
    signer.sign_init(cut_init(stream.init))
    with pytest.raises(SigningError, match="next one"):
        signer.sign_segment(without(stream.segments[1], b"emsg"), 1.0)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_byte_of_a_segment_can_be_flipped_unseen(
    data: st.DataObject, stream: Stream, authority: SigningAuthority
) -> None:
    segment = stream.segments[0]
    head = len(segment) - len(cut(segment)[-1].data)
    place = data.draw(st.one_of(st.integers(0, head + 8), st.integers(head, len(segment) - 1)))
    changed = bytearray(segment)
    changed[place] ^= 1 << data.draw(st.integers(0, 7))
    verifier = cached_verifier(stream, authority)
    try:
        verifier.verify(bytes(changed))
    except LiveError:
        return
    # The event's own timing and the unprotected headers carry no claim; what they say is ignored.
    info = info_of(segment)
    assert info.offset <= place < info.offset + len(info.data)


def cached_verifier(stream: Stream, authority: SigningAuthority) -> LiveVerifier:
    return LiveVerifier(stream.init, authority.root_pem)


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_are_refused_with_an_error_of_ours(data: bytes) -> None:
    with pytest.raises(InitSegmentError):
        LiveVerifier(data, "")
    try:
        cut(data)
    except UnreadableMediaError:
        return


def test_the_dialect_is_a_setting(stream: Stream, independent_stream: tuple[Stream, str]) -> None:
    assert set(DIALECTS) == {"specification", "encypher"}
    assert b"\0fseg\0" in info_of(stream.segments[0]).data
    assert b"\0c2pa\0" in info_of(independent_stream[0].segments[0]).data


def test_ingredients_are_named(stream: Stream, authority: SigningAuthority, live_spec: ManifestSpec) -> None:
    titled = replace(live_spec, portrait=Ingredient(b"", "image/png", "Persona"))
    init = LiveSigner(authority, titled).sign_init(cut_init(stream.init))
    manifest = read_credentials(init, "video/mp4", authority.root_pem).manifest
    assert manifest is not None
    assert [each["title"] for each in manifest["ingredients"]] == ["Persona", "Speech"]


def test_segments_have_the_duration_that_was_asked_for(clip: Clip) -> None:
    encoder = SegmentEncoder(width=128, height=128, rate_hz=25.0, has_sound=False, segment_s=0.4)
    planes = np.zeros((128, 128), np.uint8)
    from watermark.colour import encoder_planes

    segments = []
    for _ in range(25):
        segments += encoder.write(encoder_planes(np.dstack([planes] * 3)), None)
    segments += encoder.finish()
    assert [segment.duration_s for segment in segments] == [0.4, 0.4, pytest.approx(0.2)]


# ---- frame by frame --------------------------------------------------------------------------------------------------


def frame_by_frame(
    clip: Clip, key: bytes, mark_id: MarkId, authority: SigningAuthority, spec: ManifestSpec, end: EndSigner
) -> tuple[LiveProducer, list[bytes]]:
    """A second of segments of one frame each, marked in picture and sound, one of them a key frame."""
    assert clip.sound is not None
    sound = clip.sound.resampled(48_000)
    encoder = SegmentEncoder(
        width=SIDE_PX, height=SIDE_PX, rate_hz=25.0, segment_s=0.04, key_frame_s=1.0, coding=VideoCoding(num_threads=1)
    )
    producer = LiveProducer(
        encoder,
        Embedder(key, mark_id, SIDE_PX, SIDE_PX, 25.0),
        LiveSigner(authority, spec, further_keys=[end.entry]),
        sound_embedder=AudioEmbedder(key, mark_id, 48_000),
    )
    made: list[bytes] = []
    for number in range(25):
        part = Sound(sound.samples_N[number * 1920 : (number + 1) * 1920], 48_000)
        frame = UnmarkedFrames(clip.frames_THWC[number : number + 1, ::2, ::2])
        (segment,) = producer.write_segments(frame, part)  # it leaves with its own frame, not with the next one
        assert segment.num_frames == 1 and segment.duration_s == pytest.approx(0.04)
        made.append(segment.data)
    return producer, [*made, *(segment.data for segment in producer.finish_segments())]


def test_segments_of_one_frame_leave_at_once_and_play(
    clip: Clip, key: bytes, mark_id: MarkId, authority: SigningAuthority, live_spec: ManifestSpec
) -> None:
    assert clip.sound is not None
    end = EndSigner(authority.chain_der[0])
    producer, segments = frame_by_frame(clip, key, mark_id, authority, live_spec, end)
    stream = [*segments, end.end(producer.manifest_id, len(segments), "complete")]
    assert verify_stream(producer.init_segment, stream, authority.root_pem)[-1].end == "complete"
    played = decode_clip(producer.init_segment + b"".join(stream))
    assert len(played.frames_THWC) == 25 and played.sound is not None
    expected = clip.sound.resampled(48_000).samples_N[:48_000]
    assert abs(lag_s(played.sound.resampled(48_000).samples_N, expected, 48_000)) < 0.01
    sizes = [len(segment) for segment in segments[1:25]]
    assert max(sizes) < len(segments[0]), "only the first frame is a key frame"


def test_the_end_is_signed_by_whoever_lets_the_segments_out(
    clip: Clip, key: bytes, mark_id: MarkId, authority: SigningAuthority, live_spec: ManifestSpec
) -> None:
    """Seven of the segments have left when the one who makes them is gone: the stream ends behind the seventh."""
    end = EndSigner(authority.chain_der[0])
    producer, segments = frame_by_frame(clip, key, mark_id, authority, live_spec, end)
    stream = [*segments[:7], end.end(producer.manifest_id, 7, "failed")]
    assert verify_stream(producer.init_segment, stream, authority.root_pem)[-1].end == "failed"
    with pytest.raises(SegmentReplayedError):
        verify_stream(producer.init_segment, [*segments[:8], stream[-1]], authority.root_pem)
    with pytest.raises(SegmentGapError):
        verify_stream(producer.init_segment, [*segments[:6], stream[-1]], authority.root_pem)
    stranger = EndSigner(authority.chain_der[0])
    with pytest.raises(ForeignSegmentError):
        verify_stream(
            producer.init_segment, [*segments[:7], stranger.end(producer.manifest_id, 7, "failed")], authority.root_pem
        )


def test_the_independent_validator_takes_frame_by_frame_and_an_end_by_another_key(
    authority: SigningAuthority, live_spec: ManifestSpec, clip: Clip, key: bytes, mark_id: MarkId
) -> None:
    end = EndSigner(authority.chain_der[0], dialect=ENCYPHER)
    encoder = SegmentEncoder(
        width=SIDE_PX, height=SIDE_PX, rate_hz=25.0, has_sound=False, segment_s=0.04, key_frame_s=1.0,
        coding=VideoCoding(num_threads=1),
    )  # fmt: skip
    signer = LiveSigner(authority, live_spec, dialect=ENCYPHER, further_keys=[end.entry])
    producer = LiveProducer(encoder, Embedder(key, mark_id, SIDE_PX, SIDE_PX, 25.0), signer)
    segments = producer.write(UnmarkedFrames(clip.frames_THWC[:3, ::2, ::2]), None)
    segments.append(end.end(producer.manifest_id, len(segments), "complete"))
    report = encypher_c2pa.verify_stream(
        producer.init_segment, segments, "video/mp4", encapsulation="CMAF", method="verifiable-segment-info",
        trust_pem=authority.root_pem, telemetry=False,
    )  # fmt: skip
    assert report["integrity"] == "valid"


@given(units=st.lists(st.binary(min_size=1, max_size=40).map(lambda data: b"\x65" + data.replace(b"\0", b"\1"))))
def test_units_of_a_byte_stream_come_back_behind_their_lengths(units: list[bytes]) -> None:
    prefixed = length_prefixed(b"".join(b"\0\0\0\1" + unit for unit in units))
    assert prefixed == b"".join(len(unit).to_bytes(4, "big") + unit for unit in units)


def test_the_media_type_names_what_players_need(stream: Stream) -> None:
    assert re.fullmatch(r"avc1\.64[0-9A-F]{4}, mp4a\.40\.2", codecs(stream.init))
