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
    parts = _parts(topic, records.with_columns(event_id=ids))
    value = _joined(topic, parts)
    content = _joined(topic, {**parts, "received_at": pl.repeat("00", records.height, eager=True)})
    return Written(ids, value, digests_hex(value), digests_hex(content))


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


def _joined(topic: Topic, parts: dict[str, pl.Series]) -> pl.Series:
    start = pl.lit(frame(topic.schema_id).hex())
    table = pl.DataFrame(list(parts.values()))
    return table.select(v=pl.concat_str([start, *[pl.nth(i) for i in range(len(parts))]], ignore_nulls=True))["v"]


def _parts(topic: Topic, records: pl.DataFrame) -> dict[str, pl.Series]:
    """Hexadecimal bytes of every field, in the contract's order."""
    return {name: _encoded(kind, _column(records, name, default)).alias(name) for name, kind, default in _fields(topic)}


def _column(records: pl.DataFrame, name: str, default: Any) -> pl.Series:
    if name in records.columns:
        return records[name]
    return pl.repeat(default, records.height, eager=True, dtype=pl.List(pl.String) if default == [] else None)


@cache
def _fields(topic: Topic) -> tuple[tuple[str, Any, Any], ...]:
    fields = without_instants(contract(topic))["fields"]
    return tuple((f["name"], _kind(f["type"]), f.get("default")) for f in fields)


def _kind(schema: Any) -> Any:
    if isinstance(schema, list):
        return ("nullable", schema.index("null"), _kind(next(s for s in schema if s != "null")))
    return schema["type"] if isinstance(schema, dict) else schema


def _encoded(kind: Any, values: pl.Series) -> pl.Series:
    if isinstance(kind, tuple):
        return _nullable(kind[1], kind[2], values)
    if values.null_count():
        raise ValueError(f"column {values.name} of type {kind} holds an absent value")
    if kind == "string":
        return _strings(values)
    if kind == "boolean":
        return HEX.gather(values.cast(pl.UInt32))
    if kind == "array":
        return _lists(values)
    if kind in ("int", "long"):
        return varints(values.to_physical())
    raise TypeError(f"cannot encode {kind} by column")


def _nullable(null_at: int, kind: Any, values: pl.Series) -> pl.Series:
    none, some = HEX[2 * null_at], HEX[2 - 2 * null_at]
    if values.null_count() == len(values):
        return pl.repeat(none, len(values), eager=True)
    filled = _encoded(kind, values.fill_null(0 if values.dtype.is_numeric() else ""))
    return pl.select(
        pl.when(pl.lit(values.is_null())).then(pl.lit(none)).otherwise(pl.format("{}{}", pl.lit(some), pl.lit(filled)))
    ).to_series()


def _strings(values: pl.Series) -> pl.Series:
    return pl.select(
        pl.concat_str([pl.lit(varints(values.str.len_bytes())), pl.lit(values.cast(pl.Binary).bin.encode("hex"))])
    ).to_series()


def _lists(values: pl.Series) -> pl.Series:
    """Arrays of strings: one block and its end; an empty one is its end alone."""
    counts = values.list.len()
    if not (counts > 0).any():
        return pl.repeat("00", len(values), eager=True)
    rows = (
        pl.DataFrame({"row": range(len(values)), "item": values}).filter(pl.col("item").list.len() > 0).explode("item")
    )
    blocks = (
        rows.with_columns(hex=_strings(rows["item"])).group_by("row", maintain_order=True).agg(pl.col("hex").str.join())
    )
    table = pl.DataFrame({"row": range(len(values)), "count": varints(counts)}).join(
        blocks, on="row", how="left", maintain_order="left"
    )
    whole = pl.when(pl.col("hex").is_null()).then(pl.lit("00")).otherwise(pl.format("{}{}00", "count", "hex"))
    return table.select(v=whole)["v"]


def varints(values: pl.Series) -> pl.Series:
    """Zigzag varints as hexadecimal text."""
    numbers = values.cast(pl.Int64)
    rest = pl.select(
        pl.when(pl.lit(numbers) < 0).then(-2 * pl.lit(numbers) - 1).otherwise(2 * pl.lit(numbers))
    ).to_series()
    most = int(rest.max() or 0)  # type: ignore[arg-type]
    if most < 128:
        return HEX.gather(rest.cast(pl.UInt32))
    pieces: list[pl.Series] = []
    for place in range(0, most.bit_length(), 7):
        scale, low = 1 << place, (rest // (1 << place)) % 128
        index = low + 128 * (rest // scale >= 128).cast(pl.Int64)
        if place:
            index = index.set(rest < scale, None)
        pieces.append(HEX.gather(index.cast(pl.UInt32)).alias(str(place)))
    return pl.DataFrame(pieces).select(v=pl.concat_str(pl.all(), ignore_nulls=True))["v"]
