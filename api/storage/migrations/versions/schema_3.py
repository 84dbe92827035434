"""Who runs a render, of several engines for one store; who drives; consents beyond 2038; Alembic keeps the version."""

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
        renders.add_column(sa.Column("driving_sha256", sa.String(64), nullable=True))
        renders.add_column(sa.Column("driver_id", sa.String(64), nullable=True))
        renders.add_column(sa.Column("driver_consent_id", sa.String(64), nullable=True))
        renders.add_column(sa.Column("driver_consent_epoch", sa.Integer(), nullable=False, server_default="0"))
        renders.create_index("ix_renders_driver_id", ["driver_id"])
        renders.create_index("ix_renders_driver_consent_id", ["driver_consent_id"])
    op.create_table(
        "webhooks",
        sa.Column("client_id", sa.String(64), nullable=False),
        sa.Column("url", sa.String(400), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("log_index", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("client_id"),
    )
    op.drop_table("schema_info")
