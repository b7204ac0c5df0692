"""The line from a Faust agent to the database: a bounded queue, and one applier that takes all that waits.

While a batch is in the database, the next one is prepared beside it if much waits; with little waiting that
would only make batches small. Decides how chunks coalesce and what happens when applying fails (DESIGN §2.6,
§2.7): the database is away: hold and try again; the consumer skipped records: seek back; anything else: the
process ends. No business decision is made here.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

import sqlalchemy as sa
import structlog

from schemas.clock import wall_clock
from schemas.errors import Retryable
from schemas.topics import Topic
from streams.batches import Fetched, lot, opened
from streams.store import horizon, inflight, quarantine, unfit
from streams.store.applier import Applied, Gap, aside, prepare, sweep
from streams.store.engine import reading, retryable
from streams.store.failure import place
from streams.store.horizon import Clock, Waiting
from streams.store.lot import Lot
from streams.store.projection import Aside, Preparing, Projection
from streams.transport import Chunk

BATCH_RECORDS = 50_000
"""At most; what a batch costs however small it is would be a fifth of 30,000 ratings' cost (docs/decisions/0008)."""
BATCH_BYTES = 32 * 1024 * 1024
"""At most, unless one chunk alone has more: a batch is held several times while it is read."""
AHEAD_BATCHES = 1
AHEAD_RECORDS = 10_000
"""So many must wait before a batch is prepared beside the one that is being applied."""
WAITING_BYTES = 64 * 1024 * 1024
WAITING_RECORDS = 130_000
TIDY_S = 0.5
"""While records come, so often a piece is tidied beside the applying: all that five seconds left, in one piece, held
the alerts up for half a second (docs/decisions/0017)."""
GATHER_RECORDS, GATHER_S = 200, 0.01
"""While little waits, gather for as long as the last transaction took, at most this long: a transaction costs nearly
the same for one record as for a hundred, and the processors are needed elsewhere on the way to the alert."""
TICK_S = 0.25
"""How often a projection with timers is asked."""
END_OFFSETS_S = 2.0
FIRST_WAIT_S, LONGEST_WAIT_S = 0.1, 5.0
log = structlog.get_logger(__name__)
T = TypeVar("T")
Ends = Callable[[str], Awaitable[Mapping[int, int]]]
SeekBack = Callable[[str, Mapping[int, int]], Awaitable[None]]


def contiguous(chunks: Sequence[Chunk]) -> list[list[Chunk]]:
    """Cut ``chunks`` into batches in which every chunk begins where its partition's last one ended."""
    batches: list[list[Chunk]] = []
    ends: dict[int, int] = {}
    for chunk in chunks:
        if not batches or ends.get(chunk.partition, chunk.since) != chunk.since:
            batches.append([])
            ends = {}
        batches[-1].append(chunk)
        ends[chunk.partition] = chunk.end
    return batches


def fitting(topic: Topic, chunks: Sequence[Chunk]) -> tuple[list[Chunk], list[Chunk]]:
    """What of ``chunks`` may be held at once without its compression, unpacked, and what is left of them."""
    plain = deque(opened(topic, [(c.partition, c.records) for c in chunks if isinstance(c.records, Fetched)]))
    fit: list[Chunk] = []
    for n, chunk in enumerate(chunks):
        fetched = chunk.records
        if not isinstance(fetched, Fetched):
            fit.append(chunk)
            continue
        found = [plain.popleft() for _ in fetched.batches[: len(plain)]]
        if len(found) == len(fetched.batches):
            fit.append(replace(chunk, records=replace(fetched, batches=found)))
        elif found:
            first, behind = chunk.cut(fetched, found)
            return [*fit, first], [behind, *chunks[n + 1 :]]
        else:
            return fit, list(chunks[n:])
    return fit, []


@dataclass(slots=True)
class Batch:
    """Chunks that are applied together, and what is being prepared of them."""

    chunks: list[Chunk]
    lot: Lot | None = None
    preparing: asyncio.Future[object] | None = None


class Line:
    """One processor: what waits for it, and the loop that applies it."""

    def __init__(
        self,
        engine: sa.Engine,
        projection: Projection,
        clock: Clock = "wall",
        settle_ms: int = 200,
        wall_ms: Callable[[], int] = wall_clock,
    ) -> None:
        self.projection = projection
        self.committed: dict[int, int] = {}
        self.holding = False
        self._unapplied = 0
        self._engine = engine
        self._clock: Clock = clock
        self._settle_ms = settle_ms
        self._wall_ms = wall_ms
        self._waiting: deque[Chunk] = deque()
        self._records = 0
        self._bytes = 0
        self._batches: deque[list[Chunk]] = deque()
        self._arrived = asyncio.Event()
        self._plenty = asyncio.Event()
        self._room = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=projection.name)
        self._beside = ThreadPoolExecutor(AHEAD_BATCHES, thread_name_prefix=f"{projection.name}-ahead")

    @property
    def ticks(self) -> bool:
        """Whether the projection has timers."""
        return hasattr(self.projection, "tick")

    @property
    def speaks_aside(self) -> bool:
        """Whether the projection speaks beside the applying (``run_aside``)."""
        return isinstance(self.projection, Aside)

    @property
    def idle(self) -> bool:
        """True while all that was handed over is applied: what is behind then has not been handed over."""
        return not self._unapplied and not self.holding

    @property
    def saturated(self) -> bool:
        """True while no more should be fetched for this processor."""
        return self._records >= WAITING_RECORDS or self._bytes >= WAITING_BYTES

    async def put(self, chunk: Chunk) -> None:
        """Queue a chunk; waits while the queue is full."""
        while self.saturated:
            self._room.clear()
            await self._room.wait()
        self._waiting.append(chunk)
        self._records += len(chunk.records)
        self._unapplied += len(chunk.records)
        self._bytes += chunk.size
        self._arrived.set()
        if self._records >= AHEAD_RECORDS:
            self._plenty.set()

    async def run(self, ends: Ends, seek_back: SeekBack) -> None:
        """Apply and, unless much waits, tick for ever. Leaves only by cancellation or an error that waiting
        cannot mend.
        """
        ticked = 0.0
        ahead: deque[Batch] = deque()
        while True:
            batch = ahead.popleft() if ahead else await self._next()
            if batch:
                began = time.monotonic()
                applying = asyncio.create_task(self._apply(batch, seek_back))
                try:
                    await self._look_ahead(ahead, applying)
                    await applying
                finally:
                    applying.cancel()
                self._unapplied -= sum(len(chunk.records) for chunk in batch.chunks)
                if not ahead and self._records < GATHER_RECORDS:
                    await asyncio.sleep(min(time.monotonic() - began, GATHER_S))
            if self.ticks and not ahead and time.monotonic() - ticked >= TICK_S:
                await self._tick(ends)
                ticked = time.monotonic()

    async def run_aside(self) -> None:
        """Let the projection speak in a thread and transactions of its own when nothing waits; while records come, let
        it tidy, piece by piece; neither if very much waits.
        """
        thread = ThreadPoolExecutor(1, thread_name_prefix=f"{self.projection.name}-aside")
        projection: Any = self.projection
        while True:
            await asyncio.sleep(projection.aside_s if self.idle else TIDY_S)
            if not self.idle:
                if self._records < AHEAD_RECORDS:
                    await self._patiently(partial(aside, self._engine, projection.tidy), thread)
                continue
            while await self._patiently(partial(aside, self._engine, projection.speak), thread) and self.idle:
                pass

    async def _next(self) -> Batch | None:
        """What waits, as soon as anything does; None if it is time to tick."""
        if not self._batches:
            await self._something_to_do()
            self._batches.extend(contiguous(self._take()))
        if not self._batches:
            return None
        batch = Batch(await self._unpacked(self._batches.popleft()))
        if inflight.suspects():
            with contextlib.suppress(Retryable):  # applying meets the same, and holds
                batch.lot = await asyncio.to_thread(self._proven, batch.chunks)
        return batch

    async def _unpacked(self, chunks: list[Chunk]) -> list[Chunk]:
        """Those of ``chunks`` that may be held at once, unpacked; what is left comes next."""
        if not any(isinstance(chunk.records, Fetched) and chunk.records.packed for chunk in chunks):
            return chunks
        fit, left = await asyncio.to_thread(fitting, self.projection.topic, chunks)
        if left:
            self._batches.appendleft(left)
        return fit

    def _proven(self, chunks: Sequence[Chunk]) -> Lot:
        found = self._lot(chunks)
        quarantine.prove(found)
        return found

    async def _look_ahead(self, ahead: deque[Batch], applying: asyncio.Task[None]) -> None:
        """Begin to prepare the batches after the one that is being applied, as long as much waits."""
        while isinstance(self.projection, Preparing) and len(ahead) < AHEAD_BATCHES and not applying.done():
            plenty = asyncio.ensure_future(self._plenty.wait())
            if not self._batches:
                await asyncio.wait({applying, plenty}, return_when=asyncio.FIRST_COMPLETED)
            plenty.cancel()
            if (self._batches or self._plenty.is_set()) and (batch := await self._next()):
                batch.preparing = asyncio.get_running_loop().run_in_executor(self._beside, self._prepare, batch)
                ahead.append(batch)

    def _prepare(self, batch: Batch) -> object:
        batch.lot = self._lot(batch.chunks) if batch.lot is None else batch.lot
        return prepare(self.projection, batch.lot) if len(batch.lot) else None

    def _lot(self, chunks: Sequence[Chunk]) -> Lot:
        return lot(self.projection.topic, ((c.partition, c.records) for c in chunks))

    async def _something_to_do(self) -> None:
        try:
            await asyncio.wait_for(self._arrived.wait(), TICK_S if self.ticks else None)
        except TimeoutError:
            return

    def _take(self) -> list[Chunk]:
        taken: list[Chunk] = []
        records = size = 0
        while self._waiting:
            chunk = self._waiting[0]
            more, larger = records + len(chunk.records), size + chunk.size
            if taken and (more > BATCH_RECORDS or larger > BATCH_BYTES):
                break
            records, size = more, larger
            taken.append(self._waiting.popleft())
        self._records -= records
        self._bytes -= size
        if not self._waiting:
            self._arrived.clear()
        if self._records < AHEAD_RECORDS:
            self._plenty.clear()
        self._room.set()
        return taken

    async def _apply(self, batch: Batch, seek_back: SeekBack) -> None:
        chunks = batch.chunks
        prepared = await _prepared(batch)
        lot = batch.lot
        while chunks:
            try:
                applied = await self._patiently(partial(self._apply_now, chunks, lot, prepared))
            except Gap as gap:
                log.warning("records were skipped; seeking back", topic=gap.topic, to=dict(gap.next_offsets))
                chunks = [c for c in chunks if c.partition not in gap.next_offsets]
                lot, prepared = None, None
                await seek_back(gap.topic, gap.next_offsets)
            else:
                self.committed.update(applied.next_offsets)
                return

    def _apply_now(self, chunks: Sequence[Chunk], lot: Lot | None, prepared: object) -> Applied:
        since: dict[int, int] = {}
        for chunk in chunks:
            since.setdefault(chunk.partition, chunk.since)
        until = {chunk.partition: chunk.end for chunk in chunks}
        lot = self._lot(chunks) if lot is None else lot
        return unfit.apply(self._engine, self.projection, lot, since, prepared, until)

    async def _tick(self, ends: Ends) -> None:
        partitions, top = await self._patiently(self._due)
        if not partitions:
            return
        waiting = await self._patiently(self._on_its_way)
        try:
            end_offsets = await asyncio.wait_for(ends(self.projection.topic.name), END_OFFSETS_S)
        except TimeoutError:
            return
        if end_offsets:
            await self._patiently(lambda: self._tick_now(partitions, end_offsets, top, waiting))

    def _due(self) -> tuple[set[int], int]:
        """The partitions worth a look, and the ceiling that no horizon passes. It is read first: what is published
        and sent while the ends are asked for would otherwise lie below it, unseen.
        """
        projection: Any = self.projection
        with reading(self._engine).connect() as tx:
            top = horizon.ceiling(tx, self._clock, self._settle_ms, self._wall_ms())
            return set(projection.due(tx, top)), top

    def _on_its_way(self) -> Waiting:
        with reading(self._engine).connect() as tx:
            return horizon.waiting(tx)

    def _tick_now(self, partitions: set[int], ends: Mapping[int, int], top: int, waiting: Waiting) -> None:
        with reading(self._engine).connect() as tx:
            at = horizon.places(tx, self.projection.name, self.projection.topic)
        due = horizon.horizons(at, ends, sorted(partitions & ends.keys()), top, waiting)
        projection: Any = self.projection
        sweep(self._engine, projection, due, lambda _: not (self._waiting or self._batches))

    async def _patiently(self, step: Callable[[], T], thread: ThreadPoolExecutor | None = None) -> T:
        """Run ``step`` in this line's thread (or ``thread``) until the database takes it; says what it waits for."""
        wait = FIRST_WAIT_S
        while True:
            try:
                loop = asyncio.get_running_loop()
                done = await loop.run_in_executor(thread or self._thread, retryable()(step))
            except Retryable as error:
                self.holding = True
                log.warning("holding", processor=self.projection.name, why=str(error))
                await asyncio.sleep(wait)
                wait = min(wait * 2, LONGEST_WAIT_S)
            else:
                self.holding = False
                return done


async def _prepared(batch: Batch) -> object:
    """What was prepared of ``batch``; None where that failed: applying it meets the same, and finds the record."""
    try:
        return await batch.preparing if batch.preparing else None
    except Exception as error:
        log.warning("preparing failed", where=place(error))
        return None
