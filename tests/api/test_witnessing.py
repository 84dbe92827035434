"""Log and witness over real HTTP: cosigned behind the scenes, cosigned before an entry counts, contradicted."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import uvicorn
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from typer.testing import CliRunner

from api.app import create_app
from api.cli.root import app as command
from api.errors import InvalidFieldError
from api.settings import Settings
from api.setup import create_instance
from api.witness import create_witness_app
from api.witnessing import WitnessAddress, Witnessing
from policy.canonical import sha256_hex
from policy.errors import LogUnavailableError, WitnessRequiredError
from policy.evidence import verify_evidence
from policy.log import Log
from policy.note import verify_checkpoint
from policy.witness import Witness

ORIGIN = "placet.test/log"


@contextmanager
def serving(app: object, listener: socket.socket | None = None) -> Iterator[str]:
    """An application on a free port."""
    listener = listener or socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    server = uvicorn.Server(uvicorn.Config(app, log_level="error"))  # type: ignore[arg-type]
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive(), "the server did not start"
        time.sleep(0.02)
    yield url
    server.should_exit = True
    thread.join(10)


@pytest.fixture
def log(tmp_path: Path) -> Log:
    log = Log.create(tmp_path / "log", Ed25519PrivateKey.generate(), ORIGIN)
    log.append_many([("test", {"n": n}) for n in range(5)])
    return log


@pytest.fixture
def witness(tmp_path: Path, log: Log) -> Witness:
    witness = Witness.create(tmp_path / "witness", "witness.test/w1", time.time)
    witness.watch(log.verifier_key)
    return witness


def witnessing(log: Log, tmp_path: Path, *addresses: WitnessAddress, required: int = 0) -> Witnessing:
    directory = tmp_path / "witnesses"
    return Witnessing(
        log, addresses, required=required, directory=directory, now=time.time, timeout_s=2.0, interval_s=0.05
    )


def test_behind_the_scenes(log: Log, witness: Witness, tmp_path: Path) -> None:
    with serving(create_witness_app(witness)) as url:
        ours = witnessing(log, tmp_path, WitnessAddress(witness.key, url))
        assert ours.note() is None and ours.lag_entries == 5
        ours.start()
        for _ in range(3):
            log.append("test", {})
            deadline = time.monotonic() + 10
            while ours.lag_entries and time.monotonic() < deadline:
                time.sleep(0.02)
            assert (ours.lag_entries, ours.lag_s) == (0, 0.0)
        note = ours.note()
        assert note is not None and len(ours.cosignatures(note)) == 1
        evidence = ours.evidence(2)
        verify_evidence(evidence, log.public_key, origin=ORIGIN)
        assert evidence.checkpoint == note
        (state,) = ours.states()
        assert (state.size, state.problem) == (8, "")
        # what outsiders compare with, straight from the witness
        theirs = httpx.get(f"{url}/logs/{sha256_hex(ORIGIN.encode())}/checkpoint")
        assert verify_checkpoint(theirs.content, log.public_key).size == 8
        about = httpx.get(f"{url}/").json()
        assert about["logs"] == [{"origin": ORIGIN, "size": 8}] and about["verifier_key"] == witness.key.text
        ours.close()
        # what was kept is there after a restart, and the witness goes on from where it stands
        again = witnessing(log, tmp_path, WitnessAddress(witness.key, url))
        assert again.note() == note
        log.append("test", {})
        again.submit(log.checkpoint())
        assert again.lag_entries == 0
        again.close()
    log.append("test", {})
    assert again.evidence(9).tree_size == 10, "what is not cosigned yet is proven under the newest checkpoint"
    assert again.evidence(8).tree_size == 9


def test_required_means_before_it_is_acknowledged(log: Log, witness: Witness, tmp_path: Path) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    address = WitnessAddress(witness.key, f"http://127.0.0.1:{port}")
    other = WitnessAddress(Witness.create(tmp_path / "w2", "witness.test/w2", time.time).key, "http://127.0.0.1:9")
    ours = witnessing(log, tmp_path, address, other, required=1)
    with serving(create_witness_app(witness), listener):
        ours.start()
        evidence = log.append("test", {"released": True})
        assert len(ours.cosignatures(evidence.checkpoint)) == 1
        verify_evidence(evidence, log.public_key)
        threads = [threading.Thread(target=lambda: log.append("test", {})) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert ours.lag_entries == 0
        assert {state.problem for state in ours.states()} == {"", "witness.unreachable"}
    # the witness is gone: nothing is acknowledged any more, by its own name
    with pytest.raises(WitnessRequiredError) as refused:
        log.append("test", {"released": False})
    assert isinstance(refused.value, LogUnavailableError) and refused.value.code == "log.witness"
    # it comes back: so does the service, and the entry that nobody was told of is under the next cosignature
    restarted = socket.create_server(("127.0.0.1", port))
    with serving(create_witness_app(Witness.open(witness.directory, time.time)), restarted):
        evidence = log.append("test", {"released": True})
        assert len(ours.cosignatures(evidence.checkpoint)) == 1
    ours.close()
    assert log.append("test", {}), "once witnessing is closed nothing holds the log back"


def test_a_log_that_was_set_back_is_contradicted(log: Log, witness: Witness, tmp_path: Path) -> None:
    key = log._key  # the operator of this test is a rogue, and has it
    with serving(create_witness_app(witness)) as url:
        address = WitnessAddress(witness.key, url)
        ours = witnessing(log, tmp_path, address)
        ours.submit(log.checkpoint())
        for name, num, problem in (
            ("short", 3, "witness.ahead"),
            ("same", 5, "witness.split_view"),
            ("long", 9, "witness.proof"),
        ):
            rewritten = Log.create(tmp_path / name, key, ORIGIN)  # type: ignore[arg-type]
            rewritten.append_many([("test", {"n": n * 2 + 1}) for n in range(num)])
            rogue = Witnessing(
                rewritten, [address], required=0, directory=tmp_path / f"{name}-witnesses", now=time.time
            )
            with pytest.raises(WitnessRequiredError):
                rogue.submit(rewritten.checkpoint())
            (state,) = rogue.states()
            assert state.problem == problem and state.contradicts and state.sentence
            rogue.close()
        ours.close()


def test_answers_that_are_none(log: Log, witness: Witness, tmp_path: Path) -> None:
    stranger = Witness.create(tmp_path / "stranger", "witness.test/w1", time.time)
    stranger.watch(log.verifier_key)
    with serving(create_witness_app(stranger)) as url:
        ours = witnessing(log, tmp_path, WitnessAddress(witness.key, url))
        with pytest.raises(WitnessRequiredError):
            ours.submit(log.checkpoint())
        assert ours.states()[0].problem == "witness.answer"
        ours.close()
        refusals = {
            b"": 400,
            b"old 0\n\nplacet.other/log\n0\nAAAA\n\n\xe2\x80\x94 x AAAA\n": 404,
            b"x" * 70_000: 413,
            b"old 4\n\n" + log.checkpoint().encode(): 409,
        }
        for body, status in refusals.items():
            answer = httpx.post(f"{url}/add-checkpoint", content=body)
            assert answer.status_code == status, answer.text
        assert answer.headers["content-type"].startswith("text/x.tlog.size") and answer.text == "5\n"


def test_settings_that_cannot_be() -> None:
    for text in ("", "nonsense http://127.0.0.1:1", "name+00000000+AAAA http://x", "name+00000000+AAAA"):
        with pytest.raises(InvalidFieldError):
            WitnessAddress.parse(text)


def test_a_service_that_requires_its_witness(tmp_path: Path) -> None:
    """The command, the setting, the service: no cosignature, no answer but 503."""
    settings = Settings(home=tmp_path / "home", prewarm=False)
    made = create_instance(settings, "witnessed")
    state = str(tmp_path / "w")
    run = CliRunner()
    init = ["witness", "init", state, "--name", "w.test/1", "--log", made.log_verifier_key]
    assert run.invoke(command, init).exit_code == 0
    assert run.invoke(command, init[:3]).exit_code == 2, "a witness is not made twice"
    arguments = [sys.executable, "-m", "api.cli", "witness", "serve", state, "--port", "0", "--json"]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    ready = json.loads(process.stdout.readline())
    listener = socket.create_server(("127.0.0.1", 0))
    settings = Settings(
        home=settings.home,
        prewarm=False,
        port=listener.getsockname()[1],
        witnesses=(ready["setting"],),
        witness_required=1,
    )
    app = create_app(settings)
    with serving(app, listener) as url:
        refused = httpx.get(f"{url}/v1/audit/entries")
        assert refused.status_code == 401 and "log_index" in refused.json()
        checkpoint = httpx.get(f"{url}/tlog/checkpoint")
        assert len(app.state.service.witnessing.cosignatures(checkpoint.text)) == 1
        assert httpx.get(f"{url}/readyz").json()["witness_lag"] == 0
        process.send_signal(signal.SIGKILL)
        process.wait(10)
        unavailable = httpx.get(f"{url}/v1/audit/entries")
        assert (unavailable.status_code, unavailable.json()["code"]) == (503, "log.witness")
        assert httpx.get(f"{url}/readyz").status_code == 503
        assert "placet_witness_failing 1" in httpx.get(f"{url}/metrics").text
    shown = run.invoke(command, ["witness", "show", state, "--json"])
    assert json.loads(shown.stdout)["logs"][0]["size"] > 0
