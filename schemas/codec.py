"""Values on the wire, row by row: Confluent framing (``00``, 4-byte schema id, Avro body). Decides what is
well-formed.

Bounded and strict: a value is at most 256 KiB and decodes only if encoding it again gives the same bytes, so
trailing bytes, negative union indexes and overlong varints are refused. It judges shapes, not meanings:
codes, check digits and times are the publisher's. Timestamps are epoch milliseconds UTC (int), Avro ``date``
is ``datetime.date``. No text may hold U+0000 and no number be NaN or infinite, because neither PostgreSQL
text nor JSON can carry them.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import fastavro
from fastavro.validation import validate

from schemas.contracts import contract, written_by
from schemas.errors import Fault, Rejected
from schemas.topics import Topic

__all__ = ["MAX_BYTES", "contract", "decode", "encode", "faults", "frame", "require_room", "schema_id_of"]

MAX_BYTES = 256 * 1024
FRAME_BYTES = 5
INT_MIN, INT_MAX = -(2**31), 2**31 - 1
Record = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Codec:
    """A contract made ready: ``schema`` reads timestamps as integers; ``fields`` are its parts, ``defaults``
    filled in.
    """

    topic: Topic
    frame: bytes
    schema: Any
    fields: Mapping[str, Any]
    defaults: Mapping[str, Any]
    ints: tuple[str, ...]
    nested: tuple[str, ...]


def frame(identifier: int) -> bytes:
    """The five bytes before the Avro body."""
    return b"\x00" + identifier.to_bytes(4, "big")


def schema_id_of(value: bytes) -> int:
    """Schema id in the frame of ``value``; raises ``Rejected`` (bad_framing)."""
    if len(value) < FRAME_BYTES or value[0] != 0:
        raise _refusal("bad_framing", "value does not begin with 00 and a 4-byte schema id")
    return int.from_bytes(value[1:FRAME_BYTES], "big")


def encode(topic: Topic, record: Mapping[str, Any]) -> bytes:
    """Framed value of ``record``; absent fields take the contract's defaults. Raises ``Rejected`` with every
    fault.
    """
    codec = _codec(topic.schema_id)
    assert codec is not None
    full = {**codec.defaults, **record}
    if not _fine(codec, full):
        raise Rejected(*_faults(codec, full))
    value = codec.frame + _body(codec, full)
    require_room(len(value))
    return value


def require_room(size: int) -> None:
    """Raise ``Rejected`` (too_large) for a framed value of more than ``MAX_BYTES``."""
    if size > MAX_BYTES:
        raise _refusal("too_large", f"{size} bytes, the limit is {MAX_BYTES}")


def faults(topic: Topic, record: Mapping[str, Any]) -> list[Fault]:
    """Everything in ``record`` that its contract's shape forbids: missing, unknown, wrongly typed fields."""
    codec = _codec(topic.schema_id)
    assert codec is not None
    return _faults(codec, {**codec.defaults, **record})


def decode(value: bytes, topic: Topic | None = None) -> Record:
    """The record in a framed value, resolved to the present contract; ``topic`` is the one it must belong to.

    Raises ``Rejected``: too_large, bad_framing, unknown_schema, malformed_avro, not_canonical. Nothing else
    is raised, whatever the bytes.
    """
    require_room(len(value))
    codec = _codec(schema_id_of(value))
    if codec is None or (topic is not None and codec.topic.name != topic.name):
        raise _refusal("unknown_schema", "no contract of this topic has this schema id")
    record = _read(codec, value)
    if _write_again(codec, record) != value[FRAME_BYTES:]:
        raise _refusal("not_canonical", "encoding the record again gives other bytes")
    if found := list(_unusable(codec, record)):
        raise Rejected(*found)
    return record if codec.topic.schema_id == schema_id_of(value) else _resolve(codec, value)


def _read(codec: Codec, value: bytes) -> Record:
    body = io.BytesIO(value)
    body.seek(FRAME_BYTES)
    try:
        record: Record = fastavro.schemaless_reader(body, codec.schema, None)
    except Exception as error:
        # The error's text may hold personal data from the bytes; its type does not.
        raise _refusal("malformed_avro", f"body is not of its contract ({type(error).__name__})") from None
    return record


def _resolve(codec: Codec, value: bytes) -> Record:
    """The record of an older writer, seen through the present contract."""
    reader = _codec(codec.topic.schema_id)
    assert reader is not None
    try:
        record: Record = fastavro.schemaless_reader(
            io.BytesIO(value[FRAME_BYTES:]), codec.schema, reader.schema
        )
    except Exception as error:
        raise _refusal(
            "unknown_schema", f"older contract cannot be resolved ({type(error).__name__})"
        ) from None
    return record


def _write_again(codec: Codec, record: Record) -> bytes:
    try:
        return _body(codec, record)
    except Exception as error:
        raise _refusal(
            "malformed_avro", f"body holds what its contract forbids ({type(error).__name__})"
        ) from None


def _body(codec: Codec, record: Mapping[str, Any]) -> bytes:
    buffer = io.BytesIO()
    fastavro.schemaless_writer(buffer, codec.schema, dict(record))
    return buffer.getvalue()


def _fine(codec: Codec, record: Mapping[str, Any]) -> bool:
    """Whether ``_faults`` would find nothing, in one pass."""
    return (
        record.keys() <= codec.fields.keys()
        and _valid(record, codec.schema)
        and all(map(_can_travel, record.values()))
    )


def _can_travel(value: Any) -> bool:
    """Whether ``_bad_parts`` would find nothing; quick for the values most records are made of."""
    kind = type(value)
    if kind is str:
        return "\x00" not in value and (value.isascii() or _is_utf8(value))
    return kind is int or kind is bool or value is None or not any(_bad_parts(value))


def _faults(codec: Codec, record: Mapping[str, Any]) -> list[Fault]:
    unknown = [
        Fault("unknown_field", n, "the contract has no such field") for n in record if n not in codec.fields
    ]
    return unknown + [fault for name in codec.fields for fault in _field_fault(codec, name, record)]


def _field_fault(codec: Codec, name: str, record: Mapping[str, Any]) -> list[Fault]:
    if name not in record:
        return [Fault("missing_field", name, "the contract gives it no default", "send the field")]
    if not _valid(record[name], codec.fields[name]):
        return [Fault("wrong_type", name, f"not of type {_type_name(codec.fields[name])}")]
    return [Fault("bad_format", name, why) for why in _bad_parts(record[name])]


def _valid(value: Any, schema: Any) -> bool:
    try:
        return bool(validate(value, schema, raise_errors=False, strict=True))
    except Exception:
        return False


def _unusable(codec: Codec, record: Record) -> Iterator[Fault]:
    """What decodes and re-encodes but no reader can use: numbers out of range, U+0000, NaN."""
    for name in codec.ints:
        number = record[name]
        if number is not None and not INT_MIN <= number <= INT_MAX:
            yield Fault("malformed_avro", name, "int beyond 32 bits")
    for name, value in record.items():
        kind = type(value)
        if (kind is str and "\x00" in value) or (kind is float and not math.isfinite(value)):
            yield Fault("malformed_avro", name, "U+0000 in text, or a number that is not finite")
    for name in codec.nested:
        if not _valid(record[name], codec.fields[name]) or any(_bad_parts(record[name])):
            yield Fault("malformed_avro", name, "a part is out of range, or holds U+0000")


def _bad_parts(value: Any) -> Iterator[str]:
    """Why a well-typed value still cannot travel."""
    if isinstance(value, str):
        if "\x00" in value:
            yield "text holds U+0000"
        if not _is_utf8(value):
            yield "text is not Unicode"
    elif isinstance(value, float) and not math.isfinite(value):
        yield "number is not finite"
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from _bad_parts(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _bad_parts(part)


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _refusal(reason: str, text: str) -> Rejected:
    return Rejected(Fault(reason, "", text))


@cache
def _codec(identifier: int) -> Codec | None:
    found = written_by(identifier)
    if found is None:
        return None
    topic, raw = found
    schema = fastavro.parse_schema(without_instants(raw))
    parsed: list[Any] = schema["fields"]
    return Codec(
        topic=topic,
        frame=frame(identifier),
        schema=schema,
        fields={f["name"]: fastavro.parse_schema(without_instants(f["type"])) for f in raw["fields"]},
        defaults={f["name"]: _default(f) for f in raw["fields"] if "default" in f},
        ints=tuple(f["name"] for f in parsed if _base(f["type"]) == "int"),
        nested=tuple(
            f["name"] for f in parsed if isinstance(f["type"], dict) and f["type"]["type"] == "array"
        ),
    )


def without_instants(schema: Any) -> Any:
    """A copy of a contract (or part) whose timestamps are plain longs, which is how govbus holds them."""
    walk: Callable[[Any], Any] = without_instants
    if isinstance(schema, dict):
        kept = {k: v for k, v in schema.items() if (k, v) != ("logicalType", "timestamp-millis")}
        return {k: v if k == "default" else walk(v) for k, v in kept.items()}
    return [walk(s) for s in schema] if isinstance(schema, list) else schema


def _default(field: Mapping[str, Any]) -> Any:
    """The field's default as a Python value: JSON writes bytes as a string of code points."""
    value = field["default"]
    return value.encode("latin-1") if _base(field["type"]) == "bytes" and value is not None else value


def _base(schema: Any) -> str:
    """Name of a field's type without its null branch; ``date`` for days."""
    if isinstance(schema, list):
        return next(_base(s) for s in schema if s != "null")
    if isinstance(schema, dict):
        return str(schema.get("logicalType") or schema["type"])
    return str(schema)


def _type_name(schema: Any) -> str:
    return " or ".join(_type_name(s) for s in schema) if isinstance(schema, list) else _base(schema)
