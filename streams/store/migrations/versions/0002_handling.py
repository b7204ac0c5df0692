"""What the supervisor's desk needs to follow an alert's handling."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

JSON = postgresql.JSONB(astext_type=sa.Text())


def upgrade() -> None:
    for column in (
        sa.Column("item_code", sa.Text(), server_default="", nullable=False),
        sa.Column("rule_id", sa.Text(), server_default="", nullable=False),
        sa.Column("due_at", sa.BigInteger(), nullable=True),
        sa.Column("known_at", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("reason", sa.Text(), server_default="", nullable=False),
        sa.Column("evidence", JSON, server_default="[]", nullable=False),
    ):
        op.add_column("alert_inbox", column)
    op.create_index("ix_alert_inbox_case", "alert_inbox", ["case_no"])
    op.create_index("ix_handling_event_case", "handling_event", ["case_no"])
    op.create_table(
        "desk_check",
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("partition", sa.Integer(), nullable=False),
        sa.Column("next_check_at", sa.BigInteger(), nullable=True),
        sa.Column("said", JSON, server_default="{}", nullable=False),
        sa.PrimaryKeyConstraint("scope", "key"),
    )
    op.create_index(
        "ix_desk_check_next",
        "desk_check",
        ["partition", "next_check_at"],
        postgresql_where=sa.text("next_check_at IS NOT NULL"),
    )
    op.create_table(
        "alert_life",
        *(
            sa.Column(name, sa.Text(), nullable=False)
            for name in ("alert_id", "case_no", "region", "department", "item_code", "kind", "colour", "rule_id",
                         "stage")
        ),
        sa.Column("issued_at", sa.BigInteger(), nullable=True),
        sa.Column("out_at", sa.BigInteger(), nullable=True),
        sa.Column("out_reason", sa.Text(), nullable=False),
        *(
            sa.Column(name, sa.BigInteger(), nullable=True)
            for name in ("signed_at", "contacted_at", "rectified_at", "called_back_at", "closed_at")
        ),
        sa.Column("verified", sa.Text(), nullable=False),
        sa.Column("level", sa.Text(), nullable=False),
        sa.Column("closing", sa.Text(), nullable=False),
        sa.Column("dues", JSON, nullable=False),
        sa.Column("next_timer", sa.Text(), nullable=False),
        sa.Column("next_due_at", sa.BigInteger(), nullable=True),
        sa.Column("steps", JSON, nullable=False),
        sa.PrimaryKeyConstraint("case_no", "alert_id"),
    )  # fmt: skip
    op.create_index("ix_alert_life_alert", "alert_life", ["alert_id"])
    op.create_index("ix_alert_life_department", "alert_life", ["department", "kind", "issued_at"])
    # what the desk knew before: words that lack what is new are read again from the topic
    op.execute("DELETE FROM cursor WHERE processor = 'alerts'")
