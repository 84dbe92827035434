"""Several engines for one store: who runs a render; consents may end after 2038; Alembic keeps the version itself."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "3"
down_revision = "2"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("consents") as consents:
        consents.alter_column("expires_at", existing_type=sa.Integer(), type_=sa.BigInteger(), existing_nullable=False)
    with op.batch_alter_table("renders") as renders:
        renders.add_column(sa.Column("worker", sa.String(64), nullable=False, server_default=""))
    op.create_table(
        "webhooks",
        sa.Column("client_id", sa.String(64), nullable=False),
        sa.Column("url", sa.String(400), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("log_index", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("client_id"),
    )
    op.drop_table("schema_info")
