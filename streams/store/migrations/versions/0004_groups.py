"""Groups of cases, how far a partition is known, which days a case depends on, and what ratings claim of it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("cursor", sa.Column("horizon", sa.BigInteger(), server_default="0", nullable=False))
    op.add_column("case_state", sa.Column("counted_from", sa.BigInteger(), server_default="0", nullable=False))
    op.add_column("case_state", sa.Column("counted_to", sa.BigInteger()))
    op.add_column("case_state", sa.Column("known_at", sa.BigInteger(), server_default="0", nullable=False))
    op.create_table(
        "case_group",
        sa.Column("group_key", sa.Text(), nullable=False),
        sa.Column("case_no", sa.Text(), nullable=False),
        sa.Column("partition", sa.Integer(), nullable=False),
        sa.Column("stale", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("group_key", "case_no"),
    )
    op.create_index("ix_case_group_stale", "case_group", ["group_key"], postgresql_where=sa.text("stale"))
    op.create_index("ix_case_group_partition", "case_group", ["partition"])
    op.create_table(
        "group_state",
        sa.Column("group_key", sa.Text(), nullable=False),
        sa.Column("region", sa.Text(), nullable=False),
        sa.Column("department", sa.Text(), nullable=False),
        sa.Column("stage", sa.Text(), nullable=False),
        sa.Column("limit_rule", sa.Text(), nullable=False),
        sa.Column("accepted_at", sa.BigInteger()),
        sa.Column("due_at", sa.BigInteger()),
        sa.Column("yellow_at", sa.BigInteger()),
        sa.Column("ended_at", sa.BigInteger()),
        sa.Column("on_time", sa.Boolean()),
        sa.Column("provisional", sa.Boolean(), nullable=False),
        sa.Column("used_minutes", sa.BigInteger()),
        sa.Column("calendar_version", sa.Text(), nullable=False),
        sa.Column("parts", postgresql.JSONB(), nullable=False),
        sa.Column("next_check_at", sa.BigInteger()),
        sa.PrimaryKeyConstraint("group_key"),
    )
    op.create_index(
        "ix_group_state_next_check",
        "group_state",
        ["next_check_at"],
        postgresql_where=sa.text("next_check_at IS NOT NULL"),
    )
    op.create_table(
        "rating_claim",
        sa.Column("event_id", sa.UUID(), nullable=False),
        sa.Column("case_no", sa.Text(), nullable=False),
        sa.Column("service_no", sa.Integer(), nullable=False),
        sa.Column("assess_no", sa.Integer(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("too_slow", sa.Boolean(), nullable=False),
        sa.Column("received_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("event_id"),
    )
    op.create_index("ix_rating_claim_case", "rating_claim", ["case_no"])
    op.create_table("rating_claim_news", sa.Column("case_no", sa.Text(), nullable=False))


def downgrade() -> None:
    op.drop_table("rating_claim_news")
    op.drop_table("rating_claim")
    op.drop_table("group_state")
    op.drop_table("case_group")
    op.drop_column("cursor", "horizon")
    for name in ("counted_from", "counted_to", "known_at"):
        op.drop_column("case_state", name)
