"""Take into the outbox what the log carries and the tables hold although the outbox lost it: after the database was
restored from a backup, events published since then are carried and applied again, but nothing says that we sent them.

Only what a processor applied, byte for byte, is taken; what was refused, or published again since, stays as it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from kafka import TopicPartition

from consumers.loop import reader
from consumers.reconcile import APPLIED_SQL, CARRIED, Progress, load_carried, messages
from schemas.topics import BY_NAME
from streams.store import outbox


@dataclass(frozen=True, slots=True)
class Adopted:
    """``taken``: how many events of each topic the outbox has again; ``again``: how many it has with other bytes, for
    they were published anew before this ran.
    """

    taken: Mapping[str, int]
    again: Mapping[str, int]

    def plain(self) -> dict[str, Any]:
        """As JSON."""
        return {"taken": dict(self.taken), "published_again": dict(self.again)}


def adopt(engine: sa.Engine, bootstrap: str, dry: bool = False, progress: Progress = lambda *_: None) -> Adopted:
    """Compare the log with tables and outbox, and take in what the outbox lacks, in one transaction.

    ``dry`` changes nothing. Workers must have applied the log to its end first: what they have not is not taken.
    Raises ``Retryable`` if Kafka falls silent or the log is damaged.
    """
    with engine.connect() as tx:
        tx.exec_driver_sql(CARRIED)
        load_carried(tx, bootstrap, progress)
        tx.exec_driver_sql(_LACKING)
        wanted = [(TopicPartition(t, p), offset) for t, p, offset in tx.exec_driver_sql(_WANTED)]
        again: dict[str, int] = {topic: n for topic, n in tx.exec_driver_sql(_AGAIN)}  # noqa: C416
        taken: dict[str, int] = {}
        for message in _at(bootstrap, wanted, progress):
            place = (message.partition, message.offset, message.timestamp)
            taken.setdefault(message.topic, 0)
            taken[message.topic] += outbox.adopt(tx, BY_NAME[message.topic], message.value, *place)
        tx.rollback() if dry else tx.commit()
        tx.exec_driver_sql("DISCARD TEMP")
        tx.commit()
    return Adopted(taken, again)


def _at(bootstrap: str, wanted: Sequence[tuple[TopicPartition, int]], progress: Progress) -> Iterable[Any]:
    """The messages at the places ``wanted``, in the order of each partition."""
    offsets: dict[TopicPartition, set[int]] = {}
    for place, offset in wanted:
        offsets.setdefault(place, set()).add(offset)
    if not offsets:
        return
    with closing(reader(bootstrap)) as consumer:
        consumer.assign(list(offsets))
        starts = {place: min(found) for place, found in offsets.items()}
        for place, start in starts.items():
            consumer.seek(place, start)
        ends = {place: max(found) + 1 for place, found in offsets.items()}
        for message in messages(consumer, starts, ends, progress):
            if message.offset in offsets[TopicPartition(message.topic, message.partition)]:
                yield message


_LACKING = f"""
CREATE TEMP TABLE ad_lacking AS
  SELECT DISTINCT ON (c.topic, c.event_id) c.topic, c.partition, c."offset", c.event_id, o.event_id IS NOT NULL AS again
  FROM rc_carried c JOIN ({APPLIED_SQL}) a USING (topic, event_id, digest)
  LEFT JOIN outbox o USING (topic, event_id)
  WHERE o.event_id IS NULL OR o.digest <> c.digest
  ORDER BY c.topic, c.event_id, c.partition, c."offset"
"""
_WANTED = 'SELECT topic, partition, "offset" FROM ad_lacking WHERE NOT again ORDER BY topic, partition, "offset"'
_AGAIN = "SELECT topic, count(*) FROM ad_lacking WHERE again GROUP BY topic ORDER BY topic"
