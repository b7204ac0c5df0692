"""Makes carried records for tests: the bytes, keys and headers that the relay would have sent."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from schemas import envelope
from schemas.topics import Topic
from streams.store import outbox
from streams.store.projection import Carried

START = 1_600_000_000_000


def record(event_type: str, at: int, **fields: Any) -> dict[str, Any]:
    """A record with the envelope filled in; ``at`` is in seconds after ``START``, received half a second
    later.
    """
    return {
        "event_type": event_type, "region": "430903", "department": "HS-SLJ", "occurred_at": START + at *
        1000, "occurred_text": "", "entered_at": None, "received_at": START + at * 1000 + 500, **fields,
    }  # fmt: skip


def carry(topic: Topic, given: Mapping[str, Any], offset: int, partition: int = 0) -> Carried:
    """The record as Kafka would carry it."""
    row = outbox.row(topic, given)
    headers = tuple(envelope.headers(topic, row.record))
    return Carried(topic, partition, offset, str(given[topic.key]).encode(), row.value, headers)


def log(topic: Topic, records: Iterable[Mapping[str, Any]], partition: int = 0) -> list[Carried]:
    """Records at consecutive offsets of one partition, from 0."""
    return [carry(topic, given, offset, partition) for offset, given in enumerate(records)]
