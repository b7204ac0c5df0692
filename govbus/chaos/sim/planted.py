"""Bugs to plant: each breaks one thing that keeps govbus exact, and the judge must notice within a few seeds.

A bug that nothing can notice is none: to apply known records again, for example, is caught by the ids behind it.
"""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any
from unittest.mock import patch

import sqlalchemy as sa

from connectors import relay
from connectors.province import push
from consumers.alerts import queue
from consumers.loop import Chunk, Loop, Place
from govbus.chaos.sim.schedule import Schedule, Strand
from streams import transport
from streams.store import applier, desk, judge, steps, unfit
from streams.store.applier import Applied
from streams.store.lot import Lot, gathered
from streams.store.tables import push_queue

Plant = Callable[[], AbstractContextManager[Any]]


def _mark_then_send(self: Any, raw: Any, stop: Any) -> int:
    rows = [relay.Unsent(*row) for row in raw.execute(relay._UNSENT, (self._rows, relay.BATCH_BYTES), binary=True)]
    if rows:
        self._mark(raw, [relay.Landed(row.seq, 0, 0) for row in rows])
        self._sender = self._sender or relay.Sender(self._bootstrap)
        self._mark(raw, self._sender.send(rows, stop.is_set))
    return len(rows)


def _cursor_then_effect(self: Loop, chunks: Mapping[Place, Chunk]) -> dict[Place, int]:
    with self.engine.begin() as tx:
        cursors = self._lock(tx, sorted(chunks))
        fresh = [r for p in sorted(chunks) for r in chunks[p].carried if r.offset >= cursors[p]]
        events, refused = steps.decode_rows(fresh)
        self._advance(tx, {p: c for p, c in chunks.items() if c.end > cursors[p]}, events)
    with self.engine.begin() as tx:
        steps.bury(tx, refused)
        self.effect.apply(tx, events)
    return {}


def _cursor_then_state(
    engine: sa.Engine, projection: Any, carried: Any, since: Any = None, *_: Any
) -> Applied:
    lot = Lot.of(projection.topic, carried)
    with engine.begin() as tx:
        first = applier._first(lot)
        start = {p: min((since or {}).get(p, offset), offset) for p, offset in first.items()}
        at = applier.lock(tx, projection.name, projection.topic, start)
        applier._refuse_gaps(projection.topic, start, at)
        fresh = applier._above(lot, at)
        if len(fresh):
            at = applier._advance(tx, projection, fresh, at, {})
    with engine.begin() as tx:
        if len(fresh):
            applier._fold(tx, projection, fresh, None)
    return Applied(at, len(fresh), 0)


def _every_event_is_new(tx: Any, table: Any, events: Sequence[Any], extra: Any) -> list[Any]:
    steps.keep_new(tx, table, events, extra)
    return list(events)


def _where_it_begins(_self: Any, tp: Any, parts: Sequence[Any]) -> Any:
    batch = gathered(parts)
    return transport.Chunk(tp.topic, tp.partition, batch[0].offset, batch)


_REAL_DEAD_ROW, _REAL_FORM = steps._dead_row, push._form_batch


def _random_dead_id(refused: Any) -> dict[str, Any]:
    return {**_REAL_DEAD_ROW(refused), "dead_id": uuid.uuid4()}


def _form_and_forget(tx: sa.Connection, region: str, most: int) -> Any:
    rows = _REAL_FORM(tx, region, most)
    tx.execute(sa.delete(push_queue).where(push_queue.c.event_id.in_([r["event_id"] for r in rows])))
    return rows


def _whom_nobody_seeded(schedule: Schedule) -> Strand | None:
    ready = [s for s in schedule.strands if s.ready(schedule.now)]
    return random.SystemRandom().choice(ready) if ready else None


BUGS: Mapping[str, Plant] = {
    "the relay marks before it sends": lambda: patch.object(relay.Relay, "_forward", _mark_then_send),
    "a consumer's cursor moves before its effect": lambda: patch.object(Loop, "commit", _cursor_then_effect),
    "a worker's cursor moves before the state": lambda: patch.object(unfit, "apply_batch", _cursor_then_state),
    "a repeated case event counts again": lambda: patch.object(judge, "keep_new", _every_event_is_new),
    "gaps are not refused": lambda: patch.object(applier, "_refuse_gaps", lambda *_: None),
    "a chunk forgets where reading began": lambda: patch.object(
        transport.ChunkConsumer, "_chunk", _where_it_begins
    ),
    "dead letters have random ids": lambda: patch.object(steps, "_dead_row", _random_dead_id),
    "the push forgets a batch when it is formed": lambda: patch.object(push, "_form_batch", _form_and_forget),
    "an appeal's decision does not follow its alert to subscribers": lambda: patch.object(
        queue, "_about", lambda record: (record["alert_id"],)
    ),
    "the desk is not told that something changed": lambda: patch.object(desk, "mark", lambda *_: None),
}
"""By name; each must be caught."""
UNSEEDED = "turns by dice that nobody seeded"
"""No bug of govbus, but one of the simulation: a seed would not repeat."""
PLANTED: Mapping[str, Plant] = {
    "nothing": nullcontext, **BUGS, UNSEEDED: lambda: patch.object(Schedule, "_any_ready", _whom_nobody_seeded),
}  # fmt: skip
