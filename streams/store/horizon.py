"""How far timers may speak: the horizon of a partition. One pure rule, and the reads that feed it.

The horizon never passes an event that is published but not applied: unsent ones are in the outbox, sent
ones lie below the end offset. So the outbox must be read *before* the end offsets are fetched
(docs/architecture.md). Nor does it pass a calendar that is published but not applied, nor, at the desk, an alert that
is said but not sent, whatever else is known.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

import sqlalchemy as sa

from schemas.topics import CALENDAR, INBOUND, Topic

Clock = Literal["wall", "watermark"]
RECENT = 500  # rows of the outbox's tail that are looked at for the newest sent event


@dataclass(frozen=True, slots=True)
class Place:
    """Where a processor stands in a partition: next offset, and watermark in epoch ms."""

    next_offset: int
    watermark: int


NOWHERE = Place(0, 0)


class Waiting(NamedTuple):
    """What is published and on its way: the lowest ``received_at`` (epoch ms) of each kind, None where none is.

    ``unsent``: inbound events that are not sent. ``elsewhere``: what another processor has to apply first, calendars
    above all, sent or not: everybody's deadlines are counted by them.
    """

    unsent: int | None = None
    elsewhere: int | None = None


def horizon(place: Place, end_offset: int | None, ceiling: int, waiting: Waiting) -> int:
    """The horizon of one partition, epoch ms.

    ``end_offset`` is the log's end, fetched after ``waiting`` was read; None if the broker did not say. A partition
    that is not caught up stands at its watermark. A watermark beyond the ceiling comes of a publishing host whose clock
    is ahead: what its event knows holds for its own case, and says nothing of how far the partition is known. Nor does
    an event that was applied say anything of what waits elsewhere.
    """
    top = ceiling if waiting.elsewhere is None else min(ceiling, waiting.elsewhere - 1)
    known = place.watermark if place.watermark <= ceiling else 0
    if end_offset is None or place.next_offset != end_offset:  # beyond the end: the log has lost records
        return min(top, known)
    bound = ceiling if waiting.unsent is None else waiting.unsent - 1
    return min(top, max(known, bound))


def waiting(tx: sa.Connection, said: Topic | None = None) -> Waiting:
    """What is on its way now; ``said``: an outbound topic whose unsent records count as waiting elsewhere."""
    asked = {"topics": _names(), "calendar": CALENDAR.name, "said": said.name if said else ""}
    return Waiting(*tx.execute(_WAITING, asked).one())


def places(tx: sa.Connection, processor: str, topic: Topic) -> dict[int, Place]:
    """Where ``processor`` stands in each partition of ``topic`` that it has seen."""
    rows = tx.execute(_PLACES, {"processor": processor, "topic": topic.name})
    return {partition: Place(next_offset, watermark) for partition, next_offset, watermark in rows}


_PLACES = sa.text(
    "SELECT partition, next_offset, watermark FROM cursor WHERE processor = :processor AND topic = :topic"
)


def ceiling(tx: sa.Connection, clock: Clock, settle_ms: int, wall_ms: int) -> int:
    """The latest instant (epoch ms) any horizon may reach.

    Wall: the wall clock less the time to settle, and never beyond the database's clock, which is one for all workers:
    of a host whose clock is ahead cards would come too early. Watermark: the newest event that any processor applied
    or the relay sent (the newest among the last rows of the outbox: a lower answer only makes timers wait).
    """
    if clock == "wall":
        return min(wall_ms, now(tx, "wall")) - settle_ms
    newest: int = tx.execute(_NEWEST, {"topics": _names(), "recent": RECENT}).scalar_one()
    return newest


def now(tx: sa.Connection, clock: Clock) -> int:
    """What timers take for now (epoch ms), by the database's clock where they go by the wall's."""
    if clock == "watermark":
        return ceiling(tx, clock, 0, 0)
    wall: int = tx.execute(_NOW).scalar_one()
    return wall


def horizons(
    at: Mapping[int, Place], ends: Mapping[int, int], partitions: list[int], top: int, waiting: Waiting
) -> dict[int, int]:
    """``horizon`` for each of ``partitions``."""
    return {p: horizon(at.get(p, NOWHERE), ends.get(p), top, waiting) for p in partitions}


def _names() -> list[str]:
    return [t.name for t in INBOUND]


_WAITING = sa.text(  # a look into the index for every topic: what is said and unsent may be a million rows
    "SELECT (SELECT min(o.received_at) FROM unnest(CAST(:topics AS text[])) AS t(name) CROSS JOIN LATERAL "
    "(SELECT received_at FROM outbox WHERE topic = t.name AND sent_at IS NULL ORDER BY received_at LIMIT 1) AS o), "
    "least((SELECT min(received_at) FROM outbox WHERE topic = :said AND sent_at IS NULL), "
    "(SELECT min(o.received_at) FROM outbox AS o LEFT JOIN cursor AS c "
    "ON c.processor = 'schedule' AND c.topic = o.topic AND c.partition = o.sent_partition "
    "WHERE o.topic = :calendar AND (o.sent_at IS NULL OR o.sent_offset >= coalesce(c.next_offset, 0))))"
)
_NOW = sa.text("SELECT (extract(epoch FROM now()) * 1000)::bigint")
_NEWEST = sa.text(
    "SELECT greatest((SELECT coalesce(max(watermark), 0) FROM cursor WHERE topic = ANY(:topics)),"
    " (SELECT coalesce(max(received_at), 0) FROM"
    " (SELECT topic, received_at, sent_at FROM outbox ORDER BY seq DESC LIMIT :recent) AS tail"
    " WHERE sent_at IS NOT NULL AND topic = ANY(:topics)))"
)
