"""Rebuild: forget what was derived and read the log again. The workers may go on running.

What was said stays said: outbox, receipts and the bookkeeping of alerts and rollups are no state, and a fold
that runs again says the same under the same ids.
"""

from __future__ import annotations

from collections.abc import Iterable

import sqlalchemy as sa

from schemas.topics import INBOUND
from streams.store import references
from streams.store.tables import STATE_TABLES, cursor, dead_letter, stored


def forget(engine: sa.Engine, processors: Iterable[str]) -> None:
    """Empty the state tables and the cursors of ``processors`` in one transaction; dead letters of rows refused
    before the bus (INTAKE) and redriven ones stay, for the log knows nothing of them, and so do those of consumers,
    which read nothing again.

    Waits for the transactions under way. A worker that goes on finds its cursor gone, reads back to the start
    of the log and folds everything again; nothing else need be told.
    """
    derived = ", ".join(f'"{table.name}"' for table in stored(STATE_TABLES) if table is not dead_letter)
    with engine.begin() as tx:
        tx.execute(sa.text("LOCK TABLE cursor IN ACCESS EXCLUSIVE MODE"))
        for kind in references.KINDS:
            references.changed(tx, kind)
        tx.execute(sa.text(f"TRUNCATE {derived}"))
        read_again = dead_letter.c.topic.in_([topic.name for topic in INBOUND])
        fresh = sa.and_(dead_letter.c.origin == "STREAM", dead_letter.c.redriven_at.is_(None), read_again)
        tx.execute(sa.delete(dead_letter).where(fresh))
        tx.execute(sa.delete(cursor).where(cursor.c.processor.in_(list(processors))))
