"""Applies chunks of the log: records, their effects and the cursor move together, or not at all.

The offset that counts is the cursor's ``next_offset`` (DESIGN §2.2). The fold is a function of the log
alone, so whoever applies a record, once or again, writes the same.

**Gaps.** Offsets of a log are not dense: compaction, deleted prefixes and transaction markers leave holes.
A hole is the log's own if the consumer read across it; it is a loss if the consumer was never there. So a
chunk carries ``since``: the consumer's position before its first record. Everything from ``since`` on that
the log still holds is in the chunk. If ``since`` is above the cursor, records may have been skipped:
``Gap``, nothing is written and the caller seeks back to the cursor. If the first record is above
``since``, the log itself has nothing between (first read of a log whose start was deleted, a compacted
topic): applied. Inbound topics keep their records for ever, so a hole between the cursor and the first
record is logged, and ``reconcile`` names what is missing. A hole that the consumer read across at the end of
the log (``until``) is passed too: else a partition whose last transaction left its marker would never be
caught up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import sqlalchemy as sa
import structlog

from schemas.errors import GovbusError
from schemas.topics import Topic
from streams.store import failpoints, steps
from streams.store.engine import retryable
from streams.store.lot import Ints, Lot
from streams.store.projection import Carried, Preparing, Projection, Ticking

SIDES = 2
"""Transactions beside each other in a sweep: while the one waits for the database, the other judges."""
log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Applied:
    """What one transaction did: where the cursors stand now, how many records it applied and how many it
    knew.
    """

    next_offsets: Mapping[int, int]
    applied: int
    dropped: int


class Gap(GovbusError):
    """The chunk starts above the cursor and the consumer was never at the cursor; seek to
    ``next_offsets``.
    """

    def __init__(self, topic: str, next_offsets: Mapping[int, int]) -> None:
        self.topic = topic
        self.next_offsets = next_offsets
        places = ", ".join(f"{p}@{o}" for p, o in sorted(next_offsets.items()))
        super().__init__(f"{topic}: the chunk starts above the cursor; seek back to {places}")


@retryable()
def apply_batch(
    engine: sa.Engine,
    projection: Projection,
    carried: Sequence[Carried],
    since: Mapping[int, int] | None = None,
    prepared: object = None,
    until: Mapping[int, int] | None = None,
) -> Applied:
    """Apply ``carried`` (one topic, log order within each partition) in one transaction.

    ``since`` gives the consumer's position before the first record, by partition; left out, it is the first
    record's offset. ``until`` gives, by partition, the offset up to which the log holds no other record from
    there on; the cursor goes to it. ``prepared`` is what the projection's ``prepare`` made of ``carried``, if it
    was asked before. Raises ``Gap`` (seek back), ``Retryable`` (the database will come back); all else is a
    fault of the program. In each of these cases nothing was written.
    """
    if not len(carried) and not until:
        return Applied({}, 0, 0)
    with engine.begin() as tx:
        lot = Lot.of(projection.topic, carried)
        applied = _apply(tx, projection, lot, since or {}, prepared, until or {})
    failpoints.reach("apply.after_commit")
    return applied


def tick(engine: sa.Engine, projection: Ticking, partition: int, horizon: int) -> bool:
    """Let ``projection`` act on what became due up to ``horizon`` (epoch ms); True if more is left to do.

    Holds the cursor row, so it never runs beside a chunk of the same partition. Raises ``Retryable``.
    """
    return bool(tick_all(engine, projection, {partition: horizon}))


@retryable()
def aside(engine: sa.Engine, step: Callable[[sa.Connection], bool]) -> bool:
    """Let a projection take one ``step`` (``Aside``) in a transaction of its own beside whatever is being applied; what
    the step answers. Raises ``Retryable``.
    """
    with engine.begin() as tx:
        answer = step(tx)
        failpoints.reach("aside.after_say")
    failpoints.reach("aside.after_commit")
    return answer


@retryable()
def tick_all(engine: sa.Engine, projection: Ticking, horizons: Mapping[int, int]) -> set[int]:
    """``tick`` for several partitions in one transaction; the partitions in which more is left to do."""
    with engine.begin() as tx:
        lock(tx, projection.name, projection.topic, horizons)
        more = {p for p, horizon in sorted(horizons.items()) if projection.tick(tx, p, horizon)}
        steps.take_watermarks(tx)
        failpoints.reach("tick.after_state")
    failpoints.reach("tick.after_commit")
    return more


def sweep(
    engine: sa.Engine, projection: Ticking, horizons: Mapping[int, int], go_on: Callable[[int], bool]
) -> None:
    """``tick_all`` until nothing is left to do or ``go_on(partitions left)`` is false. What the first transaction
    leaves is done in ``SIDES`` threads. Raises ``Retryable``.
    """
    if not horizons or not go_on(len(horizons)):
        return
    left = sorted(tick_all(engine, projection, horizons))
    with ThreadPoolExecutor(SIDES, thread_name_prefix="sweep") as threads:
        while left and go_on(len(left)):
            sides = [left[n::SIDES] for n in range(min(SIDES, len(left)))]
            due = [{p: horizons[p] for p in side} for side in sides]
            tasks = [threads.submit(tick_all, engine, projection, some) for some in due]
            left = sorted(p for task in tasks for p in task.result())


def cursors(tx: sa.Connection, processors: Iterable[str]) -> dict[tuple[str, int], int]:
    """``next_offset`` by (topic, partition) of the processors named."""
    rows = tx.execute(_CURSORS, {"processors": list(processors)})
    return {(topic, partition): next_offset for topic, partition, next_offset in rows}


def prepare(projection: Projection, carried: Sequence[Carried]) -> object:
    """What ``projection`` can do with ``carried`` before the transaction; None if it does all inside."""
    return projection.prepare(carried) if isinstance(projection, Preparing) else None


def _apply(
    tx: sa.Connection,
    projection: Projection,
    lot: Lot,
    since: Mapping[int, int],
    prepared: object,
    until: Mapping[int, int],
) -> Applied:
    steps.take_watermarks(tx)
    first = _first(lot)
    start = {p: since.get(p, end) for p, end in until.items()}
    start |= {p: min(since.get(p, offset), offset) for p, offset in first.items()}
    at = lock(tx, projection.name, projection.topic, start)
    failpoints.reach("apply.after_lock")
    _refuse_gaps(projection.topic, start, at)
    _tell_holes(projection, first, start, at)
    fresh = _above(lot, at)
    if len(fresh):
        _fold(tx, projection, fresh, prepared if fresh is lot else None)
        failpoints.reach("apply.after_state")
    reached = _advance(tx, projection, fresh, at, until)
    if reached != at:
        failpoints.reach("apply.after_cursor")
    return Applied(reached, len(fresh), len(lot) - len(fresh))


def _fold(tx: sa.Connection, projection: Projection, fresh: Lot, prepared: object) -> None:
    if isinstance(projection, Preparing):
        projection.apply_prepared(tx, projection.prepare(fresh) if prepared is None else prepared)
    else:
        projection.apply(tx, list(fresh))


def _first(lot: Lot) -> dict[int, int]:
    """The first offset of every partition."""
    partitions, places = np.unique(lot.partitions, return_index=True)
    return dict(zip(partitions.tolist(), lot.offsets[places].tolist(), strict=True))


def lock(tx: sa.Connection, processor: str, topic: Topic, partitions: Iterable[int]) -> dict[int, int]:
    """Make sure the cursor rows exist, lock them in one order for everybody, and read ``next_offset``."""
    wanted = sorted(partitions)
    names = {"processor": processor, "topic": topic.name, "partitions": wanted}
    rows = tx.execute(_SELECT_LOCKED, names).all()
    if len(rows) < len(wanted):
        tx.execute(_INSERT_MISSING, names)
        rows = tx.execute(_SELECT_LOCKED, names).all()
    return {row.partition: row.next_offset for row in rows}


_CURSORS = sa.text("SELECT topic, partition, next_offset FROM cursor WHERE processor = ANY(:processors)")
_SELECT_LOCKED = sa.text(
    "SELECT partition, next_offset FROM cursor WHERE processor = :processor AND topic = :topic "
    "AND partition = ANY(:partitions) ORDER BY topic, partition FOR UPDATE"
)
_INSERT_MISSING = sa.text(
    "INSERT INTO cursor (processor, topic, partition) SELECT :processor, :topic, p "
    "FROM unnest(CAST(:partitions AS integer[])) AS p ORDER BY p ON CONFLICT DO NOTHING"
)
ADVANCE = sa.text(
    "UPDATE cursor SET next_offset = :next_offset, watermark = greatest(watermark, :watermark) "
    "WHERE processor = :processor AND topic = :topic AND partition = :partition"
)


def _refuse_gaps(topic: Topic, start: Mapping[int, int], at: Mapping[int, int]) -> None:
    behind = {p: at[p] for p, since in start.items() if since > at[p]}
    if behind:
        raise Gap(topic.name, behind)


def _tell_holes(
    projection: Projection, first: Mapping[int, int], start: Mapping[int, int], at: Mapping[int, int]
) -> None:
    for partition, offset in first.items():
        if start[partition] <= at[partition] < offset:
            log.warning(
                "the log holds nothing from the cursor to the first record",
                processor=projection.name,
                topic=projection.topic.name,
                partition=partition,
                cursor=at[partition],
                first=offset,
            )


def _above(lot: Lot, at: Mapping[int, int]) -> Lot:
    """Records at or above the cursor, each offset once, so that a chunk handed over twice is applied once.

    The lot itself if that is all of it.
    """
    fresh = np.ones(len(lot), dtype=np.bool_)
    for partition, next_offset in at.items():
        places = np.flatnonzero(lot.partitions == partition)
        offsets = lot.offsets[places]
        reached = np.maximum.accumulate(np.concatenate(([next_offset - 1], offsets)))
        fresh[places] = offsets > reached[:-1]
    return lot.chosen(fresh)


def _advance(
    tx: sa.Connection, projection: Projection, fresh: Lot, at: Mapping[int, int], until: Mapping[int, int]
) -> dict[int, int]:
    after = {p: _after(fresh.offsets[fresh.partitions == p], o) for p, o in at.items()}
    position = {p: max(offset, until.get(p, 0)) for p, offset in after.items()}
    watermarks = steps.take_watermarks(tx)
    moved = [p for p in position if position[p] != at[p]]
    if not moved:
        return position
    tx.execute(
        ADVANCE,
        [
            {
                "next_offset": position[p],
                "watermark": watermarks.get(p, 0),
                "processor": projection.name,
                "topic": projection.topic.name,
                "partition": p,
            }
            for p in moved
        ],
    )
    return position


def _after(offsets: Ints, next_offset: int) -> int:
    return int(offsets.max()) + 1 if len(offsets) else next_offset
