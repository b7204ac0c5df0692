"""Moves whole frames between log, outbox and tables. Decides how, never what; knows no topic's rule.

Reads by column where that is certain, else row by row; a single bad record costs its neighbours little,
because the
records are halved until it is alone with few.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import chain
from operator import attrgetter, itemgetter
from typing import Any
from uuid import UUID

import numpy as np
import polars as pl
import psycopg
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from schemas import bounds, columns, columns_out, envelope
from schemas.columns import ColumnsRefused
from schemas.contracts import contract
from schemas.topics import Topic
from streams.store import inflight, outbox, steps, tables
from streams.store.bulk import driver
from streams.store.lot import Columns, Lot
from streams.store.outbox import CHANNEL, WAKE
from streams.store.projection import Carried, Event, Refused

FEW_TO_SAY = 120  # records up to which encoding row by row is quicker than by column (50 µs each, 6 ms)
WANTED = ("ce_id", "ce_source", "ce_type")
"""Headers that must say what the record says."""
ENOUGH_EVENTS = 200  # records from which decoding by column is quicker, though each becomes an object in the end
FEW = 64  # records below which halving costs more than reading rows


@dataclass(frozen=True, slots=True)
class Read:
    """``frame``: the contract's columns, ``row`` (place in the chunk), ``partition``, ``offset``, ``digest``
    (hexadecimal). ``refused``: the rest.
    """

    frame: pl.DataFrame
    refused: list[Refused]


def read(topic: Topic, carried: Sequence[Carried]) -> Read:
    """The records as one frame, exactly those that ``steps.decode_rows`` accepts, in the order given."""
    parts: list[pl.DataFrame] = []
    refused: list[Refused] = []
    lot = Lot.of(topic, carried)
    with inflight.marked(lot):
        _read(topic, lot, 0, parts, refused)
    frame = (pl.concat(parts).sort("row") if len(parts) > 1 else parts[0]) if parts else _empty(topic)
    return Read(_placed(frame, lot), refused)


def events(topic: Topic, carried: Sequence[Carried]) -> tuple[list[Event], list[Refused]]:
    """What ``steps.decode_rows`` makes of ``carried``; many of them by column, where the contract allows it."""
    if len(carried) < ENOUGH_EVENTS or not columns.readable(topic):
        return steps.decode_rows(carried)
    found = read(topic, carried)
    records = found.frame.drop("row", "partition", "offset", "digest").iter_rows(named=True)
    made = zip(found.frame["row"].to_list(), found.frame["digest"].to_list(), records, strict=True)
    return [
        Event(carried[row], UUID(record["event_id"]), UUID(digest), record) for row, digest, record in made
    ], found.refused


def _placed(frame: pl.DataFrame, lot: Lot) -> pl.DataFrame:
    rows = frame["row"].to_numpy()
    return frame.hstack(
        [pl.Series("partition", lot.partitions[rows].astype(np.int32)), pl.Series("offset", lot.offsets[rows])]
    )


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows on their way into ``table``: the statement and its data, made without the database."""

    table: str
    height: int
    statement: bytes
    data: memoryview


def rows(table: str, frame: pl.DataFrame, quoted: bool = False) -> Rows:
    """The frame's columns made ready for COPY into ``table`` under their own names; ``quoted``: some value must be."""
    names = ", ".join(f'"{c}"' for c in frame.columns)
    data, kind = (plain, "text") if not quoted and (plain := _plain(frame)) else (_quoted(frame), "csv")
    return Rows(table, frame.height, f'COPY "{table}" ({names}) FROM STDIN (FORMAT {kind})'.encode(), data)


def _plain(frame: pl.DataFrame) -> memoryview | None:
    """COPY's text format, a tenth quicker than CSV on either side; None where a value would have to be escaped."""
    buffer = io.BytesIO()
    frame.write_csv(buffer, include_header=False, quote_style="never", separator="\t", null_value="\\N")
    data = buffer.getbuffer()
    characters = np.frombuffer(data, np.uint8)
    ends, escapes = np.count_nonzero(characters <= ord("\r")), np.count_nonzero(characters == ord("\\"))
    only_ours = ends == frame.height * frame.width and escapes == sum(s.null_count() for s in frame.iter_columns())
    return data if only_ours else None


def _quoted(frame: pl.DataFrame) -> memoryview:
    buffer = io.BytesIO()
    frame.write_csv(buffer, include_header=False, quote_style="non_numeric")
    return buffer.getbuffer()


def write(tx: sa.Connection, ready: Rows) -> None:
    """COPY rows that were made ready. Raises what psycopg raises."""
    with driver(tx).cursor() as cursor, cursor.copy(ready.statement) as out:
        out.write(ready.data)


@dataclass(frozen=True, slots=True)
class Spoken:
    """Outbox rows, encoded; ``ready`` is None where COPY cannot take them, or need not: an id comes twice, or there
    are few.
    """

    frame: pl.DataFrame
    ready: Rows | None


def spoken(said: Sequence[tuple[Topic, pl.DataFrame]]) -> Spoken:
    """Records of outbound topics (without ``event_id``) as outbox rows; needs no database."""
    encoded = [_outbox_rows(topic, records) for topic, records in said if records.height]
    if not encoded:
        return Spoken(pl.DataFrame(), None)
    whole = pl.concat(encoded) if len(encoded) > 1 else encoded[0]
    once = whole.height > FEW and whole["event_id"].n_unique() == whole.height
    ready = rows("outbox", whole, quoted=True) if once else None  # each value begins with a backslash
    return Spoken(whole, ready)


def put(tx: sa.Connection, said: Spoken) -> None:
    """Put the rows into the outbox in their order; what was said before is not said again."""
    if said.frame.is_empty():
        return
    if said.ready is None or not _write_unless_known(tx, said.ready):
        _insert_unknown(tx, said.frame)
    else:
        tx.execute(WAKE)


def _write_unless_known(tx: sa.Connection, ready: Rows) -> bool:
    """COPY inside a savepoint; False (and nothing written) if a unique key was known."""
    try:
        with tx.begin_nested():
            write(tx, ready)
    except psycopg.errors.UniqueViolation:
        return False
    return True


def _outbox_rows(topic: Topic, records: pl.DataFrame) -> pl.DataFrame:
    """Outbox rows of the records: the same rows either way, whichever is quicker for so many."""
    few = records.height <= FEW_TO_SAY
    return _encoded_by_row(topic, records) if few else _encoded_by_column(topic, records)


def _encoded_by_row(topic: Topic, records: pl.DataFrame) -> pl.DataFrame:
    names = [f["name"] for f in contract(topic)["fields"] if f["name"] in records.columns]
    made = [outbox.row(topic, record) for record in records.select(names).iter_rows(named=True)]
    return pl.DataFrame([_text_row(row) for row in made])


def _text_row(row: outbox.OutboxRow) -> dict[str, Any]:
    record = row.record
    pairs = [[name, value.decode()] for name, value in envelope.headers(row.topic, record)]
    return {
        "event_id": str(row.event_id),
        "topic": row.topic.name,
        "key": str(record[row.topic.key]),
        "region": record["region"],
        "department": record["department"],
        "occurred_at": record["occurred_at"],
        "received_at": record["received_at"],
        "digest": envelope.digest(row.value).hex,
        "content_digest": row.content_digest.hex,
        "value": "\\x" + row.value.hex(),
        "headers": json.dumps(pairs, ensure_ascii=False, separators=(",", ":")),
    }


def _encoded_by_column(topic: Topic, records: pl.DataFrame) -> pl.DataFrame:
    written = columns_out.write(topic, records)
    return records.select(
        event_id=pl.lit(written.event_id),
        topic=pl.lit(topic.name),
        key=pl.col(topic.key),
        region="region",
        department="department",
        occurred_at="occurred_at",
        received_at="received_at",
        digest=pl.lit(written.digest),
        content_digest=pl.lit(written.content_digest),
        value=pl.format("\\x{}", pl.lit(written.value)),
        headers=pl.lit(columns_out.headers_json(topic, records, written.event_id)),
    )


def _insert_unknown(tx: sa.Connection, encoded: pl.DataFrame) -> None:
    """Insert what is not known and wake the relay, in one statement."""
    into, given = ", ".join(f'"{c}"' for c in encoded.columns), ", ".join(["%s::text[]"] * encoded.width)
    cast = ", ".join(f'"{c}"::{_TYPES[c]}' for c in encoded.columns)
    with driver(tx).cursor() as cursor:
        cursor.execute(
            f"WITH put AS (INSERT INTO outbox ({into}) SELECT {cast} FROM unnest({given}) WITH ORDINALITY "
            f"AS s({into}, place) ORDER BY place ON CONFLICT DO NOTHING) SELECT pg_notify('{CHANNEL}', '')".encode(),
            [encoded[c].cast(pl.String).to_list() for c in encoded.columns],
        )


_POSTGRESQL = postgresql.dialect()  # type: ignore[no-untyped-call]
_TYPES = {c.name: c.type.compile(_POSTGRESQL) for c in tables.outbox.columns}


@dataclass(frozen=True, slots=True)
class _Heads:
    """The headers that must agree with the record, by column; ``single`` tells where no name came twice."""

    ids: pl.Series
    sources: pl.Series
    types: pl.Series
    single: pl.Series


def _read(topic: Topic, lot: Lot, start: int, parts: list[pl.DataFrame], refused: list[Refused]) -> None:
    if not lot:
        return
    if inflight.careful() and inflight.suspected(topic.name, inflight.ranges_of(lot)):  # one cannot harm another then
        _read_rows(topic, list(lot), range(start, start + len(lot)), parts, refused)
        return
    try:
        _read_columns(topic, lot, start, parts, refused)
    except ColumnsRefused:
        if len(lot) <= FEW:
            _read_rows(topic, list(lot), range(start, start + len(lot)), parts, refused)
            return
        middle = len(lot) // 2
        _read(topic, lot[:middle], start, parts, refused)
        _read(topic, lot[middle:], start + middle, parts, refused)


def _read_columns(topic: Topic, lot: Lot, start: int, parts: list[pl.DataFrame], refused: list[Refused]) -> None:
    heads = _heads(lot)
    values = lot.values()
    frame = columns.decode_columns(topic, values.to_list(), heads.ids)
    rows = pl.Series("row", np.arange(start, start + len(lot), dtype=np.int64))
    frame = frame.hstack([rows, columns_out.digests(values).alias("digest")])
    agrees = _agreement(topic, frame, lot, heads)
    if agrees.all():
        parts.append(frame)
        return
    parts.append(frame.filter(agrees))
    odd = frame.filter(~agrees)["row"].to_list()
    _read_rows(topic, [lot[i - start] for i in odd], odd, parts, refused)


def _heads(lot: Lot) -> _Heads:
    """The quick way where all records have the same header names in the same order, as our relay sends them."""
    if isinstance(lot.raws, Columns):
        return _column_heads(lot.raws)
    headers = list(map(attrgetter("headers"), lot.raws))
    first = [name for name, _ in headers[0]]
    flat = list(chain.from_iterable(headers))
    alike = set(map(len, headers)) == {len(first)} and list(map(itemgetter(0), flat)) == first * len(lot)
    if not alike or len(set(first)) < len(first) or not set(WANTED) <= set(first):
        return _mixed_heads(headers)
    ids, sources, types = (_binary(list(map(itemgetter(1), flat[first.index(n) :: len(first)]))) for n in WANTED)
    return _Heads(ids, sources, types, _everywhere(len(lot)))


def _column_heads(raws: Columns) -> _Heads:
    found = (raws.header(name) for name in WANTED)
    ids, sources, types = (_binary([b""] * len(raws)) if head is None else head for head in found)
    return _Heads(ids, sources, types, _everywhere(len(raws)))


def _everywhere(count: int) -> pl.Series:
    return pl.Series(np.ones(count, dtype=np.bool_))


def _mixed_heads(headers: Sequence[Sequence[tuple[str, bytes]]]) -> _Heads:
    heads = [dict(h) for h in headers]
    ids, sources, types = (_binary([h.get(n, b"") for h in heads]) for n in WANTED)
    single = pl.Series([len(h) == len(g) for h, g in zip(heads, headers, strict=True)])
    return _Heads(ids, sources, types, single)


def _agreement(topic: Topic, frame: pl.DataFrame, lot: Lot, heads: _Heads) -> pl.Series:
    """Where id, key, headers and times agree, as ``steps.decode_row`` demands."""
    said = (heads.single, heads.sources, heads.types, lot.keys())
    beside = frame.hstack([series.alias(name) for name, series in zip(SAID, said, strict=True)])
    return beside.select(ok=_agrees(topic))["ok"]


SAID = "said once", "said source", "said type", "said key"  # no contract can have fields of these names


@cache  # to build it takes as long as to reckon it for some hundred records
def _agrees(topic: Topic) -> pl.Expr:
    once, source, kind, key = map(pl.col, SAID)
    agrees = (
        once
        & (pl.format("/{}/{}", "region", "department").cast(pl.Binary) == source)
        & (pl.format("cn.govbus.{}.v1", "event_type").cast(pl.Binary) == kind)
        & (pl.col("event_id") == columns_out.event_id_of(topic))
        & (pl.col(topic.key).cast(pl.String).cast(pl.Binary) == key)
        & pl.col("event_type").is_in(list(steps.event_types(topic)))
        & pl.all_horizontal(
            pl.col(name).is_null() | pl.col(name).is_between(low, high)
            for name, (low, high) in steps.time_bounds(topic).items()
        )
        & pl.all_horizontal(  # more bytes may be few characters: the rows count those
            pl.col(name).str.len_bytes() <= bounds.MOST for name in bounds.bounded(topic)
        )
    )
    return agrees.fill_null(False)


def _binary(values: Sequence[bytes]) -> pl.Series:
    return pl.Series(values, dtype=pl.Binary)


def _read_rows(
    topic: Topic,
    carried: Sequence[Carried],
    rows: Sequence[int],
    parts: list[pl.DataFrame],
    refused: list[Refused],
) -> None:
    places = {id(c): row for c, row in zip(carried, rows, strict=True)}
    events, bad = steps.decode_rows(carried)
    refused.extend(bad)
    if events:
        table = pl.DataFrame([dict(e.record) for e in events], schema=columns.decode_columns(topic, [], []).schema)
        parts.append(
            table.with_columns(
                row=pl.Series([places[id(e.carried)] for e in events], dtype=pl.Int64),
                digest=pl.Series([e.digest.hex for e in events], dtype=pl.String),
            )
        )


def _empty(topic: Topic) -> pl.DataFrame:
    return columns.decode_columns(topic, [], []).with_columns(row=pl.lit(0, pl.Int64), digest=pl.lit("", pl.String))
