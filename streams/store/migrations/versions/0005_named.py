"""Whether a bad rating says by whom: such a one must be called back."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for table in ("alert_inbox", "alert_life"):
        op.add_column(table, sa.Column("named", sa.Boolean()))


def downgrade() -> None:
    for table in ("alert_inbox", "alert_life"):
        op.drop_column(table, "named")
