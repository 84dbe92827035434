"""Scans of the source: no secret in any tracked file, and nothing that bandit calls a high risk."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("policy", "watermark", "generator", "detector", "api")
SECRETS = {
    "private key in PEM": re.compile(rb"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----\s*[A-Za-z0-9+/]"),
    "private JWK": re.compile(rb'"d"\s*:\s*"[A-Za-z0-9_-]{40,}"'),
    "JWT": re.compile(rb"\beyJ[A-Za-z0-9_-]{20,}\.eyJ[A-Za-z0-9_-]{20,}\.[A-Za-z0-9_-]{20,}"),
    "key of a cloud": re.compile(rb"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"),
    "token of a forge": re.compile(rb"\b(?:gh[pousr]_[A-Za-z0-9]{36}|glpat-[A-Za-z0-9_-]{20})"),
    "verifier secret": re.compile(rb"PRIVATE\+KEY\+[^\s\"]{20,}"),
    "password in an address": re.compile(rb"\b[a-z][a-z0-9+]{2,12}://[^\s/:@\"'{}<>$]+:[^\s/:@\"'{}<>$]{3,}@"),
}
PUBLISHED = ("tests/vectors/",)
"""Test vectors of standards, with keys that everybody has."""


def tracked() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True).stdout.decode()
    return [ROOT / name for name in listed.split("\0") if name and not name.startswith(PUBLISHED)]


def test_no_secret_in_any_tracked_file() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("this is no checkout")
    found = []
    for path in tracked():
        if not path.is_file() or path.is_symlink():
            continue
        data = path.read_bytes()
        found += [f"{kind} in {path.relative_to(ROOT)}" for kind, pattern in SECRETS.items() if pattern.search(data)]
    assert not found, found


def test_the_patterns_find_what_they_are_for() -> None:
    from cryptography.hazmat.primitives.asymmetric import ed25519
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    key = ed25519.Ed25519PrivateKey.generate()
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    assert SECRETS["private key in PEM"].search(pem)
    assert SECRETS["private JWK"].search(b'{"d": "' + b"a" * 43 + b'"}')
    assert SECRETS["JWT"].search(b"eyJ" + b"a" * 30 + b".eyJ" + b"b" * 30 + b"." + b"c" * 43)
    assert SECRETS["password in an address"].search(b"postgresql" + b"://user" + b":hunter2@host/db")


@pytest.mark.heavy
def test_bandit_finds_nothing_of_high_severity() -> None:
    pytest.importorskip("bandit")
    command = [sys.executable, "-m", "bandit", "-q", "-f", "json", "-lll", "-r", *PACKAGES]
    report = json.loads(subprocess.run(command, cwd=ROOT, capture_output=True, check=False).stdout)
    assert report["errors"] == []
    found = [f"{each['filename']}:{each['line_number']} {each['test_id']}" for each in report["results"]]
    assert not found, found
