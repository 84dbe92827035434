"""What SQLite and PostgreSQL do differently, so that nothing above has to know which of them it is.

Both give the same promise: a read sees one state of the database, and there is one writer at a time, so that what a
write transaction reads cannot change before it commits. Consent revocation and delivery rely on this: whichever comes
first is seen whole by the other, also across processes and machines.

| | SQLite | PostgreSQL |
|---|---|---|
| read | a deferred transaction | REPEATABLE READ |
| write | BEGIN IMMEDIATE | an advisory lock, then READ COMMITTED: a snapshot taken before the lock would be stale |
| durable | synchronous=FULL | synchronous_commit=on |
| deleted | overwritten in place, the write-ahead log emptied | vacuumed; its log and backups keep older copies |
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from sqlalchemy import Connection, Engine, create_engine, event, inspect, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from api.errors import StorageError

_LOCK_WAIT_S = 30
_WRITER_LOCK = 0x706C61636574  # "placet": the key of the advisory lock, one for each database
_FORGETFUL_TABLES = "subjects", "portraits", "templates", "passkeys", "consents", "uses"


class Backend(Protocol):
    """One kind of database."""

    engine: Engine

    def exists(self) -> bool:
        """Whether there is a database with tables in it."""

    def prepare(self) -> None:
        """Make room for a new database."""

    @contextmanager
    def writing(self, *, is_durable: bool) -> Iterator[Connection]:
        """A connection that will be the only one to write once its transaction begins."""

    def shred(self) -> None:
        """Leave as little as can be of what was just deleted."""

    def num_bytes(self) -> int:
        """Size on disk."""


def backend_of(where: Path | str) -> Backend:
    """The back end for a path of a SQLite file, or for a URL `postgresql://…`. Raises StorageError."""
    if isinstance(where, Path):
        return Sqlite(where)
    try:
        url = make_url(where)
    except ArgumentError:
        raise StorageError("The address of the database is not a URL such as postgresql://host/name.") from None
    if url.get_backend_name() != "postgresql":
        raise StorageError("The database is a SQLite file (leave `database` empty) or a URL postgresql://host/name.")
    return Postgresql(url.set(drivername="postgresql+psycopg").render_as_string(hide_password=False))


class Sqlite:
    """One file: WAL, full durability, deleted content overwritten."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.engine = create_engine(
            f"sqlite:///{path}", connect_args={"timeout": _LOCK_WAIT_S, "check_same_thread": False}
        )
        event.listen(self.engine, "connect", _configure_sqlite)
        event.listen(self.engine, "begin", _begin_sqlite)

    def exists(self) -> bool:
        return self._path.is_file()

    def prepare(self) -> None:
        self._path.touch(mode=0o600)

    @contextmanager
    def writing(self, *, is_durable: bool) -> Iterator[Connection]:
        with self.engine.connect().execution_options(placet_write=True) as connection:
            driver = _driver(connection)
            if not is_durable:
                driver.execute("PRAGMA synchronous=NORMAL")
            try:
                yield connection
            finally:
                if not is_durable:
                    driver.execute("PRAGMA synchronous=FULL")

    def shred(self) -> None:
        """Where somebody reads at this moment it is left for the next one, at the latest for the next start."""
        with self.engine.connect() as connection:
            _driver(connection).execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def num_bytes(self) -> int:
        return self._path.stat().st_size


class Postgresql:
    """A server of its own, shared by as many API processes as there are."""

    def __init__(self, url: str) -> None:
        # pre-ping: a server that was restarted costs a new connection, not an error
        self.engine = create_engine(url, isolation_level="REPEATABLE READ", pool_pre_ping=True, pool_size=16)
        event.listen(self.engine, "begin", _begin_postgresql)

    def exists(self) -> bool:
        return inspect(self.engine).has_table("clients")

    def prepare(self) -> None:
        """The database itself is its administrator's to make."""

    @contextmanager
    def writing(self, *, is_durable: bool) -> Iterator[Connection]:
        options = {"isolation_level": "READ COMMITTED", "placet_write": True, "placet_durable": is_durable}
        with self.engine.connect().execution_options(**options) as connection:
            yield connection

    def shred(self) -> None:
        with self.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text(f"VACUUM {', '.join(_FORGETFUL_TABLES)}"))

    def num_bytes(self) -> int:
        with self.engine.connect() as connection:
            return int(connection.scalar(text("SELECT pg_database_size(current_database())")) or 0)


def _driver(connection: Connection) -> Any:
    driver = connection.connection.driver_connection
    assert driver is not None
    return driver


def _configure_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # transactions are ours, see _begin_sqlite
    # secure_delete: what is deleted is overwritten, as erasure promises
    for pragma in (
        "journal_mode=WAL",
        "synchronous=FULL",
        "foreign_keys=ON",
        f"busy_timeout={_LOCK_WAIT_S * 1000}",
        "secure_delete=ON",
    ):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    is_write = connection.get_execution_options().get("placet_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if is_write else "BEGIN")


def _begin_postgresql(connection: Connection) -> None:
    options = connection.get_execution_options()
    if not options.get("placet_write", False):
        return
    connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{_LOCK_WAIT_S}s'")
    if not options.get("placet_durable", True):
        connection.exec_driver_sql("SET LOCAL synchronous_commit = off")
    connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_WRITER_LOCK})")
