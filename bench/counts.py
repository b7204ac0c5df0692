"""Who counted what: the cells of the log, of our SQL, of a peer's dump, in one shape, so that they can be compared.

A cell is the counted fields as texts, ``day`` (days since 1970 in Asia/Shanghai) and ``n``. A peer that counted
wrong is wrong, not fast.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import sqlalchemy as sa

from bench import log
from schemas import codec, codesets, columns
from schemas.topics import Topic
from streams.store.tables import rating_cell

RATING_FIELDS = ("department", "item_code", "channel_code", "satisfaction_code")
DAY_MS, SHANGHAI_MS = 86_400_000, 8 * 3_600_000


def of_log(kafka: str, topic: Topic, fields: Sequence[str], ends: Mapping[int, int] | None = None) -> pl.DataFrame:
    """The cells of ``topic`` up to ``ends`` (next offset by partition; None: all of it), counted here."""
    cells = _summed([], fields)
    for batch in log.batches(kafka, topic, ends or log.ends(kafka, topic)):
        cells = _summed([cells, _counted(_decoded(topic, batch, fields), fields)], fields)
    return cells


def of_sql(engine: sa.Engine) -> pl.DataFrame:
    """The cells of the ratings in our database, with the codes that the load uses."""
    c = rating_cell.c
    query = sa.select(c.department, c.item_code, c.channel, c.score, c.rated_on, c.n).where(c.n > 0)
    with engine.connect() as tx:
        rows = tx.execute(query).all()
    code = {canonical: given for given, canonical in codesets.load("platform.channel").canonical.items()}
    return _summed([_frame(rows, code)] if rows else [], RATING_FIELDS)


def of_dump(path: Path, fields: Sequence[str]) -> pl.DataFrame:
    """The cells that a peer wrote: fields, day and count, separated by tabs."""
    names = [*fields, "day", "n"]
    if path.stat().st_size == 0:
        return _summed([], fields)
    schema = {**dict.fromkeys(fields, pl.String), "day": pl.Int64, "n": pl.Int64}
    read = pl.read_csv(path, separator="\t", has_header=False, new_columns=names, schema=schema, quote_char=None)
    return _summed([read], fields)


def differences(expected: pl.DataFrame, found: pl.DataFrame) -> int:
    """How many cells are missing, too many, or hold another count."""
    keys = [c for c in expected.columns if c != "n"]
    both = expected.join(found, on=keys, how="full", coalesce=True, suffix="_found")
    return both.filter(pl.col("n").fill_null(0) != pl.col("n_found").fill_null(0)).height


def _decoded(topic: Topic, batch: log.Batch, fields: Sequence[str]) -> pl.DataFrame:
    wanted = [*fields, "occurred_at"]
    if columns.readable(topic):
        return columns.decode_columns(topic, batch.values, batch.ids).select(wanted)
    records = (codec.decode(value, topic) for value in batch.values)
    return pl.DataFrame([{name: record[name] for name in wanted} for record in records])


def _counted(records: pl.DataFrame, fields: Sequence[str]) -> pl.DataFrame:
    day = (pl.col("occurred_at").cast(pl.Int64) + SHANGHAI_MS) // DAY_MS
    return records.group_by([*fields, day.alias("day")]).agg(n=pl.len().cast(pl.Int64))


def _summed(parts: Sequence[pl.DataFrame], fields: Sequence[str]) -> pl.DataFrame:
    keys = [*fields, "day"]
    if not parts:
        return pl.DataFrame(schema={**dict.fromkeys(fields, pl.String), "day": pl.Int64, "n": pl.Int64})
    return pl.concat([p.select(*keys, "n") for p in parts]).group_by(keys).agg(pl.col("n").sum())


def _frame(rows: Sequence[Any], code: Mapping[str, str]) -> pl.DataFrame:
    read = pl.DataFrame(rows, schema=["department", "item_code", "channel", "score", "rated_on", "n"], orient="row")
    return read.select(
        "department",
        "item_code",
        channel_code=pl.col("channel").replace_strict(code),
        satisfaction_code=pl.col("score").cast(pl.String),
        day=pl.col("rated_on").cast(pl.Date).to_physical().cast(pl.Int64),
        n=pl.col("n").cast(pl.Int64),
    )
