"""Schemas: what a new database is made with, and what an old one becomes, are the same."""

from __future__ import annotations

from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, text

from api.errors import InstanceMissingError, SchemaVersionError
from api.storage.backends import backend_of
from api.storage.database import Database
from api.storage.migrations import HEAD
from api.storage.migrations.versions import schema_2
from api.storage.models import Base
from tests.simulators.stores import Stores, running_stores


def differences(connection: Connection) -> list[object]:
    return compare_metadata(MigrationContext.configure(connection, opts={"compare_type": True}), Base.metadata)


def old_database(where: Path | str) -> None:
    """As it was before there were migrations: with somebody in it."""
    from alembic.operations import Operations

    backend = backend_of(where)
    with backend.engine.begin() as connection:
        with Operations.context(MigrationContext.configure(connection)):
            schema_2.upgrade()
        connection.execute(text("INSERT INTO schema_info VALUES (2)"))
        connection.execute(
            text(
                "INSERT INTO subjects (subject_id, subject_class, epoch, public_jwk, enrolment, attested_by, "
                "created_at, log_index) VALUES ('sub_1', 'self', 0, '{}', '', 'self', 1.0, 1)"
            )
        )
        connection.execute(
            text(
                "INSERT INTO consents (consent_id, subject_id, sha256, signed, statement, grantee_org, "
                "grantee_client, expires_at, epoch, created_at, log_index) "
                "VALUES ('con_1', 'sub_1', 'a', '', '{}', 'o', 'c', 9, 0, 1.0, 2)"
            )
        )
    backend.engine.dispose()


def grows_up(where: Path | str) -> None:
    old_database(where)
    with pytest.raises(SchemaVersionError, match=f"schema 2, this program needs {HEAD}.*placet migrate"):
        Database.open(where)
    assert Database.migrate(where) == ("2", HEAD)
    assert Database.migrate(where) == (HEAD, HEAD)
    with Database.open(where).read() as session:
        assert session.execute(text("SELECT expires_at FROM consents")).scalar() == 9
        assert differences(session.connection()) == []


def test_an_old_file_becomes_a_new_one(tmp_path: Path) -> None:
    grows_up(tmp_path / "old.sqlite3")


def test_a_new_file_is_as_the_migrations_say(tmp_path: Path) -> None:
    database = Database.create(tmp_path / "new.sqlite3")
    with database.read() as session:
        assert differences(session.connection()) == []


def test_what_a_newer_program_made_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "new.sqlite3"
    with pytest.raises(InstanceMissingError):
        Database.migrate(path)
    with Database.create(path).write() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '1000'"))
    with pytest.raises(SchemaVersionError, match="does not know"):
        Database.migrate(path)


@pytest.fixture(scope="module")
def stores() -> Stores:
    with running_stores() as running:
        yield running


@pytest.mark.needs("postgresql")
def test_postgresql_grows_up_the_same_way(stores: Stores) -> None:
    grows_up(stores.new()["database"])


@pytest.mark.needs("postgresql")
def test_a_new_postgresql_is_as_the_migrations_say(stores: Stores) -> None:
    with Database.create(stores.new()["database"]).read() as session:
        assert differences(session.connection()) == []
