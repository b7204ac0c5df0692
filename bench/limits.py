"""What this machine can do at most: read Kafka only, decode only, COPY with and without a primary key. Events a
second.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping

import sqlalchemy as sa

from bench import log
from schemas import columns
from schemas.topics import Topic
from streams.store.bulk import driver

CHUNK = 20_000


def upto(kafka: str, topic: Topic, count: int) -> dict[int, int]:
    """About the first ``count`` records of ``topic``, as next offsets."""
    ends = log.ends(kafka, topic)
    share = min(1.0, count / max(1, sum(ends.values())))
    return {p: int(end * share) for p, end in ends.items()}


def consume(kafka: str, topic: Topic, ends: Mapping[int, int]) -> float:
    """Rate at which one confluent-kafka consumer reads, from the first batch on (from the start if one held all)."""
    began = time.monotonic()
    moments = [(time.monotonic(), len(batch.values)) for batch in log.batches(kafka, topic, ends)]
    first, read = moments[0]
    if len(moments) == 1:
        return read / (first - began)
    return sum(n for _, n in moments[1:]) / (moments[-1][0] - first)


def decode(kafka: str, topic: Topic, ends: Mapping[int, int]) -> float:
    """Rate of ``decode_columns`` alone over records that are already in memory."""
    spent, read = 0.0, 0
    for batch in log.batches(kafka, topic, ends):
        began = time.monotonic()
        columns.decode_columns(topic, batch.values, batch.ids)
        spent += time.monotonic() - began
        read += len(batch.values)
    return read / spent


def copy(engine: sa.Engine, table: sa.Table, count: int) -> dict[str, float]:
    """Rates of COPY of rows that ``table`` holds into tables like it, a commit a chunk: with ``event_id`` as primary
    key and no other index, and without any.
    """
    rates = {}
    for name, key in (("copy_with_primary_key", ", PRIMARY KEY (event_id)"), ("copy_without_key", "")):
        with engine.begin() as tx:
            tx.execute(sa.text(f"CREATE TABLE bench_copy (LIKE {table.name}{key})"))
        rates[name] = _copied(engine, table, count)
        with engine.begin() as tx:
            tx.execute(sa.text("DROP TABLE bench_copy"))
    return rates


def _copied(engine: sa.Engine, table: sa.Table, count: int) -> float:
    spent, done = 0.0, 0
    for rows in _chunks(engine, table, count):
        data = b"".join(rows)
        began = time.monotonic()
        with engine.begin() as tx, driver(tx).cursor() as cursor, cursor.copy("COPY bench_copy FROM STDIN") as into:
            into.write(data)
        spent += time.monotonic() - began
        done += len(rows)
    return done / spent


def _chunks(engine: sa.Engine, table: sa.Table, count: int) -> Iterator[list[bytes]]:
    """Rows of ``table`` in COPY's text format, which writes one row at a time."""
    query = f"COPY (SELECT * FROM {table.name} LIMIT {count}) TO STDOUT".encode()
    chunk: list[bytes] = []
    with engine.connect() as tx, driver(tx).cursor() as cursor, cursor.copy(query) as out:
        for row in out:
            chunk.append(bytes(row))
            if len(chunk) == CHUNK:
                yield chunk
                chunk = []
    if chunk:
        yield chunk


def measure(kafka: str, topic: Topic, count: int) -> dict[str, float]:
    """``consume`` and, where the contract can be read by column, ``decode``."""
    ends = upto(kafka, topic, count)
    found = {"consume": consume(kafka, topic, ends)}
    if columns.readable(topic):
        found["decode"] = decode(kafka, topic, ends)
    return found
