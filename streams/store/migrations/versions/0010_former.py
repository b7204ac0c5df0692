"""Who answered for an alert before the department that its last word names: what they did then was theirs to do.

Whoever heard of an alert hears all that is said of it after. Bad ratings of void cases are looked at again, and
districts in which a township was rated have their days said again.
"""

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
    op.create_index("ix_delivery_alert", "delivery", [sa.text("(body->>'alert_id')")])
    op.execute(
        "UPDATE desk_check d SET next_check_at = 0 FROM rating_out o "
        "WHERE d.scope = 'CASE' AND d.key = o.case_no AND o.department = '' AND o.out"
    )
    op.execute(
        "INSERT INTO rollup_dirty (region, department, rated_on) SELECT DISTINCT region, department, rated_on "
        "FROM rating_cell_merged WHERE length(region) > 6"
    )


def downgrade() -> None:
    op.drop_index("ix_delivery_alert")
    op.drop_column("alert_inbox", "former")
