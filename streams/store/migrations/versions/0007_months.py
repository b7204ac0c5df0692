"""A department's red cards are counted by calendar month, a case's once: what was said of them is looked at again."""

from __future__ import annotations

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

LOCAL = "to_timestamp({} / 1000.0) AT TIME ZONE 'Asia/Shanghai'"
MONTH = f"k.key || '/' || to_char({LOCAL}, 'YYYY-MM')"
ISSUED_AT = "CAST(s.value->'alert'->>11 AS bigint)"  # the alert is stored as an array of its fields


def upgrade() -> None:
    op.execute(
        "UPDATE desk_check SET next_check_at = 0 WHERE scope = 'CASE' AND CAST(said AS text) LIKE '%HS-ESC-CASE%'"
    )
    op.execute(
        "INSERT INTO desk_check (scope, key, partition, next_check_at) "
        f"SELECT DISTINCT 'DEPARTMENT', {MONTH.format('l.issued_at')}, k.partition, 0 "
        "FROM desk_check k JOIN alert_life l ON l.department = k.key "
        "WHERE k.scope = 'DEPARTMENT' AND l.kind = 'CARD' AND l.colour IN ('RED', 'RED_STATUTORY')"
    )
    op.execute(  # what was said stays remembered under its month, so that the next look takes it back
        "INSERT INTO desk_check (scope, key, partition, next_check_at, said) "
        f"SELECT 'DEPARTMENT', {MONTH.format(ISSUED_AT)}, k.partition, 0, jsonb_object_agg(s.key, s.value) "
        "FROM desk_check k CROSS JOIN jsonb_each(k.said) AS s "
        "WHERE k.scope = 'DEPARTMENT' AND k.key NOT LIKE '%/%' GROUP BY 2, 3 "
        "ON CONFLICT (scope, key) DO UPDATE SET said = EXCLUDED.said"
    )
    op.execute("DELETE FROM desk_check WHERE scope = 'DEPARTMENT' AND key NOT LIKE '%/%'")


def downgrade() -> None:
    op.execute(
        "INSERT INTO desk_check (scope, key, partition, next_check_at, said) "
        "SELECT 'DEPARTMENT', split_part(k.key, '/', 1), min(k.partition), 0, "
        "coalesce(jsonb_object_agg(s.key, s.value) FILTER (WHERE s.key IS NOT NULL), '{}') "
        "FROM desk_check k LEFT JOIN jsonb_each(k.said) AS s ON true WHERE k.scope = 'DEPARTMENT' GROUP BY 2"
    )
    op.execute("DELETE FROM desk_check WHERE scope = 'DEPARTMENT' AND key LIKE '%/%'")
