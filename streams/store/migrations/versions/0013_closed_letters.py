"""Dead letters can be closed by hand, with a reason, and are closed when what they are about is published rightly."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("dead_letter", sa.Column("closed_why", sa.Text(), nullable=False, server_default=""))
    op.create_index(
        "ix_dead_letter_open", "dead_letter", ["event_id"], postgresql_where=sa.text("redriven_at IS NULL")
    )


def downgrade() -> None:
    op.drop_index("ix_dead_letter_open", "dead_letter")
    op.drop_column("dead_letter", "closed_why")
