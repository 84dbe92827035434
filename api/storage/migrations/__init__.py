"""How one schema becomes the next: Alembic revisions, the same for SQLite and PostgreSQL.

A revision is a file in `versions/`, named by the schema it leads to. New tables and columns go into
`api.storage.models` and into a new revision; a test sees to it that both say the same.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, inspect, text

from api.errors import SchemaVersionError

HEAD: Final = "3"
"""The schema that this program works with."""
_KNOWN: Final = "2", HEAD


def revision_of(connection: Connection) -> str:
    """The schema of a database with tables in it."""
    current = MigrationContext.configure(connection).get_current_revision()
    if current is None and inspect(connection).has_table("schema_info"):  # made before there were migrations
        return str(connection.scalar(text("SELECT version FROM schema_info")))
    return str(current)


def stamp(connection: Connection) -> None:
    """Write down that the tables are those of `HEAD`."""
    command.stamp(_config(connection), HEAD)


def unstamp(connection: Connection) -> None:
    """Forget the version, with the tables that it was of."""
    connection.execute(text("DROP TABLE IF EXISTS alembic_version"))


def upgrade(connection: Connection) -> None:
    """Apply what is missing, within the caller's transaction. Raises SchemaVersionError: unknown to this program."""
    before = revision_of(connection)
    if before not in _KNOWN:
        raise SchemaVersionError(
            f"The database has schema {before}, which this program does not know: it knows {' and '.join(_KNOWN)}. "
            "Use the version of Placet that made it, or a newer one."
        )
    config = _config(connection)
    if inspect(connection).has_table("schema_info"):
        command.stamp(config, before)
    command.upgrade(config, "head")


def _config(connection: Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    config.attributes["connection"] = connection
    return config
