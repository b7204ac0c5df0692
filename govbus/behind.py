"""What waits on its way through the bus. Only reads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from kafka import TopicPartition

from consumers.loop import partitions, reader
from schemas.topics import CASE, HANDLING, Topic
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


def late(consumer: Any, found: Iterable[Gap], before: int) -> list[str]:
    """The lines for which a record waits that came into the log before ``before`` (epoch ms). Kafka is asked once."""
    waiting = [gap for gap in found if gap.cursor < gap.end]
    first = consumer.offsets_for_times({gap.place: before for gap in waiting}) if waiting else {}
    return sorted({gap.line for gap in waiting if first[gap.place] is None or gap.cursor < first[gap.place].offset})


def _summed(numbers: Iterable[tuple[str, int]]) -> dict[str, int]:
    """What lacks in one partition is not made good by another."""
    total: Counter[str] = Counter()
    for line, records in numbers:
        total[line] += max(0, records)
    return dict(+total)


def behind(
    tx: sa.Connection,
    kafka: str,
    subscribed: bool = False,
    clock: horizon.Clock = "wall",
    settle_ms: int = 0,
    max_wait_s: int | None = None,
) -> dict[str, Any]:
    """What waits: ``unsent`` events, cases and groups to be judged (``unjudged``), what the desk has to look at
    (``undecided``), records for the province (``unacknowledged``), alerts for subscribers (``undelivered``), each with
    how long the oldest has (``unsent_ms``, …; 0: not known); what was ``refused`` and ``given_up``, open
    ``dead_letters`` and clocks that end on a day whose calendar is not published (``provisional``); by processor and
    topic, records in ``lag`` and ``lost``, and which of the lag are ``late``, for longer than ``max_wait_s`` (None:
    nothing is). ``subscribed``: somebody is to be told of alerts; who was told before is always asked. ``clock``,
    ``settle_ms``: what the worker's timers and the desk go by.

    Raises ``Retryable`` while a topic is missing, and what SQLAlchemy and kafka-python raise.
    """
    now = horizon.now(tx, "wall")
    found = _counts(tx, now, min(now, horizon.ceiling(tx, clock, settle_ms, now)))
    consumer = reader(kafka)
    try:
        open_ends = gaps(tx, consumer, _delivery(tx, subscribed))
        old = [] if max_wait_s is None else late(consumer, open_ends, max(0, now - 1000 * max_wait_s))
        return {**found, "lag": lag(open_ends), "late": old, "lost": lost(open_ends)}
    finally:
        consumer.close()


def _counts(tx: sa.Connection, now: int, until: int) -> dict[str, int]:
    from consumers.alerts.queue import DIGEST

    asked = {"now": now, "until": until, "cases": CASE.name, "partitions": HANDLING.partitions, "digest": DIGEST}
    found: dict[str, int] = {}
    for name, query in _AGED.items():
        found[name], age = tx.execute(sa.text(query), asked).one()
        found[f"{name}_ms"] = max(0, age or 0)
    return found | {name: tx.execute(sa.text(query)).scalar_one() for name, query in _COUNTED.items()}


def _delivery(tx: sa.Connection, subscribed: bool) -> list[tuple[str, Topic]]:
    from consumers.alerts.queue import Queue

    began = sa.text("SELECT EXISTS (SELECT FROM cursor WHERE processor = :name)")
    runs = subscribed or tx.execute(began, {"name": Queue.name}).scalar_one()
    return [(Queue.name, topic) for topic in Queue.topics if runs]


_DUE = (  # of a million cases the index is asked partition by partition, as whoever looks at them asks it
    "SELECT count(*) AS n, min(next_check_at) FILTER (WHERE next_check_at > 0) AS since "
    "FROM {} WHERE partition = {} AND next_check_at <= :until"
)
_AGED = {
    "unsent": "SELECT count(*), :now - min(queued_at) FROM outbox WHERE sent_at IS NULL",
    "unjudged": f"""
        SELECT sum(n)::bigint, :until - min(since) FROM (
            SELECT due.* FROM cursor AS at CROSS JOIN LATERAL ({_DUE.format("case_state", "at.partition")}) AS due
            WHERE at.processor = 'judge' AND at.topic = :cases
            UNION ALL SELECT count(DISTINCT group_key), min(since) FILTER (WHERE since > 0) FROM (
                SELECT group_key, NULL::bigint AS since FROM case_group WHERE stale
                UNION ALL SELECT group_key, next_check_at FROM group_state WHERE next_check_at <= :until) AS one
        ) AS all_due""",
    "undecided": f"""
        SELECT sum(n)::bigint, :until - min(since) FROM generate_series(0, CAST(:partitions AS integer) - 1) AS p
        CROSS JOIN LATERAL ({_DUE.format("desk_check", "p")}) AS due""",
    "unacknowledged": """
        SELECT count(*), :now - (SELECT said.queued_at FROM (
            SELECT topic, event_id FROM push_queue WHERE refused_reason IS NULL ORDER BY seq LIMIT 1
        ) AS oldest JOIN outbox AS said USING (topic, event_id))
        FROM push_queue WHERE refused_reason IS NULL""",
    "undelivered": """
        SELECT count(*), :now - min(CASE WHEN attempts = 0 THEN greatest(queued_at, not_before) ELSE queued_at END)
            FILTER (WHERE channel <> :digest)
        FROM delivery WHERE done_at IS NULL AND dead_at IS NULL""",
}
"""How many wait, and for how many milliseconds the oldest does. What is marked because something new is known bears no
time; what the digest takes waits for its hour."""
_COUNTED = {
    "refused": "SELECT count(*) FROM push_queue WHERE refused_reason IS NOT NULL",
    "given_up": "SELECT count(*) FROM delivery WHERE dead_at IS NOT NULL",
    "dead_letters": "SELECT count(*) FROM dead_letter WHERE redriven_at IS NULL",
    "provisional": """
        SELECT (SELECT count(*) FROM case_state WHERE provisional AND stopped_at IS NULL)
             + (SELECT count(*) FROM group_state WHERE provisional AND ended_at IS NULL)""",
}
"""What waits for a person."""
