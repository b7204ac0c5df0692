"""Send again what the log has lost although it had acknowledged it: a power cut on a single broker, a deleted topic.

A row of the outbox says where its record landed. If the record is not there, the row is unsent again and the relay
sends it in the order of publishing; cursors that stand behind the loss go back to it, and readers know by their ids
what they had applied. What a topic may forget (compaction, retention) is not lost. Decides nothing about content.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from consumers.reconcile import CARRIED, Progress, copy, load_carried
from schemas.topics import TOPICS
from streams.store.outbox import WAKE


@dataclass(frozen=True, slots=True)
class Moved:
    """A cursor that stood behind what the log holds, and where it stands now."""

    processor: str
    topic: str
    partition: int
    before: int
    now: int


@dataclass(frozen=True, slots=True)
class Resent:
    """``lost``: how many events each topic had lost; ``moved``: the cursors that went back."""

    lost: Mapping[str, int]
    moved: tuple[Moved, ...]

    @property
    def nothing(self) -> bool:
        """Whether the log holds all it must."""
        return not self.lost and not self.moved

    def plain(self) -> dict[str, Any]:
        """As JSON."""
        moved = [{"processor": m.processor, "topic": m.topic, "partition": m.partition,
                  "before": m.before, "now": m.now} for m in self.moved]  # fmt: skip
        return {"lost": dict(self.lost), "cursors": moved}


def resend(engine: sa.Engine, bootstrap: str, dry: bool = False, progress: Progress = lambda *_: None) -> Resent:
    """Compare every sent row with the log; unsend what is not there and move the cursors, in one transaction.

    ``dry`` changes nothing. Workers, consumers and relay may run. Raises ``Retryable`` if Kafka falls silent or the
    log is damaged.
    """
    with engine.connect() as tx:
        tx.exec_driver_sql(CARRIED + _BEFORE)
        starts, ends = load_carried(tx, bootstrap, progress)
        spans = ((p.topic, p.partition, starts[p], ends[p]) for p in sorted(starts))
        copy(tx, "rs_span", ("topic", "partition", "first", "past"), spans)
        short = [t.name for t in TOPICS if t.retention_ms > 0]
        tx.execute(_LOST, {"compacted": [t.name for t in TOPICS if t.compacted], "short": short})
        lost = {row.topic: row.n for row in tx.exec_driver_sql(_COUNT)}
        moved = tuple(Moved(*row) for row in tx.exec_driver_sql(_MOVE))
        tx.exec_driver_sql(_UNSEND)
        tx.exec_driver_sql(_FORGET)
        tx.execute(_UNPLACE, {"forgetful": [t.name for t in TOPICS if t.forgets]})
        tx.execute(WAKE)
        tx.rollback() if dry else tx.commit()
        tx.exec_driver_sql("DISCARD TEMP")
        tx.commit()
    return Resent(lost, moved)


_BEFORE = """
CREATE TEMP TABLE rs_span (topic text, partition int, first bigint, past bigint);
CREATE TEMP TABLE rs_sent AS
  SELECT seq, topic, key, event_id, digest, sent_partition AS partition, sent_offset AS "offset"
  FROM outbox WHERE sent_at IS NOT NULL;
CREATE TEMP TABLE rs_dead AS
  SELECT dead_id FROM dead_letter WHERE origin = 'STREAM' AND "offset" IS NOT NULL;
CREATE TEMP TABLE rs_cursor AS SELECT processor, topic, partition, next_offset FROM cursor;
ANALYZE rs_sent;
"""
"""Read before the log is: whatever is sent or applied meanwhile is none of ours."""
_LOST = sa.text("""
CREATE TEMP TABLE rs_lost AS
WITH gone AS (
  SELECT s.* FROM rs_sent s LEFT JOIN rc_carried c USING (topic, partition, "offset", event_id, digest)
  WHERE c.topic IS NULL),
newest AS (SELECT s.topic, s.key, max(s."offset") AS "offset" FROM rs_sent s
           JOIN rc_carried c USING (topic, partition, "offset", event_id, digest)
           WHERE s.topic = ANY(:compacted) GROUP BY 1, 2)
SELECT g.* FROM gone g JOIN rs_span USING (topic, partition) LEFT JOIN newest n USING (topic, key)
WHERE NOT (g.topic = ANY(:short) AND g."offset" < first) AND coalesce(n."offset", -1) < g."offset"
""")
_COUNT = "SELECT topic, count(*) AS n FROM rs_lost GROUP BY topic ORDER BY topic"
_MOVE = """
WITH low AS (SELECT topic, partition, min("offset") AS "offset" FROM rs_lost GROUP BY 1, 2),
wanted AS (
  SELECT processor, topic, partition, next_offset AS before,
         greatest(first, least(next_offset, past, coalesce(low."offset", next_offset))) AS now
  FROM rs_cursor JOIN rs_span USING (topic, partition) LEFT JOIN low USING (topic, partition))
UPDATE cursor c SET next_offset = w.now FROM wanted w
WHERE (c.processor, c.topic, c.partition) = (w.processor, w.topic, w.partition) AND w.now <> w.before
RETURNING c.processor, c.topic, c.partition, w.before, w.now
"""
_UNSEND = """
UPDATE outbox o SET sent_at = NULL, sent_partition = NULL, sent_offset = NULL FROM rs_lost l
WHERE o.seq = l.seq AND (o.sent_partition, o.sent_offset) = (l.partition, l."offset")
"""
_FORGET = """
DELETE FROM dead_letter d USING rs_lost l
WHERE (d.topic, d.partition, d."offset") = (l.topic, l.partition, l."offset")
  AND d.origin = 'STREAM' AND d.redriven_at IS NULL
"""
"""Refused once, they are refused again where they land next; a dead letter says where its record lies."""
_UNPLACE = sa.text("""
UPDATE dead_letter d SET partition = NULL, "offset" = NULL FROM rs_dead WHERE d.dead_id = rs_dead.dead_id
  AND EXISTS (SELECT FROM rs_span s WHERE (s.topic, s.partition) = (d.topic, d.partition))
  AND NOT d.topic = ANY(:forgetful)
  AND NOT EXISTS (SELECT FROM rc_carried c
    WHERE (c.topic, c.partition, c."offset", c.digest) = (d.topic, d.partition, d."offset", d.digest))
""")
"""The record of such a letter was never published here, or went again: nobody will send it to its old place."""
