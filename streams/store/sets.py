"""What projections share that derive a key's state from the set of its stored events, whatever order they
came in.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from functools import cache
from typing import Any

import sqlalchemy as sa

from streams.store import bulk
from streams.store.projection import Event

BUCKETS = 64  # advisory locks of one transaction: few, because PostgreSQL keeps them in shared memory
Body = Mapping[str, Any]


def body(event: Event) -> dict[str, Any]:
    """The whole record as JSON can hold it: dates as ISO text, times as epoch ms."""
    return {name: _plain(value) for name, value in event.record.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, str | int | None):  # nearly all are
        return value
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, list) else value


def keyed(name: str) -> Any:
    """For ``keep_new``: the columns ``name`` (the topic's key) and ``body``."""
    return lambda event: {name: event.record[name], "body": body(event)}


def stored(tx: sa.Connection, table: sa.Table, key: str, values: Iterable[str]) -> dict[str, list[Body]]:
    """Bodies of all stored events by key, each list sorted by ``(occurred_at, event_id)``.

    Transactions that derive the same keys wait for each other here, so each sees what the one before stored.
    """
    keys = sorted(set(values))
    tx.execute(_SERIALISE, {"table": table.name, "keys": keys, "buckets": BUCKETS})
    found: dict[str, list[Body]] = {k: [] for k in keys}
    for value, record in tx.execute(_bodies(table, key), {"keys": keys}):
        found[value].append(record)
    return found


@cache
def _bodies(table: sa.Table, key: str) -> sa.Select[Any]:
    query = sa.select(table.c[key], table.c.body).where(bulk.any_of(table.c[key], "keys"))
    return query.order_by(table.c.occurred_at, table.c.event_id)


_SERIALISE = sa.text(
    "SELECT pg_advisory_xact_lock(hashtext(:table), bucket) FROM (SELECT DISTINCT "
    "abs(hashtext(k) % :buckets) AS bucket FROM unnest(CAST(:keys AS text[])) AS k ORDER BY bucket) AS b"
)


def replace(tx: sa.Connection, table: sa.Table, key: str, keys: Sequence[str], rows: Sequence[Body]) -> None:
    """Make ``rows`` all that ``table`` holds for ``keys``."""
    tx.execute(_gone(table, key), {"keys": list(keys)})
    bulk.insert_new(tx, table, rows, ())


@cache
def _gone(table: sa.Table, key: str) -> sa.Delete:
    return sa.delete(table).where(bulk.any_of(table.c[key], "keys"))
