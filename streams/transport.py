"""Faust's Kafka transport, in chunks: a chunk is the consecutive records of one partition, a message all chunks of a
topic that one fetch brought: a message has its price in Faust, however much it carries.

Decides where reading starts (the SQL cursors) and what position each chunk was read from. It decides
nothing about records, and Kafka's committed offsets are only a mirror of the cursors, for lag tools.

How a lost chunk is noticed: ``since`` of a chunk is where the previous fetch of its partition ended,
counted when records leave the fetcher, not when they are handed on. If Faust drops a chunk on the way
(rebalance, stopped flow), the next one starts above the cursor and the applier asks to seek back.

Seeking and fetching never overlap: a wish to seek is noted and carried out before the next fetch, in the
one coroutine that fetches. Records of a fetch during which the wish came up may be dropped: the seek reads
them again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import structlog
from aiokafka.consumer import fetcher
from aiokafka.errors import KafkaError
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.structs import OffsetAndMetadata, TopicPartition
from faust.transport.drivers import aiokafka as driver
from faust.types import TP, ConsumerMessage
from mode import Service

from streams import batches
from streams.fault import die
from streams.store import failpoints, inflight
from streams.store.lot import Columns, gathered, offset_at, size

BUSY, QUIET = (10, 64 * 1024), (200, 1)
"""How long (ms) the broker may gather before it answers a fetch, and how many bytes are enough: after a fetch that
brought something, and after one that did not. An answer costs over a millisecond here, whether it brings one record or
a thousand: one for each record would starve the thread that applies them, and a hundred empty ones a second kept a
fifth of a core busy on either side. While all is quiet, the first record is answered at once."""
SATURATED_PAUSE_S = 0.005
ASK_AGAIN_S = 2.0  # a chunk that was read again must have been applied by then
REST_S, LONGEST_REST_S = 1.0, 30.0
"""How long a partition whose next batch is damaged is left alone before it is read again, at first and at most."""
log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Chunk:
    """Consecutive records of one partition; ``since`` is the position they were read from. Up to ``passed`` the log
    holds no other (0: nobody knows); there may be no record at all.
    """

    topic: str
    partition: int
    since: int
    records: Sequence[Any]
    passed: int = 0

    @property
    def end(self) -> int:
        """Where reading goes on: after the last record, and after what holds none."""
        return max(self.passed, offset_at(self.records, -1) + 1 if len(self.records) else self.since)

    @property
    def size(self) -> int:
        """Bytes of the values."""
        return size(self.records)


@dataclass(frozen=True, slots=True)
class Passed:
    """Behind the records, or in place of them: from there up to ``offset`` the log holds none. A marker ends every
    transaction of a producer, and compaction leaves empty batches.
    """

    offset: int


@dataclass(frozen=True, slots=True)
class Damaged:
    """In place of records: the batch from ``offset`` on is not what was written."""

    offset: int


@dataclass(slots=True)
class Rest:
    """A partition left alone for ``seconds``, ``until`` (monotonic): its batch at ``offset`` is damaged."""

    offset: int
    seconds: float
    until: float


class Intake(Protocol):
    """What the transport asks of whoever applies the chunks."""

    def cursors(self) -> Mapping[tuple[str, int], int]:
        """``next_offset`` by (topic, partition), read from SQL; may block; raises ``Retryable``."""

    def saturated(self, topic: str) -> bool:
        """True while no more chunks of ``topic`` should be fetched."""

    def committed(self) -> Mapping[tuple[str, int], int]:
        """``next_offset`` by (topic, partition) as far as this worker knows; does not block."""


class Batches:
    """What a fetch brought of one partition, batch by batch, each with its bytes; in place of aiokafka's class."""

    def __init__(self, fetched: bytes) -> None:
        self._fetched = fetched
        self._parsed = MemoryRecords(fetched)
        self._at = 0
        self.has_next = self._parsed.has_next
        self.size_in_bytes = self._parsed.size_in_bytes

    def next_batch(self) -> tuple[bytes, Any]:
        """The bytes of the next batch, and aiokafka's view of it."""
        start, self._at = self._at, self._at + batches.size(self._fetched, self._at)
        return self._fetched[start : self._at], self._parsed.next_batch()


class ChunkRecords(fetcher.PartitionRecords):  # type: ignore[misc]
    """Yields what was fetched in one piece, by column where that can be: a ``ConsumerRecord`` for each record costs
    more than all that is done with it afterwards. Transactions are not read as such (DESIGN §2.8).
    """

    next_fetch_offset: int

    def _unpack_records(self) -> Iterator[Sequence[Any] | Passed | Damaged]:
        sound, damaged = self._sound()
        wanted = [(raw, batch) for raw, batch in sound if not batch.is_control_batch]
        read = self.next_fetch_offset
        if wanted and (records := self._records_of(wanted)):
            read = offset_at(records, -1) + 1
            yield records
        if sound:
            self.next_fetch_offset = sound[-1][1].next_offset
        if self.next_fetch_offset > read:
            yield Passed(self.next_fetch_offset)
        if damaged:  # no error: it would take what was read of other partitions with it
            yield Damaged(self.next_fetch_offset)

    def _sound(self) -> tuple[list[tuple[bytes, Any]], bool]:
        """The batches up to one that is damaged, and whether there is one."""
        sound: list[tuple[bytes, Any]] = []
        while self._records.has_next():
            raw, batch = self._records.next_batch()
            intact = batches.intact(raw) if self._check_crcs else True
            if not (batch.validate_crc() if intact is None else intact):
                return sound, True
            sound.append((raw, batch))
        return sound, False

    def _records_of(self, fetched: Sequence[tuple[bytes, Any]]) -> Sequence[Any]:
        """The records from the position on: a fetch may begin in the middle of a batch."""
        try:
            found = self._parsed(fetched)
        except UnicodeDecodeError:  # a header's name, which may be any bytes; nothing else is text there
            found = [record for raw, _ in fetched for record in batches.one_by_one(raw)]
        if isinstance(found, Columns):
            return found.since(self.next_fetch_offset)
        return [r for r in found if r.offset >= self.next_fetch_offset]

    def _parsed(self, fetched: Sequence[tuple[bytes, Any]]) -> Sequence[Any]:
        """The records as aiokafka reads them, by column where that can be."""
        each = [
            iter(batch) for _, batch in fetched
        ]  # aiokafka opens a batch where its iteration begins, and only there
        first = next(each[0], None)
        names = [name for name, _ in first.headers] if first else []
        if (columns := self._by_column(fetched, names)) is not None:
            return columns
        rest = (record for batch in each for record in iter(partial(next, batch, None), None))
        return [*([first] if first else []), *rest]

    def _by_column(self, fetched: Sequence[tuple[bytes, Any]], names: Sequence[str]) -> Columns | None:
        """The records by column, if they can be read so; those under suspicion are not."""
        ranges = {self._tp.partition: (batches.Head.of(fetched[0][0]).base, fetched[-1][1].next_offset - 1)}
        if inflight.careful() and inflight.suspected(self._tp.topic, ranges):
            return None
        with inflight.decoding(self._tp.topic, ranges):
            return batches.read([raw for raw, _ in fetched], names)


class ChunkThread(driver.AIOKafkaConsumerThread):  # type: ignore[misc]
    """The thread that owns the aiokafka consumer; polls often enough that no partition waits for a quiet
    one.
    """

    def _create_worker_consumer(self, transport: Any) -> Any:
        fetcher.PartitionRecords, fetcher.MemoryRecords = ChunkRecords, Batches  # there is no other place for it
        consumer = super()._create_worker_consumer(transport)
        consumer._fetch_max_wait_ms, consumer._fetch_min_bytes = QUIET
        return consumer

    async def _fetch_records(self, consumer: Any, *args: Any, **kwargs: Any) -> Mapping[Any, Any]:
        """What was fetched; nothing if that failed: positions stand, and the next attempt reads the same."""
        try:
            fetched: Mapping[Any, Any] = await super()._fetch_records(consumer, *args, **kwargs)
        except KafkaError as error:
            log.warning("a fetch failed; trying again", why=type(error).__name__)
            await asyncio.sleep(REST_S)
            return {}
        consumer._fetcher._fetch_max_wait_ms, consumer._fetcher._fetch_min_bytes = BUSY if fetched else QUIET
        return fetched

    async def keep_member(self) -> None:
        """Join the group again if aiokafka's coordinator failed: it stands still, without a heartbeat, until someone
        has asked it for the error, and Faust does not ask. Raises that error if one of its tasks has ended for good.
        """
        consumer = self._ensure_consumer()
        coordinator = consumer._coordinator
        try:
            coordinator.check_errors()
        except KafkaError as error:
            if coordinator._coordination_task.done():
                raise
            log.warning("membership failed; joining the group again", why=type(error).__name__)
            coordinator.request_rejoin()
        if consumer._fetcher.error_future.done():
            consumer._fetcher.error_future.result()

    async def _commit(self, offsets: Mapping[TP, int]) -> bool:
        """Mirror ``offsets`` if the broker takes them; if not, the next time will do, for truth is in SQL."""
        assigned = self.assignment()
        here = {TopicPartition(*tp): OffsetAndMetadata(o, "") for tp, o in offsets.items() if tp in assigned}
        if not here:
            return False
        try:
            await self._ensure_consumer().commit(here)
            failpoints.reach("worker.after_mirror")
        except (TimeoutError, KafkaError):
            return False
        return True


class ChunkConsumer(driver.Consumer):  # type: ignore[misc]
    """A Faust consumer that yields chunks and starts at the SQL cursors."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._since: dict[TP, int] = {}
        self._wanted: dict[TP, int] = {}
        self._asked: dict[TP, tuple[int, float]] = {}
        self._resting: dict[TP, Rest] = {}

    @property
    def damaged(self) -> frozenset[TP]:
        """The partitions whose next batch is damaged: they wait, and nothing else can help them."""
        return frozenset(self._resting)

    @property
    def intake(self) -> Intake:
        """Where the chunks go; the application factory put it on the app."""
        intake: Intake = self.app.intake
        return intake

    def _new_consumer_thread(self) -> ChunkThread:
        return ChunkThread(self, loop=self.loop, beacon=self.beacon)

    async def _getmany(self, active_partitions: set[TP] | None, timeout: float) -> Mapping[TP, Any]:
        """Fetch from the partitions whose processor can take more; turns records into chunks."""
        if not await self._seek_as_wanted():
            await asyncio.sleep(SATURATED_PAUSE_S)
            return {}
        topics = {tp.topic for tp in active_partitions or ()}
        full = {topic for topic in topics if self.intake.saturated(topic)}
        open_ = {tp for tp in active_partitions or () if tp.topic not in full and not self._rests(tp)}
        if not open_:
            await asyncio.sleep(SATURATED_PAUSE_S)
            return {}
        records = await super()._getmany(open_, SATURATED_PAUSE_S if full else timeout)
        found = {tp: self._undamaged(tp, parts) for tp, parts in records.items()}
        kept = {tp: parts for tp, parts in found.items() if parts and tp not in self._wanted}
        if kept:
            failpoints.reach("worker.after_fetch")
        return {tp: self._chunk(tp, parts) for tp, parts in kept.items()}

    @Service.task  # type: ignore[untyped-decorator]
    async def _keep_member(self) -> None:
        """Be in the group again whenever that failed; ends the process if that cannot be."""
        while not self.should_stop:
            await self.sleep(REST_S)
            try:
                await self._thread.call_thread(self._thread.keep_member)
            except KafkaError as error:  # Faust would log it and stand still
                die("transport", error)

    def _rests(self, tp: TP) -> bool:
        rest = self._resting.get(tp)
        return rest is not None and time.monotonic() < rest.until

    def _undamaged(self, tp: TP, parts: Sequence[Any]) -> list[Any]:
        """What was read; a damaged batch behind it lets the partition rest, longer each time, and is said."""
        if not parts or not isinstance(parts[-1], Damaged):
            if parts:
                self._resting.pop(tp, None)
            return list(parts)
        offset, before = parts[-1].offset, self._resting.get(tp)
        again = before is not None and before.offset == offset
        seconds = min(before.seconds * 2, LONGEST_REST_S) if before and again else REST_S
        self._resting[tp] = Rest(offset, seconds, time.monotonic() + seconds)
        log.error("damaged batch on the broker; this partition waits", topic=tp.topic, partition=tp.partition,
                  offset=offset, again_in_s=seconds, mend="docs/operate.md, damaged log")  # fmt: skip
        return list(parts[:-1])

    async def _seek_as_wanted(self) -> bool:
        """Carry out the noted seeks; False if one failed (a rebalance is under way): they are noted again."""
        if not self._wanted:
            return True
        wanted, self._wanted = self._wanted, {}
        assigned = self.assignment()
        here = {tp: offset for tp, offset in wanted.items() if tp in assigned}
        if not here:
            return True
        try:
            await self.seek_wait(here)
        except (KafkaError, TimeoutError):
            self._wanted = {**here, **self._wanted}
            return False
        for tp, offset in here.items():
            self._since[tp] = offset
            self._read_offset[tp] = None  # Faust drops in silence what lies below its own mark
        return True

    def _chunk(self, tp: TP, parts: Sequence[Any]) -> Chunk:
        passed = parts[-1].offset if isinstance(parts[-1], Passed) else 0
        records = gathered([part for part in parts if not isinstance(part, Passed)])
        first = offset_at(records, 0) if len(records) else passed
        chunk = Chunk(tp.topic, tp.partition, self._since.get(tp, first), records, passed)
        self._since[tp] = chunk.end
        return chunk

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[TP, ConsumerMessage]]:
        """Yield one message per topic, its value a list of chunks; what is dropped here is found missing by the
        applier.
        """
        generation = self.app.consumer_generation_id
        chunks, _ = await self._wait_next_records(timeout)
        by_topic: dict[str, list[Chunk]] = {}
        for chunk in (chunks or {}).values():
            by_topic.setdefault(chunk.topic, []).append(chunk)
        for together in by_topic.values():
            if self.should_stop or not self.flow_active or self.app.consumer_generation_id != generation:
                return
            message = self._message(together, generation)
            yield message.tp, message

    def _message(self, chunks: Sequence[Chunk], generation: int) -> ConsumerMessage:
        """For Faust this is a record of the first chunk's partition."""
        first = chunks[0]
        tp, last = TP(first.topic, first.partition), first.records[-1] if len(first.records) else None
        at, kind = (last.timestamp / 1000.0, last.timestamp_type) if last else (0.0, 0)
        return ConsumerMessage(
            tp.topic, tp.partition, first.end - 1, at, kind,
            [], b"", chunks, None, 0, 0, tp, generation_id=generation,
        )  # fmt: skip

    async def seek_to_committed(self) -> Mapping[TP, int]:
        """Seek every assigned partition to its SQL cursor, 0 if it has none."""
        cursors = await asyncio.get_running_loop().run_in_executor(None, self.intake.cursors)
        offsets = {tp: cursors.get((tp.topic, tp.partition), 0) for tp in self.assignment()}
        self._asked.clear()
        self._resting.clear()
        self._wanted.update(offsets)
        return offsets

    def reposition(self, offsets: Mapping[TP, int]) -> None:
        """Read on from ``offsets`` (the cursors). Chunks that were already on their way ask for the same seek
        again; while the cursor stands where it stood, the first one is enough.
        """
        now = time.monotonic()
        for tp, offset in offsets.items():
            before, at = self._asked.get(tp, (-1, 0.0))
            if before != offset or now - at > ASK_AGAIN_S:
                self._asked[tp] = (offset, now)
                self._wanted[tp] = offset

    async def end_offsets(self, tps: set[TP]) -> Mapping[TP, int]:
        """Offsets after the last record, asked of the broker now."""
        ends: Mapping[TP, int] = await self.highwaters(*tps)
        return ends

    async def commit(self, *_: Any, **__: Any) -> bool:
        """Mirror the cursors into the consumer group, so that lag tools tell the truth."""
        known = self.intake.committed()
        offsets = {tp: known[tp.topic, tp.partition] for tp in self.assignment() if tuple(tp) in known}
        return bool(offsets) and bool(await self._commit(offsets))

    async def verify_all_partitions_active(self) -> None:
        """Faust looks for idle partitions every few seconds, and dies of an assertion where one has no position because
        its log ends before the cursor or its broker is away. ``streams.app`` watches lag by the cursors instead.
        """

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        """Faust's own account of acknowledged offsets is not used."""


class Transport(driver.Transport):  # type: ignore[misc]
    """``govbus://host:port[;govbus://host:port]``."""

    Consumer = ChunkConsumer
