"""Prove that published = carried = applied = acknowledged, and name every difference. Acts on nothing.

Independent of the processors: reads the outbox, Kafka from its beginning to its end by a consumer of its own,
the event tables, and the receipts, whose signatures it verifies again. Compares, per department x topic x
hour (of ``occurred_at``), count and multiset hash: the sum of SHA-256(event id, digest) modulo 2^256. A sum,
not XOR, so that two of the same do not cancel. Only topics with a differing cell are looked at by record.

Departments publish meanwhile. What was queued or sent after the reading began, and lies behind the end to which Kafka
was read or is not sent yet, is *under way*: counted, and left out of the comparison until the next one. Not by its
place alone: a log that has lost records ends before them too.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from kafka import KafkaConsumer, TopicPartition
from kafka.errors import CorruptRecordError

from consumers.loop import partitions, reader
from schemas import codec, envelope, receipts
from schemas.errors import Rejected, Retryable
from schemas.topics import (
    BEHAVIOUR,
    BY_NAME,
    CALENDAR,
    CASE,
    DEADLETTER,
    HANDLING,
    INBOUND,
    ITEM,
    LICENCE,
    RATING,
    RESOURCE,
    ROLLUP,
    TICKET,
    TOPICS,
    UPLOAD,
    Topic,
)  # fmt: skip
from streams.store import horizon, tables
from streams.store.bulk import any_of

APPLIED: Mapping[Topic, sa.Table] = {
    ITEM: tables.item_event,
    CASE: tables.case_event,
    RATING: tables.rating_event,
    LICENCE: tables.licence_event,
    RESOURCE: tables.resource_event,
    HANDLING: tables.handling_event,
    BEHAVIOUR: tables.behaviour_event,
    TICKET: tables.ticket_event,
    CALENDAR: tables.calendar_event,
}
PUSHED = (UPLOAD, ROLLUP)
ABOUT: Mapping[str, str] = {UPLOAD.name: "source_event_id", DEADLETTER.name: "dead_id"}
"""The field of an outbound record that names what it is about."""
STANDS = frozenset({"rating.excluded", "rating.restored"})
MOST_NAMED = 10_000
SILENT_S = 30.0
_SOURCE = re.compile(rb"^/[0-9]+/([A-Za-z0-9-]+)$")
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Difference:
    """One event that is not the same at every place. ``kind``: missing_at, differs_at or doubled_at."""

    event_id: str
    department: str
    topic: str
    kind: str
    place: str
    reason: str = ""

    def plain(self) -> dict[str, str]:
        """As JSON."""
        said = {"event_id": self.event_id, "department": self.department, "topic": self.topic}
        return {**said, self.kind: self.place, **({"reason": self.reason} if self.reason else {})}


@dataclass
class Report:
    """What was found. ``topics``: topic → place → number of distinct records; ``hashes`` likewise."""

    topics: dict[str, dict[str, int]]
    hashes: dict[str, dict[str, str]] = field(default_factory=dict)
    differences: list[Difference] = field(default_factory=list)
    unnamed: int = 0
    cells: int = 0
    duplicates: int = 0
    superseded: int = 0
    """Behind a newer one of their key: compacted away, or rollups that the province refused."""
    unread: int = 0
    """Compacted away before they were queued for the province, which has a newer one."""
    expired: int = 0
    under_way: int = 0
    """Published while Kafka was read, so not found there, or not acknowledged yet; the next comparison has them."""
    forged: list[str] = field(default_factory=list)

    @property
    def equal(self) -> bool:
        """Whether nothing differs anywhere."""
        return not self.differences and not self.unnamed and not self.forged

    def plain(self) -> dict[str, Any]:
        """As JSON (DESIGN §5). ``places`` sums over topics; ``acknowledged`` counts uploads and rollups."""
        summed = [t for t in self.topics if t != RATING.name]
        places = {
            p: sum(n.get(p, 0) for n in self.topics.values()) for p in ("published", "carried", "applied")
        }
        places["acknowledged"] = sum(self.topics[t].get("acknowledged", 0) for t in summed)
        places["dead"] = sum(n.get("dead", 0) for n in self.topics.values())
        return {
            "equal": self.equal,
            "places": places,
            "topics": self.topics,
            "hashes": self.hashes,
            "cells": self.cells,
            "duplicates": self.duplicates,
            "superseded": self.superseded,
            "unread": self.unread,
            "expired": self.expired,
            "under_way": self.under_way,
            "forged_receipts": self.forged,
            "differences": [d.plain() for d in self.differences],
            "differences_not_named": self.unnamed,
        }


def reconcile(
    engine: sa.Engine, bootstrap: str, public_key: str | None, progress: Progress = lambda *_: None
) -> Report:
    """Compare the four places now. ``public_key``: the province's (hex); None leaves the province out.

    Works in temporary tables and changes nothing else. Raises ``Retryable`` if Kafka falls silent.
    """
    with engine.connect() as tx:
        tx.exec_driver_sql(_TABLES)
        began = horizon.now(tx, "wall")
        starts, ends = load_carried(tx, bootstrap, progress)
        tx.commit()
        tx.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        forged = _load_acknowledged(tx, public_key, progress)
        tx.exec_driver_sql(_places_sql(public_key is not None, began))
        _note_later(tx, ends, began)
        report = _compare(tx, public_key is not None, starts, progress)
        report.forged = forged
        tx.rollback()
        tx.exec_driver_sql("DISCARD TEMP")
        tx.commit()
    return report


# --- Kafka: carried -----------------------------------------------------------------------------------------


Span = dict[TopicPartition, int]


def load_carried(tx: sa.Connection, bootstrap: str, progress: Progress) -> tuple[Span, Span]:
    """Copy what Kafka holds into ``rc_carried``; returns the first offset of each partition, and the end."""
    consumer = reader(bootstrap)
    try:
        places = partitions(consumer, TOPICS)
        consumer.assign(places)
        starts, ends = dict(consumer.beginning_offsets(places)), dict(consumer.end_offsets(places))
        for place in places:
            consumer.seek(place, starts[place])
        columns = (
            "topic", "partition", "offset", "event_id", "digest", "department", "occurred_at", "about", "original",
        )  # fmt: skip
        copy(tx, "rc_carried", columns, map(_row, messages(consumer, starts, ends, progress)))
    finally:
        consumer.close(autocommit=False)
    return starts, ends


def messages(
    consumer: KafkaConsumer,
    starts: Mapping[TopicPartition, int],
    ends: Mapping[TopicPartition, int],
    progress: Progress,
) -> Iterator[Any]:
    """Every message from start to end of every partition, to which ``consumer`` is assigned and sought.

    Raises ``Retryable`` if Kafka falls silent or the log is damaged.
    """
    total, done, silent = sum(ends[p] - starts[p] for p in ends), 0, 0
    left = {p for p in ends if starts[p] < ends[p]}
    while left:
        try:
            polled = consumer.poll(timeout_ms=1_000, max_records=5_000)
        except CorruptRecordError as error:  # says where
            raise Retryable(f"the log is damaged: {error}; docs/operate.md says what to do") from error
        silent = 0 if polled else silent + 1
        if silent > SILENT_S:
            raise Retryable(
                f"Kafka gave nothing for {SILENT_S:.0f} s; {len(left)} partitions are not read to their end"
            )
        for place, messages in polled.items():
            fresh = [m for m in messages if m.offset < ends[place]]
            done += len(fresh)
            yield from fresh
        left = {p for p in left if consumer.position(p) < ends[p]}
        for place in {p for p in ends if p not in left} - consumer.paused():
            consumer.pause(place)
        progress("Kafka", done, total)


def _row(message: Any) -> tuple[Any, ...]:
    """One record by its headers and the digest of its bytes; nothing about it is trusted."""
    headers = dict(message.headers or ())
    value: bytes = message.value or b""
    source = _SOURCE.match(headers.get("ce_source") or b"")
    return (
        message.topic,
        message.partition,
        message.offset,
        _id(headers.get("ce_id")) or envelope.derived_id(message.topic, message.partition, message.offset),
        envelope.digest(value),
        source[1].decode() if source else "unknown",
        _time(headers.get("ce_time") or b""),
        *_about(message.topic, value),
    )


def _id(text: bytes | None) -> uuid.UUID | None:
    try:
        return uuid.UUID((text or b"").decode())
    except ValueError:
        return None


def _time(text: bytes) -> int:
    """Epoch ms of a ``ce_time`` header; 0 if it is none."""
    try:
        moment = datetime.fromisoformat(text.decode())
    except ValueError:
        return 0
    return int(moment.timestamp() * 1000) if moment.tzinfo else 0


def _about(topic: str, value: bytes) -> tuple[uuid.UUID | None, uuid.UUID | None]:
    """What an upload or a dead letter is about, and the digest of what a dead letter holds; None of all others, and of
    a word that a rating counts or does not.
    """
    if topic not in ABOUT:
        return None, None
    try:
        record = codec.decode(value, BY_NAME[topic])
        if record["event_type"] in STANDS:
            return None, None
        original = uuid.UUID(record["original_digest"]) if topic == DEADLETTER.name else None
        return uuid.UUID(record[ABOUT[topic]]), original
    except (Rejected, ValueError):
        return None, None


# --- the province: acknowledged -----------------------------------------------------------------------------


def _load_acknowledged(tx: sa.Connection, public_key: str | None, progress: Progress) -> list[str]:
    """Copy what genuine receipts say into ``rc_word``; returns the batches of the others."""
    if public_key is None:
        return []
    forged: list[str] = []
    copy(
        tx, "rc_word", ("event_id", "digest", "outcome", "reason"), _words(tx, public_key, forged, progress)
    )
    return forged


def _words(
    tx: sa.Connection, public_key: str, forged: list[str], progress: Progress
) -> Iterator[tuple[Any, ...]]:
    """The records of every genuine receipt, streamed on a second connection."""
    with tx.engine.connect() as side:  # tx itself is busy with COPY
        total = side.execute(sa.select(sa.func.count()).select_from(tables.receipt)).scalar_one()
        rows = side.execution_options(stream_results=True, max_row_buffer=50).execute(
            sa.select(tables.receipt)
        )
        for done, row in enumerate(rows, 1):
            if receipts.genuine(row.batch_id, row.body, row.signature, public_key):
                for r in row.body["records"]:
                    reason = str(r.get("reason") or "")  # an older release kept whatever was signed
                    yield uuid.UUID(r["event_id"]), uuid.UUID(r["digest"]), r["outcome"], reason
            else:
                forged.append(str(row.batch_id))
            progress("receipts", done, total)


def copy(tx: sa.Connection, table: str, columns: tuple[str, ...], rows: Iterable[tuple[Any, ...]]) -> None:
    """Write ``rows`` into a temporary table."""
    names = ", ".join(f'"{c}"' for c in columns)
    driver: Any = tx.connection.driver_connection
    with driver.cursor() as cursor, cursor.copy(f"COPY {table} ({names}) FROM STDIN") as into:
        for row in rows:
            into.write_row(row)
    tx.exec_driver_sql(f"ANALYZE {table}")


# --- the places as relations (topic, event_id, digest, department, occurred_at) -----------------------------

CARRIED = """
CREATE TEMP TABLE rc_carried (topic text, partition int, "offset" bigint, event_id uuid, digest uuid,
                              department text, occurred_at bigint, about uuid, original uuid);
"""
_TABLES = f"""{CARRIED}
CREATE TEMP TABLE rc_word (event_id uuid, digest uuid, outcome text, reason text);
CREATE TEMP TABLE rc_later (topic text, event_id uuid, about uuid, original uuid, PRIMARY KEY (topic, event_id));
"""
_COLUMNS = "topic, event_id, digest, department, occurred_at"
APPLIED_SQL = " UNION ALL ".join(
    f"SELECT '{topic.name}' AS topic, event_id, digest, department, occurred_at FROM {table.name}"
    for topic, table in APPLIED.items()
)
"""What processors applied, of every inbound topic."""


def _places_sql(province: bool, began: int) -> str:
    """The relations ``rc_<place>``: carried once, dead, accepted, applied or dead, acknowledged; without what is under
    way, of the reading that ``began`` (epoch ms).
    """
    inbound = ", ".join(f"'{t.name}'" for t in INBOUND)
    pushed = ", ".join(f"'{t.name}'" for t in PUSHED)
    told = "'STORED', 'KNOWN'" if province else "NULL"
    later = "SELECT FROM rc_later l WHERE (l.topic, l.event_id)"
    return f"""
CREATE TEMP VIEW rc_published AS SELECT {_COLUMNS} FROM outbox o
  WHERE NOT EXISTS ({later} = (o.topic, o.event_id));
CREATE TEMP VIEW rc_about AS SELECT topic, event_id, about, original FROM rc_carried
  UNION ALL SELECT topic, event_id, about, original FROM rc_later;
CREATE TEMP TABLE rc_once AS
  SELECT DISTINCT ON (topic, event_id, digest) {_COLUMNS}
  FROM rc_carried ORDER BY topic, event_id, digest, partition, "offset";
CREATE TEMP TABLE rc_dead AS
  SELECT DISTINCT c.topic, c.event_id, c.digest, o.department, o.occurred_at
  FROM dead_letter d
  JOIN rc_carried c
    ON (c.topic, c.partition, c."offset", c.digest) = (d.topic, d.partition, d."offset", d.digest)
  JOIN rc_once o ON (o.topic, o.event_id, o.digest) = (c.topic, c.event_id, c.digest)
  WHERE d.origin = 'STREAM';
CREATE TEMP TABLE rc_phantom_dead AS
  SELECT {_COLUMNS} FROM rc_dead d
  WHERE NOT EXISTS (SELECT FROM outbox p
                    WHERE (p.topic, p.event_id, p.digest) = (d.topic, d.event_id, d.digest));
CREATE TEMP VIEW rc_accepted AS
  SELECT {_COLUMNS} FROM rc_once c
  WHERE NOT EXISTS (SELECT FROM rc_phantom_dead d
                    WHERE (d.topic, d.event_id, d.digest) = (c.topic, c.event_id, c.digest));
CREATE TEMP VIEW rc_inbound AS SELECT {_COLUMNS} FROM rc_once WHERE topic IN ({inbound});
CREATE TEMP VIEW rc_applied AS SELECT {_COLUMNS} FROM ({APPLIED_SQL}) AS a
  WHERE NOT EXISTS ({later} = (a.topic, a.event_id));
CREATE TEMP VIEW rc_settled AS
  SELECT {_COLUMNS} FROM rc_applied UNION ALL
  (SELECT {_COLUMNS} FROM rc_dead WHERE topic IN ({inbound}) EXCEPT SELECT {_COLUMNS} FROM rc_applied);
CREATE TEMP VIEW rc_pushed AS SELECT {_COLUMNS} FROM outbox WHERE topic IN ({pushed});
CREATE TEMP TABLE rc_acknowledged AS
  SELECT DISTINCT coalesce(p.topic, '') AS topic, w.event_id, w.digest,
         coalesce(p.department, 'unknown') AS department, coalesce(p.occurred_at, 0) AS occurred_at
  FROM rc_word w LEFT JOIN rc_pushed p ON p.event_id = w.event_id WHERE w.outcome IN ({told})
  AND NOT EXISTS (SELECT FROM push_queue q WHERE q.event_id = w.event_id AND q.refused_reason IS NOT NULL);
CREATE TEMP VIEW rc_due AS SELECT {_COLUMNS} FROM outbox o WHERE topic IN ({pushed})
  AND (queued_at < {began}
       OR EXISTS (SELECT FROM rc_acknowledged k WHERE (k.event_id, k.digest) = (o.event_id, o.digest)));
CREATE INDEX ON rc_once (event_id);
CREATE INDEX ON rc_carried (event_id);
CREATE INDEX ON rc_acknowledged (event_id);
ANALYZE rc_once; ANALYZE rc_dead; ANALYZE rc_phantom_dead; ANALYZE rc_acknowledged;
"""


def _note_later(tx: sa.Connection, ends: Span, began: int) -> None:
    """Fill ``rc_later``: what was queued and not sent, or sent behind ``ends``, since the reading ``began``."""
    read = {"topics": [p.topic for p in ends], "partitions": [p.partition for p in ends], "ends": list(ends.values())}
    found = tx.execute(_LATER, {**read, "began": began, "told": list(ABOUT)})
    rows = [(topic, event_id, *_about(topic, bytes(value or b""))) for topic, event_id, value in found]
    copy(tx, "rc_later", ("topic", "event_id", "about", "original"), rows)


_LATER = sa.text(
    "SELECT o.topic, o.event_id, CASE WHEN o.topic = ANY(:told) THEN o.value END FROM outbox AS o "
    "LEFT JOIN unnest(CAST(:topics AS text[]), CAST(:partitions AS integer[]), CAST(:ends AS bigint[])) "
    'AS read(topic, partition, "end") ON (read.topic, read.partition) = (o.topic, o.sent_partition) '
    "WHERE CASE WHEN o.sent_at IS NULL THEN o.queued_at >= :began "
    'ELSE o.sent_at >= :began AND o.sent_offset >= "end" END '
    "AND NOT EXISTS (SELECT FROM rc_once c WHERE (c.topic, c.event_id, c.digest) = (o.topic, o.event_id, o.digest))"
)
"""One that is carried was sent before the end was asked for, and only its mark is to come."""


# --- compare ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Pair:
    """Two relations that must be equal. What only ``left`` has is missing at ``right_place``."""

    left: str
    right: str
    left_place: str
    right_place: str


ALWAYS = (
    Pair("rc_published", "rc_accepted", "published", "carried"),
    Pair("rc_inbound", "rc_settled", "carried", "applied"),
)
WITH_PROVINCE = (Pair("rc_due", "rc_acknowledged", "published", "acknowledged"),)


def _compare(
    tx: sa.Connection, province: bool, starts: Mapping[TopicPartition, int], progress: Progress
) -> Report:
    pairs = (*ALWAYS, *WITH_PROVINCE) if province else ALWAYS
    report = Report(topics=_totals(tx, province))
    found: list[Difference] = []
    for done, pair in enumerate(pairs, 1):
        cells, differing = _cells(tx, pair)
        report.cells += cells
        if differing:
            found += _named(tx, pair, differing)
        progress("comparing", done, len(pairs) + 1)
    found += [*_uploads(tx), *_dead(tx, starts)]
    progress("comparing", len(pairs) + 1, len(pairs) + 1)
    found, report.superseded, report.unread, report.expired = _excused(tx, found, starts)
    unique = sorted(set(found), key=lambda d: (d.topic, d.department, d.event_id, d.kind, d.place))
    report.differences, report.unnamed = unique[:MOST_NAMED], max(0, len(unique) - MOST_NAMED)
    twice = tx.exec_driver_sql("SELECT (SELECT count(*) FROM rc_carried) - (SELECT count(*) FROM rc_once)")
    report.duplicates = int(twice.scalar_one())
    report.under_way = int(tx.exec_driver_sql(_UNDER_WAY if province else "SELECT count(*) FROM rc_later").scalar_one())
    report.hashes = _hashes(tx, province)
    return report


_UNDER_WAY = (
    "SELECT count(*) FROM (SELECT event_id FROM rc_later UNION SELECT event_id FROM rc_pushed p "
    "WHERE NOT EXISTS (SELECT FROM rc_due d WHERE d.event_id = p.event_id)) AS one"
)
_LIMBS = [f"('x' || encode(substring(h FROM {4 * i + 1} FOR 4), 'hex'))::bit(32)::bigint" for i in range(8)]
_SUMS = ", ".join(f"sum({limb}) AS l{i}" for i, limb in enumerate(_LIMBS))


def _summed(relation: str, by: str, groups: str) -> str:
    """Count and the eight 32-bit limbs of the multiset hash of ``relation``, grouped."""
    hashed = f"SELECT *, sha256(uuid_send(event_id) || uuid_send(digest)) AS h FROM {relation}"
    return f"SELECT {by}, count(*) AS n, {_SUMS} FROM ({hashed}) hashed GROUP BY {groups}"


def _cells(tx: sa.Connection, pair: Pair) -> tuple[int, list[str]]:
    """How many cells were compared, and the topics that have a differing one."""
    by = "topic, department, occurred_at / 3600000 AS hour"
    left, right = (_summed(r, by, "1, 2, 3") for r in (pair.left, pair.right))
    same = f"(coalesce(a.n, 0), {_carry('a')}) = (coalesce(b.n, 0), {_carry('b')})"
    query = f"""
      WITH a AS ({left}), b AS ({right})
      SELECT topic, count(*), count(*) FILTER (WHERE NOT {same})
      FROM a FULL JOIN b USING (topic, department, hour) GROUP BY topic"""
    rows = tx.exec_driver_sql(query).all()
    return sum(r[1] for r in rows), [r[0] for r in rows if r[2]]


def _carry(alias: str) -> str:
    """The limbs of ``alias`` as one number modulo 2^256."""
    terms = " + ".join(f"coalesce({alias}.l{i}, 0) * {2 ** (32 * (7 - i))}::numeric" for i in range(8))
    return f"mod({terms}, {2**256}::numeric)"


def _named(tx: sa.Connection, pair: Pair, topics: list[str]) -> list[Difference]:
    """The records of ``topics`` in which the relations differ."""
    query = sa.text(f"""
      SELECT topic, event_id, department,
             bool_or(at_left) AS l, bool_or(NOT at_left) AS r, bool_and(known) AS twice FROM (
        (SELECT *, true AS at_left, false AS known FROM {pair.left} WHERE topic = ANY(:topics)
         EXCEPT ALL SELECT *, true, false FROM {pair.right} WHERE topic = ANY(:topics))
        UNION ALL
        SELECT more.*, false, EXISTS (SELECT FROM {pair.left} x
          WHERE (x.topic, x.event_id, x.digest) = (more.topic, more.event_id, more.digest)) FROM
          (SELECT * FROM {pair.right} WHERE topic = ANY(:topics)
           EXCEPT ALL SELECT * FROM {pair.left} WHERE topic = ANY(:topics)) more) differing
      GROUP BY topic, event_id, department""")
    rows = tx.execute(query, {"topics": topics}).all()
    refused = _refusals(tx) if pair.right_place == "acknowledged" else {}
    return [_difference(row, pair, refused) for row in rows]


def _difference(row: Any, pair: Pair, refused: Mapping[uuid.UUID, str]) -> Difference:
    place = pair.right_place if row.l or row.twice else pair.left_place
    kind = "doubled_at" if row.twice else "differs_at" if row.l and row.r else "missing_at"
    reason = refused.get(row.event_id, "")
    return Difference(str(row.event_id), row.department, row.topic, kind, place, reason)


def _refusals(tx: sa.Connection) -> dict[uuid.UUID, str]:
    """Why the province did not take a record: by its signed word, or, where it gave none, as the queue has it."""
    aside = tx.exec_driver_sql("SELECT event_id, refused_reason FROM push_queue WHERE refused_reason IS NOT NULL").all()
    words = tx.exec_driver_sql("SELECT event_id, reason FROM rc_word WHERE outcome = 'REFUSED'").all()
    return {event_id: f"refused: {reason}" for event_id, reason in (*aside, *words)}


def _uploads(tx: sa.Connection) -> list[Difference]:
    """Applied ratings without exactly one upload, and uploads without an applied rating."""
    query = f"""
      WITH told AS (SELECT about, count(DISTINCT event_id) AS n FROM rc_about
                    WHERE topic = '{UPLOAD.name}' AND about IS NOT NULL GROUP BY about)
      SELECT coalesce(e.event_id, t.about), coalesce(e.department, 'unknown'),
             CASE WHEN t.n IS NULL OR e.event_id IS NULL THEN 'missing_at' ELSE 'doubled_at' END,
             CASE WHEN e.event_id IS NULL THEN 'applied' ELSE 'uploaded' END
      FROM rating_event e FULL JOIN told t ON t.about = e.event_id
      WHERE t.n IS DISTINCT FROM 1 OR e.event_id IS NULL"""
    return [Difference(str(i), d, RATING.name, k, p) for i, d, k, p in tx.exec_driver_sql(query)]


def _dead(tx: sa.Connection, starts: Mapping[TopicPartition, int]) -> list[Difference]:
    """Dead letters not told on their topic, told ones that are not kept, and those of no carried record.

    Not told is right where the topic has forgotten it. Not kept is right where the record is applied by now: a rebuild
    forgets the letter, and a mended release accepts. Without a place are those whose record the log has lost
    (``consumers.resend``).
    """
    untold = f"""
      WITH told AS (SELECT DISTINCT about, original FROM rc_about
                    WHERE topic = '{DEADLETTER.name}' AND about IS NOT NULL)
      SELECT d.dead_id, coalesce(d.event_id, d.dead_id, t.about), coalesce(d.department, 'unknown'),
             coalesce(d.topic, '{DEADLETTER.name}'), CASE WHEN d.dead_id IS NULL THEN 'dead' ELSE 'told' END
      FROM dead_letter d FULL JOIN told t ON t.about = d.dead_id
      WHERE t.about IS NULL
         OR d.dead_id IS NULL AND NOT EXISTS (SELECT FROM rc_applied a WHERE a.digest = t.original)"""
    astray = """
      SELECT NULL, coalesce(d.event_id, d.dead_id), d.department, d.topic, 'carried' FROM dead_letter d
      WHERE d.origin = 'STREAM' AND d."offset" IS NOT NULL AND NOT EXISTS (
        SELECT FROM rc_later l WHERE l.about = d.dead_id) AND NOT EXISTS (
        SELECT FROM rc_carried c
        WHERE (c.topic, c.partition, c."offset", c.digest) = (d.topic, d.partition, d."offset", d.digest))"""
    rows = [*tx.exec_driver_sql(untold), *tx.exec_driver_sql(astray)]
    past = _told_before(tx, [row[0] for row in rows if row[-1] == "told"], starts)
    return [Difference(str(i), d, t, "missing_at", p, "dead letter") for dead, i, d, t, p in rows if dead not in past]


def _told_before(
    tx: sa.Connection, dead_ids: Iterable[uuid.UUID], starts: Mapping[TopicPartition, int]
) -> set[uuid.UUID]:
    """Those of ``dead_ids`` whose announcement lies before what its topic still holds."""
    letter, out = tables.dead_letter.c, tables.outbox.c
    named = sa.select(letter.dead_id, letter.region, letter.department).where(any_of(letter.dead_id, "ids"))
    letters = tx.execute(named, {"ids": list(dead_ids)})
    said = {envelope.event_id(DEADLETTER, row._asdict()): row.dead_id for row in letters}
    places = sa.select(out.event_id, out.sent_partition, out.sent_offset).where(
        out.topic == DEADLETTER.name, any_of(out.event_id, "ids"), out.sent_offset.is_not(None)
    )
    sent = tx.execute(places, {"ids": list(said)})
    return {said[i] for i, p, offset in sent if offset < starts.get(TopicPartition(DEADLETTER.name, p), 0)}


def _excused(
    tx: sa.Connection, found: list[Difference], starts: Mapping[TopicPartition, int]
) -> tuple[list[Difference], int, int, int]:
    """Without what Kafka may forget: compacted behind a newer record of its key, or past retention. What was compacted
    before it was queued for the province, the province cannot have; what it refused, it has a newer one of.
    """
    lost = [d for d in found if (d.kind, d.place) == ("missing_at", "carried") and BY_NAME[d.topic].forgets]
    compacted = _compacted(tx) if lost else {}
    superseded = {d for d in lost if (d.topic, d.event_id) in compacted} | _outdone(tx, found)
    unread = {
        d for d in found if (d.kind, d.place, d.reason) == ("missing_at", "acknowledged", "")
        and not compacted.get((d.topic, d.event_id), True)
    }  # fmt: skip
    expired = {d for d in lost if d not in superseded and _before_start(tx, d, starts)}
    excused = superseded | unread | expired
    return [d for d in found if d not in excused], len(superseded), len(unread), len(expired)


def _outdone(tx: sa.Connection, found: list[Difference]) -> set[Difference]:
    """Rollups that the province refused, of whose scope it has acknowledged a higher revision: they would change
    nothing there.
    """
    refused = {
        uuid.UUID(d.event_id): d for d in found
        if (d.topic, d.kind, d.place) == (ROLLUP.name, "missing_at", "acknowledged") and d.reason
    }  # fmt: skip
    query = sa.text("""
      SELECT event_id, key, value FROM outbox o WHERE topic = :topic
      AND key IN (SELECT key FROM outbox WHERE topic = :topic AND event_id = ANY(:ids))
      AND (event_id = ANY(:ids) OR EXISTS (SELECT FROM rc_acknowledged k
                                           WHERE (k.event_id, k.digest) = (o.event_id, o.digest)))""")
    rows = tx.execute(query, {"topic": ROLLUP.name, "ids": list(refused)}).all() if refused else []
    revisions = {i: (scope, codec.decode(value, ROLLUP)["revision"]) for i, scope, value in rows}
    newest = dict(sorted(said for i, said in revisions.items() if i not in refused))
    mine = ((d, *revisions[i]) for i, d in refused.items())
    return {d for d, scope, revision in mine if newest.get(scope, revision) > revision}


def _compacted(tx: sa.Connection) -> dict[tuple[str, str], bool]:
    """What is not carried because a newer record of its key is, by topic and event id, and whether it waits for the
    province.
    """
    query = sa.text("""
      WITH sent AS (
        SELECT o.topic, o.key, o.sent_partition, o.sent_offset, o.event_id, c.event_id IS NOT NULL AS carried
        FROM outbox o LEFT JOIN rc_once c USING (topic, event_id, digest)
        WHERE o.topic = ANY(:compacted) AND o.sent_offset IS NOT NULL),
      newest AS (
        SELECT topic, key, sent_partition, max(sent_offset) AS sent_offset FROM sent WHERE carried GROUP BY 1, 2, 3)
      SELECT topic, s.event_id, EXISTS (SELECT FROM push_queue q WHERE q.event_id = s.event_id) AS queued
      FROM sent s JOIN newest n USING (topic, key, sent_partition)
      WHERE NOT carried AND s.sent_offset < n.sent_offset""")
    rows = tx.execute(query, {"compacted": [t.name for t in TOPICS if t.compacted]})
    return {(topic, str(event_id)): queued for topic, event_id, queued in rows}


def _before_start(tx: sa.Connection, lost: Difference, starts: Mapping[TopicPartition, int]) -> bool:
    out = tables.outbox.c
    query = sa.select(out.sent_partition, out.sent_offset).where(
        out.topic == lost.topic, out.event_id == uuid.UUID(lost.event_id), out.sent_offset.is_not(None)
    )
    row = tx.execute(query).one_or_none()
    return row is not None and row.sent_offset < starts.get(TopicPartition(lost.topic, row.sent_partition), 0)


# --- totals -------------------------------------------------------------------------------------------------


def _totals(tx: sa.Connection, province: bool) -> dict[str, dict[str, int]]:
    """Distinct records of each topic at each place."""
    counted = {
        "published": "SELECT topic, count(*) FROM rc_published GROUP BY 1",
        "carried": "SELECT topic, count(*) FROM rc_once GROUP BY 1",
        "applied": "SELECT topic, count(*) FROM rc_applied GROUP BY 1",
        "dead": "SELECT topic, count(*) FROM dead_letter GROUP BY 1",
    }
    if province:
        told = (
            "SELECT about FROM rc_carried u JOIN rc_acknowledged k USING (event_id) "
            f"WHERE u.topic = '{UPLOAD.name}'"
        )
        counted["acknowledged"] = f"""
          SELECT topic, count(*) FROM rc_acknowledged GROUP BY 1
          UNION ALL SELECT '{RATING.name}', count(*) FROM rating_event WHERE event_id IN ({told})"""
    totals: dict[str, dict[str, int]] = {t.name: {} for t in TOPICS}
    for place, query in counted.items():
        for topic, n in tx.exec_driver_sql(query):
            totals.setdefault(topic, {})[place] = n
    return totals


def _hashes(tx: sa.Connection, province: bool) -> dict[str, dict[str, str]]:
    """Multiset hash (64 hex digits) of each topic at each place."""
    relations = {"published": "rc_published", "carried": "rc_once", "applied": "rc_applied"}
    if province:
        relations["acknowledged"] = "rc_acknowledged"
    hashes: dict[str, dict[str, str]] = {}
    for place, relation in relations.items():
        for row in tx.exec_driver_sql(_summed(relation, "topic", "1")).mappings():
            total = sum(int(row[f"l{i}"]) << (32 * (7 - i)) for i in range(8)) % 2**256
            hashes.setdefault(row["topic"], {})[place] = f"{total:064x}"
    return hashes
