"""What this machine can do at most: read Kafka only, decode only, COPY with a primary key only. Events a
second.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import polars as pl
import sqlalchemy as sa

from bench import load
from schemas import columns
from schemas.columns_out import event_ids
from schemas.topics import RATING
from streams.rules import tally as rule
from streams.store import frames
from streams.store.engine import connect
from streams.store.tally import STORED

CHUNK = 20_000
Values = tuple[list[bytes], list[bytes]]


def consume(kafka: str, count: int) -> float:
    """Rate at which one confluent-kafka consumer reads ``count`` ratings, from the first batch on (from the start
    if one batch held all).
    """
    began = time.monotonic()
    moments = [(time.monotonic(), len(values)) for values, _ in _batches(kafka, count)]
    first, read = moments[0]
    if len(moments) == 1:
        return read / (first - began)
    return sum(n for _, n in moments[1:]) / (moments[-1][0] - first)


def decode(kafka: str, count: int) -> float:
    """Rate of ``decode_columns`` alone over ratings that are already in memory."""
    spent, read = 0.0, 0
    for values, ids in _batches(kafka, count):
        began = time.monotonic()
        columns.decode_columns(RATING, values, ids)
        spent += time.monotonic() - began
        read += len(values)
    return read / spent


def copy(database_url: str, count: int) -> float:
    """Rate of COPY into a table like rating_event with its primary key and no other index, a commit a
    chunk.
    """
    engine = connect(database_url)
    with engine.begin() as tx:
        tx.execute(sa.text("DROP TABLE IF EXISTS bench_copy"))
        tx.execute(sa.text("CREATE TABLE bench_copy (LIKE rating_event, PRIMARY KEY (event_id))"))
    spent, done = 0.0, 0
    for chunk in _rows(count):
        began = time.monotonic()
        with engine.begin() as tx:
            frames.copy(tx, "bench_copy", chunk)
        spent += time.monotonic() - began
        done += chunk.height
    engine.dispose()
    return done / spent


def _rows(count: int) -> Iterator[pl.DataFrame]:
    for section in load.ratings(count, seed=2):
        whole = section.with_columns(
            event_id=event_ids(RATING, section),
            digest=event_ids(RATING, section),
            entered_at=pl.lit(None, pl.Int64),
            is_default=pl.lit(False),
            partition=pl.lit(0, pl.Int32),
            offset=pl.int_range(pl.len()),
            row=pl.int_range(pl.len()),
        )
        rows = rule.judge(whole).accepted.select(STORED)
        yield from rows.iter_slices(CHUNK)


def _batches(kafka: str, count: int) -> Iterator[Values]:
    """Values and ``ce_id`` headers of the first ``count`` ratings, in batches."""
    from confluent_kafka import Consumer, TopicPartition

    consumer: Any = Consumer({"bootstrap.servers": kafka, "group.id": "bench-limits", "enable.auto.commit": False})
    consumer.assign([TopicPartition(RATING.name, p, 0) for p in range(RATING.partitions)])
    try:
        read = 0
        while read < count and (batch := consumer.consume(CHUNK, 5)):
            fine = [m for m in batch if not m.error()]
            read += len(fine)
            yield [m.value() for m in fine], [dict(m.headers())["ce_id"] for m in fine]
    finally:
        consumer.close()
