"""What does not count is kept by region too: a rating that was withdrawn and published anew for a township is another
assessment. Until now both stood or fell together, so each region of which there is a rating keeps what was known.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None
KEY = ["case_no", "department", "service_no", "assess_no"]
KNOWN = f'{", ".join(KEY)}, "out", changes, known_at'


def upgrade() -> None:
    op.add_column("rating_out", sa.Column("region", sa.Text(), nullable=False, server_default=""))
    op.drop_constraint("rating_out_pkey", "rating_out", type_="primary")
    op.create_primary_key("rating_out_pkey", "rating_out", [KEY[0], "region", *KEY[1:]])
    op.execute(
        f"INSERT INTO rating_out ({KNOWN}, region) SELECT DISTINCT {KNOWN}, e.region "
        f"FROM rating_out JOIN rating_event e USING ({', '.join(KEY)})"
    )
    op.execute(
        f"DELETE FROM rating_out o WHERE region = '' AND EXISTS (SELECT FROM rating_out WHERE region <> '' "
        f"AND ({', '.join(KEY)}) = ({', '.join(f'o.{name}' for name in KEY)}))"
    )


def downgrade() -> None:
    op.drop_constraint("rating_out_pkey", "rating_out", type_="primary")
    op.drop_column("rating_out", "region")
    op.create_primary_key("rating_out_pkey", "rating_out", KEY)
