"""Crashes at every step of an append, and by kill -9 at random: no acknowledged entry is lost, fsck is clean."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from policy.fsck import fsck
from policy.keys import KeyRing
from policy.log import RECOVERED_KIND, Log

from .conftest import ORIGIN

APPENDER = """
import sys
from pathlib import Path
from policy.keys import KeyRing
from policy.log import Log
log = Log.open(Path(sys.argv[2]), KeyRing.load(Path(sys.argv[1])).log_key, sys.argv[3])
n = 0
while True:
    print(log.append("test", {"n": n}).index, flush=True)
    n += 1
"""

CRASHING = ("write", "fsync", "fdatasync", "open", "rename", "replace", "mkdir", "rmdir", "unlink")


def append_and_die(log: Log, step: int) -> bool:
    """In a forked child: append one entry, dying at file operation number `step`. Returns: whether it got that far."""
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9
    calls = 0

    def dying(name: str):  # type: ignore[no-untyped-def]
        real = getattr(os, name)

        def call(*args, **kwargs):  # type: ignore[no-untyped-def]
            nonlocal calls
            calls += 1
            if calls == step:
                if name == "write":  # torn in the middle
                    real(args[0], bytes(args[1])[: len(args[1]) // 2])
                os._exit(9)
            return real(*args, **kwargs)

        return call

    for name in CRASHING:
        setattr(os, name, dying(name))
    try:
        log.append("test", {"crash": step})
    finally:
        os._exit(0)


@pytest.mark.parametrize("num_entries", [0, 1, 5, 255, 256])
def test_a_crash_at_every_step(tmp_path: Path, keys: KeyRing, num_entries: int) -> None:
    whole = Log.create(tmp_path / "whole", keys.log_key, ORIGIN)
    whole.append_many([("test", {"n": n}) for n in range(num_entries)])
    step, num_recovered = 0, 0
    while True:
        step += 1
        directory = tmp_path / f"crash-{step}"
        shutil.copytree(whole.directory, directory)
        log = Log.open(directory, keys.log_key, ORIGIN)
        if not append_and_die(log, step):
            break
        again = Log.open(directory, keys.log_key, ORIGIN)
        assert again.size in (num_entries, num_entries + 1)
        assert [entry["body"] for entry in again.entries(0, 300)][:num_entries] == [
            {"n": n} for n in range(num_entries)
        ]
        report = fsck(directory, keys.log_public)
        assert report.is_clean, (step, report.problems)
        size = again.size
        again.append("after", {})
        kinds = [entry["kind"] for entry in again.entries(size)]
        assert kinds in (["after"], [RECOVERED_KIND, "after"])
        num_recovered += RECOVERED_KIND in kinds
        assert fsck(directory, keys.log_public).is_clean
        shutil.rmtree(directory)
    assert step > 8, "the append did not go through the steps that were to be broken"
    assert num_recovered > 0, "no torn tail was ever seen"


def test_kill_dash_nine(tmp_path: Path) -> None:
    keys = KeyRing.create(tmp_path / "keys")
    directory = tmp_path / "log"
    Log.create(directory, keys.log_key, ORIGIN)
    rng = random.Random(20261122)
    acknowledged: list[int] = []
    for _ in range(4):
        arguments = [sys.executable, "-c", APPENDER, tmp_path / "keys", directory, ORIGIN]
        child = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None
        acknowledged.append(int(child.stdout.readline()))
        time.sleep(rng.random() * 0.15)
        child.send_signal(signal.SIGKILL)
        acknowledged += [int(line) for line in child.stdout.read().split("\n")[:-1]]
        child.wait()
        log = Log.open(directory, keys.log_key, ORIGIN)
        assert log.size > acknowledged[-1]
        assert all(log.entry(index)["kind"] == "test" for index in acknowledged)
        report = fsck(directory, keys.log_public)
        assert report.is_clean, report.problems
    assert len(set(acknowledged)) == len(acknowledged)


def test_hash_tiles_lost_with_the_power_are_rebuilt(log: Log, keys: KeyRing) -> None:
    """Partial hash tiles are not made durable on every append; the entries below them are."""
    log.append_many([("test", {"n": n}) for n in range(260)])
    (log.directory / "tile/0/001.p/4").write_bytes(b"")
    (log.directory / "tile/1/000.p/1").unlink()
    again = Log.open(log.directory, keys.log_key, ORIGIN)
    again.append("after", {})
    recovered, after = again.entries(260)
    assert (recovered["kind"], after["kind"]) == (RECOVERED_KIND, "after")
    assert recovered["body"]["num_tiles_rebuilt"] == 2
    assert fsck(log.directory, keys.log_public).is_clean
