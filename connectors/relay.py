"""Carries the outbox to Kafka in the order of ``seq`` and records where each record landed.

One relay leads (a PostgreSQL session lock); others wait. A record is marked only after Kafka acknowledged it
with ``acks=all``; a crash in between sends it again, and readers know it by its event id. It must never
decide about content, and never send a later record of a key before an earlier one: the producer stops at the
first gap, and nothing is sent into a log that has lost what it had acknowledged (``connectors.intact``).
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
import structlog
from confluent_kafka import KafkaError, KafkaException, Producer

from connectors import intact
from schemas import access
from streams.store import bulk, failpoints
from streams.store.engine import is_transient, why
from streams.store.outbox import CHANNEL

BATCH_ROWS = 2_000
BATCH_BYTES = 16 * 1024 * 1024
POLL_SECONDS = 0.5
"""How long a wake-up that was lost goes unnoticed."""
SAY_EVERY_SECONDS = 5.0
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.1, 5.0
LOOK_SECONDS = 0.5
"""How soon to look again at a log that seems to have lost records; a new leader may not know its end at once."""
LEADER_LOCK = int.from_bytes(b"govrelay", "big")
log = structlog.get_logger(__name__)

_UNSENT = """
SELECT seq, topic, key, value, headers FROM (
  SELECT *, sum(octet_length(value)) OVER (ORDER BY seq) - octet_length(value) AS before FROM (
    SELECT seq, topic, key, value, headers FROM outbox WHERE sent_at IS NULL ORDER BY seq LIMIT %s) AS head)
    AS sized
WHERE before < %s ORDER BY seq"""
_MARK = """
UPDATE outbox SET sent_partition = v.landed, sent_offset = v.place,
                  sent_at = (extract(epoch FROM clock_timestamp()) * 1000)::bigint
FROM unnest(%s::bigint[], %s::integer[], %s::bigint[]) AS v (seq, landed, place) WHERE outbox.seq = v.seq"""

_MARKED = "SELECT EXISTS (SELECT FROM outbox WHERE topic = %s AND sent_partition = %s AND sent_offset >= %s)"


@dataclass(frozen=True, slots=True)
class Unsent:
    """A row of the outbox on its way; ``headers`` are name and text."""

    seq: int
    topic: str
    key: str
    value: bytes
    headers: Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Landed:
    """Where Kafka put the row ``seq``."""

    seq: int
    partition: int
    offset: int


class SendFailed(Exception):
    """Kafka refused a record; what was acknowledged before is in ``landed``, the rest must be sent again."""

    def __init__(self, why: str, landed: Sequence[Landed]) -> None:
        super().__init__(why)
        self.landed = landed


class WentBack(Exception):
    """Records landed where others had been: the log has lost these. Nothing of the batch is marked."""


class Stopped(Exception):
    """The relay was asked to stop while records were unacknowledged; they stay unsent in the outbox."""


class Sender:
    """An idempotent producer that awaits every result; of no use after ``SendFailed``."""

    def __init__(self, bootstrap: str) -> None:
        self._bootstrap = bootstrap
        self._complaint = "no answer yet"
        self._troubled = False
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap,
                **access.current().confluent(),
                "client.id": "govbus-relay",
                "enable.idempotence": True,
                "enable.gapless.guarantee": True,  # after a failed record nothing later is sent
                "acks": "all",
                "message.timeout.ms": 0,  # wait for Kafka for ever; the outbox keeps what waits
                "linger.ms": 0,
                "compression.type": "lz4",
                "partitioner": "murmur2_random",  # as the Java client does for keyed records
                "reconnect.backoff.max.ms": 1_000,
                "topic.metadata.refresh.interval.ms": 30_000,
                "allow.auto.create.topics": False,
                "error_cb": self._hear,
                "log_level": 3,
            },
            logger=_quiet_logger(),
        )

    def send(self, rows: Sequence[Unsent], stopping: Callable[[], bool]) -> list[Landed]:
        """Send ``rows`` in order and wait until Kafka has acknowledged each.

        Raises ``SendFailed`` if Kafka refuses one, ``Stopped`` if ``stopping()`` turns true while it waits.
        """
        landed: list[Landed] = []
        problems: list[str] = []
        asked = self._hand_over(rows, landed, problems)
        said = time.monotonic()
        while len(landed) + len(problems) < asked:
            self._poll(0.05, landed)
            if stopping():
                raise Stopped
            if time.monotonic() - said > SAY_EVERY_SECONDS:
                said = time.monotonic()
                waiting, why = asked - len(landed), self._complaint
                mend = {"mend": names} if (names := access.mend(why)) else {}
                log.warning("waiting for Kafka", kafka=self._bootstrap, records=waiting, why=why, **mend)
        if problems:
            raise SendFailed(problems[0], landed)
        return landed

    def troubled(self) -> bool:
        """Whether a connection was lost or refused since the last call: the log may not be what it was."""
        self._poll(0, [])
        troubled, self._troubled = self._troubled, False
        return troubled

    def close(self) -> None:
        """Give up what is not acknowledged; it stays unsent in the outbox."""
        with contextlib.suppress(KafkaException):  # a producer that met a gap says so once more
            self._producer.purge()
            self._producer.poll(0)

    def _hand_over(self, rows: Sequence[Unsent], landed: list[Landed], problems: list[str]) -> int:
        """Queue ``rows`` until one cannot be queued; returns how many results will come."""
        for number, row in enumerate(rows):
            try:
                self._producer.produce(
                    row.topic,
                    value=row.value,
                    key=row.key.encode(),
                    headers=[(name, text.encode()) for name, text in row.headers],
                    on_delivery=_recorder(row.seq, landed, problems),
                )
            except (KafkaException, BufferError) as error:
                problems.append(f"{row.topic}, outbox row {row.seq}: {error}")
                return number + 1
            if number % 500 == 499:
                self._poll(0, landed)
            if number == len(rows) // 2:
                failpoints.reach("relay.half_handed_over")
        return len(rows)

    def _poll(self, seconds: float, landed: Sequence[Landed]) -> None:
        """Take in results; the first gap ends this producer, and what it had not told is sent again."""
        try:
            self._producer.poll(seconds)
        except KafkaException as error:
            raise SendFailed(str(error.args[0].str()), landed) from error

    def _hear(self, error: Any) -> None:
        self._troubled = True
        if error.code() != KafkaError._ALL_BROKERS_DOWN:  # says no more than what came before it
            self._complaint = error.str()


def _quiet_logger() -> logging.Logger:
    """librdkafka's own words, for whoever asks for them; what matters the relay says itself."""
    quiet = logging.getLogger("connectors.relay.librdkafka")
    quiet.handlers = quiet.handlers or [logging.NullHandler()]
    return quiet


def _recorder(seq: int, landed: list[Landed], problems: list[str]) -> Callable[[Any, Any], None]:
    def record(error: Any, message: Any) -> None:
        if error is not None:
            problems.append(f"{message.topic()}, outbox row {seq}: {error.str()}")
        elif message.offset() is None:  # a batch that the broker had already, it says; where, it does not say
            problems.append(f"{message.topic()}, outbox row {seq}: acknowledged without a place")
        else:
            landed.append(Landed(seq, message.partition(), message.offset()))

    return record


class Relay:
    """The relay process. ``engine`` is the district's database, ``bootstrap`` Kafka's servers."""

    def __init__(self, engine: sa.Engine, bootstrap: str, batch_rows: int = BATCH_ROWS) -> None:
        self._engine = engine
        self._bootstrap = bootstrap
        self._batch_rows = batch_rows
        self._rows = batch_rows
        self._sender: Sender | None = None
        self._floors: dict[intact.Place, int] = {}
        self._went_back: dict[intact.Place, int] = {}
        """Where records landed below the floor, until ``govbus resend`` has unsent what had been there. The floor says
        nothing then: a consumer that went back may have read what landed, and stand above it again.
        """
        self.sent = 0
        """Records acknowledged and marked by this relay."""
        self.leads = threading.Event()
        """Set while this relay is the one that sends."""

    def run(self, stop: threading.Event) -> None:
        """Relay until ``stop`` is set. Waits out an absent database or broker and says what it waits for."""
        pause = FIRST_PAUSE_SECONDS
        try:
            while not stop.is_set():
                before = self.sent
                try:
                    self._serve(stop)
                except Stopped:
                    return
                except Exception as error:
                    self._explain(error)
                pause = FIRST_PAUSE_SECONDS if self.sent > before else min(pause * 2, LONGEST_PAUSE_SECONDS)
                stop.wait(pause)
        finally:
            self._drop_sender()

    def _explain(self, error: Exception) -> None:
        """Log what is waited for; whatever waiting cannot mend ends the process."""
        if isinstance(error, SendFailed):
            self._drop_sender()
            log.warning("waiting for Kafka to take a record it refused", kafka=self._bootstrap, why=str(error))
        elif isinstance(error, KafkaException):
            refused = access.refusal(self._bootstrap) if access.current().guarded else None
            log.warning("waiting for Kafka", kafka=self._bootstrap, why=str(refused or error.args[0].str()))
        elif isinstance(error, WentBack):
            log.error("records landed where others had been", kafka=self._bootstrap)
        elif is_transient(error):
            url = self._engine.url
            log.warning("waiting for PostgreSQL", database=f"{url.host}:{url.port}", why=why(error))
        else:
            raise error

    def _serve(self, stop: threading.Event) -> None:
        """Lead on one connection of our own until ``stop`` or an error; closing it gives up the lead."""
        with self._engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            raw = bulk.driver(connection)
            connection.detach()  # never back into the pool: the lock dies with it
            try:
                if _lead(raw, stop):
                    log.info("relay leads")
                    self.leads.set()
                    self._pump(raw, stop)
            except BaseException:
                raw.close()  # at once: the lock must not wait for the garbage collector
                connection.invalidate()  # it may be dead: nothing to roll back
                raise
            finally:
                self.leads.clear()

    def _pump(self, raw: Any, stop: threading.Event) -> None:
        # All that this connection writes are marks, and a mark that a crash of PostgreSQL loses only sends a
        # record again, which readers know by its id. So marks need not wait for the disk.
        raw.execute("SET synchronous_commit = off")
        raw.execute(f"LISTEN {CHANNEL}")
        self._await_intact(raw, stop)
        while not stop.is_set():
            if self._forward(raw, stop) == 0:
                for _ in raw.notifies(timeout=POLL_SECONDS, stop_after=1):
                    pass

    def _await_intact(self, raw: Any, stop: threading.Event) -> None:
        """Return once the log ends nowhere before what it is known to have held; says what is missing."""
        looks, said = 0, 0.0
        while not stop.is_set():
            self._floors = intact.floors(raw)
            self._went_back = {p: low for p, low in self._went_back.items() if self._marked(raw, p, low)}
            found = {**intact.ends(self._bootstrap, self._floors), **self._went_back}
            missing = intact.behind(self._floors, found)
            if not missing:
                return
            looks += 1
            if looks > 1 and time.monotonic() - said > SAY_EVERY_SECONDS:
                said = time.monotonic()
                log.error(
                    "the log has lost records that it had acknowledged; nothing is sent",
                    partitions=[f"{t}/{p}: ends at {end}, not {floor}" for (t, p), (end, floor) in missing.items()],
                    mend="govbus resend",
                )
            stop.wait(LOOK_SECONDS)

    def _marked(self, raw: Any, place: intact.Place, offset: int) -> bool:
        """Whether a row of the outbox is said to lie at ``offset`` or behind it."""
        return bool(raw.execute(_MARKED, (*place, offset)).fetchone()[0])

    def _forward(self, raw: Any, stop: threading.Event) -> int:
        """Send and mark one batch; returns its size."""
        if self._sender and self._sender.troubled():
            self._await_intact(raw, stop)
        found = raw.execute(_UNSENT, (self._rows, BATCH_BYTES), binary=True)
        rows = [Unsent(*row) for row in found.fetchall()]
        if not rows:
            return 0
        failpoints.reach("relay.after_read")
        self._sender = self._sender or Sender(self._bootstrap)
        try:
            landed: Sequence[Landed] = self._sender.send(rows, stop.is_set)
        except SendFailed as failure:
            self._rows = 1  # one by one, so that only the refused record itself waits
            self._refuse_below_floors(rows, failure.landed)
            self._mark(raw, failure.landed)
            raise
        self._rows = min(self._rows * 2, self._batch_rows)
        failpoints.reach("relay.after_send")
        self._refuse_below_floors(rows, landed)
        self._mark(raw, landed)
        failpoints.reach("relay.after_mark")
        return len(rows)

    def _mark(self, raw: Any, landed: Sequence[Landed]) -> None:
        if landed:
            columns = [[x.seq for x in landed], [x.partition for x in landed], [x.offset for x in landed]]
            raw.execute(_MARK, columns)
            self.sent += len(landed)

    def _refuse_below_floors(self, rows: Sequence[Unsent], landed: Sequence[Landed]) -> None:
        """Raise ``WentBack`` if something landed below its partition's floor; else move the floors up."""
        topics = {row.seq: row.topic for row in rows}
        for x in sorted(landed, key=lambda x: x.offset):
            place = (topics[x.seq], x.partition)
            if x.offset < self._floors.get(place, 0):
                self._went_back.setdefault(place, x.offset)
            else:
                self._floors[place] = x.offset + 1
        if self._went_back:
            raise WentBack

    def _drop_sender(self) -> None:
        if self._sender is not None:
            self._sender.close()
            self._sender = None


def _lead(raw: Any, stop: threading.Event) -> bool:
    """Wait for the leader's lock; False if ``stop`` came first."""
    told = False
    while not stop.is_set():
        if raw.execute("SELECT pg_try_advisory_lock(%s)", (LEADER_LOCK,)).fetchone()[0]:
            return True
        if not told:
            log.info("another relay leads; waiting to take over")
            told = True
        stop.wait(POLL_SECONDS)
    return False
