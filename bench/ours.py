"""Measures one real worker process: from ratings in Kafka to committed, deduplicated, rolled-up SQL."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path

import sqlalchemy as sa

from bench.process import must_live, python
from schemas.errors import GovbusError
from schemas.topics import ALERT, RATING
from streams.store import migrate
from streams.store.engine import connect
from streams.store.tables import cursor, outbox, rating_cell, rating_event

POLL_S = 0.05
PATIENCE_S = 60.0


def measure(
    kafka: str, database_url: str, count: int, home: Path, uploads: bool, tell: Callable[[int], None]
) -> Mapping[str, float]:
    """Let a fresh worker fold ``count`` ratings into the empty database at ``database_url``.

    ``rate`` (events a second) is taken from the first commit that is seen to the last (the same as
    ``rate_from_start`` if one commit took all); ``rate_from_start`` from the start of the process. Raises
    ``GovbusError`` if SQL does not hold each rating once.
    """
    migrate.upgrade(database_url)
    engine = connect(database_url)
    home.mkdir(parents=True, exist_ok=True)
    arguments = ["--kafka", kafka, "--database-url", database_url, "--home", str(home)]
    started = time.monotonic()
    try:
        with python("streams", [*arguments, *([] if uploads else ["--without-uploads"])], home / "worker.log") as child:
            first, had = _wait(engine, 1, lambda: must_live(child, home / "worker.log"), tell)
            last, _ = _wait(engine, count, lambda: must_live(child, home / "worker.log"), tell)
        _verify(engine, count)
        sizes = _sizes(engine)
    finally:
        engine.dispose()
    from_start = count / (last - started)
    rate = (count - had) / (last - first) if had < count else from_start
    return {"rate": rate, "rate_from_start": from_start, **sizes}


def _wait(engine: sa.Engine, wanted: int, alive: Callable[[], None], tell: Callable[[int], None]) -> tuple[float, int]:
    """When at least ``wanted`` ratings are committed, and how many then; gives up if nothing moves for a
    minute.
    """
    moved, before = time.monotonic(), -1
    while True:
        done = _committed(engine)
        tell(done)
        if done >= wanted:
            return time.monotonic(), done
        if done != before:
            moved, before = time.monotonic(), done
        if time.monotonic() - moved > PATIENCE_S:
            raise GovbusError(f"the worker stands at {done} of {wanted} ratings")
        alive()
        time.sleep(POLL_S)


def _committed(engine: sa.Engine) -> int:
    query = sa.select(sa.func.coalesce(sa.func.sum(cursor.c.next_offset), 0)).where(cursor.c.topic == RATING.name)
    with engine.connect() as tx:
        return int(tx.execute(query).scalar_one())


def _verify(engine: sa.Engine, count: int) -> None:
    with engine.connect() as tx:
        events = tx.execute(sa.select(sa.func.count()).select_from(rating_event)).scalar_one()
        counted = tx.execute(sa.select(sa.func.sum(rating_cell.c.n))).scalar_one()
    if not events == counted == count:
        raise GovbusError(f"{count} ratings gave {events} events and cells that sum up to {counted}")


def _sizes(engine: sa.Engine) -> dict[str, float]:
    """How many cells there are, and how much was said: all, and bad ratings."""
    rows = sa.func.count()
    queries = {
        "cells": sa.select(rows).select_from(rating_cell),
        "outbox": sa.select(rows).select_from(outbox),
        "alerts": sa.select(rows).where(outbox.c.topic == ALERT.name),
    }
    with engine.connect() as tx:
        return {name: float(tx.execute(query).scalar_one()) for name, query in queries.items()}
