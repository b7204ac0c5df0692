"""A case's events and alerts apart from what follows from them: a revised calendar rewrites the latter of all."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "case_history",
        sa.Column("case_no", sa.Text(), primary_key=True),
        sa.Column("folded", postgresql.JSONB(), nullable=False),
    )
    op.execute(
        "INSERT INTO case_history SELECT case_no, jsonb_build_object('events', state->'events', "
        "'alerts', state->'alerts') FROM case_state"
    )
    op.execute("UPDATE case_state SET state = state - 'events' - 'alerts'")


def downgrade() -> None:
    op.execute("UPDATE case_state c SET state = state || folded FROM case_history h WHERE h.case_no = c.case_no")
    op.drop_table("case_history")
