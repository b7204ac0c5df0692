"""Reads a topic as it stands, without a group: for limits and for counting what the log holds."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from schemas.topics import Topic

CHUNK = 20_000
WAIT_S, SILENT_S = 0.2, 30.0


@dataclass(frozen=True, slots=True)
class Batch:
    """Values and ``ce_id`` headers of some records."""

    values: list[bytes]
    ids: list[bytes]


def ends(kafka: str, topic: Topic) -> dict[int, int]:
    """The offset after the last record of every partition."""
    consumer = _consumer(kafka)
    try:
        return {p: consumer.get_watermark_offsets(_place(topic, p), timeout=10)[1] for p in range(topic.partitions)}
    finally:
        consumer.close()


def tail(kafka: str, topic: Topic) -> Any:
    """A consumer of whatever comes from now on; close it."""
    consumer = _consumer(kafka, {"fetch.wait.max.ms": 100})
    consumer.assign([_place(topic, p, end) for p, end in ends(kafka, topic).items()])
    return consumer


def batches(kafka: str, topic: Topic, upto: Mapping[int, int]) -> Iterator[Batch]:
    """All records of ``topic`` below ``upto`` (next offset by partition), in batches."""
    consumer = _consumer(kafka)
    consumer.assign([_place(topic, p) for p, end in upto.items() if end])
    left, heard = sum(upto.values()), time.monotonic()
    try:
        while left:
            some = consumer.consume(min(CHUNK, left), WAIT_S)  # it waits until it has as many as it was asked for
            heard = time.monotonic() if some else heard
            if time.monotonic() - heard > SILENT_S:
                raise TimeoutError(f"{topic.name}: {left} records did not come")
            fine = [m for m in some if not m.error() and m.offset() < upto[m.partition()]]
            left -= len(fine)
            if fine:
                yield Batch([m.value() for m in fine], [dict(m.headers())["ce_id"] for m in fine])
    finally:
        consumer.close()


def _consumer(kafka: str, more: Mapping[str, Any] = MappingProxyType({})) -> Any:
    from confluent_kafka import Consumer

    return Consumer({"bootstrap.servers": kafka, "group.id": "bench-log", "enable.auto.commit": False, **more})


def _place(topic: Topic, partition: int, offset: int = 0) -> Any:
    from confluent_kafka import TopicPartition

    return TopicPartition(topic.name, partition, offset)
