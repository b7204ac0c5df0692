"""Read outbound topics and make their effect once: effect and cursor move in one transaction.

Decides nothing about a record. Kafka's group protocol is not used: every instance reads every partition and
the row lock of the cursor (consumer, topic, partition) decides who makes the effect, so a second instance is
a hot standby and a zombie can only find its records already done.
"""

from __future__ import annotations

import random
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import sqlalchemy as sa
import structlog
from kafka import KafkaConsumer, TopicPartition
from kafka.errors import (
    AuthorizationError,
    CorruptRecordError,
    KafkaError,
    LogTruncationError,
    OffsetOutOfRangeError,
)
from kafka.record import memory_records
from kafka.record.default_records import DefaultRecord
from sqlalchemy.dialects.postgresql import insert

from schemas import access
from schemas.errors import Rejected, Retryable
from schemas.topics import BY_NAME, Topic
from streams.store import failpoints, failure, inflight, quarantine, records, unfit
from streams.store.applier import ADVANCE
from streams.store.engine import is_transient, why
from streams.store.projection import Carried, Event, Refused
from streams.store.steps import bury, decode_rows
from streams.store.tables import cursor

log = structlog.get_logger(__name__)
T = TypeVar("T")
Place = tuple[str, int]
POLL_MS = 200
MAX_RECORDS, MANY_BYTES = 5_000, 256 * 1024
METADATA_MS = 5_000
"""How often a reader asks who leads the partitions. Where a leader has moved and lives, kafka-python asks the old one
for the end of the log again and again, as fast as it answers, until this age makes it ask who leads: five minutes by
default (docs/decisions/0019).
"""
BOOTSTRAP_MS = 3_000
"""How long a broker may be silent before we say that we wait for it."""
FIRST_WAIT_S, LONGEST_WAIT_S = 0.1, 5.0
ALONE_S = 3.0
"""How long no broker may be connected before that is said, or Kafka asked whether it still lets us in."""
REST_S, LONGEST_REST_S = 1.0, 30.0
"""How long a partition whose next batch is damaged is left alone before it is read again, at first and at most."""
DAMAGED = re.compile(r"TopicPartition\(topic='([^']+)', partition=(\d+)\)")
"""Where a damaged batch lies, in the words of kafka-python's error, which tells it in no other way."""
LOG, ACCESS = "the log to be mended", "Kafka to allow it"
MENDS: Mapping[type[KafkaError], tuple[str, str]] = {
    OffsetOutOfRangeError: (LOG, "govbus resend"),
    LogTruncationError: (LOG, "govbus resend"),
    CorruptRecordError: (LOG, "docs/operate.md, damaged log"),
    AuthorizationError: (ACCESS, "docs/operate.md, access lists"),
}
"""What a consumer waits for, and what an operator does about it; until then it skips nothing."""


class Effect(Protocol):
    """What a consumer does with events. ``apply`` runs inside the loop's transaction and never commits.

    ``patience_ms`` is how long an event may wait at the broker for others to share its transaction, 0 if at most
    until the last one is done.
    """

    name: str
    topics: tuple[Topic, ...]
    patience_ms: int

    def apply(self, tx: sa.Connection, events: Sequence[Event]) -> None:
        """Make the effect of ``events``, which are in log order within each partition."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """Consecutive records of one partition, and the offset from which they were asked for."""

    start: int
    carried: Sequence[Carried]

    @property
    def end(self) -> int:
        """The offset after the last record."""
        return self.carried[-1].offset + 1


class Batch(memory_records.DefaultRecordBatch):  # type: ignore[misc]
    """kafka-python's batch; it calls one damaged in which a header's name is not UTF-8."""

    _pos: int

    def _read_msg(self) -> DefaultRecord:
        try:
            return super()._read_msg()
        except UnicodeDecodeError:
            one = records.parse(self._buffer, self._pos)
        self._pos = one.end
        appended = self.timestamp_type == self.LOG_APPEND_TIME
        time = self.max_timestamp if appended else self.first_timestamp + one.timestamp
        place = (one.size, self.base_offset + one.offset, time, self.timestamp_type)
        return DefaultRecord(*place, one.key, one.value, list(one.headers))


def reader(bootstrap: str, patience_ms: int = 0) -> KafkaConsumer:
    """A consumer without a group that never invents a position. It hears of a record at once, or of all that came
    within ``patience_ms``. A header's name that is not UTF-8 is no damage to it.

    Raises ``Denied`` if Kafka does not let us in, ``KafkaError`` or ``Retryable`` if it does not answer.
    """
    memory_records.DefaultRecordBatch = Batch  # there is no other place for it
    try:
        return KafkaConsumer(
            bootstrap_servers=bootstrap.split(","),
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="none",
            allow_auto_create_topics=False,
            fetch_max_wait_ms=patience_ms or 100,
            fetch_min_bytes=MANY_BYTES if patience_ms else 1,
            max_partition_fetch_bytes=4 * 1024 * 1024,
            reconnect_backoff_max_ms=1_000,
            metadata_max_age_ms=METADATA_MS,
            bootstrap_timeout_ms=BOOTSTRAP_MS,
            metrics_enabled=False,
            **access.current().kafka_python(),
        )
    except KafkaError as error:
        if guess := access.ask(bootstrap):
            raise Retryable(str(guess)) from error
        raise


def connected(consumer: KafkaConsumer) -> bool:
    """Whether any broker is connected; where none is, polling brings nothing, and kafka-python says no word."""
    return any(c.connected for c in list(consumer._manager._conns.values()))


def partitions(consumer: KafkaConsumer, topics: Sequence[Topic]) -> list[TopicPartition]:
    """All partitions of ``topics``; raises ``Retryable`` while a topic is not there yet."""
    found: list[TopicPartition] = []
    for topic in topics:
        numbers = consumer.partitions_for_topic(topic.name)
        if not numbers:
            raise Retryable(f"topic {topic.name} is not on the broker yet: govbus topics apply")
        found += [TopicPartition(topic.name, n) for n in sorted(numbers)]
    return found


def carried(message: Any) -> Carried:
    """A kafka-python record as the store's word for it."""
    return Carried(
        BY_NAME[message.topic], message.partition, message.offset, message.key, message.value or b"",
        tuple((k, v or b"") for k, v in message.headers or ()),
    )  # fmt: skip


def passes(error: BaseException) -> bool:
    """Whether waiting helps: our own ``Retryable``, a broker or database that is away or busy. A Kafka that no longer
    lets us in may do so again; a process that starts asks it first (``access.ask``).
    """
    if isinstance(error, Retryable | access.Denied):
        return True
    if isinstance(error, KafkaError):
        away = bool(getattr(error, "retriable", False)) or "NoBrokers" in type(error).__name__
        return away or _mend(error) is not None
    return is_transient(error)


def _mend(error: BaseException) -> tuple[str, str] | None:
    return next((mend for kind, mend in MENDS.items() if isinstance(error, kind)), None)


def reason(error: Exception) -> str:
    """Why we wait, for a line of the log: our own words, or what is known of what a driver raised."""
    told = isinstance(error, Retryable | access.Denied)
    return str(error).splitlines()[0].removeprefix("- ") if told else why(error)


def _nobodys(error: Exception) -> bool:
    """Whether no single event is at fault, so that another one would meet the same."""
    return passes(error) or unfit.is_nobodys(error)


_LOCKED = sa.text(
    "SELECT topic, partition, next_offset FROM cursor WHERE processor = :processor AND (topic, partition) IN "
    "(SELECT * FROM unnest(CAST(:topics AS text[]), CAST(:partitions AS integer[]))) "
    "ORDER BY topic, partition FOR UPDATE"
)


@dataclass
class Loop:
    """One consumer: ``run`` until told to stop; what waiting cannot mend leaves ``run``."""

    engine: sa.Engine
    bootstrap: str
    effect: Effect
    pause: Callable[[float], None] | None = None
    _at: dict[Place, int] = field(default_factory=dict)
    _resting: dict[Place, tuple[float, float]] = field(default_factory=dict)
    """Partitions left alone: until when (monotonic seconds), and for how long."""

    def run(self, stop: threading.Event) -> None:
        """Consume until ``stop``; opens the broker connection anew when it is lost."""
        wait = FIRST_WAIT_S
        while not stop.is_set():
            consumer = self._patiently(stop, f"Kafka at {self.bootstrap}", self._open)
            if consumer is None:
                return
            try:
                self._consume(consumer, stop)
            except Exception as error:
                if not passes(error):
                    raise
                wait = min(LONGEST_WAIT_S, wait * 2) if self._told(error) else FIRST_WAIT_S
                stop.wait(wait)
            finally:
                consumer.close(autocommit=False)

    def _told(self, error: BaseException) -> bool:
        """Say why the connection is opened anew; True if that alone will not help."""
        names, known = {"consumer": self.effect.name, "error": type(error).__name__}, _mend(error)
        if known:  # these errors name topic, partition and offset
            log.error("consumer.waits", waits_for=known[0], why=str(error), mend=known[1], **names)
        else:
            log.warning("consumer.reconnects", **names)
        damaged = DAMAGED.search(str(error)) if isinstance(error, CorruptRecordError) else None
        if damaged:
            self._rest((damaged[1], int(damaged[2])))
        return known is not None and not damaged

    def _rest(self, place: Place) -> None:
        """Leave ``place`` alone for a while, twice as long each time; the others go on."""
        seconds = min(LONGEST_REST_S, self._resting.get(place, (0.0, REST_S / 2))[1] * 2)
        self._resting[place] = (time.monotonic() + seconds, seconds)

    def _wake(self, consumer: KafkaConsumer) -> None:
        """Read the partitions again that have rested long enough."""
        for place, (until, _) in self._resting.items():
            if time.monotonic() >= until and TopicPartition(*place) in consumer.paused():
                consumer.resume(TopicPartition(*place))

    @property
    def _database(self) -> str:
        return f"PostgreSQL at {self.engine.url.host}:{self.engine.url.port}"

    def _consume(self, consumer: KafkaConsumer, stop: threading.Event) -> None:
        """Poll, commit, go on; the position always follows the SQL cursor."""
        alone: float | None = None
        while not stop.is_set():
            self._wake(consumer)
            chunks = self._poll(consumer)
            if not chunks:
                alone = self._alone(consumer, alone)
                continue
            failpoints.reach("consume.after_poll")
            rewinds = self._patiently(stop, self._database, lambda c=chunks: self.commit(c))  # type: ignore[misc]
            for place, offset in (rewinds or {}).items():
                log.info(
                    "consumer.rewinds",
                    consumer=self.effect.name,
                    topic=place[0],
                    partition=place[1],
                    to=offset,
                )
                consumer.seek(TopicPartition(*place), offset)
                self._at[place] = offset

    def _alone(self, consumer: KafkaConsumer, since: float | None) -> float | None:
        """Since when (monotonic) no broker is connected; raises ``Denied`` if none lets us in any more."""
        if not access.current().guarded or connected(consumer):
            return None
        now = time.monotonic()
        if since is not None and now - since > ALONE_S:
            access.ask(self.bootstrap)
            return now
        return since or now

    def _open(self) -> KafkaConsumer:
        """A consumer assigned to every partition and standing where the cursors stand."""
        consumer = reader(self.bootstrap, self.effect.patience_ms)
        try:
            places = partitions(consumer, self.effect.topics)
            consumer.assign(places)
            starts = {(p.topic, p.partition): o for p, o in consumer.beginning_offsets(places).items()}
            with self.engine.begin() as tx:
                cursors = self._lock(tx, sorted(starts), starts)
            self._at = dict(cursors)
            for place in places:
                consumer.seek(place, cursors[place.topic, place.partition])
            for resting in self._resting:
                consumer.pause(TopicPartition(*resting))
        except BaseException:
            consumer.close(autocommit=False)
            raise
        log.info("consumer.ready", consumer=self.effect.name, partitions=len(places))
        return consumer

    def _poll(self, consumer: KafkaConsumer) -> dict[Place, Chunk]:
        """What one poll brought, as chunks that know where they were asked for."""
        chunks: dict[Place, Chunk] = {}
        for tp, messages in consumer.poll(timeout_ms=POLL_MS, max_records=MAX_RECORDS).items():
            place = (tp.topic, tp.partition)
            chunks[place] = Chunk(self._at[place], [carried(m) for m in messages])
            self._at[place] = chunks[place].end
            self._resting.pop(place, None)
        return chunks

    def commit(self, chunks: Mapping[Place, Chunk]) -> dict[Place, int]:
        """Effect of ``chunks`` and advance of their cursors, one transaction; returns where to seek back.

        Where the effect fails at an event, the transaction is made again with each event apart: a savepoint every time
        would be two more round trips on the way of every alert.
        """
        if inflight.suspects():
            for chunk in chunks.values():
                quarantine.prove(chunk.carried)
        try:
            live, rewinds = self._commit(chunks, self.effect.apply)
        except Exception as error:
            if _nobodys(error):
                raise
            count = sum(len(chunk.carried) for chunk in chunks.values())
            log.warning("an effect failed; trying its events alone", consumer=self.effect.name, events=count,
                        where=failure.place(error))  # fmt: skip
            live, rewinds = self._commit(chunks, self._apart)
        failpoints.reach("consume.after_commit")
        if inflight.suspects():
            inflight.settle({place: chunk.end for place, chunk in live.items()})
            quarantine.dismiss()
        return rewinds

    def _commit(
        self, chunks: Mapping[Place, Chunk], apply: Callable[[sa.Connection, Sequence[Event]], None]
    ) -> tuple[dict[Place, Chunk], dict[Place, int]]:
        """What was behind no cursor, and where to seek back."""
        with self.engine.begin() as tx:
            cursors = self._lock(tx, sorted(chunks))
            failpoints.reach("consume.after_lock")
            rewinds = {p: cursors[p] for p, c in chunks.items() if cursors[p] < c.start}
            live = {p: c for p, c in chunks.items() if p not in rewinds and c.end > cursors[p]}
            fresh = [r for p in sorted(live) for r in live[p].carried if r.offset >= cursors[p]]
            events, refused = decode_rows(fresh)
            bury(tx, refused)
            apply(tx, events)
            failpoints.reach("consume.after_effect")
            self._advance(tx, live, events)
            failpoints.reach("consume.after_cursor")
        return live, rewinds

    def _apart(self, tx: sa.Connection, events: Sequence[Event]) -> None:
        """The effect of each event alone, or its burial: each before the next, for dead letters are counted."""
        for event in events:
            bury(tx, self._refused(tx, event))

    def _refused(self, tx: sa.Connection, event: Event) -> list[Refused]:
        """Nothing once ``event`` has had its effect; else the event, and why it cannot have one."""
        try:
            with tx.begin_nested():
                self.effect.apply(tx, [event])
        except Rejected as error:
            return [Refused(event.carried, error.faults[0], event)]
        except Exception as error:
            if _nobodys(error):
                raise
            return [Refused(event.carried, unfit.fault(tx, self.effect.name, event.carried, error), event)]
        return []

    def _lock(
        self, tx: sa.Connection, places: Sequence[Place], starts: Mapping[Place, int] | None = None
    ) -> dict[Place, int]:
        """Lock the cursors of ``places`` in order, made at ``starts`` where new; their next offsets."""
        name, at = self.effect.name, starts or {}
        rows = [
            {"processor": name, "topic": p[0], "partition": p[1], "next_offset": at.get(p, 0)} for p in sorted(places)
        ]
        asked = {"processor": name, "topics": [r["topic"] for r in rows], "partitions": [r["partition"] for r in rows]}
        found = {(t, n): o for t, n, o in tx.execute(_LOCKED, asked)}
        if len(found) < len(rows):
            tx.execute(insert(cursor).on_conflict_do_nothing(), rows)
            found = {(t, n): o for t, n, o in tx.execute(_LOCKED, asked)}
        return found

    def _advance(self, tx: sa.Connection, live: Mapping[Place, Chunk], events: Sequence[Event]) -> None:
        """Move the cursors of ``live`` behind their last records, and their watermarks up."""
        if not live:
            return
        seen: dict[Place, int] = dict.fromkeys(live, 0)
        for e in events:
            place = (e.carried.topic.name, e.carried.partition)
            seen[place] = max(seen[place], int(e.record["received_at"]))
        moved = [
            {"processor": self.effect.name, "topic": place[0], "partition": place[1], "next_offset": chunk.end,
             "watermark": seen[place]}
            for place, chunk in live.items()
        ]  # fmt: skip
        tx.execute(ADVANCE, moved)

    def _patiently(self, stop: threading.Event, what: str, act: Callable[[], T]) -> T | None:
        """``act`` until it succeeds, waiting longer after each passing failure; None if told to stop."""
        wait = FIRST_WAIT_S
        while not stop.is_set():
            try:
                return act()
            except Exception as error:
                if not passes(error):
                    raise
                log.warning(
                    "consumer.waits",
                    consumer=self.effect.name,
                    waits_for=what,
                    why=reason(error),
                    seconds=round(wait, 1),
                )
            (self.pause or stop.wait)(wait * random.uniform(0.5, 1.0))
            wait = min(LONGEST_WAIT_S, wait * 2)
        return None
