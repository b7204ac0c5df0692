"""Many records of one topic encoded by column: the same bytes as ``schemas.codec.encode``, without a loop
over rows.

Works in hexadecimal text, because polars joins text columns and PostgreSQL's COPY reads bytes as hexadecimal
anyway. Knows strings, ints, longs, dates, booleans, arrays of strings and their nullable forms; checks no
code and no limit: the caller's columns are its own decisions, of known types.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from schemas.codec import contract, frame, without_instants
from schemas.envelope import CONTENT_TYPE, NAMESPACE
from schemas.topics import Topic

UNIT = "\x1f"
NOTHING: dict[str, object] = {"string": "", "int": 0, "long": 0, "boolean": False}
"""What stands in for an absent value while the present ones are written."""
HEX = pl.Series([f"{b:02x}" for b in range(256)])
UUID_TEXT = 36
_HEX_PAIRS = np.array([list(f"{b:02x}".encode()) for b in range(256)], dtype=np.uint8)
_DIGITS = [i for i in range(UUID_TEXT) if i not in (8, 13, 18, 23)]  # where a UUID's text has no dash


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
    defaults.
    """
    ids = event_ids(topic, records)
    whole = _whole(topic, records.with_columns(event_id=ids))
    parts = _parts(topic, whole)
    start = pl.lit(frame(topic.schema_id).hex())
    both = whole.select(
        value=pl.concat_str([start, *parts.values()]),
        content=pl.concat_str([start, *{**parts, "received_at": pl.lit("00")}.values()]),
    )
    return Written(ids, both["value"], digests_hex(both["value"]), digests_hex(both["content"]))


def event_ids(topic: Topic, records: pl.DataFrame) -> pl.Series:
    """``schemas.envelope.event_id`` of every row, as text."""
    return _split(event_ids_joined(topic, records))


def event_ids_joined(topic: Topic, records: pl.DataFrame) -> bytes:
    """``event_ids`` one after the other, 36 bytes each: so they are compared at once."""
    return _derived([pl.lit(topic.name), "region", "department", *topic.identity], records).tobytes()


def derived_ids(parts: Sequence[str | pl.Expr], records: pl.DataFrame) -> pl.Series:
    """``schemas.envelope.derived_id`` of the named columns, row by row, as text."""
    return _split(_derived(parts, records).tobytes())


def _derived(parts: Sequence[str | pl.Expr], records: pl.DataFrame) -> npt.NDArray[np.uint8]:
    """UUIDv5 (RFC 9562 §5.5) of every row as text, an array of (rows, 36) bytes."""
    exprs = [(pl.col(p) if isinstance(p, str) else p).cast(pl.String) for p in parts]
    texts = records.select(text=pl.concat_str(exprs, separator=UNIT).cast(pl.Binary))["text"].to_list()
    sha1, space = hashlib.sha1, NAMESPACE.bytes
    hashes = b"".join([sha1(space + t).digest() for t in texts])
    ids = np.frombuffer(hashes, dtype=np.uint8).reshape(-1, 20)[:, :16].copy()
    ids[:, 6] = (ids[:, 6] & 0x0F) | 0x50
    ids[:, 8] = (ids[:, 8] & 0x3F) | 0x80
    written = np.full((len(ids), UUID_TEXT), ord("-"), dtype=np.uint8)
    written[:, _DIGITS] = _HEX_PAIRS[ids].reshape(-1, 32)
    return written


def _split(joined: bytes) -> pl.Series:
    """Texts of 36 bytes each."""
    texts = np.frombuffer(joined, dtype=f"S{UUID_TEXT}").tolist()
    return pl.Series(texts, dtype=pl.Binary).cast(pl.String)


def digests(values: Iterable[bytes]) -> pl.Series:
    """``schemas.envelope.digest`` of every value, as 32 hexadecimal digits (PostgreSQL reads them as
    uuid).
    """
    sha256 = hashlib.sha256
    return pl.Series([sha256(v).digest()[:16] for v in values], dtype=pl.Binary).bin.encode("hex")


def digests_hex(values: pl.Series) -> pl.Series:
    """``digests`` of values that are hexadecimal text."""
    return digests(values.str.decode("hex").to_list())


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
        name: pl.lit(pl.Series([[]], dtype=pl.List(pl.String))).first() if default == [] else pl.lit(default)
        for name, _, default in _fields(topic)
        if name not in records.columns
    }
    return records.with_columns(**absent).select(pl.col(name).to_physical() for name, _, _ in _fields(topic))


def _parts(topic: Topic, whole: pl.DataFrame) -> dict[str, pl.Expr]:
    """Hexadecimal bytes of every field, in the contract's order."""
    most = _most(topic, whole)
    return {name: _encoded(kind, whole[name], most[name]) for name, kind, _ in _fields(topic)}


def _most(topic: Topic, whole: pl.DataFrame) -> dict[str, int]:
    """The largest number, zigzag, that each field writes: itself, or its length. One pass over the frame."""
    numbers = {}
    for name, kind, _ in _fields(topic):
        column = pl.col(name)
        inner = kind[2] if isinstance(kind, tuple) else kind
        if inner == "string":
            numbers[name] = column.str.len_bytes().max().cast(pl.Int64) * 2
        elif inner in ("int", "long"):
            numbers[name] = _zigzag(column.cast(pl.Int64)).max()
        else:
            numbers[name] = pl.lit(0, pl.Int64)
    return {name: value or 0 for name, value in whole.select(**numbers).row(0, named=True).items()}


@cache
def _fields(topic: Topic) -> tuple[tuple[str, Any, Any], ...]:
    fields = without_instants(contract(topic))["fields"]
    return tuple((f["name"], _kind(f["type"]), f.get("default")) for f in fields)


def _kind(schema: Any) -> Any:
    if isinstance(schema, list):
        return ("nullable", schema.index("null"), _kind(next(s for s in schema if s != "null")))
    return schema["type"] if isinstance(schema, dict) else schema


def _encoded(kind: Any, values: pl.Series, most: int) -> pl.Expr:
    column = pl.col(values.name)
    if isinstance(kind, tuple):
        return _nullable(kind[1], kind[2], values, most)
    if values.null_count():
        raise ValueError(f"column {values.name} of type {kind} holds an absent value")
    if kind == "array":
        return pl.lit(_lists(values))
    return _present(kind, column, most)


def _present(kind: Any, column: pl.Expr, most: int) -> pl.Expr:
    if kind == "string":
        return _strings(column, most)
    if kind == "boolean":
        return _hex(column)
    if kind in ("int", "long"):
        return varints(column, most)
    raise TypeError(f"cannot encode {kind} by column")


def _nullable(null_at: int, kind: Any, values: pl.Series, most: int) -> pl.Expr:
    none, some = HEX[2 * null_at], HEX[2 - 2 * null_at]
    if values.null_count() == len(values):
        return pl.lit(none)
    column = pl.col(values.name)
    filled = _present(kind, column.fill_null(NOTHING[kind]), most)
    return pl.when(column.is_null()).then(pl.lit(none)).otherwise(pl.concat_str([pl.lit(some), filled]))


def _strings(text: pl.Expr, most: int) -> pl.Expr:
    return pl.concat_str([varints(text.str.len_bytes(), most), text.cast(pl.Binary).bin.encode("hex")])


def _lists(values: pl.Series) -> pl.Series:
    """Arrays of strings: one block and its end; an empty one is its end alone."""
    counts = values.list.len()
    if not (counts > 0).any():
        return pl.repeat("00", len(values), eager=True)
    rows = (
        pl.DataFrame({"row": range(len(values)), "item": values}).filter(pl.col("item").list.len() > 0).explode("item")
    )
    most = 2 * int(rows["item"].str.len_bytes().max() or 0)  # type: ignore[arg-type]
    blocks = rows.group_by("row", maintain_order=True).agg(_strings(pl.col("item"), most).str.join().alias("hex"))
    table = pl.DataFrame({"row": range(len(values)), "count": counts}).join(
        blocks, on="row", how="left", maintain_order="left"
    )
    count = varints(pl.col("count"), 2 * int(counts.max()))  # type: ignore[arg-type]
    whole = pl.when(pl.col("hex").is_null()).then(pl.lit("00")).otherwise(pl.format("{}{}00", count, "hex"))
    return table.select(v=whole)["v"]


def varints(numbers: pl.Expr, most: int) -> pl.Expr:
    """Zigzag varints as hexadecimal text; ``most`` is the largest zigzag form among them."""
    rest = _zigzag(numbers.cast(pl.Int64))
    if most < 128:
        return _hex(rest)
    pieces = [_hex(rest % 128 + 128 * (rest >= 128).cast(pl.Int64))]
    for place in range(7, most.bit_length(), 7):
        above = rest // (1 << place)
        piece = _hex(above % 128 + 128 * (above >= 128).cast(pl.Int64))
        pieces.append(pl.when(above > 0).then(piece).otherwise(pl.lit("")))
    return pl.concat_str(pieces)


def _zigzag(numbers: pl.Expr) -> pl.Expr:
    return pl.when(numbers < 0).then(-2 * numbers - 1).otherwise(2 * numbers)


def _hex(byte: pl.Expr) -> pl.Expr:
    return pl.lit(HEX).gather(byte.cast(pl.UInt32))
