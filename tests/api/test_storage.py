"""The storage room: durable, content-addressed, sealed, and sure of its own version."""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select, text

from api.errors import (
    BlobDamagedError,
    BlobMissingError,
    BlobNameError,
    InstanceExistsError,
    InstanceMissingError,
    SchemaVersionError,
    SealError,
)
from api.storage.blobs import FileBlobs
from api.storage.database import Database
from api.storage.models import SpentId
from api.storage.sealing import new_wrapped_key, rewrapped, seal, unseal
from api.storage.spent import AlreadySpentError, SpentIds
from policy.keyfiles import FileKeyService


@pytest.fixture
def database(tmp_path: Path) -> Database:
    return Database.create(tmp_path / "test.sqlite3")


def test_a_database_is_made_once_and_opened_by_its_version_only(tmp_path: Path) -> None:
    path = tmp_path / "test.sqlite3"
    with pytest.raises(InstanceMissingError):
        Database.open(path)
    database = Database.create(path)
    with pytest.raises(InstanceExistsError):
        Database.create(path)
    Database.open(path).close()
    with database.write() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '999'"))
    with pytest.raises(SchemaVersionError, match="999"):
        Database.open(path)


def test_a_failed_write_leaves_nothing(database: Database) -> None:
    with pytest.raises(RuntimeError), database.write() as session:
        session.add(SpentId(space="a", value="b", expires_at=1))
        session.flush()
        raise RuntimeError
    with database.read() as session:
        assert session.get(SpentId, ("a", "b")) is None


def test_an_identifier_is_spent_once_among_many_threads(database: Database) -> None:
    spent, outcomes = SpentIds(database, lambda: 100.0), []

    def spend() -> None:
        try:
            spent.spend("assertion:x", "jti-1", 200.0)
            outcomes.append("spent")
        except AlreadySpentError:
            outcomes.append("refused")

    threads = [threading.Thread(target=spend) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["refused"] * 7 + ["spent"]
    with pytest.raises(AlreadySpentError):
        spent.check("assertion:x", "jti-1")


def test_spent_identifiers_forget_themselves_when_they_have_expired(database: Database) -> None:
    clock = [100.0]
    spent = SpentIds(database, lambda: clock[0])
    spent.spend("s", "old", 150.0)
    clock[0] = 151.0
    spent.spend("s", "new", 200.0)
    with database.read() as session:
        assert [row.value for row in session.scalars(select(SpentId))] == ["new"]


def test_blobs_are_named_by_their_bytes(tmp_path: Path) -> None:
    store = FileBlobs(tmp_path / "blobs")
    name = store.put(b"content")
    assert name == hashlib.sha256(b"content").hexdigest()
    assert store.put(b"content") == name
    assert store.get(name) == b"content"
    assert list(store.names()) == [name]
    store.path(name).write_bytes(b"other")
    with pytest.raises(BlobDamagedError):
        store.get(name)
    store.remove(name)
    with pytest.raises(BlobMissingError):
        store.get(name)


@pytest.mark.parametrize("name", ["", "..", "../" * 21 + "x", "A" * 64, "0" * 63, "0" * 64 + "\n", "/etc/passwd"])
def test_nothing_but_a_hash_is_a_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(BlobNameError):
        FileBlobs(tmp_path / "blobs").path(name)


def test_a_file_is_adopted_only_if_it_is_the_one_that_was_logged(tmp_path: Path) -> None:
    store, made = FileBlobs(tmp_path / "blobs"), tmp_path / "made.mp4"
    made.write_bytes(b"video")
    with pytest.raises(BlobDamagedError):
        store.adopt(made, hashlib.sha256(b"another").hexdigest())
    assert list(store.names()) == []
    name = hashlib.sha256(b"video").hexdigest()
    store.adopt(made, name)
    assert store.get(name) == b"video" and not made.exists()


def test_half_written_blobs_are_swept(tmp_path: Path) -> None:
    store = FileBlobs(tmp_path / "blobs")
    name = store.put(b"whole")
    (store.path(name).parent / ".0123.partial").write_bytes(b"hal")
    assert store.sweep_partial() == 1
    assert list(store.names()) == [name]


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> FileKeyService:
    return FileKeyService.create(tmp_path_factory.mktemp("keys") / "keys")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=200), flip=st.integers(min_value=0))
def test_a_sealed_file_opens_for_its_subject_only_and_any_changed_bit_closes_it(
    keys: FileKeyService, data: bytes, flip: int
) -> None:
    key, other = new_wrapped_key("sub_a", keys), new_wrapped_key("sub_a", keys)
    sealed = seal(data, subject_id="sub_a", wrapped_key=key, keys=keys)
    assert unseal(sealed, subject_id="sub_a", wrapped_key=key, keys=keys) == data
    for subject_id, wrapped in (("sub_b", key), ("sub_a", other), ("sub_a", key[:-1]), ("sub_a", b"")):
        with pytest.raises(SealError):
            unseal(sealed, subject_id=subject_id, wrapped_key=wrapped, keys=keys)
    at, bit = divmod(flip % (8 * len(sealed)), 8)
    changed = sealed[:at] + bytes([sealed[at] ^ 1 << bit]) + sealed[at + 1 :]
    with pytest.raises(SealError):
        unseal(changed, subject_id="sub_a", wrapped_key=key, keys=keys)


def test_a_subject_key_survives_a_rotation_of_the_wrapping_key(tmp_path: Path) -> None:
    keys = FileKeyService.create(tmp_path / "keys")
    old = new_wrapped_key("sub_a", keys)
    sealed = seal(b"portrait", subject_id="sub_a", wrapped_key=old, keys=keys)
    keys.rotate("subject-wrap")
    assert unseal(sealed, subject_id="sub_a", wrapped_key=old, keys=keys) == b"portrait"
    new = rewrapped(old, "sub_a", keys)
    keys.forget("subject-wrap")
    assert unseal(sealed, subject_id="sub_a", wrapped_key=new, keys=keys) == b"portrait"
    with pytest.raises(SealError):
        unseal(sealed, subject_id="sub_a", wrapped_key=old, keys=keys)
