"""Ratings found by case; cells kept by day, with the time of their latest event; days to be said again."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

BY_DAY = ["region", "department", "rated_on", "item_code", "channel", "score"]
BY_ITEM = ["region", "department", "item_code", "channel", "score", "rated_on"]


def upgrade() -> None:
    op.create_index("ix_rating_event_case", "rating_event", ["case_no"])
    op.add_column("rating_cell", sa.Column("received_at", sa.BigInteger(), nullable=False, server_default="0"))
    op.alter_column("rating_cell", "received_at", server_default=None)
    op.drop_constraint("rating_cell_pkey", "rating_cell")
    op.create_primary_key("rating_cell_pkey", "rating_cell", BY_DAY)
    op.create_table(
        "rollup_dirty",
        sa.Column("region", sa.Text(), nullable=False),
        sa.Column("department", sa.Text(), nullable=False),
        sa.Column("rated_on", sa.Date(), nullable=False),
    )
    op.create_index("ix_rollup_dirty_day", "rollup_dirty", ["region", "department", "rated_on"])


def downgrade() -> None:
    op.drop_table("rollup_dirty")
    op.drop_constraint("rating_cell_pkey", "rating_cell")
    op.create_primary_key("rating_cell_pkey", "rating_cell", BY_ITEM)
    op.drop_column("rating_cell", "received_at")
    op.drop_index("ix_rating_event_case", "rating_event")
