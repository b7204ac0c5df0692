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
from dataclasses import dataclass, replace
from typing import Any, Protocol

import structlog
from aiokafka.consumer import consumer as client
from aiokafka.consumer import fetcher
from aiokafka.errors import KafkaError
from aiokafka.structs import OffsetAndMetadata, TopicPartition
from faust.transport.drivers import aiokafka as driver
from faust.types import TP, ConsumerMessage
from mode import Service

from streams import batches
from streams.batches import Batch, Fetched
from streams.fault import die
from streams.store import failpoints
from streams.store.lot import gathered

LONGEST_WAIT_MS, LEAST_BYTES = 200, 1
"""How long a broker may wait for something to answer a fetch with, and how much is enough: the first record is answered
at once, and while all is quiet an empty answer comes five times a second."""
PAUSE_S, LONG_PAUSE_S, MUCH_BYTES = 0.01, 0.02, 64 * 1024
"""How long a broker is left alone after an answer that brought something, and after one that brought much: what is
asked for in between would not be applied any sooner (``PacedFetcher``)."""
SATURATED_PAUSE_S = 0.005
ASK_AGAIN_S = 2.0  # a chunk that was read again must have been applied by then
REST_S, LONGEST_REST_S = 1.0, 30.0
"""How long a partition whose next batch is damaged is left alone before it is read again, at first and at most."""
log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Chunk:
    """Consecutive records of one partition, read or (``Fetched``) to be read; ``since`` is the position they were read
    from. Up to ``passed`` the log holds no other (0: nobody knows); there may be no record at all.
    """

    topic: str
    partition: int
    since: int
    records: Sequence[Any] | Fetched
    passed: int = 0

    @property
    def end(self) -> int:
        """Where reading goes on: after the last record, and after what holds none."""
        if self.passed or isinstance(self.records, Fetched):
            return self.passed
        return self.records[-1].offset + 1 if self.records else self.since

    @property
    def size(self) -> int:
        """Bytes that wait here."""
        records = self.records
        return records.size if isinstance(records, Fetched) else sum(len(r.value or b"") for r in records)

    def cut(self, fetched: Fetched, opened: Sequence[Batch]) -> tuple[Chunk, Chunk]:
        """This chunk up to the end of ``opened``, the first batches of what was ``fetched``, and from there on."""
        end, behind = opened[-1].next_offset, fetched.batches[len(opened) :]
        first = replace(self, records=replace(fetched, batches=opened), passed=end)
        return first, replace(self, records=replace(fetched, batches=behind), since=end)


@dataclass(frozen=True, slots=True)
class Passed:
    """Behind the records, or in place of them: up to ``offset`` the log holds no other. A marker ends every transaction
    of a producer, and compaction leaves empty batches.
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
    """What a fetch brought of one partition, batch by batch; in place of aiokafka's class."""

    def __init__(self, fetched: bytes | None) -> None:
        self._fetched = fetched or b""
        self._at = 0

    def has_next(self) -> bool:
        """Whether another whole batch is there; a fetch may end in the middle of one."""
        return batches.whole(self._fetched, self._at)

    def next_batch(self) -> bytes:
        """The bytes of the next batch."""
        start, self._at = self._at, self._at + batches.size(self._fetched, self._at)
        return self._fetched[start : self._at]

    def size_in_bytes(self) -> int:
        """Bytes in all."""
        return len(self._fetched)


class ChunkRecords(fetcher.PartitionRecords):  # type: ignore[misc]
    """Yields what was fetched in one piece, unread: to read it is the work of whoever applies it. Transactions are not
    read as such (DESIGN §2.8).
    """

    next_fetch_offset: int

    def _unpack_records(self) -> Iterator[Fetched | Passed | Damaged]:
        sound, damaged = self._sound()
        if filled := [batch for batch in sound if batch.filled]:
            yield Fetched(filled, self.next_fetch_offset)
        if sound:
            self.next_fetch_offset = sound[-1].next_offset
            yield Passed(self.next_fetch_offset)
        if damaged:  # no error: it would take what was read of other partitions with it
            yield Damaged(self.next_fetch_offset)

    def _sound(self) -> tuple[list[Batch], bool]:
        """The batches up to one that is damaged, and whether there is one."""
        sound: list[Batch] = []
        while self._records.has_next():
            raw = self._records.next_batch()
            if self._check_crcs and not batches.intact(raw):
                return sound, True
            sound.append(Batch.of(raw))
        return sound, False


class PacedFetcher(fetcher.Fetcher):  # type: ignore[misc]
    """Lets records come together at a broker. A fetch asks for every partition and costs milliseconds on either side,
    whether it brings one record or a thousand: one for each record would starve whoever applies them. To let the broker
    wait for more bytes instead costs it a tenth more (docs/decisions/0008).
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._ask_at: dict[int, float] = {}

    async def _proc_fetch_request(self, assignment: Any, node_id: int, request: Any) -> bool:
        try:
            await asyncio.sleep(self._ask_at.get(node_id, 0.0) - time.monotonic())
        except asyncio.CancelledError:  # as the client does it: who closes it waits for this task
            return False
        found = bool(await super()._proc_fetch_request(assignment, node_id, request))
        pause = (LONG_PAUSE_S if self._brought(request) >= MUCH_BYTES else PAUSE_S) if found else 0.0
        self._ask_at[node_id] = time.monotonic() + pause
        return found

    def _brought(self, request: Any) -> int:
        """Bytes that the answer to ``request`` brought."""
        asked = (TopicPartition(topic, at) for topic, partitions in request.topics for at, *_ in partitions)
        answers = (self._records.get(tp) for tp in asked)
        found = (answer for answer in answers if isinstance(answer, fetcher.FetchResult))
        return sum(answer._partition_records._records.size_in_bytes() for answer in found)


class ChunkThread(driver.AIOKafkaConsumerThread):  # type: ignore[misc]
    """The thread that owns the aiokafka consumer; polls often enough that no partition waits for a quiet
    one.
    """

    def _create_worker_consumer(self, transport: Any) -> Any:
        fetcher.PartitionRecords, fetcher.MemoryRecords = ChunkRecords, Batches  # there is no other place for it
        client.Fetcher = PacedFetcher
        consumer = super()._create_worker_consumer(transport)
        consumer._fetch_max_wait_ms, consumer._fetch_min_bytes = LONGEST_WAIT_MS, LEAST_BYTES
        return consumer

    async def _fetch_records(self, consumer: Any, *args: Any, **kwargs: Any) -> Mapping[Any, Any]:
        """What was fetched; nothing if that failed: positions stand, and the next attempt reads the same."""
        try:
            fetched: Mapping[Any, Any] = await super()._fetch_records(consumer, *args, **kwargs)
        except KafkaError as error:
            log.warning("a fetch failed; trying again", why=type(error).__name__)
            await asyncio.sleep(REST_S)
            return {}
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
        pieces = [part for part in parts if not isinstance(part, Passed)]
        records = gathered(pieces)
        chunk = Chunk(tp.topic, tp.partition, self._since.get(tp, _first(records, passed)), records, passed)
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
        tp = TP(first.topic, first.partition)
        return ConsumerMessage(
            tp.topic, tp.partition, first.end - 1, 0.0, 0,
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


def _first(records: Sequence[Any] | Fetched, passed: int) -> int:
    """Where reading of these began at the latest."""
    if isinstance(records, Fetched):
        return records.since
    return int(records[0].offset) if len(records) else passed


class Transport(driver.Transport):  # type: ignore[misc]
    """``govbus://host:port[;govbus://host:port]``."""

    Consumer = ChunkConsumer
