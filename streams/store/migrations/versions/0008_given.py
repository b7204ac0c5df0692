"""An act counts of the right department, and not before its alert; a cancelled supervision starts clocks anew. Alerts
about which something was done are looked at again.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("alert_inbox", sa.Column("given_at", sa.BigInteger()))
    op.execute(
        "UPDATE alert_inbox i SET given_at = r.occurred_at FROM rating_event r WHERE i.kind = 'BAD_RATING' "
        "AND r.case_no = i.case_no AND r.event_id::text = i.evidence->>0"
    )
    op.execute(
        "UPDATE desk_check d SET next_check_at = 0 WHERE scope = 'CASE' "
        "AND EXISTS (SELECT FROM alert_life l WHERE l.case_no = d.key AND l.steps <> '[]')"
    )


def downgrade() -> None:
    op.drop_column("alert_inbox", "given_at")
