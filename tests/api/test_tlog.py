"""/tlog over HTTP: what is public, what is not, how it may be cached, and whether others' clients can read it."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from api.client import PlacetClient
from policy.canonical import canonical_json
from policy.merkle import leaf_hash
from policy.note import verify_checkpoint
from policy.tiles import split_bundle
from tests.simulators.tlogverify import refusal, verify

from .conftest import Running


@pytest.fixture
def size(server: Running) -> int:
    """The shared log, long enough to have a full tile and a partial one."""
    log = server.service.log
    if log.size < 300:
        log.append_many([("test", {"n": n}) for n in range(300)])
    if log.size % 256 == 0:
        log.append("test", {})
    return log.size


def test_hashes_are_public_and_may_be_kept(server: Running, size: int) -> None:
    with httpx.Client(base_url=server.url) as anyone:
        checkpoint = anyone.get("/tlog/checkpoint")
        assert checkpoint.headers["content-type"] == "text/plain; charset=utf-8"
        assert checkpoint.headers["cache-control"] == "no-cache"
        assert verify_checkpoint(checkpoint.content, server.service.log.public_keys).size >= size
        partial = f"/tlog/tile/0/{size // 256:03d}.p/{size % 256}"
        for path, num_hashes in (("/tlog/tile/0/000", 256), (partial, size % 256), ("/tlog/tile/1/000.p/1", 1)):
            tile = anyone.get(path)
            assert tile.status_code == 200 and len(tile.content) == 32 * num_hashes, path
            assert tile.headers["content-type"] == "application/octet-stream"
            assert tile.headers["cache-control"] == "public, max-age=31536000, immutable"
        for missing in (
            "tile/0/999",
            "tile/2/000",
            "tile/0/0",
            "tile/0/000.p/256",
            "tile/x",
            "tile/0/%2e%2e/checkpoint",
        ):
            answer = anyone.get(f"/tlog/{missing}")
            assert answer.status_code == 404 and answer.headers["cache-control"] == "no-store", missing


def test_entries_need_the_scope(server: Running, auditor: PlacetClient, researcher: PlacetClient, size: int) -> None:
    path = "/tlog/tile/entries/000"
    assert httpx.get(server.url + path).status_code == 401
    headers = {"Authorization": f"Bearer {auditor.token('audit:read')}"}
    answer = httpx.get(server.url + path, headers=headers)
    assert answer.status_code == 200, answer.text
    assert answer.headers["cache-control"].startswith("private")
    leaves, _ = split_bundle(answer.content, 256)
    hashes = httpx.get(f"{server.url}/tlog/tile/0/000").content
    assert b"".join(map(leaf_hash, leaves)) == hashes
    assert server.service.log.size >= size


@pytest.mark.needs("go")
def test_go_reads_the_tiles(server: Running, size: int, tmp_path: Path) -> None:
    """golang.org/x/mod/sumdb/tlog as the client: it authenticates every tile against the checkpoint."""
    log, entry, old = server.service.log, tmp_path / "entry", tmp_path / "old"
    old.write_text(log.checkpoint())
    log.append("test", {"after": "the old checkpoint"})
    entry.write_bytes(canonical_json(log.entry(270)))
    flags = {"vkey": log.verifier_key, "url": f"{server.url}/tlog", "entry": entry}
    found = verify("http", **flags, index=270, old=old)
    assert found["size"] > size and found["old_size"] == size and found["requests"] > 1
    assert "entry 269" in refusal("http", **flags, index=269)
    entry.write_bytes(entry.read_bytes() + b" ")
    assert "entry 270" in refusal("http", **flags, index=270)
