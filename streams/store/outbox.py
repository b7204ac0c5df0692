"""The one way out of the database towards Kafka: what is in the outbox is published. Decides what is new,
same, conflict.

Same id and same content is the same event, whenever it came and however its time was spelt: ``received_at`` and
``occurred_text`` are no part of the content.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import sqlalchemy as sa

from schemas import codec, envelope
from schemas.errors import Rejected, Retryable
from schemas.topics import Topic
from streams.store import bulk
from streams.store.tables import outbox

NO_CONTENT = frozenset({"received_at", "occurred_text"})
CHANNEL = "govbus_outbox"
"""PostgreSQL NOTIFY channel that wakes the relay."""
WAKE = sa.text(f"SELECT pg_notify('{CHANNEL}', '')")


@dataclass(frozen=True, slots=True)
class OutboxRow:
    """An event ready to leave: ``record`` is complete, ``value`` is its framed Avro."""

    topic: Topic
    event_id: uuid.UUID
    record: Mapping[str, Any]
    value: bytes
    content_digest: uuid.UUID


@dataclass(frozen=True, slots=True)
class Enqueued:
    """What became of one row. ``receipt`` names the stored event and its bytes; it is the same on every
    repetition.

    ``differing`` lists the fields in which a conflicting row differs from the stored event (names only).
    """

    event_id: uuid.UUID
    outcome: Literal["new", "same", "conflict"]
    receipt: str
    differing: tuple[str, ...] = ()


def row(topic: Topic, record: Mapping[str, Any]) -> OutboxRow:
    """Give ``record`` its id and its bytes. It needs no ``event_id``; all else is as in the contract.

    Raises ``Rejected`` if the record does not fit the contract.
    """
    event_id = envelope.event_id(topic, record)
    whole = {**record, "event_id": str(event_id)}
    value = codec.encode(topic, whole)
    return OutboxRow(topic, event_id, whole, value, envelope.digest(envelope.without_receipt(value)))


def enqueue(tx: sa.Connection, rows: Sequence[OutboxRow]) -> list[Enqueued]:
    """Store the new rows in the order given and wake the relay; one outcome for each row, in order.

    Runs in the caller's transaction and does not commit. Raises ``Retryable`` if an event is there already under a
    newer contract than this release knows.
    """
    if not rows:
        return []
    fresh = set(bulk.insert_new(tx, outbox, [_columns(r) for r in rows], ("topic", "event_id"), CHANNEL))
    known = _stored(tx, rows, fresh)
    return [_outcome(tx, r, fresh, known) for r in rows]


_Known = dict[tuple[str, uuid.UUID], tuple[uuid.UUID, uuid.UUID]]


def _columns(row: OutboxRow) -> dict[str, Any]:
    record = row.record
    headers = [[name, value.decode()] for name, value in envelope.headers(row.topic, record)]
    return {
        "event_id": row.event_id,
        "topic": row.topic.name,
        "key": str(record[row.topic.key]),
        "region": record["region"],
        "department": record["department"],
        "occurred_at": record["occurred_at"],
        "received_at": record["received_at"],
        "digest": envelope.digest(row.value),
        "content_digest": row.content_digest,
        "value": row.value,
        "headers": headers,
    }


def _stored(tx: sa.Connection, rows: Sequence[OutboxRow], fresh: set[tuple[Any, ...]]) -> _Known:
    """``(digest, content_digest)`` of rows that were there already or are here twice."""
    twice = len({(r.topic.name, r.event_id) for r in rows}) < len(rows)
    wanted = rows if twice else [r for r in rows if (r.topic.name, r.event_id) not in fresh]
    known: _Known = {}
    for topic in {r.topic.name for r in wanted}:
        ids = [r.event_id for r in wanted if r.topic.name == topic]
        known.update({(topic, e): (d, c) for e, d, c in tx.execute(_DIGESTS, {"topic": topic, "ids": ids})})
    return known


_DIGESTS = sa.select(outbox.c.event_id, outbox.c.digest, outbox.c.content_digest).where(
    outbox.c.topic == sa.bindparam("topic"), bulk.any_of(outbox.c.event_id, "ids")
)


def _outcome(tx: sa.Connection, row: OutboxRow, fresh: set[tuple[Any, ...]], known: _Known) -> Enqueued:
    place = (row.topic.name, row.event_id)
    if place in fresh:
        fresh.discard(place)  # a second row of the same id in this batch is compared with the first
        return Enqueued(row.event_id, "new", receipt(row.event_id, envelope.digest(row.value)))
    digest, content = known[place]
    differing = () if content == row.content_digest else _differing(tx, row)
    outcome: Literal["same", "conflict"] = "conflict" if differing else "same"
    return Enqueued(row.event_id, outcome, receipt(row.event_id, digest), differing)


def _differing(tx: sa.Connection, row: OutboxRow) -> tuple[str, ...]:
    """Fields in which the stored event is another; none if it is the same under an older contract's bytes."""
    try:
        stored = read_back(tx, row.topic, row.event_id)
    except Rejected:
        raise Retryable(f"{row.topic.name} {row.event_id} is stored under a newer contract: upgrade") from None
    new = codec.decode(row.value, row.topic)
    return tuple(name for name in new if name not in NO_CONTENT and new[name] != stored.get(name))


def receipt(event_id: uuid.UUID, digest: uuid.UUID) -> str:
    """The receipt of a stored event: its id, and its bytes."""
    return f"{event_id}.{digest.hex}"


def adopt(tx: sa.Connection, topic: Topic, value: bytes, partition: int, offset: int, sent_at: int) -> bool:
    """Take in an event that Kafka carries at ``partition`` and ``offset`` since ``sent_at`` (epoch ms), as if it had
    been published and sent; False if there is one of its id. ``value`` must be what :func:`row` once made.
    """
    record = codec.decode(value, topic)
    content = envelope.digest(envelope.without_receipt(value))
    columns = _columns(OutboxRow(topic, uuid.UUID(record["event_id"]), record, value, content))
    place = {"sent_partition": partition, "sent_offset": offset, "sent_at": sent_at}
    return bool(bulk.insert_new(tx, outbox, [{**columns, **place}], ("seq",)))


def read_back(tx: sa.Connection, topic: Topic, event_id: uuid.UUID) -> Mapping[str, Any]:
    """The stored record of an event in the outbox; raises ``LookupError`` if there is none."""
    query = sa.select(outbox.c.value).where(outbox.c.topic == topic.name, outbox.c.event_id == event_id)
    value = tx.execute(query).scalar_one_or_none()
    if value is None:
        raise LookupError(f"{topic.name} {event_id} is not in the outbox")
    return codec.decode(value, topic)
