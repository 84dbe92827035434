"""Live sessions over a real socket: how they open, what they bear, and that they end on record, whatever happens.

The worker of most tests draws instead of rendering (`toy_live_worker`); permits, marks, signatures and log are real.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from api.client import Enrolled, PlacetClient, ProblemError
from api.engine.process import EngineProcess
from api.live.client import LiveConnection, LiveEndedError, open_session, placet_live
from api.live.clock import JITTER_S, MAX_LEAD_S, SoundClock
from api.live.errors import ChunkError, MessageError, OpeningError
from api.live.messages import Opening, check_chunk, message_of, opening_of
from policy.consent import PURPOSE_RESEARCH
from policy.errors import LogError
from tests.api.conftest import Running, make_wav, serving, vetted
from tests.api.test_gate import consent_to
from tests.api.toy_live_worker import DIE_AT
from tests.faces import another_face
from watermark.credentials import read_credentials
from watermark.live import LiveVerifier
from watermark.media import decode_clip
from watermark.stream_files import is_stream, stream_parts, verify_stream_files

TONE = make_wav(1.0)[44:]
CHUNK = TONE[:1280]
Start = Callable[..., LiveConnection]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server whose live workers draw."""
    limits = {
        "live_sessions": 3, "live_grace_s": 3.0, "live_idle_s": 5.0, "live_silence_s": 4.0, "live_slow_s": 3.0,
        "live_ticket_s": 8.0, "live_log_interval_s": 0.2, "live_controls_per_s": 5,
    }  # fmt: skip
    with serving(tmp_path_factory.mktemp("live") / "home", **limits) as running:
        for worker in running.service.live.workers:
            worker.process = EngineProcess("tests.api.toy_live_worker", worker._hello)
        running.service.worker.process = EngineProcess("tests.console.toy_worker", running.service.worker._hello)
        yield running


@pytest.fixture(scope="module")
def operator(server: Running) -> Iterator[PlacetClient]:
    from api.client import Credentials

    with PlacetClient(server.url, Credentials.load(server.settings.operator_key_path)) as client:
        yield client


@pytest.fixture(scope="module")
def subject(server: Running, portrait: bytes) -> Iterator[tuple[PlacetClient, Enrolled]]:
    with PlacetClient(server.url) as client:
        yield client, client.enrol(another_face(portrait, 31), subject_class="persona", rights_basis="made for a test")


@pytest.fixture(scope="module")
def researcher(server: Running, operator: PlacetClient, subject: tuple[PlacetClient, Enrolled]) -> PlacetClient:
    made = vetted(server, operator, "researcher", budget_s_per_day=86_400.0, max_concurrent=8)
    consent_to(subject[0], made, controls=("*",), max_uses=200)
    return made


@pytest.fixture(scope="module")
def request_for(subject: tuple[PlacetClient, Enrolled]) -> dict[str, Any]:
    return {
        "subject_id": subject[1].subject_id,
        "portrait_sha256": subject[1].portrait_sha256,
        "purpose": PURPOSE_RESEARCH,
        "pace": "free",
        "max_duration_s": 5.0,
        "controls": {"gaze": None, "blink_rate": None},
    }


@pytest.fixture
def start(researcher: PlacetClient, request_for: dict[str, Any]) -> Iterator[Start]:
    """Opens sessions, and closes what a test leaves open."""
    opened: list[LiveConnection] = []

    def started(**changes: Any) -> LiveConnection:
        client = changes.pop("client", researcher)
        opened.append(placet_live(client, **(request_for | changes)))
        return opened[-1]

    yield started
    for connection in opened:
        connection.close()


def ended(connection: LiveConnection) -> tuple[list[bytes], dict[str, Any]]:
    """All that still comes."""
    segments = list(connection.segments())
    assert connection.ended is not None
    return segments, connection.ended


def checked(server: Running, connection: LiveConnection, segments: list[bytes]) -> str | None:
    """Every segment verifies, and none is missing up to the signed end, which is returned."""
    verifier = LiveVerifier(connection.init_segment, server.service.trust_roots_pem.decode())
    evidence = [verifier.verify(segment) for segment in segments]
    verifier.finish()
    return evidence[-1].end


def entry_of(server: Running, over: dict[str, Any]) -> dict[str, Any]:
    """The entry that closed a session."""
    entry = server.service.log.entry(over["log_index"])
    assert entry["kind"] == "live.closed"
    return dict(entry["body"])


# ---- a session as it should be ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def spoken(
    server: Running, researcher: PlacetClient, request_for: dict[str, Any]
) -> tuple[LiveConnection, list[bytes], dict[str, Any]]:
    """A second of sound, spoken to the end."""
    with placet_live(researcher, **request_for) as connection:
        for begin in range(0, len(TONE), 2000):
            connection.say(TONE[begin : begin + 2000])
        connection.change({"gaze": [5, 0]})
        connection.finish()
        return connection, *ended(connection)


def test_the_stream_verifies_plays_and_carries_its_manifest(
    server: Running, spoken: tuple[LiveConnection, list[bytes], dict[str, Any]], tmp_path: Path
) -> None:
    connection, segments, over = spoken
    assert (over["reason"], over["code"], over["num_segments"]) == ("complete", "", len(segments) - 1)
    assert checked(server, connection, segments) == "complete"
    path = tmp_path / "stream.mp4"
    path.write_bytes(connection.init_segment + b"".join(segments))
    clip = decode_clip(path)
    assert len(clip.frames_THWC) == 25 and clip.sound is not None
    roots = server.service.trust_roots_pem.decode()
    assert is_stream(path) and verify_stream_files(path, roots).end == "complete"
    reading = read_credentials(connection.init_segment, "video/mp4", roots)
    assert reading.state == "trusted" and reading.manifest_id == connection.opened["manifest_id"]


def test_opening_and_end_are_on_record_and_the_person_shown_sees_them(
    server: Running,
    spoken: tuple[LiveConnection, list[bytes], dict[str, Any]],
    subject: tuple[PlacetClient, Enrolled],
) -> None:
    connection, segments, over = spoken
    opening = server.service.log.entry(connection.opened["log_index"])
    decision = server.service.log.entry(opening["body"]["decision_index"])
    assert opening["kind"] == "live.opened" and decision["body"]["request"]["action"] == "live"
    assert decision["body"]["request"]["controls"] == ["blink_rate", "gaze"]
    closing = entry_of(server, over)
    import hashlib

    digest = hashlib.sha256(connection.init_segment + b"".join(segments)).hexdigest()
    assert closing["segments_sha256"] == digest and closing["num_changes"] == 1
    kinds = {use["log_index"]: use["kind"] for use in subject[0].uses()}
    assert kinds[over["log_index"]] == "live.closed" and kinds[connection.opened["log_index"]] == "live.opened"


def test_the_recording_is_fetched_like_a_render(
    server: Running, researcher: PlacetClient, spoken: tuple[LiveConnection, list[bytes], dict[str, Any]]
) -> None:
    connection, _, over = spoken
    done = researcher.wait(over["render_id"], timeout_s=60)
    video = researcher.video(done["render_id"])
    assert done["num_frames"] == 25 and len(decode_clip(video).frames_THWC) == 25
    manifest = read_credentials(video, "video/mp4", server.service.trust_roots_pem.decode())
    assert manifest.state == "trusted" and manifest.mark_id is not None and manifest.mark_id.hex == done["mark_id"]
    said = str(manifest.manifest)
    assert connection.opened["manifest_id"] in said and f"{over['log_index']}" in said
    assert done["speech_s"] == pytest.approx(1.0)  # what was not used of the budget came back
    assert not list(server.settings.staging_dir.iterdir())


def test_a_stream_that_lost_its_tail_or_a_segment_is_refused(
    server: Running, spoken: tuple[LiveConnection, list[bytes], dict[str, Any]], tmp_path: Path
) -> None:
    from watermark.errors import LiveError

    connection, segments, _ = spoken
    roots = server.service.trust_roots_pem.decode()
    folder = tmp_path / "stream"
    folder.mkdir()
    (folder / "init.mp4").write_bytes(connection.init_segment)
    for number, segment in enumerate(segments):
        (folder / f"{number:06d}.m4s").write_bytes(segment)
    assert verify_stream_files(folder, roots).num_segments == len(segments) - 1
    (folder / "000003.m4s").unlink()
    with pytest.raises(LiveError):
        verify_stream_files(folder, roots)
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(connection.init_segment + b"".join(segments[:-1]))
    assert len(list(stream_parts(cut))) == len(segments)
    with pytest.raises(LiveError):
        verify_stream_files(cut, roots)


# ---- who gets in -----------------------------------------------------------------------------------------------------


def test_the_gate_says_all_its_reasons(
    server: Running, operator: PlacetClient, request_for: dict[str, Any], researcher: PlacetClient
) -> None:
    stranger = vetted(server, operator, "researcher", org="elsewhere")
    with pytest.raises(ProblemError) as caught:
        open_session(stranger, **request_for)
    assert (caught.value.status, caught.value.reasons) == (
        403,
        ("consent.grantee_org", "consent.grantee_client"),
    )
    with pytest.raises(ProblemError) as caught:
        open_session(researcher, **(request_for | {"max_duration_s": 80_000.0}))
    assert set(caught.value.reasons) == {"duration.limit"}


def test_controls_outside_the_consent_are_refused(
    server: Running, operator: PlacetClient, subject: tuple[PlacetClient, Enrolled], request_for: dict[str, Any]
) -> None:
    client = vetted(server, operator, "researcher")
    consent_to(subject[0], client, controls=("gaze",))
    with pytest.raises(ProblemError) as caught:
        open_session(client, **request_for)  # blink_rate may not be set, not even later
    assert caught.value.reasons == ("consent.controls",)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"controls": {"gaze": [90, 0]}}, "control.invalid"),
        ({"rate_hz": 30}, "request.field_invalid"),
        ({"frames_per_segment": 6}, "request.field_invalid"),
        ({"surprise": 1}, "request.field_invalid"),
        ({"portrait_sha256": "0" * 64}, "portrait.not_enrolled"),
    ],
)
def test_what_cannot_be_opened(
    researcher: PlacetClient, request_for: dict[str, Any], changes: dict[str, Any], code: str
) -> None:
    with pytest.raises(ProblemError) as caught:
        open_session(researcher, **(request_for | changes))
    assert caught.value.status == 422 or caught.value.status == 400
    assert caught.value.code.split(".")[0] == code.split(".")[0], caught.value.problem


def test_a_ticket_opens_one_session_once(
    server: Running, researcher: PlacetClient, request_for: dict[str, Any]
) -> None:
    size = server.service.log.size
    session = open_session(researcher, **request_for)
    with LiveConnection(session) as first:
        with pytest.raises(LiveEndedError):
            LiveConnection(session)
        rejected = [
            entry["body"] for entry in server.service.log.entries(size, 99) if entry["kind"] == "token.rejected"
        ]
        assert [body["code"] for body in rejected] == ["stream.ticket"]
        first.say(CHUNK)  # and the first one is undisturbed
        first.finish()
        assert ended(first)[1]["reason"] == "complete"


@pytest.mark.parametrize(
    "first",
    ['{"type": "open", "ticket": "guessed"}', '{"type": "resume", "token": "x", "after": 1}', "{}", "", b"\0\0"],
)
def test_without_a_ticket_there_is_nothing(server: Running, first: str | bytes) -> None:
    with connect(server.url.replace("http", "ws") + "/v1/live", compression=None) as socket:
        socket.send(first)
        with pytest.raises(ConnectionClosed) as caught:
            socket.recv(10)
    assert caught.value.rcvd is not None and caught.value.rcvd.reason in ("stream.ticket", "stream.opening")


def test_a_ticket_that_nobody_uses_gives_its_place_back(
    server: Running, researcher: PlacetClient, request_for: dict[str, Any]
) -> None:
    sessions = [open_session(researcher, **request_for) for _ in range(3)]
    with pytest.raises(ProblemError) as caught:
        open_session(researcher, **request_for)
    assert (caught.value.status, caught.value.code) == (503, "service.busy")
    wait_until(lambda: server.service.live.num_open == 0)
    state = researcher.render_status(sessions[0]["render_id"])
    assert state["status"] == "failed" and state["failure"]["code"] == "stream.ticket"


def wait_until(holds: Callable[[], bool], timeout_s: float = 20.0) -> None:
    give_up_at = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < give_up_at
        time.sleep(0.02)


# ---- what it bears ---------------------------------------------------------------------------------------------------


def test_chunks_and_messages_of_no_use_are_refused_by_name_and_the_rest_goes_on(server: Running, start: Start) -> None:
    connection = start()
    for message in (b"\0" * 3, b"\0" * 10_000_000, b""):
        connection.say(message)
    for text in ("{", "[]", '{"type": "sing"}', '{"type": "controls", "controls": 3}', "x" * 20_000):
        connection._send(text)
    connection.change({"emotion": "joy"})  # not among those that were permitted
    connection.say(CHUNK)
    connection.finish()
    segments, over = ended(connection)
    codes = [note["code"] for note in connection.notes]
    assert codes[:8] == ["stream.chunk"] * 3 + ["stream.message"] * 5 and len(codes) == 9
    assert over["reason"] == "complete" and checked(server, connection, segments) == "complete"


def test_a_flood_of_controls_is_cut_and_the_rest_goes_on(server: Running, start: Start) -> None:
    connection = start()
    connection.say(CHUNK)
    for yaw in range(30):
        connection.change({"gaze": [yaw % 10, 0]})
    connection.finish()
    _, over = ended(connection)
    codes = [note["code"] for note in connection.notes]
    assert codes and set(codes) == {"stream.control_flood"}
    assert entry_of(server, over)["num_changes"] == 30 - len(codes)


def test_who_only_sends_nonsense_is_shown_out(start: Start) -> None:
    connection = start()
    for _ in range(60):
        connection.say(b"\0")
    _, over = ended(connection)
    assert (over["reason"], over["code"]) == ("stopped", "stream.chunk")


def test_a_gap_becomes_silence_and_sound_that_comes_too_fast_is_dropped(server: Running, start: Start) -> None:
    connection = start(pace="realtime")
    connection.say(CHUNK)
    time.sleep(0.8)
    for _ in range(60):  # 2.4 seconds at once
        connection.say(CHUNK)
    connection.finish()
    segments, over = ended(connection)
    body = entry_of(server, over)
    assert body["num_gaps"] >= 1 and body["num_frames"] > 10
    assert [note["code"] for note in connection.notes] == ["stream.too_fast"]
    assert checked(server, connection, segments) == "complete"


def test_nothing_for_long_ends_it(server: Running, start: Start) -> None:
    connection = start()
    connection.say(CHUNK)
    segments, over = ended(connection)
    assert (over["reason"], over["code"]) == ("stopped", "stream.idle")
    assert checked(server, connection, segments) == "stopped"


def test_silence_for_long_ends_it(server: Running, start: Start) -> None:
    connection = start(pace="realtime", max_duration_s=60.0)
    segments = list(_speaking(connection, bytes(len(CHUNK))))
    assert connection.ended is not None and connection.ended["code"] == "stream.silent"
    assert checked(server, connection, segments) == "stopped"


def test_the_permitted_time_is_all_there_is(server: Running, start: Start) -> None:
    connection = start(max_duration_s=0.4)
    connection.say(TONE)
    segments, over = ended(connection)
    assert (over["reason"], over["code"]) == ("expired", "stream.time_over")
    assert checked(server, connection, segments) == "expired" and entry_of(server, over)["num_frames"] == 10


@pytest.mark.heavy
def test_who_takes_nothing_is_not_waited_for(
    server: Running, researcher: PlacetClient, request_for: dict[str, Any]
) -> None:
    session = open_session(researcher, **(request_for | {"pace": "realtime", "max_duration_s": 60.0}))
    url = session["url"]
    with connect(url, compression=None, max_size=None, max_queue=1) as socket:
        socket.send(json.dumps({"type": "open", "ticket": session["ticket"]}))
        assert json.loads(socket.recv(60))["type"] == "opened"
        render_id = session["render_id"]
        try:
            for _ in range(4000):
                if server.service.live.session(render_id) is None:
                    break
                socket.send(CHUNK)
                time.sleep(0.005)
        except ConnectionClosed:
            pass
    wait_until(lambda: server.service.live.session(render_id) is None)
    state = researcher.render_status(render_id)
    entries = [each["body"] for each in server.service.log.entries(0, 10_000) if each["kind"] == "live.closed"]
    assert entries[-1]["code"] in ("stream.slow_reader", "stream.gone"), entries[-1]
    assert state["status"] in ("delivered", "failed", "running")


# ---- coming back -----------------------------------------------------------------------------------------------------


def test_a_lost_connection_is_taken_up_where_it_broke(
    server: Running, researcher: PlacetClient, request_for: dict[str, Any]
) -> None:
    session = open_session(researcher, **request_for)
    first = LiveConnection(session)
    first.say(TONE[:16_000])
    taken = first.segments()
    segments = [next(taken) for _ in range(5)]
    first.socket.socket.close()  # as a network does
    second = LiveConnection(session, resume=first.opened, after=5)
    assert second.init_segment == b"" and second.opened["resumed_after"] == 5
    second.say(TONE[16_000:])
    second.finish()
    more, over = ended(second)
    assert over["reason"] == "complete"
    assert checked(server, first, segments + more) == "complete"
    assert entry_of(server, over)["num_frames"] == 25


def test_nobody_comes_back(server: Running, researcher: PlacetClient, start: Start) -> None:
    connection = start()
    connection.say(CHUNK)
    next(connection.segments())
    connection.close()
    wait_until(lambda: server.service.live.num_open == 0)
    closed = [each["body"] for each in server.service.log.entries(0, 10_000) if each["kind"] == "live.closed"]
    assert closed[-1]["code"] == "stream.gone"


# ---- the end, whatever brings it -------------------------------------------------------------------------------------


def test_a_revocation_lets_at_most_one_more_segment_out(
    server: Running, operator: PlacetClient, subject: tuple[PlacetClient, Enrolled], start: Start
) -> None:
    client = vetted(server, operator, "researcher")
    consent = consent_to(subject[0], client, controls=("*",))
    connection = start(client=client, pace="realtime", max_duration_s=20.0)
    arrived: list[tuple[float, bytes]] = []
    revoked_at = 0.0
    for segment in _speaking(connection):
        arrived.append((time.monotonic(), segment))
        if len(arrived) == 10:
            subject[0].revoke(consent["consent_id"])
            revoked_at = time.monotonic()
    assert connection.ended is not None
    assert (connection.ended["reason"], connection.ended["code"]) == ("revoked", "consent.revoked")
    segments = [segment for _, segment in arrived]
    assert checked(server, connection, segments) == "revoked"
    late = entry_of(server, connection.ended)["num_segments"]
    assert late == len(segments) - 1 and revoked_at > 0
    state = client.render_status(server.service.log and connection.opened["session_id"])
    assert state["status"] == "refused" and state["video_url"] is None


def _speaking(connection: LiveConnection, chunk: bytes = CHUNK) -> Iterator[bytes]:
    """Segments, while sound goes on."""
    import threading

    def say() -> None:
        try:
            while True:
                connection.say(chunk)
                time.sleep(0.04)
        except LiveEndedError:
            return

    speaking = threading.Thread(target=say, daemon=True)
    speaking.start()
    yield from connection.segments()
    connection.close()
    speaking.join(10)


@pytest.mark.heavy
def test_a_worker_that_dies_leaves_a_signed_end_and_the_others_alone(server: Running, start: Start) -> None:
    other, is_over = start(), threading.Event()

    def speak() -> None:
        while not is_over.wait(1.0):
            other.say(CHUNK)

    speaking = threading.Thread(target=speak)
    speaking.start()
    try:
        connection = start()
        connection.say(CHUNK)
        segments = [next(connection.segments())]
        connection.change({"blink_rate": DIE_AT})
        more, over = ended(connection)
    finally:
        is_over.set()
        speaking.join()
    assert (over["reason"], over["code"]) == ("failed", "engine.died")
    assert checked(server, connection, segments + more) == "failed"
    other.finish()
    assert ended(other)[1]["reason"] == "complete"
    again = start()
    again.say(CHUNK)
    again.finish()
    assert ended(again)[1]["reason"] == "complete"


def test_no_log_no_stream(
    server: Running, researcher: PlacetClient, request_for: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    session = open_session(researcher, **request_for)
    record = server.service.gate.record

    def fails_at_opening(kind: str, body: dict[str, Any]) -> Any:
        if kind == "live.opened":
            raise LogError("The disk is full.")
        return record(kind, body)

    monkeypatch.setattr(server.service.gate, "record", fails_at_opening)
    with pytest.raises((LiveEndedError, ProblemError)):
        LiveConnection(session)
    wait_until(lambda: server.service.live.num_open == 0)


def test_a_session_goes_on_record_while_it_lasts(server: Running, start: Start) -> None:
    size = server.service.log.size
    connection = start(pace="realtime")
    for _ in range(20):
        connection.say(CHUNK)
        time.sleep(0.04)
    connection.finish()
    ended(connection)
    progress = [each["body"] for each in server.service.log.entries(size, 99) if each["kind"] == "live.progress"]
    assert progress and progress[-1]["num_segments"] > 0


# ---- pure parts ------------------------------------------------------------------------------------------------------


def test_first_messages() -> None:
    assert opening_of('{"type": "open", "ticket": "t"}') == Opening("t", None)
    assert opening_of('{"type": "resume", "token": "t", "after": 4}') == Opening("t", 4)
    unusable = (
        None, "", "{", "[]", '{"type": "open"}', '{"type": "open", "ticket": "t", "more": 1}',
        '{"type": "resume", "token": "t", "after": true}', '{"type": "resume", "token": "t", "after": -1}',
    )  # fmt: skip
    for wrong in unusable:
        with pytest.raises(OpeningError):
            opening_of(wrong)


def test_later_messages() -> None:
    for wrong in ("[" * 10_000, "null", '{"type": "controls"}', '{"type": "finish", "now": 1}'):
        with pytest.raises(MessageError):
            message_of(wrong)
    assert check_chunk(bytes(640), 16_000) == 0.02
    for size in (0, 1, 32_002):
        with pytest.raises(ChunkError):
            check_chunk(bytes(size), 16_000)


def test_the_clock_of_the_sound() -> None:
    clock = SoundClock()
    clock.go_on(0.0)
    assert clock.gap_s(5.0) == 0.0, "nothing is missing before it began"
    clock.fed(10.0, 0.04)
    assert clock.gap_s(10.0 + JITTER_S) == 0.0
    missing_s = clock.gap_s(11.0)
    assert missing_s == pytest.approx(1.0 - JITTER_S - 0.04) and clock.fill(missing_s) and not clock.fill(0.04)
    assert clock.has_room(11.0, MAX_LEAD_S) and not clock.has_room(11.0, MAX_LEAD_S + JITTER_S + 0.05)
    clock.pause(11.0)
    assert clock.gap_s(100.0) == 0.0
    clock.go_on(100.0)
    assert clock.gap_s(100.0) == 0.0, "time away does not count"
    clock.stop()
    assert clock.gap_s(200.0) == clock.idle_s(200.0) == 0.0


# ---- with the real worker --------------------------------------------------------------------------------------------


@pytest.mark.heavy
def test_a_persona_speaks(tmp_path: Path, portrait: bytes) -> None:
    """The whole way with faces instead of drawings, and the mark is read from what was received."""
    from api.client import Credentials
    from watermark.extract import read_mark

    with serving(tmp_path / "home", live_idle_s=300.0, live_slow_s=60.0) as server:
        operator = PlacetClient(server.url, Credentials.load(server.settings.operator_key_path))
        client, subject = vetted(server, operator, "researcher"), PlacetClient(server.url)
        enrolled = subject.enrol(portrait, subject_class="persona", rights_basis="made for a test")
        consent_to(subject, client, controls=("gaze",))
        asked = {"subject_id": enrolled.subject_id, "portrait_sha256": enrolled.portrait_sha256}
        with placet_live(
            client, **asked, purpose=PURPOSE_RESEARCH, controls={"gaze": None}, pace="free", max_duration_s=10.0
        ) as connection:
            pcm = make_wav(3.0)[44:]
            for begin in range(0, len(pcm), 16_000):
                connection.say(pcm[begin : begin + 16_000])
                connection.change({"gaze": [10 - begin % 20, 0]})
            connection.finish()
            segments, over = ended(connection)
        assert over["reason"] == "complete" and checked(server, connection, segments) == "complete"
        stream = tmp_path / "stream.mp4"
        stream.write_bytes(connection.init_segment + b"".join(segments))
        clip = decode_clip(stream)
        assert clip.frames_THWC.shape == (75, 512, 512, 3)
        assert np.abs(np.diff(clip.frames_THWC[:, ::4, ::4].astype(np.float32), axis=0)).mean() > 0.05
        done = client.wait(over["render_id"], timeout_s=120)
        key = server.service.keys.watermark_key
        for found in (clip, decode_clip(client.video(done["render_id"]))):
            assert read_mark(found, key, lambda each: each.hex == done["mark_id"], num_registered=1).state == "detected"
