"""Export bundles: complete, checkable by others, and with no byte that may change."""

from __future__ import annotations

import random
import tarfile
from pathlib import Path

import pytest

from policy.bundle import export_bundle
from policy.errors import BundleError
from policy.fsck import fsck, verify_bundle
from policy.keys import KeyRing
from policy.log import Log

from .conftest import ORIGIN


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory, keys: KeyRing) -> Path:
    directory = tmp_path_factory.mktemp("bundle")
    log = Log.create(directory / "log", keys.log_key, ORIGIN)
    log.append_many([("test", {"n": n}) for n in range(20)])
    assert export_bundle(log, directory / "audit.tar").size == 20
    return directory / "audit.tar"


def test_a_bundle_verifies(bundle: Path, keys: KeyRing) -> None:
    report = verify_bundle(bundle, keys.log_public)
    assert report.is_clean and report.size == 20


def test_any_tar_reader_gets_a_tile_log(bundle: Path, keys: KeyRing, tmp_path: Path, log: Log) -> None:
    with tarfile.open(bundle) as tar:
        tar.extractall(tmp_path / "out", filter="data")
    assert (tmp_path / "out/vkey").read_text() == f"{log.verifier_key}\n"
    (tmp_path / "out/vkey").unlink()
    (tmp_path / "out/.lock").touch()
    assert fsck(tmp_path / "out", keys.log_public).is_clean


def test_a_bundle_is_a_snapshot(log: Log, keys: KeyRing, tmp_path: Path) -> None:
    log.append_many([("test", {"n": n}) for n in range(270)])
    early = log.checkpoint().encode()
    path = tmp_path / "audit.tar"
    export_bundle(log, path)
    once = path.read_bytes()
    export_bundle(log, path)
    assert path.read_bytes() == once, "the same log gives the same bytes"
    log.append("test", {})
    assert verify_bundle(path, keys.log_public, earlier_checkpoint=early).size == 270
    assert not verify_bundle(path, keys.log_public, earlier_checkpoint=log.checkpoint().encode()).is_clean


def test_flipped_bytes_in_a_bundle(bundle: Path, keys: KeyRing, tmp_path: Path) -> None:
    data = bundle.read_bytes()
    rng = random.Random(3)
    path = tmp_path / "changed.tar"
    offsets = {*range(0, 512, 5), len(data) - 1, *(rng.randrange(len(data)) for _ in range(500))}
    for offset in sorted(offsets):
        changed = bytearray(data)
        changed[offset] ^= 1 << rng.randrange(8)
        path.write_bytes(changed)
        assert verify_bundle(path, keys.log_public).problems, f"byte {offset} of {len(data)} was flipped unseen"


def test_cut_off_and_extended_bundles(bundle: Path, keys: KeyRing, tmp_path: Path) -> None:
    data = bundle.read_bytes()
    path = tmp_path / "changed.tar"
    for changed in (b"", data[:100], data[:512], data[:-1], data[:-512], data[:-1024], data + b"\0", data + bytes(512)):
        path.write_bytes(changed)
        assert verify_bundle(path, keys.log_public).problems


def test_members_of_any_other_kind(keys: KeyRing, tmp_path: Path) -> None:
    """Links, absolute paths, huge sizes: refused, nothing is ever unpacked."""
    for name, kind, size in (
        ("x", tarfile.SYMTYPE, 0),
        ("/etc/passwd", tarfile.REGTYPE, 0),
        ("big", tarfile.REGTYPE, 8**11 - 1),
    ):
        info = tarfile.TarInfo(name)
        info.type, info.size, info.linkname = kind, size, "/etc/passwd" if kind == tarfile.SYMTYPE else ""
        path = tmp_path / "odd.tar"
        path.write_bytes(info.tobuf(tarfile.USTAR_FORMAT) + bytes(1024))
        assert verify_bundle(path, keys.log_public).problems


def test_files_that_cannot_be_read_or_written(log: Log, keys: KeyRing, tmp_path: Path) -> None:
    with pytest.raises(BundleError):
        verify_bundle(tmp_path / "nothing.tar", keys.log_public)
    with pytest.raises(BundleError):
        export_bundle(log, tmp_path / "no/such/directory.tar")
