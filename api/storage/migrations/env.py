"""What Alembic runs: revisions on the connection that it was given, in the transaction that is open there."""

from __future__ import annotations

from alembic import context

from api.storage.models import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    render_as_batch=True,  # SQLite changes a table by copying it
    compare_type=True,
)
context.run_migrations()
