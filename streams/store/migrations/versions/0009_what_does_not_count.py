"""Ratings of void cases, and those that an appeal excluded, leave the rollups; those that are known, too."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "rating_out",
        sa.Column("case_no", sa.Text(), primary_key=True),
        sa.Column("department", sa.Text(), primary_key=True),
        sa.Column("service_no", sa.Integer(), primary_key=True),
        sa.Column("assess_no", sa.Integer(), primary_key=True),
        sa.Column("out", sa.Boolean(), nullable=False),
        sa.Column("changes", sa.Integer(), nullable=False),
        sa.Column("known_at", sa.BigInteger(), nullable=False),
    )
    op.create_table("rating_out_news", sa.Column("case_no", sa.Text(), nullable=False))
    op.execute(
        "INSERT INTO rating_out SELECT case_no, '', 0, 0, true, 1, known_at FROM case_state WHERE status = 'VOID'"
    )
    op.execute(
        "INSERT INTO rating_out_news SELECT case_no FROM rating_out "
        "UNION SELECT case_no FROM alert_life WHERE kind = 'BAD_RATING' AND out_reason = 'appeal_upheld'"
    )


def downgrade() -> None:
    op.drop_table("rating_out_news")
    op.drop_table("rating_out")
