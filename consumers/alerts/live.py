"""The live tail of alerts: reads the topic itself, keeps no cursor, decides nothing. For one pair of eyes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError

from consumers.loop import ALONE_S, connected, partitions, reader
from schemas import codec
from schemas.errors import Rejected, Retryable
from schemas.topics import ALERT

Alert = Mapping[str, Any]
POLL_MS = 200
STYLES = {"YELLOW": "black on yellow", "RED": "white on red", "RED_STATUTORY": "bold white on dark_red"}


def _nothing(*_: object) -> None:
    """Does nothing."""


def tail(
    bootstrap: str,
    since_ms: int | None,
    deadline: Callable[[], bool],
    watching: Callable[[], None] = _nothing,
    away: Callable[[bool], None] = _nothing,
) -> Iterator[Alert]:
    """Alerts as they come, until ``deadline()``; ``since_ms``: None from now on, 0 all, else by arrival time.

    Epoch milliseconds. ``watching`` is called once nothing can be missed any more, ``away`` with True when no
    broker has been connected for ``ALONE_S``, with False when one is again: nothing was missed. A record that does not
    decode is skipped: the consumers dead-letter it.
    """
    try:
        consumer = reader(bootstrap)
    except KafkaError as error:
        raise Retryable(f"Kafka does not answer at {bootstrap} ({type(error).__name__})") from None
    try:
        _stand(consumer, since_ms)
        watching()
        yield from _read(consumer, deadline, away)
    finally:
        consumer.close(autocommit=False)


def _stand(consumer: KafkaConsumer, since_ms: int | None) -> None:
    places = partitions(consumer, [ALERT])
    consumer.assign(places)
    for place, offset in _starts(consumer, places, since_ms).items():
        consumer.seek(place, offset)


def _starts(consumer: KafkaConsumer, places: list[TopicPartition], since_ms: int | None) -> dict[TopicPartition, int]:
    """Where to begin in each partition."""
    if since_ms == 0:
        return dict(consumer.beginning_offsets(places))
    ends: dict[TopicPartition, int] = consumer.end_offsets(places)
    if since_ms is None:
        return dict(ends)
    found = consumer.offsets_for_times(dict.fromkeys(places, since_ms))
    return {p: found[p].offset if found.get(p) else ends[p] for p in places}


def _read(consumer: KafkaConsumer, deadline: Callable[[], bool], away: Callable[[bool], None]) -> Iterator[Alert]:
    seen, told = time.monotonic(), False
    while not deadline():
        found, now = consumer.poll(timeout_ms=POLL_MS), time.monotonic()
        seen = now if connected(consumer) else seen
        if told != (now - seen > ALONE_S):
            told = not told
            away(told)
        for messages in found.values():
            for message in messages:
                try:
                    yield codec.decode(message.value or b"", ALERT)
                except Rejected:
                    continue


def until(timeout_s: float | None) -> Callable[[], bool]:
    """A deadline ``timeout_s`` seconds from now; None: never."""
    end = None if timeout_s is None else time.monotonic() + timeout_s
    return lambda: end is not None and time.monotonic() >= end
