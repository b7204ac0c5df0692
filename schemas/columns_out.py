"""Many records of one topic encoded by column: the same bytes as ``schemas.codec.encode``, without a loop
over rows.

Works in hexadecimal text, because polars joins text columns and PostgreSQL's COPY reads bytes as hexadecimal
anyway. Knows strings, ints, longs, dates, booleans, arrays of strings and their nullable forms; checks no
code: the caller's columns are its own decisions, of known types. How large a value may be is the contract's word.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import fastavro
import polars as pl
import polars_hash as pl_hash

from schemas.codec import contract, frame, require_room, without_instants
from schemas.envelope import CONTENT_TYPE, NAMESPACE
from schemas.topics import Topic

Span = tuple[int, int]
UNIT = "\x1f"
NOTHING: dict[str, object] = {"string": "", "int": 0, "long": 0, "boolean": False}
"""What stands in for an absent value while the present ones are written."""
HEX = pl.Series([f"{b:02x}" for b in range(256)])
DIGEST_DIGITS = 32


@dataclass(frozen=True, slots=True)
class Written:
    """Per row: event id (text), framed value and value with ``received_at`` 0, both hexadecimal, and their
    digests.
    """

    event_id: pl.Series
    value: pl.Series
    digest: pl.Series
    content_digest: pl.Series


def write(topic: Topic, records: pl.DataFrame) -> Written:
    """Encode ``records``: all fields of the contract without a default, no ``event_id``; absent fields take
    defaults. Raises ``Rejected`` (too_large) as ``codec.encode`` does.
    """
    ids = event_ids(topic, records)
    whole = _whole(topic, records.with_columns(event_id=ids))
    parts = whole.with_columns(**_parts(topic, whole))  # once, for both texts
    start = pl.lit(frame(topic.schema_id).hex())
    unreceived = [pl.lit("00") if name == "received_at" else pl.col(name) for name in parts.columns]
    both = parts.select(value=pl.concat_str([start, pl.all()]), content=pl.concat_str([start, *unreceived]))
    require_room(int(both["value"].str.len_bytes().max() or 0) // 2)  # type: ignore[arg-type]
    return Written(ids, both["value"], *(digests(both[c].str.decode("hex")) for c in both.columns))


def event_ids(topic: Topic, records: pl.DataFrame) -> pl.Series:
    """``schemas.envelope.event_id`` of every row, as text."""
    return records.select(id=event_id_of(topic))["id"]


def event_id_of(topic: Topic) -> pl.Expr:
    """``event_ids`` as an expression."""
    return derived_id_of([pl.lit(topic.name), "region", "department", *topic.identity])


def derived_id_of(parts: Sequence[str | pl.Expr]) -> pl.Expr:
    """``schemas.envelope.derived_id`` of the named columns, row by row, as text."""
    exprs = [(pl.col(p) if isinstance(p, str) else p).cast(pl.String) for p in parts]
    return pl_hash.concat_str(exprs, separator=UNIT).uuidhash.uuid5(str(NAMESPACE))


def digests(values: pl.Series) -> pl.Series:
    """``schemas.envelope.digest`` of every value (bytes), as 32 hexadecimal digits (PostgreSQL reads them as
    uuid).
    """
    hashed = values.to_frame("value").select(pl_hash.col("value").chash.sha2_256().str.head(DIGEST_DIGITS))
    return hashed["value"]


def headers_json(topic: Topic, records: pl.DataFrame, ids: pl.Series) -> pl.Series:
    """The CloudEvents headers (``schemas.envelope.headers``) as JSON text: an array of ``[name, value]``."""
    time = pl.from_epoch("occurred_at", time_unit="ms").dt.strftime("%Y-%m-%dT%H:%M:%S%.3fZ")
    texts = {
        "ce_id": pl.lit(ids),
        "ce_source": pl.format("/{}/{}", "region", "department"),
        "ce_type": pl.format("cn.govbus.{}.v1", "event_type"),
        "ce_time": time,
        "ce_subject": pl.col(topic.key).cast(pl.String),
    }
    pairs = [pl.format('["{}",{}]', pl.lit(name), _quoted(text)) for name, text in texts.items()]
    first, last = '["ce_specversion","1.0"]', f'["content-type","{CONTENT_TYPE.decode()}"]'
    body = pl.concat_str([pl.lit(first), *pairs, pl.lit(last)], separator=",")
    return records.select(json=pl.format("[{}]", body))["json"]


def _quoted(text: pl.Expr) -> pl.Expr:
    """JSON string literals; only what is unusual takes the slow way."""
    odd = text.str.contains(r'[\\"\x00-\x1f\x7f]')
    slow = text.map_elements(lambda t: json.dumps(t, ensure_ascii=False), return_dtype=pl.String)
    return pl.when(odd).then(pl.when(odd).then(slow)).otherwise(pl.format('"{}"', text))


def _whole(topic: Topic, records: pl.DataFrame) -> pl.DataFrame:
    """All fields of the contract in its order, absent ones with their defaults, days as numbers."""
    absent = {
        f.name: pl.lit(pl.Series([[]], dtype=pl.List(pl.String))).first() if f.default == [] else pl.lit(f.default)
        for f in _fields(topic)
        if f.name not in records.columns
    }
    return records.with_columns(**absent).select(pl.col(f.name).to_physical() for f in _fields(topic))


def _parts(topic: Topic, whole: pl.DataFrame) -> dict[str, pl.Expr]:
    """Hexadecimal bytes of every field, in the contract's order; what is the same in all rows is written once."""
    same = _same(whole)
    spans = _spans([f for f in _fields(topic) if f.name not in same], whole)
    return {
        f.name: pl.lit(_once(f, whole[f.name])) if f.name in same else _encoded(f.kind, whole[f.name], spans[f.name])
        for f in _fields(topic)
    }


def _spans(fields: Iterable[Field], whole: pl.DataFrame) -> dict[str, Span]:
    """The least and the largest number, zigzag, that each field writes: itself, or its length."""
    numbers = {}
    for field in fields:
        inner = field.kind[2] if isinstance(field.kind, tuple) else field.kind
        if inner == "string":
            numbers[field.name] = _length(pl.col(field.name))
        elif inner in ("int", "long"):
            numbers[field.name] = _zigzag(pl.col(field.name).cast(pl.Int64))
        else:
            numbers[field.name] = pl.lit(0, pl.Int64)
    wide = whole.select(**numbers)
    return {s.name: (int(s.min() or 0), int(s.max() or 0)) for s in wide}  # type: ignore[arg-type]


def _same(whole: pl.DataFrame) -> set[str]:
    """The fields that say the same in every row, lists aside."""
    flat = [name for name, dtype in whole.schema.items() if not dtype.is_nested()]
    found = whole.select(pl.col(name).eq_missing(pl.col(name).first()).all() for name in flat)
    return {name for name in flat if found[name][0]} if whole.height else set()


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a contract: ``kind`` as this module tells kinds apart, ``schema`` as fastavro writes it."""

    name: str
    kind: Any
    schema: Any
    default: Any


@cache
def _fields(topic: Topic) -> tuple[Field, ...]:
    fields = without_instants(contract(topic))["fields"]
    return tuple(
        Field(f["name"], _kind(f["type"]), fastavro.parse_schema(f["type"]), f.get("default")) for f in fields
    )


def _kind(schema: Any) -> Any:
    if isinstance(schema, list):
        return ("nullable", schema.index("null"), _kind(next(s for s in schema if s != "null")))
    return schema["type"] if isinstance(schema, dict) else schema


def _once(field: Field, values: pl.Series) -> str:
    """Hexadecimal bytes of the first of ``values``."""
    _require_present(field.kind, values)
    written = io.BytesIO()
    fastavro.schemaless_writer(written, field.schema, values[0])
    return written.getvalue().hex()


def _require_present(kind: Any, values: pl.Series) -> None:
    if not isinstance(kind, tuple) and values.null_count():
        raise ValueError(f"column {values.name} of type {kind} holds an absent value")


def _encoded(kind: Any, values: pl.Series, span: Span) -> pl.Expr:
    _require_present(kind, values)
    column = pl.col(values.name)
    if isinstance(kind, tuple):
        return _nullable(kind[1], kind[2], values, span)
    if kind == "array":
        return pl.lit(_lists(values))
    return _present(kind, column, span)


def _present(kind: Any, column: pl.Expr, span: Span) -> pl.Expr:
    if kind == "string":
        return _strings(column, span)
    if kind == "boolean":
        return _hex(column)
    if kind in ("int", "long"):
        return _varints(_zigzag(column.cast(pl.Int64)), span)
    raise TypeError(f"cannot encode {kind} by column")


def _nullable(null_at: int, kind: Any, values: pl.Series, span: Span) -> pl.Expr:
    none, some = HEX[2 * null_at], HEX[2 - 2 * null_at]
    column = pl.col(values.name)
    filled = _present(kind, column.fill_null(NOTHING[kind]), span)
    return pl.when(column.is_null()).then(pl.lit(none)).otherwise(pl.concat_str([pl.lit(some), filled]))


def _strings(text: pl.Expr, span: Span) -> pl.Expr:
    return pl.concat_str([_varints(_length(text), span), text.cast(pl.Binary).bin.encode("hex")])


def _length(text: pl.Expr) -> pl.Expr:
    """Bytes of a text, zigzag."""
    return 2 * text.str.len_bytes().cast(pl.Int64)


def _lists(values: pl.Series) -> pl.Series:
    """Arrays of strings: one block and its end; an empty one is its end alone."""
    counts = values.list.len()
    if not (counts > 0).any():
        return pl.repeat("00", len(values), eager=True)
    if (counts == 1).all():
        return _singles(values.list.first())
    rows = (
        pl.DataFrame({"row": range(len(values)), "item": values}).filter(pl.col("item").list.len() > 0).explode("item")
    )
    span = rows.select(least=_length(pl.col("item")).min(), most=_length(pl.col("item")).max()).row(0)
    blocks = rows.with_columns(hex=_strings(pl.col("item"), span)).select("row", "hex")
    longest = int(counts.max())  # type: ignore[arg-type]
    if longest > 1:
        blocks = blocks.group_by("row", maintain_order=True).agg(pl.col("hex").str.join())
    table = pl.DataFrame({"row": range(len(values)), "count": counts}).join(
        blocks, on="row", how="left", maintain_order="left"
    )
    count = _varints(2 * pl.col("count").cast(pl.Int64), (0, 2 * longest))
    whole = pl.when(pl.col("hex").is_null()).then(pl.lit("00")).otherwise(pl.format("{}{}00", count, "hex"))
    return table.select(v=whole)["v"]


def _singles(items: pl.Series) -> pl.Series:
    """Arrays of one string each."""
    span = items.to_frame("item").select(least=_length(pl.col("item")).min(), most=_length(pl.col("item")).max()).row(0)
    written = pl.concat_str([pl.lit(HEX[2]), _strings(pl.col("item"), span), pl.lit(HEX[0])])
    return items.to_frame("item").select(v=written)["v"]


def _varints(rest: pl.Expr, span: Span) -> pl.Expr:
    """Varints of numbers in their zigzag form as hexadecimal text; ``span`` is the least and the largest of them."""
    least, most = ((max(n.bit_length(), 1) + 6) // 7 for n in span)
    if least == most:
        lower = [pl.lit(HEX).gather(_seven(rest, p).cast(pl.UInt32) + 128) for p in range(0, 7 * most - 7, 7)]
        return pl.concat_str([*lower, _hex(rest // (1 << (7 * most - 7)))])
    pieces = [_hex(rest % 128 + 128 * (rest >= 128).cast(pl.Int64))]
    for place in range(7, 7 * most, 7):
        above = rest // (1 << place)
        piece = _hex(above % 128 + 128 * (above >= 128).cast(pl.Int64))
        pieces.append(pl.when(above > 0).then(piece).otherwise(pl.lit("")))
    return pl.concat_str(pieces)


def _seven(rest: pl.Expr, place: int) -> pl.Expr:
    return (rest // (1 << place)) % 128


def _zigzag(numbers: pl.Expr) -> pl.Expr:
    return pl.when(numbers < 0).then(-2 * numbers - 1).otherwise(2 * numbers)


def _hex(byte: pl.Expr) -> pl.Expr:
    return pl.lit(HEX).gather(byte.cast(pl.UInt32))
