"""What waits on its way through the bus. Only reads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from kafka import TopicPartition

from consumers.loop import partitions, reader
from schemas.clock import wall_clock
from schemas.topics import CASE, Topic
from streams.store import horizon


def processors() -> Iterator[tuple[str, Topic]]:
    """Everything that keeps a cursor in every installation: name and topic."""
    from connectors.province.push import Queue
    from consumers.alerts.inbox import Inbox
    from consumers.directory.view import View
    from streams.agents import projections

    yield from ((projection.name, projection.topic) for projection in projections())
    for effect in (Inbox(), View(), Queue()):
        yield from ((effect.name, topic) for topic in effect.topics)


@dataclass(frozen=True, slots=True)
class Gap:
    """A cursor that is not at the end of its partition: below it, records wait; beyond it, the log has lost some
    (docs/decisions/0010).
    """

    line: str
    place: TopicPartition
    cursor: int
    end: int


def gaps(tx: sa.Connection, consumer: Any, more: Iterable[tuple[str, Topic]] = ()) -> list[Gap]:
    """Where the cursors of the processors (and of ``more``) are not at the ends of their topics."""
    rows = tx.execute(sa.text('SELECT processor, topic, "partition", next_offset FROM cursor')).all()
    at = {(name, topic, partition): offset for name, topic, partition, offset in rows}
    found: list[Gap] = []
    for name, topic in (*processors(), *more):
        ends = consumer.end_offsets(partitions(consumer, [topic]))
        cursors = {place: at.get((name, topic.name, place.partition), 0) for place in ends}
        line = f"{name} on {topic.name}"
        found += [Gap(line, place, cursors[place], end) for place, end in ends.items() if cursors[place] != end]
    return found


def lag(found: Iterable[Gap]) -> dict[str, int]:
    """Records between the cursors of each processor and the ends of its topic; only those above 0."""
    return _summed((gap.line, gap.end - gap.cursor) for gap in found)


def lost(found: Iterable[Gap]) -> dict[str, int]:
    """Records that each processor has applied and its topic does not hold any more; only those above 0."""
    return _summed((gap.line, gap.cursor - gap.end) for gap in found)


def _summed(numbers: Iterable[tuple[str, int]]) -> dict[str, int]:
    """What lacks in one partition is not made good by another."""
    total: Counter[str] = Counter()
    for line, records in numbers:
        total[line] += max(0, records)
    return dict(+total)


def behind(
    tx: sa.Connection, kafka: str, subscribed: bool = False, clock: horizon.Clock = "wall", settle_ms: int = 0
) -> dict[str, Any]:
    """What waits: ``unsent`` events and since when the oldest does (``unsent_ms``), ``lag`` and ``lost`` by processor and
    topic, cases and groups to be judged (``unjudged``), what the desk has to look at (``undecided``), records for the
    province (``unacknowledged``, ``refused``), alerts for subscribers (``undelivered``, ``given_up``), open
    ``dead_letters``. ``subscribed``: somebody is to be told of alerts; who was told before is always asked. ``clock``,
    ``settle_ms``: what the worker's timers and the desk go by.

    Raises ``Retryable`` while a topic is missing, and what SQLAlchemy and kafka-python raise.
    """
    now = wall_clock()
    until = min(now, horizon.ceiling(tx, clock, settle_ms, now))
    found = dict(tx.execute(_WAITING, {"until": until, "cases": CASE.name}).mappings().one())
    consumer = reader(kafka)
    try:
        open_ends = gaps(tx, consumer, _delivery(tx, subscribed))
        return {**found, "lag": lag(open_ends), "lost": lost(open_ends)}
    finally:
        consumer.close()


def _delivery(tx: sa.Connection, subscribed: bool) -> list[tuple[str, Topic]]:
    from consumers.alerts.queue import Queue

    began = sa.text("SELECT EXISTS (SELECT FROM cursor WHERE processor = :name)")
    runs = subscribed or tx.execute(began, {"name": Queue.name}).scalar_one()
    return [(Queue.name, topic) for topic in Queue.topics if runs]


_WAITING = sa.text(  # of a million cases the index is asked partition by partition, as the worker asks it
    """
SELECT count(*) AS unsent,
       coalesce((extract(epoch FROM clock_timestamp()) * 1000)::bigint - min(queued_at), 0) AS unsent_ms,
       (SELECT sum(n)::bigint FROM (
          SELECT due.n FROM cursor AS at CROSS JOIN LATERAL (SELECT count(*) AS n FROM case_state
            WHERE partition = at.partition AND next_check_at <= :until) AS due
          WHERE at.processor = 'judge' AND at.topic = :cases
          UNION ALL SELECT count(*) FROM (SELECT group_key FROM case_group WHERE stale
            UNION SELECT group_key FROM group_state WHERE next_check_at <= :until) AS groups) AS all_due) AS unjudged,
       (SELECT count(*) FROM desk_check WHERE next_check_at <= :until) AS undecided,
       (SELECT count(*) FROM push_queue WHERE refused_reason IS NULL) AS unacknowledged,
       (SELECT count(*) FROM push_queue WHERE refused_reason IS NOT NULL) AS refused,
       (SELECT count(*) FROM delivery WHERE done_at IS NULL AND dead_at IS NULL) AS undelivered,
       (SELECT count(*) FROM delivery WHERE dead_at IS NOT NULL) AS given_up,
       (SELECT count(*) FROM dead_letter WHERE redriven_at IS NULL) AS dead_letters
FROM outbox WHERE sent_at IS NULL"""
)
