"""One index instead of two for ratings; cells keyed by day first, with room for their updates."""

from __future__ import annotations

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

BY_DAY = ["rated_on", "department", "item_code", "channel", "score", "region"]
BY_REGION = ["region", "department", "rated_on", "item_code", "channel", "score"]


def upgrade() -> None:
    op.drop_constraint("rating_event_pkey", "rating_event")
    op.drop_index("ix_rating_event_case", "rating_event")
    op.create_primary_key("rating_event_pkey", "rating_event", ["case_no", "event_id"])
    op.drop_constraint("rating_cell_pkey", "rating_cell")
    op.create_primary_key("rating_cell_pkey", "rating_cell", BY_DAY)
    op.execute("ALTER TABLE rating_cell SET (fillfactor = 80)")


def downgrade() -> None:
    op.execute("ALTER TABLE rating_cell RESET (fillfactor)")
    op.drop_constraint("rating_cell_pkey", "rating_cell")
    op.create_primary_key("rating_cell_pkey", "rating_cell", BY_REGION)
    op.drop_constraint("rating_event_pkey", "rating_event")
    op.create_index("ix_rating_event_case", "rating_event", ["case_no"])
    op.create_primary_key("rating_event_pkey", "rating_event", ["event_id"])
