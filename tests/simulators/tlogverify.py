"""Builds and runs the outside verifier of `go/tlogverify`: Debian's Go and golang.org/x/mod, no network."""

from __future__ import annotations

import atexit
import json
import os
import shutil
import subprocess
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).parent / "go" / "tlogverify" / "main.go"
GOPATH = "/usr/share/gocode"


@lru_cache(maxsize=1)
def binary() -> Path:
    """The verifier, built once for all tests of a run."""
    scratch = Path(tempfile.mkdtemp(prefix="tlogverify-"))
    atexit.register(shutil.rmtree, scratch, ignore_errors=True)
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(scratch),
        "GOCACHE": str(scratch / "cache"),
        "GO111MODULE": "off",
        "GOPATH": GOPATH,
        "GOFLAGS": "",
    }
    subprocess.run(["go", "build", "-o", scratch / "tlogverify", SOURCE], check=True, env=environment)
    return scratch / "tlogverify"


def verify(command: str, **flags: object) -> dict[str, Any]:
    """What the verifier says. Raises: AssertionError with its reason, where it refuses."""
    arguments = [text for name, value in flags.items() for text in (f"-{name}", str(value))]
    done = subprocess.run([binary(), command, *arguments], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def refusal(command: str, **flags: object) -> str:
    """Why the verifier refuses. Raises: AssertionError, where it does not."""
    arguments = [text for name, value in flags.items() for text in (f"-{name}", str(value))]
    done = subprocess.run([binary(), command, *arguments], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1, f"accepted: {done.stdout}"
    return done.stderr
