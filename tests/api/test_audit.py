"""The audit endpoints and commands: what they hand out verifies, and a changed byte is named."""

from __future__ import annotations

import json
import resource
import shutil
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from api.cli.root import app
from api.client import PlacetClient, ProblemError
from api.settings import Settings
from api.setup import create_instance
from policy.canonical import canonical_json
from policy.errors import LogUnavailableError
from policy.evidence import LogEvidence, verify_evidence
from policy.fsck import fsck, verify_bundle
from policy.instance import Instance
from policy.merkle import leaf_hash, verify_consistency, verify_inclusion
from policy.note import verify_checkpoint
from policy.tiles import ENTRIES, TILE_WIDTH, TileName
from tests.api.conftest import Running


def test_checkpoint_and_key_are_public_and_fit_each_other(server: Running) -> None:
    note = httpx.get(f"{server.url}/v1/audit/checkpoint").content
    checkpoint = verify_checkpoint(note, server.service.keys.log_public, origin="tests.placet.local/log")
    assert checkpoint.size >= 2
    assert httpx.get(f"{server.url}/v1/audit/key").text.strip() == server.service.log.verifier_key


def test_an_entry_comes_with_a_proof(server: Running, auditor: PlacetClient) -> None:
    found = auditor.entry(1)
    evidence = LogEvidence.from_json(found["evidence"])
    verify_evidence(evidence, server.service.keys.log_public, leaf=canonical_json(found["entry"]))
    assert found["entry"]["kind"] == "client.registered"


def test_entries_are_paged_and_filtered(server: Running, auditor: PlacetClient) -> None:
    first = auditor._json("GET", "/v1/audit/entries", "audit:read", params={"limit": 2})
    assert [entry["index"] for entry in first["entries"]] == [0, 1] and first["next_start"] == 2
    only = auditor._json("GET", "/v1/audit/entries", "audit:read", params={"kind": "instance.created"})
    assert [entry["kind"] for entry in only["entries"]] == ["instance.created"]
    past_the_end = auditor._json("GET", "/v1/audit/entries", "audit:read", params={"start": 10**6})
    assert past_the_end["entries"] == [] and past_the_end["next_start"] is None


def test_inclusion_and_consistency_proofs_verify(server: Running, auditor: PlacetClient) -> None:
    old = verify_checkpoint(auditor.checkpoint().encode(), server.service.keys.log_public)
    with pytest.raises(ProblemError):
        PlacetClient(server.url)._call("GET", "/v1/audit/entries", "", headers={"Authorization": "Bearer x"})
    new = verify_checkpoint(auditor.checkpoint().encode(), server.service.keys.log_public)
    assert new.size == old.size + 1
    answer = auditor._json(
        "GET", "/v1/audit/proofs/consistency", "audit:read", params={"first": old.size, "second": new.size}
    )
    path = [bytes.fromhex(node) for node in answer["proof"]]
    verify_consistency(old.size, old.root, new.size, new.root, path)
    answer = auditor._json("GET", "/v1/audit/proofs/inclusion", "audit:read", params={"index": 0, "size": new.size})
    leaf = leaf_hash(canonical_json(auditor.entry(0)["entry"]))
    verify_inclusion(leaf, 0, new.size, [bytes.fromhex(node) for node in answer["proof"]], new.root)


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/v1/audit/entries/999999", 404),
        ("/v1/audit/entries/-1", 404),
        ("/v1/audit/entries/x", 400),
        ("/v1/audit/entries?limit=5000", 400),
        ("/v1/audit/proofs/inclusion?index=5&size=2", 422),
        ("/v1/audit/proofs/consistency?first=1&second=999999", 404),
        ("/v1/audit/tile/0/999", 404),
        ("/v1/audit/tile/%2e%2e/%2e%2e/keys/log.pem", 404),
    ],
)
def test_what_is_not_there_is_not_found(path: str, status: int, server: Running, auditor: PlacetClient) -> None:
    response = httpx.get(server.url + path, headers={"Authorization": f"Bearer {auditor.token('audit:read')}"})
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"


def test_tiles_and_the_bundle_are_what_outsiders_need(server: Running, auditor: PlacetClient, tmp_path: Path) -> None:
    headers = {"Authorization": f"Bearer {auditor.token('audit:read')}"}
    size = server.service.log.size
    tile = httpx.get(f"{server.url}/v1/audit/tile/0/000.p/{size % 256}", headers=headers)
    assert tile.status_code == 200 and len(tile.content) == 32 * (size % 256)
    bundle = tmp_path / "bundle.tar"
    bundle.write_bytes(auditor.export())
    report = verify_bundle(bundle, server.service.keys.log_public)
    assert report.is_clean and report.size >= size
    damaged = bytearray(bundle.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    bundle.write_bytes(damaged)
    assert not verify_bundle(bundle, server.service.keys.log_public).is_clean


@pytest.fixture
def home(tmp_path: Path) -> Path:
    home = tmp_path / "home"
    create_instance(Settings(home=home), "audit")
    log = Instance.open(home).log
    for number in range(20):
        log.append("test", {"number": number})
    return home


def run(*arguments: str) -> tuple[int, dict[str, object]]:
    """A command with --json: its exit status, and the object on its last line."""
    result = CliRunner().invoke(app, [*arguments, "--json"])
    return result.exit_code, json.loads(result.stdout.strip().splitlines()[-1])


def test_the_commands_show_verify_and_export(home: Path, tmp_path: Path) -> None:
    status, result = run("audit", "tail", "-n", "3", "--home", str(home))
    assert status == 0
    assert [entry["body"]["number"] for entry in result["entries"]] == [17, 18, 19]  # type: ignore[attr-defined]
    status, result = run("audit", "show", "5", "--home", str(home))
    assert status == 0 and result["entry"]["index"] == 5  # type: ignore[index]
    assert run("audit", "verify", "--home", str(home))[0] == 0
    bundle = tmp_path / "log.tar"
    status, result = run("audit", "export", str(bundle), "--home", str(home))
    assert status == 0
    key = str(result["log_key"])
    assert run("audit", "verify", "--bundle", str(bundle), "--log-key", key)[0] == 0
    status, result = run("audit", "show", "999", "--home", str(home))
    assert (status, result["error"]) == (2, "log.not_found")
    assert run("audit", "tail", "--home", str(tmp_path / "nowhere"))[0] == 2


def test_a_flipped_byte_anywhere_is_named_and_ends_with_status_1(home: Path, tmp_path: Path) -> None:
    files = [path for path in (home / "log").rglob("*") if path.is_file() and path.stat().st_size]
    entries = next(path for path in files if "entries" in path.parts)
    for path in files:
        copy = tmp_path / "copy"
        shutil.copytree(home, copy)
        target = copy / path.relative_to(home)
        data = bytearray(target.read_bytes())
        data[len(data) // 2] ^= 0x20
        target.write_bytes(data)
        status, result = run("audit", "verify", "--home", str(copy))
        assert status == 1 and result["clean"] is False, path
        if path == entries:
            problems = result["problems"]
            assert any(problem["index"] is not None for problem in problems)  # type: ignore[attr-defined]
        shutil.rmtree(copy)


def test_a_log_that_was_set_back_is_found_with_an_earlier_checkpoint(home: Path, tmp_path: Path) -> None:
    before = tmp_path / "before"
    shutil.copytree(home, before)
    Instance.open(home).log.append("test", {"number": 20})
    kept = tmp_path / "checkpoint"
    kept.write_bytes((home / "log" / "checkpoint").read_bytes())
    assert run("audit", "verify", "--home", str(before))[0] == 0
    assert run("audit", "verify", "--home", str(before), "--checkpoint", str(kept))[0] == 1


def test_a_disk_that_is_full_is_answered_503_and_nothing_else_is_lost(server: Running) -> None:
    """A limit of the kernel on the size of files; every entry is refused while it holds."""
    log = server.service.log
    if log.size % TILE_WIDTH == 0:
        log.append("test", {})
    size = log.size
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    bundle = log.directory / TileName(ENTRIES, size // TILE_WIDTH, size % TILE_WIDTH).path
    resource.setrlimit(resource.RLIMIT_FSIZE, (bundle.stat().st_size, hard))
    try:
        with pytest.raises(LogUnavailableError):
            log.append("test", {})
        answer = httpx.get(f"{server.url}/v1/audit/entries", headers={"Authorization": "Bearer x"})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (answer.status_code, answer.json()["code"]) == (503, "log.unavailable")
    assert log.size == size and log.append("test", {}).index >= size
    assert fsck(log.directory, server.service.keys.log_publics).is_clean
