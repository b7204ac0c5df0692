"""The oldest unsent event is looked up by topic: what is said but unsent no longer stands in its way."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

UNSENT = sa.text("sent_at IS NULL")


def upgrade() -> None:
    op.drop_index("ix_outbox_unsent_received", "outbox")
    op.create_index("ix_outbox_unsent_received", "outbox", ["topic", "received_at"], postgresql_where=UNSENT)


def downgrade() -> None:
    op.drop_index("ix_outbox_unsent_received", "outbox")
    op.create_index("ix_outbox_unsent_received", "outbox", ["received_at"], postgresql_where=UNSENT)
