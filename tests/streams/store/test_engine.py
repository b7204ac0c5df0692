"""How connections behave: what is read often stays prepared."""

from __future__ import annotations

import sqlalchemy as sa

from streams.store.engine import connect, reading

OFTEN = 7
"""psycopg prepares a statement when it is executed for the sixth time."""
PREPARED = sa.text("SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE 'SELECT next_offset%'")


def test_what_a_line_reads_again_and_again_is_prepared_once(database: str) -> None:
    engine = connect(database)
    for _ in range(OFTEN):
        with reading(engine).connect() as tx:
            tx.execute(sa.text("SELECT next_offset FROM cursor")).all()
    with engine.begin() as tx:
        kept = tx.execute(PREPARED).scalar_one()
    engine.dispose()
    assert kept == 1
