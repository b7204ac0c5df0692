"""What nobody reads goes: ``alert_life`` says how far handling has come, and the body of a queued record what it is."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.drop_table("handling")
    op.drop_column("push_queue", "record_key")
    op.drop_column("push_queue", "occurred_at")


def downgrade() -> None:
    op.add_column("push_queue", sa.Column("record_key", sa.Text(), nullable=False, server_default=""))
    op.add_column("push_queue", sa.Column("occurred_at", sa.BigInteger(), nullable=False, server_default="0"))
    op.alter_column("push_queue", "record_key", server_default=None)
    op.alter_column("push_queue", "occurred_at", server_default=None)
    op.create_table(
        "handling",
        sa.Column("alert_id", sa.Text(), primary_key=True),
        sa.Column("case_no", sa.Text(), nullable=False),
        sa.Column("region", sa.Text(), nullable=False),
        sa.Column("department", sa.Text(), nullable=False),
        sa.Column("stage", sa.Text(), nullable=False),
        sa.Column("signed_at", sa.BigInteger()),
        sa.Column("contacted_at", sa.BigInteger()),
        sa.Column("rectified_at", sa.BigInteger()),
        sa.Column("called_back_at", sa.BigInteger()),
        sa.Column("closed_at", sa.BigInteger()),
        sa.Column("revoked_at", sa.BigInteger()),
    )
