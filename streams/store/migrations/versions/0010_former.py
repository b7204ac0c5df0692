"""Who answered for an alert before the department that its last word names: what they did then was theirs to do."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("alert_inbox", sa.Column("former", JSONB(), nullable=False, server_default="[]"))


def downgrade() -> None:
    op.drop_column("alert_inbox", "former")
