"""Records as people write them: JSON with ISO 8601 times, ISO days and hex bytes, to and from what the codec
takes.

Decides the notation of examples and golden values, nothing else. Times are written with their offset
(+08:00).
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any

from schemas.clock import SHANGHAI
from schemas.contracts import contract
from schemas.topics import Topic

EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
MILLISECOND = datetime.timedelta(milliseconds=1)


def from_json(topic: Topic, written: Mapping[str, Any]) -> dict[str, Any]:
    """The codec's record for a written one; unknown fields stay, for the codec to refuse.

    Raises ``ValueError`` or ``TypeError`` for a time without offset, a bad day or bad hex.
    """
    return _fields(contract(topic), written, _parse)


def to_json(topic: Topic, record: Mapping[str, Any]) -> dict[str, Any]:
    """The written form of a codec's record."""
    return _fields(contract(topic), record, _write)


def _fields(schema: Mapping[str, Any], record: Mapping[str, Any], leaf: Any) -> dict[str, Any]:
    types = {f["name"]: f["type"] for f in schema["fields"]}
    return {n: _value(types[n], v, leaf) if n in types else v for n, v in record.items()}


def _value(schema: Any, value: Any, leaf: Any) -> Any:
    if isinstance(schema, list):
        return None if value is None else _value(next(s for s in schema if s != "null"), value, leaf)
    if isinstance(schema, dict) and schema["type"] == "array":
        return [_value(schema["items"], part, leaf) for part in value]
    if isinstance(schema, dict) and schema["type"] == "record":
        return _fields(schema, value, leaf)
    return leaf(schema.get("logicalType") if isinstance(schema, dict) else schema, value)


def _parse(kind: str, value: Any) -> Any:
    if kind == "timestamp-millis" and isinstance(value, str):
        return (datetime.datetime.fromisoformat(value) - EPOCH) // MILLISECOND
    if kind == "date" and isinstance(value, str):
        return datetime.date.fromisoformat(value)
    return bytes.fromhex(value) if kind == "bytes" and isinstance(value, str) else value


def _write(kind: str, value: Any) -> Any:
    if kind == "timestamp-millis":
        return (EPOCH + value * MILLISECOND).astimezone(SHANGHAI).isoformat(timespec="milliseconds")
    if kind == "date":
        return value.isoformat()
    return value.hex() if kind == "bytes" else value
