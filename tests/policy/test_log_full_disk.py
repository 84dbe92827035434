"""A disk that is really full: the log refuses by name, loses nothing acknowledged, and goes on when there is room.

Two ways to fill it, both of the kernel's: a limit on file size (RLIMIT_FSIZE), and a tiny file system (tmpfs) where the
tests may mount one.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from policy.errors import LogUnavailableError
from policy.fsck import fsck
from policy.keys import KeyRing
from policy.log import Log

from .conftest import ORIGIN

WRITER = """
import resource, signal, sys
from pathlib import Path
from policy.errors import LogUnavailableError
from policy.keys import KeyRing
from policy.log import Log
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # the write fails with EFBIG instead of killing the process
log = Log.open(Path(sys.argv[2]), KeyRing.load(Path(sys.argv[1])).log_key, sys.argv[3])
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[4]), resource.RLIM_INFINITY))
try:
    while True:
        print(log.append("test", {"fill": "x" * 500}).index, flush=True)
except LogUnavailableError as refused:
    print(refused.code, flush=True)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
print(log.append("after", {}).index, flush=True)
"""


def test_a_file_that_may_not_grow(tmp_path: Path) -> None:
    keys = KeyRing.create(tmp_path / "keys")
    Log.create(tmp_path / "log", keys.log_key, ORIGIN)
    arguments = [sys.executable, "-c", WRITER, tmp_path / "keys", tmp_path / "log", ORIGIN, "40000"]
    *acknowledged, refusal, after = subprocess.run(
        arguments, check=True, capture_output=True, text=True, timeout=60
    ).stdout.split()
    assert refusal == "log.unavailable" and len(acknowledged) > 20
    log = Log.open(tmp_path / "log", keys.log_key, ORIGIN)
    assert [log.entry(int(index))["kind"] for index in acknowledged] == ["test"] * len(acknowledged)
    assert log.entry(int(after))["kind"] == "after" and log.size == int(after) + 1
    assert fsck(tmp_path / "log", keys.log_public).is_clean


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 200 kB."""
    place = tmp_path / "tiny"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", place], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip("this user may not mount a file system")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def test_a_full_file_system(tiny_disk: Path, keys: KeyRing) -> None:
    log = Log.create(tiny_disk / "log", keys.log_key, ORIGIN)
    ballast = tiny_disk / "ballast"
    ballast.write_bytes(bytes(60_000))
    acknowledged = []
    with pytest.raises(LogUnavailableError, match="Nothing is released"):
        while True:
            acknowledged.append(log.append("test", {"fill": "x" * 900}).index)
    with pytest.raises(LogUnavailableError):
        log.append_many([("test", {"fill": "x" * 900})] * 50)
    assert acknowledged == list(range(len(acknowledged))) and len(acknowledged) > 20
    assert [log.entry(index)["kind"] for index in acknowledged] == ["test"] * len(acknowledged)
    # room again: it goes on by itself, without a restart
    ballast.unlink()
    after = log.append("after", {})
    assert log.entry(after.index)["kind"] == "after"
    assert fsck(log.directory, keys.log_public).is_clean
    assert Log.open(log.directory, keys.log_key, ORIGIN).size == after.index + 1
