"""Sessions on the database of an instance: a SQLite file, or PostgreSQL where several machines share it.

See `api.storage.backends` for what both promise, and `api.storage.migrations` for how a schema becomes the next one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as NoConnectionError
from sqlalchemy.orm import Session

from api.errors import InstanceExistsError, InstanceMissingError, SchemaVersionError, StoreUnreachableError
from api.storage.backends import Backend, backend_of
from api.storage.migrations import HEAD, revision_of, stamp, unstamp, upgrade
from api.storage.models import Base


class Database:
    """Sessions on one database."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    @classmethod
    def create(cls, where: Path | str) -> Database:
        """Make the tables of the current schema: in a new file, or in an empty PostgreSQL database.

        Args:
            where: path of a SQLite file, or URL of a PostgreSQL database.
        Raises: InstanceExistsError: there are tables already. StorageError: not an address.
        """
        backend = backend_of(where)
        with _answers():
            if backend.exists():
                raise InstanceExistsError("There is an instance here already: choose another home, or database.")
            backend.prepare()
            with backend.engine.begin() as connection:
                Base.metadata.create_all(connection)
                stamp(connection)
        return cls(backend)

    @classmethod
    def open(cls, where: Path | str) -> Database:
        """Open what `create` made. Raises InstanceMissingError or SchemaVersionError."""
        backend = backend_of(where)
        with _answers():
            if not backend.exists():
                raise InstanceMissingError("There is no instance here: run `placet init` first.")
            with backend.engine.connect() as connection:
                revision = revision_of(connection)
        if revision != HEAD:
            raise SchemaVersionError(
                f"The database has schema {revision}, this program needs {HEAD}: stop every server, make a backup, and "
                "run `placet migrate`."
            )
        return cls(backend)

    @staticmethod
    def migrate(where: Path | str) -> tuple[str, str]:
        """Bring an older schema up to date, in one transaction.

        Returns: the revisions before and after.
        Raises: InstanceMissingError. SchemaVersionError: made by a newer program.
        """
        backend = backend_of(where)
        if not backend.exists():
            raise InstanceMissingError("There is no instance here: run `placet init` first.")
        with backend.writing(is_durable=True) as connection, connection.begin():
            before = revision_of(connection)
            upgrade(connection)
        return before, HEAD

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A session for reading: sees one state of the database. Raises StoreUnreachableError."""
        with _answers(), Session(self._backend.engine) as session:
            yield session

    @contextmanager
    def write(self, *, is_durable: bool = True) -> Iterator[Session]:
        """A session that holds the write lock from its first statement and commits at the end.

        Args:
            is_durable: on disk when this returns. Otherwise the next durable write takes it along: every process sees
                it at once, and it outlives them all, but the last ones may be lost with the power.
        Raises: StoreUnreachableError: no database, or another writer for too long; nothing was written.
        """
        with (
            _answers(),
            self._backend.writing(is_durable=is_durable) as connection,
            Session(connection, expire_on_commit=False) as session,
            session.begin(),
        ):
            yield session

    def shred_log(self) -> None:
        """Leave as little as can be of what was just deleted; see `Backend.shred`."""
        self._backend.shred()

    def num_bytes(self) -> int:
        """Size on disk."""
        return self._backend.num_bytes()

    def close(self) -> None:
        """Give back every connection."""
        self._backend.engine.dispose()

    def drop(self) -> None:
        """Take the tables away again, where making an instance failed half-way."""
        with self._backend.engine.begin() as connection:
            Base.metadata.drop_all(connection)
            unstamp(connection)
        self.close()


@contextmanager
def _answers() -> Iterator[None]:
    """Errors of the connection as ours."""
    try:
        yield
    except (OperationalError, NoConnectionError) as exc:
        raise StoreUnreachableError() from exc
