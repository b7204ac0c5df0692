"""What appeals decided is said by the desk: it looks again at what was decided before, and keeps what it said of it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB, UUID

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None
AGAIN = "UPDATE desk_check d SET next_check_at = 0 FROM {} WHERE d.scope = 'CASE' AND d.key = {}.case_no AND {}"


def upgrade() -> None:
    op.create_table(
        "ruling",
        sa.Column("event_id", UUID(as_uuid=True), primary_key=True),
        sa.Column("about", sa.Text(), nullable=False),
        sa.Column("body", JSONB(), nullable=False),
    )
    op.create_index("ix_ruling_about", "ruling", ["about"])
    op.execute(AGAIN.format("alert_life", "alert_life", "out_reason IN ('appeal_upheld', 'case_voided')"))


def downgrade() -> None:
    op.drop_table("ruling")
    op.execute(AGAIN.format("alert_inbox", "alert_inbox", "kind = 'RULING'"))
    op.execute("DELETE FROM alert_inbox WHERE kind = 'RULING'")  # of a kind that an older release does not know
