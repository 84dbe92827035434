"""Opens the SQLite file: WAL, full durability, one writer at a time, a schema version that is checked.

A write transaction starts with BEGIN IMMEDIATE, so that what it reads cannot change before it commits. Consent
revocation and delivery both rely on this: whichever comes first is seen whole by the other, also across processes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, create_engine, event, select
from sqlalchemy.orm import Session

from api.errors import InstanceExistsError, InstanceMissingError, SchemaVersionError
from api.storage.models import SCHEMA_VERSION, Base, SchemaInfo


class Database:
    """Sessions on one SQLite file."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @classmethod
    def create(cls, path: Path) -> Database:
        """Make a new file with the current schema. Raises InstanceExistsError if there is one already."""
        if path.exists():
            raise InstanceExistsError("There is an instance here already: choose another home.")
        database = cls(_engine(path))
        path.touch(mode=0o600)
        Base.metadata.create_all(database._engine)
        with database.write() as session:
            session.add(SchemaInfo(version=SCHEMA_VERSION))
        return database

    @classmethod
    def open(cls, path: Path) -> Database:
        """Open an existing file. Raises InstanceMissingError or SchemaVersionError."""
        if not path.is_file():
            raise InstanceMissingError("There is no instance here: run `placet init` first.")
        database = cls(_engine(path))
        with database.read() as session:
            version = session.scalar(select(SchemaInfo.version))
        if version != SCHEMA_VERSION:
            raise SchemaVersionError(
                f"The database has schema version {version}, this program needs {SCHEMA_VERSION}: migrate it first.",
            )
        return database

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A session for reading: sees one state of the database."""
        with Session(self._engine) as session:
            yield session

    @contextmanager
    def write(self, *, is_durable: bool = True) -> Iterator[Session]:
        """A session that holds the write lock from its first statement and commits at the end.

        Args:
            is_durable: on disk when this returns. Otherwise the next durable write takes it along: every process sees
                it at once, and it outlives them all, but the last ones may be lost with the power.
        """
        connection = self._engine.connect().execution_options(placet_write=True)
        with connection:
            driver = connection.connection.driver_connection
            assert driver is not None
            if not is_durable:
                driver.execute("PRAGMA synchronous=NORMAL")
            try:
                with Session(connection, expire_on_commit=False) as session, session.begin():
                    yield session
            finally:
                if not is_durable:
                    driver.execute("PRAGMA synchronous=FULL")

    def shred_log(self) -> None:
        """Move the write-ahead log into the file and empty it, so that it keeps nothing that was just deleted.

        Where somebody reads at this moment it is left for the next one, at the latest for the next start.
        """
        with self._engine.connect() as connection:
            driver = connection.connection.driver_connection
            assert driver is not None
            driver.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def close(self) -> None:
        """Give back every connection."""
        self._engine.dispose()


def _engine(path: Path) -> Engine:
    engine = create_engine(f"sqlite:///{path}", connect_args={"timeout": 30, "check_same_thread": False})

    @event.listens_for(engine, "connect")
    def _configure(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # transactions are ours, see _begin
        # secure_delete: what is deleted is overwritten, as erasure promises
        for pragma in (
            "journal_mode=WAL",
            "synchronous=FULL",
            "foreign_keys=ON",
            "busy_timeout=30000",
            "secure_delete=ON",
        ):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def _begin(connection: Any) -> None:
        immediate = connection.get_execution_options().get("placet_write", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")

    return engine
