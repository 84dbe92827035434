"""Engine processes: the wire, the limits around decoding, and what happens when a process dies."""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.engine.intake import Intake
from api.engine.process import EngineDiedError, EngineProcess, EngineTimeoutError
from api.engine.wire import ConnectionLostError, Message, ProtocolError, receive, send
from api.errors import EngineError, RemoteError
from api.settings import Settings
from tests.api.conftest import Running, make_wav

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(
    header=st.dictionaries(st.text(max_size=10).filter(lambda name: name != "attachments"), JSON_VALUES, max_size=4),
    attachments=st.dictionaries(st.text(max_size=10), st.binary(max_size=500), max_size=3),
)
def test_what_is_sent_is_received(header: dict[str, object], attachments: dict[str, bytes]) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        send(ours, header, attachments)
        assert receive(theirs) == Message(header, attachments)


@given(data=st.binary(max_size=64))
def test_anything_else_is_an_error_of_ours(data: bytes) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(data)
        ours.close()
        with pytest.raises((ConnectionLostError, ProtocolError)):
            receive(theirs)


@pytest.mark.parametrize(
    "header",
    [b"[]", b"{}", b'{"attachments": 5}', b'{"attachments": [["a", -1]]}', b'{"attachments": [["a", 1e300]]}', b"\xff"],
)
def test_a_malformed_header_is_refused(header: bytes) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(struct.pack(">I", len(header)) + header)
        with pytest.raises(ProtocolError):
            receive(theirs)


def test_an_oversized_header_is_refused_before_it_is_read() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(struct.pack(">I", 2**31))
        with pytest.raises(ProtocolError):
            receive(theirs)


@pytest.fixture
def toy() -> EngineProcess:
    """A real engine process with a toy job."""
    process = EngineProcess("tests.api.toy_engine", lambda: Message({}))
    yield process  # type: ignore[misc]
    process.close()


def test_a_process_answers_fails_by_name_and_goes_on(toy: EngineProcess) -> None:
    told: list[float] = []
    answer = toy.call({"do": "echo"}, {"data": b"abc"}, wall_s=20, on_progress=told.append)
    assert answer.attachments["data"] == b"abc" and told == [0.5]
    with pytest.raises(RemoteError) as caught:
        toy.call({"do": "refuse"}, wall_s=20)
    assert caught.value.code == "media.unsupported"
    with pytest.raises(RemoteError) as caught:
        toy.call({"do": "break"}, wall_s=20)
    assert caught.value.code == "engine.failed" and "boom" not in str(caught.value)
    assert toy.call({"do": "echo"}, {"data": b"x"}, wall_s=20).attachments["data"] == b"x"
    assert toy.num_starts == 1


def test_a_process_that_dies_or_hangs_is_started_again(toy: EngineProcess) -> None:
    with pytest.raises(EngineDiedError):
        toy.call({"do": "die"}, wall_s=20)
    with pytest.raises(EngineTimeoutError):
        toy.call({"do": "hang"}, wall_s=0.3)
    assert toy.call({"do": "echo"}, {"data": b"x"}, wall_s=20).attachments["data"] == b"x"
    assert toy.num_starts == 3


def test_a_process_ends_with_its_gateway(toy: EngineProcess) -> None:
    toy.start()
    pid = toy.pid
    assert pid is not None and toy._connection is not None
    toy._connection.close()  # as the kernel does when the gateway is killed
    assert toy._process is not None
    assert toy._process.wait(10) == 0


def test_a_process_that_cannot_start_says_so() -> None:
    process = EngineProcess("tests.api.toy_engine", lambda: Message({"fail": True}))
    with pytest.raises(EngineError, match="did not start"):
        process.start()
    process.close()
    with pytest.raises(EngineError, match="shutting down"):
        process.start()


def test_decoding_may_take_so_much_memory_and_time_and_no_more(server: Running) -> None:
    wav, process = make_wav(60.0, rate_hz=48_000, num_channels=2), server.service.intake.process
    starved = Intake(Settings(intake_memory_bytes=4 * 1024 * 1024), process)
    with pytest.raises(RemoteError) as caught:
        starved.speech(wav)
    assert caught.value.code in ("intake.limits", "media.unreadable", "engine.failed")
    hurried = Intake(Settings(intake_wall_s=0.01), process)
    started_at_s = time.monotonic()
    with pytest.raises(RemoteError) as caught:
        hurried.speech(wav)
    assert caught.value.code == "intake.limits" and time.monotonic() - started_at_s < 30
    busy = Intake(Settings(intake_cpu_s=0.001), process)
    with contextlib.suppress(RemoteError):  # limits are whole seconds: a fast machine may be through by then
        busy.speech(wav)
    # the process that forks is as it was, and no decoder is left behind
    assert Intake(Settings(), process).speech(make_wav(1.0))[1] == pytest.approx(1.0, abs=0.05)
    assert [path for path in Path("/proc").glob("[0-9]*") if _parent(path) == process.pid] == []


def _parent(process: Path) -> int:
    try:
        return int((process / "stat").read_text().rsplit(")", 1)[1].split()[1])
    except OSError:
        return 0
